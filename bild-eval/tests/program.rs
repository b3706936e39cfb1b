//! What a program does with the library: the pair of the repository on a few sentences.

use bild::{
    Checkpoint, Flex, Lossless, Settings, T5,
    decode::Pair,
    policies::{AnyPolicy, BigAlone, LittleAlone},
};
use bild_eval::{
    Agreement, Bench, Candidate, Costs, Example, Log, Swept, TuneOptions, csv, evaluate, figure, sweep, tune,
};

const SENTENCES: [(&str, &str); 4] = [
    ("Ich bin müde.", "I am tired."),
    ("Wo ist der Bahnhof?", "Where is the station?"),
    ("Das Wetter ist schön.", "The weather is nice."),
    ("Wir haben keine Zeit.", "We have no time."),
];

fn bench(times: usize) -> Bench {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/de-en");
    let open = |role: &str| Checkpoint::open(format!("{models}/{role}")).unwrap();
    let load = |role: &str| T5::<Flex>::load(&open(role), &Default::default()).unwrap();
    let example = |(source, reference): (&str, &str)| Example { source: source.into(), reference: reference.into() };
    let data = SENTENCES.repeat(times).into_iter().map(example).collect();
    let settings = Settings::default().with_max_new_tokens(if times > 1 { 1 } else { 32 });
    Bench::new((load("little"), load("big")).boxed(), open("big").tokenizer().unwrap(), data, "", settings).unwrap()
}

#[test]
fn a_policy_is_evaluated_beside_the_big_model() {
    let bench = bench(1);
    let policy = AnyPolicy::Lossless(Lossless::default());
    let evaluation = evaluate(&bench, &policy, Some(2), Log::in_memory(), &()).unwrap();
    assert_eq!((evaluation.records.len(), evaluation.times.len()), (4, 8));
    assert!(evaluation.records.iter().all(|(found, big)| found.text == big.text && big.statistics.draft_steps == 0));
    let result = evaluation.json(&bench);
    assert_eq!((&result["same_as_big"], &result["bleu"]), (&4.into(), &result["big"]["bleu"]));
}

#[test]
fn policies_are_swept_and_what_a_log_has_is_not_done_again() {
    let bench = bench(1);
    let costs = Costs::measure(&bench.pair, bench.mean_length(), &()).unwrap();
    let candidate = |curve, policy| Candidate { curve, label: curve.into(), policy };
    let candidates = [
        candidate("big alone", AnyPolicy::Big(BigAlone {})),
        candidate("little alone", AnyPolicy::Little(LittleAlone {})),
    ];
    let mut log: Log<Swept> = Log::in_memory();
    let found = sweep(&bench, &candidates, &costs, &mut log, &()).unwrap();
    assert_eq!((found.len(), found[0].speedup, found[0].draft_steps, found[1].verifier_calls), (2, 1.0, 0, 0));
    // Its own encoder and steps alone, whatever the big model costs.
    let (steps, sentences) = (found[1].draft_steps as f64, bench.sources.len() as f64);
    let expected = sentences * costs.encode_little_alone + steps * costs.draft;
    assert!((found[1].predicted / expected - 1.0).abs() < 1e-9, "{found:?} {costs:?}");
    let again = sweep(&bench, &candidates[1..], &costs, &mut log, &()).unwrap();
    assert_eq!((again.len(), log.records.len()), (1, 2));
    assert_eq!(csv(&found).lines().count(), 3);
    assert!(figure(Default::default(), &found).starts_with("<svg"));
}

#[test]
fn a_policy_is_tuned_on_enough_sentences() {
    let bench = bench(10);
    let costs = Costs {
        encode_big: 4.0,
        encode_little: 1.0,
        encode_little_alone: 1.0,
        draft: 0.1,
        verify: vec![(1, 1.0), (17, 2.0)],
    };
    let mut options = TuneOptions::default().with_loss(100.0, Default::default());
    (options.grid, options.timed) = (true, 1);
    let tuned = tune(&bench, &costs, &options, Log::in_memory(), &()).unwrap();
    assert!(tuned.is_allowed && tuned.judged_on.sentences == 20 && tuned.judged_on.by_the_clock.sentences == 1);
    assert_eq!(tuned.judged_on.by_the_clock.interval, None, "one sentence says nothing of others");
    // Nothing gains so much quality.
    let mut strict = TuneOptions::default().with_loss(-100.0, Default::default());
    (strict.grid, strict.timed) = (true, 1);
    assert!(!tune(&bench, &costs, &strict, Log::in_memory(), &()).unwrap().is_allowed);
    (strict.grid, strict.candidates) = (false, Some(Vec::new()));
    let refused = tune(&bench, &costs, &strict, Log::in_memory(), &()).unwrap_err();
    assert!(refused.to_string().contains("no policy to choose from"), "{refused}");
    let few = Bench { sources: bench.sources[..39].to_vec(), examples: bench.examples[..39].to_vec(), ..bench };
    let refused = tune(&few, &costs, &options, Log::in_memory(), &()).unwrap_err();
    assert!(refused.to_string().starts_with("39 sentences are too few"), "{refused}");
}

#[test]
fn a_model_agrees_with_itself_and_less_with_a_smaller_one() {
    let bench = bench(1);
    let all: Vec<usize> = (0..bench.sources.len()).collect();
    let written = bench.decode(&AnyPolicy::Big(BigAlone {}), &all, || ()).unwrap();
    let outputs = || bench.sources.iter().zip(written.iter().map(|decoded| &*decoded.output.tokens));
    let model = |role: &str| {
        let folder = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/de-en/{}"), role);
        T5::<Flex>::load(&Checkpoint::open(folder).unwrap(), &Default::default()).unwrap()
    };
    let itself = Agreement::measure(&(model("big"), model("big")), outputs(), &()).unwrap();
    let tokens: usize = written.iter().map(|decoded| decoded.output.tokens.len()).sum();
    assert_eq!((itself.tokens, itself.argmax, itself.divergence), (tokens, 1.0, 0.0));
    assert!((itself.overlap - 1.0).abs() < 1e-9, "{itself:?}");

    let little = Agreement::measure(&bench.pair, outputs(), &()).unwrap();
    assert!(little.argmax > 0.4 && little.argmax < 1.0, "{little:?}");
    assert!(little.divergence > 0.0 && little.overlap > 0.4 && little.overlap < 1.0, "{little:?}");
}
