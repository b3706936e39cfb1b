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
    mut each: impl FnMut(usize, R),
) {
    let at_once = at_once.max(1);
    let (give, taken) = mpsc::channel::<(usize, T)>();
    let taken = Mutex::new(taken);
    let (done, results) = mpsc::channel::<(usize, Result<R, Box<dyn Any + Send>>)>();
    let mut items = items.into_iter().enumerate().fuse();
    thread::scope(|scope| {
        let give = give; // dropped at the end of the scope, which ends the threads
        let spawn = || {
            let (done, taken, work) = (done.clone(), &taken, &work);
            scope.spawn(move || {
                loop {
                    let next = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((i, item)) = next else { return };
                    let result = catch_unwind(AssertUnwindSafe(|| work(item)));
                    if done.send((i, result)).is_err() {
                        return;
                    }
                }
            });
        };
        let (mut given, mut next, mut waiting) = (0, 0, BTreeMap::new());
        loop {
            while given < at_once.saturating_mul(2).saturating_add(next)
                && let Some(item) = items.next()
            {
                if given < at_once {
                    spawn();
                }
                give.send(item).expect("the receiver outlives the scope");
                given += 1;
            }
            if next == given {
                return;
            }
            let (i, result) = results.recv().expect("a sender outlives the scope");
            waiting.insert(i, result.unwrap_or_else(|panic| resume_unwind(panic)));
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
