//! What passes cost, measured once, so that the time of a policy can be told from its counted passes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use bild::{Event, Output, Pair, PairSession, Pass, Precision, SessionLimit, Source, Token, Want};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    conditions::Conditions,
    median,
    models::Loading,
    output::OutputFile,
    pair::{AnyPair, Loaded, PairOptions},
    policy::Needs,
    progress::bar,
    streams::say,
    text,
    trial::Bench,
};

const ROWS: [usize; 6] = [1, 2, 4, 8, 11, 17];
const ROUNDS: usize = 9;

/// Milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Costs {
    /// Reading a source, by each model.
    pub encode_big: f64,
    pub encode_little: f64,
    /// A step of the little model.
    pub draft: f64,
    /// A pass of the big model over so many tokens, by number.
    pub verify: Vec<(usize, f64)>,
}

impl Costs {
    /// Measures a pair at a source of `source` tokens, after `generated` tokens: each pass of the big model after the draft
    /// steps that would come before it.
    pub fn measure(pair: &AnyPair, source: usize, generated: usize) -> Result<Self, Error> {
        let progress = bar(ROUNDS, "Measuring passes");
        let [mut encode_big, mut encode_little, mut draft] = [Vec::new(), Vec::new(), Vec::new()];
        let mut verify = vec![Vec::new(); ROWS.len()];
        let most = pair.vocabulary().size.saturating_sub(3).max(1);
        let tokens = |count: usize| -> Vec<Token> { (0..count).map(|i| (3 + i * 7919 % most) as Token).collect() };
        let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;
        let limit = generated + 18;
        let (source, written) = (Source::new(tokens(source)), tokens(limit));
        for _ in 0..ROUNDS {
            let limit = SessionLimit::new(limit);
            let mut session = pair.begin(&source, &limit)?;
            let reading = || limit.take_reading_time().as_secs_f64() * 1e3;
            session.pass(&Pass::verify(0, &written[..generated], Want::default()))?;
            encode_big.push(reading());
            session.pass(&Pass::draft(0, &written[..generated], Want::default()))?;
            encode_little.push(reading());
            for (rows, times) in ROWS.iter().zip(&mut verify) {
                let new = &written[generated..generated + rows];
                for (i, token) in new.iter().enumerate() {
                    let begun = Instant::now();
                    session.pass(&Pass::draft(generated + i, &[*token], Want::default()))?;
                    draft.push(milliseconds(begun));
                }
                let begun = Instant::now();
                session.pass(&Pass::verify(generated, new, Want::default().cross_entropy()))?;
                times.push(milliseconds(begun));
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(Self {
            encode_big: median(encode_big),
            encode_little: median(encode_little),
            draft: median(draft),
            verify: ROWS.into_iter().zip(verify.into_iter().map(median)).collect(),
        })
    }

    /// The time of a pass over so many tokens: between those measured in a line, beyond the last on in that line.
    pub fn pass(&self, rows: usize) -> f64 {
        let last = self.verify.len() - 1;
        let after = self.verify.iter().position(|(measured, _)| *measured >= rows).unwrap_or(last).max(1);
        let ((a, from), (b, to)) = (self.verify[after - 1], self.verify[after]);
        from + (to - from) * (rows as f64 - a as f64) / (b - a) as f64
    }

    /// The time of a generation, from its events.
    pub fn of(&self, output: &Output) -> f64 {
        let verified = |event: &Event| match event {
            Event::Verified { drafts, .. } => Some(self.pass(drafts + 1)),
            _ => None,
        };
        let passes: f64 = output.events.iter().filter_map(verified).sum();
        let steps = output.statistics.draft_steps;
        let encode_little = if steps > 0 { self.encode_little } else { 0.0 };
        self.encode_big + encode_little + steps as f64 * self.draft + passes
    }
}

/// Costs in a file, with what they were measured with.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    measured_with: Option<Conditions>,
    #[serde(flatten)]
    costs: Costs,
}

/// Where the costs of passes come from.
#[derive(Clone, Debug)]
pub struct CostsOptions {
    /// A big and a little model whose passes are measured in place of the pair's, and how they are held.
    pub models: Option<(PathBuf, PathBuf, Precision)>,
    /// A file of measured costs: read if it is there, else written.
    pub file: Option<PathBuf>,
    /// How many of the sources are timed by the clock.
    pub timed: usize,
}

impl CostsOptions {
    /// The file of the costs: beside the log of a run that can be gone on with, if none is named.
    pub fn path(&self, resume: Option<&Path>) -> Option<PathBuf> {
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".costs.json");
            PathBuf::from(name)
        };
        self.file.clone().or_else(|| resume.map(beside))
    }

    /// The folders of other models whose passes are measured.
    pub fn folders(&self) -> Vec<(&'static str, PathBuf)> {
        let folders =
            |(big, little, _): &(PathBuf, PathBuf, _)| [("--cost-big", big.clone()), ("--cost-little", little.clone())];
        self.models.as_ref().map(folders).into_iter().flatten().collect()
    }

    /// The pair whose passes are measured.
    pub fn pair(&self, bench: &Bench) -> Result<Loaded, Error> {
        let Some((big, little, precision)) = &self.models else { return Ok(bench.loaded.clone()) };
        if !matches!(bench.pair(), AnyPair::Two(..)) {
            return Err(
                "--cost-big and --cost-little are two models, and their passes say nothing of a pair that drafts \
                        in another way"
                    .into(),
            );
        }
        let loading = Loading { big: *precision, little: *precision, threads: bench.loaded.threads() };
        let (big, little) = (Some(big.clone()), Some(little.clone()));
        PairOptions { big, little, loading, ignore_generation_config: true, ..PairOptions::default() }.load(Needs::Both)
    }

    /// What passes cost, at the mean length of the sources. Costs of a file are taken if they were measured for this; else a
    /// file that was named is refused, and so is one that goes with a log; beside a new log they are measured anew.
    pub fn costs(&self, measured: &Loaded, bench: &Bench, resume: Option<&Path>) -> Result<Costs, Error> {
        let (tokens, _) = bench.read();
        let length = (tokens / bench.sources.len()).max(1);
        let conditions = measured.conditions()?.with("the mean length of the sources", length)?;
        let path = self.path(resume);
        if let Some(path) = path.as_deref().filter(|path| path.exists()) {
            match kept(path, &conditions) {
                Ok(costs) => {
                    say(format_args!("note: what passes cost is read from {}", path.display()));
                    return Ok(costs);
                }
                Err(reason) if self.file.is_some() => {
                    return Err(format!("{reason}: name another file for --costs, or remove this one").into());
                }
                // The log goes with these costs, and is not to lose them.
                Err(reason) if resume.is_some_and(|log| fs::metadata(log).is_ok_and(|log| log.len() > 0)) => {
                    return Err(format!("{reason}: name a new file for --resume").into());
                }
                Err(reason) => say(format_args!("note: {reason}: they are measured anew")),
            }
        }
        let file = path.as_deref().map(OutputFile::tried).transpose()?;
        let costs = Costs::measure(&measured.pair, length, length / 2 + 1)?;
        let text = serde_json::to_string(&Kept { measured_with: Some(conditions), costs })?;
        file.map_or(Ok(()), |file| file.write(&format!("{text}\n")))?;
        // As they are read next time, to the last digit.
        Ok(serde_json::from_str::<Kept>(&text)?.costs)
    }

    /// Some of the sentences, from all parts of the dataset from `begin` on, with the pair whose passes are measured.
    pub fn timed(&self, measured: &Loaded, bench: &Bench, begin: usize) -> Bench {
        let all = bench.sources.len() - begin;
        let count = self.timed.clamp(1, all);
        let chosen = (0..count).map(|i| begin + i * all / count);
        let (examples, sources) = chosen.map(|i| (bench.examples[i].clone(), bench.sources[i].clone())).unzip();
        let settings = bench.settings.clone().with_trace(false);
        let (tokenizer, prefix) = (bench.tokenizer.clone(), bench.prefix.clone());
        Bench { loaded: measured.clone(), tokenizer, prefix, settings, sources, examples }
    }
}

/// The costs of a file, if they were measured under these conditions.
fn kept(path: &Path, conditions: &Conditions) -> Result<Costs, String> {
    let name = path.display();
    let text = text::read(path).map_err(|error| error.to_string())?;
    let kept: Kept =
        serde_json::from_str(&text).map_err(|error| format!("{name} holds no costs ({})", text::json_error(&error)))?;
    let verify = &kept.costs.verify;
    let rising = verify.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if verify.len() < 2 || !rising {
        return Err(format!("{name} holds no costs (verify: expected two passes or more, of more and more tokens)"));
    }
    let Some(found) = kept.measured_with else {
        return Err(format!("{name} does not say what its costs were measured with"));
    };
    match conditions.difference(&found) {
        None => Ok(kept.costs),
        Some(what) => Err(format!("the costs of {name} were measured for something else ({what})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Costs {
        Costs { encode_big: 1.5, encode_little: 0.5, draft: 0.25, verify: vec![(1, 1.0), (2, 1.5), (4, 2.0)] }
    }

    #[test]
    fn passes_between_and_beyond_those_measured() {
        let costs = costs();
        for (rows, milliseconds) in [(1, 1.0), (2, 1.5), (3, 1.75), (4, 2.0), (8, 3.0)] {
            assert_eq!(costs.pass(rows), milliseconds);
        }
    }

    #[test]
    fn costs_are_read_for_what_they_were_measured_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("costs.json");
        let conditions = |big: &str| Conditions::default().with("the big model", big).unwrap();
        let kept_for = Kept { measured_with: Some(conditions("x")), costs: costs() };
        std::fs::write(&path, format!("\u{feff}{}\n", serde_json::to_string(&kept_for).unwrap())).unwrap();
        assert_eq!(kept(&path, &conditions("x")).unwrap().verify, costs().verify);
        let found = kept(&path, &conditions("y")).unwrap_err();
        assert!(found.ends_with("costs.json were measured for something else (the big model differs)"), "{found}");
        std::fs::write(&path, serde_json::to_string(&costs()).unwrap()).unwrap();
        assert!(kept(&path, &conditions("x")).unwrap_err().contains("does not say what"));
        std::fs::write(&path, "{}").unwrap();
        assert!(kept(&path, &conditions("x")).unwrap_err().contains("holds no costs (missing field"));
        std::fs::write(&path, r#"{"encode_big":1,"encode_little":1,"draft":1,"verify":[]}"#).unwrap();
        assert!(kept(&path, &conditions("x")).unwrap_err().contains("expected two passes"));
    }

    #[test]
    fn two_logs_have_two_files_of_costs() {
        let options = CostsOptions { models: None, file: None, timed: 1 };
        let path = |resume: &str| options.path(Some(Path::new(resume))).unwrap();
        assert_eq!(path("a/run.one"), Path::new("a/run.one.costs.json"));
        assert_ne!(path("run.one"), path("run.two"));
        assert_eq!(options.path(None), None);
        let named = CostsOptions { file: Some("c".into()), ..options.clone() };
        assert_eq!(named.path(Some(Path::new("run"))).unwrap(), Path::new("c"));
    }
}
