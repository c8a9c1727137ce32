//! Reading tasks: one, some by a filter, and what they work on.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use tidings_actors::ports::{ClaimedTask, StoreError, Task, TaskBodies, TaskFilter};
use tidings_entity::{
    id::{AppId, TaskId},
    kind::TaskState,
    task, task_body,
};

use super::shown;
use crate::{
    error::OfTable,
    rows::{
        self, LISTED_MAX, columns,
        filter::{self, Column},
        list as listed, signed,
    },
};

/// Behind the ids of all tasks, whatever the order of a database's texts is.
const BEHIND_ALL: &str = "tsk_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZ";
/// The states that a redrive leads out of, as the index of faults has them.
const FAULTS: &str = "t.state in ('failed', 'dead', 'cancelled')";

/// The columns of the filter's fields in a statement over `t`, the row of the task.
pub(crate) fn column(field: &str) -> Option<Column> {
    let command = "(select x.command from queue x where x.id = t.queue_id)";
    Some(match field {
        "id" => Column::texts(&["t.id"]),
        "command" => Column::texts(&[command]),
        "state" => {
            let word = |state: &TaskState| (state.as_str(), format!("t.state = '{state}'").into());
            Column::Words(TaskState::ALL.iter().map(word).collect())
        }
        "priority" => Column::Number("t.priority"),
        "attempts" => Column::Number("t.attempts"),
        "worker" => Column::texts(&["t.worker"]),
        "error" => Column::texts(&["t.error"]),
        "since" | "until" => Column::Number("t.created_at"),
        _ => return None,
    })
}

/// One task of an app.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &TaskId,
) -> Result<Task, StoreError> {
    let text = format!(
        "select {}, q.command from task t join queue q on q.id = t.queue_id
         where t.id = $1 and t.app_id = $2",
        columns::<task::Entity>("t")
    );
    let found = rows::mixed(connection, "task", &text, vec![id.clone().into(), app.clone().into()]).await?;
    found.first().map(read).unwrap_or(Err(StoreError::NotFound))
}

/// What a task works on and what came of it.
pub(crate) async fn bodies(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &TaskId,
) -> Result<TaskBodies, StoreError> {
    let text = "select b.* from task_body b join task t on t.id = b.task_id
                where b.task_id = $1 and t.app_id = $2";
    let values = vec![id.clone().into(), app.clone().into()];
    let body: Option<task_body::Model> = rows::one(connection, "task_body", text, values).await?;
    let body = body.ok_or(StoreError::NotFound)?;
    Ok(TaskBodies { payload: body.payload, result: body.result, progress: body.progress })
}

/// Fills in what claimed tasks work on.
pub(crate) async fn payloads(
    connection: &impl ConnectionTrait,
    tasks: Vec<ClaimedTask>,
) -> Result<Vec<ClaimedTask>, StoreError> {
    let ids: Vec<Vec<Value>> = tasks.iter().map(|task| vec![task.task.id.clone().into()]).collect();
    let mut found: HashMap<TaskId, String> = HashMap::with_capacity(tasks.len());
    for some in ids.chunks(LISTED_MAX) {
        let (values, bound) = listed(connection, &["text"], some);
        let text =
            format!("with v(id) as ({values}) select * from task_body where task_id in (select id from v)");
        for body in rows::all::<task_body::Model>(connection, "task_body", &text, bound).await? {
            found.insert(body.task_id, body.payload);
        }
    }
    let fill = |task: ClaimedTask| {
        let payload = found.remove(&task.task.id)?;
        Some(ClaimedTask { payload, ..task })
    };
    Ok(tasks.into_iter().filter_map(fill).collect())
}

/// The conditions of a filter over `t`.
fn conditions(connection: &impl ConnectionTrait, filter: &TaskFilter, values: &mut Vec<Value>) -> String {
    let mut text = String::new();
    if let Some(state) = filter.state {
        text.push_str(&format!(" and t.state = '{state}'"));
        if matches!(state, TaskState::Failed | TaskState::Dead | TaskState::Cancelled) {
            text.push_str(&format!(" and {FAULTS}"));
        }
    }
    if let Some(query) = &filter.query {
        let backend = connection.get_database_backend();
        let meant = filter::condition(backend, query, column, values);
        text.push_str(&format!(" and ({meant})"));
    }
    text
}

/// The condition of the queues that a filter is about.
fn of_queues(app: &AppId, filter: &TaskFilter, values: &mut Vec<Value>) -> String {
    values.push(app.clone().into());
    let mut text = format!("q.app_id = ${}", values.len());
    if let Some(command) = &filter.command {
        values.push(command.clone().into());
        text.push_str(&format!(" and q.command = ${}", values.len()));
    }
    text
}

/// Tasks of an app, newest first. Of each queue only as many are read as the list has, so that a short list
/// costs no more than one look into each.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &TaskFilter,
    before: Option<&TaskId>,
    limit: u64,
) -> Result<Vec<Task>, StoreError> {
    let mut values = Vec::new();
    let queues = of_queues(app, filter, &mut values);
    values.push(before.map_or(BEHIND_ALL, TaskId::as_str).into());
    let before = values.len();
    values.push(signed(limit).into());
    let limit = values.len();
    let conditions = conditions(connection, filter, &mut values);
    let text = format!(
        "select {}, q.command from queue q join task t on t.id in (
           select t.id from task t where t.queue_id = q.id and t.id < ${before}{conditions}
           order by t.id desc limit ${limit})
         where {queues} order by t.id desc limit ${limit}",
        columns::<task::Entity>("t")
    );
    let found = rows::mixed(connection, "task", &text, values).await?;
    Ok(found.iter().map(read).filter_map(rows::readable_or_logged).collect())
}

#[derive(FromQueryResult)]
struct Found {
    id: TaskId,
}

/// The oldest tasks of an app that a redrive by a filter sends again.
pub(crate) async fn redrivable(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &TaskFilter,
    limit: u64,
) -> Result<Vec<TaskId>, StoreError> {
    let mut values = Vec::new();
    let queues = of_queues(app, filter, &mut values);
    values.push(signed(limit).into());
    let limit = values.len();
    let conditions = conditions(connection, filter, &mut values);
    let text = format!(
        "select t.id from queue q join task t on t.queue_id = q.id
         where {queues} and {FAULTS}{conditions} order by t.id limit ${limit}"
    );
    let found: Vec<Found> = rows::all(connection, "task", &text, values).await?;
    Ok(found.into_iter().map(|found| found.id).collect())
}

/// How many a redrive by a filter would send again, up to `most`.
pub(crate) async fn count_redrivable(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &TaskFilter,
    most: u64,
) -> Result<u64, StoreError> {
    let mut values = Vec::new();
    let queues = of_queues(app, filter, &mut values);
    values.push(signed(most).into());
    let limit = values.len();
    let conditions = conditions(connection, filter, &mut values);
    let text = format!(
        "select count(*) from (select t.id from queue q join task t on t.queue_id = q.id
           where {queues} and {FAULTS}{conditions} limit ${limit}) found"
    );
    rows::unsigned("task", rows::number(connection, "task", &text, values).await?)
}

fn read(row: &QueryResult) -> Result<Task, StoreError> {
    let task = task::Model::from_query_result(row, "t_").of("task")?;
    shown::task(task, row.try_get("", "command").of("queue")?)
}
