use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, LazyLock, Mutex, Once, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, Yield};

use crate::error::{LoadError, Result};

/// The most threads that are asked for in earnest; beyond, they cost more than they compute.
const MOST: usize = 1024;

/// The threads that models on `Flex` compute with. Clones share them; so should the models of a pair, which never compute at the same
/// time for one generation.
///
/// The default is one pool for the whole process, with a thread for each physical core. Any number of generations may use the
/// same threads: as many passes are computed at a time as there are threads, in the order in which they come, and those share
/// the threads evenly. So as many generations as there are threads run side by side, each alone on its core, and a lone one has
/// them all. A pass that waits for its turn sleeps: it takes on no other work, whatever thread or pool asks for it. Other backends have
/// threads of their own and do not look at these.
#[derive(Clone)]
pub struct Threads(Option<Arc<Pools>>);

/// Pools that never run anything but one pass at a time each, so that a thread that waits within a pass for the others
/// finds nothing to do but parts of that pass.
struct Pools {
    count: usize,
    /// The pool of a pass that begins while so many others are computed, made when it is first needed: an even share of
    /// the threads.
    pools: Vec<OnceLock<ThreadPool>>,
    /// What makes a pool.
    start: fn(usize) -> Result<ThreadPool, ThreadPoolBuildError>,
    /// Whether it was said that one could not be made: a generation has many passes.
    warned: Once,
    /// Passes that are being computed.
    active: Arc<AtomicUsize>,
    gate: Mutex<Gate>,
}

/// Who computes, and who waits for it.
struct Gate {
    /// Which pools are free.
    free: Vec<bool>,
    waiting: VecDeque<mpsc::SyncSender<usize>>,
}

impl Threads {
    /// So many threads; with one, models compute in the thread that asks them.
    ///
    /// # Errors
    ///
    /// If `count` is 0 or above 1024, or the system refuses to start so many.
    pub fn new(count: usize) -> Result<Self> {
        let error = |reason: String| LoadError::Threads { count, reason };
        match count {
            0 => Err(error("there must be at least one".into())),
            1 => Ok(Self(None)),
            2..=MOST => {
                let first = start(count).map_err(|reason| error(reason.to_string()))?;
                Ok(Self(Some(Arc::new(Pools::new(first, start)))))
            }
            _ => Err(error(format!("at most {MOST} are"))),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |pools| pools.count)
    }

    /// Computes a pass in the threads, once it is its turn, if there is so much to do (multiplications, or bytes to read)
    /// that it is worth going there; else here.
    pub(crate) fn run<R: Send + 'static>(&self, work: usize, pass: impl FnOnce() -> R + Send + 'static) -> R {
        match &self.0 {
            // Going there and back takes some 20 µs.
            Some(pools) if work >= 1 << 23 => pools.run(pass),
            _ => pass(),
        }
    }

    /// With how many threads, itself included, the thread that asks may share what it computes now: one, unless it
    /// computes a pass.
    pub(crate) fn shared(&self) -> usize {
        let Some(pools) = &self.0 else { return 1 };
        let mut begun = pools.pools.iter().filter_map(OnceLock::get);
        let Some(own) = begun.find(|pool| pool.current_thread_index().is_some()) else { return 1 };
        let active = pools.active.load(Ordering::Relaxed).max(1);
        own.current_num_threads().min(pools.count / active).max(1)
    }

    /// Computes two things, at once if there are two threads.
    pub(crate) fn both<X: Send, Y: Send>(&self, x: impl FnOnce() -> X + Send, y: impl FnOnce() -> Y + Send) -> (X, Y) {
        if self.count() == 1 {
            return (x(), y());
        }
        std::thread::scope(|scope| {
            let y = scope.spawn(y);
            (x(), y.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }
}

impl Pools {
    /// With the threads of the first pool.
    fn new(first: ThreadPool, start: fn(usize) -> Result<ThreadPool, ThreadPoolBuildError>) -> Self {
        let count = first.current_num_threads();
        Self {
            count,
            pools: std::iter::once(first.into()).chain((1..count).map(|_| OnceLock::new())).collect(),
            start,
            warned: Once::new(),
            active: Arc::default(),
            gate: Mutex::new(Gate { free: vec![true; count], waiting: VecDeque::new() }),
        }
    }

    /// The pool of a turn. One that cannot be made is said, and tried again by the next pass.
    fn pool(&self, turn: &Turn<'_>) -> Option<&ThreadPool> {
        let (pool, threads) = (&self.pools[turn.pool], self.count / (turn.pool + 1));
        if pool.get().is_none() {
            match (self.start)(threads) {
                // Nobody else has this turn.
                Ok(made) => drop(pool.set(made)),
                Err(error) => self.warned.call_once(|| {
                    tracing::warn!(threads, %error, "threads cannot be had: passes are computed without them until they can");
                }),
            }
        }
        pool.get()
    }

    fn run<R: Send + 'static>(&self, pass: impl FnOnce() -> R + Send + 'static) -> R {
        let turn = Turn::take(self);
        self.active.fetch_add(1, Ordering::Relaxed);
        let result = match self.pool(&turn) {
            // Not `install`: a thread of another pool would run other jobs of that pool while it waits.
            Some(pool) => {
                let (done, result) = mpsc::sync_channel(1);
                let over = Arc::new(AtomicBool::new(false));
                let pass_over = over.clone();
                pool.spawn(move || {
                    BUSY.set(true);
                    let result = catch_unwind(AssertUnwindSafe(pass));
                    BUSY.set(false);
                    pass_over.store(true, Ordering::Release);
                    let _ = done.send(result);
                });
                let others = if self.active.load(Ordering::Relaxed) == 1 { pool.current_num_threads() - 1 } else { 0 };
                for _ in 0..others {
                    let (over, active) = (over.clone(), self.active.clone());
                    pool.spawn(move || stay_awake(&over, &active));
                }
                result.recv().expect("the pass sends what became of it")
            }
            // The system has no more threads to give.
            None => catch_unwind(AssertUnwindSafe(pass)),
        };
        self.active.fetch_sub(1, Ordering::Relaxed);
        drop(turn);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

thread_local! {
    /// Whether the thread computes a pass or stays awake for one.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Keeps a thread of a pool from going to sleep while a pass is computed in another: a pass has dozens of parts to share, each
/// of which would have to wake it, which takes longer than many of these. It gives up where for a while there was no part, and where
/// other passes are computed, which want its core.
fn stay_awake(over: &AtomicBool, active: &AtomicUsize) {
    // A thread that waits within a pass may find this too.
    if BUSY.replace(true) {
        return;
    }
    let mut idle = Instant::now();
    while !over.load(Ordering::Acquire) && active.load(Ordering::Relaxed) <= 1 && idle.elapsed() < PATIENCE {
        match rayon::yield_now() {
            Some(Yield::Executed) => idle = Instant::now(),
            _ => std::hint::spin_loop(),
        }
    }
    BUSY.set(false);
}

/// Longer than what of a pass is computed by one thread at a stretch.
const PATIENCE: Duration = Duration::from_micros(200);

fn start(threads: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("bild-{i}")).build()
}

/// The right to compute a pass in one of the pools, given in the order in which it was asked for.
struct Turn<'a> {
    pools: &'a Pools,
    pool: usize,
}

impl<'a> Turn<'a> {
    fn take(pools: &'a Pools) -> Self {
        let mut gate = pools.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = gate.free.iter().position(|&free| free) {
            gate.free[pool] = false;
            return Self { pools, pool };
        }
        let (give, given) = mpsc::sync_channel(1);
        gate.waiting.push_back(give);
        drop(gate);
        Self { pools, pool: given.recv().expect("who waits is given a pool") }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut gate = self.pools.gate.lock().unwrap_or_else(PoisonError::into_inner);
        match gate.waiting.pop_front() {
            Some(next) => next.send(self.pool).expect("who waits is still there"),
            None => gate.free[self.pool] = true,
        }
    }
}

impl Default for Threads {
    fn default() -> Self {
        static SHARED: LazyLock<Threads> = LazyLock::new(|| {
            let available = std::thread::available_parallelism().map_or(1, usize::from);
            let cores = sysinfo::System::physical_core_count().unwrap_or(available);
            Threads::new(cores.clamp(1, available)).unwrap_or_else(|error| {
                tracing::warn!(%error, "models compute in the thread that asks them");
                Threads(None)
            })
        });
        SHARED.clone()
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("count", &self.count()).finish()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::thread;

    use super::*;

    thread_local! {
        static PASSES_BELOW: Cell<usize> = const { Cell::new(0) };
    }

    /// What a pass does: it shares work several times, and while it waits for a part it might take on something else.
    fn pass(threads: &Threads, deepest: &AtomicUsize) {
        let below = PASSES_BELOW.replace(PASSES_BELOW.get() + 1);
        deepest.fetch_max(below, Ordering::Relaxed);
        for _ in 0..10 {
            if threads.shared() > 1 {
                rayon::join(|| (), || thread::sleep(Duration::from_micros(50)));
            }
        }
        PASSES_BELOW.set(below);
    }

    #[test]
    fn no_pass_is_computed_within_another() {
        let threads = Threads::new(3).unwrap();
        let deepest = Arc::new(AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let (own, deepest) = (threads.clone(), deepest.clone());
                        threads.run(usize::MAX, move || pass(&own, &deepest));
                    }
                });
            }
        });
        assert_eq!(deepest.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn passes_are_computed_in_the_order_in_which_they_come_and_as_many_as_there_are_threads() {
        let threads = Threads::new(2).unwrap();
        let pools = threads.0.as_deref().unwrap();
        let turns = [Turn::take(pools), Turn::take(pools)];
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for i in 0..20 {
                let order = &order;
                scope.spawn(move || {
                    let turn = Turn::take(pools);
                    order.lock().unwrap().push(i);
                    drop(turn);
                });
                // The next one comes when this one waits.
                while pools.gate.lock().unwrap().waiting.len() <= i {
                    thread::yield_now();
                }
            }
            assert!(order.lock().unwrap().is_empty());
            let [first, _second] = turns;
            drop(first); // one by one from here on
            while pools.gate.lock().unwrap().free.iter().all(|free| !free) {
                thread::yield_now();
            }
            assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        });
    }

    #[test]
    fn threads_are_shared_evenly_and_only_within_a_pass() {
        let threads = Threads::new(4).unwrap();
        assert_eq!(threads.shared(), 1);
        let foreign = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(foreign.install(|| threads.shared()), 1, "not with the threads of another pool");
        let (own, (begin, begun), (go, on)) = (threads.clone(), mpsc::channel(), mpsc::channel::<()>());
        let shared = || {
            let own = own.clone();
            threads.run(usize::MAX, move || own.shared())
        };
        assert_eq!(shared(), 4);
        thread::scope(|scope| {
            let (own, threads) = (own.clone(), &threads);
            let first = scope.spawn(move || {
                threads.run(usize::MAX, move || {
                    let alone = own.shared();
                    begin.send(()).unwrap();
                    on.recv().unwrap();
                    (alone, own.shared())
                })
            });
            begun.recv().unwrap();
            assert_eq!(shared(), 2);
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap(), (4, 4));
        });
    }

    #[test]
    fn a_panic_comes_out_and_leaves_the_threads_as_they_were() {
        let threads = Threads::new(2).unwrap();
        for _ in 0..5 {
            let panic = catch_unwind(AssertUnwindSafe(|| threads.run(usize::MAX, || panic!("within"))));
            assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"within"));
        }
        let own = threads.clone();
        assert_eq!(threads.run(usize::MAX, move || own.shared()), 2);
    }

    #[test]
    fn threads_that_cannot_be_had_are_asked_for_again() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        fn refused_twice(threads: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
            match ASKED.fetch_add(1, Ordering::Relaxed) {
                // More memory for a stack than there are addresses.
                0 | 1 => ThreadPoolBuilder::new().num_threads(threads).stack_size(usize::MAX / 2).build(),
                _ => start(threads),
            }
        }
        let threads = Threads(Some(Arc::new(Pools::new(start(4).unwrap(), refused_twice))));
        let pools = threads.0.as_deref().unwrap();
        let shared = || {
            let own = threads.clone();
            threads.run(usize::MAX, move || own.shared())
        };
        assert_eq!(shared(), 4);
        let _first = Turn::take(pools);
        assert_eq!([shared(), shared()], [1, 1], "alone");
        assert!(pools.warned.is_completed());
        assert_eq!([shared(), shared()], [2, 2]);
        assert_eq!(ASKED.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn how_many_there_may_be() {
        for count in [0, MOST + 1, usize::MAX] {
            let sentence = Threads::new(count).unwrap_err().to_string();
            assert!(sentence.contains("threads cannot be had"), "{sentence}");
        }
    }
}
