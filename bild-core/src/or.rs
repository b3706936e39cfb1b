use crate::{
    DraftModel, DraftSession, Model, Pair, PairSession, Pass, Result, Role, Rows, SessionLimit, Source, Token,
    Vocabulary,
};

/// Drafts of one model and, where it has none, of another: made by [`DraftModel::or`].
///
/// What the second drafts with may be a pair by itself, as an early exit; then this is a pair too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A, B> Or<A, B> {
    pub(crate) fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: Model, B: Model> Model for Or<A, B> {
    type Session = OrSession<A::Session, B::Session>;

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        Ok(OrSession::new(self.first.begin(source, limit)?, self.second.begin(source, limit)?))
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.first.bytes_for(source, tokens).saturating_add(self.second.bytes_for(source, tokens))
    }
}

impl<A: DraftModel, B: DraftModel> DraftModel for Or<A, B> {
    fn speaks(&self) -> Option<&Vocabulary> {
        self.first.speaks().or_else(|| self.second.speaks())
    }

    fn check(&self, verifier: &Vocabulary) -> Result<()> {
        self.first.check(verifier)?;
        self.second.check(verifier)
    }
}

impl<A: DraftModel, P: Pair> Pair for Or<A, P> {
    type Session = OrSession<A::Session, P::Session>;

    fn vocabulary(&self) -> &Vocabulary {
        self.second.vocabulary()
    }

    fn check(&self) -> Result<()> {
        self.first.check(self.second.vocabulary())?;
        self.second.check()
    }

    fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<Self::Session> {
        Ok(OrSession::new(self.first.begin(source, limit)?, self.second.begin(source, limit)?))
    }

    fn most_drafts(&self) -> usize {
        self.second.most_drafts()
    }

    fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
        self.first.bytes_for(source, tokens).saturating_add(self.second.bytes_for(source, tokens))
    }
}

/// One generation's state of an [`Or`]: each of the two is brought up to date when it is asked.
#[derive(Debug)]
pub struct OrSession<A, B> {
    first: A,
    second: B,
    /// What stands of the tokens that this was given, and of what it proposed in the middle of a pass.
    tokens: Vec<Token>,
    /// How many of them each has taken in.
    seen: [usize; 2],
}

impl<A, B> OrSession<A, B> {
    fn new(first: A, second: B) -> Self {
        Self { first, second, tokens: Vec::new(), seen: [0; 2] }
    }
}

impl<A: DraftSession, B> OrSession<A, B> {
    /// Asks the first and, if it has nothing to say, the second.
    fn ask(&mut self, pass: &Pass<'_>, ask_second: impl FnOnce(&mut B, &Pass<'_>) -> Result<Rows>) -> Result<Rows> {
        let Self { first, second, tokens, seen } = self;
        tokens.truncate(pass.keep);
        tokens.extend_from_slice(pass.new);
        *seen = seen.map(|seen| seen.min(pass.keep));
        // One that fails may have taken in its tokens or not: it forgets them next time.
        let behind = |seen| Pass { keep: seen, new: &tokens[seen..], ..*pass };
        let mut rows = first.propose(&behind(seen[0]))?;
        seen[0] = tokens.len();
        let mut asked = 0;
        if rows.is_empty() {
            rows = ask_second(second, &behind(seen[1]))?;
            asked = 1;
        }
        // Of several drafts it has taken in all but the last.
        tokens.extend(rows.iter().take(rows.len().saturating_sub(1)).map(|row| row.argmax));
        seen[asked] = tokens.len();
        Ok(rows)
    }
}

impl<A: DraftSession, B: DraftSession> DraftSession for OrSession<A, B> {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        self.ask(pass, B::propose)
    }
}

impl<A: DraftSession, B: PairSession> PairSession for OrSession<A, B> {
    fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        match pass.role {
            Role::Draft => self.ask(pass, B::pass),
            Role::Verifier => self.second.pass(pass),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Row, Want};

    /// Proposes one more than the last token it has, if that is below a bound, up to so many times; and checks that it is told of every
    /// token, each once.
    struct Counter {
        below: Token,
        most: usize,
        has: Vec<Token>,
    }

    impl DraftSession for Counter {
        fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
            assert!(pass.keep <= self.has.len() && !pass.new.is_empty());
            self.has.truncate(pass.keep);
            self.has.extend(pass.new);
            let mut rows = Vec::new();
            while rows.len() < self.most.min(pass.most) && self.has[self.has.len() - 1] < self.below {
                if !rows.is_empty() {
                    self.has.push(self.has[self.has.len() - 1] + 1);
                }
                let last = self.has[self.has.len() - 1];
                rows.extend((last < self.below).then(|| Row::certain(last + 1)));
            }
            Ok(rows.into())
        }
    }

    fn counter(below: Token, most: usize) -> Counter {
        Counter { below, most, has: Vec::new() }
    }

    fn tokens(rows: &Rows) -> Vec<Token> {
        rows.iter().map(|row| row.argmax).collect()
    }

    #[test]
    fn the_second_drafts_where_the_first_has_nothing_and_both_keep_up() {
        let mut session = OrSession::new(counter(10, 1), counter(100, 1));
        let draft = |keep, new| Pass::draft(keep, new, Want::default());
        assert_eq!(tokens(&session.propose(&draft(0, &[5])).unwrap()), [6]);
        assert!(session.second.has.is_empty(), "it is not asked before it must be");
        assert_eq!(tokens(&session.propose(&draft(1, &[6, 20])).unwrap()), [21]);
        assert_eq!((&*session.first.has, &*session.second.has), (&[5, 6, 20][..], &[5, 6, 20][..]));
        assert_eq!(tokens(&session.propose(&draft(2, &[7])).unwrap()), [8]);
        assert_eq!(tokens(&session.propose(&draft(3, &[30])).unwrap()), [31]);
        assert_eq!(session.second.has, [5, 6, 7, 30], "what was taken back meanwhile is forgotten");
        assert_eq!(tokens(&session.propose(&draft(1, &[200])).unwrap()), [0; 0]);
    }

    #[test]
    fn several_drafts_of_a_pass_are_known_to_the_one_that_made_them() {
        let mut session = OrSession::new(counter(8, 4), counter(100, 4));
        let draft = |keep, new| Pass { most: 4, ..Pass::draft(keep, new, Want::default()) };
        assert_eq!(tokens(&session.propose(&draft(0, &[5])).unwrap()), [6, 7, 8]);
        // All but the last were taken in.
        assert_eq!(tokens(&session.propose(&draft(3, &[8])).unwrap()), [9, 10, 11, 12]);
        assert_eq!(session.second.has, [5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(tokens(&session.propose(&draft(5, &[3])).unwrap()), [4, 5, 6, 7]);
        assert_eq!(session.first.has, [5, 6, 7, 8, 9, 3, 4, 5, 6]);
    }
}
