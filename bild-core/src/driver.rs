use crate::{Batch, Generation, Output, Pair, Result, budget::Lease};

/// One thread's share of many generations: a [`Batch`] whose places are filled as they and the memory for them become free.
pub(crate) struct Driver<'a, P: Pair, T> {
    batch: Batch<&'a P, (T, Lease<'a>)>,
}

impl<'a, P: Pair, T> Driver<'a, P, T> {
    pub(crate) fn new(pair: &'a P) -> Self {
        Self { batch: Batch::new(pair) }
    }

    /// Begins generations until so many places are taken. `next` is asked for each and the memory for it, and told whether to wait; where it
    /// was, and there is none, there will be none. Returns whether any is under way.
    pub(crate) fn fill(
        &mut self,
        places: usize,
        mut next: impl FnMut(bool) -> Option<(Generation, T, Lease<'a>)>,
    ) -> bool {
        while self.batch.len() < places
            && let Some((generation, tag, lease)) = next(self.batch.is_empty())
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
