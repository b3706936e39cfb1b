//! Who wrote each token, how sure it was, and what was taken back: one line a decision.

use std::fmt::Write;

use bild::{
    Output,
    decode::{Event, Role, Token},
    models::Tokenizer,
};

const LITTLE: &str = "\x1b[32m";
const BIG: &str = "\x1b[1;34m";
const TAKEN_BACK: &str = "\x1b[9;31m";
const QUIET: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// A token with its place. The line of a draft is written when it is known what became of it.
struct Pending {
    at: usize,
    token: Token,
    log_prob: f32,
}

pub(crate) fn timeline(output: &Output, tokenizer: Option<&Tokenizer>, colour: bool) -> String {
    let paint = |style: &'static str, text: String| if colour { format!("{style}{text}{RESET}") } else { text };
    let piece = |token| tokenizer.and_then(|t| t.piece(token)).unwrap_or_else(|| format!("<{token}>"));
    let mut lines = String::new();
    let mut line = |draft: &Pending, who: &str, style, note: &str| {
        let text = paint(style, format!("{:<18}", piece(draft.token)));
        let (who, percent) = (paint(style, format!("{who:<6}")), draft.log_prob.exp() * 100.0);
        let _ = writeln!(lines, "{:>4}  {who}  {text} {percent:>5.1} %{}", draft.at, paint(QUIET, note.into()));
    };
    let mut drafts: Vec<Pending> = Vec::new();
    let mut declined: Option<Pending> = None;
    for event in &output.events {
        match *event {
            Event::Drafted { at, token, log_prob } => drafts.push(Pending { at, token, log_prob }),
            Event::Fallback { at, token, log_prob } => declined = Some(Pending { at, token, log_prob }),
            Event::Rollback { at, .. } => {
                for draft in drafts.drain(..).filter(|draft| draft.at >= at) {
                    line(&draft, "little", TAKEN_BACK, "  taken back");
                }
            }
            Event::Committed { at, token, by: Role::Draft, log_prob } => {
                drafts.retain(|draft| draft.at != at);
                line(&Pending { at, token, log_prob }, "little", LITTLE, "");
            }
            Event::Committed { at, token, by: Role::Verifier, log_prob } => {
                if let Some(declined) = declined.take() {
                    line(&declined, "little", QUIET, "  not sure enough: asks the big model");
                }
                line(&Pending { at, token, log_prob }, "big", BIG, "");
            }
            _ => {}
        }
    }
    lines.truncate(lines.trim_end().len());
    lines
}
