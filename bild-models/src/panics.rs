//! Calls into code that panics on some input: the panic becomes an error, and nothing is printed.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
    thread,
};

thread_local! {
    /// Whether this thread is within such a call.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `call` returns, or the message it panicked with. What a panic leaves behind must not be used again.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    /// Ends the silence also where `call` unwinds.
    struct Restore(bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            QUIET.set(self.0);
        }
    }

    silence_quiet_threads();
    let result = {
        let _restore = Restore(QUIET.replace(true));
        catch_unwind(AssertUnwindSafe(call))
    };
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
    })
}

/// Puts a hook before the one that is there, once, which passes on every panic but those of quiet threads. A hook that the
/// program sets later takes its place, as any other's.
fn silence_quiet_threads() {
    static HOOK: Once = Once::new();
    // A thread that unwinds may not set a hook.
    if thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The hook of the program is still asked, but not for panics that are caught here; other threads' meanwhile are.
    #[test]
    fn only_what_is_caught_is_quiet() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        // Other tests of this program may panic on purpose too: only those of this test are counted.
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<&str>();
            if text.is_some_and(|text| text.starts_with("counted")) {
                ASKED.fetch_add(1, Ordering::Relaxed);
            } else {
                previous(info);
            }
        }));
        assert_eq!(caught(|| 3), Ok(3));
        let within = caught(|| {
            let other = thread::spawn(|| panic!("counted, on another thread"));
            assert!(other.join().is_err());
            assert_eq!(ASKED.load(Ordering::Relaxed), 1);
            panic!("counted, but caught")
        });
        assert_eq!(within, Err::<(), _>("counted, but caught".into()));
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        assert!(catch_unwind(|| panic!("counted, after it")).is_err());
        assert_eq!(ASKED.load(Ordering::Relaxed), 2);
        assert_eq!(caught(|| caught(|| panic!("{}", "inner"))), Ok(Err::<(), _>("inner".into())));
    }
}
