//! Reads the rows of the app: the app itself, its cursors that have something to do, and the terms of its
//! running lanes.
//!
//! A running lane reads its rows again only if its terms ([`LaneTerms`]) changed, or a setting of the app
//! that a lane is made from. So a call about one watch, or about no watch, costs the lanes of other watches
//! nothing. A failed read is repeated after [`LOOK_AGAIN`], because a change of rows is told only once.
//!
//! [`LaneTerms`]: crate::ports::LaneTerms

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidings_entity::id::{AppId, CursorId};
use tokio::time::Instant;

use super::{Changed, DelivererMessage, DelivererState, Slot};
use crate::{
    context::Context,
    ports::{App, Signal, SinkKey},
    supervision::{directory::Mailbox, tasks::in_time, tree::DELIVERER},
};

/// The wait after a look that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Rows of an app changed: its deliverers here read them again, and other replicas are notified.
pub(crate) async fn refresh(context: &Context, app: &AppId) {
    refresh_here(context, app);
    context.tell_others(Signal::App(app.clone())).await;
}

/// Rows of an app changed: its deliverers here read them again. The deliverer of its own sink starts, and
/// lets those of other sinks start that have work now.
pub(crate) fn refresh_here(context: &Context, app: &AppId) {
    for deliverer in others_of(context, app) {
        // A deliverer that is ending has nothing to read.
        deliverer.send(DelivererMessage::Refresh);
    }
    let found = context.directory.find(DELIVERER, app.as_str());
    if !found.is_some_and(|deliverer| deliverer.send(DelivererMessage::Refresh)) {
        context.ensure_deliverer(app.as_str());
    }
}

/// The deliverers of the sinks of an app other than its own sink.
pub(crate) fn others_of(context: &Context, app: &AppId) -> Vec<Mailbox<DelivererMessage>> {
    context.directory.beneath(DELIVERER, &format!("{app}/"))
}

/// Wakes the deliverers of cursors, and starts those that do not run.
pub(crate) fn wake(context: &Context, cursors: impl IntoIterator<Item = (SinkKey, CursorId)>) {
    let mut by_sink: BTreeMap<SinkKey, Vec<CursorId>> = BTreeMap::new();
    for (sink, cursor) in cursors {
        by_sink.entry(sink).or_default().push(cursor);
    }
    for (sink, cursors) in by_sink {
        let key = sink.to_string();
        let found = context.directory.find(DELIVERER, &key);
        if !found.is_some_and(|deliverer| deliverer.send(DelivererMessage::Wake(cursors))) {
            context.ensure_deliverer(&key);
        }
    }
}

impl DelivererState {
    pub(super) fn on_refresh(&mut self) {
        for lane in self.lanes.values_mut() {
            // The rows of the lane may have been read before they changed.
            if let Slot::Opening { changed } = &mut lane.slot {
                *changed = Changed::Rows;
            }
        }
        self.waiting_cursors.wake_all();
        self.fill();
        let waiting: Vec<CursorId> = self.waiting_lanes();
        for cursor in waiting {
            self.open(&cursor);
        }
        let now = Instant::now();
        self.running_lanes().for_each(|running| running.try_now(now));
        self.drive_all();
        self.read_pending();
    }

    pub(super) fn on_look(&mut self) {
        self.looks_again = false;
        self.read_pending();
    }

    /// Reads the rows again after a failed read.
    pub(super) fn look_again(&mut self) {
        if !std::mem::replace(&mut self.looks_again, true) {
            self.mailbox.send_after(LOOK_AGAIN, || DelivererMessage::Look);
        }
    }

    /// Reads the app and its pending cursors, and ends lanes here whose terms changed.
    pub(super) fn read_pending(&mut self) {
        if self.draining {
            return;
        }
        if !self.reading_pending.begin() {
            return;
        }
        let (context, sink) = (self.context.clone(), self.sink.clone());
        let work = async move {
            let (store, reach) = (context.store.as_ref(), context.shards.reach());
            let app = in_time(store.served(&sink)).await?;
            context.terms.look(store, Some(&sink.app)).await?;
            let pending = in_time(store.pending(Some(&sink.app), &reach)).await?;
            Ok((app.map(Box::new), pending))
        };
        self.tasks.spawn(&self.mailbox, work, DelivererMessage::PendingRead);
    }
}

impl DelivererState {
    /// Keeps the cursors whose changes go to this sink. For cursors of other sinks that have work, the
    /// deliverer of the app's own sink starts their deliverers: only this deliverer is told of changed rows.
    pub(super) fn own_of(&self, cursors: Vec<(SinkKey, CursorId)>) -> Vec<CursorId> {
        let (own, others): (Vec<_>, Vec<_>) = cursors.into_iter().partition(|(sink, _)| *sink == self.sink);
        let others: BTreeSet<SinkKey> = others.into_iter().map(|(sink, _)| sink).collect();
        for key in others.iter().filter(|_| self.sink.sink.is_none()).map(SinkKey::to_string) {
            if self.context.directory.find::<DelivererMessage>(DELIVERER, &key).is_none() {
                self.context.ensure_deliverer(&key);
            }
        }
        own.into_iter().map(|(_, cursor)| cursor).collect()
    }
}

/// Whether lanes that were opened for the app as it was would be opened otherwise now.
pub(super) fn lanes_differ(old: &App, new: &App) -> bool {
    let (was, is) = (&old.delivery, &new.delivery);
    old.receives_at.outlet() != new.receives_at.outlet()
        || (was.order, was.max_in_flight, was.batch, was.resync, was.synced)
            != (is.order, is.max_in_flight, is.batch, is.resync, is.synced)
}
