//! What people change of queues: their settings, pauses and purges.

use std::collections::BTreeSet;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{QUEUES_MAX, Queue, QueueSettings, StoreError, TopicPolicy},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId, TaskId},
    kind::TaskState,
};

use super::{Queues, insert, queue_lists::queue, written};
use crate::{
    Context,
    database::rows::{self, signed},
    ledger,
    tasks::{
        endings::{self, Purged},
        schedules::ticks,
    },
};

/// Declares a queue, or gives it other settings. Its topic stays.
pub(crate) async fn set(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
    settings: &QueueSettings,
    at: Timestamp,
) -> Result<Queue, StoreError> {
    let topic = match held(connection, app, command).await? {
        Some(settings) => settings.topic,
        None => declare(connection, app, command, at).await?.topic,
    };
    let settings = QueueSettings { topic, ..settings.clone() };
    write(connection, app, command, &settings).await
}

/// Gives a queue a topic, or takes its topic from it.
pub(crate) async fn set_topic(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
    policy: Option<&TopicPolicy>,
    at: Timestamp,
) -> Result<Queue, StoreError> {
    let settings = match (held(connection, app, command).await?, policy) {
        (Some(settings), Some(policy)) => settings.with_topic(policy.clone(), at),
        (None, Some(policy)) => declare(connection, app, command, at).await?.with_topic(policy.clone(), at),
        (Some(settings), None) if settings.topic.is_some() => settings.without_topic(),
        (_, None) => return Err(StoreError::NotFound),
    };
    write(connection, app, command, &settings).await
}

/// The settings of a queue, whose row is locked; `None`: there is no queue.
async fn held(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
) -> Result<Option<QueueSettings>, StoreError> {
    let id = QueueId::of(app, command);
    let queues = Queues::load(connection, &BTreeSet::from([id.clone()])).await?;
    Ok(queues.get(&id).map(|queue| queue.settings.clone()))
}

/// Makes a queue. Another replica may make the same queue meanwhile: then its settings count.
async fn declare(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
    at: Timestamp,
) -> Result<QueueSettings, StoreError> {
    let text = "select count(*) from queue where app_id = $1";
    let count = rows::number(connection, "queue", text, vec![app.clone().into()]).await?;
    if count >= signed(QUEUES_MAX) {
        return Err(StoreError::Conflict(format!("an app has at most {QUEUES_MAX} queues")));
    }
    insert(connection, &QueueId::of(app, command), app, command, &QueueSettings::default(), at).await?;
    Ok(held(connection, app, command).await?.unwrap_or_default())
}

async fn write(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
    settings: &QueueSettings,
) -> Result<Queue, StoreError> {
    let text = "update queue set settings = $1 where id = $2";
    let values = vec![written(settings)?.into(), QueueId::of(app, command).into()];
    rows::execute(connection, "queue", text, values).await?;
    queue(connection, app, command).await
}

/// Pauses a queue, or lets it go on.
pub(crate) async fn pause(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
    is_paused: bool,
) -> Result<Queue, StoreError> {
    let text = "update queue set is_paused = $1 where id = $2";
    let values = vec![is_paused.into(), QueueId::of(app, command).into()];
    if rows::execute(connection, "queue", text, values).await? == 0 {
        return Err(StoreError::NotFound);
    }
    queue(connection, app, command).await
}

/// Removes open tasks of a queue that no watch created and nobody has claimed, at most `limit`. Schedules
/// that wait for the end of these tasks go on. Returns the number of the tasks.
pub(crate) async fn purge(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    command: &str,
    limit: u64,
) -> Result<u64, StoreError> {
    let id = QueueId::of(app, command);
    let mut queues = Queues::load(connection, &BTreeSet::from([id.clone()])).await?;
    let Some(queue) = queues.get_mut(&id) else { return Err(StoreError::NotFound) };
    // A task of a watch goes only with its end, or its round could not end.
    let text = "delete from task where id in (select id from task where queue_id = $1
                  and state in ('waiting', 'ready', 'aside') and cursor_id is null order by id limit $2)
                returning id, app_id, state, bytes, attempts, origin_kind, origin, callback";
    let values = vec![id.into(), signed(limit).into()];
    let gone: Vec<Purged> = rows::all(connection, "task", text, values).await?;
    for task in &gone {
        queue.left(task.state, task.bytes);
    }
    queues.write(connection).await?;
    let at = context.clock.now();
    let notes = endings::of_purged(connection, command, &gone, at).await?;
    ledger::write(connection, context, notes, at).await?;
    let of_ticks: Vec<TaskId> =
        gone.iter().filter(|task| task.is_of_tick()).map(|task| task.id.clone()).collect();
    let mut news = queues.news();
    if ticks::wake_after(connection, &of_ticks, at).await? {
        news.wake_at = Some(at);
    }
    let count = gone.len() as u64;
    news.ended = gone.into_iter().map(|task| task.id).collect();
    context.tasks.mark(news);
    Ok(count)
}

/// Sets the numbers of queues right whose tasks were all removed, of an app that is being erased.
pub(crate) async fn empty(connection: &impl ConnectionTrait, app: &AppId) -> Result<(), StoreError> {
    let zero: Vec<String> = TaskState::ALL.iter().map(|state| format!("{state} = 0")).collect();
    let text = format!(
        "update queue set {}, bytes = 0 where app_id = $1
           and not exists (select 1 from task t where t.queue_id = queue.id)",
        zero.join(", ")
    );
    rows::execute(connection, "queue", &text, vec![app.clone().into()]).await.map(drop)
}
