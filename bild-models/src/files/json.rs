//! JSON of strangers. A value takes up to a hundred times its text in memory, so what it would take is counted first.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::without_byte_order_mark;

/// The most bytes that a value may take; that of an mT5's tokenizer.json takes 100 MB.
const MOST: u64 = 512 << 20;

/// About what a value takes, an object that is not empty, and an entry of one.
const VALUE: u64 = 32;
const OBJECT: u64 = 600;
const ENTRY: u64 = 64;

/// A value from its text; what is wrong with it, if it is none or too large.
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    let text = without_byte_order_mark(text);
    let mut left = MOST;
    let counted = Count(&mut left).deserialize(&mut serde_json::Deserializer::from_slice(text));
    let value = counted.and_then(|()| serde_json::from_slice(text));
    value.map_err(|error| if left == 0 { TOO_LARGE.into() } else { format!("it is not JSON: {error}") })
}

const TOO_LARGE: &str = "as JSON it would take more than 512 MB of memory, more than any such file";

/// Takes what a value needs from what is left.
struct Count<'a>(&'a mut u64);

impl Count<'_> {
    fn take<E: de::Error>(&mut self, bytes: u64) -> Result<(), E> {
        *self.0 = self.0.saturating_sub(bytes);
        if *self.0 == 0 { Err(E::custom("too large")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(mut self) -> Result<(), E> {
        self.take(VALUE)
    }

    fn visit_bool<E: de::Error>(mut self, _: bool) -> Result<(), E> {
        self.take(VALUE)
    }

    fn visit_i64<E: de::Error>(mut self, _: i64) -> Result<(), E> {
        self.take(VALUE)
    }

    fn visit_u64<E: de::Error>(mut self, _: u64) -> Result<(), E> {
        self.take(VALUE)
    }

    fn visit_f64<E: de::Error>(mut self, _: f64) -> Result<(), E> {
        self.take(VALUE)
    }

    fn visit_str<E: de::Error>(mut self, text: &str) -> Result<(), E> {
        self.take(VALUE + text.len() as u64)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.take(VALUE)?;
        while list.next_element_seed(Count(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        self.take(VALUE)?;
        let mut is_empty = true;
        while object.next_key_seed(Count(self.0))?.is_some() {
            self.take(if is_empty { OBJECT } else { ENTRY })?;
            is_empty = false;
            object.next_value_seed(Count(self.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_known_before_it_is_read() {
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\": [1, 2.5, null]}").unwrap()["a"][1], 2.5);
        assert!(parse(b"{").unwrap_err().starts_with("it is not JSON: EOF"));
        let many = |count: usize| format!("[{}0]", "{\"\":0},".repeat(count));
        assert!(parse(many(1000).as_bytes()).is_ok());
        assert_eq!(parse(many(900_000).as_bytes()).unwrap_err(), TOO_LARGE);
    }
}
