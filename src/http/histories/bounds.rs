//! What reading histories remembers and may cost: rounds whose list was found to be the one that was
//! sent, and tails. Both have a bound over all apps, and no app takes the part of another.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tidings_entity::id::{AppId, CursorId};

use super::super::problem::{Kind, Problem};

/// So many rounds are remembered, over all apps.
const CHECKED_MAX: usize = 1_024;
/// Tails of one caller at once: of an app, or of somebody of the staff.
const TAILS_PER_CALLER: usize = 8;
/// Tails of all callers are at most one of so many connections: each keeps one, and the others are for
/// requests that end.
const CONNECTIONS_PER_TAIL: usize = 4;
/// How many seconds a client should wait beyond that.
const RETRY_AFTER_SECONDS: u64 = 10;

/// A list that was checked: its cursor, its round, and how many letters were bound to it.
pub(super) type Key = (CursorId, i64, usize);

/// What reading histories remembers and may cost.
pub struct Histories {
    checked: Mutex<Checked>,
    tails: Arc<Mutex<HashMap<String, usize>>>,
    tails_max: usize,
}

#[derive(Default)]
struct Checked {
    of_apps: HashMap<AppId, VecDeque<Key>>,
    count: usize,
}

impl Checked {
    /// Beyond the bound whoever has most loses its oldest.
    fn note(&mut self, app: &AppId, key: Key) {
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
    /// Bounds for a front door that takes so many connections.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        let tails_max = (connections_max / CONNECTIONS_PER_TAIL).max(1);
        Self { checked: Mutex::default(), tails: Arc::default(), tails_max }
    }

    pub(super) fn is_checked(&self, app: &AppId, key: &Key) -> bool {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.of_apps.get(app).is_some_and(|of_app| of_app.contains(key))
    }

    pub(super) fn note(&self, app: &AppId, key: Key) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).note(app, key);
    }

    /// One more tail of an app or, by its id, of somebody of the staff.
    ///
    /// # Errors
    /// 429 when it has as many as it may have, or all apps together have.
    pub(in super::super) fn tail(&self, owner: &str) -> Result<TailShare, Problem> {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |detail: String| {
            Err(Problem::new(Kind::TOO_MANY).with_detail(detail).retry_after(RETRY_AFTER_SECONDS))
        };
        let own = tails.get(owner).copied().unwrap_or(0);
        if own >= TAILS_PER_CALLER {
            return refused(format!("a caller has at most {TAILS_PER_CALLER} tails at once"));
        }
        if tails.values().sum::<usize>() >= self.tails_max {
            return refused("this server has as many tails as it may have".to_owned());
        }
        tails.insert(owner.to_owned(), own + 1);
        Ok(TailShare { owner: owner.to_owned(), tails: Arc::clone(&self.tails) })
    }
}

/// One tail of a caller, until it ends.
pub(in super::super) struct TailShare {
    owner: String,
    tails: Arc<Mutex<HashMap<String, usize>>>,
}

impl Drop for TailShare {
    fn drop(&mut self) {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = tails.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                tails.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn app(number: u64) -> AppId {
        AppId::new(Ulid::from_parts(number, 1))
    }

    fn key(round: i64, letters: usize) -> Key {
        (CursorId::new(Ulid::from_parts(1, 1)), round, letters)
    }

    #[test]
    fn an_app_that_reads_much_makes_no_other_be_checked_again() {
        let histories = Histories::new(8);
        histories.note(&app(1), key(1, 0));
        let all = i64::try_from(CHECKED_MAX).expect("small");
        for round in 0..3 * all {
            histories.note(&app(2), key(round, 0));
        }
        assert!(histories.is_checked(&app(1), &key(1, 0)), "one that had few keeps them");
        assert!(histories.is_checked(&app(2), &key(3 * all - 1, 0)), "the newest of the other");
        assert!(!histories.is_checked(&app(2), &key(0, 0)));
        let checked = histories.checked.lock().expect("no panic");
        let count: usize = checked.of_apps.values().map(VecDeque::len).sum();
        assert_eq!((count, checked.count), (CHECKED_MAX, CHECKED_MAX), "the bound is over all");
    }

    #[test]
    fn a_list_that_was_checked_with_other_letters_was_not_checked() {
        let histories = Histories::new(8);
        histories.note(&app(1), key(1, 2));
        assert!(histories.is_checked(&app(1), &key(1, 2)));
        for other in [key(1, 1), key(2, 2)] {
            assert!(!histories.is_checked(&app(1), &other));
        }
        assert!(!histories.is_checked(&app(2), &key(1, 2)), "what one app may read is its own");
    }

    #[test]
    fn tails_of_all_apps_take_a_quarter_of_the_connections() {
        for (connections, tails) in [(1, 1), (3, 1), (8, 2), (24, 6)] {
            let histories = Histories::new(connections);
            let mut held: Vec<_> = (0..tails)
                .map(|number: usize| histories.tail(&number.to_string()).expect("there is room"))
                .collect();
            let refused = histories.tail("100").err().expect("one too many");
            assert_eq!(refused.code(), "too-many-requests");
            held.pop();
            held.push(histories.tail("100").expect("one has ended"));
            drop(held);
            assert!(histories.tails.lock().expect("no panic").is_empty(), "nothing is left of ended ones");
        }
        let histories = Histories::new(1_024);
        let held: Vec<_> =
            (0..TAILS_PER_CALLER).map(|_| histories.tail("1").expect("there is room")).collect();
        assert!(histories.tail("1").is_err(), "one caller has so many");
        assert!(histories.tail("2").is_ok());
        drop(held);
    }
}
