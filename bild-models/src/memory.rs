//! Whether a model fits into memory, asked before it is read: a machine that swaps is worse than an error.

use std::path::Path;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::error::{LoadError, Result};

/// Refuses a model of `needed` bytes if this process cannot have that much memory now, by what the system says and, where
/// it runs in one with a limit (Linux), its control group. A system that says nothing is not argued with.
pub(crate) fn check(needed: u64, path: &Path) -> Result<()> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind);
    let limits = system.cgroup_limits().filter(|limits| limits.total_memory > 0);
    // What the group's limit leaves beside its processes; its page cache goes when memory is needed.
    let left = limits.map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    let free = left.min(system.available_memory());
    if system.total_memory() == 0 || needed <= free {
        return Ok(());
    }
    Err(LoadError::Memory { path: path.into(), needed: gigabytes(needed), free: gigabytes(free) })
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
