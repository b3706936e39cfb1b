//! A digest of what a result was made with.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use bild::{Checkpoint, models::Digest};

use crate::Result;

/// The digest of texts in their order. Where one ends counts too.
pub fn digest_of_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Digest::default();
    for text in texts {
        digest.add(&(text.len() as u64).to_le_bytes());
        digest.add(text.as_bytes());
    }
    digest.to_string()
}

/// The digest of a checkpoint: of the files of its folder that say what a model is and how it reads and writes.
///
/// # Errors
///
/// If one of them cannot be read.
pub fn digest_of_folder(folder: &Path) -> Result<String> {
    let mut digest = Digest::default();
    let error = |path: &Path, error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| error(folder, e))? {
        let name = entry.map_err(|e| error(folder, e))?.file_name();
        names.extend(name.into_string().ok().filter(|name| is_read(name)));
    }
    // Where both are there, safetensors are read.
    if names.iter().any(|name| name.starts_with("model")) {
        names.retain(|name| !name.starts_with("pytorch_model"));
    }
    names.sort_unstable();
    let mut buffer = vec![0; 1 << 20];
    for name in names {
        let path = folder.join(&name);
        let mut file = File::open(&path).map_err(|e| error(&path, e))?;
        digest.add(&(name.len() as u64).to_le_bytes());
        digest.add(name.as_bytes());
        digest.add(&file.metadata().map_err(|e| error(&path, e))?.len().to_le_bytes());
        loop {
            match file.read(&mut buffer).map_err(|e| error(&path, e))? {
                0 => break,
                read => digest.add(&buffer[..read]),
            }
        }
    }
    Ok(digest.to_string())
}

fn is_read(name: &str) -> bool {
    let weights = |begin: &str, ends: [&str; 2]| name.starts_with(begin) && ends.iter().any(|end| name.ends_with(end));
    Checkpoint::FILES.contains(&name)
        || weights("model", [".safetensors", ".safetensors.index.json"])
        || weights("pytorch_model", [".bin", ".bin.index.json"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_order_and_ends() {
        let digests =
            [vec!["ab", "c"], vec!["a", "bc"], vec!["c", "ab"], vec!["ab", "c", ""], vec!["abc"]].map(digest_of_texts);
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest));
        }
        assert_eq!(digests[0], digest_of_texts(["ab", "c"]));
    }

    #[test]
    fn a_checkpoint_is_its_files_wherever_they_lie() {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let write =
            |folder: &tempfile::TempDir, name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        for folder in [&one, &two] {
            write(folder, "config.json", "{}");
            write(folder, "model.safetensors", "weights");
        }
        let digest = |folder: &tempfile::TempDir| digest_of_folder(folder.path()).unwrap();
        let before = digest(&one);
        assert_eq!(before, digest(&two));
        write(&two, "README.md", "nobody reads this");
        write(&two, "pytorch_model.bin", "nor this, beside model.safetensors");
        assert_eq!(before, digest(&two));
        for (name, text) in [("config.json", "{ }"), ("model.safetensors", "Weights"), ("tokenizer.json", "{}")] {
            let before = digest(&two);
            write(&two, name, text);
            assert_ne!(before, digest(&two), "{name}");
        }
    }
}
