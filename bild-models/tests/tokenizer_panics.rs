//! Panics of the crate `tokenizers` are sentences and print nothing. A program of its own, because there is one panic hook.

use std::{
    fs,
    panic::{set_hook, take_hook},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use bild_models::Tokenizer;
use serde_json::{Value, json};

/// How often the hook of this program was called, for this test's own panics and for others.
static OWN: AtomicUsize = AtomicUsize::new(0);
static OTHERS: AtomicUsize = AtomicUsize::new(0);

/// A template that names a token it does not describe, and a decoder that strips both ends of a piece of one character, make
/// the crate panic on some texts and on some tokens. The hook that the program has set stays, for panics of its own.
#[test]
fn a_panic_is_a_sentence_with_the_file_and_the_text() {
    let printing = take_hook();
    set_hook(Box::new(move |info| {
        let is_own = info.payload().downcast_ref::<&str>() == Some(&"on purpose");
        if is_own {
            OWN.fetch_add(1, Ordering::Relaxed);
        } else {
            OTHERS.fetch_add(1, Ordering::Relaxed);
            printing(info);
        }
    }));
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers/json.json");
    let records: Value = serde_json::from_slice(&fs::read(records).unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    let open = |field: &str, value: Value| {
        let mut base = records["bases"]["unigram"].clone();
        *base.pointer_mut(field).unwrap() = value;
        fs::write(&path, base.to_string()).unwrap();
        Tokenizer::open(&path)
    };

    let template = open("/post_processor/special_tokens", json!({})).unwrap();
    let error = template.encode(&"Tom und ".repeat(20)).unwrap_err().to_string();
    let text = format!("a text that begins with {:?}", "Tom und ".repeat(5));
    for part in [path.to_str().unwrap(), &text, "no entry found for key"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(template.encode_plain("Tom").unwrap().len(), 1, "where it does not panic, it works");

    let strips = open("/decoder", json!({"type": "Strip", "content": "x", "start": 1, "stop": 1})).unwrap();
    let x = strips.token("x").unwrap();
    let error = strips.decode(&[x]).unwrap_err().to_string();
    for part in [path.to_str().unwrap(), &format!("tokens that begin with [{x}]")] {
        assert!(error.contains(part), "{error}");
    }
    let error = open("/model/vocab", json!([])).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json is broken: it is not a tokenizer"), "{error}");

    // Panics of other threads meanwhile are not swallowed, nor are those of this one afterwards.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    template.encode("Tom").unwrap_err();
                    thread::spawn(|| panic!("on purpose")).join().unwrap_err();
                    std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
                }
            });
        }
    });
    assert_eq!(OWN.load(Ordering::Relaxed), 4 * 50 * 2);
    assert_eq!(OTHERS.load(Ordering::Relaxed), 0);
}
