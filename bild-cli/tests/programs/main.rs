//! The commands of `bild`, run as a user runs them.

#[cfg(feature = "train")]
mod align;
mod corpus;
mod drafts;
mod findings;
#[cfg(target_os = "linux")]
mod full;
mod options;
mod outputs;
mod pages;
mod program;
#[cfg(feature = "serve")]
mod serve;
mod shared_encoder;
mod texts;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

const SOURCES: &str = "Ich bin müde.\nWo ist der Bahnhof?\nDas Wetter ist schön.\nWir haben keine Zeit.\n";
const REFERENCES: &str = "I am tired.\nWhere is the station?\nThe weather is nice.\nWe have no time.\n";
/// What a short evaluation needs.
const SHORT: [&str; 6] = ["--source", "s.de", "--reference", "s.en", "--rounds", "1"];

/// The binary.
const BILD: &str = env!("CARGO_BIN_EXE_bild");

/// What a program ended with.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn ok(self) -> Self {
        assert!(self.code == Some(0) && !self.err.contains("panicked"), "{self:?}");
        self
    }

    /// An error in a sentence, before anything was written to standard output.
    #[track_caller]
    fn refused(self, code: i32, said: &str) -> Self {
        assert!(self.code == Some(code) && self.err.contains("error: ") && self.err.contains(said), "{said}: {self:?}");
        assert!(self.out.is_empty() && !self.err.contains("panicked"), "{self:?}");
        self
    }

    /// A line for what could not be translated, so that lines stay aligned.
    #[track_caller]
    fn refused_line(self) {
        assert!(self.code == Some(1) && self.out == "\n" && self.err.contains("error: source 1: "), "{self:?}");
    }
}

/// A folder to run programs in, with a little dataset.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("s.de", SOURCES);
        place.write("s.en", REFERENCES);
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.at(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(BILD);
        command.arg(name).args(args).current_dir(self.0.path()).env("BILD_MODELS", models()).stdin(Stdio::null());
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Ended {
        ended(self.command(name, args).output().unwrap())
    }

    fn run_with(&self, name: &str, args: &[&str], stdin: &[u8]) -> Ended {
        let mut command = self.command(name, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // It may have ended without reading.
        let _ = input.write_all(stdin);
        drop(input);
        ended(child.wait_with_output().unwrap())
    }
}

fn ended(output: std::process::Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The folder of the models that are part of the repository.
fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("models")
}

fn pair(role: &str) -> String {
    models().join("de-en").join(role).display().to_string()
}
