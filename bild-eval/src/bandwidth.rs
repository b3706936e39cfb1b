//! How fast the machine reads memory: the floor under decoding, which reads every weight once a token.

use std::{hint::black_box, thread, time::Instant};

use crate::median;

const MIB: usize = 1 << 20;
/// Well beyond the last-level cache of common machines.
const BUFFER: usize = 512 * MIB;
const PASSES: usize = 9;

/// Gigabytes a second: the median of several passes over a buffer that no cache holds, by so many threads; nothing if there is no memory for it.
pub fn read_bandwidth(threads: usize) -> Option<f64> {
    let buffer = buffer(BUFFER / size_of::<f32>())?;
    let pass = || {
        let begun = Instant::now();
        thread::scope(|scope| {
            for part in buffer.chunks(buffer.len().div_ceil(threads)) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        BUFFER as f64 / begun.elapsed().as_secs_f64() / 1e9
    };
    Some(median((0..PASSES).map(|_| pass()).collect()))
}

fn buffer(length: usize) -> Option<Vec<f32>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).ok()?;
    buffer.resize(length, 1.0);
    Some(buffer)
}

/// Adds numbers up in many independent lanes, so that memory is what limits it.
pub fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; 64];
    for chunk in values.as_chunks::<64>().0 {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_memory_holds_is_not_measured() {
        assert_eq!(buffer(3), Some(vec![1.0; 3]));
        assert_eq!(buffer(isize::MAX as usize / size_of::<f32>()), None);
    }
}
