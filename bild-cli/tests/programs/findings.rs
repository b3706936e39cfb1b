//! What is wrong with what is read, said before the work or beside the result.

use serde_json::Value;

use crate::{BILD, Place, SHORT, SOURCES, ended, pair};

#[test]
fn what_is_not_there_is_named() {
    let place = Place::new();
    let big = pair("big");
    let data = ["--source", "s.de", "--reference", "s.en"];
    for (args, said) in [
        (&["translate", "--big", "./nosuch", "Hallo."][..], "--big: ./nosuch does not exist"),
        (&["translate", "--big", "no/such/one", "Hallo."], "--big: no/such/one does not exist"),
        (&["translate", "--big", &big, "--little", "./nosuch", "Hallo."], "--little: ./nosuch does not exist"),
        (&["translate", "--policy-file", "./nosuch", "Hallo."], "--policy-file: ./nosuch does not exist"),
        (&["translate", "--file", "./nosuch"], "./nosuch does not exist"),
        (&["summarize", "--big", "./nosuch", "Hallo."], "--big: ./nosuch does not exist"),
        (&["trace", "--big", "./nosuch", "Hallo."], "--big: ./nosuch does not exist"),
        (&["bench", "--model", "./nosuch"], "./nosuch does not exist"),
        (&["evaluate", "--data", "./nosuch"], "--data: ./nosuch does not exist"),
        (&["evaluate", "--source", "./nosuch", "--reference", "s.en"], "--source: ./nosuch does not exist"),
        (&["sweep", "--source", "s.de", "--reference", "./nosuch"], "--reference: ./nosuch does not exist"),
        (&["tune", "--big", "./nosuch", data[0], data[1], data[2], data[3]], "--big: ./nosuch does not exist"),
        (
            &["sweep", "--cost-big", "./nosuch", "--cost-little", &big, data[0], data[1], data[2], data[3]],
            "--cost-big: ./nosuch does not exist",
        ),
    ] {
        place.run(args[0], &args[1..]).refused(1, said);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_called_that() {
    let place = Place::new();
    std::os::unix::fs::symlink("nosuch", place.at("link")).unwrap();
    std::os::unix::fs::symlink("loop", place.at("loop")).unwrap();
    place.run("translate", &["--file", "link"]).refused(1, "link is a link to nothing");
    place.run("translate", &["--big", "link", "Hallo."]).refused(1, "--big: link is a link to nothing");
    place.run("translate", &["--file", "loop"]).refused(1, "loop cannot be read");
}

#[test]
fn numbers_in_files_are_refused_in_plain_words() {
    let place = Place::new();
    for (policy, said) in [
        (r#"{"policy":"lossless","max_draft":0}"#, "expected a whole number, at least 1"),
        (r#"{"policy":"lossless","max_draft":-1}"#, "expected a whole number, at least 1"),
        (r#"{"policy":"lossless","fallback":"x"}"#, "found \"x\", expected a probability"),
    ] {
        place.write("policy.json", policy);
        place.run("translate", &["--policy-file", "policy.json", "Hallo."]).refused(1, said);
    }
}

#[test]
fn languages_that_are_not_known_are_refused() {
    let place = Place::new();
    let big = pair("big");
    place.run("translate", &["--language", "xx", "Hallo."]).refused(2, "those known are am, ar, ");
    place.run("summarize", &["--big", &big, "--language", "xx", "Hallo."]).refused(2, "those known are am, ar, ");
    place.run("translate", &["--language", "bar", "Hallo."]).ok();
}

/// The pair with what its checkpoints say of generating.
fn pair_that_says(place: &Place, generation: &str) -> [String; 2] {
    ["big", "little"].map(|role| {
        let folder = place.at(role);
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(pair(role)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
        let path = folder.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let generation: Value = serde_json::from_str(generation).unwrap();
        config.as_object_mut().unwrap().extend(generation.as_object().unwrap().clone());
        let _ = std::fs::remove_file(folder.join("generation_config.json"));
        std::fs::write(path, config.to_string()).unwrap();
        folder.display().to_string()
    })
}

#[test]
fn an_output_that_its_time_cut_is_said() {
    let place = Place::new();
    let [big, little] = pair_that_says(&place, r#"{"max_time":0.0}"#);
    let models = ["--big", &big, "--little", &little];
    let said = "its time was up (`max_time` of the checkpoint) before anything was written";
    let two = "Ich bin müde.\nWo ist der Bahnhof?\n";
    let ended = place.run_with("translate", &models, two.as_bytes());
    for number in 1..=2 {
        assert!(ended.err.contains(&format!("warning: source {number}: {said}")), "{ended:?}");
    }
    let ended = place.run("trace", &[&["Hallo."], &models[..]].concat());
    assert!(ended.err.contains(&format!("warning: {said}")), "{ended:?}");
    let ended = place.run("summarize", &[&["Hallo."], &models[..]].concat());
    assert!(ended.err.contains(&format!("warning: window 1: {said}")), "{ended:?}");
    let ended = place.run("evaluate", &[&SHORT[..], &models].concat());
    assert!(ended.err.contains("ends a generation after 0 s (`max_time`)"), "{ended:?}");

    let [big, little] = pair_that_says(&place, r#"{"max_new_tokens":70000}"#);
    let cut = place.run("translate", &["--big", &big, "--little", &little, "Hallo."]).ok();
    assert!(cut.err.contains("`max_new_tokens` asks for 70000 tokens at most, and is cut to 65536"), "{cut:?}");
}

#[test]
fn what_the_tokenizer_does_not_know_is_said() {
    let place = Place::new();
    let said = "stand for what the tokenizer does not know";
    let ended = place.run_with("translate", &["--max-new-tokens", "4"], "Hallo.\n日本語です\n".as_bytes());
    assert!(ended.err.contains("warning: source 2: ") && ended.err.contains(said), "{ended:?}");
    assert!(!ended.err.contains("warning: source 1: "), "{ended:?}");
    for (name, more) in [("trace", &[][..]), ("summarize", &["--big", &pair("big")])] {
        let ended = place.run(name, &[&["日本語", "--max-new-tokens", "4"], more].concat());
        assert!(ended.err.contains(said), "{ended:?}");
    }
    place.write("s.de", SOURCES.replace("Ich bin müde.", "日本語です"));
    let ended = place.run("evaluate", &SHORT);
    assert!(ended.err.contains("of 1 of 4 sources more than half is unknown to the tokenizer"), "{ended:?}");
}

#[test]
fn one_sentence_has_no_interval_and_blank_ones_are_no_data() {
    let place = Place::new();
    let one = place.run("evaluate", &[&SHORT[..], &["--count", "1"]].concat()).ok();
    assert!(one.err.contains("one sentence says nothing of others") && !one.out.contains("95 %"), "{one:?}");
    let one = place.run("evaluate", &[&SHORT[..], &["--count", "1", "--json"]].concat()).ok();
    let intervals = &serde_json::from_str::<Value>(&one.out).unwrap()["intervals"];
    assert!(intervals.as_object().unwrap().values().all(Value::is_null), "{intervals}");
    let four = place.run("evaluate", &SHORT).ok();
    assert!(!four.err.contains("one sentence") && four.out.contains("95 %"), "{four:?}");
    place.write("blank", "\n \n\t\n\n");
    let data = ["--rounds", "1", "--source", "blank", "--reference"];
    place.run("evaluate", &[&data[..], &["s.en"]].concat()).refused(1, "every source is blank");
    place.run("evaluate", &["--source", "s.de", "--reference", "blank"]).refused(1, "every reference is blank");
    place.run("sweep", &["--source", "blank", "--reference", "s.en"]).refused(1, "every source is blank");
}

#[cfg(target_os = "linux")]
#[test]
fn where_there_is_little_memory_the_bandwidth_is_left_out() {
    let place = Place::new();
    let big = pair("big");
    let limited = |more: &str| {
        let script =
            format!("ulimit -v 600000; exec '{BILD}' bench --model '{big}' --new-tokens 2 --runs 1 --threads 1 {more}");
        ended(std::process::Command::new("sh").args(["-c", &script]).current_dir(place.0.path()).output().unwrap())
    };
    assert!(limited("").ok().out.contains("not measured: there is no memory"));
    let found: Value = serde_json::from_str(&limited("--json").ok().out).unwrap();
    assert!(found["read_gb_per_s"].is_null() && found["ms_per_token"].is_number(), "{found}");
}
