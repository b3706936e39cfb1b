//! A `pytorch_model.bin`: a zip archive with a pickled state dict and, beside it, the storages of its tensors as they lie
//! in memory. torch.save writes it since PyTorch 1.6, nothing in it compressed.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    ops::Range,
};

use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ReaderAt, ZipArchive};

use super::{
    pickle::{self, TensorView},
    weights::{Kind, Place},
};
use crate::files::Opened;

/// The most that a pickle may take; one of a thousand tensors has some 200 kB.
const LONGEST_PICKLE: u64 = 1 << 21;

/// What a file of PyTorch before 1.6 begins with, behind the protocol: a pickled number.
const OLD: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19";

/// Where the tensors of a file of `length` bytes lie, or what is wrong with it.
pub(crate) fn tensors(mut file: Opened, length: u64) -> Result<BTreeMap<String, Place>, String> {
    let mut magic = [0; 14];
    if file.read_exact(&mut magic).is_ok() && !magic.starts_with(b"PK\x03\x04") {
        let instead = if magic[2..] == *OLD {
            " but in the format of PyTorch before 1.6: load it in Python and save it again"
        } else if magic[8..].starts_with(b"{\"") {
            " but a safetensors file, which is named model.safetensors"
        } else {
            ""
        };
        return Err(format!("it is not a zip archive as torch.save writes it{instead}"));
    }
    let not_zip = |error: rawzip::Error| format!("it is cut off or not a zip archive of PyTorch: {error}");
    let archive = ZipArchive::from_seekable(file, &mut vec![0; RECOMMENDED_BUFFER_SIZE]).map_err(not_zip)?;
    let entries = entries(&archive, length)?;
    let pickles: Vec<&String> = entries.keys().filter(|name| name.ends_with("/data.pkl")).collect();
    let [pickle_name] = pickles[..] else {
        return Err(format!("it holds {} files data.pkl, a model of PyTorch has one", pickles.len()));
    };
    let root = pickle_name.strip_suffix("data.pkl").unwrap_or_default();
    if let Some(place) = entries.get(&format!("{root}byteorder"))
        && contents(&archive, place, 16)? == b"big"
    {
        return Err("it was saved on a big-endian machine".into());
    }
    let pickle = contents(&archive, &entries[pickle_name], LONGEST_PICKLE)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in pickle::state_dict(&pickle)? {
        let storage = entries.get(&format!("{root}data/{}", view.storage.key));
        let place = place(&view, storage).map_err(|problem| format!("tensor `{name}` {problem}"))?;
        tensors.insert(name, place);
    }
    Ok(tensors)
}

/// The range of every file in the archive. What is compressed, overlaps or does not lie within the archive is refused, so
/// no file takes more memory than it takes on disk.
fn entries(archive: &ZipArchive<impl ReaderAt>, length: u64) -> Result<HashMap<String, Range<u64>>, String> {
    let wrong = |error: rawzip::Error| format!("its zip directory makes no sense: {error}");
    let (mut entries, mut checksums) = (HashMap::new(), Vec::new());
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let mut directory = archive.entries(&mut buffer);
    while let Some(entry) = directory.next_entry().map_err(wrong)? {
        let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        if entry.compression_method() != CompressionMethod::STORE
            || entry.compressed_size_hint() != entry.uncompressed_size_hint()
        {
            return Err(format!("its entry {name} is compressed, which torch.save never does"));
        }
        let (begin, end) = archive.get_entry(entry.wayfinder()).map_err(wrong)?.compressed_data_range();
        if end > length {
            return Err(format!("its entry {name} ends at byte {end}, but the file has {length}"));
        }
        checksums.push((begin..end, entry.crc32(), name.clone()));
        if entries.insert(name.clone(), begin..end).is_some() {
            return Err(format!("its entry {name} is there twice"));
        }
    }
    if entries.len() as u64 != archive.entries_hint() {
        return Err(format!("it holds {} entries where it promises {}", entries.len(), archive.entries_hint()));
    }
    let mut ranges: Vec<_> = entries.values().filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err("its entries overlap".into());
    }
    checksums.sort_unstable_by_key(|(range, _, _)| range.start);
    checksums.iter().try_for_each(|(range, crc, name)| check(archive, range, *crc, name))?;
    Ok(entries)
}

/// Reads an entry as it stands and compares it with its checksum. torch.save can be told to leave that out.
fn check(archive: &ZipArchive<impl ReaderAt>, range: &Range<u64>, expected: u32, name: &str) -> Result<(), String> {
    if expected == 0 {
        return Ok(());
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = range.start;
    while at < range.end {
        let part = &mut buffer[..(range.end - at).min(1 << 20) as usize];
        archive.get_ref().read_exact_at(part, at).map_err(|error| error.to_string())?;
        hasher.update(part);
        at += part.len() as u64;
    }
    match hasher.finalize() {
        found if found == expected => Ok(()),
        found => Err(format!("its entry {name} is damaged: its checksum is {found:08x}, expected {expected:08x}")),
    }
}

fn contents(archive: &ZipArchive<impl ReaderAt>, place: &Range<u64>, most: u64) -> Result<Vec<u8>, String> {
    let length = place.end - place.start;
    if length > most {
        return Err(format!("its entry at byte {} has {length} bytes, expected at most {most}", place.start));
    }
    let mut contents = vec![0; length as usize];
    archive.get_ref().read_exact_at(&mut contents, place.start).map_err(|error| error.to_string())?;
    Ok(contents)
}

/// Where a tensor lies, given the range of its storage.
fn place(view: &TensorView, storage: Option<&Range<u64>>) -> Result<Place, String> {
    let TensorView { storage: of, offset, shape, strides } = view;
    let storage = storage.ok_or_else(|| format!("lies in the storage {}, which is missing", of.key))?;
    let kind = match &*of.kind {
        "FloatStorage" => Kind::F32,
        "HalfStorage" => Kind::F16,
        "BFloat16Storage" => Kind::Bf16,
        other => Kind::Other(other.into()),
    };
    let too_large = || format!("has the shape {shape:?} at {offset}, beyond its storage of {storage:?}");
    let count = shape.iter().try_fold(1usize, |count, &length| count.checked_mul(length)).ok_or_else(too_large)?;
    // What cannot be read is not looked into.
    let Some(size) = kind.size() else {
        return Ok(Place { kind, shape: shape.clone(), begin: storage.start });
    };
    let bytes = |count: usize| count.checked_mul(size).and_then(|bytes| u64::try_from(bytes).ok());
    let begin = bytes(*offset).and_then(|skipped| storage.start.checked_add(skipped)).ok_or_else(too_large)?;
    let end = bytes(count).and_then(|length| begin.checked_add(length)).ok_or_else(too_large)?;
    if end > storage.end {
        return Err(too_large());
    }
    if strides.len() != shape.len() {
        return Err(format!("has {} strides for {} dimensions", strides.len(), shape.len()));
    }
    let mut stride = 1;
    for (length, found) in shape.iter().zip(strides).rev().take_while(|_| count > 0) {
        if *length > 1 && *found != stride {
            return Err(format!("has the strides {strides:?}: only row-major tensors are read"));
        }
        stride *= length;
    }
    Ok(Place { kind, shape: shape.clone(), begin })
}
