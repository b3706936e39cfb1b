//! wgpu with Burn's fusion of kernels, which the self-test must refuse.
#![cfg(feature = "fusion")]

mod common;

use bild_models::{Checkpoint, LoadError, LoadOptions, T5, Wgpu};
use burn::tensor::{Tensor, TensorData, backend::Backend};

/// What a program gets that takes Burn's own alias.
type Fused = burn_wgpu::Wgpu;

#[test]
fn a_fused_model_is_refused_when_it_is_loaded() {
    let checkpoint = Checkpoint::open(common::fixture("t5-v1_1")).unwrap();
    let refused = T5::<Fused>::load(&checkpoint, &Default::default()).map(drop).unwrap_err();
    assert!(matches!(refused, LoadError::SelfTest { .. }), "{refused}");
    assert!(refused.to_string().contains("computes wrongly here: logits of up to"), "{refused}");
    let options = LoadOptions::default().self_test(false);
    T5::<Fused>::load_with(&checkpoint, &Default::default(), &options).unwrap();
    T5::<Wgpu>::load(&checkpoint, &Default::default()).unwrap();
}

#[test]
fn floats_of_16_bits_are_refused() {
    type Half = burn_wgpu::CubeBackend<burn_wgpu::WgpuRuntime, half::f16, i32, u32>;
    let checkpoint = Checkpoint::open(common::fixture("t5-v1_1")).unwrap();
    let refused = T5::<Half>::load(&checkpoint, &Default::default()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("computes in f16: a T5 needs f32"), "{refused}");
}
