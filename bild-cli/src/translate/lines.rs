//! Lines and the sources that they are made of.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bild::{
    Output,
    decode::{Order, Request, Source, Token},
};
use bild_eval::sentences;

use super::{Program, explained};
use crate::Error;

/// A line, translated: its text, and each source that it was made of with what was written for it.
pub(super) struct Translation {
    pub(super) text: String,
    pub(super) parts: Vec<(Source, Output)>,
}

/// A line, as it is to be translated.
#[derive(Default)]
struct Split {
    /// What stands before the first source; of a blank line all there is.
    before: String,
    /// Each source with the space after it.
    sources: Vec<(Source, String)>,
}

/// A line under way.
struct Waiting<L> {
    line: L,
    /// What it is made of, or why it cannot be translated.
    split: Result<Split, Error>,
    outputs: Vec<Output>,
    /// Sources of which nothing has come yet; of a line without any, that it was looked at.
    left: usize,
}

impl<L> Waiting<L> {
    /// Takes the output of the next source; whether the line is done.
    fn take(&mut self, output: bild::decode::Result<Output>) -> bool {
        self.left -= 1;
        match (output, &self.split) {
            (Ok(output), _) => self.outputs.push(output),
            (Err(error), Ok(split)) if !split.sources.is_empty() => self.split = Err(explained(error)),
            (Err(_), _) => {}
        }
        self.left == 0
    }
}

impl Program<'_> {
    /// Translates lines many at once, the sources of each together with those of others, and hands each line to `each` with its
    /// translation, in order. A line is translated sentence by sentence unless it is to be one source, and a blank one stays one. `text` is
    /// what of a line is to be translated.
    pub(super) fn lines<L: Send>(
        &self,
        lines: impl Iterator<Item = L> + Send,
        text: impl for<'l> Fn(&'l L) -> Result<&'l str, Error> + Sync,
        is_argument: bool,
        mut each: impl FnMut(L, Result<Translation, Error>),
    ) {
        let waiting = Mutex::new(VecDeque::new());
        let lock = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = lines.flat_map(|line| {
            let split = text(&line).and_then(|text| self.split(text, is_argument));
            let mut sources: Vec<Option<Source>> = Vec::new();
            if let Ok(split) = &split {
                sources.extend(split.sources.iter().map(|(source, _)| Some(source.clone())));
            }
            if sources.is_empty() {
                sources.push(None); // so that it has its turn
            }
            lock().push_back(Waiting { line, split, outputs: Vec::new(), left: sources.len() });
            sources
        });
        let begin = |source: Option<Source>, _| Ok((Request::from(source.ok_or(bild::Error::EmptySource)?), ()));
        let take = |_, output| {
            let mut waiting = lock();
            let done = waiting.front_mut().is_some_and(|first| first.take(output));
            let first = if done { waiting.pop_front() } else { None };
            drop(waiting);
            if let Some(Waiting { line, split, outputs, .. }) = first {
                each(line, split.and_then(|split| self.join(split, outputs)));
            }
        };
        self.generator.generate_jobs(sources, Order::Given, begin, |(), _| Ok(()), |(), output| Ok(output), take);
    }

    fn split(&self, line: &str, is_argument: bool) -> Result<Split, Error> {
        let args = self.args;
        let whole = |source| Split { sources: vec![(source, String::new())], ..Split::default() };
        if args.ids {
            let token = |word: &str| word.parse::<Token>().map_err(|_| format!("\"{word}\" is not a token id"));
            let tokens = line.split_whitespace().map(token).collect::<Result<Vec<_>, _>>()?;
            return Ok(whole(Source::new(tokens)));
        }
        let tokenizer = self.tokenizer.as_ref().ok_or("the model has no tokenizer")?;
        let source = |text: &str| -> Result<Source, Error> {
            Ok(Source::new(tokenizer.encode(&format!("{}{text}", args.texts.prefix))?))
        };
        if line.trim().is_empty() {
            if is_argument || args.json {
                return Err(bild::Error::EmptySource.into());
            }
            return Ok(Split { before: line.into(), ..Split::default() });
        }
        if args.whole || args.json {
            return Ok(whole(source(line)?));
        }
        let (before, sentences) = sentences(&self.language, line);
        let sources = sentences.into_iter().map(|sentence| Ok((source(sentence.text)?, sentence.space.to_owned())));
        Ok(Split { before: before.into(), sources: sources.collect::<Result<_, Error>>()? })
    }

    fn join(&self, split: Split, outputs: Vec<Output>) -> Result<Translation, Error> {
        let mut translation = Translation { text: split.before, parts: Vec::new() };
        for ((source, space), output) in split.sources.into_iter().zip(outputs) {
            translation.text += &match &self.tokenizer {
                // What was written is one line, too.
                Some(tokenizer) if !self.args.json => tokenizer.decode(&output.tokens)?.replace(['\n', '\r'], " "),
                Some(tokenizer) => tokenizer.decode(&output.tokens)?,
                None if self.args.json => String::new(),
                None => format!("{:?}", output.tokens),
            };
            translation.text += &space;
            translation.parts.push((source, output));
        }
        Ok(translation)
    }
}
