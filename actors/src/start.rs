//! How each role of the tree comes to life: the one place that knows all actors.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, concurrency::JoinHandle};
use tidings_entity::{
    id::{AppId, CursorId, RepositoryId},
    kind::BreakerKind,
};
use tokio::time::Instant;

use crate::{
    circuit_breaker::{CircuitBreaker, CircuitBreakerArguments, endpoint_key, source_key},
    context::{Context, in_time},
    deliverer::{Deliverer, DelivererArguments, DelivererMessage},
    directory::{Gauge, Post},
    housekeeping::{LeaseKeeper, LetterKeeper, MirrorKeeper, Retention, Surveyor, UpkeepArguments},
    ports::{BreakerRow, Source, StoreError},
    repository_watcher::{RepositoryWatcher, RepositoryWatcherArguments, RepositoryWatcherMessage},
    scan_worker,
    supervisor::{Birth, Start, Supervisor, SupervisorArguments, SupervisorMessage},
    tree::{
        APPS, BREAKERS, CIRCUIT_BREAKER, ChildSpec, DELIVERER, HOUSEKEEPING, LEASE_KEEPER, LETTER_KEEPER,
        MIRROR_KEEPER, REPOSITORIES, REPOSITORY_WATCHER, RETENTION, SCANS, SURVEYOR, TREE,
    },
};

/// Starts the root supervisor and with it every static child.
///
/// # Errors
/// When the root or one of its static children cannot be spawned.
pub(crate) async fn root(
    context: &Context,
) -> Result<(ActorRef<SupervisorMessage>, JoinHandle<()>), ActorProcessingErr> {
    let gauge = Arc::new(Gauge::default());
    let arguments = supervisor_arguments(&TREE, context, gauge.clone());
    let (root, join) = Actor::spawn(None, Supervisor, arguments).await?;
    context.directory.enter(TREE.id, "", Some(root.get_cell()), &gauge);
    Ok((root, join))
}

/// What whoever runs already hears when everyone is ensured who has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// Nothing: those that do not run begin.
    Missing,
    /// Work of theirs was another replica's until now.
    Gained,
    /// The same, and what rows say now: a hint may have been lost.
    All,
}

/// Ensures everyone who has work: breakers with failures, watchers of watched repositories,
/// deliverers of apps with pending cursors.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn ensure_all(context: &Context, look: Look) -> Result<(), ActorProcessingErr> {
    for supervisor in [BREAKERS, REPOSITORIES, APPS] {
        for key in roll(context, supervisor, look).await? {
            context.ensure(supervisor, &key);
        }
    }
    if look == Look::All {
        for (_, deliverer) in context.directory.all::<DelivererMessage>(DELIVERER) {
            // One that ends now has nothing to look at.
            deliverer.send(DelivererMessage::Look);
        }
    }
    Ok(())
}

/// The keys of a supervisor's children that have work, read from rows. Whoever starts it again
/// after a crash calls the roll: nobody else would, not before the next poke or poll.
async fn roll(context: &Context, supervisor: &'static str, look: Look) -> Result<Vec<String>, StoreError> {
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
            // What is left for a watcher that runs would be old when it is taken.
            repositories.retain(|(repository, sources)| !runs(context, repository, began, sources, look));
            context.directory.leave_sources(repositories);
            keys
        }
        APPS => {
            let pending = in_time(context.store.pending(None, &context.shards.reach())).await?;
            let mut of_app: BTreeMap<AppId, Vec<CursorId>> = BTreeMap::new();
            for (app, cursor) in pending {
                of_app.entry(app).or_default().push(cursor);
            }
            of_app.into_iter().map(|(app, cursors)| wake(context, &app, cursors, look)).collect()
        }
        _ => Vec::new(),
    };
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Whether the watcher of a repository runs; it hears what is its own.
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

/// The key of an app's deliverer, which hears of its cursors if it runs.
fn wake(context: &Context, app: &AppId, cursors: Vec<CursorId>, look: Look) -> String {
    if look > Look::Missing
        && let Some(deliverer) = context.directory.find(DELIVERER, app.as_str())
    {
        // One that ends now is ensured.
        deliverer.send(DelivererMessage::Wake(cursors));
    }
    app.to_string()
}

fn supervisor_arguments(
    spec: &'static ChildSpec,
    context: &Context,
    gauge: Arc<Gauge>,
) -> SupervisorArguments {
    let starts =
        spec.children.iter().map(|child| (child.id, starter(child, context))).collect::<HashMap<_, _>>();
    SupervisorArguments { spec, directory: context.directory.clone(), starts, gauge }
}

fn starter(spec: &'static ChildSpec, context: &Context) -> Start {
    let context = context.clone();
    Arc::new(move |birth: Birth| {
        let context = context.clone();
        Box::pin(start(spec, context, birth))
    })
}

async fn start(
    spec: &'static ChildSpec,
    context: Context,
    birth: Birth,
) -> Result<ActorCell, ActorProcessingErr> {
    let Birth { supervisor, gauge, key } = birth;
    match spec.id {
        BREAKERS | REPOSITORIES | APPS | HOUSEKEEPING => {
            let again = gauge.restarts() > 0;
            let keys = if again { roll(&context, spec.id, Look::Missing).await? } else { Vec::new() };
            let started =
                spawn(Supervisor, supervisor_arguments(spec, &context, gauge.clone()), supervisor).await?;
            let post = Post::<SupervisorMessage>::new(ActorRef::from(started.clone()), gauge);
            for key in keys {
                post.send(SupervisorMessage::Ensure(key));
            }
            Ok(started)
        }
        SCANS => scan_worker::start_factory(context, Birth { supervisor, gauge, key }).await,
        CIRCUIT_BREAKER => {
            spawn(CircuitBreaker, CircuitBreakerArguments { context, key, gauge }, supervisor).await
        }
        REPOSITORY_WATCHER => {
            let repository = key.parse()?;
            spawn(RepositoryWatcher, RepositoryWatcherArguments { context, repository, gauge }, supervisor)
                .await
        }
        DELIVERER => {
            let app = key.parse()?;
            spawn(Deliverer, DelivererArguments { context, app, gauge }, supervisor).await
        }
        RETENTION => spawn(Retention, UpkeepArguments { context, gauge }, supervisor).await,
        MIRROR_KEEPER => spawn(MirrorKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        LETTER_KEEPER => spawn(LetterKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        LEASE_KEEPER => spawn(LeaseKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        SURVEYOR => spawn(Surveyor, UpkeepArguments { context, gauge }, supervisor).await,
        role => Err(format!("no starter for the role {role}").into()),
    }
}

async fn spawn<A: Actor>(
    actor: A,
    arguments: A::Arguments,
    supervisor: ActorCell,
) -> Result<ActorCell, ActorProcessingErr> {
    let (actor, _join) = Actor::spawn_linked(None, actor, arguments, supervisor).await?;
    Ok(actor.get_cell())
}

#[cfg(test)]
mod panics;
#[cfg(test)]
mod tests;
