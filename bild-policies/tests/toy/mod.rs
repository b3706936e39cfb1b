//! Models that are a function from what was generated to logits, and that write down every call.
#![allow(dead_code)] // each test binary uses its part

use std::sync::{Arc, Mutex};

use bild_core::{
    DraftModel, DraftSession, Error, Generator, Model, Output, Pass, Pieces, Policy, Result, Row, Rows, SessionLimit,
    Settings, Source, Token, VerifierModel, VerifierSession, Vocabulary, Want,
};

pub const START: Token = 0;
pub const END: Token = 1;
pub const VOCABULARY: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The draft model was given these tokens.
    Propose(Vec<Token>),
    /// The verifier was given these tokens.
    Score(Vec<Token>),
}

pub type Logits = Arc<dyn Fn(&[Token]) -> Vec<f32> + Send + Sync>;

pub struct Toy {
    logits: Logits,
    calls: Arc<Mutex<Vec<Call>>>,
    vocabulary: Vocabulary,
    batch_size: usize,
}

pub struct ToySession {
    logits: Logits,
    calls: Arc<Mutex<Vec<Call>>>,
    tokens: Vec<Token>,
    limit: usize,
}

impl Toy {
    pub fn new(calls: &Arc<Mutex<Vec<Call>>>, logits: Logits) -> Self {
        let vocabulary = Vocabulary::new(VOCABULARY, START, [END]);
        Self { logits, calls: calls.clone(), vocabulary, batch_size: 1 }
    }

    /// Sets for how many sessions it says that it is quicker together.
    pub fn with_batch_size(mut self, sessions: usize) -> Self {
        self.batch_size = sessions;
        self
    }

    pub fn set_pieces(&mut self, pieces: Option<Pieces>) {
        self.vocabulary.pieces = pieces;
    }

    fn session(&self, limit: usize) -> ToySession {
        ToySession { logits: self.logits.clone(), calls: self.calls.clone(), tokens: Vec::new(), limit }
    }
}

impl ToySession {
    /// The rows after each of `new`.
    fn take_in(&mut self, new: &[Token], want: Want) -> Result<Vec<Row>> {
        let first = self.tokens.len();
        assert!(!new.is_empty(), "a pass without tokens");
        assert!(first > 0 || new[0] == START, "the first token is the start token");
        self.tokens.extend_from_slice(new);
        assert!(self.tokens.len() <= self.limit, "{} tokens, announced were {}", self.tokens.len(), self.limit);
        let row = |i: usize| {
            let generated = &self.tokens[1..first + i + 1];
            Row::from_logits(&(self.logits)(generated), want, new.get(i + 1).copied())
        };
        (0..new.len()).map(row).collect()
    }
}

impl Model for Toy {
    type Session = ToySession;

    fn begin(&self, _source: &Source, limit: &SessionLimit) -> Result<ToySession> {
        Ok(self.session(limit.tokens))
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }
}

impl DraftModel for Toy {
    fn speaks(&self) -> Option<&Vocabulary> {
        Some(&self.vocabulary)
    }
}

impl VerifierModel for Toy {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

impl DraftSession for ToySession {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.calls.lock().unwrap().push(Call::Propose(pass.new.to_vec()));
        self.tokens.truncate(pass.keep);
        Ok(self.take_in(pass.new, pass.want)?.pop().into())
    }
}

impl VerifierSession for ToySession {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.calls.lock().unwrap().push(Call::Score(pass.new.to_vec()));
        self.tokens.truncate(pass.keep);
        self.take_in(pass.new, pass.want).map(Rows::from)
    }
}

/// A distribution that gives `p` to `token` and shares the rest equally.
pub fn peaked(token: Token, p: f32) -> Vec<f32> {
    let rest = (1.0 - p) / (VOCABULARY - 1) as f32;
    (0..VOCABULARY as Token).map(|t| if t == token { p.ln() } else { rest.ln() }).collect()
}

/// A model that says `script[i]` at position i whatever stands before, with that probability, and end-of-sequence after
/// the script.
pub fn scripted(script: &[(Token, f32)]) -> Logits {
    let script = script.to_vec();
    Arc::new(move |generated| {
        let (token, p) = script.get(generated.len()).copied().unwrap_or((END, 0.9));
        peaked(token, p)
    })
}

/// Random logits that depend on everything generated so far; models with the same seed are the same.
pub fn random(seed: u64, sharpness: f32) -> Logits {
    Arc::new(move |generated| {
        let mut state = generated.iter().fold(seed, |s, &t| mix(s ^ (u64::from(t) + 1)));
        let mut next = || {
            state = mix(state);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..VOCABULARY).map(|_| next() * sharpness).collect()
    })
}

/// A model that mostly agrees with another.
pub fn blend(big: Logits, other: Logits, weight: f32) -> Logits {
    Arc::new(move |generated| {
        let (a, b) = (big(generated), other(generated));
        a.iter().zip(b).map(|(a, b)| a + weight * b).collect()
    })
}

pub fn mix(x: u64) -> u64 {
    // The finalizer of SplitMix64.
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Decodes, and returns what came out with every call that was made.
pub fn decode(
    draft: Logits,
    verifier: Logits,
    policy: impl Policy + 'static,
    settings: Settings,
) -> Result<(Output, Vec<Call>), Error> {
    let calls = Arc::default();
    let pair = (Toy::new(&calls, draft), Toy::new(&calls, verifier));
    let output =
        Generator::new(pair, policy)?.with_settings(settings.with_trace(true)).generate(Source::new([2, 1]))?;
    let calls = calls.lock().unwrap().clone();
    Ok((output, calls))
}
