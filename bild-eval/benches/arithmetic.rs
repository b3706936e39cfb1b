//! How much of the arithmetic that the CPU could do is done: by products of many rows with the matrices of T5, and by
//! generations of many texts at once.
//!
//! cargo bench -p bild-eval --bench arithmetic -- DIRECTORY [f32|int8|int4]
//!
//! The most that could be done is what a loop does that multiplies and adds in registers, in all threads that passes are
//! computed in: floats for f32, products of bytes (AVX-512 VNNI) for int8 and int4. It runs before each line, as the speed of a
//! shared CPU changes. Weights of products are cycled through, so that none is in a cache when it is needed.

use std::{env, hint::black_box, num::NonZeroUsize, sync::Arc, time::Instant};

use bild::{
    Checkpoint, Flex, LoadOptions, Lossless, Precision, Settings, T5, Threads,
    decode::{Generator, NoDraft, Source, Token},
};
use bild_eval::median;
use bild_models::{
    T5Config,
    internals::{Matrix, PANEL, compute_in},
};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

const SHAPES: [(&str, usize, usize); 5] = [
    ("small projection", 512, 512),
    ("small feed-forward, in", 512, 2048),
    ("small feed-forward, out", 2048, 512),
    ("base feed-forward, in", 768, 3072),
    ("large feed-forward, in", 1024, 4096),
];
const ROWS: [usize; 7] = [1, 8, 16, 32, 64, 128, 256];
const AT_ONCE: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Tokens of each source, and of each output.
const LENGTH: usize = 64;
/// Runs of which the median counts.
const RUNS: usize = 5;
const CYCLE: usize = 256 << 20;

fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(directory) = arguments.next() else {
        return println!("Which model? cargo bench -p bild-eval --bench arithmetic -- DIRECTORY [f32|int8|int4]");
    };
    let precision = match arguments.next().as_deref() {
        None | Some("f32") => Precision::F32,
        Some("int8") => Precision::Int8,
        Some("int4") => Precision::Int4,
        Some(other) => return println!("{other} is not a precision that is measured here: f32, int8, int4"),
    };
    products(precision);
    let checkpoint = Checkpoint::open(directory).expect("the folder holds a T5");
    generations(&checkpoint, precision);
}

fn products(precision: Precision) {
    for (name, inputs, outputs) in SHAPES {
        let mut matrix = Matrix::new(precision, outputs, inputs, Threads::default());
        numbers(inputs * outputs).chunks(PANEL * inputs).for_each(|rows| matrix.push(rows));
        let bytes = inputs * outputs * if precision == Precision::F32 { 4 } else { 1 };
        let matrices = Arc::new(vec![matrix; CYCLE.div_ceil(bytes)]);
        print!("{name}, {inputs} to {outputs}, {precision:?}: share of the peak (µs) at");
        let peak = peak(precision);
        for rows in ROWS {
            let x = Arc::new(numbers(rows * inputs));
            let count = (matrices.len() / 2).min(1 + (1 << 31) / (rows * inputs * outputs));
            let times: Vec<f64> = (0..RUNS)
                .map(|_| {
                    let (matrices, x) = (matrices.clone(), x.clone());
                    compute_in(&Threads::default(), move || {
                        let begun = Instant::now();
                        matrices.iter().take(count).for_each(|matrix| drop(black_box(matrix.product(&x))));
                        begun.elapsed().as_secs_f64() / count as f64
                    })
                })
                .collect();
            let time = median(times);
            print!(" {rows} {:.2} ({:.0});", (rows * inputs * outputs) as f64 / time / peak, time * 1e6);
        }
        println!();
    }
}

fn generations(checkpoint: &Checkpoint, precision: Precision) {
    let options = LoadOptions::default().with_precision(precision);
    let model = T5::<Flex>::load_with(checkpoint, &Default::default(), &options).expect("it loads");
    let work = multiplications(model.config()) as f64;
    let most = model.config().vocab_size - 3;
    let source = |first: usize| (0..LENGTH).map(|i| (3 + (first * 977 + i * 7919) % most) as Token).collect::<Vec<_>>();
    let settings = Settings::default().with_max_new_tokens(LENGTH).with_end_tokens([]);
    for at_once in AT_ONCE {
        let generator =
            Generator::new((NoDraft, model.clone()), Lossless::default()).expect("a model goes with itself");
        let generator =
            generator.with_settings(settings.clone()).with_at_once(NonZeroUsize::new(at_once).expect("some"));
        let sources: Vec<_> = (0..at_once.max(4)).map(|i| Source::new(source(i))).collect();
        let peak = peak(precision);
        let speeds: Vec<f64> = (0..RUNS)
            .map(|_| {
                let begun = Instant::now();
                let mut tokens = 0;
                generator
                    .generate_many(&sources, |_, output| tokens += output.expect("nothing fails").statistics.tokens);
                tokens as f64 / begun.elapsed().as_secs_f64()
            })
            .collect();
        let speed = median(speeds);
        println!("{at_once} at once: {speed:.0} tokens a second, {:.2} of the peak", speed * work / peak);
    }
}

/// For one token of an output, and one of its source: products and attention.
fn multiplications(config: &T5Config) -> usize {
    let T5Config { d_model, d_ff, gated, encoder_layers, decoder_layers, .. } = *config;
    let (inner, feed_forward) = (config.num_heads * config.d_kv, d_model * d_ff * if gated { 3 } else { 2 });
    let attention = 2 * inner * LENGTH;
    let encoder = encoder_layers * (4 * d_model * inner + attention + feed_forward);
    // Attention to itself sees half of the output on average; keys and values of the source are made once.
    let decoder = decoder_layers * (8 * d_model * inner + attention + attention / 2 + feed_forward);
    encoder + decoder + d_model * config.vocab_size
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect()
}

/// Multiplications a second in all threads that passes are computed in: the best of several runs.
fn peak(precision: Precision) -> f64 {
    const STEPS: usize = 2_000_000;
    let (steps, of_step): (fn(usize), usize) = match precision {
        Precision::F32 => {
            (|steps| _ = black_box(Arch::new().dispatch(Floats(steps))), Arch::new().dispatch(FloatsOfStep))
        }
        _ => (bytes, 64 * SUMS),
    };
    let run = move || {
        let begun = Instant::now();
        let threads = rayon::current_num_threads();
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| steps(STEPS));
        (threads * STEPS * of_step) as f64 / begun.elapsed().as_secs_f64()
    };
    (0..5).map(|_| compute_in(&Threads::default(), run)).fold(0.0, f64::max)
}

/// Sums that are added to in turn, so that none has to wait for itself.
const SUMS: usize = 12;

struct Floats(usize);

impl WithSimd for Floats {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (x, y) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(0.25)));
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(x, y, *sum);
            }
        }
        sums.into_iter().map(|sum| simd.reduce_sum_f32s(sum)).sum()
    }
}

struct FloatsOfStep;

impl WithSimd for FloatsOfStep {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES * SUMS
    }
}

#[cfg(target_arch = "x86_64")]
fn bytes(steps: usize) {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn dots(steps: usize) -> i32 {
        let (x, y) = (_mm512_set1_epi8(black_box(1)), _mm512_set1_epi8(black_box(1)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, y);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_epi32(sum)).fold(0, i32::wrapping_add)
    }
    assert!(is_x86_feature_detected!("avx512vnni"), "the CPU multiplies no bytes in vectors of 512 bits");
    // SAFETY: the CPU has what `dots` is compiled for, as was just asked.
    _ = black_box(unsafe { dots(steps) });
}

#[cfg(not(target_arch = "x86_64"))]
fn bytes(_: usize) {
    panic!("products of bytes are measured on x86-64 alone");
}
