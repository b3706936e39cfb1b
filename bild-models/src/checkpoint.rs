use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    T5Config, Tokenizer,
    error::{LoadError, Result},
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
    tokenizer: Option<Tokenizer>,
    /// The files of the weights, and which of them holds each tensor.
    files: Vec<WeightsFile>,
    tensors: BTreeMap<String, usize>,
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
        if !path.exists() {
            return Err(missing(directory, "no config.json: a checkpoint of transformers has one"));
        }
        let config = read_json(&path)?;
        let generation_path = directory.join("generation_config.json");
        let generation = generation_path.exists().then(|| read_json(&generation_path)).transpose()?;
        let generation = generation.as_ref().map(|values| (&*generation_path, values));
        let config = T5Config::from_json((&path, &config), generation)?;
        let tokenizer = ["tokenizer.json", "spiece.model"].map(|name| directory.join(name));
        let tokenizer = tokenizer.iter().find(|path| path.exists()).map(Tokenizer::open).transpose()?;
        let (files, tensors) = open_weights(directory)?;
        Ok(Self { directory: directory.into(), config, tokenizer, files, tensors })
    }

    /// The shape of the model.
    pub fn config(&self) -> &T5Config {
        &self.config
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

    pub(crate) fn pieces(&self) -> Option<u64> {
        self.tokenizer.as_ref().map(Tokenizer::fingerprint)
    }

    /// The name of every tensor.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The directory; of a checkpoint of the hub, where it was put.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many numbers a tensor has, 0 if there is none of that name that can be read.
    pub(crate) fn elements(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |&file| self.files[file].elements(name))
    }

    /// The path of the file that holds a tensor, or of the first of all.
    pub(crate) fn path_of(&self, name: &str) -> &Path {
        self.file(name).path()
    }

    /// The values of a tensor of this shape, row-major.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.file(name).read(name, shape)
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
        self.file(name).read_parts(name, shape, length, take)
    }

    /// The file that holds a tensor, or the first of all.
    fn file(&self, name: &str) -> &WeightsFile {
        &self.files[self.tensors.get(name).copied().unwrap_or(0)]
    }
}

fn missing(directory: &Path, what: &str) -> LoadError {
    LoadError::Missing { path: directory.into(), missing: what.into() }
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
        _ => fs::read(path).map_err(|source| LoadError::Read { path: path.into(), source }),
    }
}

pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let bytes = read_file(path)?;
    let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| broken(format!("it is not JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(broken("it is not a JSON object".into())) }
}

/// The files that weights may be in, the first that is there is taken.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

fn open_weights(directory: &Path) -> Result<(Vec<WeightsFile>, BTreeMap<String, usize>)> {
    // A link that leads nowhere is there too, and says so when it is opened.
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    for name in WEIGHTS {
        let single = directory.join(name);
        if is_there(&single) {
            let file = WeightsFile::open(&single)?;
            let tensors = file.names().map(|name| (name.to_owned(), 0)).collect();
            return Ok((vec![file], tensors));
        }
        let index = directory.join(format!("{name}.index.json"));
        if is_there(&index) {
            return open_shards(directory, &index);
        }
    }
    Err(missing(directory, "neither model.safetensors nor pytorch_model.bin, nor an index of shards of one of them"))
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
                if !path.exists() {
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
