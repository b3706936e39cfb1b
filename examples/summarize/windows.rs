//! A text cut into pieces that a model can read at once.

use crate::support::{Error, sentences::sentences};

/// The text in windows of whole sentences: as many in each as `fits` lets in. A sentence that does not fit by itself is a
/// window all the same.
pub(crate) fn windows(
    language: &str,
    text: &str,
    fits: impl Fn(&str) -> Result<bool, Error>,
) -> Result<Vec<String>, Error> {
    let mut windows: Vec<String> = Vec::new();
    for sentence in sentences(language, text).1 {
        // A line break within an article is a space to a model that reads one sequence.
        let sentence = sentence.text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(last) = windows.last_mut() {
            let longer = format!("{last} {sentence}");
            if fits(&longer)? {
                *last = longer;
                continue;
            }
        }
        windows.push(sentence);
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_of_whole_sentences_and_as_long_as_they_may_be() {
        let text = "One two.\nThree four. Five six seven eight nine. Ten.";
        let at_most = |words: usize| move |text: &str| Ok(text.split(' ').count() <= words);
        assert_eq!(windows("en", text, at_most(100)).unwrap(), [text.replace('\n', " ")]);
        assert_eq!(
            windows("en", text, at_most(4)).unwrap(),
            ["One two. Three four.", "Five six seven eight nine.", "Ten."]
        );
        assert!(windows("en", " ", at_most(4)).unwrap().is_empty());
        assert!(windows("en", "One is. Two are.", |_| Err("broken".into())).is_err());
    }
}
