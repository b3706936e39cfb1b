//! What a model asks of a device: on a GPU a token's time is launches and reads, not arithmetic. A backend that counts stands in for one.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use bild_core::{
    DraftModel, DraftSession, Generator, Model, Overflow, Pass, SessionLimit, Settings, Source, Token, VerifierModel,
    VerifierSession, Want,
};
use bild_models::{Checkpoint, LoadOptions, Precision, T5};
use bild_policies::Lossless;
use burn::tensor::{DType, Shape, TensorData, backend::Backend};
use burn_flex::{Flex, FlexDevice};
use burn_ir::{BackendIr, BaseOperationIr, OperationIr, TensorId, TensorIr};
use burn_router::{BackendRouter, MultiBackendBridge, RouterTensor, Runner, RunnerChannel, RunnerClient};
use common::{Numbers, config, write_checkpoint};
use serde_json::json;

type Counting = BackendRouter<Channel>;

/// What was asked for since it was last looked at.
#[derive(Clone, Debug, Default, PartialEq)]
struct Asked {
    /// Operations by name, but for views.
    operations: BTreeMap<String, usize>,
    reads: usize,
    /// Times that what comes next waits for reads.
    waits: usize,
    waits_now: bool,
    /// Uploads of numbers.
    writes: usize,
    /// Operations with the shapes of what goes in and comes out.
    shapes: BTreeSet<String>,
}

impl Asked {
    fn count(&self) -> usize {
        self.operations.values().sum()
    }
}

static ASKED: Mutex<Option<Asked>> = Mutex::new(None);

fn note(note: impl FnOnce(&mut Asked)) {
    note(ASKED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
}

fn taken() -> Asked {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
}

#[derive(Clone)]
struct Channel;

#[derive(Clone)]
struct Client(Runner<Flex>);

struct Bridge;

impl MultiBackendBridge for Bridge {
    type TensorHandle = <Flex as BackendIr>::Handle;
    type Device = FlexDevice;

    fn change_backend_float(handle: Self::TensorHandle, _: Shape, _: &FlexDevice) -> Self::TensorHandle {
        handle
    }

    fn change_backend_int(handle: Self::TensorHandle, _: Shape, _: &FlexDevice) -> Self::TensorHandle {
        handle
    }

    fn change_backend_bool(handle: Self::TensorHandle, _: Shape, _: &FlexDevice) -> Self::TensorHandle {
        handle
    }
}

impl RunnerChannel for Channel {
    type Device = FlexDevice;
    type Bridge = Bridge;
    type Client = Client;
    type FloatElem = f32;
    type IntElem = i32;
    type BoolElem = bool;

    fn name(_: &FlexDevice) -> String {
        "counting".into()
    }

    fn init_client(device: &FlexDevice) -> Client {
        static CLIENT: OnceLock<Client> = OnceLock::new();
        CLIENT.get_or_init(|| Client(Runner::new(*device))).clone()
    }

    fn get_tensor_handle(tensor: &TensorIr, client: &Client) -> <Flex as BackendIr>::Handle {
        client.0.get_tensor_handle(tensor)
    }

    fn register_tensor(
        client: &Client,
        handle: <Flex as BackendIr>::Handle,
        shape: Shape,
        dtype: DType,
    ) -> RouterTensor<Client> {
        client.0.register_tensor(handle, shape, dtype, client.clone())
    }
}

/// The name of an operation, unless it is a view of what is there.
fn name(operation: &OperationIr) -> Option<String> {
    use BaseOperationIr::{Expand, Permute, Reshape, Slice, SwapDims};
    match operation {
        OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base)
            if matches!(base, Reshape(_) | SwapDims(_) | Permute(_) | Slice(_) | Expand(_)) =>
        {
            None
        }
        OperationIr::Init(_) | OperationIr::Drop(_) => None,
        operation => {
            let text = format!("{operation:?}");
            // As in `NumericFloat(F32, Add(…`: what stands before the last parenthesis that opens names it.
            let names = text.split(['(', ' ', ',']).filter(|word| word.starts_with(char::is_uppercase));
            names.filter(|word| !word.starts_with("F32") && !word.starts_with("I32")).nth(1).map(str::to_owned)
        }
    }
}

impl RunnerClient for Client {
    type Device = FlexDevice;

    fn register_op(&self, operation: OperationIr) {
        if let Some(name) = name(&operation) {
            let shapes: Vec<_> =
                operation.inputs().chain(operation.outputs()).map(|tensor| tensor.shape.clone()).collect();
            note(|asked| {
                asked.waits_now = false;
                asked.shapes.insert(format!("{name} {shapes:?}"));
                *asked.operations.entry(name).or_default() += 1;
            });
        }
        self.0.register_op(operation);
    }

    fn read_tensor_async(
        &self,
        tensor: TensorIr,
    ) -> burn_std::future::DynFut<Result<TensorData, burn::tensor::backend::ExecutionError>> {
        note(|asked| {
            asked.reads += 1;
            asked.waits += usize::from(!asked.waits_now);
            asked.waits_now = true;
        });
        self.0.read_tensor_async(tensor)
    }

    fn register_tensor_data(&self, data: TensorData) -> RouterTensor<Self> {
        note(|asked| asked.writes += 1);
        let tensor = self.0.register_tensor_data_desc(data);
        RouterTensor::new(tensor.id, tensor.shape, tensor.dtype, self.clone())
    }

    fn device(&self) -> FlexDevice {
        self.0.device()
    }

    fn sync(&self) -> Result<(), burn::tensor::backend::ExecutionError> {
        self.0.sync()
    }

    fn seed(&self, seed: u64) {
        self.0.seed(seed);
    }

    fn create_empty_handle(&self) -> TensorId {
        self.0.create_empty_handle()
    }

    fn dtype_usage(&self, dtype: DType) -> burn::tensor::backend::DTypeUsageSet {
        self.0.dtype_usage(dtype)
    }
}

fn model<B: Backend>(layers: usize, feed_forward: &str) -> T5<B> {
    held(layers, feed_forward, Precision::F32)
}

fn held<B: Backend>(layers: usize, feed_forward: &str, precision: Precision) -> T5<B> {
    let directory = tempfile::tempdir().unwrap();
    let shape = json!({
        "vocab_size": 100, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": layers, "num_decoder_layers": layers,
        "feed_forward_proj": feed_forward
    });
    write_checkpoint(directory.path(), &config(shape), 1, |_| {});
    let options = LoadOptions::default().with_precision(precision).with_self_test(false);
    T5::load_with(&Checkpoint::open(directory.path()).unwrap(), &Default::default(), &options).unwrap()
}

/// What a step of one token and a verification of eleven ask for.
fn passes(model: &T5<Counting>) -> [Asked; 3] {
    let source = Source::new((3..67).collect::<Vec<Token>>());
    taken();
    let mut session = model.begin(&source, &SessionLimit::new(64)).unwrap();
    let mut at = 0;
    let mut pass = |rows: usize| {
        let new: Vec<Token> = (0..rows as Token).collect();
        session.score(&Pass::verify(at, &new, Want::default())).unwrap();
        at += rows;
        taken()
    };
    [pass(1), pass(1), pass(11)]
}

/// With views not counted: what T5 1.0 asks of a layer, and T5 1.1, whose gelu by tanh is seven operations.
#[test]
fn a_layer_is_few_operations() {
    let _alone = alone();
    for (feed_forward, most, most_of_encoder) in [("relu", 42, 69), ("gated-gelu", 50, 83)] {
        let [two, three] = [2, 3].map(|layers| passes(&model(layers, feed_forward)));
        let layer = |i: usize| three[i].count() - two[i].count();
        let found = [0, 1, 2].map(layer);
        println!("{feed_forward}: {found:?} operations a layer; a token of two layers: {:?}", two[1]);
        // A layer of the encoder, what the decoder's needs of the source, and its first token.
        assert!(found[0] <= most_of_encoder, "{} for a source and its first token", found[0]);
        assert!(found[1] <= most && found[2] <= most, "{found:?}");
        // The most likely token and its numbers, in one transaction.
        assert!(two.iter().all(|asked| asked.reads == 2), "{two:?}");
        // Tokens and, which is no upload elsewhere, the numbers of the vocabulary.
        assert!(two[1].writes <= 2 && two[2].writes <= 2, "{two:?}");
    }
}

/// Flex has 16-bit floats beneath its kernels, which this backend reaches: logits are those of f32, but for digits.
#[test]
fn weights_of_16_bits_write_nearly_the_same() {
    let _alone = alone();
    for (precision, tolerance) in [(Precision::F16, 0.01), (Precision::Bf16, 0.05)] {
        for feed_forward in ["relu", "gated-gelu"] {
            let [exact, half] = [Precision::F32, precision].map(|precision| held(3, feed_forward, precision));
            let logits = |model: &T5<Counting>| {
                let mut session = model.begin(&Source::new([5, 9, 1]), &SessionLimit::new(8)).unwrap();
                let pass = Pass::verify(0, &[0, 7, 20, 3], Want::default().with_logits());
                let rows = session.score(&pass).unwrap();
                rows.iter().flat_map(|row| row.logits.clone().unwrap().to_vec()).collect::<Vec<f32>>()
            };
            let (expected, found) = (logits(&exact), logits(&half));
            let largest = expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
            let difference = found.iter().zip(&expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(difference > 0.0 && difference <= tolerance * largest, "{precision:?}: {difference} of {largest}");
        }
    }
}

/// A draft of many tokens is read once, and is what the same tokens are one at a time.
#[test]
fn a_draft_is_one_read() {
    let _alone = alone();
    let model = model::<Counting>(2, "relu");
    let source = Source::new((3..20).collect::<Vec<Token>>());
    let mut step_by_step = model.begin(&source, &SessionLimit::new(40)).unwrap();
    let mut tokens = vec![0];
    for at in 0..12 {
        let rows = step_by_step.propose(&Pass::draft(at, &tokens[at..], Want::default())).unwrap();
        tokens.push(rows[0].argmax);
    }
    let mut session = model.begin(&source, &SessionLimit::new(40)).unwrap();
    session.propose(&Pass::draft(0, &[0], Want::default())).unwrap();
    taken();
    let mut pass = Pass::draft(0, &[0], Want::default());
    pass.most = 12;
    let rows = session.propose(&pass).unwrap();
    assert_eq!(rows.iter().map(|row| row.argmax).collect::<Vec<_>>(), tokens[1..]);
    let asked = taken();
    assert_eq!(asked.waits, 1, "{asked:?}");
    // The start token; and a step's numbers of the vocabulary, which are no upload elsewhere.
    assert_eq!(asked.writes, 1 + 12, "{asked:?}");
}

/// Attention of several sessions is one product where they look at as many keys: to what each finds alone, for fewer operations than they
/// take one after the other. Sources of other lengths are looked at apart.
#[test]
fn sessions_attend_together() {
    let _alone = alone();
    let model = model::<Counting>(2, "relu");
    let want = Want::default().with_logits();
    for (lengths, most) in [([5, 60, 31, 5], 20), ([5, 70, 31, 200], 27)] {
        let mut numbers = Numbers(7);
        let sources = lengths.map(|length| Source::new(numbers.tokens(length, 100)));
        let begin = |source: &Source| model.begin(source, &SessionLimit::new(40)).unwrap();
        let (mut together, mut each) = (sources.each_ref().map(begin), sources.each_ref().map(begin));
        let mut at = [0; 4];
        for step in 0..6 {
            // As many rows for all, and then other numbers.
            let rows = [0, 1, 2, 3].map(|i| if step < 3 { 1 + step } else { 1 + (i * 3 + step) % 5 });
            let new = rows.map(|rows| numbers.tokens(rows, 100));
            let pass = |i: usize| Pass::verify(at[i], &new[i], want);
            taken();
            let mut passes: Vec<_> = together.iter_mut().enumerate().map(|(i, session)| (session, pass(i))).collect();
            let found = model.score_all(&mut passes);
            let asked = taken();
            for (i, (found, session)) in found.into_iter().zip(&mut each).enumerate() {
                let (found, alone) = (found.unwrap(), session.score(&pass(i)).unwrap());
                assert_eq!(found.len(), rows[i]);
                for (found, alone) in found.iter().zip(&alone) {
                    let pairs = found.logits.as_ref().unwrap().iter().zip(alone.logits.as_ref().unwrap().iter());
                    pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-3, "{a} {b}"));
                }
            }
            let one_by_one = taken();
            if step > 0 {
                let [some, all] = [asked.count(), one_by_one.count()];
                println!("{lengths:?} {rows:?}: {some} operations, {all} one by one");
                assert!(some * 60 < all * most, "{some} {all}");
            }
            at = [0, 1, 2, 3].map(|i| at[i] + rows[i]);
        }
    }
}

/// What is read on the host beside others that draft in one go: everybody gets what he asked for.
#[test]
fn logits_are_there_for_one_that_asks_among_others_that_do_not() {
    let _alone = alone();
    let model = model::<Counting>(2, "relu");
    let sources = [&[3, 9, 1][..], &[5, 1]].map(|tokens| Source::new(tokens.to_vec()));
    let mut sessions = sources.each_ref().map(|source| model.begin(source, &SessionLimit::new(20)).unwrap());
    let mut many = Pass::draft(0, &[0], Want::default());
    many.most = 5;
    let passes = [many, Pass::draft(0, &[0, 4], Want::default().with_logits())];
    let found = model.propose_all(&mut sessions.iter_mut().zip(passes).collect::<Vec<_>>());
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    assert_eq!((found[0].len(), found[1].len()), (1, 1));
    assert_eq!(found[1][0].logits.as_ref().map(|logits| logits.len()), Some(100));
}

/// A hundred generations of other lengths, sources and drafts meet no shape that a warm-up has not made.
#[test]
fn after_a_warm_up_there_are_no_new_shapes() {
    let _alone = alone();
    let pair = (model::<Counting>(2, "relu"), model::<Counting>(2, "gated-gelu"));
    let settings =
        Settings::default().with_max_new_tokens(100).with_max_source_tokens(150, Overflow::Error).with_end_tokens([]);
    taken();
    pair.0.warm_up(&settings, 12).unwrap();
    pair.1.warm_up(&settings, 12).unwrap();
    let warm = taken().shapes;
    let generator = Generator::new(pair, Lossless::default()).unwrap().with_settings(settings);
    let mut numbers = Numbers(3);
    let mut cold = BTreeSet::new();
    for _ in 0..100 {
        let source = Source::new(numbers.tokens(1 + numbers.0 as usize % 150, 100));
        generator.generate(source).unwrap();
        cold.extend(taken().shapes.difference(&warm).cloned());
    }
    assert!(cold.is_empty(), "{} of {}: {cold:#?}", cold.len(), warm.len());
}

/// With Burn's fusion numbers are wrong, but as many.
#[cfg(feature = "fusion")]
type OnDevice = burn_wgpu::Wgpu;
#[cfg(all(feature = "wgpu", not(feature = "fusion")))]
type OnDevice = bild_models::Wgpu;

/// What a device is asked for in the end, which the run-time of wgpu and CUDA notes in a log: as many layers as T5-large has.
#[cfg(feature = "wgpu")]
#[test]
fn launches_of_a_step_with_the_layers_of_t5_large() {
    let Ok(log) = std::env::var("CUBECL_DEBUG_LOG") else { return };
    let _alone = alone();
    // A line for each launch, written by and by.
    let launches = || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let log = std::fs::read_to_string(&log).unwrap();
        let mut names = BTreeMap::<String, usize>::new();
        for line in log.lines().filter(|line| line.starts_with('|')) {
            let name = line.split('|').nth(2).unwrap_or_default().trim();
            *names.entry(name.split(['<', '(']).next().unwrap_or_default().into()).or_default() += 1;
        }
        names
    };
    for feed_forward in ["relu", "gated-gelu"] {
        let model = model::<OnDevice>(24, feed_forward);
        let source = Source::new((3..67).collect::<Vec<Token>>());
        let mut session = model.begin(&source, &SessionLimit::new(64)).unwrap();
        let mut score = |at: usize, rows: usize| {
            session.score(&Pass::verify(at, &vec![5; rows], Want::default())).unwrap();
        };
        score(0, 1);
        for rows in [1, 11] {
            let before = launches();
            (1..=4).for_each(|i| score(i * rows, rows));
            let mut after = launches();
            for (name, count) in &mut after {
                *count -= before.get(name).unwrap_or(&0);
            }
            after.retain(|_, count| *count > 0);
            println!(
                "{feed_forward}, {rows} rows: {} launches; of four: {after:#?}",
                after.values().sum::<usize>() / 4
            );
        }
    }
}

/// The counts are of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
