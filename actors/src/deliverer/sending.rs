//! Sending a stretch of one lane: deliveries that go out one after another, each only after the one
//! before it was acknowledged. The first that is not ends it, and so does a word from the deliverer;
//! what was not sent goes back to the lane. Each waits for the pace of its app before it goes. A batch
//! is one attempt at all of its deliveries. An attempt of several requests ends between two of them when
//! the lane's lease does.
//!
//! Outcomes are laid on a tray, and the deliverer is told of all of them at the end of the stretch, or
//! [`TELL_AFTER`] the first of them at the latest, whatever the attempt after it does: a message for
//! each, and a settlement for each message, cost a fifth of what a machine can deliver. Of the first of
//! a stretch it is told sooner ([`TELL_FIRST_AFTER`]), so that a process which soon dies, again and
//! again, gets further each time. The next attempt never waits for the deliverer.

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
    crowds,
    ports::{AttemptOutcome, Cause, Endpoint, ItemOutcome, Parcel, Tracer, Transport},
    shards::Hold,
    turns::{Place, Turns},
};

/// How long an outcome waits for others. What a crash repeats is bounded by the window all the same.
const TELL_AFTER: Duration = Duration::from_millis(100);

/// Deliveries of a lane, from its opening on, whose attempts belong to the trace of what led to it:
/// a round may have half a million changes, and nobody reads such a trace. Later ones are traces of
/// their own that name it.
pub(super) const TRACED: u64 = 1_000;

/// Where attempts stand in a trace.
#[derive(Clone)]
pub(super) struct Trace {
    pub(super) tracer: Arc<dyn Tracer>,
    /// What led to them.
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

/// How long the first outcome of a stretch waits.
const TELL_FIRST_AFTER: Duration = Duration::from_millis(2);

/// One attempt that ended.
#[derive(Debug)]
pub(super) struct Attempted {
    /// Which endpoint was asked.
    pub(super) pass: Pass,
    /// The change, or the first of a batch.
    pub(super) position: u64,
    /// Of a batch: every change in it, with the receiver's word on it.
    pub(super) batch: Vec<(u64, ItemOutcome)>,
    /// When it was sent.
    pub(super) sent_at: Instant,
    /// When it ended.
    pub(super) ended_at: Instant,
    /// What came of it.
    pub(super) outcome: AttemptOutcome,
}

/// Where outcomes wait for the deliverer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tray(Arc<Mutex<Vec<Attempted>>>);

impl Tray {
    /// Lays an outcome down.
    fn lay(&self, attempted: Attempted) {
        self.0.lock().push(attempted);
    }

    /// Takes all that is on it.
    pub(super) fn take(&self) -> Vec<Attempted> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Ends the stretches of a lane after the attempt that is on its way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Halt(watch::Sender<bool>);

impl Halt {
    /// Says so.
    pub(super) fn call(&self) {
        self.0.send_replace(true);
    }

    fn is_called(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said.
    pub(super) async fn called(&self) {
        // The sender is here: it does not go before this ends.
        drop(self.0.subscribe().wait_for(|called| *called).await);
    }
}

/// The right to make one attempt, for as long as it is held.
pub(crate) struct Turn {
    _outbound: Place,
    _crowd: Option<crowds::Place>,
}

/// Waits until an attempt may go: for a place among those of its app, for the app's pace, and for a place among
/// all that is in flight. Who had to wait for the last one is in step no more, and waits for the pace again.
pub(crate) async fn take_turn(endpoint: &Endpoint, outbound: &Turns) -> Turn {
    // First: who waits for its app holds no place that others could have.
    let crowd = match &endpoint.crowd {
        Some(crowd) => Some(crowd.take().await),
        None => None,
    };
    if let Some(pace) = &endpoint.pace {
        pace.turn().await;
        if let Some(place) = outbound.try_take() {
            return Turn { _outbound: place, _crowd: crowd };
        }
    }
    let place = outbound.take(&endpoint.app).await;
    if let Some(pace) = &endpoint.pace {
        pace.turn().await;
    }
    Turn { _outbound: place, _crowd: crowd }
}

/// Waits until an attempt of a lane may begin; `None`: the lane is another replica's now, or reads its rows
/// again first. Who had to wait is looked at once more: what is decided about a lane counts until its attempt
/// goes.
pub(crate) async fn take_turn_under(hold: &Hold, endpoint: &Endpoint, outbound: &Turns) -> Option<Turn> {
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

/// When the deliverer is told of what is on a tray. One timer serves a whole stretch: to set one for each
/// attempt would cost more than the attempt's own deadline does.
struct Telling<F> {
    tell: F,
    alarm: Pin<Box<Sleep>>,
    /// Whether something is on the tray that it was not told of, and will be when the alarm goes.
    is_set: bool,
}

impl<F: Fn()> Telling<F> {
    fn new(tell: F) -> Self {
        Self { tell, alarm: Box::pin(sleep_until(Instant::now())), is_set: false }
    }

    /// It is told then at the latest, where it would not be sooner.
    fn by(&mut self, at: Instant) {
        if !std::mem::replace(&mut self.is_set, true) {
            self.alarm.as_mut().reset(at);
        }
    }

    /// Does the work, and tells meanwhile what must be told.
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

/// Deliveries of one lane on their way.
pub(super) struct Stretch {
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

impl Stretch {
    /// The positions it may send.
    fn range(&self) -> RangeInclusive<u64> {
        let parcels = &self.launch.parcels;
        let first = parcels.first().map_or(1, |(position, _)| *position);
        first..=parcels.last().map_or(0, |(position, _)| *position)
    }

    /// Waits for the app's pace, and for a place among all that is in flight; `None`: it is halted.
    async fn turn(&self, may_halt: bool) -> Option<Turn> {
        let is_halted = || may_halt && self.halt.is_called();
        let turn = async {
            // Whoever lost its right, or does not know, begins nothing, not even a probe.
            let place = take_turn_under(&self.open.hold, &self.endpoint, &self.outbound).await?;
            // Others may have been told meanwhile that the endpoint is not well.
            (!is_halted()).then_some(place)
        };
        if is_halted() {
            return None;
        }
        // Most turns come at once: then nobody listens for a halt.
        tokio::select! {
            biased;
            place = turn => place,
            () = self.halt.called(), if may_halt => None,
        }
    }

    /// Sends them; `tell` is called when something on the tray is to be taken.
    pub(super) async fn send(mut self, cursor: String, tell: impl Fn(Tray)) -> Step {
        let (tray, mut unsent, pass) = (Tray::default(), self.range(), self.pass);
        if self.launch.together {
            return self.send_together(&cursor).await;
        }
        // A probe counts as on its way already: its breaker waits for its word.
        let mut may_halt = !self.is_probe;
        let parcels = std::mem::take(&mut self.launch.parcels);
        let mut telling = Telling::new(|| tell(tray.clone()));
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
                // Left in the middle, it counts as not sent: whoever works on it now sends all of it.
                unsent = position..=*unsent.end();
                break;
            };
            let (ended_at, goes_on) = (Instant::now(), outcome.is_success());
            tray.lay(Attempted { pass, position, batch: Vec::new(), sent_at, ended_at, outcome });
            if !goes_on {
                break;
            }
            telling.by(ended_at + std::mem::replace(&mut tell_after, TELL_AFTER));
        }
        if self.is_probe && !unsent.is_empty() {
            return Step::Unprobed(pass, unsent);
        }
        // What is on the tray goes with the end of the stretch.
        Step::Stretched(pass, tray, unsent)
    }

    /// Sends them in one request.
    async fn send_together(self, cursor: &str) -> Step {
        let (tray, range, pass) = (Tray::default(), self.range(), self.pass);
        let Some(_place) = self.turn(!self.is_probe).await else {
            return if self.is_probe {
                Step::Unprobed(pass, range)
            } else {
                Step::Stretched(pass, tray, range)
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
        // What the answer does not speak of was not acknowledged.
        let items = items.into_iter().chain(std::iter::repeat(ItemOutcome::Retry(String::new())));
        let batch = positions.into_iter().zip(items).collect();
        tray.lay(Attempted { pass, position, batch, sent_at, ended_at: Instant::now(), outcome });
        // Nothing of it is left to be sent another time.
        Step::Stretched(pass, tray, position + 1..=position)
    }
}
