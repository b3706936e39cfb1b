//! Files that are there whole or not at all.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::error::{Result, TrainError, file};

/// The numbers of a tensor, and its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// Row-major.
    pub values: Vec<f32>,
    /// The length of each dimension.
    pub shape: Vec<usize>,
}

/// Where a test stops the writer, as a kill would.
#[cfg(test)]
pub(crate) mod kill {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// After so many more steps of writing on this thread, nothing is done any more.
    pub(crate) fn after(steps: Option<usize>) {
        LEFT.set(steps);
    }

    pub(super) fn check() -> std::io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(std::io::Error::other("killed")),
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(not(test))]
mod kill {
    pub(super) fn check() -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let steps = || {
        kill::check()?;
        let mut file = File::create(path)?;
        kill::check()?;
        let (half, rest) = contents.split_at(contents.len() / 2);
        file.write_all(half)?;
        kill::check()?;
        file.write_all(rest)?;
        file.sync_all()
    };
    steps().map_err(file(path, "written"))
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    // Not every system lets a directory be opened; those that do not order its changes themselves.
    if let Ok(directory) = File::open(path) {
        directory.sync_all()?;
    }
    Ok(())
}

/// Fills a directory beside `directory` and, once all of it is on the disk, gives it its name. One of that name is replaced.
pub(crate) fn publish(directory: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = match directory.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(file(parent, "made"))?;
    let [partial, old] = ["partial", "old"].map(|kind| parent.join(format!(".{name}.{kind}")));
    remove(&partial)?;
    fs::create_dir(&partial).map_err(file(&partial, "made"))?;
    fill(&partial)?;
    let steps = || {
        sync_directory(&partial)?;
        kill::check()?;
        if directory.exists() {
            // Two names cannot change at once; whoever finds no directory looks for the old one.
            if old.exists() {
                fs::remove_dir_all(&old)?;
            }
            fs::rename(directory, &old)?;
        }
        kill::check()?;
        fs::rename(&partial, directory)?;
        kill::check()?;
        sync_directory(parent)
    };
    steps().map_err(file(directory, "written"))?;
    remove(&old)
}

/// Removes a directory, if it is there.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    if fs::symlink_metadata(directory).is_err() {
        return Ok(());
    }
    let removed = kill::check().and_then(|()| fs::remove_dir_all(directory));
    removed.map_err(file(directory, "removed"))
}

/// The directories in a directory, none if it is not there.
pub(crate) fn directories(parent: &Path) -> Result<Vec<PathBuf>> {
    if fs::symlink_metadata(parent).is_err() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(parent).map_err(file(parent, "read"))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// Writes tensors as safetensors, in f32.
pub(crate) fn write_tensors(path: &Path, tensors: &BTreeMap<String, Numbers>) -> Result<()> {
    let bytes: Vec<(&str, Vec<u8>, &[usize])> = tensors
        .iter()
        .map(|(name, numbers)| {
            let bytes = numbers.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (&name[..], bytes, &numbers.shape[..])
        })
        .collect();
    let broken = |reason: String| TrainError::Broken { path: path.into(), reason };
    let views = bytes
        .iter()
        .map(|(name, bytes, shape)| TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (*name, view)));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(|error| broken(error.to_string()))?;
    // transformers 4 reads no file that does not say this.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let contents = safetensors::serialize(views, Some(about)).map_err(|error| broken(error.to_string()))?;
    write(path, &contents)
}

/// Reads such a file.
pub(crate) fn read_tensors(path: &Path) -> Result<BTreeMap<String, Numbers>> {
    let contents = fs::read(path).map_err(file(path, "read"))?;
    let broken = |reason: String| TrainError::Broken { path: path.into(), reason };
    let tensors = SafeTensors::deserialize(&contents).map_err(|error| broken(error.to_string()))?;
    let numbers = |(name, view): (String, TensorView<'_>)| {
        if view.dtype() != Dtype::F32 {
            return Err(broken(format!("tensor `{name}` is {:?}, expected F32", view.dtype())));
        }
        let values = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Ok((name, Numbers { values, shape: view.shape().into() }))
    };
    tensors.tensors().into_iter().map(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However far a write comes, what was there before is there, or what was to be.
    #[test]
    fn a_kill_leaves_one_or_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place");
        let save = |value: f32| {
            let numbers = Numbers { values: vec![value; 3], shape: vec![3] };
            let tensors = BTreeMap::from([("x".to_owned(), numbers)]);
            publish(&place, |partial| {
                write_tensors(&partial.join("tensors"), &tensors)?;
                write(&partial.join("state"), format!("{value}").as_bytes())
            })
        };
        save(0.0).unwrap();
        let mut last = 0.0;
        for step in 1.. {
            kill::after(Some(step));
            let saved = save(step as f32);
            kill::after(None);
            // Between two renames the old one has another name.
            let old = directory.path().join(".place.old");
            let there = if place.exists() { &place } else { &old };
            let found = read_tensors(&there.join("tensors")).unwrap()["x"].values[0];
            assert_eq!(fs::read_to_string(there.join("state")).unwrap(), format!("{found}"));
            assert!(found == last || found == step as f32, "{found} after {last} at {step}");
            last = found;
            if saved.is_ok() {
                assert!(step > 7 && found == step as f32);
                return;
            }
            if !place.exists() {
                fs::rename(&old, &place).unwrap();
            }
        }
    }
}
