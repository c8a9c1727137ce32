//! Tasks that go because their time is over, and the claims of a restored database.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    model::task::KEY_KEPT,
    ports::{QueueSettings, Random, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId},
    kind::TaskState,
};

use super::{
    endings,
    lists::FAULTS,
    queues::{Queues, is_open},
    watch_tasks::aside,
};
use crate::database::rows::{self, signed};

/// Why the watches of a restored database are paused whose changes become tasks.
const RESTORED: &str =
    "the database was restored from a backup, and nobody knows what workers did since; resume it to go on";

#[derive(FromQueryResult)]
struct GoneTask {
    queue_id: QueueId,
    state: TaskState,
    bytes: i64,
}

/// Removes ended tasks whose time was over at this moment, at most `limit`; with `app` only those of this
/// app. How many went.
pub(crate) async fn forget(
    connection: &impl ConnectionTrait,
    app: Option<&AppId>,
    at: Timestamp,
    limit: u64,
) -> Result<u64, StoreError> {
    let mut gone: Vec<GoneTask> = Vec::new();
    for state in TaskState::ALL.iter().filter(|state| !is_open(**state)) {
        let left = limit.saturating_sub(gone.len() as u64);
        let mut values = vec![(*state).into(), at.0.into(), signed(left).into()];
        values.extend(app.map(|app| app.clone().into()));
        let of_app = if app.is_some() { "and app_id = $4" } else { "" };
        let text = format!(
            "delete from task where id in (select id from task where state = $1 and wake_at <= $2 {of_app}
               order by wake_at, id limit $3) returning queue_id, state, bytes"
        );
        gone.extend(rows::all::<GoneTask>(connection, "task", &text, values).await?);
    }
    count_gone(connection, &gone).await
}

/// Removes tasks of a queue (its app and command) that failed, died or were cancelled, at most `limit`. A
/// task with a key stays until its key may be used again. How many went.
pub(crate) async fn purge_ended(
    connection: &impl ConnectionTrait,
    (app, command): (&AppId, &str),
    state: TaskState,
    at: Timestamp,
    limit: u64,
) -> Result<u64, StoreError> {
    let id = QueueId::of(app, command);
    let queues = Queues::load(connection, &BTreeSet::from([id.clone()])).await?;
    if queues.get(&id).is_none() {
        return Err(StoreError::NotFound);
    }
    let kept = i64::try_from(KEY_KEPT.as_millis()).unwrap_or(i64::MAX);
    let values = vec![id.into(), state.into(), at.0.saturating_sub(kept).into(), signed(limit).into()];
    let text = format!(
        "delete from task where id in (select t.id from task t where t.queue_id = $1 and {FAULTS}
           and t.state = $2 and (t.key_hash is null or t.ended_at <= $3) order by t.id limit $4)
         returning queue_id, state, bytes"
    );
    let gone: Vec<GoneTask> = rows::all(connection, "task", &text, values).await?;
    count_gone(connection, &gone).await
}

/// Corrects the numbers of the queues of removed tasks. How many these are.
async fn count_gone(connection: &impl ConnectionTrait, gone: &[GoneTask]) -> Result<u64, StoreError> {
    if gone.is_empty() {
        return Ok(0);
    }
    let ids = gone.iter().map(|task| task.queue_id.clone()).collect();
    let mut queues = Queues::load(connection, &ids).await?;
    for task in gone {
        if let Some(queue) = queues.get_mut(&task.queue_id) {
            queue.left(task.state, task.bytes);
        }
    }
    queues.write(connection).await?;
    Ok(gone.len() as u64)
}

/// Voids all claims of a restored database: what workers did with them since the backup is not known. Their
/// attempts are taken back.
pub(crate) async fn of_restored(
    connection: &impl ConnectionTrait,
    random: &dyn Random,
    at: Timestamp,
) -> Result<(), StoreError> {
    aside::of_restored(connection, RESTORED).await?;
    endings::of_restored(connection, random, at).await?;
    let count = "(select count(*) from task t where t.queue_id = queue.id and t.state = 'claimed'
                   and t.flag is";
    let bytes = "(select coalesce(sum(t.bytes), 0) from task t where t.queue_id = queue.id
                   and t.state = 'claimed' and t.flag is not null)";
    let texts = [
        format!(
            "insert into task_claim (task_id, claimed_at, ended_at, worker, ended_by)
             select id, claimed_at, {}, worker, 'voided' from task
             where state = 'claimed' and claimed_at is not null and worker is not null
             on conflict (task_id, claimed_at) do nothing",
            at.0
        ),
        format!(
            "update queue set ready = ready + {count} null), cancelled = cancelled + {count} not null),
               bytes = bytes - {bytes}, claimed = 0 where claimed > 0"
        ),
        format!(
            "update task set state = 'cancelled', claim = null, flag = null, ended_at = {0}, updated_at = {0},
               wake_at = {1} where state = 'claimed' and flag is not null",
            at.0,
            at.after(QueueSettings::default().rules().retention).0
        ),
        format!(
            "update task set state = 'ready', claim = null, worker = null, wake_at = null,
               attempts = attempts - 1, updated_at = {} where state = 'claimed'",
            at.0
        ),
    ];
    for text in &texts {
        rows::execute(connection, "task", text, vec![]).await?;
    }
    Ok(())
}
