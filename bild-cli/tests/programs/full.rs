//! A disk that is full, for every file that a command writes: a sentence, what was there stays, and what was done is gone on with.
//! A limit on the size of files stands in for the disk, which the system enforces alike.

use std::fs;

use super::*;

/// Runs a command whose files can have so many blocks of 512 bytes, or of 1024, as the shell has it.
fn with_room(place: &Place, blocks: usize, name: &str, args: &[&str]) -> Ended {
    let script = format!("trap '' XFSZ; ulimit -f {blocks} || exit 99; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, BILD, name]).args(args).current_dir(place.0.path());
    let ended = ended(command.env("BILD_MODELS", models()).stdin(Stdio::null()).output().unwrap());
    assert!(ended.code != Some(99) && !ended.err.contains("panicked"), "{name} {args:?}: {ended:?}");
    ended
}

#[test]
fn a_full_disk_is_a_sentence_for_every_file() {
    let data = ["--source", "s.de", "--reference", "s.en"];
    let short = [&data[..], &["--rounds", "1"]].concat();
    let grid = [&data[..], &["--count", "1", "--grid"]].concat();
    let tuned = ["--source", "long.de", "--reference", "long.en", "--max-new-tokens", "8", "--timed", "2"];
    let list = ["--source", "long.de", "--frequent", "10"];
    let corpus = ["--jsonl", "--file", "in.jsonl"];
    let trace = ["Ich bin müde."];
    for (name, args, option) in [
        ("evaluate", &short[..], "--hyp"),
        ("evaluate", &short, "--resume"),
        ("sweep", &grid, "--svg"),
        ("sweep", &grid, "--costs"),
        ("sweep", &grid, "--resume"),
        ("tune", &tuned, "--out"),
        ("tune", &tuned, "--costs"),
        ("tune", &tuned, "--resume"),
        ("trace", &trace, "--html"),
        ("shortlist", &list, "--out"),
        ("translate", &corpus, "--out"),
    ] {
        let place = Place::new();
        place.write("long.de", SOURCES.repeat(10));
        place.write("long.en", REFERENCES.repeat(10));
        place.write("in.jsonl", r#"{"id": 1, "text": "Ich bin müde."}"#);
        let overwrites = ["--hyp", "--svg", "--html"].contains(&option)
            || ["tune", "shortlist"].contains(&name) && option == "--out";
        if overwrites {
            place.write("x", "what was there");
        }
        let args = [args, &[option, "x"]].concat();
        let full = with_room(&place, 0, name, &args);
        assert!(full.code == Some(1) && full.err.contains("error: "), "{name} {option}: {full:?}");
        assert!(full.err.contains("cannot be ") && full.err.contains("too large"), "{name} {option}: {full:?}");
        if overwrites {
            assert_eq!(place.read("x"), "what was there", "{name} {option}");
        }
        let left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.len() <= 6, "{name} {option}: {left:?}");
        // There is room again.
        place.run(name, &args).ok();
        assert!(place.at("x").metadata().unwrap().len() > 0, "{name} {option}");
    }
}

#[cfg(feature = "train")]
#[test]
fn a_full_disk_in_the_middle_of_a_training_loses_nothing() {
    let place = Place::new();
    let big = pair("big");
    let align = ["--big", &*big, "--early-exit", "1", "--rank", "4", "--source", "s.de", "--out", "out"];
    let align = [&align[..], &["--rounds", "1", "--held-out", "2", "--steps", "2"]].concat();
    let train = align::short_training(&place);
    for (name, args, made) in [("align", align, "out"), ("train", train, "model")] {
        for blocks in [0, 2, 8, 40] {
            let full = with_room(&place, blocks, name, &args);
            assert!(full.code == Some(1) && full.err.contains("error: "), "{name}, {blocks} blocks: {full:?}");
            assert!(
                full.err.contains("written") && full.err.contains("too large"),
                "{name}, {blocks} blocks: {full:?}"
            );
        }
        place.run(name, &args).ok();
        assert!(place.at(made).join("model.safetensors").is_file(), "{name}");
    }
}
