//! What decoding costs with a pair: a step of one token, verifications of several, the encoder, and whole generations by the
//! big model alone, BiLD and lossless.
//!
//! cargo bench --bench decoding
//!
//! The pair is the repository's, or the folders in `BILD_BIG` and `BILD_LITTLE`.

use std::{path::PathBuf, time::Duration};

use bild::{
    Bild, Checkpoint, Flex, LoadOptions, Lossless, Precision, Settings, T5,
    decode::{
        Generator, Model, NoDraft, Pair, PairSession, Pass, Policy, SessionLimit, Source, Token, VerifierSession, Want,
    },
    models::EarlyExit,
    policies::Sampling,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const SOURCE: usize = 64;
const NEW: usize = 32;

fn load(role: &str, precision: Precision) -> T5<Flex> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/de-en").join(role);
    let directory = std::env::var_os(format!("BILD_{}", role.to_uppercase())).map_or(default, PathBuf::from);
    let checkpoint = Checkpoint::open(directory).expect("the folder holds a T5");
    T5::load_with(&checkpoint, &Default::default(), &LoadOptions::default().with_precision(precision))
        .expect("it loads")
}

fn decoding(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Int8] {
        let (big, little) = (load("big", precision), load("little", precision));
        let most = big.config().vocab_size.min(32_000) - 3;
        let tokens: Vec<Token> = (0..SOURCE).map(|i| (3 + i * 7919 % most) as Token).collect();
        let source = Source::new(tokens.clone());
        let mut group = criterion.benchmark_group(format!("{precision:?}"));
        for (name, model) in [("big", &big), ("little", &little)] {
            group.bench_function(format!("{name}, encoder"), |bencher| bencher.iter(|| model.encode(&source).unwrap()));
            // After 16 tokens; taking the new ones back costs nothing.
            let mut session = model.begin(&source, &SessionLimit::new(SOURCE)).unwrap();
            session.score(&Pass::verify(0, &tokens[..16], Want::default())).unwrap();
            for rows in [1, 4, 8, 11] {
                group.bench_function(BenchmarkId::new(format!("{name}, rows"), rows), |bencher| {
                    let want = Want::default().with_cross_entropy();
                    bencher.iter(|| session.score(&Pass::verify(16, &tokens[16..16 + rows], want)).unwrap());
                });
            }
        }
        // A draft step by early exit is its share of the layers, and the head.
        let layers = big.config().decoder_layers;
        for exit in [layers / 4, layers / 2, layers - 1].into_iter().filter(|&exit| exit > 0) {
            let pair = EarlyExit::new(big.clone(), exit).unwrap();
            let mut session = pair.begin(&source, &SessionLimit::new(SOURCE)).unwrap();
            session.pass(&Pass::verify(0, &tokens[..16], Want::default())).unwrap();
            session.pass(&Pass::draft(0, &tokens[..16], Want::default())).unwrap();
            let name = format!("early exit, {exit} of {layers} layers");
            group.bench_function(name, |bencher| {
                bencher.iter(|| session.pass(&Pass::draft(16, &tokens[16..17], Want::default())).unwrap());
            });
        }
        let settings = Settings::default().with_max_new_tokens(NEW).with_end_tokens([]);
        let alone =
            Generator::new((NoDraft, big.clone()), Lossless::default()).unwrap().with_settings(settings.clone());
        group.bench_function("generate, big alone", |bencher| {
            bencher.iter(|| alone.generate(&source).unwrap());
        });
        let sampling = Sampling::new(1.0).and_then(|policy| policy.with_top_k(50)).unwrap();
        let sampled = alone.clone().with_policy(sampling);
        group.bench_function("generate, big alone, sampled of the best 50", |bencher| {
            bencher.iter(|| sampled.generate(&source).unwrap());
        });
        let policies: [(&str, Box<dyn Policy>); 2] =
            [("bild", Box::<Bild>::default()), ("lossless", Box::<Lossless>::default())];
        for (name, policy) in policies {
            let pair = Generator::new((little.clone(), big.clone()), policy).unwrap().with_settings(settings.clone());
            group.bench_function(format!("generate, {name}"), |bencher| {
                bencher.iter(|| pair.generate(&source).unwrap());
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(10);
    targets = decoding
}
criterion_main!(benches);
