//! Whether something fits into memory, asked before it is made: a machine that swaps is worse than an error.

use burn::tensor::backend::Backend;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Whether tensors on this device lie in the memory of this process.
pub(crate) fn is_host<B: Backend>(device: &B::Device) -> bool {
    ["flex", "ndarray", "libtorch<cpu>"].contains(&B::name(device).as_str())
}

/// Says how many bytes are free if `needed` are more: by what the system says and, where this process runs in one with a
/// limit (Linux), its control group. A system that says nothing is not argued with.
pub(crate) fn check(needed: u64) -> Result<(), u64> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind);
    if system.total_memory() == 0 {
        return Ok(());
    }
    let limits = system.cgroup_limits().filter(|limits| limits.total_memory > 0);
    // What the group's limit leaves beside its processes; its page cache goes when memory is needed.
    let left = limits.map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    let free = left.min(system.available_memory());
    if needed <= free { Ok(()) } else { Err(free) }
}

pub(crate) fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
