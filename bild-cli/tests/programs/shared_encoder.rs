//! `--shared-encoder`, as every command takes it.

use std::fs;

use bild::Checkpoint;
use serde_json::{Value, json};

use crate::{Place, SHORT, pair};

/// The decoder of the repository's big model as a draft decoder for it: it drafts what the big model writes.
fn draft(place: &Place) -> String {
    let folder = place.at("draft");
    fs::create_dir(&folder).unwrap();
    let read = fs::read(format!("{}/config.json", pair("big"))).unwrap();
    let mut config: Value = serde_json::from_slice(&read).unwrap();
    let digest = Checkpoint::open(pair("big")).unwrap().digest().unwrap().to_string();
    config["bild_shared_encoder"] = json!({ "big": digest, "layers": [0, 1, 2] });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    // What it has of the big model may be stored with it.
    fs::copy(format!("{}/model.safetensors", pair("big")), folder.join("model.safetensors")).unwrap();
    folder.display().to_string()
}

#[test]
fn it_drafts_in_every_command() {
    let place = Place::new();
    let draft = draft(&place);
    let run = |command: &str, args: &[&str]| place.run(command, &[&["--shared-encoder", &draft], args].concat()).ok();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let text = "Ich bin müde.";
    let expected = place.run("translate", &["--policy", "lossless", text]).ok().out;
    for precision in ["f32", "int8"] {
        let ended = run("translate", &["--policy", "lossless", "--little-precision", precision, "--json", text]);
        assert!(!ended.err.contains("warning"), "{ended:?}");
        let found = json(&ended.out);
        assert_eq!(format!("{}\n", found["text"].as_str().unwrap()), expected);
        assert!(found["stats"]["accepted"].as_u64().unwrap() > 2, "{found}");
    }
    run("trace", &[text]);
    run("summarize", &["--big", &pair("big"), "--prefix", "", text]);
    let evaluated = run("evaluate", &[&SHORT[..], &["--json", "--policy", "lossless"]].concat());
    assert_eq!(json(&evaluated.out)["same_as_big"], 4, "{evaluated:?}");
    let short = ["--json", "--new-tokens", "2", "--source-len", "4", "--runs", "1", "--policy", "lossless"];
    let benched = json(&run("bench", &short).out);
    assert_eq!((&benched["shared_encoder"], &benched["little"]), (&draft.as_str().into(), &Value::Null));
    assert!(benched["model"].as_str().unwrap().ends_with("de-en/big"), "{benched}");
}

/// Costs of the pair's own passes or those of another draft decoder, kept with what they were measured with.
#[test]
fn its_costs_are_those_of_a_draft_decoder() {
    let place = Place::new();
    let draft = draft(&place);
    let (big, data) = (pair("big"), ["--source", "s.de", "--reference", "s.en"]);
    let sweep = |more: &[&str]| {
        let grid = [&data[..], &["--count", "1", "--grid"]].concat();
        place.run("sweep", &[&grid[..], more].concat())
    };
    sweep(&["--shared-encoder", &draft, "--costs", "costs.json"]).ok();
    let costs: Value = serde_json::from_str(&place.read("costs.json")).unwrap();
    let number = |field: &str| costs[field].as_f64().unwrap();
    let encoder = number("encode_big") - number("encode_little");
    assert!(encoder > 0.0 && number("encode_little_alone") > number("encode_little"), "{costs}");
    let other = ["--shared-encoder", &draft, "--little-precision", "int8", "--costs", "costs.json"];
    sweep(&other).refused(1, "the draft decoder's precision differ");
    sweep(&["--shared-encoder", &draft, "--cost-big", &big, "--cost-shared-encoder", &draft]).ok();
    for (pair, costs) in
        [(["--shared-encoder", &draft], "--cost-little"), (["--lookup", "both"], "--cost-shared-encoder")]
    {
        let args = [&pair[..], &["--cost-big", &big, costs, &draft]].concat();
        sweep(&args).refused(1, "say nothing of a pair that drafts in another way");
    }
    // A list of tokens counts where costs are measured with other models, too.
    place.write("list.json", r#"{"frequent": [1, 3, 4, 5]}"#);
    let little = pair("little");
    let others = ["--cost-big", &*big, "--cost-little", &little, "--costs", "others.json"];
    sweep(&others).ok();
    sweep(&[&others[..], &["--shortlist", "list.json"]].concat()).refused(1, "differ");
    sweep(&["--cost-big", &big]).refused(2, "--cost-little <DIR>|--cost-shared-encoder <DIR>");
}

#[test]
fn what_does_not_go_with_it_is_said() {
    let place = Place::new();
    let (draft, big, text) = (draft(&place), pair("big"), "Ich bin müde.");
    let with = |args: &[&str]| place.run("translate", &[&["--shared-encoder", &draft], args, &[text]].concat());
    for other in [["--little", &big], ["--early-exit", "1"]] {
        with(&other).refused(2, "cannot be used with");
    }
    for (policy, model) in [("big", "the big model"), ("little", "the little model")] {
        let alone = with(&["--policy", policy]).ok();
        let said = format!("warning: --shared-encoder has no effect: {model} decodes alone");
        assert!(alone.err.contains(&said), "{alone:?}");
    }
    with(&["--big", &pair("little")]).refused(1, "was made for another big model");
    place.run("translate", &["--shared-encoder", &big, text]).refused(1, "`bild_shared_encoder` is missing");
    place
        .run("translate", &["--shared-encoder", "./nosuch", text])
        .refused(1, "--shared-encoder: ./nosuch does not exist");
    for as_model in [["--big", &draft, "--policy", "big"], ["--little", &draft, "--policy", "bild"]] {
        let args = [&as_model[..], &[text]].concat();
        place.run("translate", &args).refused(1, "describes a draft decoder that has no encoder of its own");
    }
}
