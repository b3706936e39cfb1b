use serde::{Deserialize, Serialize};

/// How the weight matrices of a model are held. Norms and position biases are f32 always.
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
}

/// Rounds values that share a scale to nearest, and returns the scale: a value is about `scale · rounded`. A NaN or ∞
/// among them makes the scale one, so that it is not lost.
#[inline(always)]
pub(crate) fn round(values: &[f32], rounded: &mut [i8]) -> f32 {
    // Adding this rounds to a whole number, which is left in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // Magnitudes are in the order of their bits, NaN above all.
    let largest = f32::from_bits(values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff)));
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

#[cfg(test)]
mod tests {
    use super::*;

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
            round_to_int8(&mut weights, 3);
            assert!(weights.iter().all(|weight| weight.abs() <= tiny.abs()), "{weights:?}");
        }
    }
}
