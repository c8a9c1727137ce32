//! Hints that rows changed, as the actors of this process are given them: by the front door, by an actor,
//! or by another replica. A hint is never the change itself; one that is lost costs latency only, because
//! actors read rows when they start and now and then.

use tidings_entity::id::{AppId, RepositoryId, SubscriptionId};
use tracing::Span;

use crate::{
    circuit_breaker::{self, CircuitBreakerMessage},
    context::Context,
    deliverer,
    housekeeping::{LetterKeeperMessage, SubscriptionKeeperMessage},
    ports::Signal,
    repository_watcher::RepositoryWatcherMessage,
    subscriber::SubscriberMessage,
    time::Timestamp,
    tree::{CIRCUIT_BREAKER, LETTER_KEEPER, REPOSITORY_WATCHER, SUBSCRIBER, SUBSCRIPTION_KEEPER},
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
        Signal::App(app) => {
            deliverer::refresh_here(context, app);
            app_changed(context, app);
        }
        Signal::Breaker(key) => breaker_changed(context, key),
        Signal::ResetBreaker(key) => drop(reset_breaker(context, key)),
        Signal::Redrive => carry_on_redrives(context),
        Signal::Ledger => look_at_ledgers(context),
        Signal::Subscription(subscription) => subscription_changed(context, subscription),
        Signal::Shards
        | Signal::Missed
        | Signal::Keys
        | Signal::Repository(_)
        | Signal::Poke(_)
        | Signal::Hooked(..) => {}
    }
}

/// Polls a repository soon, whatever its schedule says; the replica that works on it does.
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

/// Tells the watcher of a repository, or lets one start, which reads rows.
pub(crate) fn tell_watcher(context: &Context, repository: &RepositoryId, message: RepositoryWatcherMessage) {
    let found = context.directory.find(REPOSITORY_WATCHER, repository.as_str());
    if !found.is_some_and(|watcher| watcher.send(message)) {
        // What was read for it before this change is old.
        drop(context.directory.take_sources(repository));
        context.ensure_watcher(repository.as_str());
    }
}

/// Lets the letter keeper go on with redrives. While the keeper restarts this is lost: it looks by itself.
pub(crate) fn carry_on_redrives(context: &Context) {
    if let Some(keeper) = context.directory.find::<LetterKeeperMessage>(LETTER_KEEPER, "") {
        keeper.send(LetterKeeperMessage::Mark);
    }
}

/// Entries may wait for subscriptions. While the keeper restarts this is lost: it looks by itself.
pub(crate) fn look_at_ledgers(context: &Context) {
    if let Some(keeper) = context.directory.find(SUBSCRIPTION_KEEPER, "") {
        keeper.send(SubscriptionKeeperMessage::Look);
    }
}

/// An app was changed, disabled or erased: those who send entries to its subscriptions read their rows again.
pub(crate) fn app_changed(context: &Context, app: &AppId) {
    for (_, subscriber) in context.directory.all::<SubscriberMessage>(SUBSCRIBER) {
        subscriber.send(SubscriberMessage::AppChanged(app.clone()));
    }
}

/// A subscription was changed or removed: if it is worked on here, its actor reads its row again.
pub(crate) fn subscription_changed(context: &Context, subscription: &SubscriptionId) {
    if let Some(subscriber) = context.directory.find(SUBSCRIBER, subscription.as_str()) {
        subscriber.send(SubscriberMessage::Refresh);
    }
    look_at_ledgers(context);
}

/// Closes a breaker of this process. `false`: none with this key runs here.
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
