//! The maps of the in-memory store, and the verbs about apps, letters and upkeep.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tidings_entity::{
    id::{AppId, ArtifactId, CursorId, DeadLetterId, ObjectId, RedriveId, RepositoryId, SourceId, WatchId},
    kind::{BranchGone, BreakerKind, CursorState, HistoryMode, LetterStatus, ParkReason, WatchState},
};

use super::settled::Settled;
use crate::{
    model::follow::Followed,
    model::round::{Entry, Round, TreeEnd},
    model::secret::Secret,
    model::view::View,
    ports::{
        App, AppPatch, AttemptRecord, BlobFacts, BreakerRow, DeadLetter, Extent, KEYS_MAX, LetterFilter,
        NewApp, NewWatch, OwnSink, PERMITS_AHEAD_MAX, QueueWork, Receipt, Source, StoreError, Streak, Totals,
        patterns_of,
    },
    time::Timestamp,
};

#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) apps: BTreeMap<AppId, AppRow>,
    pub(super) repositories: BTreeMap<RepositoryId, String>,
    pub(super) sources: BTreeMap<SourceId, SourceRow>,
    pub(super) watches: BTreeMap<WatchId, WatchRow>,
    pub(super) cursors: BTreeMap<CursorId, CursorRow>,
    pub(super) letters: BTreeMap<DeadLetterId, LetterRow>,
    pub(super) redrives: BTreeMap<RedriveId, RedriveRow>,
    pub(super) attempts: Vec<AttemptRecord>,
    pub(super) settled: Settled,
    pub(super) blobs: BTreeMap<ObjectId, (BlobFacts, Timestamp)>,
    pub(super) blob_writes: usize,
    pub(super) artifacts: BTreeSet<ArtifactId>,
    pub(super) next_status: Option<Timestamp>,
    pub(super) work: Vec<QueueWork>,
    pub(super) has_tasks: bool,
    pub(super) receipts: Vec<Receipt>,
    pub(super) hooked: BTreeMap<RepositoryId, Timestamp>,
    pub(super) breakers: BTreeMap<(BreakerKind, String), BreakerRow>,
}

#[derive(Clone)]
pub(super) struct AppRow {
    pub(super) new: NewApp,
    /// The current key first, each with its end.
    pub(super) keys: Vec<(Secret, Option<Timestamp>)>,
    pub(super) disabled: Option<String>,
    pub(super) endpoint_since: Timestamp,
    pub(super) permits_until: Option<Timestamp>,
}

impl AppRow {
    /// Disables a sink for this reason, or enables it again; after that, answers of earlier attempts do not
    /// count.
    pub(super) fn disable(&mut self, reason: Option<String>, at: Timestamp) {
        if reason.is_none() && self.disabled.is_some() {
            self.endpoint_begins(at);
        }
        self.disabled = reason;
    }

    fn endpoint_begins(&mut self, at: Timestamp) {
        self.endpoint_since = at.max(Timestamp(self.endpoint_since.0 + 1));
    }
}

#[derive(Clone)]
pub(super) struct SourceRow {
    pub(super) repository: RepositoryId,
    pub(super) owner: Option<(AppId, Secret)>,
    pub(super) head_ref: Option<String>,
    pub(super) heads: BTreeMap<String, (ObjectId, Timestamp)>,
    /// Why the commits of some of them cannot be taken.
    pub(super) faults: BTreeMap<String, String>,
    pub(super) last_change: Timestamp,
    pub(super) last_error: Option<String>,
    pub(super) moved_to: Option<String>,
}

#[derive(Clone)]
pub(super) struct WatchRow {
    pub(super) new: NewWatch,
    pub(super) sink: Option<OwnSink>,
    pub(super) repository: RepositoryId,
    pub(super) source: SourceId,
    pub(super) view: View,
    pub(super) mode: HistoryMode,
    pub(super) on_branch_gone: BranchGone,
    /// Something of it was acknowledged.
    pub(super) acknowledged: bool,
    pub(super) state: WatchState,
    pub(super) reason: Option<String>,
}

#[derive(Clone)]
pub(super) struct CursorRow {
    pub(super) watch: WatchId,
    pub(super) slot: String,
    pub(super) branch: String,
    pub(super) held: Option<TreeEnd>,
    pub(super) last_round: i64,
    pub(super) open: Option<Round>,
    pub(super) ended: BTreeMap<i64, Timestamp>,
    /// Every round that is kept; of the open one `open` knows the position.
    pub(super) rounds: BTreeMap<i64, Arc<Round>>,
    pub(super) bases: Vec<TreeEnd>,
    pub(super) state: CursorState,
    pub(super) reason: Option<String>,
    pub(super) streak: Streak,
    pub(super) acknowledged: bool,
    pub(super) last_was_redrive: bool,
    pub(super) guard_waived: bool,
    pub(super) resync: Option<bool>,
    /// Trees that it held, the last one last.
    pub(super) was: Vec<TreeEnd>,
    pub(super) replay: Option<TreeEnd>,
    pub(super) deletes_unknown: bool,
    /// Whether the app was told that the open round begins.
    pub(super) announced: bool,
    pub(super) skip: Option<(i64, u64)>,
    pub(super) cancel: Option<i64>,
    pub(super) behind_since: Option<Timestamp>,
    pub(super) created_at: Timestamp,
}

impl CursorRow {
    /// Notes a tree as a base of the resync to come.
    pub(super) fn keep_base(&mut self, tree: TreeEnd) {
        if self.held.as_ref() != Some(&tree) && !self.bases.contains(&tree) {
            self.bases.push(tree);
        }
    }

    /// How far a round of it is settled.
    pub(super) fn position(&self, round: &Round) -> u64 {
        let open = self.open.as_ref().filter(|open| open.number == round.number);
        open.map_or(round.position, |open| open.position)
    }

    /// The round that was open has ended.
    pub(super) fn end(&mut self, round: Round, at: Timestamp) {
        self.ended.insert(round.number, at);
        self.rounds.insert(round.number, Arc::new(round));
    }

    /// Whether it is blocked by what its branch named before, not by what it delivers.
    pub(super) fn is_moot(&self) -> bool {
        self.state == CursorState::Blocked && self.open.is_none() && !self.streak.blocks(self.acknowledged)
    }
}

#[derive(Clone)]
pub(super) struct LetterRow {
    pub(super) app: AppId,
    pub(super) shown: DeadLetter,
    pub(super) before: Option<Entry>,
    pub(super) bound: Option<i64>,
    pub(super) counted: bool,
    pub(super) self_redriven: bool,
    /// The round it is bound to is a redrive.
    pub(super) in_redrive: bool,
    pub(super) closed_at: Option<Timestamp>,
}

impl LetterRow {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.shown.status, LetterStatus::Open | LetterStatus::RedriveRequested)
    }
}

#[derive(Clone)]
pub(super) struct RedriveRow {
    pub(super) app: AppId,
    pub(super) filter: Option<LetterFilter>,
    pub(super) marked_to: Option<DeadLetterId>,
    pub(super) through: Option<DeadLetterId>,
    pub(super) is_marking: bool,
    pub(super) asked: u64,
    pub(super) cancelled: u64,
    pub(super) created_at: Timestamp,
}

pub(super) fn app(row: &AppRow, now: Timestamp) -> App {
    let live = row.keys.iter().filter(|(_, end)| end.is_none_or(|end| end > now));
    App {
        id: row.new.id.clone(),
        sink: None,
        name: row.new.name.clone(),
        email: row.new.email.clone(),
        is_from_anyone: row.new.is_from_anyone,
        receives_at: row.new.receives_at.clone(),
        website: row.new.website.clone(),
        description: row.new.description.clone(),
        keys: live.map(|(key, _)| key.clone()).collect(),
        access: Arc::new(row.new.access.clone()),
        delivery: row.new.delivery.clone(),
        disabled: row.disabled.clone(),
        endpoint_since: row.endpoint_since,
        created_at: row.new.created_at,
    }
}

impl State {
    pub(super) fn take_permits(
        &mut self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError> {
        let row = self.apps.get_mut(app).ok_or(StoreError::NotFound)?;
        let from = match row.permits_until {
            None => now,
            Some(until) if until > now.after(PERMITS_AHEAD_MAX) => now.after(span),
            Some(until) => until.max(now),
        };
        row.permits_until = Some(from.after(span));
        Ok(from)
    }

    pub(super) fn create_app(&mut self, new: &NewApp) -> Result<(), StoreError> {
        let same_token = self.apps.values().any(|app| app.new.token_public_id == new.token_public_id);
        if same_token || self.apps.contains_key(&new.id) {
            return Err(StoreError::Conflict("such an app exists already".into()));
        }
        let keys = vec![(new.signing_key.clone(), None)];
        self.apps.insert(
            new.id.clone(),
            AppRow {
                new: new.clone(),
                keys,
                disabled: None,
                endpoint_since: new.created_at,
                permits_until: None,
            },
        );
        Ok(())
    }

    pub(super) fn patch_app(
        &mut self,
        id: &AppId,
        patch: &AppPatch,
        at: Timestamp,
    ) -> Result<App, StoreError> {
        let row = self.apps.get_mut(id).ok_or(StoreError::NotFound)?;
        let access = row.new.access.changed(&patch.access);
        let access = access.map_err(|fault| StoreError::Conflict(fault.to_string()))?;
        if let Some(rotation) = &patch.rotation {
            if app(row, at).keys.len() >= KEYS_MAX {
                return Err(StoreError::Conflict("too many keys".into()));
            }
            for (_, end) in &mut row.keys {
                *end = Some(end.map_or(rotation.overlap_until, |end| end.min(rotation.overlap_until)));
            }
            row.keys.insert(0, (rotation.key.clone(), None));
        }
        row.new.access = access;
        if let Some(receives_at) = &patch.receives_at {
            if row.new.receives_at != *receives_at {
                row.endpoint_begins(at);
            }
            row.new.receives_at = receives_at.clone();
        }
        if let Some(delivery) = &patch.delivery {
            row.new.delivery = delivery.clone();
        }
        if let Some(disabled) = &patch.disabled {
            row.disable(disabled.clone(), at);
        }
        Ok(app(row, at))
    }

    pub(super) fn erase_app(&mut self, id: &AppId) -> Result<(), StoreError> {
        self.apps.remove(id).ok_or(StoreError::NotFound)?;
        let own = self.watches.values().filter(|watch| watch.new.app == *id);
        let own: Vec<WatchId> = own.map(|watch| watch.new.id.clone()).collect();
        for watch in own {
            self.unwatch(&watch);
        }
        self.breakers.remove(&(BreakerKind::Endpoint, id.to_string()));
        self.redrives.retain(|_, redrive| redrive.app != *id);
        Ok(())
    }

    pub(super) fn sources_of(&self, repository: &RepositoryId) -> Vec<Source> {
        let of_repository = self.sources.iter().filter(|(_, source)| source.repository == *repository);
        of_repository.map(|(id, row)| self.shown_source(id, row)).collect()
    }

    fn shown_source(&self, id: &SourceId, row: &SourceRow) -> Source {
        let mut patterns: BTreeMap<&AppId, BTreeSet<String>> = BTreeMap::new();
        let sound = row.heads.iter().filter(|(name, _)| !row.faults.contains_key(*name));
        let mut haves: BTreeSet<ObjectId> = sound.map(|(_, (commit, _))| *commit).collect();
        let (mut every, mut apps) = (false, BTreeSet::new());
        let (mut selectors, mut branches) = (BTreeSet::new(), BTreeSet::new());
        for watch in self.watches.values().filter(|watch| watch.source == *id) {
            apps.insert(watch.new.app.clone());
            let patterns = patterns.entry(&watch.new.app).or_default();
            every |= watch.mode == HistoryMode::Every;
            selectors.insert(watch.new.selector.clone());
            patterns.extend(watch.new.selector.ref_pattern());
            let cursors = self.cursors.values().filter(|cursor| cursor.watch == watch.new.id);
            for cursor in cursors {
                haves.extend(cursor.held.as_ref().map(|held| held.commit));
                branches.extend(Some(cursor.branch.clone()).filter(|branch| !branch.is_empty()));
                if watch.new.selector.ref_pattern().is_none() && !cursor.branch.is_empty() {
                    patterns.insert(cursor.branch.clone());
                }
            }
        }
        let of_repository = |source: &SourceId| {
            self.sources.get(source).is_some_and(|other| other.repository == row.repository)
        };
        let narrow = self
            .watches
            .values()
            .filter(|watch| of_repository(&watch.source))
            .all(|watch| watch.view.is_narrow());
        Source {
            id: id.clone(),
            remote: self.remote(row, apps.into_iter().collect()),
            patterns: patterns_of(patterns.into_values()),
            followed: Followed {
                selectors: selectors.into_iter().collect(),
                branches: branches.into_iter().collect(),
            },
            extent: if narrow { Extent::Trees } else { Extent::Whole },
            every,
            haves: haves.into_iter().collect(),
            last_change: row.last_change,
            hooked_at: self.hooked.get(&row.repository).copied(),
        }
    }

    pub(super) fn unavailable_letters(
        &self,
        after: Option<&DeadLetterId>,
        limit: u64,
    ) -> Vec<(AppId, CursorId, DeadLetterId)> {
        let wanted = self.letters.values().filter(|row| {
            row.shown.status == LetterStatus::Open
                && row.shown.reason == ParkReason::ContentUnavailable
                && after.is_none_or(|after| row.shown.id > *after)
        });
        wanted
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|row| (row.app.clone(), row.shown.cursor.clone(), row.shown.id.clone()))
            .collect()
    }

    pub(super) fn pins(&self, repository: &RepositoryId) -> Vec<ObjectId> {
        let mut pins = BTreeSet::new();
        let mine = |cursor: &&CursorRow| {
            self.watches.get(&cursor.watch).is_some_and(|watch| watch.repository == *repository)
        };
        for cursor in self.cursors.values().filter(mine) {
            pins.extend(
                cursor.held.iter().chain(&cursor.bases).chain(&cursor.replay).map(|tree| tree.commit),
            );
            if let Some(round) = &cursor.open {
                let ends = round.spec.held.iter().chain(&round.spec.target).chain(&round.spec.bases);
                pins.extend(ends.map(|tree| tree.commit));
            }
        }
        pins.into_iter().collect()
    }

    pub(super) fn prune(&mut self, now: Timestamp, history: Duration, blobs: Duration, limit: u64) -> u64 {
        let mut left = limit;
        let mut take = |old: bool| {
            let gone = old && left > 0;
            left -= u64::from(gone);
            !gone
        };
        let old = |at: Timestamp| now.since(at) > history;
        let cursors = &self.cursors;
        let open = |cursor: &CursorId, round: i64| {
            cursors.get(cursor).and_then(|row| row.open.as_ref()).is_some_and(|open| open.number == round)
        };
        self.attempts.retain(|attempt| take(old(attempt.at) && !open(&attempt.cursor, attempt.round)));
        let letters = &self.letters;
        self.redrives.retain(|id, row| {
            let waits = |letter: &LetterRow| letter.is_open() && letter.shown.redrive.as_ref() == Some(id);
            take(old(row.created_at) && !row.is_marking && !letters.values().any(waits))
        });
        let redrives = &self.redrives;
        self.letters.retain(|_, row| {
            let bound = row.bound.is_some_and(|round| open(&row.shown.cursor, round));
            let named = row.shown.redrive.as_ref().is_some_and(|redrive| redrives.contains_key(redrive));
            take(row.closed_at.is_some_and(old) && !bound && !named)
        });
        self.receipts.retain(|receipt| take(old(receipt.hook.received_at)));
        let letters = &self.letters;
        for (id, row) in &mut self.cursors {
            row.ended.retain(|number, at| {
                let named = letters.values().any(|letter| {
                    letter.is_open() && letter.shown.cursor == *id && letter.shown.round == *number
                });
                take(old(*at) && !named)
            });
            let open = row.open.as_ref().map(|round| round.number);
            row.rounds.retain(|number, _| Some(*number) == open || row.ended.contains_key(number));
        }
        self.cursors.retain(|id, row| {
            let is_at_rest = !row.slot.is_empty()
                && row.state == CursorState::BranchMissing
                && row.held.is_none()
                && row.open.is_none()
                && row.resync.is_none()
                && row.replay.is_none();
            let is_named = !row.ended.is_empty() || letters.values().any(|letter| letter.shown.cursor == *id);
            take(is_at_rest && !is_named && old(row.created_at))
        });
        self.blobs.retain(|_, (_, used)| take(now.since(*used) > blobs));
        limit - left
    }

    pub(super) fn totals(&self, now: Timestamp) -> Totals {
        let behind = self.cursors.values().filter(|row| self.is_behind(row));
        let oldest = behind.clone().filter_map(|row| row.behind_since).min();
        let count = |number: usize| number as u64;
        Totals {
            apps: count(self.apps.len()),
            apps_disabled: count(self.apps.values().filter(|row| row.disabled.is_some()).count()),
            sinks_disabled: count(
                self.watches
                    .values()
                    .filter(|row| row.sink.iter().any(|sink| sink.disabled.is_some()))
                    .count(),
            ),
            repositories: count(self.repositories.len()),
            watches: count(self.watches.len()),
            behind: count(behind.count()),
            blocked: count(self.cursors.values().filter(|row| row.state == CursorState::Blocked).count()),
            open_rounds: count(self.cursors.values().filter(|row| row.open.is_some()).count()),
            dead_letters: count(self.letters.values().filter(|row| row.is_open()).count()),
            open_breakers: count(self.breakers.values().filter(|row| row.opened_at.is_some()).count()),
            // No actor asks this store about subscriptions.
            subscriptions_blocked: 0,
            worker_subscriptions: 0,
            lag_ms: oldest
                .map_or(0, |oldest| u64::try_from(now.since(oldest).as_millis()).unwrap_or(u64::MAX)),
        }
    }
}
