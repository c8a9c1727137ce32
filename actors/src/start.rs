//! How each role of the tree comes to life: the one place that knows all actors.

use std::{collections::HashMap, sync::Arc};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, concurrency::JoinHandle};
use tidings_entity::kind::BreakerKind;

use crate::{
    circuit_breaker::{CircuitBreaker, CircuitBreakerArguments, endpoint_key},
    context::Context,
    deliverer::{Deliverer, DelivererArguments},
    directory::Gauge,
    housekeeping::{MirrorKeeper, Retention, UpkeepArguments},
    repository_watcher::{RepositoryWatcher, RepositoryWatcherArguments},
    scan_worker,
    supervisor::{Birth, Start, Supervisor, SupervisorArguments, SupervisorMessage},
    tree::{
        APPS, BREAKERS, CIRCUIT_BREAKER, ChildSpec, DELIVERER, HOUSEKEEPING, MIRROR_KEEPER, REPOSITORIES,
        REPOSITORY_WATCHER, RETENTION, SCANS, TREE,
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

/// Ensures everyone who has work: breakers with failures, watchers of watched repositories,
/// deliverers of apps with pending cursors.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn ensure_all(context: &Context) -> Result<(), ActorProcessingErr> {
    let repositories = context.store.repositories().await?;
    for breaker in context.store.breakers().await? {
        context.ensure_breaker(&match breaker.kind {
            BreakerKind::Endpoint => endpoint_key(&breaker.id),
            // The row's id names the repository as well.
            BreakerKind::Source => format!("source:{}", breaker.id),
        });
    }
    for (repository, _) in repositories {
        context.ensure_watcher(repository.as_str());
    }
    let mut apps: Vec<_> = context.store.pending(None).await?.into_iter().map(|(app, _)| app).collect();
    apps.sort_unstable();
    apps.dedup();
    for app in apps {
        context.ensure_deliverer(app.as_str());
    }
    Ok(())
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
            spawn(Supervisor, supervisor_arguments(spec, &context, gauge), supervisor).await
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
