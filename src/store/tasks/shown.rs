//! From rows to tasks as others see them.

use tidings_actors::{
    ports::{Origin, StoreError, Task},
    time::Timestamp,
};
use tidings_entity::task;

use crate::database::{error::undecodable, rows::unsigned};

/// A task of this command.
pub(super) fn task(row: task::Model, command: String) -> Result<Task, StoreError> {
    Ok(Task {
        priority: u8::try_from(row.priority).map_err(|error| undecodable("task", error))?,
        attempts: unsigned("task", row.attempts)?,
        max_attempts: unsigned("task", row.max_attempts)?,
        origin: Origin { kind: row.origin_kind, name: row.origin },
        id: row.id,
        app: row.app_id,
        command,
        state: row.state,
        wake_at: row.wake_at.map(Timestamp),
        worker: row.worker,
        is_flagged: row.flag.is_some(),
        is_of_watch: row.cursor_id.is_some(),
        error: row.error,
        parent: row.parent_id,
        callback: row.callback,
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
        claimed_at: row.claimed_at.map(Timestamp),
        ended_at: row.ended_at.map(Timestamp),
    })
}
