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

/// What the end of a text may be the beginning of a replaced string by, when white space at its end is left aside.
const BEGUN: [&str; 5] = [" n", " n'", " '", " 'v", " 'r"];

pub(crate) fn clean_up(text: &str) -> String {
    REPLACED.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The beginning of a text that is yet to be cleaned up, as far as its clean-up does not depend on what follows.
pub(crate) fn settled(text: &str) -> &str {
    let mut text = text.trim_end();
    // One replacement may prepare another: " n ' t" becomes " n't" and that "n't".
    while let Some(begun) = BEGUN.iter().find(|begun| text.ends_with(**begun)) {
        text = text[..text.len() - begun.len()].trim_end();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_before_signs_go() {
        for (text, cleaned) in [
            ("Yes , I do n't . Do you ?", "Yes, I don't. Do you?"),
            ("I 'm here ! They 've gone , we 're not .", "I'm here! They've gone, we're not."),
            ("it ' s . . . ' 's", "it's... 's"),
            ("x n ' t", "xn't"),
        ] {
            assert_eq!(clean_up(text), cleaned);
        }
    }

    /// Of every text of up to six parts that matter: whatever follows, what was settled stays.
    #[test]
    fn what_is_settled_stays() {
        let parts = [" ", "'", "n", "t", "ve", ".", "a"];
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
