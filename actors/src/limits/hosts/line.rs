//! The waiting line of a host, pure: sources in two rows, urgent ones (a poke, a new watch) before the
//! ordinary ones, but never more than [`URGENT_IN_A_ROW`] while an ordinary one waits. Within a row apps take
//! turns, so that ten thousand sources of one app cost another app one place, not ten thousand; within an
//! app, first come, first served. A source of several apps stands in line for each of them and goes as soon
//! as one of them has its turn. An app whose source may not go yet keeps its turn and holds up no other app.

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

/// The source that goes next: its place, the position of its app in the row, and the row.
struct FrontOfLine {
    place: LineNumber,
    turn: usize,
    is_urgent: bool,
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

    /// The source whose turn is next among those that may go; `None`: no source waits that may go.
    pub(super) fn front(&mut self, may_go: impl Fn(&T) -> bool) -> Option<(LineNumber, &T)> {
        let place = self.next_to_go(&may_go)?.place;
        self.waiting.get(&place).map(|who| (place, who))
    }

    /// Removes the next source that may go from the line: it has its turn.
    pub(super) fn take(&mut self, may_go: impl Fn(&T) -> bool) -> Option<T> {
        let FrontOfLine { place, turn, is_urgent } = self.next_to_go(&may_go)?;
        self.urgent_in_a_row = if is_urgent { self.urgent_in_a_row + 1 } else { 0 };
        if is_urgent { &mut self.urgent } else { &mut self.ordinary }.rotate(turn);
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

    fn next_to_go(&mut self, may_go: &impl Fn(&T) -> bool) -> Option<FrontOfLine> {
        let urgent = self.urgent.next_to_go(&self.waiting, may_go);
        let ordinary = self.ordinary.next_to_go(&self.waiting, may_go);
        let (is_urgent, (turn, place)) = match (urgent, ordinary) {
            (Some(_), Some(ordinary)) if self.urgent_in_a_row >= URGENT_IN_A_ROW => (false, ordinary),
            (Some(urgent), _) => (true, urgent),
            (None, ordinary) => (false, ordinary?),
        };
        Some(FrontOfLine { place, turn, is_urgent })
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

    /// The first app in turn whose first source may go: the app by its position, and that source.
    fn next_to_go<T>(
        &mut self,
        waiting: &HashMap<LineNumber, T>,
        may_go: &impl Fn(&T) -> bool,
    ) -> Option<(usize, LineNumber)> {
        let mut turn = 0;
        while let Some(app) = self.turns.get(turn) {
            let of_app = self.of_app.get_mut(app)?;
            while of_app.front().is_some_and(|place| !waiting.contains_key(place)) {
                of_app.pop_front();
            }
            let Some(place) = of_app.front().copied() else {
                self.of_app.remove(app);
                self.turns.remove(turn);
                continue;
            };
            if waiting.get(&place).is_some_and(may_go) {
                return Some((turn, place));
            }
            turn += 1;
        }
        None
    }

    /// Gives the turn to the next app, after the first source of the app at this position has gone.
    fn rotate(&mut self, turn: usize) {
        let Some(app) = self.turns.remove(turn) else { return };
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
        std::iter::from_fn(|| line.take(|_| true)).collect()
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
        assert_eq!(line.front(|_| true).map(|(_, who)| *who), Some("a2"));
        assert_eq!(order(&mut line), ["a2", "b1"]);
        line.join(&[], false, "nobody's");
        assert_eq!(order(&mut line), ["nobody's"]);
        assert!(line.is_empty());
    }

    #[test]
    fn an_app_whose_source_may_not_go_keeps_its_turn_and_holds_up_nobody() {
        let mut line = Line::default();
        for (number, who) in [(1, "a1"), (1, "a2"), (2, "b1"), (2, "b2")] {
            line.join(&[app(number)], false, who);
        }
        let gone = line.join(&[app(3)], true, "c1");
        let not_of_first = |who: &&'static str| !who.starts_with('a');
        assert_eq!(line.leave(gone), Some("c1"));
        assert_eq!(line.front(not_of_first).map(|(_, who)| *who), Some("b1"));
        assert_eq!(line.take(not_of_first), Some("b1"));
        assert!(line.front(|_| false).is_none());
        assert_eq!((line.take(|_| false), line.len()), (None, 3));
        assert_eq!(order(&mut line), ["a1", "b2", "a2"], "the first app kept its turn");
        assert!(line.ordinary.of_app.is_empty() && line.ordinary.turns.is_empty(), "nothing is kept");
    }
}
