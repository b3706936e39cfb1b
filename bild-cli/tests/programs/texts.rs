//! What programs read, and the form of what they write.

use serde_json::Value;

use crate::{Ended, Place, REFERENCES, SHORT, SOURCES, pair};

#[test]
fn the_form_of_the_output_does_not_depend_on_the_number_of_lines() {
    let place = Place::new();
    let all = place.run("translate", &["--file", "s.de"]).ok();
    assert_eq!(all.out.lines().count(), 4);
    assert!(all.err.contains("tokens: ") && !all.err.contains("as fast"), "{}", all.err);
    for (i, line) in SOURCES.lines().enumerate() {
        place.write("one.de", line); // without a line end, too
        let expected = format!("{}\n", all.out.lines().nth(i).unwrap());
        assert_eq!(place.run("translate", &["--file", "one.de"]).ok().out, expected);
        assert_eq!(place.run("translate", &[line]).ok().out, expected);
        assert_eq!(place.run_with("translate", &[], line.as_bytes()).ok().out, expected);
    }
    for (text, lines) in [("", 0), ("\n", 1), ("\n\n", 2), ("Ich bin müde.\n\n", 2)] {
        place.write("blank.de", text);
        assert_eq!(place.run("translate", &["--file", "blank.de"]).ok().out.lines().count(), lines, "{text:?}");
        assert_eq!(place.run_with("translate", &[], text.as_bytes()).ok().out.lines().count(), lines, "{text:?}");
    }
    place.run("translate", &[""]).refused_line();
    let timed = place.run("translate", &["--time", "Ich bin müde."]).ok();
    assert_eq!(timed.out.lines().count(), 1);
    assert!(timed.err.contains("as fast (timed in turn, medians of 7)"), "{}", timed.err);
    let traced = place.run("translate", &["--trace", "Ich bin müde."]).ok();
    assert_eq!(traced.out, timed.out);
    assert!(traced.err.contains(" % ") || traced.err.contains(" %\n"), "{}", traced.err);
}

#[test]
fn a_byte_order_mark_and_line_ends_are_no_text() {
    let place = Place::new();
    let plain = place.run("translate", &["--file", "s.de"]).ok().out;
    let marked = format!("\u{feff}{}", SOURCES.trim_end().replace('\n', "\r\n"));
    place.write("marked.de", &marked);
    assert_eq!(place.run("translate", &["--file", "marked.de"]).ok().out, plain);
    assert_eq!(place.run_with("translate", &[], marked.as_bytes()).ok().out, plain);
    assert_eq!(place.run_with("translate", &["--file", "-"], marked.as_bytes()).ok().out, plain);
    assert_eq!(place.run_with("translate", &["-"], marked.as_bytes()).ok().out, plain);
    assert_eq!(place.run("translate", &["\u{feff}Ich bin müde."]).ok().out.lines().next(), plain.lines().next());

    let policy = "\u{feff}{\"policy\":\"lossless\"}\r\n";
    place.write("policy.json", policy);
    let lossless = place.run("translate", &["--policy", "lossless", "--file", "s.de"]).ok().out;
    assert_eq!(place.run("translate", &["--policy-file", "policy.json", "--file", "s.de"]).ok().out, lossless);
    assert_eq!(
        place.run_with("translate", &["--policy-file", "-", "--file", "s.de"], policy.as_bytes()).ok().out,
        lossless
    );

    // Files that were put together have marks within.
    place.write("together.de", format!("\u{feff}{}", SOURCES.replace('\n', "\r\n\u{feff}")));
    assert_eq!(place.run("translate", &["--file", "together.de"]).ok().out, plain);
    let together = place.read("together.de");
    assert_eq!(place.run_with("translate", &[], together.as_bytes()).ok().out, plain);

    let bleu = |ended: Ended| serde_json::from_str::<Value>(&ended.ok().out).unwrap()["bleu"].as_f64().unwrap();
    let expected = bleu(place.run("evaluate", &[&SHORT[..], &["--json"]].concat()));
    place.write(
        "marked.en",
        format!("\u{feff}{}", REFERENCES.replace('\n', "\r\n\u{feff}").trim_end_matches('\u{feff}')),
    );
    let args = ["--source", "-", "--reference", "marked.en", "--rounds", "1", "--json"];
    assert_eq!(bleu(place.run_with("evaluate", &args, marked.as_bytes())), expected);
    let object = |(source, reference)| {
        format!("{{\"document\":\"{source}\",\"summary\":\"{reference}\"}}\r\n\u{feff}\r\n\u{feff}")
    };
    let objects: String = SOURCES.lines().zip(REFERENCES.lines()).map(object).collect();
    place.write("s.jsonl", format!("\u{feff}{objects}"));
    assert_eq!(bleu(place.run("evaluate", &["--data", "s.jsonl", "--rounds", "1", "--json"])), expected);

    let big = pair("big");
    let summary =
        |args: &[&str]| place.run("summarize", &[&["--big", &big, "--prefix", ""][..], args].concat()).ok().out;
    place.write("marked.txt", "\u{feff}Ich bin müde.");
    assert_eq!(summary(&["--file", "marked.txt"]), summary(&["Ich bin müde."]));
}

#[test]
fn inputs_that_cannot_be_read_are_named() {
    let place = Place::new();
    place.write("bad.de", b"Gut.\nM\xfcde.\n");
    let said = "bad.de, line 2, byte 2: it is not UTF-8";
    place.run("translate", &["--file", "bad.de"]).refused(1, said);
    place.run("evaluate", &["--source", "bad.de", "--reference", "s.en"]).refused(1, said);
    place.run("evaluate", &["--data", "bad.de"]).refused(1, said);
    place.run("translate", &["--policy-file", "bad.de", "Hallo."]).refused(1, said);
    place.run("summarize", &["--big", &pair("big"), "--file", "bad.de"]).refused(1, said);
    let streamed = place.run_with("translate", &[], b"Gut.\nM\xfcde.\n");
    assert!(streamed.code == Some(1) && streamed.err.contains("standard input, line 2, byte 2: it is not UTF-8"));
    place.run("translate", &["--file", "."]).refused(1, ". cannot be read: it is a folder");
    place.write("empty", "");
    place.run("evaluate", &["--source", "empty", "--reference", "empty"]).refused(1, "empty holds no source");
    place.run("evaluate", &["--data", "empty"]).refused(1, "empty holds no source");
    place.run("summarize", &["--big", &pair("big"), "--file", "empty"]).refused(1, "the text is empty");
    let twice = ["--source", "-", "--reference", "-"];
    place.run("evaluate", &twice).refused(1, "--source and --reference are both standard input");
    place.run("translate", &["--policy-file", "s.de", "Hallo."]).refused(1, "s.de holds no policy");
}

#[test]
fn samples_from_a_pipe_are_those_from_a_file() {
    let place = Place::new();
    place.write("sampling.json", r#"{"policy":"sampling","temperature":1.5}"#);
    let lines = "Das Wetter ist heute sehr schön.\n".repeat(4);
    place.write("lines.de", &lines);
    let args = ["--policy-file", "sampling.json", "--seed", "7", "--max-new-tokens", "12"];
    let file = place.run("translate", &[&args[..], &["--file", "lines.de"]].concat()).ok().out;
    assert_eq!(place.run_with("translate", &args, lines.as_bytes()).ok().out, file);
    let different: std::collections::HashSet<&str> = file.lines().collect();
    assert!(different.len() > 1, "{file}");
}

/// Windows are summarized together: their times overlap.
#[test]
fn a_summary_takes_no_longer_than_the_program() {
    let place = Place::new();
    place.write("long.de", SOURCES.repeat(20));
    let begun = std::time::Instant::now();
    let args = ["--big", &pair("big"), "--file", "long.de", "--window", "16", "--json", "--max-new-tokens", "12"];
    let summary = place.run("summarize", &args).ok().out;
    let elapsed = begun.elapsed().as_secs_f64();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert!(summary["parts"].as_array().unwrap().len() > 8, "{summary}");
    let seconds = summary["stats"]["total_seconds"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds <= elapsed, "{seconds} of {elapsed}");
}
