//! Drafts by early exit, as the layers are and with what was trained for them: what is written is what the model alone writes, and what
//! is no early exit of that model is refused.

mod common;

use std::{fs, num::NonZeroUsize, path::Path};

use bild_core::{
    DraftSession, Generator, Model, Pair, PairSession, Pass, SessionLimit, Settings, Source, Token, VerifierSession,
    Want,
};
use bild_models::{Checkpoint, EarlyExit, LoadError, T5};
use bild_policies::Lossless;
use common::{Numbers, TestBackend, bits, config, greedy, load, random_model, write_checkpoint};
use serde_json::{Value, json};
use tempfile::TempDir;

fn model(seed: u64) -> T5<TestBackend> {
    random_model(json!({ "num_decoder_layers": 5, "tie_word_embeddings": seed.is_multiple_of(2) }), seed)
}

#[test]
fn early_exit_is_lossless_at_every_depth() {
    for seed in 0..20 {
        let model = model(seed);
        let source = Source::new(Numbers(seed).tokens(3 + seed as usize % 7, 37));
        let settings = Settings::default().with_max_new_tokens(24);
        let expected = greedy(&model, &source, &settings);
        for layers in 1..5 {
            let pair = EarlyExit::new(model.clone(), layers).unwrap();
            for (fallback, drafts) in [(0.0, 1), (0.0, 4), (0.1, 10), (0.0, 30)] {
                let policy =
                    Lossless::default().with_fallback(fallback).unwrap().with_max_draft(NonZeroUsize::new(drafts));
                let generator = Generator::new(pair.clone(), policy).unwrap().with_settings(settings.clone());
                let output = generator.generate(&source).unwrap();
                assert_eq!(output.tokens, expected, "model {seed}, {layers} layers, drafts of {drafts}");
            }
        }
    }
}

/// Whatever was drafted, taken back and drafted again before, a verification is what the whole model computes.
#[test]
fn early_exit_scores_as_the_model_does() {
    let model = model(3);
    let source = Source::new([5, 9, 2, 1]);
    let pair = EarlyExit::new(model.clone(), 2).unwrap();
    let want = Want::default().with_logits();
    let mut numbers = Numbers(8);
    for _ in 0..50 {
        let mut session = pair.begin(&source, &SessionLimit::new(40)).unwrap();
        let (mut tokens, mut scored, mut drafted) = (vec![0], 0, 0);
        while tokens.len() < 30 {
            for _ in 0..numbers.below(4) {
                assert_eq!(session.pass(&Pass::draft(drafted, &tokens[drafted..], want)).unwrap().len(), 1);
                drafted = tokens.len();
                tokens.push(numbers.below(37) as Token);
            }
            let rows = session.pass(&Pass::verify(scored, &tokens[scored..], want)).unwrap();
            let mut whole = model.begin(&source, &SessionLimit::new(40)).unwrap();
            let expected = whole.score(&Pass::verify(0, &tokens, want)).unwrap()[scored..].to_vec();
            assert!(bits(&rows) == bits(&expected), "{} rows after {scored}", rows.len());
            scored = tokens.len();
            let kept = tokens.len() - numbers.below(tokens.len().min(3));
            tokens.truncate(kept);
            (scored, drafted) = (scored.min(kept), drafted.min(kept));
            tokens.push(numbers.below(37) as Token);
        }
    }
}

#[test]
fn early_exit_needs_layers_to_leave_out() {
    for layers in [0, 5, 6] {
        let error = EarlyExit::new(model(1), layers).err().unwrap().to_string();
        assert!(error.contains(&format!("{layers} decoder layers")) && error.contains("has 5"), "{error}");
    }
}

const NORM: &str = "decoder.final_layer_norm.weight";
const DOWN: &str = "adapter.down.weight";
const UP: &str = "adapter.up.weight";
const WIDTH: usize = 16;
const RANK: usize = 3;

/// A big model of five decoder layers, with a head of its own, and an exit after two of them.
struct Made {
    big: TempDir,
    exit: TempDir,
    norm: Vec<f32>,
    down: Vec<f32>,
    up: Vec<f32>,
}

fn made(seed: u64) -> Made {
    let [big, exit] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    write_checkpoint(big.path(), &big_config(), seed, |_| {});
    let mut numbers = Numbers(seed + 700);
    let norm = (0..WIDTH).map(|_| 1.0 + 0.3 * numbers.normal()).collect();
    let [down, up] = std::array::from_fn(|_| (0..RANK * WIDTH).map(|_| 0.5 * numbers.normal()).collect());
    let made = Made { big, exit, norm, down, up };
    made.write(&made.description());
    made
}

fn big_config() -> Value {
    config(json!({ "num_decoder_layers": 5, "tie_word_embeddings": false }))
}

impl Made {
    fn description(&self) -> Value {
        let digest = Checkpoint::open(self.big.path()).unwrap().digest().unwrap().to_string();
        json!({ "model_type": "t5", "bild_early_exit": { "big": digest, "layers": 2, "rank": RANK } })
    }

    /// Writes the exit, described so.
    fn write(&self, description: &Value) {
        write_checkpoint(self.exit.path(), &config(json!({})), 0, |tensors| {
            tensors.clear();
            tensors.insert(NORM.into(), (vec![WIDTH], self.norm.clone()));
            tensors.insert(DOWN.into(), (vec![RANK, WIDTH], self.down.clone()));
            tensors.insert(UP.into(), (vec![WIDTH, RANK], self.up.clone()));
        });
        fs::write(self.exit.path().join("config.json"), description.to_string()).unwrap();
    }

    fn pair(&self) -> Result<EarlyExit<T5<TestBackend>>, LoadError> {
        EarlyExit::load(load(self.big.path()), &Checkpoint::open(self.exit.path())?)
    }

    /// A T5 of the big model's encoder and its first two decoder layers, with the norm of the exit and this head.
    fn whole(&self, head: impl FnOnce(&mut Vec<f32>)) -> T5<TestBackend> {
        let directory = tempfile::tempdir().unwrap();
        let mut weights = Default::default();
        write_checkpoint(directory.path(), &big_config(), 0, |tensors| weights = tensors.clone());
        let bytes = fs::read(self.big.path().join("model.safetensors")).unwrap();
        for (name, tensor) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let values = tensor.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            weights.insert(name, (tensor.shape().to_vec(), values));
        }
        let config = config(json!({ "num_decoder_layers": 2, "tie_word_embeddings": false }));
        write_checkpoint(directory.path(), &config, 0, |tensors| {
            for (name, tensor) in tensors.iter_mut() {
                *tensor = weights[name].clone();
            }
            tensors.get_mut(NORM).unwrap().1 = self.norm.clone();
            head(&mut tensors.get_mut("lm_head.weight").unwrap().1);
        });
        load(directory.path())
    }
}

/// What is drafted is scored by head · (n + up · gelu(down · n)), where n is what the norm makes of the rows of two layers.
#[test]
fn a_trained_exit_scores_by_its_norm_and_adapter() {
    let want = Want::default().with_logits();
    for seed in 0..4 {
        let made = made(seed);
        let pair = made.pair().unwrap();
        assert_eq!(pair.layers(), 2);
        let mut head = Vec::new();
        // With a head that leaves rows as they are, the logits of a model are what its norm makes.
        let whole = made.whole(|values| {
            head = values.clone();
            values.iter_mut().enumerate().for_each(|(i, x)| *x = f32::from(i / WIDTH == i % WIDTH));
        });
        let source = Source::new(Numbers(seed).tokens(6, 37));
        let mut tokens = vec![0];
        let mut session = pair.begin(&source, &SessionLimit::new(12)).unwrap();
        for step in 0..10 {
            let found = session.pass(&Pass::draft(step, &tokens[step..], want)).unwrap();
            let mut other = whole.begin(&source, &SessionLimit::new(12)).unwrap();
            let rows = other.propose(&Pass::draft(0, &tokens, want)).unwrap();
            let n: Vec<f64> = rows[0].logits.as_ref().unwrap()[..WIDTH].iter().map(|&x| x.into()).collect();
            let product = |matrix: &[f32], by: &[f64]| -> Vec<f64> {
                matrix.chunks(by.len()).map(|row| row.iter().zip(by).map(|(&a, b)| f64::from(a) * b).sum()).collect()
            };
            let gelu = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x.powi(3))).tanh());
            let inner: Vec<f64> = product(&made.down, &n).into_iter().map(gelu).collect();
            let sum: Vec<f64> = product(&made.up, &inner).iter().zip(&n).map(|(a, n)| a + n).collect();
            let expected = product(&head, &sum);
            for (found, expected) in found[0].logits.as_ref().unwrap().iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-4, "model {seed}: {found}, expected {expected}");
            }
            tokens.push(found[0].argmax);
        }
    }
}

/// An adapter that adds nothing leaves the norm: bit for bit the model of those layers.
#[test]
fn an_exit_without_an_adapter_is_a_model_with_fewer_layers() {
    let want = Want::default().with_logits();
    let mut made = made(9);
    made.up.fill(0.0);
    made.write(&made.description());
    let (pair, whole) = (made.pair().unwrap(), made.whole(|_| {}));
    let source = Source::new([5, 9, 2, 1]);
    let tokens = Numbers(9).tokens(8, 37);
    let mut session = pair.begin(&source, &SessionLimit::new(12)).unwrap();
    let mut other = whole.begin(&source, &SessionLimit::new(12)).unwrap();
    for end in 1..8 {
        let pass = Pass::draft(end - 1, &tokens[end - 1..end], want);
        assert!(bits(&session.pass(&pass).unwrap()) == bits(&other.propose(&pass).unwrap()), "{end}");
    }
}

#[test]
fn a_trained_exit_is_lossless() {
    let (mut accepted, mut untrained) = (0, 0);
    for seed in 0..12 {
        let made = made(seed);
        let big = load(made.big.path());
        let source = Source::new(Numbers(seed).tokens(3 + seed as usize % 7, 37));
        let settings = Settings::default().with_max_new_tokens(24).with_end_tokens([]);
        let expected = greedy(&big, &source, &settings);
        let drafts = |pair: EarlyExit<T5<TestBackend>>| {
            let policy = Lossless::default().with_max_draft(NonZeroUsize::new(3));
            let generator = Generator::new(pair, policy).unwrap().with_settings(settings.clone());
            let output = generator.generate(&source).unwrap();
            assert_eq!(output.tokens, expected, "model {seed}");
            output.statistics.accepted
        };
        accepted += drafts(made.pair().unwrap());
        untrained += drafts(EarlyExit::new(big, 2).unwrap());
    }
    assert!(accepted != untrained, "what was trained drafts: {accepted}");
}

#[test]
fn what_is_no_exit_of_the_model_is_refused() {
    let made = made(1);
    let refused = |description: Value, expected: &str| {
        made.write(&description);
        let error = made.pair().err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("config.json"), "{error}");
    };
    let with = |field: &str, value: Value| {
        let mut description = made.description();
        description["bild_early_exit"][field] = value;
        description
    };
    refused(with("big", json!("0123456789abcdef")), "an early exit that was made for another big model");
    refused(with("layers", json!(0)), "`bild_early_exit` is");
    refused(with("rank", json!(0)), "expected the digest of its big model");
    refused(with("rank", json!(WIDTH + 1)), "at most 16 here");
    refused(with("layers", json!("two")), "`bild_early_exit` is");
    refused(json!({ "model_type": "t5" }), "`bild_early_exit` is");

    let broken = |description: Value, expected: &str| {
        made.write(&description);
        let error = made.pair().err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    broken(with("layers", json!(5)), "5 decoder layers were to draft for a T5 that has 5");
    broken(with("rank", json!(RANK + 1)), DOWN);

    // Nor is it a model, or another kind of draft.
    made.write(&made.description());
    let error = |directory: &Path| {
        T5::<TestBackend>::load(&Checkpoint::open(directory).unwrap(), &Default::default()).err().unwrap().to_string()
    };
    assert!(error(made.exit.path()).contains("an early exit"), "{}", error(made.exit.path()));
    let draft = Checkpoint::open(made.exit.path()).unwrap();
    let other = bild_models::SharedEncoder::load(load(made.big.path()), &draft).err().unwrap().to_string();
    assert!(other.contains("bild_shared_encoder"), "{other}");
}
