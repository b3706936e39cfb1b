//! A pair on a device, for which the backends compiled in are taken one after the other:
//!
//! cargo bench --bench device --features cuda -- [--precision f16] [--new-tokens 64] [--runs 5] BIG [LITTLE]
//!
//! A line of JSON for each backend: milliseconds (median of the runs) of the encoder for 64 tokens, of passes of some numbers of rows,
//! and of a token by the big model alone and, with a little one, by `Lossless` and `CostAware`, always the same fixed ids.

use std::{error::Error, time::Instant};

use bild::burn::tensor::backend::Backend;
use bild::{
    Checkpoint, LoadOptions, Lossless, Precision, Settings, T5,
    decode::{
        BoxedPair, Generator, Model, NoDraft, Pair, Pass, Policy, SessionLimit, Source, Token, VerifierSession, Want,
    },
    policies::CostAware,
};
use serde_json::json;

struct Options {
    precision: Precision,
    new_tokens: usize,
    runs: usize,
    directories: Vec<String>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { precision: Precision::F32, new_tokens: 64, runs: 5, directories: Vec::new() };
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--precision" => options.precision = serde_json::from_value(json!(value()?))?,
            "--new-tokens" => options.new_tokens = value()?.parse()?,
            "--runs" => options.runs = value()?.parse()?,
            _ => options.directories.push(argument),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    if options.directories.is_empty() {
        return Ok(()); // as where all benchmarks are run
    }
    #[cfg(feature = "cuda")]
    measure::<bild::backends::Cuda>(&options)?;
    #[cfg(feature = "wgpu")]
    measure::<bild::backends::Wgpu>(&options)?;
    #[cfg(feature = "tch")]
    measure::<bild::backends::LibTorch>(&options)?;
    #[cfg(feature = "ndarray")]
    measure::<bild::backends::NdArray>(&options)?;
    if options.precision.eq(&Precision::F32) {
        measure::<bild::Flex>(&options)?;
    }
    Ok(())
}

fn measure<B: Backend>(options: &Options) -> Result<(), Box<dyn Error>> {
    let device = B::Device::default();
    let load = |directory: &String| {
        let options = LoadOptions::default().with_precision(options.precision);
        T5::<B>::load_with(&Checkpoint::open(directory)?, &device, &options)
    };
    let models = options.directories.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let (big, little) = (&models[0], models.get(1));
    let most = (big.config().vocab_size as Token).min(32_000) - 3;
    let source = Source::new((0..64).map(|i| 3 + i * 7919 % most).collect::<Vec<_>>());
    let settings = Settings::default().with_max_new_tokens(options.new_tokens).with_end_tokens([]);
    let median = |mut run: Box<dyn FnMut() -> Result<f64, Box<dyn Error>> + '_>| {
        run()?; // compiles, and touches all pages
        let mut times = (0..options.runs).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
        times.sort_by(f64::total_cmp);
        Ok::<_, Box<dyn Error>>(times[times.len() / 2])
    };
    let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
    let encoder_ms = median(Box::new(|| {
        let begun = Instant::now();
        big.encode(&source)?;
        Ok(milliseconds(begun))
    }))?;
    let mut pass_ms = serde_json::Map::new();
    for rows in [1, 4, 8, 11] {
        let mut session = big.begin(&source, &SessionLimit::new(128))?;
        session.score(&Pass::verify(0, &[0; 40], Want::default()))?;
        let pass = vec![5; rows];
        let time = median(Box::new(|| {
            let begun = Instant::now();
            session.score(&Pass::verify(40, &pass, Want::default()))?;
            Ok(milliseconds(begun))
        }))?;
        pass_ms.insert(rows.to_string(), json!(time));
    }
    let token_ms = |pair: BoxedPair, policy: Box<dyn Policy>| {
        let source = &source;
        let generator = Generator::new(pair, policy)?.with_settings(settings.clone());
        median(Box::new(move || {
            let output = generator.generate(source)?;
            let time = output.statistics.total_time - output.statistics.encode_time;
            Ok(time.as_secs_f64() * 1e3 / output.tokens.len() as f64)
        }))
    };
    let mut found = json!({ "backend": B::name(&device), "precision": options.precision, "encoder_ms": encoder_ms, "pass_ms": pass_ms });
    found["token_ms"] = json!(token_ms((NoDraft, big.clone()).boxed(), Box::<Lossless>::default())?);
    if let Some(little) = little {
        let pair = || (little.clone(), big.clone()).boxed();
        found["lossless_token_ms"] = json!(token_ms(pair(), Box::<Lossless>::default())?);
        found["cost_aware_token_ms"] = json!(token_ms(pair(), Box::<CostAware>::default())?);
    }
    println!("{found}");
    Ok(())
}
