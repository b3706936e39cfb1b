//! Chooses the fastest policy that loses at most a point of BLEU on texts of your own: 40 at least, one a line.
//!
//! cargo run --release --example tune -- valid.de valid.en policy.json

use std::{env, fs};

use bild::{Checkpoint, Flex, Settings, T5, decode::Pair};
use bild_eval::{Bench, Costs, Log, Metric, TuneOptions, dataset, tune};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [source, reference, policy] = env::args().skip(1).collect::<Vec<_>>().try_into().expect("three files");
    let (big, little) = (Checkpoint::open("models/de-en/big")?, Checkpoint::open("models/de-en/little")?);
    let device = Default::default();
    let pair = (T5::<Flex>::load(&little, &device)?, T5::<Flex>::load(&big, &device)?).boxed();

    let data = dataset::read_lines(source.as_ref(), reference.as_ref())?;
    let bench = Bench::new(pair, big.tokenizer()?, data, "", Settings::default())?;
    let costs = Costs::measure(&bench.pair, bench.mean_length(), &())?;
    let options = TuneOptions::default().with_loss(1.0, Metric::Bleu);
    let tuned = tune(&bench, &costs, &options, Log::in_memory(), &())?;
    println!("{}: {}, {:.2} times as fast", tuned.curve, tuned.setting, tuned.judged_on.speedup);
    if !tuned.is_allowed {
        return Err("no policy is sure enough to lose no more than that".into());
    }
    fs::write(policy, serde_json::to_string(&tuned.policy)?)?;
    Ok(())
}
