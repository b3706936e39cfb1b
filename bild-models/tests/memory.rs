//! What loading takes: the model, and next to nothing beside it. Alone in its process, because it watches all of its memory.

mod common;

use bild_models::{Checkpoint, LoadOptions, Precision, T5};
use common::{TestBackend, config, write_checkpoint};
use peak_alloc::PeakAlloc;
use serde_json::json;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
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
    for (precision, expected) in [(Precision::F32, bytes), (Precision::Int8, bytes / 4)] {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let options = options.clone().precision(precision);
        let model = T5::<TestBackend>::load_with(&checkpoint, &Default::default(), &options).unwrap();
        let (peak, held) = (MEMORY.peak_usage() - before, MEMORY.current_usage() - before);
        drop(model);
        let fits = held > expected - expected / 50 && held < expected + expected / 20;
        assert!(fits, "{precision:?}: {held} bytes are held, expected {expected}");
        assert!(peak < held + held / 20, "{precision:?}: {peak} bytes at the peak, {held} held");
    }
}
