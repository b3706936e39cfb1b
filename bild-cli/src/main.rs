//! The program `bild`: generation with a little and a big T5 on a command line.
#![forbid(unsafe_code)]

#[cfg(feature = "train")]
mod align;
mod bench;
mod drafts;
mod evaluate;
mod files;
mod models;
mod options;
mod pair;
mod policy;
mod prepared;
mod progress;
#[cfg(feature = "serve")]
mod serve;
mod shortlist;
#[cfg(feature = "train")]
mod signal;
mod stdin;
mod streams;
mod summarize;
mod sweep;
mod trace;
#[cfg(feature = "train")]
mod train;
mod translate;
mod tune;
mod warnings;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use streams::{Stdout, exit};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Fast text generation with two models: a little T5 drafts, a big one verifies.
#[derive(Parser)]
#[command(name = "bild", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(visible_alias = "correct")]
    Translate(Box<translate::Args>),
    Summarize(Box<summarize::Args>),
    Evaluate(Box<evaluate::Args>),
    Sweep(Box<sweep::Args>),
    Tune(Box<tune::Args>),
    Trace(Box<trace::Args>),
    Bench(Box<bench::Args>),
    #[cfg(feature = "serve")]
    Serve(Box<serve::Args>),
    Shortlist(Box<shortlist::Args>),
    #[cfg(feature = "train")]
    Align(Box<align::Args>),
    #[cfg(feature = "train")]
    Train(Box<train::Args>),
    #[cfg(not(feature = "train"))]
    #[command(hide = true, alias = "train")]
    Align {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _rest: Vec<String>,
    },
    /// Write what a shell needs to complete these commands
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Whether all that was asked for was done.
    fn run(&self, out: &mut Stdout) -> Result<bool, Error> {
        match self {
            Self::Translate(args) => translate::run(args, out),
            Self::Summarize(args) => summarize::run(args, out),
            Self::Evaluate(args) => evaluate::run(args, out),
            Self::Sweep(args) => sweep::run(args, out),
            Self::Tune(args) => tune::run(args, out),
            Self::Trace(args) => trace::run(args, out),
            Self::Bench(args) => bench::run(args, out),
            #[cfg(feature = "serve")]
            Self::Serve(args) => serve::run(args, out),
            Self::Shortlist(args) => shortlist::run(args, out),
            #[cfg(feature = "train")]
            Self::Align(args) => align::run(args, out),
            #[cfg(feature = "train")]
            Self::Train(args) => train::run(args, out),
            #[cfg(not(feature = "train"))]
            Self::Align { .. } => {
                Err("this program was built without training: build it with `--features train`".into())
            }
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Cli::command(), "bild", &mut script);
                out.line(String::from_utf8_lossy(&script).trim_end()).map(|()| true)
            }
        }
    }
}

fn main() -> ExitCode {
    let mut out = Stdout::default();
    match Cli::try_parse() {
        Ok(cli) => exit(cli.command.run(&mut out)),
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => {
            let text = help.render();
            let text = if std::io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            exit(out.line(text.trim_end()).map(|()| true))
        }
    }
}
