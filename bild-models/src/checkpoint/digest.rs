use std::{collections::BTreeMap, fmt};

use super::Tensors;
use crate::error::Result;

/// A digest of 64 bits by FNV-1a, the same on every machine: it tells what differs by accident, not what was forged.
///
/// ```
/// use bild::models::Digest;
///
/// let mut digest = Digest::default();
/// digest.add(b"foobar");
/// assert_eq!(digest.to_string(), "85944171f73967e8");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes in more bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Of tensors, in the order of the names that they are to have here, each of which stands for the tensor's own. Of a long
    /// tensor some values are looked at, spread over all of it: training changes them all.
    pub(crate) fn of(tensors: &Tensors<'_>, names: &BTreeMap<&str, &str>) -> Result<Self> {
        let mut digest = Self::default();
        for (name, own) in names {
            let (shape, values) = tensors.sample(own)?;
            digest.add(format!("{name} {shape:?}\n").as_bytes());
            values.iter().for_each(|value| digest.add(&value.to_le_bytes()));
        }
        Ok(digest)
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values() {
        for (text, hex) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            let mut digest = Digest::default();
            digest.add(text.as_bytes());
            assert_eq!(digest.to_string(), hex);
        }
    }
}
