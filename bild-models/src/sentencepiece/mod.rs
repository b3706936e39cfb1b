//! SentencePiece Unigram models (`spiece.model`), as T5 and mT5 checkpoints have them.
//!
//! The tokens are exactly those of Google's sentencepiece. The crate `tokenizers` comes close and no further: it matches
//! normalization rules grapheme by grapheme and sums scores in f64, which shows in odd or long texts.

mod normalizer;
mod proto;
mod unigram;

use std::collections::HashMap;

use bild_core::Token;
use prost::Message;
use serde_json::Value;

use normalizer::Normalizer;
use proto::{Kind, Model};
use unigram::Unigram;

/// The mark that pieces have in the place of a space.
const SPACE: &str = "▁";

/// What a checkpoint says of its tokenizer beside the model: `tokenizer_config.json` and `added_tokens.json`, null where
/// there is none.
pub(crate) struct Settings<'a> {
    pub(crate) config: &'a Value,
    pub(crate) added: &'a Value,
}

#[derive(Debug)]
pub(crate) struct SentencePiece {
    normalizer: Normalizer,
    unigram: Unigram,
    pieces: Vec<(String, Kind)>,
    /// Tokens that are found in a text before anything else, longest first, and whether decoding leaves them out.
    added: Vec<(String, Token, bool)>,
    added_by_token: HashMap<Token, usize>,
    /// The piece of each byte, where the model has them.
    bytes: Option<Vec<Token>>,
    unknown: Token,
    end: Token,
    /// Whether the text after an added token begins a word, as in transformers before it had `legacy: false`.
    legacy: bool,
}

impl SentencePiece {
    /// From the contents of a `spiece.model`.
    pub(crate) fn new(model: &[u8], settings: &Settings<'_>) -> Result<Self, String> {
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
        let end = find("</s>").ok_or("it has no piece </s>, which ends a source of a T5")?;
        let bytes = if spec.byte_fallback() {
            let bytes: Option<Vec<_>> = (0..=255).map(|byte| find(&format!("<0x{byte:02X}>"))).collect();
            Some(bytes.ok_or("it falls back on bytes and does not have them all")?)
        } else {
            None
        };
        let added = added(&pieces, settings)?;
        let added_by_token = added.iter().enumerate().map(|(at, &(_, token, _))| (token, at)).collect();
        let legacy = settings.config.get("legacy").and_then(Value::as_bool).unwrap_or(true);
        Ok(Self { normalizer, unigram, pieces, added, added_by_token, bytes, unknown: unknown as Token, end, legacy })
    }

    /// The tokens of a text, with end-of-sequence after them.
    pub(crate) fn encode(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let (mut begin, mut at) = (0, 0);
        while at < text.len() {
            if let Some((content, token, _)) = self.added.iter().find(|(content, ..)| text[at..].starts_with(content)) {
                self.encode_part(&text[begin..at], begin == 0, &mut tokens);
                tokens.push(*token);
                at += content.len();
                begin = at;
            } else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        self.encode_part(&text[begin..], begin == 0, &mut tokens);
        tokens.push(self.end);
        tokens
    }

    /// Appends the tokens of a text without added tokens.
    fn encode_part(&self, text: &str, first: bool, tokens: &mut Vec<Token>) {
        let begins_word = first || self.legacy || text.starts_with(char::is_whitespace);
        let text = self.normalizer.normalize(text, begins_word);
        let mut after_unknown = false;
        for (piece, token) in self.unigram.segments(&text, self.unknown) {
            let is_unknown = token == self.unknown;
            match &self.bytes {
                Some(bytes) if is_unknown => tokens.extend(piece.bytes().map(|byte| bytes[usize::from(byte)])),
                // A run of unknown pieces is one.
                _ if is_unknown && after_unknown => {}
                _ => tokens.push(token),
            }
            after_unknown = is_unknown;
        }
    }

    /// The text of tokens; special ones and those that there are not are left out.
    pub(crate) fn decode(&self, tokens: &[Token]) -> String {
        let (mut text, mut bytes) = (String::new(), Vec::new());
        let mut first = true;
        for &token in tokens {
            if let Some(&at) = self.added_by_token.get(&token) {
                let (content, _, special) = &self.added[at];
                if !special {
                    flush(&mut bytes, &mut text);
                    text.push_str(content);
                }
                continue;
            }
            let Some((piece, kind)) = self.pieces.get(token as usize) else { continue };
            match kind {
                Kind::Control | Kind::Unknown => {}
                Kind::Byte => bytes.extend(piece.get(3..5).and_then(|hex| u8::from_str_radix(hex, 16).ok())),
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    flush(&mut bytes, &mut text);
                    // The space that a text begins with was put there; where spaces collapse, so were all of them.
                    let begins = text.is_empty() && (first || self.normalizer.collapses_spaces());
                    let piece = if begins { piece.strip_prefix(SPACE).unwrap_or(piece) } else { piece };
                    first = false;
                    text.push_str(&piece.replace(SPACE, " "));
                }
            }
        }
        flush(&mut bytes, &mut text);
        text
    }

    /// The piece behind a token, with `▁` for a space.
    pub(crate) fn piece(&self, token: Token) -> Option<&str> {
        match self.added_by_token.get(&token) {
            Some(&at) => Some(&self.added[at].0),
            None => self.pieces.get(token as usize).map(|(piece, _)| piece.as_str()),
        }
    }

    /// Every token with its piece.
    pub(crate) fn vocabulary(&self) -> impl Iterator<Item = (&str, Token)> {
        let base = self.pieces.iter().enumerate().map(|(token, (piece, _))| (piece.as_str(), token as Token));
        let is_base = |token: Token| (token as usize) < self.pieces.len();
        base.chain(
            self.added.iter().filter(move |a| !is_base(a.1)).map(|(content, token, _)| (content.as_str(), *token)),
        )
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

/// The tokens that transformers finds in a text before it asks SentencePiece: the special ones, the sentinels
/// `<extra_id_0>` and on, which lie behind the pieces from the highest token down, and those a checkpoint has added.
fn added(pieces: &[(String, Kind)], settings: &Settings<'_>) -> Result<Vec<(String, Token, bool)>, String> {
    const SENTINELS: u64 = 100;
    let mut added: HashMap<Token, (String, bool)> = HashMap::new();
    for (token, (piece, kind)) in pieces.iter().enumerate() {
        if matches!(kind, Kind::Control | Kind::Unknown) {
            added.insert(token as Token, (piece.clone(), true));
        }
    }
    let token = |number: Option<u64>| {
        let token = number.and_then(|number| Token::try_from(number).ok());
        token.ok_or("its added tokens have numbers that are not tokens")
    };
    if let Some(decoder) = settings.config.get("added_tokens_decoder").and_then(Value::as_object) {
        for (number, entry) in decoder {
            let Some(content) = entry.get("content").and_then(Value::as_str) else { continue };
            let special = entry.get("special").and_then(Value::as_bool).unwrap_or(false);
            added.insert(token(number.parse().ok())?, (content.into(), special));
        }
    } else {
        let count = settings.config.get("extra_ids").map_or(Some(SENTINELS), Value::as_u64);
        let count = count.filter(|&count| count <= 10_000).ok_or("`extra_ids` is not a number of sentinel tokens")?;
        for i in 0..count {
            let token = pieces.len() as u64 + count - 1 - i;
            added.insert(token as Token, (format!("<extra_id_{i}>"), true));
        }
        for (content, number) in settings.added.as_object().into_iter().flatten() {
            added.entry(token(number.as_u64())?).or_insert((content.clone(), false));
        }
    }
    let mut added: Vec<_> = added.into_iter().map(|(token, (content, special))| (content, token, special)).collect();
    added.retain(|(content, ..)| !content.is_empty());
    added.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.1.cmp(&b.1)));
    Ok(added)
}
