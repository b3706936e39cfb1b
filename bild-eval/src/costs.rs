//! What passes cost, measured once, so that the time of a policy can be told from its counted passes.

use std::time::Instant;

use bild::{
    Output,
    decode::{Event, Pair, PairSession, Pass, SessionLimit, Source, Token, Want},
};
use serde::{Deserialize, Serialize};

use crate::{Decoded, Observer, Result, median};

const ROWS: [usize; 6] = [1, 2, 4, 8, 11, 17];
const ROUNDS: usize = 9;

/// What the passes of a pair cost, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Costs {
    /// Reading a source, by the big model.
    pub encode_big: f64,
    /// Reading a source, by what drafts, where the big model reads it too.
    pub encode_little: f64,
    /// Reading a source, by what drafts, where the big model is never asked: more than the other where the two have one encoder.
    pub encode_little_alone: f64,
    /// A step of what drafts.
    pub draft: f64,
    /// A pass of the big model over so many tokens, by number.
    pub verify: Vec<(usize, f64)>,
}

impl Costs {
    /// Measures a pair at a source of `source` tokens, after half as many new ones: each pass of the big model after the draft
    /// steps that would come before it.
    ///
    /// # Errors
    ///
    /// If a pass fails.
    pub fn measure(pair: &impl Pair, source: usize, observer: &dyn Observer) -> Result<Self> {
        let generated = source / 2 + 1;
        observer.begins("Measuring passes", ROUNDS);
        let [mut encode_big, mut encode_little, mut encode_little_alone, mut draft] = [const { Vec::new() }; 4];
        let mut verify = vec![Vec::new(); ROWS.len()];
        let most = pair.vocabulary().size.saturating_sub(3).max(1);
        let tokens = |count: usize| -> Vec<Token> { (0..count).map(|i| (3 + i * 7919 % most) as Token).collect() };
        let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
        let limit = generated + 18;
        // In another order than the source: what looks drafts up there would be measured alone.
        let written: Vec<Token> = tokens(limit).into_iter().rev().collect();
        let source = Source::new(tokens(source));
        for _ in 0..ROUNDS {
            let limit = SessionLimit::new(limit);
            let reading = || limit.take_reading_time().as_secs_f64() * 1e3;
            pair.begin(&source, &limit)?.pass(&Pass::draft(0, &written[..1], Want::default()))?;
            encode_little_alone.push(reading());
            let mut session = pair.begin(&source, &limit)?;
            session.pass(&Pass::verify(0, &written[..generated], Want::default()))?;
            encode_big.push(reading());
            session.pass(&Pass::draft(0, &written[..generated], Want::default()))?;
            encode_little.push(reading());
            for (rows, times) in ROWS.iter().zip(&mut verify) {
                let new = &written[generated..generated + rows];
                for (i, token) in new.iter().enumerate() {
                    let begun = Instant::now();
                    session.pass(&Pass::draft(generated + i, &[*token], Want::default()))?;
                    draft.push(milliseconds(begun));
                }
                let begun = Instant::now();
                session.pass(&Pass::verify(generated, new, Want::default().with_cross_entropy()))?;
                times.push(milliseconds(begun));
            }
            observer.advances();
        }
        observer.ends();
        Ok(Self {
            encode_big: median(encode_big),
            encode_little: median(encode_little),
            encode_little_alone: median(encode_little_alone),
            draft: median(draft),
            verify: ROWS.into_iter().zip(verify.into_iter().map(median)).collect(),
        })
    }

    /// The milliseconds of a pass of the big model over so many tokens: between those measured in a line, beyond the last on in that line.
    pub fn pass(&self, rows: usize) -> f64 {
        let last = self.verify.len() - 1;
        let after = self.verify.iter().position(|(measured, _)| *measured >= rows).unwrap_or(last).max(1);
        let ((a, from), (b, to)) = (self.verify[after - 1], self.verify[after]);
        from + (to - from) * (rows as f64 - a as f64) / (b - a) as f64
    }

    /// The milliseconds of a generation, from its events. A model that makes no pass does not read the source.
    pub fn of(&self, output: &Output) -> f64 {
        let verified = |event: &Event| match event {
            Event::Verified { drafts, .. } => Some(self.pass(drafts + 1)),
            _ => None,
        };
        let passes: f64 = output.events.iter().filter_map(verified).sum();
        // A pass may have made several.
        let is_step = |event: &&Event| matches!(event, Event::Drafted { .. } | Event::Fallback { .. });
        let steps = output.events.iter().filter(is_step).count().max(output.statistics.draft_steps);
        let encode = match (passes > 0.0, steps > 0) {
            (true, true) => self.encode_big + self.encode_little,
            (true, false) => self.encode_big,
            (false, true) => self.encode_little_alone,
            (false, false) => 0.0,
        };
        encode + steps as f64 * self.draft + passes
    }

    /// The milliseconds of all that was decoded.
    pub fn of_all(&self, decoded: &[Decoded]) -> f64 {
        decoded.iter().map(|decoded| self.of(&decoded.output)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::{thread::sleep, time::Duration};

    use bild::decode::{self, Role, Row, Rows, Vocabulary};
    use serde_json::json;

    use super::*;

    fn costs() -> Costs {
        Costs {
            encode_big: 1.5,
            encode_little: 0.5,
            encode_little_alone: 1.25,
            draft: 0.25,
            verify: vec![(1, 1.0), (2, 1.5), (4, 2.0)],
        }
    }

    #[test]
    fn passes_between_and_beyond_those_measured() {
        let costs = costs();
        for (rows, milliseconds) in [(1, 1.0), (2, 1.5), (3, 1.75), (4, 2.0), (8, 3.0)] {
            assert_eq!(costs.pass(rows), milliseconds);
        }
    }

    #[test]
    fn a_source_is_read_by_those_that_are_asked() {
        let output = |steps: usize, passes: usize| -> Output {
            let mut output = json!({
                "tokens": [], "log_probs": [], "writers": [], "finish": "end_of_sequence", "source_tokens": 1,
                "truncated": false, "statistics": bild::decode::Statistics::default(), "events": []
            });
            output["statistics"]["draft_steps"] = steps.into();
            let verified = Event::Verified { at: 0, drafts: 1, accepted: 1 };
            output["events"] = json!(vec![verified; passes]);
            serde_json::from_value(output).unwrap()
        };
        for (steps, passes, milliseconds) in [(0, 0, 0.0), (0, 2, 4.5), (2, 0, 1.75), (2, 2, 5.5)] {
            assert_eq!(costs().of(&output(steps, passes)), milliseconds, "{steps} steps, {passes} passes");
        }
    }

    /// Two models with one encoder, that take their time for it alone.
    struct OneEncoder(Vocabulary);

    struct Session {
        limit: SessionLimit,
        is_read: bool,
    }

    impl Pair for OneEncoder {
        type Session = Session;

        fn vocabulary(&self) -> &Vocabulary {
            &self.0
        }

        fn begin(&self, _source: &Source, limit: &SessionLimit) -> decode::Result<Session> {
            Ok(Session { limit: limit.clone(), is_read: false })
        }
    }

    impl PairSession for Session {
        fn pass(&mut self, pass: &Pass<'_>) -> decode::Result<Rows> {
            let takes = Duration::from_millis(if self.is_read { 0 } else { 8 });
            self.limit.reading(|| sleep(takes));
            self.is_read = true;
            let rows = if pass.role == Role::Draft { 1 } else { pass.new.len() };
            Ok(vec![Row::certain(3); rows].into())
        }
    }

    #[test]
    fn one_encoder_is_paid_once() {
        let costs = Costs::measure(&OneEncoder(Vocabulary::new(10, 0, [1])), 4, &()).unwrap();
        assert!(costs.encode_big >= 8.0 && costs.encode_little_alone >= 8.0 && costs.encode_little < 4.0, "{costs:?}");
    }
}
