//! The clean-up of decoded text that a checkpoint may ask for (`clean_up_tokenization_spaces`): English text that was cut
//! into words and signs has its spaces taken back.

/// What is replaced, one after the other; the order matters.
const REPLACED: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

pub(crate) fn clean_up(text: &str) -> String {
    REPLACED.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The beginning of a text that is yet to be cleaned up, as far as its clean-up does not depend on what follows.
pub(crate) fn settled(text: &str) -> &str {
    let mut text = text.trim_end();
    while let Some(shorter) = before_begun(text) {
        text = shorter;
    }
    text
}

/// A text without the beginning of a replaced string that it ends in, if it does: " n", " n'", " '", " 'v" or " 'r", also
/// with spaces around the apostrophe, which another replacement may take away first.
fn before_begun(text: &str) -> Option<&str> {
    let after_space = |text: &'_ str| text.ends_with(char::is_whitespace);
    let quoted = text.strip_suffix(['v', 'r']).unwrap_or(text).trim_end().strip_suffix('\'');
    let word = quoted.unwrap_or(text).trim_end();
    match word.strip_suffix('n').filter(|before| after_space(before)) {
        Some(before) => Some(before.trim_end()),
        None => quoted.filter(|before| after_space(before)).map(str::trim_end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_before_signs_go() {
        for (text, cleaned) in [
            ("Yes , I do n't . Do you ?", "Yes, I don't. Do you?"),
            ("I 'm here ! They 've gone , we 're not .", "I'm here! They've gone, we're not."),
            ("it ' s . . . ' 's", "it's...''s"),
            ("x n ' t", "xn't"),
            ("x  ' ve", "x've"),
        ] {
            assert_eq!(clean_up(text), cleaned);
        }
    }

    /// Of every text of up to six parts that matter: whatever follows, what was settled stays.
    #[test]
    fn what_is_settled_stays() {
        let parts = [" ", "'", "n", "t", "v", "e", "."];
        let mut texts = vec![String::new()];
        for _ in 0..6 {
            let longer: Vec<_> = texts.iter().flat_map(|text| parts.map(|part| format!("{text}{part}"))).collect();
            for text in &longer {
                let whole = clean_up(text);
                for (at, _) in text.char_indices() {
                    let settled = clean_up(settled(&text[..at]));
                    assert!(whole.starts_with(&settled), "{text:?} cut at {at}: {settled:?} of {whole:?}");
                }
            }
            texts = longer;
        }
        assert_eq!(settled("Do you ?"), "Do you ?");
    }
}
