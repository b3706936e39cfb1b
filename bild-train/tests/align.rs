//! The repository's big model, and what is made to draft for it.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::Path,
};

use bild::{
    CancelToken, Checkpoint, Flex, Settings, T5,
    decode::{Generator, NoDraft, Overflow, Pair, PairSession, Pass, SessionLimit, Source, Want},
    models::{EarlyExit, SharedEncoder},
    policies::BigAlone,
};
use bild_eval::{Conditions, Observer};
use bild_train::{
    Alignment, Batch, Drafter, Example, Examples, Layers, Loss, Outputs, Run, Schedule, Shrink, Text, Trainable,
};

const SENTENCES: [&str; 12] = [
    "Ich bin müde.",
    "Wo ist der Bahnhof?",
    "Das Wetter ist schön.",
    "Wir haben keine Zeit.",
    "Tom ist nicht zu Hause.",
    "Ich lese ein Buch.",
    "Sie hat einen Hund.",
    "Was machst du heute?",
    "Er kommt morgen zurück.",
    "Das ist mein Haus.",
    "Mögen Sie Musik?",
    "Ich habe Hunger.",
];

fn big() -> Checkpoint {
    Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/de-en/big")).unwrap()
}

/// Another model.
fn little() -> T5<Flex> {
    let little = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/little")).unwrap();
    T5::load(&little, &Default::default()).unwrap()
}

fn sources() -> Vec<Source> {
    let tokenizer = big().tokenizer().unwrap();
    SENTENCES.iter().map(|text| Source::new(tokenizer.encode(text).unwrap())).collect()
}

fn generator() -> Generator<(NoDraft, T5<Flex>)> {
    let model = T5::load(&big(), &Default::default()).unwrap();
    Generator::new((NoDraft, model), BigAlone {}).unwrap().with_settings(Settings::default().with_max_new_tokens(12))
}

fn outputs(path: &Path) -> Outputs {
    Outputs::open(path, 5, &Conditions::default().with("the model", "this").unwrap()).unwrap()
}

#[test]
fn outputs_are_what_the_big_model_writes_and_a_cut_loses_no_more_than_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outputs.bin");
    let (generator, sources) = (generator(), sources());
    outputs(&path).write(&generator, &sources, &CancelToken::default(), &()).unwrap();
    let whole = fs::read(&path).unwrap();
    let found = outputs(&path);
    assert_eq!((found.done(), found.len()), (sources.len(), sources.len()));
    for (index, source) in sources.iter().enumerate() {
        let example = found.example(index).unwrap();
        assert_eq!((found.source(index), &*example.source), (index, source.tokens()));
        assert_eq!(example.target, generator.generate(source.clone()).unwrap().tokens);
        assert_eq!(found.lengths(index), [example.source.len(), example.target.len()]);
        let teacher = example.teacher.unwrap();
        // Greedy: at every position the best token is the one that was written.
        let best: Vec<u32> = teacher.tokens.chunks(5).map(|best| best[0]).collect();
        assert_eq!(best, example.target);
        assert!(teacher.log_probs.chunks(5).all(|best| best.is_sorted_by(|a, b| a >= b) && best[0] <= 0.0));
        assert!(teacher.log_probs.chunks(5).all(|best| best.iter().map(|p| p.exp()).sum::<f32>() <= 1.001));
    }
    for cut in [0, 3, 40, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut found = outputs(&path);
        assert!(found.done() < sources.len(), "{cut}");
        found.write(&generator, &sources, &CancelToken::default(), &()).unwrap();
        assert!(fs::read(&path).unwrap() == whole, "{cut}");
    }
    let other = Outputs::open(&path, 5, &Conditions::default().with("the model", "another").unwrap()).unwrap_err();
    assert!(other.to_string().contains("begun under other conditions: the model differs"), "{other}");
    assert!(Outputs::open(&path, 6, &Conditions::default()).unwrap_err().to_string().contains("holds 5 tokens"));
    // A loss of the tokens alone may use what was written for another.
    let this = Conditions::default().with("the model", "this").unwrap();
    let found = Outputs::open(&path, 0, &this).unwrap();
    assert_eq!(found.example(1).unwrap().target, outputs(&path).example(1).unwrap().target);
    fs::write(&path, "something else\n").unwrap();
    let error = Outputs::open(&path, 5, &Conditions::default()).unwrap_err().to_string();
    assert!(error.contains("outputs.bin cannot be used: it is no file of outputs"), "{error}");
}

/// What the model is trained on is what was read.
#[test]
fn sources_that_are_cut_are_kept_as_they_were_read() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::default().with_max_new_tokens(12).with_max_source_tokens(3, Overflow::Truncate);
    let (generator, sources) = (generator().with_settings(settings), sources());
    let mut found = outputs(&folder.path().join("outputs.bin"));
    found.write(&generator, &sources, &CancelToken::default(), &()).unwrap();
    assert_eq!(found.len(), sources.len());
    for (index, source) in sources.iter().enumerate() {
        let example = found.example(index).unwrap();
        assert!(example.source.len() <= 3 && example.source.last() == source.tokens().last());
        let best: Vec<u32> = example.teacher.unwrap().tokens.chunks(5).map(|best| best[0]).collect();
        assert_eq!(best, example.target);
    }
}

/// Cancels at the first step of anything.
struct StopsAtOnce(CancelToken);

impl Observer for StopsAtOnce {
    fn advances(&self) {
        self.0.cancel();
    }
}

#[test]
fn writing_outputs_stops_when_it_is_told_to_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outputs.bin");
    let (generator, stop) = (generator(), CancelToken::default());
    let many: Vec<Source> = (0..40).flat_map(|_| sources()).collect();
    let mut found = outputs(&path);
    assert!(!found.write(&generator, &many, &stop, &StopsAtOnce(stop.clone())).unwrap());
    let done = found.done();
    assert!((1..many.len()).contains(&done), "{done}");
    assert!(found.write(&generator, &many, &CancelToken::default(), &()).unwrap());
    assert_eq!(found.done(), many.len());
}

#[test]
fn more_of_the_best_than_there_are_tokens_are_all() {
    let folder = tempfile::tempdir().unwrap();
    let [work, out] = ["work", "out"].map(|name| folder.path().join(name));
    let mut alignment = alignment(Drafter::SharedEncoder(Layers::Spread(1)), 1);
    alignment.best = 5000;
    alignment.run(&big(), &text(), [&work, &out], &CancelToken::default(), &()).unwrap().unwrap();
}

/// The checkpoints of an early exit have the same names and shapes whatever its layer.
#[test]
fn what_was_begun_for_another_drafter_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let [work, out] = ["work", "out"].map(|name| folder.path().join(name));
    let run =
        |drafter, steps| alignment(drafter, steps).run(&big(), &text(), [&work, &out], &CancelToken::default(), &());
    run(Drafter::EarlyExit { layers: 1, rank: 8 }, 2).unwrap().unwrap();
    for other in [Drafter::EarlyExit { layers: 2, rank: 8 }, Drafter::SharedEncoder(Layers::Spread(1))] {
        let error = run(other, 2).unwrap_err().to_string();
        assert!(error.contains("began with another model"), "{error}");
    }
    let error = run(Drafter::EarlyExit { layers: 1, rank: 8 }, 1).unwrap_err().to_string();
    assert!(error.contains("took 2 steps, more than the 1"), "{error}");
}

fn alignment(drafter: Drafter, steps: usize) -> Alignment {
    let settings = bild_train::Settings {
        loss: Loss::KullbackLeibler { rest: bild_train::Rest::Bucket },
        schedule: Schedule::constant(1e-3),
        tokens: 40,
        dropout: 0.0,
        ..Default::default()
    };
    let mut alignment = Alignment::new(drafter, Run::new(settings, steps));
    (alignment.held_out, alignment.rounds, alignment.best) = (4, Some(1), 8);
    alignment.decoding = Settings::default().with_max_new_tokens(12);
    alignment
}

fn text() -> Text {
    Text { sources: SENTENCES.map(String::from).into(), held_out: Vec::new() }
}

/// Cancels when so many steps of the training were taken.
struct Stops(CancelToken, RefCell<(bool, usize)>);

impl Observer for Stops {
    fn begins(&self, what: &'static str, _steps: usize) {
        self.1.borrow_mut().0 = what == "Training";
    }

    fn advances(&self) {
        let (is_training, left) = &mut *self.1.borrow_mut();
        if *is_training {
            *left -= 1;
            if *left == 0 {
                self.0.cancel();
            }
        }
    }
}

#[test]
fn an_alignment_that_was_stopped_goes_on_to_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let alignment = alignment(Drafter::SharedEncoder(Layers::Spread(1)), 6);
    let go = |work: &str, stop: &CancelToken, observer: &dyn Observer| {
        alignment.run(&big(), &text(), [&at(work), &at(&format!("{work}-out"))], stop, observer).unwrap()
    };
    let aligned = go("whole", &CancelToken::default(), &()).unwrap();
    assert_eq!((aligned.sources, aligned.held_out, aligned.steps), (8, 4, 6));
    assert!(aligned.after.agreement.divergence < aligned.before.agreement.divergence, "{aligned:?}");

    let stop = CancelToken::default();
    assert!(go("cut", &stop, &Stops(stop.clone(), RefCell::new((false, 2)))).is_none());
    assert!(!at("cut-out").exists());
    go("cut", &CancelToken::default(), &()).unwrap();
    let weights = |name: &str| fs::read(at(name).join("model.safetensors")).unwrap();
    assert!(weights("whole-out") == weights("cut-out"));
    assert!(weights("whole-out") != weights("whole/before"));
    for name in ["README.md", "alignment.json", "curve.svg", "shortlist.json", "config.json"] {
        assert!(at("cut-out").join(name).is_file(), "{name}");
    }

    // What came of it drafts, and only beside the model that it was made for.
    let model = T5::<Flex>::load(&big(), &Default::default()).unwrap();
    let draft = Checkpoint::open(at("cut-out")).unwrap();
    SharedEncoder::load(model, &draft).unwrap().check().unwrap();
    assert!(SharedEncoder::load(little(), &draft).is_err());
}

/// Cancels when something begins for the time that is counted down to, and keeps what begins after that and what is noted.
struct StopsAt {
    stop: CancelToken,
    what: &'static str,
    left: Cell<usize>,
    after: RefCell<Vec<&'static str>>,
    notes: RefCell<Vec<String>>,
}

impl StopsAt {
    fn new(what: &'static str, time: usize) -> Self {
        let (stop, left) = (CancelToken::default(), Cell::new(time));
        Self { stop, what, left, after: RefCell::default(), notes: RefCell::default() }
    }
}

impl Observer for StopsAt {
    fn begins(&self, what: &'static str, _steps: usize) {
        if self.stop.is_cancelled() {
            self.after.borrow_mut().push(what);
        } else if what == self.what {
            self.left.set(self.left.get() - 1);
            if self.left.get() == 0 {
                self.stop.cancel();
            }
        }
    }

    fn notes(&self, sentence: &str) {
        self.notes.borrow_mut().push(sentence.into());
    }
}

/// Wherever it is in measuring: nothing else begins, and nothing is published.
#[test]
fn an_alignment_stops_while_it_measures() {
    let folder = tempfile::tempdir().unwrap();
    let [work, out] = ["work", "out"].map(|name| folder.path().join(name));
    let alignment = alignment(Drafter::SharedEncoder(Layers::Spread(1)), 1);
    // The second time is that of the model that was trained; of the four evaluations two are its, and the last is the end.
    for (what, time) in [("Decoding", 1), ("Comparing", 2), ("Measuring passes", 2), ("Evaluating", 4)] {
        let observer = StopsAt::new(what, time);
        let stopped = alignment.run(&big(), &text(), [&work, &out], &observer.stop, &observer).unwrap();
        assert!(observer.stop.is_cancelled() && stopped.is_none() && !out.exists(), "{what}");
        assert!(observer.after.borrow().is_empty(), "{what}: {:?}", observer.after);
    }
    alignment.run(&big(), &text(), [&work, &out], &CancelToken::default(), &()).unwrap().unwrap();
    assert!(out.join("alignment.json").is_file());
}

#[test]
fn what_is_cut_is_noted() {
    let notes = |decoding: Settings| {
        let folder = tempfile::tempdir().unwrap();
        let [work, out] = ["work", "out"].map(|name| folder.path().join(name));
        let mut alignment = alignment(Drafter::SharedEncoder(Layers::Spread(1)), 1);
        alignment.decoding = decoding;
        // Both texts are written for by then.
        let observer = StopsAt::new("Training", 1);
        alignment.run(&big(), &text(), [&work, &out], &observer.stop, &observer).unwrap();
        observer.notes.into_inner()
    };
    let sources = |all: usize| format!("{all} of {all} sources have more than 3 tokens and are cut to that");
    let found = notes(Settings::default().with_max_new_tokens(12).with_max_source_tokens(3, Overflow::Truncate));
    assert!(found.contains(&sources(8)) && found.contains(&sources(4)), "{found:?}");
    // No output is as short as that, and each ends long before 128 tokens.
    let outputs = |all: usize| format!("{all} of {all} outputs have not ended after 2 tokens and are cut there");
    assert_eq!(notes(Settings::default().with_max_new_tokens(2)), [outputs(8), outputs(4)]);
    assert!(notes(Settings::default()).is_empty());
}

/// What drafts is what was trained: it scores as the trainer's model does, before any step and after the last.
#[test]
fn an_early_exit_is_trained_and_drafts_as_it_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let [work, out] = ["work", "out"].map(|name| folder.path().join(name));
    let alignment = alignment(Drafter::EarlyExit { layers: 1, rank: 8 }, 12);
    let aligned = alignment.run(&big(), &text(), [&work, &out], &CancelToken::default(), &()).unwrap().unwrap();
    assert!(aligned.after.agreement.divergence < aligned.before.agreement.divergence, "{aligned:?}");

    let model = T5::<Flex>::load(&big(), &Default::default()).unwrap();
    let source = &sources()[0];
    let (target, want) = (vec![20, 300, 4, 1], Want::default().with_logits());
    for directory in [&work.join("before"), &out] {
        let pair = EarlyExit::load(model.clone(), &Checkpoint::open(directory).unwrap()).unwrap();
        let trained = bild_train::T5::<bild_train::Flex>::early_exit(&big(), 1, 8, &Default::default()).unwrap();
        let trained = trained.restore(directory).unwrap();
        let example = Example { source: source.tokens().to_vec(), target: target.clone(), teacher: None };
        let batch = Batch::new(&[example], trained.config().start);
        let expected: Vec<f32> = trained.logits(&batch).into_data().iter().collect();
        let mut session = pair.begin(source, &SessionLimit::new(8)).unwrap();
        for (at, expected) in expected.chunks(4000).enumerate() {
            let token = if at == 0 { trained.config().start } else { target[at - 1] };
            let rows = session.pass(&Pass::draft(at, &[token], want)).unwrap();
            for (found, expected) in rows[0].logits.as_ref().unwrap().iter().zip(expected) {
                assert!((found - expected).abs() < 1e-3, "{}, {at}: {found} {expected}", directory.display());
            }
        }
    }
    let error = EarlyExit::load(little(), &Checkpoint::open(&out).unwrap()).err().unwrap().to_string();
    assert!(error.contains("made for another big model"), "{error}");
}

#[test]
fn layers_of_the_big_model_become_a_little_one() {
    let folder = tempfile::tempdir().unwrap();
    let [work, out] = ["work", "out"].map(|name| folder.path().join(name));
    let shrink = Shrink { encoder: Layers::Spread(2), decoder: Layers::These(vec![2]) };
    let alignment = alignment(Drafter::Shrunk(shrink), 2);
    let aligned = alignment.run(&big(), &text(), [&work, &out], &CancelToken::default(), &()).unwrap().unwrap();
    assert_eq!(aligned.held_out, 4);
    let little = T5::<Flex>::load(&Checkpoint::open(&out).unwrap(), &Default::default()).unwrap();
    assert_eq!((little.config().encoder_layers, little.config().decoder_layers), (2, 1));
    // Another text is not gone on with.
    let mut text = text();
    text.sources.push("Gute Nacht!".into());
    let error = alignment.run(&big(), &text, [&work, &out], &CancelToken::default(), &()).unwrap_err();
    assert!(error.to_string().contains("the sources differ"), "{error}");
}

#[test]
fn what_cannot_be_aligned_is_said_before_anything_takes_long() {
    let folder = tempfile::tempdir().unwrap();
    let [work, out] = ["work", "out"].map(|name| folder.path().join(name));
    let run = |drafter, text: &Text| {
        let stop = CancelToken::default();
        alignment(drafter, 2).run(&big(), text, [&work, &out], &stop, &()).unwrap_err().to_string()
    };
    let blank = Text { sources: vec![" ".into(), String::new()], held_out: Vec::new() };
    let error = run(Drafter::SharedEncoder(Layers::Spread(1)), &blank);
    assert!(error.contains("0 different sources are too few"), "{error}");
    let error = run(Drafter::SharedEncoder(Layers::These(vec![3])), &text());
    assert!(error.contains("layer 3 of a stack that has 3"), "{error}");
    let missing = folder.path().join("missing");
    assert!(run(Drafter::Little(missing), &text()).contains("missing"));
}
