//! Hints that rows changed, for the actors of this process: from the HTTP handlers, from an actor, or from
//! another replica. A hint is never the change itself; a lost hint costs latency only, because actors read
//! rows when they start and from time to time.

use tidings_entity::id::{AppId, RepositoryId, SubscriptionId};
use tracing::Span;

use crate::{
    circuit_breaker::{self, CircuitBreakerMessage},
    context::Context,
    deliverer,
    housekeeping::{
        ClockKeeperMessage, LetterKeeperMessage, StatusKeeperMessage, SubscriptionKeeperMessage,
        claims::ClaimsMessage, work_caller::WorkCallerMessage,
    },
    ports::Signal,
    scanning::repository_watcher::RepositoryWatcherMessage,
    subscriber::SubscriberMessage,
    supervision::tree::{
        CIRCUIT_BREAKER, CLAIMS, CLOCK_KEEPER, LETTER_KEEPER, REPOSITORY_WATCHER, STATUS_KEEPER, SUBSCRIBER,
        SUBSCRIPTION_KEEPER, WORK_CALLER,
    },
    time::Timestamp,
};

/// Gives a hint of another replica to the actors of this process that it concerns.
pub(crate) fn heard(context: &Context, signal: &Signal) {
    let owned = |repository: &RepositoryId| context.shards.owns(repository);
    match signal {
        Signal::Repository(repository) if owned(repository) => {
            tell_watcher(context, repository, RepositoryWatcherMessage::Reload);
        }
        Signal::Poke(repository) if owned(repository) => {
            tell_watcher(context, repository, RepositoryWatcherMessage::Poke);
        }
        Signal::Hooked(repository, at) if owned(repository) => {
            tell_watcher(context, repository, RepositoryWatcherMessage::Hooked(at.map(Timestamp)));
        }
        Signal::AppHooked(repository, app) if owned(repository) => {
            tell_watcher(context, repository, RepositoryWatcherMessage::AppHooked(app.clone()));
        }
        Signal::App(app) => {
            deliverer::refresh_here(context, app);
            app_changed(context, app);
        }
        Signal::Breaker(key) => breaker_changed(context, key),
        Signal::ResetBreaker(key) => drop(reset_breaker(context, key)),
        Signal::Redrive => carry_on_redrives(context),
        Signal::Ledger => look_at_ledgers(context),
        Signal::Statuses => look_at_statuses(context),
        Signal::Subscription(subscription) => subscription_changed(context, subscription),
        Signal::Tasks(apps, wake_at) => tasks_changed(context, apps, wake_at.map(Timestamp)),
        Signal::Shards
        | Signal::Missed
        | Signal::Keys
        | Signal::Repository(_)
        | Signal::Poke(_)
        | Signal::Hooked(..)
        | Signal::AppHooked(..) => {}
    }
}

/// Another replica wrote tasks of these apps (an empty list: of all apps, or of none if there is a moment);
/// `wake_at` is the nearest moment at which the clock of tasks must look.
fn tasks_changed(context: &Context, apps: &[AppId], wake_at: Option<Timestamp>) {
    let is_of_clock = apps.is_empty() && wake_at.is_some();
    if let Some(claims) = context.directory.find(CLAIMS, "").filter(|_| !is_of_clock) {
        claims.send(ClaimsMessage::Heard(apps.to_vec()));
    }
    if let Some(caller) = context.directory.find(WORK_CALLER, "").filter(|_| !is_of_clock) {
        caller.send(WorkCallerMessage::Heard(apps.to_vec()));
    }
    let keeper = context.directory.find(CLOCK_KEEPER, "");
    if let Some((keeper, at)) = keeper.zip(wake_at) {
        keeper.send(ClockKeeperMessage::Nearest(at));
    }
}

/// Words of other replicas about tasks may be lost: everybody who waits for tasks looks. Worker subscriptions
/// are not told: the word may be about work that they know already.
pub(crate) fn tasks_may_have_changed(context: &Context) {
    if let Some(claims) = context.directory.find(CLAIMS, "") {
        claims.send(ClaimsMessage::Heard(Vec::new()));
    }
}

/// Polls a repository soon, regardless of its schedule; the replica that works on it does so.
pub(crate) async fn poke(context: &Context, repository: &RepositoryId) {
    if context.shards.owns(repository) {
        caused(context, repository);
        tell_watcher(context, repository, RepositoryWatcherMessage::Poke);
    } else {
        context.tell_others(Signal::Poke(repository.clone())).await;
    }
}

/// The next scan of this repository belongs to the trace of the current span.
pub(crate) fn caused(context: &Context, repository: &RepositoryId) {
    let place = context.tracer.place(&Span::current());
    context.causes.of_scan(repository, place);
}

/// Tells the watcher of a repository to read its rows, or starts a watcher, which reads them first.
pub(crate) fn tell_watcher(context: &Context, repository: &RepositoryId, message: RepositoryWatcherMessage) {
    let found = context.directory.find(REPOSITORY_WATCHER, repository.as_str());
    if !found.is_some_and(|watcher| watcher.send(message)) {
        // Sources that were read for the watcher before this change are outdated.
        drop(context.directory.take_sources(repository));
        context.ensure_watcher(repository.as_str());
    }
}

/// Tells the letter keeper to continue redrives. A hint that is lost while the keeper restarts does no harm:
/// the keeper looks by itself.
pub(crate) fn carry_on_redrives(context: &Context) {
    if let Some(keeper) = context.directory.find::<LetterKeeperMessage>(LETTER_KEEPER, "") {
        keeper.send(LetterKeeperMessage::Mark);
    }
}

/// Tells the subscription keeper that entries may wait. A hint that is lost while the keeper restarts does no
/// harm: the keeper looks by itself.
pub(crate) fn look_at_ledgers(context: &Context) {
    if let Some(keeper) = context.directory.find(SUBSCRIPTION_KEEPER, "") {
        keeper.send(SubscriptionKeeperMessage::Look);
    }
}

/// Tells the status keeper that statuses may be due: another replica wrote them. A hint that is lost while
/// the keeper restarts does no harm: the keeper looks by itself.
fn look_at_statuses(context: &Context) {
    if let Some(keeper) = context.directory.find(STATUS_KEEPER, "") {
        keeper.send(StatusKeeperMessage::Look);
    }
}

/// An app was changed, disabled or erased: the actors of its subscriptions read their rows again.
pub(crate) fn app_changed(context: &Context, app: &AppId) {
    for (_, subscriber) in context.directory.all::<SubscriberMessage>(SUBSCRIBER) {
        subscriber.send(SubscriberMessage::AppChanged(app.clone()));
    }
}

/// A subscription was changed or removed: its actor, if it runs here, reads the row again.
pub(crate) fn subscription_changed(context: &Context, subscription: &SubscriptionId) {
    if let Some(subscriber) = context.directory.find(SUBSCRIBER, subscription.as_str()) {
        subscriber.send(SubscriberMessage::Refresh);
    }
    look_at_ledgers(context);
}

/// Closes a breaker of this process. `false`: no breaker with this key runs here.
pub(crate) fn reset_breaker(context: &Context, key: &str) -> bool {
    let found = context.directory.find(CIRCUIT_BREAKER, key);
    found.is_some_and(|breaker| breaker.send(CircuitBreakerMessage::Reset))
}

/// Another replica changed the row of a breaker.
fn breaker_changed(context: &Context, key: &str) {
    let found = context.directory.find(CIRCUIT_BREAKER, key);
    if !found.is_some_and(|breaker| breaker.send(CircuitBreakerMessage::Changed))
        && circuit_breaker::repository_of(key).is_none_or(|repository| context.shards.owns(&repository))
    {
        context.ensure_breaker(key);
    }
}
