use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bild_core::Pieces;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    T5Config, Tokenizer,
    error::{LoadError, Result},
    foreign::{BEGINNING, foreign},
    generation::Generation,
    names,
    weights::WeightsFile,
};

/// A directory as Hugging Face's transformers writes it: `config.json`, `generation_config.json` where there is one,
/// `model.safetensors` or `pytorch_model.bin` or the shards of one of them with their index, `tokenizer.json` or
/// `spiece.model` where there is one.
///
/// Opening reads the configuration, the tokenizer and the headers of the weights; [`T5::load`](crate::T5::load) reads
/// the weights.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: T5Config,
    generation: Generation,
    tokenizer: Option<Tokenizer>,
    weights: Weights,
    warnings: Vec<String>,
}

/// The files of the weights, and for each tensor which of them holds it, under which name.
#[derive(Debug)]
struct Weights {
    files: Vec<WeightsFile>,
    tensors: BTreeMap<String, (usize, String)>,
}

impl Checkpoint {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// If a file is missing, empty, cut off or makes no sense, or the model is not a T5 that can be decoded; the sentence
    /// names the file and the field.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let listing = fs::metadata(directory).and_then(|_| fs::read_dir(directory));
        listing.map_err(|source| LoadError::Read { path: directory.into(), source })?;
        let path = directory.join("config.json");
        if !is_there(&path) {
            return Err(missing(directory, "no config.json: a checkpoint of transformers has one"));
        }
        let config = read_json(&path)?;
        check_not_quantized(&path, &config)?;
        let generation = Generation::open(directory, (&path, &config))?;
        let config = T5Config::from_json((&path, &config), generation.own_file())?;
        let tokenizer = ["tokenizer.json", "spiece.model"].map(|name| directory.join(name));
        let tokenizer = tokenizer.iter().find(|path| is_there(path)).map(Tokenizer::open).transpose()?;
        let weights = open_weights(directory)?;
        let mut warnings = names::warnings(weights.tensors.keys().map(String::as_str));
        if is_there(&directory.join(ADAPTER)) {
            warnings.push(format!(
                "{ADAPTER} describes an adapter, which is not read: what is decoded is the model without it"
            ));
        }
        for warning in &warnings {
            tracing::warn!(checkpoint = %directory.display(), "{warning}");
        }
        Ok(Self { directory: directory.into(), config, generation, tokenizer, weights, warnings })
    }

    /// What is in the directory and has no effect, a sentence each, for whoever expects one: an adapter that is not merged
    /// into the weights, tensors that no T5 has. They are also traced.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// What the checkpoint says of generating, as a type that takes the fields it knows and ignores the others:
    /// `GenerationConfig` of `bild-policies`, or one of your own. It is read from `generation_config.json`, or where there
    /// is none from `config.json`, in which a field that is null is left out.
    ///
    /// ```no_run
    /// use bild_core::Settings;
    /// use bild_models::Checkpoint;
    /// use bild_policies::GenerationConfig;
    ///
    /// let generation: GenerationConfig = Checkpoint::open("flan-t5-base")?.generation_config()?;
    /// let settings = generation.settings(Settings::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a field has a value that its type cannot have.
    pub fn generation_config<T: DeserializeOwned>(&self) -> Result<T> {
        self.generation.read()
    }

    /// The tokenizer.
    ///
    /// # Errors
    ///
    /// If the directory has neither a `tokenizer.json` nor a `spiece.model`.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let none = || missing(&self.directory, "neither tokenizer.json nor spiece.model");
        self.tokenizer.clone().ok_or_else(none)
    }

    pub(crate) fn pieces(&self) -> Option<Pieces> {
        self.tokenizer.as_ref().map(Tokenizer::pieces)
    }

    /// The name of every tensor.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.tensors.keys().map(String::as_str)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(name)
    }

    /// The directory; of a checkpoint of the hub, where it was put.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many numbers a tensor has, 0 if there is none of that name that can be read.
    pub(crate) fn elements(&self, name: &str) -> u64 {
        self.weights.tensors.get(name).map_or(0, |(file, stored)| self.weights.files[*file].elements(stored))
    }

    /// The path of the file that holds a tensor, or of the first of all.
    pub(crate) fn path_of(&self, name: &str) -> &Path {
        self.file_of(name).path()
    }

    /// The values of a tensor of this shape, row-major.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (file, name) = self.stored(name);
        file.read(name, shape)
    }

    /// As [`read`](Self::read), in order and in parts of `length` values.
    #[cfg(feature = "flex")]
    pub(crate) fn read_parts(
        &self,
        name: &str,
        shape: &[usize],
        length: usize,
        take: impl FnMut(&[f32]),
    ) -> Result<()> {
        let (file, name) = self.stored(name);
        file.read_parts(name, shape, length, take)
    }

    /// The file that holds a tensor, or the first of all.
    fn file_of(&self, name: &str) -> &WeightsFile {
        &self.weights.files[self.weights.tensors.get(name).map_or(0, |(file, _)| *file)]
    }

    /// As [`file_of`](Self::file_of), and the name that the tensor has there.
    fn stored<'n>(&'n self, name: &'n str) -> (&'n WeightsFile, &'n str) {
        let stored = self.weights.tensors.get(name).map_or(name, |(_, stored)| stored);
        (self.file_of(name), stored)
    }
}

/// The file that describes an adapter of PEFT.
const ADAPTER: &str = "adapter_config.json";

/// What a directory lacks, and what it has instead.
fn missing(directory: &Path, what: &str) -> LoadError {
    let instead = instead(directory).map_or(String::new(), |instead| format!("; it holds {instead}"));
    LoadError::Missing { path: directory.into(), missing: format!("{what}{instead}") }
}

/// What a directory holds that others read as a model.
fn instead(directory: &Path) -> Option<String> {
    if is_there(&directory.join(ADAPTER)) {
        let base = read_json(&directory.join(ADAPTER)).ok();
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
    let mut names: Vec<String> =
        fs::read_dir(directory).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().find_map(|name| kind(name).map(|kind| format!("{name}, {kind}")))
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

/// Whether a folder has such a file. A link that leads nowhere is there too, and says so when it is opened.
pub(crate) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The most bytes of a file that is read whole; an mT5's tokenizer.json has 16 MB.
const LONGEST_FILE: u64 = 256 << 20;

/// The length of a file, which must be one: opening a pipe would wait for a writer.
pub(crate) fn file_length(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).map_err(|source| LoadError::Read { path: path.into(), source })?;
    if !metadata.is_file() {
        return Err(LoadError::Broken { path: path.into(), reason: "it is not a file".into() });
    }
    Ok(metadata.len())
}

/// The contents of a file that is neither empty nor endless.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
    match file_length(path)? {
        0 => Err(broken("it is empty".into())),
        length if length > LONGEST_FILE => Err(broken(format!("it has {length} bytes, more than any such file"))),
        _ => {
            let contents = fs::read(path).map_err(|source| LoadError::Read { path: path.into(), source })?;
            match foreign(&contents[..contents.len().min(BEGINNING)]) {
                Some(reason) => Err(broken(reason)),
                None => Ok(contents),
            }
        }
    }
}

/// The contents of a file of text. Some editors put a mark before them, which is no part of the text.
pub(crate) fn without_byte_order_mark(contents: &[u8]) -> &[u8] {
    contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents)
}

pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let bytes = read_file(path)?;
    let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
    let value: Value = serde_json::from_slice(without_byte_order_mark(&bytes))
        .map_err(|error| broken(format!("it is not JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(broken("it is not a JSON object".into())) }
}

/// The files that weights may be in, the first that is there is taken.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

fn open_weights(directory: &Path) -> Result<Weights> {
    for name in WEIGHTS {
        let single = directory.join(name);
        if is_there(&single) {
            let file = WeightsFile::open(&single)?;
            let tensors = file.names().map(|name| (name.to_owned(), 0)).collect();
            return named(&single, vec![file], &tensors);
        }
        let index = directory.join(format!("{name}.index.json"));
        if is_there(&index) {
            let (files, tensors) = open_shards(directory, &index)?;
            return named(&index, files, &tensors);
        }
    }
    Err(missing(directory, "neither model.safetensors nor pytorch_model.bin, nor an index of shards of one of them"))
}

/// Weights under the names that transformers has for them, given the file of each stored name.
fn named(path: &Path, files: Vec<WeightsFile>, stored: &BTreeMap<String, usize>) -> Result<Weights> {
    if let Some((name, by)) = stored.keys().find_map(|name| Some((name, names::quantized(name)?))) {
        return Err(unquantized_only(path, &format!("weights that are quantized by {by} (tensor `{name}`)")));
    }
    let names = names::by_usual_name(stored.keys().map(String::as_str));
    let names = names.map_err(|reason| LoadError::Broken { path: path.into(), reason })?;
    Ok(Weights { tensors: names.into_iter().map(|(usual, name)| (usual, (stored[&name], name))).collect(), files })
}

fn open_shards(directory: &Path, index: &Path) -> Result<(Vec<WeightsFile>, BTreeMap<String, usize>)> {
    let json = read_json(index)?;
    let field = |field: &str, found: String, expected: &str| LoadError::Field {
        path: index.into(),
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
        let path = directory.join(shard);
        let file = match files.iter().position(|file| file.path() == path) {
            Some(file) => file,
            None => {
                if !is_there(&path) {
                    let found = format!("\"{shard}\", which does not exist");
                    return Err(field(&format!("weight_map.{name}"), found, "a file of the folder"));
                }
                files.push(WeightsFile::open(&path)?);
                files.len() - 1
            }
        };
        if !files[file].contains(name) {
            let problem = format!("is missing, though {} says it is there", index.display());
            return Err(LoadError::Tensor { path, name: name.clone(), problem });
        }
        tensors.insert(name.clone(), file);
    }
    Ok((files, tensors))
}
