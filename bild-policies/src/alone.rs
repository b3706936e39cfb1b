use bild_core::{Context, Draft, Drafted, Policy, PolicyState, Role, Row, Start, Then, Verdict};
use serde::{Deserialize, Serialize};

/// The big model alone, greedily: the little one of the pair is never asked. What every other policy is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BigAlone {}

impl Policy for BigAlone {
    fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(*self)
    }
}

impl PolicyState for BigAlone {
    fn first(&self) -> Role {
        Role::Verifier
    }

    fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        Verdict { accepted: drafts.len(), next: rows[drafts.len()].argmax, then: Then::Verify }
    }
}

/// The little model alone, greedily: the fastest a pair can be, and the quality to improve on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LittleAlone {}

impl Policy for LittleAlone {
    fn begin(&self, _start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(*self)
    }
}

impl PolicyState for LittleAlone {
    fn drafted(&mut self, _at: &Context<'_>, row: &Row) -> Draft {
        Draft::Keep(row.argmax)
    }

    fn expected_drafts(&self, _at: &Context<'_>) -> usize {
        usize::MAX
    }

    fn verify_before_end(&self) -> bool {
        false
    }
}
