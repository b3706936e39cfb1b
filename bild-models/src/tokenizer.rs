use std::{path::Path, sync::Arc};

use bild_core::{Error, Token};

use crate::error::{LoadError, Result};

/// Text to tokens and back, from a `tokenizer.json`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    fingerprint: u64,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Its truncation and padding are left aside: the limits of a generation are in
    /// [`Settings`](bild_core::Settings).
    ///
    /// # Errors
    ///
    /// If the file cannot be read or makes no sense.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(|source| LoadError::Read { path: path.into(), source })?;
        if bytes.is_empty() {
            return Err(broken("it is empty".into()));
        }
        let not_ours = |error| broken(format!("it is not a tokenizer: {error}"));
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(not_ours)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(not_ours)?;
        let mut pieces: Vec<_> = inner.get_vocab(true).into_iter().collect();
        pieces.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let fingerprint = pieces.iter().fold(FNV_OFFSET, |hash, (piece, token)| {
            fnv(fnv(hash, &token.to_le_bytes()), &[piece.as_bytes(), &[0xff]].concat())
        });
        Ok(Self { inner: Arc::new(inner), fingerprint })
    }

    /// The tokens of a text, with those that the tokenizer itself adds (T5: end-of-sequence at the end).
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<Token>, Error> {
        self.inner.encode(text, true).map(|encoding| encoding.get_ids().to_vec()).map_err(Error::model)
    }

    /// The text of tokens, special ones and those that the tokenizer does not know left out.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn decode(&self, tokens: &[Token]) -> Result<String, Error> {
        self.inner.decode(tokens, true).map_err(Error::model)
    }

    /// The piece of text behind a token as the vocabulary writes it, with `▁` for a space.
    pub fn piece(&self, token: Token) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// A number that two tokenizers share if they give the same pieces to the same tokens.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Fowler–Noll–Vo 1a, 64 bits: stable across machines and versions, which std's hasher does not promise.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
