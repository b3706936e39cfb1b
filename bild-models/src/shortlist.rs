use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bild_core::Token;
use serde::{Deserialize, Serialize};

use crate::{
    error::{LoadError, Result},
    files::Stored,
};

/// The tokens that a draft is made of, in place of all of the vocabulary: those that are frequent in outputs, for each token of the
/// source those that are likely beside it, the source's own, and those that end a sequence.
///
/// A draft step of a small model spends half of its time in the head, on tokens that nobody will write. A model that was loaded with
/// a list ([`LoadOptions::with_shortlist`](crate::LoadOptions::with_shortlist)) computes the logits of these tokens alone when it drafts, and all of them when it verifies: what is
/// lossless stays so, and a token that is not in the list costs a draft. Of a draft the probability, entropy and logits are those over
/// the list: the others have the logit −∞. The order of a vocabulary is a poor guide to what is written; learn the list from outputs
/// (`bild shortlist`). Lexical shortlists: Junczys-Dowmunt et al., Marian, 2018; for drafts: Zhao et al., FR-Spec, 2025, arXiv 2502.14856.
///
/// As JSON it is `{"frequent": [3, 7], "beside": {"12": [40, 41]}}`.
///
/// ```
/// use bild::models::Shortlist;
///
/// let list = Shortlist::new([3, 7]).with_beside(12, [40, 41]);
/// assert_eq!(list.tokens(&[12, 5]), [3, 5, 7, 12, 40, 41]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shortlist {
    frequent: BTreeSet<Token>,
    #[serde(default)]
    beside: BTreeMap<Token, BTreeSet<Token>>,
}

impl Shortlist {
    /// Of tokens that are scored whatever the source.
    pub fn new(frequent: impl IntoIterator<Item = Token>) -> Self {
        Self { frequent: frequent.into_iter().collect(), beside: BTreeMap::new() }
    }

    /// Tokens that are scored too where `source` stands in the source.
    pub fn with_beside(mut self, source: Token, tokens: impl IntoIterator<Item = Token>) -> Self {
        self.beside.entry(source).or_default().extend(tokens);
        self
    }

    /// Reads one from its file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no list or an empty one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = Stored::at(path).read()?;
        let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
        let list: Self = serde_json::from_slice(&text).map_err(|error| broken(format!("no short list: {error}")))?;
        if list.frequent.is_empty() && list.beside.is_empty() {
            return Err(broken("its list of tokens is empty".into()));
        }
        Ok(list)
    }

    /// The tokens that are scored whatever the source, ascending.
    pub fn frequent(&self) -> impl ExactSizeIterator<Item = Token> {
        self.frequent.iter().copied()
    }

    /// The tokens that are scored for a source, ascending, those that end a sequence aside.
    pub fn tokens(&self, source: &[Token]) -> Vec<Token> {
        let source: BTreeSet<Token> = source.iter().copied().collect();
        let beside = source.iter().filter_map(|token| self.beside.get(token)).flatten();
        let mut tokens: Vec<Token> = self.frequent.iter().chain(&source).chain(beside).copied().collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// Refuses a list for another vocabulary than one of so many tokens.
    pub(crate) fn check(&self, vocabulary: usize) -> Result<()> {
        let all =
            self.frequent.iter().chain(self.beside.iter().flat_map(|(token, beside)| beside.iter().chain([token])));
        match all.copied().max() {
            Some(token) if token as usize >= vocabulary => Err(LoadError::Shortlist { token, vocabulary }),
            _ => Ok(()),
        }
    }
}
