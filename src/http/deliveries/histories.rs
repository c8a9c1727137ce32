//! Reads the list of a round again, for people: windows over the two trees, like those of lanes, and the
//! result of each change. Reading changes nothing in a lane, and no list is held whole.
//!
//! The trees of an ended round may no longer be in the mirror, and letters that it sent may be bound to
//! another round by now. Both are checked before anything is shown (409 `tree-unavailable`).

mod bounds;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use tidings_actors::{
    model::round::{Change, DeliveryId, RoundSpec, short_ref},
    ports::{Fate, GitError, PastRound, Seek, StoreError, Watch},
};
use tidings_entity::{
    id::{AppId, CursorId},
    kind::Operation,
};
use tracing::info;
use utoipa::ToSchema;

pub use self::bounds::Histories;
use crate::http::{
    bodies::{
        moment::iso,
        operation::ROUND,
        problem::{Kind, Problem},
    },
    front::Front,
    repositories::contents::trees::{bring_trees, unavailable},
};

/// A change of a round and its state.
#[derive(Clone, Serialize, ToSchema)]
pub(in crate::http) struct ChangeShown {
    /// Id of the delivery: `event.id` and `webhook-id`.
    id: String,
    round: i64,
    position: u64,
    /// Type of the change: `file.created`, `file.updated` or `file.deleted`; `round` for a whole round that
    /// was one task and is known by its dead letter alone.
    #[serde(rename = "type")]
    change_type: &'static str,
    /// Path of the file. Bytes that are not UTF-8 are replaced.
    path: String,
    /// Bytes of the path in base64. Only if the path is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_blob: Option<String>,
    /// Whether the trees of the round were read, so that missing contents are known to be none.
    #[serde(skip)]
    is_read: bool,
    /// In a redrive: id of the delivery that was parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_of: Option<String>,
    /// `delivered`, `parked`, `failed` (a retry follows), `pending` or `dropped` (the round ended before the
    /// change).
    state: &'static str,
    /// When the change was delivered or parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_id: Option<String>,
}

impl ChangeShown {
    pub(in crate::http) fn of(past: &PastRound, position: u64, change: &Change, fate: &Fate) -> Self {
        let mode = |entry: tidings_actors::model::round::Entry| format!("{:o}", entry.mode);
        let id = DeliveryId::of(&past.round.cursor, past.round.number, change);
        Self {
            id: id.to_string(),
            round: past.round.number,
            position,
            change_type: change_type(change.operation),
            mode: change.new.map(mode),
            blob: change.new.map(|entry| entry.blob.to_string()),
            previous_mode: change.old.map(mode),
            previous_blob: change.old.map(|entry| entry.blob.to_string()),
            is_read: true,
            replay_of: change.replay_of.as_ref().map(ToString::to_string),
            ..Self::of_path(id.to_string(), past.round.number, position, change.operation, &change.path, fate)
        }
    }

    /// A change whose trees cannot be read any more, from its dead letter.
    pub(in crate::http) fn of_path(
        id: String,
        round: i64,
        position: u64,
        operation: Operation,
        path: &[u8],
        fate: &Fate,
    ) -> Self {
        use tidings_actors::ports::ChangeState::{Delivered, Parked};
        let is_settled = matches!(fate.state, Delivered | Parked);
        Self {
            id,
            round,
            position,
            change_type: if path.is_empty() { ROUND } else { change_type(operation) },
            path: String::from_utf8_lossy(path).into_owned(),
            path_base64: str::from_utf8(path).is_err().then(|| BASE64_STANDARD.encode(path)),
            mode: None,
            blob: None,
            previous_mode: None,
            previous_blob: None,
            is_read: false,
            replay_of: None,
            state: fate.state.as_str(),
            settled_at: fate.at.filter(|_| is_settled).map(iso),
            dead_letter_id: fate.letter.as_ref().map(ToString::to_string),
        }
    }

    /// The number of the round, and the position in the round.
    pub(in crate::http) fn place(&self) -> (i64, u64) {
        (self.round, self.position)
    }

    /// The contents before and after, as far as they are known.
    pub(in crate::http) fn blobs(&self) -> (Option<&str>, Option<&str>) {
        (self.previous_blob.as_deref(), self.blob.as_deref())
    }

    /// Whether the trees of the round were read: without them no content is known.
    pub(in crate::http) fn is_read(&self) -> bool {
        self.is_read
    }

    /// The type of the event.
    pub(in crate::http) fn change_type(&self) -> &'static str {
        self.change_type
    }
}

fn change_type(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "file.created",
        Operation::Update => "file.updated",
        Operation::Delete => "file.deleted",
    }
}

/// The requested branch of a watch.
///
/// # Errors
/// 400 if the branch is not followed, or if none is named and several are followed.
pub(in crate::http) fn followed<'w>(
    watch: &'w Watch,
    asked: Option<&str>,
) -> Result<&'w tidings_actors::ports::CursorStatus, Problem> {
    let is_asked = |name: &str| asked.is_none_or(|asked| asked == name || asked == short_ref(name));
    let mut found = watch.cursors.iter().filter(|cursor| is_asked(&cursor.branch));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Problem::malformed("several branches are followed: name one with `branch`"))
        }
        (None, _) => Err(Problem::malformed(match asked {
            Some(asked) => format!("no branch {asked:?} is followed"),
            None => "no such branch is followed".to_owned(),
        })),
    }
}

/// Why the list of changes was not read.
#[derive(Debug)]
pub(in crate::http) enum Unread {
    /// The list cannot be computed again: its trees are gone, or its letters are bound to another round.
    Gone(Box<Problem>),
    /// Git failed, which may pass.
    Failed(Box<Problem>),
    /// The list was not read: too many reads are running, or the database does not answer.
    Untried(Box<Problem>),
}

impl Unread {
    /// The problem that the client is shown.
    pub(in crate::http) fn problem(self) -> Problem {
        match self {
            Self::Gone(problem) | Self::Failed(problem) | Self::Untried(problem) => *problem,
        }
    }

    fn untried(problem: Problem) -> Self {
        Self::Untried(Box::new(problem))
    }

    fn gone(detail: &str) -> Self {
        Self::Gone(Box::new(Problem::new(Kind::TREE_UNAVAILABLE).with_detail(detail)))
    }

    fn failed(error: &GitError) -> Self {
        Self::Failed(Box::new(unavailable(error)))
    }

    /// The meaning of a failure to read the list of a round. Trees of an ended round are not fetched again,
    /// so their faults are permanent.
    fn of(error: &GitError, round: i64, is_ended: bool) -> Self {
        let is_gone =
            matches!(error, GitError::Missing(_) | GitError::Unobtainable(_) | GitError::Corrupt(_));
        if is_ended && (is_gone || error.is_of_the_object()) {
            info!(round.number = round, code = error.code(), %error,
                "an ended round is not shown: its trees cannot be read");
            return Self::gone("the mirror no longer has the trees of the round");
        }
        Self::failed(error)
    }
}

/// A round whose list is being read.
pub(in crate::http) struct Reading {
    app: AppId,
    pub(in crate::http) past: PastRound,
}

impl Reading {
    /// Opens a round of an app.
    ///
    /// # Errors
    /// 404 if there is no such round.
    pub(in crate::http) async fn open(
        front: &Front,
        app: &AppId,
        cursor: &CursorId,
        number: i64,
    ) -> Result<Self, Problem> {
        let past = front.history.past_round(app, cursor, number).await;
        let past = past.map_err(|error| match error {
            StoreError::NotFound => Problem::new(Kind::NO_ROUND)
                .with_detail(format!("the branch has no round {number}, or its history is no longer stored")),
            error => round_failed(error),
        })?;
        Ok(Self { app: app.clone(), past })
    }

    /// At most this many changes from this position on. Waits for its turn among all searches of trees.
    ///
    /// # Errors
    /// 409 if the list cannot be computed again, 503 if the failure may be temporary.
    pub(in crate::http) async fn window(
        &self,
        front: &Front,
        histories: &Histories,
        seek: &Seek,
        limit: usize,
    ) -> Result<Vec<Change>, Unread> {
        self.check(front, histories).await?;
        let remote = &self.past.remote;
        let look = async || {
            let _turn = histories.downloads.search(&self.app).await.map_err(Unread::untried)?;
            Ok(front.git.window(remote, &self.past.round.spec, seek, limit).await)
        };
        let found = match look().await? {
            Err(GitError::Missing(_) | GitError::Corrupt(_)) if self.past.ended_at.is_none() => {
                let pinned = front.store.pinned_trees(&self.app, &self.past.watch).await;
                let pinned = pinned.map_err(|error| Unread::untried(round_failed(error)))?;
                bring_trees(front, &pinned).await.map_err(|error| Unread::failed(&error))?;
                look().await?
            }
            found => found,
        };
        found.map_err(|error| self.failed(&error))
    }

    /// Checks that the list of an ended round is the list that was sent: one pass over it, once.
    async fn check(&self, front: &Front, histories: &Histories) -> Result<(), Unread> {
        let round = &self.past.round;
        // A letter that was bound to another round meanwhile changes the list, so the count is part of the
        // key.
        let key = (round.cursor.clone(), round.number, round.spec.letters.len());
        if self.past.ended_at.is_none() || histories.is_checked(&self.app, &key) {
            return Ok(());
        }
        let spec = RoundSpec { letters: Vec::new(), ..round.spec.clone() };
        let planned = {
            let _turn = histories.downloads.search(&self.app).await.map_err(Unread::untried)?;
            front.git.plan(&self.past.remote, &spec, &round.spec.letters).await
        };
        let plan = planned.map_err(|error| self.failed(&error))?;
        if plan.summary != round.summary {
            return Err(Unread::gone("dead letters that it sent belong to a later round by now"));
        }
        histories.note(&self.app, key);
        Ok(())
    }

    fn failed(&self, error: &GitError) -> Unread {
        Unread::of(error, self.past.round.number, self.past.ended_at.is_some())
    }
}

/// The problem for a failed call about a round.
pub(in crate::http) fn round_failed(error: StoreError) -> Problem {
    Problem::of_store(error, Kind::NO_ROUND)
}

#[cfg(test)]
mod tests;
