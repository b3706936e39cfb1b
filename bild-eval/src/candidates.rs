//! The policies that `sweep` and `tune` compare: the paper's grid, its ablations, and other signals.

use std::num::NonZeroUsize;

use bild::{
    Bild, Lossless,
    decode::{Result, Role},
    policies::{
        AdaptiveLength, AnyFallback, AnyPolicy, AnyRollback, Atypical, BigAlone, CostAware, Deferral, HighCrossEntropy,
        HighDivergence, HighEntropy, LittleAlone, LowAcceptance, LowAccumulated, LowProbability, LowRank, Prices,
        RandomFallback, SmallMargin, TargetRollback, Variant,
    },
};

use crate::Costs;

const FALLBACKS: [f32; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
const ROLLBACKS: [f32; 8] = [0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0];
/// What a deferral costs in a cascade.
const DEFERRALS: [f32; 4] = [0.0, 0.25, 0.5, 1.0];

/// The rollback threshold of the policies that vary something else.
const ROLLBACK: f32 = 2.0;
/// The fallback threshold of those that vary the rollback.
const FALLBACK: f32 = 0.5;

/// A policy with the curve it belongs to and what tells it from the others there.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is compared as.
    pub curve: &'static str,
    /// Its thresholds in words.
    pub label: String,
    /// What decodes.
    pub policy: AnyPolicy,
}

fn bild(fallback: AnyFallback, rollback: AnyRollback) -> Bild<AnyFallback, AnyRollback> {
    Bild::with_rules(fallback, rollback)
}

fn probability(alpha: f32) -> Result<AnyFallback> {
    Ok(AnyFallback::Probability(LowProbability::new(alpha)?))
}

fn cross_entropy(alpha: f32) -> Result<AnyRollback> {
    Ok(AnyRollback::CrossEntropy(HighCrossEntropy::new(alpha)?))
}

/// The paper's grid: `BiLD`.
///
/// # Errors
///
/// None that is expected.
pub fn grid() -> Result<Vec<Candidate>> {
    let mut grid = Vec::new();
    for alpha in FALLBACKS {
        for beta in ROLLBACKS {
            let policy = AnyPolicy::Bild(bild(probability(alpha)?, cross_entropy(beta)?));
            grid.push(Candidate { curve: "BiLD", label: format!("fallback {alpha}, rollback {beta}"), policy });
        }
    }
    Ok(grid)
}

/// The lossless policy that drafts as much as pays at these costs: how fast a way to draft is goes by it.
///
/// # Errors
///
/// If the costs are no numbers.
pub fn lossless(costs: &Costs) -> Result<AnyPolicy> {
    let policy = Box::new(AnyPolicy::Lossless(Lossless::without_limit()));
    Ok(AnyPolicy::CostAware(CostAware::new(policy).with_prices(prices(costs)?)))
}

/// What passes cost, for a policy that drafts as much as pays.
fn prices(costs: &Costs) -> Result<Prices> {
    let verify = costs.pass(1);
    Prices::new(costs.draft, verify, ((costs.pass(9) - verify) / 8.0).max(0.0))
}

/// What `tune` chooses from: the grid, other fallbacks that do well, and what is lossless.
///
/// # Errors
///
/// If the costs are no numbers.
pub fn for_tuning(costs: &Costs) -> Result<Vec<Candidate>> {
    let mut some = grid()?;
    let mut add = |curve, label: String, policy| some.push(Candidate { curve, label, policy });
    for alpha in FALLBACKS {
        add("lossless", format!("fallback {alpha}"), AnyPolicy::Lossless(Lossless::default().with_fallback(alpha)?));
    }
    let prices = prices(costs)?;
    let aware = |policy| AnyPolicy::CostAware(CostAware::new(Box::new(policy)).with_prices(prices));
    let lossless = AnyPolicy::Lossless(Lossless { fallback: None, max_draft: NonZeroUsize::new(20) });
    add("cost-aware", "lossless".into(), aware(lossless));
    for rollback in [1.0, 2.0, 5.0] {
        let policy = bild(probability(0.0)?, cross_entropy(rollback)?).with_max_draft(NonZeroUsize::new(20));
        add("cost-aware", format!("rollback {rollback}"), aware(AnyPolicy::Bild(policy)));
        for margin in [0.1, 0.2, 0.3, 0.4, 0.6] {
            let rule = AnyFallback::Margin(SmallMargin::new(margin)?);
            let label = format!("below {margin}, rollback {rollback}");
            add("margin", label, AnyPolicy::Bild(bild(rule, cross_entropy(rollback)?)));
        }
        for product in [0.1, 0.2, 0.3, 0.5] {
            let rule = AnyFallback::Accumulated(LowAccumulated::new(product)?);
            let label = format!("below {product}, rollback {rollback}");
            add("accumulated", label, AnyPolicy::Bild(bild(rule, cross_entropy(rollback)?)));
        }
        for acceptance in [0.3, 0.4, 0.5, 0.6] {
            let rule = AnyFallback::Acceptance(LowAcceptance::new(acceptance)?);
            let label = format!("below {acceptance}, rollback {rollback}");
            add("acceptance", label, AnyPolicy::Bild(bild(rule, cross_entropy(rollback)?)));
        }
    }
    for alpha in DEFERRALS {
        let rule = AnyRollback::Deferral(Deferral::new(alpha)?);
        let policy = bild(probability(0.0)?, rule).with_max_draft(NonZeroUsize::new(20));
        add("cost-aware", format!("deferral {alpha}"), aware(AnyPolicy::Bild(policy)));
    }
    Ok(some)
}

/// What `sweep` compares; with `has_little`, the little model alone too.
///
/// # Errors
///
/// If the costs are no numbers.
pub fn all(costs: &Costs, has_little: bool) -> Result<Vec<Candidate>> {
    let mut all = grid()?;
    let mut add = |curve, label: String, policy| all.push(Candidate { curve, label, policy });
    add("big alone", "big alone".into(), AnyPolicy::Big(BigAlone {}));
    if has_little {
        add("little alone", "little alone".into(), AnyPolicy::Little(LittleAlone {}));
    }
    for alpha in FALLBACKS {
        let policy = bild(probability(alpha)?, cross_entropy(f32::INFINITY)?);
        add("without rollback", format!("fallback {alpha}"), AnyPolicy::Bild(policy));
        let random = AnyFallback::Random(RandomFallback::new(alpha)?);
        add("random fallback", format!("probability {alpha}"), AnyPolicy::Bild(bild(random, cross_entropy(ROLLBACK)?)));
        let released = bild(probability(alpha)?, cross_entropy(ROLLBACK)?).with_variant(Variant::Released);
        add("authors' program", format!("fallback {alpha}, rollback {ROLLBACK}"), AnyPolicy::Bild(released));
        add("lossless", format!("fallback {alpha}"), AnyPolicy::Lossless(Lossless::default().with_fallback(alpha)?));
        let first = bild(probability(alpha)?, cross_entropy(ROLLBACK)?).with_first(Role::Verifier);
        add("big first", format!("fallback {alpha}, rollback {ROLLBACK}"), AnyPolicy::Bild(first));
    }
    for length in [1, 2, 3, 4, 5, 6, 8, 10] {
        let length = NonZeroUsize::new(length);
        for beta in [1.0, 2.0, 5.0] {
            let policy = bild(probability(0.0)?, cross_entropy(beta)?).with_max_draft(length);
            let label = format!("{} drafts, rollback {beta}", length.map_or(0, NonZeroUsize::get));
            add("fixed length", label, AnyPolicy::Bild(policy));
        }
    }
    for entropy in [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0] {
        let rule = AnyFallback::Entropy(HighEntropy::new(entropy)?);
        add("entropy", format!("above {entropy} nats"), AnyPolicy::Bild(bild(rule, cross_entropy(ROLLBACK)?)));
    }
    for margin in [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8] {
        let rule = AnyFallback::Margin(SmallMargin::new(margin)?);
        add("margin", format!("below {margin}"), AnyPolicy::Bild(bild(rule, cross_entropy(ROLLBACK)?)));
    }
    for product in [0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7] {
        let rule = AnyFallback::Accumulated(LowAccumulated::new(product)?);
        add("accumulated", format!("below {product}"), AnyPolicy::Bild(bild(rule, cross_entropy(ROLLBACK)?)));
    }
    for rank in [1, 2, 3, 5, 10, 30] {
        let rule = AnyRollback::Rank(LowRank::new(rank)?);
        add("rollback by rank", format!("the best {rank}"), AnyPolicy::Bild(bild(probability(FALLBACK)?, rule)));
    }
    for divergence in [0.25, 0.5, 1.0, 2.0, 4.0] {
        let rule = AnyRollback::Divergence(HighDivergence::new(divergence)?);
        add("rollback by KL", format!("above {divergence}"), AnyPolicy::Bild(bild(probability(FALLBACK)?, rule)));
    }
    for (epsilon, delta) in [(0.05, 0.1), (0.09, 0.3), (0.2, 0.5), (0.5, 0.8)] {
        let rule = AnyRollback::Typical(Atypical::new(epsilon, delta)?);
        add("typical", format!("{epsilon}, {delta}"), AnyPolicy::Bild(bild(probability(FALLBACK)?, rule)));
    }
    for acceptance in [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8] {
        let rule = AnyFallback::Acceptance(LowAcceptance::new(acceptance)?);
        add("acceptance", format!("below {acceptance}"), AnyPolicy::Bild(bild(rule, cross_entropy(ROLLBACK)?)));
    }
    for alpha in DEFERRALS {
        let rule = AnyRollback::Deferral(Deferral::new(alpha)?);
        add("cascade", format!("deferral {alpha}"), AnyPolicy::Bild(bild(probability(FALLBACK)?, rule)));
    }
    for rate in [0.1, 0.2, 0.3, 0.4, 0.5, 0.7] {
        let of = Bild::with_rules(LowProbability::new(FALLBACK)?, cross_entropy(ROLLBACK)?);
        let policy = AnyPolicy::TargetRollback(TargetRollback::new(of, rate)?);
        add("target rollback", format!("{rate} of verifications, rollback {ROLLBACK}"), policy);
    }
    let lossless = |drafts| AnyPolicy::Lossless(Lossless { fallback: None, max_draft: NonZeroUsize::new(drafts) });
    for length in [1, 2, 3, 4, 5, 6, 8, 10, 15] {
        add("lossless, fixed length", format!("{length} drafts"), lossless(length));
    }
    let adaptive = AdaptiveLength::new(Box::new(lossless(0)));
    add("lossless, adaptive", "as acceptance".into(), AnyPolicy::AdaptiveLength(adaptive));
    add("lossless, adaptive", "as costs".into(), self::lossless(costs)?);
    Ok(all)
}
