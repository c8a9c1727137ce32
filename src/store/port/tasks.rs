//! Tasks and queues, for actors and for the front door.

use async_trait::async_trait;
use tidings_actors::{
    model::task::TaskMove,
    ports::{
        Claim, ClaimRequest, ClaimStore, ClaimedTask, Creation, NewTask, PastClaim, Queue, QueueFilter,
        QueueSettings, QueueWork, Schedule, ScheduleFilter, ScheduleSettings, ScheduleStore, StoreError,
        Task, TaskBodies, TaskFilter, TaskNews, TaskStore, TaskWord, Woken, WordRefusal, Worded, WorkWords,
    },
    time::Timestamp,
};
use tidings_entity::id::{AppId, TaskId};

use super::transact;
use crate::{
    SqlStore,
    error::undecodable,
    subscriptions::callbacks,
    tasks::{self, Operation, Outcome},
    worker_subscriptions,
};

/// An outcome of another kind than the operation's: a defect of ours, not of the database.
fn other() -> StoreError {
    undecodable("task", "the turn answered another operation")
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
        match self.writer.tasks(Operation::Wake).await? {
            Outcome::Woken(woken) => Ok(woken),
            _ => Err(other()),
        }
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

    async fn task_bodies(&self, app: &AppId, id: &TaskId) -> Result<TaskBodies, StoreError> {
        tasks::bodies(&self.readers, app, id).await
    }

    async fn list_tasks(
        &self,
        app: &AppId,
        filter: &TaskFilter,
        before: Option<&TaskId>,
        limit: u64,
    ) -> Result<Vec<Task>, StoreError> {
        tasks::list(&self.readers, app, filter, before, limit).await
    }

    async fn redrivable(&self, app: &AppId, filter: &TaskFilter, most: u64) -> Result<u64, StoreError> {
        tasks::count_redrivable(&self.readers, app, filter, most).await
    }

    async fn redrive_tasks(&self, app: &AppId, filter: &TaskFilter, limit: u64) -> Result<u64, StoreError> {
        let ids = tasks::redrivable(&self.readers, app, filter, limit).await?;
        let word = |id| TaskWord {
            id,
            app: app.clone(),
            proof: None,
            step: TaskMove::Redrive,
            body: None,
            then: Vec::new(),
        };
        if ids.is_empty() {
            return Ok(0);
        }
        let answers = self.move_tasks(ids.into_iter().map(word).collect()).await?;
        Ok(answers.iter().filter(|answer| answer.is_ok()).count() as u64)
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
        let set = transact!(self, |transaction| tasks::set(transaction, &id, &name, &settings, at).await)?;
        // A wider bound lets workers go on.
        self.context
            .tasks
            .tell(TaskNews { ready: [(set.app.clone(), set.id.clone())].into(), ..TaskNews::default() });
        Ok(set)
    }

    async fn pause_queue(&self, app: &AppId, command: &str, is_paused: bool) -> Result<Queue, StoreError> {
        let (id, name) = (app.clone(), command.to_owned());
        let set = transact!(self, |transaction| tasks::pause(transaction, &id, &name, is_paused).await)?;
        if !is_paused {
            let ready = [(set.app.clone(), set.id.clone())].into();
            self.context.tasks.tell(TaskNews { ready, ..TaskNews::default() });
        }
        Ok(set)
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
        let set = transact!(self, |transaction, context| {
            tasks::set_schedule(transaction, &id, &name, &settings, context.clock.now()).await
        })?;
        self.look_at_clock();
        Ok(set)
    }

    async fn pause_schedule(&self, app: &AppId, name: &str, is_paused: bool) -> Result<Schedule, StoreError> {
        let (id, name) = (app.clone(), name.to_owned());
        let set = transact!(self, |transaction, context| {
            tasks::pause_schedule(transaction, &id, &name, is_paused, context.clock.now()).await
        })?;
        self.look_at_clock();
        Ok(set)
    }

    async fn remove_schedule(&self, app: &AppId, name: &str) -> Result<(), StoreError> {
        let (id, name) = (app.clone(), name.to_owned());
        transact!(self, |transaction| tasks::remove_schedule(transaction, &id, &name).await)
    }
}

impl SqlStore {
    /// Has whoever keeps the clock look now: a schedule may be the next thing to be done.
    fn look_at_clock(&self) {
        let wake_at = Some(self.context.clock.now());
        self.context.tasks.tell(TaskNews { wake_at, ..TaskNews::default() });
    }
}
