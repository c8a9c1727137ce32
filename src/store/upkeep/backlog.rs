//! The numbers of how far watches are behind, and of open letters. Cursors that are behind are found by an
//! index, so that a hundred thousand cursors at rest cost nothing.

use std::{fmt::Write, sync::LazyLock};

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    ports::{APPS_LATE_MAX, AppLate, Backlog, LAG_BOUNDS, LATE, Laggard, ScanTrouble, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, WatchId},
    kind::{CursorState, ParkReason},
};

use crate::{
    apps::sinks::SERVED,
    database::rows::{self, signed, unsigned},
    tasks,
};

/// Whether the app of cursor `c` lacks changes: a round is open, a resync was asked for, `h`, the head of
/// its branch, is another commit than the held one, or the branch is gone and watch `w` then deletes the
/// files that the app holds. A branch that is gone has no head.
pub(crate) const OWES: &str = "(c.open_round is not null or (h.commit_id is not null
     and (c.held is null or c.held <> h.commit_id or c.resync is not null))
     or (h.commit_id is null and c.held is not null and c.state = 'branch_missing'
     and w.on_branch_gone = 'delete'))";

/// Cursors of served watches that are behind; [`OWES`] decides; through the index of `behind_since`, cursors
/// at rest cost nothing.
pub(crate) static BEHIND: LazyLock<String> =
    LazyLock::new(|| format!("{} and w.state = 'active' and {SERVED}", *ANY_BEHIND));

/// Cursors that are behind, served or not.
pub(crate) static ANY_BEHIND: LazyLock<String> = LazyLock::new(|| {
    format!(
        "from cursor c join watch w on w.id = c.watch_id join app a on a.id = w.app_id
         left join sink k on k.id = w.sink_id
         left join head h on h.source_id = w.source_id and h.ref_name = c.branch
         where c.behind_since is not null and {OWES}"
    )
});

#[derive(FromQueryResult)]
struct Late {
    bound: i64,
    watches: i64,
    lag_sum: i64,
    lag_max: i64,
}

#[derive(FromQueryResult)]
struct LateApp {
    app_id: AppId,
    since: i64,
    behind: i64,
}

#[derive(FromQueryResult)]
struct Letters {
    reason: ParkReason,
    letters: i64,
}

#[derive(FromQueryResult)]
struct Failing {
    last_error: String,
    sources: i64,
}

#[derive(FromQueryResult)]
struct BacklogRow {
    app_id: AppId,
    watch_id: WatchId,
    cursor_id: CursorId,
    owner: String,
    name: String,
    branch: String,
    state: CursorState,
    reason: Option<String>,
    open_round: Option<i64>,
    behind_since: i64,
}

/// The distribution of lag, and the open letters.
pub(crate) async fn backlog(
    connection: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<Backlog, StoreError> {
    let (mut backlog, behind) = (Backlog::default(), &*BEHIND);
    let mut bounds = String::new();
    for (index, seconds) in LAG_BOUNDS.iter().enumerate() {
        write!(bounds, " when lag <= {} then {index}", seconds * 1_000).expect("a String takes all");
    }
    let text = format!(
        "with oldest as (select w.id, min(c.behind_since) as since {behind} group by w.id),
         late as (select case when since < $1 then $1 - since else 0 end as lag from oldest),
         placed as (select lag, cast(case{bounds} else {} end as bigint) as bound from late)
         select bound, count(*) as watches, cast(sum(lag) as bigint) as lag_sum, max(lag) as lag_max
         from placed group by bound",
        LAG_BOUNDS.len()
    );
    let late: Vec<Late> = rows::all(connection, "cursor", &text, vec![now.0.into()]).await?;
    for Late { bound, watches, lag_sum, lag_max } in late {
        let slot = usize::try_from(bound).ok().and_then(|bound| backlog.behind.get_mut(bound));
        *slot.ok_or(StoreError::NotFound)? = unsigned("cursor", watches)?;
        backlog.lag_sum_ms += unsigned("cursor", lag_sum)?;
        backlog.lag_max_ms = backlog.lag_max_ms.max(unsigned("cursor", lag_max)?);
    }
    let text = "select reason, count(*) as letters from dead_letter
                where status in ('open', 'redrive_requested') group by reason";
    let letters: Vec<Letters> = rows::all(connection, "dead_letter", text, vec![]).await?;
    for Letters { reason, letters } in letters {
        backlog.letters.insert(reason, unsigned("dead_letter", letters)?);
    }
    let text = format!(
        "select count(distinct w.app_id) {behind} and c.behind_since < $1
         and (case when w.sink_id is null then a.base_url is not null
              else k.kind not in ('pull', 'tasks') end)
         and not exists (select 1 from cursor o where o.watch_id = w.id and o.state = 'blocked')
         and not exists (select 1 from breaker b
           where b.kind = 'endpoint' and b.id = coalesce(w.sink_id, w.app_id) and b.opened_at is not null)"
    );
    let late = now.0.saturating_sub(i64::try_from(LATE.as_millis()).unwrap_or(i64::MAX));
    let apps = rows::number(connection, "cursor", &text, vec![late.into()]).await?;
    backlog.apps_behind = unsigned("cursor", apps)?;
    let text = "select last_error, count(*) as sources from source s where last_error is not null
                and exists (select 1 from watch w where w.source_id = s.id) group by last_error";
    let failing: Vec<Failing> = rows::all(connection, "source", text, vec![]).await?;
    for Failing { last_error, sources } in failing {
        *backlog.sources_failing.entry(ScanTrouble::of(&last_error)).or_default() +=
            unsigned("source", sources)?;
    }
    backlog.tasks = tasks::depths(connection).await?;
    backlog.watch_tasks = tasks::unfinished_of_watches(connection).await?;
    backlog.hand_overs_waiting = tasks::hand_overs_waiting(connection).await?;
    backlog.task_ready_since = tasks::ready_since(connection).await?;
    backlog.apps_late = apps_late(connection, now).await?;
    Ok(backlog)
}

/// The apps that are behind for longest.
async fn apps_late(connection: &impl ConnectionTrait, now: Timestamp) -> Result<Vec<AppLate>, StoreError> {
    let text = format!(
        "select w.app_id, min(c.behind_since) as since, count(*) as behind {} group by w.app_id
         order by since, w.app_id limit {APPS_LATE_MAX}",
        *BEHIND
    );
    let late: Vec<LateApp> = rows::all(connection, "cursor", &text, vec![]).await?;
    let shown = |LateApp { app_id, since, behind }| {
        let lag_ms = u64::try_from(now.since(Timestamp(since)).as_millis()).unwrap_or(u64::MAX);
        Ok(AppLate { app: app_id, lag_ms, behind: unsigned("cursor", behind)? })
    };
    late.into_iter().map(shown).collect()
}

/// The branches that are behind for longest.
pub(crate) async fn laggards(
    connection: &impl ConnectionTrait,
    limit: u64,
) -> Result<Vec<Laggard>, StoreError> {
    let text = format!(
        "select w.app_id, w.id as watch_id, c.id as cursor_id, w.owner, w.name, c.branch, c.state, c.reason,
         c.open_round, c.behind_since {} order by c.behind_since, c.id limit $1",
        *BEHIND
    );
    let found: Vec<BacklogRow> =
        rows::readable(connection, "cursor", &text, vec![signed(limit).into()]).await?;
    let laggard = |row: BacklogRow| Laggard {
        app: row.app_id,
        watch: row.watch_id,
        cursor: row.cursor_id,
        owner: row.owner,
        name: row.name,
        branch: row.branch,
        state: row.state,
        reason: row.reason,
        open_round: row.open_round,
        since: Timestamp(row.behind_since),
    };
    Ok(found.into_iter().map(laggard).collect())
}
