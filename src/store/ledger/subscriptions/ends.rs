//! What codeQ's form tells of the end of a task beside the entry: a result of any size, and the names of the
//! artifacts. They are read when the message is sent, and only while the task is kept.

use sea_orm::{ConnectionTrait, FromQueryResult};
use serde_json::{Map, Value as Json};
use tidings_actors::ports::{LedgerEntry, StoreError};
use tidings_entity::kind::EntryType;

use crate::{database::rows, ledger};

#[derive(FromQueryResult)]
struct ResultOfTask {
    result: Option<String>,
}

#[derive(FromQueryResult)]
struct NameOfArtifact {
    name: String,
}

/// The entries, those about the ends of tasks with results and artifacts.
pub(super) async fn whole(
    connection: &impl ConnectionTrait,
    mut entries: Vec<LedgerEntry>,
) -> Result<Vec<LedgerEntry>, StoreError> {
    for entry in entries.iter_mut().filter(|entry| entry.entry_type == EntryType::TaskEnded) {
        let Ok(mut data) = serde_json::from_str::<Map<String, Json>>(&entry.data) else { continue };
        if let Some(result) = result(connection, entry, &data).await? {
            data.insert("result".to_owned(), result);
        }
        data.insert("artifacts".to_owned(), names(connection, entry).await?.into());
        entry.data = Json::Object(data).to_string();
    }
    Ok(entries)
}

/// A result that is too large for the entry. One of another size is that of a later end.
async fn result(
    connection: &impl ConnectionTrait,
    entry: &LedgerEntry,
    data: &Map<String, Json>,
) -> Result<Option<Json>, StoreError> {
    let Some(size) = data.get("result_bytes").and_then(Json::as_u64) else { return Ok(None) };
    if data.contains_key("result") {
        return Ok(None);
    }
    let text = "select b.result from task_body b join task t on t.id = b.task_id
                where t.id = $1 and t.app_id = $2";
    let values = vec![entry.subject.as_str().into(), entry.app.clone().into()];
    let found: Option<ResultOfTask> = rows::one(connection, "task_body", text, values).await?;
    let result = found.and_then(|body| body.result).filter(|result| result.len() as u64 == size);
    Ok(result.and_then(|result| ledger::value_of(&result)))
}

async fn names(connection: &impl ConnectionTrait, entry: &LedgerEntry) -> Result<Vec<String>, StoreError> {
    let text = "select name from artifact where task_id = $1 and app_id = $2 order by name";
    let values = vec![entry.subject.as_str().into(), entry.app.clone().into()];
    let found: Vec<NameOfArtifact> = rows::all(connection, "artifact", text, values).await?;
    Ok(found.into_iter().map(|artifact| artifact.name).collect())
}
