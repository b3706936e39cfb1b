//! Speculative sampling writes what sampling the verifier alone writes: the joint distribution of the first three tokens
//! against the exact one, by chi-square. And what would be wrong is found to be.

mod toy;

use std::{num::NonZeroUsize, sync::Arc};

use bild_core::{
    Context, Draft, DraftModel, DraftSession, Drafted, Generator, Model, Pass, Policy, PolicyState, Request, Result,
    Row, Rows, SessionLimit, Settings, Source, Start, Then, Token, Verdict, VerifierModel, VerifierSession, Vocabulary,
    Want, Wants,
};
use bild_policies::{AdaptiveLength, CostAware, Deferral, Lossless, Prices, Sampling};
use toy::{decode, mix, random};

const DRAWS: u64 = 200_000;
const TOKENS: usize = 3;
/// The standard normal deviate that is passed with the probability 0.001 / 16: the level, shared by all settings below.
const DEVIATE: f64 = 3.836;

type Logits = Arc<dyn Fn(&[Token]) -> Vec<f32> + Send + Sync>;

/// A model that is a table: logits for each prefix.
#[derive(Clone)]
struct Table {
    vocabulary: Vocabulary,
    logits: Logits,
    /// Whether it proposes its most likely token without a distribution.
    certain: bool,
}

impl Table {
    fn new(size: usize, logits: impl Fn(&[Token]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        let vocabulary = Vocabulary::new(size, 0, []);
        Self { vocabulary, logits: Arc::new(logits), certain: false }
    }
}

struct Session {
    table: Table,
    tokens: Vec<Token>,
}

impl Model for Table {
    type Session = Session;

    fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<Session> {
        Ok(Session { table: self.clone(), tokens: Vec::new() })
    }
}

impl DraftModel for Table {
    fn speaks(&self) -> Option<&Vocabulary> {
        Some(&self.vocabulary)
    }
}

impl VerifierModel for Table {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

impl DraftSession for Session {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        let row = self.score(pass)?.last().cloned();
        Ok(row.map(|row| if self.table.certain { Row::certain(row.argmax) } else { row }).into())
    }
}

impl VerifierSession for Session {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        let Pass { new, want, .. } = *pass;
        self.tokens.truncate(pass.keep);
        let row = |i: usize| {
            self.tokens.push(new[i]);
            Row::from_logits(&(self.table.logits)(&self.tokens[1..]), want, new.get(i + 1).copied())
        };
        (0..new.len()).map(row).collect()
    }
}

/// Logits in [0, `sharpness`) that the prefix decides.
fn logits(size: usize, seed: u64, sharpness: f32) -> impl Fn(&[Token]) -> Vec<f32> + Send + Sync + Clone + 'static {
    move |prefix| {
        let mut state = prefix.iter().fold(seed, |state, &token| mix(state ^ (u64::from(token) + 1)));
        let mut next = || {
            state = mix(state);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..size).map(|_| next() * sharpness).collect()
    }
}

/// The definition: temperature, then the k largest, then the fewest that have `p`.
fn shaped(logits: &[f32], temperature: f64, top_k: usize, top_p: f64) -> Vec<f64> {
    let mut weights: Vec<(usize, f64)> =
        logits.iter().map(|&x| (f64::from(x) / temperature).exp()).enumerate().collect();
    weights.sort_by(|a, b| b.1.total_cmp(&a.1));
    weights.truncate(top_k);
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut before = 0.0;
    let kept = weights.iter().take_while(|(_, weight)| {
        let keep = before < top_p * sum;
        before += weight;
        keep
    });
    let kept: Vec<(usize, f64)> = kept.copied().collect();
    let sum: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let mut table = vec![0.0; logits.len()];
    kept.iter().for_each(|&(token, weight)| table[token] = weight / sum);
    table
}

#[derive(Clone, Copy)]
struct Shape {
    temperature: f32,
    top_k: Option<usize>,
    top_p: f32,
}

const PLAIN: Shape = Shape { temperature: 1.0, top_k: None, top_p: 1.0 };

impl Shape {
    fn policy(self, drafts: usize) -> Sampling {
        let policy = Sampling::new(self.temperature).unwrap().with_top_p(self.top_p).unwrap();
        let policy = policy.with_max_draft(NonZeroUsize::new(drafts));
        self.top_k.map_or(policy, |k| policy.with_top_k(k).unwrap())
    }

    /// The exact probability of every sequence, the first token counting most.
    fn joint(self, verifier: &Table) -> Vec<f64> {
        let size = verifier.vocabulary.size;
        let mut joint = vec![1.0];
        for length in 0..TOKENS {
            let next = joint.iter().enumerate().flat_map(|(code, p)| {
                let prefix: Vec<Token> =
                    (0..length).map(|i| (code / size.pow((length - 1 - i) as u32) % size) as Token).collect();
                let table = shaped(
                    &(verifier.logits)(&prefix),
                    f64::from(self.temperature),
                    self.top_k.unwrap_or(size),
                    f64::from(self.top_p),
                );
                table.into_iter().map(move |q| p * q)
            });
            joint = next.collect();
        }
        joint
    }
}

/// How far the draws of a policy are from the exact distribution: chi-square, as a standard normal deviate (by Wilson and
/// Hilferty). Bins that expect fewer than 5 are merged.
fn deviate(draft: &Table, verifier: &Table, policy: impl Policy + 'static, exact: &[f64], draws: u64) -> f64 {
    let size = verifier.vocabulary.size;
    let generator = Generator::new((draft.clone(), verifier.clone()), policy).unwrap();
    let mut counts = vec![0u64; exact.len()];
    for seed in 0..draws {
        let settings = Settings::default().with_max_new_tokens(TOKENS).with_seed(seed);
        let output =
            generator.stream(Request::new(Source::new([1])).with_settings(settings.clone())).unwrap().finish().unwrap();
        counts[output.tokens.iter().fold(0, |code, &token| code * size + token as usize)] += 1;
    }
    let mut bins: Vec<(f64, f64)> = Vec::new();
    let mut small = (0.0, 0.0);
    for (p, count) in exact.iter().zip(&counts) {
        assert!(*p > 0.0 || *count == 0, "a sequence was drawn that has no probability");
        let (expected, count) = (p * draws as f64, *count as f64);
        if expected < 5.0 {
            small = (small.0 + expected, small.1 + count);
        } else {
            bins.push((expected, count));
        }
    }
    if small.0 >= 5.0 {
        bins.push(small);
    } else if small.1 > 0.0 {
        let first = &mut bins[0];
        (first.0, first.1) = (first.0 + small.0, first.1 + small.1);
    }
    let chi: f64 = bins.iter().map(|(expected, count)| (count - expected).powi(2) / expected).sum();
    let degrees = (bins.len() - 1) as f64;
    let spread = 2.0 / (9.0 * degrees);
    ((chi / degrees).cbrt() - (1.0 - spread)) / spread.sqrt()
}

fn check(name: &str, draft: &Table, verifier: &Table, shape: Shape, drafts: usize) {
    let found = deviate(draft, verifier, shape.policy(drafts), &shape.joint(verifier), DRAWS);
    assert!(found < DEVIATE, "{name}, drafts of {drafts}: {found}");
}

fn verifier(size: usize) -> Table {
    Table::new(size, logits(size, 7, 3.0))
}

/// Agrees with the verifier by halves.
fn similar(size: usize) -> Table {
    let (own, other) = (logits(size, 7, 1.5), logits(size, 11, 1.5));
    Table::new(size, move |prefix| own(prefix).iter().zip(other(prefix)).map(|(a, b)| a + b).collect())
}

#[test]
fn whatever_the_temperature() {
    for (temperature, drafts) in [(0.4, 3), (1.0, 1), (1.0, 5), (1.8, 3)] {
        check("temperature", &similar(6), &verifier(6), Shape { temperature, ..PLAIN }, drafts);
    }
}

#[test]
fn with_top_k_and_top_p() {
    check("top-k", &similar(8), &verifier(8), Shape { top_k: Some(3), ..PLAIN }, 3);
    check("top-p", &similar(7), &verifier(7), Shape { top_p: 0.7, ..PLAIN }, 5);
    check("all", &similar(8), &verifier(8), Shape { temperature: 0.7, top_k: Some(5), top_p: 0.9 }, 1);
}

#[test]
fn with_drafts_that_are_peaked_or_never_what_the_verifier_writes() {
    let size = 6;
    let peaked = Table::new(size, move |prefix| {
        (0..size).map(|token| if token == (prefix.len() + 1) % size { 6.0 } else { 0.0 }).collect()
    });
    // The verifier writes the even tokens, the draft model the odd ones.
    let half = |odd: usize, seed| {
        let all = logits(size, seed, 3.0);
        Table::new(size, move |prefix| {
            all(prefix).iter().enumerate().map(|(i, &x)| if i % 2 == odd { x } else { -60.0 }).collect()
        })
    };
    for drafts in [1, 3, 5] {
        check("peaked", &peaked, &verifier(size), PLAIN, drafts);
    }
    check("disjoint", &half(1, 3), &half(0, 5), PLAIN, 3);
}

#[test]
fn with_drafts_that_have_no_distribution_and_with_fallback() {
    let lookup = Table { certain: true, ..similar(5) };
    check("look-up", &lookup, &verifier(5), PLAIN, 3);
    let policy = PLAIN.policy(5).with_fallback(0.45).unwrap();
    let found = deviate(&similar(6), &verifier(6), policy, &PLAIN.joint(&verifier(6)), DRAWS);
    assert!(found < DEVIATE, "fallback: {found}");
}

#[test]
fn with_draft_lengths_that_adapt() {
    let exact = PLAIN.joint(&verifier(6));
    let adaptive = AdaptiveLength::new(PLAIN.policy(5)).with_start(NonZeroUsize::MIN);
    let found = deviate(&similar(6), &verifier(6), adaptive, &exact, DRAWS);
    assert!(found < DEVIATE, "by acceptance: {found}");
    let prices = Prices::new(0.2, 1.0, 0.01).unwrap();
    let aware = CostAware::new(PLAIN.policy(5)).with_prices(prices);
    let found = deviate(&similar(6), &verifier(6), aware, &exact, DRAWS);
    assert!(found < DEVIATE, "by costs: {found}");
}

/// What speculative sampling gets wrong if one step of it is left out.
#[derive(Clone, Copy)]
enum Broken {
    /// Every draft stands.
    AlwaysAccept,
    /// The token in place of a refused one is drawn from max(0, p − q) without scaling it to 1.
    NotRenormalised,
}

struct BrokenState {
    broken: Broken,
    random: u64,
}

impl BrokenState {
    fn uniform(&mut self) -> f64 {
        self.random = mix(self.random);
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn draw(&mut self, table: &[f64]) -> Token {
        let uniform = self.uniform();
        let mut sum = 0.0;
        let passed = |p: &f64| {
            sum += p;
            uniform < sum
        };
        table.iter().position(passed).unwrap_or(table.len() - 1) as Token
    }
}

fn table(row: &Row) -> Vec<f64> {
    shaped(row.logits.as_ref().unwrap(), 1.0, usize::MAX, 1.0)
}

impl Policy for Broken {
    fn wants(&self) -> Wants {
        Wants { draft: Want::default().with_logits(), verifier: Want::default().with_logits() }
    }

    fn begin(&self, start: &Start<'_>) -> Box<dyn PolicyState> {
        Box::new(BrokenState { broken: *self, random: mix(start.seed) })
    }
}

impl PolicyState for BrokenState {
    fn drafted(&mut self, at: &Context<'_>, row: &Row) -> Draft {
        let token = self.draw(&table(row));
        if at.drafts.len() == 2 { Draft::KeepLast(token) } else { Draft::Keep(token) }
    }

    fn verified(&mut self, _at: &Context<'_>, drafts: &[Drafted], rows: &[Row]) -> Verdict {
        for (accepted, draft) in drafts.iter().enumerate() {
            let (p, q, token) = (table(&rows[accepted]), table(&draft.row), draft.token as usize);
            if matches!(self.broken, Broken::NotRenormalised) && self.uniform() * q[token] >= p[token] {
                let rest: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (p - q).max(0.0)).collect();
                return Verdict { accepted, next: self.draw(&rest), then: Then::Draft };
            }
        }
        let next = self.draw(&table(&rows[drafts.len()]));
        Verdict { accepted: drafts.len(), next, then: Then::Draft }
    }
}

#[test]
fn what_is_wrong_is_rejected() {
    let (draft, verifier) = (similar(6), verifier(6));
    for (name, broken) in [("always accept", Broken::AlwaysAccept), ("not renormalised", Broken::NotRenormalised)] {
        let found = deviate(&draft, &verifier, broken, &PLAIN.joint(&verifier), DRAWS / 4);
        assert!(found > 2.0 * DEVIATE, "{name} passes: {found}");
    }
    let lenient = PLAIN.policy(3).with_lenience(0.6).unwrap();
    let found = deviate(&draft, &verifier, lenient, &PLAIN.joint(&verifier), DRAWS / 4);
    assert!(found > DEVIATE, "lenience is lossy: {found}");
}

#[test]
fn at_temperature_0_it_is_lossless_greedy() {
    for seed in 0..300 {
        let big = random(seed, 6.0);
        let draft = toy::blend(big.clone(), random(seed + 99, 6.0), 0.4);
        let settings = Settings::default().with_max_new_tokens(20).with_seed(seed);
        let (sampled, _) = decode(draft.clone(), big.clone(), Sampling::new(0.0).unwrap(), settings.clone()).unwrap();
        let (greedy, _) = decode(draft, big, Lossless::default(), settings).unwrap();
        assert_eq!(sampled.tokens, greedy.tokens);
    }
}

#[test]
fn the_seed_decides() {
    let generator = Generator::new((similar(6), verifier(6)), Sampling::default()).unwrap();
    let tokens = |seed| {
        let settings = Settings::default().with_max_new_tokens(30).with_seed(seed);
        generator
            .stream(Request::new(Source::new([1])).with_settings(settings.clone()))
            .unwrap()
            .finish()
            .unwrap()
            .tokens
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}

/// The first token is the draft model's where the verifier does not defer, else the verifier's: chi-square of 5 degrees of freedom. The
/// rule looks at how sure both are before the temperature and top-k, which shape what is sampled.
#[test]
fn a_cascade_is_distributed_as_the_model_that_its_rule_picks() {
    let draws = 20_000;
    for (shape, top_k) in [(PLAIN, 6), (Shape { temperature: 0.25, top_k: Some(3), ..PLAIN }, 3)] {
        let mut deferred = 0;
        for seed in 0..8 {
            // One of them is sure of itself.
            let [little, big] = if seed % 2 == 0 { [1.0, 4.0] } else { [4.0, 1.0] };
            let [little, big] =
                [(little, seed), (big, seed + 100)].map(|(sharp, seed)| Table::new(6, logits(6, seed, sharp)));
            let [q, p] = [&little, &big].map(|table| (table.logits)(&[]));
            let best = |logits: &[f32]| shaped(logits, 1.0, 6, 1.0).into_iter().fold(0.0, f64::max);
            let sure = [best(&q), best(&p)];
            let [q, p] = [q, p].map(|logits| shaped(&logits, shape.temperature.into(), top_k, 1.0));
            let variation: f64 = q.iter().zip(&p).map(|(q, p)| (q - p).abs()).sum::<f64>() / 2.0;
            let defers = sure[0] < sure[1] - 0.5 * variation;
            deferred += usize::from(defers);
            let expected = if defers { p } else { q };
            let policy = shape.policy(1).with_deferral(Deferral::new(0.5).unwrap());
            let generator = Generator::new((little, big), policy).unwrap();
            let mut counts = [0.0; 6];
            for seed in 0..draws {
                let settings = Settings::default().with_max_new_tokens(1).with_seed(seed);
                let output = generator.generate(Request::new(Source::new([1])).with_settings(settings)).unwrap();
                counts[output.tokens[0] as usize] += 1.0;
            }
            assert!(counts.iter().zip(&expected).all(|(&count, &p)| p > 0.0 || count == 0.0), "{seed}: {counts:?}");
            let likely = counts.iter().zip(expected.iter().map(|p| p * draws as f64)).filter(|(_, e)| *e > 0.0);
            let chi: f64 = likely.map(|(n, e)| (n - e) * (n - e) / e.max(5.0)).sum();
            assert!(chi < 25.0, "{seed}: chi-square is {chi}, deferred: {defers}");
        }
        assert!((1..8).contains(&deferred), "{deferred}");
    }
}

#[test]
fn a_cascade_without_temperature_writes_what_either_is_surest_of() {
    let mut of_draft = 0;
    for seed in 0..20 {
        let [little, big] = [seed, seed + 100].map(|seed| Table::new(6, logits(6, seed, 2.0)));
        let [q, p] = [&little, &big].map(|table| shaped(&(table.logits)(&[]), 1.0, 6, 1.0));
        let best = |table: &[f64]| (0..6).max_by(|&a, &b| table[a].total_cmp(&table[b])).unwrap();
        let ([little_best, big_best], cost) = ([best(&q), best(&p)], 0.2);
        let defers = q[little_best] < p[big_best] - if little_best == big_best { 0.0 } else { cost };
        of_draft += usize::from(!defers && little_best != big_best);
        let policy = Sampling::new(0.0).unwrap().with_deferral(Deferral::new(cost as f32).unwrap());
        let generator = Generator::new((little, big), policy.with_max_draft(NonZeroUsize::new(1))).unwrap();
        let settings = Settings::default().with_max_new_tokens(1);
        let output = generator.generate(Request::new(Source::new([1])).with_settings(settings)).unwrap();
        assert_eq!(output.tokens[0] as usize, if defers { big_best } else { little_best }, "{seed}");
    }
    assert!(of_draft > 0);
}
