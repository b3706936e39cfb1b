//! Text as it comes into a program: from a file, or from standard input, which is called `-`. It is UTF-8, and byte order
//! marks at the beginnings of its lines are no part of it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use bild::models::Tokenizer;

use crate::Result;

/// The most bytes that are read of what is not a file: a pipe or a device may have no end.
const ENDLESS: u64 = 256 << 20;

/// What some programs put before a text, and no part of it. Where texts were put together it is before a later line, too.
pub const MARK: char = '\u{feff}';

/// The text without byte order marks at the beginnings of its lines.
pub fn without_marks(text: String) -> String {
    if !text.contains(MARK) {
        return text;
    }
    text.split_inclusive('\n').map(|line| line.trim_start_matches(MARK)).collect()
}

/// Whether a path means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// What a path is called in a message.
pub fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".into() } else { path.display().to_string() }
}

/// The whole text of a file, or of standard input.
///
/// # Errors
///
/// If it cannot be read, is no file and has no end, or is not UTF-8.
pub fn read(path: &Path) -> Result<String> {
    let name = name(path);
    let bytes = bytes(path).map_err(|error| unreadable(path, &error))?;
    decoded(bytes, &name, 1)
}

/// Why a file or a folder cannot be read, as a sentence.
pub fn unreadable(path: &Path, error: &io::Error) -> String {
    let name = name(path);
    match error.kind() {
        io::ErrorKind::NotFound if fs::symlink_metadata(path).is_ok() => format!("{name} is a link to nothing"),
        io::ErrorKind::NotFound => format!("{name} does not exist"),
        _ => format!("{name} cannot be read: {error}"),
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    if is_stdin(path) {
        return bounded(io::stdin().lock());
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    if !metadata.is_file() {
        return bounded(file);
    }
    let mut bytes = Vec::new();
    { file }.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(ENDLESS + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ENDLESS {
        return Err(io::Error::other(format!("it is no file and has more than {} MiB", ENDLESS >> 20)));
    }
    Ok(bytes)
}

/// The text of bytes that begin in line `line` of what is called `name`.
///
/// # Errors
///
/// If they are not UTF-8.
pub fn decoded(bytes: Vec<u8>, name: &str, line: usize) -> Result<String> {
    String::from_utf8(bytes).map(without_marks).map_err(|error| {
        let bytes = error.as_bytes();
        let before = &bytes[..error.utf8_error().valid_up_to()];
        let line = line + before.iter().filter(|byte| **byte == b'\n').count();
        let column = before.len() - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) + 1;
        let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let what = if utf16 { "it is UTF-16" } else { "it is not UTF-8" };
        format!("{name}, line {line}, byte {column}: {what}, and expected is UTF-8").into()
    })
}

/// Of how many tokens of a text how many stand for what the tokenizer does not know, as `(unknown, all)`.
///
/// # Errors
///
/// If the tokenizer fails.
pub fn unknown(tokenizer: &Tokenizer, text: &str) -> Result<(usize, usize)> {
    let Some(unknown) = tokenizer.token("<unk>") else { return Ok((0, 0)) };
    // A space alone stands for nothing.
    let is_space = |token| tokenizer.piece(token).as_deref() == Some("▁");
    let tokens: Vec<_> = tokenizer.encode_plain(text)?.into_iter().filter(|token| !is_space(*token)).collect();
    Ok((tokens.iter().filter(|token| **token == unknown).count(), tokens.len()))
}

/// Whether more than half of a text is unknown to the tokenizer.
///
/// # Errors
///
/// If the tokenizer fails.
pub fn is_unknown(tokenizer: &Tokenizer, text: &str) -> Result<bool> {
    let (unknown, all) = unknown(tokenizer, text)?;
    Ok(2 * unknown > all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<String, String> {
        decoded(bytes.to_vec(), "x.de", 1).map_err(|error| error.to_string())
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(of(b"\xef\xbb\xbfHallo\r\n\xef\xbb\xbfdu\n\xef\xbb\xbf").unwrap(), "Hallo\r\ndu\n");
        assert_eq!(of(b"\xef\xbb\xbf\xef\xbb\xbf").unwrap(), "");
        assert_eq!(decoded(b"\xef\xbb\xbf".to_vec(), "x", 2).unwrap(), "", "of any line");
        assert_eq!(without_marks("a\u{feff}b\n\u{feff}c".into()), "a\u{feff}b\nc", "within a line it is a character");
    }

    #[test]
    fn what_is_not_utf8_is_named_by_file_and_line() {
        assert_eq!(of(b"gut\nM\xfcde\n").unwrap_err(), "x.de, line 2, byte 2: it is not UTF-8, and expected is UTF-8");
        assert_eq!(of(b"\xff").unwrap_err(), "x.de, line 1, byte 1: it is not UTF-8, and expected is UTF-8");
        assert!(of(b"\xff\xfea\0").unwrap_err().contains("UTF-16"));
    }

    #[test]
    fn a_folder_and_a_missing_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("cannot be read: it is a folder"));
        assert!(read(&folder.path().join("x")).unwrap_err().to_string().ends_with("x does not exist"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_has_no_end_is_not_read_for_ever() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("more than 256 MiB"));
    }
}
