//! Where weights come from: a directory as transformers writes it, files in memory, the hub; with the raw configuration.

mod config;
mod digest;
mod generation;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "pytorch")]
mod pickle;
#[cfg(feature = "pytorch")]
mod pytorch;
#[cfg(feature = "safetensors")]
mod safetensors;
mod tensors;
mod weights;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use bild_core::Pieces;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[cfg(feature = "tokenizers")]
use crate::Tokenizer;
use crate::{
    error::{LoadError, Result},
    files::{Folder, Stored},
};
pub(crate) use config::Fields;
pub use digest::Digest;
use generation::Generation;
#[cfg(feature = "hub")]
pub use hub::Hub;
#[cfg(test)]
pub(crate) use tensors::warnings;
pub(crate) use tensors::{Family, Tensors};
use weights::WeightsFile;

/// A directory as Hugging Face's transformers writes it: `config.json`, `generation_config.json` where there is one,
/// `model.safetensors` or `pytorch_model.bin` or the shards of one of them with their index, `tokenizer.json` or
/// `spiece.model` where there is one.
///
/// Opening reads the configurations and the tokenizer; [`T5::load`](crate::T5::load) reads the weights.
#[derive(Debug)]
pub struct Checkpoint {
    folder: Folder,
    config: (Stored, Value),
    generation: Generation,
    #[cfg(feature = "tokenizers")]
    tokenizer: Option<Tokenizer>,
    warnings: Vec<String>,
}

/// The files of the weights, and for each tensor which of them holds it; `file` is the only one, or the index.
#[derive(Debug)]
struct Weights {
    file: Stored,
    files: Vec<WeightsFile>,
    tensors: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// The files that belong to a checkpoint beside its weights, as far as they are there.
    pub const FILES: [&str; 7] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "spiece.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ];

    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// If a file is missing, empty, cut off or makes no sense; the sentence names the file and the field.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let listing = fs::metadata(directory).and_then(|_| fs::read_dir(directory));
        listing.map_err(|source| LoadError::Read { path: directory.into(), source })?;
        Self::open_in(Folder::Directory(directory.into()))
    }

    /// Opens files in memory, by the names that they would have in a directory: what a program embeds, or has from elsewhere. The
    /// weights are read from there when a model is loaded, so they are held twice until this is dropped.
    ///
    /// ```no_run
    /// use bild::Checkpoint;
    ///
    /// # fn fetch(name: &str) -> Vec<u8> { Vec::new() }
    /// let names = ["config.json", "model.safetensors", "tokenizer.json"];
    /// let checkpoint = Checkpoint::from_files(names.map(|name| (name, fetch(name))))?;
    /// # Ok::<(), bild::LoadError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_files<N: Into<String>, C: Into<Arc<[u8]>>>(files: impl IntoIterator<Item = (N, C)>) -> Result<Self> {
        let files = files.into_iter().map(|(name, contents)| (name.into(), contents.into()));
        Self::open_in(Folder::Memory(Arc::new(files.collect())))
    }

    fn open_in(folder: Folder) -> Result<Self> {
        let file = folder.file("config.json");
        if !file.exists() {
            return Err(missing(&folder, "no config.json: a checkpoint of transformers has one"));
        }
        let config = file.json()?;
        check_not_quantized(file.path(), &config)?;
        let generation = Generation::open(&folder, (file.path(), &config))?;
        let mut warnings = Vec::new();
        if folder.file(ADAPTER).exists() {
            warnings.push(format!(
                "{ADAPTER} describes an adapter, which is not read: what is decoded is the model without it"
            ));
        }
        Ok(Self {
            #[cfg(feature = "tokenizers")]
            tokenizer: open_tokenizer(&folder)?,
            config: (file, config),
            generation,
            warnings,
            folder,
        })
    }

    /// What is in the directory and has no effect, a sentence each: an adapter, tokens outside the vocabulary.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().cloned().chain(self.generation.warnings(self.vocab_size()))
    }

    /// The size of the vocabulary, as far as the configuration names one.
    fn vocab_size(&self) -> usize {
        self.config.1.get("vocab_size").and_then(Value::as_u64).map_or(usize::MAX, |size| size as usize)
    }

    /// The configuration, and that of generating if there is a file of its own.
    pub(crate) fn config(&self) -> (Fields<'_>, Option<Fields<'_>>) {
        let generation = self.generation.own_file().map(|(path, values)| Fields { path, values });
        (Fields { path: self.config.0.path(), values: &self.config.1 }, generation)
    }

    /// What the checkpoint says of generating, as a type that takes the fields it knows and ignores the others:
    /// `GenerationConfig` of `bild-policies`, or one of your own. It is read from `generation_config.json`, or where there
    /// is none from `config.json`, in which a field that is null is left out.
    ///
    /// ```no_run
    /// use bild::{Checkpoint, Settings, policies::GenerationConfig};
    ///
    /// let generation: GenerationConfig = Checkpoint::open("flan-t5-base")?.generation_config()?;
    /// let settings = generation.settings(Settings::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a field has a value that its type refuses, or names a token to be written that the vocabulary does not have: the
    /// sentence names the file and the field.
    pub fn generation_config<T: DeserializeOwned>(&self) -> Result<T> {
        self.generation.read(self.vocab_size())
    }

    /// The tokenizer.
    ///
    /// # Errors
    ///
    /// If the directory has neither a `tokenizer.json` nor a `spiece.model`.
    #[cfg(feature = "tokenizers")]
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let none = || missing(&self.folder, "neither tokenizer.json nor spiece.model");
        self.tokenizer.clone().ok_or_else(none)
    }

    pub(crate) fn pieces(&self) -> Option<Pieces> {
        #[cfg(feature = "tokenizers")]
        return self.tokenizer.as_ref().map(Tokenizer::pieces);
        #[cfg(not(feature = "tokenizers"))]
        None
    }

    /// The raw `config.json`, an object.
    pub fn config_json(&self) -> &Value {
        &self.config.1
    }

    /// The contents of a file, such as that of the tokenizer; nothing if there is none of that name.
    ///
    /// # Errors
    ///
    /// If it is there and cannot be read.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = self.folder.file(name);
        if file.exists() { file.read().map(Some) } else { Ok(None) }
    }

    /// The directory; of a checkpoint of the hub, where it was put; of one in memory, nothing.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// The files of the weights, of which the headers are read.
    fn open_weights(&self) -> Result<Weights> {
        open_weights(&self.folder)
    }
}

/// The file that describes an adapter of PEFT.
const ADAPTER: &str = "adapter_config.json";

#[cfg(feature = "tokenizers")]
fn open_tokenizer(folder: &Folder) -> Result<Option<Tokenizer>> {
    let there = ["tokenizer.json", "spiece.model"].into_iter().find(|name| folder.file(name).exists());
    there.map(|name| Tokenizer::open_in(folder, name)).transpose()
}

/// What a directory lacks, and what it has instead.
fn missing(folder: &Folder, what: &str) -> LoadError {
    let instead = instead(folder).map_or(String::new(), |instead| format!("; it holds {instead}"));
    LoadError::Missing { path: folder.path().into(), missing: format!("{what}{instead}") }
}

/// What a directory holds that others read as a model.
fn instead(folder: &Folder) -> Option<String> {
    let adapter = folder.file(ADAPTER);
    if adapter.exists() {
        let base = adapter.json().ok();
        let base = base.as_ref().and_then(|config| config.get("base_model_name_or_path")?.as_str());
        let base = base.map_or(String::new(), |base| format!(" to {base}"));
        return Some(format!(
            "an adapter{base} ({ADAPTER}): merge it into its model in PEFT (`merge_and_unload`) and save that"
        ));
    }
    let kind = |name: &str| match name.rsplit_once('.')?.1 {
        "gguf" => Some("GGUF, which is not read"),
        "onnx" => Some("ONNX, which is not read"),
        "h5" => Some("weights of TensorFlow: load them in transformers and save the model again"),
        "msgpack" => Some("weights of Flax: load them in transformers and save the model again"),
        "ot" => Some("weights of rust-bert, which are not read"),
        _ => None,
    };
    folder.names().iter().find_map(|name| kind(name).map(|kind| format!("{name}, {kind}")))
}

fn check_not_quantized(path: &Path, config: &Value) -> Result<()> {
    let Some(quantization) = config.get("quantization_config").filter(|value| !value.is_null()) else { return Ok(()) };
    let method = quantization.get("quant_method").and_then(Value::as_str);
    let method = method.map_or(String::new(), |method| format!(" by {method}"));
    Err(unquantized_only(path, &format!("a checkpoint that is quantized{method} (`quantization_config`)")))
}

fn unquantized_only(path: &Path, model: &str) -> LoadError {
    LoadError::Unsupported {
        path: path.into(),
        model: model.into(),
        supported: "weights in f32, f16 or bf16 are, and Precision::Int8 makes 8 bits of them when they are loaded",
    }
}

/// The files that weights may be in, the first that is there is taken.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

fn open_weights(folder: &Folder) -> Result<Weights> {
    for name in WEIGHTS {
        let single = folder.file(name);
        let index = folder.file(&format!("{name}.index.json"));
        let weights = if single.exists() {
            let file = WeightsFile::open(single.clone())?;
            let tensors = file.names().map(|name| (name.to_owned(), 0)).collect();
            Weights { file: single, files: vec![file], tensors }
        } else if index.exists() {
            let (files, tensors) = open_shards(folder, &index)?;
            Weights { file: index, files, tensors }
        } else {
            continue;
        };
        let quantized = |name: &String| tensors::quantized(name).map(|by| (name.clone(), by));
        if let Some((name, by)) = weights.tensors.keys().find_map(quantized) {
            let model = format!("weights that are quantized by {by} (tensor `{name}`)");
            return Err(unquantized_only(weights.file.path(), &model));
        }
        return Ok(weights);
    }
    Err(missing(folder, "neither model.safetensors nor pytorch_model.bin, nor an index of shards of one of them"))
}

fn open_shards(folder: &Folder, index: &Stored) -> Result<(Vec<WeightsFile>, BTreeMap<String, usize>)> {
    let json = index.json()?;
    let field = |field: &str, found: String, expected: &str| LoadError::Field {
        path: index.path().into(),
        field: field.into(),
        found,
        expected: expected.into(),
    };
    let Some(map) = json.get("weight_map").and_then(Value::as_object).filter(|map| !map.is_empty()) else {
        let found = json.get("weight_map").map_or("missing".into(), Value::to_string);
        return Err(field("weight_map", found, "an object from tensor to file"));
    };
    let mut files: Vec<WeightsFile> = Vec::new();
    let mut tensors = BTreeMap::new();
    for (name, shard) in map {
        // A shard stands beside its index: a path that leads elsewhere is not followed.
        let plain = |shard: &&str| Path::new(shard).file_name().is_some_and(|name| name == *shard);
        let Some(shard) = shard.as_str().filter(plain) else {
            return Err(field(
                &format!("weight_map.{name}"),
                shard.to_string(),
                "the name of a file in the same folder",
            ));
        };
        let stored = folder.file(shard);
        let path = stored.path().to_owned();
        let file = match files.iter().position(|file| file.path() == path) {
            Some(file) => file,
            None => {
                if !stored.exists() {
                    let found = format!("\"{shard}\", which does not exist");
                    return Err(field(&format!("weight_map.{name}"), found, "a file of the folder"));
                }
                files.push(WeightsFile::open(stored)?);
                files.len() - 1
            }
        };
        if !files[file].contains(name) {
            let problem = format!("is missing, though {} says it is there", index.path().display());
            return Err(LoadError::Tensor { path, name: name.clone(), problem });
        }
        tensors.insert(name.clone(), file);
    }
    Ok((files, tensors))
}
