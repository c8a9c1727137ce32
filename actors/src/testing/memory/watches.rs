//! Watches, sources and heads of the in-memory store.

use std::sync::Arc;

use tidings_entity::{
    id::{AppId, CursorId, ObjectId, RepositoryId, SourceId, WatchId},
    kind::{BreakerKind, CursorState, WatchState},
};
use url::Url;

use super::rows::{CursorRow, SourceRow, State, WatchRow, app};
use crate::{
    model::follow::{Following, Known, KnownCursor, KnownWatch, Scope, follow},
    model::{round::TreeEnd, secret::Secret},
    ports::{
        App, CursorStatus, HeadFault, Location, Moved, NewSink, NewWatch, OwnSink, PinnedTrees, Random,
        RefListing, Remote, RepositoryFacts, SinkKey, Start, StoreError, Streak, Watch, WatchPatch,
        WatchSink,
    },
    time::Timestamp,
};

impl State {
    pub(super) fn own_watch(&self, app: &AppId, id: &WatchId) -> Result<&WatchRow, StoreError> {
        self.watches.get(id).filter(|watch| watch.new.app == *app).ok_or(StoreError::NotFound)
    }

    pub(super) fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError> {
        let watch = self.own_watch(app, id)?;
        let source = self.sources.get(&watch.source).ok_or(StoreError::NotFound)?;
        let mut ends: Vec<TreeEnd> = Vec::new();
        for cursor in self.cursors.values().filter(|cursor| cursor.watch == *id) {
            let spec = cursor.open.as_ref().map(|round| &round.spec);
            let of_round = spec.map(|spec| spec.held.iter().chain(&spec.target).chain(&spec.bases));
            let all = cursor
                .held
                .iter()
                .chain(&cursor.replay)
                .chain(&cursor.bases)
                .chain(of_round.into_iter().flatten());
            for end in all {
                if !ends.contains(end) {
                    ends.push(end.clone());
                }
            }
        }
        let mine = self.cursors.values().filter(|cursor| cursor.watch == *id);
        let mut held: Vec<_> = mine.map(|cursor| (cursor.branch.clone(), cursor.held.clone())).collect();
        held.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(PinnedTrees { remote: self.remote(source, vec![watch.new.app.clone()]), ends, held })
    }

    pub(super) fn register(
        &mut self,
        random: &dyn Random,
        new: &NewWatch,
        now: Timestamp,
    ) -> Result<Watch, StoreError> {
        if !self.apps.contains_key(&new.app) {
            return Err(StoreError::NotFound);
        }
        if location(&new.url).is_none() {
            return Err(StoreError::Conflict("the address of the repository cannot be read".into()));
        }
        let at = new.created_at;
        let known = self.repositories.iter().find(|(_, url)| **url == new.url).map(|(id, _)| id.clone());
        let repository = known.unwrap_or_else(|| RepositoryId::new(random.ulid(at)));
        let same = self.watches.values().find(|watch| {
            watch.new.app == new.app
                && watch.repository == repository
                && (&watch.new.selector, &watch.new.alias) == (&new.selector, &new.alias)
        });
        let id = match same.map(|watch| watch.new.id.clone()) {
            Some(id) if !new.may_replace => return Err(StoreError::Exists(id.to_string())),
            Some(id) => id,
            None => new.id.clone(),
        };
        self.repositories.insert(repository.clone(), new.url.clone());
        let source = self.source(random, &new.app, &repository, new.credential.as_ref(), at);
        if let Some(watch) = self.watches.get_mut(&id) {
            let facts = RepositoryFacts {
                repository_id: id.clone(),
                github_url: watch.new.facts.github_url.clone(),
                ..new.facts.clone()
            };
            watch.new = NewWatch { id: id.clone(), facts, created_at: watch.new.created_at, ..new.clone() };
            (watch.view, watch.mode) = (new.view.clone(), new.mode);
            watch.on_branch_gone = new.on_branch_gone;
            (watch.state, watch.reason) = (WatchState::Active, None);
            watch.set_sink(new.sink.as_ref(), at);
            let old = std::mem::replace(&mut watch.source, source.clone());
            self.prove(random, &source, &id, &new.listing, None, at);
            self.resync_watch(&id, false, now);
            self.remove_unused(&old);
        } else {
            let start = match new.start {
                Start::All => None,
                Start::At(commit) => Some(TreeEnd { commit, view: new.view.clone() }),
            };
            let row = WatchRow {
                new: new.clone(),
                sink: None,
                repository,
                source: source.clone(),
                view: new.view.clone(),
                mode: new.mode,
                on_branch_gone: new.on_branch_gone,
                acknowledged: false,
                state: WatchState::Active,
                reason: None,
            };
            let watch = self.watches.entry(id.clone()).or_insert(row);
            watch.set_sink(new.sink.as_ref(), at);
            let head = new.listing.head.clone();
            let head = head.or_else(|| self.sources.get(&source).and_then(|row| row.head_ref.clone()));
            if let Some(branch) = new.selector.single_ref(head.as_deref()) {
                self.add_cursor(random, &id, "", &branch, start.clone(), at);
            }
            self.prove(random, &source, &id, &new.listing, start, at);
        }
        Ok(self.shown_watch(self.own_watch(&new.app, &id)?))
    }

    fn source(
        &mut self,
        random: &dyn Random,
        app: &AppId,
        repository: &RepositoryId,
        credential: Option<&Secret>,
        at: Timestamp,
    ) -> SourceId {
        let same = self.sources.iter().find(|(_, row)| {
            let owner = row.owner.as_ref();
            let same_credential = match (owner, credential) {
                (None, None) => true,
                (Some((owner, held)), Some(given)) => owner == app && held.expose() == given.expose(),
                _ => false,
            };
            row.repository == *repository && same_credential
        });
        if let Some((id, _)) = same {
            return id.clone();
        }
        let id = SourceId::new(random.ulid(at));
        let row = SourceRow {
            repository: repository.clone(),
            owner: credential.map(|secret| (app.clone(), secret.clone())),
            head_ref: None,
            heads: std::collections::BTreeMap::new(),
            faults: std::collections::BTreeMap::new(),
            last_change: at,
            last_error: None,
            moved_to: None,
        };
        self.sources.insert(id.clone(), row);
        id
    }

    fn add_cursor(
        &mut self,
        random: &dyn Random,
        watch: &WatchId,
        slot: &str,
        branch: &str,
        held: Option<TreeEnd>,
        at: Timestamp,
    ) {
        let row = CursorRow {
            watch: watch.clone(),
            slot: slot.to_owned(),
            branch: branch.to_owned(),
            held,
            last_round: 0,
            open: None,
            ended: std::collections::BTreeMap::new(),
            rounds: std::collections::BTreeMap::new(),
            bases: Vec::new(),
            state: CursorState::Active,
            reason: None,
            streak: Streak::default(),
            announced: false,
            acknowledged: false,
            last_was_redrive: false,
            was: Vec::new(),
            replay: None,
            guard_waived: false,
            skip: None,
            cancel: None,
            resync: None,
            deletes_unknown: false,
            behind_since: None,
            created_at: at,
        };
        self.cursors.insert(CursorId::new(random.ulid(at)), row);
    }

    pub(super) fn patch(
        &mut self,
        app: &AppId,
        id: &WatchId,
        patch: &WatchPatch,
        at: Timestamp,
    ) -> Result<Watch, StoreError> {
        self.own_watch(app, id)?;
        if let Some(watch) = self.watches.get_mut(id) {
            watch.view = patch.view.clone().unwrap_or(watch.view.clone());
            watch.mode = patch.mode.unwrap_or(watch.mode);
            watch.on_branch_gone = patch.on_branch_gone.unwrap_or(watch.on_branch_gone);
            if let Some((state, reason)) = patch.state.clone() {
                watch.reason = reason.filter(|_| state != WatchState::Active);
                watch.state = state;
            }
            if let Some(sink) = &patch.sink {
                watch.set_sink(sink.as_ref(), at);
            }
            if let (Some(rotation), Some(sink)) = (&patch.rotation, &mut watch.sink) {
                sink.former_key = sink.signing_key.replace(rotation.key.clone());
            }
            if let (Some((WatchState::Active, _)), Some(sink)) = (&patch.state, &mut watch.sink)
                && sink.disabled.take().is_some()
            {
                sink.since = at.max(Timestamp(sink.since.0 + 1));
            }
        }
        if matches!(patch.state, Some((WatchState::Active, _))) {
            self.end_refusals_of(id);
        }
        self.note_lag(&self.own_watch(app, id)?.source.clone(), at);
        Ok(self.shown_watch(self.own_watch(app, id)?))
    }

    pub(super) fn replace_credential(
        &mut self,
        random: &dyn Random,
        (app, id): (&AppId, &WatchId),
        credential: Option<&Secret>,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Watch, StoreError> {
        let (old, repository) = {
            let watch = self.own_watch(app, id)?;
            (watch.source.clone(), watch.repository.clone())
        };
        let source = self.source(random, app, &repository, credential, at);
        if let Some(watch) = self.watches.get_mut(id) {
            watch.source = source.clone();
        }
        self.prove(random, &source, id, listing, None, at);
        self.remove_unused(&old);
        Ok(self.shown_watch(self.own_watch(app, id)?))
    }

    pub(super) fn unwatch(&mut self, id: &WatchId) {
        let Some(watch) = self.watches.remove(id) else { return };
        self.cursors.retain(|_, cursor| cursor.watch != *id);
        self.letters.retain(|_, letter| letter.shown.watch != *id);
        let cursors = &self.cursors;
        self.attempts.retain(|attempt| cursors.contains_key(&attempt.cursor));
        self.remove_unused(&watch.source);
    }

    fn remove_unused(&mut self, id: &SourceId) {
        if self.watches.values().any(|watch| watch.source == *id) {
            return;
        }
        let Some(row) = self.sources.remove(id) else { return };
        self.breakers.remove(&(BreakerKind::Source, id.to_string()));
        if !self.sources.values().any(|source| source.repository == row.repository) {
            self.repositories.remove(&row.repository);
            self.hooked.remove(&row.repository);
        }
    }

    pub(super) fn remote(&self, source: &SourceRow, apps: Vec<AppId>) -> Remote {
        let url = self.repositories.get(&source.repository).map_or("", String::as_str);
        let url = source.moved_to.as_deref().unwrap_or(url);
        Remote {
            repository: source.repository.clone(),
            location: location(url).expect("`register` checked the address"),
            credential: source.owner.as_ref().map(|(_, secret)| secret.clone()),
            apps,
        }
    }

    pub(super) fn move_heads(
        &mut self,
        random: &dyn Random,
        source: &SourceId,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Moved, StoreError> {
        self.sources.get(source).ok_or(StoreError::NotFound)?;
        let following = follow(&self.known(source), listing, Scope::Source, at);
        self.apply(random, source, &following, None, at);
        let Following { moved, gone, moved_to, absent, left_out, .. } = following;
        let changed = !moved.is_empty() || !gone.is_empty() || moved_to.is_some();
        let mut known = self.known(source);
        known.cursors.retain(|cursor| !(listing.is_partial && listing.is_unseen(&cursor.slot)));
        Ok(Moved { changed, absent, left_out, cursors: known.waiting() })
    }

    fn prove(
        &mut self,
        random: &dyn Random,
        source: &SourceId,
        watch: &WatchId,
        listing: &RefListing,
        start: Option<TreeEnd>,
        at: Timestamp,
    ) {
        let following = follow(&self.known(source), listing, Scope::Watch(watch), at);
        self.apply(random, source, &following, start, at);
    }

    fn apply(
        &mut self,
        random: &dyn Random,
        source: &SourceId,
        following: &Following,
        start: Option<TreeEnd>,
        at: Timestamp,
    ) {
        if let Some(row) = self.sources.get_mut(source) {
            row.heads.retain(|name, _| !following.gone.contains(name));
            for head in &following.moved {
                row.heads.insert(head.name.clone(), (head.commit, at));
                row.faults.remove(&head.name);
                row.faults.extend(head.fault.clone().map(|fault| (head.name.clone(), fault)));
            }
            row.faults.retain(|name, _| row.heads.contains_key(name));
            row.head_ref = following.head_ref.clone().or(row.head_ref.take());
            if let Some(moved_to) = &following.moved_to {
                let registered = self.repositories.get(&row.repository);
                row.moved_to = Some(moved_to.clone()).filter(|moved_to| Some(moved_to) != registered);
            }
            if !following.moved.is_empty() || !following.gone.is_empty() {
                row.last_change = at;
            }
        }
        for (id, branch, state) in &following.edits {
            if let Some(cursor) = self.cursors.get_mut(id) {
                cursor.reason = cursor.reason.take().filter(|_| cursor.state == *state);
                (cursor.branch, cursor.state) = (branch.clone(), *state);
            }
        }
        for (watch, name) in &following.births {
            self.add_cursor(random, watch, name, name, start.clone(), at);
        }
        self.note_lag(source, at);
    }

    pub(super) fn known(&self, id: &SourceId) -> Known {
        let Some(source) = self.sources.get(id) else { return Known::default() };
        let watches = self.watches.values().filter(|watch| watch.source == *id);
        let cursors = self
            .cursors
            .iter()
            .filter(|(_, cursor)| self.watches.get(&cursor.watch).is_some_and(|watch| watch.source == *id));
        Known {
            heads: source.heads.clone(),
            faults: source.faults.clone(),
            head_ref: source.head_ref.clone(),
            moved_to: source.moved_to.clone(),
            watches: watches
                .map(|watch| KnownWatch {
                    id: watch.new.id.clone(),
                    sink: watch.sink_key(),
                    selector: watch.new.selector.clone(),
                    on_branch_gone: watch.on_branch_gone,
                    served: self.is_served(watch),
                })
                .collect(),
            cursors: cursors
                .map(|(id, cursor)| KnownCursor {
                    id: id.clone(),
                    watch: cursor.watch.clone(),
                    slot: cursor.slot.clone(),
                    branch: cursor.branch.clone(),
                    held: cursor.held.as_ref().map(|held| held.commit),
                    open: cursor.open.is_some(),
                    due: cursor.resync.is_some() || cursor.is_moot() || self.has_other_view(cursor),
                    state: cursor.state,
                })
                .collect(),
        }
    }

    pub(super) fn is_served(&self, watch: &WatchRow) -> bool {
        let served = self.served(watch);
        watch.state == WatchState::Active && served.is_some_and(|app| app.disabled.is_none())
    }

    /// The app of a watch as it is served at the watch's sink.
    pub(super) fn served(&self, watch: &WatchRow) -> Option<App> {
        let app = app(self.apps.get(&watch.new.app)?, watch.new.created_at);
        Some(watch.sink.as_ref().map_or(app.clone(), |sink| app.at(sink)))
    }

    /// The head of a cursor's branch, and since when.
    pub(super) fn head(&self, cursor: &CursorRow) -> Option<(ObjectId, Timestamp)> {
        let watch = self.watches.get(&cursor.watch)?;
        self.sources.get(&watch.source)?.heads.get(&cursor.branch).copied()
    }

    /// Whether the app holds something under another view than its watch has now.
    pub(super) fn has_other_view(&self, cursor: &CursorRow) -> bool {
        let now = self.watches.get(&cursor.watch).map(|watch| &watch.view);
        cursor.held.as_ref().is_some_and(|held| Some(&held.view) != now)
    }

    pub(super) fn shown_watch(&self, watch: &WatchRow) -> Watch {
        let source = self.sources.get(&watch.source);
        let mut own: Vec<_> =
            self.cursors.iter().filter(|(_, cursor)| cursor.watch == watch.new.id).collect();
        own.sort_by_key(|(_, cursor)| &cursor.slot);
        let cursors = own.into_iter().map(|(id, cursor)| CursorStatus {
            id: id.clone(),
            branch: cursor.branch.clone(),
            held: cursor.held.as_ref().map(|held| held.commit),
            head: self.head(cursor).map(|(commit, _)| commit),
            fault: self.head(cursor).and_then(|(_, since)| {
                let reason = source?.faults.get(&cursor.branch)?.clone();
                Some(HeadFault { reason, since })
            }),
            state: cursor.state,
            reason: cursor.reason.clone(),
            acknowledged: cursor.acknowledged,
            open: cursor.open.as_ref().map(|round| (round.number, round.position, round.summary.total())),
            last_round: cursor.last_round,
            deletes_unknown: cursor.deletes_unknown,
            dead_letters: self.open_letters(id).count() as u64,
            behind_since: cursor.behind_since.filter(|_| self.is_behind(cursor)),
        });
        Watch {
            id: watch.new.id.clone(),
            app: watch.new.app.clone(),
            repository: watch.repository.clone(),
            source: watch.source.clone(),
            url: watch.new.url.clone(),
            facts: watch.new.facts.clone(),
            is_private: watch.new.is_private,
            has_credential: source.is_some_and(|source| source.owner.is_some()),
            selector: watch.new.selector.clone(),
            alias: watch.new.alias.clone(),
            status: None,
            sink: watch.sink.as_ref().map(|sink| WatchSink {
                id: sink.id.clone(),
                address: sink.address.clone(),
                has_access: !sink.access.is_empty(),
                delivery: sink.delivery.clone(),
                disabled: sink.disabled.clone(),
            }),
            view: watch.view.clone(),
            mode: watch.mode,
            on_branch_gone: watch.on_branch_gone,
            state: watch.state,
            reason: watch.reason.clone(),
            created_at: watch.new.created_at,
            deliver_after: watch.new.deliver_after,
            cursors: cursors.collect(),
            last_error: source.and_then(|source| source.last_error.clone()),
            moved_to: source.and_then(|source| source.moved_to.clone()),
        }
    }
}

impl WatchRow {
    pub(super) fn sink_key(&self) -> SinkKey {
        SinkKey { app: self.new.app.clone(), sink: self.sink.as_ref().map(|sink| sink.id.clone()) }
    }

    fn set_sink(&mut self, new: Option<&NewSink>, at: Timestamp) {
        let old = self.sink.take();
        self.sink = new.map(|new| OwnSink {
            former_key: None,
            id: old.as_ref().map_or(&new.id, |old| &old.id).clone(),
            signing_key: old.as_ref().and_then(|old| old.signing_key.clone()).or(new.signing_key.clone()),
            since: match &old {
                Some(old) if old.address == new.address && old.disabled.is_none() => old.since,
                old => old.as_ref().map_or(at, |old| at.max(Timestamp(old.since.0 + 1))),
            },
            address: new.address.clone(),
            access: Arc::new(new.access.clone()),
            delivery: new.delivery.clone(),
            disabled: None,
        });
    }
}

fn location(url: &str) -> Option<Location> {
    if url.starts_with('/') {
        return Some(Location::Local(url.into()));
    }
    let url = Url::parse(url).ok()?;
    if url.scheme() == "file" {
        return url.to_file_path().ok().map(Location::Local);
    }
    ["http", "https"].contains(&url.scheme()).then_some(Location::Http(url))
}
