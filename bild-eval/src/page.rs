//! One generation as a page: who wrote each token, how sure it was, and what was taken back.

use std::fmt::Write;

use bild::{
    Output,
    decode::{Event, Finish, Role, Statistics, Token},
};

/// The style of pages that show tokens by who wrote them: CSS, light and dark.
pub const STYLE: &str = include_str!("page.css");

/// One generation, to be shown as a [`page`].
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// The text that was read.
    pub source: &'a str,
    /// The text that was written.
    pub text: &'a str,
    /// The policy as JSON.
    pub policy: &'a str,
    /// With events, which a generation keeps if [`bild::Settings::trace`] asks for them.
    pub output: &'a Output,
}

/// What became of a token: its class and what to call it.
type Fate = (&'static str, &'static str);

const LITTLE: Fate = ("little", "by the little model, and it stood");
const BIG: Fate = ("big", "by the big model");
const UNVERIFIED: Fate = ("unverified", "by the little model, and it stands unverified");
const ROLLED_BACK: Fate = ("back", "by the little model, rolled back");
const DECLINED: Fate = ("declined", "by the little model, not kept: it fell back");
const LEFT_OUT: Fate = ("out", "by the little model, left out: the generation ended before it");
const FATES: [Fate; 6] = [LITTLE, BIG, UNVERIFIED, ROLLED_BACK, DECLINED, LEFT_OUT];

struct Shown {
    at: usize,
    token: Token,
    log_prob: f32,
    fate: Fate,
}

/// One pass of the verifier, with what led to it. After the last pass there may be drafts without one.
#[derive(Default)]
struct Pass {
    drafts: Vec<Shown>,
    declined: Option<Shown>,
    /// How many drafts stood, if there was a pass.
    accepted: Option<usize>,
    own: Option<Shown>,
}

/// A self-contained HTML page: no script, no other file. `piece` gives the text of a token.
pub fn page(trace: &Trace<'_>, piece: impl Fn(Token) -> String) -> String {
    let Trace { source, text, policy, output } = trace;
    let passes = passes(&output.events);
    let title = escape(&source.chars().take(60).collect::<String>());
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Who wrote what: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>Who wrote what</h1>\n<p class=\"quiet\">{}.</p>\n\
         <h2>Source</h2>\n<p class=\"text\" lang=\"\" dir=\"auto\">{}</p>\n\
         <h2>Text</h2>\n<p class=\"text\" lang=\"\" dir=\"auto\">{}</p>\n\
         <h2>Tokens</h2>\n<p class=\"tokens\" id=\"written\" lang=\"\" dir=\"auto\">\n",
        escape(&output.statistics.to_string()),
        escape(source),
        escape(text),
    );
    let mut seen: Vec<Fate> = passes.iter().flat_map(Pass::shown).map(|shown| shown.fate).collect();
    let all = passes.iter().enumerate().flat_map(|(i, pass)| pass.shown().map(move |shown| (i, shown.fate)));
    let mut committed = all.filter(|(_, fate)| [LITTLE, BIG, UNVERIFIED].contains(fate));
    for (at, &token) in output.tokens.iter().enumerate() {
        let by = if output.writers[at] == Role::Draft { LITTLE } else { BIG };
        let (link, fate) =
            committed.next().map_or((String::new(), by), |(i, fate)| (format!(" href=\"#row-{i}\""), fate));
        html += &chip("a", &link, &Shown { at, token, log_prob: output.log_probs[at], fate }, &piece, "");
        seen.push(fate);
    }
    html += "</p>\n<ul class=\"legend\">\n";
    for (class, words) in FATES.iter().filter(|fate| seen.contains(fate)) {
        let _ = writeln!(html, "<li><span class=\"token {class}\">token</span> {words}</li>");
    }
    html += "<li>The bar shows how probable its model found the token.</li>\n</ul>\n<h2>Pass by pass</h2>\n";
    if passes.is_empty() {
        html += "<p class=\"quiet\">No events were kept.</p>\n";
    }
    html += "<ol class=\"passes\">\n";
    for (i, pass) in passes.iter().enumerate() {
        let class = if pass.accepted.is_some() { "pass" } else { "end" };
        let _ = writeln!(html, "<li id=\"row-{i}\" class=\"{class}\"><p class=\"tokens\" lang=\"\" dir=\"auto\">");
        for shown in pass.shown() {
            let tag = if shown.fate == ROLLED_BACK { "del" } else { "span" };
            html += &chip(tag, "", shown, &piece, &format!("<small>{}</small>", percent(shown.log_prob)));
        }
        let _ = writeln!(html, "</p><p class=\"quiet\">{}</p></li>", pass.words());
    }
    let end = match output.finish {
        Finish::EndOfSequence => "It ended with an end-of-sequence token.",
        Finish::StopToken => "It ended on a stop token.",
        Finish::MaxNewTokens => "It ended at the most tokens it may have.",
        Finish::Stopped => "The caller ended it.",
        Finish::Cancelled => "It was cancelled.",
        Finish::Deadline => "It ended because its time was up.",
        _ => "It ended.",
    };
    let _ = write!(html, "</ol>\n<p>{end}</p>\n<h2>Numbers</h2>\n<dl>\n{}", numbers(&output.statistics));
    let _ = write!(html, "<dt>Policy</dt><dd><code>{}</code></dd>\n</dl>\n", escape(policy));
    html + "</main>\n</body>\n</html>\n"
}

impl Pass {
    fn shown(&self) -> impl Iterator<Item = &Shown> {
        self.drafts.iter().chain(&self.declined).chain(&self.own)
    }

    fn words(&self) -> String {
        let drafts = self.drafts.len();
        let mut words = Vec::new();
        if self.declined.is_some() {
            words.push("the little model fell back".to_owned());
        }
        match self.accepted {
            Some(_) if drafts == 0 => {}
            Some(n) => words.push(format!("{n} of {drafts} draft{} stood", if drafts == 1 { "" } else { "s" })),
            None if self.drafts.iter().any(|draft| draft.fate == UNVERIFIED) => {
                words.push("the generation ended on drafts that the big model never saw".into());
            }
            None => words.push("the generation ended before the big model was asked".into()),
        }
        if let Some(own) = &self.own {
            let before = self.drafts.iter().chain(&self.declined).find(|shown| shown.at == own.at);
            let what =
                before.map_or("a token", |b| if b.token == own.token { "the same token" } else { "another token" });
            words.push(format!("the big model wrote {what}"));
        }
        words.join("; ")
    }
}

fn passes(events: &[Event]) -> Vec<Pass> {
    let mut passes = Vec::<Pass>::new();
    for event in events {
        let begins = matches!(event, Event::Drafted { .. } | Event::Fallback { .. } | Event::Verified { .. });
        if begins && passes.last().is_none_or(|pass| pass.accepted.is_some()) {
            passes.push(Pass::default());
        }
        let Some(pass) = passes.last_mut() else { continue };
        let stands = if pass.accepted.is_some() { LITTLE } else { UNVERIFIED };
        match *event {
            Event::Drafted { at, token, log_prob } => {
                pass.drafts.push(Shown { at, token, log_prob, fate: LEFT_OUT });
            }
            Event::Fallback { at, token, log_prob } => {
                pass.declined = Some(Shown { at, token, log_prob, fate: DECLINED });
            }
            Event::Verified { accepted, .. } => pass.accepted = Some(accepted),
            Event::Rollback { at, .. } => {
                pass.drafts.iter_mut().filter(|draft| draft.at >= at).for_each(|draft| draft.fate = ROLLED_BACK);
            }
            Event::Committed { at, by: Role::Draft, .. } => {
                pass.drafts.iter_mut().filter(|draft| draft.at == at).for_each(|draft| draft.fate = stands);
            }
            Event::Committed { at, token, by: Role::Verifier, log_prob } => {
                pass.own = Some(Shown { at, token, log_prob, fate: BIG });
            }
            _ => {}
        }
    }
    passes
}

fn chip(tag: &str, attributes: &str, shown: &Shown, piece: impl Fn(Token) -> String, below: &str) -> String {
    let (class, words) = shown.fate;
    let (text, percent) = (visible(&piece(shown.token)), percent(shown.log_prob));
    let width = shown.log_prob.exp().clamp(0.0, 1.0).max(0.0) * 100.0; // `max` makes 0 of NaN
    let title = format!("position {}, {percent}: {words}", shown.at);
    let bar = format!("<span class=\"bar\"><span style=\"width:{width:.1}%\"></span></span>");
    let piece = format!("<span class=\"piece\">{text}</span>");
    format!("<{tag} class=\"token {class}\"{attributes} title=\"{title}\">{piece}{bar}{below}</{tag}>\n")
}

fn numbers(statistics: &Statistics) -> String {
    let share = |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let rate = |rate: Option<f64>| rate.map_or("–".to_owned(), |rate| format!("{rate:.2}"));
    let s = statistics;
    let times = format!(
        "{:.1?} in the encoders, {:.1?} in the little model, {:.1?}",
        s.encode_time, s.draft_time, s.verifier_time
    );
    let rows = [
        ("Block efficiency", rate(s.block_efficiency()) + " tokens a pass of the big model, which alone has 1"),
        ("Acceptance rate", share(s.acceptance_rate()) + " of the verified drafts stood"),
        ("Big model’s share", share(s.verifier_share()) + " of the tokens"),
        ("Fallbacks", rate(s.fallback_rate()) + " a token"),
        ("Rollbacks", rate(s.rollback_rate()) + " a pass of the big model"),
        ("Passes", format!("{} of the little model, {} of the big one", s.draft_steps, s.verifier_calls)),
        ("Time", format!("{:.1?}: {times} in the big one", s.total_time)),
    ];
    rows.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n")).collect()
}

fn percent(log_prob: f32) -> String {
    if log_prob.is_nan() { "–".into() } else { format!("{:.1} %", log_prob.exp() * 100.0) }
}

/// A piece as HTML, with something to see even if it is empty or white space.
fn visible(piece: &str) -> String {
    const ZERO_WIDTH: [char; 6] = ['\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{feff}'];
    let mark = |mark: &str| format!("<i>{mark}</i>");
    let blank = piece.trim().is_empty();
    let shown = piece.chars().map(|c| match c {
        ' ' if blank => mark("␣"),
        '▁' => mark("▁"),
        c if blank || c.is_control() || ZERO_WIDTH.contains(&c) => mark(&c.escape_debug().to_string()),
        c => escape(c.encode_utf8(&mut [0; 4])),
    });
    if piece.is_empty() { mark("empty") } else { shown.collect() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use bild::{
        Bild, CancelToken, Settings,
        decode::{Generator, Pair, PairSession, Pass, Result, Role, Row, Rows, SessionLimit, Source, Vocabulary, Want},
    };

    use super::*;

    const PIECES: [&str; 8] = ["<pad>", "</s>", "I", "<b>", "let", "", "leave", "alone"];
    const DRAFT: [(Token, f32); 5] = [(2, 0.9), (3, 0.9), (4, 0.8), (5, 0.9), (7, 0.2)];
    const VERIFIER: [(Token, f32); 5] = [(2, 0.9), (3, 0.9), (6, 0.99), (5, 0.9), (7, 0.9)];

    /// Both models: each says at each position what its script has there, whatever was written, then end-of-sequence.
    /// The numbers are how many tokens each has seen.
    #[derive(Clone)]
    struct Toy(Vocabulary);

    fn row(script: [(Token, f32); 5], at: usize, want: Want, following: Option<Token>) -> Result<Row> {
        let (token, p) = script.get(at).copied().unwrap_or((1, 0.9));
        let logit = |t| if t == token { p.ln() } else { ((1.0 - p) / 7.0).ln() };
        Row::from_logits(&(0..8).map(logit).collect::<Vec<_>>(), want, following)
    }

    impl Pair for Toy {
        type Session = Self;

        fn vocabulary(&self) -> &Vocabulary {
            &self.0
        }

        fn begin(&self, _: &Source, _: &SessionLimit) -> Result<Self> {
            Ok(self.clone())
        }
    }

    impl PairSession for Toy {
        fn pass(&mut self, pass: &Pass<'_>) -> Result<Rows> {
            let Pass { keep, new, want, .. } = *pass;
            if pass.role == Role::Draft {
                return Ok(row(DRAFT, keep + new.len() - 1, want, None)?.into());
            }
            (0..new.len()).map(|i| row(VERIFIER, keep + i, want, new.get(i + 1).copied())).collect()
        }
    }

    fn generator(settings: Settings) -> Generator<Toy> {
        let vocabulary = Vocabulary::new(PIECES.len(), 0, [1]);
        let policy = Bild::new(0.5, 2.0).unwrap();
        Generator::new(Toy(vocabulary), policy).unwrap().with_settings(settings.with_trace(true))
    }

    fn output() -> Output {
        generator(Settings::default()).generate(Source::new([2, 1])).unwrap()
    }

    fn shown(output: &Output) -> String {
        let trace = Trace { source: "<i>a & b</i>", text: "I <b>", policy: r#"{"a":"<"}"#, output };
        page(&trace, |token| PIECES[token as usize].into())
    }

    /// The class and the piece of each token from `begin` to the end of the paragraph.
    fn tokens<'a>(html: &'a str, begin: &str) -> Vec<(&'a str, &'a str)> {
        let (_, row) = html.split_once(begin).unwrap();
        let (row, _) = row.split_once("</p>").unwrap();
        let token = |chip: &'a str| {
            let piece = chip.split_once("class=\"piece\">").unwrap().1.split_once("</span>").unwrap().0;
            (chip.split_once('"').unwrap().0, piece)
        };
        row.split("class=\"token ").skip(1).map(token).collect()
    }

    #[test]
    fn written_tokens_are_the_committed_ones_in_order() {
        let output = output();
        assert_eq!(output.tokens, [2, 3, 6, 5, 7, 1]);
        let html = shown(&output);
        let expected = [
            ("little", "I"),
            ("little", "&lt;b&gt;"),
            ("big", "leave"),
            ("little", "<i>empty</i>"),
            ("big", "alone"),
            ("unverified", "&lt;/s&gt;"),
        ];
        assert_eq!(tokens(&html, "id=\"written\""), expected);
    }

    #[test]
    fn each_pass_shows_what_became_of_its_drafts() {
        let html = shown(&output());
        let first = [
            ("little", "I"),
            ("little", "&lt;b&gt;"),
            ("back", "let"),
            ("back", "<i>empty</i>"),
            ("declined", "alone"),
            ("big", "leave"),
        ];
        assert_eq!(tokens(&html, "id=\"row-0\""), first);
        assert!(html.contains("2 of 4 drafts stood; the big model wrote another token"));
        assert!(html.contains("1 of 1 draft stood; the big model wrote the same token"));
        assert_eq!(tokens(&html, "id=\"row-2\""), [("unverified", "&lt;/s&gt;")]);
        assert_eq!(html.matches("<del class=\"token back\"").count(), 2);
        assert!(html.contains("<small>20.0 %</small>"), "the probability of what was not kept");
    }

    #[test]
    fn all_text_is_escaped_and_tags_balance() {
        let html = shown(&output());
        assert!(html.contains("&lt;i&gt;a &amp; b&lt;/i&gt;") && html.contains("{&quot;a&quot;:&quot;&lt;&quot;}"));
        let mut open = Vec::new();
        for tag in html.split('<').skip(1).map(|rest| rest.split_once('>').unwrap().0) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.starts_with(['!', 'm']) && tag != "main" => {} // the doctype and meta have no end
                None => open.push(tag.split(' ').next().unwrap()),
            }
        }
        assert!(open.is_empty(), "left open: {open:?}");
    }

    #[test]
    fn what_cannot_be_told_is_a_dash() {
        let mut output = output();
        output.events.clear();
        output.log_probs.fill(f32::NAN);
        let html = shown(&output);
        assert!(html.contains("No events were kept.") && !html.contains("NaN"));
        assert!(html.contains("position 0, –: ") && html.contains("width:0.0%"));
    }

    #[test]
    fn drafts_that_a_cancelled_generation_left_are_marked() {
        let cancel = CancelToken::default();
        let generator = generator(Settings::default().with_cancel(cancel.clone()));
        let mut generation = generator.stream(Source::new([2, 1])).unwrap();
        generation.next().unwrap().unwrap();
        cancel.cancel();
        let html = shown(&generation.finish().unwrap());
        assert_eq!(tokens(&html, "id=\"row-0\""), [("out", "I")]);
        assert!(html.contains("before the big model was asked") && html.contains("It was cancelled."));
    }
}
