//! A draft decoder on the encoder of a big model: what it drafts is what a whole model of those parts drafts, what is written is what
//! the big model alone writes, and what is no draft decoder of that model is refused.

mod common;

use std::{collections::BTreeMap, fs, num::NonZeroUsize, path::Path};

use bild_core::{
    CancelToken, DraftSession, Finish, Generator, Model, NoDraft, Overflow, Pair, PairSession, Pass, Request,
    SessionLimit, Settings, Source, VerifierSession, Want,
};
use bild_models::{Checkpoint, LoadError, LoadOptions, Precision, SharedEncoder, T5, TextGenerator, Threads};
use bild_policies::{Bild, Lossless};
use common::{Numbers, TestBackend, bits, config, fixture, greedy, load, random_model, write_checkpoint};
use serde_json::{Value, json};
use tempfile::TempDir;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A big model, a draft decoder for it, and a whole T5 of the big model's encoder, embedding and head and that decoder.
struct Made {
    big: TempDir,
    draft: TempDir,
    whole: TempDir,
}

/// The draft decoder is made of some of the big model's layers, each weight changed by noise.
fn made(with: Value, seed: u64, layers: &[usize]) -> Made {
    let [big, draft, whole] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let mut config = config(with);
    let mut weights = Tensors::new();
    write_checkpoint(big.path(), &config, seed, |tensors| weights = tensors.clone());
    let mut numbers = Numbers(seed + 5000);
    let mut decoder = Tensors::new();
    for (name, tensor) in &weights {
        let Some(part) = name.strip_prefix("decoder.") else { continue };
        let taken: Vec<String> = match part.strip_prefix("block.").and_then(|block| block.split_once('.')) {
            None => vec![name.clone()],
            Some((_, rest)) if rest.contains("relative_attention_bias") => vec![name.clone()],
            Some((layer, rest)) => {
                let places = layers.iter().enumerate().filter(|(_, taken)| layer == taken.to_string());
                places.map(|(i, _)| format!("decoder.block.{i}.{rest}")).collect()
            }
        };
        for name in taken {
            let values = tensor.1.iter().map(|x| x * (1.0 + 0.1 * numbers.normal())).collect();
            decoder.insert(name, (tensor.0.clone(), values));
        }
    }
    config["num_decoder_layers"] = layers.len().into();
    write_checkpoint(whole.path(), &config, 0, |tensors| {
        *tensors = weights.into_iter().filter(|(name, _)| !name.starts_with("decoder.")).collect();
        tensors.extend(decoder.clone());
    });
    let digest = Checkpoint::open(big.path()).unwrap().digest().unwrap();
    config["bild_shared_encoder"] = json!({ "big": digest.to_string(), "layers": layers });
    write_checkpoint(draft.path(), &without(&config, "bild_shared_encoder"), 0, |tensors| *tensors = decoder);
    fs::write(draft.path().join("config.json"), config.to_string()).unwrap();
    Made { big, draft, whole }
}

fn without(config: &Value, field: &str) -> Value {
    let mut config = config.clone();
    config.as_object_mut().unwrap().remove(field);
    config
}

fn options(precision: Precision) -> LoadOptions {
    LoadOptions::default().with_precision(precision)
}

fn load_with(directory: &Path, precision: Precision) -> T5<TestBackend> {
    T5::load_with(&Checkpoint::open(directory).unwrap(), &Default::default(), &options(precision)).unwrap()
}

impl Made {
    fn pair(&self, precision: Precision) -> SharedEncoder<T5<TestBackend>> {
        let big = load_with(self.big.path(), precision);
        SharedEncoder::load_with(big, &Checkpoint::open(self.draft.path()).unwrap(), &options(precision)).unwrap()
    }
}

/// Both roles beside sessions of whole models, whatever was drafted, verified and taken back before, in two sessions at once.
#[test]
fn rows_are_those_of_whole_models_bit_for_bit() {
    let want = Want::default().with_logits();
    for (seed, precision) in [(1, Precision::F32), (2, Precision::Int8), (3, Precision::Int4), (4, Precision::Int8)] {
        let with =
            json!({ "num_decoder_layers": 4, "tie_word_embeddings": seed % 2 == 0, "feed_forward_proj": "relu" });
        let made = made(with, seed, [&[2][..], &[0, 3]][seed as usize % 2]);
        let (pair, [big, whole]) =
            (made.pair(precision), [&made.big, &made.whole].map(|of| load_with(of.path(), precision)));
        let mut numbers = Numbers(seed);
        let sources = [5, 9].map(|length| Source::new(numbers.tokens(length, 37)));
        let limit = SessionLimit::new(40);
        let mut sessions = sources.each_ref().map(|source| (pair.begin(source, &limit).unwrap(), vec![0], 0, 0));
        for _ in 0..60 {
            let i = numbers.below(2);
            let (session, tokens, drafted, scored) = &mut sessions[i];
            let of_draft = numbers.below(3) > 0;
            let keep = if of_draft { *drafted } else { *scored };
            let new = &tokens[keep..];
            if of_draft {
                let found = session.pass(&Pass::draft(keep, new, want)).unwrap();
                let mut other = whole.begin(&sources[i], &limit).unwrap();
                assert!(bits(&found) == bits(&other.propose(&Pass::draft(0, tokens, want)).unwrap()), "{precision:?}");
                *drafted = tokens.len();
            } else {
                let found = session.pass(&Pass::verify(keep, new, want)).unwrap();
                let mut other = big.begin(&sources[i], &limit).unwrap();
                let expected = other.score(&Pass::verify(0, tokens, want)).unwrap();
                assert!(bits(&found) == bits(&expected[keep..]), "{precision:?}");
                *scored = tokens.len();
            }
            let kept = if tokens.len() > 20 { 1 } else { tokens.len() - numbers.below(tokens.len().min(3)) };
            tokens.truncate(kept);
            (*drafted, *scored) = ((*drafted).min(kept), (*scored).min(kept));
            tokens.extend(numbers.tokens(1 + numbers.0 as usize % 3, 37));
        }
    }
}

#[test]
fn it_is_lossless_for_random_models() {
    for seed in 0..24 {
        let precision = [Precision::F32, Precision::Int8][seed as usize % 2];
        let with = json!({ "num_decoder_layers": 3, "num_layers": 1 + seed % 3, "tie_word_embeddings": seed % 4 < 2 });
        let made = made(with, seed, [&[0][..], &[2], &[1, 2]][seed as usize % 3]);
        let trained = made.pair(precision);
        let untrained = SharedEncoder::of_layers(trained.big().clone(), &[0]).unwrap();
        let mut numbers = Numbers(seed);
        let source = Source::new(numbers.tokens(3 + seed as usize % 7, 37));
        let settings = Settings::default().with_max_new_tokens(24);
        let expected = greedy(trained.big(), &source, &settings);
        for pair in [trained, untrained] {
            for (fallback, drafts) in [(0.0, 1), (0.0, 4), (0.1, 10), (0.0, 30)] {
                let policy = Lossless::default().with_fallback(fallback).unwrap();
                let policy = policy.with_max_draft(NonZeroUsize::new(drafts));
                let generator = Generator::new(pair.clone(), policy).unwrap().with_settings(settings.clone());
                let output = generator.generate(&source).unwrap();
                assert_eq!(output.tokens, expected, "model {seed}, {precision:?}, drafts of {drafts}");
                assert!(output.statistics.draft_steps > 0);
            }
        }
    }
}

/// Layers of the big model in any order; all of them draft what the model itself writes.
#[test]
fn a_draft_decoder_may_be_made_of_layers_of_the_big_model() {
    let model = random_model(json!({ "num_decoder_layers": 3 }), 6);
    let source = Source::new([5, 9, 2, 1]);
    let settings = Settings::default().with_max_new_tokens(24).with_end_tokens([]);
    let generate = |layers: &[usize]| {
        let pair = SharedEncoder::of_layers(model.clone(), layers).unwrap();
        assert_eq!((pair.layers(), pair.draft().config().decoder_layers), (layers.len(), layers.len()));
        let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings.clone());
        generator.generate(&source).unwrap()
    };
    let expected = greedy(&model, &source, &settings);
    for layers in [&[0][..], &[2], &[1, 0], &[2, 2]] {
        assert_eq!(generate(layers).tokens, expected);
    }
    let whole = generate(&[0, 1, 2]);
    assert_eq!(whole.tokens, expected);
    assert_eq!(whole.statistics.judged, whole.statistics.accepted, "it agrees with itself");
    for layers in [&[][..], &[3], &[0, 7]] {
        let error = SharedEncoder::of_layers(model.clone(), layers).unwrap_err();
        let said = error.to_string();
        assert!(said.contains(&format!("{layers:?} of a T5 that has 3 decoder layers")), "{said}");
        assert!(matches!(error, LoadError::DraftLayers { all: 3, .. }));
    }
}

/// The committed draft decoder: layer 0 of `t5-v1_0` with some noise, with the digest that `benches/peers/inflate_draft.py` computed.
#[test]
fn the_fixture_drafts_for_its_big_model_and_for_no_other() {
    let checkpoint = Checkpoint::open(fixture("../t5-v1_0-draft")).unwrap();
    for precision in [Precision::F32, Precision::Int8] {
        let big = load_with(&fixture("t5-v1_0"), precision);
        let pair = SharedEncoder::load_with(big.clone(), &checkpoint, &options(precision)).unwrap();
        let settings = Settings::default().with_max_new_tokens(20);
        let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings.clone());
        for seed in 0..8 {
            let source = Source::new(Numbers(seed).tokens(4 + seed as usize, 503));
            assert_eq!(generator.generate(&source).unwrap().tokens, greedy(&big, &source, &settings));
        }
    }
    let error = SharedEncoder::load(load(&fixture("t5-f16")), &checkpoint).unwrap_err();
    assert!(matches!(error, LoadError::Drafter { .. }));
    let said = error.to_string();
    let digest = |name: &str| Checkpoint::open(fixture(name)).unwrap().digest().unwrap().to_string();
    assert!(said.contains("was made for another big model"), "{said}");
    assert!(said.contains(&digest("t5-v1_0")) && said.contains(&digest("t5-f16")), "{said}");
}

/// What the error says of a change of the draft decoder's files.
fn refused(change_config: impl FnOnce(&mut Value), change: impl FnOnce(&mut Tensors)) -> String {
    let made = made(json!({}), 3, &[1]);
    let path = made.draft.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut tensors = Tensors::new();
    let file = fs::read(made.draft.path().join("model.safetensors")).unwrap();
    for (name, tensor) in safetensors::SafeTensors::deserialize(&file).unwrap().tensors() {
        let values = tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        tensors.insert(name, (tensor.shape().to_vec(), values));
    }
    change(&mut tensors);
    write_checkpoint(made.draft.path(), &without(&config, "bild_shared_encoder"), 0, |all| *all = tensors);
    change_config(&mut config);
    fs::write(path, config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(made.draft.path()).unwrap();
    SharedEncoder::load(load(made.big.path()), &checkpoint).unwrap_err().to_string()
}

#[track_caller]
fn assert_says(found: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| found.contains(part)) && !found.contains('\n'), "{found}");
}

#[test]
fn what_is_no_draft_decoder_of_this_model_is_refused() {
    let field = "bild_shared_encoder";
    let with = |value: Value| refused(|config| config[field] = value, |_| ());
    for value in [json!(null), json!("yes"), json!({}), json!({ "big": "0" }), json!({ "big": 1, "layers": [0] })] {
        assert_says(&with(value.clone()), &["config.json: `bild_shared_encoder` is", &value.to_string(), "digest"]);
    }
    for layers in [json!([]), json!(0), json!([-1]), json!(["a"])] {
        assert_says(&with(json!({ "big": "0", "layers": layers })), &["`bild_shared_encoder` is", "as in {\"big\""]);
    }
    assert_says(&with(json!({ "big": "0123456789abcdef", "layers": [1] })), &["another big model", "0123456789abcdef"]);
    let layers = |layers: Value| refused(|config| config[field]["layers"] = layers, |_| ());
    assert_says(&layers(json!([2])), &["was made of layer 2 of a big model that has 2 decoder layers"]);
    assert_says(&layers(json!([0, 1])), &["`num_decoder_layers` is 1, expected 2, the number of layers"]);
    let config = |name: &'static str, value: Value| refused(|config| config[name] = value, |_| ());
    assert_says(&config("num_decoder_layers", json!(0)), &["`num_decoder_layers` is 0"]);
    assert_says(&config("d_model", json!(24)), &["`d_model` is 24, expected 16, that of its big model"]);
    assert_says(&config("model_type", json!("bart")), &["BART"]);
    assert_says(&config("d_ff", json!(20)), &["wi_0.weight", "has the shape [24, 16], expected [20, 16]"]);

    let tensors = |change: &dyn Fn(&mut Tensors)| refused(|_| (), change);
    let names = {
        let mut names = Vec::new();
        refused(|config| config[field] = json!(null), |tensors| names = tensors.keys().cloned().collect());
        names
    };
    assert_eq!(names.len(), 16);
    for name in names {
        let found = tensors(&|tensors| drop(tensors.remove(&name)));
        assert_says(&found, &["model.safetensors", &format!("tensor `{name}` is missing")]);
    }
    let name = "decoder.block.0.layer.1.EncDecAttention.v.weight";
    let found = tensors(&|tensors| drop(tensors.insert(name.into(), (vec![12, 15], vec![0.0; 180]))));
    assert_says(&found, &[name, "has the shape [12, 15], expected [12, 16]"]);
    let found = tensors(&|tensors| tensors.get_mut(name).unwrap().1[7] = f32::NAN);
    assert_says(&found, &[name, "holds NaN at entry 7"]);
    let found = tensors(&|tensors| {
        tensors.insert("decoder.block.1.layer.0.layer_norm.weight".into(), (vec![16], vec![1.0; 16]));
    });
    assert_says(&found, &["decoder.block.1.layer.0", "is of a layer that config.json does not have"]);

    let made = made(json!({}), 3, &[1]);
    let itself = SharedEncoder::load(load(made.big.path()), &Checkpoint::open(made.big.path()).unwrap()).unwrap_err();
    assert_says(&itself.to_string(), &["`bild_shared_encoder` is missing"]);
}

/// A draft decoder is no model: neither `T5`, nor its configuration nor its digest takes it for one.
#[test]
fn it_is_not_taken_for_a_whole_model() {
    let checkpoint = Checkpoint::open(fixture("../t5-v1_0-draft")).unwrap();
    let alone = T5::<TestBackend>::load(&checkpoint, &Default::default()).map(drop).unwrap_err();
    for error in
        [alone, bild_models::T5Config::of(&checkpoint).map(drop).unwrap_err(), checkpoint.digest().unwrap_err()]
    {
        assert!(matches!(error, LoadError::Drafter { .. }));
        assert_says(&error.to_string(), &["config.json describes a draft decoder", "loaded beside its big model"]);
    }
}

/// What the draft decoder shares may be stored with it: it is not looked at.
#[test]
fn what_it_shares_may_be_stored_too() {
    let made = made(json!({}), 3, &[1]);
    let source = Source::new([5, 9, 2, 1]);
    let generate = |made: &Made| {
        let generator = Generator::new(made.pair(Precision::F32), Bild::new(0.0, 9.0).unwrap()).unwrap();
        generator.generate(&source).unwrap().tokens
    };
    let expected = generate(&made);
    let config = fs::read(made.draft.path().join("config.json")).unwrap();
    let file = fs::read(made.whole.path().join("model.safetensors")).unwrap();
    fs::write(made.draft.path().join("model.safetensors"), file).unwrap();
    fs::write(made.draft.path().join("config.json"), config).unwrap();
    let pair = made.pair(Precision::F32);
    assert!(pair.draft().warnings().is_empty(), "{:?}", pair.draft().warnings());
    assert_eq!(generate(&made), expected);
}

#[test]
fn the_digest_is_of_the_weights_and_not_of_how_they_are_stored() {
    let of = |directory: &Path| Checkpoint::open(directory).unwrap().digest().unwrap();
    let written = |with: Value, change: &dyn Fn(&mut Tensors)| {
        let directory = tempfile::tempdir().unwrap();
        write_checkpoint(directory.path(), &config(with), 5, |tensors| change(tensors));
        of(directory.path())
    };
    let digest = |change: &dyn Fn(&mut Tensors)| written(json!({}), change);
    let expected = digest(&|_| ());
    let embedding = |tensors: &Tensors| tensors["shared.weight"].clone();
    for name in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"] {
        let twice = |tensors: &mut Tensors| drop(tensors.insert(name.into(), embedding(tensors)));
        assert_eq!(digest(&twice), expected);
        // Where a stored head is the head.
        for with in [json!({ "transformers_version": "5.0.0" }), json!({ "tie_word_embeddings": null })] {
            assert_eq!(written(with.clone(), &twice), expected, "{name}, {with}");
        }
    }
    assert_eq!(
        digest(&|tensors| {
            let embedding = tensors.remove("shared.weight").unwrap();
            tensors.insert("encoder.embed_tokens.weight".into(), embedding);
        }),
        expected
    );
    let wrapped = |tensors: &mut Tensors| {
        *tensors =
            std::mem::take(tensors).into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
    };
    assert_eq!(digest(&wrapped), expected);
    let leftover = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    assert_eq!(digest(&|tensors| drop(tensors.insert(leftover.into(), (vec![8, 3], vec![0.5; 24])))), expected);
    for unread in ["block.1.layer.0.SelfAttention.relative_attention_bias", "block.0.layer.1.DenseReluDense.wi"] {
        let name = format!("encoder.{unread}.weight");
        assert_eq!(digest(&|tensors| drop(tensors.insert(name.clone(), (vec![8, 3], vec![0.5; 24])))), expected);
    }
    assert_eq!(digest(&|tensors| drop(tensors.insert("classifier.weight".into(), (vec![2], vec![0.5; 2])))), expected);

    // Every tensor counts, the last value of a long one too.
    for name in common::tensors(&config(json!({}))).keys() {
        for at in [0, usize::MAX] {
            let changed = digest(&|tensors| {
                let values = &mut tensors.get_mut(name).unwrap().1;
                let at = at.min(values.len() - 1);
                values[at] += 0.25;
            });
            assert_ne!(changed, expected, "{name}");
        }
    }
    let untied = |value: f32| {
        written(json!({ "tie_word_embeddings": false }), &|tensors| {
            tensors.get_mut("lm_head.weight").unwrap().1[9] = value
        })
    };
    assert!(untied(0.5) != untied(0.25) && untied(0.5) != expected);

    // f16 as f32, shards as one file.
    for name in ["t5-f16", "t5-v1_1"] {
        let folder = fixture(name);
        let mut tensors = Tensors::new();
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_none_or(|ending| ending != "safetensors") {
                continue;
            }
            let bytes = fs::read(entry).unwrap();
            for (name, tensor) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let values = match tensor.dtype() {
                    safetensors::Dtype::F16 => {
                        tensor.data().as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect()
                    }
                    _ => tensor.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
                };
                tensors.insert(name, (tensor.shape().to_vec(), values));
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let config = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
        let small = common::config(json!({}));
        write_checkpoint(directory.path(), &small, 0, |all| *all = tensors);
        fs::write(directory.path().join("config.json"), Value::to_string(&config)).unwrap();
        assert_eq!(of(directory.path()), of(&folder), "{name}");
    }
}

/// Whichever of the two has to read the source is interrupted while it does.
#[test]
fn a_source_that_nobody_waits_for_is_not_read_to_its_end() {
    let shape =
        json!({ "vocab_size": 8000, "d_model": 128, "d_kv": 16, "num_heads": 4, "d_ff": 256, "num_layers": 24 });
    let model = random_model(shape, 1);
    let pair = SharedEncoder::of_layers(model, &[0]).unwrap();
    let source = Source::new(Numbers(1).tokens(3000, 8000));
    let settings = Settings::default().with_max_source_tokens(3000, Overflow::Error).with_max_new_tokens(4);
    let generator = Generator::new(pair, Lossless::default()).unwrap();
    let cancel = CancelToken::default();
    let run =
        |settings: Settings| generator.stream(Request::new(source.clone()).with_settings(settings)).unwrap().finish();
    let cancelled = std::thread::scope(|scope| {
        let generation = scope.spawn(|| run(settings.clone().with_cancel(cancel.clone())).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(30));
        cancel.cancel();
        generation.join().unwrap()
    });
    assert_eq!((cancelled.finish, cancelled.tokens.len()), (Finish::Cancelled, 0));
    let late = run(settings.with_deadline(std::time::Duration::from_millis(30))).unwrap();
    assert_eq!((late.finish, late.tokens.len(), late.statistics.draft_steps), (Finish::Deadline, 0, 0));
}

/// Text, without its type, many at once, with threads of its own: as other pairs.
#[test]
fn it_is_a_pair_as_any_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/de-en/big");
    let checkpoint = Checkpoint::open(folder).unwrap();
    let threads = LoadOptions::default().with_threads(Threads::new(2).unwrap());
    let big = T5::<TestBackend>::load_with(&checkpoint, &Default::default(), &threads).unwrap();
    let pair = SharedEncoder::of_layers(big.clone(), &[0]).unwrap();
    assert_eq!(format!("{pair:?}"), "SharedEncoder { layers: 1, .. }");
    let session = pair.begin(&Source::new([3, 1]), &SessionLimit::new(4)).unwrap();
    assert!(format!("{session:?}").starts_with("SharedEncoderSession { draft: Session"), "{session:?}");
    let alone = Pair::bytes_for(&(NoDraft, big.clone()), 40, 40);
    let bytes = pair.bytes_for(40, 40);
    assert!(bytes > alone && bytes < alone + alone / 2, "{bytes} beside {alone}");

    let texts = ["Ich habe heute leider keine Zeit.", "Wo ist der Bahnhof?", "Das Wetter ist schön."];
    let tokenizer = checkpoint.tokenizer().unwrap();
    let expected: Vec<String> = {
        let alone = TextGenerator::new(tokenizer.clone(), (NoDraft, big), Lossless::default()).unwrap();
        texts.iter().map(|text| alone.generate(*text).unwrap().text).collect()
    };
    let unsure = Lossless::default().with_fallback(0.5).unwrap();
    let generator = TextGenerator::new(tokenizer, pair.boxed(), unsure).unwrap();
    let mut found = Vec::new();
    let (mut accepted, mut judged) = (0, 0);
    generator.generate_many(texts, |_, output| {
        let output = output.unwrap();
        accepted += output.output.statistics.accepted;
        judged += output.output.statistics.judged;
        found.push(output.text);
    });
    assert_eq!(found, expected);
    assert!(2 * accepted > judged && judged > 10, "{accepted} of {judged}");
}

/// Made larger by the script, the two write and draft as before, through a layer that adds nothing too.
#[test]
#[ignore = "needs Python with numpy and safetensors: python3, or what the environment variable PYTHON names"]
fn larger_shapes_draft_the_same() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/inflate.py");
    let python = |args: &[&std::ffi::OsStr]| {
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        assert!(std::process::Command::new(python).arg(&script).args(args).status().unwrap().success());
    };
    for tied in [true, false] {
        let made = made(json!({ "tie_word_embeddings": tied }), 3, &[0]);
        let larger = Made {
            big: tempfile::tempdir().unwrap(),
            draft: tempfile::tempdir().unwrap(),
            whole: tempfile::tempdir().unwrap(),
        };
        let [big, draft] = [&larger.big, &larger.draft].map(|folder| folder.path().as_os_str());
        python(&["model".as_ref(), made.big.path().as_os_str(), big, "40,48,5,6,4".as_ref()]);
        let layers = ["--layers".as_ref(), "2".as_ref()];
        python(&[&["draft".as_ref(), made.draft.path().as_os_str(), big, draft][..], &layers].concat());
        let settings = Settings::default().with_max_new_tokens(24).with_end_tokens([]);
        let generate = |made: &Made, source: &Source| {
            let generator = Generator::new(made.pair(Precision::F32), Lossless::default()).unwrap();
            let output = generator.with_settings(settings.clone()).generate(source).unwrap();
            (output.tokens, output.writers, output.statistics.draft_steps)
        };
        assert_eq!(larger.pair(Precision::F32).layers(), 2);
        for seed in 0..6 {
            let source = Source::new(Numbers(seed).tokens(6, 37));
            assert_eq!(generate(&larger, &source), generate(&made, &source));
        }
    }
}
