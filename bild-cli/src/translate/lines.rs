//! Lines and the sources that they are made of.

use std::{cell::RefCell, collections::VecDeque};

use bild::{
    Output,
    decode::{Source, Token},
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
    /// Sources of which nothing has come yet.
    left: usize,
}

/// Lines under way, and who is given them.
struct Queue<'p, L, E> {
    program: &'p Program<'p>,
    waiting: VecDeque<Waiting<L>>,
    each: E,
}

impl<L, E: FnMut(L, Result<Translation, Error>)> Queue<'_, L, E> {
    fn add(&mut self, line: L, split: Result<Split, Error>) {
        let left = split.as_ref().map_or(0, |split| split.sources.len());
        self.waiting.push_back(Waiting { line, split, outputs: Vec::new(), left });
        self.give();
    }

    /// Takes the next output: they come in the order of the sources.
    fn take(&mut self, output: bild::decode::Result<Output>) {
        let Some(first) = self.waiting.front_mut() else { return };
        first.left -= 1;
        match output {
            Ok(output) => first.outputs.push(output),
            Err(error) if first.split.is_ok() => first.split = Err(explained(error)),
            Err(_) => {}
        }
        self.give();
    }

    /// Gives away the lines at the front that are done.
    fn give(&mut self) {
        while self.waiting.front().is_some_and(|first| first.left == 0)
            && let Some(Waiting { line, split, outputs, .. }) = self.waiting.pop_front()
        {
            (self.each)(line, split.and_then(|split| self.program.join(split, outputs)));
        }
    }
}

impl Program<'_> {
    /// Translates a line, sentence by sentence unless it is to be one source. A blank line stays one. `begun` counts sources, each
    /// of which has the seed that it has among many at once.
    pub(super) fn line(&self, line: &str, is_argument: bool, begun: &mut usize) -> Result<Translation, Error> {
        let split = self.split(line, is_argument)?;
        let first = *begun;
        *begun += split.sources.len();
        let output = |(i, (source, _)): (usize, &(Source, String))| self.generator.begin(source, first + i)?.finish();
        let outputs = split.sources.iter().enumerate().map(|source| output(source).map_err(explained));
        let outputs = outputs.collect::<Result<_, _>>()?;
        self.join(split, outputs)
    }

    /// Translates lines many at once, the sources of each together with those of others, and hands each line to `each` with its
    /// translation, in order. `text` is what of a line is to be translated.
    pub(super) fn lines<L>(
        &self,
        lines: impl Iterator<Item = L>,
        text: impl for<'l> Fn(&'l L) -> Result<&'l str, Error>,
        is_argument: bool,
        each: impl FnMut(L, Result<Translation, Error>),
    ) {
        let queue = RefCell::new(Queue { program: self, waiting: VecDeque::new(), each });
        let sources = lines.flat_map(|line| {
            let split = text(&line).and_then(|text| self.split(text, is_argument));
            let sources = split.iter().flat_map(|split| &split.sources).map(|(source, _)| source.clone());
            let sources: Vec<Source> = sources.collect();
            queue.borrow_mut().add(line, split);
            sources
        });
        self.generator.generate_many(sources, |_, output| queue.borrow_mut().take(output));
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
