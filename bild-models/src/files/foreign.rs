//! What a file is that stands in the place of another.

/// How many bytes of a file it takes to tell.
pub(crate) const BEGINNING: usize = 512;

/// What the first bytes of a file say it is, if that is known and nothing that a checkpoint is made of, as the end of a
/// sentence.
pub(crate) fn foreign(beginning: &[u8]) -> Option<String> {
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|text| text.eq_ignore_ascii_case(with.as_bytes()));
    let what = if begins("version https://git-lfs") || begins("version https://hawser") {
        "it is a Git LFS pointer in the place of the file, which `git lfs pull` brings"
    } else if begins("<!doctype html") || begins("<html") {
        "it is a web page (HTML) in the place of the file: download it again"
    } else if begins("<?xml") || begins("<error>") {
        "it is an XML document in the place of the file, mostly a server's error: download it again"
    } else if beginning.starts_with(b"GGUF") {
        "it is a GGUF file, which is not read: weights in safetensors or in a .bin of PyTorch are"
    } else if beginning.starts_with(b"\x89HDF\r\n") {
        "it is an HDF5 file, as Keras writes it: load it in transformers and save the model again"
    } else if beginning.starts_with(b"\x1f\x8b") {
        "it is compressed with gzip: unpack it"
    } else if beginning.starts_with(b"\xff\xfe") || beginning.starts_with(b"\xfe\xff") {
        "it is text in UTF-16, expected UTF-8"
    } else {
        return None;
    };
    Some(what.into())
}

/// As [`foreign`], for a file that is no text, where any text is foreign.
pub(crate) fn foreign_to_binary(beginning: &[u8]) -> Option<String> {
    let text = || {
        let text = std::str::from_utf8(&beginning[..beginning.len().min(40)]).ok()?.trim();
        let is_text = !text.is_empty() && !text.contains(|c: char| c.is_control() && !c.is_whitespace());
        is_text.then(|| format!("it is text that begins with {text:?}, expected a binary file"))
    };
    foreign(beginning).or_else(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_named() {
        for (bytes, name) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:abab"[..], "Git LFS pointer"),
            (b"\n<!DOCTYPE HTML>\n<html>", "web page"),
            (b"\xef\xbb\xbf<html lang=en>", "web page"),
            (b"<?xml version='1.0'?><Error>", "XML"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\xff\xfe{\0", "UTF-16"),
        ] {
            let found = foreign(bytes).unwrap();
            assert!(found.contains(name), "{found}");
            assert_eq!(foreign_to_binary(bytes), Some(found));
        }
        for bytes in [&b""[..], b"{\"model_type\": \"t5\"}", b"\x0a\x0e\x0a\x05<pad>", b"version"] {
            assert_eq!(foreign(bytes), None);
        }
        let text = foreign_to_binary(b"Entry not found").unwrap();
        assert!(text.contains("text that begins with \"Entry not found\""), "{text}");
        for bytes in [&b""[..], b"  \n", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{\"a\"", b"\x80\x02}"] {
            assert_eq!(foreign_to_binary(bytes), None);
        }
    }
}
