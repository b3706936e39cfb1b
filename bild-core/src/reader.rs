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

    /// The rows as a policy may see them, of which the first predicts what comes after the first `before` of `tokens`, the start
    /// token included.
    pub(crate) fn read_all(&self, rows: Rows, role: Role, tokens: &[Token], before: usize, want: Want) -> Result<Rows> {
        if self.processors.is_empty() {
            rows.iter().enumerate().try_for_each(|(i, row)| self.check(row, role, before + i))?;
            return Ok(rows);
        }
        let read = |(i, mut row)| self.read(&mut row, role, tokens, before + i, want).map(|()| row);
        rows.into_iter().enumerate().map(read).collect()
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
        // A draft without a distribution is what it is; the verifier's row decides.
        if self.processors.is_empty() || (role == Role::Draft && row.logits.is_none()) {
            return Ok(());
        }
        let given = row.logits.as_deref().ok_or(Error::NoLogits(role))?;
        *row = self.processed(given, tokens, before, want)?;
        Ok(())
    }

    fn processed(&self, given: &[f32], tokens: &[Token], before: usize, want: Want) -> Result<Row> {
        let next = tokens.get(before).copied();
        let (start, tokens) = (tokens[0], &tokens[1..before]);
        let prefix = Prefix { source: &self.source, start, tokens, end: &self.end, limit: self.max_new_tokens };
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
