//! What was done so far, kept in a file so that a run can go on where it was cut off.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use super::Error;

/// The records so far. In a file, the conditions under which they were made come first.
pub struct Log<T> {
    file: Option<File>,
    pub records: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Log<T> {
    pub fn open(path: Option<&Path>, conditions: &str) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self { file: None, records: Vec::new() }) };
        let name = path.display();
        let error = |error: std::io::Error| format!("{name} cannot be used: {error}");
        let mut records: Vec<T> = Vec::new();
        if path.exists() {
            let mut lines = BufReader::new(File::open(path).map_err(error)?).lines();
            if lines.next().transpose().map_err(error)?.unwrap_or_default() != conditions {
                let other = format!("{name} was begun with another policy, pair, dataset or setting: name a new file");
                return Err(other.into());
            }
            // A last line that was cut off is done again.
            records.extend(lines.map_while(|line| serde_json::from_str(&line.ok()?).ok()));
        }
        let mut file = File::create(path).map_err(error)?;
        writeln!(file, "{conditions}").map_err(error)?;
        for record in &records {
            writeln!(file, "{}", serde_json::to_string(record)?).map_err(error)?;
        }
        Ok(Self { file: Some(file), records })
    }

    pub fn add(&mut self, record: T) -> Result<(), Error> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&record)?)?;
        }
        self.records.push(record);
        Ok(())
    }
}
