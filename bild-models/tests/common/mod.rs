//! What the tests of models share.
#![allow(dead_code)] // each test binary uses its part

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bild_core::{Generator, NoDraft, Row, Settings, Source, Token};
use bild_models::{Checkpoint, T5};
use bild_policies::Lossless;
use burn::tensor::backend::Backend;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The backend of tests that do not name another.
pub type TestBackend = burn_flex::Flex;

/// A reference checkpoint.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/t5").join(name)
}

/// A copy of a reference checkpoint, to break.
pub fn copy(name: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap();
        if file != "expected.json" {
            std::fs::copy(&path, directory.path().join(file)).unwrap();
        }
    }
    directory
}

/// The files of a folder, in order.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Decodes a little, which must end.
pub fn run(model: T5<TestBackend>) {
    let settings = Settings::default().with_max_new_tokens(2);
    let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap().with_settings(settings);
    let _ = generator.generate(Source::new([3, 1]));
}

pub fn load(directory: &Path) -> T5<TestBackend> {
    load_on(directory)
}

pub fn load_on<B: Backend>(directory: &Path) -> T5<B> {
    T5::load(&Checkpoint::open(directory).unwrap(), &Default::default()).unwrap()
}

/// Numbers that look random and are the same everywhere.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Mean 0, about normal.
    pub fn normal(&mut self) -> f32 {
        (0..4).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).sum::<f32>() * 1.73
    }

    pub fn tokens(&mut self, length: usize, vocab: usize) -> Vec<Token> {
        (0..length).map(|_| self.below(vocab) as Token).collect()
    }
}

/// A configuration of a small T5; fields are replaced by those of `with`.
pub fn config(with: Value) -> Value {
    let mut config = json!({
        "model_type": "t5", "vocab_size": 37, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 3, "num_layers": 2,
        "num_decoder_layers": 2, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": true, "decoder_start_token_id": 0, "eos_token_id": 1,
        "pad_token_id": 0
    });
    for (field, value) in with.as_object().unwrap() {
        config[field] = value.clone();
    }
    config
}

/// Every tensor of a T5 of this configuration, with its shape.
pub fn tensors(config: &Value) -> BTreeMap<String, Vec<usize>> {
    let size = |field: &str| config[field].as_u64().unwrap() as usize;
    let (d, ff, inner) = (size("d_model"), size("d_ff"), size("num_heads") * size("d_kv"));
    let mut tensors = BTreeMap::from([("shared.weight".to_owned(), vec![size("vocab_size"), d])]);
    if config["tie_word_embeddings"] == false {
        tensors.insert("lm_head.weight".into(), vec![size("vocab_size"), d]);
    }
    for (stack, layers) in [("encoder", size("num_layers")), ("decoder", size("num_decoder_layers"))] {
        for i in 0..layers {
            let block = format!("{stack}.block.{i}.layer");
            let kinds: &[&str] =
                if stack == "encoder" { &["SelfAttention"] } else { &["SelfAttention", "EncDecAttention"] };
            for (j, kind) in kinds.iter().enumerate() {
                for part in ["q", "k", "v"] {
                    tensors.insert(format!("{block}.{j}.{kind}.{part}.weight"), vec![inner, d]);
                }
                tensors.insert(format!("{block}.{j}.{kind}.o.weight"), vec![d, inner]);
                tensors.insert(format!("{block}.{j}.layer_norm.weight"), vec![d]);
            }
            if i == 0 {
                let name = format!("{block}.0.SelfAttention.relative_attention_bias.weight");
                tensors.insert(name, vec![size("relative_attention_num_buckets"), size("num_heads")]);
            }
            let j = kinds.len();
            let inner: &[&str] = if config["feed_forward_proj"] == "relu" { &["wi"] } else { &["wi_0", "wi_1"] };
            for part in inner {
                tensors.insert(format!("{block}.{j}.DenseReluDense.{part}.weight"), vec![ff, d]);
            }
            tensors.insert(format!("{block}.{j}.DenseReluDense.wo.weight"), vec![d, ff]);
            tensors.insert(format!("{block}.{j}.layer_norm.weight"), vec![d]);
        }
        tensors.insert(format!("{stack}.final_layer_norm.weight"), vec![d]);
    }
    tensors
}

/// Writes a checkpoint of random weights; `change` may alter the tensors first.
pub fn write_checkpoint(
    directory: &Path,
    config: &Value,
    seed: u64,
    change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>),
) {
    let mut numbers = Numbers(seed);
    let mut values = |name: &str, shape: &[usize]| -> Vec<f32> {
        let count: usize = shape.iter().product();
        let fan_in = shape.last().copied().unwrap_or(1) as f32;
        (0..count)
            .map(|_| match name {
                _ if name.contains("norm") => 1.0 + 0.1 * numbers.normal(),
                "shared.weight" => 2.0 * numbers.normal(),
                _ => 1.5 * numbers.normal() / fan_in.sqrt(),
            })
            .collect()
    };
    let shapes = tensors(config);
    let mut tensors: BTreeMap<_, _> =
        shapes.into_iter().map(|(name, shape)| (name.clone(), (shape.clone(), values(&name, &shape)))).collect();
    change(&mut tensors);
    let bytes: Vec<_> = tensors
        .into_iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &directory.join("model.safetensors")).unwrap();
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
}

/// A T5 of random weights.
pub fn random_model(with: Value, seed: u64) -> T5<TestBackend> {
    random_model_on(with, seed)
}

pub fn random_model_on<B: Backend>(with: Value, seed: u64) -> T5<B> {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(with), seed, |_| {});
    load_on(directory.path())
}

/// What a model writes alone.
pub fn greedy(model: &T5<TestBackend>, source: &Source, settings: &Settings) -> Vec<Token> {
    let alone = Generator::new((NoDraft, model.clone()), Lossless::default()).unwrap();
    alone.with_settings(settings.clone()).generate(source).unwrap().tokens
}

/// The logits of rows, to the last bit.
pub fn bits(rows: &[Row]) -> Vec<u32> {
    rows.iter().flat_map(|row| row.logits.as_ref().unwrap().iter().map(|x| x.to_bits())).collect()
}

/// Makes a test on each backend that is compiled in of functions that are generic over it.
#[macro_export]
macro_rules! on_every_backend {
    ($($test:ident;)*) => {
        mod on_flex { $(#[test] fn $test() { super::$test::<burn_flex::Flex>(); })* }
        mod on_ndarray { $(#[test] fn $test() { super::$test::<burn_ndarray::NdArray>(); })* }
        #[cfg(feature = "wgpu")]
        mod on_wgpu { $(#[test] fn $test() { super::$test::<bild_models::Wgpu>(); })* }
        #[cfg(feature = "tch")]
        mod on_tch { $(#[test] fn $test() { super::$test::<burn_tch::LibTorch>(); })* }
        #[cfg(feature = "cuda")]
        mod on_cuda { $(#[test] fn $test() { super::$test::<bild_models::Cuda>(); })* }
    };
}
