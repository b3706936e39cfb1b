use std::time::Duration;

use crate::{
    Batch, Generation, Output, Pair, Result,
    budget::{Budget, Lease},
};

/// One thread's share of many generations: a [`Batch`] whose places are filled as they and the memory for them become free.
pub(crate) struct Driver<'a, P: Pair, T> {
    batch: Batch<&'a P, (T, Lease<'a>)>,
    places: usize,
    budget: &'a Budget,
    /// One that there is no memory for yet.
    waiting: Option<(Generation, T)>,
}

impl<'a, P: Pair, T> Driver<'a, P, T> {
    pub(crate) fn new(pair: &'a P, places: usize, budget: &'a Budget) -> Self {
        Self { batch: Batch::new(pair), places, budget, waiting: None }
    }

    /// Begins generations until all places are taken. `next` is asked for each, and told whether to wait for it; where it was, and
    /// there is none, there will be none. Returns whether any is under way.
    pub(crate) fn fill(&mut self, mut next: impl FnMut(bool) -> Option<(Generation, T)>) -> bool {
        while self.batch.len() < self.places {
            let Some((mut generation, tag)) = self.waiting.take().or_else(|| next(self.batch.is_empty())) else {
                break;
            };
            match self.lease(&mut generation) {
                Some(lease) => self.batch.add(generation, (tag, lease)),
                None => {
                    self.waiting = Some((generation, tag));
                    break;
                }
            }
        }
        !self.batch.is_empty()
    }

    /// The memory for a generation; nothing if it is not free and there are others to go on with meanwhile.
    fn lease(&self, generation: &mut Generation) -> Option<Lease<'a>> {
        /// How often a thread that has nothing else to do looks whether it is still wanted.
        const LOOK: Duration = Duration::from_millis(20);
        loop {
            // One whose time is up, or that nobody wants any more, needs no memory to be told so.
            let bytes = match generation.pass() {
                Some(_) => self.batch.pair().bytes_for(generation.source().tokens().len(), generation.limit().tokens),
                None => 0,
            };
            let wait = if self.batch.is_empty() { LOOK } else { Duration::ZERO };
            let lease = self.budget.take(bytes, wait);
            if lease.is_some() || !self.batch.is_empty() {
                return lease;
            }
        }
    }

    /// Has one pass made, as [`Batch::step`], and gives away those that have ended.
    pub(crate) fn step(
        &mut self,
        mut moved: impl FnMut(&mut T, &mut Generation) -> Result<()>,
        mut ended: impl FnMut(T, Result<Output>),
    ) {
        self.batch.step(|(tag, _), generation| moved(tag, generation));
        for ((tag, lease), output) in self.batch.take_ended() {
            drop(lease);
            ended(tag, output);
        }
    }
}
