//! Schedules that resync a watch. A resync takes tasks from the queues of the watch, so it is no part of a
//! turn that holds queues: each schedule has a transaction of its own, which also raises the tick up to which
//! everything is decided. A schedule whose resync fails is put off and holds up no other one.
//!
//! A tick of a paused watch is skipped: only a person lets a watch go on.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::schedule::{Calendar, Firing, OVERLAP_LOOK, fire},
    ports::{StoreError, TaskNews},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId},
    kind::TickOverlap,
    schedule,
};

use super::ticks;
use crate::{
    Context, apps::sinks::STOPPED, database::rows, ledger, tasks::for_update, watching::watches::resync,
};

/// What a schedule shows whose resync failed; the reason is in the log.
const FAILED: &str = "its resync could not be begun and is tried again in a minute";

/// What decides about a tick.
#[derive(FromQueryResult)]
struct Stands {
    is_paused: i32,
    /// Branches whose last resync has not ended.
    resyncs: i64,
}

/// A schedule that resyncs a watch and whose moment has come. Only the key of its row: a row that cannot be
/// read must not hide the others.
#[derive(Clone, FromQueryResult)]
pub(crate) struct DueResync {
    pub(crate) app_id: String,
    pub(crate) name: String,
}

impl DueResync {
    fn key(&self) -> Vec<Value> {
        vec![self.app_id.as_str().into(), self.name.as_str().into()]
    }
}

/// Such schedules, the longest due first.
pub(crate) async fn due(
    connection: &impl ConnectionTrait,
    at: Timestamp,
) -> Result<Vec<DueResync>, StoreError> {
    let text = format!(
        "select s.app_id, s.name from schedule s join app a on a.id = s.app_id
         where s.wake_at <= $1 and s.watch_id is not null and not {STOPPED}
         order by s.wake_at, s.app_id, s.name limit $2"
    );
    rows::all(connection, "schedule", &text, vec![at.0.into(), ticks::DUE_MAX.into()]).await
}

/// Asks for the resync of a schedule whose tick has come. Returns its app, whose lanes have work by that;
/// `None`: the tick asks for none, or another replica decides about it.
pub(crate) async fn fire_one(
    connection: &impl ConnectionTrait,
    context: &Context,
    due: &DueResync,
) -> Result<Option<AppId>, StoreError> {
    let at = context.clock.now();
    let text = format!(
        "select s.* from schedule s join app a on a.id = s.app_id
         where s.app_id = $1 and s.name = $2 and s.wake_at <= $3 and s.watch_id is not null
           and not {STOPPED}{}",
        for_update(connection, "s", true)
    );
    let mut values = due.key();
    values.push(at.0.into());
    let Some(mut row) = rows::one::<schedule::Model>(connection, "schedule", &text, values).await? else {
        return Ok(None);
    };
    let (mut app, mut notes) = (None, Vec::new());
    if let Some(firing) = decide(connection, &mut row, at).await? {
        notes.extend(ticks::decided(&mut row, &firing, firing.ticks.len()));
        if let Some(watch) = row.watch_id.as_ref().filter(|_| !firing.ticks.is_empty()) {
            resync::of_watch(connection, context, watch, false, at).await?;
            app = Some(row.app_id.clone());
        }
    }
    ticks::write(connection, std::slice::from_ref(&row)).await?;
    ledger::write(connection, context, notes, at).await?;
    Ok(app)
}

/// The resync of a branch has ended: schedules that wait for that look again at once. They wait on while
/// another branch of the watch is being resynced.
pub(crate) async fn ended(
    connection: &impl ConnectionTrait,
    context: &Context,
    cursor: &CursorId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = "update schedule set wake_at = $1 where overlap = 'wait' and wake_at > $1 and wake_at <= $2
                and watch_id = (select c.watch_id from cursor c where c.id = $3)";
    let values = vec![at.0.into(), at.after(OVERLAP_LOOK).0.into(), cursor.clone().into()];
    if rows::execute(connection, "schedule", text, values).await? > 0 {
        context.tasks.mark(TaskNews { wake_at: Some(at), ..TaskNews::default() });
    }
    Ok(())
}

/// Puts a schedule off whose resync failed. Reads nothing of its row, which may be why the resync failed.
pub(crate) async fn put_off(
    connection: &impl ConnectionTrait,
    due: &DueResync,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text =
        "update schedule set wake_at = $3, error = $4 where app_id = $1 and name = $2 and wake_at <= $5";
    let mut values = due.key();
    values.extend([at.after(ticks::TRY_AGAIN).0.into(), FAILED.into(), at.0.into()]);
    rows::execute(connection, "schedule", text, values).await.map(drop)
}

/// What is to be done about the ticks of one schedule; `None`: it is tried again.
async fn decide(
    connection: &impl ConnectionTrait,
    row: &mut schedule::Model,
    at: Timestamp,
) -> Result<Option<Firing>, StoreError> {
    let calendar = match Calendar::of(&row.cron, &row.zone) {
        Ok(calendar) => calendar,
        // A zone that a later version of the database of zones does not know any more.
        Err(fault) => {
            ticks::fail(row, fault.to_string(), at);
            return Ok(None);
        }
    };
    let text = "select case when w.state = 'paused' then 1 else 0 end as is_paused,
                  (select count(*) from cursor c
                   left join round r on r.cursor_id = c.id and r.number = c.open_round
                   where c.watch_id = w.id and (c.resync is not null or r.kind = 'resync')) as resyncs
                from watch w where w.id = $1 and w.app_id = $2";
    let values = vec![row.watch_id.clone().into(), row.app_id.clone().into()];
    let Some(stands) = rows::one::<Stands>(connection, "watch", text, values).await? else {
        ticks::fail(row, "its repository is not watched any more".to_owned(), at);
        return Ok(None);
    };
    let (overlap, is_busy) =
        if stands.is_paused == 1 { (TickOverlap::Skip, true) } else { (row.overlap, stands.resyncs > 0) };
    Ok(Some(fire(&calendar, (row.missed, overlap), is_busy, Timestamp(row.last_tick), at)))
}
