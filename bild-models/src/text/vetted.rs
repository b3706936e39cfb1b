//! What a stranger's `tokenizer.json` may hold. The crate `tokenizers` does what it says, however long that takes and however much
//! memory: what would let a text grow without bounds, take minutes, or use up the stack is refused before it is asked.

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, NormalizedString, Normalizer, NormalizerWrapper};

use super::panics::caught_quietly;
use crate::files::json;

/// The longest string in bytes, but for rules of characters; that of any known tokenizer has a few hundred.
pub(super) const LONGEST_STRING: usize = 1024;

/// All strings together. A Unigram model takes some 350 bytes of memory for each byte of a piece, and mT5's pieces have 2.5 MB; others take
/// little more than their pieces and merges.
const STRINGS: usize = 32 << 20;
const STRINGS_OF_UNIGRAM: usize = 6 << 20;

/// All added tokens together, as they are looked for in a text: each byte takes many times as much memory.
pub(super) const ADDED: usize = 6 << 20;

/// By how much the rules of a normalizer, a pre-tokenizer or a decoder may make a text longer.
const GROWTH: f64 = 256.0;

/// The most parts of a template, and tokens of one of them.
const TEMPLATE: usize = 64;

/// How often a regular expression may repeat a part, all repetitions within others.
const REPETITIONS: u64 = 10_000;

/// The most bytes that a rule of characters may make of one: in NFKC it is 33.
pub(super) const LONGEST_RESULT: usize = 64;

/// Refuses a file that must not be opened, with the tokens that the files beside it may add.
pub(super) fn vet<'t>(text: &[u8], beside: impl Iterator<Item = &'t AddedToken>) -> Result<(), String> {
    let file = json::parse(text)?;
    let mut strings = 0;
    vet_value("", &file, &mut strings)?;
    let of_unigram = file.get("model").and_then(|model| model.get("type")).is_some_and(|kind| kind == "Unigram");
    let most = if of_unigram { STRINGS_OF_UNIGRAM } else { STRINGS };
    if strings > most {
        return Err(format!("its strings have {strings} bytes together, expected at most {most}"));
    }
    for part in ["normalizer", "pre_tokenizer", "decoder"] {
        let growth = file.get(part).map_or(1.0, growth);
        if growth > GROWTH {
            return Err(format!("its {part} may make a text {growth} times as long, expected at most {GROWTH}"));
        }
    }
    let vetted = caught_quietly(|| vet_added(&file, beside));
    vetted.unwrap_or_else(|panic| Err(format!("its normalizer makes no sense of an added token ({panic})")))
}

/// The crate makes an automaton of all added tokens with a state for each byte, of some as its normalizer makes them.
fn vet_added<'t>(file: &Value, beside: impl Iterator<Item = &'t AddedToken>) -> Result<(), String> {
    let own = file.get("added_tokens").and_then(Value::as_array).into_iter().flatten().filter_map(|token| {
        let normalized = token.get("normalized").and_then(Value::as_bool).unwrap_or_default();
        Some((token.get("content")?.as_str()?, normalized))
    });
    let added: Vec<(&str, bool)> = own.chain(beside.map(|token| (&*token.content, token.normalized))).collect();
    let is_needed = added.iter().any(|(_, normalized)| *normalized);
    // One that makes no sense is refused by the crate.
    let normalizer = file.get("normalizer").filter(|_| is_needed);
    let normalizer = normalizer.and_then(|value| NormalizerWrapper::deserialize(value).ok());
    let mut bytes = 0;
    for (content, normalized) in added {
        let mut length = content.len();
        if let Some(normalizer) = normalizer.as_ref().filter(|_| normalized) {
            let mut text = NormalizedString::from(content);
            let result = normalizer.normalize(&mut text);
            result.map_err(|error| format!("its normalizer fails on an added token: {error}"))?;
            length = length.max(text.get().len());
        }
        bytes += length;
        if bytes > ADDED {
            return Err(format!("its added tokens have at least {bytes} bytes normalized, expected at most {ADDED}"));
        }
    }
    Ok(())
}

/// Looks at a value that stands under this key.
fn vet_value(key: &str, value: &Value, strings: &mut usize) -> Result<(), String> {
    match value {
        Value::String(text) => vet_string(key, text, strings),
        Value::Array(list) => {
            let sources = list.iter().filter(|item| item.get("Sequence").is_some()).count();
            if key == "single" && sources > 1 {
                return Err(format!("its template repeats a text {sources} times"));
            }
            if ["single", "ids"].contains(&key) && list.len() > TEMPLATE {
                return Err(format!("its template has {} parts ({key}), expected at most {TEMPLATE}", list.len()));
            }
            list.iter().try_for_each(|value| vet_value(key, value, strings))
        }
        Value::Object(object) => object.iter().try_for_each(|(key, value)| {
            vet_string("", key, strings)?;
            vet_value(key, value, strings)
        }),
        Value::Number(number) => {
            let largest = if key == "max_input_chars_per_word" { 1000 } else { i64::from(i32::MAX) as u64 };
            match number.as_u64() {
                Some(number) if number > largest && !is_length(key) => {
                    Err(format!("it has the number {number} ({key}), expected at most {largest}"))
                }
                _ => Ok(()),
            }
        }
        Value::Bool(_) | Value::Null => Ok(()),
    }
}

/// Of truncation and padding, which are left aside.
fn is_length(key: &str) -> bool {
    ["max_length", "stride", "pad_to_multiple_of", "Fixed"].contains(&key)
}

fn vet_string(key: &str, text: &str, strings: &mut usize) -> Result<(), String> {
    if key == "precompiled_charsmap" {
        return vet_rules(text);
    }
    *strings += text.len();
    if text.len() > LONGEST_STRING {
        return Err(format!("it has a string of {} bytes, expected at most {LONGEST_STRING}", text.len()));
    }
    match key {
        "Regex" if repetitions(text) > REPETITIONS => {
            Err(format!("its regular expression {text:?} repeats more than {REPETITIONS} times"))
        }
        _ => Ok(()),
    }
}

/// The rules of characters in base64: see `LONGEST_RESULT`. What is none is refused by the crate.
fn vet_rules(text: &str) -> Result<(), String> {
    use base64::{Engine, prelude::BASE64_STANDARD};

    let Ok(rules) = BASE64_STANDARD.decode(text) else { return Ok(()) };
    let size = rules.first_chunk().map_or(0, |&size| u32::from_le_bytes(size) as usize);
    vet_results(rules.get(4 + size..).unwrap_or_default())
}

/// The results of rules of characters, one after the other with a zero byte after each.
pub(super) fn vet_results(results: &[u8]) -> Result<(), String> {
    match results.split(|&byte| byte == 0).map(<[u8]>::len).max() {
        Some(longest) if longest > LONGEST_RESULT => Err(format!(
            "a rule of its normalizer makes {longest} bytes of a character, expected at most {LONGEST_RESULT}"
        )),
        _ => Ok(()),
    }
}

/// How many times as long as before a text may be, after all that a value describes.
fn growth(value: &Value) -> f64 {
    let own = value.as_object().map_or(1.0, own_growth);
    let parts: &mut dyn Iterator<Item = &Value> = match value {
        Value::Array(list) => &mut list.iter(),
        Value::Object(object) => &mut object.values(),
        _ => &mut std::iter::empty(),
    };
    own * parts.map(growth).product::<f64>()
}

fn own_growth(part: &Map<String, Value>) -> f64 {
    let length = |key: &str| part.get(key).and_then(Value::as_str).map_or(0, str::len) as f64;
    match part.get("type").and_then(Value::as_str) {
        Some("Replace") => match part.get("pattern").and_then(|pattern| pattern.get("String")?.as_str()) {
            Some(pattern) if !pattern.is_empty() => (length("content") / pattern.len() as f64).max(1.0),
            // What matches nothing does so between all characters.
            _ => 1.0 + length("content"),
        },
        Some("Prepend") => 1.0 + length("prepend"),
        Some("ByteLevel") => 2.0,
        // An empty one is found between all characters, and becomes a space.
        Some("BPEDecoder") if length("suffix") == 0.0 => 2.0,
        Some("CTC") if length("word_delimiter_token") == 0.0 || length("pad_token") == 0.0 => 2.0,
        Some("Precompiled") => LONGEST_RESULT as f64,
        _ => 1.0,
    }
}

/// How often a regular expression may repeat a part by counts in braces, were they all within each other.
fn repetitions(pattern: &str) -> u64 {
    let braces = pattern.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(counts, _)| counts);
    let counts = braces.map(|counts| {
        let numbers = counts.split(',').filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        numbers.filter(|number| !number.is_empty()).map(|number| number.parse().unwrap_or(u64::MAX)).max().unwrap_or(1)
    });
    counts.fold(1, |product: u64, count| product.saturating_mul(count.max(1)))
}

#[cfg(test)]
mod tests {
    use std::iter;

    use serde_json::json;

    use super::*;

    fn reason(file: &Value) -> String {
        vet(file.to_string().as_bytes(), iter::empty()).unwrap_err()
    }

    #[test]
    fn what_would_grow_hang_or_overflow_the_stack_is_refused() {
        let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
        let doubled = json!({"normalizer": {"type": "Sequence", "normalizers": vec![replace("aa"); 9]}});
        assert_eq!(reason(&doubled), "its normalizer may make a text 512 times as long, expected at most 256");
        let between = |pattern: Value| json!({"type": "Replace", "pattern": pattern, "content": "a"});
        for part in [
            between(json!({"Regex": "x*"})),
            between(json!({"String": ""})),
            json!({"type": "ByteLevel"}),
            json!({"type": "BPEDecoder", "suffix": ""}),
            json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "|"}),
        ] {
            for place in ["normalizer", "pre_tokenizer", "decoder"] {
                assert!(reason(&json!({ place: vec![part.clone(); 9] })).contains("512 times"), "{part}");
            }
        }
        let ruled = json!({"normalizer": [{"type": "Precompiled"}, {"type": "Precompiled"}]});
        assert!(reason(&ruled).contains("4096 times"));
        assert!(reason(&json!({"decoder": replace(&"a".repeat(257))})).contains("decoder may make a text 257 times"));
        assert!(
            reason(&json!({"single": vec![json!({"SpecialToken": {"id": "a"}}); 65]}))
                .contains("has 65 parts (single)")
        );
        assert!(reason(&json!({"special_tokens": {"a": {"ids": vec![1; 65]}}})).contains("has 65 parts (ids)"));
        assert!(reason(&json!({"added_tokens": [{"content": "a".repeat(1025)}]})).contains("a string of 1025 bytes"));
        assert!(reason(&json!({"model": {"vocab": {"a".repeat(2000): 1}}})).contains("a string of 2000 bytes"));
        let many: Vec<String> = (0..9000).map(|i| format!("{i:01000}")).collect();
        let unigram = json!({"model": {"type": "Unigram", "vocab": many}});
        assert!(reason(&unigram).contains("expected at most 6291456"));
        vet(json!({"model": {"type": "BPE", "merges": many}}).to_string().as_bytes(), iter::empty()).unwrap();
        for pattern in ["((?=a)){99999999999}", "((a{101}){100})", "a{,10001}", "a{99999999999999999999}"] {
            assert!(reason(&json!({"pattern": {"Regex": pattern}})).contains("repeats more than 10000 times"));
        }
        let template = json!({"single": [{"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}]});
        assert_eq!(reason(&template), "its template repeats a text 2 times");
        assert!(reason(&json!({"vocab": {"a": 4_294_967_295u64}})).contains("the number 4294967295 (a)"));
        assert!(reason(&json!({"max_input_chars_per_word": 1001})).contains("expected at most 1000"));
        let rules = [&4u32.to_le_bytes()[..], &[0; 4], "b".repeat(65).as_bytes()].concat();
        let rules = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, rules);
        assert!(reason(&json!({"precompiled_charsmap": rules})).contains("makes 65 bytes of a character"));
    }

    #[test]
    fn added_tokens_that_would_make_too_large_an_automaton_are_refused() {
        let says = "bytes normalized, expected at most 6291456";
        let token = |normalized: bool| json!({"content": "a".repeat(1000), "normalized": normalized});
        assert!(reason(&json!({"added_tokens": vec![token(false); 7000]})).contains(says));
        let normalizer = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "b".repeat(256)});
        let file = |own: Value| json!({"normalizer": normalizer, "added_tokens": own});
        assert!(reason(&file(json!(vec![token(true); 25]))).contains(says));
        let vet = |own: Value, beside: &[AddedToken]| vet(file(own).to_string().as_bytes(), beside.iter());
        vet(json!(vec![token(false); 25]), &[]).unwrap();
        let beside = |special: bool| vec![AddedToken::from("a".repeat(1000), special); 15];
        assert!(vet(json!(vec![token(true); 10]), &beside(false)).unwrap_err().contains(says));
        vet(json!(vec![token(true); 10]), &beside(true)).unwrap();
    }

    #[test]
    fn what_tokenizers_have_is_not() {
        let usual = json!({
            "truncation": {"max_length": 4_294_967_296u64},
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": ""},
                {"type": "Strip"},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
            ]},
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+"}},
            "post_processor": {"single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}]},
            "decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            "model": {"max_input_chars_per_word": 100, "vocab": {"a": 250_111}},
        });
        vet(usual.to_string().as_bytes(), iter::empty()).unwrap();
        // A T5 with its sentinels, and with words that a program has added.
        let sentinels = (0..100).map(|i| json!({"content": format!("<extra_id_{i}>"), "normalized": false}));
        let words = (0..5000).map(|i| json!({"content": format!("word{i:05}"), "normalized": true}));
        let normalizers =
            json!([{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁".repeat(60)}]);
        let added: Vec<Value> = sentinels.chain(words).collect();
        let with_words = json!({"normalizer": {"type": "Sequence", "normalizers": normalizers}, "added_tokens": added});
        vet(with_words.to_string().as_bytes(), iter::empty()).unwrap();
    }
}
