use std::array::from_fn;

use burn::tensor::{FloatDType, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::LoadError;

/// How the weight matrices of a model are held. Norms, position biases, what is added to from layer to layer, softmax and the reduction of logits
/// are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// As 32-bit floats, whatever the checkpoint stores.
    #[default]
    F32,
    /// As 8-bit integers from −127 to 127, with one scale for each output (symmetric, round to nearest), made when a
    /// model is loaded from any checkpoint.
    ///
    /// On `Flex` weights take a quarter of the memory, and so of the time to read them. Inputs of a product are rounded to 8 bits
    /// too, with one scale for each 128 of them, and multiplied in exact integer arithmetic: the bits of a row depend
    /// neither on the other rows nor on the kind of CPU. Other backends compute in f32 with the rounded weights, which
    /// shows what int8 does to the output but saves nothing.
    Int8,
    /// As 4-bit integers from −8 to 7, with one scale for each output and a factor from −127 to 127 for each 32 inputs of it (so that
    /// outliers, up to a hundred times the others, cost their neighbours alone their precision), chosen for a small square error when a
    /// model is loaded.
    ///
    /// So are the matrices that a token of output goes through, but for the head. The head and the embedding, which cost the text most,
    /// and what is computed once a source (the encoder, the keys and values of its states), where 4 bits save no time, are as with
    /// `Int8`.
    ///
    /// On `Flex` a weight takes 4.25 bits; all else is as with `Int8`. Text changes more: a little model may well be held so, since
    /// what it writes is verified.
    Int4,
    /// As 16-bit floats (f16), on a backend and a device that have them, which `Flex` and `NdArray` have not: some 0.6 of the memory and of
    /// the time to read it. Products take such inputs and give such outputs, but for the second of a feed-forward layer, whose outputs are
    /// too large for them: it stays in f32, as in transformers (its `_keep_in_fp32_modules`). Keys and values are held so, too.
    F16,
    /// As 16-bit floats with the exponents of 32-bit ones (bf16), on a backend and a device that have them. As `F16`, but that all
    /// matrices are held so, in half of the memory: what is lost is digits.
    ///
    /// With either, two tokens are often as likely as each other to the last digit, and the passes of one row and of several, which a
    /// device computes apart, may then choose differently: what is lossless is so up to such ties.
    Bf16,
}

impl Precision {
    /// The 16-bit floats that it holds weights as, if it does.
    pub(crate) fn half(self) -> Option<FloatDType> {
        match self {
            Self::F16 => Some(FloatDType::F16),
            Self::Bf16 => Some(FloatDType::BF16),
            Self::F32 | Self::Int8 | Self::Int4 => None,
        }
    }

    /// Refuses what a backend has not on a device.
    pub(crate) fn check<B: Backend>(self, device: &B::Device) -> Result<(), LoadError> {
        match self.half() {
            Some(half) if super::is_flex::<B>() || !B::supports_dtype(device, half.into()) => {
                let precision = format!("{self:?}").to_lowercase();
                Err(LoadError::Precision { backend: B::name(device), precision })
            }
            _ => Ok(()),
        }
    }
}

/// Adding this rounds to a whole number, which is left in the lowest bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// The largest magnitude; NaN above all.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    // Magnitudes are in the order of their bits.
    f32::from_bits(values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff)))
}

/// Rounds values that share a scale to nearest, and returns the scale: a value is about `scale · rounded`. A NaN or ∞
/// among them makes the scale one, so that it is not lost.
#[inline(always)]
pub(crate) fn round(values: &[f32], rounded: &mut [i8]) -> f32 {
    let largest = largest(values);
    let inverse = 127.0 / largest;
    if inverse == f32::INFINITY {
        // All are 0, or too small to divide by.
        rounded.fill(0);
        return 0.0;
    }
    for (rounded, value) in rounded.iter_mut().zip(values) {
        *rounded = (value * inverse + ROUND).to_bits() as i8;
    }
    largest / 127.0
}

/// What is left of a matrix of rows of `width` once it has been rounded to int8.
pub(crate) fn round_to_int8(weights: &mut [f32], width: usize) {
    let mut rounded = vec![0; width];
    for row in weights.chunks_mut(width) {
        let scale = round(row, &mut rounded);
        for (weight, &rounded) in row.iter_mut().zip(&rounded) {
            *weight = f32::from(rounded) * scale;
        }
    }
}

/// Inputs whose weights of 4 bits share a factor.
pub(crate) const FACTOR_INPUTS: usize = 32;

/// Rounds the weights of an output to 4 bits, with a factor for each 32 of them, and returns the scale: a value is about
/// `scale · factor · rounded`. A NaN or ∞ among them makes the scale one, so that it is not lost.
pub(crate) fn round_to_4_bits(row: &[f32], rounded: &mut [[i8; FACTOR_INPUTS]], factors: &mut [i8]) -> f32 {
    let largest = largest(row);
    if !largest.is_finite() {
        rounded.fill([1; FACTOR_INPUTS]);
        factors.fill(1);
        return largest;
    }
    let padded = |values: &[f32]| {
        let mut all = [0.0; FACTOR_INPUTS];
        all[..values.len()].copy_from_slice(values);
        all
    };
    let steps: Vec<f32> = row.chunks(FACTOR_INPUTS).map(|values| best_step(&padded(values))).collect();
    let scale = steps.iter().fold(0.0f32, |largest, step| largest.max(step.abs())) / 127.0;
    if (1.0 / scale).is_infinite() {
        // All are 0, or too small to divide by.
        rounded.fill([0; FACTOR_INPUTS]);
        factors.fill(0);
        return 0.0;
    }
    for (((values, &step), rounded), factor) in row.chunks(FACTOR_INPUTS).zip(&steps).zip(rounded).zip(factors) {
        *factor = (step / scale).round() as i8;
        if *factor == 0 {
            *factor = if step < 0.0 { -1 } else { 1 };
        }
        let inverse = 1.0 / (scale * f32::from(*factor));
        for (rounded, value) in rounded.iter_mut().zip(padded(values)) {
            *rounded = whole(value * inverse) as i8;
        }
    }
    scale
}

/// The whole number from −8 to 7 that is nearest.
#[inline(always)]
fn whole(value: f32) -> f32 {
    value.clamp(-8.0, 7.0) + ROUND - ROUND
}

/// The step whose multiples from −8 to 7 are nearest to some values, by the sum of squares: the best of some that make the
/// largest value −6.5 to −8.6 steps, each then moved to where its own multiples fit best.
fn best_step(values: &[f32; FACTOR_INPUTS]) -> f32 {
    let (mut lowest, mut highest) = (0.0f32, 0.0f32);
    for &value in values {
        (lowest, highest) = (lowest.min(value), highest.max(value));
    }
    let largest = if highest > -lowest { highest } else { lowest };
    let (mut best, mut gain) = (0.0, 0.0);
    for most in [-8.0, -8.6, -7.3, -6.5] {
        let inverse = most / largest;
        if !inverse.is_finite() {
            continue;
        }
        // In eight sums, so that vectors are used.
        let (mut products, mut squares) = ([0.0f32; 8], [0.0f32; 8]);
        for values in values.as_chunks::<8>().0 {
            let scaled: [f32; 8] = from_fn(|i| values[i] * inverse);
            let rounded: [f32; 8] = from_fn(|i| whole(scaled[i]));
            products = from_fn(|i| products[i] + scaled[i] * rounded[i]);
            squares = from_fn(|i| squares[i] + rounded[i] * rounded[i]);
        }
        let (products, squares): (f32, f32) = (products.iter().sum(), squares.iter().sum());
        // The square error is what the squares of the values add up to less this, in squares of the largest of them.
        let this = products * products / (squares * most * most);
        if this > gain {
            (best, gain) = (products / (squares * inverse), this);
        }
    }
    best
}

/// What is left of a matrix of rows of `width` once it has been rounded to int4.
pub(crate) fn round_to_int4(weights: &mut [f32], width: usize) {
    let groups = width.div_ceil(FACTOR_INPUTS);
    let (mut rounded, mut factors) = (vec![[0; FACTOR_INPUTS]; groups], vec![0; groups]);
    for row in weights.chunks_mut(width) {
        let scale = round_to_4_bits(row, &mut rounded, &mut factors);
        for ((weights, rounded), &factor) in row.chunks_mut(FACTOR_INPUTS).zip(&rounded).zip(&factors) {
            for (weight, &rounded) in weights.iter_mut().zip(rounded) {
                *weight = f32::from(i16::from(rounded) * i16::from(factor)) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root of the mean square error over that of the weights.
    fn error(weights: &[f32], found: &[f32]) -> f64 {
        let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
        let errors = sum(&mut weights.iter().zip(found).map(|(&a, &b)| f64::from(a) - f64::from(b)));
        (errors / sum(&mut weights.iter().map(|&x| f64::from(x)))).sqrt()
    }

    #[test]
    fn four_bits_lose_a_twelfth_of_normal_weights() {
        // Sums of twelve uniform numbers are nearly normal, 0.089 is what rounding the largest to −8 steps loses.
        let mut state = 1u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24) - 0.5
        };
        for size in [1e-30, 1.0, 1e30] {
            let weights: Vec<f32> =
                (0..64 * 500).map(|_| ((0..12).map(|_| uniform()).sum::<f64>() * size) as f32).collect();
            let mut found = weights.clone();
            round_to_int4(&mut found, 500);
            let error = error(&weights, &found);
            assert!((0.07..0.085).contains(&error), "{size}: {error}");
        }
    }

    #[test]
    fn an_outlier_costs_its_neighbours_alone() {
        let mut weights: Vec<f32> = (0..320).map(|i| (i as f32 * 0.7).sin()).collect();
        weights[40] = -20.0;
        let mut found = weights.clone();
        round_to_int4(&mut found, 320);
        assert!((found[40] + 20.0).abs() < 1.0);
        for group in (0..10).filter(|group| *group != 1) {
            let group = group * 32..(group + 1) * 32;
            let error = error(&weights[group.clone()], &found[group.clone()]);
            assert!(error < 0.1, "{group:?}: {error}");
        }
    }

    #[test]
    fn four_bits_of_a_number_that_is_none_are_none() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = [1.0, bad, 3.0, 4.0];
            round_to_int4(&mut weights, 2);
            assert!(!weights[0].is_finite() && !weights[1].is_finite());
            assert!((weights[2] - 3.0).abs() < 0.5 && (weights[3] - 4.0).abs() < 0.5, "{weights:?}");
        }
    }

    #[test]
    fn weights_come_back_to_within_half_a_step() {
        for size in [1e-30, 1e-3, 1.0, 1e30] {
            let weights: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin() * size).collect();
            let mut rounded = [0; 100];
            let scale = round(&weights, &mut rounded);
            assert!(rounded.contains(&127) || rounded.contains(&-127));
            for (weight, &rounded) in weights.iter().zip(&rounded) {
                assert!((weight - f32::from(rounded) * scale).abs() <= 0.501 * scale, "{weight} {rounded} {scale}");
            }
        }
    }

    #[test]
    fn rows_of_nothing_stay_nothing() {
        for tiny in [0.0, -0.0, f32::from_bits(1), f32::from_bits(100)] {
            let mut weights = [tiny, 0.0, -tiny];
            let mut four = weights;
            round_to_int8(&mut weights, 3);
            round_to_int4(&mut four, 3);
            assert!(four.iter().all(|weight| weight.abs() <= 2.0 * tiny.abs()), "{four:?}");
            assert!(weights.iter().all(|weight| weight.abs() <= tiny.abs()), "{weights:?}");
        }
    }
}
