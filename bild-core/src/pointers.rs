//! `&`, `Box` and `Arc` of every trait are what they point to.

use std::sync::Arc;

use crate::{
    DraftModel, DraftSession, Encode, LogitsProcessor, Model, Pair, PairSession, Pass, Policy, PolicyState, Prefix,
    Result, Rows, SessionLimit, Source, Start, Token, VerifierModel, VerifierSession, Vocabulary, Wants,
};

macro_rules! shared {
    ($($pointer:ty),*) => { $(
        impl<T: Model + ?Sized> Model for $pointer {
            type Session = T::Session;

            fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<T::Session> {
                (**self).begin(source, limit)
            }

            fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
                (**self).bytes_for(source, tokens)
            }

            fn batch_size(&self) -> usize {
                (**self).batch_size()
            }

            fn passes_at_once(&self) -> usize {
                (**self).passes_at_once()
            }
        }

        impl<T: DraftModel + ?Sized> DraftModel for $pointer {
            fn speaks(&self) -> Option<&Vocabulary> {
                (**self).speaks()
            }

            fn check(&self, verifier: &Vocabulary) -> Result<()> {
                (**self).check(verifier)
            }

            fn most_drafts(&self) -> usize {
                (**self).most_drafts()
            }

            fn propose_all(&self, passes: &mut [(&mut T::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
                (**self).propose_all(passes)
            }
        }

        impl<T: VerifierModel + ?Sized> VerifierModel for $pointer {
            fn vocabulary(&self) -> &Vocabulary {
                (**self).vocabulary()
            }

            fn score_all(&self, passes: &mut [(&mut T::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
                (**self).score_all(passes)
            }
        }

        impl<T: Pair + ?Sized> Pair for $pointer {
            type Session = T::Session;

            fn vocabulary(&self) -> &Vocabulary {
                (**self).vocabulary()
            }

            fn check(&self) -> Result<()> {
                (**self).check()
            }

            fn begin(&self, source: &Source, limit: &SessionLimit) -> Result<T::Session> {
                (**self).begin(source, limit)
            }

            fn most_drafts(&self) -> usize {
                (**self).most_drafts()
            }

            fn pass_all(&self, passes: &mut [(&mut T::Session, Pass<'_>)]) -> Vec<Result<Rows>> {
                (**self).pass_all(passes)
            }

            fn bytes_for(&self, source: usize, tokens: usize) -> u64 {
                (**self).bytes_for(source, tokens)
            }

            fn batch_size(&self) -> usize {
                (**self).batch_size()
            }

            fn passes_at_once(&self) -> usize {
                (**self).passes_at_once()
            }
        }

        impl<T: Policy + ?Sized> Policy for $pointer {
            fn wants(&self) -> Wants {
                (**self).wants()
            }

            fn begin(&self, start: &Start<'_>) -> Box<dyn PolicyState> {
                (**self).begin(start)
            }
        }

        impl<T: LogitsProcessor + ?Sized> LogitsProcessor for $pointer {
            fn process(&self, prefix: &Prefix<'_>, logits: &mut [f32]) {
                (**self).process(prefix, logits);
            }

            fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
                (**self).check(vocabulary)
            }
        }

        impl<T: Encode + ?Sized> Encode for $pointer {
            fn encode_plain(&self, text: &str) -> Result<Vec<Token>> {
                (**self).encode_plain(text)
            }
        }
    )* };
}

shared!(&T, Box<T>, Arc<T>);

macro_rules! owned {
    ($($pointer:ty),*) => { $(
        impl<T: DraftSession + ?Sized> DraftSession for $pointer {
            fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
                (**self).propose(pass)
            }
        }

        impl<T: VerifierSession + ?Sized> VerifierSession for $pointer {
            fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
                (**self).score(pass)
            }
        }

        impl<T: PairSession + ?Sized> PairSession for $pointer {
            fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
                (**self).pass(pass)
            }
        }
    )* };
}

owned!(&mut T, Box<T>);
