//! Rounds of before and what became of each of their changes: what people read, and nothing that a
//! lane decides by.

use tidings_entity::{
    id::{CursorId, DeadLetterId, ObjectId, WatchId},
    kind::RoundKind,
};

use super::{DeadLetter, Remote};
use crate::{round::Round, time::Timestamp};

/// Which rounds of an app are meant: those that meet everything that is said. The default is all,
/// newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundFilter {
    /// Of this watch.
    pub watch: Option<WatchId>,
    /// Of this cursor.
    pub cursor: Option<CursorId>,
    /// Only such as are still open.
    pub is_open: bool,
    /// Still open, or ended then or later.
    pub from: Option<Timestamp>,
    /// Begun before.
    pub to: Option<Timestamp>,
    /// Where the list goes on.
    pub place: RoundPlace,
}

/// Where a list of rounds goes on, and in which direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RoundPlace {
    /// The newest first.
    #[default]
    Newest,
    /// Newest first, beginning behind this one.
    Before(i64, CursorId),
    /// Newest first, beginning with this one.
    At(i64, CursorId),
    /// Oldest first, beginning with this number.
    From(i64),
}

/// A round as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundFacts {
    /// Its watch.
    pub watch: WatchId,
    /// Its cursor.
    pub cursor: CursorId,
    /// Its number.
    pub number: i64,
    /// Why it was begun.
    pub kind: RoundKind,
    /// The full ref name.
    pub branch: String,
    /// What the app had; `None`: nothing.
    pub held: Option<ObjectId>,
    /// What it was brought to; `None`: nothing.
    pub target: Option<ObjectId>,
    /// Number of deletes.
    pub deletes: u64,
    /// Number of creates.
    pub creates: u64,
    /// Number of updates.
    pub updates: u64,
    /// The history before the target was rewritten.
    pub history_rewritten: bool,
    /// Commits between held and target were skipped.
    pub skipped_commits: bool,
    /// The app must drop what it does not name.
    pub complete: bool,
    /// The length of the settled prefix.
    pub position: u64,
    /// Changes of it that were given up, as far as their letters are kept.
    pub parked: u64,
    /// When it began.
    pub began_at: Timestamp,
    /// When it was finished or ended early; `None` while it is open.
    pub ended_at: Option<Timestamp>,
}

impl RoundFacts {
    /// Number of changes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.deletes + self.creates + self.updates
    }
}

/// A round with all that its list is made of. Of one that has ended letters may be bound elsewhere
/// meanwhile: whoever makes its list again compares counts and digest.
#[derive(Clone, Debug)]
pub struct PastRound {
    /// Its watch.
    pub watch: WatchId,
    /// Where its trees are read.
    pub remote: Remote,
    /// The round.
    pub round: Round,
    /// When it ended; `None` while it is open.
    pub ended_at: Option<Timestamp>,
}

/// A range of positions that was settled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledRange {
    /// The first.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
    /// When the range was settled.
    pub at: Timestamp,
}

/// The recorded attempts of one change, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// The change's place.
    pub position: u64,
    /// How many are rows.
    pub count: u64,
    /// One of them was acknowledged.
    pub acknowledged: bool,
    /// The status of the last; `None`: there was no answer.
    pub status: Option<u16>,
    /// When the last ended.
    pub at: Timestamp,
    /// When the change was to be tried again after the last.
    pub next_at: Option<Timestamp>,
}

/// What is known of a range of a round's changes, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// The length of the settled prefix.
    pub position: u64,
    /// The round is open.
    pub is_open: bool,
    /// Settled ranges that touch it, in order.
    pub settled: Vec<SettledRange>,
    /// Its dead letters, by position.
    pub letters: Vec<DeadLetter>,
    /// Its attempts, by position.
    pub tries: Vec<Tries>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeState {
    /// The app acknowledged it.
    Delivered,
    /// It was given up.
    Parked,
    /// It was tried, and will be again.
    Failed,
    /// It was not tried yet.
    Pending,
    /// Its round ended before it was its turn; what it was about is in a later round.
    Dropped,
}

impl ChangeState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Parked, Self::Failed, Self::Pending, Self::Dropped];

    /// The word for it.
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

/// The fate of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// What became of it.
    pub state: ChangeState,
    /// When that happened: it was settled, or tried last.
    pub at: Option<Timestamp>,
    /// Its dead letter.
    pub letter: Option<DeadLetterId>,
    /// How often it was tried.
    pub attempts: u64,
    /// The last status that is known.
    pub status: Option<u16>,
    /// When it was to be tried again, where it failed; the breaker of the endpoint is not looked at.
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
            None if position < self.position => (ChangeState::Delivered, range.map(|range| range.at)),
            None if !self.is_open => (ChangeState::Dropped, None),
            None => match tries {
                Some(tries) => (ChangeState::Failed, Some(tries.at)),
                None => (ChangeState::Pending, None),
            },
        };
        // The attempt that was acknowledged is a row only where every attempt is one.
        let unrecorded = state == ChangeState::Delivered && !tries.is_some_and(|tries| tries.acknowledged);
        Fate {
            state,
            at,
            letter: letter.map(|letter| letter.id.clone()),
            attempts: recorded + u64::from(unrecorded),
            status: tries.filter(|_| !unrecorded).and_then(|tries| tries.status),
            next_at: tries.filter(|_| state == ChangeState::Failed).and_then(|tries| tries.next_at),
        }
    }
}
