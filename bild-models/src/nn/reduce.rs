//! From logits on a device to the few numbers a policy wants.

use bild_core::{Error, Result, Row, Token, Want};
use burn::tensor::{FloatDType, Int, Tensor, TensorData, Transaction, backend::Backend};

use rayon::prelude::*;

use crate::{Threads, backend::is_flex};

/// What is wanted of a row, and the draft that follows it, if there is one.
pub(crate) type Asked = (Want, Option<Token>);

/// Reduces `logits` (`[rows, vocab]`), each row to what is asked of it.
pub(crate) fn rows<B: Backend>(logits: Tensor<B, 2>, asked: &[Asked], threads: &Threads) -> Vec<Result<Row>> {
    let _span = tracing::trace_span!("reduction").entered();
    let on_host = is_flex::<B>() || asked.iter().any(|(want, _)| want.logits);
    let found = if on_host { rows_on_host(logits, asked, threads) } else { Reduced::of(logits, asked).read(asked) };
    found.unwrap_or_else(|error| {
        let error = error.to_string();
        asked.iter().map(|_| Err(Error::model(error.clone()))).collect()
    })
}

fn rows_on_host<B: Backend>(logits: Tensor<B, 2>, asked: &[Asked], threads: &Threads) -> Result<Vec<Result<Row>>> {
    let vocab = logits.dims()[1];
    let values = read(logits)?;
    let row = |(row, &(want, next)): (&[f32], &Asked)| Row::from_logits(row, want, next);
    // A row takes some 20 µs for 32,000 tokens.
    Ok(if values.len() > 1 << 16 && threads.shared() > 1 {
        values.par_chunks_exact(vocab).zip(asked).map(row).collect()
    } else {
        values.chunks_exact(vocab).zip(asked).map(row).collect()
    })
}

/// Rows reduced on a device, which nobody has read yet.
pub(crate) struct Reduced<B: Backend> {
    /// The most likely tokens, `[rows, 1]`.
    pub(crate) argmax: Tensor<B, 2, Int>,
    /// Σ exp(x − max), cross-entropy and entropy in f32, `[rows, 3]`.
    numbers: Tensor<B, 2>,
}

fn has_cross_entropy((want, next): &Asked) -> bool {
    want.cross_entropy && next.is_some()
}

impl<B: Backend> Reduced<B> {
    /// Of `logits`, `[rows, vocab]`: each row what is asked of it, but for the logits.
    pub(crate) fn of(logits: Tensor<B, 2>, asked: &[Asked]) -> Self {
        let logits = logits.cast(FloatDType::F32); // sums over a vocabulary overflow shorter floats
        let (device, [rows, _]) = (logits.device(), logits.dims());
        let max = logits.clone().max_dim(1);
        let argmax = lowest_maximum(logits.clone(), max.clone());
        let distance = logits - max;
        let exp = distance.clone().exp();
        let sum = exp.clone().sum_dim(1);
        let absent = || Tensor::<B, 2>::zeros([rows, 1], &device).cast(FloatDType::F32);
        let cross_entropy = if asked.iter().any(has_cross_entropy) {
            let tokens: Vec<i32> = asked.iter().map(|(_, next)| next.unwrap_or(0) as i32).collect();
            let tokens = Tensor::<B, 2, Int>::from_data(TensorData::new(tokens, [rows, 1]), &device);
            sum.clone().log() - distance.clone().gather(1, tokens)
        } else {
            absent()
        };
        let entropy = if asked.iter().any(|(want, _)| want.entropy) {
            sum.clone().log() - (exp * distance.clamp_min(-1e4)).sum_dim(1) / sum.clone()
        } else {
            absent()
        };
        Self { argmax, numbers: Tensor::cat(vec![sum, cross_entropy, entropy], 1) }
    }

    /// The rows of several, one after the other, in one read.
    pub(crate) fn read_all(all: Vec<Self>, asked: &[Asked]) -> Result<Vec<Result<Row>>> {
        let mut read = Transaction::default();
        for Self { argmax, numbers } in all {
            read = read.register(argmax).register(numbers);
        }
        let (mut rows, mut asked) = (Vec::with_capacity(asked.len()), asked.iter());
        for pair in read.try_execute().map_err(unreadable)?.as_chunks().0 {
            let [argmax, numbers]: [TensorData; 2] = pair.clone();
            let argmax = argmax.convert::<i64>().into_vec::<i64>().map_err(unreadable)?;
            let numbers = numbers.convert::<f32>().into_vec::<f32>().map_err(unreadable)?;
            for ((argmax, [sum, cross_entropy, entropy]), asked) in
                argmax.into_iter().zip(numbers.as_chunks().0).zip(&mut asked)
            {
                rows.push(if sum.is_finite() && *sum >= 1.0 {
                    let mut row = Row::new(argmax as Token, 1.0 / sum);
                    row.cross_entropy = has_cross_entropy(asked).then_some(*cross_entropy);
                    row.entropy = asked.0.entropy.then_some(*entropy);
                    Ok(row)
                } else {
                    Err(Error::NotFinite)
                });
            }
        }
        Ok(rows)
    }

    /// As [`read_all`](Self::read_all), of one.
    pub(crate) fn read(self, asked: &[Asked]) -> Result<Vec<Result<Row>>> {
        Self::read_all(vec![self], asked)
    }
}

/// The lowest index of the maximum, `[rows, 1]`. Which of equal entries `argmax` finds is up to the backend, so it is not asked;
/// and an index is never a float, of which short ones know few. It is one of the vocabulary whatever the logits: a device may look it up before
/// anybody has seen that they are broken.
fn lowest_maximum<B: Backend>(logits: Tensor<B, 2>, max: Tensor<B, 2>) -> Tensor<B, 2, Int> {
    let [rows, vocab] = logits.dims();
    let index = Tensor::<B, 1, Int>::arange(0..vocab as i64, &logits.device()).reshape([1, vocab]);
    let elsewhere = logits.lower(max.expand([rows, vocab]));
    index.expand([rows, vocab]).mask_fill(elsewhere, vocab as i32 - 1).min_dim(1)
}

/// The numbers of a tensor, row-major.
pub(crate) fn read<B: Backend>(tensor: Tensor<B, 2>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data().map_err(unreadable)?;
    data.convert::<f32>().into_vec().map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Debug) -> Error {
    Error::model(format!("a tensor cannot be read: {error:?}"))
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
        let want = Want::default().with_entropy().with_cross_entropy();
        let asked = [Some(3), Some(3), None, Some(516)].map(|next| (want, next));
        let asked = [&asked[..], &[(Want::default(), Some(3))]].concat();
        let all = |rows: Result<Vec<Result<Row>>>| rows.unwrap().into_iter().collect::<Result<Vec<_>>>().unwrap();
        let host = all(rows_on_host(tensor.clone(), &asked, &Threads::default()));
        let device = all(Reduced::of(tensor, &asked).read(&asked));
        assert_eq!((host.len(), device.len()), (5, 5));
        assert!(host[4].entropy.is_none() && device[4].entropy.is_none() && device[4].cross_entropy.is_none());
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

    /// An index as a float of 16 bits would be a multiple of 2 from 2048 on, and of 16 from 16,384 on; a sum over a vocabulary
    /// would be infinite from 65,504 on.
    #[test]
    fn short_floats_lose_no_token() {
        let vocab = 70_000;
        for best in [4097, 32_127, 69_999] {
            let logits: Vec<f32> = (0..vocab).map(|i| if i == best { 0.5 } else { 0.0 }).collect();
            let tensor = Tensor::<Flex, 2>::from_data(TensorData::new(logits, [1, vocab]), &Default::default());
            let asked = [(Want::default().with_entropy(), None)];
            let row = Reduced::of(tensor.cast(FloatDType::F16), &asked).read(&asked).unwrap().remove(0).unwrap();
            assert_eq!(row.argmax, best as Token);
            let exact = 1.0 / (1.0 + 69_999.0 * (-0.5f32).exp());
            assert!((row.probability / exact - 1.0).abs() < 1e-3, "{}", row.probability);
            assert!(row.entropy.unwrap().is_finite());
        }
    }

    #[test]
    fn a_broken_row_is_an_error_and_its_neighbour_none() {
        for bad in [f32::NAN, f32::INFINITY] {
            let tensor = Tensor::<Flex, 2>::from_floats([[0.0, bad, 1.0], [0.0, 1.0, 2.0]], &Default::default());
            let asked = [(Want::default(), None); 2];
            for rows in
                [Reduced::of(tensor.clone(), &asked).read(&asked), rows_on_host(tensor, &asked, &Threads::default())]
            {
                let rows = rows.unwrap();
                assert!(matches!(rows[0], Err(Error::NotFinite)), "{bad}");
                assert_eq!(rows[1].as_ref().unwrap().argmax, 2);
            }
        }
    }
}
