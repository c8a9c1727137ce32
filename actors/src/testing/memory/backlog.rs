//! How far watches are behind, in memory.

use std::collections::{BTreeMap, BTreeSet};

use tidings_entity::{
    id::{CursorId, SourceId, WatchId},
    kind::{BreakerKind, CursorState, WatchState},
};

use super::rows::{CursorRow, State};
use crate::{
    model::{follow::goes, sink::SinkAddress},
    ports::{APPS_LATE_MAX, AppLate, Backlog, LAG_BOUNDS, LATE, Laggard, ScanTrouble},
    time::Timestamp,
};

impl State {
    /// Whether the app of a cursor lacks changes.
    pub(super) fn is_behind(&self, cursor: &CursorRow) -> bool {
        let held = cursor.held.as_ref().map(|held| held.commit);
        let lacks = |head| Some(head) != held || cursor.resync.is_some();
        let gone_with_files = || {
            let watch = self.watches.get(&cursor.watch);
            held.is_some() && watch.is_some_and(|watch| goes(cursor.state, watch.on_branch_gone))
        };
        cursor.open.is_some() || self.head(cursor).map_or_else(gone_with_files, |(head, _)| lacks(head))
    }

    /// Notes for the cursors of a source since when their apps lack changes.
    pub(super) fn note_lag(&mut self, source: &SourceId, at: Timestamp) {
        let ids: Vec<CursorId> = self.known(source).cursors.into_iter().map(|cursor| cursor.id).collect();
        for id in ids {
            let behind = self.cursors.get(&id).is_some_and(|cursor| self.is_behind(cursor));
            if let Some(cursor) = self.cursors.get_mut(&id) {
                cursor.behind_since = behind.then(|| cursor.behind_since.unwrap_or(at));
            }
        }
    }

    pub(super) fn backlog(&self, now: Timestamp) -> Backlog {
        let mut oldest: BTreeMap<WatchId, Timestamp> = BTreeMap::new();
        for laggard in self.laggards() {
            let since = oldest.entry(laggard.watch).or_insert(laggard.since);
            *since = (*since).min(laggard.since);
        }
        let mut backlog = Backlog { apps_late: self.apps_late(now), ..Backlog::default() };
        for since in oldest.into_values() {
            let lag = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            let bound = LAG_BOUNDS.iter().position(|bound| lag <= bound * 1_000).unwrap_or(LAG_BOUNDS.len());
            backlog.behind[bound] += 1;
            backlog.lag_sum_ms += lag;
            backlog.lag_max_ms = backlog.lag_max_ms.max(lag);
        }
        for source in self.sources.values() {
            if let Some(error) = &source.last_error {
                *backlog.sources_failing.entry(ScanTrouble::of(error)).or_default() += 1;
            }
        }
        let open = self.breakers.iter().filter(|(_, row)| row.opened_at.is_some());
        let endpoints = open.filter(|((kind, _), _)| *kind == BreakerKind::Endpoint);
        let failing: BTreeSet<&str> = endpoints.map(|((_, id), _)| id.as_str()).collect();
        let is_blocked = |row: &&CursorRow| row.state == CursorState::Blocked;
        let blocked: BTreeSet<&WatchId> =
            self.cursors.values().filter(is_blocked).map(|row| &row.watch).collect();
        let late = self.laggards().into_iter().filter(|laggard| {
            let is_known = failing.contains(laggard.app.as_str()) || blocked.contains(&laggard.watch);
            let own = self.watches.get(&laggard.watch).and_then(|watch| watch.sink.as_ref());
            let of_app = self.apps.get(&laggard.app).map(|app| &app.new.receives_at);
            let address = own.map(|sink| &sink.address).or(of_app);
            let is_sent = !matches!(address, Some(SinkAddress::Pull | SinkAddress::Tasks(_)));
            is_sent && !is_known && now.since(laggard.since) > LATE
        });
        backlog.apps_behind = late.map(|laggard| laggard.app).collect::<BTreeSet<_>>().len() as u64;
        for letter in self.letters.values().filter(|letter| letter.is_open()) {
            *backlog.letters.entry(letter.shown.reason).or_default() += 1;
        }
        backlog
    }

    fn apps_late(&self, now: Timestamp) -> Vec<AppLate> {
        let mut late: Vec<AppLate> = Vec::new();
        // The longest lag comes first, so the first branch of an app has that of the app.
        for laggard in self.laggards() {
            if let Some(known) = late.iter_mut().find(|known| known.app == laggard.app) {
                known.behind += 1;
                continue;
            }
            let lag_ms = u64::try_from(now.since(laggard.since).as_millis()).unwrap_or(u64::MAX);
            late.push(AppLate { app: laggard.app, lag_ms, behind: 1 });
        }
        late.truncate(APPS_LATE_MAX);
        late
    }

    pub(super) fn laggards(&self) -> Vec<Laggard> {
        let behind = self.cursors.iter().filter(|(_, row)| self.is_behind(row));
        let served = behind.filter_map(|(id, row)| {
            let watch = self.watches.get(&row.watch)?;
            let app = &watch.new.app;
            let is_served = watch.state == WatchState::Active && self.served(watch)?.disabled.is_none();
            is_served.then_some(Laggard {
                app: app.clone(),
                watch: row.watch.clone(),
                cursor: id.clone(),
                owner: watch.new.facts.owner.clone(),
                name: watch.new.facts.name.clone(),
                branch: row.branch.clone(),
                state: row.state,
                reason: row.reason.clone(),
                open_round: row.open.as_ref().map(|round| round.number),
                since: row.behind_since?,
            })
        });
        let mut laggards: Vec<Laggard> = served.collect();
        laggards.sort_by(|one, other| (one.since, &one.cursor).cmp(&(other.since, &other.cursor)));
        laggards
    }
}
