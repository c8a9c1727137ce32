//! Decides when to look at one repository, per source: adaptive interval, jitter, pokes (debounced and
//! coalesced), and its breaker. Each source that is due waits in the line of its host and is scanned when its
//! turn comes. Two scans of one repository never run at once: other sources wait for the end of the running
//! scan. Supervised by `repositories`, restarted after a failure, ends when no watch follows the repository
//! any more.
//!
//! The mailbox is bounded by one scan, one timer and one place in line per source; pokes carry no data. A
//! crash loses only the schedule: the watcher starts by reading its sources and polls each soon.
//!
//! Invariants: an absent branch counts as gone only after two listings that are `branch_gone_after` apart;
//! while a source's breaker is open only its probe is scanned.

mod hooks;
mod notices;
mod scans;
pub mod schedule;
mod watched;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use litemap::LiteMap;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tidings_entity::id::{AppId, RepositoryId, SourceId};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    circuit_breaker::{BreakerNews, CircuitBreakerMessage, source_key},
    context::Context,
    deliverer::{DelivererMessage, others_of},
    limits::hosts::Postponed,
    ports::{GitError, Source, StoreError},
    scanning::scan_worker::{self, ScanPermit},
    signals::{coalesced::Coalesced, polls::Polled},
    supervision::{
        directory::{Doing, Gauge, Mailbox},
        tasks::{Tasks, in_time},
        tree::{CIRCUIT_BREAKER, DELIVERER},
    },
    time::Timestamp,
};
use hooks::{Gap, Hooks};
use watched::{Mode, Scanning, Watched};

/// Pokes within this span lead to one scan.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// The wait before sources are read again after the store failed.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Messages to the watcher of one repository.
#[derive(Debug)]
pub enum RepositoryWatcherMessage {
    /// Sources were added, changed or removed.
    Reload,
    /// Scan all sources soon; a source with an open breaker gets its probe.
    Poke,
    /// A genuine hook named the repository; the moment is set if the hook reported a ref.
    Hooked(Option<Timestamp>),
    /// A genuine hook of this app named the repository.
    AppHooked(AppId),
    /// The wait of hooks that came since the last poke is over: of hooks for the repository, or for this
    /// source.
    HooksWaited(Option<SourceId>),
    /// A source may be due.
    Tick,
    /// The turn of a source came, or its host asked to wait; `None`: the source left the line.
    Admitted(SourceId, Result<Option<Result<ScanPermit, Postponed>>, String>),
    /// The sources of the repository were read, or reading them failed.
    SourcesRead(Result<Result<Vec<Source>, StoreError>, String>),
    /// Sources were read with those of all others, from this moment on, in case a hint was lost.
    Swept(Instant, Vec<Source>),
    /// The scan of a source ended; the duration is that of the scan.
    Scanned(SourceId, Result<(scan_worker::Ended, Duration), String>),
    /// The breaker of a source changed.
    Breaker(String, BreakerNews),
    /// Side work (a notice, a remembered error) ended.
    Done(Result<(), String>),
}

/// The arguments that a watcher starts from.
#[derive(Clone)]
pub struct RepositoryWatcherArguments {
    /// The ports, the policies and the address book; all watchers share one value, because they are many.
    pub context: Arc<Context>,
    /// The repository that is watched.
    pub repository: RepositoryId,
    /// Counts the messages and restarts of the actor.
    pub gauge: Arc<Gauge>,
}

/// The state of the actor between two messages.
pub struct RepositoryWatcherState {
    context: Arc<Context>,
    repository: RepositoryId,
    mailbox: Mailbox<RepositoryWatcherMessage>,
    tasks: Tasks,
    /// Sorted by id. Most repositories have one source, and a `BTreeMap` would allocate room for eleven at
    /// once.
    sources: LiteMap<SourceId, Box<Watched>>,
    scanning: Scanning,
    armed: Option<Instant>,
    /// The reading of its sources.
    reading: Coalesced,
    /// When the watcher last finished reading its sources.
    read_at: Option<Instant>,
    last_error: BTreeMap<SourceId, GitError>,
    hooks: Hooks,
    gap: Gap,
}

/// The actor that watches one repository.
pub struct RepositoryWatcher;

#[ractor::async_trait]
impl Actor for RepositoryWatcher {
    type Msg = RepositoryWatcherMessage;
    type State = RepositoryWatcherState;
    type Arguments = RepositoryWatcherArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let RepositoryWatcherArguments { context, repository, gauge } = arguments;
        let mailbox = Mailbox::new(myself, gauge);
        mailbox.send(match context.directory.take_sources(&repository) {
            Some(sources) => RepositoryWatcherMessage::SourcesRead(Ok(Ok(sources))),
            None => RepositoryWatcherMessage::Reload,
        });
        Ok(RepositoryWatcherState {
            context,
            repository,
            mailbox,
            tasks: Tasks::default(),
            sources: LiteMap::with_capacity(1),
            scanning: Scanning::None,
            armed: None,
            reading: Coalesced::Idle,
            read_at: None,
            last_error: BTreeMap::new(),
            hooks: Hooks::default(),
            gap: Gap::default(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        use RepositoryWatcherMessage as M;
        let gauge = state.mailbox.gauge().clone();
        let _busy = gauge.begin();
        match message {
            M::Reload => state.on_reload(),
            M::Poke => state.on_asked(),
            M::Hooked(at) => state.on_hooked(at),
            M::AppHooked(app) => state.on_app_hooked(&app),
            M::HooksWaited(source) => state.on_hooks_waited(source.as_ref()),
            M::Tick => state.on_tick(),
            M::Admitted(source, admission) => state.on_admitted(&source, admission?),
            M::SourcesRead(result) => state.on_read(&myself, result?),
            M::Swept(began, sources) => state.on_swept(&myself, began, sources),
            M::Scanned(source, ended) => state.on_scanned(&source, ended?),
            M::Breaker(source, news) => state.on_breaker(&source, &news),
            M::Done(result) => result?,
        }
        gauge.say(match state.scanning.source() {
            Some(source) => Doing::from(format!("scanning {source}")),
            None => Doing::Watching {
                sources: state.sources.len(),
                in_line: state.sources.values().filter(|watched| watched.in_line.is_some()).count(),
            },
        });
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl RepositoryWatcherState {
    fn on_reload(&mut self) {
        if !self.reading.begin() {
            return;
        }
        let (context, repository) = (self.context.clone(), self.repository.clone());
        let read = async move {
            // If another replica works on the repository, this one has no sources of it.
            if !context.shards.owns(&repository) {
                return Ok(Vec::new());
            }
            in_time(context.store.sources(&repository)).await
        };
        self.tasks.spawn(&self.mailbox, read, RepositoryWatcherMessage::SourcesRead);
    }

    fn on_read(
        &mut self,
        myself: &ActorRef<RepositoryWatcherMessage>,
        result: Result<Vec<Source>, StoreError>,
    ) {
        let again = self.reading.end();
        self.read_at = Some(Instant::now());
        match result {
            Ok(sources) => {
                if again {
                    self.on_reload();
                }
                self.take_sources(myself, sources);
            }
            Err(reason) => {
                // The next read also answers requests that came during this one.
                warn!(
                    repository.id = %self.repository,
                    "the sources of {} could not be read: {reason}", self.repository
                );
                self.mailbox.send_after(READ_AGAIN, || RepositoryWatcherMessage::Reload);
            }
        }
    }

    fn take_sources(&mut self, myself: &ActorRef<RepositoryWatcherMessage>, sources: Vec<Source>) {
        let present: Vec<SourceId> = sources.iter().map(|source| source.id.clone()).collect();
        let polls = self.context.directory.polls().clone();
        self.sources.retain(|id, _| {
            let stays = present.contains(id);
            if !stays {
                polls.forget(id);
                // The row of the breaker was removed with the source, or another replica has it now.
                let key = source_key(id.as_str(), self.repository.as_str());
                if let Some(breaker) = self.context.directory.find(CIRCUIT_BREAKER, &key) {
                    breaker.send(CircuitBreakerMessage::LetGo);
                }
                self.context.directory.failures().forget(&key);
            }
            stays
        });
        for source in sources {
            self.hooks.arrived(source.hooked_at);
            self.take_source(source);
        }
        if self.sources.is_empty() && self.scanning.source().is_none() && !self.reading.is_running() {
            if self.context.shards.owns(&self.repository) {
                info!(repository.id = %self.repository, "nobody watches {} any more", self.repository);
                self.context.look_at_mirror(&self.repository);
            }
            myself.stop(None);
            return;
        }
        self.schedule_tick();
    }

    /// Takes sources from a sweep over all repositories, unless this watcher reads its sources now, or has
    /// read them since the sweep began: those are newer.
    fn on_swept(
        &mut self,
        myself: &ActorRef<RepositoryWatcherMessage>,
        began: Instant,
        sources: Vec<Source>,
    ) {
        if !self.reading.is_running() && self.read_at.is_none_or(|read| read < began) {
            self.take_sources(myself, sources);
        }
    }

    fn take_source(&mut self, mut source: Source) {
        source.shrink();
        if let Some(watched) = self.sources.get_mut(&source.id) {
            // A proof of access moved heads that other apps follow as well: their lanes start at once.
            let is_ahead = source.last_change > watched.source.last_change;
            (watched.source, watched.calm, watched.is_read_anew) = (Arc::new(source), None, true);
            let apps = if is_ahead { watched.source.remote.apps.clone() } else { Vec::new() };
            apps.iter().for_each(|app| self.let_look(app));
            return;
        }
        let key = source_key(source.id.as_str(), self.repository.as_str());
        if let Some(breaker) = self.context.directory.find(CIRCUIT_BREAKER, &key) {
            breaker.send(CircuitBreakerMessage::Subscribed);
        }
        // At a start with thousands of repositories the first polls are spread over the least interval; a
        // source that was created just now is polled at once.
        let fresh = source.last_change.is_within(Duration::from_secs(5), self.context.now());
        let spread = u64::try_from(self.context.policy.poll_min.as_millis()).unwrap_or(u64::MAX);
        let wait = if fresh { 0 } else { self.context.random.below(spread) };
        let mode = Mode::Due { at: Instant::now() + Duration::from_millis(wait) };
        // An earlier process may have left an error: the first good scan clears it.
        let failing = Some(String::new());
        let (in_line, last_scan, scanned, source) = (None, None, None, Arc::new(source));
        let (urgent, failures, missing, wide, id) = (fresh, 0, BTreeMap::new(), None, source.id.clone());
        let watched = Watched {
            mode,
            urgent,
            in_line,
            failures,
            pause: None,
            missing,
            wide,
            calm: None,
            is_read_anew: true,
            left_out: BTreeMap::new(),
            failing,
            last_scan,
            scanned,
            source,
            gap: Gap::default(),
            is_poked: false,
        };
        self.sources.insert(id.clone(), Box::new(watched));
        self.tell_polls(&id);
    }

    /// Shows the front door how a source was scanned and when it is scanned next.
    fn tell_polls(&self, id: &SourceId) {
        let Some(watched) = self.sources.get(id) else { return };
        let next = match watched.mode {
            Mode::Due { at } => Some(self.context.now().after(at.saturating_duration_since(Instant::now()))),
            Mode::Rejecting { .. } => None,
        };
        let (last, failures) = (watched.scanned.clone(), watched.failures);
        let (pause, left_out) = (watched.pause, watched.left_out.clone());
        let polled = Polled { last, next, pause, failures, left_out };
        self.context.directory.polls().note(id, polled);
    }

    fn on_poke(&mut self) {
        // A poke overrides the knowledge that a listing would be unchanged: its cause may be a mirror that
        // lost objects.
        self.sources.iter_mut().for_each(|(_, watched)| watched.look_at_all());
        if self.scanning.poke_after() {
            return;
        }
        let soon = Instant::now() + DEBOUNCE;
        self.sources.iter_mut().for_each(|(_, watched)| watched.poke(soon));
        self.sources.keys().for_each(|id| self.tell_polls(id));
        self.schedule_tick();
    }

    /// Polls a single source soon.
    fn on_poke_of(&mut self, id: &SourceId) {
        let Some(watched) = self.sources.get_mut(id) else { return };
        watched.look_at_all();
        if self.scanning.source() == Some(id) {
            watched.is_poked = true;
            return;
        }
        watched.poke(Instant::now() + DEBOUNCE);
        self.tell_polls(id);
        self.schedule_tick();
    }

    /// An app or an operator asked for a scan. Where a breaker is open, the scan is its probe.
    fn on_asked(&mut self) {
        let directory = &self.context.directory;
        let rejecting = |watched: &Watched| matches!(watched.mode, Mode::Rejecting { .. });
        for (id, _) in self.sources.iter().filter(|(_, watched)| rejecting(watched)) {
            let key = source_key(id.as_str(), self.repository.as_str());
            if let Some(breaker) = directory.find(CIRCUIT_BREAKER, &key) {
                breaker.send(CircuitBreakerMessage::ProbeAsked);
            }
        }
        self.on_poke();
    }

    fn on_hooked(&mut self, at: Option<Timestamp>) {
        self.hooks.arrived(at);
        match self.gap.poke_after(Instant::now()) {
            Some(Duration::ZERO) => self.on_poke(),
            Some(wait) => self.mailbox.send_after(wait, || RepositoryWatcherMessage::HooksWaited(None)),
            None => {}
        }
    }

    fn on_app_hooked(&mut self, app: &AppId) {
        let own = self.sources.iter().filter(|(_, watched)| watched.source.remote.apps.contains(app));
        for id in own.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            let Some(watched) = self.sources.get_mut(&id) else { continue };
            match watched.gap.poke_after(Instant::now()) {
                Some(Duration::ZERO) => self.on_poke_of(&id),
                Some(wait) => {
                    self.mailbox.send_after(wait, || RepositoryWatcherMessage::HooksWaited(Some(id)));
                }
                None => {}
            }
        }
    }

    fn on_hooks_waited(&mut self, source: Option<&SourceId>) {
        let Some(id) = source else {
            self.gap.waited(Instant::now());
            return self.on_poke();
        };
        if let Some(watched) = self.sources.get_mut(id) {
            watched.gap.waited(Instant::now());
            self.on_poke_of(id);
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.armed = self.armed.filter(|armed| *armed > now);
        if self.scanning.source().is_some() {
            return;
        }
        let waiting = self.sources.iter().filter(|(_, watched)| watched.in_line.is_none());
        let due = waiting.filter(|(_, watched)| match watched.mode {
            Mode::Due { at } => at <= now,
            Mode::Rejecting { probe } => probe,
        });
        for id in due.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.stand_in_line(&id);
        }
        self.schedule_tick();
    }

    /// Arms the timer for the next due source, unless an earlier one is armed.
    fn schedule_tick(&mut self) {
        let next = self.sources.values().filter_map(|watched| match watched.mode {
            Mode::Due { at } if watched.in_line.is_none() => Some(at),
            _ => None,
        });
        if let Some(at) = next.min()
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            self.mailbox
                .send_after(at.saturating_duration_since(Instant::now()), || RepositoryWatcherMessage::Tick);
        }
    }

    fn on_breaker(&mut self, source: &str, news: &BreakerNews) {
        let Ok(id) = source.parse::<SourceId>() else { return };
        let Some(watched) = self.sources.get_mut(&id) else { return };
        match news {
            BreakerNews::Opened { fresh, failures, probe_at } => {
                watched.mode = Mode::Rejecting { probe: false };
                watched.in_line = None;
                self.tell_polls(&id);
                if *fresh {
                    self.announce_failure(&id, *failures, *probe_at);
                }
            }
            // Only breakers of endpoints ask this: a source belongs to one replica, which always has a scan
            // to send.
            BreakerNews::ProbeDue => {}
            BreakerNews::ProbePermitted => {
                if let Mode::Rejecting { probe } = &mut watched.mode {
                    *probe = true;
                    self.on_tick();
                }
            }
            BreakerNews::Closed => {
                if matches!(watched.mode, Mode::Rejecting { .. }) {
                    watched.failures = 0;
                    watched.mode = Mode::Due { at: Instant::now() + self.context.policy.poll_min };
                    self.announce_recovery(&id);
                    self.schedule(&id, None);
                    self.tell_polls(&id);
                    self.schedule_tick();
                }
            }
        }
    }

    /// Tells the deliverers of an app to check whether changes wait for them. Their waits go on.
    fn let_look(&self, app: &AppId) {
        for deliverer in others_of(&self.context, app) {
            deliverer.send(DelivererMessage::Look);
        }
        let found = self.context.directory.find(DELIVERER, app.as_str());
        if !found.is_some_and(|deliverer| deliverer.send(DelivererMessage::Look)) {
            self.context.ensure_deliverer(app.as_str());
        }
    }

    fn remember_error(&mut self, id: &SourceId, error: Option<String>) {
        let Some((context, hold)) = self.context.of(&self.repository) else { return };
        let (store, id) = (context.store, id.clone());
        let work = async move {
            let _hold = hold;
            if let Err(reason) = in_time(store.record_scan_error(&id, error.as_deref())).await {
                warn!(source.id = %id, "the state of {id} was not written: {reason}");
            }
        };
        self.tasks.spawn(&self.mailbox, work, RepositoryWatcherMessage::Done);
    }
}

#[cfg(test)]
mod tests;
