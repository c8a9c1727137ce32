//! Statuses of commits: the states of watches that their Git hosts should show. A due status is written in
//! the transaction of its cause: a round begins or ends, a branch is blocked, a watch is paused or ends. A
//! watch without statuses has no rows.
//!
//! A row belongs to one watch and one commit. Of several branches of a pattern at one commit it shows the
//! worst state. `told` and `told_line` are what the host shows; `told` is empty while that is unknown. The
//! same colour with the same line is not told again; of a pending state the line alone is no news. The end of
//! a commit of which the host never heard is no news either: such a row is removed.
//!
//! After a request without an answer the host may still be working on that request, and show its word after a
//! newer one. So the newest word is told once more when no such request can be under way (`doubt_until`).

mod farewell;
mod list;
mod picture;
mod settings;
mod work;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{STATUSES_MAX, StatusColor, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    commit_status,
    id::{AppId, CursorId, ObjectId, WatchId},
    kind::{EntryType, StatusWord},
};
use url::Url;

use crate::{
    Context,
    database::rows,
    ledger::{self, Note, told},
};

#[cfg(test)]
pub(crate) use farewell::OVERDUE;
pub(crate) use farewell::{of_app as farewell_to_app, of_watch as farewell_to_watch};
pub(crate) use list::list;
use picture::{Picture, Spot};
pub(crate) use settings::{carry_on, set, shown};
pub(crate) use work::{claim, doubt_all, due, next, note, release, sweep};

/// The number of further statuses after [`STATUSES_MAX`] until the last one is told.
const SPARE: i64 = 50;
/// States that are not final: a host must not show them for ever.
const UNDECIDED: &str = "('pending', 'blocked', 'paused')";

/// Updates the statuses of a cursor: of the commits that it is on the way to, and of `also`, such as the
/// commit that it just reached.
pub(crate) async fn refresh(
    connection: &impl ConnectionTrait,
    context: &Context,
    cursor: &CursorId,
    also: Option<ObjectId>,
) -> Result<(), StoreError> {
    let Some(spot) = picture::spot(connection, cursor).await? else { return Ok(()) };
    if !spot.is_shown() {
        return Ok(());
    }
    let mut commits = undecided(connection, cursor).await?;
    commits.extend(spot.way().into_iter().chain(also));
    commits.sort_unstable();
    commits.dedup();
    for commit in commits {
        want(connection, context, &spot, commit).await?;
    }
    Ok(())
}

/// The same, and the commit that the cursor holds is looked at as well: letters of it were closed.
pub(crate) async fn refresh_held(
    connection: &impl ConnectionTrait,
    context: &Context,
    cursor: &CursorId,
) -> Result<(), StoreError> {
    let Some(spot) = picture::spot(connection, cursor).await?.filter(Spot::is_shown) else { return Ok(()) };
    refresh(connection, context, cursor, spot.held).await
}

/// Looks again at the branches of a watch.
pub(crate) async fn refresh_watch(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &WatchId,
) -> Result<(), StoreError> {
    refresh_where(connection, context, "w.id = $1", watch.clone().into()).await
}

/// Updates the statuses of all watches of an app, whose sinks are enabled or disabled.
pub(crate) async fn refresh_app(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
) -> Result<(), StoreError> {
    refresh_where(connection, context, "w.app_id = $1", app.clone().into()).await
}

async fn refresh_where(
    connection: &impl ConnectionTrait,
    context: &Context,
    condition: &str,
    value: sea_orm::Value,
) -> Result<(), StoreError> {
    #[derive(sea_orm::FromQueryResult)]
    struct Named {
        id: CursorId,
    }
    let text = format!(
        "select c.id from cursor c join watch w on w.id = c.watch_id
         where {condition} and w.status_host is not null order by c.id"
    );
    let cursors: Vec<Named> = rows::all(connection, "cursor", &text, vec![value]).await?;
    for Named { id } in cursors {
        refresh(connection, context, &id, None).await?;
    }
    Ok(())
}

#[derive(sea_orm::FromQueryResult)]
struct Commit {
    commit_id: ObjectId,
}

/// Commits of which a cursor said that more is to come.
async fn undecided(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
) -> Result<Vec<ObjectId>, StoreError> {
    let text = format!(
        "select commit_id from commit_status where cursor_id = $1 and wanted in {UNDECIDED} limit 100"
    );
    let found: Vec<Commit> =
        rows::all(connection, "commit_status", &text, vec![cursor.clone().into()]).await?;
    Ok(found.into_iter().map(|row| row.commit_id).collect())
}

/// The row of one status, if there is one.
async fn row(
    connection: &impl ConnectionTrait,
    watch: &WatchId,
    commit: ObjectId,
) -> Result<Option<commit_status::Model>, StoreError> {
    let text = "select * from commit_status where watch_id = $1 and commit_id = $2";
    rows::one(connection, "commit_status", text, vec![watch.clone().into(), commit.into()]).await
}

/// Writes the state to show at a commit.
async fn want(
    connection: &impl ConnectionTrait,
    context: &Context,
    spot: &Spot,
    commit: ObjectId,
) -> Result<(), StoreError> {
    let old = row(connection, &spot.watch_id, commit).await?;
    let mut picture = picture::of(connection, spot, commit).await?;
    // Of several branches of the pattern, the worst state counts.
    for other in picture::others(connection, spot, commit).await? {
        let of_other = picture::of(connection, &other, commit).await?;
        picture = Picture::worse(picture, of_other);
    }
    let at = context.clock.now();
    match (old, picture) {
        (None, None) => Ok(()),
        (Some(old), None) if !is_undecided(old.wanted) => Ok(()),
        (Some(old), picture) => {
            let picture = picture.unwrap_or_else(|| spot.left_behind(commit));
            change(connection, context, old, picture, at).await
        }
        (None, Some(picture)) => insert(connection, context, spot, commit, picture, at).await,
    }
}

fn is_undecided(word: StatusWord) -> bool {
    matches!(word, StatusWord::Pending | StatusWord::Blocked | StatusWord::Paused)
}

async fn insert(
    connection: &impl ConnectionTrait,
    context: &Context,
    spot: &Spot,
    commit: ObjectId,
    picture: Picture,
    at: Timestamp,
) -> Result<(), StoreError> {
    let (Some(kind), Some(name)) = (spot.status_host, spot.status_context.clone()) else { return Ok(()) };
    let host = Url::parse(&spot.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let Some(host) = host else { return Ok(()) };
    let (next_at, doubt_until, count) = farewell::replaced(connection, spot, &name, commit).await?;
    let row = commit_status::Model {
        watch_id: spot.watch_id.clone(),
        commit_id: commit,
        app_id: spot.app_id.clone(),
        repository_id: spot.repository_id.clone(),
        cursor_id: picture.cursor,
        kind,
        host,
        url: spot.url.clone(),
        context: name,
        wanted: picture.word,
        description: picture.description,
        told: None,
        told_line: None,
        doubt_until,
        tries: 0,
        count,
        next_at: Some(next_at.unwrap_or(at.0).max(at.0)),
        is_claimed: false,
        ended: None,
        secret: None,
        until_at: None,
        updated_at: at.0,
    };
    rows::insert(connection, "commit_status", vec![row]).await?;
    context.statuses.mark();
    Ok(())
}

async fn change(
    connection: &impl ConnectionTrait,
    context: &Context,
    mut row: commit_status::Model,
    picture: Picture,
    at: Timestamp,
) -> Result<(), StoreError> {
    row.cursor_id = picture.cursor;
    row.wanted = picture.word;
    row.description = picture.description;
    row.updated_at = at.0;
    put(connection, context, row, at).await
}

/// Whether the host was never told anything of a commit.
fn is_unheard(row: &commit_status::Model) -> bool {
    row.told.is_none() && row.count == 0
}

/// Whether the host shows the state of a row. The last statuses of a commit are kept for other colours.
fn is_shown(row: &commit_status::Model) -> bool {
    let Some(told) = row.told else { return false };
    let color = StatusColor::of(row.wanted);
    let is_same = row.told_line.as_ref().is_none_or(|line| *line == row.description);
    StatusColor::of(told) == color && (is_same || color == StatusColor::Pending || row.count >= STATUSES_MAX)
}

/// Writes a row with a changed state: the host is told if it shows another state, or if it is unknown what it
/// shows.
async fn put(
    connection: &impl ConnectionTrait,
    context: &Context,
    mut row: commit_status::Model,
    at: Timestamp,
) -> Result<(), StoreError> {
    if row.wanted == StatusWord::Cancelled && is_unheard(&row) {
        return farewell::remove(connection, &row).await;
    }
    if row.ended.is_some() {
        row.next_at = None;
    } else if is_shown(&row) {
        row.next_at = row.doubt_until;
    } else if is_enough(&row) {
        let reason = format!("the host was told {STATUSES_MAX} statuses of this commit: the last one stands");
        return end(connection, context, row, reason, None, at).await;
    } else {
        // Another word does not wait for the moment at which the word before would be told once more.
        row.next_at = row.next_at.filter(|next| Some(*next) != row.doubt_until).or(Some(at.0));
        context.statuses.mark();
    }
    write(connection, row).await
}

/// Whether the host was told enough about one commit. The last status is a final one: no pending status is
/// begun any more, and a begun one still ends.
fn is_enough(row: &commit_status::Model) -> bool {
    let begins = StatusColor::of(row.wanted) == StatusColor::Pending && row.told.is_some();
    row.count >= STATUSES_MAX + SPARE || (row.count >= STATUSES_MAX && begins)
}

/// Ends the statuses of a commit, and tells the app.
async fn end(
    connection: &impl ConnectionTrait,
    context: &Context,
    mut row: commit_status::Model,
    reason: String,
    status: Option<u16>,
    at: Timestamp,
) -> Result<(), StoreError> {
    row.next_at = None;
    row.updated_at = at.0;
    tell_end(connection, context, &row, &reason, status).await?;
    row.ended = Some(reason);
    write(connection, row).await
}

/// Writes into the ledger of the app, if the app still exists, that its host is told nothing more about a
/// commit.
async fn tell_end(
    connection: &impl ConnectionTrait,
    context: &Context,
    row: &commit_status::Model,
    reason: &str,
    status: Option<u16>,
) -> Result<(), StoreError> {
    let text = "select count(*) from app where id = $1";
    if rows::number(connection, "app", text, vec![row.app_id.clone().into()]).await? == 0 {
        return Ok(());
    }
    let origin = ledger::outside("git");
    let note = Note::new(row.app_id.clone(), row.watch_id.as_str(), EntryType::StatusEnded, origin);
    let note = note
        .of_watch(row.watch_id.clone())
        .with("host", row.host.clone())
        .with("context", row.context.clone())
        .with("commit", row.commit_id.to_string())
        .with("wanted", row.wanted.as_str())
        .with("reason", reason)
        .with("http_status", status);
    told::now(connection, context, note).await
}

async fn write(connection: &impl ConnectionTrait, row: commit_status::Model) -> Result<(), StoreError> {
    let text =
        "update commit_status set cursor_id = $3, wanted = $4, description = $5, told = $6, tries = $7,
                count = $8, next_at = $9, ended = $10, updated_at = $11, secret = $12, until_at = $13,
                is_claimed = $14, told_line = $15, doubt_until = $16
                where watch_id = $1 and commit_id = $2";
    let values = vec![
        row.watch_id.into(),
        row.commit_id.into(),
        row.cursor_id.into(),
        row.wanted.into(),
        row.description.into(),
        row.told.into(),
        row.tries.into(),
        row.count.into(),
        row.next_at.into(),
        row.ended.into(),
        row.updated_at.into(),
        row.secret.into(),
        row.until_at.into(),
        row.is_claimed.into(),
        row.told_line.into(),
        row.doubt_until.into(),
    ];
    rows::execute(connection, "commit_status", text, values).await.map(drop)
}
