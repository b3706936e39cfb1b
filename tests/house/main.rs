//! The plan of the house, its public surface, the JSON of its policies and the pictures of the guide, each compared with what is
//! written down. With `BILD_RECORD=1` they are written anew.

mod api;
mod json;
mod pictures;
mod rooms;

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory, in order.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// Compares with the file that it is recorded in, or records it.
fn is_recorded(file: &str, found: &str) {
    let path = root().join(file);
    if std::env::var_os("BILD_RECORD").is_some() {
        fs::write(&path, found).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    let differs = recorded.lines().zip(found.lines()).find(|(a, b)| a != b);
    assert!(
        recorded == found,
        "{file} is not what the sources say ({} lines for {}): {differs:?}. Is that meant? BILD_RECORD=1 records it.",
        recorded.lines().count(),
        found.lines().count(),
    );
}
