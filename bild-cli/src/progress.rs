//! How far a program is, drawn on standard error if that is a terminal.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bild_eval::Observer;
use indicatif::{ProgressBar, ProgressStyle};

use crate::streams::say;

static HIDDEN: AtomicBool = AtomicBool::new(false);

/// Draws nothing from here on: someone types into the same terminal.
pub(crate) fn hide() {
    HIDDEN.store(true, Ordering::Relaxed);
}

pub(crate) fn spinner(message: String) -> ProgressBar {
    if HIDDEN.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

pub(crate) fn bar(length: usize, message: &'static str) -> ProgressBar {
    if HIDDEN.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left").expect("the template is valid");
    ProgressBar::new(length as u64).with_style(style).with_message(message)
}

/// Shows how far an evaluation is, and says what it notes.
#[derive(Default)]
pub(crate) struct Terminal(RefCell<Option<ProgressBar>>);

impl Observer for Terminal {
    fn begins(&self, what: &'static str, steps: usize) {
        self.0.replace(Some(bar(steps, what)));
    }

    fn advances(&self) {
        self.0.borrow().iter().for_each(|bar| bar.inc(1));
    }

    fn shows(&self, state: &str) {
        self.0.borrow().iter().for_each(|bar| bar.set_message(state.to_owned()));
    }

    fn ends(&self) {
        self.0.take().iter().for_each(ProgressBar::finish_and_clear);
    }

    fn notes(&self, sentence: &str) {
        say(format_args!("note: {sentence}"));
    }
}
