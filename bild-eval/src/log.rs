//! What was done so far, kept in a file so that a run can go on where it was cut off.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Conditions, Observer, Result};

/// What the file looks like, counted up when that changes.
const FORMAT: u32 = 2;

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Header {
    log_format: u32,
    program: String,
    conditions: Conditions,
}

/// The records so far, one JSON object a line after the header.
#[derive(Debug)]
pub struct Log<T> {
    file: Option<(PathBuf, File)>,
    /// All of them, in order.
    pub records: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Log<T> {
    /// A log that no file keeps.
    pub fn in_memory() -> Self {
        Self { file: None, records: Vec::new() }
    }

    /// Goes on with the log that is there, if it was begun by the same program under the same conditions, or begins one.
    /// Nothing of it is written anew: only a record that was cut off is taken away. Without a
    /// path it is [`in_memory`](Self::in_memory).
    ///
    /// # Errors
    ///
    /// If the file cannot be used, is no such log, or was begun under other conditions.
    pub fn open(
        path: Option<&Path>,
        program: &str,
        conditions: impl FnOnce() -> Result<Conditions>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::in_memory()) };
        let conditions = conditions()?;
        let name = path.display();
        let error = |error: std::io::Error| format!("{name} cannot be used: {error}");
        if path.exists() && !path.is_file() {
            return Err(format!("{name} cannot be used: it is not a file").into());
        }
        let bytes = if path.exists() { fs::read(path).map_err(error)? } else { Vec::new() };
        let header = Header { log_format: FORMAT, program: program.into(), conditions };
        let header_line = serde_json::to_string(&header)? + "\n";
        let mut records = Vec::new();
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(error)?;
        if header_line.as_bytes().starts_with(without_mark(&bytes).trim_ascii_end()) {
            // New, or cut off within its first line.
            file.set_len(0).and_then(|()| file.write_all(header_line.as_bytes())).map_err(error)?;
            return Ok(Self { file: Some((path.into(), file)), records });
        }
        let mut good = 0;
        for (number, whole_line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let line = without_mark(whole_line);
            if number == 0 {
                header.check(line).map_err(|reason| format!("{name} {reason}: name a new file"))?;
            } else if !line.trim_ascii().is_empty() {
                match serde_json::from_slice(line) {
                    Ok(record) => records.push(record),
                    // The last line, and it has no end: the program was ended while it wrote it.
                    Err(_) if !line.ends_with(b"\n") => break,
                    Err(reason) => {
                        return Err(format!(
                            "{name}, line {}, is no record: {}",
                            number + 1,
                            bild::decode::plain_words(&reason)
                        )
                        .into());
                    }
                }
            }
            good += whole_line.len();
        }
        if good < bytes.len() {
            observer.notes(&format!("the last record of {name} was cut off and is done again"));
            file.set_len(good as u64).map_err(error)?;
        }
        file.seek(SeekFrom::End(0)).map_err(error)?;
        if !bytes[..good].ends_with(b"\n") {
            file.write_all(b"\n").map_err(error)?;
        }
        Ok(Self { file: Some((path.into(), file)), records })
    }

    /// Adds a record, in the file too.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn add(&mut self, record: T) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            let line = serde_json::to_string(&record)? + "\n";
            file.write_all(line.as_bytes())
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        }
        self.records.push(record);
        Ok(())
    }
}

/// A line without the byte order marks before it.
fn without_mark(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_prefix("\u{feff}".as_bytes()) {
        line = rest;
    }
    line
}

impl Header {
    /// Whether a log that begins so may be gone on with.
    fn check(&self, line: &[u8]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Format {
            log_format: u32,
        }
        let Ok(Format { log_format }) = serde_json::from_slice(line) else {
            return Err(format!("is no log of {}, or one of an older version", self.program));
        };
        if log_format != FORMAT {
            return Err(format!("is a log of format {log_format}, and this version writes format {FORMAT}"));
        }
        let found: Self = serde_json::from_slice(line)
            .map_err(|error| format!("begins with a broken line ({})", bild::decode::plain_words(&error)))?;
        if found.program != self.program {
            return Err(format!("is a log of {}, not of {}", found.program, self.program));
        }
        let difference = self.conditions.difference(&found.conditions);
        difference.map_or(Ok(()), |what| Err(format!("was begun under other conditions ({what})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(references: &str) -> Conditions {
        Conditions::default().with("the references", references).unwrap().with("the big model", "x").unwrap()
    }

    fn open(path: &Path, program: &str, references: &str) -> Result<Log<(usize, String)>, String> {
        Log::open(Some(path), program, || Ok(conditions(references)), &()).map_err(|error| error.to_string())
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.log");
        (folder, path)
    }

    #[test]
    fn a_log_is_gone_on_with() {
        let (_folder, path) = file();
        fs::write(&path, "").unwrap(); // an empty file is a new one
        for count in 0..3 {
            let mut log = open(&path, "evaluate", "r").unwrap();
            let expected: Vec<_> = (0..count).map(|i| (i, "ä".to_owned())).collect();
            assert_eq!(log.records, expected);
            log.add((count, "ä".into())).unwrap();
        }
    }

    #[test]
    fn other_conditions_are_refused_by_name_and_nothing_is_lost() {
        let (_folder, path) = file();
        open(&path, "evaluate", "r").unwrap().add((1, "a".into())).unwrap();
        let before = fs::read(&path).unwrap();
        let found = open(&path, "evaluate", "other").err().unwrap();
        assert!(
            found.ends_with("was begun under other conditions (the references differ): name a new file"),
            "{found}"
        );
        let found = open(&path, "tune", "r").err().unwrap();
        assert!(found.contains("is a log of evaluate, not of tune"), "{found}");
        assert_eq!(fs::read(&path).unwrap(), before);
        for (text, said) in [
            ("DatasetArgs { source: None }\n", "older version"),
            ("a text of mine", "is no log of tune"),
            ("{\"log_format\":1}\n", "is a log of format 1"),
            ("{\"log_format\":2}\n", "begins with a broken line"),
        ] {
            fs::write(&path, text).unwrap();
            let found = open(&path, "tune", "r").err().unwrap();
            assert!(found.contains(said), "{found}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_record_that_was_cut_off_is_done_again() {
        let (_folder, path) = file();
        let mut log = open(&path, "evaluate", "r").unwrap();
        (0..3).for_each(|i| log.add((i, "grün".into())).unwrap());
        let whole = fs::read(&path).unwrap();
        let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut log = open(&path, "evaluate", "r").unwrap();
            let lines = whole[header.min(cut)..cut].iter().filter(|byte| **byte == b'\n').count();
            // A record without the end of its line is whole.
            assert!(log.records.len() == lines || log.records.len() == lines + 1, "cut at {cut}");
            for i in log.records.len()..3 {
                log.add((i, "grün".into())).unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn line_ends_marks_and_blank_lines_do_not_matter_but_a_broken_record_does() {
        let (_folder, path) = file();
        open(&path, "evaluate", "r").unwrap().add((1, "a".into())).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("\u{feff}{}\r\n", text.replace('\n', "\r\n\u{feff}"))).unwrap();
        let mut log = open(&path, "evaluate", "r").unwrap();
        log.add((2, "b".into())).unwrap();
        assert_eq!(open(&path, "evaluate", "r").unwrap().records.len(), 2);
        fs::write(&path, text.clone() + "[1,\n" + "[2,\"b\"]\n").unwrap();
        let found = open(&path, "evaluate", "r").err().unwrap();
        assert!(found.contains("line 3, is no record"), "{found}");
    }

    #[test]
    fn without_a_file_records_are_kept_in_memory() {
        let mut log = Log::<usize>::open(None, "evaluate", || Ok(Conditions::default()), &()).unwrap();
        log.add(1).unwrap();
        assert_eq!(log.records, [1]);
        let folder = tempfile::tempdir().unwrap();
        assert!(open(folder.path(), "evaluate", "r").err().unwrap().ends_with("it is not a file"));
    }
}
