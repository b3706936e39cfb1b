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
        ("bench", "--source-len", &["0", "-1", "65537"]),
        ("bench", "--new-tokens", &["0"]),
        ("bench", "--runs", &["0"]),
        ("bench", "--at-once", &["1", "-1"]),
    ] {
        for value in values {
            let needed = match name {
                "translate" | "trace" => &["Hallo."][..],
                "summarize" => &["--big", &big, "Hallo."],
                "bench" => &["--model", &big],
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
    let learnt = place.run(
        "shortlist",
        &["--source", "s.de", "--target", "s.en", "--out", "x", "--seed", "1", "--max-new-tokens", "3"],
    );
    assert_eq!(learnt.err.matches("has no effect").count(), 2, "{learnt:?}");
    place.run("bench", &["--model", &big, "--profile", "--at-once", "2"]).refused(2, "cannot be used with");
    let noted = place.run("bench", &["--model", &big, "--policy", "lossless", "--runs", "1", "--new-tokens", "2"]).ok();
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
