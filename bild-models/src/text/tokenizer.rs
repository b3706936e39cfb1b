use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use bild_core::{Encode, Error, Pieces, Token};
use tokenizers::{AddedToken, ModelWrapper};

#[cfg(feature = "sentencepiece")]
use super::sentencepiece::SentencePiece;
use super::{
    cleanup::{clean_up, settled},
    panics::caught_quietly,
    tokenizer_config::{TokenizerConfig, is_sentinel, sentinel},
    vetted::vet,
};
use crate::{
    error::{LoadError, Result},
    files::{Folder, without_byte_order_mark},
};

/// Text to tokens and back, from a `tokenizer.json` or a `spiece.model`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    fingerprint: u64,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    model: Model,
    /// Whether decoded text is cleaned up.
    cleans_up: bool,
}

#[derive(Debug)]
enum Model {
    Json(Box<tokenizers::Tokenizer>),
    #[cfg(feature = "sentencepiece")]
    SentencePiece(Box<SentencePiece>),
}

impl Encode for Tokenizer {
    fn encode_plain(&self, text: &str) -> Result<Vec<Token>, Error> {
        self.tokens(text, false)
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json` or, if the name ends in `.model`, a Unigram model of SentencePiece; and what the files
    /// beside it say of added and special tokens and of decoded text: `tokenizer_config.json`, `special_tokens_map.json`
    /// and `added_tokens.json`, where there are any.
    ///
    /// Truncation and padding are left aside: the limits of a generation are in [`Settings`](bild_core::Settings).
    ///
    /// # Errors
    ///
    /// If a file cannot be read or makes no sense.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::open_in(&Folder::Directory(folder.into()), &name)
    }

    /// As [`open`](Self::open), of the file of this name.
    pub(crate) fn open_in(folder: &Folder, name: &str) -> Result<Self> {
        let file = folder.file(name);
        let path = file.path();
        let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
        let bytes = file.read()?;
        let config = TokenizerConfig::in_folder(folder)?;
        let (model, is_bpe) = if path.extension().is_some_and(|ending| ending == "model") {
            (sentencepiece(&bytes, &config).map_err(broken)?, false)
        } else {
            vet(&bytes, config.tokens()).map_err(broken)?;
            let inner = without_panic(|| json(without_byte_order_mark(&bytes), &config));
            let inner = inner.map_err(|reason| broken(format!("it is not a tokenizer: {reason}")))?;
            let is_bpe = matches!(inner.get_model(), ModelWrapper::BPE(_));
            (Model::Json(Box::new(inner)), is_bpe)
        };
        let cleans_up = config.clean_up && (config.clean_up_bpe || !is_bpe);
        Ok(Self { fingerprint: model.fingerprint(), inner: Arc::new(Inner { path: path.into(), model, cleans_up }) })
    }

    /// The tokens of a text, with those that the tokenizer itself adds (T5: end-of-sequence at the end).
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<Token>, Error> {
        self.tokens(text, true)
    }

    /// The tokens of a text alone, without those that the tokenizer adds: what a phrase is in the middle of an output, as
    /// far as its first token can say that it begins a word.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<Token>, Error> {
        self.tokens(text, false)
    }

    fn tokens(&self, text: &str, with_added: bool) -> Result<Vec<Token>, Error> {
        match &self.inner.model {
            Model::Json(inner) => {
                let encoding = without_panic(|| inner.encode(text, with_added));
                encoding.map(|encoding| encoding.get_ids().to_vec()).map_err(|reason| {
                    let beginning: String = text.chars().take(SHOWN).collect();
                    self.failed(&format!("a text that begins with {beginning:?}"), &reason)
                })
            }
            #[cfg(feature = "sentencepiece")]
            Model::SentencePiece(inner) => Ok(inner.encode(text, with_added)),
        }
    }

    /// The text of tokens, special ones and those that the tokenizer does not know left out.
    ///
    /// # Errors
    ///
    /// If the tokenizer fails.
    pub fn decode(&self, tokens: &[Token]) -> Result<String, Error> {
        let text = self.decode_raw(tokens)?;
        Ok(if self.inner.cleans_up { clean_up(&text) } else { text })
    }

    /// The beginning of the text of tokens, as far as no token that follows changes it: without white space and half
    /// characters at its end, and what clean-up may yet change. A decoder of another kind may change more.
    pub(crate) fn decode_settled(&self, tokens: &[Token]) -> Result<String, Error> {
        let mut text = self.decode_raw(&tokens[..tokens.len() - self.open_bytes(tokens)])?;
        text.truncate(text.trim_end_matches(|c: char| c == char::REPLACEMENT_CHARACTER || c.is_whitespace()).len());
        Ok(if self.inner.cleans_up { clean_up(settled(&text)) } else { text })
    }

    /// How many tokens at the end are a run of bytes that may go on. The crate `tokenizers` makes characters of a run as a
    /// whole, or of none of its bytes.
    fn open_bytes(&self, tokens: &[Token]) -> usize {
        #[cfg_attr(not(feature = "sentencepiece"), allow(irrefutable_let_patterns))]
        let Model::Json(inner) = &self.inner.model else { return 0 };
        let is_byte = |piece: &str| piece.len() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
        let is_special = |piece: &str| inner.get_added_vocabulary().is_special_token(piece);
        let in_run =
            |token: &&Token| inner.id_to_token(**token).is_none_or(|piece| is_byte(&piece) || is_special(&piece));
        tokens.iter().rev().take_while(in_run).count()
    }

    fn decode_raw(&self, tokens: &[Token]) -> Result<String, Error> {
        match &self.inner.model {
            Model::Json(inner) => without_panic(|| inner.decode(tokens, true)).map_err(|reason| {
                let beginning = &tokens[..tokens.len().min(SHOWN)];
                self.failed(&format!("tokens that begin with {beginning:?}"), &reason)
            }),
            #[cfg(feature = "sentencepiece")]
            Model::SentencePiece(inner) => Ok(inner.decode(tokens)),
        }
    }

    fn failed(&self, at: &str, reason: &str) -> Error {
        Error::model(format!("the tokenizer {} fails at {at}: {reason}", self.inner.path.display()))
    }

    /// The piece of text behind a token as the vocabulary writes it, with `▁` for a space.
    pub fn piece(&self, token: Token) -> Option<String> {
        match &self.inner.model {
            Model::Json(inner) => inner.id_to_token(token),
            #[cfg(feature = "sentencepiece")]
            Model::SentencePiece(inner) => inner.piece(token).map(str::to_owned),
        }
    }

    /// The token of a piece, written as the vocabulary writes it: the other way round from [`piece`](Self::piece).
    pub fn token(&self, piece: &str) -> Option<Token> {
        match &self.inner.model {
            Model::Json(inner) => inner.token_to_id(piece),
            #[cfg(feature = "sentencepiece")]
            Model::SentencePiece(inner) => inner.token(piece),
        }
    }

    /// All its pieces, for two tokenizers to be compared.
    pub(crate) fn pieces(&self) -> Pieces {
        let tokenizer = self.clone();
        Pieces::new(self.fingerprint, move |token| tokenizer.piece(token))
    }
}

impl Model {
    fn fingerprint(&self) -> u64 {
        let mut pieces: Vec<(Token, String)> = match self {
            Self::Json(inner) => inner.get_vocab(true).into_iter().map(|(piece, token)| (token, piece)).collect(),
            #[cfg(feature = "sentencepiece")]
            Self::SentencePiece(inner) => inner.vocabulary().map(|(piece, token)| (token, piece.to_owned())).collect(),
        };
        pieces.sort_unstable();
        pieces.iter().fold(FNV_OFFSET, |hash, (token, piece)| {
            fnv(fnv(hash, &token.to_le_bytes()), &[piece.as_bytes(), &[0xff]].concat())
        })
    }
}

/// How many characters or tokens of an input that fails are shown.
const SHOWN: usize = 40;

#[cfg(feature = "sentencepiece")]
fn sentencepiece(bytes: &[u8], config: &TokenizerConfig) -> Result<Model, String> {
    Ok(Model::SentencePiece(Box::new(SentencePiece::new(bytes, config)?)))
}

#[cfg(not(feature = "sentencepiece"))]
fn sentencepiece(_bytes: &[u8], _config: &TokenizerConfig) -> Result<Model, String> {
    Err("this program was built without the feature `sentencepiece`, which reads it".into())
}

/// A `tokenizer.json`, with the tokens that the files beside it add or make special.
fn json(bytes: &[u8], config: &TokenizerConfig) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None)?;
    tokenizer.set_encode_special_tokens(config.split_special_tokens);

    let mut named: Vec<AddedToken> = config.named().cloned().collect();
    if config.is_t5 && !named.iter().any(is_sentinel) {
        named.extend((0..config.extra_ids).map(|i| AddedToken::from(sentinel(i), true)));
    }
    let names: HashSet<&str> = named.iter().map(|token| &*token.content).collect();
    let is_named = |content: &str| names.contains(content);
    let added = config.added.values().map(|token| token.clone().special(token.special || is_named(&token.content)));
    let added: Vec<AddedToken> = added.collect();
    let known = tokenizer.get_added_tokens_decoder();
    let known: HashSet<&str> = known.values().chain(&added).map(|token| &*token.content).collect();
    let is_known = |content: &str| known.contains(content);
    // What T5's tokenizer takes for granted is not made up where the file does not have it.
    let is_granted = |token: &AddedToken| is_sentinel(token) || ["</s>", "<unk>", "<pad>"].contains(&&*token.content);
    let is_new = |token: &&AddedToken| {
        !is_known(&token.content) && (!is_granted(token) || tokenizer.token_to_id(&token.content).is_some())
    };
    let new: Vec<AddedToken> = named.iter().filter(is_new).cloned().collect();
    tokenizer.add_tokens(added.into_iter().chain(new))?;
    Ok(tokenizer)
}

/// Calls into the crate `tokenizers`, which panics on some files and some texts.
fn without_panic<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    // What a panic leaves behind is dropped, or a tokenizer that does not change.
    match caught_quietly(call) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the crate tokenizers cannot make sense of it ({panic})")),
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Fowler–Noll–Vo 1a, 64 bits: stable across machines and versions, which std's hasher does not promise.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
