use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::generator::ENOUGH;

/// Does `work` on every item in `at_once` threads (at least one), and hands each result to `each` with its number: in the order of the
/// items, on this thread, as soon as it and all before it are there. Items are taken as they are needed, on a thread of their own: at
/// most `2 · at_once` of them are under way or wait for their turn. A panic in `work` goes on in this thread.
///
/// ```
/// let mut found = Vec::new();
/// bild::decode::in_order(1..=4, 2, |x| x * x, |i, square| found.push((i, square)));
/// assert_eq!(found, [(0, 1), (1, 4), (2, 9), (3, 16)]);
/// ```
pub fn in_order<T: Send, R: Send>(
    items: impl IntoIterator<Item = T, IntoIter: Send>,
    at_once: usize,
    work: impl Fn(T) -> R + Sync,
    each: impl FnMut(usize, R),
) {
    let one_by_one = |desk: &Desk<T, R>| {
        while let Some((i, item)) = desk.take(true) {
            desk.give(i, work(item));
        }
    };
    by_threads(items, at_once, 1, Order::Given, one_by_one, each);
}

/// In which order results are handed over.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the items.
    Given,
    /// Each when it is there.
    Done,
}

/// Where a thread takes items and gives results.
pub(crate) struct Desk<'a, T, R> {
    /// The number of the thread.
    pub(crate) thread: usize,
    threads: usize,
    /// How many items were taken whose result is not there.
    open: &'a AtomicUsize,
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

    /// How many of the items that are to be done now each thread has if they are shared out evenly.
    pub(crate) fn share(&self) -> usize {
        self.open.load(Ordering::Relaxed).div_ceil(self.threads)
    }

    /// Gives the result of an item.
    pub(crate) fn give(&self, number: usize, result: R) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        // Nobody takes it if another thread has panicked.
        let _ = self.results.send(Ok((number, result)));
    }
}

/// How far items are taken ahead of the results that were handed over.
#[derive(Default)]
struct Pace {
    /// How many were; nothing once no more items are wanted.
    handed: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Pace {
    fn set(&self, handed: Option<usize>) {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = handed;
        self.changed.notify_all();
    }

    /// Waits until so many at most would be ahead with item `number`, and says whether it is wanted.
    fn wants(&self, number: usize, ahead: usize) -> bool {
        let handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        let too_early = |handed: &mut Option<usize>| handed.is_some_and(|handed| number - handed >= ahead);
        self.changed.wait_while(handed, too_early).unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Says that no more items are wanted, also when something panics.
struct End<'a>(&'a Pace);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Lets `work` do items in `threads` threads, each of which has up to `share` of them under way and begins where those before it have
/// `ENOUGH`; else as [`in_order`], or in another `order`.
pub(crate) fn by_threads<I: IntoIterator<Item: Send, IntoIter: Send>, R: Send>(
    items: I,
    threads: usize,
    share: usize,
    order: Order,
    work: impl Fn(&Desk<'_, I::Item, R>) + Sync,
    mut each: impl FnMut(usize, R),
) {
    let (threads, share) = (threads.max(1), share.max(1));
    let few = share.min(ENOUGH);
    // Where results are in order a long one holds up those after it: where many share a pass, places would stay empty meanwhile.
    let ahead = threads.saturating_mul(share).saturating_mul(if share == 1 { 2 } else { 8 });
    let (give, taken) = mpsc::channel();
    let (done, results) = mpsc::channel();
    let (taken, pace, open) = (Mutex::new(taken), Pace::default(), AtomicUsize::new(0));
    pace.set(Some(0));
    let mut items = items.into_iter().enumerate();
    let (work, taken, pace, open) = (&work, &taken, &pace, &open);
    thread::scope(|scope| {
        // In a thread of their own: whoever waits for an item hands over results meanwhile.
        let panicked = done.clone();
        let feed = move || {
            for number in 0.. {
                if !pace.wants(number, ahead) {
                    return;
                }
                let Some(item) = items.next() else { return };
                open.fetch_add(1, Ordering::Relaxed);
                if number % few == 0 && number / few < threads {
                    let (thread, results) = (number / few, done.clone());
                    let desk = Desk { thread, threads, open, items: taken, results };
                    scope.spawn(move || {
                        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&desk))) {
                            let _ = desk.results.send(Err(panic));
                        }
                    });
                }
                give.send(item).expect("the receiver outlives the scope");
            }
        };
        scope.spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(feed)) {
                let _ = panicked.send(Err(panic));
            }
        });
        let _end = End(pace);
        let (mut next, mut waiting) = (0, BTreeMap::new());
        for result in results {
            let (i, result) = result.unwrap_or_else(|panic| resume_unwind(panic));
            if order == Order::Done {
                each(i, result);
                next += 1;
                pace.set(Some(next));
                continue;
            }
            waiting.insert(i, result);
            while let Some(result) = waiting.remove(&next) {
                each(next, result);
                next += 1;
                pace.set(Some(next));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    /// As a program at the other end of a pipe may do.
    #[test]
    fn results_come_while_the_next_item_is_waited_for() {
        for share in [1, 4] {
            let (answered, answer) = mpsc::channel();
            let questions = (0..20usize).inspect(move |&i| {
                if i > 0 {
                    let before = answer.recv_timeout(Duration::from_secs(60));
                    assert_eq!(before, Ok(i - 1), "{share} at once");
                }
            });
            let work = |desk: &Desk<'_, usize, usize>| {
                while let Some((number, item)) = desk.take(true) {
                    desk.give(number, item);
                }
            };
            by_threads(questions, 2, share, Order::Given, work, |_, item| _ = answered.send(item));
        }
    }

    #[test]
    fn results_come_as_they_are_done_where_that_is_asked_for() {
        // The first is done once the last has been handed over.
        let (go, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let work = |desk: &Desk<'_, usize, usize>| {
            while let Some((number, item)) = desk.take(true) {
                if item == 0 {
                    wait.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
                }
                desk.give(number, item);
            }
        };
        let mut found = Vec::new();
        by_threads(0..8usize, 2, 1, Order::Done, work, |number, item| {
            assert_eq!(number, item);
            found.push(item);
            if found.len() == 7 {
                go.send(()).unwrap();
            }
        });
        assert_eq!(found.pop(), Some(0));
        found.sort_unstable();
        assert_eq!(found, (1..8).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_open_is_shared_out_evenly() {
        let shares = Mutex::new(Vec::new());
        let work = |desk: &Desk<'_, usize, ()>| {
            while let Some((number, _)) = desk.take(true) {
                shares.lock().unwrap().push(desk.share());
                desk.give(number, ());
            }
        };
        by_threads(0..100usize, 1, 50, Order::Given, work, |_, ()| {});
        let shares = shares.into_inner().unwrap();
        assert!(shares.iter().all(|share| (1..=100).contains(share)), "{shares:?}");
        assert_eq!(shares.last(), Some(&1), "nothing but the last item is open");
    }

    #[test]
    #[should_panic(expected = "no third item")]
    fn a_panic_of_the_items_comes_out() {
        let items = (0..4).inspect(|i| assert!(*i < 2, "no third item"));
        in_order(items, 2, |i| i, |_, _| {});
    }

    #[test]
    #[should_panic(expected = "the seventh")]
    fn a_panic_comes_out() {
        in_order(0..20, 2, |i| assert!(i != 7, "the seventh"), |_, ()| {});
    }
}
