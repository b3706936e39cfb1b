use std::fmt;

use bild_core::{DraftModel, DraftSession, Model, Pass, Result, Row, Rows, SessionLimit, Source, Token};

/// A draft model without weights: it proposes what the caller says will probably be written ([`Source::with_guess`]), for as long as that stands, and
/// goes on in it where it stands again.
///
/// After a token that the guess does not have it looks for the last tokens written, three to one of them, nearest to where it was;
/// if they are nowhere it takes the token for one that stands in the place of another, or before the last two. Where the guess ends, or there is none, it
/// proposes nothing: [`or`](DraftModel::or) another drafts then. Its drafts have no distribution: a policy sees the probability 1.
///
/// ```
/// use bild::{decode::{DraftSession, Model, Pass, SessionLimit, Source, Want}, models::Guess};
///
/// let source = Source::new([7, 1]).with_guess([20, 21, 22, 23, 1]);
/// let mut session = Guess.begin(&source, &SessionLimit::new(32))?;
/// assert_eq!(session.propose(&Pass::draft(0, &[0], Want::default()))?[0].argmax, 20);
/// assert_eq!(session.propose(&Pass::draft(1, &[30], Want::default()))?[0].argmax, 21, "the 30 is there for the 20");
/// assert_eq!(session.propose(&Pass::draft(2, &[22], Want::default()))?[0].argmax, 23, "the 21 was left out");
/// # Ok::<(), bild::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guess;

impl Model for Guess {
    type Session = GuessSession;

    fn begin(&self, source: &Source, _limit: &SessionLimit) -> Result<GuessSession> {
        Ok(GuessSession { source: source.clone(), tokens: Vec::new(), places: Vec::new() })
    }
}

impl DraftModel for Guess {}

/// One generation's state of a [`Guess`].
pub struct GuessSession {
    source: Source,
    /// What was written, the decoder's start token first.
    tokens: Vec<Token>,
    /// For each of them the place in the guess where it goes on after it.
    places: Vec<usize>,
}

/// The longest run of tokens that is looked for.
const LONGEST: usize = 3;
/// So many tokens at its end, a full stop and end-of-sequence, are kept for later when another stands there: a text grows at its end.
const ENDING: usize = 2;

impl GuessSession {
    /// Where the guess goes on after the last token, if it went on at `place` before it.
    fn after(&self, place: usize) -> usize {
        let (guess, written) = (self.source.guess(), &self.tokens[1..]);
        let last = written[written.len() - 1];
        if guess.get(place) == Some(&last) {
            return place + 1;
        }
        for length in (1..=LONGEST.min(written.len())).rev() {
            let run = &written[written.len() - length..];
            let ends = guess.windows(length).enumerate().filter(|(_, tokens)| *tokens == run);
            let ends = ends.map(|(at, _)| at + length);
            if let Some(end) = ends.min_by_key(|end| end.abs_diff(place + 1)) {
                return end;
            }
        }
        if guess.len().saturating_sub(place) <= ENDING { place } else { place + 1 }
    }
}

impl DraftSession for GuessSession {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.tokens.truncate(pass.keep);
        self.places.truncate(pass.keep);
        for &token in pass.new {
            self.tokens.push(token);
            let place = self.places.last().map_or(0, |&place| self.after(place));
            self.places.push(place);
        }
        let place = self.places.last().copied().unwrap_or_default();
        Ok(self.source.guess().get(place).copied().map(Row::certain).into())
    }
}

impl fmt::Debug for GuessSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuessSession").field("length", &self.tokens.len()).finish_non_exhaustive()
    }
}
