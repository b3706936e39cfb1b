use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

/// Does `work` on every item in `at_once` threads (at least one), and hands each result to `each` with its number: in the order of the
/// items, on this thread. Items are taken as they are needed: at most `2 · at_once` of them are under way or wait for
/// their turn. A panic in `work` goes on in this thread.
///
/// ```
/// let mut found = Vec::new();
/// bild::decode::in_order(1..=4, 2, |x| x * x, |i, square| found.push((i, square)));
/// assert_eq!(found, [(0, 1), (1, 4), (2, 9), (3, 16)]);
/// ```
pub fn in_order<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    at_once: usize,
    work: impl Fn(T) -> R + Sync,
    each: impl FnMut(usize, R),
) {
    let one_by_one = |desk: &Desk<T, R>| {
        while let Some((i, item)) = desk.take(true) {
            desk.give(i, work(item));
        }
    };
    by_threads(items, at_once, 1, one_by_one, each);
}

/// Where a thread takes items and gives results.
pub(crate) struct Desk<'a, T, R> {
    /// The number of the thread.
    pub(crate) thread: usize,
    items: &'a Mutex<mpsc::Receiver<(usize, T)>>,
    results: mpsc::Sender<Result<(usize, R), Panic>>,
}

type Panic = Box<dyn Any + Send>;

impl<T, R> Desk<'_, T, R> {
    /// The next item with its number. Nothing if there will be none, or if there is none now and the thread has something else to
    /// do than to `wait`.
    pub(crate) fn take(&self, wait: bool) -> Option<(usize, T)> {
        if wait {
            return self.items.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
        }
        // Whoever holds it waits for an item: there is none.
        self.items.try_lock().ok()?.try_recv().ok()
    }

    /// Gives the result of an item.
    pub(crate) fn give(&self, number: usize, result: R) {
        // Nobody takes it if another thread has panicked.
        let _ = self.results.send(Ok((number, result)));
    }
}

/// Lets `work` do items in `threads` threads, each of which has up to `share` of them under way, the first as many; else as [`in_order`].
pub(crate) fn by_threads<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    threads: usize,
    share: usize,
    work: impl Fn(&Desk<'_, T, R>) + Sync,
    mut each: impl FnMut(usize, R),
) {
    let (threads, share) = (threads.max(1), share.max(1));
    // Results are in order, so a long one holds up those after it: where many share a pass, places would stay empty meanwhile.
    let ahead = threads.saturating_mul(share).saturating_mul(if share == 1 { 2 } else { 8 });
    let (give, taken) = mpsc::channel::<(usize, T)>();
    let taken = Mutex::new(taken);
    let (done, results) = mpsc::channel::<Result<(usize, R), Panic>>();
    let mut items = items.into_iter().enumerate().fuse();
    thread::scope(|scope| {
        let give = give; // dropped at the end of the scope, which ends the threads
        let spawn = |thread| {
            let desk = Desk { thread, items: &taken, results: done.clone() };
            let work = &work;
            scope.spawn(move || {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&desk))) {
                    let _ = desk.results.send(Err(panic));
                }
            });
        };
        let (mut given, mut next, mut waiting) = (0, 0, BTreeMap::new());
        loop {
            while given < ahead.saturating_add(next)
                && let Some(item) = items.next()
            {
                if given % share == 0 && given / share < threads {
                    spawn(given / share);
                }
                give.send(item).expect("the receiver outlives the scope");
                given += 1;
            }
            if next == given {
                return;
            }
            let (i, result) =
                results.recv().expect("a sender outlives the scope").unwrap_or_else(|panic| resume_unwind(panic));
            waiting.insert(i, result);
            while let Some(result) = waiting.remove(&next) {
                each(next, result);
                next += 1;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn order_is_kept_and_few_items_are_taken_ahead() {
        let (taken, handed, ahead) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let items = (0..500usize).inspect(|_| {
            let taken = taken.fetch_add(1, Ordering::SeqCst) + 1;
            ahead.fetch_max(taken - handed.load(Ordering::SeqCst), Ordering::SeqCst);
        });
        let mut found = Vec::new();
        in_order(
            items,
            3,
            |i| {
                thread::sleep(Duration::from_micros(i as u64 * 7919 % 300));
                i
            },
            |i, item| {
                assert_eq!(i, item);
                handed.fetch_add(1, Ordering::SeqCst);
                found.push(item);
            },
        );
        assert_eq!(found, (0..500).collect::<Vec<_>>());
        assert!(ahead.into_inner() <= 7);
        in_order(0..3, usize::MAX, |i: usize| i, |i, item| assert_eq!(i, item));
        in_order(0..0, 2, |i: usize| i, |_, _| panic!("there is no item"));
    }

    #[test]
    #[should_panic(expected = "the seventh")]
    fn a_panic_comes_out() {
        in_order(0..20, 2, |i| assert!(i != 7, "the seventh"), |_, ()| {});
    }
}
