use crate::{Role, Token, Want};

/// One pass of one model, as a value: what a [`Generation`](crate::Generation) waits for, and what a
/// [`PairSession`](crate::PairSession) carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pass<'a> {
    /// Which model makes it.
    pub role: Role,
    /// How many of the tokens that this role was given still stand; it forgets the others first.
    pub keep: usize,
    /// The tokens that it takes in then: at least one, the decoder's start token first of all.
    pub new: &'a [Token],
    /// The most drafts that are asked for, at least 1. After the first, a draft model goes on from its own most likely token.
    pub most: usize,
    /// What is wanted of the rows.
    pub want: Want,
}

impl<'a> Pass<'a> {
    /// A pass of the draft model that asks for one draft.
    pub fn draft(keep: usize, new: &'a [Token], want: Want) -> Self {
        Self { role: Role::Draft, keep, new, most: 1, want }
    }

    /// A pass of the verifier.
    pub fn verify(keep: usize, new: &'a [Token], want: Want) -> Self {
        Self { role: Role::Verifier, keep, new, most: 1, want }
    }
}
