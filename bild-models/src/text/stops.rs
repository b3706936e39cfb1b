/// Text on its way out that ends before the first of some strings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops {
    strings: std::sync::Arc<[String]>,
    /// What may be the beginning of one of them.
    held: String,
}

impl Stops {
    /// Empty strings are left out.
    pub(crate) fn new(strings: impl IntoIterator<Item = String>) -> Self {
        Self { strings: strings.into_iter().filter(|string| !string.is_empty()).collect(), held: String::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }

    /// Adds text; returns what can be given out, and whether the text ends there.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held += piece;
        // The first to end, however the text is cut; of several that end there, the longest.
        let found =
            self.strings.iter().filter_map(|string| self.held.find(&**string).map(|at| (at + string.len(), at)));
        if let Some((_, at)) = found.min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |at: &usize| self.strings.iter().any(|string| string.starts_with(&self.held[*at..]));
        let free = self.held.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(free);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is left when nothing follows.
    pub(crate) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_cut_the_text_ends_before_the_first() {
        for (text, expected) in [
            ("one. two", "one"),
            ("no end", "no end"),
            ("aab", "a"),
            ("über…", "über"),
            (". first", ""),
            ("a.b", "a.b"),
            ("ends in aa", "ends in aa"),
            ("xpqrs", "xp"),
            ("xmnop", "x"),
        ] {
            for size in 1..6 {
                let mut stops = Stops::new([". ", "ab", "…", "", "pqrs", "qr", "op", "mnop"].map(String::from));
                let characters: Vec<char> = text.chars().collect();
                let (mut found, mut stopped) = (String::new(), false);
                for piece in characters.chunks(size) {
                    let (text, stop) = stops.push(&piece.iter().collect::<String>());
                    found += &text;
                    stopped = stop;
                    if stop {
                        break;
                    }
                }
                if !stopped {
                    found += &stops.rest();
                }
                assert_eq!(found, expected, "{text:?} by {size}");
            }
        }
    }
}
