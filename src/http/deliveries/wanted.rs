//! The filter for deliveries: those that match all parameters of a query, including its `q`.

use tidings_actors::{
    model::filter::{Filter, Record, Value},
    model::round::DeliveryId,
    model::selector::BRANCHES,
    ports::{
        ChangeState, Fate, LetterFilter, PathMatcher, RepositoryFacts, RoundFacts, RoundFilter, RoundPlace,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, WatchId},
    kind::Operation,
};

use crate::http::bodies::problem::Problem;

/// The number of changes beyond the settled prefix that may have been tried: those in flight, and a batch.
const AHEAD: u64 = 1_024;

/// The deliveries that a request asks for.
pub(super) struct Wanted {
    watch: Option<WatchId>,
    operation: Option<Operation>,
    /// Only deliveries in one of these states. Changes that were never tried are no deliveries, and are
    /// listed only where their state is asked for.
    states: Vec<ChangeState>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    paths: PathMatcher,
    pub(super) id: Option<DeliveryId>,
    q: Option<Filter>,
}

/// A change of a round, and its result.
pub(super) struct Changed<'r> {
    pub(super) operation: Operation,
    pub(super) path: &'r [u8],
    pub(super) fate: &'r Fate,
}

/// The facts that all deliveries of a round share.
pub(super) struct OfRound<'r> {
    pub(super) app: &'r AppId,
    pub(super) app_name: &'r str,
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
            paths: paths.map_err(|fault| Problem::malformed(format!("path_glob: {fault}")))?,
            id,
            q,
        })
    }

    /// Whether there is no filter, so that no names are needed.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.q.is_none()
    }

    /// Whether only dead letters can match, which have rows.
    pub(super) fn is_parked_only(&self) -> bool {
        self.states == [ChangeState::Parked]
    }

    /// Whether no change of the round can match.
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

/// The requested states; with a filter, the states that it may match.
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

/// A delivery of which only the state is known.
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
            ("app", _) => Value::Texts(vec![self.app.as_str().into(), self.app_name.into()]),
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

#[cfg(test)]
mod tests {
    use tidings_actors::model::filter::sets::DELIVERIES;
    use tidings_entity::{id::CursorId, kind::RoundKind};
    use ulid::Ulid;

    use super::*;

    const NOW: Timestamp = Timestamp(1_769_860_800_000);

    fn wanted(status: Option<ChangeState>, q: &str) -> Wanted {
        let q = Filter::parse(q, &DELIVERIES, NOW).expect(q);
        Wanted::of(&LetterFilter::default(), status, None, Some(q)).expect("valid")
    }

    /// A round of ten changes, of which four are settled.
    fn facts(ended_at: Option<Timestamp>) -> RoundFacts {
        RoundFacts {
            watch: WatchId::new(Ulid::from_parts(1, 1)),
            cursor: CursorId::new(Ulid::from_parts(1, 1)),
            number: 1,
            kind: RoundKind::Sync,
            branch: "refs/heads/main".into(),
            held: None,
            target: None,
            deletes: 0,
            creates: 10,
            updates: 0,
            history_rewritten: false,
            skipped_commits: false,
            complete: false,
            position: 4,
            parked: 0,
            began_at: Timestamp(1),
            ended_at,
        }
    }

    #[test]
    fn a_filter_looks_where_the_states_lie_that_it_may_mean() {
        let all = &ChangeState::ALL[..];
        use ChangeState::{Delivered, Dropped, Failed, Parked, Pending};
        for (status, q, states, open, ended) in [
            (None, "a", &[Delivered, Parked, Failed][..], (0, 10), (0, 4)),
            (None, "state:pending", &[Pending], (4, 10), (0, 0)),
            (None, "state:dropped OR state:parked", &[Parked, Dropped], (0, 4), (0, 10)),
            (None, "state:parked path:docs/**", &[Parked], (0, 4), (0, 4)),
            (None, "NOT state:delivered NOT state:pending", &[Parked, Failed, Dropped], (0, 10), (0, 10)),
            (None, "state:pending OR path:a", all, (0, 10), (0, 10)),
            (None, "state:pending state:parked", &[], (0, 0), (0, 0)),
            (Some(Failed), "state:parked OR a", &[Failed], (4, 10), (0, 0)),
            (Some(Failed), "state:parked", &[], (0, 0), (0, 0)),
        ] {
            let wanted = wanted(status, q);
            assert_eq!(wanted.states, states, "{q}");
            assert_eq!(wanted.range(&facts(None)), open, "{q}");
            assert_eq!(wanted.range(&facts(Some(NOW))), ended, "{q}");
            let only_open = states.iter().all(|state| matches!(state, Failed | Pending));
            assert_eq!(wanted.rounds(RoundPlace::Newest).is_open, only_open, "{q}");
        }
    }

    #[test]
    fn a_round_that_the_filter_cannot_mean_is_left_out() {
        let named = RepositoryFacts {
            repository_id: WatchId::new(Ulid::from_parts(1, 1)),
            github_url: String::new(),
            owner: "octo".into(),
            name: "reader".into(),
        };
        let (app, facts) = (AppId::new(Ulid::from_parts(1, 2)), facts(None));
        let of = OfRound { app: &app, app_name: "docs", facts: &facts, named: Some(&named) };
        for (q, left_out) in [
            ("repository:octo/reader app:docs branch:main", false),
            ("branch:refs/heads/main name:~octo", false),
            ("repository:writer", true),
            ("branch:other OR app:other", true),
            ("branch:other OR path:a", false),
            ("NOT repository:reader state:parked", true),
            ("a", false),
        ] {
            assert_eq!(wanted(None, q).leaves_out(&of), left_out, "{q}");
        }
    }

    #[test]
    fn the_moments_of_a_filter_bound_the_rounds_that_are_read() {
        let hours = |hours: i64| Some(Timestamp(NOW.0 - hours * 3_600_000));
        for (q, from, to) in [
            ("since:-2h a", hours(2), None),
            ("until:-1h since:-2h", hours(2), hours(1)),
            ("since:-2h OR a", None, None),
        ] {
            let rounds = wanted(None, q).rounds(RoundPlace::Newest);
            assert_eq!((rounds.from, rounds.to), (from, to), "{q}");
        }
    }
}
