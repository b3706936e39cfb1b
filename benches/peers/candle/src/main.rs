//! Times a T5 on candle: `candle_t5 DIRECTORY|FILE.gguf SOURCE NEW RUNS`, one JSON object out. A GGUF file lies beside the
//! folder of its checkpoint, whose config.json it needs.

use std::{error::Error, fs, path::Path, time::Instant};

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{quantized_t5, t5};
use serde_json::{Value, json};

enum Model {
    Float(t5::T5ForConditionalGeneration),
    Quantized(quantized_t5::T5ForConditionalGeneration),
}

impl Model {
    fn load(path: &str, mut config: Value) -> std::result::Result<Self, Box<dyn Error>> {
        config.as_object_mut().ok_or("no object")?.entry("initializer_factor").or_insert(1.0.into()); // candle wants it
        if path.ends_with(".gguf") {
            let weights = quantized_t5::VarBuilder::from_gguf(path, &Device::Cpu)?;
            let config = serde_json::from_value(config)?;
            return Ok(Self::Quantized(quantized_t5::T5ForConditionalGeneration::load(weights, &config)?));
        }
        let files = [format!("{path}/model.safetensors")];
        // SAFETY: nothing changes the file while it is mapped.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu)? };
        Ok(Self::Float(t5::T5ForConditionalGeneration::load(weights, &serde_json::from_value(config)?)?))
    }

    fn encode(&mut self, source: &Tensor) -> Result<Tensor> {
        match self {
            Self::Float(model) => {
                model.clear_kv_cache();
                model.encode(source)
            }
            Self::Quantized(model) => {
                model.clear_kv_cache();
                model.encode(source)
            }
        }
    }

    fn decode(&mut self, tokens: &Tensor, encoded: &Tensor) -> Result<Tensor> {
        match self {
            Self::Float(model) => model.decode(tokens, encoded),
            Self::Quantized(model) => model.decode(tokens, encoded),
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize| arguments.get(i).ok_or("an argument is missing")?.parse::<usize>().map_err(Box::<dyn Error>::from);
    let (path, length, new, runs) = (&arguments[1], number(2)?, number(3)?, number(4)?);
    let directory = path.split(".candle-").next().unwrap_or(path);
    let config: Value = serde_json::from_str(&fs::read_to_string(Path::new(directory).join("config.json"))?)?;
    let most = config["vocab_size"].as_u64().ok_or("no vocab_size")?.min(32_000) - 3;
    let source: Vec<u32> = (0..length as u64).map(|i| (3 + i * 7919 % most) as u32).collect();

    let begun = Instant::now();
    let mut model = Model::load(path, config)?;
    let load_s = begun.elapsed().as_secs_f64();
    let source = Tensor::new(source.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
    let mut first_s = 0.0;
    let (mut encoder_ms, mut token_ms) = (vec![], vec![]);
    for run in 0..=runs {
        let start = Instant::now();
        let encoded = model.encode(&source)?;
        let encoder = start.elapsed();
        let mut token = 0u32;
        for i in 0..new {
            let logits = model.decode(&Tensor::new(&[[token]], &Device::Cpu)?, &encoded)?;
            token = logits.argmax(D::Minus1)?.flatten_all()?.to_vec1::<u32>()?[0];
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
        "version": "candle 0.11", "load_s": load_s, "first_token_s": first_s, "encoder_ms": encoder_ms, "token_ms": token_ms,
        "peak_mib": peak_mib()?,
    });
    println!("{object}");
    Ok(())
}

fn peak_mib() -> std::result::Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse::<f64>()? / 1024.0)
}
