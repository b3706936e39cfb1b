//! Porter's stemmer for English, with the extensions that NLTK has by default.
//!
//! A word is seen as groups of consonants and of vowels, `[C](VC){m}[V]`; m is its measure. Nearly every rule takes an
//! ending off if what is left has a measure that is large enough. The extensions are a few irregular words, short words
//! (`dies` and `died` become `die`, `owed` becomes `owe`), `y` after a consonant, some endings in `-li`, and `-logi`.

const IRREGULAR: [(&str, &[&str]); 12] = [
    ("canning", &["canning", "cannings"]),
    ("die", &["dying"]),
    ("exceed", &["exceed"]),
    ("howe", &["howe"]),
    ("inning", &["inning", "innings"]),
    ("lie", &["lying"]),
    ("news", &["news"]),
    ("outing", &["outing", "outings"]),
    ("proceed", &["proceed"]),
    ("sky", &["sky", "skies"]),
    ("succeed", &["succeed"]),
    ("tie", &["tying"]),
];

/// Endings made of two, and the first of them alone.
const DOUBLE: [(&str, &str); 22] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
    ("logi", "log"),
];

const SIMPLE: [(&str, &str); 7] =
    [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];

/// What is taken off long words; of endings that end alike the longest is first.
const LAST: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
];

/// The stem of a word of lower-case ASCII letters and digits; digits are consonants.
pub(super) fn stem(word: &str) -> String {
    if let Some((stem, _)) = IRREGULAR.iter().find(|(_, forms)| forms.contains(&word)) {
        return (*stem).to_owned();
    }
    let mut word = word.to_owned();
    if word.len() > 2 {
        plural(&mut word);
        past_or_participle(&mut word);
        final_y(&mut word);
        double_endings(&mut word);
        replace(&mut word, &SIMPLE, |before, _| measure(before) > 0);
        last_endings(&mut word);
        final_e(&mut word);
        final_ll(&mut word);
    }
    word
}

fn plural(word: &mut String) {
    let dropped = match word.as_str() {
        word if word.ends_with("ies") => {
            if word.len() == 4 {
                1
            } else {
                2
            }
        }
        word if word.ends_with("sses") => 2,
        word if word.ends_with("ss") => 0,
        word if word.ends_with('s') => 1,
        _ => 0,
    };
    word.truncate(word.len() - dropped);
}

fn past_or_participle(word: &mut String) {
    if word.ends_with("ied") {
        word.truncate(word.len() - if word.len() == 4 { 1 } else { 2 });
        return;
    }
    if let Some(before) = word.strip_suffix("eed") {
        if measure(before) > 0 {
            word.pop();
        }
        return;
    }
    let before = word.strip_suffix("ed").or_else(|| word.strip_suffix("ing"));
    let Some(before) = before.filter(|before| consonants(before).contains(&false)) else { return };
    word.truncate(before.len());
    // What the ending took from the stem is given back: `siz(ed)` is of `size`, `hopp(ing)` of `hop`.
    if ["at", "bl", "iz"].iter().any(|end| word.ends_with(end)) {
        word.push('e');
    } else if ends_in_double_consonant(word) {
        if !word.ends_with(['l', 's', 'z']) {
            word.pop();
        }
    } else if measure(word) == 1 && is_short(word) {
        word.push('e');
    }
}

fn final_y(word: &mut String) {
    let Some(before) = word.strip_suffix('y') else { return };
    if before.len() > 1 && consonants(before).ends_with(&[true]) {
        word.pop();
        word.push('i');
    }
}

fn double_endings(word: &mut String) {
    // `conditionalli` has three endings, of which this is the outermost.
    replace(word, &[("alli", "al")], |before, _| measure(before) > 0);
    // The l of `logi` counts as part of what is before it, so that `geo` is enough.
    let before_logi = |before: &str| measure(&format!("{before}l")) > 0;
    replace(word, &DOUBLE, |before, end| if end == "logi" { before_logi(before) } else { measure(before) > 0 });
}

fn last_endings(word: &mut String) {
    let rules = LAST.map(|end| (end, ""));
    replace(word, &rules, |before, end| measure(before) > 1 && (end != "ion" || before.ends_with(['s', 't'])));
}

fn final_e(word: &mut String) {
    let Some(before) = word.strip_suffix('e') else { return };
    let measure = measure(before);
    if measure > 1 || measure == 1 && !is_short(before) {
        word.pop();
    }
}

fn final_ll(word: &mut String) {
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
}

/// The first rule whose ending the word has is the only one that may apply. It does if `applies` to what is before the
/// ending, and to the ending.
fn replace(word: &mut String, rules: &[(&str, &str)], applies: impl Fn(&str, &str) -> bool) {
    let Some((end, new)) = rules.iter().find(|(end, _)| word.ends_with(end)) else { return };
    let before = word.len() - end.len();
    if applies(&word[..before], end) {
        word.replace_range(before.., new);
    }
}

/// Which letters are consonants. A `y` is one unless it follows one.
fn consonants(word: &str) -> Vec<bool> {
    let mut last = false;
    let mut consonant = |letter| {
        last = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !last,
            _ => true,
        };
        last
    };
    word.bytes().map(&mut consonant).collect()
}

/// How often a consonant follows a vowel.
fn measure(word: &str) -> usize {
    consonants(word).windows(2).filter(|pair| *pair == [false, true]).count()
}

fn ends_in_double_consonant(word: &str) -> bool {
    matches!(word.as_bytes(), [.., a, b] if a == b) && consonants(word).ends_with(&[true])
}

/// Whether it ends in a vowel between consonants, as `hop`, or is a vowel and a consonant, as `ow`.
fn is_short(word: &str) -> bool {
    match consonants(word)[..] {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::reference::read, *};

    #[test]
    fn stems_are_those_of_nltk() {
        let stems = read().stems;
        assert!(stems.len() > 1900);
        for (word, expected) in stems {
            assert_eq!(stem(&word), expected, "{word}");
        }
    }

    #[test]
    fn measures() {
        for (expected, words) in
            [["", "tr", "ee", "tree", "y"], ["trouble", "oats", "trees", "ivy", "y2ay"]].iter().enumerate()
        {
            assert!(words.iter().all(|word| measure(word) == expected), "{words:?}");
        }
        assert!(["troubles", "private", "oaten", "orrery"].iter().all(|word| measure(word) == 2));
    }

    #[test]
    fn shapes() {
        assert_eq!(consonants("syzygy"), [true, false, true, false, true, false]);
        assert_eq!(consonants("toyyy"), [true, false, true, false, true]);
        assert!(["hop", "fil", "ow", "ay"].into_iter().all(is_short));
        assert!(!["snow", "box", "tray", "fail", "a", "", "at1"].into_iter().any(is_short));
        assert!(["fall", "1990aa11"].into_iter().all(ends_in_double_consonant));
        assert!(!["see", "l", "", "fail"].into_iter().any(ends_in_double_consonant));
    }
}
