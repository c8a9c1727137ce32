//! A lane at work: carries out what the pure [`Lane`] asks for, as tasks of the deliverer, and
//! feeds it what they bring.

use std::{sync::Arc, time::Duration};

use tidings_entity::{
    id::{CursorId, DeadLetterId, ObjectId},
    kind::{LetterStatus, RoundKind},
};
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use super::{
    DelivererMessage, DelivererState, Generation, Slot, Step,
    lane::{CHANGES_PER_READ, CursorEffect, Lane, LaneStart},
    opening::{self, OpenLane},
    retry::{Circumstances, Decision, Tries, Verdict, decide, verdict},
};
use crate::{
    circuit_breaker::{self, endpoint_key},
    context::Context,
    ports::{
        Action, App, AttemptOutcome, AttemptRecord, DeliveryOrder, GitError, Notice, Parcel, PrepareError,
        Seek, StoreError,
    },
    round::Change,
};

/// The wait before a delivery that could not be rendered is tried again.
const RENDER_AGAIN: Duration = Duration::from_secs(2);
/// The wait before a lane whose rows or trees failed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `/resync` must be acknowledged first.
    Announcing {
        tries: u32,
        since: Option<Instant>,
        until: Option<Instant>,
        flying: bool,
    },
    Flowing,
    Finishing,
}

/// A lane with its rows and what is on its way besides changes.
pub(super) struct RunningLane {
    open: Arc<OpenLane>,
    lane: Lane,
    stage: Stage,
    reload: Option<Duration>,
    queued: bool,
    timer: Option<Instant>,
}

impl RunningLane {
    pub(super) fn new(open: OpenLane, app: &App) -> Self {
        let round = &open.round;
        let announce = round.spec.kind == RoundKind::Resync && round.position == 0 && app.delivery.resync;
        let stage = if announce {
            Stage::Announcing { tries: 0, since: None, until: None, flying: false }
        } else {
            Stage::Flowing
        };
        let lane = Lane::new(LaneStart {
            round: round.clone(),
            order: app.delivery.order,
            max_in_flight: usize::try_from(app.delivery.max_in_flight).unwrap_or(1),
            streak: open.snapshot.streak,
            streak_letters: streak_letters(&open),
            acknowledged: open.snapshot.acknowledged,
            blocked: open.snapshot.state == tidings_entity::kind::CursorState::Blocked,
            head_attempts: open.snapshot.head_attempts,
        });
        Self { open: Arc::new(open), lane, stage, reload: None, queued: false, timer: None }
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn lane_mut(&mut self) -> &mut Lane {
        &mut self.lane
    }

    /// The rows behind this lane changed: stop sending, read them again when nothing is on its way.
    pub(super) fn reload(&mut self) {
        self.reload.get_or_insert(Duration::ZERO);
    }

    fn reopen_after(&mut self, wait: Duration) {
        self.reload = Some(self.reload.unwrap_or_default().max(wait));
    }

    fn is_still(&self) -> bool {
        let noticing = matches!(self.stage, Stage::Finishing | Stage::Announcing { flying: true, .. });
        self.lane.is_still() && !noticing
    }

    fn order(&self, position: u64, change: Change, unobtainable: Vec<ObjectId>) -> DeliveryOrder {
        let round = &self.open.round;
        let renamed_from = change
            .new
            .filter(|_| change.old.is_none())
            .and_then(|entry| self.open.renames.get(&entry.blob).cloned());
        DeliveryOrder {
            id: crate::round::DeliveryId::of(&round.cursor, round.number, &change),
            remote: self.open.snapshot.remote.clone(),
            repository: self.open.snapshot.facts.clone(),
            round: round.clone(),
            commit: self.open.commit.clone(),
            change,
            renamed_from,
            position,
            unobtainable,
        }
    }
}

/// The letters of the current streak: the newest ones, because their ids rise.
fn streak_letters(open: &OpenLane) -> Vec<DeadLetterId> {
    let open_ones = open.snapshot.letters.iter().filter(|(_, status)| *status == LetterStatus::Open);
    let mut ids: Vec<DeadLetterId> = open_ones.map(|(letter, _)| letter.id.clone()).collect();
    ids.sort_unstable();
    let streak = usize::try_from(open.snapshot.streak).unwrap_or(usize::MAX);
    ids.split_off(ids.len().saturating_sub(streak))
}

/// Renders a delivery, fetching by id what the mirror lacks. [`GitError::Unobtainable`] comes only
/// after two definitive refusals.
async fn prepare(context: Context, order: DeliveryOrder) -> Result<Parcel, PrepareError> {
    // New content, old content: two blobs are the most that one delivery reads.
    for _ in 0..2 {
        match context.transport.prepare(&order).await {
            Err(PrepareError::Git(GitError::Missing(blob))) => {
                opening::fetch(&context, &order.remote, blob).await?;
            }
            other => return other,
        }
    }
    context.transport.prepare(&order).await
}

impl DelivererState {
    fn running(&mut self, cursor: &CursorId) -> Option<(&mut RunningLane, Generation)> {
        let lane = self.lanes.get_mut(cursor)?;
        let generation = lane.generation;
        match &mut lane.slot {
            Slot::Running(running) => Some((running, generation)),
            _ => None,
        }
    }

    /// Starts whatever a lane wants done now.
    pub(super) fn drive(&mut self, cursor: &CursorId) {
        let (draining, moment) = (self.draining, self.moment());
        let Some((running, generation)) = self.running(cursor) else { return };
        for effect in running.lane.take_effects() {
            self.record_effect(cursor, generation, effect);
        }
        let Some((running, _)) = self.running(cursor) else { return };
        if let Some(settlement) = running.lane.want_settle(moment.wall) {
            let store = self.context.store.clone();
            self.step(cursor, generation, async move { Step::Settled(store.settle(settlement).await) });
        }
        let Some((running, _)) = self.running(cursor) else { return };
        if let Some(wait) = running.reload {
            if running.is_still() && !draining {
                self.turns.retain(|turn| turn != cursor);
                if wait.is_zero() { self.open(cursor) } else { self.wait(cursor, wait) }
            }
            return;
        }
        if draining {
            return;
        }
        match running.stage {
            Stage::Announcing { until, flying, .. } => {
                if !flying && until.is_none_or(|until| until <= moment.instant) {
                    self.announce(cursor, generation);
                }
            }
            Stage::Flowing if running.lane.is_finished() => self.finish(cursor, generation),
            Stage::Flowing => {
                self.feed(cursor, generation);
                self.enqueue(cursor, moment.instant);
                if self.gate.is_open() { self.send_probe() } else { self.flow() }
            }
            Stage::Finishing => {}
        }
    }

    /// Reads and renders ahead.
    fn feed(&mut self, cursor: &CursorId, generation: Generation) {
        let Some((running, _)) = self.running(cursor) else { return };
        if let Some((position, before)) = running.lane.want_read() {
            let open = running.open.clone();
            let seek = before.map_or(Seek::Position(position), Seek::After);
            let git = self.context.git.clone();
            self.step(cursor, generation, async move {
                let (remote, spec) = (&open.snapshot.remote, &open.round.spec);
                Step::Read(git.window(remote, spec, &seek, CHANGES_PER_READ).await)
            });
        }
        let Some((running, _)) = self.running(cursor) else { return };
        let wanted = running.lane.want_prepare();
        let orders: Vec<DeliveryOrder> = wanted
            .into_iter()
            .map(|(position, change, unobtainable)| running.order(position, change, unobtainable))
            .collect();
        for order in orders {
            let context = self.context.clone();
            self.step(cursor, generation, async move {
                let position = order.position;
                Step::Prepared(position, Box::new(prepare(context, order).await))
            });
        }
    }

    /// Puts a lane that may send into the line, and arms a timer for one that may later.
    fn enqueue(&mut self, cursor: &CursorId, now: Instant) {
        let Some((running, _)) = self.running(cursor) else { return };
        let sendable = running.lane.next_sendable(now).is_some();
        let due = running.lane.next_due().filter(|due| *due > now);
        let arm = due.filter(|due| running.timer.is_none_or(|timer| timer <= now || *due < timer));
        running.timer = arm.or(running.timer);
        if sendable && !std::mem::replace(&mut running.queued, true) {
            self.turns.push_back(cursor.clone());
        }
        if let Some(due) = arm {
            let cursor = cursor.clone();
            self.post.send_after(due.saturating_duration_since(now), move || DelivererMessage::Due(cursor));
        }
    }

    /// Sends, lane by lane in turn, as much as the endpoint takes now.
    pub(super) fn flow(&mut self) {
        let now = Instant::now();
        while self.gate.admits(now) && !self.draining {
            let Some(cursor) = self.turns.pop_front() else { return };
            let Some((running, _)) = self.running(&cursor) else { continue };
            running.queued = false;
            if running.reload.is_some() || running.stage != Stage::Flowing {
                continue;
            }
            let Some(position) = running.lane.next_sendable(now) else { continue };
            self.launch(&cursor, position, now);
            self.enqueue(&cursor, now);
            if let Some((running, generation)) = self.running(&cursor)
                && running.reload.is_none()
            {
                self.feed(&cursor, generation);
            }
        }
        let held = self.gate.held_until().filter(|until| *until > now);
        if let Some(until) =
            held.filter(|until| self.flow_armed.is_none_or(|armed| armed <= now || *until < armed))
        {
            self.flow_armed = Some(until);
            self.post.send_after(until.saturating_duration_since(now), || DelivererMessage::Flow);
        }
    }

    /// Sends the one permitted probe from the next lane whose head can go.
    pub(super) fn send_probe(&mut self) {
        if self.draining {
            return;
        }
        let last = self.last_probe.clone();
        let after = self.lanes.keys().filter(|cursor| last.as_ref().is_none_or(|last| *cursor > last));
        let wrapped = self.lanes.keys().filter(|cursor| last.as_ref().is_some_and(|last| *cursor <= last));
        let candidate = after.chain(wrapped).find_map(|cursor| match &self.lanes.get(cursor)?.slot {
            Slot::Running(running) if running.stage == Stage::Flowing && running.reload.is_none() => {
                running.lane.probe_head().map(|position| (cursor.clone(), position))
            }
            _ => None,
        });
        let Some((cursor, position)) = candidate else { return };
        if self.gate.take_probe() {
            self.launch(&cursor, position, Instant::now());
            self.last_probe = Some(cursor);
        }
    }

    fn launch(&mut self, cursor: &CursorId, position: u64, now: Instant) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        let Some((running, generation)) = self.running(cursor) else { return };
        let Some((parcel, _)) = running.lane.launch(position, now) else { return };
        self.gate.enter();
        let transport = self.context.transport.clone();
        let span = info_span!(
            "delivery.attempt",
            app.id = %endpoint.app,
            cursor.id = %cursor,
            delivery.id = %parcel.id,
            delivery.position = position
        );
        let attempt = async move { Step::Attempted(position, transport.send(&endpoint, &parcel).await) };
        self.step(cursor, generation, attempt.instrument(span));
    }

    /// Spawns a task whose result is a step of this run of the lane.
    fn step(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        work: impl Future<Output = Step> + Send + 'static,
    ) {
        let cursor = cursor.clone();
        self.tasks.spawn(&self.post, work, move |result| DelivererMessage::Step(cursor, generation, result));
    }

    pub(super) fn on_step(&mut self, cursor: &CursorId, generation: Generation, step: Step) {
        if let Step::Attempted(_, outcome) = &step {
            self.gate.leave(outcome.is_success());
        }
        if self.lanes.get(cursor).is_none_or(|lane| lane.generation != generation) {
            return;
        }
        match step {
            Step::Read(result) => self.on_read(cursor, result),
            Step::Prepared(position, result) => self.on_prepared(cursor, position, *result),
            Step::Attempted(position, outcome) => self.on_attempted(cursor, generation, position, &outcome),
            Step::Settled(result) => self.on_settled(cursor, result),
            Step::Finished(result) => self.on_finished(cursor, result),
            Step::Noticed(outcome) => self.on_announced(cursor, generation, outcome),
            Step::Recorded(Err(StoreError::Fenced)) => self.fenced(),
            Step::Recorded(Err(error)) => {
                warn!(cursor.id = %cursor, "a row of {cursor} was not written: {error}")
            }
            Step::Recorded(Ok(())) => {}
        }
        self.drive(cursor);
    }

    fn on_read(&mut self, cursor: &CursorId, result: Result<Vec<Change>, GitError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(changes) => {
                if !running.lane.on_read(changes) {
                    error!(cursor.id = %cursor, "the list of the open round of {cursor} is not the one that was begun");
                    running.reopen_after(REOPEN);
                }
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, "the trees of {cursor} could not be read: {reason}");
                running.lane.on_read_failed();
                running.reopen_after(REOPEN);
            }
        }
    }

    fn on_prepared(&mut self, cursor: &CursorId, position: u64, result: Result<Parcel, PrepareError>) {
        let letter = DeadLetterId::new(self.context.random.ulid(self.context.now()));
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(parcel) => running.lane.on_prepared(position, parcel),
            Err(PrepareError::Git(GitError::Unobtainable(blob))) => {
                running.lane.on_blob_unobtainable(position, blob, letter);
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, delivery.position = position, "delivery {position} of {cursor} could not be rendered: {reason}");
                running.lane.retry_later(position, Instant::now() + RENDER_AGAIN);
            }
        }
    }

    fn on_attempted(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        position: u64,
        outcome: &AttemptOutcome,
    ) {
        let verdict = verdict(outcome);
        let key = endpoint_key(self.id.as_str());
        match verdict {
            Verdict::Acknowledged => {
                self.answered = Some(Instant::now());
                circuit_breaker::report(&self.context, &key, Ok(()));
                if let Some((running, _)) = self.running(cursor) {
                    running.lane.on_acknowledged(position);
                }
            }
            Verdict::Gone => self.on_gone(cursor, generation),
            Verdict::Endpoint | Verdict::Refused | Verdict::Failing => {
                self.on_failed_attempt(cursor, generation, position, verdict, outcome);
            }
        }
    }

    fn on_failed_attempt(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        position: u64,
        verdict: Verdict,
        outcome: &AttemptOutcome,
    ) {
        let (moment, rules, answered) = (self.moment(), self.rules, self.answered);
        let random = self.context.random.clone();
        let letter = DeadLetterId::new(random.ulid(moment.wall));
        let Some((running, _)) = self.running(cursor) else { return };
        let Some(delivery) = running.lane.delivery_id(position) else { return };
        let round = running.lane.round().number;
        let answer = (outcome.result.ok(), outcome.excerpt.clone());
        let asked = outcome.retry_after;
        let lane = &mut running.lane;
        let failed = lane.on_failed(
            position,
            verdict,
            asked,
            answer,
            answered,
            moment,
            &rules,
            random.as_ref(),
            letter,
        );
        let Some(failed) = failed else { return };
        match failed.retry_in {
            Some(wait) => warn!(
                app.id = %self.id, cursor.id = %cursor, delivery.id = %delivery, attempt.number = failed.number,
                "attempt {} of delivery {delivery} failed ({}), next in {wait:?}", failed.number, describe(outcome)
            ),
            None => warn!(
                app.id = %self.id, cursor.id = %cursor, delivery.id = %delivery, attempt.number = failed.number,
                "delivery {delivery} is parked after {} attempts ({})", failed.number, describe(outcome)
            ),
        }
        if !failed.item {
            if let Some(asked) = asked {
                self.gate.hold(moment.instant + asked.min(rules.cap));
            }
            let error = describe(outcome);
            circuit_breaker::report(&self.context, &endpoint_key(self.id.as_str()), Err((error, asked)));
        }
        let attempt = AttemptRecord {
            cursor: cursor.clone(),
            round,
            position,
            number: failed.number,
            delivery,
            status: outcome.result.ok(),
            item_failure: failed.item,
            excerpt: outcome.excerpt.clone(),
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            at: moment.wall,
        };
        let (store, blocked) = (self.context.store.clone(), cursor.clone());
        self.step(cursor, generation, async move {
            let recorded = store.record_attempt(attempt).await;
            if failed.block && recorded.is_ok() {
                let reason = "the endpoint has failed for the whole retry window";
                return Step::Recorded(store.set_blocked(&blocked, Some(reason)).await);
            }
            Step::Recorded(recorded)
        });
    }

    /// 410: the app is not served any more.
    fn on_gone(&mut self, cursor: &CursorId, generation: Generation) {
        info!(app.id = %self.id, "the endpoint of {} answered 410: the app is disabled", self.id);
        let (store, id) = (self.context.store.clone(), self.id.clone());
        self.endpoint = None;
        for lane in self.lanes.values_mut() {
            if let Slot::Running(running) = &mut lane.slot {
                running.reload();
            }
        }
        self.step(cursor, generation, async move {
            Step::Recorded(store.set_app_disabled(&id, Some("the endpoint answered 410 Gone")).await)
        });
    }

    fn on_settled(&mut self, cursor: &CursorId, result: Result<bool, StoreError>) {
        if matches!(result, Err(StoreError::Fenced)) {
            return self.fenced();
        }
        let Some((running, _)) = self.running(cursor) else { return };
        running.lane.on_settled();
        match result {
            Ok(true) => {}
            Ok(false) => running.reload(),
            Err(reason) => {
                warn!(cursor.id = %cursor, "a settlement of {cursor} was not written: {reason}");
                running.reopen_after(REOPEN);
            }
        }
    }

    /// Ends the round, after `/synced` for those who want it.
    fn finish(&mut self, cursor: &CursorId, generation: Generation) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        let wants_notice = self.app.as_ref().is_some_and(|app| app.delivery.synced);
        let context = self.context.clone();
        let Some((running, _)) = self.running(cursor) else { return };
        running.stage = Stage::Finishing;
        let (round, facts) = (running.open.round.clone(), running.open.snapshot.facts.clone());
        let cursor_of = cursor.clone();
        self.step(cursor, generation, async move {
            if wants_notice {
                let notice = Notice::OfRound { action: Action::Synced, round: round.clone(), repository: facts };
                let outcome = context.transport.notify(&endpoint, &notice).await;
                if !outcome.is_success() {
                    warn!(cursor.id = %cursor_of, round.number = round.number, "the notice that round {} ended was refused: {}", round.number, describe(&outcome));
                }
            }
            Step::Finished(context.store.finish_round(&cursor_of, round.number, context.now()).await)
        });
    }

    fn on_finished(&mut self, cursor: &CursorId, result: Result<bool, StoreError>) {
        if matches!(result, Err(StoreError::Fenced)) {
            return self.fenced();
        }
        let Some((running, _)) = self.running(cursor) else { return };
        running.stage = Stage::Flowing;
        match result {
            Ok(_) => running.reload(),
            Err(reason) => {
                warn!(cursor.id = %cursor, "the round of {cursor} was not ended: {reason}");
                running.reopen_after(REOPEN);
            }
        }
    }

    fn announce(&mut self, cursor: &CursorId, generation: Generation) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        if self.gate.is_open() && !self.gate.take_probe() {
            return;
        }
        let transport = self.context.transport.clone();
        let Some((running, _)) = self.running(cursor) else { return };
        if let Stage::Announcing { flying, .. } = &mut running.stage {
            *flying = true;
        }
        let notice = Notice::OfRound {
            action: Action::Resync,
            round: running.open.round.clone(),
            repository: running.open.snapshot.facts.clone(),
        };
        self.step(cursor, generation, async move {
            Step::Noticed(Some(transport.notify(&endpoint, &notice).await))
        });
    }

    /// `/resync` was answered: acknowledged, it opens the way; refused for good, it blocks the
    /// cursor and is tried again under probe.
    fn on_announced(&mut self, cursor: &CursorId, generation: Generation, outcome: Option<AttemptOutcome>) {
        let (now, rules, random) = (Instant::now(), self.rules, self.context.random.clone());
        let Some(outcome) = outcome else { return };
        let Some((running, _)) = self.running(cursor) else { return };
        let Stage::Announcing { tries, since, .. } = running.stage else { return };
        let verdict = verdict(&outcome);
        if verdict == Verdict::Acknowledged {
            running.stage = Stage::Flowing;
            circuit_breaker::report(&self.context, &endpoint_key(self.id.as_str()), Ok(()));
            return;
        }
        let (tries, since) = (tries + 1, since.unwrap_or(now));
        let circumstances = Circumstances {
            verdict,
            tries: Tries { all: tries, item: tries, since_first: now.duration_since(since) },
            acknowledged: running.open.snapshot.acknowledged,
            blocked: running.lane.is_blocked(),
            retry_after: outcome.retry_after,
        };
        let (wait, block) = match decide(circumstances, &rules, random.as_ref()) {
            Decision::Retry(wait) => (wait, false),
            Decision::Block(wait) => (wait, true),
            Decision::Park(_) => (rules.cap, true),
        };
        running.stage =
            Stage::Announcing { tries, since: Some(since), until: Some(now + wait), flying: false };
        let due = cursor.clone();
        self.post.send_after(wait, move || DelivererMessage::Due(due));
        if verdict == Verdict::Endpoint {
            let error = describe(&outcome);
            circuit_breaker::report(
                &self.context,
                &endpoint_key(self.id.as_str()),
                Err((error, outcome.retry_after)),
            );
        }
        if block {
            let reason = format!("the notice of a resync was refused: {}", describe(&outcome));
            self.record_effect(cursor, generation, CursorEffect::Block(reason));
        }
    }

    fn record_effect(&mut self, cursor: &CursorId, generation: Generation, effect: CursorEffect) {
        let (store, id, app) = (self.context.store.clone(), cursor.clone(), self.id.clone());
        self.step(cursor, generation, async move {
            match effect {
                CursorEffect::Block(reason) => {
                    warn!(cursor.id = %id, "cursor {id} is blocked: {reason}");
                    Step::Recorded(store.set_blocked(&id, Some(&reason)).await)
                }
                CursorEffect::Unblock(letters) => {
                    info!(cursor.id = %id, "cursor {id} goes on; {} changes are redriven next", letters.len());
                    let unblocked = store.set_blocked(&id, None).await;
                    if unblocked.is_err() || letters.is_empty() {
                        return Step::Recorded(unblocked);
                    }
                    Step::Recorded(store.request_redrive(&app, &letters).await.map(drop))
                }
            }
        });
    }

    fn fenced(&self) {
        self.context.give_up("another process took over this database");
    }
}

/// What came of an attempt, in a few words.
fn describe(outcome: &AttemptOutcome) -> String {
    match outcome.result {
        Ok(status) => format!("status {status}"),
        Err(failure) => format!("{failure:?}: {}", outcome.excerpt),
    }
}
