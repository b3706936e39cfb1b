//! Every record of `differential/`: checkpoints as people write them and as transformers 4.57.6 and 5.23.0 save them, with
//! one thing said otherwise in `config.json` or `generation_config.json`, against what both versions read and write.

use std::{collections::BTreeMap, fs, path::Path};

use bild_core::{Generator, NoDraft, Settings, Source, Token};
use bild_models::{Activation, Checkpoint, T5, T5Config};
use bild_policies::{BigAlone, GenerationConfig};
use burn_flex::Flex;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is written where a checkpoint does not say how much.
const DEFAULT_LENGTH: usize = 20;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sources(Vec<Vec<Token>>),
    Weights(Stored),
    Outcome(Outcome),
    Config(Config),
    Reads(Option<Reads>),
    #[serde(untagged)]
    Case(Case),
}

/// A configuration, or what differs in it from another one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Config {
    Like { like: usize, set: serde_json::Map<String, Value>, unset: Vec<String> },
    Whole(serde_json::Map<String, Value>),
}

/// Tensors by their names, as `[source, rows, columns]`: the first rows and columns of another one.
type Stored = BTreeMap<String, Vec<Value>>;

/// The fields of a configuration in the order of [`reads`].
type Reads = Vec<Value>;

#[derive(Clone, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    #[allow(dead_code)] // shown where a case fails
    Error(String),
    Beams(usize),
    Samples(f64, Option<usize>, f64),
    /// The number of a source, what is written, and the log-probability of each token.
    Texts(Vec<(usize, Vec<Token>, Vec<f32>)>),
    /// Something was written, but rounding may decide what.
    #[allow(dead_code)]
    Close(bool),
}

#[derive(Deserialize)]
struct Case {
    case: String,
    weights: usize,
    config: usize,
    generation: Option<Value>,
    follows: String,
    reads: BTreeMap<String, usize>,
    outcomes: BTreeMap<String, usize>,
}

#[derive(Default)]
struct Records {
    sources: Vec<Vec<Token>>,
    weights: Vec<Stored>,
    outcomes: Vec<Outcome>,
    configs: Vec<serde_json::Map<String, Value>>,
    reads: Vec<Option<Reads>>,
    cases: Vec<Case>,
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential"))
}

fn records() -> Records {
    let mut records = Records::default();
    for line in fs::read_to_string(folder().join("records.jsonl")).unwrap().lines() {
        match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
            Line::Sources(sources) => records.sources = sources,
            Line::Weights(weights) => records.weights.push(weights),
            Line::Outcome(outcome) => records.outcomes.push(outcome),
            Line::Config(Config::Whole(config)) => records.configs.push(config),
            Line::Config(Config::Like { like, set, unset }) => {
                let mut config = records.configs[like].clone();
                config.retain(|field, _| !unset.contains(field));
                config.extend(set);
                records.configs.push(config);
            }
            Line::Reads(reads) => records.reads.push(reads),
            Line::Case(case) => records.cases.push(case),
        }
    }
    records
}

/// Writes the tensors of a case.
fn write_weights(all: &SafeTensors<'_>, stored: &Stored, path: &Path) {
    let tensors = stored.iter().map(|(name, place)| {
        let source = place[0].as_str().unwrap_or(name);
        let shape: Vec<usize> = place.iter().filter_map(Value::as_u64).map(|size| size as usize).collect();
        let whole = all.tensor(source).unwrap();
        let width = 4 * whole.shape().get(1).unwrap_or(&1);
        let kept = 4 * shape.get(1).unwrap_or(&1);
        let rows = whole.data().chunks(width).take(shape[0]);
        (name.clone(), shape, rows.flat_map(|row| &row[..kept]).copied().collect::<Vec<u8>>())
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn reads(config: &T5Config) -> Reads {
    let activation = match config.activation {
        Activation::Relu => "relu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Silu => "silu",
        other => panic!("{other:?} is new"),
    };
    let T5Config { vocab_size, d_model, d_kv, d_ff, num_heads, encoder_layers, decoder_layers, .. } = config;
    let sizes = json!([vocab_size, d_model, d_kv, d_ff, num_heads, encoder_layers, decoder_layers]);
    let T5Config { position_buckets, max_distance, layer_norm_epsilon, gated, .. } = config;
    let others = json!([position_buckets, max_distance, layer_norm_epsilon, activation, gated]);
    [sizes, others].into_iter().flat_map(|part| part.as_array().cloned().unwrap_or_default()).collect()
}

/// What is written with the checkpoint's own settings, for these sources.
fn decode(checkpoint: &Checkpoint, sources: &[Vec<Token>]) -> Result<Outcome, Box<dyn std::error::Error>> {
    let generation: GenerationConfig = checkpoint.generation_config()?;
    let settings = generation.settings(Settings::default().with_max_new_tokens(DEFAULT_LENGTH))?;
    let warnings = generation.warnings();
    if let Some(warning) = warnings.iter().find(|warning| warning.contains("num_beams")) {
        let count = warning.split(&[' ', ','][..]).find_map(|word| word.parse().ok());
        return Ok(Outcome::Beams(count.unwrap_or_default()));
    }
    assert!(warnings.is_empty(), "{warnings:?}");
    if let Some(sampling) = generation.sampling()? {
        let json = serde_json::to_value(sampling)?;
        let top_k = json["top_k"].as_u64().map(|k| k as usize);
        let number = |field: &str| json[field].as_f64().unwrap();
        return Ok(Outcome::Samples(number("temperature"), top_k, number("top_p")));
    }
    let model = T5::<Flex>::load(checkpoint, &Default::default())?;
    let generator = Generator::new((NoDraft, model), BigAlone {})?.with_settings(settings);
    let texts = sources.iter().enumerate().map(|(i, source)| {
        let output = generator.generate(Source::new(source.clone()))?;
        Ok::<_, bild_core::Error>((i, output.tokens, output.log_probs))
    });
    Ok(Outcome::Texts(texts.collect::<Result<_, _>>()?))
}

/// Whether what was found is what was expected; `close` numbers are.
fn agree(found: &Outcome, expected: &Outcome) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
    match (found, expected) {
        (Outcome::Error(_), Outcome::Error(_)) => true,
        // Of no source two tokens are told apart: they may be all forbidden, too.
        (Outcome::Texts(_) | Outcome::Error(_), Outcome::Close(_)) => true,
        (Outcome::Beams(found), Outcome::Beams(expected)) => found == expected,
        (Outcome::Samples(t, k, p), Outcome::Samples(t_, k_, p_)) => close(*t, *t_) && k == k_ && close(*p, *p_),
        (Outcome::Texts(found), Outcome::Texts(expected)) => expected.iter().all(|(source, tokens, log_probs)| {
            let (_, found, found_log_probs) = &found[*source];
            let both = found_log_probs.iter().zip(log_probs);
            found == tokens
                && both.clone().count() == tokens.len()
                && both.into_iter().all(|(&a, &b)| close(a.into(), b.into()))
        }),
        _ => false,
    }
}

/// What is done as neither version does it: 4 cannot load an mT5 whose tied embedding is stored as the head alone, and 5 never
/// scales an mT5. It is read as 4 reads the same file with the embedding by its own name.
const OTHERWISE: [&str; 1] = ["hand/mt5/head_alone,tie=true"];

#[test]
fn configurations_mean_what_the_version_that_wrote_them_means() {
    let records = records();
    let all = fs::read(folder().join("weights.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&all).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in records.cases.iter().filter(|case| !OTHERWISE.contains(&&*case.case)) {
        count += 1;
        let directory = tempfile::tempdir().unwrap();
        write_weights(&all, &records.weights[case.weights], &directory.path().join("model.safetensors"));
        fs::write(directory.path().join("config.json"), serde_json::to_string(&records.configs[case.config]).unwrap())
            .unwrap();
        if let Some(generation) = &case.generation {
            fs::write(directory.path().join("generation_config.json"), generation.to_string()).unwrap();
        }
        let checkpoint = Checkpoint::open(directory.path());
        let config = checkpoint.as_ref().ok().and_then(|checkpoint| T5Config::of(checkpoint).ok());
        if let (Some(config), Some(expected)) = (&config, &records.reads[case.reads[&case.follows]]) {
            let mut expected = expected.clone();
            match expected[10].as_str() {
                Some("swish") => expected[10] = "silu".into(),
                Some("gelu_pytorch_tanh") => expected[10] = "gelu_new".into(),
                _ => {}
            }
            if reads(config) != expected {
                wrong.push(format!("{}: read as {:?}, expected {expected:?}", case.case, config));
            }
        }
        let found = checkpoint.map_err(Into::into).and_then(|checkpoint| decode(&checkpoint, &records.sources));
        let found = found.unwrap_or_else(|error| Outcome::Error(error.to_string()));
        let outcome = |version: &str| &records.outcomes[case.outcomes[version]];
        let other = if case.follows == "4" { "5" } else { "4" };
        let expected = outcome(&case.follows);
        // What one version cannot do may be done as the other does it.
        let of_other = matches!(expected, Outcome::Error(_)) && agree(&found, outcome(other));
        if !agree(&found, expected) && !of_other {
            wrong.push(format!("{}: found {found:?}, expected {expected:?}", case.case));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 2400, "{count}");
    println!("{count} cases");
}
