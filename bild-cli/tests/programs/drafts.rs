//! What drafts are made of: short lists of tokens, and look-up before something else.

use serde_json::Value;

use crate::{Place, SOURCES, pair};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

const TEXT: &str = "Ich bin müde. Ich habe keine Zeit.";

#[test]
fn a_list_is_learned_and_what_drafts_with_it_writes_the_same() {
    let place = Place::new();
    place.write("more.de", SOURCES.repeat(10));
    let learn = ["--source", "more.de", "--out", "list.json", "--frequent", "10"];
    let said = place.run("shortlist", &learn).ok().out;
    assert!(
        said.contains("of 4000 tokens for a source, learned from 36 outputs; of 4 others they cover 100.00 %"),
        "{said}"
    );
    let first = place.read("list.json");
    assert_eq!(json(&first)["frequent"].as_array().unwrap().len(), 10);
    // From what was written already, as the program writes it.
    let written = place.run("translate", &["--policy", "big", "--whole", "--file", "more.de"]).ok().out;
    place.write("more.en", written);
    let found = place.run("shortlist", &[&learn[..], &["--target", "more.en", "--json"]].concat()).ok();
    assert_eq!(json(&found.out)["coverage"]["covered"], 1.0, "{found:?}");
    assert_eq!(place.read("list.json"), first, "the same outputs give the same list");

    let expected = place.run("translate", &["--policy", "big", TEXT]).ok().out;
    let (draft, little) = (pair("draft"), pair("little"));
    for drafter in [["--little", &*little], ["--shared-encoder", &draft], ["--early-exit", "1"]] {
        for precision in ["f32", "int8"] {
            let args = [&drafter[..], &["--shortlist", "list.json", "--little-precision", precision]].concat();
            let ended = place.run("translate", &[&args[..], &["--policy", "lossless", TEXT]].concat()).ok();
            assert_eq!(ended.out, expected, "{ended:?}");
        }
    }
    let args = ["--shortlist", "list.json", "--rows", "1,3", "--runs", "2"];
    let benched = json(&place.run("bench", &[&args[..], &["--json"]].concat()).ok().out);
    for of in [&benched["pass_ms"]["1"], &benched["pass_ms"]["3"], &benched["draft_ms"]] {
        assert!(of["median"].as_f64().unwrap() > 0.0 && of["min"].as_f64() <= of["max"].as_f64(), "{benched}");
    }
    assert!(place.run("bench", &args).ok().out.starts_with("1 row  "));
    let alone = json(&place.run("bench", &["--model", &pair("big"), "--rows", "2", "--json"]).ok().out);
    assert!(alone["draft_ms"].is_null() && alone["pass_ms"]["2"].is_object(), "{alone}");
}

#[test]
fn a_list_that_does_not_fit_is_refused() {
    let place = Place::new();
    place.write("list.json", r#"{"frequent": [3, 4000]}"#);
    place.write("empty.json", r#"{"frequent": []}"#);
    place.write("other.json", "[3]");
    let with =
        |list: &str, more: &[&str]| place.run("translate", &[&["--shortlist", list], more, &["Hallo."]].concat());
    with("list.json", &[]).refused(1, "names the token 4000, of a vocabulary of 4000");
    with("empty.json", &[]).refused(1, "empty.json is broken: its list of tokens is empty");
    with("other.json", &[]).refused(1, "other.json is broken: no short list");
    with("none.json", &[]).refused(1, "--shortlist: none.json does not exist");
    for (args, why) in
        [(["--policy", "big"], "the big model decodes alone"), (["--lookup", "both"], "no little model is loaded")]
    {
        place.write("good.json", r#"{"frequent": [3]}"#);
        let said = with("good.json", &args).ok().err;
        assert!(said.contains(&format!("--shortlist has no effect: {why}")), "{said}");
    }
    let learn = |args: &[&str]| place.run("shortlist", &[args, &["--out", "new.json"]].concat());
    learn(&["--source", "s.de"]).refused(1, "4 sources are too few to learn from");
    place.write("short.en", "I am tired.\n");
    learn(&["--source", "s.de", "--target", "short.en"]).refused(1, "--source has 4 lines and --target 1");
    learn(&["--source", "none.de"]).refused(1, "none.de does not exist");
    assert!(!place.at("new.json").exists());
}

#[test]
fn look_up_comes_before_what_else_drafts() {
    let place = Place::new();
    let text = "Tom, Tom, Tom und Maria, Maria, Maria.";
    let expected = place.run("translate", &["--policy", "big", "--whole", text]).ok().out;
    let (draft, little) = (pair("draft"), pair("little"));
    for drafter in [&[][..], &["--little", &*little], &["--shared-encoder", &draft], &["--early-exit", "1"]] {
        let args = [&["--lookup", "both", "--policy", "lossless", "--json"], drafter, &[text]].concat();
        let found = json(&place.run("translate", &args).ok().out);
        assert_eq!(format!("{}\n", found["text"].as_str().unwrap()), expected);
        assert!(found["stats"]["judged"].as_u64().unwrap() > 0, "{found}");
    }
}
