//! The programs of `examples/`, run as a user runs them. `cargo test` builds them before.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

const SOURCES: &str = "Ich bin müde.\nWo ist der Bahnhof?\nDas Wetter ist schön.\nWir haben keine Zeit.\n";
const REFERENCES: &str = "I am tired.\nWhere is the station?\nThe weather is nice.\nWe have no time.\n";
/// What a short evaluation needs.
const SHORT: [&str; 6] = ["--source", "s.de", "--reference", "s.en", "--rounds", "1"];

/// A program, beside this test in the folder of the build.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path =
        test.ancestors().nth(2).unwrap().join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "{} is not built: cargo build --examples", path.display());
    path
}

/// What a program ended with.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn ok(self) -> Self {
        assert!(self.code == Some(0) && !self.err.contains("panicked"), "{self:?}");
        self
    }

    /// An error in a sentence, before anything was written to standard output.
    #[track_caller]
    fn refused(self, code: i32, said: &str) -> Self {
        assert!(self.code == Some(code) && self.err.contains("error: ") && self.err.contains(said), "{said}: {self:?}");
        assert!(self.out.is_empty() && !self.err.contains("panicked"), "{self:?}");
        self
    }
}

/// A folder to run programs in, with a little dataset.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("s.de", SOURCES);
        place.write("s.en", REFERENCES);
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.at(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Ended {
        ended(self.command(name, args).output().unwrap())
    }

    fn run_with(&self, name: &str, args: &[&str], stdin: &[u8]) -> Ended {
        let mut command = self.command(name, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // It may have ended without reading.
        let _ = input.write_all(stdin);
        drop(input);
        ended(child.wait_with_output().unwrap())
    }
}

fn ended(output: std::process::Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn pair(role: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/de-en").join(role).display().to_string()
}

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
        ("decode_bench", own(&["--model", &big, "--new-tokens", "2", "--runs", "1", "--json"]), None),
        ("custom_policy", Vec::new(), None),
        ("tune", own(&["--help"]), None),
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

impl Ended {
    /// A line for what could not be translated, so that lines stay aligned.
    #[track_caller]
    fn refused_line(self) {
        assert!(self.code == Some(1) && self.out == "\n" && self.err.contains("error: source 1: "), "{self:?}");
    }
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

    let bleu = |ended: Ended| serde_json::from_str::<Value>(&ended.ok().out).unwrap()["bleu"].as_f64().unwrap();
    let expected = bleu(place.run("evaluate", &[&SHORT[..], &["--json"]].concat()));
    place.write("marked.en", format!("\u{feff}{}", REFERENCES.replace('\n', "\r\n")));
    let args = ["--source", "-", "--reference", "marked.en", "--rounds", "1", "--json"];
    assert_eq!(bleu(place.run_with("evaluate", &args, marked.as_bytes())), expected);
    let object = |(source, reference)| format!("{{\"document\":\"{source}\",\"summary\":\"{reference}\"}}\r\n\r\n");
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
    place.run("trace", &["Hallo.", "--html", "nosuch/x"]).refused(1, "--html: nosuch/x cannot be written");
    let twice = [&data[..], &["--svg", "x", "--resume", "./x"]].concat();
    place.run("sweep", &twice).refused(1, "--svg and --resume both write ./x");
    let config = Path::new(&pair("little")).join("config.json");
    let before = fs::read(&config).unwrap();
    let onto_model = [&data[..], &["--out", config.to_str().unwrap()]].concat();
    place.run("tune", &onto_model).refused(1, "is read as the little model");
    assert_eq!(fs::read(&config).unwrap(), before);
    assert_eq!(place.read("long.de"), SOURCES.repeat(10));
    let left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "{left:?}");
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
    // An old log and costs that were measured anew do not go together.
    fs::remove_file(place.at("run.one.costs.json")).unwrap();
    sweep(&["--resume", "run.one"]).refused(1, "(the costs of passes differ)");
}

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
        ("translate", "--max-new-tokens", &["0", "-1", "99999999"]),
        ("translate", "--max-source-tokens", &["0", "-1"]),
        ("translate", "--seed", &["-1", "x"]),
        ("translate", "--early-exit", &["0"]),
        ("evaluate", "--count", &["0", "-1"]),
        ("evaluate", "--skip", &["-1"]),
        ("evaluate", "--rounds", &["0"]),
        ("sweep", "--confirm", &["-1"]),
        ("sweep", "--timed", &["0"]),
        ("tune", "--loss", &["nan", "-1", "inf", "-inf"]),
        ("summarize", "--window", &["0", "7"]),
        ("decode_bench", "--source-len", &["0", "-1"]),
        ("decode_bench", "--new-tokens", &["0"]),
        ("decode_bench", "--runs", &["0"]),
        ("decode_bench", "--at-once", &["1", "-1"]),
    ] {
        for value in values {
            let needed = match name {
                "translate" => &["Hallo."][..],
                "summarize" => &["--big", &big, "Hallo."],
                "decode_bench" => &["--model", &big],
                _ => &data,
            };
            let said = format!("invalid value '{value}' for '{option}");
            place.run(name, &[needed, &[option, value]].concat()).refused(2, &said);
        }
    }
    place
        .run("evaluate", &[&data[..], &["--skip", "4"]].concat())
        .refused(1, "of 4 sources none is left after --skip 4");
    place.run("custom_policy", &["x"]).refused(2, "unexpected argument 'x'");
    assert!(place.run("custom_policy", &["--help"]).ok().out.contains("It takes no arguments"));
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
    place.run("translate", &["--file", "nosuch"]).refused(1, "nosuch cannot be read");
    place.write("empty", "");
    place.run("evaluate", &["--source", "empty", "--reference", "empty"]).refused(1, "empty holds no source");
    place.run("evaluate", &["--data", "empty"]).refused(1, "empty holds no source");
    place.run("summarize", &["--big", &pair("big"), "--file", "empty"]).refused(1, "the text is empty");
    let twice = ["--source", "-", "--reference", "-"];
    place.run("evaluate", &twice).refused(1, "--source and --reference are both standard input");
    place.run("translate", &["--policy-file", "s.de", "Hallo."]).refused(1, "s.de holds no policy");
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
