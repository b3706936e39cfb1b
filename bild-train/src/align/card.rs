//! What stands in the directory of an aligned model beside its weights.

use std::{fs, path::Path};

use bild::models::Shortlist;

use super::{Aligned, Alignment, Drafter};
use crate::{
    error::{Result, file},
    files,
};

impl Alignment {
    /// Makes the directory `out` of the model in `after`: whole, or not at all.
    pub(super) fn publish(
        &self,
        aligned: &Aligned,
        list: &Shortlist,
        after: &Path,
        work: &Path,
        out: &Path,
    ) -> Result<()> {
        files::publish(out, |partial| {
            for entry in fs::read_dir(after).map_err(file(after, "read"))?.flatten() {
                let contents = fs::read(entry.path()).map_err(file(&entry.path(), "read"))?;
                files::write(&partial.join(entry.file_name()), &contents)?;
            }
            let curve = work.join("curve.svg");
            let contents = fs::read(&curve).map_err(file(&curve, "read"))?;
            files::write(&partial.join("curve.svg"), &contents)?;
            let json = |value: serde_json::Result<String>| value.expect("figures are JSON") + "\n";
            let figures = json(serde_json::to_string_pretty(aligned));
            files::write(&partial.join("alignment.json"), figures.as_bytes())?;
            files::write(&partial.join("shortlist.json"), json(serde_json::to_string(list)).as_bytes())?;
            if let Some(policy) = &aligned.policy {
                files::write(&partial.join("policy.json"), json(serde_json::to_string(policy)).as_bytes())?;
            }
            files::write(&partial.join("README.md"), self.card(aligned).as_bytes())
        })
    }

    fn card(&self, aligned: &Aligned) -> String {
        let (what, how) = match &self.drafter {
            Drafter::Little(_) => ("A little model", "`--little` and this folder"),
            Drafter::Shrunk(_) => ("Some layers of a big model", "`--little` and this folder"),
            Drafter::SharedEncoder(_) => {
                ("A draft decoder on a big model's encoder", "`--shared-encoder` and this folder")
            }
            Drafter::EarlyExit { .. } => ("An early exit of a big model", "`--early-exit` and this folder"),
        };
        let settings = serde_json::to_string(&self.run.settings).expect("settings are JSON");
        let policy = if aligned.policy.is_some() { " `policy.json` is the policy for `--policy-file`." } else { "" };
        format!(
            "# {what}, aligned\n\n\
             It was trained on what its big model writes for {} sources, without references, for {} steps; it drafts with `bild`, by \
             {how} beside `--big`.{policy} `shortlist.json` are the tokens that drafts need to be made of, for `--shortlist`: {:.0} for a source, which cover \
             {:.2} % of what the big model writes. `curve.svg` shows how the training went.\n\n\
             On {} sentences that it was not trained on:\n\n{}\n\
             The settings of the training: `{settings}`\n",
            aligned.sources,
            aligned.steps,
            aligned.coverage.tokens,
            100.0 * aligned.coverage.covered,
            aligned.held_out,
            aligned.before.table(&aligned.after),
        )
    }
}
