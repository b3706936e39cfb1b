//! Errors of JSON in words that do not need Rust.

/// What serde says of JSON that is not what was expected, without the names of Rust's types.
#[doc(hidden)]
pub fn plain_words(error: impl std::fmt::Display) -> String {
    let error = error.to_string();
    // A position, where there is one, comes last.
    let (text, position) = match error.rfind(" at line ") {
        Some(at) => error.split_at(at),
        None => (&*error, ""),
    };
    let found = ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|kind| {
        let (found, expected) = text.strip_prefix(kind)?.rsplit_once(", expected ")?;
        let found = if *kind == "invalid length " { format!("a list of {found}") } else { plain_found(found) };
        Some(format!("found {found}, expected {}", plain_expected(expected)))
    });
    found.unwrap_or_else(|| text.into()) + position
}

fn plain_found(found: &str) -> String {
    let number = ["integer `", "floating point `", "boolean `"].iter().find_map(|kind| found.strip_prefix(kind));
    match (number, found) {
        (Some(number), _) => number.trim_end_matches('`').into(),
        (None, "map") => "an object".into(),
        (None, "sequence") => "a list".into(),
        (None, "unit value") => "null".into(),
        (None, found) => found.strip_prefix("string ").unwrap_or(found).into(),
    }
}

fn plain_expected(expected: &str) -> String {
    let size = |word: &str| matches!(word, "u8" | "u16" | "u32" | "u64" | "usize");
    match expected {
        word if size(word) => "a whole number, at least 0".into(),
        word if word.strip_prefix("a nonzero ").is_some_and(size) => "a whole number, at least 1".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        "string or map" => "a name, or an object with one".into(),
        word => match word.strip_prefix("a tuple of size ") {
            Some(size) => format!("a list of {size}"),
            None if word.starts_with("struct ") || word.starts_with("internally tagged enum ") => "an object".into(),
            None if word.starts_with("enum ") || word.ends_with(" identifier") => "a name".into(),
            None => word.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use serde::{Deserialize, de::DeserializeOwned};

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Pair {
        #[allow(dead_code)] // only read from JSON
        one: bool,
    }

    #[derive(Debug, Deserialize)]
    enum Name {}

    fn said<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
        plain_words(serde_json::from_str::<T>(json).unwrap_err())
    }

    #[test]
    fn no_type_of_rust_is_named() {
        for (said, expected) in [
            (said::<usize>("-2"), "found -2, expected a whole number, at least 0 at line 1 column 2"),
            (said::<u32>("2.5"), "found 2.5, expected a whole number, at least 0 at line 1 column 3"),
            (said::<NonZeroUsize>("0"), "found 0, expected a whole number, at least 1 at line 1 column 1"),
            (said::<i64>("\"a\""), "found \"a\", expected a whole number at line 1 column 3"),
            (said::<f32>("null"), "found null, expected a number at line 1 column 4"),
            (said::<Vec<f32>>("true"), "found true, expected a list at line 1 column 4"),
            (said::<(f32, f32)>("[1]"), "found a list of 1, expected a list of 2 at line 1 column 3"),
            (said::<Pair>("3"), "found 3, expected an object at line 1 column 1"),
            (said::<Pair>("{\"one\":{}}"), "found an object, expected true or false at line 1 column 7"),
            (said::<Name>("\"x\""), "unknown variant `x`, there are no variants at line 1 column 3"),
            (said::<String>("[]"), "found a list, expected a string at line 1 column 0"),
            (said::<Pair>("{}"), "missing field `one` at line 1 column 2"),
        ] {
            assert_eq!(said, expected);
        }
        assert_eq!(plain_words("a text, expected usize"), "a text, expected usize");
    }
}
