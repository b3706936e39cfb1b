//! Broken checkpoints: each gives a sentence that names the file, and the field or tensor, and nothing panics.

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use bild_core::{Generator, NoDraft, Settings, Source};
use bild_models::{Checkpoint, T5, T5Config, Tokenizer};
use bild_policies::{GenerationConfig, Lossless};
use common::{TestBackend, config, copy, files, fixture, run, write_checkpoint};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The sentence of an error that opening or loading a folder gives.
fn sentence(directory: &Path) -> String {
    let model = Checkpoint::open(directory).and_then(|c| T5::<TestBackend>::load(&c, &Default::default()).map(drop));
    model.expect_err("the checkpoint is broken").to_string()
}

/// A sound checkpoint to break.
fn sound() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(json!({})), 1, |_| {});
    common::load(directory.path());
    directory
}

fn assert_says(found: &str, parts: &[&str]) {
    for part in parts {
        assert!(found.contains(part), "expected \"{part}\" in: {found}");
    }
}

#[test]
fn folders_and_files_that_are_missing() {
    assert_says(&sentence(Path::new("/no/such/folder")), &["/no/such/folder", "cannot be read"]);
    let directory = sound();
    assert_says(&sentence(&directory.path().join("config.json")), &["config.json", "cannot be read"]);
    for (file, says) in
        [("config.json", "no config.json"), ("model.safetensors", "neither model.safetensors nor pytorch_model.bin")]
    {
        let directory = sound();
        fs::remove_file(directory.path().join(file)).unwrap();
        assert_says(&sentence(directory.path()), &[says, directory.path().to_str().unwrap()]);
    }
    let directory = sound();
    let weights = directory.path().join("model.safetensors");
    fs::rename(&weights, directory.path().join("pytorch_model.bin")).unwrap();
    assert_says(
        &sentence(directory.path()),
        &["pytorch_model.bin is broken: it is not a zip archive", "but a safetensors file"],
    );
    let checkpoint = Checkpoint::open(sound().path()).unwrap();
    assert_says(&checkpoint.tokenizer().unwrap_err().to_string(), &["neither tokenizer.json nor spiece.model"]);
}

#[test]
fn files_that_are_empty_or_cut_off() {
    for file in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        let directory = sound();
        let path = directory.path().join(file);
        fs::write(&path, "").unwrap();
        assert_says(&sentence(directory.path()), &[path.to_str().unwrap(), "broken"]);
        fs::write(&path, "{\"model_type\": \"t5\", ").unwrap();
        assert_says(&sentence(directory.path()), &[path.to_str().unwrap(), "broken"]);
    }
    let directory = sound();
    let path = directory.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for keep in [7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).unwrap();
        assert_says(&sentence(directory.path()), &["model.safetensors is broken"]);
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert_says(&sentence(directory.path()), &["model.safetensors is broken", "promises"]);
    fs::write(&path, [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat()).unwrap();
    assert_says(&sentence(directory.path()), &["its header has 18446744073709551615 bytes"]);
    fs::write(directory.path().join("config.json"), "[]").unwrap();
    assert_says(&sentence(directory.path()), &["config.json is broken", "not a JSON object"]);
}

/// What a configuration with these fields says; null leaves the field out.
fn config_sentence(with: Value) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(with);
    config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    sentence(directory.path())
}

#[test]
fn configurations_that_lack_a_field_or_make_no_sense() {
    for field in ["model_type", "decoder_start_token_id"] {
        assert_says(&config_sentence(json!({ field: null })), &["config.json", &format!("`{field}` is missing")]);
    }
    for field in ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads"] {
        for (nonsense, shown) in [(json!(0), "0"), (json!(-3), "-3"), (json!(1.5), "1.5"), (json!("four"), "\"four\"")]
        {
            let found = config_sentence(json!({ field: nonsense }));
            assert_says(&found, &["config.json", &format!("`{field}` is {shown}"), "expected a whole number"]);
        }
        assert_says(&config_sentence(json!({ field: 1u64 << 60 })), &[&format!("`{field}` is"), "to 16777216"]);
    }
    for (with, says) in [
        (json!({"relative_attention_num_buckets": 3}), "`relative_attention_num_buckets` is 3"),
        (json!({"relative_attention_max_distance": 4}), "`relative_attention_max_distance` is 4"),
        (json!({"feed_forward_proj": "gated-mish"}), "`feed_forward_proj` is \"gated-mish\", expected relu, gelu,"),
        (json!({"feed_forward_proj": "bare-relu"}), "`feed_forward_proj` is \"bare-relu\""),
        (json!({"dense_act_fn": "mish"}), "`dense_act_fn` is \"mish\", expected relu, gelu,"),
        (json!({"is_gated_act": 1}), "`is_gated_act` is 1, expected true or false"),
        (json!({"hidden_size": "wide"}), "`hidden_size` is \"wide\", expected a whole number"),
        (json!({"layer_norm_epsilon": -1.0}), "`layer_norm_epsilon` is -1.0"),
        (json!({"tie_word_embeddings": "yes"}), "`tie_word_embeddings` is \"yes\", expected true or false"),
        (json!({"decoder_start_token_id": 37}), "`decoder_start_token_id` is 37, expected a token below 37"),
        (json!({"eos_token_id": [1, "two"]}), "`eos_token_id` is [1,\"two\"]"),
    ] {
        assert_says(&config_sentence(with), &["config.json", says]);
    }
}

#[test]
fn relatives_are_refused_by_name() {
    for (with, name) in [
        (json!({"model_type": "longt5"}), "LongT5"),
        (json!({"model_type": "umt5"}), "UMT5"),
        (json!({"model_type": "bart"}), "BART"),
        (json!({"model_type": "switch_transformers"}), "Switch Transformers"),
        (json!({"model_type": "llama"}), "a model of type \"llama\""),
        (json!({"tokenizer_class": "ByT5Tokenizer"}), "ByT5"),
        (json!({"is_encoder_decoder": false}), "a T5 without a decoder"),
    ] {
        assert_says(&config_sentence(with), &[&format!("describes {name}"), "which is not supported: T5 1.0"]);
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// What a checkpoint with changed tensors says.
fn tensor_sentence(change: impl FnOnce(&mut Tensors)) -> String {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(json!({"tie_word_embeddings": false})), 1, change);
    sentence(directory.path())
}

#[test]
fn tensors_that_are_missing_or_wrong() {
    for name in common::tensors(&config(json!({}))).keys() {
        let found = tensor_sentence(|tensors| drop(tensors.remove(name)));
        assert_says(&found, &["model.safetensors", &format!("tensor `{name}` is missing")]);
    }
    let key = "decoder.block.1.layer.1.EncDecAttention.k.weight";
    let found = tensor_sentence(|tensors| drop(tensors.insert(key.into(), (vec![16, 12], vec![0.0; 192]))));
    assert_says(&found, &[key, "has the shape [16, 12], expected [12, 16]"]);
    let found = tensor_sentence(|tensors| {
        let (_, values) = tensors.remove(key).unwrap();
        tensors.insert("decoder.block.1.layer.1.EncDecAttention.key.weight".into(), (vec![12, 16], values));
    });
    assert_says(&found, &[key, "is missing"]);
    for bad in [f32::NAN, f32::INFINITY] {
        let found = tensor_sentence(|tensors| tensors.get_mut("lm_head.weight").unwrap().1[5] = bad);
        assert_says(&found, &["`lm_head.weight` holds", "at entry 5"]);
    }
    let found = tensor_sentence(|tensors| {
        tensors.insert("encoder.block.2.layer.0.layer_norm.weight".into(), (vec![16], vec![1.0; 16]));
    });
    assert_says(&found, &["encoder.block.2", "is of a layer that config.json does not have: its encoder has 2"]);
}

/// A configuration that promises more than the file holds is refused by the file, before memory is asked for.
#[test]
fn shapes_that_only_the_configuration_has() {
    for with in [json!({"num_heads": 1 << 24, "d_kv": 1 << 24}), json!({"d_ff": 1 << 24}), json!({"d_kv": 1 << 24})] {
        let directory = sound();
        fs::write(directory.path().join("config.json"), config(with).to_string()).unwrap();
        assert_says(&sentence(directory.path()), &["model.safetensors: tensor `", "has the shape"]);
    }
}

#[test]
fn a_tensor_of_another_type() {
    let found = header_sentence(|header| header.replacen("F32", "I32", 1));
    assert_says(&found, &["tensor `", "has the type I32, expected F32, F16 or BF16"]);
}

#[test]
fn an_index_that_points_nowhere() {
    let with_index = |change: &dyn Fn(&mut Value)| {
        let directory = copy("t5-v1_1");
        let path = directory.path().join("model.safetensors.index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut index);
        fs::write(&path, index.to_string()).unwrap();
        sentence(directory.path())
    };
    let point_to = |shard: &'static str| with_index(&move |index| index["weight_map"]["lm_head.weight"] = json!(shard));
    assert_says(&point_to("model-00003-of-00002.safetensors"), &["index.json", "lm_head.weight", "does not exist"]);
    assert_says(&point_to("model-00001-of-00002.safetensors"), &["tensor `lm_head.weight` is missing", "00001"]);
    for outside in ["../model.safetensors", "/etc/passwd", "..", "", "a/../b"] {
        assert_says(&point_to(outside), &["lm_head.weight", "the name of a file in the same folder"]);
    }
    assert_says(&with_index(&|index| index["weight_map"] = json!({})), &["`weight_map` is {}"]);
    assert_says(&with_index(&|index| drop(index.as_object_mut().unwrap().remove("weight_map"))), &["is missing"]);
    let forgotten = with_index(&|index| drop(index["weight_map"].as_object_mut().unwrap().remove("shared.weight")));
    assert_says(&forgotten, &["`shared.weight` is missing"]);
}

/// What people have in the place of a file, each called what it is.
#[test]
fn files_that_are_something_else() {
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 307867048\n", "ab".repeat(32));
    let page = "<!doctype html>\n<html><head><title>404</title></head></html>\n";
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "spiece.model",
        "model.safetensors",
        "pytorch_model.bin",
        "model.safetensors.index.json",
    ] {
        for (contents, what) in [
            (pointer.as_bytes(), "a Git LFS pointer"),
            (page.as_bytes(), "a web page"),
            (b"GGUF\x03\0\0\0", "a GGUF file"),
        ] {
            let directory = sound();
            if name.contains("pytorch") || name.contains("index") {
                fs::remove_file(directory.path().join("model.safetensors")).unwrap();
            }
            if name == "tokenizer_config.json" {
                fs::copy(fixture("../sentencepiece/spiece.model"), directory.path().join("spiece.model")).unwrap();
            }
            fs::write(directory.path().join(name), contents).unwrap();
            let found = sentence(directory.path());
            assert_says(&found, &[&format!("{name} is broken: it is "), what]);
            assert!(!found.contains("save it again"), "{found}");
        }
    }
    for (contents, says) in [
        (&b"Entry not found"[..], "it is text that begins with \"Entry not found\""),
        (b"PK\x03\x04\x14\0\0\0\0\0", "it is a zip archive as torch.save writes it"),
    ] {
        let directory = sound();
        fs::write(directory.path().join("model.safetensors"), contents).unwrap();
        assert_says(&sentence(directory.path()), &["model.safetensors is broken", says]);
    }
}

#[test]
fn folders_of_something_else() {
    let adapter = tempfile::tempdir().unwrap();
    let config_of_adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-small"});
    fs::write(adapter.path().join("adapter_config.json"), config_of_adapter.to_string()).unwrap();
    assert_says(&sentence(adapter.path()), &["no config.json", "it holds an adapter to google/flan-t5-small", "merge"]);
    fs::write(adapter.path().join("config.json"), config(json!({})).to_string()).unwrap();
    assert_says(
        &sentence(adapter.path()),
        &["neither model.safetensors nor", "it holds an adapter to google/flan-t5-small"],
    );
    for (name, what) in [
        ("model-q8_0.gguf", "model-q8_0.gguf, GGUF"),
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("encoder.onnx", "ONNX"),
    ] {
        let directory = sound();
        fs::rename(directory.path().join("model.safetensors"), directory.path().join(name)).unwrap();
        assert_says(
            &sentence(directory.path()),
            &["neither model.safetensors nor", &format!("it holds {}", &name[..3]), what],
        );
    }
}

#[test]
fn quantized_checkpoints() {
    for (method, with) in [
        ("bitsandbytes", json!({"quant_method": "bitsandbytes", "load_in_8bit": true})),
        ("gptq", json!({"quant_method": "gptq", "bits": 4})),
    ] {
        let found = config_sentence(json!({"quantization_config": with}));
        assert_says(&found, &["config.json describes a checkpoint that is quantized", method, "f32, f16 or bf16"]);
    }
    let found = tensor_sentence(|tensors| {
        tensors.insert("encoder.block.0.layer.0.SelfAttention.q.SCB".into(), (vec![12], vec![1.0; 12]));
    });
    assert_says(&found, &["model.safetensors describes weights that are quantized by bitsandbytes", "q.SCB"]);
}

/// A prefix that a wrapper left before all names is understood, and what is in a checkpoint and is not read is said.
#[test]
fn names_that_a_wrapper_has_changed() {
    let greedy = |change: &dyn Fn(&mut Tensors)| {
        let directory = tempfile::tempdir().unwrap();
        write_checkpoint(directory.path(), &config(json!({"tie_word_embeddings": false})), 5, change);
        let model = common::load(directory.path());
        let warnings = model.warnings().to_vec();
        let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap();
        (generator.generate(Source::new([3, 9, 1])).unwrap().tokens, warnings)
    };
    let (expected, none) = greedy(&|_| {});
    assert!(none.is_empty(), "{none:?}");
    for prefix in ["module.", "_orig_mod.", "model.", "base_model.model.", "_orig_mod.module.t5."] {
        let renamed = |tensors: &mut Tensors| {
            *tensors =
                std::mem::take(tensors).into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        };
        assert_eq!(greedy(&renamed), (expected.clone(), vec![]), "{prefix}");
    }
    let query = "encoder.block.0.layer.0.SelfAttention.q";
    let adapter = |tensors: &mut Tensors| {
        let weight = tensors.remove(&format!("{query}.weight")).unwrap();
        tensors.insert(format!("{query}.base_layer.weight"), weight);
        tensors.insert(format!("{query}.lora_A.default.weight"), (vec![2, 16], vec![0.5; 32]));
        tensors.insert(format!("{query}.lora_B.default.weight"), (vec![12, 2], vec![0.5; 24]));
        tensors.insert(format!("{query}.bias"), (vec![12], vec![0.5; 12]));
    };
    let (tokens, warnings) = greedy(&adapter);
    assert_eq!(tokens, expected);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_says(
        &warnings[0],
        &["2 tensors are not read", "lora_A.default.weight", "adapter (LoRA) that is not merged"],
    );
    assert_says(
        &warnings[1],
        &["1 tensor is not read, `encoder.block.0.layer.0.SelfAttention.q.bias`: no T5 has such"],
    );

    let two = tensor_sentence(|tensors| {
        let all = std::mem::take(tensors);
        for who in ["student", "teacher"] {
            tensors.extend(all.iter().map(|(name, tensor)| (format!("{who}.{name}"), tensor.clone())));
        }
    });
    assert_says(&two, &["model.safetensors is broken: it holds the tensors of 2 models", "`student.encoder"]);
    // A layer that there is none of is found under a prefix too, and a tensor is named as its file names it.
    let deep = tensor_sentence(|tensors| {
        tensors.insert("encoder.block.2.layer.0.layer_norm.weight".into(), (vec![16], vec![1.0; 16]));
        *tensors =
            std::mem::take(tensors).into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
    });
    assert_says(&deep, &["is of a layer that config.json does not have"]);
    let shape = tensor_sentence(|tensors| {
        tensors.insert("shared.weight".into(), (vec![3], vec![1.0; 3]));
        *tensors =
            std::mem::take(tensors).into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
    });
    assert_says(&shape, &["tensor `module.shared.weight` has the shape [3]"]);
}

/// An adapter beside whole weights: Python would lay it over them.
#[test]
fn an_adapter_beside_a_model_is_a_warning() {
    let directory = sound();
    fs::write(directory.path().join("adapter_config.json"), "{}").unwrap();
    let model = common::load(directory.path());
    assert_says(&model.warnings()[0], &["adapter_config.json describes an adapter, which is not read"]);
}

/// Editors of some systems put a mark before a text.
#[test]
fn a_byte_order_mark_is_no_text() {
    let directory = sound();
    fs::write(
        directory.path().join("generation_config.json"),
        r#"{"decoder_start_token_id": 0, "eos_token_id": [1, 5]}"#,
    )
    .unwrap();
    for file in ["config.json", "generation_config.json"] {
        let path = directory.path().join(file);
        fs::write(&path, [&b"\xef\xbb\xbf"[..], &fs::read(&path).unwrap()].concat()).unwrap();
    }
    assert_eq!(T5Config::of(&Checkpoint::open(directory.path()).unwrap()).unwrap().end, [1, 5]);
    let wide: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(directory.path().join("config.json"), wide).unwrap();
    assert_says(&sentence(directory.path()), &["config.json is broken: it is text in UTF-16"]);
}

#[test]
fn a_tokenizer_that_is_none() {
    let directory = sound();
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, "{\"version\": \"1.0\"}").unwrap();
    assert_says(&Tokenizer::open(&path).unwrap_err().to_string(), &["tokenizer.json is broken", "not a tokenizer"]);
    assert_says(&sentence(directory.path()), &["tokenizer.json is broken"]);
}

#[test]
fn vocabularies_that_differ() {
    let pair = |little: Value| {
        let models = (common::random_model(little, 1), common::random_model(json!({}), 2));
        Generator::new(models, Lossless::default()).map(drop).unwrap_err().to_string()
    };
    assert_says(&pair(json!({"vocab_size": 38})), &["vocabulary size of the draft model is 38, of the verifier 37"]);
    assert_says(&pair(json!({"eos_token_id": [1, 2]})), &["end-of-sequence", "[1, 2]", "[1]"]);
    assert_says(&pair(json!({"decoder_start_token_id": 3})), &["start token of the draft model is 3"]);
}

/// The encoder of such a checkpoint is whole; what is missing is said when it is to decode.
#[test]
fn a_head_that_is_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(json!({"tie_word_embeddings": false})), 1, |tensors| {
        drop(tensors.remove("lm_head.weight"));
    });
    let model = common::load(directory.path());
    model.encode(&Source::new([3, 1])).unwrap();
    let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap();
    let found = generator.generate(Source::new([3, 1])).unwrap_err().to_string();
    assert_says(&found, &["`tie_word_embeddings` is false", "no lm_head.weight in its files"]);
}

/// Finite weights may still overflow: the row is refused and the model named.
#[test]
fn weights_that_overflow() {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(json!({})), 1, |tensors| {
        tensors.get_mut("decoder.final_layer_norm.weight").unwrap().1.fill(f32::MAX);
    });
    let generator = Generator::new((NoDraft, common::load(directory.path())), Lossless::default()).unwrap();
    let found = generator.generate(Source::new([3, 1])).unwrap_err().to_string();
    assert_says(&found, &["verifier model gave logits that hold NaN", "position 0"]);
}

/// Where there is a generation_config.json, it alone says where a sequence begins and ends.
#[test]
fn generation_config_goes_first() {
    let directory = sound();
    let write = |json: &str| fs::write(directory.path().join("generation_config.json"), json).unwrap();
    write(r#"{"decoder_start_token_id": 3, "eos_token_id": [1, 99, 5]}"#);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let config = T5Config::of(&checkpoint).unwrap();
    assert_eq!((config.start, &config.end[..]), (3, &[1, 5][..]));
    write(r#"{"eos_token_id": 1}"#);
    assert_says(&sentence(directory.path()), &["generation_config.json", "`decoder_start_token_id` is missing"]);
    write(r#"{"bos_token_id": 3, "eos_token_id": "end"}"#);
    assert_says(&sentence(directory.path()), &["generation_config.json", "`eos_token_id` is \"end\""]);
}

/// Every field that is read, with something that no generation can mean, in either file: the file, the field and what was
/// found are named, and what would be legal.
#[test]
fn generation_settings_that_make_no_sense() {
    let directory = sound();
    let paths = ["config.json", "generation_config.json"].map(|file| directory.path().join(file));
    let open = |at: usize, fields: Value| {
        let fields = fields.as_object().unwrap().clone();
        let (mut own, mut beside) = (config(json!({})), json!({"decoder_start_token_id": 0, "eos_token_id": 1}));
        let changed = if at == 0 { &mut own } else { &mut beside };
        changed.as_object_mut().unwrap().extend(fields);
        fs::write(&paths[0], own.to_string()).unwrap();
        if at == 1 {
            fs::write(&paths[1], beside.to_string()).unwrap()
        } else {
            drop(fs::remove_file(&paths[1]))
        }
        Checkpoint::open(directory.path()).unwrap()
    };
    for (field, value, expected) in [
        ("max_length", json!(1), "a whole number, at least 2, the start token counted"),
        ("max_new_tokens", json!(0), "a whole number, at least 1"),
        ("min_length", json!(-1), "a whole number, at least 0"),
        ("min_new_tokens", json!("3"), "a whole number, at least 0"),
        ("max_time", json!(-1), "a number of seconds from 0 to 1e12"),
        ("temperature", json!(-0.5), "a number, at least 0"),
        ("top_k", json!("all"), "a whole number, at least 0"),
        ("top_k", json!(-3), "a whole number, at least 0"),
        ("top_p", json!(7), "a probability in [0, 1]"),
        ("repetition_penalty", json!(1e-300), "a number from 0.001 to 1000"),
        ("encoder_repetition_penalty", json!(0), "a number from 0.001 to 1000"),
        ("no_repeat_ngram_size", json!(-2), "a whole number, at least 0"),
        ("bad_words_ids", json!([1]), "a list"),
        ("bad_words_ids", json!([[]]), "a list of lists of at least one token"),
        ("bad_words_ids", json!([[1, 99_999]]), "tokens below 37, the size of the vocabulary"),
        ("sequence_bias", json!([[[99_999], 2]]), "tokens below 37, the size of the vocabulary"),
        ("forced_bos_token_id", json!(37), "tokens below 37, the size of the vocabulary"),
        ("forced_eos_token_id", json!([1, 99_999]), "tokens below 37, the size of the vocabulary"),
        ("num_beams", json!(0), "a whole number, at least 1"),
        ("do_sample", json!("yes"), "true or false"),
        ("stop_strings", json!(3), "one or a list of them"),
    ] {
        for (at, file) in ["config.json", "generation_config.json"].into_iter().enumerate() {
            let found = open(at, json!({ field: value })).generation_config::<GenerationConfig>().unwrap_err();
            let says = format!("{file}: `{field}` is {value}, expected {expected}");
            assert!(found.to_string().ends_with(&says), "{found}\n{says}");
        }
    }
    // Two fields that do not go together.
    let both = json!({"do_sample": true, "temperature": 0.0});
    let found = open(1, both).generation_config::<GenerationConfig>().unwrap_err();
    assert_says(&found.to_string(), &["generation_config.json: `temperature` is 0.0, expected a number above 0 where"]);
    let fine =
        json!({"sequence_bias": [[[36], 99.0], [[1, 36], -99]], "bad_words_ids": [[36]], "forced_bos_token_id": 36});
    open(1, fine).generation_config::<GenerationConfig>().unwrap();
}

/// What transformers reads and does without: it has no effect, and is said.
#[test]
fn tokens_outside_the_vocabulary_that_are_only_named() {
    let directory = sound();
    let warnings = |field: &str, value: Value| {
        let mut generation = json!({"decoder_start_token_id": 0, "eos_token_id": 1});
        generation[field] = value;
        fs::write(directory.path().join("generation_config.json"), generation.to_string()).unwrap();
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        checkpoint.generation_config::<GenerationConfig>().unwrap().settings(Settings::default()).unwrap();
        common::load(directory.path()).warnings().to_vec()
    };
    for field in ["eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens"] {
        let outside = if field == "pad_token_id" { json!(99_999) } else { json!([1, 99_999]) };
        let found = warnings(field, outside);
        assert_eq!(found.len(), 1);
        let says = format!("generation_config.json: `{field}` names the token 99999, which has no effect: expected");
        assert_says(&found[0], &[&says, "tokens below 37"]);
        let inside = if field == "pad_token_id" { json!(-1) } else { json!([-1, 1, 36]) };
        assert!(warnings(field, inside).is_empty());
    }
}

/// The embedding under another name, and a head beside a tied embedding that transformers would not read.
#[test]
fn aliased_embeddings_load_to_the_same_model() {
    let greedy = |change: &dyn Fn(&mut Tensors)| {
        let directory = tempfile::tempdir().unwrap();
        write_checkpoint(directory.path(), &config(json!({})), 5, change);
        let generator = Generator::new((NoDraft, common::load(directory.path())), Lossless::default()).unwrap();
        generator.generate(Source::new([3, 9, 1])).unwrap().tokens
    };
    let expected = greedy(&|_| {});
    for alias in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
        assert_eq!(greedy(&|tensors| drop(tensors.insert(alias.into(), tensors["shared.weight"].clone()))), expected);
        let renamed = greedy(&|tensors| {
            let embedding = tensors.remove("shared.weight").unwrap();
            tensors.insert(alias.into(), embedding);
        });
        assert_eq!(renamed, expected);
    }
    let with_head = greedy(&|tensors| drop(tensors.insert("lm_head.weight".into(), (vec![37, 16], vec![0.5; 592]))));
    assert_eq!(with_head, expected);
}

/// Versions of transformers take one of them or several: what they write differs. One value suffices, wherever it is.
#[test]
fn embeddings_that_differ() {
    for name in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
        for at in [0, 300, 591] {
            let change = |tensors: &mut Tensors| {
                let (shape, mut values) = tensors["shared.weight"].clone();
                values[at] += 0.25;
                tensors.insert(name.into(), (shape, values));
            };
            let says = format!("model.safetensors: tensor `{name}` differs from `shared.weight`, expected the same");
            assert_says(&tensor_sentence(change), &[&says]);
            let directory = tempfile::tempdir().unwrap();
            write_checkpoint(directory.path(), &config(json!({"transformers_version": "5.0.0"})), 1, change);
            let checkpoint = Checkpoint::open(directory.path()).unwrap();
            assert_says(&checkpoint.digest().unwrap_err().to_string(), &[&says]);
        }
    }
}

/// The weights of a relative that calls itself a T5: what no T5 reads is said.
#[test]
fn a_bias_that_no_t5_reads_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let bias = |block: usize| format!("encoder.block.{block}.layer.0.SelfAttention.relative_attention_bias.weight");
    write_checkpoint(directory.path(), &config(json!({})), 1, |tensors| {
        let first = tensors[&bias(0)].clone();
        tensors.insert(bias(1), first);
    });
    let says = format!("1 tensor is not read, `{}`: no T5 has such", bias(1));
    assert_eq!(common::load(directory.path()).warnings(), [says]);
}

/// What a checkpoint says whose header of model.safetensors is changed, its data kept.
fn header_sentence(change: impl FnOnce(&str) -> String) -> String {
    let directory = sound();
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(size);
    let header = change(std::str::from_utf8(header).unwrap());
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()).unwrap();
    sentence(directory.path())
}

#[test]
fn headers_that_lie() {
    let broken = |says: &str, change: &dyn Fn(&str) -> String| {
        assert_says(&header_sentence(change), &["model.safetensors is broken: its header makes no sense", says]);
    };
    let name = "decoder.final_layer_norm.weight";
    // A second entry of the same name, and one of another name for the same bytes.
    let entry = |header: &str, name: &str| {
        let at = header.find(&format!("\"{name}\"")).unwrap();
        header[at..at + header[at..].find('}').unwrap() + 1].to_owned()
    };
    broken("tensor `decoder.final_layer_norm.weight` is there twice", &|header| {
        header.replacen('{', &format!("{{{},", entry(header, name)), 1)
    });
    broken("invalid offset", &|header| {
        let other = entry(header, name).replacen(name, "another", 1);
        header.replacen('{', &format!("{{{other},"), 1)
    });
    // Terabytes, in one dimension and in the product of several.
    let shape = |shape: &'static str| {
        move |header: &str| {
            let found = entry(header, name);
            header.replacen(&found, &found.replacen("[16]", shape, 1), 1)
        }
    };
    broken("", &shape("[1000000000000]"));
    broken("", &shape("[18446744073709551615]"));
    broken("", &shape("[4294967296,4294967296,4294967296]"));
    broken("", &shape("[-16]"));
    let far = header_sentence(|header| {
        let found = entry(header, name);
        let begin = found.find("\"data_offsets\"").unwrap();
        header.replacen(&found, &format!("{}\"data_offsets\":[0,9999999999999]}}", &found[..begin]), 1)
    });
    assert_says(&far, &["model.safetensors is broken"]);
}

#[test]
#[cfg(unix)]
fn links_and_folders_in_the_place_of_files() {
    use std::os::unix::fs::symlink;

    for file in ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"] {
        let directory = sound();
        fs::remove_file(directory.path().join("model.safetensors")).unwrap();
        let path = directory.path().join(file);
        symlink(&path, &path).unwrap(); // a loop
        assert_says(&sentence(directory.path()), &[file, "cannot be read"]);
        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        assert_says(&sentence(directory.path()), &[file, "cannot be read"]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_says(&sentence(directory.path()), &[file, "it is not a file"]);
    }
    for file in ["config.json", "generation_config.json", "tokenizer.json"] {
        let directory = sound();
        let path = directory.path().join(file);
        let _ = fs::remove_file(&path);
        symlink("/dev/zero", &path).unwrap();
        assert_says(&sentence(directory.path()), &[file, "it is not a file"]);
    }
    for file in ["config.json", "generation_config.json", "tokenizer.json", "spiece.model", "tokenizer_config.json"] {
        let directory = sound();
        fs::write(directory.path().join("tokenizer.json"), "{").unwrap();
        let path = directory.path().join(file);
        let _ = fs::remove_file(&path);
        if file == "spiece.model" {
            fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
        }
        for target in [&path, Path::new("nowhere")] {
            symlink(target, &path).unwrap();
            assert_says(&sentence(directory.path()), &[file, "cannot be read"]);
            fs::remove_file(&path).unwrap();
        }
    }
    // A link to a sound file is one: the cache of the hub is made of them.
    let (directory, elsewhere) = (sound(), sound());
    let path = directory.path().join("model.safetensors");
    fs::remove_file(&path).unwrap();
    symlink(elsewhere.path().join("model.safetensors"), &path).unwrap();
    common::load(directory.path());
}

/// A file with a hole where terabytes of weights should be: refused before the first of them is read.
#[test]
#[cfg(unix)]
fn a_model_larger_than_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let vocab = 1 << 24;
    let config = config(json!({"vocab_size": vocab, "d_model": 1 << 16, "tie_word_embeddings": false}));
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let size = (vocab as u64) << (16 + 2);
    let header = json!({"shared.weight": {"dtype": "F32", "shape": [vocab, 1 << 16], "data_offsets": [0, size]}});
    let header = header.to_string();
    let path = directory.path().join("model.safetensors");
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    if file.set_len(8 + header.len() as u64 + size).is_err() {
        return; // this file system has no room for a hole of 4 TiB
    }
    let found = sentence(directory.path());
    assert_says(&found, &[directory.path().to_str().unwrap(), "of memory to load", "GB are free"]);
}

/// As much under a name that nobody reads, as of an average of the weights: it takes no memory.
#[test]
#[cfg(unix)]
fn tensors_that_nobody_reads_take_no_memory() {
    let directory = sound();
    let weights = directory.path().join("model.safetensors");
    fs::rename(&weights, directory.path().join("read.safetensors")).unwrap();
    let size = 1u64 << 42;
    let header = json!({"ema.weight": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, size]}});
    let header = header.to_string();
    let path = directory.path().join("unread.safetensors");
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    if file.set_len(8 + header.len() as u64 + size).is_err() {
        return; // this file system has no room for a hole of 4 TiB
    }
    let read = fs::read(directory.path().join("read.safetensors")).unwrap();
    let mut map = serde_json::Map::from_iter([("ema.weight".into(), json!("unread.safetensors"))]);
    for name in safetensors::SafeTensors::deserialize(&read).unwrap().names() {
        map.insert(name.to_string(), json!("read.safetensors"));
    }
    let index = json!({ "weight_map": map }).to_string();
    fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
    assert_says(&common::load(directory.path()).warnings()[0], &["1 tensor is not read, `ema.weight`"]);
}

/// Changes one byte of one file of a checkpoint, or cuts the file off there, and loads and runs what is left of it.
fn mutate(fixture_name: &str, file: usize, at: f64, byte: u8, cut: bool) {
    let directory = copy(fixture_name);
    let files = files(directory.path());
    let path = &files[file % files.len()];
    let mut bytes = fs::read(path).unwrap();
    // Most of a file is weights: a third of the mutations go to its first kilobyte, another to its last four, where
    // headers and directories are.
    let length = bytes.len();
    let (begin, reach) = match (at * 3.0) as usize {
        0 => (0, length.min(1024)),
        1 => (length - length.min(4096), length.min(4096)),
        _ => (0, length),
    };
    let at = begin + ((at * 3.0) % 1.0 * reach as f64) as usize;
    bytes[at] = byte;
    if cut {
        bytes.truncate(at);
    }
    fs::write(path, bytes).unwrap();
    let model = Checkpoint::open(directory.path()).and_then(|c| T5::<TestBackend>::load(&c, &Default::default()));
    let _ = model.map(run);
}

macro_rules! no_mutation_panics {
    ($($test:ident: $name:literal;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
            $(#[test]
            fn $test(file in 0..6usize, at in 0.0..1.0f64, byte in any::<u8>(), cut in prop::bool::weighted(0.2)) {
                mutate($name, file, at, byte, cut);
            })*
        }
    };
}

no_mutation_panics! {
    no_mutation_of_t5_1_0_panics: "t5-v1_0";
    no_mutation_of_t5_1_1_in_shards_panics: "t5-v1_1";
    no_mutation_of_other_buckets_panics: "t5-buckets";
    no_mutation_of_f16_panics: "t5-f16";
    no_mutation_of_bf16_panics: "t5-bf16";
    no_mutation_of_pytorch_panics: "mt5";
}
