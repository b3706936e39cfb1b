//! Tokens and texts as transformers' tokenizers have them, with what the files beside a tokenizer say: records that
//! `tokenizers/make.py` wrote.

use std::{collections::BTreeMap, fs, path::Path};

use bild_core::Token;
use bild_models::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Records {
    /// Contents of `tokenizer.json`, by name.
    bases: BTreeMap<String, Value>,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    /// A fixture with a `spiece.model`, or one of the bases.
    model: String,
    files: BTreeMap<String, Value>,
    /// A text, its tokens, and their text.
    lines: Vec<(String, Vec<Token>, String)>,
    /// Tokens and their text.
    written: Vec<(Vec<Token>, String)>,
}

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

fn records(name: &str) -> Records {
    serde_json::from_slice(&fs::read(tests().join("tokenizers").join(name)).unwrap()).unwrap()
}

fn write(directory: &TempDir, files: &BTreeMap<String, Value>) {
    for (name, contents) in files {
        fs::write(directory.path().join(name), contents.to_string()).unwrap();
    }
}

fn check(tokenizer: &Tokenizer, name: &str, case: &Case) -> usize {
    let mut wrong = Vec::new();
    for (text, ids, decoded) in &case.lines {
        let found = (tokenizer.encode(text).unwrap(), tokenizer.decode(ids).unwrap());
        if found != (ids.clone(), decoded.clone()) {
            wrong.push(format!("{text:?}\n  found    {found:?}\n  expected {:?}", (ids, decoded)));
        }
    }
    for (ids, decoded) in &case.written {
        let found = tokenizer.decode(ids).unwrap();
        if found != *decoded {
            wrong.push(format!("{ids:?}\n  found    {found:?}\n  expected {decoded:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    case.lines.len() + case.written.len()
}

#[test]
fn spiece_models_are_as_the_slow_tokenizer() {
    let mut count = 0;
    for (name, case) in &records("spiece.json").cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spiece.model");
        fs::copy(tests().join("fixtures").join(&case.model).join("spiece.model"), &path).unwrap();
        write(&directory, &case.files);
        count += check(&Tokenizer::open(&path).unwrap(), name, case);
    }
    assert!(count > 500);
}

#[test]
fn tokenizer_json_is_as_the_fast_tokenizer() {
    let records = records("json.json");
    let mut count = 0;
    for (name, case) in &records.cases {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        fs::write(&path, records.bases[&case.model].to_string()).unwrap();
        write(&directory, &case.files);
        count += check(&Tokenizer::open(&path).unwrap(), name, case);
    }
    assert!(count > 300);
}

/// A tokenizer.json of the records with files beside it, each given as text.
fn json(base: &str, files: &[(&str, &str)]) -> (TempDir, Result<Tokenizer, String>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, records("json.json").bases[base].to_string()).unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let tokenizer = Tokenizer::open(&path).map_err(|error| error.to_string());
    (directory, tokenizer)
}

/// Unlike transformers, which numbers a hundred sentinels behind the vocabulary of any T5, where no model has rows for them.
#[test]
fn sentinels_that_a_file_does_not_have_are_not_made_up() {
    let (_directory, tokenizer) = json("unigram", &[]);
    let tokenizer = tokenizer.unwrap();
    assert_eq!(tokenizer.encode("<extra_id_0>").unwrap().len(), 2, "the one that it has, and the end");
    assert_eq!(tokenizer.token("<extra_id_7>"), None);
}

/// As transformers 5 has it; 4 takes spaces away that a byte-level BPE writes on purpose.
#[test]
fn a_bpe_is_cleaned_up_only_if_it_must() {
    let (_directory, tokenizer) =
        json("byte-level", &[("tokenizer_config.json", r#"{"clean_up_tokenization_spaces": true}"#)]);
    let tokenizer = tokenizer.unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode("a . b").unwrap()).unwrap(), "a . b");
}

#[test]
fn a_byte_order_mark_is_no_text() {
    let config = "\u{feff}{\"clean_up_tokenization_spaces\": true}";
    let (directory, tokenizer) = json("unigram", &[("tokenizer_config.json", config)]);
    let expected = tokenizer.unwrap().encode("Tom und").unwrap();
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, [&b"\xef\xbb\xbf"[..], &fs::read(&path).unwrap()].concat()).unwrap();
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!(tokenizer.encode("Tom und").unwrap(), expected);
    assert_eq!(tokenizer.decode(&tokenizer.encode("it .").unwrap()).unwrap(), "it.");
}

#[test]
fn files_beside_a_tokenizer_that_make_no_sense() {
    for (name, text, says) in [
        (
            "tokenizer_config.json",
            r#"{"clean_up_tokenization_spaces": "yes"}"#,
            "`clean_up_tokenization_spaces` is \"yes\", expected true or false",
        ),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"x": {"content": "<a>"}}}"#,
            "`added_tokens_decoder` is x, expected the number of a token",
        ),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"7": 3}}"#,
            "`added_tokens_decoder` is 3, expected a token",
        ),
        (
            "tokenizer_config.json",
            r#"{"additional_special_tokens": "<a>"}"#,
            "`additional_special_tokens` is \"<a>\", expected a list",
        ),
        ("tokenizer_config.json", r#"{"extra_ids": -1}"#, "`extra_ids` is -1"),
        ("special_tokens_map.json", r#"{"eos_token": 1}"#, "`eos_token` is 1, expected a token"),
        ("added_tokens.json", r#"{"<a>": "7"}"#, "`<a>` is \"7\", expected the number of a token"),
        ("tokenizer_config.json", "<html>", "it is a web page"),
    ] {
        let error = json("unigram", &[(name, text)]).1.unwrap_err();
        assert!(error.contains(name) && error.contains(says), "{error}");
    }
}

/// Each byte of an added token takes much memory, whichever file names it.
#[test]
fn added_tokens_that_are_too_long() {
    let token = |length: usize| "<".repeat(length);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spiece.model");
    fs::copy(tests().join("fixtures/sentencepiece/spiece.model"), &path).unwrap();
    let spiece = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        let tokenizer = Tokenizer::open(&path).map_err(|error| error.to_string());
        fs::remove_file(directory.path().join(name)).unwrap();
        tokenizer
    };
    let files = |length: usize| {
        [
            ("tokenizer_config.json", json!({"added_tokens_decoder": {"700": {"content": token(length)}}})),
            ("tokenizer_config.json", json!({"unk_token": token(length)})),
            ("special_tokens_map.json", json!({"additional_special_tokens": [token(length)]})),
            ("added_tokens.json", json!({ token(length): 700 })),
        ]
    };
    for (name, file) in files(1025) {
        let text = file.to_string();
        for error in [json("unigram", &[(name, &*text)]).1.unwrap_err(), spiece(name, &text).unwrap_err()] {
            let says = format!("{name} is broken: it names a token of 1025 bytes, expected at most 1024");
            assert!(error.contains(&says), "{error}");
        }
    }
    for (name, file) in files(1024) {
        let text = file.to_string();
        json("unigram", &[(name, &*text)]).1.unwrap();
        spiece(name, &text).unwrap();
    }
    let many: serde_json::Map<String, Value> = (0..6300).map(|i| (format!("{i:01000}"), json!(i + 1000))).collect();
    let text = Value::Object(many).to_string();
    let name = "added_tokens.json";
    for error in [json("unigram", &[(name, &*text)]).1.unwrap_err(), spiece(name, &text).unwrap_err()] {
        assert!(error.contains("name tokens of 63000") && error.contains("expected at most 6291456"), "{error}");
    }
}

/// As the fast tokenizers have it; the slow one writes it where no list names it.
#[test]
fn a_token_that_is_called_special_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spiece.model");
    fs::copy(tests().join("fixtures/sentencepiece/spiece.model"), &path).unwrap();
    let config =
        json!({"added_tokens_decoder": {"700": {"content": "<x>", "special": true}, "701": {"content": "<y>"}}});
    fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::open(&path).unwrap();
    let tom = tokenizer.token("▁Tom").unwrap();
    assert_eq!(tokenizer.decode(&[tom, 700, tom, 701]).unwrap(), "Tom Tom <y>");
}

#[test]
fn a_phrase_without_what_the_tokenizer_adds() {
    let (_directory, tokenizer) = json("unigram", &[]);
    let tokenizer = tokenizer.unwrap();
    assert_eq!(
        tokenizer.encode_plain("Tom und").unwrap(),
        [tokenizer.token("▁Tom").unwrap(), tokenizer.token("▁und").unwrap()]
    );
    assert_eq!(tokenizer.token("▁nowhere"), None);
    let spiece = Tokenizer::open(tests().join("fixtures/sentencepiece/spiece.model")).unwrap();
    let mut plain = spiece.encode_plain("Tom und").unwrap();
    assert_eq!(spiece.token("▁Tom"), plain.first().copied());
    plain.push(spiece.token("</s>").unwrap());
    assert_eq!(spiece.encode("Tom und").unwrap(), plain);
    assert_eq!((0..700).filter(|&token| spiece.token(&spiece.piece(token).unwrap()) == Some(token)).count(), 700);
}
