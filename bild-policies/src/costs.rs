//! What drafting and verifying cost and how often drafts stand, learned while decoding. Times are seconds.

/// A mean of recent values: each counts for `KEPT` of what the next does.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    sum: f64,
    weight: f64,
}

const KEPT: f64 = 0.98;

impl Recent {
    /// As if `weight` values had been seen, of this mean.
    fn of(mean: f64, weight: f64) -> Self {
        Self { sum: mean * weight, weight }
    }

    fn add(&mut self, value: f64) {
        self.add_share(value, 1.0);
    }

    /// A mean of `weight` values, of the sum `value`.
    fn add_share(&mut self, value: f64, weight: f64) {
        let kept = KEPT.powf(weight);
        (self.sum, self.weight) = (self.sum * kept + value, self.weight * kept + weight);
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// A line through recent points: the time of a verifier pass over the number of drafts in it.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn add(&mut self, x: f64, y: f64) {
        for (sum, value) in
            [(&mut self.weight, 1.0), (&mut self.x, x), (&mut self.y, y), (&mut self.xx, x * x), (&mut self.xy, x * y)]
        {
            *sum = *sum * KEPT + value;
        }
    }

    /// The value at 0 and the slope, neither below 0; without points that differ, the slope is a twentieth of the value.
    fn fit(&self) -> Option<(f64, f64)> {
        let (x, y) = (self.x / self.weight, self.y / self.weight);
        let (xx, xy) = (self.xx / self.weight - x * x, self.xy / self.weight - x * y);
        let slope = if xx > 0.1 { (xy / xx).clamp(0.0, y.max(0.0)) } else { y / (20.0 + x) };
        (self.weight > 0.0).then(|| ((y - slope * x).max(0.0), slope))
    }
}

/// Confidences are told apart by tenths, and certainty, which a look-up has, from what is nearly certain.
const BINS: usize = 11;
/// The share of the time that is spent on finding out whether drafting pays by now.
const TRIALS: f64 = 0.02;

#[derive(Clone, Debug)]
pub(crate) struct Costs {
    /// Of any draft step.
    draft: Recent,
    /// Of those that were certain, which look-ups are, and of the others: where several draft, the one costs next to nothing and the
    /// other a pass.
    by_kind: [Recent; 2],
    verify: Line,
    prepare: Recent,
    /// How often drafts of each confidence stood.
    stood: [Recent; BINS],
    /// How often the first token of a draft, tried, stood.
    first: Recent,
    /// How often any token of a draft, tried, stood.
    any: Recent,
    /// Tokens and seconds.
    tokens: Recent,
    seconds: Recent,
    /// Seconds of the draft that is under way.
    drafting: f64,
    /// Seconds that may be spent on trials.
    credit: f64,
}

impl Default for Costs {
    fn default() -> Self {
        // As if drafts stood as often as their confidence says.
        let stood = std::array::from_fn(|bin| Recent::of((bin as f64 + 0.5) / 10.0, 2.0));
        let (first, any) = (Recent::of(0.7, 4.0), Recent::of(0.7, 4.0));
        let none = Recent::default();
        let (tokens, seconds) = (none, none);
        Self {
            draft: none,
            by_kind: [none; 2],
            verify: Line::default(),
            prepare: none,
            stood,
            first,
            any,
            tokens,
            seconds,
            drafting: 0.0,
            credit: 0.0,
        }
    }
}

fn bin(confidence: f64) -> usize {
    ((confidence * 10.0) as usize).min(BINS - 1)
}

/// Whether a draft of this confidence is certain, as what was looked up is.
fn kind(confidence: f64) -> usize {
    usize::from(bin(confidence) == BINS - 1)
}

impl Costs {
    /// The draft model read the source.
    pub(crate) fn prepared(&mut self, time: f64) {
        self.prepare.add(time);
    }

    /// The draft model made a step, of this confidence.
    pub(crate) fn drafted(&mut self, time: f64, confidence: f64) {
        self.draft.add(time);
        self.by_kind[kind(confidence)].add(time);
        self.drafting += time;
    }

    /// The verifier made a pass over so many drafts (for several generations: each, in the mean), after so many draft steps of this one.
    pub(crate) fn verified(&mut self, time: f64, drafts: f64, steps: usize, accepted: usize) {
        self.verify.add(drafts, time);
        self.tokens.add(accepted as f64 + 1.0);
        self.seconds.add(time + std::mem::take(&mut self.drafting));
        if steps > 0 {
            self.first.add(f64::from(u8::from(accepted > 0)));
            // What was drafted after a refused token tells nothing.
            self.any.add_share(accepted as f64, steps.min(accepted + 1) as f64);
        } else {
            self.credit += TRIALS * time;
        }
    }

    /// A draft of this confidence was judged.
    pub(crate) fn judged(&mut self, confidence: f64, stood: bool) {
        self.stood[bin(confidence)].add(f64::from(u8::from(stood)));
    }

    /// How often drafts of this confidence stand.
    pub(crate) fn chance(&self, confidence: f64) -> f64 {
        self.stood[bin(confidence)].mean().unwrap_or(confidence)
    }

    /// What one more draft costs if draft steps are as these, and the tokens a second of the verifier alone; nothing before both are
    /// known.
    fn prices(&self, steps: &Recent) -> Option<(f64, f64)> {
        let (alone, slope) = self.verify.fit()?;
        Some((steps.mean()? + slope, 1.0 / alone.max(1e-9)))
    }

    /// Whether another draft pays after drafts that all stand with this chance, the last of this confidence: the next is likely to be
    /// made as that one was.
    pub(crate) fn next_pays(&self, chance: f64, confidence: f64) -> bool {
        let prices = self.prices(&self.by_kind[kind(confidence)]);
        let (Some((price, alone)), Some(any)) = (prices, self.any.mean()) else { return true };
        let reached = match (self.tokens.mean(), self.seconds.mean()) {
            (Some(tokens), Some(seconds)) => tokens / seconds.max(1e-9),
            _ => alone,
        };
        chance * any > reached.max(alone) * price
    }

    /// Whether the draft model is to speak: because that pays, or because it is time for a trial. `is_prepared`: it has read
    /// the source already.
    pub(crate) fn begins_draft(&mut self, is_prepared: bool) -> bool {
        let (Some((price, alone)), Some(first)) = (self.prices(&self.draft), self.first.mean()) else { return true };
        if first > alone * price {
            return true;
        }
        let trial = price + if is_prepared { 0.0 } else { self.prepare.mean().unwrap_or(0.0) };
        let can_try = self.credit >= trial;
        if can_try {
            self.credit -= trial;
        }
        can_try
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes with a draft model whose tokens stand with the chance `stands`, at these costs, and returns the mean length of the
    /// drafts and the tokens a second.
    fn run(costs: &mut Costs, stands: f64, draft: f64, verify: f64, calls: usize) -> (f64, f64) {
        let (mut drafted, mut tokens, mut seconds) = (0, 0, 0.0);
        let mut random = crate::random::Generator::new(1);
        for _ in 0..calls {
            let (mut steps, mut chance) = (0, 1.0);
            if costs.begins_draft(true) {
                while steps < 30 {
                    costs.drafted(draft, 0.85);
                    seconds += draft;
                    steps += 1;
                    chance *= costs.chance(0.85);
                    if !costs.next_pays(chance, 0.85) {
                        break;
                    }
                }
            }
            let accepted = (0..steps).take_while(|_| random.uniform() < stands).count();
            for i in 0..(accepted + 1).min(steps) {
                costs.judged(0.85, i < accepted);
            }
            let time = verify * (1.0 + 0.02 * steps as f64);
            costs.verified(time, steps as f64, steps, accepted);
            (drafted, tokens, seconds) = (drafted + steps, tokens + accepted + 1, seconds + time);
        }
        (drafted as f64 / calls as f64, tokens as f64 / seconds)
    }

    /// The rate of the best fixed draft length, by the geometric series.
    fn best(stands: f64, draft: f64, verify: f64) -> f64 {
        let rate = |k: i32| {
            let tokens: f64 = (0..=k).map(|i| stands.powi(i)).sum();
            tokens / (f64::from(k) * draft + verify * (1.0 + 0.02 * f64::from(k)))
        };
        (0..=30).map(rate).fold(0.0, f64::max)
    }

    #[test]
    fn it_comes_near_the_best_fixed_length_whatever_the_costs() {
        for stands in [0.5, 0.8, 0.95] {
            for draft in [0.02, 0.1, 0.3] {
                let mut costs = Costs::default();
                run(&mut costs, stands, draft, 1.0, 500);
                let (length, rate) = run(&mut costs, stands, draft, 1.0, 2000);
                let best = best(stands, draft, 1.0);
                assert!(rate > 0.95 * best, "{stands} {draft}: {rate} of {best} with {length} drafts");
            }
        }
    }

    #[test]
    fn a_draft_that_is_copied_goes_on_for_what_copies_cost() {
        let mut costs = Costs::default();
        for _ in 0..200 {
            for (confidence, time) in [(1.0, 0.001), (0.85, 0.4)] {
                costs.drafted(time, confidence);
                costs.judged(confidence, true);
                costs.verified(1.0, 1.0, 1, 1);
            }
        }
        assert!(costs.next_pays(0.3, 1.0), "a copy costs nothing");
        assert!(!costs.next_pays(0.3, 0.85), "a step of the model costs nearly half of a pass");
    }

    #[test]
    fn it_drafts_next_to_nothing_while_that_does_not_pay_and_starts_again_when_it_does() {
        let mut costs = Costs::default();
        run(&mut costs, 0.02, 0.3, 1.0, 200);
        let (length, rate) = run(&mut costs, 0.02, 0.3, 1.0, 1000);
        assert!(length < 0.1 && rate > 0.96, "{length} {rate}");
        run(&mut costs, 0.9, 0.3, 1.0, 1000);
        let (length, rate) = run(&mut costs, 0.9, 0.3, 1.0, 500);
        assert!(length > 1.0 && rate > 0.9 * best(0.9, 0.3, 1.0), "{length} {rate}");
    }
}
