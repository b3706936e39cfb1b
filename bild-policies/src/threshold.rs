//! Thresholds: numbers with a range that is checked wherever they come from.

use std::{fmt, marker::PhantomData};

use serde::de::{Error, MapAccess, Unexpected, Visitor};

/// Defines a rule that is one threshold: a number in a range, with `new`, its getter, and serde by the number alone, or read
/// as a type that says more.
macro_rules! threshold {
    ($(#[$meta:meta])* $rule:ident, $field:literal, $range:expr, $expected:literal) => {
        $crate::threshold::threshold! { $(#[$meta])* $rule read as "f32", $field, $range, $expected }
    };
    ($(#[$meta:meta])* $rule:ident read as $read:literal, $field:literal, $range:expr, $expected:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(into = "f32", try_from = $read)]
        pub struct $rule(f32);

        impl $rule {
            #[doc = concat!("A rule with the threshold `alpha`, ", $expected, ".")]
            ///
            /// # Errors
            ///
            /// [`Error::Setting`](bild_core::Error::Setting) if `alpha` is outside that range or NaN.
            pub fn new(alpha: f32) -> bild_core::Result<Self> {
                if $range.contains(&alpha) {
                    Ok(Self(alpha))
                } else {
                    let found = alpha.to_string();
                    Err(bild_core::Error::Setting { name: $field, found, expected: $expected })
                }
            }

            /// The threshold.
            pub fn alpha(self) -> f32 {
                self.0
            }
        }

        impl From<$rule> for f32 {
            fn from(rule: $rule) -> f32 {
                rule.0
            }
        }

        impl TryFrom<f32> for $rule {
            type Error = bild_core::Error;

            fn try_from(alpha: f32) -> bild_core::Result<Self> {
                Self::new(alpha)
            }
        }
    };
}

pub(crate) use threshold;

/// A rule among others that a file names, as `{"entropy": 1.5}`, or that is the paper's where there is only a threshold.
pub(crate) trait NamedRule: Sized {
    const EXPECTED: &'static str;

    fn papers(alpha: f32) -> bild_core::Result<Self>;

    fn named<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}

/// Reads such a rule.
pub(crate) struct RuleVisitor<T>(pub PhantomData<T>);

impl<'de, T: NamedRule> Visitor<'de> for RuleVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_f64<E: Error>(self, alpha: f64) -> Result<T, E> {
        T::papers(alpha as f32).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, alpha: i64) -> Result<T, E> {
        self.visit_f64(alpha as f64)
    }

    fn visit_u64<E: Error>(self, alpha: u64) -> Result<T, E> {
        self.visit_f64(alpha as f64)
    }

    /// JSON has no number for ∞.
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        if text == "inf" { self.visit_f64(f64::INFINITY) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::named(map)
    }
}
