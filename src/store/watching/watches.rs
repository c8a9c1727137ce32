//! Watches as their apps see them, and changes of their settings.

pub(crate) mod pinned;
pub(crate) mod registration;
pub(crate) mod resync;
pub(crate) mod skip;
pub(crate) mod views;
pub(crate) mod watch_search;

use std::{collections::HashMap, sync::LazyLock};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    ports::{CursorStatus, HeadFault, RepositoryFacts, Selector, StoreError, Watch, WatchPatch, WatchSink},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CredentialId, CursorId, ObjectId, WatchId},
    kind::{CursorState, EntryType, SinkKind, WatchState},
    watch,
};

use super::{sources::heads, statuses};
use crate::{
    Context,
    apps::{self, sinks},
    database::rows,
    lanes::refusals,
    ledger::told,
    tasks,
    upkeep::backlog::OWES,
};

#[derive(FromQueryResult)]
struct WatchRow {
    #[sea_orm(nested)]
    watch: watch::Model,
    view_text: String,
    url: String,
    credential_id: Option<CredentialId>,
    last_error: Option<String>,
    moved_to: Option<String>,
    sink_kind: Option<SinkKind>,
    sink_address: Option<String>,
    sink_has_access: i32,
    sink_delivery: Option<String>,
    sink_disabled: Option<String>,
}

#[derive(FromQueryResult)]
struct CursorRow {
    id: CursorId,
    watch_id: WatchId,
    branch: String,
    held: Option<ObjectId>,
    state: CursorState,
    reason: Option<String>,
    acknowledged: bool,
    deletes_unknown: bool,
    last_round: i64,
    behind_since: Option<i64>,
    head: Option<ObjectId>,
    head_fault: Option<String>,
    head_moved_at: Option<i64>,
    open_number: Option<i64>,
    open_position: Option<i64>,
    open_total: Option<i64>,
    letters: i64,
}

const WATCH: &str = "select w.*, v.text as view_text, r.url, s.credential_id, s.last_error, s.moved_to,
       k.kind as sink_kind, k.address as sink_address, k.delivery as sink_delivery,
       k.disabled as sink_disabled,
       case when k.access is null then 0 else 1 end as sink_has_access
     from watch w join view v on v.id = w.view_id join source s on s.id = w.source_id
     join repository r on r.id = w.repository_id left join sink k on k.id = w.sink_id";

static CURSOR: LazyLock<String> = LazyLock::new(|| {
    format!(
        "select c.id, c.watch_id, c.branch, c.held, c.state, c.reason, c.acknowledged, c.deletes_unknown,
       c.last_round, case when {OWES} then c.behind_since end as behind_since,
       h.commit_id as head, h.fault as head_fault, h.moved_at as head_moved_at,
       r.number as open_number, r.position as open_position, r.total as open_total,
       (select count(*) from dead_letter d where d.cursor_id = c.id
          and d.status in ('open', 'redrive_requested')) as letters
     from cursor c join watch w on w.id = c.watch_id
     left join head h on h.source_id = w.source_id and h.ref_name = c.branch
     left join round r on r.cursor_id = c.id and r.number = c.open_round"
    )
});

/// The row of one watch of an app.
pub(crate) async fn row(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &WatchId,
) -> Result<watch::Model, StoreError> {
    let text = "select * from watch where id = $1 and app_id = $2";
    let values = vec![id.clone().into(), app.clone().into()];
    rows::one(connection, "watch", text, values).await?.ok_or(StoreError::NotFound)
}

/// One watch of an app.
pub(crate) async fn one(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &WatchId,
) -> Result<Watch, StoreError> {
    let values: Vec<Value> = vec![id.clone().into(), app.clone().into()];
    let text = format!("{WATCH} where w.id = $1 and w.app_id = $2");
    let found: Option<WatchRow> = rows::one(connection, "watch", &text, values.clone()).await?;
    let found = found.ok_or(StoreError::NotFound)?;
    let text = format!("{} where w.id = $1 and w.app_id = $2 order by c.slot", *CURSOR);
    let cursors: Vec<CursorRow> = rows::all(connection, "cursor", &text, values).await?;
    watch(found, cursors)
}

/// The watches for which `condition` (over `w`) holds, oldest first. Rows that cannot be read are left out
/// and logged.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    condition: &str,
    values: Vec<Value>,
    limit: u64,
) -> Result<Vec<Watch>, StoreError> {
    let text = format!("{WATCH} where {condition} order by w.id limit {}", rows::signed(limit));
    let found: Vec<WatchRow> = rows::readable(connection, "watch", &text, values.clone()).await?;
    let Some(last) = found.last() else { return Ok(Vec::new()) };
    let mut with_last = values;
    with_last.push(last.watch.id.clone().into());
    let text = format!("{} where {condition} and w.id <= ${} order by c.slot", *CURSOR, with_last.len());
    let mut cursors: HashMap<WatchId, Vec<CursorRow>> = HashMap::new();
    for cursor in rows::readable::<CursorRow>(connection, "cursor", &text, with_last).await? {
        cursors.entry(cursor.watch_id.clone()).or_default().push(cursor);
    }
    let watches = found.into_iter().map(|row| {
        let cursors = cursors.remove(&row.watch.id).unwrap_or_default();
        watch(row, cursors)
    });
    Ok(watches.filter_map(rows::readable_or_logged).collect())
}

/// Changes the settings of a watch that the patch names.
pub(crate) async fn patch(
    connection: &impl ConnectionTrait,
    context: &Context,
    (app, id): (&AppId, &WatchId),
    patch: &WatchPatch,
    at: Timestamp,
) -> Result<(), StoreError> {
    let old = row(connection, app, id).await?;
    if let Some(alias) = &patch.alias {
        refuse_taken(connection, &old, alias).await?;
    }
    patch_sink(connection, context, &old, patch, at).await?;
    let view = match &patch.view {
        Some(view) => views::keep(connection, view, at).await?,
        None => old.view_id,
    };
    let (was, before) = (old.state, old.reason);
    let (state, reason) = patch.state.clone().unwrap_or((was, before));
    if state != was {
        let entry_type = match state {
            WatchState::Active => EntryType::WatchResumed,
            WatchState::Paused => EntryType::WatchPaused,
        };
        let note = told::paused(connection, id, entry_type, reason.as_deref()).await?;
        told::now(connection, context, note).await?;
    }
    let reason = reason.filter(|_| state != WatchState::Active);
    let text = "update watch set view_id = $1, mode = $2, state = $3, reason = $4, on_branch_gone = $5,
                alias = $6 where id = $7";
    let mode = patch.mode.unwrap_or(old.mode);
    let gone = patch.on_branch_gone.unwrap_or(old.on_branch_gone);
    let values = vec![
        view.into(),
        mode.into(),
        state.into(),
        reason.into(),
        gone.into(),
        patch.alias.clone().unwrap_or(old.alias).into(),
        id.clone().into(),
    ];
    rows::execute(connection, "watch", text, values).await?;
    if gone != old.on_branch_gone {
        heads::note_lag(connection, &old.source_id, at).await?;
    }
    if state != was {
        tasks::arrange_watch(connection, context, id).await?;
    }
    let is_resumed = resumes(patch);
    if is_resumed {
        refusals::of_watch(connection, context, id).await?;
    }
    if let Some(status) = patch.status {
        let row = row(connection, app, id).await?;
        statuses::set(connection, context, &row, status, at).await?;
    }
    if state != was || is_resumed || patch.sink.is_some() {
        statuses::refresh_watch(connection, context, id).await?;
    }
    Ok(())
}

/// Refuses a name that another watch of the same refs has, with [`StoreError::Exists`].
async fn refuse_taken(
    connection: &impl ConnectionTrait,
    old: &watch::Model,
    alias: &str,
) -> Result<(), StoreError> {
    let text = "select * from watch where app_id = $1 and repository_id = $2 and selector_kind = $3
                and selector_value = $4 and alias = $5 and id <> $6";
    let values = vec![
        old.app_id.clone().into(),
        old.repository_id.clone().into(),
        old.selector_kind.into(),
        old.selector_value.clone().into(),
        alias.into(),
        old.id.clone().into(),
    ];
    match rows::one::<watch::Model>(connection, "watch", text, values).await? {
        Some(other) => Err(StoreError::Exists(other.id.to_string())),
        None => Ok(()),
    }
}

/// Gives the watch the sink of the patch; gives the own sink a new key, and enables the sink of a watch that
/// is resumed.
async fn patch_sink(
    connection: &impl ConnectionTrait,
    context: &Context,
    old: &watch::Model,
    patch: &WatchPatch,
    at: Timestamp,
) -> Result<(), StoreError> {
    if let Some(sink) = &patch.sink {
        sinks::set(connection, context, old, sink.as_ref(), at).await?;
    }
    if patch.rotation.is_none() && !resumes(patch) {
        return Ok(());
    }
    let Some(id) = row(connection, &old.app_id, &old.id).await?.sink_id else { return Ok(()) };
    if let Some(rotation) = &patch.rotation {
        let sink = sinks::row(connection, &old.app_id, &id).await?.ok_or(StoreError::NotFound)?;
        sinks::rotate(connection, context, &sink, &rotation.key, rotation.overlap_until).await?;
    }
    if resumes(patch) {
        sinks::enable(connection, context, &old.app_id, &id, at).await?;
    }
    Ok(())
}

fn resumes(patch: &WatchPatch) -> bool {
    matches!(patch.state, Some((WatchState::Active, _)))
}

/// The facts about a watch that bodies show.
pub(crate) fn facts(row: &watch::Model) -> RepositoryFacts {
    RepositoryFacts {
        repository_id: row.id.clone(),
        github_url: row.shown_url.clone(),
        owner: row.owner.clone(),
        name: row.name.clone(),
    }
}

/// The watch's own sink, as it is shown.
fn sink(row: &WatchRow) -> Result<Option<WatchSink>, StoreError> {
    let (Some(id), Some(kind), Some(delivery)) = (&row.watch.sink_id, row.sink_kind, &row.sink_delivery)
    else {
        return Ok(None);
    };
    Ok(Some(WatchSink {
        id: id.clone(),
        address: sinks::address(kind, row.sink_address.clone())?,
        has_access: row.sink_has_access == 1,
        delivery: apps::settings("sink", delivery)?,
        disabled: row.sink_disabled.clone(),
    }))
}

fn watch(row: WatchRow, cursors: Vec<CursorRow>) -> Result<Watch, StoreError> {
    Ok(Watch {
        sink: sink(&row)?,
        alias: row.watch.alias.clone(),
        status: statuses::shown(&row.watch),
        facts: facts(&row.watch),
        view: views::view(&row.view_text)?,
        has_credential: row.credential_id.is_some(),
        last_error: row.last_error,
        moved_to: row.moved_to,
        cursors: cursors.into_iter().map(status).collect::<Result<_, _>>()?,
        id: row.watch.id,
        app: row.watch.app_id,
        repository: row.watch.repository_id,
        url: row.url,
        source: row.watch.source_id,
        is_private: row.watch.is_private,
        selector: Selector { kind: row.watch.selector_kind, value: row.watch.selector_value },
        mode: row.watch.mode,
        on_branch_gone: row.watch.on_branch_gone,
        state: row.watch.state,
        reason: row.watch.reason,
        created_at: Timestamp(row.watch.created_at),
        deliver_after: Timestamp(row.watch.deliver_after),
    })
}

fn status(row: CursorRow) -> Result<CursorStatus, StoreError> {
    let open = match (row.open_number, row.open_position, row.open_total) {
        (Some(number), Some(position), Some(total)) => {
            Some((number, rows::unsigned("round", position)?, rows::unsigned("round", total)?))
        }
        _ => None,
    };
    Ok(CursorStatus {
        id: row.id,
        branch: row.branch,
        held: row.held,
        head: row.head,
        fault: row.head_fault.zip(row.head_moved_at).map(|(reason, at)| {
            let since = Timestamp(at);
            HeadFault { reason, since }
        }),
        state: row.state,
        reason: row.reason,
        acknowledged: row.acknowledged,
        open,
        last_round: row.last_round,
        deletes_unknown: row.deletes_unknown,
        dead_letters: rows::unsigned("dead_letter", row.letters)?,
        behind_since: row.behind_since.map(Timestamp),
    })
}
