//! The tensors of one file, whatever its format: where each lies, and how its numbers are read.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use half::{bf16, f16};

use crate::{
    error::{LoadError, Result},
    files::{BEGINNING, Opened, Stored, foreign_to_binary},
};

/// How many values are read at a time where nothing else decides it.
const CHUNK: usize = 1 << 17;

/// Of how many runs of how many values a sample of a tensor is made.
const RUNS: usize = 8;
const RUN: usize = 32;

/// How the numbers of a tensor are stored.
#[cfg_attr(not(any(feature = "safetensors", feature = "pytorch")), allow(dead_code))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    /// Anything else, by the name its file gives it; an error only if the tensor is read.
    Other(String),
}

impl Kind {
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
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<usize>,
    pub(crate) begin: u64,
}

/// A file of tensors.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    file: Stored,
    tensors: BTreeMap<String, Place>,
}

impl WeightsFile {
    /// Reads what a file says of its tensors, by its ending: a zip archive of PyTorch (`.bin`), or else safetensors.
    pub(crate) fn open(file: Stored) -> Result<Self> {
        let length = file.length()?;
        let read = |source| LoadError::Read { path: file.path().into(), source };
        let mut opened = file.open()?;
        let mut beginning = Vec::new();
        opened.by_ref().take(BEGINNING as u64).read_to_end(&mut beginning).map_err(read)?;
        opened.rewind().map_err(read)?;
        let tensors = match foreign_to_binary(&beginning) {
            Some(reason) => Err(reason),
            None => tensors(&file, opened, length),
        };
        match tensors {
            Ok(tensors) => Ok(Self { file, tensors }),
            Err(reason) => Err(LoadError::Broken { path: file.path().into(), reason }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, if there is one of that name that can be read.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).filter(|place| place.kind.size().is_some()).map(|place| &*place.shape)
    }

    /// The values of a tensor of this shape, row-major, as f32; all of them finite.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        self.read_parts(name, shape, CHUNK, |part| {
            if values.is_empty() {
                values.reserve_exact(shape.iter().product());
            }
            values.extend_from_slice(part);
        })?;
        Ok(values)
    }

    /// As [`read`](Self::read), in order and in parts of `length` values, the last of which may be shorter. Neither the
    /// file nor the tensor is ever held whole.
    pub(crate) fn read_parts(
        &self,
        name: &str,
        shape: &[usize],
        length: usize,
        take: impl FnMut(&[f32]),
    ) -> Result<()> {
        let mut values = self.values(name)?;
        if values.place.shape != shape {
            return Err(values.wrong(format!("has the shape {:?}, expected {shape:?}", values.place.shape)));
        }
        values.read(0..shape.iter().product(), length, take)
    }

    /// The shape of a tensor and its values or, of a longer one, some runs of them, spread evenly from the first value to the last.
    pub(crate) fn sample(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let mut values = self.values(name)?;
        let count: usize = values.place.shape.iter().product();
        let mut sample = Vec::with_capacity(count.min(RUNS * RUN));
        let (runs, run) = if count > RUNS * RUN { (RUNS, RUN) } else { (1, count) };
        for i in 0..runs {
            let begin = i * (count - run) / (RUNS - 1);
            values.read(begin..begin + run, run.max(1), |part| sample.extend_from_slice(part))?;
        }
        Ok((values.place.shape.clone(), sample))
    }

    /// Whether a tensor has the same shape and values as one of a file that may be another. Neither is ever held whole.
    pub(crate) fn equal(&self, name: &str, other: &Self, other_name: &str) -> Result<bool> {
        let (mut values, mut others) = (self.values(name)?, other.values(other_name)?);
        let (place, other_place) = (values.place, others.place);
        if place.shape != other_place.shape {
            return Ok(false);
        }
        // A file of PyTorch stores what is there by several names once.
        if self.path() == other.path() && (&place.kind, place.begin) == (&other_place.kind, other_place.begin) {
            return Ok(true);
        }
        let count: usize = place.shape.iter().product();
        let (mut part, mut other_part) = (Vec::new(), Vec::new());
        for begin in (0..count).step_by(CHUNK) {
            let range = begin..count.min(begin + CHUNK);
            part.clear();
            other_part.clear();
            values.read(range.clone(), CHUNK, |found| part.extend_from_slice(found))?;
            others.read(range, CHUNK, |found| other_part.extend_from_slice(found))?;
            if part != other_part {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn values<'a>(&'a self, name: &'a str) -> Result<Values<'a>> {
        let path = self.path();
        let wrong = |problem| LoadError::Tensor { path: path.into(), name: name.into(), problem };
        let place = self.tensors.get(name).ok_or_else(|| wrong("is missing".into()))?;
        Ok(Values { path, name, place, file: self.file.open()? })
    }
}

/// The values of one tensor, in an open file.
struct Values<'a> {
    path: &'a Path,
    name: &'a str,
    place: &'a Place,
    file: Opened,
}

impl Values<'_> {
    fn wrong(&self, problem: String) -> LoadError {
        LoadError::Tensor { path: self.path.into(), name: self.name.into(), problem }
    }

    /// Those of a range, in order and in parts of `length`, as f32; all of them finite.
    fn read(&mut self, range: Range<usize>, length: usize, mut take: impl FnMut(&[f32])) -> Result<()> {
        let convert: fn(&[u8], &mut Vec<f32>) = match &self.place.kind {
            Kind::F32 => |bytes, to| to.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Kind::F16 => |bytes, to| to.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Kind::Bf16 => |bytes, to| to.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
            Kind::Other(name) => return Err(self.wrong(format!("has the type {name}, expected F32, F16 or BF16"))),
        };
        let read = |source| LoadError::Read { path: self.path.into(), source };
        let size = self.place.kind.size().unwrap_or_default();
        let begin = self.place.begin + (range.start * size) as u64;
        self.file.seek(SeekFrom::Start(begin)).map_err(read)?;
        let most = range.len().min(length);
        let (mut bytes, mut values) = (vec![0; most * size], Vec::with_capacity(most));
        let mut at = range.start;
        while at < range.end {
            let part = &mut bytes[..(range.end - at).min(length) * size];
            self.file.read_exact(part).map_err(read)?;
            values.clear();
            convert(part, &mut values);
            if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
                let (value, at) = (values[bad], at + bad);
                return Err(self.wrong(format!("holds {value} at entry {at}, expected finite numbers")));
            }
            take(&values);
            at += values.len();
        }
        Ok(())
    }
}

/// What a file says of its tensors, by its ending: a zip archive of PyTorch (`.bin`), or else safetensors.
#[cfg_attr(not(all(feature = "safetensors", feature = "pytorch")), allow(unused_variables))]
fn tensors(file: &Stored, opened: Opened, length: u64) -> Result<BTreeMap<String, Place>, String> {
    let is_pytorch = file.path().extension().is_some_and(|ending| ending == "bin");
    #[cfg(feature = "pytorch")]
    if is_pytorch {
        return super::pytorch::tensors(opened, length);
    }
    #[cfg(feature = "safetensors")]
    if !is_pytorch {
        return super::safetensors::tensors(opened, length);
    }
    let feature = if is_pytorch { "pytorch" } else { "safetensors" };
    Err(format!("this program was built without the feature `{feature}`, which reads it"))
}
