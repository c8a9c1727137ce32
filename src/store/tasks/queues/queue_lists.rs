//! Reading queues: one, or some by a filter.

use sea_orm::{ConnectionTrait, QueryResult, Value};
use tidings_actors::{
    ports::{Queue, QueueFilter, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, QueueId},
    kind::TaskState,
};

use super::held;
use crate::database::{
    error::OfTable,
    rows::{
        self,
        filter::{self, Column},
        signed,
    },
};

/// The columns of the filter's fields in a statement over `q`, the row of the queue.
pub(crate) fn column(field: &str) -> Option<Column> {
    Some(match field {
        "app" => Column::texts(&["q.app_id", "(select a.name from app a where a.id = q.app_id)"]),
        "command" => Column::texts(&["q.command"]),
        "state" => Column::Words(vec![
            ("open", "not q.is_paused".to_owned().into()),
            ("paused", "q.is_paused".to_owned().into()),
        ]),
        "waiting" => Column::Number("q.waiting"),
        "ready" => Column::Number("q.ready"),
        "claimed" => Column::Number("q.claimed"),
        "failed" => Column::Number("q.failed"),
        "dead" => Column::Number("q.dead"),
        _ => return None,
    })
}

/// Queues by their apps and commands, after the queue of `after`.
pub(crate) async fn queues(
    connection: &impl ConnectionTrait,
    filter: &QueueFilter,
    after: Option<(&AppId, &str)>,
    limit: u64,
) -> Result<Vec<Queue>, StoreError> {
    let mut values: Vec<Value> = vec![signed(limit).into()];
    let mut text = format!("{SHOWN} where q.app_id is not null");
    let mut bind = |value: &str| {
        values.push(value.into());
        values.len()
    };
    if let Some(app) = &filter.app {
        text.push_str(&format!(" and q.app_id = ${}", bind(app.as_str())));
    }
    if let Some((app, command)) = after {
        text.push_str(&format!(" and (q.app_id, q.command) > (${}, ${})", bind(app.as_str()), bind(command)));
    }
    if let Some(query) = &filter.query {
        let meant = filter::condition(connection.get_database_backend(), query, column, &mut values);
        text.push_str(&format!(" and ({meant})"));
    }
    text.push_str(" order by q.app_id, q.command limit $1");
    let found = rows::mixed(connection, "queue", &text, values).await?;
    Ok(found.iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

/// One queue of an app.
pub(crate) async fn queue(
    connection: &impl ConnectionTrait,
    app: &AppId,
    command: &str,
) -> Result<Queue, StoreError> {
    let text = format!("{SHOWN} where q.id = $1");
    let found = rows::mixed(connection, "queue", &text, vec![QueueId::of(app, command).into()]).await?;
    found.first().map(shown).unwrap_or(Err(StoreError::NotFound))
}

const SHOWN: &str = "select q.id, q.app_id, q.command, q.settings, q.is_paused, q.permits_until, q.bytes,
    q.created_at, false as is_stopped, q.waiting, q.ready, q.claimed, q.succeeded, q.failed, q.dead, q.aside,
    q.cancelled, (select t.created_at from task t where t.queue_id = q.id and t.state = 'ready'
       order by t.rank, t.id limit 1) as oldest from queue q";

fn shown(row: &QueryResult) -> Result<Queue, StoreError> {
    let oldest: Option<i64> = row.try_get("", "oldest").of("task")?;
    let (id, queue) = held(row)?;
    let count = |state: &TaskState| Ok((*state, rows::unsigned("queue", queue.count(*state))?));
    Ok(Queue {
        id,
        counts: TaskState::ALL.iter().map(count).collect::<Result<_, StoreError>>()?,
        bytes: rows::unsigned("queue", queue.bytes)?,
        oldest_ready: oldest.map(Timestamp),
        created_at: Timestamp(queue.created_at),
        app: queue.app,
        command: queue.command,
        settings: queue.settings,
        is_paused: queue.is_paused,
    })
}
