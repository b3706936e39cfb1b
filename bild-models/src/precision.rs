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

/// Rounds the weights of one output to `rounded`, and returns their scale: a weight is about `scale · rounded`.
pub(crate) fn quantize(weights: &[f32], rounded: &mut [i8]) -> f32 {
    let largest = weights.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
    let scale = largest / 127.0;
    for (rounded, weight) in rounded.iter_mut().zip(weights) {
        // So small that the scale is 0: a row of zeros, or as good as one.
        *rounded = if scale > 0.0 { (weight / scale).round().clamp(-127.0, 127.0) as i8 } else { 0 };
    }
    scale
}

/// What is left of a matrix of rows of `width` once it has been rounded to int8.
pub(crate) fn round_to_int8(weights: &mut [f32], width: usize) {
    let mut rounded = vec![0; width];
    for row in weights.chunks_mut(width) {
        let scale = quantize(row, &mut rounded);
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
            let scale = quantize(&weights, &mut rounded);
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
