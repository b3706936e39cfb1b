//! Files of strangers: one file of a checkpoint is what the fuzzer makes of it, the others are right. Whatever it is, opening,
//! loading, tokenizing and decoding end with a result or an error: no panic, no hang, and memory in proportion.
#![no_main]

use std::{io::Write, sync::Arc};

use bild::{
    Checkpoint, Flex, LoadOptions, Lossless, Settings, T5, Threads,
    decode::{Generator, NoDraft, Source},
    models::Shortlist,
    policies::{AnyPolicy, GenerationConfig},
};
use libfuzzer_sys::fuzz_target;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../bild-models/tests/fixtures/", $name))
    };
}

const CONFIG: &[u8] = fixture!("t5/t5-bf16/config.json");
const WEIGHTS: &[u8] = fixture!("t5/t5-bf16/model.safetensors");
const SPIECE: &[u8] = fixture!("sentencepiece-user/spiece.model");

/// What the first byte of an input says the rest is.
const KINDS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "data.pkl",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "policy",
    "shortlist",
];

fuzz_target!(|input: &[u8]| {
    let Some((&kind, contents)) = input.split_first() else { return };
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    match kind {
        "policy" => policy(contents),
        "shortlist" => drop(serde_json::from_slice::<Shortlist>(contents)),
        // The header; what it speaks of is there, and zeros after it.
        "model.safetensors" => {
            let weights = [&(contents.len() as u64).to_le_bytes()[..], contents, &[0; 4096]].concat();
            checkpoint(&[("config.json", CONFIG), (kind, &weights)]);
        }
        "data.pkl" => {
            let archive = zip(&[("a/data.pkl", contents), ("a/version", b"3\n"), ("a/data/0", &[0; 4096])]);
            checkpoint(&[("config.json", CONFIG), ("pytorch_model.bin", &archive)]);
        }
        "pytorch_model.bin" => checkpoint(&[("config.json", CONFIG), (kind, contents)]),
        "model.safetensors.index.json" => checkpoint(&[("config.json", CONFIG), ("a.safetensors", WEIGHTS), (kind, contents)]),
        "config.json" => checkpoint(&[(kind, contents), ("model.safetensors", WEIGHTS), ("spiece.model", SPIECE)]),
        "spiece.model" | "tokenizer.json" => checkpoint(&[("config.json", CONFIG), (kind, contents)]),
        _ => checkpoint(&[
            ("config.json", CONFIG),
            ("model.safetensors", WEIGHTS),
            ("spiece.model", SPIECE),
            (kind, contents),
        ]),
    }
});

fn policy(contents: &[u8]) {
    if let Ok(policy) = serde_json::from_slice::<AnyPolicy>(contents) {
        let again: AnyPolicy = serde_json::from_slice(&serde_json::to_vec(&policy).unwrap()).expect("what is written can be read");
        assert_eq!(policy, again);
    }
}

fn checkpoint(files: &[(&str, &[u8])]) {
    let files = files.iter().map(|&(name, contents)| (name, Arc::<[u8]>::from(contents)));
    let Ok(checkpoint) = Checkpoint::from_files(files) else { return };
    if let Ok(tokenizer) = checkpoint.tokenizer() {
        if let Ok(tokens) = tokenizer.encode("Über 2 \u{fdfa}  <extra_id_0>wörter\u{0}\n</s> ﬁn") {
            let _ = tokenizer.decode(&tokens);
        }
        let _ = tokenizer.decode(&[0, 1, 2, 3, 250, 999, u32::MAX]);
    }
    let options = LoadOptions::default().with_threads(Threads::new(1).expect("one thread is always there"));
    let Ok(model) = T5::<Flex>::load_with(&checkpoint, &Default::default(), &options) else { return };
    let config = checkpoint.generation_config::<GenerationConfig>();
    let settings = config.ok().and_then(|config| config.settings(Settings::default()).ok()).unwrap_or_default();
    let Ok(generator) = Generator::new((NoDraft, model), Lossless::default()) else { return };
    let _ = generator.with_settings(settings.with_max_new_tokens(3)).generate(Source::new(vec![3, 5, 1]));
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in entries {
        let builder = archive.new_file(name).compression_method(rawzip::CompressionMethod::STORE);
        let (mut entry, config) = builder.start().expect("memory can be written");
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes).expect("memory can be written");
        let (_, descriptor) = writer.finish().expect("memory can be written");
        entry.finish(descriptor).expect("memory can be written");
    }
    archive.finish().expect("memory can be written")
}
