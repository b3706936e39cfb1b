//! Whether something fits into memory, asked before it is made: a machine that swaps is worse than an error.

use std::fs;

use burn::tensor::backend::Backend;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Whether tensors on this device lie in the memory of this process.
pub(crate) fn is_host<B: Backend>(device: &B::Device) -> bool {
    ["flex", "ndarray", "libtorch<cpu>"].contains(&B::name(device).as_str())
}

/// Says how many bytes are free if `needed` are more: by what the system says and, where this process has such limits (Linux), by its
/// control group and its addresses. A system that says nothing is not argued with.
pub(crate) fn check(needed: u64) -> Result<(), u64> {
    if cfg!(miri) {
        return Ok(()); // it knows none of the calls that tell
    }
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind);
    if system.total_memory() == 0 {
        return Ok(());
    }
    let limits = system.cgroup_limits().filter(|limits| limits.total_memory > 0);
    // What the group's limit leaves beside its processes; its page cache goes when memory is needed.
    let left = limits.map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    let free = left.min(system.available_memory()).min(addresses().unwrap_or(u64::MAX));
    if needed <= free { Ok(()) } else { Err(free) }
}

/// Addresses that threads and their allocators take beside what they hold.
const RESERVED: u64 = 192 << 20;

/// The bytes that are left of a limit on addresses (`ulimit -v`), beyond which an allocation ends the process.
fn addresses() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    // Where there is none, it says "unlimited".
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let used: u64 = used.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(used << 10).saturating_sub(RESERVED))
}

pub(crate) fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
