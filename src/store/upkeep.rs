//! The commits that mirrors must keep, the rows that may be removed, and the numbers of the overview.

pub(crate) mod backlog;
pub(crate) mod blobs;
pub(crate) mod breakers;
pub(crate) mod restored;
pub(crate) mod space;

use std::time::Duration;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    ports::{ANSWERS_KEPT, StoreError, Totals},
    time::Timestamp,
};
use tidings_entity::id::{AppId, ObjectId, RepositoryId};

use super::{
    database::rows::{self, signed},
    tasks,
};
use crate::{apps::sinks::SINKS_DISABLED, upkeep::backlog::ANY_BEHIND};

#[derive(FromQueryResult)]
struct Pin {
    commit_id: ObjectId,
}

/// Commits of a repository that mirrors must keep: held ones, both ends and bases of open rounds, the bases
/// of coming resyncs, and the trees of requested replays.
pub(super) async fn pins(
    connection: &impl ConnectionTrait,
    repository: &RepositoryId,
) -> Result<Vec<ObjectId>, StoreError> {
    let text = "with mine as (select c.id, c.held, c.replay, c.open_round from cursor c
                  join watch w on w.id = c.watch_id where w.repository_id = $1),
                pinned(commit_id) as (
                  select held from mine
                  union select replay from mine
                  union select r.target from round r
                  join mine m on m.id = r.cursor_id and m.open_round = r.number
                  union select r.held from round r
                  join mine m on m.id = r.cursor_id and m.open_round = r.number
                  union select b.commit_id from round_base b join mine m on m.id = b.cursor_id
                    and (b.round = 0 or b.round = m.open_round))
                select commit_id from pinned where commit_id is not null order by commit_id";
    // A pin that cannot be read must not be lost silently: then the mirror is not compacted.
    let pins: Vec<Pin> = rows::all(connection, "cursor", text, vec![repository.clone().into()]).await?;
    Ok(pins.into_iter().map(|pin| pin.commit_id).collect())
}

/// The rows that are removed, in order: table, its key, and a condition. `$1` is the oldest moment that is
/// kept. History of open rounds stays, and so does a round that an open letter names.
const HISTORY: &[(&str, &str, &str)] = &[
    (
        "attempt",
        "owner_kind, owner_id, round, position, number",
        "ended_at < $1 and not exists (select 1 from cursor c
           where c.id = attempt.owner_id and c.open_round = attempt.round)",
    ),
    (
        "redrive",
        "id",
        "created_at < $1 and not is_marking and not exists (select 1 from dead_letter d
           where d.redrive_id = redrive.id and d.status in ('open', 'redrive_requested'))",
    ),
    (
        "dead_letter",
        "id",
        "closed_at < $1 and not exists (select 1 from redrive v where v.id = dead_letter.redrive_id) and not \
         exists (select 1 from cursor c
           where c.id = dead_letter.cursor_id and c.open_round = dead_letter.bound_round)",
    ),
    ("settled", "cursor_id, round, from_position", "(cursor_id, round) in (select cursor_id, number from \
        stale)"),
    ("round_base", "cursor_id, round, ordinal", "(cursor_id, round) in (select cursor_id, number from \
        stale)"),
    (
        "round",
        "cursor_id, number",
        "(cursor_id, number) in (select cursor_id, number from stale)
         and not exists (select 1 from settled s where s.cursor_id = round.cursor_id
         and s.round = round.number)
         and not exists (select 1 from round_base b
           where b.cursor_id = round.cursor_id and b.round = round.number)",
    ),
    ("receipt", "id", "received_at < $1"),
    (
        // Cursors at rest: the branch is gone and the app holds nothing of it. After their history is removed
        // too, round numbers of a branch that returns continue only because they come from the clock.
        "cursor",
        "id",
        "created_at < $1 and slot <> '' and state = 'branch_missing' and held is null
         and open_round is null and resync is null and replay is null
         and not exists (select 1 from round r where r.cursor_id = cursor.id)
         and not exists (select 1 from round_base b where b.cursor_id = cursor.id)
         and not exists (select 1 from dead_letter d where d.cursor_id = cursor.id)",
    ),
    (
        "view",
        "id",
        "created_at < $1 and not exists (select 1 from watch w where w.view_id = view.id)
         and not exists (select 1 from cursor c where c.held_view = view.id)
         and not exists (select 1 from cursor c where c.replay_view = view.id)
         and not exists (select 1 from round r where r.held_view = view.id)
         and not exists (select 1 from round r where r.target_view = view.id)
         and not exists (select 1 from round_base b where b.view_id = view.id)",
    ),
];

const STALE: &str = "with stale as (select r.cursor_id, r.number from round r where r.ended_at < $1
      and not exists (select 1 from dead_letter d where d.cursor_id = r.cursor_id and d.round = r.number
        and d.status in ('open', 'redrive_requested')))";

/// The most rows that one transaction removes, because others wait for it.
pub(super) const STEP: u64 = 500;

/// How many kinds of rows are forgotten.
pub(super) const KINDS: usize = HISTORY.len() + 2;

/// Removes at most `limit` old rows of one kind: history first, then unused blobs and answers. Returns their
/// number.
pub(super) async fn prune(
    connection: &impl ConnectionTrait,
    kind: usize,
    now: Timestamp,
    history: Duration,
    blobs: Duration,
    limit: u64,
) -> Result<u64, StoreError> {
    const BLOB: (&str, &str, &str) = ("blob", "id", "used_at < $1");
    const ANSWER: (&str, &str, &str) = ("idempotency", "owner, key_hash", "created_at < $1");
    let ((table, key, condition), age) = match HISTORY.get(kind) {
        Some(kind) => (*kind, history),
        None if kind == HISTORY.len() => (BLOB, blobs),
        None => (ANSWER, ANSWERS_KEPT),
    };
    let before = now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let text = format!(
        "delete from {table} where ({key}) in
         ({STALE} select {key} from {table} where {condition} limit $2)"
    );
    rows::execute(connection, table, &text, vec![before.into(), signed(limit).into()]).await
}

/// Rows of an app that are removed in steps before the app itself, so that the last step is small: history,
/// and closed letters that no open round needs. Open letters stay: without them an app whose erasure was cut
/// off would never get its parked changes. `$1` is the app.
const OF_APP: &[(&str, &str, &str)] = &[
    (
        "attempt",
        "owner_kind, owner_id, round, position, number",
        "(owner_kind = 'cursor' and owner_id in (select id from mine))
         or (owner_kind = 'subscription' and owner_id in (select id from subscription where app_id = $1))",
    ),
    ("settled", "cursor_id, round, from_position", "cursor_id in (select id from mine)"),
    (
        "dead_letter",
        "id",
        "app_id = $1 and status not in ('open', 'redrive_requested') and not exists (select 1 from mine m
           where m.id = dead_letter.cursor_id and m.open_round = dead_letter.bound_round)",
    ),
    (
        "round_base",
        "cursor_id, round, ordinal",
        "exists (select 1 from mine m where m.id = round_base.cursor_id and round_base.round <> 0
           and (m.open_round is null or m.open_round <> round_base.round))",
    ),
    (
        "round",
        "cursor_id, number",
        "exists (select 1 from mine m where m.id = round.cursor_id
           and (m.open_round is null or m.open_round <> round.number))
         and not exists (select 1 from round_base b
           where b.cursor_id = round.cursor_id and b.round = round.number)",
    ),
    ("entry", "app_id, number", "app_id = $1"),
    ("task", "id", "queue_id in (select id from queue where app_id = $1)"),
];

/// How many kinds of rows of an app go before it.
pub(super) const KINDS_OF_APP: usize = OF_APP.len();

/// Removes rows of one kind of an app that is being erased, at most `limit` of them. Returns their number.
pub(super) async fn clear(
    connection: &impl ConnectionTrait,
    app: &AppId,
    kind: usize,
    limit: u64,
) -> Result<u64, StoreError> {
    let (table, key, condition) = OF_APP[kind];
    let text = format!(
        "delete from {table} where ({key}) in
         (with mine as (select c.id, c.open_round from cursor c join watch w on w.id = c.watch_id
            where w.app_id = $1)
          select {key} from {table} where {condition} limit $2)"
    );
    let gone =
        rows::execute(connection, table, &text, vec![app.clone().into(), signed(limit).into()]).await?;
    if table == "task" {
        tasks::empty_queues(connection, app).await?;
    }
    Ok(gone)
}

/// An app with too much history, and the moment up to which its rounds go.
#[derive(FromQueryResult)]
pub(super) struct Crowded {
    app_id: AppId,
    cut: i64,
}

/// The apps whose ended rounds, with settled ranges and attempts, are more than `most` rows.
pub(super) async fn crowded(
    connection: &impl ConnectionTrait,
    most: u64,
) -> Result<Vec<Crowded>, StoreError> {
    let text = "select (select count(*) from round) + (select count(*) from settled)
                  + (select count(*) from attempt)";
    let most = signed(most);
    // The usual case: no app has too many rows if all apps together have not.
    if rows::number(connection, "round", text, vec![]).await? <= most {
        return Ok(Vec::new());
    }
    let text = "with weighed as (
                  select w.app_id, r.ended_at, 1
                    + (select count(*) from settled s where s.cursor_id = r.cursor_id and s.round = r.number)
                    + (select count(*) from attempt a where a.owner_kind = 'cursor'
                         and a.owner_id = r.cursor_id and a.round = r.number) as weight
                  from round r join cursor c on c.id = r.cursor_id join watch w on w.id = c.watch_id
                  where r.ended_at is not null),
                running as (
                  select app_id, ended_at,
                    sum(weight) over (partition by app_id order by ended_at desc) as rows_so_far
                  from weighed)
                select app_id, max(ended_at) as cut from running where rows_so_far > $1 group by app_id";
    rows::all(connection, "round", text, vec![most.into()]).await
}

/// The rows that are removed with a round, in order.
const OF_ROUND: &[(&str, &str, &str)] = &[
    (
        "attempt",
        "owner_kind, owner_id, round, position, number",
        "owner_kind = 'cursor' and (owner_id, round) in (select cursor_id, number from stale)",
    ),
    (
        "settled",
        "cursor_id, round, from_position",
        "(cursor_id, round) in (select cursor_id, number from stale)",
    ),
    (
        "round_base",
        "cursor_id, round, ordinal",
        "(cursor_id, round) in (select cursor_id, number from stale)",
    ),
    ("round", "cursor_id, number", "(cursor_id, number) in (select cursor_id, number from stale)"),
];

/// Removes rounds of apps with too many rows, with their other rows, at most `limit` rows. Returns their
/// number.
pub(super) async fn shorten(
    connection: &impl ConnectionTrait,
    crowded: &[Crowded],
    limit: u64,
) -> Result<u64, StoreError> {
    let stale = "with stale as (select r.cursor_id, r.number from round r
          join cursor c on c.id = r.cursor_id join watch w on w.id = c.watch_id
          where w.app_id = $1 and r.ended_at <= $2
          and not exists (select 1 from dead_letter d where d.cursor_id = r.cursor_id and d.round = r.number
            and d.status in ('open', 'redrive_requested')))";
    let mut left = limit;
    for Crowded { app_id, cut } in crowded {
        for (table, key, condition) in OF_ROUND {
            // A round is removed after all rows that belong to it.
            if left == 0 {
                return Ok(limit);
            }
            let text = format!(
                "delete from {table} where ({key}) in ({stale} select {key} from {table} where {condition} \
                 limit $3)"
            );
            let values = vec![app_id.clone().into(), (*cut).into(), signed(left).into()];
            left -= rows::execute(connection, table, &text, values).await?;
        }
    }
    Ok(limit - left)
}

/// The numbers of the overview.
pub(super) async fn totals(connection: &impl ConnectionTrait, now: Timestamp) -> Result<Totals, StoreError> {
    #[derive(FromQueryResult)]
    struct UpkeepRow {
        apps: i64,
        apps_disabled: i64,
        sinks_disabled: i64,
        repositories: i64,
        watches: i64,
        behind: i64,
        blocked: i64,
        open_rounds: i64,
        dead_letters: i64,
        open_breakers: i64,
        subscriptions_blocked: i64,
        worker_subscriptions: i64,
        oldest: Option<i64>,
    }
    let behind = &*ANY_BEHIND;
    let text = format!(
        "select (select count(*) from app) as apps,
         (select count(*) from app where disabled is not null) as apps_disabled,
         ({SINKS_DISABLED}) as sinks_disabled,
         (select count(*) from repository) as repositories,
         (select count(*) from watch) as watches, (select count(*) {behind}) as behind,
         (select count(*) from cursor where state = 'blocked') as blocked,
         (select count(*) from cursor where open_round is not null) as open_rounds,
         (select count(*) from dead_letter where status in ('open', 'redrive_requested')) as dead_letters,
         (select count(*) from breaker where opened_at is not null) as open_breakers,
         (select count(*) from subscription where state = 'blocked') as subscriptions_blocked,
         (select count(*) from worker_subscription where expires_at > $1) as worker_subscriptions,
         (select min(c.behind_since) {behind}) as oldest"
    );
    let row: Option<UpkeepRow> = rows::one(connection, "cursor", &text, vec![now.0.into()]).await?;
    let row = row.ok_or(StoreError::NotFound)?;
    let count = |number| rows::unsigned("cursor", number);
    let lag = row.oldest.map_or(Duration::ZERO, |oldest| now.since(Timestamp(oldest)));
    Ok(Totals {
        apps: count(row.apps)?,
        apps_disabled: count(row.apps_disabled)?,
        sinks_disabled: count(row.sinks_disabled)?,
        repositories: count(row.repositories)?,
        watches: count(row.watches)?,
        behind: count(row.behind)?,
        blocked: count(row.blocked)?,
        open_rounds: count(row.open_rounds)?,
        dead_letters: count(row.dead_letters)?,
        open_breakers: count(row.open_breakers)?,
        subscriptions_blocked: count(row.subscriptions_blocked)?,
        worker_subscriptions: count(row.worker_subscriptions)?,
        lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
    })
}
