//! The header of a safetensors file.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
    io::Read,
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::weights::{Kind, Place};
use crate::files::Opened;

/// The most that a header may take; the format's own limit is as high.
const LONGEST_HEADER: u64 = 100_000_000;

/// Where the tensors of a file of `length` bytes lie, or what is wrong with it.
pub(crate) fn tensors(mut file: Opened, length: u64) -> Result<BTreeMap<String, Place>, String> {
    let unreadable = |error: std::io::Error| error.to_string();
    if length < 8 {
        return Err(format!("it has {length} bytes, a safetensors file has more than 8"));
    }
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(unreadable)?;
    if size.starts_with(b"PK\x03\x04") {
        return Err("it is a zip archive as torch.save writes it, which is named pytorch_model.bin".into());
    }
    let size = u64::from_le_bytes(size);
    if size > LONGEST_HEADER || size > length - 8 {
        return Err(format!(
            "it says that its header has {size} bytes, but the file has {length}: it is cut off or not a safetensors file"
        ));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(unreadable)?;
    let nonsense = |error: &dyn fmt::Display| format!("its header makes no sense: {error}");
    let Header(tensors) = serde_json::from_slice(&header).map_err(|error| nonsense(&error))?;
    // Checks that shapes, types and offsets agree and that the tensors follow each other without overlap or hole.
    let metadata = Metadata::new(None, tensors).map_err(|error| nonsense(&error))?;
    let (begin, data) = (8 + size, metadata.data_len() as u64);
    if begin.checked_add(data) != Some(length) {
        return Err(format!("it has {length} bytes where its header promises {}", begin.saturating_add(data)));
    }
    let place = |info: &TensorInfo| Place {
        kind: match info.dtype {
            Dtype::F32 => Kind::F32,
            Dtype::F16 => Kind::F16,
            Dtype::BF16 => Kind::Bf16,
            other => Kind::Other(format!("{other:?}")),
        },
        shape: info.shape.clone(),
        begin: begin + info.data_offsets.0 as u64,
    };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, place(info))).collect())
}

/// The tensors in the order of their offsets. Read entry by entry, because a map would keep the last of two tensors that
/// share a name.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from tensor to type, shape and offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors: HashMap<String, TensorInfo> = HashMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                        continue;
                    }
                    match tensors.entry(name) {
                        Entry::Occupied(entry) => {
                            return Err(A::Error::custom(format!("tensor `{}` is there twice", entry.key())));
                        }
                        Entry::Vacant(entry) => drop(entry.insert(map.next_value()?)),
                    }
                }
                let mut tensors: Vec<_> = tensors.into_iter().collect();
                tensors.sort_by_key(|(_, info)| info.data_offsets);
                Ok(Header(tensors))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
