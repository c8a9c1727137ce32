//! Earlier rounds and the result of each of their changes: people read them, and no lane decides by them.

use tidings_entity::{
    id::{CursorId, DeadLetterId, ObjectId, WatchId},
    kind::RoundKind,
};

use crate::{
    model::round::Round,
    ports::{DeadLetter, Remote},
    time::Timestamp,
};

/// A filter for rounds of an app: a round must match all fields. The default matches all rounds, newest
/// first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundFilter {
    /// Only rounds of this watch.
    pub watch: Option<WatchId>,
    /// Only rounds of this cursor.
    pub cursor: Option<CursorId>,
    /// Only rounds that are still open.
    pub is_open: bool,
    /// Only rounds that are still open, or ended at this moment or later.
    pub from: Option<Timestamp>,
    /// Only rounds that began before this moment.
    pub to: Option<Timestamp>,
    /// Where the list continues, and in which direction.
    pub place: RoundPlace,
}

/// Where a list of rounds continues, and in which direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RoundPlace {
    /// Newest first, beginning with the newest round.
    #[default]
    Newest,
    /// Newest first, beginning with the round after this one.
    Before(i64, CursorId),
    /// Newest first, beginning with this round.
    At(i64, CursorId),
    /// Oldest first, beginning with this number.
    From(i64),
}

/// A round as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundFacts {
    /// The watch that the round belongs to.
    pub watch: WatchId,
    /// The cursor that the round belongs to.
    pub cursor: CursorId,
    /// The number of the round within its cursor.
    pub number: i64,
    /// Why the round was begun.
    pub kind: RoundKind,
    /// The full ref name.
    pub branch: String,
    /// The commit that the app held when the round began; `None`: nothing.
    pub held: Option<ObjectId>,
    /// The commit that the round brings the app to; `None`: nothing.
    pub target: Option<ObjectId>,
    /// The number of deletes in the round.
    pub deletes: u64,
    /// The number of creates in the round.
    pub creates: u64,
    /// The number of updates in the round.
    pub updates: u64,
    /// Whether the history of the branch was rewritten (force push) before the round.
    pub history_rewritten: bool,
    /// Whether commits between `held` and `target` were skipped.
    pub skipped_commits: bool,
    /// Whether the app must drop every file that the round does not name.
    pub complete: bool,
    /// The number of changes that are settled, from the first on.
    pub position: u64,
    /// The number of changes that were parked, as far as their dead letters are still stored.
    pub parked: u64,
    /// When the round began.
    pub began_at: Timestamp,
    /// When it was finished or ended early; `None` while it is open.
    pub ended_at: Option<Timestamp>,
}

impl RoundFacts {
    /// The number of changes in the round.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.deletes + self.creates + self.updates
    }
}

/// A round with everything that its list is computed from. Dead letters of an ended round may be bound to
/// another round since: compare counts and digest after computing its list again.
#[derive(Clone, Debug)]
pub struct PastRound {
    /// The watch that the round belongs to.
    pub watch: WatchId,
    /// The repository that the trees of the round are read from.
    pub remote: Remote,
    /// The round as it was begun.
    pub round: Round,
    /// When the round ended; `None` while it is open.
    pub ended_at: Option<Timestamp>,
}

/// A range of positions that was settled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledRange {
    /// The first position of the range.
    pub from: u64,
    /// The position after the last one of the range.
    pub to: u64,
    /// When the range was settled.
    pub at: Timestamp,
}

/// The recorded attempts of one change, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// The position of the change in its round.
    pub position: u64,
    /// The number of attempts that are stored as rows.
    pub count: u64,
    /// Whether one of the attempts was acknowledged.
    pub acknowledged: bool,
    /// The status code of the last attempt; `None`: there was no answer.
    pub status: Option<u16>,
    /// When the last ended.
    pub at: Timestamp,
    /// When the change was to be tried again after the last.
    pub next_at: Option<Timestamp>,
}

/// The facts about a range of a round's changes, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// The length of the settled prefix.
    pub position: u64,
    /// The round is open.
    pub is_open: bool,
    /// Settled ranges that touch it, in order.
    pub settled: Vec<SettledRange>,
    /// The dead letters of the round, by position.
    pub letters: Vec<DeadLetter>,
    /// The recorded attempts of the round's changes, by position.
    pub tries: Vec<Tries>,
}

/// The result of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeState {
    /// The app acknowledged it.
    Delivered,
    /// The change was parked: it has a dead letter.
    Parked,
    /// The change was tried, and will be tried again.
    Failed,
    /// The change was not tried yet.
    Pending,
    /// The round ended before the change was sent; a later round contains what remains of it.
    Dropped,
}

impl ChangeState {
    /// Every state that a change can be in.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Parked, Self::Failed, Self::Pending, Self::Dropped];

    /// The name of the state, as in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Parked => "parked",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::Dropped => "dropped",
        }
    }
}

/// The state of one change, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The state of the change, such as delivered or parked.
    pub state: ChangeState,
    /// When the change was settled or last tried; `None`: neither has happened.
    pub at: Option<Timestamp>,
    /// The dead letter of the change; `None`: the change was not parked.
    pub letter: Option<DeadLetterId>,
    /// The number of attempts so far.
    pub attempts: u64,
    /// The last known status code; `None`: no answer is known.
    pub status: Option<u16>,
    /// When the failed change was to be tried again; the breaker of the endpoint may delay that.
    pub next_at: Option<Timestamp>,
}

impl Fates {
    /// The fate of the change at a position of the range.
    #[must_use]
    pub fn of(&self, position: u64) -> Fate {
        let letter = self.letters.binary_search_by_key(&position, |letter| letter.position).ok();
        let letter = letter.map(|at| &self.letters[at]);
        let tries = self.tries.binary_search_by_key(&position, |tries| tries.position).ok();
        let tries = tries.map(|at| &self.tries[at]);
        let recorded = tries.map_or(0, |tries| tries.count);
        let after = self.settled.partition_point(|range| range.from <= position);
        let range = after.checked_sub(1).map(|at| &self.settled[at]).filter(|range| position < range.to);
        let (state, at) = match letter {
            Some(letter) => (ChangeState::Parked, Some(letter.created_at)),
            // Tasks end in any order: those above the position are settled as well.
            None if position < self.position || range.is_some() => {
                (ChangeState::Delivered, range.map(|range| range.at))
            }
            None if !self.is_open => (ChangeState::Dropped, None),
            None => match tries {
                Some(tries) => (ChangeState::Failed, Some(tries.at)),
                None => (ChangeState::Pending, None),
            },
        };
        // The acknowledged attempt has a row only if every attempt is recorded.
        let unrecorded = state == ChangeState::Delivered && !tries.is_some_and(|tries| tries.acknowledged);
        Fate {
            state,
            at,
            letter: letter.map(|letter| letter.id.clone()),
            attempts: recorded + u64::from(unrecorded),
            // Attempts may be gone, or never have been written; a dead letter keeps the last answer.
            status: tries
                .filter(|_| !unrecorded)
                .and_then(|tries| tries.status)
                .or(letter.and_then(|letter| letter.http_status)),
            next_at: tries.filter(|_| state == ChangeState::Failed).and_then(|tries| tries.next_at),
        }
    }
}
