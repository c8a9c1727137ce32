//! Who is next at a host, pure: sources in two rows, urgent ones (a poke, a new watch) before the
//! ordinary ones, but never more than [`URGENT_IN_A_ROW`] while an ordinary one waits. Within a row
//! apps take turns, so that ten thousand sources of one app cost another app one place, not ten
//! thousand; within an app, first come, first served. A source of several apps stands in line for
//! each of them and goes as soon as one of them has its turn.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tidings_entity::id::AppId;

/// So many urgent ones go before an ordinary one must.
const URGENT_IN_A_ROW: u32 = 3;
/// For at most so many apps a source stands in line; more would be no fairer.
const APPS_MAX: usize = 16;

/// A place in the line.
pub(super) type Place = u64;

/// The line of one host; `T` is what is kept of each who waits.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: HashMap<Place, T>,
    urgent: Row,
    ordinary: Row,
    next: Place,
    urgent_in_a_row: u32,
}

/// One row: who waits for which app, and whose turn it is. Places that were left stay until they
/// come to the front.
#[derive(Debug, Default)]
struct Row {
    of_app: BTreeMap<Option<AppId>, VecDeque<Place>>,
    turns: VecDeque<Option<AppId>>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        let (waiting, urgent, ordinary) = (HashMap::new(), Row::default(), Row::default());
        Self { waiting, urgent, ordinary, next: 0, urgent_in_a_row: 0 }
    }
}

impl<T> Line<T> {
    /// Stands in line for these apps.
    pub(super) fn join(&mut self, apps: &[AppId], is_urgent: bool, who: T) -> Place {
        let place = self.next;
        self.next += 1;
        self.waiting.insert(place, who);
        let row = if is_urgent { &mut self.urgent } else { &mut self.ordinary };
        if apps.is_empty() {
            row.join(None, place);
        }
        for app in apps.iter().take(APPS_MAX) {
            row.join(Some(app.clone()), place);
        }
        place
    }

    /// Leaves the line; `None`: it had left already.
    pub(super) fn leave(&mut self, place: Place) -> Option<T> {
        self.waiting.remove(&place)
    }

    /// Who is next.
    pub(super) fn front(&mut self) -> Option<(Place, &T)> {
        let place = self.front_of_rows()?.0;
        self.waiting.get(&place).map(|who| (place, who))
    }

    /// The next one goes.
    pub(super) fn take(&mut self) -> Option<T> {
        let (place, is_urgent) = self.front_of_rows()?;
        self.urgent_in_a_row = if is_urgent { self.urgent_in_a_row + 1 } else { 0 };
        if is_urgent { &mut self.urgent } else { &mut self.ordinary }.rotate();
        self.waiting.remove(&place)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn front_of_rows(&mut self) -> Option<(Place, bool)> {
        let urgent = self.urgent.front(&self.waiting);
        let ordinary = self.ordinary.front(&self.waiting);
        match (urgent, ordinary) {
            (Some(_), Some(ordinary)) if self.urgent_in_a_row >= URGENT_IN_A_ROW => Some((ordinary, false)),
            (Some(urgent), _) => Some((urgent, true)),
            (None, ordinary) => ordinary.map(|place| (place, false)),
        }
    }
}

impl Row {
    fn join(&mut self, app: Option<AppId>, place: Place) {
        let of_app = self.of_app.entry(app.clone()).or_insert_with(|| {
            self.turns.push_back(app);
            VecDeque::new()
        });
        of_app.push_back(place);
    }

    fn front<T>(&mut self, waiting: &HashMap<Place, T>) -> Option<Place> {
        loop {
            let app = self.turns.front()?;
            let of_app = self.of_app.get_mut(app)?;
            while of_app.front().is_some_and(|place| !waiting.contains_key(place)) {
                of_app.pop_front();
            }
            if let Some(place) = of_app.front() {
                return Some(*place);
            }
            self.of_app.remove(app);
            self.turns.pop_front();
        }
    }

    /// The first of the app whose turn it is has gone; the next app's turn comes.
    fn rotate(&mut self) {
        let Some(app) = self.turns.pop_front() else { return };
        if let Some(of_app) = self.of_app.get_mut(&app) {
            of_app.pop_front();
            self.turns.push_back(app);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(number: u128) -> AppId {
        AppId::new(ulid::Ulid::from_parts(1, number))
    }

    fn order(line: &mut Line<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| line.take()).collect()
    }

    #[test]
    fn apps_take_turns_however_many_sources_one_of_them_has() {
        let mut line = Line::default();
        for who in ["a1", "a2", "a3", "a4"] {
            line.join(&[app(1)], false, who);
        }
        line.join(&[app(2)], false, "b1");
        line.join(&[app(2)], false, "b2");
        line.join(&[app(3)], false, "c1");
        assert_eq!(order(&mut line), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert!(line.ordinary.of_app.is_empty() && line.ordinary.turns.is_empty(), "nothing is kept");
    }

    #[test]
    fn urgent_ones_go_first_but_never_starve_the_others() {
        let mut line = Line::default();
        for who in ["o1", "o2"] {
            line.join(&[app(1)], false, who);
        }
        for who in ["u1", "u2", "u3", "u4", "u5", "u6", "u7"] {
            line.join(&[app(2)], true, who);
        }
        assert_eq!(order(&mut line), ["u1", "u2", "u3", "o1", "u4", "u5", "u6", "o2", "u7"]);
    }

    #[test]
    fn a_shared_source_goes_with_the_first_of_its_apps_and_only_once() {
        let mut line = Line::default();
        for who in ["a1", "a2", "a3"] {
            line.join(&[app(1)], false, who);
        }
        line.join(&[app(1), app(2)], false, "shared");
        line.join(&[app(2)], false, "b1");
        assert_eq!(order(&mut line), ["a1", "shared", "a2", "b1", "a3"]);
    }

    #[test]
    fn who_left_is_passed_over_and_costs_nobody_a_turn() {
        let mut line = Line::default();
        let gone = line.join(&[app(1)], false, "a1");
        line.join(&[app(2)], false, "b1");
        line.join(&[app(1)], false, "a2");
        assert_eq!((line.leave(gone), line.leave(gone), line.len()), (Some("a1"), None, 2));
        assert_eq!(line.front().map(|(_, who)| *who), Some("a2"));
        assert_eq!(order(&mut line), ["a2", "b1"]);
        line.join(&[], false, "nobody's");
        assert_eq!(order(&mut line), ["nobody's"]);
        assert!(line.is_empty());
    }
}
