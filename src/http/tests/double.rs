//! The verbs that the front door calls, in memory: a store without lanes, and a Git host whose
//! behaviour is named by the path of the repository.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tidings_actors::{
    hosts::Hosts,
    ports::*,
    round::{Change, DeliveryId, Entry, Letter, Plan, RoundSpec, TreeEnd},
    secret::Secret,
    testing::MemoryStore,
    time::Timestamp,
};
use tidings_entity::{
    id::*,
    kind::{BreakerKind, LetterStatus, Operation, ParkReason, ReceiptVerdict, SelectorKind, WatchState},
};
use ulid::Ulid;

use super::plain;

/// Apps, watches and dead letters in memory.
#[derive(Default)]
pub(crate) struct StoreDouble {
    rows: Mutex<Rows>,
    /// Every verb fails like a database that is gone.
    pub(crate) is_down: AtomicBool,
    /// The store whose tokens it finds as well.
    behind: Option<Arc<MemoryStore>>,
    /// The next `ping` panics.
    pub(crate) panics: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) apps: Vec<(NewApp, Option<String>)>,
    pub(crate) tokens: Vec<AccessToken>,
    pub(crate) audit: Vec<AuditRow>,
    pub(crate) watches: Vec<Watch>,
    pub(crate) registered: Vec<NewWatch>,
    pub(crate) credentials: Vec<String>,
    pub(crate) resyncs: Vec<(WatchId, bool)>,
    pub(crate) letters: Vec<(AppId, DeadLetter)>,
    pub(crate) redrives: Vec<Redrive>,
    /// Whose each of them is.
    pub(crate) owners: Vec<AppId>,
    pub(crate) past: super::histories::PastRows,
    /// The last try at the head of a watch.
    pub(crate) at_heads: Vec<(WatchId, AttemptRecord)>,
    /// Breakers that have failures.
    pub(crate) breakers: Vec<BreakerRow>,
    /// What is behind, for longest first.
    pub(crate) laggards: Vec<Laggard>,
}

impl StoreDouble {
    /// One that finds the tokens of the apps in another store.
    pub(crate) fn before(store: Arc<MemoryStore>) -> Self {
        Self { behind: Some(store), ..Self::default() }
    }

    /// The token that an app of the store behind was registered with.
    pub(super) fn first_token(&self, public_id: &str) -> Option<AccessToken> {
        first_token(&self.behind.as_ref()?.registered_with(public_id)?)
    }

    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().expect("not poisoned")
    }

    pub(super) fn open(&self) -> Result<MutexGuard<'_, Rows>, StoreError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("planted: disk I/O error in /var/lib".into()));
        }
        Ok(self.rows())
    }

    /// A later change of its path made a letter moot.
    pub(crate) fn supersede(&self, id: &DeadLetterId) {
        let mut rows = self.rows();
        let letter = rows.letters.iter_mut().find(|(_, letter)| letter.id == *id);
        letter.expect("a letter").1.status = LetterStatus::Superseded;
    }

    /// Puts an open dead letter into the store.
    pub(crate) fn park(&self, app: &AppId, path: &[u8]) -> DeadLetterId {
        let mut rows = self.rows();
        let id = DeadLetterId::new(Ulid::from_parts(1, rows.letters.len() as u128));
        let cursor = CursorId::new(Ulid::from_parts(1, 1));
        let change = Change {
            operation: Operation::Delete,
            path: path.to_vec(),
            old: None,
            new: None,
            replay_of: None,
        };
        let letter = DeadLetter {
            id: id.clone(),
            watch: WatchId::new(Ulid::from_parts(1, 1)),
            delivery: tidings_actors::round::DeliveryId::of(&cursor, 1, &change),
            cursor,
            round: 1,
            position: 0,
            path: path.to_vec(),
            operation: Operation::Delete,
            reason: ParkReason::Rejected,
            status: LetterStatus::Open,
            http_status: Some(400),
            excerpt: "no".into(),
            redrive: None,
            created_at: Timestamp(0),
        };
        rows.letters.push((app.clone(), letter));
        id
    }
}

fn app_of((app, disabled): &(NewApp, Option<String>)) -> App {
    App {
        id: app.id.clone(),
        sink: None,
        name: app.name.clone(),
        email: app.email.clone(),
        receives_at: app.receives_at.clone(),
        website: app.website.clone(),
        description: app.description.clone(),
        keys: vec![app.signing_key.clone()],
        access: Arc::new(app.access.clone()),
        delivery: app.delivery.clone(),
        disabled: disabled.clone(),
        endpoint_since: Timestamp(0),
        created_at: app.created_at,
    }
}

fn first_token(app: &NewApp) -> Option<AccessToken> {
    Some(AccessToken {
        id: TokenId::new(app.id.as_str()[4..].parse().ok()?),
        owner: TokenOwner::App(app.id.clone()),
        name: "onboarding".into(),
        public_id: app.token_public_id.clone(),
        hash: app.token_hash,
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        created_at: app.created_at,
    })
}

fn find<'a>(rows: &'a mut Rows, app: &AppId, id: &WatchId) -> Result<&'a mut Watch, StoreError> {
    let found = rows.watches.iter_mut().find(|watch| watch.id == *id && watch.app == *app);
    found.ok_or(StoreError::NotFound)
}

impl Store for StoreDouble {
    fn under(&self, _: Fence) -> Arc<dyn Store> {
        unreachable!("only lanes and scans work under a lease")
    }
}

#[async_trait]
impl AppStore for StoreDouble {
    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError> {
        let mut rows = self.open()?;
        rows.apps.push((app.clone(), None));
        rows.tokens.extend(first_token(app));
        Ok(())
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        Ok(self.open()?.apps.iter().find(|(app, _)| app.id == *id).map(app_of))
    }

    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError> {
        let mut apps: Vec<App> = self.open()?.apps.iter().map(app_of).collect();
        apps.sort_by(|one, other| one.id.cmp(&other.id));
        apps.retain(|app| after.is_none_or(|after| app.id > *after));
        apps.truncate(usize::try_from(limit).expect("small"));
        Ok(apps)
    }

    async fn patch_app(&self, id: &AppId, patch: &AppPatch, _: Timestamp) -> Result<App, StoreError> {
        let mut rows = self.open()?;
        let row = rows.apps.iter_mut().find(|(app, _)| app.id == *id).ok_or(StoreError::NotFound)?;
        if let Some(receives_at) = &patch.receives_at {
            row.0.receives_at = receives_at.clone();
        }
        row.0.delivery = patch.delivery.clone().unwrap_or_else(|| row.0.delivery.clone());
        row.0.access = row.0.access.changed(&patch.access).expect("judged before");
        if let Some(disabled) = &patch.disabled {
            row.1.clone_from(disabled);
        }
        if let Some(rotation) = &patch.rotation {
            row.0.signing_key = rotation.key.clone();
        }
        Ok(app_of(row))
    }

    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError> {
        let mut rows = self.open()?;
        rows.apps.retain(|(app, _)| app.id != *id);
        rows.tokens.retain(|token| token.owner != TokenOwner::App(id.clone()));
        rows.watches.retain(|watch| watch.app != *id);
        Ok(())
    }

    async fn sink(&self, _: &AppId, _: &SinkId) -> Result<Option<OwnSink>, StoreError> {
        Ok(None)
    }

    async fn disable_gone(&self, _: &SinkKey, _: Timestamp) -> Result<bool, StoreError> {
        unreachable!("the front door does not call disable_gone")
    }

    async fn take_permits(&self, _: &AppId, now: Timestamp, _: Duration) -> Result<Timestamp, StoreError> {
        Ok(now)
    }
}

#[async_trait]
impl WatchStore for StoreDouble {
    async fn register_watch(&self, new: &NewWatch) -> Result<Watch, StoreError> {
        let mut rows = self.open()?;
        rows.registered.push(new.clone());
        let same =
            |watch: &&mut Watch| watch.app == new.app && watch.facts.github_url == new.facts.github_url;
        if let Some(watch) = rows.watches.iter_mut().find(same) {
            watch.view = new.view.clone();
            return Ok(watch.clone());
        }
        let number = rows.watches.len() as u64;
        let head = new.listing.refs.first();
        let watch = Watch {
            id: new.id.clone(),
            app: new.app.clone(),
            repository: RepositoryId::new(Ulid::from_parts(1, number.into())),
            source: SourceId::new(Ulid::from_parts(1, number.into())),
            url: new.url.clone(),
            facts: new.facts.clone(),
            is_private: new.is_private,
            has_credential: new.credential.is_some(),
            selector: new.selector.clone(),
            alias: new.alias.clone(),
            sink: None,
            view: new.view.clone(),
            mode: new.mode,
            on_branch_gone: new.on_branch_gone,
            state: WatchState::Active,
            reason: None,
            created_at: new.created_at,
            deliver_after: new.deliver_after,
            cursors: vec![CursorStatus {
                head: head.map(|head| head.commit),
                ..plain::cursor(number, head.map(|head| &*head.name).unwrap_or_default())
            }],
            last_error: None,
            moved_to: None,
        };
        rows.watches.push(watch.clone());
        Ok(watch)
    }

    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError> {
        let mut watches = self.open()?.watches.clone();
        watches.retain(|watch| watch.app == *app && after.is_none_or(|after| watch.id > *after));
        watches.sort_by(|one, other| one.id.cmp(&other.id));
        watches.truncate(usize::try_from(limit).expect("small"));
        Ok(watches)
    }

    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError> {
        find(&mut *self.open()?, app, id).cloned()
    }

    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError> {
        let watch = find(&mut *self.open()?, app, id).cloned()?;
        let location = Location::Http(watch.facts.github_url.parse().expect("an address"));
        let remote = Remote { repository: watch.repository, location, credential: None, apps: Vec::new() };
        let end = TreeEnd { commit: ObjectId::new(HEAD), view: watch.view };
        let held = vec![("refs/heads/main".to_owned(), Some(end.clone()))];
        Ok(PinnedTrees { remote, ends: vec![end], held })
    }

    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError> {
        let mut rows = self.open()?;
        let watch = find(&mut rows, app, id)?;
        if let Some(view) = &patch.view {
            watch.view = view.clone();
        }
        watch.mode = patch.mode.unwrap_or(watch.mode);
        if let Some((state, reason)) = &patch.state {
            watch.state = *state;
            watch.reason.clone_from(reason);
        }
        Ok(watch.clone())
    }

    async fn replace_credential(
        &self,
        app: &AppId,
        id: &WatchId,
        credential: Option<&Secret>,
        _listing: &RefListing,
        _at: Timestamp,
    ) -> Result<Watch, StoreError> {
        let mut rows = self.open()?;
        rows.credentials.extend(credential.map(|secret| secret.expose().to_owned()));
        find(&mut rows, app, id).cloned()
    }

    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError> {
        let mut rows = self.open()?;
        find(&mut rows, app, id)?;
        rows.resyncs.push((id.clone(), complete));
        Ok(())
    }

    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError> {
        let mut rows = self.open()?;
        find(&mut rows, app, id)?;
        rows.watches.retain(|watch| watch.id != *id);
        Ok(false)
    }

    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError> {
        let mut rows = self.open()?;
        let watch = find(&mut rows, app, id)?;
        let own = &watch.cursors[0];
        match (cursor, own.held) {
            (Some(cursor), _) if *cursor != own.id => Err(StoreError::NotFound),
            (_, Some(held)) if held == commit => {
                Ok((own.id.clone(), TreeEnd { commit, view: watch.view.clone() }))
            }
            _ => Err(StoreError::Conflict("it was never held".into())),
        }
    }

    async fn request_replay(&self, _: &CursorId, _: &TreeEnd) -> Result<(), StoreError> {
        self.open().map(drop)
    }

    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError> {
        let mut rows = self.open()?;
        let own = find(&mut rows, app, id)?.cursors[0].id.clone();
        match cursor {
            Some(cursor) if *cursor != own => Err(StoreError::NotFound),
            _ if expected == Some((7, 3)) || expected.is_none() => {
                Ok(Head { cursor: own, round: 7, position: 3 })
            }
            _ => Err(StoreError::Conflict("the head moved on".into())),
        }
    }

    async fn request_cursor_resync(&self, id: &CursorId, complete: bool, _: &str) -> Result<(), StoreError> {
        let mut rows = self.open()?;
        let of = |watch: &&Watch| watch.cursors.iter().any(|cursor| cursor.id == *id);
        let watch = rows.watches.iter().find(of).map(|watch| watch.id.clone()).ok_or(StoreError::NotFound)?;
        rows.resyncs.push((watch, complete));
        Ok(())
    }
}

#[async_trait]
impl SourceStore for StoreDouble {
    async fn repositories(&self, _: &Reach) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
        unreachable!("the front door does not call repositories")
    }

    async fn sources(&self, id: &RepositoryId) -> Result<Vec<Source>, StoreError> {
        let rows = self.open()?;
        Ok(rows.watches.iter().filter(|watch| watch.repository == *id).map(plain::source).collect())
    }

    async fn move_heads(&self, _: &SourceId, _: &RefListing, _: Timestamp) -> Result<Moved, StoreError> {
        unreachable!("the front door does not call move_heads")
    }

    async fn record_scan_error(&self, _: &SourceId, _: Option<&str>) -> Result<(), StoreError> {
        unreachable!("the front door does not call record_scan_error")
    }

    async fn watches_of_source(&self, _: &SourceId) -> Result<Vec<Watch>, StoreError> {
        unreachable!("the front door does not call watches_of_source")
    }
}

#[async_trait]
impl LaneStore for StoreDouble {
    async fn drop_replay(&self, _: &CursorId, _: ObjectId) -> Result<(), StoreError> {
        self.open().map(drop)
    }

    async fn end_refusals(&self, _: &SinkKey) -> Result<(), StoreError> {
        Ok(())
    }

    async fn note_announced(&self, _: &CursorId, _: i64) -> Result<(), StoreError> {
        unreachable!("the front door does not call note_announced")
    }

    async fn deliver_no_later(&self, _: &WatchId, _: Timestamp) -> Result<(), StoreError> {
        unreachable!("the front door does not call deliver_no_later")
    }

    async fn pending(&self, _: Option<&AppId>, _: &Reach) -> Result<Vec<(SinkKey, CursorId)>, StoreError> {
        unreachable!("the front door does not call pending")
    }

    async fn glimpse(&self, _: &CursorId) -> Result<Glimpse, StoreError> {
        unreachable!("the front door does not call glimpse")
    }

    async fn lane(&self, _: &CursorId) -> Result<LaneSnapshot, StoreError> {
        unreachable!("the front door does not call lane")
    }

    async fn lane_terms(&self, _: &[CursorId]) -> Result<Vec<(CursorId, LaneTerms)>, StoreError> {
        unreachable!("the front door does not call lane_terms")
    }

    async fn begin_round(&self, _: &NewRound) -> Result<(), StoreError> {
        unreachable!("the front door does not call begin_round")
    }

    async fn advance(&self, _: &CursorId, _: i64, _: Option<(ObjectId, ViewId)>) -> Result<(), StoreError> {
        unreachable!("the front door does not call advance")
    }

    async fn settle(&self, _: Settlement) -> Result<bool, StoreError> {
        unreachable!("the front door does not call settle")
    }

    async fn finish_round(&self, _: &CursorId, _: i64, _: Timestamp, _: bool) -> Result<bool, StoreError> {
        unreachable!("the front door does not call finish_round")
    }

    async fn record_attempt(&self, _: AttemptRecord) -> Result<(), StoreError> {
        unreachable!("the front door does not call record_attempt")
    }

    async fn set_blocked(&self, _: &CursorId, _: Option<&str>) -> Result<(), StoreError> {
        unreachable!("the front door does not call set_blocked")
    }

    async fn pause_by_guard(&self, _: &CursorId, _: &str) -> Result<(), StoreError> {
        unreachable!("the front door does not call pause_by_guard")
    }
}

#[async_trait]
impl LetterStore for StoreDouble {
    async fn dead_letters(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LetterPage, StoreError> {
        let rows = self.open()?;
        let matcher = filter.matcher().expect("a valid filter");
        let own = rows.letters.iter().rev().filter(|(owner, _)| owner == app).map(|(_, letter)| letter);
        let wanted =
            own.filter(|letter| matcher.admits(letter) && before.is_none_or(|before| letter.id < *before));
        let letters: Vec<_> = wanted.take(usize::try_from(limit).expect("small")).cloned().collect();
        let next = letters.last().filter(|_| letters.len() as u64 == limit).map(|letter| letter.id.clone());
        Ok(LetterPage { letters, next })
    }

    async fn dead_letter(&self, app: &AppId, id: &DeadLetterId) -> Result<DeadLetter, StoreError> {
        let rows = self.open()?;
        let found = rows.letters.iter().find(|(owner, letter)| owner == app && letter.id == *id);
        found.map(|(_, letter)| letter.clone()).ok_or(StoreError::NotFound)
    }

    async fn attempts(
        &self,
        cursor: &CursorId,
        round: i64,
        position: u64,
        _: u64,
    ) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows = self.open()?;
        let letter = rows.letters.iter().find(|(_, letter)| letter.cursor == *cursor);
        let Some(letter) = letter else { return Ok(Vec::new()) };
        Ok(vec![AttemptRecord {
            cursor: cursor.clone(),
            round,
            position,
            number: 1,
            delivery: letter.1.delivery.clone(),
            status: Some(400),
            item_failure: true,
            excerpt: "no".into(),
            answer: Some(std::sync::Arc::new(KeptAnswer {
                headers: vec![("server".into(), "nginx".into())],
                body: "no, and why".into(),
            })),
            took_ms: 7,
            at: Timestamp(0),
            next_at: None,
        }])
    }

    async fn open_letters(
        &self,
        _: &CursorId,
        _: &LetterPick,
    ) -> Result<Vec<(Letter, LetterStatus)>, StoreError> {
        unreachable!("the front door does not call open_letters")
    }

    async fn begin_redrive(&self, app: &AppId, filter: &LetterFilter) -> Result<RedriveId, StoreError> {
        let mut rows = self.open()?;
        let id = RedriveId::new(Ulid::from_parts(2, rows.redrives.len() as u128));
        rows.redrives.push(Redrive {
            id: id.clone(),
            filter: Some(filter.clone()),
            is_marking: true,
            asked: 0,
            sent: 0,
            refused: 0,
            superseded: 0,
            cancelled: 0,
            left: 0,
            created_at: Timestamp(0),
        });
        rows.owners.push(app.clone());
        Ok(id)
    }

    async fn mark_redrive(&self, id: Option<&RedriveId>) -> Result<Option<RedriveStep>, StoreError> {
        let mut rows = self.open()?;
        let Some(at) = rows.redrives.iter().position(|it| it.is_marking && Some(&it.id) == id) else {
            return Ok(None);
        };
        let app = rows.owners[at].clone();
        let filter = rows.redrives[at].filter.clone().unwrap_or_default();
        let filter = LetterFilter { status: Some(LetterStatus::Open), ..filter };
        let matcher = filter.matcher().expect("a valid filter");
        let mut marked = 0;
        for (owner, letter) in &mut rows.letters {
            if *owner == app && matcher.admits(letter) {
                letter.status = LetterStatus::RedriveRequested;
                marked += 1;
            }
        }
        let redrive = &mut rows.redrives[at];
        (redrive.is_marking, redrive.asked, redrive.left) = (false, marked, marked);
        let step = RedriveStep { redrive: redrive.id.clone(), app, marked, cursors: Vec::new(), more: false };
        Ok(Some(step))
    }

    async fn dismiss(&self, app: &AppId, ids: &[DeadLetterId], _: Timestamp) -> Result<u64, StoreError> {
        let mut rows = self.open()?;
        let mut dismissed = 0;
        for id in ids {
            let found = rows.letters.iter_mut().find(|(owner, letter)| owner == app && letter.id == *id);
            let (_, letter) = found.ok_or(StoreError::NotFound)?;
            if letter.status == LetterStatus::Superseded {
                return Err(StoreError::Conflict("superseded".into()));
            }
            dismissed += u64::from(letter.status != LetterStatus::Dismissed);
            letter.status = LetterStatus::Dismissed;
        }
        Ok(dismissed)
    }

    async fn dismiss_some(
        &self,
        app: &AppId,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        _: Timestamp,
    ) -> Result<Dismissed, StoreError> {
        let mut rows = self.open()?;
        let matcher = filter.matcher().expect("a valid filter");
        let is_open = |letter: &DeadLetter| letter.status == LetterStatus::Open;
        let mut done = Dismissed::default();
        // One letter a step, so that whoever asks must go on.
        let own = rows.letters.iter_mut().rev().filter(|(owner, _)| owner == app).map(|(_, letter)| letter);
        for letter in own.filter(|letter| before.is_none_or(|before| letter.id < *before)).take(1) {
            done.next = Some(letter.id.clone());
            if is_open(letter) && matcher.admits(letter) {
                letter.status = LetterStatus::Dismissed;
                done.dismissed += 1;
            }
        }
        Ok(done)
    }

    async fn redrives(
        &self,
        app: &AppId,
        before: Option<&RedriveId>,
        limit: u64,
    ) -> Result<Vec<Redrive>, StoreError> {
        let rows = self.open()?;
        let own = rows.redrives.iter().zip(&rows.owners).rev().filter(|(_, owner)| *owner == app);
        let older = own.map(|(it, _)| it).filter(|it| before.is_none_or(|before| it.id < *before));
        Ok(older.take(usize::try_from(limit).expect("small")).cloned().collect())
    }

    async fn redrive(&self, app: &AppId, id: &RedriveId) -> Result<Redrive, StoreError> {
        let all = self.redrives(app, None, 1_000).await?;
        all.into_iter().find(|redrive| redrive.id == *id).ok_or(StoreError::NotFound)
    }

    async fn request_redrive(
        &self,
        app: &AppId,
        ids: &[DeadLetterId],
    ) -> Result<(u64, Vec<CursorId>), StoreError> {
        let mut rows = self.open()?;
        let mut requested = 0;
        for id in ids {
            if !rows.letters.iter().any(|(owner, letter)| owner == app && letter.id == *id) {
                return Err(StoreError::NotFound);
            }
        }
        for (owner, letter) in &mut rows.letters {
            if owner != app || !ids.contains(&letter.id) {
                continue;
            }
            match letter.status {
                LetterStatus::Open => letter.status = LetterStatus::RedriveRequested,
                LetterStatus::Superseded => return Err(StoreError::Conflict("superseded".into())),
                _ => continue,
            }
            requested += 1;
        }
        Ok((requested, Vec::new()))
    }

    async fn cancel_redrive(&self, app: &AppId, watch: Option<&WatchId>) -> Result<Cancelled, StoreError> {
        let mut rows = self.open()?;
        if let Some(id) = watch {
            find(&mut rows, app, id)?;
        }
        let mut cancelled = Cancelled::default();
        for (owner, letter) in &mut rows.letters {
            if owner == app && letter.status == LetterStatus::RedriveRequested {
                letter.status = LetterStatus::Open;
                cancelled.reopened += 1;
            }
        }
        Ok(cancelled)
    }

    async fn end_redrive(
        &self,
        _: &CursorId,
        _: i64,
        _: &[DeadLetterId],
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        unreachable!("the front door does not call end_redrive")
    }

    async fn unavailable_letters(
        &self,
        _: Option<&DeadLetterId>,
        _: u64,
    ) -> Result<Vec<(AppId, CursorId, DeadLetterId)>, StoreError> {
        unreachable!("the front door does not call unavailable_letters")
    }
}

#[async_trait]
impl HistoryStore for StoreDouble {
    async fn rounds(
        &self,
        _: &AppId,
        filter: &RoundFilter,
        most: u64,
    ) -> Result<Vec<RoundFacts>, StoreError> {
        self.open().map(|mut rows| rows.past.listed(filter, most))
    }

    async fn past_round(&self, _: &AppId, _: &CursorId, number: i64) -> Result<PastRound, StoreError> {
        self.open()?.past.round(number).ok_or(StoreError::NotFound)
    }

    async fn fates(&self, _: &CursorId, number: i64, _: std::ops::Range<u64>) -> Result<Fates, StoreError> {
        self.open()?.past.fates(number).ok_or(StoreError::NotFound)
    }

    async fn last_parked(&self, _: &CursorId, _: i64, _: u64) -> Result<Option<u64>, StoreError> {
        unreachable!("this house has no rounds")
    }

    async fn delivery(&self, _: &AppId, id: &DeliveryId) -> Result<Option<(CursorId, i64, u64)>, StoreError> {
        self.open().map(|rows| rows.past.places.get(id).cloned())
    }
}

#[async_trait]
impl ReceiptStore for StoreDouble {
    async fn receive(&self, _: &Hook) -> Result<Receipt, StoreError> {
        drop(self.open()?);
        unreachable!("tests of hooks run over the real store")
    }

    async fn note_receipt(&self, _: &Receipt) -> Result<(), StoreError> {
        unreachable!("tests of hooks run over the real store")
    }

    async fn receipts(
        &self,
        _: Option<ReceiptVerdict>,
        _: Option<&ReceiptId>,
        _: u64,
    ) -> Result<Vec<Receipt>, StoreError> {
        drop(self.open()?);
        Ok(Vec::new())
    }

    async fn replay(&self, _: &ReceiptId, _: Timestamp) -> Result<Receipt, StoreError> {
        drop(self.open()?);
        Err(StoreError::NotFound)
    }
}

#[async_trait]
impl RequestStore for StoreDouble {
    async fn begin_request(
        &self,
        _: &KeyedRequest,
        _: Timestamp,
        _: &ReplicaId,
    ) -> Result<Begun, StoreError> {
        unreachable!("tests of keyed requests run over stores that keep them")
    }

    async fn end_request(&self, _: &KeyedRequest, _: Option<&StoredAnswer>) -> Result<(), StoreError> {
        unreachable!("tests of keyed requests run over stores that keep them")
    }
}

#[async_trait]
impl UpkeepStore for StoreDouble {
    async fn breakers(&self) -> Result<Vec<BreakerRow>, StoreError> {
        Ok(self.open()?.breakers.clone())
    }

    async fn totals(&self, _now: Timestamp) -> Result<Totals, StoreError> {
        let rows = self.open()?;
        let count = |number: usize| number as u64;
        Ok(Totals { apps: count(rows.apps.len()), watches: count(rows.watches.len()), ..Totals::default() })
    }

    async fn backlog(&self, _now: Timestamp) -> Result<Backlog, StoreError> {
        self.open().map(|_| Backlog::default())
    }

    async fn laggards(&self, limit: u64) -> Result<Vec<Laggard>, StoreError> {
        let laggards = self.open()?.laggards.clone();
        Ok(laggards.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "planted panic");
        self.open().map(drop)
    }

    async fn blob_facts(&self, _: &[ObjectId]) -> Result<Vec<Option<BlobFacts>>, StoreError> {
        unreachable!("the front door does not call blob_facts")
    }

    async fn remember_blobs(&self, _: &[(ObjectId, BlobFacts)], _: Timestamp) -> Result<(), StoreError> {
        unreachable!("the front door does not call remember_blobs")
    }

    async fn record_breaker(&self, _: &BreakerRow) -> Result<(), StoreError> {
        unreachable!("the front door does not call record_breaker")
    }

    async fn try_probe(
        &self,
        _: BreakerKind,
        _: &str,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        unreachable!("the front door does not call try_probe")
    }

    async fn pins(&self, _: &RepositoryId) -> Result<Vec<ObjectId>, StoreError> {
        unreachable!("the front door does not call pins")
    }

    async fn shorten_history(&self, _: u64, _: u64) -> Result<u64, StoreError> {
        unreachable!("the front door does not call shorten_history")
    }

    async fn prune(&self, _: Timestamp, _: Duration, _: Duration, _: u64) -> Result<u64, StoreError> {
        unreachable!("the front door does not call prune")
    }
}

/// A Git host that does what the path of a repository says.
pub(crate) struct GitDouble;

/// The head of every repository of [`GitDouble`].
pub(crate) const HEAD: [u8; 20] = [7; 20];

#[async_trait]
impl GitSource for GitDouble {
    async fn list_refs(&self, remote: &Remote, patterns: &RefPatterns) -> Result<RefListing, GitError> {
        let Location::Http(url) = &remote.location else { return Err(GitError::NotFound) };
        let good = remote.credential.as_ref().is_some_and(|secret| secret.expose() == "good");
        match url.path().rsplit('/').next().unwrap_or("") {
            "missing" => return Err(GitError::NotFound),
            "private" if !good => return Err(GitError::Unauthorized),
            "down" => return Err(GitError::Unreachable("planted: connection refused".into())),
            "busy" => return Err(GitError::RateLimited { retry_after: Some(Duration::from_secs(77)) }),
            "moved" => return Err(GitError::Redirected),
            "html" => return Err(GitError::Protocol("planted".into())),
            "forbidden" => {
                return Err(GitError::Refused(
                    crate::egress::refused::Refused::Name("github.com".into()).to_string(),
                ));
            }
            "empty" => {
                let head = Some("refs/heads/main".to_owned());
                return Ok(RefListing { refs: Vec::new(), head, has_refs: false, ..RefListing::default() });
            }
            _ => {}
        }
        let main = "refs/heads/main".to_owned();
        let asked = patterns.is_empty() || patterns.iter().any(|pattern| main.starts_with(pattern));
        let refs =
            if asked { vec![Ref { name: main.clone(), commit: ObjectId::new(HEAD) }] } else { Vec::new() };
        Ok(RefListing { refs, head: Some(main), has_refs: true, ..RefListing::default() })
    }

    /// One host asked for patience.
    fn hosts(&self) -> Hosts {
        let hosts = Hosts::default();
        let url = url::Url::parse("https://busy.example/o/r").expect("an address");
        hosts.grant_patience(&url, None, Some(Duration::from_secs(3_600)));
        hosts
    }

    async fn fetch_each(&self, _: &Remote, _: &FetchOrder) -> Result<FetchOutcome, GitError> {
        unreachable!("the front door fetches nothing")
    }

    async fn commit(&self, _: &Remote, _: ObjectId) -> Result<CommitFacts, GitError> {
        unreachable!("the front door reads no commit")
    }

    async fn walk(&self, _: &Remote, _: ObjectId, _: ObjectId, _: u32) -> Result<Walk, GitError> {
        unreachable!("the front door walks nowhere")
    }

    /// A list has one change more than there are letters.
    async fn plan(&self, remote: &Remote, _: &RoundSpec, letters: &[Letter]) -> Result<Plan, GitError> {
        match &remote.location {
            Location::Http(url) if url.path().ends_with("broken") => {
                Err(GitError::Missing(ObjectId::new(HEAD)))
            }
            _ => Ok(Plan {
                letters: letters.to_vec(),
                summary: super::histories::summary(letters.len() as u64 + 1),
            }),
        }
    }

    /// Five files; the fourth has a name that is no text.
    async fn window(
        &self,
        _: &Remote,
        spec: &RoundSpec,
        seek: &Seek,
        limit: usize,
    ) -> Result<Vec<Change>, GitError> {
        assert!(spec.held.is_none() && spec.target.is_some(), "the front door lists whole trees");
        let after = if let Seek::After(last) = seek { last.path.as_slice() } else { b"" };
        let paths: [&[u8]; 5] = [b"a", b"b/a", b"c", b"d\xff", b"e"];
        let change = |path: &[u8]| Change {
            operation: Operation::Create,
            path: path.to_vec(),
            old: None,
            new: Some(Entry { mode: 0o100_644, blob: ObjectId::new([path[0]; 20]) }),
            replay_of: None,
        };
        Ok(paths.into_iter().filter(|path| *path > after).take(limit).map(change).collect())
    }

    async fn mirrors(&self) -> Result<Vec<MirrorFacts>, GitError> {
        let facts = |number: u64| MirrorFacts {
            repository: RepositoryId::new(Ulid::from(u128::from(number))),
            bytes: 10 * number,
            packs: 1,
            shallow: 1,
            evicted_to: None,
        };
        Ok(vec![facts(1), facts(2)])
    }

    async fn mirror(&self, _: &RepositoryId) -> Result<Option<MirrorFacts>, GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn storage(&self) -> Result<Storage, GitError> {
        Ok(Storage { mirrors: 2, mirror_bytes: 30, free_bytes: 1_000, fetches_stopped: None })
    }

    async fn sweep(&self, _: Option<&RepositoryId>) -> Result<(), GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn compact(&self, _: &RepositoryId, _: &Keep) -> Result<MirrorFacts, GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn scrub(&self, _: &RepositoryId, _: Share) -> Result<bool, GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn remove_mirror(&self, _: &RepositoryId) -> Result<(), GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    /// Trees have the blobs whose first byte is not 0.
    async fn holds(&self, _: &Remote, ends: &[TreeEnd], blob: ObjectId) -> Result<bool, GitError> {
        match blob.as_bytes()[1] {
            0xbb => Err(GitError::TooLarge("planted".into())),
            _ => Ok(!ends.is_empty() && blob.as_bytes()[0] != 0),
        }
    }

    async fn fetch_blobs(&self, _: &Remote, blobs: &[ObjectId]) -> Result<BlobsReport, GitError> {
        match blobs[0].as_bytes()[0] {
            0x02 => Ok(BlobsReport { refused: blobs.to_vec(), ..BlobsReport::default() }),
            0x03 => Err(GitError::RateLimited { retry_after: Some(Duration::from_secs(77)) }),
            _ => Err(GitError::Unreachable("planted: connection refused".into())),
        }
    }

    /// The first byte of a blob says what becomes of it, the second what it has.
    async fn contents(&self, _: &Remote, wanted: &[BlobWanted], _: u64) -> Result<Vec<Content>, GitError> {
        let BlobWanted { blob, limit } = wanted[0];
        let size = match blob.as_bytes()[0] {
            0x01 => 5,
            0x02..=0x04 => return Err(GitError::Missing(blob)),
            0x05 => 2 << 20,
            0x06 => (256 << 20) + 1,
            0x07 => return Err(GitError::Storage("planted: /var/lib".into())),
            _ => 0,
        };
        if size > limit {
            return Ok(vec![Content::TooLarge { size }]);
        }
        let size = usize::try_from(size).expect("small");
        Ok(vec![Content::Whole(vec![b'x'; size].into())])
    }
}

/// The selector of a watch of the default branch.
pub(crate) const DEFAULT_BRANCH: SelectorKind = SelectorKind::DefaultBranch;
