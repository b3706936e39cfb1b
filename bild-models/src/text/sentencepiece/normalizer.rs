//! What a text goes through before it is cut into pieces: characters are rewritten by the rules that the model carries
//! (NFKC, mostly), spaces become marks.

use super::{
    SPACE,
    longest::Longest,
    proto::{Kind, NormalizerSpec, Piece},
};
use crate::text::vetted::vet_results;

#[derive(Debug)]
pub(super) struct Normalizer {
    rules: Rules,
    /// Pieces of the user's, which are not rewritten.
    user_defined: Longest,
    begins_with_space: bool,
    collapses_spaces: bool,
}

impl Normalizer {
    pub(super) fn new(spec: NormalizerSpec, pieces: &[Piece]) -> Result<Self, String> {
        if !spec.escape_whitespaces() {
            return Err("it leaves spaces as they are, which no T5 does".into());
        }
        let user_defined = pieces.iter().filter(|piece| piece.kind() == Kind::UserDefined);
        let user_defined = Longest::new(user_defined.map(|piece| piece.piece().to_owned()));
        Ok(Self {
            rules: Rules::new(spec.precompiled_charsmap())?,
            user_defined,
            begins_with_space: spec.add_dummy_prefix(),
            collapses_spaces: spec.remove_extra_whitespaces(),
        })
    }

    /// The text as pieces are looked for in it. `begins_word`: whether it begins with a space though none is there.
    pub(super) fn normalize(&self, text: &str, begins_word: bool) -> String {
        let mut normalized = String::with_capacity(text.len() + SPACE.len());
        if self.begins_with_space && begins_word {
            normalized.push_str(SPACE);
        }
        let empty = normalized.len();
        let mut after_space = self.collapses_spaces;
        let mut rest = text;
        while !rest.is_empty() {
            let (mut part, length) = self.first(rest);
            rest = &rest[length..];
            if after_space {
                part = part.trim_start_matches(' ');
            }
            if part.is_empty() {
                continue;
            }
            after_space = self.collapses_spaces && part.ends_with(' ');
            for character in part.chars() {
                if character == ' ' { normalized.push_str(SPACE) } else { normalized.push(character) }
            }
        }
        if self.collapses_spaces {
            normalized.truncate(normalized.trim_end_matches(SPACE).len());
        }
        // A text of nothing but spaces is empty, not one space.
        if normalized.len() <= empty && (self.collapses_spaces || text.is_empty()) {
            normalized.clear();
        }
        normalized
    }

    /// What the longest beginning of a text that has a rule, or else its first character, becomes; and its length.
    fn first<'t>(&'t self, text: &'t str) -> (&'t str, usize) {
        if let Some(piece) = self.user_defined.at(text) {
            return (piece, piece.len());
        }
        if let Some((result, length)) = self.rules.longest(text) {
            return (result, length);
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (&text[..length], length)
    }
}

/// The rules of a `precompiled_charsmap`: a double-array trie of u32 units (its length in bytes before it) from the bytes
/// of a text to an offset into the results, each of which ends with a zero byte.
#[derive(Debug)]
struct Rules {
    units: Vec<u32>,
    results: String,
}

impl Rules {
    fn new(map: &[u8]) -> Result<Self, String> {
        if map.is_empty() {
            return Ok(Self { units: Vec::new(), results: String::new() });
        }
        let broken = || "its normalization rules are cut off or not UTF-8".to_owned();
        let (size, rest) = map.split_at_checked(4).ok_or_else(broken)?;
        let size = u32::from_le_bytes(size.try_into().unwrap_or_default()) as usize;
        let (units, results) = rest.split_at_checked(size).ok_or_else(broken)?;
        vet_results(results)?;
        let units = units.as_chunks().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
        Ok(Self { units, results: String::from_utf8(results.to_vec()).map_err(|_| broken())? })
    }

    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        // A unit: bits 0 to 7 the byte that leads to it (with bit 31 clear), bit 8 whether a key ends here, from bit 10
        // on the offset to its children, in steps of 256 if bit 9 is set. Where a key ends, the unit at the offset holds
        // its value.
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut longest = None;
        let mut at = offset(*self.units.first()?);
        for (i, byte) in text.bytes().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit & (1 << 8) != 0 {
                longest = self.units.get(at).map(|value| (value & !(1 << 31), i + 1));
            }
        }
        let (value, length) = longest?;
        let result = self.results.get(value as usize..)?;
        // A key of the rules may end within a character only if the rules are broken.
        text.is_char_boundary(length).then(|| (result.split('\0').next().unwrap_or(result), length))
    }
}
