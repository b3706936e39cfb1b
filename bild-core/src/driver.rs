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
}

/// The memory for a generation; nothing if it is not free, before the thread has waited for so long.
pub(crate) type Leases<'f, 'a> = &'f dyn Fn(&mut Generation, Duration) -> Option<Lease<'a>>;

/// How often a thread that waits for memory and has nothing else to do looks whether it is still wanted.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

impl<'a, P: Pair, T> Driver<'a, P, T> {
    pub(crate) fn new(pair: &'a P, places: usize, budget: &'a Budget) -> Self {
        Self { batch: Batch::new(pair), places, budget }
    }

    /// Begins generations until all places are taken. `next` is asked for each and for its memory, and told whether to wait; where it was,
    /// and there is none, there will be none. Returns whether any is under way.
    pub(crate) fn fill(
        &mut self,
        mut next: impl FnMut(bool, Leases<'_, 'a>) -> Option<(Generation, T, Lease<'a>)>,
    ) -> bool {
        let (pair, budget) = (*self.batch.pair(), self.budget);
        let lease = |generation: &mut Generation, wait| {
            // One whose time is up, or that nobody wants any more, needs no memory to be told so.
            let bytes = match generation.pass() {
                Some(_) => pair.bytes_for(generation.source().tokens().len(), generation.limit().tokens),
                None => 0,
            };
            budget.take(bytes, wait)
        };
        while self.batch.len() < self.places
            && let Some((generation, tag, lease)) = next(self.batch.is_empty(), &lease)
        {
            self.batch.add(generation, (tag, lease));
        }
        !self.batch.is_empty()
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
