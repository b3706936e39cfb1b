//! Tokens and texts of `spiece.model` as Google's sentencepiece gives them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bild_core::Token;
use bild_models::{LoadError, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    text: String,
    ids: Vec<Token>,
    decoded: String,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The recorded lines of a folder with `spiece.model` and `lines.jsonl`.
fn check(folder: &Path) {
    let tokenizer = Tokenizer::open(folder.join("spiece.model")).unwrap();
    let lines = fs::read_to_string(folder.join("lines.jsonl")).unwrap();
    let mut count = 0;
    for (i, line) in lines.split_terminator('\n').enumerate() {
        let line: Line = serde_json::from_str(line).unwrap();
        assert_eq!(tokenizer.encode(&line.text).unwrap(), line.ids, "line {i}: {:?}", line.text);
        // transformers leaves out white space at the ends of what sentencepiece has.
        assert_eq!(tokenizer.decode(&line.ids).unwrap(), line.decoded.trim(), "line {i}: {:?}", line.text);
        count += 1;
    }
    assert!(count >= 140);
}

/// NFKC and byte fallback. With `BILD_SPIECE`, the folder that it names instead.
#[test]
fn tokens_and_texts_equal_those_of_sentencepiece() {
    check(&std::env::var_os("BILD_SPIECE").map_or_else(|| fixture("sentencepiece"), PathBuf::from));
}

/// Pieces of the user's that trained ones would outscore, spaces kept, nothing normalized, no bytes to fall back on.
#[test]
fn pieces_of_the_user_are_always_taken() {
    check(&fixture("sentencepiece-user"));
}

/// As `T5Tokenizer` of transformers 4.57 finds them; the model has 600 pieces, so sentinel 0 is 699.
#[test]
fn added_tokens_are_found_first() {
    let tokenizer = recorded(|_| {});
    for (text, ids, decoded) in [
        ("Das <extra_id_0> ist <extra_id_1>.", &[407, 699, 304, 698, 260, 259, 1][..], "Das ist ."),
        ("<extra_id_0>", &[699, 1], ""),
        ("a</s>b", &[281, 1, 301, 1], "a b"),
        ("a </s>", &[281, 1], "a"),
        ("<pad>x", &[0, 260, 569, 1], "x"),
        ("<unk> y", &[2, 260, 287, 1], "y"),
        ("Tom <extra_id_12>und <extra_id_1>", &[267, 687, 434, 698, 1], "Tom und"),
    ] {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.decode(ids).unwrap(), decoded, "{text}");
    }
    assert_eq!(tokenizer.piece(699).as_deref(), Some("<extra_id_0>"));
    assert_eq!(tokenizer.piece(700), None);
    assert_eq!(tokenizer.decode(&[407, 5000]).unwrap(), "Das", "a head may be larger than its tokenizer");
}

/// A copy of the recorded model in a folder to which `change` may add files.
fn recorded(change: impl FnOnce(&Path)) -> Tokenizer {
    let (directory, path) = copy();
    change(directory.path());
    Tokenizer::open(path).unwrap()
}

fn copy() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spiece.model");
    fs::write(&path, fs::read(fixture("sentencepiece").join("spiece.model")).unwrap()).unwrap();
    (directory, path)
}

#[test]
fn files_beside_the_model_say_which_tokens_are_added() {
    let write = |name: &'static str, text: &'static str| {
        recorded(move |directory| fs::write(directory.join(name), text).unwrap())
    };
    let none = write("tokenizer_config.json", r#"{"extra_ids": 0}"#);
    assert!(none.encode("<extra_id_0>").unwrap().len() > 2, "no sentinel is known");
    let added = write("added_tokens.json", r#"{"<sep>": 700}"#);
    assert_eq!(added.encode("Tom<sep>").unwrap(), [267, 700, 1]);
    assert_eq!(added.decode(&[267, 700, 267, 1]).unwrap(), "Tom <sep> Tom");
    let decoder = r#"{"added_tokens_decoder": {"600": {"content": "<x>", "special": true}}, "legacy": false}"#;
    let modern = write("tokenizer_config.json", decoder);
    assert_eq!(modern.encode("Tom<x>").unwrap(), [267, 600, 1]);
    assert_ne!(modern.encode("<x>Tom").unwrap(), [600, 267, 1], "no word begins behind it");
    assert_eq!(modern.encode("<x> Tom").unwrap(), [600, 267, 1]);
}

#[test]
fn a_broken_model_is_an_error() {
    let sentence = |bytes: &[u8]| {
        let (_directory, path) = copy();
        fs::write(&path, bytes).unwrap();
        let error: LoadError = Tokenizer::open(path).unwrap_err();
        error.to_string()
    };
    assert!(sentence(b"").contains("spiece.model is broken: it is empty"));
    assert!(sentence(b"no model").contains("it is not a SentencePiece model"));
    // A model of one piece, which is neither unknown nor an end.
    assert!(sentence(&[0x0a, 3, 0x0a, 1, b'a']).contains("no unknown piece"));
    // trainer_spec.model_type = BPE
    assert!(sentence(&[0x12, 2, 0x18, 2]).contains("BPE"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever its bytes, a model is an error or makes tokens of a text, and text of tokens.
    #[test]
    fn no_mutation_panics(at in 0.0..1.0f64, byte in any::<u8>(), cut in any::<bool>(), text in ".{0,40}") {
        let (_directory, path) = copy();
        let mut bytes = fs::read(&path).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(path) {
            let tokens = tokenizer.encode(&text).unwrap();
            tokenizer.decode(&tokens).unwrap();
        }
    }
}
