//! How many tokens of targets a second are trained on: `training_speed MODEL [SEQUENCES SOURCE TARGET STEPS]`, with random tokens.
//! `benches/peers/training.py` measures PyTorch on the same.

use std::time::Instant;

use bild::Checkpoint;
use bild_train::{Example, Flex, Settings, T5, Trainer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let [sequences, source, target, steps] = [number(1, 64)?, number(2, 24)?, number(3, 16)?, number(4, 10)?];
    let device = Default::default();
    let checkpoint = Checkpoint::open(arguments.first().ok_or("which model?")?)?;
    let model = T5::<Flex>::open(&checkpoint, &device)?;
    let vocab = model.config().vocab_size as u32;
    let tokens = |length: usize, at: usize| (0..length).map(|i| ((i * 7919 + at * 104_729) as u32) % vocab).collect();
    let example = |i| Example { source: tokens(source, i), target: tokens(target, i + 1), teacher: None };
    let examples: Vec<Example> = (0..sequences).map(example).collect();
    let settings = Settings { tokens: sequences * source.max(target), ..Settings::default() };
    let mut trainer = Trainer::new(model, examples, settings, &device)?;
    for _ in 0..2 {
        trainer.step()?;
    }
    let begun = Instant::now();
    let mut trained = 0;
    for _ in 0..steps {
        let step = trainer.step()?;
        trained += step.tokens;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{:.0} tokens of targets a second, {:.0} ms a step",
        trained as f64 / seconds,
        1e3 * seconds / steps as f64
    );
    Ok(())
}
