//! [`MemoryStore`]: the whole [`Store`] in maps behind one lock. It keeps its promises as the real
//! one does, but for surviving the process.

mod backlog;
mod dismiss;
mod history;
mod lanes;
mod leases;
mod letters;
mod receipts;
mod requests;
mod rows;
mod watches;

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tidings_entity::{
    id::{
        AppId, CursorId, DeadLetterId, ObjectId, ReceiptId, RedriveId, ReplicaId, RepositoryId, SourceId,
        ViewId, WatchId,
    },
    kind::{BreakerKind, LetterStatus, ReceiptVerdict},
};

use super::SeededRandom;
use crate::{
    ports::{
        App, AppPatch, AttemptRecord, Backlog, Begun, BlobFacts, BreakerRow, Cancelled, Clock, DeadLetter,
        Dismissed, Fates, Fence, GONE, Glimpse, Head, Hook, KeyedRequest, Laggard, LaneSnapshot, LaneTerms,
        LetterFilter, LetterPage, LetterPick, Moved, NewApp, NewRound, NewWatch, PastRound, PinnedTrees,
        Reach, Receipt, Redrive, RedriveStep, RefListing, RoundFacts, RoundFilter, Settlement, Source, Store,
        StoreError, StoredAnswer, Totals, Watch, WatchPatch,
    },
    round::{DeliveryId, Letter, TreeEnd},
    secret::Secret,
    time::Timestamp,
};
pub use leases::{LeaseTable, MemoryLeases, SIGNALS};
use rows::State;

/// What befalls one call of a verb.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It changes nothing and fails.
    Fails(StoreError),
    /// It does its work after this wait.
    Waits(Duration),
    /// It never comes back.
    Hangs,
    /// It panics, and with it whoever asked in a handler.
    Panics,
}

/// A store that forgets everything when its last clone is dropped. Several processes that share a
/// database are clones.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    random: Arc<SeededRandom>,
    state: Arc<Mutex<State>>,
    faults: Arc<Mutex<HashMap<&'static str, VecDeque<Fault>>>>,
    leases: Arc<LeaseTable>,
    /// Of the work that this handle is for.
    fence: Option<Fence>,
}

impl MemoryStore {
    /// An empty store on this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            random: Arc::new(SeededRandom::new(0x7469_6469_6e67_7300)),
            state: Arc::default(),
            faults: Arc::default(),
            leases: Arc::default(),
            fence: None,
        }
    }

    /// The next call of `verb` (of those that actors use; by its name) meets this, after what it was
    /// told before.
    pub fn befall(&self, verb: &'static str, fault: Fault) {
        self.faults().entry(verb).or_default().push_back(fault);
    }

    /// Whether a fault that `verb` was told has not met a call yet.
    #[must_use]
    pub fn awaits_fault(&self, verb: &'static str) -> bool {
        self.faults().get(verb).is_some_and(|faults| !faults.is_empty())
    }

    fn faults(&self) -> MutexGuard<'_, HashMap<&'static str, VecDeque<Fault>>> {
        self.faults.lock()
    }

    /// Who owns which part of it.
    #[must_use]
    pub fn leases(&self) -> Arc<LeaseTable> {
        self.leases.clone()
    }

    async fn meet(&self, verb: &'static str) -> Result<(), StoreError> {
        self.befallen(verb).await?;
        // Looked at when the verb does its work, not when it was asked.
        self.fence.map_or(Ok(()), |fence| self.leases.check(fence))
    }

    async fn befallen(&self, verb: &'static str) -> Result<(), StoreError> {
        let fault = self.faults().get_mut(verb).and_then(VecDeque::pop_front);
        match fault {
            None => {}
            Some(Fault::Fails(error)) => return Err(error),
            Some(Fault::Waits(wait)) => tokio::time::sleep(wait).await,
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("{verb} panics, as asked"),
        }
        Ok(())
    }

    /// What the app was registered with whose first token has this public part.
    #[must_use]
    pub fn registered_with(&self, public_id: &str) -> Option<NewApp> {
        let state = self.state();
        let found = state.apps.values().find(|app| app.new.token_public_id == public_id);
        found.map(|app| app.new.clone())
    }

    /// The attempts that are rows.
    #[must_use]
    pub fn attempts(&self) -> Vec<AttemptRecord> {
        self.state().attempts.clone()
    }

    /// How often facts of blobs were written, and how many blobs are known.
    #[must_use]
    pub fn blobs_written(&self) -> (usize, usize) {
        let state = self.state();
        (state.blob_writes, state.blobs.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The same for verbs that refuse before they change anything: they need no copy to fall back on,
    /// and so cost the same however much is stored.
    fn write_checked<T>(&self, verb: impl FnOnce(&mut State) -> T) -> T {
        verb(&mut self.state())
    }

    /// A verb that fails half-way changes nothing.
    fn write<T>(&self, verb: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state();
        let mut next = state.clone();
        let done = verb(&mut next)?;
        *state = next;
        Ok(done)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn under(&self, fence: Fence) -> Arc<dyn Store> {
        Arc::new(Self { fence: Some(fence), ..self.clone() })
    }

    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError> {
        self.meet("create_app").await?;
        self.write(|state| state.create_app(app))
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        Ok(self.state().apps.get(id).map(|app| rows::app(app, self.clock.now())))
    }

    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError> {
        let state = self.state();
        let later = state.apps.values().filter(|app| after.is_none_or(|after| app.new.id > *after));
        Ok(later
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|app| rows::app(app, self.clock.now()))
            .collect())
    }

    async fn disable_gone(&self, id: &AppId, endpoint_since: Timestamp) -> Result<bool, StoreError> {
        self.write(|state| {
            let app = state.apps.get_mut(id).ok_or(StoreError::NotFound)?;
            let is_asked = app.endpoint_since == endpoint_since;
            if is_asked {
                app.disable(Some(GONE.to_owned()), endpoint_since);
            }
            Ok(is_asked)
        })
    }

    async fn patch_app(&self, id: &AppId, patch: &AppPatch, at: Timestamp) -> Result<App, StoreError> {
        self.write(|state| state.patch_app(id, patch, at))
    }

    async fn take_permits(
        &self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError> {
        self.meet("take_permits").await?;
        // The only verb that the rate of deliveries multiplies: it copies nothing.
        self.state().take_permits(app, now, span)
    }

    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError> {
        self.write(|state| state.erase_app(id))
    }

    async fn register_watch(&self, watch: &NewWatch) -> Result<Watch, StoreError> {
        self.write_checked(|state| state.register(&*self.random, watch, self.clock.now()))
    }

    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError> {
        let state = self.state();
        let own = state
            .watches
            .values()
            .filter(|watch| watch.new.app == *app && after.is_none_or(|after| watch.new.id > *after));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(own.take(limit).map(|watch| state.shown_watch(watch)).collect())
    }

    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError> {
        let state = self.state();
        Ok(state.shown_watch(state.own_watch(app, id)?))
    }

    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError> {
        self.state().pinned_trees(app, id)
    }

    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError> {
        self.write(|state| state.patch(app, id, patch))
    }

    async fn replace_credential(
        &self,
        app: &AppId,
        id: &WatchId,
        credential: Option<&Secret>,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Watch, StoreError> {
        self.write(|state| state.replace_credential(&*self.random, (app, id), credential, listing, at))
    }

    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError> {
        self.write(|state| {
            state.own_watch(app, id)?;
            state.resync_watch(id, complete, self.clock.now());
            Ok(())
        })
    }

    async fn request_cursor_resync(
        &self,
        cursor: &CursorId,
        complete: bool,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.meet("request_cursor_resync").await?;
        self.write(|state| {
            if !state.cursors.contains_key(cursor) {
                return Err(StoreError::NotFound);
            }
            state.resync_cursor(cursor, complete, Some(reason), self.clock.now());
            Ok(())
        })
    }

    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError> {
        self.write(|state| {
            state.own_watch(app, id)?;
            let was_open = state.cursors.values().any(|cursor| cursor.watch == *id && cursor.open.is_some());
            state.unwatch(id);
            Ok(was_open)
        })
    }

    async fn repositories(&self, reach: &Reach) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
        self.meet("repositories").await?;
        let state = self.state();
        let mine = state.repositories.keys().filter(|id| reach.covers(id));
        Ok(mine.map(|id| (id.clone(), state.sources_of(id))).collect())
    }

    async fn sources(&self, repository: &RepositoryId) -> Result<Vec<Source>, StoreError> {
        self.meet("sources").await?;
        Ok(self.state().sources_of(repository))
    }

    async fn move_heads(
        &self,
        source: &SourceId,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Moved, StoreError> {
        self.meet("move_heads").await?;
        self.write_checked(|state| state.move_heads(&*self.random, source, listing, at))
    }

    async fn record_scan_error(&self, source: &SourceId, error: Option<&str>) -> Result<(), StoreError> {
        self.meet("record_scan_error").await?;
        self.write(|state| {
            let source = state.sources.get_mut(source).ok_or(StoreError::NotFound)?;
            source.last_error = error.map(str::to_owned);
            Ok(())
        })
    }

    async fn watches_of_source(&self, source: &SourceId) -> Result<Vec<Watch>, StoreError> {
        let state = self.state();
        let through = state.watches.values().filter(|watch| watch.source == *source);
        Ok(through.map(|watch| state.shown_watch(watch)).collect())
    }

    async fn pending(
        &self,
        app: Option<&AppId>,
        reach: &Reach,
    ) -> Result<Vec<(AppId, CursorId)>, StoreError> {
        self.meet("pending").await?;
        Ok(self.state().pending(app, reach))
    }

    async fn glimpse(&self, cursor: &CursorId) -> Result<Glimpse, StoreError> {
        self.meet("glimpse").await?;
        self.state().glimpse(cursor).map(|(_, glimpse)| glimpse).ok_or(StoreError::NotFound)
    }

    async fn lane(&self, cursor: &CursorId) -> Result<LaneSnapshot, StoreError> {
        self.meet("lane").await?;
        self.state().lane(cursor)
    }

    async fn lane_terms(&self, cursors: &[CursorId]) -> Result<Vec<(CursorId, LaneTerms)>, StoreError> {
        self.meet("lane_terms").await?;
        let state = self.state();
        let terms = |id: &CursorId| Some((id.clone(), LaneTerms::of(&state.lane(id).ok()?)));
        Ok(cursors.iter().filter_map(terms).collect())
    }

    async fn begin_round(&self, round: &NewRound) -> Result<(), StoreError> {
        self.meet("begin_round").await?;
        self.write_checked(|state| state.begin_round(round))
    }

    async fn advance(
        &self,
        cursor: &CursorId,
        planned_after: i64,
        held: Option<(ObjectId, ViewId)>,
    ) -> Result<(), StoreError> {
        self.meet("advance").await?;
        self.write_checked(|state| state.advance(cursor, planned_after, held))
    }

    async fn settle(&self, settlement: Settlement) -> Result<bool, StoreError> {
        self.meet("settle").await?;
        Ok(self.write_checked(|state| state.settle(&settlement)))
    }

    async fn finish_round(
        &self,
        cursor: &CursorId,
        round: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError> {
        self.meet("finish_round").await?;
        self.write_checked(|state| state.finish_round(cursor, round, at, end_told))
    }

    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError> {
        self.meet("record_attempt").await?;
        self.write_checked(|state| state.record_attempt(attempt));
        Ok(())
    }

    async fn end_refusals(&self, app: &AppId) -> Result<(), StoreError> {
        self.write(|state| {
            state.end_refusals(app);
            Ok(())
        })
    }

    async fn note_announced(&self, cursor: &CursorId, round: i64) -> Result<(), StoreError> {
        self.write(|state| {
            state.note_announced(cursor, round);
            Ok(())
        })
    }

    async fn deliver_no_later(&self, watch: &WatchId, latest: Timestamp) -> Result<(), StoreError> {
        self.write(|state| {
            let row = state.watches.get_mut(watch).ok_or(StoreError::NotFound)?;
            row.new.deliver_after = row.new.deliver_after.min(latest);
            Ok(())
        })
    }

    async fn set_blocked(&self, cursor: &CursorId, reason: Option<&str>) -> Result<(), StoreError> {
        self.meet("set_blocked").await?;
        self.write_checked(|state| state.set_blocked(cursor, reason))
    }

    async fn pause_by_guard(&self, cursor: &CursorId, reason: &str) -> Result<(), StoreError> {
        self.meet("pause_by_guard").await?;
        self.write(|state| state.pause_by_guard(cursor, reason))
    }

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

    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError> {
        self.write(|state| state.was_held(app, id, cursor, commit))
    }

    async fn request_replay(&self, cursor: &CursorId, from: &TreeEnd) -> Result<(), StoreError> {
        self.write(|state| state.request_replay(cursor, from))
    }

    async fn drop_replay(&self, cursor: &CursorId, from: ObjectId) -> Result<(), StoreError> {
        self.write(|state| {
            state.drop_replay(cursor, from);
            Ok(())
        })
    }

    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError> {
        self.write(|state| state.request_skip(app, id, cursor, expected))
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

    async fn rounds(
        &self,
        app: &AppId,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<RoundFacts>, StoreError> {
        Ok(self.state().shown_rounds(app, filter, limit))
    }

    async fn past_round(&self, app: &AppId, cursor: &CursorId, number: i64) -> Result<PastRound, StoreError> {
        self.state().past_round(app, cursor, number)
    }

    async fn fates(&self, cursor: &CursorId, round: i64, range: Range<u64>) -> Result<Fates, StoreError> {
        self.state().fates(cursor, round, &range)
    }

    async fn last_parked(
        &self,
        cursor: &CursorId,
        round: i64,
        below: u64,
    ) -> Result<Option<u64>, StoreError> {
        Ok(self.state().last_parked(cursor, round, below))
    }

    async fn delivery(
        &self,
        app: &AppId,
        id: &DeliveryId,
    ) -> Result<Option<(CursorId, i64, u64)>, StoreError> {
        Ok(self.state().delivery(app, id))
    }

    async fn receive(&self, hook: &Hook) -> Result<Receipt, StoreError> {
        self.meet("receive").await?;
        self.write(|state| Ok(state.receive(&*self.random, hook)))
    }

    async fn note_receipt(&self, receipt: &Receipt) -> Result<(), StoreError> {
        self.write(|state| {
            state.write_receipt(receipt.clone());
            Ok(())
        })
    }

    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError> {
        Ok(self.state().shown_receipts(verdict, before, limit))
    }

    async fn replay(&self, id: &ReceiptId, at: Timestamp) -> Result<Receipt, StoreError> {
        self.write(|state| state.replay(id, at))
    }

    async fn begin_request(
        &self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
    ) -> Result<Begun, StoreError> {
        let lives = |other: &ReplicaId| self.leases().lives(other);
        self.write(|state| Ok(state.begin_request(request, at, runner, lives)))
    }

    async fn end_request(
        &self,
        request: &KeyedRequest,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError> {
        self.meet("end_request").await?;
        self.write(|state| {
            state.end_request(request, answer);
            Ok(())
        })
    }

    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError> {
        let state = self.state();
        Ok(blobs.iter().map(|id| state.blobs.get(id).map(|(facts, _)| *facts)).collect())
    }

    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError> {
        self.write(|state| {
            state.blob_writes += 1;
            for (id, facts) in blobs {
                state.blobs.entry(*id).or_insert((*facts, at)).1 = at;
            }
            Ok(())
        })
    }

    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError> {
        self.meet("breakers").await?;
        Ok(self.state().breakers.values().cloned().collect())
    }

    async fn record_breaker(&self, breaker: &BreakerRow) -> Result<(), StoreError> {
        self.meet("record_breaker").await?;
        self.write_checked(|state| {
            let key = (breaker.kind, breaker.id.clone());
            let is_open = |row: &BreakerRow| row.opened_at.is_some();
            if breaker.failures == 0 {
                state.breakers.remove(&key);
            } else if is_open(breaker) || !state.breakers.get(&key).is_some_and(is_open) {
                state.breakers.insert(key, breaker.clone());
            }
            Ok(())
        })
    }

    async fn try_probe(
        &self,
        kind: BreakerKind,
        id: &str,
        now: Timestamp,
        next: Timestamp,
    ) -> Result<bool, StoreError> {
        self.meet("try_probe").await?;
        self.write_checked(|state| {
            let Some(breaker) = state.breakers.get_mut(&(kind, id.to_owned())) else { return Ok(false) };
            let due = breaker.opened_at.is_some() && breaker.probe_at.is_none_or(|at| at <= now);
            if due {
                breaker.probe_at = Some(next);
            }
            Ok(due)
        })
    }

    async fn pins(&self, repository: &RepositoryId) -> Result<Vec<ObjectId>, StoreError> {
        Ok(self.state().pins(repository))
    }

    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError> {
        self.meet("prune").await?;
        self.write(|state| Ok(state.prune(now, history, blobs, limit)))
    }

    async fn shorten_history(&self, most: u64, limit: u64) -> Result<u64, StoreError> {
        self.meet("shorten_history").await?;
        self.write(|state| Ok(state.shorten_history(most, limit)))
    }

    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        Ok(self.state().totals(now))
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        self.meet("backlog").await?;
        Ok(self.state().backlog(now))
    }

    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError> {
        let mut laggards = self.state().laggards();
        laggards.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(laggards)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    #[expect(clippy::unused_async, reason = "the suite makes stores that take time to open, too")]
    async fn store() -> (MemoryStore, ()) {
        (MemoryStore::new(Arc::new(ManualClock::new(Timestamp(3000)))), ())
    }

    crate::store_contract_tests!(store);
}
