//! `sync_failed` when a source's breaker opens and `sync_recovered` when it closes: one attempt
//! each to every app that watches through the source, outside of lanes, once per opening.

use tidings_entity::id::SourceId;
use tracing::{Instrument, info, info_span, warn};

use super::{RepositoryWatcherMessage, RepositoryWatcherState};
use crate::{
    context::Context,
    deliverer::take_turn,
    model::round::DeliveryId,
    ports::{App, Cause, Endpoint, GitError, Notice, StoreError, Watch},
    time::Timestamp,
};

impl RepositoryWatcherState {
    pub(super) fn announce_failure(
        &mut self,
        id: &SourceId,
        consecutive_failures: u32,
        cooldown_until: Timestamp,
    ) {
        let Some(error) = self.last_error.get(id).cloned() else { return };
        let (context, source, cause) = (self.context.clone(), id.clone(), self.last_scan(id));
        let threshold = context.policy.source_breaker.threshold;
        let timestamp = context.now();
        let work = async move {
            tell_all(&context, &source, cause, |watch| {
                Some(Notice::SyncFailed {
                    id: notice_id(watch, "sync_failed", timestamp)?,
                    repository: watch.facts.clone(),
                    error: GitError::clone(&error),
                    consecutive_failures,
                    threshold,
                    cooldown_until,
                    timestamp,
                })
            })
            .await;
        };
        self.tasks.spawn(&self.mailbox, work, RepositoryWatcherMessage::Done);
    }

    /// The place in the trace of the scan that led to the notice.
    fn last_scan(&self, id: &SourceId) -> Option<Cause> {
        self.sources.get(id).and_then(|watched| watched.last_scan)
    }

    pub(super) fn announce_recovery(&mut self, id: &SourceId) {
        let (context, source, cause) = (self.context.clone(), id.clone(), self.last_scan(id));
        let timestamp = context.now();
        let work = async move {
            tell_all(&context, &source, cause, |watch| {
                Some(Notice::SyncRecovered {
                    id: notice_id(watch, "sync_recovered", timestamp)?,
                    repository: watch.facts.clone(),
                    timestamp,
                })
            })
            .await;
        };
        self.tasks.spawn(&self.mailbox, work, RepositoryWatcherMessage::Done);
    }
}

fn notice_id(watch: &Watch, kind: &str, timestamp: Timestamp) -> Option<DeliveryId> {
    let cursor = watch.cursors.first()?;
    Some(DeliveryId::of_notice(&cursor.id, timestamp.0, kind))
}

async fn tell_all(
    context: &Context,
    source: &SourceId,
    cause: Option<Cause>,
    notice: impl Fn(&Watch) -> Option<Notice>,
) {
    let watches = match context.store.watches_of_source(source).await {
        Ok(watches) => watches,
        Err(reason) => {
            warn!(source.id = %source, "nobody could be told about {source}: {reason}");
            return;
        }
    };
    for watch in watches {
        let Some(notice) = notice(&watch) else { continue };
        match context.store.served(&watch.sink_key()).await {
            Ok(Some(app)) => tell(context, &app, &watch, cause, &notice).await,
            Ok(None) => {}
            Err(reason) => warn!(app.id = %watch.app, "{} could not be told: {reason}", watch.app),
        }
    }
}

async fn tell(context: &Context, app: &App, watch: &Watch, cause: Option<Cause>, notice: &Notice) {
    let wanted = match notice {
        Notice::SyncRecovered { .. } => app.delivery.sync_recovered,
        Notice::SyncFailed { .. }
        | Notice::OfRound { .. }
        | Notice::OfSubscription(_)
        | Notice::WorkAvailable(_)
        | Notice::Test { .. } => true,
    };
    if !wanted || app.disabled.is_some() {
        return;
    }
    let endpoint = Endpoint::of(app, context.policy.attempt_timeout, context.pace_of(app));
    let Some(endpoint) = endpoint else { return };
    let _place = take_turn(&endpoint, &context.outbound).await;
    // The notice may have waited long; none is sent for a watch that was removed.
    if matches!(context.store.watch(&app.id, &watch.id).await, Err(StoreError::NotFound)) {
        return;
    }
    let span = info_span!(parent: None, "delivery.notice", app.id = %app.id, watch.id = %watch.id);
    if let Some(cause) = cause {
        context.tracer.follow(&span, cause);
    }
    let outcome = context.transport.notify(&endpoint, notice).instrument(span).await;
    let (app, result) = (&app.id, &outcome.result);
    info!(app.id = %app, watch.id = %watch.id, "a notice to {app} was answered: {result:?}");
}
