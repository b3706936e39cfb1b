//! What the sessions of a model hold of a memory that is short.

use std::sync::{Arc, Mutex};

use bild_core::{Source, Token};

/// A memory, counted in tokens of the sources that its sessions read. A clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Used>>);

#[derive(Clone, Default)]
pub(crate) struct Used {
    /// How many sessions hold some, and how much they hold together.
    pub(crate) now: [usize; 2],
    /// The most that each of these was.
    pub(crate) most: [usize; 2],
    /// The first tokens of their sources, in the order in which they took it.
    pub(crate) order: Vec<Token>,
}

/// What one session holds, until it is dropped.
pub(crate) struct Held {
    memory: Memory,
    tokens: usize,
}

impl Memory {
    pub(crate) fn hold(&self, source: &Source) -> Held {
        let tokens = source.tokens().len();
        let mut used = self.0.lock().unwrap();
        let now = [used.now[0] + 1, used.now[1] + tokens];
        let most = [used.most[0].max(now[0]), used.most[1].max(now[1])];
        (used.now, used.most) = (now, most);
        used.order.push(source.tokens()[0]);
        Held { memory: self.clone(), tokens }
    }

    pub(crate) fn used(&self) -> Used {
        self.0.lock().unwrap().clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut used = self.memory.0.lock().unwrap();
        used.now = [used.now[0] - 1, used.now[1] - self.tokens];
    }
}
