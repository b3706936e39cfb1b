//! What Burn's pure Rust CPU backend can do better than its tensor interface lets it: found by downcasting a primitive,
//! so that everything else stays generic over the backend.

use std::any::{Any, TypeId};

use burn::tensor::{DType, TensorPrimitive, backend::Backend};
use burn_flex::FlexTensor;

/// Whether tensors of `B` lie in this process's memory, in f32 or convertible without a device.
pub(crate) fn is_flex<B: Backend>() -> bool {
    TypeId::of::<B::FloatTensorPrimitive>() == TypeId::of::<FlexTensor>()
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
