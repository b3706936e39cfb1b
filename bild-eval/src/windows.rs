//! A text cut into pieces that a model can read at once. Nothing of it is written anew: put together they are the text.

use crate::{Result, sentences::sentences};

/// Where a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum End {
    /// At the end of the text.
    Text,
    /// After a sentence.
    Sentence,
    /// After a comma, a line or the like, within a sentence that is too long.
    Mark,
    /// At white space.
    Space,
    /// Between two characters, where one token too many would begin.
    Token,
}

impl End {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Sentence => "sentence",
            Self::Mark => "mark",
            Self::Space => "space",
            Self::Token => "token",
        }
    }
}

/// A part of the text, the white space after it included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// What is read.
    pub text: &'a str,
    /// Where it ends.
    pub end: End,
}

/// The text in windows, each as long as `fits` lets it be: of whole sentences if it can be, else cut at other marks, at
/// white space, at last between tokens. `language` is a code as `de`, of [`LANGUAGES`](crate::LANGUAGES).
///
/// # Errors
///
/// If `fits` fails, or one character does not fit.
pub fn windows<'a>(language: &str, text: &'a str, fits: impl Fn(&str) -> Result<bool>) -> Result<Vec<Window<'a>>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let ends = [
        (End::Sentence, sentence_ends(language, text)),
        (End::Mark, after(text, |before, at| is_mark(before, text[at..].chars().next()))),
        (End::Space, after(text, |before, _| before.is_whitespace())),
    ];
    let characters: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).chain([text.len()]).collect();
    let mut windows: Vec<Window<'a>> = Vec::new();
    let mut begin = 0;
    while begin < text.len() {
        let fits = |end: usize| fits(&text[begin..end]);
        let most = longest(&characters[characters.partition_point(|end| *end <= begin)..], fits)?;
        let (mut kind, mut end) = (End::Token, most.unwrap_or(begin));
        'kinds: for (of_kind, ends) in &ends {
            // Half a word may take a token more than the whole of it: a little beyond is looked at too.
            let last = ends.partition_point(|other| *other <= end + BEYOND);
            let ends = ends[..last].iter().rev();
            for other in ends.take_while(|other| **other > begin && !text[begin..**other].trim_start().is_empty()) {
                if fits(*other)? {
                    (kind, end) = (*of_kind, *other);
                    break 'kinds;
                }
            }
        }
        if end == begin {
            return Err("the window does not hold one token beside the prefix: make it longer".into());
        }
        let kind = if end == text.len() { End::Text } else { kind };
        windows.push(Window { text: &text[begin..end], end: kind });
        begin = end;
    }
    // White space alone, longer than a window, is nothing to read.
    windows.retain(|window| !window.text.trim().is_empty());
    Ok(windows)
}

/// How many bytes beyond the longest part that fits an end of a word is looked for.
const BEYOND: usize = 32;

/// The last of the ends that fits: by steps that double, then by halves, for a long text takes long to look at.
fn longest(ends: &[usize], fits: impl Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    let (mut good, mut step) = (0, 1); // `good` of them fit
    while good < ends.len() {
        let next = (good + step).min(ends.len());
        if !fits(ends[next - 1])? {
            break;
        }
        (good, step) = (next, 2 * step);
    }
    let mut bad = (good + step).min(ends.len() + 1);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if fits(ends[middle - 1])? { good = middle } else { bad = middle }
    }
    Ok(good.checked_sub(1).map(|last| ends[last]))
}

/// Where sentences end, the white space after them included.
fn sentence_ends(language: &str, text: &str) -> Vec<usize> {
    let (before, sentences) = sentences(language, text);
    let mut end = before.len();
    let ends = sentences.iter().map(|sentence| {
        end += sentence.text.len() + sentence.space.len();
        end
    });
    ends.collect()
}

/// The places after a character that is meant, the white space after it included, and the end.
fn after(text: &str, is_meant: impl Fn(char, usize) -> bool) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::new();
    for (at, character) in text.char_indices() {
        let next = at + character.len_utf8();
        if character.is_whitespace() && ends.last() == Some(&at) {
            ends.pop();
            ends.push(next);
        } else if is_meant(character, next) {
            ends.push(next);
        }
    }
    if ends.last() != Some(&text.len()) {
        ends.push(text.len());
    }
    ends
}

/// Whether a sentence may be cut after this character. The marks of scripts that put spaces stand before one: "3,50" is not cut.
fn is_mark(character: char, next: Option<char>) -> bool {
    const SPACED: &str = ",;:.!?)]}\"'»”’–—-…";
    const OTHERS: &str = "\n\r\u{85}\u{2028}\u{2029}、。，；：！？．・」』）】》〉،؛؟۔।॥།၊။፣፤፥።ฯ๚๛៖។";
    OTHERS.contains(character) || (SPACED.contains(character) && next.is_none_or(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of at most so many characters, each with its end.
    fn cut(text: &str, most: usize) -> Vec<(&str, End)> {
        let found = windows("en", text, |text| Ok(text.trim().chars().count() <= most)).unwrap();
        assert!(found.iter().all(|window| window.text.trim().chars().count() <= most));
        let whole: String = found.iter().map(|window| window.text).collect();
        assert_eq!(whole, text, "nothing is lost and nothing is added");
        found.into_iter().map(|window| (window.text, window.end)).collect()
    }

    #[test]
    fn windows_are_of_whole_sentences_and_as_long_as_they_may_be() {
        let text = "One two.\nThree  four. Five six.\n\nTen.";
        assert_eq!(cut(text, 100), [(text, End::Text)]);
        assert_eq!(cut(text, 21), [("One two.\nThree  four. ", End::Sentence), ("Five six.\n\nTen.", End::Text)]);
        assert_eq!(cut(text, 9).len(), 5);
    }

    #[test]
    fn every_script_and_every_kind_of_white_space_stays_as_it_is() {
        for text in [
            "def f(x):\n    if x:\n        return 1\n    return 2\n",
            "今天天气很好。我们去公园吧。你来吗？",
            "  Leading. And trailing.\t\n",
            "\u{3000}全角。\u{3000}空白。",
            "या पहला वाक्य है। यह दूसरा है।",
            "مرحبا، كيف حالك؟ أنا بخير.",
            "e\u{301}e\u{301}e\u{301}👩\u{200d}👩\u{200d}👧 x",
        ] {
            for most in 1..40 {
                cut(text, most);
            }
        }
        assert_eq!(
            cut("今天天气很好。我们去公园吧。你来吗？", 8),
            [("今天天气很好。", End::Sentence), ("我们去公园吧。", End::Sentence), ("你来吗？", End::Text)]
        );
    }

    #[test]
    fn a_sentence_that_is_too_long_is_cut_at_marks_at_spaces_and_between_characters() {
        let text = "one, two, three four five sixseveneight";
        assert_eq!(
            cut(text, 10),
            [
                ("one, two, ", End::Mark),
                ("three four ", End::Space),
                ("five ", End::Space),
                ("sixsevenei", End::Token),
                ("ght", End::Text)
            ]
        );
        assert_eq!(cut("3,50 10:30", 6), [("3,50 ", End::Space), ("10:30", End::Text)]);
        let thai = "สวัสดีครับวันนี้อากาศดีมาก";
        assert_eq!(cut(thai, 10).len(), thai.chars().count().div_ceil(10));
        // What follows a long sentence joins its rest.
        assert_eq!(cut("aaaa bbbb cccc. Dd.", 10)[1].0, "cccc. Dd.");
    }

    #[test]
    fn long_texts_are_not_looked_at_for_each_window() {
        let text = "word ".repeat(40_000);
        let looked = std::cell::Cell::new(0);
        let fits = |text: &str| {
            looked.set(looked.get() + text.len());
            Ok(text.len() <= 500)
        };
        let found = windows("en", &text, fits).unwrap();
        assert_eq!(found.len(), 400);
        assert!(looked.get() < 50 * text.len(), "{}", looked.get());
    }

    #[test]
    fn nothing_to_read_and_what_cannot_be_cut() {
        assert!(cut_nothing(" \n"));
        assert!(windows("en", "a", |_| Ok(false)).unwrap_err().to_string().contains("beside the prefix"));
        assert!(windows("en", "One is. Two are.", |_| Err("broken".into())).is_err());
    }

    fn cut_nothing(text: &str) -> bool {
        windows("en", text, |_| Ok(true)).unwrap().is_empty()
    }
}
