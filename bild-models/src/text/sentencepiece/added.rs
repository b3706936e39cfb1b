//! The tokens that transformers' T5Tokenizer finds in a text before it asks SentencePiece: the special ones, the sentinels
//! `<extra_id_0>` and on, which lie behind the pieces from the highest token down, and those a checkpoint has added.

use std::collections::{BTreeMap, HashMap, HashSet};

use bild_core::Token;
use tokenizers::AddedToken;

use super::longest::Longest;
use crate::text::tokenizer_config::{TokenizerConfig, is_sentinel, sentinel};

#[derive(Debug)]
pub(super) struct Added {
    by_token: BTreeMap<Token, AddedToken>,
    by_content: HashMap<String, Token>,
    /// What is found in a text.
    longest: Longest,
    /// The contents of tokens that decoding leaves out.
    special: HashSet<String>,
}

impl Added {
    pub(super) fn new<'p>(pieces: impl ExactSizeIterator<Item = &'p str>, config: &TokenizerConfig) -> Self {
        let count = pieces.len();
        let mut by_token = BTreeMap::new();
        let mut by_content = HashMap::new();
        // A list of additional special tokens that has no sentinel gives them no place; they are new tokens then.
        let placed = match &config.additional {
            None => config.extra_ids,
            Some(additional) => additional.iter().filter(|token| is_sentinel(token)).count(),
        };
        for i in 0..placed {
            if let Some(token) = (count + config.extra_ids).checked_sub(1 + i) {
                let sentinel = AddedToken::from(sentinel(i), true).lstrip(true).rstrip(true);
                by_content.insert(sentinel.content.clone(), token as Token);
                by_token.insert(token as Token, sentinel);
            }
        }
        for (&token, added) in &config.added {
            if let Some(replaced) = by_token.insert(token, added.clone()) {
                by_content.remove(&replaced.content);
            }
        }
        by_content.extend(config.added.iter().map(|(&token, added)| (added.content.clone(), token)));

        let is_listed = config.additional.iter().flatten().any(is_sentinel);
        let sentinels = 0..if is_listed { 0 } else { config.extra_ids };
        let sentinels = sentinels.map(|i| AddedToken::from(sentinel(i), true));
        let named: Vec<AddedToken> = config.named().cloned().chain(sentinels).collect();
        let placed = by_token.clone();
        let mut vocabulary: HashMap<&str, Token> = pieces.zip(0..).collect();
        vocabulary.retain(|_, token| !placed.contains_key(token));
        vocabulary.extend(placed.iter().map(|(&token, added)| (&*added.content, token)));
        // New tokens are numbered by how many there are, as transformers does it.
        let mut next = vocabulary.len() as Token;
        for added in &named {
            if added.content.is_empty() || by_content.contains_key(&added.content) {
                continue;
            }
            let token = vocabulary.get(&*added.content).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            by_content.insert(added.content.clone(), token);
            by_token.insert(token, added.clone());
        }

        let special = by_token.values().filter(|token| token.special).chain(&named);
        let special = special.map(|token| token.content.clone()).collect();
        let longest = Longest::new(by_content.keys().cloned());
        Self { by_token, by_content, longest, special }
    }

    pub(super) fn token(&self, content: &str) -> Option<Token> {
        self.by_content.get(content).copied()
    }

    pub(super) fn content(&self, token: Token) -> Option<&str> {
        self.by_token.get(&token).map(|added| &*added.content)
    }

    pub(super) fn is_special(&self, content: &str) -> bool {
        self.special.contains(content)
    }

    /// Every added token.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Token)> {
        self.by_token.iter().map(|(&token, added)| (&*added.content, token))
    }

    /// Cuts a text at the added tokens in it, of which the first stands and of those the longest. White space goes where they
    /// say so, and one that must be a word of its own and is none becomes a part of the text beside it. Parts may be empty.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        let mut parts = Vec::new();
        let (mut begin, mut at) = (0, 0);
        while let Some(character) = text[at..].chars().next() {
            if let Some(content) = self.longest.at(&text[at..]) {
                if begin < at {
                    parts.push(text[begin..at].to_owned());
                }
                parts.push(content.to_owned());
                at += content.len();
                begin = at;
            } else {
                at += character.len_utf8();
            }
        }
        if begin < at {
            parts.push(text[begin..].to_owned());
        }
        self.strip(&mut parts);
        parts
    }

    fn strip(&self, parts: &mut [String]) {
        for i in 0..parts.len() {
            let Some(added) = self.token(&parts[i]).and_then(|token| self.by_token.get(&token)) else { continue };
            let (before, rest) = parts.split_at_mut(i);
            let [this, after @ ..] = rest else { continue };
            let (mut left, mut right) = (before.last_mut(), after.first_mut());
            // Whether it is a word of its own is asked before white space goes.
            let joins_left = added.single_word && left.as_ref().is_some_and(|left| left.ends_with(|c| c != ' '));
            let joins_right = added.single_word && right.as_ref().is_some_and(|right| right.starts_with(|c| c != ' '));
            if added.rstrip
                && let Some(right) = &mut right
            {
                **right = right.trim_start_matches(is_space).to_owned();
            }
            if added.lstrip
                && let Some(left) = &mut left
            {
                **left = left.trim_end_matches(is_space).to_owned();
            }
            match (left, right) {
                (Some(left), _) if joins_left => left.push_str(&std::mem::take(this)),
                (_, Some(right)) if joins_right => right.insert_str(0, &std::mem::take(this)),
                _ => {}
            }
        }
    }
}

/// White space as Python's `str.strip` has it.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}
