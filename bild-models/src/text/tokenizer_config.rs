//! What the files beside a tokenizer say of it: `tokenizer_config.json` and, where that has no `added_tokens_decoder`,
//! `special_tokens_map.json` and `added_tokens.json`, in the order in which transformers reads them.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use bild_core::Token;
use serde_json::Value;
use tokenizers::AddedToken;

use super::vetted::{ADDED, LONGEST_STRING};
use crate::{
    error::{LoadError, Result},
    files::Folder,
};

/// The roles that a token may be named for, in the order in which transformers adds those that are new.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What T5's tokenizer takes for the roles that no file names a token for.
const T5_ROLES: [(&str, &str); 3] = [("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];

/// How many sentinels `<extra_id_0>` and on a T5 has unless a file says otherwise, and the most that one may say.
const SENTINELS: usize = 100;
const MOST_SENTINELS: u64 = 10_000;

#[derive(Debug)]
#[cfg_attr(not(feature = "sentencepiece"), allow(dead_code))] // some of it is for a spiece.model alone
pub(crate) struct TokenizerConfig {
    /// Whether the tokenizer is T5's, which has sentinels and takes for granted how its special tokens are called.
    pub(crate) is_t5: bool,
    /// Added tokens with their numbers.
    pub(crate) added: BTreeMap<Token, AddedToken>,
    /// The tokens that are named for a role, by its name, in transformers' order.
    pub(crate) roles: Vec<(String, AddedToken)>,
    /// More special tokens, in order: none if no file has such a list.
    pub(crate) additional: Option<Vec<AddedToken>>,
    pub(crate) extra_ids: usize,
    /// Whether text after an added token begins a word, as in transformers before it had `legacy: false`.
    pub(crate) legacy: bool,
    pub(crate) add_prefix_space: bool,
    /// Whether special tokens in a text are cut as any text.
    pub(crate) split_special_tokens: bool,
    pub(crate) clean_up: bool,
    /// Whether also the text of a BPE model is cleaned up.
    pub(crate) clean_up_bpe: bool,
}

impl TokenizerConfig {
    /// Reads the files beside a tokenizer, as far as they are there.
    pub(crate) fn in_folder(folder: &Folder) -> Result<Self> {
        let read = |name: &str| {
            let file = folder.file(name);
            let values = if file.exists() { file.json()? } else { Value::Null };
            Ok::<_, LoadError>(File { path: file.path().into(), values })
        };
        let config = read("tokenizer_config.json")?;
        let mut files = vec![config];
        let mut added = BTreeMap::new();
        let mut numbers = None;
        if let Some(value) = files[0].get("added_tokens_decoder") {
            for (number, entry) in files[0].object("added_tokens_decoder", value)? {
                let token = number.parse().map_err(|_| files[0].wrong("added_tokens_decoder", number, A_NUMBER))?;
                added.insert(token, files[0].token("added_tokens_decoder", entry, false)?);
            }
        } else {
            // What this file says goes before what tokenizer_config.json says.
            files.insert(0, read("special_tokens_map.json")?);
            numbers = Some(read("added_tokens.json")?);
        }

        let config = &files[files.len() - 1];
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        let is_t5 = class.is_none_or(|class| class.contains("T5Tokenizer"));
        let roles = roles(&files, is_t5)?;
        let additional = additional(&files)?;
        if let Some(file) = numbers {
            let special = roles.iter().map(|role| &role.1).chain(additional.iter().flatten());
            let special: HashSet<&str> = special.map(|token| &*token.content).collect();
            for (content, number) in file.values.as_object().into_iter().flatten() {
                file.check_length(content)?;
                let token = number.as_u64().and_then(|number| Token::try_from(number).ok());
                let token = token.ok_or_else(|| file.wrong(content, &number.to_string(), A_NUMBER))?;
                let is_special = special.contains(&**content);
                added.insert(token, AddedToken::from(content, is_special));
            }
        }
        let extra_ids = match config.values.get("extra_ids") {
            None => SENTINELS,
            Some(value) => {
                let count = value.as_u64().filter(|&count| count <= MOST_SENTINELS);
                count.ok_or_else(|| config.wrong("extra_ids", &value.to_string(), "a number of sentinel tokens"))?
                    as usize
            }
        };
        let found = Self {
            legacy: config.flag("legacy", true)?,
            add_prefix_space: config.flag("add_prefix_space", true)?,
            split_special_tokens: config.flag("split_special_tokens", false)?,
            clean_up: config.flag("clean_up_tokenization_spaces", false)?,
            clean_up_bpe: config
                .flag("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", false)?,
            is_t5,
            added,
            roles,
            additional,
            extra_ids,
        };
        let bytes: usize = found.tokens().map(|token| token.content.len()).sum();
        if bytes > ADDED {
            let reason = format!("its files name tokens of {bytes} bytes together, expected at most {ADDED}");
            return Err(LoadError::Broken { path: folder.path().into(), reason });
        }
        Ok(found)
    }

    /// Every token that the files name.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &AddedToken> {
        self.added.values().chain(self.named())
    }

    /// Every token that is special by name: those of roles and the additional ones.
    pub(crate) fn named(&self) -> impl Iterator<Item = &AddedToken> {
        self.roles.iter().map(|(_, token)| token).chain(self.additional.iter().flatten())
    }

    /// The text of the token that is named for a role.
    #[cfg(feature = "sentencepiece")]
    pub(crate) fn role(&self, name: &str) -> Option<&str> {
        self.roles.iter().find(|(role, _)| role == name).map(|(_, token)| &*token.content)
    }
}

/// The sentinel `<extra_id_…>` of a number.
pub(crate) fn sentinel(number: usize) -> String {
    format!("<extra_id_{number}>")
}

/// Whether a token is called as a sentinel is.
pub(crate) fn is_sentinel(token: &AddedToken) -> bool {
    token.content.contains("<extra_id_")
}

/// The tokens that the first file that names one names for each role, and those of `extra_special_tokens` that have a role
/// of their own.
fn roles(files: &[File], is_t5: bool) -> Result<Vec<(String, AddedToken)>> {
    let mut roles = Vec::new();
    for role in ROLES {
        // A file may say that there is none.
        let said = files.iter().find_map(|file| file.values.get(role).map(|value| (file, value)));
        let default = T5_ROLES.iter().find(|(name, _)| *name == role && is_t5).map(|(_, token)| *token);
        match said {
            Some((_, Value::Null)) => {}
            Some((file, value)) => roles.push((role.to_owned(), file.token(role, value, true)?)),
            None => roles.extend(default.map(|token| (role.to_owned(), AddedToken::from(token, true)))),
        }
    }
    for file in files {
        for (role, value) in file.get("extra_special_tokens").and_then(Value::as_object).into_iter().flatten() {
            roles.push((role.clone(), file.token("extra_special_tokens", value, true)?));
        }
    }
    Ok(roles)
}

/// The lists of special tokens without a role, that of tokenizer_config.json first.
fn additional(files: &[File]) -> Result<Option<Vec<AddedToken>>> {
    let mut additional: Option<Vec<AddedToken>> = None;
    let mut known = HashSet::new();
    for file in files.iter().rev() {
        for field in ["additional_special_tokens", "extra_special_tokens"] {
            let list = match file.get(field) {
                Some(Value::Array(list)) => list,
                Some(value) if field == "additional_special_tokens" => {
                    return Err(file.wrong(field, &value.to_string(), "a list of tokens"));
                }
                _ => continue,
            };
            let additional = additional.get_or_insert_default();
            for value in list {
                let token = file.token(field, value, true)?;
                if known.insert(token.content.clone()) {
                    additional.push(token);
                }
            }
        }
    }
    Ok(additional)
}

/// One of the files, null where it is not there.
struct File {
    path: PathBuf,
    values: Value,
}

const A_NUMBER: &str = "the number of a token";

impl File {
    /// A field that is there and not null.
    fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(field).filter(|value| !value.is_null())
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(field, &value.to_string(), "true or false")),
        }
    }

    fn object<'v>(&self, field: &str, value: &'v Value) -> Result<&'v serde_json::Map<String, Value>> {
        value.as_object().ok_or_else(|| self.wrong(field, &value.to_string(), "an object"))
    }

    /// A token as a string, or as an object with its `content` and what else is said of it.
    fn token(&self, field: &str, value: &Value, is_special: bool) -> Result<AddedToken> {
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        let content = value.as_str().or_else(|| value.get("content")?.as_str());
        let content = content.ok_or_else(|| self.wrong(field, &value.to_string(), "a token, or tokens"))?;
        self.check_length(content)?;
        let special = is_special || flag("special").unwrap_or(false);
        Ok(AddedToken::from(content, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)))
    }

    /// What a `tokenizer.json` may not hold either.
    fn check_length(&self, content: &str) -> Result<()> {
        match content.len() {
            length if length > LONGEST_STRING => {
                Err(self.broken(format!("it names a token of {length} bytes, expected at most {LONGEST_STRING}")))
            }
            _ => Ok(()),
        }
    }

    fn broken(&self, reason: String) -> LoadError {
        LoadError::Broken { path: self.path.clone(), reason }
    }

    fn wrong(&self, field: &str, found: &str, expected: &str) -> LoadError {
        // A list of a hundred tokens would hide the sentence.
        let found =
            if found.chars().count() > 80 { found.chars().take(80).chain(['…']).collect() } else { found.into() };
        LoadError::Field { path: self.path.clone(), field: field.into(), found, expected: expected.into() }
    }
}
