//! Times a T5 on kjarni: `kjarni_t5 DIRECTORY SOURCE NEW RUNS`, one JSON object out. In f32: with weights of 8 bits its T5 panics.

use std::{error::Error, fs, path::Path, time::Instant};

use futures::executor::block_on;
use kjarni_models::models::t5::T5Model;
use kjarni_transformers::{
    Device, LanguageModel,
    common::HFGenerationConfig,
    encoder_decoder::{CpuBackend, EncoderDecoderGenerationBackend},
    pipeline::Seq2SeqLoader,
};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize| arguments.get(i).ok_or("an argument is missing")?.parse::<usize>().map_err(Box::<dyn Error>::from);
    let (directory, length, new, runs) = (Path::new(&arguments[1]), number(2)?, number(3)?, number(4)?);
    let config: Value = serde_json::from_str(&fs::read_to_string(directory.join("config.json"))?)?;
    let most = config["vocab_size"].as_u64().ok_or("no vocab_size")?.min(32_000) - 3;
    let source: Vec<u32> = (0..length as u64).map(|i| (3 + i * 7919 % most) as u32).collect();

    let begun = Instant::now();
    let generation = HFGenerationConfig::default();
    let model: T5Model = Seq2SeqLoader::load_from_pretrained(directory, Device::Cpu, None, None, generation)?;
    let load_s = begun.elapsed().as_secs_f64();
    let mut first_s = 0.0;
    let (mut encoder_ms, mut token_ms) = (vec![], vec![]);
    for run in 0..=runs {
        let start = Instant::now();
        let encoded = block_on(CpuBackend.encode(&model, &source, 1))?;
        let encoder = start.elapsed();
        let mut cache = model.new_cache(1, new, 1)?;
        let mut token = CpuBackend.create_token_tensor(&[0], 1)?;
        for i in 0..new {
            let logits = block_on(CpuBackend.decode_step(&model, &token, &encoded, cache.as_mut()))?;
            cache.increment_len(1);
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).ok_or("no logits")?.0;
            CpuBackend.update_token_tensor(&mut token, &[best as u32])?;
            if run == 0 && i == 0 {
                first_s = begun.elapsed().as_secs_f64();
            }
        }
        if run > 0 {
            encoder_ms.push(encoder.as_secs_f64() * 1e3);
            token_ms.push((start.elapsed() - encoder).as_secs_f64() * 1e3 / new as f64);
        }
    }
    let object = json!({
        "version": "kjarni 0.4.1", "load_s": load_s, "first_token_s": first_s, "encoder_ms": encoder_ms, "token_ms": token_ms,
        "peak_mib": peak_mib()?,
    });
    println!("{object}");
    Ok(())
}

fn peak_mib() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse::<f64>()? / 1024.0)
}
