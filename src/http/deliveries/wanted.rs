//! Which deliveries are meant: those that meet everything that a query says, its filter among it.

use tidings_actors::{
    filter::{Filter, Record, Value},
    ports::{
        App, ChangeState, Fate, LetterFilter, PathMatcher, RepositoryFacts, RoundFacts, RoundFilter,
        RoundPlace,
    },
    round::DeliveryId,
    selector::BRANCHES,
    time::Timestamp,
};
use tidings_entity::{id::WatchId, kind::Operation};

use super::super::problem::Problem;

/// Beyond the settled prefix nothing is tried but so many changes: what may be in flight, and a batch.
const AHEAD: u64 = 1_024;

/// Which deliveries are meant.
pub(super) struct Wanted {
    watch: Option<WatchId>,
    operation: Option<Operation>,
    /// In one of these states. What nobody asked for by its state is what was never tried: it is no delivery
    /// yet, or never was one.
    states: Vec<ChangeState>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    paths: PathMatcher,
    pub(super) id: Option<DeliveryId>,
    q: Option<Filter>,
}

/// A change of a round, and what became of it.
pub(super) struct Changed<'r> {
    pub(super) operation: Operation,
    pub(super) path: &'r [u8],
    pub(super) fate: &'r Fate,
}

/// What all deliveries of a round have in common.
pub(super) struct OfRound<'r> {
    pub(super) app: &'r App,
    pub(super) facts: &'r RoundFacts,
    /// The repository, where there is a filter.
    pub(super) named: Option<&'r RepositoryFacts>,
}

impl Wanted {
    pub(super) fn of(
        filter: &LetterFilter,
        status: Option<ChangeState>,
        id: Option<DeliveryId>,
        q: Option<Filter>,
    ) -> Result<Self, Problem> {
        let paths = PathMatcher::new(filter.path.as_ref());
        Ok(Self {
            watch: filter.watch.clone(),
            operation: filter.operation,
            states: states(status, id.is_some(), q.as_ref()),
            from: filter.from.map(Timestamp),
            to: filter.to.map(Timestamp),
            paths: paths.map_err(|_| Problem::malformed("path_glob must be a glob as in include"))?,
            id,
            q,
        })
    }

    /// Whether there is no filter, so that nobody asks for names.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.q.is_none()
    }

    /// Whether only letters are meant, which have rows.
    pub(super) fn is_parked_only(&self) -> bool {
        self.states == [ChangeState::Parked]
    }

    /// Whether the filter means no change of a round, whatever its changes are.
    pub(super) fn leaves_out(&self, of: &OfRound<'_>) -> bool {
        self.q.as_ref().is_some_and(|q| q.decide(&Delivery { of, changed: None }) == Some(false))
    }

    pub(super) fn admits(&self, of: &OfRound<'_>, changed: &Changed<'_>) -> bool {
        let fate = changed.fate;
        self.states.contains(&fate.state)
            && self.operation.is_none_or(|wanted| wanted == changed.operation)
            && self.from.is_none_or(|from| fate.at.is_some_and(|at| at >= from))
            && self.to.is_none_or(|to| fate.at.is_some_and(|at| at < to))
            && self.paths.admits(changed.path)
            && self.q.as_ref().is_none_or(|q| q.admits(&Delivery { of, changed: Some(changed) }))
    }

    /// The positions of a round among which they may be.
    pub(super) fn range(&self, facts: &RoundFacts) -> (u64, u64) {
        let (settled, total) = (facts.position, facts.total());
        let is_open = facts.ended_at.is_none();
        let tried = if is_open { total.min(settled + AHEAD) } else { settled };
        let ranges = self.states.iter().map(|state| match state {
            ChangeState::Delivered | ChangeState::Parked => (0, settled),
            ChangeState::Failed => (settled, tried.max(settled)),
            ChangeState::Pending if is_open => (settled, total),
            ChangeState::Dropped if !is_open => (settled, total),
            ChangeState::Pending | ChangeState::Dropped => (0, 0),
        });
        let ranges = ranges.filter(|(low, high)| low < high);
        ranges.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or((0, 0))
    }

    pub(super) fn rounds(&self, place: RoundPlace) -> RoundFilter {
        let is_open =
            self.states.iter().all(|state| matches!(state, ChangeState::Failed | ChangeState::Pending));
        let (first, end) = self.q.as_ref().map_or((None, None), Filter::bounds);
        RoundFilter {
            watch: self.watch.clone(),
            cursor: None,
            is_open,
            from: self.from.max(first),
            to: [self.to, end].into_iter().flatten().min(),
            place,
        }
    }
}

/// The states that are asked for; by a filter those that it may mean.
fn states(status: Option<ChangeState>, by_id: bool, q: Option<&Filter>) -> Vec<ChangeState> {
    let is_said = by_id || q.is_some_and(|q| q.names("state"));
    let is_tried = |state: ChangeState| !matches!(state, ChangeState::Pending | ChangeState::Dropped);
    let is_asked = |state: &ChangeState| match status {
        Some(status) => status == *state,
        None => is_said || is_tried(*state),
    };
    let may_be_meant = |state: &ChangeState| q.is_none_or(|q| q.decide(&InState(*state)) != Some(false));
    ChangeState::ALL.into_iter().filter(is_asked).filter(may_be_meant).collect()
}

/// A delivery of which nothing is known but its state.
struct InState(ChangeState);

impl Record for InState {
    fn value(&self, field: &str) -> Value<'_> {
        if field == "state" { Value::text(self.0.as_str()) } else { Value::Unknown }
    }
}

/// A delivery as filters see it, as far as it is known.
struct Delivery<'r> {
    of: &'r OfRound<'r>,
    changed: Option<&'r Changed<'r>>,
}

impl Record for Delivery<'_> {
    fn value(&self, field: &str) -> Value<'_> {
        let known = self.of.value(field).or_else(|| self.changed.and_then(|changed| changed.value(field)));
        known.unwrap_or(Value::Unknown)
    }
}

impl OfRound<'_> {
    fn value(&self, field: &str) -> Option<Value<'_>> {
        let whole = |named: &RepositoryFacts| format!("{}/{}", named.owner, named.name).into();
        Some(match (field, self.named) {
            ("app", _) => Value::Texts(vec![self.app.id.as_str().into(), self.app.name.as_str().into()]),
            ("repository", Some(named)) => {
                let (id, name) = (self.facts.watch.as_str().into(), named.name.as_str().into());
                Value::Texts(vec![id, name, whole(named)])
            }
            ("name", Some(named)) => Value::Texts(vec![whole(named)]),
            ("branch", _) => {
                let full = self.facts.branch.as_str();
                let names = [Some(full), full.strip_prefix(BRANCHES)].into_iter().flatten();
                Value::Texts(names.map(Into::into).collect())
            }
            _ => return None,
        })
    }
}

impl Changed<'_> {
    fn value(&self, field: &str) -> Option<Value<'_>> {
        let fate = self.fate;
        Some(match field {
            "path" => Value::Path(self.path),
            "kind" => Value::text(self.operation.as_str()),
            "state" => Value::text(fate.state.as_str()),
            "status" => Value::number(fate.status),
            "attempts" => Value::Number(i64::try_from(fate.attempts).unwrap_or(i64::MAX)),
            "since" | "until" => Value::moment(fate.at),
            _ => return None,
        })
    }
}
