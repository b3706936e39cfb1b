//! A text as its sentences, with the spacing between them.

/// The languages whose sentences are told by rules of their own. Relatives of theirs are known, too, as `bar` for Bavarian.
pub const LANGUAGES: [&str; 31] = [
    "am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy", "it", "ja", "kk", "kn",
    "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te", "uk",
];

/// Whether anything is known of how the sentences of a language end.
pub fn is_known_language(code: &str) -> bool {
    LANGUAGES.contains(&code) || sentencex::languages::get_fallbacks(code).is_some()
}

/// A sentence and the white space after it.
#[derive(Debug, PartialEq, Eq)]
pub struct Sentence<'a> {
    /// Without white space around it.
    pub text: &'a str,
    /// What follows.
    pub space: &'a str,
}

/// The white space before the first sentence, and the sentences; together they are the text. `language` is a code as
/// `de`, which says what an abbreviation is.
pub fn sentences<'a>(language: &str, text: &'a str) -> (&'a str, Vec<Sentence<'a>>) {
    let body = text.trim_start();
    let before = &text[..text.len() - body.len()];
    // The first begins where the text does, whatever is found; none begins with a space.
    let found = sentencex::get_sentence_boundaries(language, body).into_iter().map(|boundary| boundary.start_byte);
    let mut starts: Vec<usize> = [0].into_iter().chain(found.filter(|&start| body.is_char_boundary(start))).collect();
    for start in &mut starts {
        *start = body.len() - body[*start..].trim_start().len();
    }
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([body.len()]);
    let sentence = |(begin, end): (usize, usize)| {
        let text = body[begin..end].trim_end();
        Sentence { text, space: &body[begin + text.len()..end] }
    };
    let sentences = starts.iter().copied().zip(ends).map(sentence);
    (before, sentences.filter(|sentence| !sentence.text.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(language: &str, text: &str) -> Vec<String> {
        let (before, sentences) = sentences(language, text);
        let again: String = sentences.iter().flat_map(|s| [s.text, s.space]).collect();
        assert_eq!(format!("{before}{again}"), text, "nothing is lost");
        sentences.into_iter().map(|sentence| sentence.text.to_owned()).collect()
    }

    #[test]
    fn languages_and_their_relatives_are_known_and_what_is_none_is_not() {
        assert!(["de", "en", "bar"].into_iter().all(is_known_language));
        assert!(!["xx", "", "DE", "german"].into_iter().any(is_known_language));
    }

    #[test]
    fn sentences_and_their_spacing() {
        assert_eq!(texts("de", "Guten Morgen!  Wie geht's?\nGut."), ["Guten Morgen!", "Wie geht's?", "Gut."]);
        assert_eq!(texts("de", "Das kostet z. B. 3,50 Euro."), ["Das kostet z. B. 3,50 Euro."]);
        assert_eq!(texts("de", "Am 3. Mai kam Dr. Müller. Er blieb."), ["Am 3. Mai kam Dr. Müller.", "Er blieb."]);
        assert_eq!(texts("en", "  One.\n\nTwo.  "), ["One.", "Two."]);
        assert_eq!(texts("en", "no end"), ["no end"]);
        for empty in ["", "  ", "\n"] {
            assert!(texts("en", empty).is_empty());
        }
    }
}
