//! `&`, `Box` and `Arc` of a rule are what they point to: for one that is chosen at run time.

use std::sync::Arc;

use bild_core::{Context, Drafted, Row, Want};

use crate::{FallbackRule, RollbackRule};

macro_rules! shared {
    ($($pointer:ty),*) => { $(
        impl<T: FallbackRule + ?Sized> FallbackRule for $pointer {
            fn want(&self) -> Want {
                (**self).want()
            }

            fn falls_back(&self, at: &Context<'_>, row: &Row) -> bool {
                (**self).falls_back(at, row)
            }
        }

        impl<T: RollbackRule + ?Sized> RollbackRule for $pointer {
            fn want(&self) -> Want {
                (**self).want()
            }

            fn want_of_draft(&self) -> Want {
                (**self).want_of_draft()
            }

            fn refuses(&self, draft: &Drafted, row: &Row) -> bool {
                (**self).refuses(draft, row)
            }
        }
    )* };
}

shared!(&T, Box<T>, Arc<T>);
