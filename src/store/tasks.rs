//! Tasks and their queues. What workers and producers ask all the time is done for many of them at once: the
//! operations of a turn of the writer take a fixed number of statements, however many tasks they name.
//!
//! **Order.** Within a turn tasks first end, then become due, then are created, then are claimed, so that
//! what a turn creates it may hand out. Each decision is made in memory over rows that the transaction holds
//! ([`tidings_actors::model::task`]), and is what is written.
//!
//! **Locks.** Other replicas do the same at the same time. A turn locks the tasks that it is asked to move,
//! by their ids, then the queues of all its tasks, by theirs, then the rounds whose tasks ended, by their
//! cursors, then ledgers, by their apps. After the queues it waits for no other turn on tasks: who makes
//! tasks due, ends claims or hands tasks out passes over rows that are locked, and keys of one queue are
//! created under the lock of that queue. So turns never wait for each other in a circle.
//!
//! Schedules are held before queues, and nobody ever waits for one ([`schedules::ticks`]).
//!
//! **Counts.** How many tasks a queue has in each state stands in its row, changed once a turn. The bounds of
//! an app are sums over its queues; replicas that create at the same moment in different queues may pass a
//! bound by what one turn brings.

mod artifacts;
mod claims;
mod creates;
mod endings;
mod forgotten;
mod history;
mod lists;
mod moves;
mod news;
mod queues;
mod schedules;
mod shown;
mod watch_tasks;
pub(crate) mod worker_subscriptions;

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbBackend, Value};
use tidings_actors::{
    ports::{
        CLOCKS_APART_MAX, Claim, ClaimRequest, Creation, NewTask, StoreError, TaskNews, TaskWord, Woken,
        WordRefusal, Worded,
    },
    time::Timestamp,
};
use tidings_entity::id::{AppId, QueueId};

use self::{creates::Creates, moves::Moves, queues::Queues, schedules::ticks::Ticks};
use super::{
    Context,
    apps::sinks::STOPPED,
    database::rows,
    ledger::{self, subscriptions::callbacks::Callbacks},
};

pub(super) use artifacts::{
    artifact, artifact_ids, artifacts, known_artifacts, may_put_artifact, put_artifact, remove_artifact,
};
pub(super) use forgotten::{forget, of_restored, purge_ended};
pub(super) use history::{claims, has_claim};
pub(super) use lists::{bodies, find, list, payloads, redrivable};
pub(super) use news::TaskChanges;
pub(super) use queues::{
    depths, depths_of,
    queue_changes::{empty as empty_queues, pause, purge, set, set_topic},
    queue_lists::{queue, queues},
    ready_since, with_work,
};
pub(super) use schedules::{
    of_restored as of_restored_schedules, pause as pause_schedule, remove as remove_schedule,
    remove_of_watch as remove_schedules_of_watch,
    resyncs::{
        DueResync, due as due_resyncs, ended as resync_ended, fire_one as fire_resync,
        put_off as put_off_resync,
    },
    schedule, schedules, set as set_schedule,
};
pub(super) use watch_tasks::{
    aside::{
        all_go_on, arrange_cursor, arrange_watch, go_on, has_tasks, overtake, remove as remove_of_watch,
    },
    branches::{
        changes as changes_of, of_change, of_cursors as of_branches, queues as queues_of_watches,
        unfinished as unfinished_of_watches, waiting as hand_overs_waiting,
    },
    hand_over::{hand_over, room},
};

/// What is asked of tasks in a turn.
pub(super) enum Operation {
    /// Create tasks of an app, all or none.
    Create(AppId, Vec<NewTask>),
    /// Hand out tasks, to the first request first.
    Claim(Vec<ClaimRequest>),
    /// Move tasks, each by a word of its own.
    Move(Vec<TaskWord>),
    /// Make tasks ready that are due, end claims whose time is over, and create the tasks of schedules whose
    /// moment has come.
    Wake,
}

/// What became of an operation.
pub(super) enum Outcome {
    Created(Creation),
    Claimed(Vec<Claim>),
    Moved(Vec<Result<Worded, WordRefusal>>),
    Woken(Woken),
}

impl Operation {
    /// Bytes of the bodies that it brings.
    pub(super) fn bytes(&self) -> usize {
        let of_new = |tasks: &[NewTask]| tasks.iter().map(|task| task.payload.len()).sum::<usize>();
        match self {
            Self::Create(_, tasks) => of_new(tasks),
            Self::Move(words) => {
                words.iter().map(|word| word.body.as_ref().map_or(0, String::len) + of_new(&word.then)).sum()
            }
            Self::Claim(_) | Self::Wake => 0,
        }
    }

    /// Whether it must be done by itself: what follows up a task is created with its end or the task does not
    /// end, which is known only after both were looked at.
    fn is_apart(&self) -> bool {
        matches!(self, Self::Move(words) if words.iter().any(|word| !word.then.is_empty()))
    }
}

/// Divides operations into those that are done in one set.
pub(super) fn sets(operations: &[Operation]) -> Vec<&[Operation]> {
    operations.chunk_by(|one, other| !one.is_apart() && !other.is_apart()).collect()
}

/// Does a set of operations. An error leaves the transaction in doubt: the caller takes it back.
pub(super) async fn run(
    connection: &impl ConnectionTrait,
    context: &Context,
    operations: &[Operation],
) -> Result<(Vec<Outcome>, TaskNews), StoreError> {
    let at = context.clock.now();
    let mut moves = Moves::load(connection, operations, at).await?;
    let mut asked: BTreeSet<QueueId> = moves.queues();
    for operation in operations {
        asked.extend(named(operation));
    }
    let mut ticks = Ticks::load(connection, operations, at).await?;
    asked.extend(ticks.queues());
    let mut queues = Queues::load(connection, &asked).await?;
    let wanted =
        operations.iter().flat_map(endings::addresses).chain(moves.callbacks()).chain(ticks.callbacks());
    let callbacks = Callbacks::load(connection, wanted.collect()).await?;
    let mut creates = Creates::load(connection, context, operations, ticks.apps(), callbacks, at).await?;
    let mut outcomes = Vec::with_capacity(operations.len());
    // Words and the clock first: what they free others may be given in this turn.
    for operation in operations {
        outcomes.push(match operation {
            Operation::Move(words) => {
                Some(Outcome::Moved(moves.say(context, words, &mut queues, &mut creates)))
            }
            Operation::Wake => Some(Outcome::Woken(moves.wake(context, &mut queues))),
            Operation::Create(..) | Operation::Claim(_) => None,
        });
    }
    for (operation, outcome) in operations.iter().zip(&mut outcomes) {
        if let Operation::Create(app, tasks) = operation {
            *outcome = Some(Outcome::Created(creates.create(app, tasks, None, &mut queues)));
        }
    }
    moves.write(connection, at).await?;
    let of_watches =
        watch_tasks::settles::settle(connection, context, moves.take_ended(), &mut queues, at).await?;
    watch_tasks::aside::arrange_free(connection, &mut queues, moves.free(), at).await?;
    ticks.fire(connection, context, &mut queues, &mut creates, at).await?;
    creates.write(connection, &mut queues, moves.called_back()).await?;
    claim(connection, context, operations, &mut outcomes, &mut queues, at).await?;
    queues.write(connection).await?;
    let (of_ticks, created) = ticks.write(connection).await?;
    let lets_go_on = schedules::ticks::wake_after(connection, &moves.ended_of_ticks(), at).await?;
    let (mut news, mut notes) = moves.told(&mut queues);
    notes.extend(of_ticks);
    notes.extend(of_watches);
    news.tally.queues = queues.take_tallies();
    ledger::write(connection, context, notes, at).await?;
    (news.ready, news.rated, news.room) = (queues.ready(), queues.rated(), queues.rooms());
    let ahead = [news.wake_at, creates.wake_at(), queues.wake_at(), lets_go_on.then_some(at)];
    news.wake_at = ahead.into_iter().flatten().min();
    let mut outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Woken(_))) {
        let next = next_wake(connection).await?;
        for outcome in &mut outcomes {
            if let Outcome::Woken(woken) = outcome {
                (woken.next, woken.ticks) = (next, created);
            }
        }
    }
    Ok((outcomes, news))
}

/// Hands tasks out to those operations that ask for some.
async fn claim(
    connection: &impl ConnectionTrait,
    context: &Context,
    operations: &[Operation],
    outcomes: &mut [Option<Outcome>],
    queues: &mut Queues,
    at: Timestamp,
) -> Result<(), StoreError> {
    let requests: Vec<&ClaimRequest> = operations
        .iter()
        .filter_map(|operation| match operation {
            Operation::Claim(requests) => Some(requests),
            _ => None,
        })
        .flatten()
        .collect();
    let mut claims = claims::hand_out(connection, context, &requests, queues, at).await?.into_iter();
    for (operation, outcome) in operations.iter().zip(outcomes) {
        if let Operation::Claim(requests) = operation {
            *outcome = Some(Outcome::Claimed(claims.by_ref().take(requests.len()).collect()));
        }
    }
    Ok(())
}

/// The queues that an operation names.
fn named(operation: &Operation) -> Vec<QueueId> {
    let of_new = |app: &AppId, tasks: &[NewTask]| -> Vec<QueueId> {
        tasks.iter().map(|task| QueueId::of(app, &task.command)).collect()
    };
    match operation {
        Operation::Create(app, tasks) => of_new(app, tasks),
        Operation::Claim(requests) => requests
            .iter()
            .flat_map(|request| request.commands.iter().map(|command| QueueId::of(&request.app, command)))
            .collect(),
        Operation::Move(words) => words.iter().flat_map(|word| of_new(&word.app, &word.then)).collect(),
        Operation::Wake => Vec::new(),
    }
}

/// When the next task is due, the next claim runs out, or the next schedule is to be looked at.
async fn next_wake(connection: &impl ConnectionTrait) -> Result<Option<Timestamp>, StoreError> {
    let nearest = |state: &str, later: i64| {
        format!(
            "select * from (select wake_at + {later} as wake_at from task where state = '{state}'
               and wake_at is not null order by task.wake_at, id limit 1) {state}"
        )
    };
    let grace = claims_grace(connection);
    let text = format!(
        "select min(wake_at) from ({} union all {} union all
           select * from (select s.wake_at from schedule s join app a on a.id = s.app_id
             where s.wake_at is not null and not {STOPPED} order by s.wake_at limit 1) tick) nearest",
        nearest("waiting", 0),
        nearest("claimed", grace)
    );
    // 0: there is none.
    let next = rows::number(connection, "task", &text, vec![]).await?;
    Ok((next > 0).then_some(Timestamp(next)))
}

/// How long after its end a claim is taken from its worker, in milliseconds. Clocks of replicas differ, also
/// when all follow the database's: a replica whose clock is ahead must not give the task to another worker
/// while the end that its worker was told is still to come by the clock of the replica that told it.
fn claims_grace(connection: &impl ConnectionTrait) -> i64 {
    match connection.get_database_backend() {
        DbBackend::Postgres => i64::try_from(CLOCKS_APART_MAX.as_millis()).unwrap_or(0),
        // One process has one clock.
        _ => 0,
    }
}

/// What locks the rows of a statement: only replicas need that.
fn for_update(connection: &impl ConnectionTrait, of: &str, skip: bool) -> String {
    match (connection.get_database_backend(), skip) {
        (DbBackend::Postgres, true) => format!(" for update of {of} skip locked"),
        (DbBackend::Postgres, false) => format!(" for update of {of}"),
        _ => String::new(),
    }
}

/// A number of a list, where null is not possible: -1 stands for null, and `nullif` turns it back.
fn moment(at: Option<Timestamp>) -> Value {
    at.map_or(-1, |at| at.0).into()
}

/// A text of a list; an empty one stands for null.
fn text(text: Option<&str>) -> Value {
    text.unwrap_or_default().into()
}
