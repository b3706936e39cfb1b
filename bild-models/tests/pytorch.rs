//! `pytorch_model.bin`: what transformers writes loads, and what somebody else wrote is an error, never run.

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::Path,
};

use bild_core::{Generator, NoDraft, Settings, Source, Token};
use bild_models::{Checkpoint, T5};
use bild_policies::Lossless;
use common::{TestBackend, config, write_checkpoint};
use peak_alloc::PeakAlloc;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use serde_json::{Value, json};
use tempfile::TempDir;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A zip archive of stored entries.
fn zip(path: &Path, entries: &[(&str, &[u8])]) {
    let mut archive = ZipArchiveWriter::new(File::create(path).unwrap());
    for (name, bytes) in entries {
        let builder = archive.new_file(name).compression_method(CompressionMethod::STORE);
        let (mut entry, config) = builder.start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn number(number: usize) -> Vec<u8> {
    [b"J", &(number as u32).to_le_bytes()[..]].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), items.concat(), b"t".to_vec()].concat()
}

/// The pickle of one tensor, as torch writes it.
fn tensor(kind: &str, key: usize, offset: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let numbers = |sizes: &[usize]| tuple(&sizes.iter().map(|&size| number(size)).collect::<Vec<_>>());
    let count = 0; // of the storage's elements; what counts is how long it is
    let global = format!("ctorch\n{kind}\n").into_bytes();
    let id = tuple(&[text("storage"), global, text(&key.to_string()), text("cpu"), number(count)]);
    let hooks = b"\x89ccollections\nOrderedDict\n)R".to_vec();
    let arguments = tuple(&[[id, b"Q".to_vec()].concat(), number(offset), numbers(shape), numbers(strides), hooks]);
    [b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), arguments, b"R".to_vec()].concat()
}

fn state_dict(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(name, value)| [text(name), value.clone()]);
    [b"\x80\x02}(".to_vec(), entries.flatten().collect(), b"u.".to_vec()].concat()
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A sound checkpoint whose weights are in a `pytorch_model.bin`; `change` may alter its pickle and its storages.
fn folder(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>, &mut Vec<Vec<u8>>)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut tensors = Tensors::new();
    write_checkpoint(directory.path(), &config(json!({})), 1, |all| tensors = all.clone());
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let (mut entries, mut storages) = (Vec::new(), Vec::new());
    for (key, (name, (shape, values))) in tensors.into_iter().enumerate() {
        let strides: Vec<usize> = (1..=shape.len()).map(|i| shape[i..].iter().product()).collect();
        entries.push((name, tensor("FloatStorage", key, 0, &shape, &strides)));
        storages.push(values.iter().flat_map(|x| x.to_le_bytes()).collect());
    }
    change(&mut entries, &mut storages);
    write(directory.path(), &state_dict(&entries), &storages);
    directory
}

fn write(directory: &Path, pickle: &[u8], storages: &[Vec<u8>]) {
    let names: Vec<_> = (0..storages.len()).map(|key| format!("archive/data/{key}")).collect();
    let storages = names.iter().zip(storages).map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let entries: Vec<_> = [("archive/data.pkl", pickle)].into_iter().chain(storages).collect();
    zip(&directory.join("pytorch_model.bin"), &entries);
}

fn load(directory: &Path) -> Result<T5<TestBackend>, String> {
    let model = Checkpoint::open(directory).and_then(|c| T5::load(&c, &Default::default()));
    model.map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(directory: &Path, parts: &[&str]) {
    let sentence = load(directory).map(drop).expect_err("it is broken");
    for part in parts.iter().chain(&["pytorch_model.bin"]) {
        assert!(sentence.contains(part), "expected \"{part}\" in: {sentence}");
    }
}

fn greedy(model: T5<TestBackend>) -> Vec<Token> {
    let generator = Generator::new((NoDraft, model), Lossless::default()).unwrap();
    generator
        .with_settings(Settings::default().with_max_new_tokens(12))
        .generate(Source::new([3, 9, 1]))
        .unwrap()
        .tokens
}

#[test]
fn a_state_dict_is_the_model_that_safetensors_are() {
    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &config(json!({})), 1, |_| {});
    assert_eq!(
        greedy(load(folder(|_, _| {}).path()).unwrap()),
        greedy(common::load(directory.path())),
        "the same weights"
    );
}

#[test]
fn a_tensor_may_lie_inside_a_storage_that_others_share() {
    let expected = greedy(load(folder(|_, _| {}).path()).unwrap());
    let shared = folder(|entries, storages| {
        let at = entries.iter().position(|(name, _)| name == "shared.weight").unwrap();
        storages[at] = [vec![0xff; 20], storages[at].clone()].concat();
        for name in ["shared.weight", "encoder.embed_tokens.weight"] {
            entries.retain(|(found, _)| found != name);
            entries.push((name.into(), tensor("FloatStorage", at, 5, &[37, 16], &[16, 1])));
        }
    });
    assert_eq!(greedy(load(shared.path()).unwrap()), expected);
}

/// The shards of a `.bin`, with their index, and parameters instead of plain tensors.
#[test]
fn shards_and_parameters() {
    let whole = folder(|_, _| {});
    let expected = greedy(load(whole.path()).unwrap());
    let sharded = folder(|_, _| {});
    fs::remove_file(sharded.path().join("pytorch_model.bin")).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..2 {
        let name = format!("pytorch_model-0000{}-of-00002.bin", shard + 1);
        let part = folder(|entries, _| {
            let mut i = 0;
            entries.retain(|(tensor, _)| {
                i += 1;
                i % 2 == shard && map.insert(tensor.clone(), Value::from(name.as_str())).is_none()
            });
            for (_, value) in entries {
                let hooks = b"\x89ccollections\nOrderedDict\n)R".to_vec();
                let arguments = tuple(&[value.clone(), hooks]);
                *value = [b"ctorch._utils\n_rebuild_parameter\n".to_vec(), arguments, b"R".to_vec()].concat();
            }
        });
        fs::copy(part.path().join("pytorch_model.bin"), sharded.path().join(name)).unwrap();
    }
    let index = sharded.path().join("pytorch_model.bin.index.json");
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert_eq!(greedy(load(sharded.path()).unwrap()), expected);

    map["shared.weight"] = json!("../pytorch_model.bin");
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert_refused(sharded.path(), &["index.json", "shared.weight", "the name of a file in the same folder"]);
}

fn dict(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(name, value)| [text(name), value.clone()]);
    [b"}(".to_vec(), entries.flatten().collect(), b"u".to_vec()].concat()
}

/// A trainer's file: the model in a dictionary of its own, under a prefix, beside numbers and an optimizer's state.
#[test]
fn a_model_in_a_dictionary_of_its_own() {
    let expected = greedy(load(folder(|_, _| {}).path()).unwrap());
    for (outer, prefix) in [("state_dict", "model."), ("model", ""), ("module", "module."), ("model_state_dict", "")] {
        let nested = folder(|entries, _| {
            let inner: Vec<_> =
                entries.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())).collect();
            let momentum = dict(&[("exp_avg".to_owned(), tensor("FloatStorage", 0, 0, &[1], &[1]))]);
            let size = [b"ctorch\nSize\n".to_vec(), tuple(&[tuple(&[number(3)])]), b"R".to_vec()].concat();
            *entries = vec![
                ("epoch".into(), number(3)),
                (outer.into(), dict(&inner)),
                ("optimizer".into(), dict(&[("state".to_owned(), momentum)])),
                ("size".into(), size),
            ];
        });
        assert_eq!(greedy(load(nested.path()).unwrap()), expected, "{outer}");
        let warnings = load(nested.path()).unwrap().warnings().to_vec();
        assert!(warnings.len() == 1 && warnings[0].contains("`optimizer.state.exp_avg`"), "{warnings:?}");
    }
    let both = folder(|entries, _| {
        *entries = ["model", "ema"].map(|outer| (outer.to_owned(), dict(entries))).to_vec();
    });
    assert_refused(both.path(), &["it holds the tensors of 2 models", "`ema.encoder.final_layer_norm.weight`"]);
}

/// A pickle that would create a file if Python read it: nothing is created, and the sentence says what it wanted to call.
#[test]
fn nothing_in_a_pickle_is_executed() {
    let directory = folder(|_, _| {});
    let canary = directory.path().join("canary");
    let command = tuple(&[text(&format!("touch {}", canary.display()))]);
    for (module, function) in [("os", "system"), ("builtins", "eval"), ("torch._utils", "_rebuild_device_tensor")] {
        let call = [format!("c{module}\n{function}\n").into_bytes(), command.clone(), b"R".to_vec()].concat();
        write(directory.path(), &state_dict(&[("x".into(), call)]), &[]);
        assert_refused(
            directory.path(),
            &[&format!("would call `{module}.{function}`"), "nothing in a file is executed"],
        );
        let stack_global = [text(module), text(function), b"\x93".to_vec(), command.clone(), b"R".to_vec()].concat();
        write(directory.path(), &state_dict(&[("x".into(), stack_global)]), &[]);
        assert_refused(directory.path(), &[&format!("would call `{module}.{function}`")]);
    }
    for (instruction, name) in [(b"i", "0x69"), (b"o", "0x6f"), (b"\x81", "0x81")] {
        write(directory.path(), &[b"\x80\x02(", &instruction[..], b"os\nsystem\n."].concat(), &[]);
        assert_refused(directory.path(), &[&format!("the instruction {name}")]);
    }
    assert!(!canary.exists());
}

#[test]
fn pickles_that_make_no_sense() {
    for (pickle, says) in [
        (&b"."[..], "takes more values than it has made"),
        (b"", "ends in the middle"),
        (b"K", "ends in the middle"),
        (b"X\xff\xff\xff\xff.", "ends in the middle"),
        (b"t.", "closes what it has not opened"),
        (b"h\x07.", "recalls what it has not stored"),
        (b"N.", "does not hold a state dict"),
        (b"]N.N", "does not hold a state dict"),
        (b"NQ.", "not a storage"),
        (b"Nb.", "takes more values"),
        (b"NNs.", "takes more values"),
        (b"NNNs.", "not a dict"),
        (b"NNa.", "not a list"),
        (b"}(Nu.", "not a dict"),
        (b"NNb.", "builds an object"),
        (b"N)R.", "not a function"),
        (b"\x8a\xff.", "a number of 255 bytes"),
    ] {
        let directory = folder(|_, _| {});
        write(directory.path(), pickle, &[]);
        assert_refused(directory.path(), &["broken: its pickle", says]);
    }
}

#[test]
fn tensors_that_lie_beyond_their_storage_or_out_of_order() {
    let with = |value: Vec<u8>| {
        folder(move |entries, _| entries.iter_mut().find(|(name, _)| name == "shared.weight").unwrap().1 = value)
    };
    let key = common::tensors(&config(json!({}))).keys().position(|name| name == "shared.weight").unwrap();
    let float = |offset, shape: &[usize], strides: &[usize]| with(tensor("FloatStorage", key, offset, shape, strides));
    assert_refused(float(1, &[37, 16], &[16, 1]).path(), &["`shared.weight`", "beyond its storage"]);
    assert_refused(float(0, &[38, 16], &[16, 1]).path(), &["beyond its storage"]);
    let most = u32::MAX as usize >> 1;
    assert_refused(float(0, &[most, most, most], &[1, 1, 1]).path(), &["beyond its storage"]);
    assert_refused(float(0, &[37, 16], &[1, 37]).path(), &["only row-major tensors are read"]);
    assert_refused(float(0, &[37, 16], &[1]).path(), &["1 strides for 2 dimensions"]);
    assert_refused(float(0, &[36, 16], &[16, 1]).path(), &["has the shape [36, 16], expected [37, 16]"]);
    assert_refused(float(0, &[1; 9], &[1; 9]).path(), &["at most 8 sizes"]);
    assert_refused(float(0, &[0, most, most, most], &[1; 4]).path(), &["has the shape [0, "]);
    assert_refused(with(tensor("FloatStorage", 99, 0, &[37, 16], &[16, 1])).path(), &["storage 99, which is missing"]);
    let unread =
        folder(|entries, _| entries.push(("steps".into(), tensor("LongStorage", 0, 0, &[most, most], &[1, 1]))));
    load(unread.path()).unwrap(); // what no T5 has is not looked into
    assert_refused(with(tensor("LongStorage", key, 0, &[most, most, most], &[1, 1, 1])).path(), &["has the shape"]);
    assert_refused(with(tensor("LongStorage", key, 0, &[37, 16], &[16, 1])).path(), &["has the type LongStorage"]);
    let twice = folder(|entries, _| entries.push(entries[0].clone()));
    assert_refused(twice.path(), &["is there twice"]);
    let nan = folder(|_, storages| storages[key][..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert_refused(nan.path(), &["`shared.weight` holds NaN at entry 0"]);
}

#[test]
fn archives_that_are_none_or_lie() {
    let directory = folder(|_, _| {});
    let path = directory.path().join("pytorch_model.bin");
    let sound = fs::read(&path).unwrap();
    fs::write(&path, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    assert_refused(directory.path(), &["not a zip archive", "PyTorch before 1.6"]);
    for keep in [0, 3, 4, 100, sound.len() / 2, sound.len() - 1] {
        fs::write(&path, &sound[..keep]).unwrap();
        assert_refused(directory.path(), &["broken"]);
    }
    zip(&path, &[("archive/version", b"3")]);
    assert_refused(directory.path(), &["0 files data.pkl"]);
    zip(&path, &[("a/data.pkl", b"}."), ("b/data.pkl", b"}.")]);
    assert_refused(directory.path(), &["2 files data.pkl"]);
    zip(&path, &[("a/data.pkl", b"}."), ("a/data.pkl", b"}.")]);
    assert_refused(directory.path(), &["a/data.pkl is there twice"]);
    zip(&path, &[("a/data.pkl", b"}."), ("a/byteorder", b"big")]);
    assert_refused(directory.path(), &["big-endian"]);

    // The archive's directory, altered: what the last entry says of its method, its sizes and its place.
    zip(&path, &[("a/data/0", &[1; 64]), ("a/data.pkl", b"}.")]);
    let bytes = fs::read(&path).unwrap();
    let directory_entry = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    let altered = |at: usize, with: &[u8]| {
        let mut altered = bytes.clone();
        altered[directory_entry + at..][..with.len()].copy_from_slice(with);
        fs::write(&path, altered).unwrap();
    };
    altered(10, &8u16.to_le_bytes());
    assert_refused(directory.path(), &["compressed, which torch.save never does"]);
    altered(24, &(1u32 << 31).to_le_bytes());
    assert_refused(directory.path(), &["compressed"]);
    altered(20, &[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f]);
    assert_refused(directory.path(), &["but the file has"]);
    altered(42, &0u32.to_le_bytes());
    assert_refused(directory.path(), &["entries overlap"]);
}

/// What a file claims costs nothing: neither its zip entries nor a pickle that repeats itself.
#[test]
fn memory_is_bounded_by_the_length_of_the_file() {
    let directory = folder(|_, _| {});
    // Every instruction refers to the longest text or the largest tuple there is, as often as the pickle has room for.
    let long = [text(&"x".repeat(1 << 19)), b"q\x00q\x01".to_vec()].concat();
    let repeated: Vec<u8> = b"h\x00h\x01\x93".repeat(200_000);
    let globals = [b"\x80\x02".to_vec(), long, repeated, b".".to_vec()].concat();
    let sizes = [b"(".to_vec(), b"K\x01".repeat(1 << 18), b"tq\x00".to_vec()].concat();
    let tuples = [b"\x80\x02".to_vec(), sizes, b"h\x00\x85".repeat(400_000), b".".to_vec()].concat();
    let nested = [b"\x80\x02N".to_vec(), b"\x85".repeat(2_000_000), b".".to_vec()].concat();
    let too_long = vec![b'N'; 3 << 20];
    // A large tuple in the place of a tensor, as the argument of call after call.
    let large =
        [b"ctorch._utils\n_rebuild_parameter\nq\x00(".to_vec(), b"N".repeat(1 << 19), b"tq\x01\x85q\x02".to_vec()];
    let calls = [b"\x80\x02".to_vec(), large.concat(), b"h\x00h\x02R".repeat(200_000), b".".to_vec()].concat();
    // A storage type with an endless name, shared by tensor after tensor.
    let kind = tensor(&"x".repeat(1 << 19), 0, 0, &[1], &[1]);
    let kinds =
        [b"\x80\x02}(".to_vec(), text("a"), kind, b"q\x01".to_vec(), b"K\x01h\x01".repeat(100_000), b"u.".to_vec()];
    // A tensor under a long name, in dictionary after dictionary.
    let one = tensor("FloatStorage", 0, 0, &[1], &[1]);
    let inner = [b"}q\x05(h\x03h\x04u".to_vec()].concat();
    let many = (0..30_000).flat_map(|i| [number(i), b"0".to_vec(), text(&i.to_string()), inner.clone()].concat());
    let names = [
        b"\x80\x02".to_vec(),
        text(&"x".repeat(1 << 19)),
        b"q\x030".to_vec(),
        one,
        b"q\x040}(".to_vec(),
        many.collect(),
        b"u.".to_vec(),
    ];
    for pickle in [globals, tuples, nested, too_long, calls, kinds.concat(), names.concat()] {
        write(directory.path(), &pickle, &[]);
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        assert!(load(directory.path()).is_err());
        let used = MEMORY.peak_usage() - before;
        // Other tests run beside this one, on small checkpoints.
        assert!(used < 400 << 20, "{used} bytes for a pickle of {}", pickle.len());
    }
}
