//! A raw configuration: JSON as transformers means it, read by whichever family it is of.

use std::{collections::HashSet, path::Path};

use bild_core::Token;
use serde_json::Value;

use crate::error::{LoadError, Result};

/// A JSON object and the file it came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) path: &'a Path,
    pub(crate) values: &'a Value,
}

impl<'a> Fields<'a> {
    pub(crate) fn wrong(&self, field: &str, expected: impl Into<String>) -> LoadError {
        let found = self.values.get(field).map_or("missing".into(), Value::to_string);
        LoadError::Field { path: self.path.into(), field: field.into(), found, expected: expected.into() }
    }

    /// The value of a field, which may be null.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.values.get(field)
    }

    pub(crate) fn number(&self, field: &str, default: usize, least: usize) -> Result<usize> {
        const MOST: usize = 1 << 24;
        let size = match self.get(field) {
            Some(value) => value.as_u64().and_then(|n| usize::try_from(n).ok()),
            None => Some(default),
        };
        size.filter(|size| (least..=MOST).contains(size))
            .ok_or_else(|| self.wrong(field, format!("a whole number from {least} to {MOST}")))
    }

    /// A flag, with null as it is in Python: not true.
    pub(crate) fn flag(&self, field: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| match value {
            Value::Null => Ok(false),
            value => value.as_bool().ok_or_else(|| self.wrong(field, "true or false")),
        };
        self.get(field).map(flag).transpose()
    }

    pub(crate) fn text(&self, field: &str) -> Option<&'a str> {
        self.get(field).and_then(Value::as_str)
    }

    /// Whether a transformers 5 or later wrote the file.
    pub(crate) fn is_of_5(&self) -> Option<bool> {
        let major = self.text("transformers_version")?.split('.').next()?;
        major.parse::<u32>().ok().map(|major| major >= 5)
    }

    /// The token that a decoder starts from: a number, or a list of one.
    pub(crate) fn start(&self, vocab_size: usize, default: Option<Token>) -> Result<Token> {
        let (first, second) = ("decoder_start_token_id", "bos_token_id");
        if let (None, Some(default)) = (self.get(first), default) {
            return Ok(default);
        }
        let said = |field: &&str| self.get(field).is_some_and(|value| !value.is_null());
        let Some(field) = [first, second].into_iter().find(said) else {
            let expected = format!("a token below {vocab_size} for a decoder to start from, or a `{second}`");
            return Err(self.wrong(first, expected));
        };
        let token = match self.get(field) {
            Some(Value::Array(list)) if list.len() == 1 => list[0].as_u64(),
            value => value.and_then(Value::as_u64),
        };
        let token = token.filter(|&token| token < vocab_size as u64);
        token.map(|token| token as Token).ok_or_else(|| self.wrong(field, format!("a token below {vocab_size}")))
    }

    /// The tokens that end a sequence: a number or a list. One outside the vocabulary is never written and ends nothing.
    pub(crate) fn end(&self, vocab_size: usize, default: &[Token]) -> Result<Vec<Token>> {
        let field = "eos_token_id";
        let list = match self.get(field) {
            None => return Ok(default.to_vec()),
            Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.as_slice(),
            Some(single) => std::slice::from_ref(single),
        };
        // A file may name one many times.
        let mut end = Vec::new();
        let mut known = HashSet::new();
        for value in list {
            let token = value.as_i64().ok_or_else(|| self.wrong(field, "a token, a list of them or null"))?;
            let token = Token::try_from(token).ok().filter(|&token| (token as usize) < vocab_size);
            end.extend(token.filter(|&token| known.insert(token)));
        }
        Ok(end)
    }
}
