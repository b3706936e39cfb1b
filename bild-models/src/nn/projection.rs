use std::array::from_fn;

use bild_core::Token;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::{RmsNorm, cast, joined, loader::Loader, wide};
#[cfg(feature = "flex")]
use crate::backend::kernel::Matrix;
use crate::{
    Precision,
    backend::{is_flex, round_to_int4, round_to_int8},
    error::Result,
};

/// A product with a weight matrix and nothing else (T5 has no biases), or with several of the same shape one below the
/// other, so that they are one product.
pub(crate) enum Projection<B: Backend> {
    /// `[out, in]`, as checkpoints store it.
    Plain(Tensor<B, 2>),
    #[cfg(feature = "flex")]
    Matrix(Matrix),
}

impl<B: Backend> Projection<B> {
    /// Reads a matrix of `[out, in]`, or several of that shape.
    pub(crate) fn load(loader: &Loader<'_, B>, names: &[String], shape: [usize; 2]) -> Result<Self> {
        Self::load_for(loader, names, shape, None)
    }

    /// As [`load`](Self::load), for inputs that come out of a norm: its weights are taken into the matrix where there is no kernel for a
    /// norm, so that each has an operation less. Weights of 16 bits stay as they are.
    pub(crate) fn load_after(
        loader: &Loader<'_, B>,
        norm: RmsNorm<B>,
        names: &[String],
        shape: [usize; 2],
    ) -> Result<(RmsNorm<B>, Self)> {
        if is_flex::<B>() || loader.precision().half().is_some() {
            return Ok((norm, Self::load(loader, names, shape)?));
        }
        let projection = Self::load_for(loader, names, shape, norm.weight())?;
        Ok((norm.without_weight(), projection))
    }

    fn load_for(
        loader: &Loader<'_, B>,
        names: &[String],
        shape: [usize; 2],
        of_inputs: Option<Tensor<B, 2>>,
    ) -> Result<Self> {
        let [outputs, width] = [names.len() * shape[0], shape[1]];
        #[cfg(feature = "flex")]
        if crate::backend::is_flex::<B>() {
            let mut matrix = Matrix::new(loader.precision(), outputs, width, loader.threads().clone());
            loader.panels(names, shape, |rows| matrix.push(rows))?;
            return Ok(Self::Matrix(matrix));
        }
        let mut weights = Vec::new();
        for name in names {
            let mut values = loader.values(name, shape)?;
            loader.check_range(name, &values)?;
            weights.append(&mut values);
        }
        match loader.precision() {
            Precision::Int8 => round_to_int8(&mut weights, width),
            Precision::Int4 => round_to_int4(&mut weights, width),
            Precision::F32 | Precision::F16 | Precision::Bf16 => {}
        }
        let mut weights = Tensor::from_data(TensorData::new(weights, [outputs, width]), loader.device());
        if let Some(of_inputs) = of_inputs {
            weights = weights * of_inputs;
        }
        Ok(Self::Plain(match loader.precision().half() {
            Some(half) => cast(weights, half),
            None => weights,
        }))
    }

    /// `[rows, in]` to `[rows, out]`, in the floats of the matrix.
    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let _span = tracing::trace_span!("product").entered();
        match self {
            Self::Plain(weight) => cast(x, weight.dtype().into()).matmul(weight.clone().transpose()),
            #[cfg(feature = "flex")]
            Self::Matrix(matrix) => crate::backend::flex::product(&x, |x| matrix.product(x)).expect(FLEX_ALONE),
        }
    }

    /// As [`forward`](Self::forward), of inputs that are not rounded to 8 bits: for a head, from which the next token is chosen.
    pub(crate) fn forward_fine(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Plain(_) => self.forward(x),
            #[cfg(feature = "flex")]
            Self::Matrix(matrix) => {
                let _span = tracing::trace_span!("product").entered();
                crate::backend::flex::product(&x, |x| matrix.fine_product(x)).expect(FLEX_ALONE)
            }
        }
    }

    /// `[rows, in]` to N parts of `[rows, out / N]`: the products with N matrices.
    pub(crate) fn forward_parts<const N: usize>(&self, x: Tensor<B, 2>) -> [Tensor<B, 2>; N] {
        let y = self.forward(x);
        let part = y.dims()[1] / N;
        from_fn(|i| y.clone().narrow(1, i * part, part))
    }

    /// The product with some of `all` matrices that lie one below the other.
    pub(crate) fn parts(&self, chosen: &[usize], all: usize) -> Self {
        #[cfg_attr(not(feature = "flex"), allow(irrefutable_let_patterns))]
        let Self::Plain(weight) = self else { unreachable!("flex keeps them apart") };
        let rows = weight.dims()[0] / all;
        Self::Plain(joined(chosen.iter().map(|&part| weight.clone().narrow(0, part * rows, rows)).collect()))
    }

    /// The product with the rows at `tokens` alone, to the same bits.
    pub(crate) fn select(&self, tokens: &[Token], device: &B::Device) -> Self {
        match self {
            Self::Plain(weight) => Self::Plain(selected(weight, tokens, device)),
            #[cfg(feature = "flex")]
            Self::Matrix(matrix) => Self::Matrix(matrix.select(tokens)),
        }
    }

    /// As [`rows`](Self::rows), at tokens that are on the device, where the matrix is a tensor.
    pub(crate) fn rows_on_device(&self, tokens: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        match self {
            Self::Plain(weight) => wide(weight.clone().select(0, tokens)),
            #[cfg(feature = "flex")]
            Self::Matrix(_) => unreachable!("flex reads tokens on the host"),
        }
    }

    /// The rows of the matrix itself at `tokens`, `[tokens, in]`: what an embedding is for. All are below `out`.
    pub(crate) fn rows(&self, tokens: &[Token], device: &B::Device) -> Tensor<B, 2> {
        match self {
            Self::Plain(weight) => wide(selected(weight, tokens, device)),
            #[cfg(feature = "flex")]
            Self::Matrix(matrix) => {
                let rows = matrix.rows(tokens);
                let width = rows.len() / tokens.len();
                Tensor::from_data(TensorData::new(rows, [tokens.len(), width]), device)
            }
        }
    }
}

/// Some rows of a matrix, `[tokens, in]`.
fn selected<B: Backend>(matrix: &Tensor<B, 2>, tokens: &[Token], device: &B::Device) -> Tensor<B, 2> {
    let indices: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    matrix.clone().select(0, Tensor::<B, 1, Int>::from_data(TensorData::new(indices, [tokens.len()]), device))
}

#[cfg(feature = "flex")]
const FLEX_ALONE: &str = "panels are made for flex in f32 alone";
