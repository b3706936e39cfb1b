//! Whether a backend computes what it is asked to: tried when a model is loaded, because a wrong answer is worse than none.

use std::sync::Arc;

use bild_core::Token;
use burn::tensor::{DType, Element, backend::Backend};

use super::{Decoder, Part};
use crate::{
    Precision,
    error::{LoadError, Result},
};

/// How far a row of a pass of three may be from the same row alone, relative to the largest logit: some steps of the floats that
/// products are made of.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F16 => 1e-2,
        Precision::Bf16 => 5e-2,
        Precision::F32 | Precision::Int8 | Precision::Int4 => 1e-3,
    }
}

/// The tokens of the self-test, of a vocabulary of `size`: the first is where a session begins, as far as it matters.
pub(crate) fn probe(size: usize) -> Vec<Token> {
    (0..3).map(|i| (i * 7919 % size) as Token).collect()
}

/// Refuses a backend whose floats are shorter than a T5 needs.
pub(crate) fn check_floats<B: Backend>(device: &B::Device) -> Result<()> {
    let float = B::FloatElem::dtype();
    if matches!(float, DType::F32 | DType::F64) {
        return Ok(());
    }
    Err(LoadError::Floats { backend: B::name(device), float: format!("{float:?}").to_lowercase() })
}

/// Takes the tokens of a [`probe`] through the first layer and the head, together and one by one, each time with a new state:
/// the logits must agree.
pub(crate) fn self_test<D: Decoder>(
    decoder: &Arc<D>,
    precision: Precision,
    state: impl Fn() -> bild_core::Result<D::State>,
) -> Result<()> {
    let _span = tracing::info_span!("self_test").entered();
    let failed = |difference: String| LoadError::SelfTest { backend: D::Backend::name(decoder.device()), difference };
    let error = |error: bild_core::Error| failed(error.to_string());
    let tokens = probe(decoder.vocabulary().size);
    let logits = |passes: &[&[Token]]| {
        let mut state = state().map_err(error)?;
        let mut at = 0;
        let mut rows: Vec<f32> = Vec::new();
        for new in passes {
            let part = Part { state: &mut state, at, rows: new.len() };
            let logits = decoder.logits(decoder.forward(decoder.embed(new), &mut [part], 0..1));
            let data = logits.try_into_data().map_err(|error| failed(format!("{error:?}")))?;
            rows.extend(data.convert::<f32>().into_vec::<f32>().map_err(|error| failed(format!("{error:?}")))?);
            at += new.len();
        }
        Ok::<_, LoadError>(rows)
    };
    let together = logits(&[&tokens])?;
    let alone = logits(&tokens.iter().map(std::slice::from_ref).collect::<Vec<_>>())?;
    let largest = together.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    let difference = together.iter().zip(&alone).fold(0.0f32, |most, (a, b)| {
        let difference = (a - b).abs();
        if difference > most || difference.is_nan() { difference } else { most }
    });
    if difference <= tolerance(precision) * largest {
        return Ok(());
    }
    Err(failed(format!(
        "logits of up to {largest:.3} differ by {difference:.3} between a pass of three rows and three of one"
    )))
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;

    #[test]
    fn floats_of_16_bits_are_refused() {
        type Half = burn_wgpu::CubeBackend<burn_wgpu::WgpuRuntime, half::f16, i32, u32>;
        let refused = check_floats::<Half>(&Default::default()).unwrap_err().to_string();
        assert!(refused.contains("computes in f16: a T5 needs f32"), "{refused}");
        check_floats::<crate::Wgpu>(&Default::default()).unwrap();
    }
}
