//! Where a step's time goes, from the spans that the library opens at the level of tracing: the loop's `encode`, `draft` and
//! `verify`, and the model's parts within them.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tracing::{Event, Metadata, Subscriber, span};

const PHASES: [&str; 3] = ["encode", "draft", "verify"];
/// The head is a product too, and is counted as head alone.
const PARTS: [&str; 6] = ["product", "attention", "norm", "activation", "head", "reduction"];

/// The time of each phase, and of each part within it.
#[derive(Clone, Copy, Default)]
struct Times {
    passes: u32,
    phase: Duration,
    parts: [Duration; PARTS.len()],
}

static TIMES: Mutex<[Times; PHASES.len()]> =
    Mutex::new([Times { passes: 0, phase: Duration::ZERO, parts: [Duration::ZERO; PARTS.len()] }; PHASES.len()]);
/// The phase under way. One generation runs at a time, but its passes may run in another thread.
static PHASE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The spans entered, with the time of entering, and of the phases within (a pass reads the source if it is the first).
    static ENTERED: RefCell<Vec<(usize, Instant, Duration)>> = const { RefCell::new(Vec::new()) };
}

/// Counts from here on.
pub(crate) fn begin() {
    *TIMES.lock().expect("nothing panics while counting") = Default::default();
}

/// Begins to listen, for the rest of the program.
pub(crate) fn install() -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(Profiler)
}

struct Profiler;

/// What a span is: a phase, or a part by its number after the phases.
fn index(metadata: &Metadata<'_>) -> Option<usize> {
    PHASES.iter().chain(&PARTS).position(|name| *name == metadata.name())
}

impl Subscriber for Profiler {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && index(metadata).is_some()
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        // Ids begin at 1.
        span::Id::from_u64(index(attributes.metadata()).map_or(1, |index| index as u64 + 1))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &span::Id) {
        let index = id.into_u64() as usize - 1;
        if index < PHASES.len() {
            PHASE.store(index, Ordering::Relaxed);
        }
        ENTERED.with_borrow_mut(|entered| entered.push((index, Instant::now(), Duration::ZERO)));
    }

    fn exit(&self, _: &span::Id) {
        ENTERED.with_borrow_mut(|entered| {
            let Some((index, begun, within)) = entered.pop() else { return };
            let time = begun.elapsed().saturating_sub(within);
            let mut times = TIMES.lock().expect("nothing panics while counting");
            if index < PHASES.len() {
                times[index].phase += time;
                times[index].passes += 1;
                if let Some((outer, _, within)) = entered.last_mut() {
                    *within += time;
                    PHASE.store(*outer, Ordering::Relaxed);
                }
            } else if entered.last().is_none_or(|(outer, ..)| *outer < PHASES.len()) {
                times[PHASE.load(Ordering::Relaxed)].parts[index - PHASES.len()] += time;
            }
        });
    }
}

/// What was counted, for each pass.
pub(crate) struct Profile([Times; PHASES.len()]);

pub(crate) fn read() -> Profile {
    Profile(*TIMES.lock().expect("nothing panics while counting"))
}

impl Profile {
    /// The phases in which something was computed, with the number of passes and the µs a pass of each part, the last of which is what is left.
    fn phases(&self) -> impl Iterator<Item = (&'static str, u32, f64, Vec<(&'static str, f64)>)> {
        // A model alone has a draft that does nothing.
        let seen = |times: &Times| times.parts.iter().any(|part| !part.is_zero());
        let entered = PHASES.into_iter().zip(&self.0).filter(move |(_, times)| seen(times));
        entered.map(|(name, times)| {
            let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(times.passes);
            let rest = times.phase.saturating_sub(times.parts.iter().sum());
            let parts = PARTS.into_iter().zip(times.parts).chain([("bookkeeping", rest)]);
            (name, times.passes, micros(times.phase), parts.map(|(name, time)| (name, micros(time))).collect())
        })
    }

    pub(crate) fn json(&self) -> Value {
        let phase = |(name, passes, whole, parts): (&str, u32, f64, Vec<(&str, f64)>)| {
            let mut object = json!({ "phase": name, "passes": passes, "us": whole });
            for (part, micros) in parts {
                object[part] = micros.into();
            }
            object
        };
        self.phases().map(phase).collect()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, passes, whole, parts) in self.phases() {
            writeln!(f, "{:<16} {whole:>9.0} µs a pass, {passes} passes", name)?;
            for (part, micros) in parts {
                writeln!(f, "  {part:<14} {micros:>9.1} µs  {:>5.1} %", 100.0 * micros / whole)?;
            }
        }
        Ok(())
    }
}
