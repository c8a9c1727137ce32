//! The rows that a lane needs: the cursors that have something to do, and all rows of one cursor, with the
//! open round rebuilt from them.

pub(crate) mod history;
pub(crate) mod letters;
pub(crate) mod refusals;
pub(crate) mod replays;
pub(crate) mod rounds;
pub(crate) mod settle;
pub(crate) mod terms;

use std::{collections::BTreeMap, ops::Range};

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult, Value};
use tidings_actors::{
    model::round::{Round, RoundSpec, Summary, TreeEnd},
    model::view::View,
    ports::{
        Glimpse, HeadAttempts, LaneSnapshot, REFUSALS_MAX, Reach, STREAK_MAX, SinkKey, StoreError, Streak,
    },
    time::Timestamp,
};
use tidings_entity::{
    cursor,
    id::{AppId, CursorId, ObjectId, RepositoryId, SinkId, ViewId},
    kind::RoundKind,
    round, view, watch,
};

use self::letters::Bound;
use super::{
    Context,
    database::{error::undecodable, rows},
    tasks,
    watching::{sources, watches},
};
use crate::{
    apps::sinks::SERVED,
    lanes::letters::attempts,
    leases::reach,
    watching::watches::{resync, views},
};

#[derive(FromQueryResult)]
struct Waiting {
    app_id: AppId,
    sink_id: Option<SinkId>,
    id: CursorId,
}

/// A cursor, its watch, its app and the head of its branch.
const FOLLOWED: &str = "cursor c
    join watch w on w.id = c.watch_id join app a on a.id = w.app_id left join sink k on k.id = w.sink_id
    left join head h on h.source_id = w.source_id and h.ref_name = c.branch";

/// The condition in SQL for a cursor that has something to do. A block that the receiver did not cause ends
/// with the next round.
fn is_waiting() -> String {
    format!(
        "(w.state = 'active' and {SERVED}
        and (c.open_round is not null
          or (c.state = 'branch_missing' and w.on_branch_gone = 'delete'
            and (c.held is not null or c.resync is not null))
          or (c.state = 'branch_missing' and c.held is not null and c.resync is not null)
          or (c.state not in ('branch_missing', 'empty')
            and (c.resync is not null
              or (c.state = 'blocked' and c.streak < {STREAK_MAX}
                and (c.refused < {REFUSALS_MAX} or c.acknowledged))
              or (h.commit_id is not null and (c.held is null or c.held <> h.commit_id))
              or (c.held is not null and c.held_view <> w.view_id)))
          or (c.state <> 'empty' and c.replay is not null)
          or (c.state <> 'empty' and c.resync is null
            and exists (select 1 from dead_letter d
                        where d.app_id = w.app_id and d.cursor_id = c.id
                          and d.status = 'redrive_requested'))))"
    )
}

/// The cursors that have something to do, of one app or of all.
pub(super) async fn pending(
    connection: &impl ConnectionTrait,
    app: Option<AppId>,
    reach: &Reach,
) -> Result<Vec<(SinkKey, CursorId)>, StoreError> {
    let (mut condition, mut values): (String, Vec<Value>) = match app {
        Some(app) => ("w.app_id = $1".to_owned(), vec![app.into()]),
        None => ("1 = 1".to_owned(), vec![]),
    };
    if let Some((within, map)) = reach::within(connection, "w.repository_id", values.len() + 1, reach) {
        condition = format!("{condition} and {within}");
        values.push(map);
    }
    let is_waiting = is_waiting();
    let text = format!(
        "select w.app_id, w.sink_id, c.id from {FOLLOWED} where {condition} and {is_waiting} order by c.id"
    );
    let waiting: Vec<Waiting> = rows::readable(connection, "cursor", &text, values).await?;
    let key = |row: Waiting| (SinkKey { app: row.app_id, sink: row.sink_id }, row.id);
    Ok(waiting.into_iter().map(key).collect())
}

#[derive(FromQueryResult)]
struct Seen {
    repository_id: RepositoryId,
    sink_id: Option<SinkId>,
    waits: i32,
}

/// The owner of a cursor, and whether the cursor has something to do.
pub(super) async fn glimpse(connection: &impl ConnectionTrait, id: &CursorId) -> Result<Glimpse, StoreError> {
    let is_waiting = is_waiting();
    let text = format!(
        "select w.repository_id, w.sink_id, case when {is_waiting} then 1 else 0 end as waits
         from {FOLLOWED} where c.id = $1"
    );
    let seen: Option<Seen> = rows::one(connection, "cursor", &text, vec![id.clone().into()]).await?;
    let seen = seen.ok_or(StoreError::NotFound)?;
    Ok(Glimpse { repository: seen.repository_id, sink: seen.sink_id, is_waiting: seen.waits == 1 })
}

/// A cursor, its watch, and the head commit of its branch.
struct Followed {
    cursor: cursor::Model,
    watch: watch::Model,
    head: Option<ObjectId>,
    head_fault: Option<String>,
    /// Nothing of the watch was ever acknowledged.
    is_new: bool,
    /// When its sink got its present address.
    endpoint_since: i64,
}

impl FromQueryResult for Followed {
    fn from_query_result(row: &QueryResult, _prefix: &str) -> Result<Self, DbErr> {
        Ok(Self {
            cursor: cursor::Model::from_query_result(row, "c_")?,
            watch: watch::Model::from_query_result(row, "w_")?,
            head: row.try_get("", "head")?,
            head_fault: row.try_get("", "head_fault")?,
            endpoint_since: row.try_get("", "endpoint_since")?,
            is_new: row.try_get::<i64>("", "taken")? == 0,
        })
    }
}

async fn followed(connection: &impl ConnectionTrait, id: &CursorId) -> Result<Followed, StoreError> {
    let (cursor, watch) = (rows::columns::<cursor::Entity>("c"), rows::columns::<watch::Entity>("w"));
    let text = format!(
        "select {cursor}, {watch}, h.commit_id as head, h.fault as head_fault,
           coalesce(k.since, a.endpoint_since) as endpoint_since,
           (select count(*) from cursor o where o.watch_id = w.id and o.acknowledged) as taken
         from {FOLLOWED} where c.id = $1"
    );
    rows::one(connection, "cursor", &text, vec![id.clone().into()]).await?.ok_or(StoreError::NotFound)
}

fn streak(cursor: &cursor::Model) -> Result<Streak, StoreError> {
    let from = match cursor.streak_round.zip(cursor.streak_position) {
        Some((round, position)) => Some((round, rows::unsigned("cursor", position)?)),
        None => None,
    };
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    Ok(Streak { count: count(cursor.streak), from, refused: count(cursor.refused) })
}

/// The progress of an open round beside its position.
struct Progress {
    head_attempts: HeadAttempts,
    above: Vec<Range<u64>>,
    untouched: bool,
}

async fn progress(
    connection: &impl ConnectionTrait,
    open: Option<&Round>,
    endpoint_since: i64,
) -> Result<Progress, StoreError> {
    let Some(round) = open else {
        return Ok(Progress { head_attempts: HeadAttempts::default(), above: Vec::new(), untouched: true });
    };
    let Round { cursor, number, position, .. } = round;
    let above = settle::above(connection, cursor, *number, *position).await?;
    let untouched = match round.spec.kind {
        _ if !above.is_empty() => false,
        RoundKind::Resync => letters::fill(connection, round).await?,
        _ => *position == 0,
    };
    let head_attempts = attempts::of_change(connection, cursor, *number, *position, endpoint_since).await?;
    Ok(Progress { head_attempts, above, untouched })
}

/// All rows that a lane needs.
pub(super) async fn snapshot(
    connection: &impl ConnectionTrait,
    context: &Context,
    id: &CursorId,
) -> Result<LaneSnapshot, StoreError> {
    let Followed { cursor, watch, head, head_fault, is_new, endpoint_since } =
        followed(connection, id).await?;
    let mut views = Views { connection, known: BTreeMap::new() };
    let held = views.end(cursor.held, cursor.held_view).await?;
    let (open, announced) = match cursor.open_round {
        Some(number) => {
            let found = round_of(connection, &mut views, id, number).await?;
            let missing = || undecodable("cursor", format!("its open round {number} has no row"));
            let found = found.ok_or_else(missing)?;
            (Some(found.round), found.announced)
        }
        None => (None, false),
    };
    let at = open.as_ref().map(|round| (round.number, rows::signed(round.position)));
    let skip_head = at.is_some() && at == cursor.skip_round.zip(cursor.skip_position);
    let cancel_open = cursor.cancel_round.is_some() && cursor.cancel_round == cursor.open_round;
    let Progress { head_attempts, above, untouched } =
        progress(connection, open.as_ref(), endpoint_since).await?;
    let (replay, resync) = asked(connection, &mut views, &cursor, &watch).await?;
    let mut resync_bases: Vec<TreeEnd> = held.iter().cloned().collect();
    resync_bases.extend(bases_to_come(connection, &mut views, &cursor).await?);
    let (letters, more_letters) = letters::open(connection, &watch.app_id, id).await?;
    let streak = streak(&cursor)?;
    Ok(LaneSnapshot {
        cursor: cursor.id,
        app: watch.app_id.clone(),
        sink: watch.sink_id.clone(),
        source: watch.source_id.clone(),
        remote: sources::remote(connection, context, &watch).await?,
        facts: watches::facts(&watch),
        branch: cursor.branch,
        mode: watch.mode,
        on_branch_gone: watch.on_branch_gone,
        watch_state: watch.state,
        state: cursor.state,
        reason: cursor.reason,
        held: held.map(|tree| (tree.commit, tree.view)),
        view: views.get(watch.view_id).await?,
        head,
        head_fault,
        last_round: cursor.last_round,
        open,
        has_tasks: cursor.open_round.is_none() && tasks::has_tasks(connection, id).await?,
        last_was_redrive: cursor.last_was_redrive,
        resync,
        replay,
        resync_bases,
        letters,
        more_letters,
        streak,
        acknowledged: cursor.acknowledged,
        head_attempts,
        above,
        announced,
        untouched,
        deliver_after: Timestamp(watch.deliver_after),
        is_new,
        guard_waived: cursor.guard_waived,
        skip_head,
        cancel_open,
        created_at: Timestamp(cursor.created_at),
        watch: watch.id,
    })
}

/// The replay and the resync that are asked for, by people or by the redrive of a round that was one task.
async fn asked<C: ConnectionTrait>(
    connection: &C,
    views: &mut Views<'_, C>,
    cursor: &cursor::Model,
    watch: &watch::Model,
) -> Result<(Option<TreeEnd>, Option<bool>), StoreError> {
    let redriven = match &watch.sink_id {
        Some(_) => letters::round_to_redrive(connection, &cursor.id).await?,
        None => None,
    };
    let replay = cursor.replay.zip(cursor.replay_view).or(redriven.flatten()).unzip();
    let resync = cursor.resync.or((redriven == Some(None)).then_some(false));
    Ok((views.end(replay.0, replay.1).await?, resync))
}

/// The trees of which the app may hold files when a resync begins that was asked for, but for `held`.
async fn bases_to_come<C: ConnectionTrait>(
    connection: &C,
    views: &mut Views<'_, C>,
    cursor: &cursor::Model,
) -> Result<Vec<TreeEnd>, StoreError> {
    let mut trees = Vec::new();
    if cursor.resync.is_none() {
        return Ok(trees);
    }
    for (commit, view) in resync::bases(connection, &cursor.id, resync::TO_COME).await? {
        trees.push(TreeEnd { commit, view: views.get(view).await? });
    }
    Ok(trees)
}

/// A round with its full spec, open or not, and when it ended.
pub(super) async fn past(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    number: i64,
) -> Result<Option<(Round, Option<Timestamp>)>, StoreError> {
    let found =
        round_of(connection, &mut Views { connection, known: BTreeMap::new() }, cursor, number).await?;
    Ok(found.map(|found| (found.round, found.ended_at)))
}

/// A round, from its row and the rows that belong to it.
struct Kept {
    round: Round,
    ended_at: Option<Timestamp>,
    announced: bool,
}

async fn round_of<C: ConnectionTrait>(
    connection: &C,
    views: &mut Views<'_, C>,
    cursor: &CursorId,
    number: i64,
) -> Result<Option<Kept>, StoreError> {
    let text = "select * from round where cursor_id = $1 and number = $2";
    let values = vec![cursor.clone().into(), number.into()];
    let row: Option<round::Model> = rows::one(connection, "round", text, values).await?;
    let Some(row) = row else { return Ok(None) };
    let (ended_at, announced) = (row.ended_at.map(Timestamp), row.announced);
    let mut bases = Vec::new();
    if row.kind == RoundKind::Resync {
        for (commit, view) in resync::bases(connection, cursor, number).await? {
            bases.push(TreeEnd { commit, view: views.get(view).await? });
        }
    }
    let spec = RoundSpec {
        kind: row.kind,
        held: views.end(row.held, row.held_view).await?,
        target: views.end(row.target, row.target_view).await?,
        bases,
        letters: letters::bound(connection, &Bound { cursor, round: number }).await?,
    };
    let count = |number| rows::unsigned("round", number);
    let round = Round {
        cursor: row.cursor_id,
        number: row.number,
        spec,
        summary: Summary {
            deletes: count(row.deletes)?,
            creates: count(row.creates)?,
            updates: count(row.updates)?,
            digest: row.digest,
        },
        rules: row.rules,
        began_at: Timestamp(row.began_at),
        branch: row.branch,
        url: row.url,
        format: row.format,
        history_rewritten: row.history_rewritten,
        skipped_commits: row.skipped_commits,
        complete: row.complete,
        position: count(row.position)?,
    };
    Ok(Some(Kept { round, ended_at, announced }))
}

/// Views that were read in this snapshot.
struct Views<'c, C> {
    connection: &'c C,
    known: BTreeMap<ViewId, View>,
}

impl<C: ConnectionTrait> Views<'_, C> {
    async fn get(&mut self, id: ViewId) -> Result<View, StoreError> {
        if let Some(view) = self.known.get(&id) {
            return Ok(view.clone());
        }
        let text = "select * from view where id = $1";
        let row: Option<view::Model> = rows::one(self.connection, "view", text, vec![id.into()]).await?;
        let row = row.ok_or_else(|| undecodable("view", format!("{id} has no row")))?;
        let view = views::view(&row.text)?;
        self.known.insert(id, view.clone());
        Ok(view)
    }

    async fn end(
        &mut self,
        commit: Option<ObjectId>,
        view: Option<ViewId>,
    ) -> Result<Option<TreeEnd>, StoreError> {
        match commit.zip(view) {
            Some((commit, view)) => Ok(Some(TreeEnd { commit, view: self.get(view).await? })),
            None => Ok(None),
        }
    }
}
