//! Which of many strings a text begins with, in the time that it takes to read the text, not the strings.

/// Strings that are looked for at the beginning of texts.
#[derive(Debug)]
pub(super) struct Longest {
    /// In the order of their bytes.
    sorted: Vec<String>,
}

impl Longest {
    /// Empty ones are left out.
    pub(super) fn new(strings: impl Iterator<Item = String>) -> Self {
        let mut sorted: Vec<String> = strings.filter(|string| !string.is_empty()).collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The longest string that a text begins with.
    pub(super) fn at<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut candidates = &self.sorted[..];
        let mut longest = None;
        for (depth, &byte) in text.as_bytes().iter().enumerate() {
            candidates = narrowed(candidates, depth, byte);
            match candidates.first() {
                None => break,
                Some(found) if found.len() == depth + 1 => longest = Some(&text[..=depth]),
                Some(_) => {}
            }
        }
        longest
    }
}

/// Of strings in order that share their first `depth` bytes, those that go on with `byte`; one that ends there comes first.
pub(super) fn narrowed<T: AsRef<[u8]>>(sorted: &[T], depth: usize, byte: u8) -> &[T] {
    let begin = sorted.partition_point(|string| string.as_ref().get(depth).is_none_or(|&found| found < byte));
    let end = begin + sorted[begin..].partition_point(|string| string.as_ref()[depth] == byte);
    &sorted[begin..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_found() {
        let strings = Longest::new(["<a>", "<a>b", "<", "", "ä", "<a>bcd"].map(String::from).into_iter());
        for (text, expected) in
            [("<a>bc", Some("<a>b")), ("<a", Some("<")), ("äö", Some("ä")), ("a", None), ("", None), ("ö", None)]
        {
            assert_eq!(strings.at(text), expected, "{text}");
        }
    }
}
