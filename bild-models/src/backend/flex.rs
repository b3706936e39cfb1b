//! What Burn's pure Rust CPU backend can do better than its tensor interface lets it: found by downcasting a primitive,
//! so that everything else stays generic over the backend.

use std::any::{Any, TypeId};

use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive, backend::Backend};
use burn_flex::FlexTensor;

use crate::backend::kernel::{self, KeysValues, Look, Rows};

/// Whether tensors of `B` are flex's, in f32.
pub(crate) fn is_flex<B: Backend>() -> bool {
    let f32s = TypeId::of::<B::FloatElem>() == TypeId::of::<f32>();
    f32s && TypeId::of::<B::FloatTensorPrimitive>() == TypeId::of::<FlexTensor>()
}

/// Writes keys and values, `[rows, heads · d_kv]` each, from row `at` on.
pub(crate) fn write<B: Backend>(
    to: &mut KeysValues,
    keys: &Tensor<B, 2>,
    values: &Tensor<B, 2>,
    at: usize,
) -> Option<()> {
    to.write(FlexF32::matrix(keys)?.rows(), FlexF32::matrix(values)?.rows(), at);
    Some(())
}

/// A product of a weight matrix with the rows of `x` (`[rows, in]`), `[rows, out]`.
pub(crate) fn product<B: Backend>(x: &Tensor<B, 2>, product: impl FnOnce(&[f32]) -> Vec<f32>) -> Option<Tensor<B, 2>> {
    let rows = x.dims()[0];
    let product = product(FlexF32::of(x)?.values());
    let width = product.len() / rows;
    Some(tensor(product, [rows, width], &x.device()))
}

/// Attention of the queries of several sessions, `[rows, heads · d_kv]`, to the same shape; `new` keys and values of that shape are
/// written first.
pub(crate) fn attend<B: Backend>(
    queries: &Tensor<B, 2>,
    new: Option<&[Tensor<B, 2>; 2]>,
    looks: Vec<Look<'_>>,
) -> Option<Tensor<B, 2>> {
    let new = match new {
        Some([keys, values]) => Some([FlexF32::matrix(keys)?, FlexF32::matrix(values)?]),
        None => None,
    };
    let new = new.as_ref().map(|[keys, values]| [keys.rows(), values.rows()]);
    let found = kernel::attend(FlexF32::matrix(queries)?.rows(), new, looks);
    Some(tensor(found, queries.dims(), &queries.device()))
}

/// gelu(`gate`) · `up`.
pub(crate) fn gated_gelu<B: Backend>(gate: &Tensor<B, 2>, up: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    let product = kernel::gated_gelu(FlexF32::matrix(gate)?.rows(), FlexF32::matrix(up)?.rows());
    Some(tensor(product, gate.dims(), &gate.device()))
}

/// The rows of `x` (`[rows, d_model]`) over the roots of their mean squares, times `weight` (`[1, d_model]`).
pub(crate) fn rms_norm<B: Backend>(x: &Tensor<B, 2>, weight: &Tensor<B, 2>, epsilon: f64) -> Option<Tensor<B, 2>> {
    let normed = kernel::rms_norm(FlexF32::of(x)?.values(), FlexF32::of(weight)?.values(), epsilon as f32);
    Some(tensor(normed, x.dims(), &x.device()))
}

/// A tensor of flex in f32.
struct FlexF32(FlexTensor);

impl FlexF32 {
    /// One whose values lie in order; a view that is one is not copied.
    fn of<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Option<Self> {
        Self::that(tensor, FlexTensor::is_contiguous)
    }

    /// A matrix whose rows lie in order each; a view that is one is not copied.
    fn matrix<B: Backend>(tensor: &Tensor<B, 2>) -> Option<Self> {
        Self::that(tensor, |tensor| tensor.layout().strides()[1] == 1 && tensor.layout().strides()[0] >= 0)
    }

    fn that<B: Backend, const D: usize>(tensor: &Tensor<B, D>, fits: fn(&FlexTensor) -> bool) -> Option<Self> {
        let TensorPrimitive::Float(primitive) = tensor.clone().into_primitive() else { return None };
        let tensor = (&primitive as &dyn Any).downcast_ref::<FlexTensor>()?;
        let tensor = if fits(tensor) { tensor.clone() } else { tensor.to_contiguous() };
        (tensor.dtype() == DType::F32).then_some(Self(tensor))
    }

    fn values(&self) -> &[f32] {
        self.0.as_slice().expect("it is contiguous and f32")
    }

    fn rows(&self) -> Rows<'_> {
        let layout = self.0.layout();
        let values = &self.0.storage()[layout.start_offset()..];
        Rows { values, count: layout.shape()[0], width: layout.shape()[1], stride: layout.strides()[0] as usize }
    }
}

fn tensor<B: Backend, const D: usize>(values: Vec<f32>, shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
