//! From text to text with the pair of the repository.

use std::{num::NonZeroUsize, path::Path, sync::Arc};

use bild::{
    Bild, Checkpoint, Error, Flex, LoadOptions, Lossless, Output, Precision, Settings, T5, TextGenerator, Threads,
    decode::{Generator, NoDraft, Overflow, Pair, Request, Source, Token, VerifierModel},
    models::{NgramLookup, Tokenizer},
    policies::AnyPolicy,
};
use proptest::prelude::*;

fn checkpoint(role: &str) -> Checkpoint {
    Checkpoint::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/de-en").join(role)).unwrap()
}

fn pair() -> (T5<Flex>, T5<Flex>) {
    let load = |role| T5::load(&checkpoint(role), &Default::default()).unwrap();
    (load("little"), load("big"))
}

fn tokenizer() -> Tokenizer {
    checkpoint("big").tokenizer().unwrap()
}

/// The 200 recorded sources, and 800 spliced of their halves.
fn sources() -> Vec<Vec<Token>> {
    let traces: serde_json::Value = serde_json::from_str(include_str!("fixtures/traces.json")).unwrap();
    let recorded: Vec<Vec<Token>> =
        traces.as_array().unwrap().iter().map(|t| serde_json::from_value(t["source_ids"].clone()).unwrap()).collect();
    let splice = |i: usize| {
        let (a, b) = (&recorded[i % 200], &recorded[(i * 7 + 1 + i / 200) % 200]);
        [&a[..a.len() / 2], &b[b.len() / 2..]].concat()
    };
    let spliced: Vec<_> = (0..800).map(splice).collect();
    recorded.into_iter().chain(spliced).collect()
}

/// At most 1,000 lines of the file that `BILD_SENTENCES` names, else those sources.
fn some_sources() -> Vec<Vec<Token>> {
    let Ok(path) = std::env::var("BILD_SENTENCES") else { return sources() };
    let (text, tokenizer) = (std::fs::read_to_string(path).unwrap(), tokenizer());
    text.lines().take(1000).map(|line| tokenizer.encode(line).unwrap()).collect()
}

#[test]
fn a_sentence_is_translated() {
    let generator = TextGenerator::new(tokenizer(), (NoDraft, pair().1), Lossless::default()).unwrap();
    let translated = generator.generate("Ich habe heute leider keine Zeit.").unwrap();
    assert_eq!(translated.text, "I'm afraid I don't have time today.");
    assert_eq!(translated.output.tokens.last(), Some(&1));
}

/// What the corrector writes, which look-up in the source drafts nearly whole.
#[test]
fn a_sentence_is_corrected() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/en-correct");
    let corrector = Checkpoint::open(directory).unwrap();
    let pair = (NgramLookup::default(), T5::<Flex>::load(&corrector, &Default::default()).unwrap());
    let generator = TextGenerator::new(corrector.tokenizer().unwrap(), pair, Lossless::default()).unwrap();
    let (mut calls, mut tokens) = (0, 0);
    for (wrong, right) in [
        ("Their house is bigger then ours, but its old.", "Their house is bigger than ours, but it's old."),
        ("I dont know were teh station is.", "I don't know where the station is."),
        ("She gave me book that I had allready read", "She gave me the book that I had already read."),
        ("There is nothing wrong here.", "There is nothing wrong here."),
    ] {
        let written = generator.generate(wrong).unwrap();
        assert_eq!(written.text, right);
        calls += written.output.statistics.verifier_calls;
        tokens += written.output.tokens.len();
    }
    assert!(4 * calls < 3 * tokens, "{calls} passes for {tokens} tokens");
}

/// With `BILD_SENTENCES` the sources are the lines of that file instead, at most 1,000.
#[test]
fn lossless_equals_greedy_for_a_thousand_sources() {
    let sources = some_sources();
    let (little, big) = pair();
    let settings = Settings::default().with_max_new_tokens(32);
    let alone = Generator::new((NoDraft, big.clone()), Lossless::default()).unwrap().with_settings(settings.clone());
    for (i, source) in sources.into_iter().enumerate() {
        let source = Source::new(source);
        let greedy = alone.generate(&source).unwrap().tokens;
        // Draft lengths 1 to 16 in turn; a fallback in every other round.
        let policy = Lossless { fallback: None, max_draft: std::num::NonZeroUsize::new(1 + i % 16) };
        let policy = if i / 16 % 2 == 0 { policy } else { policy.with_fallback(0.4).unwrap() };
        let generator = Generator::new((little.clone(), big.clone()), policy).unwrap().with_settings(settings.clone());
        let policy = if i / 16 % 2 == 0 { "without fallback" } else { "with fallback" };
        assert_eq!(generator.generate(&source).unwrap().tokens, greedy, "source {i}, {policy}");
    }
}

/// int8 changes a word here and there, and lossless stays what it is.
#[test]
fn int8_writes_nearly_what_f32_writes() {
    let load = |role, precision| {
        let options = LoadOptions::default().with_precision(precision);
        T5::<Flex>::load_with(&checkpoint(role), &Default::default(), &options).unwrap()
    };
    let alone = |big| Generator::new((NoDraft, big), Lossless::default()).unwrap();
    let (exact, big) = (alone(load("big", Precision::F32)), load("big", Precision::Int8));
    let pair = Generator::new((load("little", Precision::Int8), big.clone()), Lossless::default()).unwrap();
    let rounded = alone(big);
    let mut same = 0;
    for (i, source) in sources().into_iter().take(200).enumerate() {
        let source = Source::new(source);
        let written = rounded.generate(&source).unwrap().tokens;
        assert_eq!(pair.generate(&source).unwrap().tokens, written, "source {i}");
        same += usize::from(exact.generate(&source).unwrap().tokens == written);
    }
    assert!((150..200).contains(&same), "{same} of 200 outputs are the same");
}

#[test]
fn streamed_text_is_the_text() {
    let generator = TextGenerator::new(tokenizer(), pair(), Bild::default()).unwrap();
    for text in
        ["Ich habe heute leider keine Zeit.", "Wo ist der Bahnhof?", "\"Nein\", sagte sie, \"das ist meins.\"", "😀"]
    {
        let whole = generator.generate(text).unwrap();
        let pieces: Vec<String> = generator.stream(text).unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces.concat(), whole.text);
        assert!(pieces.len() > 1 || whole.text.len() < 8, "{pieces:?}");
        let mut stream = generator.stream(text).unwrap();
        stream.next();
        let finished = stream.finish().unwrap();
        assert_eq!((finished.text, finished.output.tokens), (whole.text, whole.output.tokens));
    }
}

#[test]
fn a_prefix_stands_before_the_text() {
    let generator = TextGenerator::new(tokenizer(), pair(), Bild::default()).unwrap();
    let plain = generator.source("Guten Tag, Tom.").unwrap();
    let prefixed = generator.with_prefix("Guten Tag, ").source("Tom.").unwrap();
    assert_eq!(plain, prefixed);
    assert_eq!(plain.tokens().last(), Some(&1), "the tokenizer closes a source");
}

#[test]
fn empty_and_long_texts() {
    let generator = TextGenerator::new(tokenizer(), pair(), Bild::default()).unwrap();
    for empty in ["", "  \t "] {
        assert!(matches!(generator.generate(empty), Err(Error::EmptySource)));
    }
    let long = "Das ist gut. ".repeat(30);
    let limited = generator.clone().with_settings(Settings::default().with_max_source_tokens(20, Overflow::Error));
    let sentence = limited.generate(&long).unwrap_err().to_string();
    assert!(sentence.contains("the limit is 20"), "{sentence}");
    let settings = Settings::default().with_max_source_tokens(20, Overflow::Truncate).with_max_new_tokens(40);
    assert!(!generator.with_settings(settings).generate(&long).unwrap().text.is_empty());
}

#[test]
fn both_models_of_the_pair_have_the_same_pieces() {
    let (little, big) = pair();
    assert!(little.vocabulary().pieces.is_some());
    assert_eq!(little.vocabulary().pieces, big.vocabulary().pieces);
    (little, big).check().unwrap();
}

#[test]
fn a_pair_with_another_tokenizer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let little = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/de-en/little");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(little.join(file), directory.path().join(file)).unwrap();
    }
    let path = directory.path().join("tokenizer.json");
    let changed = std::fs::read_to_string(&path).unwrap().replacen("▁Tom", "▁Tim", 1);
    std::fs::write(&path, changed).unwrap();
    let little = T5::<Flex>::load(&Checkpoint::open(directory.path()).unwrap(), &Default::default()).unwrap();
    let sentence =
        TextGenerator::new(tokenizer(), (little, pair().1), Bild::default()).map(drop).unwrap_err().to_string();
    for part in ["the tokenizer's piece for token", "the first that differs", "\"▁Tim\"", "\"▁Tom\""] {
        assert!(sentence.contains(part), "{sentence}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever its bytes, a tokenizer.json is an error or a tokenizer that makes tokens of a text, or says that it cannot.
    #[test]
    fn no_mutation_of_a_tokenizer_panics(at in 0.0..1.0f64, byte in any::<u8>(), head in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        let mut bytes =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/de-en/big/tokenizer.json")).unwrap();
        // Half of the mutations go to the first bytes, where everything but the vocabulary is.
        let reach = if head { 2000 } else { bytes.len() };
        bytes[(at * reach as f64) as usize] = byte;
        std::fs::write(&path, bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(&path)
            && let Ok(tokens) = tokenizer.encode("Ich habe heute leider keine Zeit. 😀")
        {
            let _ = tokenizer.decode(&tokens);
        }
    }
}

#[test]
fn a_stop_string_ends_the_text_before_it_and_the_tokens_after_it() {
    let generator = |stops: &[&str]| {
        let generator = TextGenerator::new(tokenizer(), pair(), Lossless::default()).unwrap();
        generator.with_stop_strings(stops.iter().copied())
    };
    let text = "Ich habe heute leider keine Zeit.";
    let whole = generator(&[]).generate(text).unwrap(); // "I'm afraid I don't have time today."
    let stopped = generator(&["have", "never there"]).generate(text).unwrap();
    assert_eq!(stopped.text, "I'm afraid I don't ");
    assert_eq!(stopped.output.finish, bild::decode::Finish::Stopped);
    let count = stopped.output.tokens.len();
    assert_eq!(stopped.output.tokens, whole.output.tokens[..count]);
    assert!(tokenizer().decode(&stopped.output.tokens).unwrap().contains("have"));
    assert!(!tokenizer().decode(&stopped.output.tokens[..count - 1]).unwrap().contains("have"));
    assert_eq!((stopped.output.log_probs.len(), stopped.output.writers.len()), (count, count));
    assert_eq!(stopped.output.statistics.tokens, count);
    let pieces: String = generator(&["have"]).stream(text).unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces, stopped.text);
    let pieces: String = generator(&["nowhere"]).stream(text).unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces, whole.text);
    assert_eq!(generator(&["nowhere"]).generate(text).unwrap().output.tokens, whole.output.tokens);
    // Stopped in the middle of what a pass has committed: the text is that of the tokens.
    for (stops, end) in [(&["nowhere"][..], None), (&["have"], Some("have"))] {
        let generator = generator(stops);
        for pieces in 0..5 {
            let mut stream = generator.stream(text).unwrap();
            (0..pieces).for_each(|_| _ = stream.next());
            let output = stream.stop().unwrap();
            let all = tokenizer().decode(&output.output.tokens).unwrap();
            let cut = end.and_then(|end| all.find(end)).unwrap_or(all.len());
            assert_eq!(output.text, all[..cut], "{stops:?} after {pieces} pieces");
        }
    }
}

#[test]
fn many_texts_keep_their_order_and_a_bad_one_loses_no_other() {
    let generator = TextGenerator::new(tokenizer(), pair(), Bild::default()).unwrap();
    let texts = ["Guten Morgen!", "", "Wie geht es dir?", "Danke."];
    let mut found = Vec::new();
    generator.generate_many(texts, |i, result| found.push((i, result.map(|output| output.text).ok())));
    let alone = |text| Some(generator.generate(text).unwrap().text);
    let expected = [(0, alone(texts[0])), (1, None), (2, alone(texts[2])), (3, alone(texts[3]))];
    assert_eq!(found, expected);

    // In no order each is there once.
    found.clear();
    generator.generate_many_unordered(texts, |i, result| found.push((i, result.map(|output| output.text).ok())));
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn many_texts_stop_where_each_stops_alone() {
    let texts = ["Ich habe heute leider keine Zeit.", "Guten Morgen!", "Wie geht es dir?", "Tom hat einen Hund."];
    for stops in [&["have"][..], &["o", "never there"], &["nowhere"]] {
        let generator = TextGenerator::new(tokenizer(), pair(), Lossless::default()).unwrap();
        let generator = generator.with_stop_strings(stops.iter().copied());
        generator.generate_many(texts, |i, together| {
            let (together, alone) = (together.unwrap(), generator.generate(texts[i]).unwrap());
            assert_eq!(together.text, alone.text, "{stops:?}");
            assert_eq!(together.output.tokens, alone.output.tokens);
            assert_eq!(
                (together.output.finish, together.output.log_probs),
                (alone.output.finish, alone.output.log_probs)
            );
        });
    }
}

/// Every policy that does not go by the clock, each kind of rule in one.
const POLICIES: [&str; 17] = [
    r#"{"policy":"bild"}"#,
    r#"{"policy":"bild","variant":"released","fallback":{"entropy":1.5},"max_draft":null}"#,
    r#"{"policy":"bild","first":"verifier","fallback":{"margin":0.25},"rollback":{"rank":3}}"#,
    r#"{"policy":"bild","fallback":{"accumulated":0.125},"rollback":{"probability":0.125}}"#,
    r#"{"policy":"bild","fallback":{"random":0.25},"rollback":{"divergence":1.5}}"#,
    r#"{"policy":"bild","fallback":{"acceptance":0.5},"rollback":{"typical":{"epsilon":0.25,"delta":0.5}}}"#,
    r#"{"policy":"bild","rollback":{"deferral":0.2}}"#,
    r#"{"policy":"lossless"}"#,
    r#"{"policy":"lossless","fallback":null,"max_draft":3}"#,
    r#"{"policy":"sampling","temperature":0.7,"max_draft":3}"#,
    r#"{"policy":"sampling","top_k":40,"top_p":0.9}"#,
    r#"{"policy":"sampling","lenience":0.5}"#,
    r#"{"policy":"sampling","deferral":0.2}"#,
    r#"{"policy":"adaptive_length"}"#,
    r#"{"policy":"target_rollback","of":{},"rate":0.125}"#,
    r#"{"policy":"big"}"#,
    r#"{"policy":"little"}"#,
];

/// Each of a thousand sources with one policy after the other, so that the neighbours of each are of all kinds. With
/// `BILD_SENTENCES` the sources are the lines of that file.
#[test]
fn a_thousand_sources_at_once_are_written_as_each_alone() {
    let policies = POLICIES.map(|json| Arc::new(serde_json::from_str::<AnyPolicy>(json).expect(json)));
    let request = |(source, i): (Vec<Token>, usize)| {
        let settings = Settings::default().with_max_new_tokens(8 + i % 25);
        Request::new(Source::new(source))
            .with_settings(settings)
            .with_policy(policies[i % POLICIES.len()].clone())
            .with_seed(i as u64)
    };
    let requests: Vec<Request> = some_sources().into_iter().zip(0..).map(request).collect();
    for precision in [Precision::F32, Precision::Int8, Precision::Int4] {
        let alone: Vec<_> = {
            let generator = Generator::new(pair_with(precision, 2), Lossless::default()).unwrap();
            requests.iter().map(|request| content(generator.generate(request.clone()).unwrap())).collect()
        };
        for threads in [2, 1, 3] {
            let generator = Generator::new(pair_with(precision, threads), Lossless::default()).unwrap();
            let generator = generator.with_at_once(NonZeroUsize::new(16).unwrap());
            let mut next = 0;
            generator.generate_many(requests.clone(), |i, together| {
                assert_eq!(i, next);
                next += 1;
                let together = content(together.unwrap());
                assert!(
                    together == alone[i],
                    "source {i}, {precision:?}, {threads} threads, {}",
                    POLICIES[i % POLICIES.len()]
                );
            });
            assert_eq!(next, requests.len());
        }
    }
}

fn pair_with(precision: Precision, threads: usize) -> (T5<Flex>, T5<Flex>) {
    let options = LoadOptions::default().with_precision(precision).with_threads(Threads::new(threads).unwrap());
    let load = |role| T5::load_with(&checkpoint(role), &Default::default(), &options).unwrap();
    (load("little"), load("big"))
}

/// What was written, with the bits of log-probabilities, by whom, and how it ended.
fn content(output: Output) -> (Vec<Token>, Vec<u32>, String) {
    let bits = output.log_probs.iter().map(|x| x.to_bits()).collect();
    (output.tokens, bits, format!("{:?} {:?}", output.writers, output.finish))
}
