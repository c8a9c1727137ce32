//! The outlet `Attempt`: lanes whose changes are sent, in turn, as the gate of their sink admits. While the
//! breaker of the sink is open only its probe goes out.

use tidings_entity::id::CursorId;
use tokio::time::Instant;

use crate::{
    circuit_breaker::{self, CircuitBreakerMessage},
    deliverer::{
        CurrentOutlet, DelivererMessage, DelivererState, Generation, Slot, Step, lane::AHEAD, running::Stage,
        sending::Pipeline,
    },
    supervision::tree::CIRCUIT_BREAKER,
};

impl DelivererState {
    /// Sends the changes that a lane may send now, its notice first.
    pub(in crate::deliverer) fn drive_attempts(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        now: Instant,
    ) {
        let Some((running, _)) = self.running(cursor) else { return };
        match running.stage {
            Stage::Noticing { .. } => {
                if running.notice_due(now).is_none() {
                    self.make_room_of(cursor, now);
                } else if self.gate.is_open() {
                    self.notice(cursor, generation);
                } else {
                    self.enqueue(cursor, now);
                    self.flow();
                }
            }
            Stage::Flowing => {
                self.read(cursor, generation);
                if self.gate.is_open() {
                    self.enqueue(cursor, now);
                    self.send_probe();
                    self.release_unless_probing(cursor);
                } else {
                    if self.gate.is_closed(now) {
                        self.release_unless_probing(cursor);
                    } else {
                        self.render(cursor, generation, self.ahead());
                    }
                    self.enqueue(cursor, now);
                    self.flow();
                    self.make_room_of(cursor, now);
                }
            }
            Stage::Finishing => {}
        }
    }

    /// Drops rendered deliveries while the gate is closed and no probe is permitted: nothing can be sent.
    fn release_unless_probing(&mut self, cursor: &CursorId) {
        if !self.gate.permits_probe()
            && let Some((running, _)) = self.running(cursor)
        {
            running.lane.release();
        }
    }

    /// Queues a lane that can send now, and arms a timer for a lane that can send later.
    fn enqueue(&mut self, cursor: &CursorId, now: Instant) {
        let Some((running, _)) = self.running(cursor) else { return };
        let flows = running.stage == Stage::Flowing;
        let sendable =
            if flows { running.lane.next_sendable(now).is_some() } else { running.notice_due(now).is_some() };
        if sendable && !std::mem::replace(&mut running.queued, true) {
            self.turns.push_back(cursor.clone());
        }
        self.arm_due(cursor, now);
    }

    /// Sends, lane by lane in turn, as much as the endpoint takes now.
    pub(in crate::deliverer) fn flow(&mut self) {
        let now = Instant::now();
        // Lanes that waited for the retry budget are checked before the other lanes.
        self.unpaid.drain(..).rev().for_each(|cursor| self.turns.push_front(cursor));
        let mut can_pay = true;
        while self.gate.admits(now) && !self.draining && matches!(self.outlet, CurrentOutlet::Attempt(_)) {
            let Some(cursor) = self.turns.pop_front() else { break };
            let Some((running, generation)) = self.running(&cursor) else { continue };
            running.queued = false;
            if running.reload.is_some() || !running.open.hold.stands() {
                continue;
            }
            let position = running.lane.next_sendable(now).filter(|_| running.stage == Stage::Flowing);
            let notice = running.notice_due(now);
            let is_retry = notice.or_else(|| position.map(|position| running.is_retry(position)));
            match is_retry {
                Some(true) => {
                    can_pay = can_pay && self.retries.pay(now);
                    if !can_pay {
                        self.postpone(cursor);
                        continue;
                    }
                }
                Some(false) => self.retries.on_first_try(),
                None => {}
            }
            if notice.is_some() {
                self.notice(&cursor, generation);
                continue;
            }
            if let Some(position) = position {
                self.launch(&cursor, position, false);
                self.enqueue(&cursor, now);
            }
            if let Some((_, generation)) = self.running(&cursor) {
                self.read(&cursor, generation);
                self.render(&cursor, generation, self.ahead());
            }
        }
        if !self.unpaid.is_empty() {
            let due = now + self.retries.wait(now);
            self.arm_flow_at(due, now);
        }
        self.arm_flow(now);
    }

    /// Lets a retry wait until the retry budget allows it.
    fn postpone(&mut self, cursor: CursorId) {
        if let Some((running, _)) = self.running(&cursor) {
            running.queued = true;
            self.unpaid.push_back(cursor);
        }
    }

    /// Arms a timer that resumes sending when the wait that the endpoint asked for is over.
    pub(in crate::deliverer) fn arm_flow(&mut self, now: Instant) {
        if let Some(until) = self.gate.held_until().filter(|until| *until > now) {
            self.arm_flow_at(until, now);
        }
    }

    fn arm_flow_at(&mut self, until: Instant, now: Instant) {
        if self.flow_armed.is_none_or(|armed| armed <= now || until < armed) {
            self.flow_armed = Some(until);
            self.mailbox.send_after(until.saturating_duration_since(now), || DelivererMessage::Flow);
        }
    }

    /// How many deliveries a lane may render at once. Each lane renders one when more lanes wait for their
    /// turn than the endpoint takes at a time.
    fn ahead(&self) -> usize {
        if self.turns.len() > 2 * self.gate.most() { 1 } else { AHEAD }
    }

    /// Whether a lane could go as a probe now.
    pub(in crate::deliverer) fn has_probe(&self) -> bool {
        let now = Instant::now();
        let is_probeable = |lane: &crate::deliverer::Lane| match &lane.slot {
            Slot::Running(running) => running.is_probeable(now) && running.open.hold.stands(),
            _ => false,
        };
        !self.draining && self.lanes.values().any(is_probeable)
    }

    /// Sends the permitted probe from the next lane whose head can go. A head that is not rendered yet is
    /// rendered first.
    pub(in crate::deliverer) fn send_probe(&mut self) {
        if self.draining || !self.gate.permits_probe() {
            return;
        }
        let (last, now) = (self.last_probe.clone(), Instant::now());
        let after = self.lanes.keys().filter(|cursor| last.as_ref().is_none_or(|last| *cursor > last));
        let wrapped = self.lanes.keys().filter(|cursor| last.as_ref().is_some_and(|last| *cursor <= last));
        let is_probeable = |cursor: &&CursorId| match self.lanes.get(*cursor).map(|lane| &lane.slot) {
            Some(Slot::Running(running)) => running.is_probeable(now) && running.open.hold.stands(),
            _ => false,
        };
        let Some(cursor) = after.chain(wrapped).find(is_probeable).cloned() else { return };
        let Some((running, generation)) = self.running(&cursor) else { return };
        match running.lane.probe_head() {
            _ if matches!(running.stage, Stage::Noticing { .. }) => self.notice(&cursor, generation),
            Some(position) => {
                if self.gate.take_probe() {
                    self.launch(&cursor, position, true);
                }
            }
            None => {
                running.lane.hurry_head();
                self.render(&cursor, generation, 1);
                return;
            }
        }
        self.last_probe = Some(cursor);
    }

    /// A permitted probe for which there is nothing here any more, because other replicas work on it now,
    /// is theirs.
    pub(in crate::deliverer) fn give_probe_back(&mut self) {
        if !self.gate.permits_probe() || self.context.shards.is_sole() {
            return;
        }
        let may_probe = |lane: &crate::deliverer::Lane| match &lane.slot {
            Slot::Opening { .. } => true,
            Slot::Waiting { .. } => false,
            Slot::Running(running) => running.open.hold.stands(),
        };
        if self.draining || !self.lanes.values().any(may_probe) {
            self.gate.open();
            self.on_unprobed();
        }
    }

    /// Tells the breaker that the permitted probe was not sent.
    pub(in crate::deliverer) fn on_unprobed(&self) {
        let key = circuit_breaker::endpoint_key(self.sink.id());
        if let Some(breaker) = self.context.directory.find(CIRCUIT_BREAKER, &key) {
            breaker.send(CircuitBreakerMessage::ProbeUnused);
        }
    }

    fn launch(&mut self, cursor: &CursorId, position: u64, is_probe: bool) {
        let CurrentOutlet::Attempt(endpoint) = &self.outlet else { return };
        let endpoint = endpoint.clone();
        let transport = self.context.transport.clone();
        let mailbox = self.mailbox.clone();
        let Some((running, generation)) = self.running(cursor) else { return };
        let launch = running.lane.launch(position, is_probe);
        if launch.parcels.is_empty() {
            return;
        }
        let (outbound, tracer) = (self.context.outbound.clone(), self.context.tracer.clone());
        let Some((running, _)) = self.running(cursor) else { return };
        let (halt, trace, open) = (running.halt.clone(), running.trace(&tracer), running.open.clone());
        let pass = self.gate.enter();
        let pipeline = Pipeline { transport, endpoint, outbound, launch, halt, is_probe, pass, trace, open };
        let to = cursor.clone();
        let tell = move |outcomes| {
            mailbox.send(DelivererMessage::Step(to.clone(), generation, Ok(Step::Answered(outcomes))));
        };
        self.step(cursor, generation, pipeline.send(cursor.to_string(), tell));
    }
}
