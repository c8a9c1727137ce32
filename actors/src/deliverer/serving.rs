//! Applies the rows of the sink: by which way changes leave, under which rules, and the effect of a new
//! address or of the breaker's news on the lanes.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::{
    DelivererState, Slot, gate::Gate, lanes::waiting_cursors::WaitingCursors, looking,
    outlets::CurrentOutlet, retry::RetryRules, running::RunningLane,
};
use crate::{
    circuit_breaker::{self, BreakerNews, CircuitBreakerMessage},
    ports::{App, Endpoint},
    supervision::tree::CIRCUIT_BREAKER,
    time::Timestamp,
};

impl DelivererState {
    /// Serves the app as its rows say now.
    pub(super) fn take_app(&mut self, app: App) {
        if self.app.is_none() {
            // The breaker may have been running before this deliverer: ask for its state.
            let key = circuit_breaker::endpoint_key(self.sink.id());
            if let Some(breaker) = self.context.directory.find(CIRCUIT_BREAKER, &key) {
                breaker.send(CircuitBreakerMessage::Subscribed);
            }
        }
        let policy = &self.context.policy;
        self.rules = RetryRules::of(&app.delivery, policy);
        let endpoint = Endpoint::of(&app, policy.attempt_timeout, self.context.pace_of(&app));
        let most = self.context.in_flight_of(&app);
        let in_flight = self.context.in_flight.of(&app.id, most);
        let endpoint = endpoint.map(|endpoint| Endpoint { in_flight: Some(in_flight), ..endpoint });
        let outlet = CurrentOutlet::of(&app, endpoint);
        if let (CurrentOutlet::Attempt(old), CurrentOutlet::Attempt(new)) = (&self.outlet, &outlet)
            && !old.is_like(new)
        {
            // Attempts in flight go on; later attempts use the new endpoint settings.
            self.halt();
        }
        if self.app.as_ref().is_some_and(|old| looking::lanes_differ(old, &app)) {
            self.running_lanes().for_each(RunningLane::reload);
        }
        self.outlet = outlet;
        if app.endpoint_since == self.gate.since() {
            self.gate.resize(most);
        } else {
            self.begin_endpoint(app.endpoint_since, most);
        }
        self.app = Some(Arc::new(app));
        match self.outlet {
            // The app does not pull any more: claimed changes are sent now.
            CurrentOutlet::Attempt(_) => self.running_lanes().for_each(RunningLane::revoke_claim),
            CurrentOutlet::Claim => self.waiting_cursors = WaitingCursors::default(),
            CurrentOutlet::HandOver => {}
            CurrentOutlet::Closed => {
                self.waiting_cursors = WaitingCursors::default();
                // Lanes with nothing in flight end now, the others when nothing is in flight.
                self.lanes.retain(|_, lane| match &mut lane.slot {
                    Slot::Running(running) if !running.is_still() => {
                        running.reload();
                        true
                    }
                    _ => false,
                });
            }
        }
    }

    /// The app has a new endpoint: knowledge about the previous endpoint is forgotten, and waits that it
    /// caused end.
    fn begin_endpoint(&mut self, since: Timestamp, most: usize) {
        self.gate = Gate::new(since, most);
        self.answered = None;
        if self.app.is_none() {
            return;
        }
        self.reset_breaker();
        self.waiting_cursors.wake_all();
        self.running_lanes().for_each(RunningLane::reload);
    }

    /// Closes the breaker of this sink.
    pub(super) fn reset_breaker(&self) {
        let key = circuit_breaker::endpoint_key(self.sink.id());
        if let Some(breaker) = self.context.directory.find::<CircuitBreakerMessage>(CIRCUIT_BREAKER, &key) {
            breaker.send(CircuitBreakerMessage::Reset);
        }
    }

    pub(super) fn on_breaker(&mut self, news: &BreakerNews) {
        debug!(app.id = %self.id, "the breaker of {} says {news:?}", self.id);
        match news {
            BreakerNews::Opened { .. } => {
                self.gate.open();
                self.hold_back();
            }
            BreakerNews::ProbeDue => self.on_probe_due(),
            BreakerNews::ProbePermitted => {
                self.gate.permit_probe();
                self.send_probe();
            }
            BreakerNews::Closed => self.recovered(),
        }
    }

    /// A probe is due: if this replica has something to send, it asks for the probe.
    fn on_probe_due(&self) {
        let key = circuit_breaker::endpoint_key(self.sink.id());
        if self.has_probe()
            && let Some(breaker) = self.context.directory.find(CIRCUIT_BREAKER, &key)
        {
            breaker.send(CircuitBreakerMessage::ProbeWanted);
        }
    }

    fn recovered(&mut self) {
        if !self.gate.is_open() {
            return;
        }
        self.gate.ramp();
        let now = Instant::now();
        self.waiting_cursors.wake_all();
        for lane in self.lanes.values_mut() {
            if let Slot::Running(running) = &mut lane.slot {
                running.on_endpoint_recovered(now);
            }
        }
        self.fill();
        self.drive_all();
    }
}
