//! Files that a model comes in, in a directory or in memory, read with a sentence for whatever can be wrong with them.

mod foreign;
pub(crate) mod json;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use crate::error::{LoadError, Result};

pub(crate) use foreign::{BEGINNING, foreign, foreign_to_binary};

/// The most bytes of a file that is read whole; an mT5's tokenizer.json has 16 MB.
const LONGEST_FILE: u64 = 64 << 20;

/// A directory, or files in memory by their names.
#[derive(Clone, Debug)]
pub(crate) enum Folder {
    Directory(PathBuf),
    Memory(Arc<BTreeMap<String, Arc<[u8]>>>),
}

impl Folder {
    /// The path of the directory; of files in memory, nothing.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Memory(_) => Path::new(""),
        }
    }

    /// A file, which need not be there.
    pub(crate) fn file(&self, name: &str) -> Stored {
        match self {
            Self::Directory(directory) => Stored { path: directory.join(name), contents: Contents::OnDisk },
            Self::Memory(files) => Stored {
                path: name.into(),
                contents: files.get(name).map_or(Contents::Nothing, |bytes| Contents::InMemory(bytes.clone())),
            },
        }
    }

    /// The names of its files, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Directory(directory) => {
                let entries = fs::read_dir(directory).into_iter().flatten().flatten();
                let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
                names.sort();
                names
            }
            Self::Memory(files) => files.keys().cloned().collect(),
        }
    }
}

/// A file, on disk or in memory.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    path: PathBuf,
    contents: Contents,
}

#[derive(Clone, Debug)]
enum Contents {
    OnDisk,
    InMemory(Arc<[u8]>),
    Nothing,
}

/// An open file.
#[derive(Debug)]
pub(crate) enum Opened {
    OnDisk(fs::File),
    InMemory(Cursor<Arc<[u8]>>),
}

impl Stored {
    /// The file at this path.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.into(), contents: Contents::OnDisk }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        match self.contents {
            // A link that leads nowhere is there too, and says so when it is opened.
            Contents::OnDisk => fs::symlink_metadata(&self.path).is_ok(),
            Contents::InMemory(_) => true,
            Contents::Nothing => false,
        }
    }

    fn unreadable(&self, source: io::Error) -> LoadError {
        LoadError::Read { path: self.path.clone(), source }
    }

    fn broken(&self, reason: String) -> LoadError {
        LoadError::Broken { path: self.path.clone(), reason }
    }

    /// The length of a file, which must be one: opening a pipe would wait for a writer.
    pub(crate) fn length(&self) -> Result<u64> {
        match &self.contents {
            Contents::OnDisk => {
                let metadata = fs::metadata(&self.path).map_err(|error| self.unreadable(error))?;
                if !metadata.is_file() {
                    return Err(self.broken("it is not a file".into()));
                }
                Ok(metadata.len())
            }
            Contents::InMemory(bytes) => Ok(bytes.len() as u64),
            Contents::Nothing => Err(self.unreadable(io::ErrorKind::NotFound.into())),
        }
    }

    pub(crate) fn open(&self) -> Result<Opened> {
        match &self.contents {
            Contents::OnDisk => fs::File::open(&self.path).map(Opened::OnDisk).map_err(|error| self.unreadable(error)),
            Contents::InMemory(bytes) => Ok(Opened::InMemory(Cursor::new(bytes.clone()))),
            Contents::Nothing => Err(self.unreadable(io::ErrorKind::NotFound.into())),
        }
    }

    /// The contents of a file that is neither empty nor endless.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match self.length()? {
            0 => Err(self.broken("it is empty".into())),
            length if length > LONGEST_FILE => {
                Err(self.broken(format!("it has {length} bytes, more than any such file")))
            }
            length => {
                let mut contents = Vec::with_capacity(length as usize);
                self.open()?.read_to_end(&mut contents).map_err(|error| self.unreadable(error))?;
                match foreign(&contents[..contents.len().min(BEGINNING)]) {
                    Some(reason) => Err(self.broken(reason)),
                    None => Ok(contents),
                }
            }
        }
    }

    /// The JSON object that it holds.
    pub(crate) fn json(&self) -> Result<Value> {
        let bytes = self.read()?;
        let value = json::parse(&bytes).map_err(|reason| self.broken(reason))?;
        if value.is_object() { Ok(value) } else { Err(self.broken("it is not a JSON object".into())) }
    }
}

/// The contents of a file of text. Some editors put a mark before them, which is no part of the text.
pub(crate) fn without_byte_order_mark(contents: &[u8]) -> &[u8] {
    contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents)
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::OnDisk(file) => file.read(buffer),
            Self::InMemory(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::OnDisk(file) => file.seek(to),
            Self::InMemory(bytes) => bytes.seek(to),
        }
    }
}
