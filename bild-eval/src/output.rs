//! Files that a program writes: tried before the work, and written whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Result, text};

/// A file to be written. Its folder takes it, that was tried.
#[derive(Debug)]
pub struct OutputFile {
    /// As it was named.
    name: PathBuf,
    /// The file itself, links followed.
    path: PathBuf,
    /// A device or a pipe, which is written where it is.
    direct: bool,
}

impl OutputFile {
    /// Tries whether a file can be written, and leaves it as it is.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn tried(name: &Path) -> Result<Self> {
        let error = |reason: &dyn std::fmt::Display| format!("{} cannot be written: {reason}", name.display());
        let path = real(name).map_err(|reason| error(&reason))?;
        let file = Self { name: name.into(), direct: path.exists() && !path.is_file(), path };
        if file.path.is_dir() {
            return Err(error(&"it is a folder").into());
        }
        if file.path.exists() {
            // A pipe would wait for a reader here.
            let tried =
                if file.path.is_file() { OpenOptions::new().append(true).open(&file.path).map(drop) } else { Ok(()) };
            tried.map_err(|reason| error(&reason))?;
        }
        if !file.direct {
            let temporary = file.temporary();
            File::create_new(&temporary).and_then(|_| fs::remove_file(&temporary)).map_err(|reason| error(&reason))?;
        }
        Ok(file)
    }

    /// Whether two paths are one file. Neither need be there; two may be one device.
    pub fn is_same(one: &Path, other: &Path) -> bool {
        match (real(one), real(other)) {
            (Ok(one), Ok(other)) => one == other && (one.is_file() || !one.exists()),
            _ => false,
        }
    }

    /// Writes the file in place of what was there. If that fails, what was there is still there.
    ///
    /// # Errors
    ///
    /// If it cannot be written any more.
    pub fn write(&self, contents: &str) -> Result<()> {
        let written = if self.direct { self.write_to(&self.path, contents) } else { self.replace(contents) };
        written.map_err(|error| format!("{} cannot be written: {error}", self.name.display()).into())
    }

    fn replace(&self, contents: &str) -> std::io::Result<()> {
        let temporary = self.temporary();
        let written = self.write_to(&temporary, contents).and_then(|()| {
            if let Ok(before) = fs::metadata(&self.path) {
                fs::set_permissions(&temporary, before.permissions())?;
            }
            fs::rename(&temporary, &self.path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn write_to(&self, path: &Path, contents: &str) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = if self.direct {
            options.write(true).open(path)?
        } else {
            options.write(true).create_new(true).open(path)?
        };
        file.write_all(contents.as_bytes())?;
        // A full disk may show only here. A device knows nothing of it.
        if self.direct { Ok(()) } else { file.sync_all() }
    }

    /// A name beside the file that no other program uses.
    fn temporary(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
    }
}

/// The path with its links followed. The file need not be there.
fn real(path: &Path) -> Result<PathBuf, String> {
    if text::is_stdin(path) {
        return Err("- is standard input".into());
    }
    if fs::symlink_metadata(path).is_ok() {
        return fs::canonicalize(path).map_err(|error| format!("where its link leads: {error}"));
    }
    let name = path.file_name().ok_or("it has no name")?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::canonicalize(folder).map_err(|error| format!("its folder {}: {error}", folder.display()))?;
    if folder.is_dir() { Ok(folder.join(name)) } else { Err(format!("{} is no folder", folder.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn trying_leaves_everything_as_it_is_and_writing_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        let file = OutputFile::tried(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        file.write("one\n").unwrap();
        let again = OutputFile::tried(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        again.write("two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(names(folder.path()), ["policy.json"]);
    }

    #[test]
    fn what_cannot_be_written_is_refused_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| OutputFile::tried(path).unwrap_err().to_string();
        assert!(refused(folder.path()).ends_with("it is a folder"));
        assert!(refused(&folder.path().join("no/x.svg")).contains("its folder"));
        assert!(refused(Path::new("-")).ends_with("- is standard input"));
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(refused(&folder.path().join("file/x.svg")).contains("is no folder"));
        // The folder vanishes after it was tried.
        let gone = folder.path().join("gone");
        fs::create_dir(&gone).unwrap();
        let file = OutputFile::tried(&gone.join("x")).unwrap();
        fs::remove_dir(&gone).unwrap();
        assert!(file.write("x").unwrap_err().to_string().contains("cannot be written"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        OutputFile::tried(&link).unwrap().write("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        fs::remove_file(&path).unwrap();
        assert!(OutputFile::tried(&link).unwrap_err().to_string().contains("where its link leads"));
        OutputFile::tried(Path::new("/dev/null")).unwrap().write("x").unwrap();
        if Path::new("/dev/full").exists() {
            let full = OutputFile::tried(Path::new("/dev/full")).unwrap();
            assert!(full.write("x").unwrap_err().to_string().starts_with("/dev/full cannot be written"));
        }
        assert!(!Path::new("/dev/null").is_file());
    }
}
