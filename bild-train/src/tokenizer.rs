//! A tokenizer made for texts.

use serde_json::json;
use tokenizers::{
    AddedToken, Tokenizer,
    models::{TrainerWrapper, unigram::UnigramTrainer},
};

use crate::error::{Result, TrainError};

/// The tokens that every T5 has, in their order: padding, end of sequence, unknown.
const SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];

/// A `tokenizer.json` with so many pieces at most, made for texts as T5's was (Unigram: Kudo, 2018): NFKC, words begin with "▁", and
/// the end of the sequence is appended. Characters that the texts do not have are unknown to it. It is made by several threads, so
/// that the last digits of its numbers may differ from run to run.
///
/// # Errors
///
/// If the texts are too few to make it from.
pub fn unigram<S: AsRef<str> + Send>(texts: impl Iterator<Item = S> + Send, pieces: u32) -> Result<String> {
    let failed =
        |error: &dyn std::fmt::Display| TrainError::Data(format!("no tokenizer can be made of the texts: {error}"));
    let special = |(id, content): (usize, &&str)| {
        json!({ "id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false })
    };
    let words = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    let [_, end, unknown] = SPECIAL;
    let empty = json!({
        "version": "1.0",
        "added_tokens": SPECIAL.iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFKC" }, { "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " },
        ] },
        "pre_tokenizer": words,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": end, "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { end: { "id": end, "ids": [1], "tokens": [end] } },
        },
        "decoder": words,
        "model": { "type": "Unigram", "unk_id": 2, "byte_fallback": false,
                   "vocab": SPECIAL.map(|content| (content, 0.0)) },
    });
    let mut tokenizer = Tokenizer::from_bytes(empty.to_string()).map_err(|error| failed(&error))?;
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(pieces)
        .special_tokens(SPECIAL.map(|content| AddedToken::from(content, true)).into())
        .unk_token(Some(unknown.into()))
        .build()
        .map_err(|error| failed(&error))?;
    let mut trainer = TrainerWrapper::UnigramTrainer(trainer);
    tokenizer.train(&mut trainer, texts).map_err(|error| failed(&error))?;
    tokenizer.to_string(true).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use bild::models::Tokenizer;

    use super::*;

    #[test]
    fn a_tokenizer_gives_back_its_texts() {
        let texts: Vec<String> =
            (0..400).map(|i| format!("The {i}th word is a word, and words have {} letters.", i % 7)).collect();
        let json = unigram(texts.iter(), 120).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), &json).unwrap();
        let tokenizer = Tokenizer::open(folder.path().join("tokenizer.json")).unwrap();
        let tokens = tokenizer.encode("The 7th word  is a word").unwrap();
        assert_eq!((tokens.last(), tokenizer.decode(&tokens).unwrap().as_str()), (Some(&1), "The 7th word is a word"));
        assert_eq!(
            (tokenizer.token("<pad>"), tokenizer.token("</s>"), tokenizer.token("<unk>")),
            (Some(0), Some(1), Some(2))
        );
        assert!(tokenizer.token("▁word").is_some(), "{json}");
    }
}
