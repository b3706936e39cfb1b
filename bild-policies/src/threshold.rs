//! Thresholds: numbers with a range that is checked wherever they come from.

/// Defines a rule that is one threshold: a number in a range, with `new`, its getter, and serde by the number alone.
macro_rules! threshold {
    ($(#[$meta:meta])* $rule:ident, $field:literal, $range:expr, $expected:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(into = "f32", try_from = "f32")]
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
