//! Learns which tokens drafts are made of.

use std::path::PathBuf;

use bild::{
    Output,
    decode::{Pair as _, Source},
    policies::AnyPolicy,
};
use bild_eval::{
    Observer, OutputFile,
    shortlist::{Coverage, Pair, frequent, learn},
    text,
};
use serde_json::json;

use crate::{
    Error,
    files::Files,
    options::{self, PairArgs, TextArgs, whole},
    policy::Needs,
    progress::Terminal,
    streams::{Stdout, say},
};

/// Learn which tokens drafts are made of.
///
/// A draft step of a small model spends half of its time in the head, on tokens that nobody will write. With the list that this
/// writes, given by --shortlist to whatever decodes, it scores some hundreds of tokens in place of all. What a lossless policy writes stays
/// the same.
///
/// A tenth of the outputs, at most 1,000, are held out: how many of their tokens the list covers is printed.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// The sources, one a line
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// What the big model wrote for them, one a line, if that is there already
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// How many of the most frequent tokens are in every list [default: a tenth of the vocabulary, at most 1500]
    #[arg(long, value_name = "N", value_parser = whole(0..=10_000_000))]
    frequent: Option<usize>,
    /// How many more each token of the source brings at most
    #[arg(long, value_name = "N", default_value = "8", value_parser = whole(0..=10_000))]
    beside: usize,
    /// The most tokens of a source; longer ones are cut
    #[arg(long, value_name = "N", default_value = "128", value_parser = whole(1..=65_536))]
    max_source_tokens: usize,
    /// Where the list is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The result as JSON on standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    /// What has no effect.
    fn warnings(&self) -> Vec<String> {
        let no_tokens = self.texts.max_new_tokens.is_some() && self.target.is_some();
        let ignored = options::ignored([
            (no_tokens, "--max-new-tokens has no effect with --target"),
            (self.texts.seed.is_some(), "--seed has no effect: the big model writes greedily"),
        ]);
        ignored.collect()
    }
}

pub(crate) fn run(args: &Args, out: &mut Stdout) -> Result<bool, Error> {
    let mut files = Files::default();
    files
        .reads("--source", Some(&args.source))
        .reads("--target", args.target.as_deref())
        .writes("--out", Some(&args.out));
    files.reads_folders(args.pair.options().folders()?).check()?;
    options::warn(args.pair.warnings(Needs::Big).into_iter().chain(args.warnings()));
    let file = OutputFile::tried(&args.out)?;
    let loaded = args.pair.options().load(Needs::Big)?;
    let tokenizer = loaded.tokenizer()?;
    let lines = |path| -> Result<Vec<String>, Error> { Ok(text::read(path)?.lines().map(str::to_owned).collect()) };
    let sources = lines(&args.source)?;
    let limits = args.texts.limits(args.max_source_tokens, true);
    let generator = loaded.generator(&AnyPolicy::Big(Default::default()), loaded.settings(&limits)?)?;
    let encoded = |line: &String| Ok(Source::new(tokenizer.encode(&format!("{}{line}", args.texts.prefix))?));
    // What the big model reads of a source that is cut, and no more, explains what it writes.
    let read = |source: &Source| generator.prepare(source, 0).map(|generation| generation.source().tokens().to_vec());
    let (mut pairs, mut failed): (Vec<Pair>, usize) = (Vec::new(), 0);
    match &args.target {
        Some(target) => {
            let targets = lines(target)?;
            if sources.len() != targets.len() {
                let (sources, targets) = (sources.len(), targets.len());
                return Err(format!("--source has {sources} lines and --target {targets}: expected as many").into());
            }
            for (source, target) in sources.iter().zip(&targets).filter(|(source, _)| !source.trim().is_empty()) {
                pairs.push((read(&encoded(source)?)?, tokenizer.encode(target)?));
            }
        }
        None => {
            let terminal = Terminal::default();
            let sources = sources.iter().filter(|line| !line.trim().is_empty()).map(encoded);
            let sources = sources.collect::<Result<Vec<Source>, Error>>()?;
            terminal.begins("Writing outputs", sources.len());
            let mut first = None;
            generator.generate_many(&sources, |i, output: bild::decode::Result<Output>| {
                match output.and_then(|output| Ok((read(&sources[i])?, output.tokens))) {
                    Ok(pair) => pairs.push(pair),
                    Err(error) => {
                        failed += 1;
                        first.get_or_insert(error);
                    }
                }
                terminal.advances();
            });
            terminal.ends();
            if let Some(error) = first {
                if pairs.is_empty() {
                    return Err(error.into());
                }
                say(format_args!("{failed} of {} sources have no output and are left out: {error}", sources.len()));
            }
        }
    }
    let vocabulary = generator.pair().vocabulary().clone();
    let held_out = pairs.split_off(pairs.len() - (pairs.len() / 10).min(1000));
    if held_out.is_empty() {
        return Err(format!("{} sources are too few to learn from: expected at least 10", pairs.len()).into());
    }
    let frequent = args.frequent.unwrap_or_else(|| frequent(vocabulary.size));
    let list = learn(&pairs, frequent, args.beside);
    let coverage = Coverage::measure(&list, &held_out, &vocabulary.end);
    file.write(&(serde_json::to_string(&list)? + "\n"))?;
    if args.json {
        let size = vocabulary.size;
        out.line(json!({ "learned_from": pairs.len(), "vocabulary": size, "coverage": coverage }))?;
    } else {
        out.line(format_args!(
            "{:.0} of {} tokens for a source, learned from {} outputs; of {} others they cover {:.2} % of the tokens",
            coverage.tokens,
            vocabulary.size,
            pairs.len(),
            coverage.outputs,
            100.0 * coverage.covered,
        ))?;
    }
    Ok(failed == 0)
}
