//! Toys whose generations fail, panic, are cancelled or come too late, as their sources say or somebody outside.
#![allow(dead_code)] // each test binary uses its part

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use bild_core::{
    CancelToken, Context, Draft, DraftModel, DraftSession, Drafted, Error, EventStream, Finish, Generator,
    LogitsProcessor, Model, Output, Pair, Pass, Policy, PolicyState, Prefix, Request, Result, Row, Rows, SessionLimit,
    Settings, Source, Start, Token, Verdict, VerifierModel, VerifierSession, Vocabulary,
};
use bild_policies::{BigAlone, Bild, Lossless, Sampling};

use crate::toy::{Toy, ToySession, blend, random};

/// What becomes of a generation: its source says it, as the number of the kind and the pass at which it comes.
const KINDS: Token = 12;
const FAILS: Token = 1;
const PANICS: Token = 2;
const CANCELS: Token = 3;
const POLICY_PANICS: Token = 4;
const LATE: Token = 5;
const BEGIN_FAILS: Token = 6;
const INTERRUPTS: Token = 7;
const PROCESSOR_FAILS: Token = 8;
const PROCESSOR_PANICS: Token = 9;

/// A toy whose sessions fail, panic and cancel as their sources say.
pub(crate) struct Moody {
    toy: Toy,
    cancels: Arc<Mutex<Vec<CancelToken>>>,
}

pub(crate) struct MoodySession {
    inner: ToySession,
    kind: Token,
    passes_left: Token,
    cancel: CancelToken,
}

impl Model for Moody {
    type Session = MoodySession;

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<MoodySession> {
        let [kind, at, number] = source.tokens()[..] else { panic!("three tokens say it") };
        if kind == BEGIN_FAILS {
            return Err(Error::model("it cannot begin"));
        }
        let cancel = self.cancels.lock().unwrap()[number as usize].clone();
        Ok(MoodySession { inner: self.toy.begin(source, limit)?, kind, passes_left: at, cancel })
    }

    fn batch_size(&self) -> usize {
        self.toy.batch_size()
    }
}

impl MoodySession {
    fn mood(&mut self) -> Result<()> {
        self.passes_left = self.passes_left.wrapping_sub(1);
        match self.kind {
            FAILS if self.passes_left == 0 => Err(Error::model("it fails")),
            PANICS if self.passes_left == 0 => panic!("it panics"),
            CANCELS if self.passes_left == 0 => {
                self.cancel.cancel();
                Ok(())
            }
            // As a model that finds its deadline passed.
            INTERRUPTS if self.passes_left == 0 => Err(Error::Interrupted(Finish::Deadline)),
            _ => Ok(()),
        }
    }
}

impl DraftSession for MoodySession {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.mood()?;
        self.inner.propose(pass)
    }
}

impl VerifierSession for MoodySession {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.mood()?;
        self.inner.score(pass)
    }
}

impl DraftModel for Moody {}

impl VerifierModel for Moody {
    fn vocabulary(&self) -> &Vocabulary {
        self.toy.vocabulary()
    }
}

/// Panics at the third verdict.
#[derive(Debug)]
struct Panicking;

impl Policy for Panicking {
    fn begin(&self, _: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(PanickingState(0))
    }
}

struct PanickingState(usize);

impl PolicyState for PanickingState {
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        if at.drafts.len() < 2 { Draft::Keep(row.argmax) } else { Draft::FallBack }
    }

    fn verified(&mut self, _: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        self.0 += 1;
        assert!(self.0 < 3, "the policy panics");
        Verdict::first_refused(drafts, rows, |draft, row| draft.token != row.argmax)
    }
}

/// Makes NaN, or panics, where so many tokens stand.
#[derive(Debug)]
struct Faulty {
    panics: bool,
    at: usize,
}

impl LogitsProcessor for Faulty {
    fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
        if prefix.tokens.len() == self.at {
            assert!(!self.panics, "the processor panics");
            logits[0] = f32::NAN;
        }
    }
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

pub(crate) fn request(number: usize, random: &mut Random) -> Request {
    let (kind, at) = (random.below(KINDS.into()) as Token, 1 + random.below(6) as Token);
    let settings = Settings::default().with_max_new_tokens(1 + random.below(20) as usize).with_trace(true);
    let settings = match kind {
        LATE => settings.with_deadline(Duration::ZERO),
        PROCESSOR_FAILS | PROCESSOR_PANICS => {
            settings.with_processor(Faulty { panics: kind == PROCESSOR_PANICS, at: at as usize })
        }
        _ => settings,
    };
    let request = Request::new(Source::new([kind, at, number as Token])).with_settings(settings);
    let request = request.with_seed(random.below(1000));
    if kind == POLICY_PANICS {
        return request.with_policy(Panicking);
    }
    let few = NonZeroUsize::new(1 + random.below(5) as usize);
    match random.below(5) {
        0 => request.with_policy(Bild::new(0.3, 1.0).unwrap()),
        1 => request.with_policy(Lossless::default().with_max_draft(few)),
        2 => request.with_policy(Sampling::new(1.0).unwrap().with_max_draft(few)),
        3 => request.with_policy(BigAlone {}),
        _ => request,
    }
}

/// All that is the same whenever it is done.
pub(crate) fn content(output: Result<Output>) -> String {
    match output {
        Ok(mut output) => {
            let statistics = &mut output.statistics;
            for time in [
                &mut statistics.encode_time,
                &mut statistics.draft_time,
                &mut statistics.verifier_time,
                &mut statistics.total_time,
            ] {
                *time = Duration::ZERO;
            }
            format!("{output:?}")
        }
        Err(error) => error.to_string(),
    }
}

pub(crate) fn cancels(count: usize) -> Arc<Mutex<Vec<CancelToken>>> {
    Arc::new(Mutex::new((0..count).map(|_| CancelToken::default()).collect()))
}

/// A generator whose sources say what becomes of them, with a token each to cancel them by, and which takes so many together.
pub(crate) fn generator(
    seed: u64,
    cancels: &Arc<Mutex<Vec<CancelToken>>>,
    batch_size: usize,
) -> Generator<(Moody, Moody)> {
    let big = random(seed, 6.0);
    let little = blend(big.clone(), random(seed + 99, 6.0), 0.4);
    let toy = |logits| Toy::new(&Arc::default(), logits).with_batch_size(batch_size);
    let moody = |logits| Moody { toy: toy(logits), cancels: cancels.clone() };
    Generator::new((moody(little), moody(big)), Lossless::default()).unwrap()
}

/// A request with the token to cancel it by.
pub(crate) fn cancelled(number: usize, requests: &[Request], by: &Mutex<Vec<CancelToken>>) -> Request {
    requests[number].clone().with_cancel(by.lock().unwrap()[number].clone())
}

/// What becomes of each alone.
pub(crate) fn alone(seed: u64, requests: &[Request]) -> Vec<String> {
    let own = cancels(requests.len());
    let alone = generator(seed, &own, 1);
    let numbers = 0..requests.len();
    let ended = numbers.map(|number| {
        content(bild_core::caught(|| alone.stream(cancelled(number, requests, &own)).and_then(EventStream::finish)))
    });
    ended.collect()
}

/// Requests of which `cancel` ends the second, and a deadline the third.
pub(crate) fn from_outside(cancel: &CancelToken) -> [Request; 4] {
    let short = Settings::default().with_max_new_tokens(24).with_end_tokens([]);
    let endless = short.clone().with_max_new_tokens(60_000);
    let late = endless.clone().with_deadline(Duration::from_millis(20));
    let request = |settings| Request::new(Source::new([2])).with_settings(settings);
    [short.clone(), endless.with_cancel(cancel.clone()), late, short].map(request)
}

/// Checks that they ended so, each with what the generator writes alone, as far as it came.
pub(crate) fn check_from_outside<P: Pair>(found: &[Output], alone: &Generator<P>) {
    let finishes: Vec<_> = found.iter().map(|output| output.finish).collect();
    assert_eq!(finishes, [Finish::MaxNewTokens, Finish::Cancelled, Finish::Deadline, Finish::MaxNewTokens]);
    let longest = found.iter().map(|output| output.tokens.len()).max().unwrap();
    let settings = Settings::default().with_max_new_tokens(longest).with_end_tokens([]);
    let alone = alone.generate(Request::new(Source::new([2])).with_settings(settings)).unwrap();
    for output in found {
        assert!(alone.tokens.starts_with(&output.tokens), "{:?} of {:?}", output.tokens, alone.tokens);
    }
}
