//! Rounds, settlements and resyncs of the in-memory store.

use std::{ops::Range, sync::Arc};

use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, ViewId, WatchId},
    kind::{CursorState, LetterStatus, ParkReason, RoundKind, WatchState},
};

use super::rows::{CursorRow, LetterRow, State};
use crate::{
    model::follow::{goes, unblocked},
    model::round::{Letter, Round, TreeEnd},
    model::view::View,
    ports::{
        AttemptRecord, DeadLetter, Glimpse, HeadAttempts, LaneSnapshot, NewRound, Reach, SelfRedrive,
        SettledRange, Settlement, SinkKey, Standing, StoreError, Streak,
    },
    time::Timestamp,
};

impl State {
    pub(super) fn open_letters(&self, cursor: &CursorId) -> impl Iterator<Item = &LetterRow> {
        let own = move |row: &&LetterRow| row.shown.cursor == *cursor && row.is_open();
        self.letters.values().filter(own)
    }

    pub(super) fn pending(&self, app: Option<&AppId>, reach: &Reach) -> Vec<(SinkKey, CursorId)> {
        let waiting = self.cursors.keys().filter_map(|id| {
            let (owner, glimpse) = self.glimpse(id)?;
            let mine = app.is_none_or(|app| owner.app == *app) && reach.covers(&glimpse.repository);
            (mine && glimpse.is_waiting).then(|| (owner, id.clone()))
        });
        waiting.collect()
    }

    /// The sink of a cursor, and whether the cursor has something to do.
    pub(super) fn glimpse(&self, id: &CursorId) -> Option<(SinkKey, Glimpse)> {
        let cursor = self.cursors.get(id)?;
        let watch = self.watches.get(&cursor.watch)?;
        let requested = self.open_letters(id).any(|row| row.shown.status == LetterStatus::RedriveRequested);
        let moves = !matches!(cursor.state, CursorState::BranchMissing | CursorState::Empty);
        let waits = cursor.resync.is_some()
            || cursor.is_moot()
            || self.is_behind(cursor)
            || self.has_other_view(cursor);
        let goes_back = cursor.replay.is_some() && cursor.state != CursorState::Empty;
        let (is_held, is_resynced) = (cursor.held.is_some(), cursor.resync.is_some());
        let leaves = goes(cursor.state, watch.on_branch_gone) && (is_held || is_resynced);
        let stays = cursor.state == CursorState::BranchMissing && is_held && is_resynced;
        let redriven = requested && cursor.resync.is_none() && cursor.state != CursorState::Empty;
        let has_work = cursor.open.is_some() || leaves || stays || moves && waits || redriven || goes_back;
        let repository = self.sources.get(&watch.source)?.repository.clone();
        let key = watch.sink_key();
        let sink = key.sink.clone();
        Some((key, Glimpse { repository, sink, is_waiting: has_work && self.is_served(watch) }))
    }

    pub(super) fn lane(&self, id: &CursorId) -> Result<LaneSnapshot, StoreError> {
        let cursor = self.cursors.get(id).ok_or(StoreError::NotFound)?;
        let watch = self.watches.get(&cursor.watch).ok_or(StoreError::NotFound)?;
        let source = self.sources.get(&watch.source).ok_or(StoreError::NotFound)?;
        let (letters, more_letters) = self.lane_letters(id);
        Ok(LaneSnapshot {
            cursor: id.clone(),
            watch: cursor.watch.clone(),
            app: watch.new.app.clone(),
            sink: watch.sink.as_ref().map(|sink| sink.id.clone()),
            source: watch.source.clone(),
            remote: self.remote(source, vec![watch.new.app.clone()]),
            facts: watch.new.facts.clone(),
            branch: cursor.branch.clone(),
            mode: watch.mode,
            on_branch_gone: watch.on_branch_gone,
            watch_state: watch.state,
            state: cursor.state,
            reason: cursor.reason.clone(),
            held: cursor.held.as_ref().map(|held| (held.commit, held.view.clone())),
            view: watch.view.clone(),
            head: self.head(cursor).map(|(commit, _)| commit),
            head_fault: source.faults.get(&cursor.branch).cloned(),
            last_round: cursor.last_round,
            open: cursor.open.clone(),
            last_was_redrive: cursor.last_was_redrive,
            resync: cursor.resync,
            replay: cursor.replay.clone(),
            resync_bases: cursor.held.iter().chain(&cursor.bases).cloned().collect(),
            letters,
            more_letters,
            streak: cursor.streak,
            acknowledged: cursor.acknowledged,
            head_attempts: self.head_attempts(id, cursor, watch.new.app.clone()),
            above: self.settled_above(id, cursor),
            announced: cursor.announced,
            untouched: self.is_untouched(id, cursor),
            deliver_after: watch.new.deliver_after,
            is_new: !watch.acknowledged,
            guard_waived: cursor.guard_waived,
            skip_head: cursor.skip.is_some()
                && cursor.skip == cursor.open.as_ref().map(|round| (round.number, round.position)),
            has_tasks: self.has_tasks && cursor.open.is_none(),
            cancel_open: cursor.cancel.is_some()
                && cursor.cancel == cursor.open.as_ref().map(|round| round.number),
            created_at: cursor.created_at,
        })
    }

    fn is_untouched(&self, id: &CursorId, cursor: &CursorRow) -> bool {
        let Some(round) = &cursor.open else { return true };
        if !self.settled_above(id, cursor).is_empty() {
            return false;
        }
        if round.position == 0 || round.spec.kind != RoundKind::Resync {
            return round.position == 0;
        }
        let given_up = self.letters.values().filter(|row| {
            row.shown.cursor == *id && row.shown.round == round.number && row.shown.position < round.position
        });
        given_up.count() as u64 == round.position
    }

    fn settled_above(&self, id: &CursorId, cursor: &CursorRow) -> Vec<Range<u64>> {
        let Some(round) = &cursor.open else { return Vec::new() };
        let ranges = self.settled.of(id, round.number, &(round.position..u64::MAX));
        ranges.into_iter().map(|range| range.from..range.to).collect()
    }

    fn head_attempts(&self, id: &CursorId, cursor: &CursorRow, app: AppId) -> HeadAttempts {
        let Some(round) = &cursor.open else { return HeadAttempts::default() };
        let since = self.apps.get(&app).map_or(Timestamp(0), |app| app.endpoint_since);
        let failed = self.attempts.iter().filter(|attempt| {
            attempt.cursor == *id
                && attempt.round == round.number
                && attempt.position == round.position
                && !attempt.status.is_some_and(|status| (200..300).contains(&status))
        });
        let earlier = failed.clone().filter(|attempt| attempt.at < since).count();
        let failed = failed.filter(|attempt| attempt.at >= since);
        HeadAttempts {
            earlier: u32::try_from(earlier).unwrap_or(u32::MAX),
            tries: u32::try_from(failed.clone().count()).unwrap_or(u32::MAX),
            item_tries: u32::try_from(failed.clone().filter(|attempt| attempt.item_failure).count())
                .unwrap_or(u32::MAX),
            first_failure: failed.clone().map(|attempt| attempt.at).min(),
            last_failure: failed.map(|attempt| attempt.at).max(),
        }
    }

    pub(super) fn record_attempt(&mut self, attempt: AttemptRecord) {
        fn key(attempt: &AttemptRecord) -> (u64, u32, i64, &CursorId) {
            (attempt.position, attempt.number, attempt.round, &attempt.cursor)
        }
        let known = self.attempts.iter().any(|other| key(other) == key(&attempt));
        if !known && self.cursors.contains_key(&attempt.cursor) {
            self.attempts.push(attempt);
        }
    }

    pub(super) fn pause_by_guard(&mut self, id: &CursorId, reason: &str) -> Result<(), StoreError> {
        let cursor = self.cursors.get_mut(id).ok_or(StoreError::NotFound)?;
        cursor.guard_waived = true;
        let watch = self.watches.get_mut(&cursor.watch).ok_or(StoreError::NotFound)?;
        watch.state = WatchState::Paused;
        watch.reason = Some(reason.to_owned());
        Ok(())
    }

    pub(super) fn begin_round(&mut self, new: &NewRound) -> Result<(), StoreError> {
        let round = &new.round;
        let cursor = self.cursors.get_mut(&round.cursor).ok_or(StoreError::NotFound)?;
        let resync = round.spec.kind == RoundKind::Resync;
        let held_moved = match round.spec.kind {
            RoundKind::Resync => false,
            RoundKind::Replay => {
                let asked = cursor.replay.is_some() && round.spec.held == cursor.replay;
                !asked || round.spec.target != cursor.held
            }
            _ => round.spec.held != cursor.held,
        };
        let lacks_base = resync
            && !round.complete
            && cursor.held.iter().chain(&cursor.bases).any(|base| !round.spec.bases.contains(base));
        let refused = cursor.open.is_some()
            || cursor.last_round != new.planned_after
            || round.number <= cursor.last_round
            || round.position != 0
            || held_moved
            || lacks_base
            || (!resync && cursor.resync.is_some())
            || (resync && cursor.resync == Some(true) && !round.complete);
        if refused {
            return Err(StoreError::Conflict("the cursor moved since this round was planned".into()));
        }
        let is_open = |letter: &Letter| {
            self.letters.get(&letter.id).is_some_and(|row| row.is_open() && row.shown.cursor == round.cursor)
        };
        if !round.spec.letters.iter().all(is_open) {
            return Err(StoreError::Conflict("a dead letter of this round is no longer open".into()));
        }
        cursor.last_round = round.number;
        cursor.guard_waived &= round.spec.kind == RoundKind::Redrive;
        cursor.deletes_unknown |= round.complete;
        cursor.last_was_redrive = round.spec.kind == RoundKind::Redrive;
        cursor.behind_since.get_or_insert(round.began_at);
        cursor.open = Some(round.clone());
        cursor.announced = false;
        cursor.rounds.insert(round.number, Arc::new(round.clone()));
        if cursor.state != CursorState::Blocked {
            cursor.reason = None;
        }
        if resync {
            cursor.resync = None;
            cursor.bases.clear();
        }
        if resync || round.spec.kind == RoundKind::Replay {
            cursor.replay = None;
        }
        for letter in &round.spec.letters {
            let Some(row) = self.letters.get_mut(&letter.id) else { continue };
            row.bound = Some(round.number);
            row.in_redrive = round.spec.kind == RoundKind::Redrive;
            row.shown.status = LetterStatus::Open;
        }
        Ok(())
    }

    pub(super) fn advance(
        &mut self,
        id: &CursorId,
        planned_after: i64,
        held: Option<(ObjectId, ViewId)>,
    ) -> Result<(), StoreError> {
        let held = match held {
            Some((commit, view)) => {
                let view = self.view(view).ok_or_else(|| StoreError::Conflict("no such view".into()))?;
                Some(TreeEnd { commit, view })
            }
            None => None,
        };
        let cursor = self.cursors.get_mut(id).ok_or(StoreError::NotFound)?;
        if cursor.last_round != planned_after || cursor.open.is_some() || cursor.resync.is_some() {
            return Err(StoreError::Conflict("the cursor moved since this was planned".into()));
        }
        cursor.held = held;
        cursor.guard_waived = false;
        self.caught_up(id);
        Ok(())
    }

    fn view(&self, id: ViewId) -> Option<View> {
        let of_watches = self.watches.values().map(|watch| &watch.view);
        let held = self.cursors.values().filter_map(|cursor| cursor.held.as_ref()).map(|held| &held.view);
        of_watches.chain(held).find(|view| view.id() == id).cloned()
    }

    pub(super) fn settle(&mut self, settlement: &Settlement) -> bool {
        let Some(cursor) = self.cursors.get_mut(&settlement.cursor) else { return false };
        let fresh = |round: &&mut crate::model::round::Round| {
            let least = round.position + u64::from(settlement.above.is_empty());
            round.number == settlement.round
                && least <= settlement.position
                && settlement.position <= round.summary.total()
        };
        let Some(round) = cursor.open.as_mut().filter(fresh) else { return false };
        let from = std::mem::replace(&mut round.position, settlement.position);
        if settlement.absorbs {
            self.settled.absorb(&settlement.cursor, settlement.round, from..settlement.position);
        }
        let prefix = (from < settlement.position).then_some(from..settlement.position);
        let known = self.settled.of(&settlement.cursor, settlement.round, &(settlement.position..u64::MAX));
        let above = settlement.above.iter().filter(|range| known.iter().all(|one| one.from != range.start));
        for range in prefix.iter().chain(above) {
            let range = SettledRange { from: range.start, to: range.end, at: settlement.at };
            self.settled.add(&settlement.cursor, settlement.round, range);
        }
        cursor.streak = settlement.streak;
        cursor.acknowledged |= settlement.acknowledged;
        let watch = cursor.watch.clone();
        let Some(row) = self.watches.get_mut(&watch) else { return false };
        row.acknowledged |= settlement.acknowledged;
        let app = row.new.app.clone();
        self.park(settlement, &watch, &app);
        self.stand(&settlement.cursor, &settlement.standing);
        for redrive in &settlement.redrive {
            self.redrive_by_itself(&settlement.cursor, *redrive);
        }
        true
    }

    /// Writes the letters of a settlement that are not there yet; each takes over from an open one of its
    /// path.
    fn park(&mut self, settlement: &Settlement, watch: &WatchId, app: &AppId) {
        let fresh: Vec<_> =
            settlement.parked.iter().filter(|park| !self.letters.contains_key(&park.id)).collect();
        for park in fresh {
            let older = self.letters.values_mut().find(|row| {
                row.is_open() && row.shown.cursor == settlement.cursor && row.shown.path == park.change.path
            });
            let (mut before, mut self_redriven) = (park.change.old, false);
            if let Some(row) = older {
                row.shown.status = LetterStatus::Superseded;
                row.closed_at = Some(settlement.at);
                (before, self_redriven) = (row.before, row.self_redriven);
            }
            let shown = DeadLetter {
                id: park.id.clone(),
                watch: watch.clone(),
                cursor: settlement.cursor.clone(),
                round: settlement.round,
                position: park.position,
                path: park.change.path.clone(),
                operation: park.change.operation,
                delivery: park.delivery.clone(),
                task: None,
                reason: park.reason,
                status: LetterStatus::Open,
                http_status: park.status,
                excerpt: park.excerpt.clone(),
                redrive: None,
                created_at: settlement.at,
            };
            let row = LetterRow {
                app: app.clone(),
                shown,
                before,
                counted: park.counted,
                self_redriven,
                bound: None,
                in_redrive: false,
                closed_at: None,
            };
            self.letters.insert(park.id.clone(), row);
        }
    }

    fn redrive_by_itself(&mut self, cursor: &CursorId, redrive: SelfRedrive) {
        let open = self.cursors.get(cursor).and_then(|row| row.open.as_ref()).map(|round| round.number);
        let is_meant = |row: &&mut LetterRow| {
            let place = (row.shown.round, row.shown.position);
            let refused = matches!(row.shown.reason, ParkReason::Rejected | ParkReason::Failing);
            row.shown.cursor == *cursor
                && row.shown.status == LetterStatus::Open
                && !row.self_redriven
                && (row.bound.is_none() || row.bound != open)
                && (redrive.from..redrive.before).contains(&place)
                && if redrive.counted { row.counted } else { refused }
        };
        for row in self.letters.values_mut().filter(is_meant) {
            row.shown.status = LetterStatus::RedriveRequested;
            row.self_redriven = true;
        }
    }

    pub(super) fn finish_round(
        &mut self,
        id: &CursorId,
        number: i64,
        at: Timestamp,
        end_told: bool,
    ) -> Result<bool, StoreError> {
        let cursor = self.cursors.get_mut(id).ok_or(StoreError::NotFound)?;
        let done =
            cursor.open.take_if(|round| round.number == number && round.position == round.summary.total());
        let Some(round) = done else { return Ok(false) };
        cursor.end(round.clone(), at);
        let closed = if round.spec.kind == RoundKind::Redrive {
            LetterStatus::Redriven
        } else {
            cursor.was.extend(std::mem::replace(&mut cursor.held, round.spec.target));
            cursor.deletes_unknown &= !(round.complete && cursor.announced && end_told);
            LetterStatus::Superseded
        };
        let bound = self
            .letters
            .values_mut()
            .filter(|row| row.shown.cursor == *id && row.bound == Some(number) && row.is_open());
        for row in bound {
            row.shown.status = closed;
            row.closed_at = Some(at);
        }
        self.caught_up(id);
        Ok(true)
    }

    /// Ends blocks by refusals, and blocks by streaks of cursors that have no change to probe with.
    fn refusing(&mut self, is_meant: impl Fn(&WatchId) -> bool) -> Vec<(CursorId, SelfRedrive)> {
        let mut ended = Vec::new();
        for (id, row) in self.cursors.iter_mut().filter(|(_, row)| is_meant(&row.watch)) {
            let refuses = row.streak.refuses_everything(row.acknowledged);
            if refuses || row.open.is_none() && row.streak.blocks(row.acknowledged) {
                let from = row.streak.from.filter(|_| !refuses).unwrap_or_default();
                let letters = SelfRedrive { from, before: (i64::MAX, 0), counted: !refuses };
                ended.push((id.clone(), letters));
                let kept = row.open.as_ref().map(|_| Streak { refused: 0, ..row.streak });
                row.streak = kept.unwrap_or_default();
            }
        }
        for (id, _) in &ended {
            self.stand(id, &Standing::Unblocked);
        }
        ended
    }

    pub(super) fn end_refusals(&mut self, sink: &SinkKey) {
        let watches = self.watches.values().filter(|watch| watch.sink_key() == *sink);
        let watches: Vec<WatchId> = watches.map(|watch| watch.new.id.clone()).collect();
        for (id, letters) in self.refusing(|of| watches.contains(of)) {
            self.redrive_by_itself(&id, letters);
        }
    }

    pub(super) fn end_refusals_of(&mut self, watch: &WatchId) {
        for (id, letters) in self.refusing(|of| of == watch) {
            if letters.counted {
                self.redrive_by_itself(&id, letters);
            }
        }
    }

    pub(super) fn note_announced(&mut self, id: &CursorId, number: i64) {
        let cursor = self.cursors.get_mut(id);
        if let Some(cursor) =
            cursor.filter(|row| row.open.as_ref().is_some_and(|round| round.number == number))
        {
            cursor.announced = true;
        }
    }

    pub(super) fn end_redrive(
        &mut self,
        id: &CursorId,
        number: i64,
        reached: &[DeadLetterId],
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let cursor = self.cursors.get_mut(id).ok_or(StoreError::NotFound)?;
        let open = |round: &mut Round| round.number == number && round.spec.kind == RoundKind::Redrive;
        let Some(round) = cursor.open.take_if(open) else { return Ok(false) };
        cursor.end(round, at);
        let bound =
            |row: &&mut LetterRow| row.shown.cursor == *id && row.bound == Some(number) && row.is_open();
        let mut unreached = Vec::new();
        for row in self.letters.values_mut().filter(bound) {
            if reached.contains(&row.shown.id) {
                row.shown.status = LetterStatus::Redriven;
                row.closed_at = Some(at);
            } else if row.shown.status == LetterStatus::Open {
                unreached.push(row.shown.id.clone());
            }
        }
        for letter in unreached {
            self.take_back(&letter);
        }
        self.caught_up(id);
        Ok(true)
    }

    pub(super) fn set_blocked(&mut self, id: &CursorId, reason: Option<&str>) -> Result<(), StoreError> {
        let cursor = self.cursors.get_mut(id).ok_or(StoreError::NotFound)?;
        if reason.is_none() && cursor.state == CursorState::Blocked {
            cursor.streak = Streak::default();
        }
        self.stand(id, &reason.map_or(Standing::Unblocked, |reason| Standing::Blocked(reason.to_owned())));
        Ok(())
    }

    fn stand(&mut self, id: &CursorId, standing: &Standing) {
        let Some(at_rest) = self.cursors.get(id).map(|cursor| self.at_rest(cursor)) else { return };
        let Some(cursor) = self.cursors.get_mut(id) else { return };
        match standing {
            Standing::Blocked(reason) => {
                cursor.state = CursorState::Blocked;
                cursor.reason = Some(reason.clone());
            }
            Standing::Unblocked if cursor.state == CursorState::Blocked => {
                cursor.state = at_rest;
                cursor.reason = None;
            }
            Standing::Unblocked | Standing::Unchanged => {}
        }
    }

    pub(super) fn at_rest(&self, cursor: &CursorRow) -> CursorState {
        unblocked(self.head(cursor).map(|(commit, _)| commit), &cursor.slot)
    }

    fn caught_up(&mut self, id: &CursorId) {
        let since = self.cursors.get(id).and_then(|cursor| {
            let moved_at = self.head(cursor).map(|(_, moved_at)| moved_at);
            moved_at.or(cursor.behind_since).filter(|_| self.is_behind(cursor))
        });
        if let Some(cursor) = self.cursors.get_mut(id) {
            cursor.behind_since = since;
        }
    }
}
