//! Dead letters: finding them, sending them again, dismissing them.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::LetterStatus,
};

use crate::{
    ports::{
        AttemptRecord, Cancelled, DeadLetter, Dismissed, LetterFilter, LetterPage, LetterPick, Redrive,
        RedriveStep, StoreError,
    },
    round::Letter,
    time::Timestamp,
};

/// What is kept of dead letters and their redrives.
#[async_trait]
pub trait LetterStore: Send + Sync + 'static {
    /// Dead letters of an app that a filter means, newest first, before `before`, at most `limit`.
    /// Looks at no more than [`SEARCH_STEP`](crate::ports::SEARCH_STEP) of them.
    async fn dead_letters(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LetterPage, StoreError>;
    /// One letter of an app; foreign ids are [`StoreError::NotFound`] like missing ones.
    async fn dead_letter(&self, app: &AppId, id: &DeadLetterId) -> Result<DeadLetter, StoreError>;
    /// The attempts of one change that are rows, the first first, at most `limit`.
    async fn attempts(
        &self,
        cursor: &CursorId,
        round: i64,
        position: u64,
        limit: u64,
    ) -> Result<Vec<AttemptRecord>, StoreError>;
    /// Open letters of a cursor by path, at most [`LANE_LETTERS`](crate::ports::LANE_LETTERS).
    async fn open_letters(
        &self,
        cursor: &CursorId,
        pick: &LetterPick,
    ) -> Result<Vec<(Letter, LetterStatus)>, StoreError>;
    /// Asks that these open letters be sent again, as one redrive. Returns how many and whose
    /// cursors. A superseded letter is a [`StoreError::Conflict`].
    async fn request_redrive(
        &self,
        app: &AppId,
        ids: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError>;
    /// Writes down that all open letters which a filter means be sent again, those of later moments
    /// not. Nothing is marked yet: [`LetterStore::mark_redrive`] does that, step by step.
    async fn begin_redrive(&self, app: &AppId, filter: &LetterFilter) -> Result<RedriveId, StoreError>;
    /// Marks some more letters of this redrive, or of the oldest that is not done. `None`: nothing
    /// is left to mark. Looks at no more than [`REDRIVE_STEP`](crate::ports::REDRIVE_STEP) letters.
    async fn mark_redrive(&self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError>;
    /// Closes letters by hand: they are neither redriven nor counted as open any more. All of them, or
    /// none: one that is superseded or redriven, and one that the open round of its cursor sends, is a
    /// [`StoreError::Conflict`]. One that was dismissed before stays as it is. How many were closed.
    async fn dismiss(&self, app: &AppId, ids: &[DeadLetterId], at: Timestamp) -> Result<u64, StoreError>;
    /// Closes some of the open letters that a filter means, newest first, before `before`; those that an
    /// open round sends stay. Looks at no more than [`REDRIVE_STEP`](crate::ports::REDRIVE_STEP) letters.
    async fn dismiss_some(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        at: Timestamp,
    ) -> Result<Dismissed, StoreError>;
    /// Redrives of an app, newest first, before `before`, at most `limit`.
    async fn redrives(
        &self,
        app: &AppId,
        before: Option<&RedriveId>,
        limit: u64,
    ) -> Result<Vec<Redrive>, StoreError>;
    /// One of them; foreign ids are [`StoreError::NotFound`] as well.
    async fn redrive(&self, app: &AppId, id: &RedriveId) -> Result<Redrive, StoreError>;
    /// Takes back every request for a redrive of an app, or of one watch of it: letters that wait
    /// are reopened, some thousand a transaction, then open redrives are asked to end. Killed in
    /// between, it may be asked for again.
    async fn cancel_redrive(&self, app: &AppId, watch: Option<&WatchId>) -> Result<Cancelled, StoreError>;
    /// Ends an open redrive early: the letters that it `reached` are redriven, the others stay open.
    /// `Ok(false)`: it is not the open round.
    async fn end_redrive(
        &self,
        cursor: &CursorId,
        round: i64,
        reached: &[DeadLetterId],
        at: Timestamp,
    ) -> Result<bool, StoreError>;
    /// Open letters that were given up because their content could be had nowhere, oldest first,
    /// after `after`, at most `limit`.
    async fn unavailable_letters(
        &self,
        after: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError>;
}
