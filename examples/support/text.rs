//! Text as it comes into a program: from a file, or from standard input, which is called `-`.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Read},
    path::Path,
};

use super::{Error, progress, streams::say};

/// The most bytes that are read of what is not a file: a pipe or a device may have no end.
const ENDLESS: u64 = 256 << 20;
/// The longest line that is read from standard input.
const LONGEST_LINE: u64 = 64 << 20;

/// The text without the byte order mark that some programs put before it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
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
pub fn read(path: &Path) -> Result<String, Error> {
    let name = name(path);
    let bytes = bytes(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    decoded(bytes, &name, 1)
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    if is_stdin(path) {
        greet("");
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
fn decoded(mut bytes: Vec<u8>, name: &str, line: usize) -> Result<String, Error> {
    if line == 1 && bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let before = &bytes[..error.utf8_error().valid_up_to()];
        let line = line + before.iter().filter(|byte| **byte == b'\n').count();
        let column = before.len() - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) + 1;
        let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let what = if utf16 { "it is UTF-16" } else { "it is not UTF-8" };
        format!("{name}, line {line}, byte {column}: {what}, and expected is UTF-8").into()
    })
}

/// The lines of standard input as they come.
pub fn stdin_lines() -> impl Iterator<Item = Result<String, Error>> {
    greet(", one source a line");
    let mut number = 0;
    let mut line = move || -> Result<Option<String>, Error> {
        number += 1;
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes);
        read.map_err(|error| format!("standard input cannot be read: {error}"))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 > LONGEST_LINE {
            let most = LONGEST_LINE >> 20;
            return Err(format!("standard input, line {number}: it is longer than {most} MiB").into());
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        decoded(bytes, "standard input", number).map(Some)
    };
    let mut failed = false;
    std::iter::from_fn(move || {
        let next = if failed { None } else { line().transpose() };
        failed = matches!(next, Some(Err(_)));
        next
    })
}

/// To be called before anything is drawn, where standard input is going to be read.
pub fn reads_stdin() {
    if io::stdin().is_terminal() {
        progress::hide();
    }
}

fn greet(what: &str) {
    reads_stdin();
    if io::stdin().is_terminal() {
        say(format_args!("Reading standard input{what}; Ctrl-D ends it."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<String, String> {
        decoded(bytes.to_vec(), "x.de", 1).map_err(|error| error.to_string())
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(of(b"\xef\xbb\xbfHallo\n\xef\xbb\xbf").unwrap(), "Hallo\n\u{feff}");
        assert_eq!(of(b"\xef\xbb\xbf").unwrap(), "");
        assert_eq!(decoded(b"\xef\xbb\xbf".to_vec(), "x", 2).unwrap(), "\u{feff}", "only at the beginning");
        assert_eq!(without_mark("\u{feff}a"), "a");
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
        assert!(read(&folder.path().join("x")).unwrap_err().to_string().contains("cannot be read: No such file"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_has_no_end_is_not_read_for_ever() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("more than 256 MiB"));
    }
}
