//! Every kernel of flex computes what Burn's tensors do, forward and backward, with what is dropped.

use bild::models::Activation;
use burn::{Tensor, tensor::TensorData};

use super::{Attending, Compute, Head, plain};
use crate::{
    Flex,
    loss::{Loss, Rest, Targets, Teacher},
    random::{Dropouts, Random},
};

type Matrix = Tensor<Flex, 2>;

fn matrix(rows: usize, columns: usize, seed: u64) -> Matrix {
    let mut random = Random::new(seed);
    let values: Vec<f32> = (0..rows * columns).map(|_| random.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &Default::default())
}

/// What a function makes of the inputs, and the gradients of a weighted sum of it.
fn all(inputs: &[Matrix], of: &dyn Fn(&[Matrix]) -> Matrix) -> Vec<Vec<f32>> {
    let inputs: Vec<Matrix> = inputs.iter().map(|input| input.clone().detach().require_grad()).collect();
    let output = of(&inputs);
    let [rows, columns] = output.dims();
    let gradients = (output.clone() * matrix(rows, columns, 99)).sum().backward();
    let read = |values: TensorData| values.iter::<f32>().collect::<Vec<f32>>();
    let of_inputs = inputs.iter().map(|input| read(input.grad(&gradients).unwrap().into_data()));
    std::iter::once(read(output.into_data())).chain(of_inputs).collect()
}

fn same(what: &str, inputs: &[Matrix], of: impl Fn(&[Matrix]) -> Matrix, expected: impl Fn(&[Matrix]) -> Matrix) {
    let [found, expected] = [all(inputs, &of), all(inputs, &expected)];
    for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let most = 2e-4 * expected.abs().max(1.0);
            assert!((found - expected).abs() < most, "{what}, part {part}: {found}, expected {expected}");
        }
    }
}

#[test]
fn parts_of_layers() {
    let place = Dropouts::new(0.2, 4).next_place();
    // More rows than one task has.
    let [x, y] = [matrix(700, 40, 1), matrix(700, 40, 2)];
    let weight = matrix(1, 40, 3);
    let norm = |by: fn(Matrix, Tensor<Flex, 1>, f64) -> Matrix| {
        move |i: &[Matrix]| by(i[0].clone(), i[1].clone().reshape([40]), 1e-6)
    };
    same("norm", &[x.clone(), weight], norm(Flex::rms_norm), norm(plain::rms_norm));
    let project = |by: fn(Matrix, Matrix) -> Matrix| move |i: &[Matrix]| by(i[0].clone(), i[1].clone());
    same("project", &[x.clone(), matrix(24, 40, 5)], project(Flex::project), project(plain::project));
    same(
        "residual",
        &[x.clone(), y.clone()],
        |i| Flex::residual(i[0].clone(), i[1].clone(), place),
        |i| plain::residual(i[0].clone(), i[1].clone(), place),
    );
    same(
        "dropout",
        std::slice::from_ref(&x),
        |i| Flex::dropout(i[0].clone(), place),
        |i| plain::dropout(i[0].clone(), place),
    );
    let tokens = [3, 0, 3, 5];
    let table = matrix(6, 40, 6);
    same("embed", &[table], |i| Flex::embed(i[0].clone(), &tokens), |i| plain::embed(i[0].clone(), &tokens));
    for activation in [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        let up = |i: &[Matrix]| i.get(1).cloned();
        for inputs in [std::slice::from_ref(&x), &[x.clone(), y.clone()]] {
            same(
                &format!("{activation:?}"),
                inputs,
                |i| Flex::activate(i[0].clone(), up(i), activation, place),
                |i| plain::activate(i[0].clone(), up(i), activation, place),
            );
        }
    }
}

#[test]
fn attention() {
    let dropout = Dropouts::new(0.2, 4).next_place();
    let [batch, heads, width, queries, buckets] = [3, 2, 4, 5, 4];
    for (is_causal, keys, lengths) in [(true, 5, [5, 2, 4]), (false, 7, [7, 1, 6])] {
        let at = Attending {
            batch,
            heads,
            queries,
            keys,
            lengths: lengths.into(),
            is_causal,
            buckets: (0..queries + keys - 1).map(|i| i * i % buckets).collect(),
            dropout,
        };
        let inner = heads * width;
        let rows = |rows: usize, seed| matrix(batch * rows, inner, seed);
        let inputs = [rows(queries, 1), rows(keys, 2), rows(keys, 3), matrix(buckets, heads, 4)];
        let of = |i: &[Matrix]| [i[0].clone(), i[1].clone(), i[2].clone()];
        let bias = |i: &[Matrix]| i.get(3).cloned();
        for inputs in [&inputs[..3], &inputs[..]] {
            let found = |i: &[Matrix]| Flex::attend(of(i), bias(i), &at);
            same("attention", inputs, found, |i| plain::attend(of(i), bias(i), &at));
        }
    }
}

#[test]
fn losses_with_their_head() {
    let (rows, width, vocab) = (9, 6, 50);
    let teacher =
        Teacher { best: 2, tokens: vec![4, 7, 9, 1, 30, 2], log_probs: vec![-0.7, -1.2, -0.1, -3.0, -2.0, -2.5] };
    let mut targets = Targets::with_teacher(vec![7, 9, 40], &teacher);
    targets.rows = vec![0, 4, 8];
    let head = |weight| Head { weight, scale: 0.7, scale_loss: 0.25 };
    let rest = Rest::Bucket;
    for loss in [
        Loss::CrossEntropy { smoothing: 0.1 },
        Loss::KullbackLeibler { rest },
        Loss::TotalVariation { rest },
        Loss::KullbackLeibler { rest: Rest::Ignored },
    ] {
        let inputs = [matrix(rows, width, 1), matrix(vocab, width, 2)];
        let found = |i: &[Matrix]| Flex::loss(i[0].clone(), head(i[1].clone()), &targets, loss).reshape([1, 1]);
        let expected = |i: &[Matrix]| plain::loss(i[0].clone(), head(i[1].clone()), &targets, loss).reshape([1, 1]);
        same(&format!("{loss:?}"), &inputs, found, expected);
        let [found, expected] = [Flex::score, plain::score]
            .map(|by: fn(_, _, &_, _) -> _| by(inputs[0].clone(), head(inputs[1].clone()), &targets, loss));
        assert!((found.loss - expected.loss).abs() < 1e-4);
        assert_eq!((found.agreed, found.tokens), (expected.agreed, expected.tokens));
    }
}
