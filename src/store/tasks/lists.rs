//! Reading tasks: one, some by a filter, and what they work on.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use tidings_actors::ports::{ClaimedTask, Searched, StoreError, Task, TaskBodies, TaskFilter};
use tidings_entity::{
    id::{AppId, TaskId},
    kind::TaskState,
    task, task_body,
};

use super::shown;
use crate::database::{
    error::OfTable,
    rows::{
        self, LISTED_MAX, columns,
        filter::{self, Column, bounded},
        list as listed, signed,
    },
};

/// Behind the ids of all tasks, whatever the order of a database's texts is.
const BEHIND_ALL: &str = "tsk_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZ";
/// Tasks that one list looks at, with a filter of few terms.
const LOOKED_AT_MAX: u64 = 10_000;
/// The states that a redrive leads out of, as the index of faults has them.
pub(super) const FAULTS: &str = "t.state in ('failed', 'dead', 'cancelled')";

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
    let mut text = of_state(filter);
    if let Some(query) = &filter.query {
        let backend = connection.get_database_backend();
        let meant = filter::condition(backend, query, column, values);
        text.push_str(&format!(" and ({meant})"));
    }
    text
}

/// The condition of the one state that a filter is about.
fn of_state(filter: &TaskFilter) -> String {
    let Some(state) = filter.state else { return String::new() };
    match state {
        TaskState::Failed | TaskState::Dead | TaskState::Cancelled => {
            format!(" and t.state = '{state}' and {FAULTS}")
        }
        _ => format!(" and t.state = '{state}'"),
    }
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

/// Tasks of an app, newest first. Of each queue only as many are read as the list has; with a query the list
/// looks at [`LOOKED_AT_MAX`] tasks at most.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &TaskFilter,
    before: Option<&TaskId>,
    limit: u64,
) -> Result<Searched<Task, TaskId>, StoreError> {
    let end = end(connection, app, filter, before, limit).await?;
    let mut values = Vec::new();
    let queues = of_queues(app, filter, &mut values);
    values.push(before.map_or(BEHIND_ALL, TaskId::as_str).into());
    let before = values.len();
    values.push(end.as_ref().map_or("", TaskId::as_str).into());
    let from = values.len();
    values.push(signed(limit + 1).into());
    let most = values.len();
    let conditions = conditions(connection, filter, &mut values);
    // A cross join, so that SQLite reads the queues first, and of each of them only this range.
    let text = format!(
        "select {}, q.command from queue q cross join task t
         where {queues} and t.queue_id = q.id and t.id < ${before} and t.id >= ${from}{conditions}
         order by t.id desc limit ${most}",
        columns::<task::Entity>("t")
    );
    let found = rows::mixed(connection, "task", &text, values).await?;
    let mut found: Vec<Task> = found.iter().map(read).filter_map(rows::readable_or_logged).collect();
    let is_more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if is_more { found.last().map(|task| task.id.clone()) } else { end };
    Ok(Searched { found, next })
}

/// The last task that a list looks at; `None`: the list looks at all of them. Each queue has a share: with a
/// query an equal part of [`LOOKED_AT_MAX`], without one the tasks of a page and one more. The list ends with
/// the newest of the tasks at which a queue used up its share: so no task between two pages is left out.
async fn end(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &TaskFilter,
    before: Option<&TaskId>,
    limit: u64,
) -> Result<Option<TaskId>, StoreError> {
    let last = share(connection, app, filter, limit + 1).await? - 1;
    let mut values = Vec::new();
    let queues = of_queues(app, filter, &mut values);
    values.push(before.map_or(BEHIND_ALL, TaskId::as_str).into());
    let before = values.len();
    let text = format!(
        "select x.id from (select (select t.id from task t where t.queue_id = q.id and t.id < ${before}{}
           order by t.id desc limit 1 offset {last}) as id from queue q where {queues}) x
         where x.id is not null order by x.id desc limit 1",
        of_state(filter)
    );
    let end: Option<Found> = rows::one(connection, "task", &text, values).await?;
    Ok(end.map(|end| end.id))
}

#[derive(FromQueryResult)]
struct Found {
    id: TaskId,
}

/// How many tasks of each queue one search looks at, at least one: with a query an equal part of
/// [`LOOKED_AT_MAX`], without one `most`.
async fn share(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &TaskFilter,
    most: u64,
) -> Result<u64, StoreError> {
    let Some(query) = &filter.query else { return Ok(most.max(1)) };
    let mut values = Vec::new();
    let queues = of_queues(app, filter, &mut values);
    let text = format!("select count(*) from queue q where {queues}");
    let count = rows::unsigned("queue", rows::number(connection, "queue", &text, values).await?)?;
    Ok((bounded(LOOKED_AT_MAX, Some(query)) / count.max(1)).max(1))
}

/// The oldest tasks of an app that a redrive by a filter sends again, after `after`. Each queue has a share
/// of the tasks that a search looks at: the search ends with the oldest task at which a queue used up its
/// share.
pub(crate) async fn redrivable(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &TaskFilter,
    after: Option<&TaskId>,
    limit: u64,
) -> Result<Searched<TaskId, TaskId>, StoreError> {
    let last = share(connection, app, filter, limit).await? - 1;
    let mut values = Vec::new();
    let queues = of_queues(app, filter, &mut values);
    values.push(after.map_or("", TaskId::as_str).into());
    let from = values.len();
    let text = format!(
        "select x.id from (select (select t.id from task t
             where t.queue_id = q.id and {FAULTS} and t.id > ${from}
             order by t.id limit 1 offset {last}) as id from queue q where {queues}) x
         where x.id is not null order by x.id limit 1"
    );
    let end: Option<Found> = rows::one(connection, "task", &text, values.clone()).await?;
    let end = end.map(|end| end.id);
    values.push(end.as_ref().map_or(BEHIND_ALL, TaskId::as_str).into());
    let to = values.len();
    values.push(signed(limit).into());
    let most = values.len();
    let conditions = conditions(connection, filter, &mut values);
    // A cross join, as in a list.
    let text = format!(
        "select t.id from queue q cross join task t
         where {queues} and t.queue_id = q.id and {FAULTS} and t.id > ${from} and t.id <= ${to}{conditions}
         order by t.id limit ${most}"
    );
    let found: Vec<Found> = rows::all(connection, "task", &text, values).await?;
    let found: Vec<TaskId> = found.into_iter().map(|found| found.id).collect();
    let is_cut = found.len() as u64 >= limit;
    let next = found.last().filter(|_| is_cut).cloned().or(end);
    Ok(Searched { found, next })
}

fn read(row: &QueryResult) -> Result<Task, StoreError> {
    let task = task::Model::from_query_result(row, "t_").of("task")?;
    shown::task(task, row.try_get("", "command").of("queue")?)
}
