//! The memory of reading histories: rounds whose list was found to be the list that was sent. There is a
//! limit over all apps, and each app has its own part.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tidings_entity::id::{AppId, CursorId};

use crate::http::repositories::contents::downloads::Downloads;

/// The number of rounds that are remembered, over all apps.
const CHECKED_MAX: usize = 1_024;

/// A list that was checked: its cursor, its round, and how many letters were bound to it.
pub(super) type CheckedRound = (CursorId, i64, usize);

/// The limits and the memory of reading histories, over all requests.
pub struct Histories {
    /// The limits for searches of trees, shared with downloads of contents.
    pub(in crate::http) downloads: Arc<Downloads>,
    checked: Mutex<Checked>,
}

#[derive(Default)]
struct Checked {
    of_apps: HashMap<AppId, VecDeque<CheckedRound>>,
    count: usize,
}

impl Checked {
    /// Remembers a round; beyond the bound the app with the most rounds loses its oldest.
    fn note(&mut self, app: &AppId, key: CheckedRound) {
        if self.count == CHECKED_MAX
            && let Some(most) = self.of_apps.values_mut().max_by_key(|of_app| of_app.len())
        {
            self.count -= usize::from(most.pop_front().is_some());
            self.of_apps.retain(|_, of_app| !of_app.is_empty());
        }
        let of_app = self.of_apps.entry(app.clone()).or_default();
        if !of_app.contains(&key) {
            of_app.push_back(key);
            self.count += 1;
        }
    }
}

impl Histories {
    /// Limits with nothing read yet.
    #[must_use]
    pub fn new(downloads: Arc<Downloads>) -> Self {
        Self { downloads, checked: Mutex::default() }
    }

    pub(super) fn is_checked(&self, app: &AppId, key: &CheckedRound) -> bool {
        let checked = self.checked.lock();
        checked.of_apps.get(app).is_some_and(|of_app| of_app.contains(key))
    }

    pub(super) fn note(&self, app: &AppId, key: CheckedRound) {
        self.checked.lock().note(app, key);
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn app(number: u64) -> AppId {
        AppId::new(Ulid::from_parts(number, 1))
    }

    fn key(round: i64, letters: usize) -> CheckedRound {
        (CursorId::new(Ulid::from_parts(1, 1)), round, letters)
    }

    #[test]
    fn an_app_that_reads_much_makes_no_other_be_checked_again() {
        let histories = Histories::new(Arc::new(Downloads::new(0)));
        histories.note(&app(1), key(1, 0));
        let all = i64::try_from(CHECKED_MAX).expect("small");
        for round in 0..3 * all {
            histories.note(&app(2), key(round, 0));
        }
        assert!(histories.is_checked(&app(1), &key(1, 0)), "one that had few keeps them");
        assert!(histories.is_checked(&app(2), &key(3 * all - 1, 0)), "the newest of the other");
        assert!(!histories.is_checked(&app(2), &key(0, 0)));
        let checked = histories.checked.lock();
        let count: usize = checked.of_apps.values().map(VecDeque::len).sum();
        assert_eq!((count, checked.count), (CHECKED_MAX, CHECKED_MAX), "the bound is over all");
    }

    #[test]
    fn a_list_that_was_checked_with_other_letters_was_not_checked() {
        let histories = Histories::new(Arc::new(Downloads::new(0)));
        histories.note(&app(1), key(1, 2));
        assert!(histories.is_checked(&app(1), &key(1, 2)));
        for other in [key(1, 1), key(2, 2)] {
            assert!(!histories.is_checked(&app(1), &other));
        }
        assert!(!histories.is_checked(&app(2), &key(1, 2)), "what one app may read is its own");
    }
}
