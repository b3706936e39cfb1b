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

/// A line through recent points: the time of a pass over how much is in it.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    /// A point that counts for so much of another.
    fn add(&mut self, x: f64, y: f64, weight: f64) {
        let kept = KEPT.powf(weight);
        for (sum, value) in
            [(&mut self.weight, 1.0), (&mut self.x, x), (&mut self.y, y), (&mut self.xx, x * x), (&mut self.xy, x * y)]
        {
            *sum = *sum * kept + value * weight;
        }
    }

    /// The mean of x, and whether the points differ enough to tell a slope.
    fn spread(&self) -> (f64, bool) {
        let x = self.x / self.weight;
        (x, self.xx / self.weight - x * x > 0.1)
    }

    /// The value at 0 and the slope, neither below 0; without points that differ, the slope is a twentieth of the value at 1.
    fn fit(&self) -> Option<(f64, f64)> {
        let ((x, differ), y) = (self.spread(), self.y / self.weight);
        let (xx, xy) = (self.xx / self.weight - x * x, self.xy / self.weight - x * y);
        let slope = if differ { (xy / xx).max(0.0) } else { y / (19.0 + x) };
        let slope = slope.min(y.max(0.0) / x.max(1.0));
        (self.weight > 0.0).then(|| ((y - slope * x).max(0.0), slope))
    }
}

/// A pass, of which each generation that it was made for has an even share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    /// The seconds of one share.
    pub(crate) time: f64,
    /// For how many generations it was made.
    pub(crate) size: usize,
}

impl Shared {
    fn whole(self) -> f64 {
        self.time * self.size as f64
    }

    /// What it counts for each of them, so that it counts once.
    fn weight(self) -> f64 {
        1.0 / self.size as f64
    }
}

/// Confidences are told apart by tenths, and certainty, which a look-up has, from what is nearly certain.
const BINS: usize = 11;
/// The share of the time that is spent on finding out whether drafting pays by now.
const TRIALS: f64 = 0.02;

#[derive(Clone, Debug)]
pub(crate) struct Costs {
    /// Of any draft step, over the generations it is made for.
    draft: Line,
    /// Of those that were certain, which look-ups are, and of the others: where several draft, the one costs next to nothing and the
    /// other a pass.
    by_kind: [Line; 2],
    /// Of a pass of the verifier, over the tokens in it.
    verify: Line,
    /// For how many generations it is made.
    size: Recent,
    /// What it takes the draft model to read a source.
    prepare: Recent,
    /// Whether a generation was to begin.
    asked: bool,
    /// Generations, and passes of the verifier in them.
    generations: f64,
    passes: f64,
    /// Generations that draft before it is known whether that pays.
    early: usize,
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
            draft: Line::default(),
            by_kind: [Line::default(); 2],
            verify: Line::default(),
            size: none,
            prepare: none,
            asked: false,
            generations: 0.0,
            passes: 0.0,
            early: 0,
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
    /// What reading the source took before a draft, the `first` of a generation or a later one: where several draft, a model may read
    /// it only after look-ups found something.
    pub(crate) fn prepared(&mut self, time: f64, first: bool) {
        self.prepare.add_share(time, f64::from(u8::from(first)));
    }

    /// The draft model made a step, of this confidence.
    pub(crate) fn drafted(&mut self, pass: Shared, confidence: f64) {
        for line in [&mut self.draft, &mut self.by_kind[kind(confidence)]] {
            line.add(pass.size as f64, pass.whole(), pass.weight());
        }
        self.drafting += pass.time;
    }

    /// The verifier made a pass over so many tokens in all, after so many draft steps of this generation.
    pub(crate) fn verified(&mut self, pass: Shared, rows: usize, steps: usize, accepted: usize) {
        let Shared { time, size } = pass;
        self.verify.add(rows as f64, pass.whole(), pass.weight());
        self.size.add_share(1.0, pass.weight());
        debug_assert!(rows >= size);
        self.passes += 1.0;
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

    /// For how many generations a pass of the verifier is made.
    fn mean_size(&self) -> f64 {
        self.size.mean().unwrap_or(1.0)
    }

    /// What one more draft costs if draft steps are as these and so many generations make one together, and the tokens a second of the
    /// verifier alone; nothing before both are known.
    fn prices(&self, steps: &Line, together: f64) -> Option<(f64, f64)> {
        let (pass, row) = self.verify.fit()?;
        let (step, more) = steps.fit()?;
        Some((step / together + more + row, 1.0 / (pass / self.mean_size() + row).max(1e-9)))
    }

    /// What a draft costs that no other generation makes.
    fn trial(&self) -> f64 {
        let of = |line: Line| line.fit().unwrap_or_default();
        let ((step, more), (_, row)) = (of(self.draft), of(self.verify));
        step + more + row
    }

    /// Whether another draft pays after drafts that all stand with this chance, the last of this confidence and made by so many generations
    /// together: the next is likely to be made as that one was. Those that have stopped wait for it.
    pub(crate) fn next_pays(&self, chance: f64, confidence: f64, together: usize) -> bool {
        let prices = self.prices(&self.by_kind[kind(confidence)], together as f64);
        let (Some((price, alone)), Some(any)) = (prices, self.any.mean()) else { return true };
        let reached = match (self.tokens.mean(), self.seconds.mean()) {
            (Some(tokens), Some(seconds)) => tokens / seconds.max(1e-9),
            _ => alone,
        };
        chance * any > reached.max(alone) * price
    }

    /// Whether a generation is to begin with a draft. What it takes to read the source is told apart where the verifier has spoken before,
    /// so the second generation begins with that, if passes are `measured`.
    pub(crate) fn begins(&mut self, measured: bool) -> bool {
        let is_first = !std::mem::replace(&mut self.asked, true);
        let is_told = self.prepare.mean().is_some() || !measured;
        (is_first || is_told) && self.begins_draft(Some(0))
    }

    /// A generation makes its first pass.
    pub(crate) fn begun(&mut self) {
        (self.generations, self.passes) = (self.generations * KEPT + 1.0, self.passes * KEPT);
    }

    /// Whether the draft model is to speak: because that pays, or because it is time for a trial. `unread`: it has not read the source, and
    /// the verifier has made so many passes.
    pub(crate) fn begins_draft(&mut self, unread: Option<usize>) -> bool {
        // All may draft.
        let size = self.mean_size();
        let (Some((price, alone)), Some(first)) = (self.prices(&self.draft, size), self.first.mean()) else {
            // Where one is decoded at a time it finds out. Of many one does for all; two, in case it ends at once, and more if nothing is found,
            // as by a look-up.
            let alone = self.size.mean().is_some_and(|size| size < 1.5);
            let tries = unread.is_none() || alone || self.early as f64 <= 1.0 + self.passes / 8.0;
            self.early += usize::from(tries);
            return tries;
        };
        let reading = unread.map_or(0.0, |_| self.prepare.mean().unwrap_or(0.0));
        // Among many that all draft alike, what a row costs is not known until one does not.
        let is_unknown = matches!(self.verify.spread(), (rows, false) if size > 1.5 && rows > 1.5 * size);
        let gain = first / alone - price;
        let passes = (self.passes / self.generations.max(1.0) - unread.unwrap_or(0) as f64).max(1.0);
        if gain > 0.0 && gain * passes > reading {
            return !is_unknown;
        }
        let trial = self.trial() + reading;
        let can_try = self.credit >= trial;
        if can_try {
            self.credit -= trial;
        }
        can_try
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn alone(time: f64) -> Shared {
        Shared { time, size: 1 }
    }

    /// Decodes with a draft model whose tokens stand with the chance `stands`, at these costs, and returns the mean length of the
    /// drafts and the tokens a second.
    fn run(costs: &mut Costs, stands: f64, draft: f64, verify: f64, calls: usize) -> (f64, f64) {
        let (mut drafted, mut tokens, mut seconds) = (0, 0, 0.0);
        let mut random = crate::random::Generator::new(1);
        for _ in 0..calls {
            let (mut steps, mut chance) = (0, 1.0);
            if costs.begins_draft(None) {
                while steps < 30 {
                    costs.drafted(alone(draft), 0.85);
                    seconds += draft;
                    steps += 1;
                    chance *= costs.chance(0.85);
                    if !costs.next_pays(chance, 0.85, 1) {
                        break;
                    }
                }
            }
            let accepted = (0..steps).take_while(|_| random.uniform() < stands).count();
            for i in 0..(accepted + 1).min(steps) {
                costs.judged(0.85, i < accepted);
            }
            let time = verify * (1.0 + 0.02 * steps as f64);
            costs.verified(alone(time), steps + 1, steps, accepted);
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
                costs.drafted(alone(time), confidence);
                costs.judged(confidence, true);
                costs.verified(alone(1.0), 2, 1, 1);
            }
        }
        assert!(costs.next_pays(0.3, 1.0, 1), "a copy costs nothing");
        assert!(!costs.next_pays(0.3, 0.85, 1), "a step of the model costs nearly half of a pass");
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

    /// Of two that draft together one has stopped: the other's next step is its alone, while both wait.
    #[test]
    fn a_step_that_no_other_shares_costs_all_of_it() {
        let mut costs = Costs::default();
        for _ in 0..200 {
            costs.drafted(Shared { time: 0.2, size: 2 }, 0.85);
            costs.judged(0.85, true);
            costs.verified(Shared { time: 0.5, size: 2 }, 4, 1, 1);
        }
        assert!(costs.next_pays(0.8, 0.85, 2));
        assert!(!costs.next_pays(0.8, 0.85, 1));
    }

    /// Sixteen generations whose passes are made together: while a pass waits for memory more rows cost nothing, and all draft; once
    /// each row costs as much as the first, none does.
    #[test]
    fn among_many_it_drafts_for_as_long_as_rows_are_cheap() {
        const SIZE: usize = 16;
        let drafts = |row: f64| {
            let (mut costs, mut random) = (Costs::default(), crate::random::Generator::new(1));
            let mut drafting = [true; SIZE];
            let mut counts = Vec::new();
            for _ in 0..400 {
                let count = drafting.iter().filter(|&&drafts| drafts).count();
                for _ in 0..count {
                    // A fifth of a pass of the verifier, and of its rows.
                    let whole = 0.2 * (1.0 + row * count as f64);
                    costs.drafted(Shared { time: whole / count as f64, size: count }, 0.85);
                }
                let rows = SIZE + count;
                let pass = Shared { time: (1.0 + row * rows as f64) / SIZE as f64, size: SIZE };
                for drafts in &mut drafting {
                    let (steps, stood) = (usize::from(*drafts), random.uniform() < 0.8);
                    if *drafts {
                        costs.judged(0.85, stood);
                    }
                    costs.verified(pass, rows, steps, usize::from(*drafts && stood));
                    *drafts = costs.begins_draft(None);
                }
                counts.push(count);
            }
            counts[200..].iter().sum::<usize>() as f64 / 200.0
        };
        assert!(drafts(0.001) > 15.0, "rows that cost nothing: {}", drafts(0.001));
        assert!(drafts(1.0) < 1.0, "rows that cost what a pass does: {}", drafts(1.0));
    }

    /// Texts of five passes, by models that agree well: reading the source for drafts pays where it is short of what they gain together.
    #[test]
    fn a_source_is_read_for_drafts_where_they_gain_more_than_that() {
        let drafting = |reading: f64, waiting: usize| {
            let mut costs = Costs::default();
            // As those that wait in a queue are asked.
            let mut waiting: VecDeque<bool> = (0..waiting).map(|_| costs.begins(true)).collect();
            let mut drafted = 0;
            for text in 0..400 {
                let mut drafts = waiting.pop_front().unwrap_or_else(|| costs.begins(true));
                costs.begun();
                let mut is_read = false;
                for pass in 1..=5 {
                    if drafts {
                        if !is_read && pass > 1 {
                            costs.prepared(reading, true);
                        }
                        is_read = true;
                        costs.drafted(alone(0.3), 0.85);
                        costs.judged(0.85, true);
                    }
                    costs.verified(alone(1.0), 1 + usize::from(drafts), usize::from(drafts), usize::from(drafts));
                    drafts = costs.begins_draft((!is_read).then_some(pass));
                }
                drafted += usize::from(is_read && text >= 200);
            }
            drafted
        };
        assert!(drafting(0.5, 0) > 190, "{} of 200", drafting(0.5, 0));
        for waiting in [0, 200] {
            assert!(drafting(6.0, waiting) < 20, "{} of 200", drafting(6.0, waiting));
        }
    }

    #[test]
    fn a_model_that_reads_the_source_after_copies_is_counted_once_a_text() {
        let mut costs = Costs::default();
        for _ in 0..300 {
            costs.prepared(0.0, true);
            costs.prepared(6.0, false);
            costs.prepared(0.0, false);
        }
        let mean = costs.prepare.mean().unwrap();
        assert!((mean - 6.0).abs() < 0.1, "{mean}");
    }

    /// Thirty-two that begin together do not all read their sources to find out.
    #[test]
    fn few_find_out_for_all() {
        let mut costs = Costs::default();
        assert_eq!((0..32).filter(|_| costs.begins(true)).count(), 1);
        costs.verified(Shared { time: 0.1, size: 32 }, 32, 0, 0);
        assert_eq!((0..31).filter(|_| costs.begins_draft(Some(1))).count(), 1);
        // A look-up may find nothing for long.
        let tries = (0..160).filter(|_| {
            costs.verified(Shared { time: 0.1, size: 32 }, 32, 0, 0);
            costs.begins_draft(Some(2))
        });
        assert!((15..25).contains(&tries.count()));
        let mut single = Costs::default();
        single.verified(alone(1.0), 1, 0, 0);
        assert!((0..40).all(|_| single.begins_draft(Some(1))));
        let mut given = Costs::default();
        assert_eq!((0..32).filter(|_| given.begins(false)).count(), 2);
    }
}
