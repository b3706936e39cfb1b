//! Who wrote each token, how sure it was, and what was taken back: one line a decision.

use std::io::{self, Write};

use bild::{Event, Output, Role, Token, Tokenizer};

const LITTLE: &str = "\x1b[32m";
const BIG: &str = "\x1b[1;34m";
const TAKEN_BACK: &str = "\x1b[9;31m";
const QUIET: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// A draft on its way: its line is written when it is known what became of it.
struct Pending {
    at: usize,
    token: Token,
    log_prob: f32,
}

pub(crate) fn write(
    out: &mut impl Write,
    output: &Output,
    tokenizer: Option<&Tokenizer>,
    colour: bool,
) -> io::Result<()> {
    let paint = |style: &'static str, text: String| if colour { format!("{style}{text}{RESET}") } else { text };
    let piece = |token| tokenizer.and_then(|t| t.piece(token)).unwrap_or_else(|| format!("<{token}>"));
    let mut drafts: Vec<Pending> = Vec::new();
    let mut line = |at: usize, who: &str, style, token: Token, log_prob: f32, note: &str| {
        let text = paint(style, format!("{:<18}", piece(token)));
        let who = paint(style, format!("{who:<6}"));
        writeln!(out, "{at:>4}  {who}  {text} {:>5.1} %{}", log_prob.exp() * 100.0, paint(QUIET, note.into()))
    };
    for event in &output.events {
        match *event {
            Event::Drafted { at, token, log_prob } => drafts.push(Pending { at, token, log_prob }),
            Event::Fallback { at, token, log_prob } => {
                line(at, "little", QUIET, token, log_prob, "  not sure enough: asks the big model")?;
            }
            Event::Rollback { at, .. } => {
                for draft in drafts.drain(..).filter(|draft| draft.at >= at) {
                    line(draft.at, "little", TAKEN_BACK, draft.token, draft.log_prob, "  taken back")?;
                }
            }
            Event::Committed { at, token, by: Role::Draft, log_prob } => {
                drafts.retain(|draft| draft.at != at);
                line(at, "little", LITTLE, token, log_prob, "")?;
            }
            Event::Committed { at, token, by: Role::Verifier, log_prob } => {
                line(at, "big", BIG, token, log_prob, "")?;
            }
            _ => {}
        }
    }
    Ok(())
}
