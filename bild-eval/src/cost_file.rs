//! Costs that are kept in a file, with what they were measured with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bild::decode::BoxedPair;
use serde::{Deserialize, Serialize};

use crate::{Conditions, Costs, Observer, OutputFile, Result, text};

#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    measured_with: Option<Conditions>,
    #[serde(flatten)]
    costs: Costs,
}

/// Where costs are kept.
#[derive(Clone, Debug, Default)]
pub struct CostFile {
    /// The file that was named for them.
    pub named: Option<PathBuf>,
    /// The log of a run that can be gone on with. Its costs lie beside it, if no file is named.
    pub log: Option<PathBuf>,
}

impl CostFile {
    /// The file, if they are kept.
    pub fn path(&self) -> Option<PathBuf> {
        let beside = |path: &PathBuf| {
            let mut name = path.as_os_str().to_owned();
            name.push(".costs.json");
            PathBuf::from(name)
        };
        self.named.clone().or_else(|| self.log.as_ref().map(beside))
    }

    /// What the passes of a pair cost at sources of `length` tokens. Those of the file are taken if they were measured under the
    /// same conditions, which are the models and this length; else a file that was named is refused, and so is one that goes
    /// with a log. Beside a new log they are measured anew.
    ///
    /// # Errors
    ///
    /// If the file holds others or cannot be written, or a pass fails.
    pub fn costs(&self, pair: &BoxedPair, models: Conditions, length: usize, observer: &dyn Observer) -> Result<Costs> {
        let conditions = models.with("the mean length of the sources", length)?;
        let path = self.path();
        if let Some(path) = path.as_deref().filter(|path| path.exists()) {
            match kept(path, &conditions) {
                Ok(costs) => {
                    observer.notes(&format!("what passes cost is read from {}", path.display()));
                    return Ok(costs);
                }
                Err(reason) if self.named.is_some() => {
                    return Err(format!("{reason}: name another file for --costs, or remove this one").into());
                }
                // The log goes with these costs, and is not to lose them.
                Err(reason)
                    if self.log.as_ref().is_some_and(|log| fs::metadata(log).is_ok_and(|log| log.len() > 0)) =>
                {
                    return Err(format!("{reason}: name a new file for --resume").into());
                }
                Err(reason) => observer.notes(&format!("{reason}: they are measured anew")),
            }
        }
        let file = path.as_deref().map(OutputFile::tried).transpose()?;
        let costs = Costs::measure(pair, length, observer)?;
        let text = serde_json::to_string(&Kept { measured_with: Some(conditions), costs })?;
        file.map_or(Ok(()), |file| file.write(&format!("{text}\n")))?;
        // As they are read next time, to the last digit.
        Ok(serde_json::from_str::<Kept>(&text)?.costs)
    }
}

/// The costs of a file, if they were measured under these conditions.
fn kept(path: &Path, conditions: &Conditions) -> Result<Costs, String> {
    let name = path.display();
    let text = text::read(path).map_err(|error| error.to_string())?;
    let kept: Kept = serde_json::from_str(&text)
        .map_err(|error| format!("{name} holds no costs ({})", bild::decode::plain_words(&error)))?;
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
        Costs {
            encode_big: 1.5,
            encode_little: 0.5,
            encode_little_alone: 0.5,
            draft: 0.25,
            verify: vec![(1, 1.0), (2, 1.5), (4, 2.0)],
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
        std::fs::write(&path, r#"{"encode_big":1,"encode_little":1,"encode_little_alone":1,"draft":1,"verify":[]}"#)
            .unwrap();
        assert!(kept(&path, &conditions("x")).unwrap_err().contains("expected two passes"));
    }

    #[test]
    fn two_logs_have_two_files_of_costs() {
        let beside = |log: &str| CostFile { log: Some(log.into()), named: None };
        assert_eq!(beside("a/run.one").path().unwrap(), Path::new("a/run.one.costs.json"));
        assert_ne!(beside("run.one").path(), beside("run.two").path());
        assert_eq!(CostFile::default().path(), None);
        let named = CostFile { named: Some("c".into()), ..beside("run") };
        assert_eq!(named.path().unwrap(), Path::new("c"));
    }
}
