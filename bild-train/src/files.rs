//! Files that are there whole or not at all.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use bild::Checkpoint;
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

/// The directory that `directory` lies in, and the names there of what becomes it and of what it was.
fn places(directory: &Path) -> (&Path, [PathBuf; 2]) {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = match directory.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    (parent, ["partial", "old"].map(|kind| parent.join(format!(".{name}.{kind}"))))
}

/// Fills a directory beside `directory` and, once all of it is on the disk, gives it its name. One of that name is replaced.
pub(crate) fn publish(directory: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (parent, [partial, old]) = places(directory);
    fs::create_dir_all(parent).map_err(file(parent, "made"))?;
    recover(directory)?;
    remove(&partial)?;
    fs::create_dir(&partial).map_err(file(&partial, "made"))?;
    if let Err(error) = fill(&partial) {
        // It would stay on a disk that may be full.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    let steps = || {
        sync_directory(&partial)?;
        kill::check()?;
        if directory.exists() {
            if old.exists() {
                fs::remove_dir_all(&old)?;
            }
            // Two names cannot change at once: a kill between this and the next is what `recover` is for.
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

/// Gives a directory its name back, if a kill left it without one while another was to take its place.
fn recover(directory: &Path) -> Result<()> {
    let (_, [_, old]) = places(directory);
    if fs::symlink_metadata(directory).is_ok() || !old.is_dir() {
        return Ok(());
    }
    fs::rename(&old, directory).map_err(file(&old, "renamed"))
}

/// What a model's directory may have in it beside weights and what a [`Checkpoint`] has.
const BESIDE: [&str; 6] =
    ["README.md", "alignment.json", "curve.svg", "policy.json", "shortlist.json", "model.safetensors.index.json"];

/// Refuses a directory that a model cannot be written to, because replacing it would remove anything but a model, or one of `read`
/// or `work`; or because it lies in `work`, which is where the model is made. A model that a kill left under another name, while one
/// like it was to take its place, is given its name back before.
///
/// # Errors
///
/// If it is refused, or cannot be given its name back.
pub fn check_replaceable(directory: &Path, read: &[&Path], work: &Path) -> Result<()> {
    let refuse = |why: String| Err(TrainError::Settings(format!("{} cannot be written: {why}", directory.display())));
    if directory.file_name().is_none() {
        return refuse("it has no name of its own".into());
    }
    recover(directory)?;
    if let Some(other) = other_than_a_model(directory) {
        return refuse(format!("it is there with {other}, which is of no model and would be lost"));
    }
    let place = resolved(directory);
    if let Some(kept) = read.iter().chain([&work]).find(|kept| resolved(kept).starts_with(&place)) {
        return refuse(format!("{} would be lost", kept.display()));
    }
    if place.starts_with(resolved(work)) { refuse(format!("it lies in {}", work.display())) } else { Ok(()) }
}

/// The first thing in a directory, if it is there, that a model's directory does not have.
fn other_than_a_model(directory: &Path) -> Option<String> {
    if fs::symlink_metadata(directory).is_ok() && !directory.is_dir() {
        return Some("no folder".into());
    }
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let is_of_a_model = |name: &String| {
        let name = &**name;
        let is_weights = [".safetensors", ".bin"].iter().any(|ending| name.ends_with(ending));
        directory.join(name).is_file() && (is_weights || BESIDE.contains(&name) || Checkpoint::FILES.contains(&name))
    };
    names.into_iter().find(|name| !is_of_a_model(name))
}

/// A path as the system sees it, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let found = path.ancestors().find_map(|there| Some((there.canonicalize().ok()?, path.strip_prefix(there).ok()?)));
    found.map_or_else(|| path.clone(), |(there, rest)| there.components().chain(rest.components()).collect())
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

    #[test]
    fn what_is_no_model_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (folder, file) in [
            ("big", "config.json"),
            ("notes", "notes.txt"),
            ("project", "config.json"),
            ("work", "outputs.bin"),
            ("old", "config.json"),
            ("old", "model.safetensors"),
        ] {
            fs::create_dir_all(at(folder)).unwrap();
            fs::write(at(folder).join(file), "{}").unwrap();
        }
        fs::create_dir_all(at("project/src")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        let check = |out: &Path, work: &Path| {
            check_replaceable(out, &[&at("big"), &at("texts/all.de")], work).map_err(|error| error.to_string())
        };
        for fine in ["new", "old", "old/", "empty", "big/draft", "big-and-more"] {
            check(&at(fine), &at("work")).unwrap();
        }
        for (refused, why) in [
            ("big", "big would be lost"),
            ("texts", "all.de would be lost"),
            ("notes", "notes.txt, which is of no model"),
            ("notes/notes.txt", "no folder"),
            ("project", "src, which is of no model"),
            ("work/out", "it lies in"),
            ("old/..", "it has no name"),
        ] {
            let sentence = check(&at(refused), &at("work")).unwrap_err();
            assert!(sentence.contains(why), "{refused}: {sentence}");
        }
        // Also where nothing is there yet, and with names that begin where the program does.
        for [out, work] in [["model", "model/work"], ["./model", "model/x/../work"]] {
            assert!(check(Path::new(out), Path::new(work)).unwrap_err().contains("would be lost"), "{out}");
        }
        assert!(check(Path::new("work/model"), Path::new("work")).unwrap_err().contains("it lies in work"));
        check(Path::new("model"), Path::new("model.work")).unwrap();
    }

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
            recover(&place).unwrap();
            let found = read_tensors(&place.join("tensors")).unwrap()["x"].values[0];
            assert_eq!(fs::read_to_string(place.join("state")).unwrap(), format!("{found}"));
            assert!(found == last || found == step as f32, "{found} after {last} at {step}");
            last = found;
            if saved.is_ok() {
                assert!(step > 7 && found == step as f32);
                return;
            }
        }
    }

    /// Whoever makes a model, whatever becomes of it, has the one before.
    #[test]
    fn the_next_start_finds_what_a_kill_left_without_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let [model, work] = ["model", "work"].map(|name| directory.path().join(name));
        let save = |contents: &[u8]| publish(&model, |partial| write(&partial.join("config.json"), contents));
        let read = || fs::read(model.join("config.json")).ok();
        let lose = || {
            let lost = (0..).any(|steps| {
                kill::after(Some(steps));
                let saved = save(b"new");
                kill::after(None);
                assert!(saved.is_err(), "there is a moment without it");
                !model.exists()
            });
            assert!(lost);
        };
        save(b"before").unwrap();
        lose();
        check_replaceable(&model, &[], &work).unwrap();
        assert_eq!(read().as_deref(), Some(&b"before"[..]));
        lose();
        publish(&model, |_| Err(TrainError::Data("it cannot be made".into()))).unwrap_err();
        assert_eq!(read().as_deref(), Some(&b"before"[..]));
        save(b"after").unwrap();
        assert_eq!(read().as_deref(), Some(&b"after"[..]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
