//! `align` and `train`, which the feature `train` adds.

use std::fs;

use serde_json::Value;

use super::{Place, REFERENCES, SOURCES, pair};

#[test]
fn a_draft_decoder_is_made_and_drafts() {
    let place = Place::new();
    place.write("more.de", "Tom ist nicht zu Hause.\nIch lese ein Buch.\n\nSie hat einen Hund.\nIch habe Hunger.\n");
    let big = pair("big");
    let args =
        ["--big", &big, "--shared-encoder", "decoder=1", "--source", "more.de", "--out", "draft", "--steps", "3"];
    let short = ["--rounds", "1", "--valid-source", "s.de", "--valid-reference", "s.en", "--batch-tokens", "32"];
    let done = place.run("align", &[&args[..], &short].concat()).ok();
    assert!(done.out.starts_with("| | before | after |") && done.err.contains("1 of 5 sources are blank"), "{done:?}");
    let help = place.run("align", &["--help"]).ok().out;
    for name in ["README.md", "curve.svg", "alignment.json", "shortlist.json"] {
        assert!(place.at("draft").join(name).is_file() && help.contains(name), "{name}");
    }
    for name in ["model.safetensors", "config.json"] {
        assert!(place.at("draft").join(name).is_file(), "{name}");
    }
    let drafts = ["--big", &big, "--shared-encoder", "draft", "--policy", "lossless", "Ich habe Hunger."];
    let alone = place.run("translate", &["--big", &big, "--policy", "big", "Ich habe Hunger."]).ok();
    assert_eq!(place.run("translate", &drafts).ok().out, alone.out);
    let list = ["--shortlist", "draft/shortlist.json"];
    assert_eq!(place.run("translate", &[&drafts[..], &list].concat()).ok().out, alone.out);
    // It is done: the same again says the same figures of the same model, and another text is another alignment.
    place.write("more.de", "Ich bin da.\n");
    place.run("align", &[&args[..], &short].concat()).refused(1, "outputs.bin cannot be used");
}

#[test]
fn an_early_exit_is_trained_and_drafts() {
    let place = Place::new();
    let big = pair("big");
    let args = ["--big", &big, "--early-exit", "1", "--rank", "4", "--source", "s.de", "--out", "exit", "--steps", "2"];
    place.run("align", &[&args[..], &["--rounds", "1", "--held-out", "2"]].concat()).ok();
    let card = std::fs::read_to_string(place.at("exit").join("README.md")).unwrap();
    assert!(card.starts_with("# An early exit") && card.contains("--early-exit"), "{card}");
    let alone = place.run("translate", &["--big", &big, "--policy", "big", "Ich habe Hunger."]).ok();
    let drafts = ["--big", &big, "--early-exit", "exit", "--policy", "lossless", "--json", "Ich habe Hunger."];
    let drafted = place.run("translate", &drafts).ok();
    assert!(drafted.out.contains(alone.out.trim()) && !drafted.out.contains("\"draft_steps\":0"), "{drafted:?}");
    // It is of that model, and no model by itself.
    let little = pair("little");
    place
        .run("translate", &["--big", &little, "--early-exit", "exit", "Hallo"])
        .refused(1, "made for another big model");
    place.run("translate", &["--big", "exit", "--policy", "big", "Hallo"]).refused(1, "an early exit");
    let too_many = ["--big", &*big, "--source", "s.de", "--out", "x", "--held-out", "1", "--early-exit", "3"];
    place.run("align", &too_many).refused(1, "3 decoder layers were to draft for a T5 that has 3");
    let too_wide =
        ["--big", &*big, "--source", "s.de", "--out", "x", "--held-out", "1", "--early-exit", "1", "--rank", "193"];
    place.run("align", &too_wide).refused(1, "rank 193");
}

#[test]
fn what_is_to_be_aligned_is_named_once_and_rightly() {
    let place = Place::new();
    let big = pair("big");
    let run = |more: &[&str]| {
        let args = ["--big", &*big, "--source", "s.de", "--out", "draft"];
        place.run("align", &[&args[..], more].concat())
    };
    run(&[]).refused(2, "--little <DIR>|--shrink <LAYERS>|--shared-encoder <LAYERS>");
    run(&["--shrink", "decoder=1", "--little", "x"]).refused(2, "cannot be used with");
    run(&["--shrink", "decoder=0"]).refused(2, "neither a number of layers");
    run(&["--shrink", "decoder=9", "--held-out", "1"]).refused(1, "it was to keep 9 layers of a stack that has 3");
    run(&["--shared-encoder", "encoder=1"]).refused(2, "its encoder is the big model's");
    run(&["--little", "nosuch", "--held-out", "1"]).refused(1, "nosuch");
    run(&["--shrink", "decoder=1"]).refused(1, "4 different sources are too few: 500 are held out");
    run(&["--shrink", "decoder=1", "--loss", "x"]).refused(2, "possible values: kl, cross-entropy, tv");
}

#[test]
fn what_is_cut_is_said_before_it_is_trained_on() {
    let place = Place::new();
    let big = pair("big");
    let args = ["--big", &big, "--shared-encoder", "decoder=1", "--source", "s.de", "--out", "draft", "--steps", "1"];
    let short = ["--max-source-tokens", "3", "--max-new-tokens", "2", "--held-out", "2", "--rounds", "1"];
    let done = place.run("align", &[&args[..], &short].concat()).ok();
    // Once of those to train on, and once of those held out.
    for said in ["2 of 2 sources have more than 3 tokens", "2 of 2 outputs have not ended after 2 tokens"] {
        assert_eq!(done.err.matches(&format!("note: {said} and are cut")).count(), 2, "{said}: {done:?}");
    }
}

#[test]
fn a_little_model_of_other_tokens_is_refused() {
    let place = Place::new();
    let big = pair("big");
    let run = |little: &str| {
        let args = ["--big", &*big, "--little", little, "--source", "s.de", "--held-out", "1", "--out", "aligned"];
        place.run("align", &args)
    };
    let said = "the two models cannot decode together: ";
    place.run("train", &short_training(&place)).ok();
    run("model").refused(1, &format!("{said}the vocabulary size of the draft model is 64, of the verifier 4000"));

    // As large, and another tokenizer: two of its pieces have changed places.
    fs::create_dir(place.at("other")).unwrap();
    for entry in fs::read_dir(pair("little")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, place.at("other").join(path.file_name().unwrap())).unwrap();
    }
    let mut tokenizer: Value = serde_json::from_str(&place.read("other/tokenizer.json")).unwrap();
    tokenizer["model"]["vocab"].as_array_mut().unwrap().swap(100, 101);
    place.write("other/tokenizer.json", tokenizer.to_string());
    run("other").refused(1, &format!("{said}the tokenizer's piece for token 100"));
    assert!(!place.at("aligned").exists());
}

/// The arguments of a short training of a tiny model from two files, which it writes.
pub(super) fn short_training(place: &Place) -> Vec<&'static str> {
    // The last lines are held out: others than those before them.
    place.write("all.de", SOURCES.repeat(6) + "Gute Nacht.\nBis morgen.\nSehr gern.\nNicht hier.\n");
    place.write("all.en", REFERENCES.repeat(6) + "Good night.\nSee you tomorrow.\nWith pleasure.\nNot here.\n");
    let config = r#"{"model_type":"t5","vocab_size":64,"d_model":16,"d_kv":8,"num_heads":2,"d_ff":32,"num_layers":1,
        "num_decoder_layers":1,"feed_forward_proj":"gated-gelu","decoder_start_token_id":0,"eos_token_id":1,"pad_token_id":0}"#;
    place.write("config.json", config);
    let data = ["--source", "all.de", "--target", "all.en", "--out", "model", "--steps", "3", "--held-out", "4"];
    [&data[..], &["--config", "config.json"]].concat()
}

#[test]
fn a_model_is_trained_from_two_files() {
    let place = Place::new();
    let done = place.run("train", &short_training(&place)).ok();
    assert!(done.out.starts_with("4 held out: BLEU "), "{done:?}");
    place.run("translate", &["--big", "model", "--policy", "big", "--max-new-tokens", "5", "Hallo"]).ok();
    // And on from there.
    let on = ["--from", "model", "--work", "on.work", "--source", "all.de", "--target", "all.en", "--out", "on"];
    place.run("train", &[&on[..], &["--steps", "2", "--held-out", "4"]].concat()).ok();

    place.write("short.en", REFERENCES);
    let run = |target: &str, more: &[&str]| {
        let args = ["--source", "all.de", "--target", target, "--out", "x", "--config", "config.json"];
        place.run("train", &[&args[..], more].concat())
    };
    run("short.en", &[]).refused(1, "all.de has 28 lines, short.en has 4");
    run("all.en", &[]).refused(1, "28 pairs of texts are too few: 500 are held out");
    run("all.en", &["--held-out", "4", "--max-tokens", "2"]).refused(1, "nothing is left to train on");
    run("all.en", &["--held-out", "4", "--batch-tokens", "4"]).refused(1, "and a batch at most 4");
    run("all.en", &["--held-out", "4", "--learning-rate", "nan"]).refused(2, "expected a number");
    // What is no model is not replaced.
    std::fs::create_dir(place.at("x")).unwrap();
    place.write("x/notes.txt", "mine");
    run("all.en", &["--held-out", "4"]).refused(1, "notes.txt, which is of no model and would be lost");
}

#[test]
fn what_is_held_out_is_neither_trained_on_nor_counted_where_it_is_too_long() {
    let place = Place::new();
    let args = short_training(&place);
    let read = |name: &str| std::fs::read_to_string(place.at(name)).unwrap();
    // Two that are there before, and one that is too long.
    let long = "Nacht ".repeat(3000);
    place.write("all.de", read("all.de") + "Gute Nacht.\nBis morgen.\n" + &long + "\n");
    place.write("all.en", read("all.en") + "Good night.\nSee you tomorrow.\nNight.\n");
    let done = place.run("train", &[&args[..], &["--smoothing", "0.1"]].concat()).ok();
    assert!(done.err.contains("2 of 27 pairs of texts have a source that is held out"), "{done:?}");
    assert!(done.out.starts_with("3 held out: BLEU "), "{done:?}");
}

#[test]
fn pairs_that_are_not_trained_on_are_noted() {
    let place = Place::new();
    let args = short_training(&place);
    place.write("all.de", format!("\n{}\n", "Nacht ".repeat(3000)) + &place.read("all.de"));
    place.write("all.en", "Nothing.\nNight.\n".to_owned() + &place.read("all.en"));
    let done = place.run("train", &args).ok();
    for why in ["have a blank side", "have a side of more than 128 tokens"] {
        let said = format!("note: 1 of 26 pairs of texts {why} and are left out");
        assert!(done.err.contains(&said), "{said}: {done:?}");
    }
}

#[test]
fn a_tokenizer_that_the_vocabulary_does_not_hold_is_refused() {
    let place = Place::new();
    let args = short_training(&place);
    fs::copy(format!("{}/tokenizer.json", pair("big")), place.at("large.json")).unwrap();
    let large = place.run("train", &[&args[..], &["--tokenizer", "large.json"]].concat());
    large.refused(1, "large.json has 4000 tokens, expected at most the 64 of `vocab_size` in config.json");
    // One that it holds is taken as it is.
    place.run("train", &args).ok();
    let again: Vec<&str> = args.iter().map(|&arg| if arg == "model" { "again" } else { arg }).collect();
    place.run("train", &[&again[..], &["--tokenizer", "model/tokenizer.json"]].concat()).ok();
    assert_eq!(place.read("again/tokenizer.json"), place.read("model/tokenizer.json"));
}

/// The model is there by then; what it is worth the same command finds out.
#[cfg(unix)]
#[test]
fn a_training_stops_while_it_measures() {
    use std::{
        process::{Command, Stdio},
        thread,
        time::Duration,
    };

    let place = Place::new();
    let args = short_training(&place);
    // So many that measuring takes longer than a signal.
    place.write("all.de", place.read("all.de") + &"Gute Nacht.\n".repeat(2000));
    place.write("all.en", place.read("all.en") + &"Good night.\n".repeat(2000));
    let args: Vec<&str> = args.iter().map(|&arg| if arg == "4" { "2004" } else { arg }).collect();
    let mut command = place.command("train", &[&args[..], &["--max-tokens", "1000"]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !place.at("model").exists() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let stopped = super::ended(child.wait_with_output().unwrap());
    assert!(stopped.code == Some(1) && stopped.out.is_empty(), "{stopped:?}");
    assert!(stopped.err.contains("stopped: the same command goes on from model.work"), "{stopped:?}");
}

#[test]
fn a_tokenizer_is_of_the_texts_that_are_trained_on() {
    let place = Place::new();
    let args = short_training(&place);
    place.run("train", &[&args[..], &["--batch-tokens", "4"]].concat()).refused(1, "and a batch at most 4");
    let tokenizer = |folder: &str| std::fs::read_to_string(place.at(folder).join("tokenizer.json")).unwrap();
    let first = tokenizer("model.work");
    let texts = "Der Hund bellt laut.\nEin Vogel singt dort.\n".repeat(6) + "Ja.\nNein.\nDoch.\nGut.\n";
    place.write("all.de", &texts);
    place.write("all.en", &texts);
    place.run("train", &args).ok();
    let of_these = tokenizer("model.work");
    assert!(of_these != first && of_these == tokenizer("model"));
    // It is done: nothing is made again.
    place.run("train", &args).ok();
    assert!(of_these == tokenizer("model.work"));
}

#[test]
fn a_folder_with_a_slash_keeps_its_work_and_what_has_no_effect_is_said() {
    let place = Place::new();
    let big = pair("big");
    let args = ["--big", &big, "--shared-encoder", "decoder=1", "--source", "s.de", "--out", "draft/", "--steps", "1"];
    let ignored = ["--rank", "8", "--smoothing", "0.1", "--seed", "7"];
    let done = place.run("align", &[&args[..], &["--rounds", "1", "--held-out", "2"], &ignored].concat()).ok();
    assert_eq!(done.err.matches("has no effect").count(), 3, "{done:?}");
    assert!(place.at("draft.work/outputs.bin").is_file() && place.at("draft/model.safetensors").is_file());
}
