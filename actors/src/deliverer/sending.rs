//! Sending a pipeline of one lane: deliveries that go out one after another, each only after the one before
//! it was acknowledged. The first delivery that is not acknowledged ends the pipeline, and so does a halt by
//! the deliverer; unsent deliveries go back to the lane. Each delivery waits for the pace of its app. A batch
//! is one attempt at all of its deliveries. An attempt of several requests stops between two requests when
//! the lane's lease ends.
//!
//! Results are collected in [`Outcomes`], and the deliverer is told of all of them at the end of the
//! pipeline, but at most [`TELL_AFTER`] after the first of them, even if the next attempt hangs: one message
//! and one settlement per outcome cost a fifth of a machine's throughput. The first outcome of a pipeline is
//! told sooner ([`TELL_FIRST_AFTER`]), so that a process that crashes again and again makes progress each
//! time. The next attempt never waits for the deliverer.

use std::{
    ops::RangeInclusive,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};
use tracing::{Instrument, Span, info_span};

use super::{Step, gate::Pass, lane::Launch, opening::OpenLane};
use crate::{
    limits::in_flight,
    limits::turns::{TurnPermit, Turns},
    ownership::shards::ShardHold,
    ports::{AttemptOutcome, Cause, Endpoint, ItemOutcome, Parcel, Tracer, Transport},
};

/// How long an outcome waits for others to be told with it. A crash repeats at most one window all the same.
const TELL_AFTER: Duration = Duration::from_millis(100);

/// The number of deliveries of a lane, from its opening on, whose attempts belong to the trace that led to
/// the lane: a round may have half a million changes, and nobody could read such a trace. Later attempts have
/// traces of their own that link to it.
pub(super) const TRACED: u64 = 1_000;

/// The place of attempts in a trace.
#[derive(Clone)]
pub(super) struct Trace {
    pub(super) tracer: Arc<dyn Tracer>,
    /// The cause of the attempts.
    pub(super) place: Option<Cause>,
    /// The first position beyond the trace.
    pub(super) to: u64,
}

impl Trace {
    /// Puts the span of an attempt in its place.
    pub(super) fn put(&self, span: &Span, position: u64) {
        match self.place {
            Some(cause) if position < self.to => self.tracer.follow(span, cause),
            Some(cause) => self.tracer.link(span, cause),
            None => {}
        }
    }
}

/// How long the first outcome of a pipeline waits.
const TELL_FIRST_AFTER: Duration = Duration::from_millis(2);

/// One attempt that ended.
#[derive(Debug)]
pub(super) struct Attempted {
    /// The endpoint that the attempt went to.
    pub(super) pass: Pass,
    /// The change, or the first of a batch.
    pub(super) position: u64,
    /// For a batch: the position of each change, with the receiver's answer for it.
    pub(super) batch: Vec<(u64, ItemOutcome)>,
    /// When the request was sent.
    pub(super) sent_at: Instant,
    /// When the answer came, or the attempt failed.
    pub(super) ended_at: Instant,
    /// The answer, or why there is none.
    pub(super) outcome: AttemptOutcome,
}

/// Where outcomes wait for the deliverer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(Arc<Mutex<Vec<Attempted>>>);

impl Outcomes {
    /// Adds the outcome of an attempt.
    fn lay(&self, attempted: Attempted) {
        self.0.lock().push(attempted);
    }

    /// Removes and returns all reported attempts.
    pub(super) fn take(&self) -> Vec<Attempted> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Ends the pipelines of a lane after the attempt that is in flight. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Halt(watch::Sender<bool>);

impl Halt {
    /// Tells the pipelines to end after the attempt that is in flight.
    pub(super) fn call(&self) {
        self.0.send_replace(true);
    }

    fn is_called(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the pipelines are told to end.
    pub(super) async fn called(&self) {
        // The sender cannot be dropped during the wait, because `self` holds it.
        drop(self.0.subscribe().wait_for(|called| *called).await);
    }
}

/// The right to make one attempt, for as long as it is held.
pub(crate) struct Turn {
    _outbound: TurnPermit,
    in_flight: Option<in_flight::InFlightPermit>,
}

impl Turn {
    /// Gives back the place among the attempts of the app; the attempt itself continues.
    pub(crate) fn leave_app(&mut self) {
        self.in_flight = None;
    }
}

/// Waits until an attempt may go: for a place among those of its app, for the app's pace, and for a place
/// among all attempts in flight. An attempt that had to wait for the last of these waits for the pace a
/// second time, so that attempts stay evenly spaced.
pub(crate) async fn take_turn(endpoint: &Endpoint, outbound: &Turns) -> Turn {
    // The app's place is taken first: an attempt that waits for its app holds no place that other apps could
    // use.
    let in_flight = match &endpoint.in_flight {
        Some(in_flight) => Some(in_flight.take().await),
        None => None,
    };
    if let Some(pace) = &endpoint.pace {
        pace.turn().await;
        if let Some(place) = outbound.try_take() {
            return Turn { _outbound: place, in_flight };
        }
    }
    let place = outbound.take(&endpoint.app).await;
    if let Some(pace) = &endpoint.pace {
        pace.turn().await;
    }
    Turn { _outbound: place, in_flight }
}

/// Waits until an attempt of a lane may begin; `None`: another replica has the lane now, or the lane reads
/// its rows again first. After a wait the right to send is checked again, because it must hold at the moment
/// of the attempt.
pub(crate) async fn take_turn_under(hold: &ShardHold, endpoint: &Endpoint, outbound: &Turns) -> Option<Turn> {
    loop {
        hold.confirmed().await;
        let place = take_turn(endpoint, outbound).await;
        if !hold.stands() {
            return None;
        }
        if hold.is_confirmed() {
            return Some(place);
        }
    }
}

/// When the deliverer is told of collected outcomes. One timer serves a whole pipeline: one for each attempt
/// would cost more than the attempt's own deadline does.
struct Telling<F> {
    tell: F,
    alarm: Pin<Box<Sleep>>,
    /// Whether there are outcomes that the deliverer does not know yet; then the alarm is set.
    is_set: bool,
}

impl<F: Fn()> Telling<F> {
    fn new(tell: F) -> Self {
        Self { tell, alarm: Box::pin(sleep_until(Instant::now())), is_set: false }
    }

    /// Tells the deliverer of outcomes at this moment, unless it is told earlier.
    fn by(&mut self, at: Instant) {
        if !std::mem::replace(&mut self.is_set, true) {
            self.alarm.as_mut().reset(at);
        }
    }

    /// Does the work, and tells the deliverer of outcomes in between when that is due.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if self.is_set {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = &mut self.alarm => {}
            }
            self.is_set = false;
            (self.tell)();
        }
        work.await
    }
}

/// Deliveries of one lane that are sent one after another.
pub(super) struct Pipeline {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) outbound: Turns,
    pub(super) launch: Launch,
    pub(super) halt: Halt,
    pub(super) is_probe: bool,
    pub(super) pass: Pass,
    pub(super) trace: Trace,
    /// The lane, with the right to work on its repository.
    pub(super) open: Arc<OpenLane>,
}

impl Pipeline {
    /// The positions that this pipeline may send.
    fn range(&self) -> RangeInclusive<u64> {
        let parcels = &self.launch.parcels;
        let first = parcels.first().map_or(1, |(position, _)| *position);
        first..=parcels.last().map_or(0, |(position, _)| *position)
    }

    /// Waits for the app's pace, and for a place among all attempts in flight; `None`: the pipeline is
    /// halted.
    async fn turn(&self, may_halt: bool) -> Option<Turn> {
        let is_halted = || may_halt && self.halt.is_called();
        let turn = async {
            // Without a confirmed lease no attempt begins, not even a probe.
            let place = take_turn_under(&self.open.hold, &self.endpoint, &self.outbound).await?;
            // The pipeline may have been halted during the wait.
            (!is_halted()).then_some(place)
        };
        if is_halted() {
            return None;
        }
        // Most turns come at once, so the turn is polled first.
        tokio::select! {
            biased;
            place = turn => place,
            () = self.halt.called(), if may_halt => None,
        }
    }

    /// Sends the deliveries; `tell` is called when there are outcomes to take.
    pub(super) async fn send(mut self, cursor: String, tell: impl Fn(Outcomes)) -> Step {
        let (outcomes, mut unsent, pass) = (Outcomes::default(), self.range(), self.pass);
        if self.launch.together {
            return self.send_together(&cursor).await;
        }
        // A probe cannot be halted: its breaker waits for the result.
        let mut may_halt = !self.is_probe;
        let parcels = std::mem::take(&mut self.launch.parcels);
        let mut telling = Telling::new(|| tell(outcomes.clone()));
        let mut tell_after = TELL_FIRST_AFTER;
        for (position, parcel) in parcels {
            let turn = self.turn(std::mem::replace(&mut may_halt, true));
            let Some(_place) = telling.during(turn).await else { break };
            unsent = position + 1..=*unsent.end();
            let span = info_span!(
                "delivery.attempt",
                app.id = %self.endpoint.app,
                cursor.id = %cursor,
                delivery.id = %parcel.id,
                delivery.position = position
            );
            self.trace.put(&span, position);
            let sent_at = Instant::now();
            let sending = self.transport.send(&self.endpoint, &parcel, &self.open.hold).instrument(span);
            let Some(outcome) = telling.during(sending).await else {
                // The attempt was broken off, so it counts as not sent: the replica that has the lane now
                // sends all of it.
                unsent = position..=*unsent.end();
                break;
            };
            let (ended_at, goes_on) = (Instant::now(), outcome.is_success());
            outcomes.lay(Attempted { pass, position, batch: Vec::new(), sent_at, ended_at, outcome });
            if !goes_on {
                break;
            }
            telling.by(ended_at + std::mem::replace(&mut tell_after, TELL_AFTER));
        }
        if self.is_probe && !unsent.is_empty() {
            return Step::Unprobed(pass, unsent);
        }
        // The remaining outcomes go with the end of the pipeline.
        Step::PipelineEnded(pass, outcomes, unsent)
    }

    /// Sends the deliveries in one request.
    async fn send_together(self, cursor: &str) -> Step {
        let (outcomes, range, pass) = (Outcomes::default(), self.range(), self.pass);
        let Some(_place) = self.turn(!self.is_probe).await else {
            return if self.is_probe {
                Step::Unprobed(pass, range)
            } else {
                Step::PipelineEnded(pass, outcomes, range)
            };
        };
        let (positions, parcels): (Vec<u64>, Vec<Parcel>) = self.launch.parcels.into_iter().unzip();
        let position = *range.start();
        let span = info_span!(
            "delivery.attempt",
            app.id = %self.endpoint.app,
            cursor.id = %cursor,
            delivery.position = position,
            delivery.count = positions.len()
        );
        self.trace.put(&span, position);
        let sent_at = Instant::now();
        let sending = self.transport.send_batch(&self.endpoint, parcels, &self.open.hold).instrument(span);
        let (outcome, items) = sending.await;
        // A change that the answer does not mention was not acknowledged.
        let items = items.into_iter().chain(std::iter::repeat(ItemOutcome::Retry(String::new())));
        let batch = positions.into_iter().zip(items).collect();
        outcomes.lay(Attempted { pass, position, batch, sent_at, ended_at: Instant::now(), outcome });
        // Nothing of it is left to be sent another time.
        Step::PipelineEnded(pass, outcomes, position + 1..=position)
    }
}
