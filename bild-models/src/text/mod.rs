//! Text in and text out: tokenizers, partial text, stop strings.
#![cfg(feature = "tokenizers")]

mod cleanup;
mod generator;
mod panics;
mod partial_text;
mod request;
#[cfg(feature = "sentencepiece")]
mod sentencepiece;
mod stops;
mod tokenizer;
mod tokenizer_config;
mod vetted;

pub use generator::{TextGenerator, TextOutput, TextQueue, TextStream};
pub use request::TextRequest;
pub use tokenizer::Tokenizer;
