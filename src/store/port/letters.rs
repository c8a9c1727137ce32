//! Dead letters: finding them, sending them again, dismissing them.

use async_trait::async_trait;
use tidings_actors::{
    model::round::Letter,
    ports::{
        AttemptRecord, Cancelled, DeadLetter, Dismissed, LetterFilter, LetterPage, LetterPick, LetterStore,
        REDRIVE_STEP, Redrive, RedriveStep, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::LetterStatus,
};

use super::transact;
use crate::{
    SqlStore,
    lanes::letters::{self, attempts, dismiss, redrive},
    watching::{statuses, watches},
};

#[async_trait]
impl LetterStore for SqlStore {
    async fn dead_letters(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LetterPage, StoreError> {
        letters::list(&self.readers, app, filter, before, limit).await
    }

    async fn dead_letter(&self, app: &AppId, id: &DeadLetterId) -> Result<DeadLetter, StoreError> {
        letters::shown(letters::row(&self.readers, app, id).await?)
    }

    async fn attempts(
        &self,
        cursor: &CursorId,
        round: i64,
        position: u64,
        limit: u64,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        attempts::list(&self.readers, cursor, round, position, limit).await
    }

    async fn open_letters(
        &self,
        cursor: &CursorId,
        pick: &LetterPick,
    ) -> Result<Vec<(Letter, LetterStatus)>, StoreError> {
        letters::picked(&self.snapshot().await?, cursor, pick).await
    }

    async fn request_redrive(
        &self,
        app: &AppId,
        ids: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError> {
        let (app, ids) = (app.clone(), ids.to_vec());
        transact!(self, |transaction, context| redrive::request(transaction, context, &app, &ids).await)
    }

    async fn begin_redrive(&self, app: &AppId, filter: &LetterFilter) -> Result<RedriveId, StoreError> {
        let (app, filter) = (app.clone(), filter.clone());
        transact!(self, |transaction, context| redrive::begin(transaction, context, &app, &filter).await)
    }

    async fn mark_redrive(&self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError> {
        let id = id.cloned();
        transact!(self, |transaction, _context| redrive::step(transaction, id.as_ref()).await)
    }

    async fn dismiss(&self, app: &AppId, ids: &[DeadLetterId], at: Timestamp) -> Result<u64, StoreError> {
        let (app, ids) = (app.clone(), ids.to_vec());
        transact!(self, |transaction, context| dismiss::named(transaction, context, &app, &ids, at).await)
    }

    async fn dismiss_some(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        at: Timestamp,
    ) -> Result<Dismissed, StoreError> {
        let (app, filter, before) = (app.clone(), filter.clone(), before.cloned());
        transact!(self, |transaction, context| {
            dismiss::some(transaction, context, (&app, &filter, before), at).await
        })
    }

    async fn redrives(
        &self,
        app: &AppId,
        before: Option<&RedriveId>,
        limit: u64,
    ) -> Result<Vec<Redrive>, StoreError> {
        redrive::list(&self.snapshot().await?, app, None, before, limit).await
    }

    async fn redrive(&self, app: &AppId, id: &RedriveId) -> Result<Redrive, StoreError> {
        let found = redrive::list(&self.snapshot().await?, app, Some(id), None, 1).await?;
        found.into_iter().next().ok_or(StoreError::NotFound)
    }

    async fn cancel_redrive(&self, app: &AppId, watch: Option<&WatchId>) -> Result<Cancelled, StoreError> {
        let owned = || (app.clone(), watch.cloned());
        let (app, watch) = owned();
        transact!(self, |transaction, _context| {
            if let Some(watch) = &watch {
                watches::row(transaction, &app, watch).await?;
            }
            redrive::stop_marking(transaction, &app, watch.as_ref()).await
        })?;
        let mut reopened = 0;
        loop {
            let (app, watch) = owned();
            let some = transact!(self, |transaction, _context| {
                redrive::reopen(transaction, &app, watch.as_ref()).await
            })?;
            reopened += some;
            if some < REDRIVE_STEP {
                break;
            }
        }
        // Last, so that a redrive which began in between ends as well.
        let (app, watch) = owned();
        let ending = transact!(self, |transaction, _context| {
            redrive::ask_to_end(transaction, &app, watch.as_ref()).await
        })?;
        Ok(Cancelled { reopened, ending })
    }

    async fn end_redrive(
        &self,
        cursor: &CursorId,
        round: i64,
        reached: &[DeadLetterId],
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let (cursor, reached) = (cursor.clone(), reached.to_vec());
        transact!(self, |transaction, context| {
            let is_ended = redrive::end(transaction, context, &cursor, round, &reached, at).await?;
            statuses::refresh_held(transaction, context, &cursor).await?;
            Ok(is_ended)
        })
    }

    async fn unavailable_letters(
        &self,
        after: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError> {
        letters::unavailable(&self.readers, after.cloned(), limit).await
    }
}
