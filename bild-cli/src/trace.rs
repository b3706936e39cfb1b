//! One sentence as a page: who wrote each token, how sure it was, what was taken back.

use std::path::{Path, PathBuf};

use bild::decode::Source;
use bild_eval::{OutputFile, Trace, page, text};

use crate::{
    Error,
    files::Files,
    options::{self, PairArgs, PolicyArgs, SourceArgs, TextArgs},
    policy::needs,
    streams::{Stdout, say},
    warnings,
};

/// Write a page that shows how a sentence was decoded.
///
/// It says who wrote each token, how sure it was, and what was taken back.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Args {
    /// The sentence, "-" for standard input
    text: String,
    /// The page, which needs no other file
    #[arg(long, value_name = "FILE", default_value = "trace.html")]
    html: PathBuf,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    source: SourceArgs,
}

pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let pair = args.pair.options();
    let mut files = Files::default();
    files.reads("the text", (args.text == "-").then_some(Path::new("-"))).reads("--policy-file", args.policy.file());
    files.writes("--html", Some(&args.html));
    files.reads_pair(&args.pair)?;
    files.check()?;
    let html = OutputFile::tried(&args.html)?;
    let policy = args.policy.policy()?;
    args.pair.warn(&args.policy, needs(&policy));
    let text = if args.text == "-" { text::read(Path::new("-"))? } else { text::without_marks(args.text.clone()) };
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() {
        return Err(bild::Error::EmptySource.into());
    }
    let loaded = pair.load(needs(&policy))?;
    let policy = args.policy.of(&loaded, policy)?;
    options::warn(args.texts.warning(&policy));
    let limits = args.texts.limits(args.source.max_source_tokens, args.source.truncate);
    let settings = loaded.settings(&limits)?.with_trace(true);
    let tokenizer = loaded.tokenizer()?;
    let source = Source::new(tokenizer.encode(&format!("{}{text}", args.texts.prefix))?);
    let output = loaded.generator(&policy, settings.clone())?.generate(&source)?;
    options::warn(warnings::unknown(tokenizer, text)?);
    options::warn(warnings::time_up(&output));
    if output.truncated {
        let (all, read) = (source.tokens().len(), output.source_tokens);
        options::warn([format!("of {all} tokens {read} are read, the rest is cut")]);
    }
    let written = tokenizer.decode(&output.tokens)?;
    let trace = Trace { source: text, text: &written, policy: &serde_json::to_string(&policy)?, output: &output };
    let page = page(&trace, |token| tokenizer.piece(token).unwrap_or_else(|| format!("<{token}>")));
    let printed = out.line(&written);
    html.write(&page)?;
    say(args.html.display());
    printed.map(|()| true)
}
