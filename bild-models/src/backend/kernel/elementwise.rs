//! What lies between the products of a layer.

use pulp::{Arch, Simd, WithSimd};

use super::{Rows, dot};

/// e^x to within 2 units in the last place, and 0 below the least normal result. Arithmetic alone, so that a loop over it
/// becomes vector instructions.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding this and taking it away rounds to a whole number, which is left in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with few enough bits for exact products.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let bounded = if x > 88.0 { 88.0 } else { x };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = bounded - whole * LN_2[0] - whole * LN_2[1];
    // The Taylor series: |rest| ≤ ln 2 / 2, where the first term left out is below 2e-8.
    let mut series = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * rest + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { series * power }
}

/// gelu(`gate`) · `up`, with the approximation of gelu by tanh that T5 1.1 was trained with, rewritten with one
/// exponential: ½ (1 + tanh u) = 1 / (1 + exp(−2u)).
pub(crate) fn gated_gelu(gate: Rows<'_>, up: Rows<'_>) -> Vec<f32> {
    let mut product = Vec::with_capacity(up.count * up.width);
    for row in 0..up.count {
        product.extend_from_slice(up.row(row));
        Arch::new().dispatch(GatedGelu { gate: gate.row(row), product: &mut product[row * up.width..] });
    }
    product
}

struct GatedGelu<'a> {
    gate: &'a [f32],
    product: &'a mut [f32],
}

impl WithSimd for GatedGelu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const SLOPE: f32 = 0.797_884_6; // √(2/π)
        for (product, &x) in self.product.iter_mut().zip(self.gate) {
            let u = SLOPE * (x + 0.044_715 * x * x * x);
            *product *= x / (1.0 + exp(-2.0 * u));
        }
    }
}

/// Each row of `x` (`[rows, width]`) divided by the root of its mean square, times `weight` (`[width]`).
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut normed = x.to_vec();
    Arch::new().dispatch(RmsNorm { rows: &mut normed, weight, epsilon });
    normed
}

struct RmsNorm<'a> {
    rows: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl WithSimd for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.weight.len();
        for row in self.rows.chunks_exact_mut(width) {
            let mean_square = dot(simd, row, row) / width as f32;
            let scale = 1.0 / (mean_square + self.epsilon).sqrt();
            for (x, weight) in row.iter_mut().zip(self.weight) {
                *x = *x * scale * weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_two_units() {
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{x}: {found} {expected}");
        }
        assert_eq!((exp(0.0), exp(-100.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn gelu_and_norm_are_their_definitions() {
        for width in [1, 7, 16, 100] {
            let x: Vec<f32> = (0..3 * width).map(|i| (i as f32 * 0.7).sin() * 6.0).collect();
            let y: Vec<f32> = (0..3 * width).map(|i| (i as f32 * 1.3).cos()).collect();
            let rows = |values| Rows { values, count: 3, width, stride: width };
            for ((found, &x), &y) in gated_gelu(rows(&x), rows(&y)).iter().zip(&x).zip(&y) {
                let (x, y) = (f64::from(x), f64::from(y));
                let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh();
                assert!((f64::from(*found) - 0.5 * x * (1.0 + tanh) * y).abs() < 1e-6);
            }
            let normed = rms_norm(&x, &y[..width], 1e-6);
            for (found, x) in normed.chunks_exact(width).zip(x.chunks_exact(width)) {
                let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
                for ((&found, &x), &weight) in found.iter().zip(x).zip(&y) {
                    let expected = f64::from(x) / (mean + 1e-6).sqrt() * f64::from(weight);
                    assert!((f64::from(found) - expected).abs() < 1e-5);
                }
            }
        }
    }
}
