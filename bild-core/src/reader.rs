use std::sync::Arc;

use crate::{Error, LogitsProcessor, Prefix, Result, Role, Row, Rows, Source, Token, Vocabulary, Want};

/// Looks at the rows that models return, and puts their logits through the processors.
pub(crate) struct RowReader {
    pub(crate) source: Source,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) processors: Vec<Arc<dyn LogitsProcessor>>,
    /// What ends a sequence here, and the most tokens that are generated: processors see them.
    pub(crate) end: Vec<Token>,
    pub(crate) max_new_tokens: usize,
}

impl RowReader {
    /// What a model is asked for, so that a policy gets what it wants.
    pub(crate) fn asked(&self, want: Want) -> Want {
        if self.processors.is_empty() { want } else { want.with_logits() }
    }

    /// The verifier's rows as a policy may see them, of which the first predicts what comes after the first `before` of `tokens`, the
    /// start token included; if the last draft `ends` the generation, no processor sees what would come after it. Where a draft was a dead
    /// end, after which every token is forbidden, the row after it is the last, as the model gave it: with the error to end with if that
    /// draft stands.
    pub(crate) fn read_all(
        &self,
        rows: Rows,
        tokens: &[Token],
        before: usize,
        want: Want,
        ends: bool,
    ) -> Result<(Rows, Option<Error>)> {
        let role = Role::Verifier;
        if self.processors.is_empty() {
            for (i, row) in rows.iter().enumerate() {
                self.check(row, role, before + i)?;
                check_wanted(row, want, before + i, before + i < tokens.len())?;
            }
            return Ok((rows, None));
        }
        let last = rows.len() - 1;
        let mut all = Vec::with_capacity(rows.len());
        for (i, mut row) in rows.into_iter().enumerate() {
            let read = if ends && i == last {
                self.check(&row, role, before + i)
            } else {
                self.read(&mut row, role, tokens, before + i, want)
            };
            match read {
                Err(error @ Error::Forbidden { .. }) if i > 0 => {
                    all.push(row);
                    return Ok((all.into(), Some(error)));
                }
                read => read?,
            }
            all.push(row);
        }
        Ok((all.into(), None))
    }

    #[inline]
    fn check(&self, row: &Row, role: Role, before: usize) -> Result<()> {
        match row.problem(self.vocabulary.size) {
            None => Ok(()),
            Some(problem) => Err(Error::Row { role, at: before - 1, problem }),
        }
    }

    /// As [`read_all`](Self::read_all), of one row.
    #[inline]
    pub(crate) fn read(&self, row: &mut Row, role: Role, tokens: &[Token], before: usize, want: Want) -> Result<()> {
        self.check(row, role, before)?;
        if self.processors.is_empty() {
            return Ok(());
        }
        if role == Role::Draft && row.logits.is_none() {
            return self.check_copied(row, tokens, before);
        }
        let given = row.logits.as_deref().ok_or(Error::NoLogits(role))?;
        *row = self.processed(given, tokens, before, want)?;
        Ok(())
    }

    /// A draft without a distribution is what it is, unless it is forbidden.
    fn check_copied(&self, row: &Row, tokens: &[Token], before: usize) -> Result<()> {
        let prefix = self.prefix(tokens, before);
        let mut logits = vec![0.0; self.vocabulary.size];
        self.processors.iter().for_each(|processor| processor.process(&prefix, &mut logits));
        if logits[row.argmax as usize] == f32::NEG_INFINITY {
            return Err(Error::Forbidden { at: before - 1 });
        }
        Ok(())
    }

    /// What processors see of the first `before` tokens, the start token included.
    fn prefix<'a>(&'a self, tokens: &'a [Token], before: usize) -> Prefix<'a> {
        let (start, tokens) = (tokens[0], &tokens[1..before]);
        Prefix { source: &self.source, start, tokens, end: &self.end, limit: self.max_new_tokens }
    }

    fn processed(&self, given: &[f32], tokens: &[Token], before: usize, want: Want) -> Result<Row> {
        let next = tokens.get(before).copied();
        let prefix = self.prefix(tokens, before);
        let mut logits = given.to_vec();
        for processor in &self.processors {
            processor.process(&prefix, &mut logits);
        }
        let error = match Row::from_logits(&logits, want, next) {
            Err(error) => error,
            row => return row,
        };
        // Whose fault is it: the model's, or that of the first processor after which they are broken?
        Row::from_logits(given, Want::default(), None)?;
        let mut logits = given.to_vec();
        for processor in &self.processors {
            processor.process(&prefix, &mut logits);
            let broken = logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY);
            if broken {
                return Err(Error::Processor { processor: format!("{processor:?}"), at: before - 1 });
            }
        }
        let forbidden = logits.iter().all(|logit| *logit == f32::NEG_INFINITY);
        Err(if forbidden { Error::Forbidden { at: before - 1 } } else { error })
    }
}

/// A verifier of one's own may not know what a policy wants, which would then let everything stand. `followed`: by a draft.
#[inline]
fn check_wanted(row: &Row, want: Want, before: usize, followed: bool) -> Result<()> {
    let missing = if want.logits && row.logits.is_none() {
        "logits"
    } else if want.entropy && row.entropy.is_none() {
        "entropy"
    } else if want.cross_entropy && followed && row.cross_entropy.is_none() {
        "cross-entropy of the draft that follows"
    } else {
        return Ok(());
    };
    let problem = format!("the policy wants its {missing} (`Pass::want`), and it has none");
    Err(Error::Row { role: Role::Verifier, at: before - 1, problem })
}
