//! How each role of the tree comes to life: the one place that knows all actors.

use std::{collections::HashMap, sync::Arc};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, concurrency::JoinHandle};
use tidings_entity::id::SinkId;

use crate::{
    circuit_breaker::{BreakerNews, CircuitBreaker, CircuitBreakerArguments, Guarded},
    context::Context,
    deliverer::{Deliverer, DelivererArguments, DelivererMessage},
    directory::{DerivedPost, Directory, Gauge, Post},
    housekeeping::{
        ChoreActor, LeaseKeeper, LedgerKeeper, LetterKeeper, MirrorKeeper, Retention, SubscriptionKeeper,
        Surveyor, UpkeepArguments,
    },
    ports::subscription_of,
    repository_watcher::{RepositoryWatcher, RepositoryWatcherArguments, RepositoryWatcherMessage},
    roll::{self, Look},
    scan_worker,
    subscriber::{Subscriber, SubscriberArguments, SubscriberMessage},
    supervisor::{Birth, Start, Supervisor, SupervisorArguments, SupervisorMessage},
    tree::{
        APPS, BREAKERS, CIRCUIT_BREAKER, ChildSpec, DELIVERER, HOUSEKEEPING, LEASE_KEEPER, LEDGER_KEEPER,
        LETTER_KEEPER, MIRROR_KEEPER, REPOSITORIES, REPOSITORY_WATCHER, RETENTION, SCANS, SUBSCRIBER,
        SUBSCRIPTION_KEEPER, SURVEYOR, TREE,
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
            let keys = if again { roll::keys(&context, spec.id, Look::Missing).await? } else { Vec::new() };
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
            let arguments = CircuitBreakerArguments { context, key, listener: breaker_listener, gauge };
            spawn(CircuitBreaker, arguments, supervisor).await
        }
        REPOSITORY_WATCHER => {
            let repository = key.parse()?;
            spawn(RepositoryWatcher, RepositoryWatcherArguments { context, repository, gauge }, supervisor)
                .await
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
        LEDGER_KEEPER => {
            spawn(ChoreActor::<LedgerKeeper>::new(), UpkeepArguments { context, gauge }, supervisor).await
        }
        SUBSCRIPTION_KEEPER => {
            spawn(SubscriptionKeeper, UpkeepArguments { context, gauge }, supervisor).await
        }
        SURVEYOR => {
            spawn(ChoreActor::<Surveyor>::new(), UpkeepArguments { context, gauge }, supervisor).await
        }
        role => Err(format!("no starter for the role {role}").into()),
    }
}

/// Who hears the news of a breaker, if it runs.
fn breaker_listener(directory: &Directory, guarded: &Guarded) -> Option<DerivedPost<BreakerNews>> {
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

/// The actor of the subscription whose sink this is, if it is that of one.
fn subscriber_of(directory: &Directory, id: &str) -> Option<Post<SubscriberMessage>> {
    let sink: SinkId = id.parse().ok()?;
    directory.find(SUBSCRIBER, subscription_of(&sink).as_str())
}

/// The deliverer of the own sink of an app, or of a sink that a watch has for itself: breakers are named by
/// the one id or the other.
fn deliverer_of(directory: &Directory, id: &str) -> Option<Post<DelivererMessage>> {
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
