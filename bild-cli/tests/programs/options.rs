//! What options say, and what is said of them.

use serde_json::Value;

use crate::{Place, SHORT, SOURCES, pair};

#[test]
fn numbers_have_ranges() {
    let place = Place::new();
    let data = ["--source", "s.de", "--reference", "s.en"];
    let big = pair("big");
    for (name, option, values) in [
        ("translate", "--threads", &["0", "2000", "-1", "x"][..]),
        ("translate", "--fallback", &["nan", "-1", "-inf", "1.5"]),
        ("translate", "--rollback", &["nan", "-1", "-inf"]),
        ("translate", "--max-draft", &["0", "-1"]),
        ("translate", "--max-new-tokens", &["0", "-1", "70000"]),
        ("translate", "--max-source-tokens", &["0", "-1", "65537"]),
        ("trace", "--max-source-tokens", &["65537"]),
        ("evaluate", "--max-source-tokens", &["0", "65537"]),
        ("sweep", "--max-source-tokens", &["65537"]),
        ("tune", "--max-source-tokens", &["65537"]),
        ("translate", "--seed", &["-1", "x"]),
        ("translate", "--early-exit", &["0"]),
        ("evaluate", "--count", &["0", "-1"]),
        ("evaluate", "--skip", &["-1"]),
        ("evaluate", "--rounds", &["0"]),
        ("sweep", "--confirm", &["-1"]),
        ("sweep", "--timed", &["0"]),
        ("tune", "--loss", &["nan", "-1", "inf", "-inf"]),
        ("summarize", "--window", &["0", "7", "65537"]),
        ("decode_bench", "--source-len", &["0", "-1", "65537"]),
        ("decode_bench", "--new-tokens", &["0"]),
        ("decode_bench", "--runs", &["0"]),
        ("decode_bench", "--at-once", &["1", "-1"]),
    ] {
        for value in values {
            let needed = match name {
                "translate" | "trace" => &["Hallo."][..],
                "summarize" => &["--big", &big, "Hallo."],
                "decode_bench" => &["--model", &big],
                _ => &data,
            };
            let said = format!("invalid value '{value}' for '{option}");
            let refused = place.run(name, &[needed, &[option, value]].concat());
            for rust in ["usize", "u64", "nonzero", "invalid digit", ".."] {
                assert!(!refused.err.contains(rust), "{refused:?}");
            }
            refused.refused(2, &said);
        }
    }
    place
        .run("evaluate", &[&data[..], &["--skip", "4"]].concat())
        .refused(1, "of 4 sources none is left after --skip 4");
    place.run("custom_policy", &["x"]).refused(2, "unexpected argument 'x'");
    assert!(place.run("custom_policy", &["--help"]).ok().out.contains("It takes no arguments"));
}

#[test]
fn what_is_not_there_is_named() {
    let place = Place::new();
    let big = pair("big");
    let data = ["--source", "s.de", "--reference", "s.en"];
    for (args, said) in [
        (&["translate", "--big", "nosuch", "Hallo."][..], "--big: nosuch does not exist"),
        (&["translate", "--big", "no/such/one", "Hallo."], "--big: no/such/one does not exist"),
        (&["translate", "--big", &big, "--little", "nosuch", "Hallo."], "--little: nosuch does not exist"),
        (&["translate", "--policy-file", "nosuch", "Hallo."], "--policy-file: nosuch does not exist"),
        (&["translate", "--file", "nosuch"], "nosuch does not exist"),
        (&["summarize", "--big", "nosuch", "Hallo."], "--big: nosuch does not exist"),
        (&["trace", "--big", "nosuch", "Hallo."], "--big: nosuch does not exist"),
        (&["decode_bench", "--model", "nosuch"], "nosuch does not exist"),
        (&["evaluate", "--data", "nosuch"], "--data: nosuch does not exist"),
        (&["evaluate", "--source", "nosuch", "--reference", "s.en"], "--source: nosuch does not exist"),
        (&["sweep", "--source", "s.de", "--reference", "nosuch"], "--reference: nosuch does not exist"),
        (&["tune", "--big", "nosuch", data[0], data[1], data[2], data[3]], "--big: nosuch does not exist"),
        (
            &["sweep", "--cost-big", "nosuch", "--cost-little", &big, data[0], data[1], data[2], data[3]],
            "--cost-big: nosuch does not exist",
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
        (r#"{"policy":"lossless","max_draft":0}"#, "expected a whole number, 1 or more"),
        (r#"{"policy":"lossless","max_draft":-1}"#, "expected a whole number, 1 or more"),
        (r#"{"policy":"lossless","fallback":"x"}"#, "expected a number"),
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
    let refused = place.run("translate", &["--big", &big, "--little", &little, "Hallo."]);
    refused.refused(1, "asks for 70000 new tokens, and from 1 to 65536 are possible");
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
    let program = crate::program("decode_bench");
    let limited = |more: &str| {
        let script = format!(
            "ulimit -v 600000; exec '{}' --model '{big}' --new-tokens 2 --runs 1 --threads 1 {more}",
            program.display()
        );
        crate::ended(
            std::process::Command::new("sh").args(["-c", &script]).current_dir(place.0.path()).output().unwrap(),
        )
    };
    assert!(limited("").ok().out.contains("not measured: there is no memory"));
    let found: Value = serde_json::from_str(&limited("--json").ok().out).unwrap();
    assert!(found["read_gb_per_s"].is_null() && found["ms_per_token"].is_number(), "{found}");
}

#[test]
fn too_few_sentences_leave_the_policy_as_it_is() {
    let place = Place::new();
    place.write("policy.json", "kept");
    let few = place.run("tune", &["--source", "s.de", "--reference", "s.en"]);
    few.refused(1, "4 sentences are too few");
    assert_eq!(place.read("policy.json"), "kept");
}

#[test]
fn what_has_no_effect_is_said() {
    let place = Place::new();
    place.write("policy.json", "{\"policy\":\"lossless\"}");
    let big = pair("big");
    for (args, said) in [
        (&["--policy", "lossless", "--rollback", "3"][..], "--rollback has no effect with --policy lossless"),
        (&["--policy", "big", "--fallback", "0.3"], "--fallback has no effect with --policy big"),
        (&["--policy", "big", "--little", &big, "--big", &big], "--little has no effect: the big model decodes alone"),
        (&["--policy", "big", "--little-precision", "int8"], "--little-precision has no effect"),
        (&["--policy-file", "policy.json", "--max-draft", "3"], "--max-draft has no effect beside --policy-file"),
        (&["--lookup", "both", "--little-precision", "int8"], "--little-precision has no effect: no little model"),
        (&["--seed", "3"], "--seed has no effect: this policy draws no random numbers"),
        (&["--policy", "big", "--time"], "--time has no effect"),
        (&["--whole", "--language", "de"], "--language has no effect"),
    ] {
        let ended = place.run("translate", &[args, &["Ich bin müde."]].concat()).ok();
        assert!(ended.err.contains(&format!("warning: {said}")), "{said}: {ended:?}");
        assert_eq!(ended.out.lines().count(), 1);
    }
    let alone = place.run("summarize", &["--big", &big, "--prefix", "", "--fallback", "0.2", "Ich bin müde."]).ok();
    assert!(alone.err.contains("the policy has no effect"), "{alone:?}");
    let itself = place.run("evaluate", &[&SHORT[..], &["--big", &big, "--policy", "big"]].concat()).ok();
    assert!(itself.err.contains("the big model is compared with itself"), "{itself:?}");
    place
        .run("evaluate", &[&SHORT[..], &["--big", &big]].concat())
        .refused(1, "needs something that drafts beside --big");
    let noted =
        place.run("decode_bench", &["--model", &big, "--policy", "lossless", "--runs", "1", "--new-tokens", "2"]).ok();
    assert!(noted.err.contains("the policy has no effect"), "{noted:?}");
}

#[test]
fn drafts_by_look_up_and_by_early_exit() {
    let place = Place::new();
    let text = "Ich bin müde.";
    let expected = place.run("translate", &["--policy", "lossless", text]).ok().out;
    for args in [["--lookup", "both"], ["--early-exit", "1"]] {
        assert_eq!(place.run("translate", &[&args[..], &["--policy", "lossless", text]].concat()).ok().out, expected);
    }
}

#[test]
fn what_is_cut_is_said() {
    let place = Place::new();
    let long = "Ich bin sehr müde und ".repeat(20) + "will schlafen.";
    let object = |args: &[&str]| {
        let ended = place.run("translate", &[args, &["--json", &long]].concat());
        (serde_json::from_str::<Value>(&ended.out).unwrap(), ended)
    };
    let (whole, _) = object(&[]);
    assert_eq!(whole["truncated"], false);
    let length = whole["source_tokens"].as_u64().unwrap();
    assert!(length > 100, "{length}");
    let (refused, ended) = object(&["--max-source-tokens", "20"]);
    assert!(refused["error"].as_str().unwrap().contains("--max-source-tokens, or --truncate"), "{refused}");
    assert_eq!(ended.code, Some(1));
    place.write("endless", "a ".repeat(70_000));
    let endless = place.run("translate", &["--whole", "--file", "endless"]);
    let advice = "(`max_source_tokens`): shorten it, or let it be truncated (--truncate)";
    assert!(endless.err.contains(advice), "{}", endless.err);
    let (cut, ended) = object(&["--max-source-tokens", "20", "--truncate"]);
    assert_eq!((&cut["source_tokens"], &cut["truncated"]), (&20.into(), &true.into()));
    assert!(ended.ok().err.contains(&format!("of a sentence of {length} tokens 20 are read, the rest is cut")));

    place.write("s.de", SOURCES.replace("Ich bin müde.", &long));
    let ended = place.run("evaluate", &[&SHORT[..], &["--json", "--max-source-tokens", "20"]].concat()).ok();
    assert!(ended.err.contains("1 of 4 sources have more than 20 tokens"), "{ended:?}");
    let result: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(result["truncated"], 1);
    assert!(result["source_tokens"].as_u64().unwrap() < 20 * 4);
}

#[test]
fn a_text_without_sentence_ends_is_summarized_to_its_last_word() {
    let place = Place::new();
    let big = pair("big");
    let object = |text: &str, window: &str| -> Value {
        place.write("text", text);
        let args =
            ["--big", &big, "--prefix", "", "--window", window, "--max-new-tokens", "4", "--json", "--file", "text"];
        let ended = place.run("summarize", &args).ok();
        assert!(!ended.err.contains("not read"), "{ended:?}");
        serde_json::from_str(&ended.out).unwrap()
    };
    for text in [
        "ich bin müde ".repeat(15),
        "müde".repeat(40),
        "ich, du, er, ".repeat(9),
        "Ich bin müde.\nDu bist müde. ".repeat(4),
    ] {
        let found = object(&text, "16");
        let parts = found["parts"].as_array().unwrap();
        assert!(parts.len() > 1 && found["windows"][0] == parts.len(), "{found}");
        assert!(parts.iter().all(|part| part["source_tokens"].as_u64().unwrap() <= 16 && part["truncated"] == false));
        let whole = object(&text, "512");
        assert_eq!(whole["windows"][0], 1);
        // Every window has an end-of-sequence token of its own, and a word that is cut may take a token more.
        let (read, all) = (found["source_tokens"].as_u64().unwrap(), whole["source_tokens"].as_u64().unwrap());
        assert!(read + 1 >= all + parts.len() as u64, "{read} of {all} tokens in {} windows", parts.len());
        assert_eq!(found["truncated"], false);
    }
}
