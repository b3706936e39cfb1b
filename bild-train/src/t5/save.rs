//! A model's numbers by the names that transformers has for them, and the directory that it and `bild` load.

use std::{collections::BTreeMap, path::Path};

use bild::models::Digest;
use burn::{
    Tensor,
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{TensorData, backend::Backend},
};
use serde_json::{Map, Value, json};

use super::T5;
use crate::{
    error::{Result, TrainError},
    files::{self, Numbers},
};

/// Takes the numbers of parameters.
struct Taken<'a> {
    names: &'a BTreeMap<u64, String>,
    /// Whether those that are frozen are left out.
    trained_alone: bool,
    tensors: BTreeMap<String, Numbers>,
}

impl<B: Backend> ModuleVisitor<B> for Taken<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        if self.trained_alone && !tensor.is_require_grad() {
            return;
        }
        let numbers = Numbers { shape: tensor.dims().into(), values: tensor.into_data().iter::<f32>().collect() };
        self.tensors.insert(self.names[&param.id.val()].clone(), numbers);
    }
}

impl<B: Backend> T5<B> {
    /// Every parameter by the name that transformers has for it.
    pub fn tensors(&self) -> BTreeMap<String, Numbers> {
        self.taken(false)
    }

    fn taken(&self, trained_alone: bool) -> BTreeMap<String, Numbers> {
        let mut taken = Taken { names: &self.about.names, trained_alone, tensors: BTreeMap::new() };
        self.visit(&mut taken);
        taken.tensors
    }

    /// Writes a directory that transformers and `bild` load: configuration, weights in f32, and the tokenizer's files of the checkpoint
    /// that the model is of. It is there whole or not at all; one that is there already is replaced.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn save(&self, directory: impl AsRef<Path>) -> Result<()> {
        files::publish(directory.as_ref(), |partial| self.write(partial, &self.tensors()))
    }

    /// Writes the decoder alone, as a directory that [`SharedEncoder`](bild::models::SharedEncoder) loads beside the big model of this
    /// [digest](bild::Checkpoint::digest), of whose decoder layers it was made. It is there whole or not at all; one that is there
    /// already is replaced.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn save_shared_encoder(&self, directory: impl AsRef<Path>, big: Digest, layers: &[usize]) -> Result<()> {
        let mut tensors = self.tensors();
        tensors.retain(|name, _| name.starts_with("decoder."));
        let mut json = self.about.json.clone();
        let of = json!({ "big": big.to_string(), "layers": layers });
        json.insert("bild_shared_encoder".into(), of);
        files::publish(directory.as_ref(), |partial| {
            write_config(partial, json)?;
            files::write_tensors(&partial.join("model.safetensors"), &tensors)
        })
    }

    /// Writes what is trained into a directory that is there.
    pub(super) fn write_trained(&self, directory: &Path) -> Result<()> {
        self.write(directory, &self.taken(true))
    }

    fn write(&self, directory: &Path, tensors: &BTreeMap<String, Numbers>) -> Result<()> {
        write_config(directory, self.about.json.clone())?;
        for (name, contents) in &self.about.files {
            files::write(&directory.join(name), contents)?;
        }
        files::write_tensors(&directory.join("model.safetensors"), tensors)
    }

    /// Takes what is trained from such a directory.
    pub(super) fn read_trained(self, directory: &Path) -> Result<Self> {
        struct Put<'a> {
            names: &'a BTreeMap<u64, String>,
            tensors: BTreeMap<String, Numbers>,
            problem: Option<String>,
        }

        impl<B: Backend> ModuleMapper<B> for Put<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
                let name = &self.names[&param.id.val()];
                param.map(|tensor| {
                    if !tensor.is_require_grad() {
                        return tensor;
                    }
                    let shape = tensor.dims();
                    match self.tensors.remove(name) {
                        Some(numbers) if numbers.shape == shape => {
                            let numbers = TensorData::new(numbers.values, shape);
                            Tensor::from_data(numbers, &tensor.device()).require_grad()
                        }
                        found => {
                            let found = found.map_or("missing".into(), |found| format!("{:?}", found.shape));
                            self.problem = Some(format!("tensor `{name}` is {found}, expected {shape:?}"));
                            tensor
                        }
                    }
                })
            }
        }

        let about = self.about.clone();
        let path = directory.join("model.safetensors");
        let mut put = Put { names: &about.names, tensors: files::read_tensors(&path)?, problem: None };
        let model = self.map(&mut put);
        let left = put.tensors.keys().next().map(|name| format!("tensor `{name}` is none of this model's"));
        match put.problem.or(left) {
            Some(reason) => Err(TrainError::Broken { path, reason }),
            None => Ok(model),
        }
    }
}

/// The configuration of weights in f32.
pub(super) fn write_config(directory: &Path, mut json: Map<String, Value>) -> Result<()> {
    for field in ["torch_dtype", "dtype"] {
        if json.contains_key(field) {
            json.insert(field.into(), "float32".into());
        }
    }
    let json = serde_json::to_string_pretty(&Value::Object(json)).expect("an object is JSON");
    files::write(&directory.join("config.json"), (json + "\n").as_bytes())
}
