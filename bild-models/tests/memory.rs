//! What loading takes: the model, and next to nothing beside it. Alone in its process, because it watches all of its memory.

mod common;

use bild_models::{Checkpoint, T5};
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
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let model = T5::<TestBackend>::load(&checkpoint, &Default::default()).unwrap();
    let (peak, held) = (MEMORY.peak_usage() - before, MEMORY.current_usage() - before);
    drop(model);
    assert!(held > bytes - bytes / 50 && held < bytes + bytes / 20, "{held} bytes are held of a file of {bytes}");
    assert!(peak < held + held / 20, "{peak} bytes at the peak, {held} held");
}
