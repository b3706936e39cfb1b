//! The program as a whole.

use std::fs;

use serde_json::Value;

use crate::{Place, models, pair};

#[test]
fn the_help_fits_one_screen_and_the_version_is_said() {
    let place = Place::new();
    let help = place.run("--help", &[]).ok().out;
    let rows = |line: &str| line.chars().count().div_ceil(80).max(1);
    assert!(help.lines().map(rows).sum::<usize>() <= 24, "{help}");
    for command in ["translate", "summarize", "evaluate", "sweep", "tune", "trace", "bench", "completions"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{help}");
        assert!(place.run(command, &["--help"]).ok().out.contains("Usage: bild "));
    }
    assert_eq!(place.run("--version", &[]).ok().out, format!("bild {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(place.run("completions", &[shell]).ok().out.contains("translate"), "{shell}");
    }
}

#[test]
fn models_and_policies_are_named_alike_in_every_command() {
    let place = Place::new();
    for command in ["translate", "summarize", "evaluate", "sweep", "tune", "trace", "bench"] {
        let help = place.run(command, &["--help"]).ok().out;
        for option in
            ["--big", "--little", "--lookup", "--early-exit", "--shared-encoder", "--precision", "--little-precision"]
        {
            assert!(help.contains(option), "{command} {option}");
        }
        assert!(help.contains("--threads"), "{command}");
        let chooses = ["sweep", "tune"].contains(&command);
        assert_eq!(help.contains("--policy-file <FILE>"), !chooses, "{command}");
    }
}

#[test]
fn without_a_model_it_is_said_how_to_name_one() {
    let place = Place::new();
    let alone = |args: &[&str]| {
        let mut command = place.command(args[0], &args[1..]);
        crate::ended(command.env_remove("BILD_MODELS").output().unwrap())
    };
    for args in [
        &["translate", "Hallo."][..],
        &["summarize", "Hallo."],
        &["trace", "Hallo."],
        &["bench"],
        &["evaluate", "--source", "s.de", "--reference", "s.en"],
        &["sweep", "--source", "s.de", "--reference", "s.en"],
        &["tune", "--source", "s.de", "--reference", "s.en"],
    ] {
        let refused = alone(args);
        assert!(refused.err.contains("--big") && refused.err.contains("BILD_MODELS"), "{refused:?}");
        refused.refused(1, "no model is named, and there is no models/de-en");
    }
    let there = place.run("translate", &["Ich bin müde."]).ok().out;
    fs::create_dir_all(place.at("models/de-en")).unwrap();
    for role in ["big", "little"] {
        fs::create_dir(place.at("models/de-en").join(role)).unwrap();
        for entry in fs::read_dir(models().join("de-en").join(role)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, place.at("models/de-en").join(role).join(path.file_name().unwrap())).unwrap();
        }
    }
    assert_eq!(alone(&["translate", "Ich bin müde."]).ok().out, there);
}

#[test]
fn what_is_benched_is_named() {
    let place = Place::new();
    let short = ["--new-tokens", "2", "--source-len", "4", "--runs", "1", "--json"];
    let found = |args: &[&str]| -> Value {
        serde_json::from_str(&place.run("bench", &[args, &short].concat()).ok().out).unwrap()
    };
    let one = found(&["--model", &pair("big")]);
    assert_eq!((&one["model"], &one["little"]), (&pair("big").into(), &Value::Null));
    assert_eq!(one["stats"]["draft_steps"], 0);
    assert_eq!(found(&["--lookup", "both"])["little"], Value::Null);
    for policy in [&[][..], &["--policy", "lossless"]] {
        let default = found(policy);
        assert_eq!((&default["model"], &default["little"]), (&pair("big").into(), &pair("little").into()));
        // Whether drafting pays is what the policy without a name goes by.
        assert!(policy.is_empty() || default["stats"]["draft_steps"] != 0, "{default}");
    }
}

#[test]
fn many_sources_are_timed_together() {
    let place = Place::new();
    let many = ["--sources", "4", "--source-len", "8", "--new-tokens", "8", "--batch", "2", "--runs", "3", "--json"];
    let found = |models: &[&str]| -> Value {
        serde_json::from_str(&place.run("bench", &[models, &many].concat()).ok().out).unwrap()
    };
    let (big, little) = (pair("big"), pair("little"));
    let alone = found(&["--model", &big]);
    let drafted = found(&["--model", &big, "--little", &little, "--policy", "lossless"]);
    for benched in [&alone, &drafted] {
        let [median, least, most] =
            ["tokens_per_s", "tokens_per_s_min", "tokens_per_s_max"].map(|name| benched[name].as_f64().unwrap());
        assert!(0.0 < least && least <= median && median <= most, "{benched}");
        assert_eq!(
            (&benched["sources"], &benched["batch"], &benched["stats"]["tokens"]),
            (&4.into(), &2.into(), &32.into())
        );
        assert_eq!(benched["runs"].as_array().unwrap().len(), 3);
    }
    assert_eq!(alone["stats"]["draft_steps"], 0);
    assert!(drafted["stats"]["draft_steps"].as_u64().unwrap() > 0, "{drafted}");
}

/// What decodes alone counts as what it is beside the big model.
#[test]
fn the_little_model_alone_drafts_and_verifies_nothing() {
    let place = Place::new();
    let args = [&crate::SHORT[..], &["--policy", "little", "--json"]].concat();
    let found: Value = serde_json::from_str(&place.run("evaluate", &args).ok().out).unwrap();
    assert_eq!(found["verifier_calls"], 0);
    assert!(found["draft_steps"].as_u64().unwrap() > 0, "{found}");
    let none = place.run("evaluate", &[&crate::SHORT[..], &["--policy", "little", "--lookup", "both"]].concat());
    none.refused(1, "the little model alone needs a little model");
}
