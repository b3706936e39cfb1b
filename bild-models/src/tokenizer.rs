use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use bild_core::{Error, Pieces, Token};
use serde_json::Value;

use crate::{
    checkpoint::{read_file, read_json},
    error::{LoadError, Result},
    sentencepiece::{SentencePiece, Settings},
};

/// Text to tokens and back, from a `tokenizer.json` or a `spiece.model`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    fingerprint: u64,
}

#[derive(Debug)]
enum Inner {
    Json(Box<tokenizers::Tokenizer>),
    SentencePiece(Box<SentencePiece>),
}

impl Tokenizer {
    /// Reads a `tokenizer.json` or, if the name ends in `.model`, a Unigram model of SentencePiece with the added tokens
    /// of the `tokenizer_config.json` and `added_tokens.json` beside it, where there are any.
    ///
    /// Truncation and padding are left aside: the limits of a generation are in [`Settings`](bild_core::Settings).
    ///
    /// # Errors
    ///
    /// If a file cannot be read or makes no sense.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
        let bytes = read_file(path)?;
        let inner = if path.extension().is_some_and(|ending| ending == "model") {
            let beside = |name| {
                let path = path.with_file_name(name);
                if path.exists() { read_json(&path) } else { Ok(Value::Null) }
            };
            let (config, added) = (beside("tokenizer_config.json")?, beside("added_tokens.json")?);
            let settings = Settings { config: &config, added: &added };
            Inner::SentencePiece(Box::new(SentencePiece::new(&bytes, &settings).map_err(broken)?))
        } else {
            let inner = without_panic(|| {
                let mut inner = tokenizers::Tokenizer::from_bytes(bytes)?;
                inner.with_padding(None);
                inner.with_truncation(None)?;
                Ok(inner)
            });
            Inner::Json(Box::new(inner.map_err(|error| broken(format!("it is not a tokenizer: {error}")))?))
        };
        Ok(Self { fingerprint: inner.fingerprint(), inner: Arc::new(inner) })
    }

    /// The tokens of a text, with those that the tokenizer itself adds (T5: end-of-sequence at the end).
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<Token>, Error> {
        match &*self.inner {
            Inner::Json(inner) => {
                without_panic(|| inner.encode(text, true)).map(|e| e.get_ids().to_vec()).map_err(Error::model)
            }
            Inner::SentencePiece(inner) => Ok(inner.encode(text)),
        }
    }

    /// The text of tokens, special ones and those that the tokenizer does not know left out.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn decode(&self, tokens: &[Token]) -> Result<String, Error> {
        match &*self.inner {
            Inner::Json(inner) => without_panic(|| inner.decode(tokens, true)).map_err(Error::model),
            Inner::SentencePiece(inner) => Ok(inner.decode(tokens)),
        }
    }

    /// The piece of text behind a token as the vocabulary writes it, with `▁` for a space.
    pub fn piece(&self, token: Token) -> Option<String> {
        match &*self.inner {
            Inner::Json(inner) => inner.id_to_token(token),
            Inner::SentencePiece(inner) => inner.piece(token).map(str::to_owned),
        }
    }

    /// All its pieces, for two tokenizers to be compared.
    pub(crate) fn pieces(&self) -> Pieces {
        let tokenizer = self.clone();
        Pieces::new(self.fingerprint, move |token| tokenizer.piece(token))
    }
}

impl Inner {
    fn fingerprint(&self) -> u64 {
        let mut pieces: Vec<(Token, String)> = match self {
            Self::Json(inner) => inner.get_vocab(true).into_iter().map(|(piece, token)| (token, piece)).collect(),
            Self::SentencePiece(inner) => inner.vocabulary().map(|(piece, token)| (token, piece.to_owned())).collect(),
        };
        pieces.sort_unstable();
        pieces.iter().fold(FNV_OFFSET, |hash, (token, piece)| {
            fnv(fnv(hash, &token.to_le_bytes()), &[piece.as_bytes(), &[0xff]].concat())
        })
    }
}

/// Calls into the crate `tokenizers`, which panics on some files that make no sense.
fn without_panic<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    // What a panic leaves behind is dropped, or a tokenizer that does not change.
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err("the file makes no sense in a way that went unnoticed".into()))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Fowler–Noll–Vo 1a, 64 bits: stable across machines and versions, which std's hasher does not promise.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
