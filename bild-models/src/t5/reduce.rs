//! From logits on a device to the few numbers a policy wants.

use bild_core::{Error, Result, Row, Token, Want};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

/// Reduces `logits` (`[rows, vocab]`); `next[i]` is the draft that follows row i, where there is one.
pub(super) fn rows<B: Backend>(logits: Tensor<B, 2>, want: Want, next: &[Token]) -> Result<Vec<Row>> {
    let _span = tracing::trace_span!("reduction").entered();
    #[cfg(feature = "flex")]
    let on_the_host = crate::flex::is_flex::<B>();
    #[cfg(not(feature = "flex"))]
    let on_the_host = false;
    if want.logits || on_the_host { on_host(logits, want, next) } else { on_device(logits, want, next) }
}

fn on_host<B: Backend>(logits: Tensor<B, 2>, want: Want, next: &[Token]) -> Result<Vec<Row>> {
    let vocab = logits.dims()[1];
    let values = read(logits)?;
    values.chunks_exact(vocab).enumerate().map(|(i, row)| Row::from_logits(row, want, next.get(i).copied())).collect()
}

/// One read of `[rows, 4]`: argmax, Σ exp(x − max), cross-entropy and entropy.
fn on_device<B: Backend>(logits: Tensor<B, 2>, want: Want, next: &[Token]) -> Result<Vec<Row>> {
    let (device, [rows, _]) = (logits.device(), logits.dims());
    let max = logits.clone().max_dim(1);
    let argmax = lowest_maximum(logits.clone(), max.clone());
    let distance = logits.clone() - max.clone();
    let exp = distance.clone().exp();
    let sum = exp.clone().sum_dim(1);
    let absent = || Tensor::<B, 2>::zeros([rows, 1], &device);
    let cross_entropy = if want.cross_entropy && !next.is_empty() {
        let mut tokens: Vec<i32> = next.iter().map(|&token| token as i32).collect();
        tokens.resize(rows, 0);
        let tokens = Tensor::<B, 2, Int>::from_data(TensorData::new(tokens, [rows, 1]), &device);
        sum.clone().log() - distance.clone().gather(1, tokens)
    } else {
        absent()
    };
    let entropy = if want.entropy {
        sum.clone().log() - (exp * distance.clamp_min(-1e4)).sum_dim(1) / sum.clone()
    } else {
        absent()
    };
    let packed = read(Tensor::cat(vec![argmax, sum, cross_entropy, entropy], 1))?;
    let row = |(i, values): (usize, &[f32; 4])| {
        let [argmax, sum, cross_entropy, entropy] = *values;
        if !(sum.is_finite() && sum >= 1.0) {
            return Err(Error::NotFinite);
        }
        let mut row = Row::new(argmax as Token, 1.0 / sum);
        row.cross_entropy = (want.cross_entropy && i < next.len()).then_some(cross_entropy);
        row.entropy = want.entropy.then_some(entropy);
        Ok(row)
    };
    packed.as_chunks().0.iter().enumerate().map(row).collect()
}

/// The lowest index of the maximum, `[rows, 1]`, as a float (exact up to 2^24 tokens). Which of equal entries `argmax`
/// finds is up to the backend, so it is not asked.
fn lowest_maximum<B: Backend>(logits: Tensor<B, 2>, max: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, vocab] = logits.dims();
    let index = Tensor::<B, 1, Int>::arange(0..vocab as i64, &logits.device()).float().reshape([1, vocab]);
    let elsewhere = logits.lower(max.expand([rows, vocab]));
    index.expand([rows, vocab]).mask_fill(elsewhere, f32::MAX).min_dim(1)
}

fn read<B: Backend>(tensor: Tensor<B, 2>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data().map_err(|error| Error::model(format!("a tensor cannot be read: {error:?}")))?;
    data.convert::<f32>().into_vec().map_err(|error| Error::model(format!("a tensor cannot be read: {error:?}")))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn_flex::Flex;

    use super::*;

    #[test]
    fn on_a_device_as_on_the_host() {
        let vocab = 517;
        let mut logits: Vec<f32> = (0..5 * vocab).map(|i| ((i * 7919) % 1009) as f32 / 150.0).collect();
        logits[40] = 9.0; // a tie of maxima in row 0
        logits[300] = 9.0;
        logits[vocab + 3] = f32::NEG_INFINITY;
        let tensor = Tensor::<Flex, 2>::from_data(TensorData::new(logits, [5, vocab]), &Default::default());
        let want = Want::default().entropy().cross_entropy();
        let next = [3, 3, 0, 516];
        let (host, device) = (on_host(tensor.clone(), want, &next).unwrap(), on_device(tensor, want, &next).unwrap());
        assert_eq!(host[0].argmax, 40);
        for (i, (a, b)) in host.iter().zip(&device).enumerate() {
            let close = |a: Option<f32>, b: Option<f32>| match (a, b) {
                (Some(a), Some(b)) => a == b || (a - b).abs() < 1e-4,
                (a, b) => a == b,
            };
            assert_eq!(a.argmax, b.argmax);
            assert!((a.probability - b.probability).abs() < 1e-6, "{i}: {a:?} {b:?}");
            assert!(close(a.entropy, b.entropy) && close(a.cross_entropy, b.cross_entropy), "{i}: {a:?} {b:?}");
        }
    }

    #[test]
    fn broken_logits_are_errors_on_a_device_too() {
        for bad in [f32::NAN, f32::INFINITY] {
            let tensor = Tensor::<Flex, 2>::from_floats([[0.0, bad, 1.0], [0.0, 1.0, 2.0]], &Default::default());
            assert!(matches!(on_device(tensor, Want::default(), &[]), Err(Error::NotFinite)), "{bad}");
        }
    }
}
