//! The tensors of one file, whatever its format: where each lies, and how its numbers are read.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};

use crate::{
    error::{LoadError, Result},
    pytorch, safetensors,
};

/// How much of a tensor is held as bytes while it is converted.
const CHUNK: usize = 1 << 20;

/// How the numbers of a tensor are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    F32,
    F16,
    Bf16,
    /// Anything else, by the name its file gives it; an error only if the tensor is read.
    Other(String),
}

impl Stored {
    /// Bytes of one number, where they can be read.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::Other(_) => None,
        }
    }
}

/// Where a tensor lies in its file, row-major and little-endian. Whoever makes one has checked that it lies within.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<usize>,
    pub(crate) begin: u64,
}

/// A file of tensors.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    path: PathBuf,
    tensors: BTreeMap<String, Place>,
}

impl WeightsFile {
    /// Reads what a file says of its tensors, by its ending: a zip archive of PyTorch (`.bin`), or else safetensors.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = |source| LoadError::Read { path: path.into(), source };
        // Opening a pipe would wait for a writer.
        let metadata = fs::metadata(path).map_err(read)?;
        if !metadata.is_file() {
            return Err(LoadError::Broken { path: path.into(), reason: "it is not a file".into() });
        }
        let file = File::open(path).map_err(read)?;
        let tensors = if path.extension().is_some_and(|ending| ending == "bin") {
            pytorch::tensors(file, metadata.len())
        } else {
            safetensors::tensors(file, metadata.len())
        };
        let broken = |reason| LoadError::Broken { path: path.into(), reason };
        Ok(Self { path: path.into(), tensors: tensors.map_err(broken)? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// How many numbers a tensor has, 0 if there is none of that name.
    pub(crate) fn elements(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |place| place.shape.iter().product::<usize>() as u64)
    }

    /// The values of a tensor of this shape, row-major, as f32; all of them finite. The file is never held whole, nor the
    /// tensor's bytes beside its values.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let wrong = |problem| LoadError::Tensor { path: self.path.clone(), name: name.into(), problem };
        let place = self.tensors.get(name).ok_or_else(|| wrong("is missing".into()))?;
        if place.shape != shape {
            return Err(wrong(format!("has the shape {:?}, expected {shape:?}", place.shape)));
        }
        let convert: fn(&[u8], &mut Vec<f32>) = match &place.stored {
            Stored::F32 => |bytes, to| to.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Stored::F16 => |bytes, to| to.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Stored::Bf16 => |bytes, to| to.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
            Stored::Other(name) => return Err(wrong(format!("has the type {name}, expected F32, F16 or BF16"))),
        };
        let read = |source| LoadError::Read { path: self.path.clone(), source };
        let count: usize = shape.iter().product();
        let mut left = count * place.stored.size().unwrap_or_default();
        let mut file = File::open(&self.path).map_err(read)?;
        file.seek(SeekFrom::Start(place.begin)).map_err(read)?;
        let mut values: Vec<f32> = Vec::with_capacity(count);
        let mut chunk = vec![0; left.min(CHUNK)];
        while left > 0 {
            let part = left.min(CHUNK);
            file.read_exact(&mut chunk[..part]).map_err(read)?;
            let before = values.len();
            convert(&chunk[..part], &mut values);
            if let Some(at) = values[before..].iter().position(|value| !value.is_finite()) {
                let at = before + at;
                return Err(wrong(format!("holds {} at entry {at}, expected finite numbers", values[at])));
            }
            left -= part;
        }
        Ok(values)
    }
}
