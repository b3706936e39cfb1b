//! What a file that is kept was made with, so that it is used for nothing else.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Result;

/// What decides a result, by the names that a sentence about them uses: contents by their digests, options by their values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions(Map<String, Value>);

impl Conditions {
    /// Adds one, as `with("the references", digest)`.
    ///
    /// # Errors
    ///
    /// If the value cannot be written as JSON.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Result<Self> {
        // By way of its text: as a value, a number of f32 would show the digits that it does not have.
        self.0.insert(name.into(), serde_json::from_str(&serde_json::to_string(&value)?)?);
        Ok(self)
    }

    /// Adds all of others.
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// What is not the same in those that were read from a file, in words, if anything is: "the prefix and the references
    /// differ".
    pub fn difference(&self, read: &Self) -> Option<String> {
        // As it would be read: the last digit of a number may change on the way.
        let own: Self = serde_json::to_string(self).and_then(|text| serde_json::from_str(&text)).unwrap_or_default();
        let absent = |name: &String| !own.0.contains_key(name);
        let names = own.0.keys().chain(read.0.keys().filter(|name| absent(name)));
        let mut differ: Vec<&str> =
            names.filter(|name| own.0.get(*name) != read.0.get(*name)).map(String::as_str).collect();
        let last = differ.pop()?;
        Some(match &differ[..] {
            [] if !last.ends_with('s') => format!("{last} differs"),
            [] => format!("{last} differ"),
            others => format!("{} and {last} differ", others.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let of = |values: [f32; 3]| {
            ["a", "b", "c"]
                .into_iter()
                .zip(values)
                .try_fold(Conditions::default(), |all, (name, x)| all.with(name, x))
                .unwrap()
        };
        let one = of([0.1, 0.2, 0.3]);
        assert_eq!(serde_json::to_string(&one).unwrap(), r#"{"a":0.1,"b":0.2,"c":0.3}"#);
        assert_eq!(one.difference(&of([0.1, 0.2, 0.3])), None);
        assert_eq!(one.difference(&of([0.1, 0.3, 0.3])).unwrap(), "b differs");
        assert_eq!(of([0.0; 3]).difference(&one).unwrap(), "a, b and c differ");
        let other = Conditions::default().with("the sources", 1).unwrap();
        assert_eq!(Conditions::default().difference(&other).unwrap(), "the sources differ");
        assert_eq!(one.difference(&other).unwrap(), "a, b, c and the sources differ");
        let again: Conditions = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(one, again);
    }
}
