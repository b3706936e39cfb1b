//! What a corrector is worth: the words that are wrong in its sources and in what it writes, by edit distance to the references.
//!
//! cargo run --release -p bild-train --example word_errors -- noisy.en clean.en corrected.en

use std::{env, fs};

/// How many words are to be put in, taken out or replaced to get from one line to the other.
fn errors(found: &str, expected: &str) -> usize {
    let expected: Vec<&str> = expected.split_whitespace().collect();
    let mut row: Vec<usize> = (0..=expected.len()).collect();
    for (i, word) in found.split_whitespace().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in expected.iter().enumerate() {
            let replaced = corner + usize::from(word != *other);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[expected.len()]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [noisy, clean, corrected] = &args[..] else {
        return Err("expected the sources, the references and what was written for the sources".into());
    };
    let [noisy, clean, corrected] = [noisy, clean, corrected].map(fs::read_to_string);
    let texts = [noisy?, clean?, corrected?];
    let [noisy, clean, corrected] = texts.each_ref().map(|text| text.lines());
    let count = clean.clone().count();
    if [noisy.clone().count(), corrected.clone().count()] != [count, count] || count == 0 {
        return Err("expected three files with the same number of lines".into());
    }
    let words: usize = clean.clone().map(|line| line.split_whitespace().count()).sum();
    let sum = |lines: std::str::Lines<'_>| lines.zip(clean.clone()).map(|(line, clean)| errors(line, clean)).sum();
    let (before, after): (usize, usize) = (sum(noisy), sum(corrected));
    println!("{count} lines, {words} words: {before} wrong in the sources, {after} in what was written");
    Ok(())
}
