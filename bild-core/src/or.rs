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

    fn most_drafts(&self) -> usize {
        self.first.most_drafts().max(self.second.most_drafts())
    }

    fn propose_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        self.ask_all(passes, |passes| self.second.propose_all(passes))
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
        self.first.most_drafts().max(self.second.most_drafts())
    }

    fn pass_all(&self, passes: &mut [(&mut Self::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
        match passes.first().map(|(_, pass)| pass.role) {
            Some(Role::Draft) => self.ask_all(passes, |passes| self.second.pass_all(passes)),
            _ => {
                let seconds = passes.iter_mut().map(|(session, pass)| (&mut session.second, *pass));
                self.second.pass_all(&mut seconds.collect::<Vec<_>>())
            }
        }
    }

    fn batch_size(&self) -> usize {
        self.second.batch_size()
    }

    fn passes_at_once(&self) -> usize {
        self.second.passes_at_once()
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

impl<A, B> OrSession<A, B> {
    /// Takes in what a pass has for both.
    fn take_in(&mut self, pass: &Pass<'_>) {
        self.tokens.truncate(pass.keep);
        self.tokens.extend_from_slice(pass.new);
        self.seen = self.seen.map(|seen| seen.min(pass.keep));
    }

    /// The first, with what it is to be asked.
    fn first<'s>(&'s mut self, pass: &Pass<'s>) -> (&'s mut A, Pass<'s>) {
        let seen = self.seen[0];
        (&mut self.first, Pass { keep: seen, new: &self.tokens[seen..], ..*pass })
    }

    /// The second, with what it is to be asked.
    fn second<'s>(&'s mut self, pass: &Pass<'s>) -> (&'s mut B, Pass<'s>) {
        let seen = self.seen[1];
        (&mut self.second, Pass { keep: seen, new: &self.tokens[seen..], ..*pass })
    }

    /// Notes what one of the two gave. One that fails may have taken in its tokens or not: it forgets them next time.
    fn asked(&mut self, which: usize, rows: &Result<Rows>) {
        if let Ok(rows) = rows {
            // Of several drafts it has taken in all but the last.
            self.seen[which] = self.tokens.len() + rows.len().saturating_sub(1);
            self.tokens.extend(rows.iter().take(rows.len().saturating_sub(1)).map(|row| row.argmax));
        }
    }
}

impl<A: DraftSession, B> OrSession<A, B> {
    /// Asks the first and, if it has nothing to say, the second.
    fn ask(&mut self, pass: &Pass<'_>, ask_second: impl FnOnce(&mut B, &Pass<'_>) -> Result<Rows>) -> Result<Rows> {
        self.take_in(pass);
        let (first, behind) = self.first(pass);
        let rows = first.propose(&behind);
        self.asked(0, &rows);
        if !rows.as_ref().is_ok_and(|rows| rows.is_empty()) {
            return rows;
        }
        let (second, behind) = self.second(pass);
        let rows = ask_second(second, &behind);
        self.asked(1, &rows);
        rows
    }
}

impl<A: DraftModel, B> Or<A, B> {
    /// As [`OrSession::ask`], of several sessions: those for which the first has nothing to say ask the second together.
    fn ask_all<S>(
        &self,
        passes: &mut [(&mut OrSession<A::Session, S>, Pass<'_>)],
        ask_second: impl FnOnce(&mut [(&mut S, Pass<'_>)]) -> Vec<Result<Rows>>,
    ) -> Vec<Result<Rows>> {
        passes.iter_mut().for_each(|(session, pass)| session.take_in(pass));
        let mut firsts: Vec<_> = passes.iter_mut().map(|(session, pass)| session.first(pass)).collect();
        let mut found = self.first.propose_all(&mut firsts);
        let mut open = Vec::new();
        for ((session, pass), rows) in passes.iter_mut().zip(&mut found) {
            session.asked(0, rows);
            if rows.as_ref().is_ok_and(|rows| rows.is_empty()) {
                open.push((session, &*pass, rows));
            }
        }
        let mut seconds: Vec<_> = open.iter_mut().map(|(session, pass, _)| session.second(pass)).collect();
        let given = if seconds.is_empty() { Vec::new() } else { ask_second(&mut seconds) };
        for ((session, _, rows), given) in open.into_iter().zip(given) {
            session.asked(1, &given);
            *rows = given;
        }
        found
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
