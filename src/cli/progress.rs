//! How far long work is: on standard error, where that is a terminal; nothing elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often it moves although nothing is told.
const TICK: Duration = Duration::from_millis(100);

/// What is shown while a verb works; gone when this is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// So many of so many, or of a number that is not known yet.
    pub(super) fn of(things: &str) -> Self {
        Self::new(&format!("{{bar:40}} {{pos}} of {{len}} {things}"))
    }

    /// So many, of nobody knows how many.
    pub(super) fn counting(things: &str) -> Self {
        Self::new(&format!("{{spinner}} {{pos}} {things}, {{elapsed}}"))
    }

    /// What is being done, and with how many so far.
    pub(super) fn steps_counting(things: &str) -> Self {
        Self::new(&format!("{{spinner}} {{msg}}, {{pos}} {things}, {{elapsed}}"))
    }

    /// What is being done.
    pub(super) fn steps() -> Self {
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

    /// How many are done.
    pub(super) fn done(&self, done: u64) {
        self.0.set_position(done);
    }

    /// How many are done, of how many.
    pub(super) fn done_of(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }

    /// What is being done now.
    pub(super) fn tell(&self, step: &'static str) {
        self.0.set_message(step);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
