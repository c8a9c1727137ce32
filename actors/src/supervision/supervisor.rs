//! The one supervisor of this system: keeps the children of a [`ChildSpec`] running, one for one.
//!
//! A child that fails is started again after a backoff that doubles with each recent failure. A child that
//! fails more often than its spec allows escalates, or is contained: kept down for longer and longer while
//! its siblings go on. A child that works on one message for longer than its spec allows counts as hung and
//! is killed and restarted. Children with a key are started by [`SupervisorMessage::Ensure`] and removed when
//! they end cleanly.
//!
//! Why not a crate: the available one counts restarts over all children, so that one crashing child stops its
//! healthy siblings, and needs process-global names. Three properties of ractor matter here: a failed
//! `pre_start` raises no supervision event, so its error is handled where it is spawned; a parent that ends
//! takes its children with it; `kill` interrupts only at an await.
//!
//! A supervisor that is stopped stops its children first, each within its spec's time, then kills. A crash of
//! a supervisor loses only the waits of its children: the spec says which children must run, and children
//! with a key are ensured again by the actors that need them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::supervision::{
    directory::{Directory, Gauge},
    tree::{Beyond, CONTAINED_FIRST, CONTAINED_LAST, ChildSpec, Restart},
};

/// The wait before the first restart; doubled with each recent failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest ordinary wait before a restart.
const BACKOFF_LAST: Duration = Duration::from_secs(5);
/// How often hung children are looked for.
const PROGRESS_CHECK: Duration = Duration::from_secs(1);
/// The exit reason by which a supervisor knows that it killed a hung child.
const KILLED: &str = "killed";

/// The arguments for starting a child.
pub struct SpawnContext {
    /// The supervisor that the child is linked to.
    pub supervisor: ActorCell,
    /// The child's gauge, the same over restarts.
    pub gauge: Arc<Gauge>,
    /// The key of the child; empty for a child without one.
    pub key: String,
}

/// Starts a child linked to its supervisor.
pub type Start =
    Arc<dyn Fn(SpawnContext) -> BoxFuture<'static, Result<ActorCell, ActorProcessingErr>> + Send + Sync>;

/// Messages to a supervisor.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// A child with this key shall run.
    Ensure(String),
    /// The wait of this child (role, key) is over.
    Restart(&'static str, Arc<str>),
    /// Look for hung children.
    CheckProgress,
}

/// The arguments that a supervisor starts from.
#[derive(Clone)]
pub struct SupervisorArguments {
    /// The spec of the supervisor, which lists its children.
    pub spec: &'static ChildSpec,
    /// The address book that children are entered in.
    pub directory: Directory,
    /// How each role of its children is started.
    pub starts: HashMap<&'static str, Start>,
    /// Counts the messages and restarts of the supervisor.
    pub gauge: Arc<Gauge>,
}

/// The role and the key of a child. The maps of a supervisor share the key, because children may be many.
type ChildName = (&'static str, Arc<str>);

struct Child {
    spec: &'static ChildSpec,
    actor: Option<ActorCell>,
    gauge: Arc<Gauge>,
    failures: VecDeque<Instant>,
    contained: u32,
    started: Option<Instant>,
}

/// The state: its children by role and key.
pub struct SupervisorState {
    arguments: SupervisorArguments,
    children: HashMap<ChildName, Child>,
    running: HashMap<ActorId, ChildName>,
}

/// The actor that supervises the children of one [`ChildSpec`].
pub struct Supervisor;

#[ractor::async_trait]
impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut state = SupervisorState { arguments, children: HashMap::new(), running: HashMap::new() };
        for spec in state.arguments.spec.children.iter().filter(|spec| !spec.many) {
            state.start(&myself, spec, Arc::from("")).await?;
        }
        drop(myself.send_after(PROGRESS_CHECK, || SupervisorMessage::CheckProgress));
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let gauge = state.arguments.gauge.clone();
        let _busy = gauge.begin();
        match message {
            SupervisorMessage::Ensure(key) => state.on_ensure(&myself, key).await,
            SupervisorMessage::Restart(role, key) => state.on_restart(&myself, role, key).await,
            SupervisorMessage::CheckProgress => {
                state.on_check_progress(&myself);
                Ok(())
            }
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let children =
            state.children.values().filter_map(|child| Some((child.actor.clone()?, child.spec.shutdown)));
        let stops = children.map(|(actor, shutdown)| async move {
            if actor.stop_and_wait(None, Some(shutdown)).await.is_err() {
                actor.kill();
            }
        });
        join_all(stops).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                state.on_ended(&myself, child.get_id(), reason.as_deref()).await
            }
            SupervisionEvent::ActorFailed(child, reason) => {
                state.on_failed(&myself, child.get_id(), &reason.to_string())
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

impl SupervisorState {
    async fn on_ensure(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        key: String,
    ) -> Result<(), ActorProcessingErr> {
        let is_of_key = |spec: &&ChildSpec| spec.many && key.starts_with(spec.keys);
        let Some(spec) = self.arguments.spec.children.iter().find(is_of_key) else { return Ok(()) };
        let name: ChildName = (spec.id, Arc::from(key));
        if self.children.contains_key(&name) {
            return Ok(());
        }
        self.start(myself, spec, name.1).await
    }

    async fn on_restart(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        role: &'static str,
        key: Arc<str>,
    ) -> Result<(), ActorProcessingErr> {
        let waiting = self.children.get(&(role, Arc::clone(&key))).filter(|child| child.actor.is_none());
        let Some(spec) = waiting.map(|child| child.spec) else { return Ok(()) };
        self.start(myself, spec, key).await
    }

    fn on_check_progress(&mut self, myself: &ActorRef<SupervisorMessage>) {
        for ((_, key), child) in &self.children {
            if let Some(actor) = child.actor.as_ref().filter(|_| child.gauge.busy_for() > child.spec.progress)
            {
                error!(
                    actor.role = child.spec.id,
                    actor.key = &**key,
                    "{} {} has made no progress for {:?}: it is killed and restarted",
                    child.spec.id,
                    key,
                    child.spec.progress
                );
                actor.kill();
            }
        }
        drop(myself.send_after(PROGRESS_CHECK, || SupervisorMessage::CheckProgress));
    }

    async fn on_ended(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        id: ActorId,
        reason: Option<&str>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(name) = self.running.get(&id).cloned() else { return Ok(()) };
        let transient =
            self.children.get(&name).is_some_and(|child| child.spec.restart == Restart::Transient);
        if transient && reason != Some(KILLED) {
            self.running.remove(&id);
            self.arguments.directory.strike(name.0, &name.1);
            let child = self.children.remove(&name);
            // A message that arrived while the child was ending was meant for a running child: start it
            // again.
            if child.is_some_and(|child| child.gauge.waiting() > 0) {
                return self.on_ensure(myself, name.1.to_string()).await;
            }
            return Ok(());
        }
        self.on_failed(myself, id, reason.unwrap_or("it ended"))
    }

    fn on_failed(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        id: ActorId,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(name) = self.running.remove(&id) else { return Ok(()) };
        self.schedule_restart(myself, &name, reason)
    }

    /// Starts a child, or schedules another try if it cannot start.
    async fn start(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        spec: &'static ChildSpec,
        key: Arc<str>,
    ) -> Result<(), ActorProcessingErr> {
        let name = (spec.id, key);
        let child = self.children.entry(name.clone()).or_insert_with(|| Child {
            spec,
            actor: None,
            gauge: Arc::default(),
            failures: VecDeque::new(),
            contained: 0,
            started: None,
        });
        let gauge = child.gauge.clone();
        let start = self.arguments.starts.get(spec.id).cloned().ok_or("a role without a starter")?;
        let key = name.1.to_string();
        let spawn_context = SpawnContext { supervisor: myself.get_cell(), gauge: gauge.clone(), key };
        match start(spawn_context).await {
            Ok(actor) => {
                self.arguments.directory.enter(spec.id, name.1.clone(), Some(actor.clone()), &gauge);
                self.running.insert(actor.get_id(), name.clone());
                if let Some(child) = self.children.get_mut(&name) {
                    child.actor = Some(actor);
                    child.started = Some(Instant::now());
                }
                Ok(())
            }
            Err(reason) => self.schedule_restart(myself, &name, &reason.to_string()),
        }
    }

    fn schedule_restart(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        name: &ChildName,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(child) = self.children.get_mut(name) else { return Ok(()) };
        child.actor = None;
        child.gauge.restarted();
        self.arguments.directory.enter(name.0, name.1.clone(), None, &child.gauge);
        let Some(wait) = child.next_wait(Instant::now()) else {
            error!(actor.role = name.0, "{} failed too often and escalates: {reason}", name.0);
            return Err(format!("{} failed more than {} times", name.0, child.spec.failures).into());
        };
        if child.contained > 0 {
            error!(
                actor.role = name.0,
                actor.key = &*name.1,
                "{} {} fails each time and is contained for {wait:?}: {reason}",
                name.0,
                name.1
            );
        } else {
            warn!(
                actor.role = name.0,
                actor.key = &*name.1,
                "{} {} failed and restarts in {wait:?}: {reason}",
                name.0,
                name.1
            );
        }
        let (role, key) = name.clone();
        drop(myself.send_after(wait, move || SupervisorMessage::Restart(role, key)));
        Ok(())
    }
}

impl Child {
    /// The wait before the next start; `None`: escalate.
    fn next_wait(&mut self, now: Instant) -> Option<Duration> {
        // A child that ran for long since its last start has earned a fresh start.
        if self.started.is_some_and(|started| now.duration_since(started) > CONTAINED_LAST) {
            self.contained = 0;
        }
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|failure| now.duration_since(*failure) > self.spec.within) {
            self.failures.pop_front();
        }
        let recent = self.failures.len();
        if recent <= self.spec.failures && self.contained == 0 {
            let doublings = u32::try_from(recent - 1).unwrap_or(u32::MAX).min(16);
            return Some((BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_LAST));
        }
        match self.spec.beyond {
            Beyond::Escalate => None,
            Beyond::Contain => {
                let doublings = self.contained.min(16);
                self.contained += 1;
                Some((CONTAINED_FIRST * 2_u32.pow(doublings)).min(CONTAINED_LAST))
            }
        }
    }
}

#[cfg(test)]
mod tests;
