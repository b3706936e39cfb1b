//! What the decode loop itself costs: bookkeeping and policy, with models that cost nothing.
//!
//! cargo bench --bench overhead

use std::hint::black_box;

use bild::{
    Bild, Lossless, Settings,
    decode::{
        DraftModel, DraftSession, Generator, Model, NoDraft, Pass, Policy, Result, Row, Rows, SessionLimit, Source,
        VerifierModel, VerifierSession, Vocabulary,
    },
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const TOKENS: usize = 1000;

/// Always says the same, with the same probability, without looking.
struct Free {
    vocabulary: Vocabulary,
    row: Row,
}

#[derive(Clone)]
struct FreeSession(Row);

fn free(probability: f32) -> Free {
    let mut row = Row::new(5, probability);
    row.cross_entropy = Some(0.1);
    Free { vocabulary: Vocabulary::new(32_128, 0, [1]), row }
}

impl Model for Free {
    type Session = FreeSession;
    fn begin(&self, _source: &Source, _limit: &SessionLimit) -> Result<FreeSession> {
        Ok(FreeSession(self.row.clone()))
    }
}

impl DraftModel for Free {}

impl VerifierModel for Free {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

impl DraftSession for FreeSession {
    fn propose(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        black_box(pass);
        Ok(self.0.clone().into())
    }
}

impl VerifierSession for FreeSession {
    fn score(&mut self, pass: &Pass<'_>) -> Result<Rows> {
        Ok(vec![self.0.clone(); pass.new.len()].into())
    }
}

fn overhead(criterion: &mut Criterion) {
    let settings = Settings::default().with_max_new_tokens(TOKENS);
    let source = Source::new([5, 1]);
    let mut group = criterion.benchmark_group("loop, 1000 tokens");
    group.throughput(Throughput::Elements(TOKENS as u64));
    let mut pair = |name: &str, policy: Box<dyn Policy>, probability: f32| {
        let generator = Generator::new((free(probability), free(0.9)), policy).expect("the pair fits");
        let generator = generator.with_settings(settings.clone());
        group.bench_function(name, |bencher| bencher.iter(|| generator.generate(&source).expect("nothing fails")));
    };
    pair("bild, full drafts", Box::<Bild>::default(), 0.9);
    pair("bild, a fallback each token", Box::<Bild>::default(), 0.1);
    pair("lossless, full drafts", Box::<Lossless>::default(), 0.9);
    let refusing = Bild::new(0.5, 0.05).expect("both thresholds are in their ranges");
    pair("bild, a rollback each pass", Box::new(refusing), 0.9);

    let alone = Generator::new((NoDraft, free(0.9)), Lossless::default()).expect("the pair fits");
    let alone = alone.with_settings(settings.clone());
    group.bench_function("one model alone", |bencher| bencher.iter(|| alone.generate(&source).expect("nothing fails")));
    let generator = Generator::new((free(0.9), free(0.9)), Bild::default()).expect("the pair fits");
    let generator = generator.with_settings(settings);
    group.bench_function("bild, full drafts, streamed", |bencher| {
        bencher.iter(|| {
            generator.stream(&source).expect("nothing fails").map(Result::unwrap).for_each(|event| {
                black_box(event);
            })
        });
    });
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
