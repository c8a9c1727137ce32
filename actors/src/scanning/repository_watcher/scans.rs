//! The scans of one repository: a source waits for its turn, is scanned, and is scheduled again.

use std::{sync::Arc, time::Duration};

use tidings_entity::id::SourceId;
use tokio::{sync::oneshot, time::Instant};
use tracing::{info, warn};

use super::{
    RepositoryWatcherMessage, RepositoryWatcherState,
    schedule::{Bounds, next_wait},
    watched::{InLine, Mode, Scanning},
};
use crate::{
    circuit_breaker::{self, source_key},
    deliverer,
    limits::hosts::Postponed,
    ports::{GitError, StoreError},
    scanning::scan_worker::{self, Known, ScanError, ScanPermit},
    signals::polls::HostPause,
};

/// How often a source that waits for a place to be scanned looks for one.
const ROOM_LOOKED_AT: Duration = Duration::from_millis(500);

impl RepositoryWatcherState {
    /// Waits for the turn of a source at its host, as a task.
    pub(super) fn stand_in_line(&mut self, id: &SourceId) {
        let Some(watched) = self.sources.get_mut(id) else { return };
        let (place, mut left) = oneshot::channel();
        watched.in_line = Some(InLine { _place: place });
        let (hosts, is_urgent) = (self.context.git.hosts(), watched.urgent);
        let (source, meter, began) = (watched.source.clone(), self.context.meter.clone(), Instant::now());
        let slots = self.context.scan_slots.clone();
        let admitted = async move {
            // A turn is given back while the source waits for a slot, so that other sources can use it.
            loop {
                while !slots.has_room(&source.remote.apps) {
                    tokio::time::sleep(ROOM_LOOKED_AT).await;
                }
                let turn = hosts.turn(&source.remote, is_urgent).await?;
                if let Some(slot) = slots.take(&source.remote.apps) {
                    return Ok(ScanPermit { turn, slot });
                }
            }
        };
        let wait = async move {
            tokio::select! {
                admission = admitted => {
                    meter.waited(began.elapsed());
                    Some(admission)
                }
                _ = &mut left => None,
            }
        };
        let id = id.clone();
        let report = move |admission| RepositoryWatcherMessage::Admitted(id, admission);
        self.tasks.spawn(&self.mailbox, wait, report);
    }

    pub(super) fn on_admitted(&mut self, id: &SourceId, admission: Option<Result<ScanPermit, Postponed>>) {
        let Some(watched) = self.sources.get_mut(id) else { return };
        let Some(admission) = admission.filter(|_| watched.in_line.is_some()) else { return };
        watched.in_line = None;
        match (admission, watched.mode) {
            // The breaker opened meanwhile, or another source of the repository is being scanned: the turn is
            // given back. After that scan this source lines up again.
            (_, Mode::Rejecting { probe: false }) => {}
            (Ok(_), _) if self.scanning.source().is_some() => watched.urgent = true,
            (Ok(place), _) => self.scan(id, place),
            (Err(postponed), Mode::Due { .. }) => {
                // Postponed sources are all due at the same moment; the line of the host orders them then.
                watched.mode = Mode::Due { at: Instant::now() + postponed.wait };
                let until = self.context.now().after(postponed.wait);
                let is_anonymous = watched.source.remote.credential.is_none();
                watched.pause = Some(HostPause { until, is_anonymous });
                self.tell_polls(id);
                self.schedule_tick();
            }
            // The breaker permits another probe when this one is not answered.
            (Err(_), Mode::Rejecting { .. }) => watched.mode = Mode::Rejecting { probe: false },
        }
    }

    fn scan(&mut self, id: &SourceId, place: ScanPermit) {
        let Some(watched) = self.sources.get_mut(id) else { return };
        (watched.urgent, watched.is_read_anew, watched.pause) = (false, false, None);
        if let Mode::Rejecting { probe } = &mut watched.mode {
            *probe = false;
        }
        self.scanning = Scanning::Running(id.clone());
        self.hooks.scan_began(self.context.now());
        let gone_after = self.context.policy.branch_gone_after;
        let long = watched.missing.iter().filter(|(_, since)| since.elapsed() >= gone_after);
        let known = Known {
            gone: long.map(|(name, _)| name.clone()).collect(),
            wide: watched.wide.clone(),
            calm: watched.calm.take(),
        };
        let (directory, source) = (self.context.directory.clone(), watched.source.clone());
        let reported = id.clone();
        let scan = async move {
            let began = Instant::now();
            (scan_worker::dispatch(directory, source, known, place).await, began.elapsed())
        };
        self.tasks
            .spawn(&self.mailbox, scan, move |ended| RepositoryWatcherMessage::Scanned(reported, ended));
    }

    pub(super) fn on_scanned(&mut self, id: &SourceId, (ended, took): (scan_worker::Ended, Duration)) {
        let poked = self.scanning.end();
        let key = source_key(id.as_str(), self.repository.as_str());
        let now = self.context.now();
        let Some(watched) = self.sources.get_mut(id) else {
            // The source was removed during the scan; perhaps it was the last one.
            self.on_reload();
            return self.scan_next(poked);
        };
        watched.last_scan = ended.place;
        watched.scanned = Some(Arc::new(ended.shown(now, took)));
        let mut retry_after = None;
        match ended.outcome {
            Ok(report) => {
                watched.failures = 0;
                watched.take(report.missing, (report.wide, report.is_partial), report.left_out);
                // If the rows were read during the scan, they may ask for more than the scan did.
                watched.calm = report.calm.filter(|_| !watched.is_read_anew);
                if report.changed {
                    Arc::make_mut(&mut watched.source).last_change = now;
                    self.hooks.change_found(now);
                }
                let recovered = watched.failing.take().is_some();
                self.last_error.remove(id);
                circuit_breaker::report(&self.context, &key, Ok(()));
                deliverer::wake(&self.context, report.cursors);
                if recovered {
                    self.remember_error(id, None);
                }
                if report.changed {
                    // The commits that a fetch may tell the host as present have changed.
                    self.on_reload();
                }
            }
            Err(ScanError::Store(StoreError::Lost)) => {
                // This is no failure: another replica works on this repository now.
                self.on_reload();
            }
            Err(reason) => retry_after = self.on_scan_failed(id, &key, &reason),
        }
        self.schedule(id, retry_after);
        self.tell_polls(id);
        if self.sources.get_mut(id).is_some_and(|watched| std::mem::take(&mut watched.is_poked)) {
            self.on_poke_of(id);
        }
        self.scan_next(poked);
    }

    /// Records a failed scan. Returns the wait that its host asked for, if any.
    fn on_scan_failed(&mut self, id: &SourceId, key: &str, reason: &ScanError) -> Option<Duration> {
        let watched = self.sources.get_mut(id)?;
        let mut retry_after = None;
        let text = reason.to_string();
        if let ScanError::Git(GitError::RateLimited { retry_after: asked }) = reason {
            // This is no failure: the host answered, and its wait is kept.
            retry_after = *asked;
            info!(
                source.id = %id, repository.id = %self.repository,
                "the scan of {id} is put off: {text}"
            );
        } else {
            watched.failures += 1;
            warn!(
                source.id = %id, repository.id = %self.repository, failures = watched.failures,
                "the scan of {id} failed: {text}"
            );
        }
        if let ScanError::Git(error) = reason {
            if error.is_remote() {
                circuit_breaker::report(&self.context, key, Err((text.clone(), None)));
            }
            self.last_error.insert(id.clone(), error.clone());
        }
        if let ScanError::Crashed = reason {
            self.last_error.insert(id.clone(), GitError::Storage(text.clone()));
            circuit_breaker::report(&self.context, key, Err((text.clone(), None)));
        }
        if let ScanError::Store(StoreError::Fenced) = reason {
            self.context.give_up("another process took over this database");
        }
        if watched.failing.as_ref() != Some(&text) {
            watched.failing = Some(text.clone());
            self.remember_error(id, Some(text));
        }
        retry_after
    }

    /// No scan is running any more: the next source may go, at once if the repository was `poked` meanwhile.
    fn scan_next(&mut self, poked: bool) {
        if poked {
            self.on_poke();
        }
        self.on_tick();
    }

    /// Decides when a source is polled next.
    pub(super) fn schedule(&mut self, id: &SourceId, retry_after: Option<Duration>) {
        let policy = self.context.policy.clone();
        let now = self.context.now();
        let longest = self.hooks.ceiling(now, policy.poll_max, policy.poll_max_hooked);
        let Some(watched) = self.sources.get_mut(id) else { return };
        if matches!(watched.mode, Mode::Rejecting { .. }) {
            return;
        }
        let bounds = Bounds { min: policy.poll_min, max: longest };
        let calm = now.since(watched.source.last_change);
        let mut wait = next_wait(calm, watched.failures, bounds, self.context.random.as_ref());
        if let Some(since) = watched.missing.values().min() {
            // Look again as soon as the absence of a branch can be believed.
            wait = wait.min(
                policy
                    .branch_gone_after
                    .saturating_sub(since.elapsed())
                    .max(policy.poll_min.min(policy.branch_gone_after)),
            );
        }
        watched.mode = Mode::Due { at: Instant::now() + wait.max(retry_after.unwrap_or_default()) };
    }
}
