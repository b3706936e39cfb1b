//! What Burn's pure Rust CPU backend can do better than its tensor interface lets it: found by downcasting a primitive,
//! so that everything else stays generic over the backend.

use std::any::{Any, TypeId};

use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive, backend::Backend};
use burn_flex::FlexTensor;

use crate::kernel::{self, Heads};

/// Whether tensors of `B` are flex's, in f32.
pub(crate) fn is_flex<B: Backend>() -> bool {
    let f32s = TypeId::of::<B::FloatElem>() == TypeId::of::<f32>();
    f32s && TypeId::of::<B::FloatTensorPrimitive>() == TypeId::of::<FlexTensor>()
}

/// Copies `rows` into `cache` from its row `at` on, without copying the cache (flex's `slice_assign` would). Both are
/// row-major, with rows of the same width. Returns whether it was done.
pub(crate) fn write_rows<B: Backend>(cache: &mut TensorPrimitive<B>, rows: &TensorPrimitive<B>, at: usize) -> bool {
    let (TensorPrimitive::Float(cache), TensorPrimitive::Float(rows)) = (cache, rows) else { return false };
    let Some(cache) = (cache as &mut dyn Any).downcast_mut::<FlexTensor>() else { return false };
    let Some(rows) = (rows as &dyn Any).downcast_ref::<FlexTensor>() else { return false };
    if cache.dtype() != DType::F32 || rows.dtype() != DType::F32 || !cache.is_contiguous() {
        return false;
    }
    let rows = rows.to_contiguous();
    let width = cache.layout().num_elements() / cache.layout().shape()[0];
    let (Some(values), Some(storage)) = (rows.as_slice::<f32>(), cache.try_storage_mut::<f32>()) else { return false };
    storage[at * width..][..values.len()].copy_from_slice(values);
    true
}

/// A product of a weight matrix with the rows of `x` (`[rows, in]`), in parts of `[rows, out / N]`.
pub(crate) fn product<B: Backend, const N: usize>(
    x: &Tensor<B, 2>,
    product: impl FnOnce(&[f32]) -> [Vec<f32>; N],
) -> Option<[Tensor<B, 2>; N]> {
    let rows = x.dims()[0];
    let parts = product(FlexF32::of(x)?.values());
    Some(parts.map(|part| {
        let width = part.len() / rows;
        tensor(part, [rows, width], &x.device())
    }))
}

/// Attention as [`kernel::attend`] has it: `queries` are `[rows, heads · d_kv]`, keys and values `[keys, heads, d_kv]`,
/// `bias` is `[heads, rows, keys]`.
pub(crate) fn attend<B: Backend>(
    queries: &Tensor<B, 2>,
    keys: &Tensor<B, 3>,
    values: &Tensor<B, 3>,
    bias: Option<&Tensor<B, 3>>,
) -> Option<Tensor<B, 2>> {
    let [_, count, d_kv] = keys.dims();
    let (q, k, v) = (FlexF32::of(queries)?, FlexF32::of(keys)?, FlexF32::of(values)?);
    let bias = bias.map(FlexF32::of);
    let bias = match &bias {
        Some(bias) => Some(bias.as_ref()?.values()),
        None => None,
    };
    let found = kernel::attend(q.values(), k.values(), v.values(), bias, Heads { count, d_kv });
    Some(tensor(found, queries.dims(), &queries.device()))
}

/// gelu(`gate`) · `up`.
pub(crate) fn gated_gelu<B: Backend>(gate: &Tensor<B, 2>, up: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    let product = kernel::gated_gelu(FlexF32::of(gate)?.values(), FlexF32::of(up)?.values());
    Some(tensor(product, gate.dims(), &gate.device()))
}

/// The rows of `x` (`[rows, d_model]`) over the roots of their mean squares, times `weight` (`[1, d_model]`).
pub(crate) fn rms_norm<B: Backend>(x: &Tensor<B, 2>, weight: &Tensor<B, 2>, epsilon: f64) -> Option<Tensor<B, 2>> {
    let normed = kernel::rms_norm(FlexF32::of(x)?.values(), FlexF32::of(weight)?.values(), epsilon as f32);
    Some(tensor(normed, x.dims(), &x.device()))
}

/// A tensor of flex in f32 whose values lie in order; a view that does is not copied.
struct FlexF32(FlexTensor);

impl FlexF32 {
    fn of<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Option<Self> {
        let TensorPrimitive::Float(primitive) = tensor.clone().into_primitive() else { return None };
        let tensor = (&primitive as &dyn Any).downcast_ref::<FlexTensor>()?;
        let ordered = if tensor.is_contiguous() { tensor.clone() } else { tensor.to_contiguous() };
        (ordered.dtype() == DType::F32).then_some(Self(ordered))
    }

    fn values(&self) -> &[f32] {
        self.0.as_slice().expect("it is contiguous and f32")
    }
}

fn tensor<B: Backend, const D: usize>(values: Vec<f32>, shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
