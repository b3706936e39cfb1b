//! wgpu with Burn's fusion of kernels and its tuning: what it computes wrongly, and that the self-test refuses it.
#![cfg(feature = "fusion")]

mod common;

use bild_models::{Checkpoint, LoadError, LoadOptions, T5, Wgpu};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use common::fixture;

/// What a program gets that takes Burn's own alias.
type Fused = burn_wgpu::Wgpu;

/// exp(x) · wᵀ + 1 for rows of x: something before a product with a transposed matrix, and something after it. A T5 is full of
/// them. `x` is `[rows, 32]`, `w` `[24, 32]`.
fn graph<B: Backend>(rows: usize) -> Vec<f32> {
    let tensor = |shape: [usize; 2]| {
        let values = (0..shape[0] * shape[1]).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5).collect();
        Tensor::<B, 2>::from_data(TensorData::new::<f32, _>(values, shape), &Default::default())
    };
    let y = tensor([rows, 32]).exp().matmul(tensor([24, 32]).transpose()).add_scalar(1.0);
    y.into_data().convert::<f32>().into_vec().unwrap()
}

/// The smallest graph that goes wrong in Burn 0.21, where tuning is left to choose among fused kernels. When this test fails
/// because it no longer does, the fused backends may be right: try them with the whole suite, and export them.
#[test]
fn a_product_between_two_operations_is_wrong_for_one_row() {
    let largest_difference = |rows: usize| {
        let (fused, plain) = (graph::<Fused>(rows), graph::<Wgpu>(rows));
        let expected = graph::<burn_ndarray::NdArray>(rows);
        let difference =
            |found: &[f32]| found.iter().zip(&expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(difference(&plain) < 1e-4, "without fusion {rows} rows are right");
        difference(&fused)
    };
    assert!(largest_difference(3) < 1e-4);
    assert!(largest_difference(1) > 0.1);
}

#[test]
fn a_fused_model_is_refused_when_it_is_loaded() {
    let checkpoint = Checkpoint::open(fixture("t5-v1_1")).unwrap();
    let refused = T5::<Fused>::load(&checkpoint, &Default::default()).map(drop).unwrap_err();
    assert!(matches!(refused, LoadError::SelfTest { .. }), "{refused}");
    assert!(refused.to_string().contains("computes wrongly here: logits of up to"), "{refused}");
    let options = LoadOptions::default().with_self_test(false);
    T5::<Fused>::load_with(&checkpoint, &Default::default(), &options).unwrap();
}
