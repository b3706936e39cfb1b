//! Loads a T5 with candle and writes one token: `candle_loading DIRECTORY SOURCE_LENGTH`, one JSON object out.

use std::{error::Error, fs, time::Instant};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::t5::{Config, T5ForConditionalGeneration};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (directory, length): (_, u32) = (&arguments[1], arguments[2].parse()?);
    let begun = Instant::now();
    let mut config: Value = serde_json::from_str(&fs::read_to_string(format!("{directory}/config.json"))?)?;
    config.as_object_mut().ok_or("no object")?.entry("initializer_factor").or_insert(1.0.into()); // candle wants it
    let config: Config = serde_json::from_value(config)?;
    let files = [format!("{directory}/model.safetensors")];
    // SAFETY: nothing changes the file while it is mapped.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu)? };
    let mut model = T5ForConditionalGeneration::load(weights, &config)?;
    let loaded = begun.elapsed();
    let most = (config.vocab_size as u32).min(32_000) - 3;
    let source: Vec<u32> = (0..length).map(|i| 3 + i * 7919 % most).collect();
    let encoded = model.encode(&Tensor::new(source.as_slice(), &Device::Cpu)?.unsqueeze(0)?)?;
    model.decode(&Tensor::new(&[[0u32]], &Device::Cpu)?, &encoded)?.to_vec2::<f32>()?;
    let (loaded, first) = (loaded.as_secs_f64(), begun.elapsed().as_secs_f64());
    println!("{}", serde_json::json!({ "load_s": loaded, "first_token_s": first, "peak_mib": peak_mib()? }));
    Ok(())
}

fn peak_mib() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse::<f64>()? / 1024.0)
}
