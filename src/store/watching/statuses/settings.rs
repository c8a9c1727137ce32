//! The settings of a watch's statuses: whether they are shown, and under which name.

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{ShownStatus, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    commit_status,
    id::{CursorId, WatchId},
    kind::{StatusHost, StatusWord},
    watch,
};

use super::{UNDECIDED, put, refresh, refresh_held};
use crate::{Context, database::rows};

/// Characters of the name of an app, or of a repository, in a name. Hosts take at least 255 for the whole.
const PART_MAX: usize = 100;

/// The settings of a watch's statuses; `None`: it shows none.
pub(crate) fn shown(watch: &watch::Model) -> Option<ShownStatus> {
    let (host, context) = (watch.status_host?, watch.status_context.clone()?);
    Some(ShownStatus { host, context })
}

/// Starts or stops the statuses of a watch; undecided ones are cancelled when they stop.
pub(crate) async fn set(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &watch::Model,
    host: Option<StatusHost>,
    at: Timestamp,
) -> Result<(), StoreError> {
    if host == watch.status_host {
        return Ok(());
    }
    let name = match (&watch.status_context, host) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(_)) => Some(free_name(connection, watch).await?),
        (None, None) => None,
    };
    let text = "update watch set status_host = $1, status_context = $2 where id = $3";
    let values = vec![host.into(), name.into(), watch.id.clone().into()];
    rows::execute(connection, "watch", text, values).await?;
    match host {
        Some(host) => begin(connection, context, &watch.id, host, at).await,
        None => stop(connection, context, &watch.id, at).await,
    }
}

/// The watch has a new credential: statuses that its host refused are told again.
pub(crate) async fn carry_on(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
    at: Timestamp,
) -> Result<(), StoreError> {
    const REFUSED: &str = "ended is not null
        and exists (select 1 from watch w where w.id = watch_id and w.status_host is not null)";
    for mut row in of(connection, watch, REFUSED).await? {
        row.ended = None;
        row.tries = 0;
        put(connection, context, row, at).await?;
    }
    Ok(())
}

async fn begin(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
    host: StatusHost,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update commit_status set kind = $2 where watch_id = $1";
    rows::execute(connection, "commit_status", text, vec![watch.clone().into(), host.into()]).await?;
    carry_on(connection, context, watch, at).await?;
    #[derive(sea_orm::FromQueryResult)]
    struct Named {
        id: CursorId,
        last_round: i64,
    }
    let text = "select id, last_round from cursor where watch_id = $1 order by id";
    let cursors: Vec<Named> = rows::all(connection, "cursor", text, vec![watch.clone().into()]).await?;
    for Named { id, last_round } in cursors {
        // Where nothing was ever delivered, nothing is to be said of the commit that the app began with.
        match last_round {
            0 => refresh(connection, context, &id, None).await?,
            _ => refresh_held(connection, context, &id).await?,
        }
    }
    Ok(())
}

async fn stop(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
    at: Timestamp,
) -> Result<(), StoreError> {
    for mut row in of(connection, watch, &format!("wanted in {UNDECIDED}")).await? {
        row.wanted = StatusWord::Cancelled;
        row.description = "statuses were switched off".to_owned();
        put(connection, context, row, at).await?;
    }
    Ok(())
}

async fn of(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
    condition: &str,
) -> Result<Vec<commit_status::Model>, StoreError> {
    let text = format!("select * from commit_status where watch_id = $1 and {condition} order by commit_id");
    rows::all(connection, "commit_status", &text, vec![watch.clone().into()]).await
}

/// `tidings/<app>/<watch or repository>`. If another watch of the repository has that name, the end of the id
/// distinguishes the two, because both are shown side by side at a commit.
async fn free_name(connection: &impl ConnectionTrait, watch: &watch::Model) -> Result<String, StoreError> {
    #[derive(sea_orm::FromQueryResult)]
    struct App {
        name: String,
    }
    let text = "select name from app where id = $1";
    let app: Option<App> = rows::one(connection, "app", text, vec![watch.app_id.clone().into()]).await?;
    let cut = |text: &str| -> String {
        text.chars().filter(|character| !character.is_control()).take(PART_MAX).collect()
    };
    let app = cut(&app.ok_or(StoreError::NotFound)?.name);
    let own = if watch.alias.is_empty() { cut(&watch.name) } else { watch.alias.clone() };
    let name = format!("tidings/{app}/{own}");
    let text = "select count(*) from watch where repository_id = $1 and status_context = $2 and id <> $3";
    let values = vec![watch.repository_id.clone().into(), name.clone().into(), watch.id.clone().into()];
    if rows::number(connection, "watch", text, values).await? == 0 {
        return Ok(name);
    }
    let id = watch.id.as_str();
    let end = id.get(id.len().saturating_sub(8)..).unwrap_or(id).to_ascii_lowercase();
    Ok(format!("{name}-{end}"))
}
