//! Data for a corrector: sentences with mistakes in them, and the same as they were. Each line is one to three sentences of the file
//! after each other, so that some are long.
//!
//! cargo run --release -p bild-train --example noise -- train.en 1 noisy.en clean.en

use std::{env, fs};

use bild_train::EnglishNoise;

/// One word in so many has a mistake.
const WORDS: f64 = 12.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [file, seed, noisy, clean] = &args[..] else {
        return Err("expected a file of sentences, a seed, and the two files to write".into());
    };
    let text = fs::read_to_string(file)?;
    let mut noise = EnglishNoise::new(1.0 / WORDS, seed.parse()?);
    let mut sentences = text.lines().filter(|line| !line.trim().is_empty());
    let (mut wrong, mut right) = (String::new(), String::new());
    for count in [1, 2, 3].into_iter().cycle() {
        let line: Vec<&str> = sentences.by_ref().take(count).collect();
        if line.is_empty() {
            break;
        }
        let line = line.join(" ");
        wrong += &(noise.apply(&line).0 + "\n");
        right += &(line + "\n");
    }
    fs::write(noisy, wrong)?;
    fs::write(clean, right)?;
    Ok(())
}
