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
pub(crate) fn caught_quietly<T>(call: impl FnOnce() -> T) -> Result<T, String> {
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
    use super::*;

    #[test]
    fn a_panic_is_its_message() {
        assert_eq!(caught_quietly(|| 3), Ok(3));
        assert_eq!(caught_quietly(|| panic!("a text")), Err::<(), _>("a text".into()));
        assert_eq!(caught_quietly(|| caught_quietly(|| panic!("{}", "inner"))), Ok(Err::<(), _>("inner".into())));
        assert_eq!(caught_quietly(|| panic::panic_any(7)), Err::<(), _>("no message".into()));
        assert!(!QUIET.get());
    }
}
