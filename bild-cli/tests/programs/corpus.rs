//! Corpora: JSON objects, many at once, gone on with, in shares.

use serde_json::{Value, json};

use super::*;

/// Sources with ids of several kinds, some of which are no sources.
fn sources() -> (String, Vec<&'static str>) {
    let texts: Vec<&str> = SOURCES.lines().cycle().take(21).collect();
    let line = |(i, text): (usize, &&str)| match i {
        4 => "{\"id\": 4".to_owned(),
        5 => json!({ "id": 5 }).to_string(),
        6 => json!({ "text": text }).to_string(),
        7 => json!({ "id": 7, "text": "" }).to_string(),
        8 => json!({ "id": { "page": 8 }, "text": format!("{text} {text}"), "more": 1 }).to_string(),
        i if i % 2 == 0 => json!({ "id": i, "text": text }).to_string(),
        i => json!({ "id": format!("x{i}"), "text": text }).to_string(),
    };
    (texts.iter().enumerate().map(line).collect::<Vec<_>>().join("\n") + "\n", texts)
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_object_becomes_one_in_its_place() {
    let place = Place::new();
    let (lines, texts) = sources();
    place.write("in.jsonl", &lines);
    let ended = place.run("translate", &["--jsonl", "--file", "in.jsonl"]);
    // Four lines could not be translated.
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let found = objects(&ended.out);
    assert_eq!(found.len(), texts.len());
    let plain: Vec<String> =
        SOURCES.lines().map(|text| place.run("translate", &[text]).ok().out.trim_end().to_owned()).collect();
    for (i, found) in found.iter().enumerate() {
        match i {
            4 => assert!(found["id"].is_null() && found["error"].as_str().unwrap().contains("no JSON"), "{found}"),
            5 => assert!(found["id"] == 5 && found["error"].as_str().unwrap().contains("\"text\""), "{found}"),
            6 => assert!(found["id"].is_null() && found["error"].as_str().unwrap().contains("\"id\""), "{found}"),
            7 => assert_eq!(*found, json!({ "id": 7, "text": "", "tokens": 0 })),
            8 => assert_eq!((&found["id"]["page"], &found["text"]), (&json!(8), &json!(format!("{0} {0}", plain[0])))),
            i => {
                assert_eq!(found["text"], plain[i % 4], "{found}");
                assert!(found["id"] == i || found["id"] == format!("x{i}"), "{found}");
                assert!(found["tokens"].as_u64().unwrap() > 1);
            }
        }
    }
    // From standard input, to a file.
    place.run_with("translate", &["--jsonl", "--file", "-", "--out", "out.jsonl"], lines.as_bytes());
    assert_eq!(place.read("out.jsonl"), ended.out);
}

/// Numbers of any length, and what is in them, are no business of the program.
#[test]
fn an_id_is_written_as_it_was() {
    let place = Place::new();
    let ids = ["12345678901234567890123.10", r#"[1, {"a": 2.50}]"#, "null", r#""\u00e4""#];
    let lines: String = ids.iter().map(|id| format!("{{\"id\": {id}, \"text\": \"Ja.\"}}\n")).collect();
    place.write("in.jsonl", &lines);
    let out = place.run("translate", &["--jsonl", "--file", "in.jsonl"]).ok().out;
    for (line, id) in out.lines().zip(ids) {
        assert!(line.starts_with(&format!("{{\"id\":{id},\"text\":\"")), "{line}");
    }
    place.run("translate", &["--jsonl", "--file", "in.jsonl", "--out", "out.jsonl"]).ok();
    place.run("translate", &["--jsonl", "--file", "in.jsonl", "--out", "out.jsonl"]).ok();
    assert_eq!(place.read("out.jsonl"), out, "they are known again");
    place.write("list.jsonl", "[1, \"Ja.\"]\n");
    let found = place.run("translate", &["--jsonl", "--file", "list.jsonl"]);
    assert!(found.code == Some(1) && found.out.contains("no \\\"text\\\""), "{found:?}");
}

#[test]
fn a_corpus_is_gone_on_with_and_never_mixed_up() {
    let place = Place::new();
    let (lines, _) = sources();
    place.write("in.jsonl", &lines);
    let run = |args: &[&str]| {
        place.run("translate", &[&["--jsonl", "--file", "in.jsonl", "--out", "out.jsonl"], args].concat())
    };
    run(&[]);
    let whole = place.read("out.jsonl");
    for cut in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 1, whole.len()] {
        let cut = (cut..).find(|&cut| whole.is_char_boundary(cut)).unwrap();
        place.write("out.jsonl", &whole[..cut]);
        let ended = run(&[]);
        // The lines with errors still count.
        assert!(ended.out.is_empty() && ended.code == Some(1), "{ended:?}");
        assert_eq!(place.read("out.jsonl"), whole, "cut at {cut}");
    }
    // One that lacks its last character alone, with others to come; and one cut off within a number.
    let good = "{\"id\": -7, \"text\": \"Ja.\"}\n".repeat(3);
    place.write("good.jsonl", &good);
    let run_good = || place.run("translate", &["--jsonl", "--file", "good.jsonl", "--out", "good.out"]).ok();
    run_good();
    let whole_good = place.read("good.out");
    let line = whole_good.len() / 3;
    for cut in [line - 1, line, line + "{\"id\":-".len(), whole_good.len() - 1] {
        place.write("good.out", &whole_good[..cut]);
        run_good();
        assert_eq!(place.read("good.out"), whole_good, "cut at {cut}");
    }
    // Of another corpus, or no corpus at all: nothing is written.
    for (other, said) in [
        ("{\"id\": 99, \"text\": \"\", \"tokens\": 0}\n", "line 1, is not for these sources"),
        ("{\"id\": 99, \"text\": \"\", \"tokens\": 0}", "line 1, is not for these sources"),
        ("a text\n", "line 1, is none of"),
        ("{\"id\":0,\"name\":\"x\"}", "line 1, is none of"),
        // As the sources themselves.
        ("{\"id\":0,\"text\":\"x\"}\n", "line 1, is none of"),
        ("a text without an end", "line 1, is none of"),
    ] {
        place.write("out.jsonl", other);
        run(&[]).refused(1, said);
        assert_eq!(place.read("out.jsonl"), other);
    }
    place.write("out.jsonl", format!("{whole}{}", whole.lines().next().unwrap()) + "\n");
    run(&[]).refused(1, "line 22, is not for these sources");
    place.run("translate", &["--jsonl", "--file", "in.jsonl", "--out", "in.jsonl"]).refused(1, "is read as");
}

#[test]
fn shares_make_up_the_whole() {
    let place = Place::new();
    let (lines, texts) = sources();
    place.write("in.jsonl", &lines);
    let run = |args: &[&str]| place.run("translate", &[&["--jsonl", "--file", "in.jsonl"], args].concat());
    let whole = objects(&run(&[]).out);
    let mut found = vec![Value::Null; texts.len()];
    for shard in 0..4 {
        let out = run(&["--shard", &format!("{}/4", shard + 1)]).out;
        for (object, place) in objects(&out).into_iter().zip(found.iter_mut().skip(shard).step_by(4)) {
            *place = object;
        }
    }
    assert_eq!(found, whole);
    // What cannot be read ends each share, and is no success.
    place.write("broken.jsonl", b"{\"id\": 1, \"text\": \"Ja.\"}\n\xff\n{\"id\": 3, \"text\": \"Ja.\"}\n");
    for shard in ["1/2", "2/2"] {
        let broken = place.run("translate", &["--jsonl", "--file", "broken.jsonl", "--shard", shard]);
        assert!(broken.code == Some(1) && broken.err.contains("line 2"), "{broken:?}");
    }
    for bad in ["0/4", "5/4", "1", "1/0", "a/b"] {
        run(&["--shard", bad]).refused(2, "as 3/16");
    }
    place.run("translate", &["--shard", "1/2", "Ich bin müde."]).refused(2, "cannot be used with");
    place.run("translate", &["--shard", "1/2", "--file", "in.jsonl"]).refused(2, "--jsonl");
}
