//! Products of a few rows with the weight matrices of T5 small, base and large, beside plain reading of as many bytes.
//!
//! cargo bench -p bild-eval --bench products
//!
//! Weights are cycled through: as in decoding, none is in a cache when it is needed. A product that takes as long as
//! reading runs at the speed of memory.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bild::{Precision, Threads};
use bild_eval::sum;
use bild_models::internals::{Matrix, PANEL, compute_in};
use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;

/// Inputs and outputs: the widest matrix of a feed-forward layer, a projection of attention, and the head.
const SHAPES: [(&str, usize, usize); 8] = [
    ("small feed-forward", 512, 1024),
    ("small head", 512, 32_128),
    ("base projection", 768, 768),
    ("base feed-forward", 768, 2048),
    ("large projection", 1024, 1024),
    ("large feed-forward", 1024, 2816),
    ("large feed-forward, T5 1.0", 1024, 4096),
    ("large head", 1024, 32_128),
];
const ROWS: [usize; 6] = [1, 2, 4, 8, 11, 17];
/// Eight times a last-level cache of 32 MiB.
const CYCLE: usize = 256 << 20;

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn products(criterion: &mut Criterion) {
    for (name, inputs, outputs) in SHAPES {
        let bytes = inputs * outputs * size_of::<f32>();
        let weight = numbers(inputs * outputs);
        let mut group = criterion.benchmark_group(format!("{name}, {inputs} to {outputs}"));
        group.throughput(Throughput::Bytes(bytes as u64));
        let buffers = Arc::new(vec![weight.clone(); CYCLE.div_ceil(bytes)]);
        group.bench_function("reading", |bencher| cycle(bencher, &buffers, |buffer| _ = black_box(read(buffer))));
        drop(buffers);

        for (precision, name, bytes) in [
            (Precision::F32, "f32", bytes),
            (Precision::Int8, "int8", bytes / 4),
            (Precision::Int4, "int4", bytes / 128 * 17),
        ] {
            group.throughput(Throughput::Bytes(bytes as u64));
            let mut matrix = Matrix::new(precision, outputs, inputs, Threads::default());
            weight.chunks(PANEL * inputs).for_each(|rows| matrix.push(rows));
            let matrices = Arc::new(vec![matrix; CYCLE.div_ceil(bytes)]);
            for rows in ROWS {
                let x = numbers(rows * inputs);
                group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                    let x = x.clone();
                    cycle(bencher, &matrices, move |matrix| drop(black_box(matrix.product(&x))));
                });
            }
        }
    }
}

/// Times something with one matrix after the other, in the threads that passes of a model are computed in.
fn cycle<M: Send + Sync + 'static>(
    bencher: &mut Bencher<'_>,
    matrices: &Arc<Vec<M>>,
    compute: impl Fn(&M) + Send + Sync + 'static,
) {
    let (mut at, compute) = (0, Arc::new(compute));
    bencher.iter_custom(|count| {
        let first = at;
        at += count as usize;
        let (matrices, compute) = (matrices.clone(), compute.clone());
        compute_in(&Threads::default(), move || {
            let begun = Instant::now();
            for i in 0..count as usize {
                compute(&matrices[(first + i) % matrices.len()]);
            }
            begun.elapsed()
        })
    });
}

/// Adds everything up, in as many threads as make memory the limit.
fn read(values: &[f32]) -> f32 {
    let share = values.len().div_ceil(rayon::current_num_threads());
    values.par_chunks(share).map(sum).sum()
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = products
}
criterion_main!(benches);
