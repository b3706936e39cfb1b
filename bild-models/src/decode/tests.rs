//! What a family gets from this room, shown by one that brings nothing but its layers.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use bild_core::{
    DraftModel, DraftSession, Error, Generator, Model, NoDraft, Pair, PairSession, Pass, Row, SessionLimit, Settings,
    Source, Token, VerifierModel, VerifierSession, Want,
};
use bild_policies::Lossless;
use burn_flex::Flex;
use safetensors::{Dtype, tensor::TensorView};

use super::{
    Decoder, EarlyExit, NgramLookup, Session, SharedEncoder, check_memory,
    toy::{LAYERS, Toy, ToyWeights, VOCABULARY, WIDTH},
};
use crate::{Checkpoint, TextGenerator, backend::memory};

const TOKENIZER: &str = r#"{
    "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": { "type": "Whitespace" },
    "post_processor": null, "decoder": null, "truncation": null, "padding": null,
    "model": { "type": "WordLevel", "unk_token": "w2", "vocab": VOCAB }
}"#;

/// A checkpoint in memory, with random weights.
fn checkpoint(seed: u64) -> Checkpoint {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 1.2
    };
    let mut shapes = vec![
        ("embedding".to_owned(), vec![VOCABULARY, WIDTH]),
        ("norm".into(), vec![WIDTH]),
        ("bias".into(), vec![8, 3]),
    ];
    for i in 0..LAYERS {
        shapes.extend(["q", "k", "v", "o"].map(|name| (format!("layers.{i}.{name}"), vec![WIDTH, WIDTH])));
        shapes.extend(["gate", "up"].map(|name| (format!("layers.{i}.{name}"), vec![2 * WIDTH, WIDTH])));
        shapes.push((format!("layers.{i}.down"), vec![WIDTH, 2 * WIDTH]));
        shapes.extend(["norm1", "norm2"].map(|name| (format!("layers.{i}.{name}"), vec![WIDTH])));
    }
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            (format!("{name}.weight"), shape, (0..count).flat_map(|_| random().to_le_bytes()).collect())
        })
        .collect();
    let views: HashMap<&String, TensorView<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()))
        .collect();
    let words: Vec<String> = (0..VOCABULARY).map(|i| format!("\"w{i}\": {i}")).collect();
    let tokenizer = TOKENIZER.replace("VOCAB", &format!("{{ {} }}", words.join(", ")));
    Checkpoint::from_files([
        ("config.json", br#"{ "model_type": "toy" }"#.to_vec()),
        ("model.safetensors", safetensors::serialize(views, None).unwrap()),
        ("tokenizer.json", tokenizer.into_bytes()),
    ])
    .unwrap()
}

fn toy(seed: u64) -> Toy<Flex> {
    Toy::load(&checkpoint(seed)).unwrap()
}

fn sources() -> [Source; 2] {
    [Source::new([5, 9, 22, 7]), Source::new([30, 2])]
}

fn bits(rows: &[Row]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.logits.as_ref().unwrap().iter().map(|x| x.to_bits()).collect()).collect()
}

fn settings() -> Settings {
    Settings::default().with_max_new_tokens(20).with_end_tokens([])
}

fn greedy(model: &Toy<Flex>, source: &Source) -> Vec<Token> {
    let alone = Generator::new((NoDraft, model.clone()), Lossless::default()).unwrap();
    alone.with_settings(settings()).generate(source).unwrap().tokens
}

#[test]
fn sessions_keep_what_they_are_told_to() {
    let (model, want) = (toy(1), Want::default().with_logits());
    for source in sources() {
        let limit = SessionLimit::new(12);
        let mut whole = model.begin(&source, &limit).unwrap();
        let expected = bits(&whole.score(&Pass::verify(0, &[0, 4, 11, 3, 8], want)).unwrap());
        let mut session = model.begin(&source, &limit).unwrap();
        session.score(&Pass::verify(0, &[0, 4, 20, 21], want)).unwrap();
        let last = session.propose(&Pass::draft(2, &[11, 3, 8], want)).unwrap();
        assert_eq!(bits(&last), expected[4..]);
        assert_eq!(bits(&session.score(&Pass::verify(1, &[4, 11, 3], want)).unwrap()), expected[1..4]);
    }
}

#[test]
fn sessions_that_begin_together_must_fit_together() {
    let Err(free) = memory::check(u64::MAX) else { return }; // the system does not tell
    let toy = toy(1).weights;
    // Each takes 0.6 of what is free.
    let tokens = (1 << 20) * (free / 5 * 3 / toy.bytes_for(0, 1 << 20)) as usize;
    let mut needed = 0;
    assert!(check_memory(&*toy, 0, tokens, &mut needed).is_ok());
    assert_eq!(needed, toy.bytes_for(0, tokens));
    let refused = check_memory(&*toy, 0, tokens, &mut needed);
    assert!(matches!(refused, Err(Error::Memory { .. })), "{refused:?}");
    assert!(check_memory(&*toy, 0, 1, &mut needed).is_ok(), "a small one fits beside the first");
}

/// Joining sessions in one pass changes no bit of any.
#[test]
fn a_pass_over_two_sessions_is_two_passes() {
    let (model, want) = (toy(2), Want::default().with_logits());
    let limit = SessionLimit::new(12);
    let begin = || sources().map(|source| model.begin(&source, &limit).unwrap());
    let passes: [[&[Token]; 2]; 3] = [[&[0, 4], &[0]], [&[11], &[7, 7, 9]], [&[3, 8, 2], &[5, 6]]];
    for draft in [false, true] {
        let together = |passes: &mut [(&mut Session<ToyWeights<Flex>>, Pass<'_>)]| -> Vec<Vec<Row>> {
            let rows = if draft { model.propose_all(passes) } else { model.score_all(passes) };
            rows.into_iter().map(|rows| rows.unwrap().to_vec()).collect()
        };
        let ([mut a, mut b], [mut c, mut d]) = (begin(), begin());
        let mut kept = [0; 2];
        for new in passes {
            let [first, second] = [0, 1].map(|i| Pass::verify(kept[i], new[i], want));
            let both = together(&mut [(&mut a, first), (&mut b, second)]);
            let alone = [together(&mut [(&mut c, first)]), together(&mut [(&mut d, second)])].concat();
            assert_eq!(both.len(), 2);
            for (together, alone) in both.iter().zip(&alone) {
                assert_eq!(together.len(), alone.len());
                assert_eq!(bits(together), bits(alone));
            }
            kept = [0, 1].map(|i| kept[i] + new[i].len());
        }
    }
}

#[test]
fn early_exit_and_look_up_are_lossless() {
    for seed in 0..10 {
        let model = toy(seed);
        for source in sources() {
            let expected = greedy(&model, &source);
            for layers in 1..LAYERS {
                let pair = EarlyExit::new(model.clone(), layers).unwrap();
                let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings());
                let output = generator.generate(&source).unwrap();
                assert_eq!(output.tokens, expected);
                assert!(output.statistics.draft_steps > 0);
            }
            let generator = Generator::new((NgramLookup::default(), model.clone()), Lossless::default()).unwrap();
            assert_eq!(generator.with_settings(settings()).generate(&source).unwrap().tokens, expected);
        }
    }
}

thread_local! {
    /// How often a source was encoded on this thread.
    pub(super) static ENCODED: Cell<usize> = const { Cell::new(0) };
}

/// The same model with some of its layers, which it shares.
fn of_layers(model: &Toy<Flex>, layers: &[usize]) -> Toy<Flex> {
    let mut weights = (*model.weights).clone();
    weights.layers = layers.iter().map(|&layer| model.weights.layers[layer].clone()).collect();
    Toy { weights: Arc::new(weights) }
}

#[test]
fn a_draft_decoder_is_lossless_and_nothing_is_encoded_twice() {
    for seed in 0..10 {
        let model = toy(seed);
        for source in sources() {
            let expected = greedy(&model, &source);
            for layers in [&[0][..], &[2], &[0, 2], &[1, 1]] {
                let pair = SharedEncoder::of(model.clone(), of_layers(&model, layers));
                assert_eq!(pair.layers(), layers.len());
                let before = ENCODED.get();
                let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings());
                let output = generator.generate(&source).unwrap();
                assert_eq!(output.tokens, expected);
                assert!(output.statistics.draft_steps > 0 && output.statistics.verifier_calls > 0);
                assert_eq!(ENCODED.get(), before + 1);
            }
        }
    }
}

/// Whichever of the two is asked first, the source is encoded then, and not before.
#[test]
fn a_source_is_encoded_when_one_of_the_two_is_first_asked() {
    let model = toy(4);
    let pair = SharedEncoder::of(model.clone(), of_layers(&model, &[1]));
    let passes = [Pass::draft(0, &[0, 4], Want::default()), Pass::verify(0, &[0, 4], Want::default())];
    for order in [[0, 1], [1, 0]] {
        let before = ENCODED.get();
        let mut session = pair.begin(&sources()[0], &SessionLimit::new(8)).unwrap();
        assert_eq!(ENCODED.get(), before);
        for pass in order {
            session.pass(&passes[pass]).unwrap();
            assert_eq!(ENCODED.get(), before + 1);
        }
        let again = Pass::draft(1, &[4, 11], Want::default());
        session.pass(&again).unwrap();
        assert_eq!(ENCODED.get(), before + 1);
    }
}

#[test]
fn text_goes_in_and_comes_out() {
    let checkpoint = checkpoint(3);
    let model = Toy::<Flex>::load(&checkpoint).unwrap();
    let generator = TextGenerator::new(checkpoint.tokenizer().unwrap(), (NoDraft, model.clone()), Lossless::default());
    let output = generator.unwrap().with_settings(settings()).generate("w5 w9 w22 w7").unwrap();
    let expected = greedy(&model, &sources()[0]);
    assert_eq!(output.output.tokens, expected);
    assert_eq!(output.text, expected.iter().map(|token| format!("w{token}")).collect::<Vec<_>>().join(" "));
}
