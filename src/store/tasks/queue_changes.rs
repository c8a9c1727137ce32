//! What people change of queues: their settings, pauses and purges.

use std::collections::BTreeSet;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{QUEUES_MAX, Queue, QueueSettings, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId},
    kind::TaskState,
};

use super::{
    endings::{self, Purged},
    queue_lists::queue,
    queues::{Queues, insert, written},
};
use crate::{
    Context, ledger,
    rows::{self, signed},
};

/// Declares a queue, or gives it other settings.
pub(crate) async fn set(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
    settings: &QueueSettings,
    at: Timestamp,
) -> Result<Queue, StoreError> {
    let text = "update queue set settings = $1 where id = $2";
    let values = vec![written(settings)?.into(), QueueId::of(app, command).into()];
    if rows::execute(connection, "queue", text, values).await? == 0 {
        let text = "select count(*) from queue where app_id = $1";
        let count = rows::number(connection, "queue", text, vec![app.clone().into()]).await?;
        if count >= signed(QUEUES_MAX) {
            return Err(StoreError::Conflict(format!("an app has at most {QUEUES_MAX} queues")));
        }
        insert(connection, &QueueId::of(app, command), app, command, settings, at).await?;
    }
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

/// Removes open tasks of a queue that no watch created and nobody has claimed, at most `limit`. How many
/// went.
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
    Ok(gone.len() as u64)
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
