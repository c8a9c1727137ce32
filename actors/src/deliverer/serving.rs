//! What the rows of the sink say: by which way changes leave, under which rules, and what another address or the
//! word of the breaker means for the lanes.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::{
    DelivererState, Slot, gate::Gate, looking, retry::RetryRules, running::RunningLane, shelf::Shelf,
};
use crate::{
    circuit_breaker::{self, BreakerNews, CircuitBreakerMessage},
    ports::{App, Endpoint},
    sink::Outlet,
    time::Timestamp,
    tree::CIRCUIT_BREAKER,
};

/// How changes leave for the sink of this deliverer.
pub(super) enum Way {
    /// They are sent to this endpoint.
    Attempt(Arc<Endpoint>),
    /// Consumers claim them.
    Claim,
    /// Nobody is served: the sink is disabled, or not read yet.
    Closed,
}

impl Way {
    /// The way of an app that is served with this endpoint, where its sink has one.
    fn of(app: &App, endpoint: Option<Endpoint>) -> Self {
        match (app.receives_at.outlet(), endpoint) {
            _ if app.disabled.is_some() => Self::Closed,
            (Outlet::Claim, _) => Self::Claim,
            (Outlet::Attempt, Some(endpoint)) => Self::Attempt(Arc::new(endpoint)),
            (Outlet::Attempt, None) => Self::Closed,
        }
    }

    /// Whether anybody is served.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Closed)
    }
}

impl DelivererState {
    /// Serves the app as its rows say now.
    pub(super) fn take_app(&mut self, app: App) {
        if self.app.is_none() {
            // The breaker outlives the deliverer: ask it where it stands.
            let key = circuit_breaker::endpoint_key(self.sink.id());
            if let Some(breaker) = self.context.directory.find(CIRCUIT_BREAKER, &key) {
                breaker.send(CircuitBreakerMessage::Subscribed);
            }
        }
        let policy = &self.context.policy;
        self.rules = RetryRules::of(&app.delivery, policy);
        let endpoint = Endpoint::of(&app, policy.attempt_timeout, self.context.pace_of(&app));
        let most = self.context.in_flight_of(&app);
        let crowd = self.context.crowds.of(&app.id, most);
        let endpoint = endpoint.map(|endpoint| Endpoint { crowd: Some(crowd), ..endpoint });
        let way = Way::of(&app, endpoint);
        if let (Way::Attempt(old), Way::Attempt(new)) = (&self.way, &way)
            && !old.is_like(new)
        {
            // What is on its way goes on; what follows it is sent as the app wants it now.
            self.halt();
        }
        if self.app.as_ref().is_some_and(|old| looking::lanes_differ(old, &app)) {
            self.running_lanes().for_each(RunningLane::reload);
        }
        self.way = way;
        if app.endpoint_since == self.gate.since() {
            self.gate.resize(most);
        } else {
            self.begin_endpoint(app.endpoint_since, most);
        }
        self.app = Some(Arc::new(app));
        match self.way {
            // Whoever pulled does so no more: what is lent is sent now.
            Way::Attempt(_) => self.running_lanes().for_each(RunningLane::revoke_lease),
            Way::Claim => self.shelf = Shelf::default(),
            Way::Closed => {
                self.shelf = Shelf::default();
                // Lanes that are still go now, the others when they are.
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

    /// The app has an endpoint that nothing is known of: what was learnt of the one before is forgotten,
    /// and waits that were its fault end.
    fn begin_endpoint(&mut self, since: Timestamp, most: usize) {
        self.gate = Gate::new(since, most);
        self.answered = None;
        if self.app.is_none() {
            return;
        }
        self.reset_breaker();
        self.shelf.wake_all();
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

    /// Of several replicas one that has something to send asks for the probe.
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
        self.shelf.wake_all();
        for lane in self.lanes.values_mut() {
            if let Slot::Running(running) = &mut lane.slot {
                running.on_endpoint_recovered(now);
            }
        }
        self.fill();
        self.drive_all();
    }
}
