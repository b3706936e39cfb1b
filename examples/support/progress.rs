//! How far a program is, drawn on standard error if that is a terminal.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

static HIDDEN: AtomicBool = AtomicBool::new(false);

/// Draws nothing from here on: someone types into the same terminal.
pub fn hide() {
    HIDDEN.store(true, Ordering::Relaxed);
}

pub fn spinner(message: String) -> ProgressBar {
    if HIDDEN.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

pub fn bar(length: usize, message: &'static str) -> ProgressBar {
    if HIDDEN.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left").expect("the template is valid");
    ProgressBar::new(length as u64).with_style(style).with_message(message)
}
