//! Dead letters: finding them, sending them again, dismissing them.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::LetterStatus,
};

use crate::{
    model::round::Letter,
    ports::{
        AttemptRecord, Cancelled, DeadLetter, Dismissed, LetterFilter, LetterPage, LetterPick, Redrive,
        RedriveStep, StoreError,
    },
    time::Timestamp,
};

/// Dead letters and their redrives.
#[async_trait]
pub trait LetterStore: Send + Sync + 'static {
    /// Dead letters of an app that match a filter, newest first, before `before`, at most `limit`. Looks at
    /// no more than [`SEARCH_STEP`](crate::ports::SEARCH_STEP) of them.
    async fn dead_letters(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LetterPage, StoreError>;
    /// One letter of an app. An id of another app is [`StoreError::NotFound`], like an unknown one.
    async fn dead_letter(&self, app: &AppId, id: &DeadLetterId) -> Result<DeadLetter, StoreError>;
    /// The recorded attempts of one change, oldest first, at most `limit`.
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
    /// Requests that these open letters are sent again, as one redrive. Returns their number and their
    /// cursors. A superseded letter is a [`StoreError::Conflict`].
    async fn request_redrive(
        &self,
        app: &AppId,
        ids: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError>;
    /// Stores a redrive of all open letters that match a filter, except letters of later moments. No letter
    /// is marked yet: [`LetterStore::mark_redrive`] does that, step by step.
    async fn begin_redrive(&self, app: &AppId, filter: &LetterFilter) -> Result<RedriveId, StoreError>;
    /// Marks some more letters of this redrive, or of the oldest that is not done. `None`: nothing
    /// is left to mark. Looks at no more than [`REDRIVE_STEP`](crate::ports::REDRIVE_STEP) letters.
    async fn mark_redrive(&self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError>;
    /// Closes letters by hand: they are neither redriven nor counted as open any more. All are closed, or
    /// none: a superseded or redriven letter, or one that the open round of its cursor sends, is a
    /// [`StoreError::Conflict`]. A letter that was dismissed before stays as it is. Returns the number of
    /// letters closed.
    async fn dismiss(&self, app: &AppId, ids: &[DeadLetterId], at: Timestamp) -> Result<u64, StoreError>;
    /// Closes some of the open letters that match a filter, newest first, before `before`; letters that an
    /// open round sends stay. Reads at most [`REDRIVE_STEP`](crate::ports::REDRIVE_STEP) letters.
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
    /// One redrive of an app. An id of another app is [`StoreError::NotFound`], like an unknown one.
    async fn redrive(&self, app: &AppId, id: &RedriveId) -> Result<Redrive, StoreError>;
    /// Cancels all requested redrives of an app, or of one watch of it. Waiting letters are reopened, some
    /// thousand a transaction; then open redrives are asked to end. After a crash in between the call may be
    /// repeated.
    async fn cancel_redrive(&self, app: &AppId, watch: Option<&WatchId>) -> Result<Cancelled, StoreError>;
    /// Ends an open redrive early: the letters that it `reached` are redriven, the others stay open.
    /// `Ok(false)`: the redrive is not the open round.
    async fn end_redrive(
        &self,
        cursor: &CursorId,
        round: i64,
        reached: &[DeadLetterId],
        at: Timestamp,
    ) -> Result<bool, StoreError>;
    /// Open letters of changes that were parked because their content could not be fetched, oldest first,
    /// after `after`, at most `limit`.
    async fn unavailable_letters(
        &self,
        after: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError>;
}
