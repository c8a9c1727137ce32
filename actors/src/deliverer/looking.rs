//! Looking at rows: the app, which of its cursors have something to do, and the terms of the lanes that run.
//!
//! A lane that runs reads its rows again only if they changed: its terms ([`LaneTerms`]), or what the app
//! chose that a lane is made from. So a verb about one watch, or about none, costs the lanes of the others
//! nothing. A look that fails is done again after [`LOOK_AGAIN`]: whoever changed the rows says so once.
//!
//! [`LaneTerms`]: crate::ports::LaneTerms

use std::time::Duration;

use tidings_entity::id::{AppId, CursorId};
use tokio::time::Instant;

use super::{Changed, DelivererMessage, DelivererState, Slot};
use crate::{
    context::Context,
    ports::{App, Signal},
    tasks::in_time,
    tree::DELIVERER,
};

/// The wait after a look that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Rows of an app changed: its deliverer here reads them again, and other replicas hear of it.
pub(crate) async fn refresh(context: &Context, app: &AppId) {
    refresh_here(context, app);
    context.tell_others(Signal::App(app.clone())).await;
}

/// Rows of an app changed: its deliverer here reads them again, or starts.
pub(crate) fn refresh_here(context: &Context, app: &AppId) {
    let found = context.directory.find(DELIVERER, app.as_str());
    if !found.is_some_and(|deliverer| deliverer.send(DelivererMessage::Refresh)) {
        context.ensure_deliverer(app.as_str());
    }
}

impl DelivererState {
    pub(super) fn on_refresh(&mut self) {
        for lane in self.lanes.values_mut() {
            // Its rows may have been read before they changed.
            if let Slot::Opening { changed } = &mut lane.slot {
                *changed = Changed::Rows;
            }
        }
        self.shelf.wake_all();
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

    /// Looks once more, after a look that failed.
    pub(super) fn look_again(&mut self) {
        if !std::mem::replace(&mut self.looks_again, true) {
            self.post.send_after(LOOK_AGAIN, || DelivererMessage::Look);
        }
    }

    /// Reads the app and what is pending, and ends the lanes here whose terms changed.
    pub(super) fn read_pending(&mut self) {
        if self.draining {
            return;
        }
        if !self.reading_pending.begin() {
            return;
        }
        let (context, id) = (self.context.clone(), self.id.clone());
        let work = async move {
            let (store, reach) = (context.store.as_ref(), context.shards.reach());
            let app = in_time(store.app(&id)).await?;
            context.terms.look(store, Some(&id)).await?;
            let pending = in_time(store.pending(Some(&id), &reach)).await?;
            Ok((app.map(Box::new), pending.into_iter().map(|(_, cursor)| cursor).collect()))
        };
        self.tasks.spawn(&self.post, work, DelivererMessage::PendingRead);
    }
}

/// Whether lanes that were opened for the app as it was would be opened otherwise now.
pub(super) fn lanes_differ(old: &App, new: &App) -> bool {
    let (was, is) = (&old.delivery, &new.delivery);
    old.receives_at.outlet() != new.receives_at.outlet()
        || (was.order, was.max_in_flight, was.batch, was.resync, was.synced)
            != (is.order, is.max_in_flight, is.batch, is.resync, is.synced)
}
