//! What programs write, and what they keep.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
};

use serde_json::Value;

use crate::{Ended, Place, REFERENCES, SHORT, SOURCES, ended, pair};

/// Every program with arguments that make it write, and what else it leaves behind.
fn all() -> Vec<(&'static str, Vec<String>, Option<&'static str>)> {
    let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let big = pair("big");
    let evaluate = own(&[&SHORT[..], &["--hyp", "hyp.en"]].concat());
    let sweep = own(&["--source", "s.de", "--reference", "s.en", "--count", "1", "--grid", "--svg", "x.svg"]);
    vec![
        ("translate", own(&["--file", "s.de"]), None),
        ("summarize", own(&["--big", &big, "--prefix", "", "Ich bin müde."]), None),
        ("evaluate", evaluate, Some("hyp.en")),
        ("sweep", sweep, Some("x.svg")),
        ("trace", own(&["Ich bin müde.", "--html", "t.html"]), Some("t.html")),
        ("bench", own(&["--model", &big, "--new-tokens", "2", "--runs", "1", "--json"]), None),
        ("tune", own(&["--help"]), None),
        ("completions", own(&["bash"]), None),
    ]
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for (name, args, leaves) in all() {
        let place = Place::new();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut child = place.command(name, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        ended(child.wait_with_output().unwrap()).ok();
        assert!(leaves.is_none_or(|file| place.at(file).exists()), "{name} has written its other output");
    }
}

#[test]
fn a_full_disk_is_a_sentence() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    for (name, args, leaves) in all() {
        let place = Place::new();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = place.command(name, &args).stdout(full.try_clone().unwrap()).output().unwrap();
        ended(output).refused(1, "error: standard output cannot be written: No space left");
        assert!(leaves.is_none_or(|file| place.at(file).exists()), "{name} has written its other output");
        // Nobody is left to tell, and that is no reason to fail.
        let output = place.command(name, &args).stderr(full.try_clone().unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}");
    }
    let place = Place::new();
    place.run("trace", &["Ich bin müde.", "--html", "/dev/full"]);
    let ended = place.run("trace", &["Ich bin müde.", "--html", "/dev/full"]);
    assert!(ended.code == Some(1) && ended.err.contains("/dev/full cannot be written: No space left"), "{ended:?}");
    assert!(!ended.out.is_empty(), "what was found is shown before the file is written");
}

#[test]
fn outputs_are_tried_before_the_work() {
    let place = Place::new();
    place.write("long.de", SOURCES.repeat(10));
    place.write("long.en", REFERENCES.repeat(10));
    fs::create_dir(place.at("folder")).unwrap();
    let data = ["--source", "long.de", "--reference", "long.en"];
    for (name, option) in [
        ("evaluate", "--hyp"),
        ("evaluate", "--resume"),
        ("sweep", "--svg"),
        ("sweep", "--costs"),
        ("sweep", "--resume"),
        ("tune", "--out"),
        ("tune", "--resume"),
        ("tune", "--costs"),
    ] {
        for (path, said) in [
            ("nosuch/x", "cannot be written: its folder nosuch"),
            ("folder", "cannot be written: it is a folder"),
            ("-", "- is standard input"),
            ("long.de", "is read as --source"),
        ] {
            let ended = place.run(name, &[&data[..], &[option, path]].concat()).refused(1, said);
            assert!(ended.err.contains(&format!("error: {option}")), "{ended:?}");
        }
    }
    // Nor is a list of tokens that is read written over.
    place.write("list.json", "{}");
    for (name, args) in [
        ("tune", &[&data[..], &["--out"]].concat()),
        ("evaluate", &[&data[..], &["--hyp"]].concat()),
        ("sweep", &[&data[..], &["--svg"]].concat()),
        ("trace", &vec!["Hallo.", "--html"]),
    ] {
        let list = ["list.json", "--shortlist", "list.json"];
        place.run(name, &[&args[..], &list].concat()).refused(1, "is read as --shortlist");
    }
    place.run("trace", &["Hallo.", "--html", "nosuch/x"]).refused(1, "--html: nosuch/x cannot be written");
    let twice = [&data[..], &["--svg", "x", "--resume", "./x"]].concat();
    place.run("sweep", &twice).refused(1, "--svg and --resume both write ./x");
    let config = Path::new(&pair("little")).join("config.json");
    let before = fs::read(&config).unwrap();
    let onto_model = [&data[..], &["--out", config.to_str().unwrap()]].concat();
    place.run("tune", &onto_model).refused(1, "is read as --little");
    assert_eq!(fs::read(&config).unwrap(), before);
    assert_eq!(place.read("long.de"), SOURCES.repeat(10));
    let left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 6, "{left:?}");
}

#[test]
fn a_log_is_gone_on_with_only_for_the_same_contents() {
    let place = Place::new();
    let args = |more: &[&'static str]| [&SHORT[..], &["--json", "--resume", "run.log"], more].concat();
    let bleu = |ended: Ended| serde_json::from_str::<Value>(&ended.ok().out).unwrap()["bleu"].clone();
    place.write("run.log", "");
    place.run("evaluate", &args(&["--count", "2"])).ok();
    let all = bleu(place.run("evaluate", &args(&[])));
    assert_eq!(place.read("run.log").lines().count(), 5, "more sentences go on");
    let log = place.read("run.log");

    place.write("other.de", SOURCES);
    let moved = ["--source", "other.de", "--reference", "s.en", "--rounds", "1", "--json", "--resume", "run.log"];
    assert_eq!(bleu(place.run("evaluate", &moved)), all, "the same by another path");

    let backwards = |text: &str| text.lines().rev().map(|line| format!("{line}\n")).collect::<String>();
    place.write("s.en", backwards(REFERENCES));
    place.run("evaluate", &args(&[])).refused(1, "(the references differ): name a new file");
    place.write("s.de", backwards(SOURCES));
    place.run("evaluate", &args(&[])).refused(1, "(the references and the sources differ)");
    place.write("s.de", SOURCES);
    place.write("s.en", REFERENCES);
    place.run("evaluate", &args(&["--rollback", "1"])).refused(1, "(the policy differs)");
    place.run("evaluate", &args(&["--prefix", "x"])).refused(1, "(the prefix differs)");
    place.run("evaluate", &args(&["--max-new-tokens", "9"])).refused(1, "(the settings differ)");
    let little = pair("little");
    place.run("evaluate", &args(&["--precision", "int8"])).refused(1, "precision");
    let other_big = [&args(&[])[..], &["--big", &little, "--little", &little]].concat();
    place.run("evaluate", &other_big).refused(1, "(the big model differs)");
    place
        .run("sweep", &["--source", "s.de", "--reference", "s.en", "--resume", "run.log"])
        .refused(1, "is a log of evaluate");
    assert_eq!(place.read("run.log"), log, "what is refused is left as it is");

    // Cut off in the middle of a record, in the middle of a letter.
    place.write("run.log", &log.as_bytes()[..log.len() - 20]);
    assert_eq!(bleu(place.run("evaluate", &args(&[]))), all);
    place.write("run.log", log.replacen("log_format\":2", "log_format\":1", 1));
    place.run("evaluate", &args(&[])).refused(1, "is a log of format 1");
    place.write("run.log", "Args { source: None }\n");
    place.run("evaluate", &args(&[])).refused(1, "older version");
}

#[test]
fn costs_are_of_the_pair_that_was_measured() {
    let place = Place::new();
    let data = ["--source", "s.de", "--reference", "s.en", "--count", "1", "--grid", "--json"];
    let sweep = |more: &[&str]| place.run("sweep", &[&data[..], more].concat());
    let costs = |name: &str| serde_json::from_str::<Value>(&place.read(name)).unwrap();
    sweep(&["--resume", "run.one"]).ok();
    sweep(&["--resume", "run.two", "--precision", "int8", "--threads", "1"]).ok();
    let [one, two] = [costs("run.one.costs.json"), costs("run.two.costs.json")];
    assert_ne!(one["verify"], two["verify"]);
    assert_eq!(two["measured_with"]["the big model's precision"], "Int8");
    // Costs that are named are read for the same pair and refused for another.
    assert!(sweep(&["--costs", "run.one.costs.json"]).ok().err.contains("is read from run.one.costs.json"));
    let refused = sweep(&["--costs", "run.one.costs.json", "--precision", "int8"]);
    refused.refused(
        1,
        "were measured for something else (the big model's precision and the little model's precision differ)",
    );
    assert_eq!(costs("run.one.costs.json"), one);
    // Beside a new log they are measured anew.
    fs::rename(place.at("run.two.costs.json"), place.at("run.new.costs.json")).unwrap();
    let anew = sweep(&["--resume", "run.new"]).ok();
    assert!(anew.err.contains("they are measured anew"), "{anew:?}");
    assert_eq!(costs("run.new.costs.json")["measured_with"], one["measured_with"]);
    // Nor do costs that a log goes with give way to others.
    sweep(&["--resume", "run.one", "--precision", "int8"])
        .refused(1, "precision differ): name a new file for --resume");
    assert_eq!(costs("run.one.costs.json"), one);
    // An old log and costs that were measured anew do not go together.
    fs::remove_file(place.at("run.one.costs.json")).unwrap();
    sweep(&["--resume", "run.one"]).refused(1, "(the costs of passes differ)");
}

#[test]
fn a_tuned_policy_is_written_and_read() {
    let place = Place::new();
    place.write("s.de", SOURCES.repeat(10));
    place.write("s.en", REFERENCES.repeat(10));
    let data = ["--source", "s.de", "--reference", "s.en", "--max-new-tokens", "1", "--timed", "2"];
    let found = place.run("tune", &[&data[..], &["--out", "p.json", "--json"]].concat()).ok();
    let found: Value = serde_json::from_str(&found.out).unwrap();
    let clock = &found["judged_on"]["by_the_clock"];
    assert!(clock["speedup"].as_f64().unwrap() > 0.0 && clock["sentences"] == 2, "{found}");
    assert_eq!(found["truncated"], 0);
    let written: Value = serde_json::from_str(&place.read("p.json")).unwrap();
    assert_eq!(written["policy"], found["policy"]["policy"]);
    place.run("translate", &["--policy-file", "p.json", "Ich bin müde."]).ok();
}

#[test]
fn how_drafts_are_made_is_chosen_too() {
    let place = Place::new();
    place.write("s.de", SOURCES.repeat(10));
    place.write("s.en", REFERENCES.repeat(10));
    // A list of what is never written drafts what never stands.
    place.write("useless.json", r#"{"frequent": [3999]}"#);
    let tune = |args: &[&str]| {
        let data =
            ["--source", "s.de", "--reference", "s.en", "--max-new-tokens", "8", "--timed", "2", "--out", "p.json"];
        place.run("tune", &[&data[..], args].concat())
    };
    let choices = ["--try-precisions", "f32,int4", "--try-shortlists", "useless.json"];
    let found: Value = serde_json::from_str(&tune(&[&choices[..], &["--json"]].concat()).ok().out).unwrap();
    let ways = found["drafts"].as_array().unwrap();
    assert_eq!(ways.len(), 4);
    let speeds: Vec<f64> = ways.iter().map(|way| way["speedup"].as_f64().unwrap()).collect();
    assert!(speeds.is_sorted_by(|a, b| a >= b) && speeds[3] > 0.0, "{found}");
    assert!(ways[0]["shortlist"].is_null(), "{found}");
    let out = tune(&choices[..2]).ok().out;
    assert!(out.contains("fastest losslessly") && out.contains("--little-precision "), "{out}");
    tune(&["--try-precisions", "int8", "--little-precision", "f32"]).refused(2, "cannot be used with");
    tune(&["--try-shortlists", "nosuch.json"]).refused(1, "nosuch.json");
    let lookup = ["--big", &pair("big"), "--lookup", "both", "--try-precisions", "f32,int4"];
    tune(&lookup).refused(1, "look-up has no weights");
}
