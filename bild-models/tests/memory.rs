//! What loading takes: the model, and next to nothing beside it; and what a generation takes: what it says beforehand. Alone in
//! its process, because it watches all of its memory.

mod common;

use bild_core::{Generator, NoDraft, Overflow, Pair, Request, Settings, Source};
use bild_models::{Checkpoint, LoadOptions, Precision, SharedEncoder, T5};
use bild_policies::Lossless;
use common::{Numbers, TestBackend, config, write_checkpoint};
use peak_alloc::PeakAlloc;
use serde_json::json;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn memory_is_what_is_said_of_it() {
    loading_peaks_at_the_model();
    generating_peaks_at_what_is_said_beforehand();
}

fn loading_peaks_at_the_model() {
    let directory = tempfile::tempdir().unwrap();
    // Some 30 MB, of which the embedding is 8.
    let shape = json!({
        "vocab_size": 8000, "d_model": 256, "d_kv": 64, "num_heads": 4, "d_ff": 1024, "num_layers": 2,
        "num_decoder_layers": 2, "tie_word_embeddings": false
    });
    write_checkpoint(directory.path(), &config(shape), 1, |_| {});
    let bytes = std::fs::metadata(directory.path().join("model.safetensors")).unwrap().len() as usize;

    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    // The threads are not part of it.
    let options = LoadOptions::default();
    // What is held in 4 bits and a factor of a byte for each 32 of them: two layers of the decoder, but for what reads the source.
    let halved = 2 * (6 * 256 * 256 + 3 * 256 * 1024);
    let int4 = bytes / 4 - halved / 32 * 15;
    for (precision, expected) in [(Precision::F32, bytes), (Precision::Int8, bytes / 4), (Precision::Int4, int4)] {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let options = options.clone().with_precision(precision);
        let model = T5::<TestBackend>::load_with(&checkpoint, &Default::default(), &options).unwrap();
        let (peak, held) = (MEMORY.peak_usage() - before, MEMORY.current_usage() - before);
        drop(model);
        let fits = held > expected - expected / 50 && held < expected + expected / 20;
        assert!(fits, "{precision:?}: {held} bytes are held, expected {expected}");
        assert!(peak < held + bytes / 50, "{precision:?}: {peak} bytes at the peak, {held} held");
    }
}

/// It grows with the length of a source and not with its square, and so does what is said.
fn generating_peaks_at_what_is_said_beforehand() {
    let directory = tempfile::tempdir().unwrap();
    let shape = json!({ "vocab_size": 500, "d_model": 32, "d_kv": 8, "num_heads": 8, "d_ff": 64 });
    write_checkpoint(directory.path(), &config(shape), 1, |_| {});
    let model = common::load(directory.path());
    generating_peaks_at_what_is_said((NoDraft, model.clone()));
    generating_peaks_at_what_is_said(SharedEncoder::of_layers(model, &[1]).unwrap());
}

fn generating_peaks_at_what_is_said(pair: impl Pair) {
    let settings = Settings::default().with_max_source_tokens(20_000, Overflow::Error);
    let generator = Generator::new(pair, Lossless::default()).unwrap();
    // Caches grow with what is written, so the last is written to its end.
    for (length, new_tokens) in [(200, 1), (2000, 1), (5000, 1), (20, 2000)] {
        let source = Source::new(Numbers(1).tokens(length, 500));
        let settings = settings.clone().with_max_new_tokens(new_tokens).with_end_tokens([]);
        let said = generator.bytes_for(&source, &settings) as usize;
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let output = generator.generate(Request::new(source.clone()).with_settings(settings.clone())).unwrap();
        assert_eq!(output.tokens.len(), new_tokens);
        let peak = MEMORY.peak_usage() - before;
        assert!(
            peak < said + said / 4 && peak > said / 4,
            "{length} tokens: {peak} bytes at the peak, {said} were said"
        );
    }
}
