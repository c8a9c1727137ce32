//! Tasks and queues, for actors and for the front door.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use tidings_actors::{
    model::task::TaskMove,
    ports::{
        BranchTasks, Claim, ClaimRequest, ClaimStore, ClaimedTask, Creation, NewTask, PastClaim, Queue,
        QueueFilter, QueueSettings, QueueWork, Redriven, Schedule, ScheduleFilter, ScheduleSettings,
        ScheduleStore, Searched, StoreError, Task, TaskBodies, TaskChange, TaskFilter, TaskNews, TaskStore,
        TaskWord, TopicPolicy, WatchTasks, Woken, WordRefusal, Worded, WorkWords,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, TaskId, WatchId},
    kind::TaskState,
};
use tracing::error;

use super::transact;
use crate::{
    SqlStore,
    database::error::undecodable,
    ledger::subscriptions::callbacks,
    tasks::{self, DueResync, Operation, Outcome, worker_subscriptions},
};

/// An outcome of another kind than the operation's: a defect of ours, not of the database.
fn other() -> StoreError {
    undecodable("task", "the turn answered another operation")
}

/// What is told of a queue of which more tasks may be claimed now.
fn may_be_claimed(queue: &Queue) -> TaskNews {
    TaskNews { ready: [(queue.app.clone(), queue.id.clone())].into(), ..TaskNews::default() }
}

/// What is told of a change of a schedule, which may be the next thing to be done.
fn clock_must_look(at: Timestamp) -> TaskNews {
    TaskNews { wake_at: Some(at), ..TaskNews::default() }
}

#[async_trait]
impl ClaimStore for SqlStore {
    async fn claim_tasks(&self, requests: Vec<ClaimRequest>) -> Result<Vec<Claim>, StoreError> {
        match self.writer.tasks(Operation::Claim(requests)).await? {
            Outcome::Claimed(claims) => Ok(claims),
            _ => Err(other()),
        }
    }

    async fn payloads(&self, tasks: Vec<ClaimedTask>) -> Result<Vec<ClaimedTask>, StoreError> {
        tasks::payloads(&self.readers, tasks).await
    }

    async fn move_tasks(&self, words: Vec<TaskWord>) -> Result<Vec<Result<Worded, WordRefusal>>, StoreError> {
        match self.writer.tasks(Operation::Move(words)).await? {
            Outcome::Moved(answers) => Ok(answers),
            _ => Err(other()),
        }
    }

    async fn wake_tasks(&self) -> Result<Woken, StoreError> {
        // Tasks first: a resync that fails, or that waits for a lock, holds up no task.
        let Outcome::Woken(woken) = self.writer.tasks(Operation::Wake).await? else { return Err(other()) };
        let due = tasks::due_resyncs(&self.readers, self.context.clock.now()).await?;
        if due.is_empty() {
            return Ok(woken);
        }
        let mut resynced = BTreeSet::new();
        for one in due {
            let fired = one.clone();
            let fired =
                transact!(self, |transaction, context| tasks::fire_resync(transaction, context, &fired)
                    .await);
            match fired {
                Ok(app) => resynced.extend(app),
                Err(reason @ (StoreError::Fenced | StoreError::Lost)) => return Err(reason),
                Err(reason) => {
                    let DueResync { app_id, name } = &one;
                    error!(
                        app.id = app_id,
                        schedule.name = name,
                        "the resync of schedule {name} failed: {reason}"
                    );
                    let at = self.context.clock.now();
                    transact!(self, |transaction| tasks::put_off_resync(transaction, &one, at).await)?;
                }
            }
        }
        // What comes next is known only now, so the clock looks again at once.
        Ok(Woken { resynced, next: Some(self.context.clock.now()), ..woken })
    }

    async fn forget_tasks(&self, limit: u64) -> Result<u64, StoreError> {
        transact!(self, |transaction, context| {
            let at = context.clock.now();
            callbacks::forget(transaction, at).await?;
            worker_subscriptions::forget(transaction, at).await?;
            tasks::forget(transaction, None, at, limit).await
        })
    }

    async fn work_for(&self, words: &WorkWords) -> Result<Vec<QueueWork>, StoreError> {
        worker_subscriptions::work_for(&self.readers, &self.context, words).await
    }

    async fn task_news(&self) -> TaskNews {
        self.context.tasks.next().await
    }
}

#[async_trait]
impl WatchTasks for SqlStore {
    async fn tasks_of_branches(&self, cursors: &[CursorId]) -> Result<Vec<BranchTasks>, StoreError> {
        tasks::of_branches(&self.readers, cursors).await
    }

    async fn changes_of_tasks(&self, app: &AppId, tasks: &[TaskId]) -> Result<Vec<TaskChange>, StoreError> {
        tasks::changes_of(&self.readers, app, tasks).await
    }

    async fn queues_of_watches(&self, watches: &[WatchId]) -> Result<HashMap<WatchId, String>, StoreError> {
        tasks::queues_of_watches(&self.readers, watches).await
    }

    async fn task_of_change(
        &self,
        cursor: &CursorId,
        round: i64,
        position: u64,
    ) -> Result<Option<TaskId>, StoreError> {
        tasks::of_change(&self.readers, cursor, round, position).await
    }
}

#[async_trait]
impl TaskStore for SqlStore {
    async fn create_tasks(&self, app: &AppId, tasks: Vec<NewTask>) -> Result<Creation, StoreError> {
        match self.writer.tasks(Operation::Create(app.clone(), tasks)).await? {
            Outcome::Created(creation) => Ok(creation),
            _ => Err(other()),
        }
    }

    async fn task(&self, app: &AppId, id: &TaskId) -> Result<Task, StoreError> {
        tasks::find(&self.readers, app, id).await
    }

    async fn task_claims(&self, task: &Task) -> Result<Vec<PastClaim>, StoreError> {
        tasks::claims(&self.readers, task).await
    }

    async fn has_claim(&self, app: &AppId, watch: &WatchId, worker: &str) -> Result<bool, StoreError> {
        tasks::has_claim(&self.readers, app, watch, (worker, self.context.clock.now())).await
    }

    async fn task_bodies(&self, app: &AppId, id: &TaskId) -> Result<TaskBodies, StoreError> {
        tasks::bodies(&self.readers, app, id).await
    }

    async fn list_tasks(
        &self,
        app: &AppId,
        filter: &TaskFilter,
        before: Option<&TaskId>,
        limit: u64,
    ) -> Result<Searched<Task, TaskId>, StoreError> {
        let _turn = self.searches.turn(Some(app)).await;
        tasks::list(&self.readers, app, filter, before, limit).await
    }

    async fn redrivable(
        &self,
        app: &AppId,
        filter: &TaskFilter,
        after: Option<&TaskId>,
        limit: u64,
    ) -> Result<Searched<TaskId, TaskId>, StoreError> {
        let _turn = self.searches.turn(Some(app)).await;
        tasks::redrivable(&self.readers, app, filter, after, limit).await
    }

    async fn redrive_tasks(&self, app: &AppId, tasks: Vec<TaskId>) -> Result<Redriven, StoreError> {
        let word = |id| TaskWord {
            id,
            app: app.clone(),
            proof: None,
            step: TaskMove::Redrive,
            body: None,
            then: Vec::new(),
        };
        if tasks.is_empty() {
            return Ok(Redriven::default());
        }
        let mut redriven = Redriven::default();
        for answer in self.move_tasks(tasks.into_iter().map(word).collect()).await? {
            match answer {
                Ok(_) => redriven.count += 1,
                Err(WordRefusal::Redrive(refusal)) if redriven.refusal.is_none() => {
                    redriven.refusal = Some(refusal);
                }
                // Another request moved the task meanwhile.
                Err(_) => {}
            }
        }
        Ok(redriven)
    }

    async fn queues(
        &self,
        filter: &QueueFilter,
        after: Option<(&AppId, &str)>,
        limit: u64,
    ) -> Result<Vec<Queue>, StoreError> {
        tasks::queues(&self.readers, filter, after, limit).await
    }

    async fn queue(&self, app: &AppId, command: &str) -> Result<Queue, StoreError> {
        tasks::queue(&self.readers, app, command).await
    }

    async fn set_queue(
        &self,
        app: &AppId,
        command: &str,
        settings: &QueueSettings,
        at: Timestamp,
    ) -> Result<Queue, StoreError> {
        let (id, name, settings) = (app.clone(), command.to_owned(), settings.clone());
        transact!(self, |transaction, context| {
            let set = tasks::set(transaction, &id, &name, &settings, at).await?;
            // A wider bound lets workers go on.
            context.tasks.mark(may_be_claimed(&set));
            Ok(set)
        })
    }

    async fn set_topic(
        &self,
        app: &AppId,
        command: &str,
        policy: Option<&TopicPolicy>,
        at: Timestamp,
    ) -> Result<Queue, StoreError> {
        let (id, name, policy) = (app.clone(), command.to_owned(), policy.cloned());
        transact!(self, |transaction, context| {
            let set = tasks::set_topic(transaction, &id, &name, policy.as_ref(), at).await?;
            context.tasks.mark(may_be_claimed(&set));
            Ok(set)
        })
    }

    async fn pause_queue(&self, app: &AppId, command: &str, is_paused: bool) -> Result<Queue, StoreError> {
        let (id, name) = (app.clone(), command.to_owned());
        transact!(self, |transaction, context| {
            let set = tasks::pause(transaction, &id, &name, is_paused).await?;
            if !is_paused {
                context.tasks.mark(may_be_claimed(&set));
            }
            Ok(set)
        })
    }

    async fn forget_tasks_of(&self, app: &AppId, before: Timestamp, limit: u64) -> Result<u64, StoreError> {
        let app = app.clone();
        transact!(self, |transaction| tasks::forget(transaction, Some(&app), before, limit).await)
    }

    async fn purge_queue(&self, app: &AppId, command: &str, limit: u64) -> Result<u64, StoreError> {
        let (id, name) = (app.clone(), command.to_owned());
        transact!(self, |transaction, context| {
            tasks::purge(transaction, context, &id, &name, limit).await
        })
    }

    async fn purge_ended(
        &self,
        app: &AppId,
        command: &str,
        state: TaskState,
        limit: u64,
    ) -> Result<u64, StoreError> {
        let (id, name) = (app.clone(), command.to_owned());
        transact!(self, |transaction, context| {
            tasks::purge_ended(transaction, (&id, name.as_str()), state, context.clock.now(), limit).await
        })
    }
}

#[async_trait]
impl ScheduleStore for SqlStore {
    async fn schedules(
        &self,
        filter: &ScheduleFilter,
        after: Option<(&AppId, &str)>,
        limit: u64,
    ) -> Result<Vec<Schedule>, StoreError> {
        tasks::schedules(&self.readers, filter, after, limit).await
    }

    async fn schedule(&self, app: &AppId, name: &str) -> Result<Schedule, StoreError> {
        tasks::schedule(&self.readers, app, name).await
    }

    async fn set_schedule(
        &self,
        app: &AppId,
        name: &str,
        settings: &ScheduleSettings,
    ) -> Result<Schedule, StoreError> {
        let (id, name, settings) = (app.clone(), name.to_owned(), settings.clone());
        transact!(self, |transaction, context| {
            let at = context.clock.now();
            let set = tasks::set_schedule(transaction, &id, &name, &settings, at).await?;
            context.tasks.mark(clock_must_look(at));
            Ok(set)
        })
    }

    async fn pause_schedule(&self, app: &AppId, name: &str, is_paused: bool) -> Result<Schedule, StoreError> {
        let (id, name) = (app.clone(), name.to_owned());
        transact!(self, |transaction, context| {
            let at = context.clock.now();
            let set = tasks::pause_schedule(transaction, &id, &name, is_paused, at).await?;
            context.tasks.mark(clock_must_look(at));
            Ok(set)
        })
    }

    async fn remove_schedule(&self, app: &AppId, name: &str) -> Result<(), StoreError> {
        let (id, name) = (app.clone(), name.to_owned());
        transact!(self, |transaction| tasks::remove_schedule(transaction, &id, &name).await)
    }
}
