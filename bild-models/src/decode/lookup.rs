use std::{fmt, num::NonZeroUsize};

use bild_core::{DraftModel, DraftSession, Model, Pass, Result, Row, Rows, SessionLimit, Source, Token};
use serde::{Deserialize, Serialize};

/// Where an [`NgramLookup`] looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookIn {
    /// In the source alone.
    Source,
    /// In what was written so far alone, as other engines do.
    Output,
    /// In what was written so far, then in the source.
    #[default]
    Both,
}

/// A draft model without weights: it proposes what followed the last few tokens where they stood before, in the source or
/// in the output so far (prompt lookup decoding, Saxena 2023; Yang et al. 2023, arXiv 2304.04487). It pays where the output
/// copies: summaries, corrections, answers from a text.
///
/// It looks for the longest n-gram first, and for the latest place; once it has one it goes on there for as long as the
/// tokens agree. It never proposes the last token of the source, which ends it. Where nothing is found it proposes
/// nothing, and the verifier goes on alone. Its drafts have no distribution: a policy sees the probability 1.
///
/// ```
/// use bild::{decode::{DraftSession, Model, Pass, SessionLimit, Source, Want}, models::NgramLookup};
///
/// let mut session = NgramLookup::default().begin(&Source::new([7, 8, 9, 4]), &SessionLimit::new(32))?;
/// assert_eq!(session.propose(&Pass::draft(0, &[0, 7, 8], Want::default()))?[0].argmax, 9);
/// assert!(session.propose(&Pass::draft(3, &[5], Want::default()))?.is_empty());
/// # Ok::<(), bild::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NgramLookup {
    /// Where it looks.
    pub look_in: LookIn,
    /// The longest n-gram that it looks for.
    pub longest: NonZeroUsize,
    /// The shortest.
    pub shortest: NonZeroUsize,
}

/// N-grams of 3 to 1 tokens, in both.
impl Default for NgramLookup {
    fn default() -> Self {
        Self { look_in: LookIn::Both, longest: NonZeroUsize::MIN.saturating_add(2), shortest: NonZeroUsize::MIN }
    }
}

impl NgramLookup {
    /// Sets where it looks.
    pub fn with_look_in(mut self, place: LookIn) -> Self {
        self.look_in = place;
        self
    }

    /// Sets the shortest and the longest n-gram that it looks for; a longest below the shortest is raised to it.
    pub fn with_lengths(mut self, shortest: NonZeroUsize, longest: NonZeroUsize) -> Self {
        (self.shortest, self.longest) = (shortest, longest.max(shortest));
        self
    }
}

impl Model for NgramLookup {
    type Session = NgramLookupSession;

    fn begin(&self, source: &Source, _limit: &SessionLimit) -> Result<NgramLookupSession> {
        Ok(NgramLookupSession { lookup: *self, source: source.clone(), tokens: Vec::new(), place: None })
    }
}

impl DraftModel for NgramLookup {}

/// One generation's state of an [`NgramLookup`].
pub struct NgramLookupSession {
    lookup: NgramLookup,
    source: Source,
    /// What was written, the decoder's start token first.
    tokens: Vec<Token>,
    /// Where the last proposal was taken from.
    place: Option<Place>,
}

impl fmt::Debug for NgramLookupSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NgramLookupSession")
            .field("lookup", &self.lookup)
            .field("length", &self.tokens.len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Place {
    Source(usize),
    Output(usize),
}

impl NgramLookupSession {
    fn at(&self, place: Place) -> Option<Token> {
        match place {
            // Its last token ends the source, and would end the output.
            Place::Source(at) => self.source.tokens().get(at).copied().filter(|_| at + 1 < self.source.tokens().len()),
            Place::Output(at) => self.tokens.get(at).copied(),
        }
    }

    /// Where what follows now may stand.
    fn find(&self) -> Option<Place> {
        let written = self.tokens.get(1..).unwrap_or_default();
        let longest = self.lookup.longest.max(self.lookup.shortest).get().min(written.len());
        for length in (self.lookup.shortest.get()..=longest).rev() {
            let last = &written[written.len() - length..];
            // The place after the latest occurrence that is followed by something, in the source by more than its end.
            let after = |tokens: &[Token], rest: usize| {
                let before = &tokens[..tokens.len().saturating_sub(rest)];
                before.windows(length).rposition(|ngram| ngram == last).map(|at| at + length)
            };
            let output = || after(written, 1).map(|at| Place::Output(at + 1)); // behind the start token
            let source = || after(self.source.tokens(), 2).map(Place::Source);
            let found = match self.lookup.look_in {
                LookIn::Source => source(),
                LookIn::Output => output(),
                LookIn::Both => output().or_else(source),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl DraftSession for NgramLookupSession {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        if pass.keep < self.tokens.len() {
            self.tokens.truncate(pass.keep);
            self.place = None;
        }
        let step = |place: Option<Place>, token: &Token| {
            place.filter(|&place| self.at(place) == Some(*token)).map(|place| match place {
                Place::Source(at) => Place::Source(at + 1),
                Place::Output(at) => Place::Output(at + 1),
            })
        };
        let goes_on = pass.new.iter().fold(self.place, step);
        self.tokens.extend_from_slice(pass.new);
        self.place = goes_on.filter(|&place| self.at(place).is_some()).or_else(|| self.find());
        Ok(self.place.and_then(|place| self.at(place)).map(Row::certain).into())
    }
}

#[cfg(test)]
mod tests {
    use bild_core::Want;

    use super::*;

    fn first(session: &mut NgramLookupSession, keep: usize, new: &[Token]) -> Option<Token> {
        session.propose(&Pass::draft(keep, new, Want::default())).unwrap().first().map(|row| row.argmax)
    }

    fn propose(lookup: NgramLookup, source: &[Token], written: &[Token]) -> Option<Token> {
        let mut session = lookup.begin(&Source::new(source), &SessionLimit::new(99)).unwrap();
        let written: Vec<Token> = [0].iter().chain(written).copied().collect();
        first(&mut session, 0, &written)
    }

    #[test]
    fn the_longest_and_latest_is_found_where_it_may_look() {
        let [source, output, both] =
            [LookIn::Source, LookIn::Output, LookIn::Both].map(|p| NgramLookup::default().with_look_in(p));
        assert_eq!(propose(both, &[5, 6, 7, 6, 8, 1], &[6]), Some(8), "the latest");
        assert_eq!(propose(both, &[5, 6, 7, 6, 8, 1], &[5, 6]), Some(7), "the longest");
        assert_eq!(propose(both, &[5, 6, 7], &[6, 9, 6]), Some(9), "the output before the source");
        assert_eq!(propose(source, &[5, 6, 7, 1], &[6, 9, 6]), Some(7));
        assert_eq!(propose(output, &[5, 6, 7], &[6]), None);
        assert_eq!(propose(both, &[5, 6, 1], &[6]), None, "nothing but the end follows");
        assert_eq!(propose(both, &[5, 6], &[]), None);
        let two = both.with_lengths(NonZeroUsize::new(2).unwrap(), NonZeroUsize::new(4).unwrap());
        assert_eq!(propose(two, &[5, 6, 7, 1], &[6]), None);
        assert_eq!(propose(two, &[5, 6, 7, 1], &[5, 6]), Some(7));
    }

    #[test]
    fn it_goes_on_where_it_is_and_looks_again_after_a_refusal() {
        let lookup = NgramLookup::default().with_look_in(LookIn::Source);
        let mut session = lookup.begin(&Source::new([1, 2, 3, 9, 4, 2, 5, 1]), &SessionLimit::new(99)).unwrap();
        let mut next = |new: &[Token]| {
            let keep = session.tokens.len();
            first(&mut session, keep, new)
        };
        assert_eq!(next(&[0, 1]), Some(2));
        assert_eq!(next(&[2]), Some(3), "not the 5 after the later 2");
        assert_eq!(next(&[3]), Some(9));
        assert_eq!(next(&[9, 4]), Some(2), "two were accepted");
        assert_eq!(first(&mut session, 3, &[4, 2]), Some(5));
    }
}
