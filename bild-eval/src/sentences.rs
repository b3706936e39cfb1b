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
    let mut starts = starts(language, body);
    // None begins with a space.
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

/// So many bytes are looked at together: sentencex takes time by the square of a text without an end of a sentence.
const WINDOW: usize = 4096;

/// Where sentences begin, the first where the text does, whatever is found. A quotation of more than [`WINDOW`] is not seen as one.
fn starts(language: &str, text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut begin = 0;
    loop {
        let window = window(&text[begin..]);
        let found = sentencex::get_sentence_boundaries(language, window).into_iter();
        let found = found.map(|boundary| boundary.start_byte).filter(|&at| at > 0 && window.is_char_boundary(at));
        let found: Vec<usize> = found.map(|at| begin + at).collect();
        starts.extend(&found);
        let end = begin + window.len();
        if end == text.len() {
            return starts;
        }
        // The last sentence may go on after the window. One that fills it does.
        begin = found.last().copied().unwrap_or(end);
    }
}

/// The beginning of a text: all of it, or up to the last white space that is near enough.
fn window(text: &str) -> &str {
    let end = text.floor_char_boundary(WINDOW);
    let near = &text[..end];
    match near.rfind(char::is_whitespace) {
        // All of the white space goes to what follows: a blank line ends a sentence.
        Some(space) if end < text.len() && !near[..space].trim_end().is_empty() => near[..space].trim_end(),
        _ => near,
    }
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
    fn a_long_text_has_the_sentences_that_its_parts_have() {
        let sentence = "Am 3. Mai kam z. B. Dr. Müller, und er blieb.";
        assert_eq!(texts("de", &format!("{sentence} ").repeat(500)), [sentence; 500]);
        let endless = format!("Und {}", "so weiter ".repeat(2000));
        let found = texts("de", &format!("Eins. {endless}bis hier. Zwei."));
        assert!(found == ["Eins.", &format!("{endless}bis hier."), "Zwei."], "{} sentences", found.len());
        // These took minutes each.
        for part in ["A!", "\u{201c}", "1. A\n"] {
            let text = part.repeat(300_000 / part.len());
            texts("en", &text);
        }
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
