//! How many requests a second an app takes: every request to an app with a rate waits for its turn here
//! (requests of lanes, probes, notices, the chunks of a large file).
//!
//! Turns are evenly spaced, a little further apart than the rate asks for (`SLACK`). Each turn is counted
//! from the moment of the previous one, with a tolerance of `LATE`. There are no bursts, so no second,
//! whenever it begins, sees more requests than the rate, even if requests travel at different speeds.
//!
//! The rate holds across crashes: a turn lies only in a time that
//! [`AppStore::take_permits`](crate::ports::AppStore::take_permits) has promised to this process alone, on
//! disk, and the next process gets a time that does not overlap it. An unused promise is lost, at most
//! `SPAN`. Without a promise nothing is sent.
//!
//! Waiting requests are served in order. A request that stops waiting costs no turn. A pace exists while a
//! handle to it exists; there is one for each app with a rate that is being served.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex as Lock;
use tidings_entity::id::AppId;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tracing::warn;

use crate::{
    ports::{Clock, Store},
    supervision::tasks::in_time,
    time::reached,
};

/// Turns are this much further apart than the rate asks for, in thousandths. At 50 a second this is 25 ms a
/// second: a request that loses 25 ms on its way does not bring a 51st request into a second.
const SLACK: u64 = 25;
/// The length of one promise: a crash loses at most this much, and one row a second is written while an app
/// with a rate is busy.
const SPAN: Duration = Duration::from_secs(1);
/// The next promise is asked for this long before the present one ends, or two turns before if those are
/// longer, because the end of a promise may be too short for a turn.
const AHEAD: Duration = Duration::from_millis(250);
/// The wait after a promise was not written.
const AGAIN: Duration = Duration::from_millis(500);
/// Timers have whole milliseconds: a turn that is later than this is counted from the moment when it really
/// went.
const LATE: Duration = Duration::from_millis(2);
/// Promises have whole milliseconds: a gap this small between two promises counts as none.
const ROUNDING: Duration = Duration::from_millis(2);

/// The paces of all apps that have one. Cheap to clone.
#[derive(Clone)]
pub struct Paces {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    of_app: Arc<Lock<HashMap<AppId, Weak<Keeper>>>>,
}

impl Paces {
    /// Creates the table of paces, empty.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, of_app: Arc::default() }
    }

    /// The pace of an app with this rate in requests a second; `None` for an app without a rate. All callers
    /// share the pace, and the last rate counts.
    #[must_use]
    pub fn of(&self, app: &AppId, rate: Option<u32>) -> Option<Pace> {
        let rate = rate?.max(1);
        let mut of_app = self.of_app.lock();
        if let Some(keeper) = of_app.get(app).and_then(Weak::upgrade) {
            keeper.rate.store(rate, Relaxed);
            return Some(Pace(keeper));
        }
        of_app.retain(|_, keeper| keeper.strong_count() > 0);
        let keeper = Arc::new(Keeper {
            app: app.clone(),
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            rate: AtomicU32::new(rate),
            line: Mutex::default(),
        });
        of_app.insert(app.clone(), Arc::downgrade(&keeper));
        Some(Pace(keeper))
    }
}

/// The pace of one app. Cheap to clone.
#[derive(Clone)]
pub struct Pace(Arc<Keeper>);

struct Keeper {
    app: AppId,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    rate: AtomicU32,
    /// The holder of the lock has the next turn.
    line: Mutex<Line>,
}

/// The promised times, and the earliest moment of the next turn.
#[derive(Debug, Default)]
struct Line {
    next: Option<Instant>,
    current: Option<Promise>,
    ahead: Option<Promise>,
}

/// A time that is this process's alone.
#[derive(Clone, Copy, Debug)]
struct Promise {
    from: Instant,
    until: Instant,
}

impl Pace {
    /// Waits for the next turn. The caller must send at once after this returns.
    pub async fn turn(&self) {
        let mut line = self.0.line.lock().await;
        loop {
            let interval = self.interval();
            let Some(at) = line.next_turn(Instant::now(), interval) else {
                self.promise(&mut line, interval).await;
                continue;
            };
            if line.ends_before(at + AHEAD.max(2 * interval)) {
                self.promise(&mut line, interval).await;
            }
            reached(at).await;
            // After a long sleep the promise may have ended.
            let now = Instant::now();
            if line.next_turn(now, interval).is_some_and(|at| at <= now) {
                let counted = at.max(now.checked_sub(LATE).unwrap_or(now));
                line.next = Some(counted + interval);
                return;
            }
        }
    }

    fn interval(&self) -> Duration {
        let rate = u64::from(self.0.rate.load(Relaxed));
        Duration::from_nanos(1_000_000 * (1_000 + SLACK) / rate)
    }

    /// Gets the next promise from the store. If the store fails and no promised time is left, waits a little.
    async fn promise(&self, line: &mut Line, interval: Duration) {
        let Keeper { app, store, clock, .. } = &*self.0;
        let span = SPAN.max(2 * interval);
        let (now, wall) = (Instant::now(), clock.now());
        match in_time(store.take_permits(app, wall, span)).await {
            Ok(from) => {
                let from = now + from.since(wall);
                line.add(Promise { from, until: from + span });
            }
            Err(reason) => {
                if line.next_turn(Instant::now(), interval).is_none() {
                    warn!(app.id = %app, "no time to send to {app} could be reserved: {reason}");
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

impl Line {
    /// The earliest moment of the next turn, if it lies in a promised time. A turn lasts until the turn after
    /// it.
    fn next_turn(&mut self, now: Instant, interval: Duration) -> Option<Instant> {
        loop {
            let current = self.current?;
            let at = now.max(current.from).max(self.next.unwrap_or(now));
            if at + interval <= current.until {
                return Some(at);
            }
            self.current = self.ahead.take();
        }
    }

    /// Whether no time is promised at that moment, so that the next promise is needed soon.
    fn ends_before(&self, at: Instant) -> bool {
        self.ahead.is_none() && self.current.is_none_or(|current| current.until < at)
    }

    fn add(&mut self, promise: Promise) {
        match (&mut self.current, &mut self.ahead) {
            (Some(current), None) if promise.from <= current.until + ROUNDING => {
                current.until = promise.until;
            }
            (Some(_), ahead) => *ahead = Some(promise),
            (current, _) => *current = Some(promise),
        }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Pace").field(&self.0.app).field(&self.0.rate).finish()
    }
}

#[cfg(test)]
mod tests;
