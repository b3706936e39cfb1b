//! SentencePiece Unigram models (`spiece.model`), as T5 and mT5 checkpoints have them.
//!
//! The tokens are exactly those of Google's sentencepiece. The crate `tokenizers` comes close and no further: it matches
//! normalization rules grapheme by grapheme and sums scores in f64, which shows in odd or long texts.

mod added;
mod longest;
mod normalizer;
mod proto;
mod unigram;

use bild_core::Token;
use prost::Message;

use crate::text::tokenizer_config::TokenizerConfig;
use added::{Added, is_space};
use normalizer::Normalizer;
use proto::{Kind, Model};
use unigram::Unigram;

/// The most bytes of a model, of which a piece may take two and twenty times as many in memory; mT5's has 4 MB.
const MOST_BYTES: usize = 16 << 20;

/// The mark that pieces have in the place of a space.
const SPACE: &str = "▁";

#[derive(Debug)]
pub(crate) struct SentencePiece {
    normalizer: Normalizer,
    unigram: Unigram,
    pieces: Vec<(String, Kind)>,
    added: Added,
    /// The piece of each byte, where the model has them.
    bytes: Option<Vec<Token>>,
    unknown: Token,
    end: Token,
    /// Whether every part of a text between added tokens begins a word, as in transformers before it had `legacy: false`.
    legacy: bool,
    /// Whether the text as a whole begins a word, where parts do not.
    begins_word: bool,
    split_special_tokens: bool,
    /// What stands before a part that must begin with a space, because a space that a text begins with is dropped; and how
    /// many tokens it takes.
    before_space: (String, usize),
}

impl SentencePiece {
    /// From the contents of a `spiece.model` and what the files beside it say.
    pub(crate) fn new(model: &[u8], config: &TokenizerConfig) -> Result<Self, String> {
        if model.len() > MOST_BYTES {
            return Err(format!("it has {} bytes, more than any such model", model.len()));
        }
        let mut model = Model::decode(model).map_err(|error| format!("it is not a SentencePiece model: {error}"))?;
        let spec = model.trainer_spec.take().unwrap_or_default();
        match spec.model_type() {
            1 => {}
            2 => return Err("it is a BPE model, those of T5 and mT5 are Unigram".into()),
            other => return Err(format!("it is a model of type {other}, those of T5 and mT5 are Unigram")),
        }
        if spec.treat_whitespace_as_suffix() {
            return Err("it puts spaces behind words, which no T5 does".into());
        }
        let normalizer = Normalizer::new(model.normalizer_spec.take().unwrap_or_default(), &model.pieces)?;
        let unigram = Unigram::new(&model.pieces)?;
        let pieces: Vec<_> = model.pieces.iter().map(|piece| (piece.piece().to_owned(), piece.kind())).collect();
        let find = |wanted: &str| pieces.iter().position(|(piece, _)| piece == wanted).map(|token| token as Token);
        let unknown = pieces.iter().position(|(_, kind)| *kind == Kind::Unknown).ok_or("it has no unknown piece")?;
        let added = Added::new(pieces.iter().map(|(piece, _)| piece.as_str()), config);
        let end = config.role("eos_token").ok_or("no token is named to end a source with (`eos_token`)")?;
        let is_there = find(end).is_some() || config.added.values().any(|added| added.content == end);
        let end = added
            .token(end)
            .filter(|_| is_there)
            .ok_or_else(|| format!("it has no piece {end}, which ends a source of a T5"))?;
        let bytes = if spec.byte_fallback() {
            let bytes: Option<Vec<_>> = (0..=255).map(|byte| find(&format!("<0x{byte:02X}>"))).collect();
            Some(bytes.ok_or("it falls back on bytes and does not have them all")?)
        } else {
            None
        };
        let before_space = config.role("unk_token").unwrap_or("<unk>").to_owned();
        let mut model = Self {
            normalizer,
            unigram,
            pieces,
            added,
            bytes,
            unknown: unknown as Token,
            end,
            legacy: config.legacy,
            begins_word: config.add_prefix_space,
            split_special_tokens: config.split_special_tokens,
            before_space: (String::new(), 0),
        };
        let length = model.segments(&before_space, false).len();
        model.before_space = (before_space, length);
        Ok(model)
    }

    /// The tokens of a text. `ends`: with end-of-sequence after them, unless the text itself says so.
    pub(crate) fn encode(&self, text: &str, ends: bool) -> Vec<Token> {
        let mut text = std::borrow::Cow::Borrowed(text);
        if !self.legacy && !text.is_empty() {
            text = format!("{}{}", if self.begins_word { SPACE } else { "" }, text.replace(SPACE, " ")).into();
        }
        let parts = if self.split_special_tokens { vec![text.into_owned()] } else { self.added.split(&text) };
        let mut tokens = Vec::new();
        for part in parts.iter().filter(|part| !part.is_empty()) {
            match self.added.token(part) {
                Some(token) if !self.split_special_tokens => {
                    // The space that was put there is no word before a special token.
                    if !self.legacy
                        && self.added.is_special(part)
                        && matches!(tokens[..], [token] if self.is_space(token))
                    {
                        tokens.clear();
                    }
                    tokens.push(token);
                }
                _ => tokens.extend(self.encode_part(part)),
            }
        }
        if ends && tokens.last() != Some(&self.end) {
            tokens.push(self.end);
        }
        tokens
    }

    fn is_space(&self, token: Token) -> bool {
        self.piece(token) == Some(SPACE)
    }

    /// The tokens of a text without added tokens.
    fn encode_part(&self, text: &str) -> Vec<Token> {
        let (before, length) = &self.before_space;
        if self.legacy || !text.starts_with([' ', '▁']) {
            return self.segments(text, self.legacy);
        }
        let mut tokens = self.segments(&format!("{before}{text}"), false);
        if tokens.len() >= *length { tokens.split_off(*length) } else { tokens }
    }

    /// As sentencepiece cuts a text.
    fn segments(&self, text: &str, begins_word: bool) -> Vec<Token> {
        let text = self.normalizer.normalize(text, begins_word);
        let mut tokens = Vec::new();
        let mut after_unknown = false;
        for (piece, token) in self.unigram.segments(&text, self.unknown) {
            let is_unknown = token == self.unknown;
            match &self.bytes {
                Some(bytes) if is_unknown => tokens.extend(piece.bytes().map(|byte| bytes[usize::from(byte)])),
                // A run of unknown pieces is one.
                _ if is_unknown && after_unknown => {}
                // A piece that is an added token has that token's number.
                _ => tokens.push(self.added.token(piece).unwrap_or(token)),
            }
            after_unknown = is_unknown;
        }
        tokens
    }

    /// The text of tokens; special ones and those that there are not are left out. Between an added token that is not special
    /// and its neighbours is a space.
    pub(crate) fn decode(&self, tokens: &[Token]) -> String {
        let (mut texts, mut run) = (Vec::new(), Vec::new());
        for &token in tokens {
            match (self.added.content(token), self.pieces.get(token as usize)) {
                (Some(content), _) if self.added.is_special(content) => {}
                (Some(content), _) => {
                    texts.extend(Some(self.decode_run(&run)).filter(|text| !text.is_empty()));
                    texts.push(content.to_owned());
                    run.clear();
                }
                (None, Some((piece, kind))) => run.push((piece.as_str(), *kind)),
                (None, None) => {}
            }
        }
        if !run.is_empty() {
            texts.push(self.decode_run(&run));
        }
        texts.join(" ")
    }

    /// The text of pieces as sentencepiece has it, without white space at its ends.
    fn decode_run(&self, run: &[(&str, Kind)]) -> String {
        let (mut text, mut bytes) = (String::new(), Vec::new());
        for (piece, kind) in run {
            match kind {
                Kind::Control | Kind::Unknown => {}
                Kind::Byte => bytes.extend(piece.get(3..5).and_then(|hex| u8::from_str_radix(hex, 16).ok())),
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    flush(&mut bytes, &mut text);
                    text.push_str(&piece.replace(SPACE, " "));
                }
            }
        }
        flush(&mut bytes, &mut text);
        text.trim_matches(is_space).to_owned()
    }

    /// The piece behind a token, with `▁` for a space.
    pub(crate) fn piece(&self, token: Token) -> Option<&str> {
        let piece = || self.pieces.get(token as usize).map(|(piece, _)| piece.as_str());
        self.added.content(token).or_else(piece)
    }

    /// The token of a piece.
    pub(crate) fn token(&self, piece: &str) -> Option<Token> {
        let base = || self.pieces.iter().position(|(found, _)| found == piece).map(|token| token as Token);
        self.added.token(piece).or_else(base)
    }

    /// Every token with its piece.
    pub(crate) fn vocabulary(&self) -> impl Iterator<Item = (&str, Token)> {
        let base = self.pieces.iter().zip(0..).map(|((piece, _), token)| (piece.as_str(), token));
        base.filter(|(_, token)| self.added.content(*token).is_none()).chain(self.added.iter())
    }
}

/// Appends bytes that were pieces of their own, a � for each that belongs to no character.
fn flush(bytes: &mut Vec<u8>, text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    bytes.clear();
}
