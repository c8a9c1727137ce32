//! Which actors have work according to the rows: breakers with failures, watchers of watched repositories,
//! deliverers of apps with pending cursors. The rows are read when the tree starts, when a supervisor
//! starts again, and on a replica whenever it gained work or a hint may have been lost.

use std::collections::{BTreeMap, HashMap};

use ractor::ActorProcessingErr;
use tidings_entity::{
    id::{CursorId, RepositoryId},
    kind::BreakerKind,
};
use tokio::time::Instant;

use crate::{
    circuit_breaker::{endpoint_key, source_key},
    context::Context,
    deliverer::DelivererMessage,
    ports::{BreakerRow, SinkKey, Source, StoreError},
    scanning::repository_watcher::RepositoryWatcherMessage,
    supervision::{
        tasks::in_time,
        tree::{APPS, BREAKERS, DELIVERER, REPOSITORIES, REPOSITORY_WATCHER},
    },
};

/// The message for actors that already run, when each actor with work is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// No message: only actors that do not run are started.
    Missing,
    /// Deliverers are told of cursors that belonged to another replica until now.
    Gained,
    /// Every running actor is told to read its rows again: a hint may have been lost.
    All,
}

/// Starts each actor that has work and does not run: breakers with failures, watchers of watched
/// repositories, deliverers of apps with pending cursors.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn ensure_all(context: &Context, look: Look) -> Result<(), ActorProcessingErr> {
    for supervisor in [BREAKERS, REPOSITORIES, APPS] {
        for key in keys(context, supervisor, look).await? {
            context.ensure(supervisor, &key);
        }
    }
    if look == Look::All {
        for (_, deliverer) in context.directory.all::<DelivererMessage>(DELIVERER) {
            // A deliverer that is ending has nothing to read.
            deliverer.send(DelivererMessage::Look);
        }
    }
    Ok(())
}

/// The keys of a supervisor's children that have work, read from rows. A supervisor that restarts needs them:
/// otherwise its children would start only with the next poke or poll.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn keys(
    context: &Context,
    supervisor: &'static str,
    look: Look,
) -> Result<Vec<String>, StoreError> {
    let mut keys: Vec<String> = match supervisor {
        BREAKERS => {
            let breakers = in_time(context.store.breakers()).await?;
            let is_of_source = |breaker: &BreakerRow| breaker.kind == BreakerKind::Source;
            let repositories = match breakers.iter().any(is_of_source) {
                true => in_time(context.store.repositories(&context.shards.reach())).await?,
                false => Vec::new(),
            };
            let sources = repositories.iter().flat_map(|(repository, sources)| {
                sources.iter().map(move |source| (source.id.as_str(), repository.as_str()))
            });
            let repository_of: HashMap<&str, &str> = sources.collect();
            let key = |breaker: BreakerRow| match breaker.kind {
                BreakerKind::Endpoint => Some(endpoint_key(&breaker.id)),
                BreakerKind::Source => {
                    let repository = repository_of.get(breaker.id.as_str())?;
                    Some(source_key(&breaker.id, repository))
                }
            };
            breakers.into_iter().filter_map(key).collect()
        }
        REPOSITORIES => {
            let began = Instant::now();
            let mut repositories = in_time(context.store.repositories(&context.shards.reach())).await?;
            let keys = repositories.iter().map(|(repository, _)| repository.to_string()).collect();
            // Sources are kept only for watchers that do not run yet: a running watcher was told of its
            // sources already.
            repositories.retain(|(repository, sources)| !runs(context, repository, began, sources, look));
            context.directory.leave_sources(repositories);
            keys
        }
        APPS => {
            let pending = in_time(context.store.pending(None, &context.shards.reach())).await?;
            let mut of_sink: BTreeMap<SinkKey, Vec<CursorId>> = BTreeMap::new();
            for (sink, cursor) in pending {
                of_sink.entry(sink).or_default().push(cursor);
            }
            let sinks = of_sink.into_iter().map(|(sink, cursors)| wake(context, &sink, cursors, look));
            let mut keys: Vec<String> = sinks.collect();
            let reach = context.shards.reach();
            let behind = in_time(context.store.subscriptions_behind(&reach, context.now())).await?;
            keys.extend(behind.into_iter().map(|(subscription, _)| subscription.to_string()));
            keys
        }
        _ => Vec::new(),
    };
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Whether the watcher of a repository runs. A running watcher is told of its sources.
fn runs(
    context: &Context,
    repository: &RepositoryId,
    began: Instant,
    sources: &[Source],
    look: Look,
) -> bool {
    let found = context.directory.find(REPOSITORY_WATCHER, repository.as_str());
    found.is_some_and(|watcher| {
        look < Look::All || watcher.send(RepositoryWatcherMessage::Swept(began, sources.to_vec()))
    })
}

/// The key of a sink's deliverer. A running deliverer is told of its cursors.
fn wake(context: &Context, sink: &SinkKey, cursors: Vec<CursorId>, look: Look) -> String {
    let key = sink.to_string();
    if look > Look::Missing
        && let Some(deliverer) = context.directory.find(DELIVERER, &key)
    {
        // A deliverer that is ending is started again by its supervisor.
        deliverer.send(DelivererMessage::Wake(cursors));
    }
    key
}
