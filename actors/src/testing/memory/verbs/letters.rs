//! Dead letters: finding them, sending them again, dismissing them.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, RedriveId, WatchId},
    kind::LetterStatus,
};

use crate::{
    model::round::Letter,
    ports::{
        AttemptRecord, Cancelled, DeadLetter, Dismissed, LetterFilter, LetterPage, LetterPick, LetterStore,
        Redrive, RedriveStep, StoreError,
    },
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl LetterStore for MemoryStore {
    async fn dead_letters(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LetterPage, StoreError> {
        self.state().shown_letters(app, filter, before, limit)
    }

    async fn dead_letter(&self, app: &AppId, id: &DeadLetterId) -> Result<DeadLetter, StoreError> {
        Ok(self.state().own_letter(app, id)?.shown.clone())
    }

    async fn attempts(
        &self,
        cursor: &CursorId,
        round: i64,
        position: u64,
        limit: u64,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        let state = self.state();
        let of_change = state.attempts.iter().filter(|attempt| {
            attempt.cursor == *cursor && attempt.round == round && attempt.position == position
        });
        let mut attempts: Vec<_> = of_change.cloned().collect();
        attempts.sort_by_key(|attempt| attempt.number);
        attempts.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(attempts)
    }

    async fn open_letters(
        &self,
        cursor: &CursorId,
        pick: &LetterPick,
    ) -> Result<Vec<(Letter, LetterStatus)>, StoreError> {
        Ok(self.state().picked_letters(cursor, pick))
    }

    async fn request_redrive(
        &self,
        app: &AppId,
        ids: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError> {
        self.meet("request_redrive").await?;
        self.write(|state| state.request_redrive(&self.random, app, ids, self.clock.now()))
    }

    async fn begin_redrive(&self, app: &AppId, filter: &LetterFilter) -> Result<RedriveId, StoreError> {
        self.write(|state| Ok(state.begin_redrive(&self.random, app, filter, self.clock.now())))
    }

    async fn mark_redrive(&self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError> {
        self.meet("mark_redrive").await?;
        self.write(|state| state.mark_redrive(id))
    }

    async fn dismiss(&self, app: &AppId, ids: &[DeadLetterId], at: Timestamp) -> Result<u64, StoreError> {
        self.write(|state| state.dismiss(app, ids, at))
    }

    async fn dismiss_some(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        at: Timestamp,
    ) -> Result<Dismissed, StoreError> {
        self.write(|state| state.dismiss_some(app, filter, before, at))
    }

    async fn redrives(
        &self,
        app: &AppId,
        before: Option<&RedriveId>,
        limit: u64,
    ) -> Result<Vec<Redrive>, StoreError> {
        Ok(self.state().shown_redrives(app, before, limit))
    }

    async fn redrive(&self, app: &AppId, id: &RedriveId) -> Result<Redrive, StoreError> {
        let all = self.state().shown_redrives(app, None, u64::MAX);
        all.into_iter().find(|redrive| redrive.id == *id).ok_or(StoreError::NotFound)
    }

    async fn cancel_redrive(&self, app: &AppId, watch: Option<&WatchId>) -> Result<Cancelled, StoreError> {
        self.write(|state| {
            watch.map(|id| state.own_watch(app, id).map(drop)).transpose()?;
            Ok(state.cancel_redrive(app, watch))
        })
    }

    async fn end_redrive(
        &self,
        cursor: &CursorId,
        round: i64,
        reached: &[DeadLetterId],
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.meet("end_redrive").await?;
        self.write(|state| state.end_redrive(cursor, round, reached, at))
    }

    async fn unavailable_letters(
        &self,
        after: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError> {
        self.meet("unavailable_letters").await?;
        Ok(self.state().unavailable_letters(after, limit))
    }
}
