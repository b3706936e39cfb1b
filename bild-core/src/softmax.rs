//! The reductions of a row of logits on the host, written so that the compiler turns them into vector instructions.

const LANES: usize = 16;

/// The largest entry; NaN entries are passed over (see [`sum_exp`], which they make NaN).
pub(crate) fn max(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

/// Σ exp(x − max), at least 1 for finite logits.
pub(crate) fn sum_exp(logits: &[f32], max: f32) -> f32 {
    sum(logits, |x| exp(x - max))
}

/// Σ exp(x − max) · (max − x), which entropy needs: H = ln S + this / S with S from [`sum_exp`].
pub(crate) fn sum_exp_distance(logits: &[f32], max: f32) -> f32 {
    // −∞ contributes nothing: its weight is 0, and the distance is bounded so that 0 · ∞ does not arise.
    sum(logits, |x| exp(x - max) * (max - x).min(1e4))
}

fn sum(logits: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += term(x);
        }
    }
    let tail: f64 = rest.iter().map(|&x| f64::from(term(x))).sum();
    (lanes.iter().map(|&x| f64::from(x)).sum::<f64>() + tail) as f32
}

/// exp(x) for x ≤ 0 within 2 units in the last place, 0 below −87, NaN for NaN: 2^n · e^r with |r| ≤ ½ ln 2, e^r by its
/// Taylor polynomial of degree 7.
#[inline]
pub fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, left in the low bits
    const LN_2_HIGH: f32 = 0.693_359_4; // ln 2 in two parts, the first exact when multiplied by an integer below 2^12
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2.5e-7, "exp({x}) = {found}, expected {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
