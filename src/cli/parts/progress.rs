//! How far long work is: on standard error, where that is a terminal; nothing elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the display moves without news.
const TICK: Duration = Duration::from_millis(100);

/// The progress shown while a verb works; it disappears when this is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Progress as "number of number", where the second may not be known yet.
    pub(crate) fn of(things: &str) -> Self {
        Self::new(&format!("{{bar:40}} {{pos}} of {{len}} {things}"))
    }

    /// Progress as a number alone, where the total is not known.
    pub(crate) fn counting(things: &str) -> Self {
        Self::new(&format!("{{spinner}} {{pos}} {things}, {{elapsed}}"))
    }

    /// Shows the current step, and the number of things done so far.
    pub(crate) fn steps_counting(things: &str) -> Self {
        Self::new(&format!("{{spinner}} {{msg}}, {{pos}} {things}, {{elapsed}}"))
    }

    /// Shows the current step.
    pub(crate) fn steps() -> Self {
        Self::new("{spinner} {msg}, {elapsed}")
    }

    fn new(template: &str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::no_length();
        bar.set_style(ProgressStyle::with_template(template).expect("each template here is one"));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Sets the number of things done.
    pub(crate) fn done(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Sets the number of things done, and the total.
    pub(crate) fn done_of(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }

    /// Sets the current step.
    pub(crate) fn tell(&self, step: &'static str) {
        self.0.set_message(step);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
