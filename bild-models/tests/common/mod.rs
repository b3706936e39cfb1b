//! What the tests of models share.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;

/// The backend the tests run on. They are generic: another one is another name here.
pub type TestBackend = burn_flex::Flex;

/// A reference checkpoint.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/t5").join(name)
}
