//! The scans that list refs at one host now, pure: each holds a turn. An app takes another turn only while it
//! leaves one to other apps. If the host gave no answer to the last scan, an app has one turn at a time.

use tidings_entity::id::AppId;

use crate::limits::shares::Pool;

/// The turns of one host.
#[derive(Debug)]
pub(super) struct Listings {
    turns: Pool,
    count: usize,
    is_silent: bool,
}

impl Listings {
    /// Creates this many turns, of which one app holds at most `greed` times what it leaves free.
    pub(super) fn new(turns: u64, greed: u64) -> Self {
        Self { turns: Pool::new(turns, greed), count: 0, is_silent: false }
    }

    /// Whether a scan for these apps may begin now: it may as soon as one of them may have another turn.
    pub(super) fn may_begin(&self, apps: &[AppId]) -> bool {
        let held = apps.iter().map(|app| self.turns.held_by(app)).min();
        let has_none = held.map_or(self.count == 0, |held| held == 0);
        (has_none || !self.is_silent) && self.turns.has_room(apps, 1)
    }

    /// A scan for these apps begins. `false`: there is no turn for it.
    pub(super) fn begin(&mut self, apps: &[AppId]) -> bool {
        let begins = self.may_begin(apps) && self.turns.take(apps, 1);
        self.count += usize::from(begins);
        begins
    }

    /// A scan for these apps that had begun gives its turn back.
    pub(super) fn end(&mut self, apps: &[AppId]) {
        self.turns.let_go(apps, 1);
        self.count = self.count.saturating_sub(1);
    }

    /// The number of scans that list.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Records whether the host left the last scan without an answer.
    pub(super) fn set_silent(&mut self, is_silent: bool) {
        self.is_silent = is_silent;
    }

    /// Whether the host left the last scan without an answer.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }
}
