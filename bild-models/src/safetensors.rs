//! One safetensors file, read a tensor at a time: the file is never held whole.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{Dtype, tensor::Metadata};

use crate::error::{LoadError, Result};

/// The most that a header may take; the format's own limit is as high.
const LONGEST_HEADER: u64 = 100_000_000;

#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    metadata: Metadata,
    /// Where the tensors begin.
    data: u64,
}

impl SafetensorsFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = |source| LoadError::Read { path: path.into(), source };
        let broken = |reason: String| LoadError::Broken { path: path.into(), reason };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        if length < 8 {
            return Err(broken(format!("it has {length} bytes, a safetensors file has more than 8")));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(read)?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER || size > length - 8 {
            return Err(broken(format!(
                "it says that its header has {size} bytes, but the file has {length}: it is cut off or not a safetensors file"
            )));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(read)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| broken(format!("its header makes no sense: {error}")))?;
        let (data, expected) = (8 + size, 8 + size + metadata.data_len() as u64);
        if length != expected {
            return Err(broken(format!("it has {length} bytes where its header promises {expected}")));
        }
        Ok(Self { path: path.into(), metadata, data })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// The values of a tensor of this shape, row-major, as f32; all of them finite.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let wrong = |problem| LoadError::Tensor { path: self.path.clone(), name: name.into(), problem };
        let info = self.metadata.info(name).ok_or_else(|| wrong("is missing".into()))?;
        if info.shape != shape {
            return Err(wrong(format!("has the shape {:?}, expected {shape:?}", info.shape)));
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(wrong(format!("has the type {:?}, expected F32, F16 or BF16", info.dtype)));
        }
        let read = |source| LoadError::Read { path: self.path.clone(), source };
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        let mut file = File::open(&self.path).map_err(read)?;
        file.seek(SeekFrom::Start(self.data + begin as u64)).map_err(read)?;
        file.read_exact(&mut bytes).map_err(read)?;
        let two = |convert: fn([u8; 2]) -> f32| bytes.as_chunks().0.iter().map(|&b| convert(b)).collect();
        let values: Vec<f32> = match info.dtype {
            Dtype::F16 => two(|b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => two(|b| bf16::from_le_bytes(b).to_f32()),
            _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        };
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(wrong(format!("holds {} at entry {at}, expected finite numbers", values[at]))),
            None => Ok(values),
        }
    }
}
