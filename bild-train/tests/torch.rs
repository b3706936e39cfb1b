//! The same numbers as PyTorch and transformers: gradients, losses, optimizers. `record.py` says how they were recorded.

use std::{collections::BTreeMap, path::PathBuf, sync::LazyLock};

use bild::Checkpoint;
use bild_train::{
    Adafactor, AdamW, Batch, Compute, Dropouts, Example, Flex, Gradients, Loss, Optimizer, Rest, Rule, Schedule,
    Settings, T5, Targets, Teacher, Trainable, Trainer,
};
use burn::{
    Tensor,
    module::{Module, ModuleMapper, Param},
    tensor::{TensorData, backend::AutodiffBackend},
};
use serde::Deserialize;

type Pairs = Vec<(Vec<u32>, Vec<u32>)>;

#[derive(Deserialize)]
struct Recorded {
    gradients: BTreeMap<String, OfModel>,
    adamw: Curve,
    adafactor: Curve,
    losses: Losses,
}

#[derive(Deserialize)]
struct OfModel {
    pairs: Pairs,
    loss: f64,
    gradients: BTreeMap<String, OfParameter>,
}

#[derive(Deserialize)]
struct OfParameter {
    norm: f64,
    spread: Vec<f64>,
}

#[derive(Deserialize)]
struct Curve {
    batches: Vec<Pairs>,
    losses: Vec<f64>,
    norms: Vec<f64>,
}

#[derive(Deserialize)]
struct Losses {
    logits: Vec<f32>,
    labels: Vec<u32>,
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
    rows: usize,
    losses: BTreeMap<String, OfLoss>,
}

#[derive(Deserialize)]
struct OfLoss {
    loss: f64,
    gradient: Vec<f64>,
}

static RECORDED: LazyLock<Recorded> =
    LazyLock::new(|| serde_json::from_str(include_str!("fixtures/torch.json")).unwrap());

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../bild-models/tests/fixtures/t5").join(name)
}

fn model<B: AutodiffBackend>(name: &str) -> T5<B> {
    T5::open(&Checkpoint::open(folder(name)).unwrap(), &Default::default()).unwrap()
}

fn examples(pairs: &Pairs) -> Vec<Example> {
    let example = |(source, target): &(Vec<u32>, Vec<u32>)| Example {
        source: source.clone(),
        target: target.clone(),
        teacher: None,
    };
    pairs.iter().map(example).collect()
}

fn number<B: AutodiffBackend>(tensor: Tensor<B, 1>) -> f64 {
    f64::from(tensor.into_data().iter::<f32>().next().unwrap())
}

fn close(found: f64, expected: f64, scale: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-3 * expected.abs().max(scale), "{what}: {found}, expected {expected}");
}

/// The mean loss of a batch and all gradients.
fn gradients<B: AutodiffBackend + Compute>(model: &T5<B>, batch: &Batch) -> (f64, Gradients<B::InnerBackend>)
where
    B::InnerBackend: Compute,
{
    let scale = 1.0 / batch.target_tokens() as f32;
    let loss = model.loss(batch, Loss::cross_entropy(), scale, Dropouts::none());
    let mut gradients = Gradients::default();
    let value = number(loss.clone());
    gradients.add(model, loss);
    (value, gradients)
}

#[test]
fn every_gradient_is_that_of_transformers() {
    for (name, recorded) in &RECORDED.gradients {
        let model = model::<Flex>(name);
        let batch = Batch::new(&examples(&recorded.pairs), model.config().start);
        let (loss, gradients) = gradients(&model, &batch);
        close(loss, recorded.loss, 0.0, name);
        let ids: BTreeMap<&str, u64> = model.parameters().map(|(id, name)| (name, id)).collect();
        // What transformers ties has the gradient of both.
        let names: Vec<&str> = recorded.gradients.keys().map(String::as_str).collect();
        assert_eq!(names, ids.keys().copied().collect::<Vec<_>>(), "{name}");
        for (parameter, expected) in &recorded.gradients {
            let found: Vec<f32> = gradients.get(ids[&parameter[..]]).unwrap().to_data().iter().collect();
            let norm = found.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            close(norm, expected.norm, 0.0, &format!("{name} {parameter}"));
            // A number is measured by the usual size of its kind.
            let size = expected.norm / (found.len() as f64).sqrt();
            let step = (found.len() / 24).max(1);
            for (found, expected) in found.iter().step_by(step).zip(&expected.spread) {
                close(f64::from(*found), *expected, size, &format!("{name} {parameter}"));
            }
        }
    }
}

#[test]
fn a_gradient_is_that_of_finite_differences() {
    let recorded = &RECORDED.gradients["t5-v1_1"];
    let model = model::<Flex>("t5-v1_1");
    let batch = Batch::new(&examples(&recorded.pairs), model.config().start);
    let (_, gradients) = gradients(&model, &batch);
    // Along the gradient the loss changes by its length.
    let squared = gradients.norm().powi(2);
    let moved = |by: f64| {
        let mut moved = Moved { gradients: &gradients, factor: by / squared };
        Module::<Flex>::map(model.clone(), &mut moved).score(&batch, Loss::cross_entropy()).mean_loss()
    };
    let by = 2e-2;
    close((moved(by) - moved(-by)) / (2.0 * by), 1.0, 0.0, "along the gradient");
}

/// Adds to each parameter its gradient times something.
struct Moved<'a> {
    gradients: &'a Gradients<<Flex as AutodiffBackend>::InnerBackend>,
    factor: f64,
}

impl ModuleMapper<Flex> for Moved<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<Flex, D>>) -> Param<Tensor<Flex, D>> {
        let gradient = self.gradients.get(param.id.val()).unwrap().clone();
        param.map(|tensor| {
            let shape = tensor.dims();
            let moved = tensor.inner() + gradient.reshape(shape).mul_scalar(self.factor);
            Tensor::from_inner(moved).require_grad()
        })
    }
}

fn settings(rule: Rule, rate: f64, clip: Option<f64>) -> Settings {
    Settings { rule, schedule: Schedule::constant(rate), clip, dropout: 0.0, ..Settings::default() }
}

fn curve(name: &str, settings: &Settings, recorded: &Curve) {
    let mut model = model::<Flex>(name);
    let mut optimizer = Optimizer::new(settings.rule);
    for (step, (expected, norm)) in recorded.losses.iter().zip(&recorded.norms).enumerate() {
        let batch = Batch::new(&examples(&recorded.batches[step % 5]), model.config().start);
        let (loss, gradients) = gradients(&model, &batch);
        close(loss, *expected, 0.0, &format!("the loss of step {step}"));
        let length = gradients.norm();
        close(length, *norm, 0.0, &format!("the length of the gradient of step {step}"));
        let factor = settings.clip.map_or(1.0, |clip| (clip / (length + 1e-6)).min(1.0));
        model = optimizer.step(model, gradients, settings.schedule.rate(step), factor);
    }
}

#[test]
fn fifty_steps_of_adamw_are_those_of_torch() {
    let rule = Rule::AdamW(AdamW { weight_decay: 0.01, ..AdamW::default() });
    curve("t5-v1_1", &settings(rule, 5e-4, Some(1.0)), &RECORDED.adamw);
}

#[test]
fn steps_of_adafactor_are_those_of_transformers() {
    let rule = Rule::Adafactor(Adafactor { weight_decay: 0.01, ..Adafactor::default() });
    curve("t5-v1_1", &settings(rule, 1e-2, None), &RECORDED.adafactor);
}

#[test]
fn every_loss_is_that_of_torch() {
    let Losses { logits, labels, tokens, log_probs, rows, losses } = &RECORDED.losses;
    let (vocab, best) = (logits.len() / rows, tokens.len() / rows);
    let teacher = Teacher { best, tokens: tokens.clone(), log_probs: log_probs.clone() };
    let targets = Targets::with_teacher(labels.clone(), &teacher);
    let device = Default::default();
    let kinds = [
        ("cross_entropy", Loss::cross_entropy()),
        ("smoothed", Loss::CrossEntropy { smoothing: 0.1 }),
        ("kl_ignored", Loss::KullbackLeibler { rest: Rest::Ignored }),
        ("kl_bucket", Loss::KullbackLeibler { rest: Rest::Bucket }),
        ("tv_ignored", Loss::TotalVariation { rest: Rest::Ignored }),
        ("tv_bucket", Loss::TotalVariation { rest: Rest::Bucket }),
    ];
    assert_eq!(losses.len(), kinds.len());
    // Of the logits themselves, and through a head, which here leaves rows as they are.
    let logits =
        || Tensor::<Flex, 2>::from_data(TensorData::new(logits.clone(), [*rows, vocab]), &device).require_grad();
    for (name, loss) in kinds {
        let expected = &losses[name];
        let by_tensors = |logits: Tensor<Flex, 2>| loss.of_logits(logits, &targets);
        let by_kernel = |logits: Tensor<Flex, 2>| {
            let head =
                bild_train::Head { weight: Tensor::eye(vocab, &device), scale: 1.0, scale_loss: 1.0 / *rows as f32 };
            Flex::loss(logits, head, &targets, loss)
        };
        for (how, of) in [("tensors", &by_tensors as &dyn Fn(_) -> _), ("the kernel", &by_kernel)] {
            let logits = logits();
            let value = of(logits.clone());
            close(number(value.clone()), expected.loss, 0.0, &format!("{name} by {how}"));
            let gradient: Vec<f32> = logits.grad(&value.backward()).unwrap().to_data().iter().collect();
            for (found, expected) in gradient.iter().zip(&expected.gradient) {
                close(f64::from(*found), *expected, 1e-3, &format!("the gradient of {name} by {how}"));
            }
        }
    }
}

/// The trainer does what the loop above does.
#[test]
fn a_trainer_accumulates_to_the_mean_over_all_tokens() {
    let pairs = &RECORDED.gradients["t5-v1_0"].pairs;
    let start = model::<Flex>("t5-v1_0");
    let device = Default::default();
    let rule = Rule::AdamW(AdamW::default());
    let trained = |tokens: usize, accumulate: usize| {
        let settings = Settings { tokens, accumulate, ..settings(rule, 1e-3, Some(1.0)) };
        let mut trainer = Trainer::new(start.clone(), examples(pairs), settings, &device).unwrap();
        assert_eq!(trainer.batches(), accumulate);
        let step = trainer.step().unwrap();
        (step, trainer.into_model().tensors())
    };
    let (whole, tensors) = trained(4096, 1);
    let (parts, others) = trained(30, 4);
    assert_eq!(whole.tokens, parts.tokens);
    close(parts.loss, whole.loss, 0.0, "the loss");
    close(parts.norm, whole.norm, 0.0, "the length of the gradient");
    for (name, tensor) in &tensors {
        for (a, b) in tensor.values.iter().zip(&others[name].values) {
            // The first step of AdamW is the rate in every direction, also where the gradient is next to nothing.
            assert!((a - b).abs() < 2.1e-3, "{name}: {a} {b}");
        }
    }
}
