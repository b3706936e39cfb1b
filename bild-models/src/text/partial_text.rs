use bild_core::{Result, Token};

use super::Tokenizer;

/// How many tokens of context a window keeps, and how many it may have before it is cut.
const CONTEXT: usize = 16;
const LONGEST: usize = 64;

/// The least text, in bytes, that a window must have in common with the longer one before it.
const LEAST_CONTEXT: usize = 16;

/// Text that grows with its tokens. A token is not a piece of text by itself: a space may belong to the next one, and a
/// character may be spread over several. So a window of the last tokens is decoded, and a piece is what its settled text
/// has grown by.
pub(crate) struct PartialText {
    tokenizer: Tokenizer,
    tokens: Vec<Token>,
    /// The window begins at this token.
    window: usize,
    /// The settled text of the window, which has been given out.
    given: String,
}

impl PartialText {
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), window: 0, given: String::new() }
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Adds a token; returns what can be given out.
    pub(crate) fn push(&mut self, token: Token) -> Result<String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode_settled(&self.tokens[self.window..])?;
        let piece = self.grown(text);
        if self.tokens.len() - self.window > LONGEST {
            self.cut()?;
        }
        Ok(piece)
    }

    /// What is left when no token follows.
    pub(crate) fn rest(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.tokens[self.window..])?;
        Ok(self.grown(text))
    }

    /// What a text has that has not been given out. If text that has been is another now, what follows their common
    /// beginning is: nothing is lost, though something may stand there twice.
    fn grown(&mut self, text: String) -> String {
        let same = text.char_indices().zip(self.given.chars()).take_while(|((_, new), given)| new == given);
        let common = same.last().map_or(0, |((at, character), _)| at + character.len_utf8());
        let piece = text[common..].to_owned();
        if !piece.is_empty() {
            self.given = text;
        }
        piece
    }

    /// Lets the window begin later, if its text then ends as it did.
    fn cut(&mut self) -> Result<()> {
        let window = self.tokens.len() - CONTEXT;
        let text = self.tokenizer.decode_settled(&self.tokens[window..])?;
        // White space that a text begins with may be left out.
        let same = text.trim_start();
        if same.len() >= LEAST_CONTEXT && self.given.ends_with(same) {
            (self.window, self.given) = (window, text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    struct Random(u64);

    impl Random {
        fn below(&mut self, below: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) % below as u64) as usize
        }
    }

    /// Feeds `count` texts of tokens of `all` and compares the pieces with the text. Returns how many pieces there were.
    fn check(tokenizer: &Tokenizer, all: &[Token], length: usize, count: usize) -> usize {
        let (mut random, mut pieces) = (Random(1), 0);
        for _ in 0..count {
            let tokens: Vec<Token> = (0..length).map(|_| all[random.below(all.len())]).collect();
            let mut partial = PartialText::new(tokenizer.clone());
            let mut text = String::new();
            for token in &tokens {
                let piece = partial.push(*token).unwrap();
                pieces += usize::from(!piece.is_empty());
                text += &piece;
            }
            text += &partial.rest().unwrap();
            assert_eq!(text, tokenizer.decode(&tokens).unwrap(), "{tokens:?}");
        }
        pieces
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    /// A copy of the recorded model beside a tokenizer_config.json.
    fn with_config(config: &str) -> Tokenizer {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spiece.model");
        std::fs::copy(fixture("sentencepiece/spiece.model"), &path).unwrap();
        std::fs::write(directory.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::open(path).unwrap()
    }

    /// Whatever tokens come, also spaces and bytes of half characters, the pieces together are the text.
    #[test]
    fn pieces_are_the_text() {
        let tokenizer = with_config("{}");
        let space = tokenizer.token("▁").unwrap();
        // Every third token is a lone space; the first pieces are special ones and bytes.
        let all: Vec<Token> = (0..700).flat_map(|token| [token, token % 270, space]).collect();
        for length in [12, 150] {
            assert!(check(&tokenizer, &all, length, 300) > 300 * length / 4);
        }
    }

    #[test]
    fn pieces_are_the_cleaned_up_text() {
        let config = r#"{"clean_up_tokenization_spaces": true, "added_tokens_decoder": {
            "700": {"content": "<sep>", "special": false}, "701": {"content": "'ve", "special": false}}}"#;
        let tokenizer = with_config(config);
        let mut all: Vec<Token> = (3..280).step_by(40).chain([700, 701]).collect();
        let signs = ["▁", ".", "?", "!", ",", "'", "n", "t", "s", "▁a", "▁n"];
        all.extend(signs.iter().filter_map(|sign| tokenizer.token(sign)).flat_map(|token| [token; 3]));
        assert!(all.len() > 27, "the model has these signs");
        for length in [12, 150] {
            assert!(check(&tokenizer, &all, length, 300) > 300 * length / 8);
        }
    }

    /// The crate `tokenizers`: a byte-level BPE, and a decoder that makes characters of a run of bytes or of none of them.
    #[test]
    fn pieces_are_the_text_of_a_tokenizer_json() {
        let records = std::fs::read(fixture("../tokenizers/json.json")).unwrap();
        let mut bases = serde_json::from_slice::<serde_json::Value>(&records).unwrap()["bases"].take();
        let unigram = &mut bases["unigram"];
        let vocab = unigram["model"]["vocab"].as_array_mut().unwrap();
        let first_byte = vocab.len() as Token;
        vocab.extend((0..256).map(|byte| serde_json::json!([format!("<0x{byte:02X}>"), -9.0])));
        let parts = [
            r#"{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}"#,
            r#"{"type": "ByteFallback"}"#,
            r#"{"type": "Fuse"}"#,
            r#"{"type": "Strip", "content": " ", "start": 1, "stop": 0}"#,
        ];
        let parts = parts.map(|part| serde_json::from_str::<serde_json::Value>(part).unwrap());
        unigram["decoder"] = serde_json::json!({"type": "Sequence", "decoders": parts});

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        // Whole characters of several bytes, halves of them, special tokens and text.
        let bytes = "é€😀".bytes().map(|byte| first_byte + Token::from(byte));
        for (name, all) in
            [("unigram", bytes.chain([0, 1, 3, 20, 54]).collect()), ("byte-level", (0..262).collect::<Vec<_>>())]
        {
            std::fs::write(&path, bases[name].to_string()).unwrap();
            let tokenizer = Tokenizer::open(&path).unwrap();
            for length in [12, 150] {
                assert!(check(&tokenizer, &all, length, 300) > 300 * length / 8, "{name}");
            }
        }
    }

    /// Text that was given out and is another later: what follows is given out nevertheless.
    #[test]
    fn nothing_is_lost_where_text_changes() {
        let mut partial = PartialText::new(with_config("{}"));
        let mut grown = |text: &str| partial.grown(text.into());
        assert_eq!(grown("One tw"), "One tw");
        assert_eq!(grown("One"), "");
        assert_eq!(grown("One two"), "o");
        assert_eq!(grown("One, two"), ", two");
        assert_eq!(grown("One, two, three"), ", three");
    }
}
