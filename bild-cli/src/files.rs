//! Which files a command reads and which it writes, looked at before the work.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bild_eval::{OutputFile, text};

use crate::{Error, models, options::PairArgs, stdin};

/// Which files a program reads and which it writes, by the options that name them.
#[derive(Default)]
pub(crate) struct Files {
    inputs: Vec<(String, PathBuf)>,
    folders: Vec<(&'static str, PathBuf)>,
    outputs: Vec<(String, PathBuf)>,
}

impl Files {
    /// Names a file that is read.
    pub(crate) fn reads(&mut self, option: &str, path: Option<&Path>) -> &mut Self {
        self.inputs.extend(path.map(|path| (option.to_owned(), path.to_owned())));
        self
    }

    /// Names folders whose files are read, or models of the hub.
    pub(crate) fn reads_folders(&mut self, folders: impl IntoIterator<Item = (&'static str, PathBuf)>) -> &mut Self {
        self.folders.extend(folders);
        self
    }

    /// Names what the options of a pair read.
    pub(crate) fn reads_pair(&mut self, pair: &PairArgs) -> Result<&mut Self, Error> {
        let folders = pair.options().folders()?;
        Ok(self.reads("--shortlist", pair.shortlist.as_deref()).reads_folders(folders))
    }

    /// Names a file that is written.
    pub(crate) fn writes(&mut self, option: &str, path: Option<&Path>) -> &mut Self {
        self.outputs.extend(path.map(|path| (option.to_owned(), path.to_owned())));
        self
    }

    /// Refuses what is not there, to read standard input twice, to write what is read, and to write two things to one file;
    /// tries what is written.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let stdin: Vec<_> = self.inputs.iter().filter(|(_, path)| text::is_stdin(path)).collect();
        if let [(one, _), (two, _), ..] = stdin[..] {
            return Err(format!("{one} and {two} are both standard input, which can be read once").into());
        }
        for (option, path) in self.inputs.iter().filter(|(_, path)| !text::is_stdin(path)) {
            fs::metadata(path).map_err(|error| format!("{option}: {}", text::unreadable(path, &error)))?;
        }
        let mut inputs = self.inputs.clone();
        for (option, folder) in self.folders.iter().filter(|(_, folder)| models::hub_name(folder).is_none()) {
            let entries = fs::read_dir(folder).map_err(|error| {
                let hint = if models::is_like_a_hub_name(folder) { models::HUB_HINT } else { "" };
                format!("{option}: {}{hint}", text::unreadable(folder, &error))
            })?;
            inputs.extend(entries.flatten().map(|entry| ((*option).to_owned(), entry.path())));
        }
        for (i, (option, path)) in self.outputs.iter().enumerate() {
            let name = path.display();
            if let Some((other, _)) = self.outputs[..i].iter().find(|(_, other)| OutputFile::is_same(path, other)) {
                return Err(format!("{other} and {option} both write {name}: name two files").into());
            }
            let source = |input: &Path| if text::is_stdin(input) { PathBuf::from("/dev/stdin") } else { input.into() };
            if let Some((other, _)) = inputs.iter().find(|(_, input)| OutputFile::is_same(path, &source(input))) {
                return Err(format!("{option} would write over {name}, which is read as {other}").into());
            }
            OutputFile::tried(path).map_err(|error| format!("{option}: {error}"))?;
        }
        if !stdin.is_empty() {
            stdin::greet();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_apart_from_inputs_and_from_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "").unwrap();
        let check = |inputs: &[&str], outputs: &[&str]| {
            let mut files = Files::default();
            for name in inputs {
                files.reads(&format!("--in-{name}"), Some(&at(name)));
            }
            for name in outputs {
                files.writes(&format!("--out-{name}"), Some(&at(name)));
            }
            files.check().map_err(|error| error.to_string())
        };
        check(&["a"], &["b", "c"]).unwrap();
        let found = check(&["a"], &["./a"]).unwrap_err();
        assert!(found.contains("which is read as --in-a"), "{found}");
        let found = check(&[], &["b", "./b"]).unwrap_err();
        assert!(found.contains("--out-b and --out-./b both write"), "{found}");
        assert!(check(&[], &["nosuch/b"]).unwrap_err().starts_with("--out-nosuch/b: "));
        let mut files = Files::default();
        files.reads("--source", Some(Path::new("-"))).reads("--reference", Some(Path::new("-")));
        assert!(files.check().unwrap_err().to_string().contains("both standard input"));
    }
}
