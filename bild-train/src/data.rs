//! What is trained on: pairs of token sequences, cut into batches of about as many tokens each.

use std::sync::Arc;

use bild::decode::Token;

use crate::{
    error::Result,
    loss::{Targets, Teacher},
    random::{Random, mix},
};

/// A source and what the model should make of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// With the end of the sequence, if the model was trained with one.
    pub source: Vec<Token>,
    /// Without the token a decoder starts from, with the end of the sequence.
    pub target: Vec<Token>,
    /// A teacher's distribution at each position of the target.
    pub teacher: Option<Teacher>,
}

impl Example {
    /// Refuses what cannot be trained on.
    pub(crate) fn check(&self, vocab_size: usize) -> Result<(), String> {
        if self.source.is_empty() || self.target.is_empty() {
            let which = if self.source.is_empty() { "source" } else { "target" };
            return Err(format!("its {which} is empty"));
        }
        let teacher = self.teacher.iter().flat_map(|teacher| &teacher.tokens);
        let mut tokens = self.source.iter().chain(&self.target).chain(teacher);
        if let Some(token) = tokens.find(|&&token| token as usize >= vocab_size) {
            return Err(format!("it has the token {token}, and the model's vocabulary has {vocab_size}"));
        }
        if let Some(teacher) = &self.teacher {
            let expected = teacher.best * self.target.len();
            if teacher.best == 0 || teacher.tokens.len() != expected || teacher.log_probs.len() != expected {
                return Err(format!(
                    "its teacher's distributions are not {} for {} tokens",
                    teacher.best,
                    self.target.len()
                ));
            }
            if teacher.log_probs.iter().any(|p| !p.is_finite() || *p > 1e-3) {
                return Err("its teacher's distributions hold what is no logarithm of a probability".into());
            }
        }
        Ok(())
    }
}

/// Examples by their index: a list in memory, or what reads them from elsewhere.
pub trait Examples: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens source and target have.
    fn lengths(&self, index: usize) -> [usize; 2];

    /// One of them.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn example(&self, index: usize) -> Result<Example>;
}

impl Examples for Vec<Example> {
    fn len(&self) -> usize {
        self.len()
    }

    fn lengths(&self, index: usize) -> [usize; 2] {
        [self[index].source.len(), self[index].target.len()]
    }

    fn example(&self, index: usize) -> Result<Example> {
        Ok(self[index].clone())
    }
}

macro_rules! pointed_to {
    ($($pointer:ty),*) => { $(
        impl<E: Examples + ?Sized> Examples for $pointer {
            fn len(&self) -> usize {
                (**self).len()
            }

            fn lengths(&self, index: usize) -> [usize; 2] {
                (**self).lengths(index)
            }

            fn example(&self, index: usize) -> Result<Example> {
                (**self).example(index)
            }
        }
    )* };
}

pointed_to!(&E, Arc<E>);

/// Sequences, each padded to the longest.
#[derive(Clone, Debug, PartialEq)]
pub struct Padded {
    /// `[count, width]`
    pub tokens: Vec<Token>,
    /// How many sequences there are.
    pub count: usize,
    /// The length of the longest.
    pub width: usize,
    /// That of each.
    pub lengths: Arc<[usize]>,
}

impl Padded {
    /// Pads with token 0, which is never looked at.
    pub fn new<'a>(sequences: impl Iterator<Item = &'a [Token]> + Clone) -> Self {
        let lengths: Arc<[usize]> = sequences.clone().map(<[Token]>::len).collect();
        let width = lengths.iter().copied().max().unwrap_or_default();
        let mut tokens = vec![0; lengths.len() * width];
        for (row, sequence) in sequences.enumerate() {
            tokens[row * width..][..sequence.len()].copy_from_slice(sequence);
        }
        Self { tokens, count: lengths.len(), width, lengths }
    }
}

/// Examples that go through a model together.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// What the encoder reads.
    pub sources: Padded,
    /// What the decoder reads: targets, one to the right, from the start token on.
    pub inputs: Padded,
    /// What it should say.
    pub targets: Targets,
}

impl Batch {
    /// Of examples for a model whose decoder starts from `start`. Distributions of teachers are taken if all have as many tokens.
    pub fn new(examples: &[Example], start: Token) -> Self {
        let sources = Padded::new(examples.iter().map(|example| &example.source[..]));
        let shifted = |target: &Vec<Token>| {
            let before = &target[..target.len().saturating_sub(1)];
            std::iter::once(start).chain(before.iter().copied()).collect::<Vec<Token>>()
        };
        let inputs: Vec<Vec<Token>> = examples.iter().map(|example| shifted(&example.target)).collect();
        let inputs = Padded::new(inputs.iter().map(Vec::as_slice));
        let mut targets = Targets::default();
        let best = |example: &Example| example.teacher.as_ref().map_or(0, |teacher| teacher.best);
        let first = examples.first().map_or(0, best);
        targets.best = if examples.iter().all(|example| best(example) == first) { first } else { 0 };
        for (row, example) in examples.iter().enumerate() {
            targets.rows.extend((0..example.target.len()).map(|i| row * inputs.width + i));
            targets.tokens.extend(&example.target);
            if let Some(teacher) = example.teacher.as_ref().filter(|_| targets.best > 0) {
                targets.teacher_tokens.extend(&teacher.tokens);
                targets.teacher_log_probs.extend(&teacher.log_probs);
            }
        }
        Self { sources, inputs, targets }
    }

    /// How many tokens of targets are no padding.
    pub fn target_tokens(&self) -> usize {
        self.targets.tokens.len()
    }
}

/// How many batches are cut from one sorted stretch of the data.
const SORTED_BATCHES: usize = 100;

/// The batches of every epoch, as functions of a seed: the place in the data is an epoch and a batch.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    lengths: Vec<[usize; 2]>,
    tokens: usize,
    seed: u64,
}

impl Batches {
    /// Cuts batches of which neither all sources, with their padding, nor all targets have more than `tokens` tokens.
    pub(crate) fn new(examples: &dyn Examples, tokens: usize, seed: u64) -> Self {
        Self { lengths: (0..examples.len()).map(|index| examples.lengths(index)).collect(), tokens, seed }
    }

    /// The indices of the examples of each batch, in order.
    pub(crate) fn of_epoch(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut random = Random::new(mix(self.seed, epoch as u64));
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        random.shuffle(&mut order);
        let longest = |index: &usize| self.lengths[*index].into_iter().max().unwrap_or_default();
        let sum: usize = order.iter().map(longest).sum();
        let stretch = (SORTED_BATCHES * self.tokens * order.len() / sum.max(1)).max(1);
        let mut batches = Vec::new();
        for stretch in order.chunks_mut(stretch) {
            // Ties stay in the order of the shuffle.
            stretch.sort_by_key(|index| self.lengths[*index]);
            batches.extend(self.cut(stretch));
        }
        random.shuffle(&mut batches);
        batches
    }

    fn cut(&self, sorted: &[usize]) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut widest = [0; 2];
        for &index in sorted {
            let of = self.lengths[index];
            let wider = [widest[0].max(of[0]), widest[1].max(of[1])];
            match batches.last_mut() {
                Some(batch) if wider.into_iter().all(|width| width * (batch.len() + 1) <= self.tokens) => {
                    batch.push(index);
                    widest = wider;
                }
                _ => {
                    batches.push(vec![index]);
                    widest = of;
                }
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Example> {
        let length = |i: usize, most: u64| 1 + (mix(5, i as u64) % most) as usize;
        let example =
            |i| Example { source: vec![1; length(i, 30)], target: vec![2; length(i + 1000, 12)], teacher: None };
        (0..1000).map(example).collect()
    }

    #[test]
    fn an_epoch_has_every_example_once_in_full_batches() {
        let examples = examples();
        let batches = Batches::new(&examples, 256, 3);
        let [first, second] = [0, 1].map(|epoch| batches.of_epoch(epoch));
        for epoch in [&first, &second] {
            let mut all: Vec<usize> = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, (0..1000).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
        assert_eq!(first, Batches::new(&examples, 256, 3).of_epoch(0));
        assert_ne!(first, Batches::new(&examples, 256, 4).of_epoch(0));
        let padded = |batch: &Vec<usize>, side: usize| {
            batch.iter().map(|&index| examples.lengths(index)[side]).max().unwrap() * batch.len()
        };
        assert!(first.iter().all(|batch| padded(batch, 0) <= 256 && padded(batch, 1) <= 256));
        let all: usize = first.iter().map(|batch| padded(batch, 0)).sum();
        let real: usize = examples.iter().map(|example| example.source.len()).sum();
        assert!((all as f64) < 1.1 * real as f64, "{all} rows for {real} tokens");
    }

    #[test]
    fn a_batch_is_shifted_and_padded() {
        let example = |source: &[Token], target: &[Token]| Example {
            source: source.into(),
            target: target.into(),
            teacher: None,
        };
        let batch = Batch::new(&[example(&[5, 6, 1], &[7, 1]), example(&[8, 1], &[9, 10, 1])], 0);
        assert_eq!((batch.sources.width, &batch.sources.tokens[..]), (3, &[5, 6, 1, 8, 1, 0][..]));
        assert_eq!(&batch.inputs.tokens[..], &[0, 7, 0, 0, 9, 10]);
        assert_eq!(&*batch.inputs.lengths, &[2, 3]);
        assert_eq!((&batch.targets.rows[..], &batch.targets.tokens[..]), (&[0, 1, 3, 4, 5][..], &[7, 1, 9, 10, 1][..]));
    }

    #[test]
    fn what_cannot_be_trained_on_is_refused() {
        let good = Example { source: vec![3], target: vec![4], teacher: None };
        assert_eq!(good.check(5), Ok(()));
        let because = |example: Example| example.check(5).unwrap_err();
        assert_eq!(because(Example { source: vec![], ..good.clone() }), "its source is empty");
        assert_eq!(because(Example { target: vec![], ..good.clone() }), "its target is empty");
        assert!(because(Example { target: vec![5], ..good.clone() }).contains("the token 5"));
        let teacher = Teacher { best: 2, tokens: vec![1, 2, 3], log_probs: vec![-1.0; 3] };
        assert!(because(Example { teacher: Some(teacher), ..good.clone() }).contains("not 2 for 1 tokens"));
        let teacher = Teacher { best: 1, tokens: vec![1], log_probs: vec![f32::NAN] };
        assert!(because(Example { teacher: Some(teacher), ..good }).contains("no logarithm"));
    }
}
