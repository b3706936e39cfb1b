//! A training that is stopped, or killed, goes on as if it had not been; what it writes is loaded by `bild`.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use bild::{
    CancelToken, Checkpoint, Lossless,
    decode::{Generator, Source},
};
use bild_eval::Observer;
use bild_train::{
    Adafactor, AdamW, Decay, Example, Flex, Frozen, Layers, Loss, Rest, Rule, Run, Schedule, Settings, Shrink, T5,
    Teacher, TrainError, Trainable, Trainer,
};

type Tensors = std::collections::BTreeMap<String, bild_train::Numbers>;

fn checkpoint(name: &str) -> Checkpoint {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../bild-models/tests/fixtures/t5");
    Checkpoint::open(fixtures.join(name)).unwrap()
}

fn model(name: &str) -> T5<Flex> {
    T5::open(&checkpoint(name), &Default::default()).unwrap()
}

fn examples() -> Vec<Example> {
    let tokens = |count: usize, at: usize| -> Vec<u32> {
        (0..count).map(|i| 2 + ((i * 31 + at * 17) % 500) as u32).chain([1]).collect()
    };
    let example = |i: usize| {
        let target = tokens(1 + i % 7, i);
        let log_probs = target.iter().flat_map(|_| [0.6f32.ln(), 0.3f32.ln()]).collect();
        let kept = target.iter().flat_map(|&token| [token, 2 + (token + 1) % 500]).collect();
        let teacher = Some(Teacher { best: 2, tokens: kept, log_probs });
        Example { source: tokens(2 + i % 11, i + 3), target, teacher }
    };
    (0..40).map(example).collect()
}

fn settings(rule: Rule) -> Settings {
    Settings {
        loss: Loss::KullbackLeibler { rest: Rest::Bucket },
        rule,
        schedule: Schedule { rate: 1e-3, warm_up: 3, decay: Decay::Cosine { steps: 30, floor: 0.1 } },
        accumulate: 2,
        tokens: 64,
        ..Settings::default()
    }
}

fn begin(settings: &Settings) -> Trainer<Flex, T5<Flex>, Vec<Example>> {
    Trainer::new(model("t5-v1_1"), examples(), settings.clone(), &Default::default()).unwrap()
}

fn resume(settings: &Settings, from: &std::path::Path) -> Option<Trainer<Flex, T5<Flex>, Vec<Example>>> {
    Trainer::resume(model("t5-v1_1"), examples(), settings.clone(), from, &Default::default()).unwrap()
}

fn bits(tensors: &Tensors) -> Vec<u32> {
    tensors.values().flat_map(|numbers| numbers.values.iter().map(|value| value.to_bits())).collect()
}

#[test]
fn going_on_equals_never_having_stopped() {
    for rule in [Rule::AdamW(AdamW::default()), Rule::Adafactor(Adafactor::default())] {
        let settings = settings(rule);
        let directory = tempfile::tempdir().unwrap();
        let mut whole = begin(&settings);
        let losses: Vec<u64> = (0..14).map(|_| whole.step().unwrap().loss.to_bits()).collect();
        assert!(whole.position().epoch > 0, "more than one epoch");
        assert!(resume(&settings, directory.path()).is_none());
        let mut parts = begin(&settings);
        for (step, expected) in losses.iter().enumerate() {
            assert_eq!(parts.step().unwrap().loss.to_bits(), *expected, "step {step} of {rule:?}");
            if step % 3 == 1 {
                let saved = parts.save(directory.path()).unwrap();
                assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "one checkpoint is kept");
                assert!(saved.join("model.safetensors").exists());
                parts = resume(&settings, directory.path()).unwrap();
            }
        }
        assert_eq!(parts.position(), whole.position());
        assert_eq!(bits(&parts.model().tensors()), bits(&whole.model().tensors()));
    }
}

/// Keeps what is shown.
#[derive(Default)]
struct Shown(RefCell<Vec<String>>);

impl Observer for Shown {
    fn shows(&self, state: &str) {
        self.0.borrow_mut().push(state.into());
    }
}

#[test]
fn a_loss_is_shown_where_steps_were_taken() {
    let directory = tempfile::tempdir().unwrap();
    let mut run = Run::new(settings(Rule::AdamW(AdamW::default())), 2);
    run.look = 1;
    let shown = || {
        let (shown, stop, examples) = (Shown::default(), CancelToken::default(), examples());
        run.run(model("t5-v1_1"), &examples, &examples, directory.path(), &stop, &shown).unwrap().unwrap();
        shown.0.into_inner()
    };
    let begun = shown();
    assert!(begun.len() == 3 && begun[0].starts_with("held-out loss "), "{begun:?}");
    assert!(
        begun[1..].iter().all(|shown| shown.starts_with("loss ") && shown.contains(", held-out loss ")),
        "{begun:?}"
    );
    // It is done: what is gone on from is looked at once more.
    let again = shown();
    assert!(again.len() == 1 && again[0].starts_with("held-out loss "), "{again:?}");
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let settings = settings(Rule::AdamW(AdamW::default()));
    let directory = tempfile::tempdir().unwrap();
    begin(&settings).save(directory.path()).unwrap();
    let device = Default::default();
    let other = Settings { seed: 1, ..settings.clone() };
    let refused = |model, examples, settings| {
        let trainer: Result<Option<Trainer<Flex, T5<Flex>, _>>, TrainError> =
            Trainer::resume(model, examples, settings, directory.path(), &device);
        trainer.unwrap_err().to_string()
    };
    assert!(refused(model("t5-v1_1"), examples(), other).contains("other settings"));
    let fewer = examples()[1..].to_vec();
    assert!(refused(model("t5-v1_1"), fewer, settings.clone()).contains("on 40 other examples, and here are 39"));
    let mut others = examples();
    others[3].target[0] ^= 1;
    assert!(refused(model("t5-v1_1"), others, settings.clone()).contains("on 40 other examples"));
    assert!(refused(model("t5-v1_0"), examples(), settings).contains("began with another model"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let settings = settings(Rule::AdamW(AdamW::default()));
    let refused = |examples: Vec<Example>, settings: Settings| {
        Trainer::<Flex, _, _>::new(model("t5-v1_0"), examples, settings, &Default::default()).unwrap_err().to_string()
    };
    assert!(refused(Vec::new(), settings.clone()).contains("no examples"));
    let mut broken = examples();
    broken[3].target.clear();
    assert_eq!(refused(broken, settings.clone()), "example 3 cannot be trained on: its target is empty");
    let mut broken = examples();
    broken[5].source[0] = 503;
    assert!(refused(broken, settings.clone()).contains("example 5 cannot be trained on: it has the token 503"));
    let mut broken = examples();
    broken[7].teacher = None;
    assert!(refused(broken, settings.clone()).contains("example 7 cannot be trained on: it has no teacher"));
    let mut uneven = examples();
    let length = uneven[8].target.len();
    uneven[8].teacher = Some(bild_train::Teacher { best: 1, tokens: vec![1; length], log_probs: vec![-1.0; length] });
    assert!(refused(uneven, settings.clone()).contains("example 8 cannot be trained on: its teacher has 1 tokens"));
    let short = Settings { tokens: 5, ..settings.clone() };
    assert!(refused(examples(), short).contains("and a batch at most 5"));
    assert!(refused(examples(), Settings { dropout: 1.0, ..settings.clone() }).contains("dropout"));
    assert!(refused(examples(), Settings { accumulate: 0, ..settings }).contains("at least one batch"));
}

#[test]
fn a_loss_that_is_no_number_leaves_the_model_as_it_was() {
    let mut settings = settings(Rule::AdamW(AdamW::default()));
    settings.schedule = Schedule::constant(1e30);
    let mut trainer = begin(&settings);
    let error = loop {
        let before = bits(&trainer.model().tensors());
        if let Err(error) = trainer.step() {
            assert_eq!(bits(&trainer.model().tensors()), before);
            break error;
        }
    };
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

/// The logits of the trained model are those of the model that decodes.
#[test]
fn what_is_written_decodes() {
    for name in ["t5-v1_0", "t5-v1_1", "t5-buckets", "t5-f16", "mt5"] {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("model");
        model(name).save(&to).unwrap();
        model(name).save(&to).unwrap(); // again, in its place
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let written = Checkpoint::open(&to).unwrap();
        let device = Default::default();
        let [first, second] = [checkpoint(name), written].map(|checkpoint| {
            let model = bild::T5::<bild::Flex>::load(&checkpoint, &device).unwrap();
            assert!(model.warnings().is_empty(), "{:?}", model.warnings());
            model
        });
        let source = Source::new(vec![5, 9, 300, 1]);
        assert_eq!(first.encode(&source).unwrap(), second.encode(&source).unwrap(), "{name}");
        let write = |model: bild::T5<bild::Flex>| {
            let settings = bild::Settings::default().with_max_new_tokens(12);
            Generator::new((model.clone(), model), Lossless::default())
                .unwrap()
                .with_settings(settings)
                .generate(&source)
                .unwrap()
                .tokens
        };
        let tokens = write(first);
        assert_eq!(tokens, write(second), "{name}");
        // Teacher-forced on what it wrote, the trained model would have written it too.
        let example = Example { source: source.tokens().to_vec(), target: tokens, teacher: None };
        let model = model(name);
        let score = model.score(&model.batch(&[example]), Loss::cross_entropy());
        assert_eq!(score.agreed, score.tokens, "{name}");
    }
}

#[test]
fn a_model_is_made_smaller() {
    let device = Default::default();
    let big = model("t5-v1_1").tensors();
    let shrink = Shrink { encoder: Layers::Spread(2), decoder: Layers::All };
    let little = T5::<Flex>::shrunk(&checkpoint("t5-v1_1"), &shrink, &device).unwrap();
    let tensors = little.tensors();
    let query = |tensors: &Tensors, layer: usize| {
        tensors[&format!("encoder.block.{layer}.layer.0.SelfAttention.q.weight")].clone()
    };
    assert_eq!((query(&tensors, 0), query(&tensors, 1)), (query(&big, 0), query(&big, 2)));
    assert_eq!(tensors["lm_head.weight"], big["lm_head.weight"]);
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("little");
    little.save(&to).unwrap();
    let written = bild::T5::<bild::Flex>::load(&Checkpoint::open(&to).unwrap(), &device).unwrap();
    assert_eq!((written.config().encoder_layers, written.config().decoder_layers), (2, 1));
    let shrink = Shrink { encoder: Layers::Spread(4), ..Shrink::default() };
    let error = T5::<Flex>::shrunk(&checkpoint("t5-v1_1"), &shrink, &device).unwrap_err();
    assert!(error.to_string().contains("4 layers of a stack that has 3"), "{error}");
}

#[test]
fn random_numbers_are_spread_as_transformers_spreads_them() {
    let make = |seed| T5::<Flex>::random(&checkpoint("t5-v1_1"), seed, &Default::default()).unwrap().tensors();
    let tensors = make(1);
    assert_eq!(bits(&tensors), bits(&make(1)));
    assert_ne!(bits(&tensors), bits(&make(2)));
    let deviation = |name: &str| {
        let values = &tensors[name].values;
        (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt()
    };
    let near = |name: &str, expected: f32| assert!((deviation(name) / expected - 1.0).abs() < 0.1, "{name}");
    let layer = "decoder.block.0.layer";
    near("shared.weight", 1.0);
    near("lm_head.weight", 1.0);
    near(&format!("{layer}.0.SelfAttention.q.weight"), (48.0f32 * 8.0).powf(-0.5));
    near(&format!("{layer}.1.EncDecAttention.k.weight"), 48.0f32.powf(-0.5));
    near(&format!("{layer}.1.EncDecAttention.o.weight"), 32.0f32.powf(-0.5));
    near(&format!("{layer}.2.DenseReluDense.wi_1.weight"), 48.0f32.powf(-0.5));
    near(&format!("{layer}.2.DenseReluDense.wo.weight"), 96.0f32.powf(-0.5));
    assert!(tensors["decoder.final_layer_norm.weight"].values.iter().all(|&x| x == 1.0));
}

#[test]
fn what_is_frozen_stays_as_it_is_and_is_not_written() {
    let frozen = Frozen { embedding: true, encoder: true, decoder: false, norm: false, head: true };
    let settings = settings(Rule::AdamW(AdamW::default()));
    let start = || model("t5-v1_1").with_frozen(frozen);
    let mut trainer = Trainer::new(start(), examples(), settings.clone(), &Default::default()).unwrap();
    let before = trainer.model().tensors();
    trainer.step().unwrap();
    for (name, after) in trainer.model().tensors() {
        let changed = after != before[&name];
        assert_eq!(changed, name.starts_with("decoder."), "{name}");
    }
    let directory = tempfile::tempdir().unwrap();
    let saved = trainer.save(directory.path()).unwrap();
    assert!(fs::metadata(saved.join("model.safetensors")).unwrap().len() < 400_000);
    let mut resumed: Trainer<Flex, T5<Flex>, _> =
        Trainer::resume(start(), examples(), settings, directory.path(), &Default::default()).unwrap().unwrap();
    assert_eq!(resumed.step().unwrap(), trainer.step().unwrap());
}

/// What names the folder of checkpoints to a training that is a process of its own.
const KILLED: &str = "BILD_KILLED_TRAINING";

/// Takes steps until it is killed, and says each that a checkpoint was written of.
#[test]
#[ignore = "run by the test that kills it"]
fn a_training_that_is_killed() {
    let Some(directory) = std::env::var_os(KILLED) else { return };
    let settings = settings(Rule::AdamW(AdamW::default()));
    let mut trainer = resume(&settings, directory.as_ref()).unwrap_or_else(|| begin(&settings));
    loop {
        trainer.step().unwrap();
        trainer.save(&directory).unwrap();
        println!("saved {}", trainer.steps());
    }
}

#[test]
fn twenty_kills_lose_no_checkpoint_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(Rule::AdamW(AdamW::default()));
    let mut before = 0;
    for kill in 0..20 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["a_training_that_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(KILLED, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: &str| line.rsplit_once("saved ").and_then(|(_, step)| step.parse::<usize>().ok());
        // Once it is under way, at a moment that is another each time.
        let mut saved = lines.find_map(|line| number(&line)).expect("it says what it saved");
        assert!(saved > before, "kill {kill}: it went on from {before} with {saved}");
        std::thread::sleep(Duration::from_micros(kill * 1700));
        child.kill().unwrap();
        child.wait().unwrap();
        saved = lines.filter_map(|line| number(&line)).last().unwrap_or(saved);
        let trainer = resume(&settings, directory.path()).expect("there is a checkpoint");
        // The next one may have been there before it was said.
        assert!((saved..=saved + 1).contains(&trainer.steps()), "{} steps of {saved}", trainer.steps());
        before = trainer.steps();
    }
    let mut whole = begin(&settings);
    for _ in 0..before {
        whole.step().unwrap();
    }
    let killed = resume(&settings, directory.path()).unwrap();
    assert_eq!(bits(&killed.model().tensors()), bits(&whole.model().tensors()), "after {before} steps");
}
