//! The waiting line of a host, pure: sources in two rows, urgent ones (a poke, a new watch) before the
//! ordinary ones, but never more than [`URGENT_IN_A_ROW`] while an ordinary one waits. Within a row apps take
//! turns, so that ten thousand sources of one app cost another app one place, not ten thousand; within an
//! app, first come, first served. A source of several apps stands in line for each of them and goes as soon
//! as one of them has its turn.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tidings_entity::id::AppId;

/// The number of urgent sources that go before an ordinary one must go.
const URGENT_IN_A_ROW: u32 = 3;
/// The number of apps for which a source waits in line at most; more would not be fairer.
const APPS_MAX: usize = 16;

/// A place in the line.
pub(super) type LineNumber = u64;

/// The line of one host; `T` is the data kept with each waiting source.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: HashMap<LineNumber, T>,
    urgent: AppLine,
    ordinary: AppLine,
    next: LineNumber,
    urgent_in_a_row: u32,
}

/// One row: the sources that wait for each app, and the apps in the order of their turns. Places of sources
/// that left the line stay until they come to the front.
#[derive(Debug, Default)]
struct AppLine {
    of_app: BTreeMap<Option<AppId>, VecDeque<LineNumber>>,
    turns: VecDeque<Option<AppId>>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        let (waiting, urgent, ordinary) = (HashMap::new(), AppLine::default(), AppLine::default());
        Self { waiting, urgent, ordinary, next: 0, urgent_in_a_row: 0 }
    }
}

impl<T> Line<T> {
    /// Stands in line for these apps.
    pub(super) fn join(&mut self, apps: &[AppId], is_urgent: bool, who: T) -> LineNumber {
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

    /// Leaves the line; `None`: the source had left it already.
    pub(super) fn leave(&mut self, place: LineNumber) -> Option<T> {
        self.waiting.remove(&place)
    }

    /// The source whose turn is next; `None`: no source waits.
    pub(super) fn front(&mut self) -> Option<(LineNumber, &T)> {
        let place = self.front_of_rows()?.0;
        self.waiting.get(&place).map(|who| (place, who))
    }

    /// Removes the next source from the line: it has its turn.
    pub(super) fn take(&mut self) -> Option<T> {
        let (place, is_urgent) = self.front_of_rows()?;
        self.urgent_in_a_row = if is_urgent { self.urgent_in_a_row + 1 } else { 0 };
        if is_urgent { &mut self.urgent } else { &mut self.ordinary }.rotate();
        self.waiting.remove(&place)
    }

    /// The number of sources that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no source waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn front_of_rows(&mut self) -> Option<(LineNumber, bool)> {
        let urgent = self.urgent.front(&self.waiting);
        let ordinary = self.ordinary.front(&self.waiting);
        match (urgent, ordinary) {
            (Some(_), Some(ordinary)) if self.urgent_in_a_row >= URGENT_IN_A_ROW => Some((ordinary, false)),
            (Some(urgent), _) => Some((urgent, true)),
            (None, ordinary) => ordinary.map(|place| (place, false)),
        }
    }
}

impl AppLine {
    fn join(&mut self, app: Option<AppId>, place: LineNumber) {
        let of_app = self.of_app.entry(app.clone()).or_insert_with(|| {
            self.turns.push_back(app);
            VecDeque::new()
        });
        of_app.push_back(place);
    }

    fn front<T>(&mut self, waiting: &HashMap<LineNumber, T>) -> Option<LineNumber> {
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

    /// Gives the turn to the next app, after the first source of an app has gone.
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
