//! T5 as a Burn module: batched, teacher-forced, with dropout; the same weights, names and numbers as the T5 that decodes.

mod exit;
mod make;
mod save;
mod stack;

use std::{collections::BTreeMap, sync::Arc};

use bild::{decode::Token, models::T5Config};
use burn::{
    Tensor,
    module::{Module, ModuleMapper, Param},
    tensor::backend::{AutodiffBackend, Backend},
};
use serde_json::{Map, Value};

use crate::{
    compute::{self, Compute},
    data::{Batch, Example, Padded},
    error::Result,
    loss::{Loss, Score},
    random::Dropouts,
    trainer::Trainable,
};
use exit::Adapter;
pub use make::{Layers, Shrink};
pub use stack::{Decoder, Encoder};

/// A T5 that is trained. On a backend without gradients ([`AutodiffModule::valid`](burn::module::AutodiffModule::valid)) it is the
/// same model, for measuring.
///
/// Embedding, encoder, decoder and head are apart: each can be frozen, and an encoder's states can come from elsewhere.
#[derive(Module, Debug)]
pub struct T5<B: Backend> {
    /// `[vocab, d_model]`
    embedding: Param<Tensor<B, 2>>,
    encoder: Encoder<B>,
    decoder: Decoder<B>,
    /// What an early exit has between the decoder and the head.
    adapter: Option<Adapter<B>>,
    /// `[vocab, d_model]`, unless it is the embedding.
    head: Option<Param<Tensor<B, 2>>>,
    #[module(skip)]
    about: Arc<About>,
    #[module(skip)]
    frozen: Frozen,
}

/// What a T5 is besides its numbers.
#[derive(Clone, Debug)]
struct About {
    config: Arc<T5Config>,
    /// `config.json`
    json: Map<String, Value>,
    /// The names of all parameters, by their ids.
    names: BTreeMap<u64, String>,
    /// Files that belong to a model, such as its tokenizer's.
    files: Vec<(String, Vec<u8>)>,
}

/// Which parts of a model are left as they are. Without gradients they cost a forward pass and nothing else, and nothing is dropped of
/// what they compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// The embedding, and with it the head if it is the same matrix.
    pub embedding: bool,
    /// The encoder. (Its source's embeddings are another part: freeze both, or gradients still go through it.)
    pub encoder: bool,
    /// The layers of the decoder.
    pub decoder: bool,
    /// The norm after them.
    pub norm: bool,
    /// The head, if it is a matrix of its own.
    pub head: bool,
}

/// The id of the parameter of a name, by Fowler, Noll and Vo: the same in every process.
fn id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<B: Backend> T5<B> {
    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.about.config
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder<B> {
        &self.encoder
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder<B> {
        &self.decoder
    }

    /// Which parts are frozen.
    pub fn frozen(&self) -> Frozen {
        self.frozen
    }

    /// The ids of the parameters, by which gradients and optimizers know them, and the names that transformers has for them.
    pub fn parameters(&self) -> impl Iterator<Item = (u64, &str)> {
        self.about.names.iter().map(|(id, name)| (*id, &name[..]))
    }

    /// Freezes these parts, and no others.
    pub fn with_frozen(mut self, frozen: Frozen) -> Self {
        struct Set(bool);

        impl<B: Backend> ModuleMapper<B> for Set {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
                param.set_require_grad(self.0)
            }
        }

        self.embedding = self.embedding.set_require_grad(!frozen.embedding);
        self.encoder = Module::<B>::map(self.encoder, &mut Set(!frozen.encoder));
        self.decoder = Module::<B>::map(self.decoder, &mut Set(!frozen.decoder)).with_norm_trained(!frozen.norm);
        self.head = self.head.map(|head| head.set_require_grad(!frozen.head));
        self.frozen = frozen;
        self
    }
}

impl<B: Compute> T5<B> {
    /// Rows of the embedding, `[count · width, d_model]`.
    pub fn embed(&self, tokens: &Padded) -> Tensor<B, 2> {
        B::embed(self.embedding.val(), &tokens.tokens)
    }

    /// The encoder's states of sources, `[count · width, d_model]`.
    pub fn encode(&self, sources: &Padded, dropouts: &mut Dropouts) -> Tensor<B, 2> {
        let mut none = Dropouts::none();
        let dropouts = if self.frozen.encoder { &mut none } else { dropouts };
        self.encoder.forward(self.embed(sources), sources, dropouts)
    }

    /// The decoder's rows for what it reads, given the states of the sources.
    pub fn decode(&self, states: Tensor<B, 2>, batch: &Batch, dropouts: &mut Dropouts) -> Tensor<B, 2> {
        let mut none = Dropouts::none();
        let for_decoder = if self.frozen.decoder { &mut none } else { &mut *dropouts };
        let embedded = self.embed(&batch.inputs);
        let rows = self.decoder.forward(embedded, &batch.inputs, states, &batch.sources, for_decoder);
        match &self.adapter {
            Some(adapter) => adapter.forward(rows, dropouts),
            None => rows,
        }
    }

    /// The head, for a loss that is multiplied by `scale_loss`.
    pub fn head(&self, scale_loss: f32) -> compute::Head<B> {
        let weight = self.head.as_ref().unwrap_or(&self.embedding).val();
        let config = self.config();
        let scale = if config.scaled_head { (config.d_model as f32).powf(-0.5) } else { 1.0 };
        compute::Head { weight, scale, scale_loss }
    }

    /// The logits of the rows of a batch that are no padding, `[tokens, vocab]`.
    pub fn logits(&self, batch: &Batch) -> Tensor<B, 2> {
        let rows = self.rows(batch, &mut Dropouts::none());
        let head = self.head(1.0);
        let chosen: Vec<Token> = batch.targets.rows.iter().map(|&row| row as Token).collect();
        B::project(B::embed(rows, &chosen).mul_scalar(head.scale), head.weight)
    }

    fn rows(&self, batch: &Batch, dropouts: &mut Dropouts) -> Tensor<B, 2> {
        let states = self.encode(&batch.sources, dropouts);
        self.decode(states, batch, dropouts)
    }
}

impl<B: AutodiffBackend + Compute> Trainable<B> for T5<B>
where
    B::InnerBackend: Compute,
{
    fn check(&self, example: &Example) -> Result<(), String> {
        example.check(self.config().vocab_size)
    }

    fn batch(&self, examples: &[Example]) -> Batch {
        Batch::new(examples, self.config().start)
    }

    fn loss(&self, batch: &Batch, loss: Loss, scale: f32, mut dropouts: Dropouts) -> Tensor<B, 1> {
        let rows = self.rows(batch, &mut dropouts);
        B::loss(rows, self.head(scale), &batch.targets, loss)
    }

    fn score(&self, batch: &Batch, loss: Loss) -> Score {
        use burn::module::AutodiffModule;
        let model = self.valid();
        let rows = model.rows(batch, &mut Dropouts::none());
        B::InnerBackend::score(rows, model.head(1.0), &batch.targets, loss)
    }

    fn save(&self, directory: &std::path::Path) -> Result<()> {
        self.write_trained(directory)
    }

    fn restore(self, directory: &std::path::Path) -> Result<Self> {
        self.read_trained(directory)
    }
}
