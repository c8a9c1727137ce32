//! The port: one verb after the other, in the order of the trait. Verbs that write take their turn
//! in the writer; verbs that read see one snapshot.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use sea_orm::ConnectionTrait;
use tidings_actors::{
    follow::{Following, Scope, follow},
    ports::{
        App, AppPatch, AttemptRecord, Backlog, Begun, BlobFacts, BreakerRow, Cancelled, DeadLetter,
        Dismissed, Fates, Fence, Glimpse, Head, Hook, KeyedRequest, Laggard, LaneSnapshot, LaneTerms,
        LetterFilter, LetterPage, LetterPick, Moved, NewApp, NewRound, NewWatch, PastRound, PinnedTrees,
        REDRIVE_STEP, Reach, Receipt, Redrive, RedriveStep, RefListing, RoundFacts, RoundFilter, Settlement,
        Source, Store, StoreError, StoredAnswer, Totals, Watch, WatchPatch,
    },
    round::{DeliveryId, Letter, TreeEnd},
    secret::Secret,
    time::Timestamp,
};
use tidings_entity::{
    id::{
        AppId, CursorId, DeadLetterId, ObjectId, ReceiptId, RedriveId, ReplicaId, RepositoryId, SourceId,
        ViewId, WatchId,
    },
    kind::{BreakerKind, LetterStatus, ReceiptVerdict},
};

use super::{
    SqlStore, apps, attempts, backlog, blobs, breakers, dismiss, error::OfTable, heads, history, known,
    lanes, letters, partitions, pinned, receipts, redrive, refusals, registration, replays, requests, resync,
    rounds, skip, sources, terms, upkeep, watches,
};
use crate::audit::Pending;

/// Runs a block in the writer's transaction, with owned copies of what it needs.
macro_rules! write {
    ($store:expr, |$transaction:ident, $context:ident| $body:expr) => {
        $store.writer.verb(move |$transaction, $context| Box::pin(async move { $body })).await
    };
}

#[async_trait]
impl Store for SqlStore {
    fn under(&self, fence: Fence) -> Arc<dyn Store> {
        Arc::new(Self { writer: self.writer.under(fence), ..self.clone() })
    }

    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError> {
        let app = app.clone();
        write!(self, |transaction, context| apps::create(transaction, context, app).await)
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        apps::find(&self.readers, &self.context, "id", id.clone().into()).await
    }

    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError> {
        apps::list(&self.snapshot().await?, &self.context, after, limit).await
    }

    async fn disable_gone(&self, id: &AppId, endpoint_since: Timestamp) -> Result<bool, StoreError> {
        let id = id.clone();
        write!(self, |transaction, _context| apps::disable_gone(transaction, id, endpoint_since).await)
    }

    async fn patch_app(&self, id: &AppId, patch: &AppPatch, at: Timestamp) -> Result<App, StoreError> {
        let (id, patch) = (id.clone(), patch.clone());
        write!(self, |transaction, context| apps::patch(transaction, context, id, patch, at).await)
    }

    async fn take_permits(
        &self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError> {
        let app = app.clone();
        write!(self, |transaction, _context| apps::take_permits(transaction, app, now, span).await)
    }

    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError> {
        // A million rows fit in no transaction that others wait for: what only tells of the past goes first,
        // in steps. Cut off in between, the app is still there, with less of a past.
        for kind in 0..upkeep::KINDS_OF_APP {
            loop {
                let app = id.clone();
                let step = self.writer.question(move |transaction, _context| {
                    Box::pin(async move { upkeep::clear(transaction, &app, kind, upkeep::STEP).await })
                });
                if step.await? < upkeep::STEP {
                    break;
                }
            }
        }
        let id = id.clone();
        write!(self, |transaction, _context| apps::erase(transaction, id).await)
    }

    async fn register_watch(&self, watch: &NewWatch) -> Result<Watch, StoreError> {
        // What is registered again keeps its id, and that is what was done to.
        let (new, pending) = (watch.clone(), Pending::current());
        write!(self, |transaction, context| {
            let id = registration::register(transaction, context, &new).await?;
            if let Some(pending) = &pending {
                pending.about(id.as_str());
            }
            watches::one(transaction, &new.app, &id).await
        })
    }

    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError> {
        let after = after.map_or("", WatchId::as_str);
        let values = vec![app.clone().into(), after.into()];
        watches::list(&self.snapshot().await?, "w.app_id = $1 and w.id > $2", values, limit).await
    }

    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError> {
        watches::one(&self.snapshot().await?, app, id).await
    }

    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError> {
        pinned::trees(&self.snapshot().await?, &self.context, app, id).await
    }

    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError> {
        let (app, id, patch) = (app.clone(), id.clone(), patch.clone());
        write!(self, |transaction, context| {
            watches::patch(transaction, &app, &id, &patch, context.clock.now()).await?;
            watches::one(transaction, &app, &id).await
        })
    }

    async fn replace_credential(
        &self,
        app: &AppId,
        id: &WatchId,
        credential: Option<&Secret>,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Watch, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        let (credential, listing) = (credential.cloned(), listing.clone());
        write!(self, |transaction, context| {
            let credential = credential.as_ref();
            registration::replace_credential(transaction, context, &app, &id, credential, &listing, at)
                .await?;
            watches::one(transaction, &app, &id).await
        })
    }

    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError> {
        let (app, id) = (app.clone(), id.clone());
        write!(self, |transaction, context| {
            watches::row(transaction, &app, &id).await?;
            resync::of_watch(transaction, &id, complete, context.clock.now()).await
        })
    }

    async fn request_cursor_resync(
        &self,
        cursor: &CursorId,
        complete: bool,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (cursor, reason) = (cursor.clone(), reason.to_owned());
        write!(self, |transaction, context| {
            resync::of_cursor(transaction, cursor, complete, reason, context.clock.now()).await
        })
    }

    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        write!(self, |transaction, _context| registration::unwatch(transaction, &app, &id).await)
    }

    async fn repositories(&self, reach: &Reach) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
        sources::list(&self.snapshot().await?, &self.context, reach).await
    }

    async fn sources(&self, repository: &RepositoryId) -> Result<Vec<Source>, StoreError> {
        sources::of(&self.snapshot().await?, &self.context, repository).await
    }

    async fn move_heads(
        &self,
        source: &SourceId,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Moved, StoreError> {
        // Most polls find nothing new: those end here, with one statement and no transaction.
        let known = known::known(&self.readers, source).await?;
        let following = follow(&known, listing, Scope::Source, at);
        if following.is_empty() {
            let Following { absent, left_out, .. } = following;
            return Ok(Moved { changed: false, absent, left_out, cursors: known.waiting() });
        }
        let (source, listing) = (source.clone(), listing.clone());
        write!(self, |transaction, context| {
            heads::move_heads(transaction, context, &source, &listing, at).await
        })
    }

    async fn record_scan_error(&self, source: &SourceId, error: Option<&str>) -> Result<(), StoreError> {
        if sources::has_error(&self.readers, source, error).await? {
            return Ok(());
        }
        let (source, error) = (source.clone(), error.map(str::to_owned));
        write!(self, |transaction, _context| sources::record_error(transaction, source, error).await)
    }

    async fn watches_of_source(&self, source: &SourceId) -> Result<Vec<Watch>, StoreError> {
        let values = vec![source.clone().into()];
        watches::list(&self.snapshot().await?, "w.source_id = $1", values, u64::MAX).await
    }

    async fn pending(
        &self,
        app: Option<&AppId>,
        reach: &Reach,
    ) -> Result<Vec<(AppId, CursorId)>, StoreError> {
        self.writer.flush().await?;
        lanes::pending(&self.readers, app.cloned(), reach).await
    }

    async fn glimpse(&self, cursor: &CursorId) -> Result<Glimpse, StoreError> {
        self.writer.flush().await?;
        lanes::glimpse(&self.readers, cursor).await
    }

    async fn lane(&self, cursor: &CursorId) -> Result<LaneSnapshot, StoreError> {
        self.writer.flush().await?;
        lanes::snapshot(&self.snapshot().await?, &self.context, cursor).await
    }

    async fn lane_terms(&self, cursors: &[CursorId]) -> Result<Vec<(CursorId, LaneTerms)>, StoreError> {
        terms::of_lanes(&self.readers, cursors).await
    }

    async fn begin_round(&self, round: &NewRound) -> Result<(), StoreError> {
        let round = round.clone();
        write!(self, |transaction, _context| rounds::begin(transaction, &round).await)
    }

    async fn advance(
        &self,
        cursor: &CursorId,
        planned_after: i64,
        held: Option<(ObjectId, ViewId)>,
    ) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        write!(self, |transaction, _context| {
            rounds::advance(transaction, &cursor, planned_after, held).await
        })
    }

    async fn settle(&self, settlement: Settlement) -> Result<bool, StoreError> {
        self.writer.settle(settlement).await
    }

    async fn finish_round(
        &self,
        cursor: &CursorId,
        round: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError> {
        let cursor = cursor.clone();
        write!(self, |transaction, _context| rounds::finish(transaction, &cursor, round, at, end_told).await)
    }

    async fn record_attempt(&self, attempt: AttemptRecord) -> Result<(), StoreError> {
        write!(self, |transaction, _context| attempts::record(transaction, &attempt).await)
    }

    async fn end_refusals(&self, app: &AppId) -> Result<(), StoreError> {
        let app = app.clone();
        write!(self, |transaction, _context| refusals::of_app(transaction, &app).await)
    }

    async fn note_announced(&self, cursor: &CursorId, round: i64) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        write!(self, |transaction, _context| rounds::note_announced(transaction, &cursor, round).await)
    }

    async fn deliver_no_later(&self, watch: &WatchId, latest: Timestamp) -> Result<(), StoreError> {
        let watch = watch.clone();
        write!(self, |transaction, _context| registration::deliver_no_later(transaction, &watch, latest)
            .await)
    }

    async fn set_blocked(&self, cursor: &CursorId, reason: Option<&str>) -> Result<(), StoreError> {
        let (cursor, reason) = (cursor.clone(), reason.map(str::to_owned));
        write!(self, |transaction, _context| rounds::set_blocked(transaction, &cursor, reason).await)
    }

    async fn pause_by_guard(&self, cursor: &CursorId, reason: &str) -> Result<(), StoreError> {
        let (cursor, reason) = (cursor.clone(), reason.to_owned());
        write!(self, |transaction, _context| rounds::pause_by_guard(transaction, &cursor, reason).await)
    }

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
        write!(self, |transaction, context| redrive::request(transaction, context, &app, &ids).await)
    }

    async fn begin_redrive(&self, app: &AppId, filter: &LetterFilter) -> Result<RedriveId, StoreError> {
        let (app, filter) = (app.clone(), filter.clone());
        write!(self, |transaction, context| redrive::begin(transaction, context, &app, &filter).await)
    }

    async fn mark_redrive(&self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError> {
        let id = id.cloned();
        write!(self, |transaction, _context| redrive::step(transaction, id.as_ref()).await)
    }

    async fn dismiss(&self, app: &AppId, ids: &[DeadLetterId], at: Timestamp) -> Result<u64, StoreError> {
        let (app, ids) = (app.clone(), ids.to_vec());
        write!(self, |transaction, _context| dismiss::named(transaction, &app, &ids, at).await)
    }

    async fn dismiss_some(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        at: Timestamp,
    ) -> Result<Dismissed, StoreError> {
        let (app, filter, before) = (app.clone(), filter.clone(), before.cloned());
        write!(self, |transaction, _context| dismiss::some(transaction, &app, &filter, before, at).await)
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

    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError> {
        let (app, id, cursor) = (app.clone(), id.clone(), cursor.cloned());
        write!(self, |transaction, _context| {
            watches::row(transaction, &app, &id).await?;
            skip::request(transaction, &id, cursor.as_ref(), expected).await
        })
    }

    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError> {
        let snapshot = self.snapshot().await?;
        watches::row(&snapshot, app, id).await?;
        replays::was_held(&snapshot, id, cursor, commit).await
    }

    async fn request_replay(&self, cursor: &CursorId, from: &TreeEnd) -> Result<(), StoreError> {
        let (cursor, from) = (cursor.clone(), (from.commit, from.view.id()));
        write!(self, |transaction, _context| replays::request(transaction, &cursor, from).await)
    }

    async fn drop_replay(&self, cursor: &CursorId, from: ObjectId) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        write!(self, |transaction, _context| replays::forget(transaction, &cursor, from).await)
    }

    async fn cancel_redrive(&self, app: &AppId, watch: Option<&WatchId>) -> Result<Cancelled, StoreError> {
        let owned = || (app.clone(), watch.cloned());
        let (app, watch) = owned();
        write!(self, |transaction, _context| {
            if let Some(watch) = &watch {
                watches::row(transaction, &app, watch).await?;
            }
            redrive::stop_marking(transaction, &app, watch.as_ref()).await
        })?;
        let mut reopened = 0;
        loop {
            let (app, watch) = owned();
            let some = write!(self, |transaction, _context| {
                redrive::reopen(transaction, &app, watch.as_ref()).await
            })?;
            reopened += some;
            if some < REDRIVE_STEP {
                break;
            }
        }
        // Last, so that a redrive which began in between ends as well.
        let (app, watch) = owned();
        let ending = write!(self, |transaction, _context| {
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
        write!(self, |transaction, _context| redrive::end(transaction, &cursor, round, &reached, at).await)
    }

    async fn unavailable_letters(
        &self,
        after: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError> {
        letters::unavailable(&self.readers, after.cloned(), limit).await
    }

    async fn rounds(
        &self,
        app: &AppId,
        filter: &RoundFilter,
        limit: u64,
    ) -> Result<Vec<RoundFacts>, StoreError> {
        history::rounds(&self.readers, app, filter, limit).await
    }

    async fn past_round(&self, app: &AppId, cursor: &CursorId, number: i64) -> Result<PastRound, StoreError> {
        history::past(&self.snapshot().await?, &self.context, app, cursor, number).await
    }

    async fn fates(&self, cursor: &CursorId, round: i64, range: Range<u64>) -> Result<Fates, StoreError> {
        history::fates(&self.snapshot().await?, cursor, round, range).await
    }

    async fn last_parked(
        &self,
        cursor: &CursorId,
        round: i64,
        below: u64,
    ) -> Result<Option<u64>, StoreError> {
        history::last_parked(&self.readers, cursor, round, below).await
    }

    async fn delivery(
        &self,
        app: &AppId,
        id: &DeliveryId,
    ) -> Result<Option<(CursorId, i64, u64)>, StoreError> {
        history::delivery(&self.readers, app, id).await
    }

    async fn receive(&self, hook: &Hook) -> Result<Receipt, StoreError> {
        let hook = hook.clone();
        write!(self, |transaction, context| receipts::receive(transaction, context, hook).await)
    }

    async fn note_receipt(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let receipt = receipt.clone();
        write!(self, |transaction, _context| receipts::write(transaction, receipt).await.map(drop))
    }

    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError> {
        receipts::list(&self.readers, verdict, before, limit).await
    }

    async fn replay(&self, id: &ReceiptId, at: Timestamp) -> Result<Receipt, StoreError> {
        let id = id.clone();
        write!(self, |transaction, _context| receipts::replay(transaction, id, at).await)
    }

    async fn begin_request(
        &self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
    ) -> Result<Begun, StoreError> {
        let (request, runner) = (request.clone(), runner.clone());
        write!(self, |transaction, context| {
            requests::begin(transaction, context, &request, at, &runner).await
        })
    }

    async fn end_request(
        &self,
        request: &KeyedRequest,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError> {
        let (request, answer) = (request.clone(), answer.cloned());
        write!(self, |transaction, context| {
            requests::end(transaction, context, &request, answer.as_ref()).await
        })
    }

    async fn blob_facts(&self, blobs: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError> {
        blobs::facts(&self.readers, blobs).await
    }

    async fn remember_blobs(&self, blobs: &[(ObjectId, BlobFacts)], at: Timestamp) -> Result<(), StoreError> {
        let blobs = blobs.to_vec();
        write!(self, |transaction, _context| blobs::remember(transaction, &blobs, at).await)
    }

    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError> {
        breakers::list(&self.readers).await
    }

    async fn record_breaker(&self, breaker: &BreakerRow) -> Result<(), StoreError> {
        let breaker = breaker.clone();
        write!(self, |transaction, _context| breakers::record(transaction, breaker).await)
    }

    async fn try_probe(
        &self,
        kind: BreakerKind,
        id: &str,
        now: Timestamp,
        next: Timestamp,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        write!(self, |transaction, _context| breakers::try_probe(transaction, kind, id, now, next).await)
    }

    async fn pins(&self, repository: &RepositoryId) -> Result<Vec<ObjectId>, StoreError> {
        self.writer.flush().await?;
        upkeep::pins(&self.readers, repository).await
    }

    async fn prune(
        &self,
        now: Timestamp,
        history: Duration,
        blobs: Duration,
        limit: u64,
    ) -> Result<u64, StoreError> {
        write!(self, |transaction, _context| {
            partitions::make_ahead(transaction, now).await;
            Ok(())
        })?;
        let mut left = limit;
        for kind in 0..upkeep::KINDS {
            while left > 0 {
                let step = left.min(upkeep::STEP);
                let gone = write!(self, |transaction, _context| {
                    upkeep::prune(transaction, kind, now, history, blobs, step).await
                })?;
                left -= gone;
                if gone < step {
                    break;
                }
            }
        }
        write!(self, |transaction, _context| partitions::drop_empty(transaction, now).await)?;
        Ok(limit - left)
    }

    async fn shorten_history(&self, most: u64, limit: u64) -> Result<u64, StoreError> {
        // Counted beside the writer, which deliveries wait for.
        let crowded: Arc<[_]> = upkeep::crowded(&self.snapshot().await?, most).await?.into();
        let mut gone = 0;
        while gone < limit && !crowded.is_empty() {
            let (crowded, step) = (crowded.clone(), (limit - gone).min(upkeep::STEP));
            let went =
                write!(self, |transaction, _context| upkeep::shorten(transaction, &crowded, step).await)?;
            gone += went;
            if went < step {
                break;
            }
        }
        Ok(gone)
    }

    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        upkeep::totals(&self.readers, now).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        backlog::backlog(&self.readers, now).await
    }

    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError> {
        backlog::laggards(&self.readers, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if !self.writer.takes_writes() {
            return Err(StoreError::Unavailable("the database takes no writes".to_owned()));
        }
        self.readers.execute_unprepared("select 1 from lease").await.of("lease").map(drop)
    }
}
