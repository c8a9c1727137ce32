//! How each role of the tree is started: the only file that knows all actors.

use std::{collections::HashMap, sync::Arc};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, concurrency::JoinHandle};
use tidings_entity::id::SinkId;

use crate::{
    circuit_breaker::{BreakerNews, CircuitBreaker, CircuitBreakerArguments, Guarded},
    context::Context,
    deliverer::{Deliverer, DelivererArguments, DelivererMessage},
    housekeeping::{
        ArtifactKeeper, ChoreActor, ClockKeeper, LeaseKeeper, LedgerKeeper, LetterKeeper, MirrorKeeper,
        Retention, StatusKeeper, SubscriptionKeeper, Surveyor, UpkeepArguments, claims::Claims,
        work_caller::WorkCaller,
    },
    ports::subscription_of,
    scanning::{
        repository_watcher::{RepositoryWatcher, RepositoryWatcherArguments, RepositoryWatcherMessage},
        scan_worker,
    },
    subscriber::{Subscriber, SubscriberArguments, SubscriberMessage},
    supervision::{
        children_with_work::{self, Look},
        directory::{DerivedMailbox, Directory, Gauge, Mailbox},
        supervisor::{SpawnContext, Start, Supervisor, SupervisorArguments, SupervisorMessage},
        tree::{
            APPS, ARTIFACT_KEEPER, BREAKERS, CIRCUIT_BREAKER, CLAIMS, CLOCK_KEEPER, ChildSpec, DELIVERER,
            HOUSEKEEPING, LEASE_KEEPER, LEDGER_KEEPER, LETTER_KEEPER, MIRROR_KEEPER, REPOSITORIES,
            REPOSITORY_WATCHER, RETENTION, SCANS, STATUS_KEEPER, SUBSCRIBER, SUBSCRIPTION_KEEPER, SURVEYOR,
            TREE, WORK_CALLER,
        },
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
    let context = Arc::new(context.clone());
    Arc::new(move |spawn_context: SpawnContext| {
        let context = Arc::clone(&context);
        Box::pin(start(spec, context, spawn_context))
    })
}

async fn start(
    spec: &'static ChildSpec,
    shared: Arc<Context>,
    spawn_context: SpawnContext,
) -> Result<ActorCell, ActorProcessingErr> {
    let SpawnContext { supervisor, gauge, key } = spawn_context;
    if spec.id == REPOSITORY_WATCHER {
        let (context, repository) = (shared, key.parse()?);
        let arguments = RepositoryWatcherArguments { context, repository, gauge };
        return spawn(RepositoryWatcher, arguments, supervisor).await;
    }
    let context = Context::clone(&shared);
    match spec.id {
        BREAKERS | REPOSITORIES | APPS | HOUSEKEEPING => {
            let again = gauge.restarts() > 0;
            let keys = if again {
                children_with_work::keys(&context, spec.id, Look::Missing).await?
            } else {
                Vec::new()
            };
            let started =
                spawn(Supervisor, supervisor_arguments(spec, &context, gauge.clone()), supervisor).await?;
            let mailbox = Mailbox::<SupervisorMessage>::new(ActorRef::from(started.clone()), gauge);
            for key in keys {
                mailbox.send(SupervisorMessage::Ensure(key));
            }
            Ok(started)
        }
        SCANS => scan_worker::start_factory(context, SpawnContext { supervisor, gauge, key }).await,
        CIRCUIT_BREAKER => {
            let arguments = CircuitBreakerArguments { context, key, listener: breaker_listener, gauge };
            spawn(CircuitBreaker, arguments, supervisor).await
        }
        DELIVERER => {
            let sink = key.parse()?;
            spawn(Deliverer, DelivererArguments { context, sink, gauge }, supervisor).await
        }
        SUBSCRIBER => {
            let subscription = key.parse()?;
            spawn(Subscriber, SubscriberArguments { context, subscription, gauge }, supervisor).await
        }
        RETENTION => {
            spawn(ChoreActor::<Retention>::new(), UpkeepArguments { context, gauge }, supervisor).await
        }
        MIRROR_KEEPER => spawn(MirrorKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        LETTER_KEEPER => spawn(LetterKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        LEASE_KEEPER => spawn(LeaseKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        ARTIFACT_KEEPER => {
            spawn(ChoreActor::<ArtifactKeeper>::new(), UpkeepArguments { context, gauge }, supervisor).await
        }
        LEDGER_KEEPER => {
            spawn(ChoreActor::<LedgerKeeper>::new(), UpkeepArguments { context, gauge }, supervisor).await
        }
        SUBSCRIPTION_KEEPER => {
            spawn(SubscriptionKeeper, UpkeepArguments { context, gauge }, supervisor).await
        }
        CLAIMS => spawn(Claims, UpkeepArguments { context, gauge }, supervisor).await,
        CLOCK_KEEPER => spawn(ClockKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        WORK_CALLER => spawn(WorkCaller, UpkeepArguments { context, gauge }, supervisor).await,
        STATUS_KEEPER => spawn(StatusKeeper, UpkeepArguments { context, gauge }, supervisor).await,
        SURVEYOR => {
            spawn(ChoreActor::<Surveyor>::new(), UpkeepArguments { context, gauge }, supervisor).await
        }
        role => Err(format!("no starter for the role {role}").into()),
    }
}

/// The actor that gets the news of a breaker, if it runs.
fn breaker_listener(directory: &Directory, guarded: &Guarded) -> Option<DerivedMailbox<BreakerNews>> {
    Some(match guarded {
        Guarded::Endpoint { id } => match subscriber_of(directory, id) {
            Some(subscriber) => subscriber.derive(SubscriberMessage::Breaker),
            None => deliverer_of(directory, id)?.derive(DelivererMessage::Breaker),
        },
        Guarded::Source { source, repository } => {
            let source = source.clone();
            let wrap = move |news| RepositoryWatcherMessage::Breaker(source.clone(), news);
            directory.find(REPOSITORY_WATCHER, repository)?.derive(wrap)
        }
    })
}

/// The actor of the subscription that this sink belongs to; `None`: the sink belongs to no subscription.
fn subscriber_of(directory: &Directory, id: &str) -> Option<Mailbox<SubscriberMessage>> {
    let sink: SinkId = id.parse().ok()?;
    directory.find(SUBSCRIBER, subscription_of(&sink).as_str())
}

/// The deliverer of an app's own sink or of the sink of a watch: the key of a breaker has the id of the app
/// or of the sink.
fn deliverer_of(directory: &Directory, id: &str) -> Option<Mailbox<DelivererMessage>> {
    if !id.starts_with(SinkId::PREFIX) {
        return directory.find(DELIVERER, id);
    }
    directory.all(DELIVERER).into_iter().find(|(key, _)| key.ends_with(id)).map(|(_, deliverer)| deliverer)
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
