use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Ends generations from another thread. Clones share one state.
///
/// A generation has one token; where several things may end it, as a client that leaves and a server that shuts down, it is
/// given a child:
///
/// ```
/// use bild::CancelToken;
///
/// let server = CancelToken::default();
/// let client = server.child();
/// let _guard = client.clone().drop_guard(); // cancels when whoever waits for the answer is gone
/// server.cancel();
/// assert!(client.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Node>);

#[derive(Debug, Default)]
struct Node {
    cancelled: AtomicBool,
    parent: Option<CancelToken>,
}

impl CancelToken {
    /// Ends every generation that was given this token or a child of it, before its next step or the next layer of its
    /// encoder.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it, or one that it is a child of, was cancelled.
    pub fn is_cancelled(&self) -> bool {
        let Node { cancelled, parent } = &*self.0;
        cancelled.load(Ordering::Relaxed) || parent.as_ref().is_some_and(CancelToken::is_cancelled)
    }

    /// A token that is cancelled by itself or with this one.
    pub fn child(&self) -> Self {
        Self(Arc::new(Node { cancelled: AtomicBool::new(false), parent: Some(self.clone()) }))
    }

    /// A guard that cancels this token when it is dropped.
    pub fn drop_guard(self) -> CancelGuard {
        CancelGuard(self)
    }
}

/// Cancels its token when it is dropped; made by [`CancelToken::drop_guard`].
#[derive(Debug)]
#[must_use = "it cancels at once if it is not kept"]
pub struct CancelGuard(CancelToken);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_its_parent_and_not_the_other_way() {
        let parent = CancelToken::default();
        let (one, two) = (parent.child(), parent.child().child());
        one.cancel();
        assert!(one.is_cancelled() && one.clone().is_cancelled());
        assert!(!parent.is_cancelled() && !two.is_cancelled());
        drop(parent.clone().drop_guard());
        assert!(parent.is_cancelled() && two.is_cancelled());
    }
}
