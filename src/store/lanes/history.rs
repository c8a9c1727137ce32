//! Earlier rounds and the results of their changes, for people.

use std::ops::Range;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::round::DeliveryId,
    ports::{
        DeadLetter, Fates, PastRound, RoundFacts, RoundFilter, RoundPlace, SettledRange, StoreError, Tries,
    },
    time::Timestamp,
};
use tidings_entity::{
    dead_letter,
    id::{AppId, CursorId, ObjectId, WatchId},
    kind::RoundKind,
    round, settled, watch,
};

use crate::{
    Context,
    database::rows::{self, signed, unsigned},
    lanes::{self, letters},
    watching::sources,
};

#[derive(FromQueryResult)]
struct Facts {
    watch_id: WatchId,
    cursor_id: CursorId,
    number: i64,
    kind: RoundKind,
    branch: String,
    held: Option<ObjectId>,
    target: Option<ObjectId>,
    deletes: i64,
    creates: i64,
    updates: i64,
    history_rewritten: bool,
    skipped_commits: bool,
    complete: bool,
    position: i64,
    parked: i64,
    began_at: i64,
    ended_at: Option<i64>,
}

/// Rounds of an app that a filter means.
pub(crate) async fn rounds(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &RoundFilter,
    limit: u64,
) -> Result<Vec<RoundFacts>, StoreError> {
    let (text, values) = listing(app, filter, limit);
    let found: Vec<Facts> = rows::readable(connection, "round", &text, values).await?;
    found.into_iter().map(facts).collect()
}

/// The statement of a list. The first rounds of all cursors are among the first rounds of those cursors whose
/// own first round comes first: so each cursor is read once, by the primary key, and few of them return rows.
/// The rounds of an app are never sorted, however many there are.
pub(crate) fn listing(app: &AppId, filter: &RoundFilter, limit: u64) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![app.clone().into(), signed(limit).into()];
    let (mut of_cursor, mut of_round) = (String::new(), String::new());
    let mut and = |conditions: &mut String, condition: &str, given: Vec<Value>| {
        let mut condition = condition.to_owned();
        for value in given {
            values.push(value);
            condition = condition.replacen('?', &format!("${}", values.len()), 1);
        }
        conditions.push_str(" and ");
        conditions.push_str(&condition);
    };
    if let Some(watch) = &filter.watch {
        and(&mut of_cursor, "w.id = ?", vec![watch.clone().into()]);
    }
    if let Some(cursor) = &filter.cursor {
        and(&mut of_cursor, "c.id = ?", vec![cursor.clone().into()]);
    }
    if filter.is_open {
        and(&mut of_round, "n.number = c.open_round", Vec::new());
    }
    if let Some(from) = filter.from {
        and(&mut of_round, "(n.ended_at is null or n.ended_at >= ?)", vec![from.0.into()]);
    }
    if let Some(to) = filter.to {
        and(&mut of_round, "n.began_at < ?", vec![to.0.into()]);
    }
    // A single condition on the number, which the key can search by.
    let place = |number: i64, cursor: &CursorId| {
        vec![cursor.clone().into(), number.into(), number.saturating_sub(1).into()]
    };
    let bound = |comparison| {
        format!("n.number <= case when c.id {comparison} ? then cast(? as bigint) else cast(? as bigint) end")
    };
    let direction = match &filter.place {
        RoundPlace::Newest => "desc",
        RoundPlace::Before(number, cursor) => {
            and(&mut of_round, &bound("<"), place(*number, cursor));
            "desc"
        }
        RoundPlace::At(number, cursor) => {
            and(&mut of_round, &bound("<="), place(*number, cursor));
            "desc"
        }
        RoundPlace::From(number) => {
            and(&mut of_round, "n.number >= ?", vec![(*number).into()]);
            "asc"
        }
    };
    let text = format!(
        "select x.*, (select count(*) from dead_letter d
           where d.cursor_id = x.cursor_id and d.round = x.number) as parked
         from (select r.cursor_id, r.number, r.kind, r.branch, r.held, r.target, r.deletes, r.creates,
             r.updates, r.history_rewritten, r.skipped_commits, r.complete, r.position, r.began_at,
             r.ended_at, c.watch_id
           from (select y.id, y.watch_id, y.open_round
             from (select c.id, c.watch_id, c.open_round, (select n.number from round n
                 where n.cursor_id = c.id{of_round} order by n.number {direction} limit 1) as best
               from watch w join cursor c on c.watch_id = w.id where w.app_id = $1{of_cursor}) y
             where y.best is not null
             order by y.best {direction}, y.id {direction} limit $2) c
           join round r on r.cursor_id = c.id and r.number in (select n.number from round n
             where n.cursor_id = c.id{of_round} order by n.number {direction} limit $2)
           order by r.number {direction}, r.cursor_id {direction} limit $2) x
         order by x.number {direction}, x.cursor_id {direction}"
    );
    (text, values)
}

#[derive(FromQueryResult)]
struct FactsOfApp {
    app_id: AppId,
    #[sea_orm(nested)]
    facts: Facts,
}

/// Rounds of all apps that a filter means, newest first.
pub(crate) async fn rounds_of_all(
    connection: &impl ConnectionTrait,
    filter: &RoundFilter,
    limit: u64,
) -> Result<Vec<(AppId, RoundFacts)>, StoreError> {
    let (text, values) = listing_of_all(filter, limit);
    let found: Vec<FactsOfApp> = rows::readable(connection, "round", &text, values).await?;
    found.into_iter().map(|row| Ok((row.app_id, facts(row.facts)?))).collect()
}

/// The statement of a list over all apps. Rounds are read from the newest on, by the index over their
/// numbers, until enough are found; open rounds are few, and found by an index over cursors with an open
/// round.
pub(crate) fn listing_of_all(filter: &RoundFilter, limit: u64) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![signed(limit).into()];
    let mut conditions = String::new();
    let mut and = |condition: &str, given: Vec<Value>| {
        let mut condition = condition.to_owned();
        for value in given {
            values.push(value);
            condition = condition.replacen('?', &format!("${}", values.len()), 1);
        }
        conditions.push_str(" and ");
        conditions.push_str(&condition);
    };
    if let Some(watch) = &filter.watch {
        and("c.watch_id = ?", vec![watch.clone().into()]);
    }
    if let Some(cursor) = &filter.cursor {
        and("c.id = ?", vec![cursor.clone().into()]);
    }
    if filter.is_open {
        and("c.open_round is not null and r.number = c.open_round", Vec::new());
    }
    if let Some(from) = filter.from {
        and("(r.ended_at is null or r.ended_at >= ?)", vec![from.0.into()]);
    }
    if let Some(to) = filter.to {
        and("r.began_at < ?", vec![to.0.into()]);
    }
    match &filter.place {
        RoundPlace::Newest | RoundPlace::From(_) => {}
        RoundPlace::Before(number, cursor) => {
            let values = vec![(*number).into(), (*number).into(), cursor.clone().into()];
            and("r.number <= ? and (r.number < ? or r.cursor_id < ?)", values);
        }
        RoundPlace::At(number, cursor) => {
            let values = vec![(*number).into(), (*number).into(), cursor.clone().into()];
            and("r.number <= ? and (r.number < ? or r.cursor_id <= ?)", values);
        }
    }
    let text = format!(
        "select x.*, (select count(*) from dead_letter d
           where d.cursor_id = x.cursor_id and d.round = x.number) as parked
         from (select w.app_id, r.cursor_id, r.number, r.kind, r.branch, r.held, r.target, r.deletes,
             r.creates, r.updates, r.history_rewritten, r.skipped_commits, r.complete, r.position, r.began_at,
             r.ended_at, c.watch_id
           from round r join cursor c on c.id = r.cursor_id join watch w on w.id = c.watch_id
           where r.number > 0{conditions}
           order by r.number desc, r.cursor_id desc limit $1) x
         order by x.number desc, x.cursor_id desc"
    );
    (text, values)
}

fn facts(row: Facts) -> Result<RoundFacts, StoreError> {
    let count = |number| unsigned("round", number);
    Ok(RoundFacts {
        watch: row.watch_id,
        cursor: row.cursor_id,
        number: row.number,
        kind: row.kind,
        branch: row.branch,
        held: row.held,
        target: row.target,
        deletes: count(row.deletes)?,
        creates: count(row.creates)?,
        updates: count(row.updates)?,
        history_rewritten: row.history_rewritten,
        skipped_commits: row.skipped_commits,
        complete: row.complete,
        position: count(row.position)?,
        parked: count(row.parked)?,
        began_at: Timestamp(row.began_at),
        ended_at: row.ended_at.map(Timestamp),
    })
}

/// One round of an app with all data that its list is computed from.
pub(crate) async fn past(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    id: &CursorId,
    number: i64,
) -> Result<PastRound, StoreError> {
    let text = "select w.* from watch w join cursor c on c.watch_id = w.id where c.id = $1 and w.app_id = $2";
    let values = vec![id.clone().into(), app.clone().into()];
    let watch: Option<watch::Model> = rows::one(connection, "watch", text, values).await?;
    let watch = watch.ok_or(StoreError::NotFound)?;
    let (round, ended_at) = lanes::past(connection, id, number).await?.ok_or(StoreError::NotFound)?;
    let remote = sources::remote(connection, context, &watch).await?;
    Ok(PastRound { watch: watch.id, remote, round, ended_at })
}

#[derive(FromQueryResult)]
struct Try {
    position: i64,
    status: Option<i32>,
    ended_at: i64,
    next_at: Option<i64>,
}

/// The facts about a range of a round's changes.
pub(crate) async fn fates(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    number: i64,
    range: Range<u64>,
) -> Result<Fates, StoreError> {
    let of_round = || -> Vec<Value> { vec![cursor.clone().into(), number.into()] };
    let of_range = || -> Vec<Value> {
        vec![cursor.clone().into(), number.into(), signed(range.start).into(), signed(range.end).into()]
    };
    let text = "select * from round where cursor_id = $1 and number = $2";
    let row: Option<round::Model> = rows::one(connection, "round", text, of_round()).await?;
    let row = row.ok_or(StoreError::NotFound)?;
    // Settled ranges follow one another: the first relevant one is the last that begins before the range.
    let text = "select * from settled where cursor_id = $1 and round = $2 and from_position < $4
                and from_position >= coalesce((select max(s.from_position) from settled s
                  where s.cursor_id = $1 and s.round = $2 and s.from_position <= $3), 0)
                order by from_position";
    let ranges: Vec<settled::Model> = rows::all(connection, "settled", text, of_range()).await?;
    let text = "select * from dead_letter where cursor_id = $1 and round = $2
                and (length(path) = 0 or (position >= $3 and position < $4)) order by position";
    let found: Vec<dead_letter::Model> = rows::readable(connection, "dead_letter", text, of_range()).await?;
    let mut letters: Vec<DeadLetter> =
        found.into_iter().map(letters::shown).filter_map(rows::readable_or_logged).collect();
    // The letter of a round that became one task is about each of its changes.
    if let Some(whole) = letters.iter().find(|letter| letter.path.is_empty()).cloned() {
        letters = range.clone().map(|position| DeadLetter { position, ..whole.clone() }).collect();
    }
    let text = "select position, status, ended_at, next_at from attempt where owner_kind = 'cursor' and \
        owner_id = $1
                and round = $2 and position >= $3 and position < $4 order by position, number";
    let attempts: Vec<Try> = rows::all(connection, "attempt", text, of_range()).await?;
    let range = |row: settled::Model| {
        Ok(SettledRange {
            from: unsigned("settled", row.from_position)?,
            to: unsigned("settled", row.to_position)?,
            at: Timestamp(row.settled_at),
        })
    };
    Ok(Fates {
        position: unsigned("round", row.position)?,
        is_open: row.ended_at.is_none(),
        settled: ranges.into_iter().map(range).collect::<Result<_, StoreError>>()?,
        letters,
        tries: counted(attempts)?,
    })
}

fn counted(attempts: Vec<Try>) -> Result<Vec<Tries>, StoreError> {
    let mut counted: Vec<Tries> = Vec::new();
    for row in attempts {
        let position = unsigned("attempt", row.position)?;
        let status = row.status.and_then(|status| u16::try_from(status).ok());
        let before = counted.pop_if(|tries| tries.position == position);
        counted.push(Tries {
            position,
            count: before.map_or(0, |tries| tries.count) + 1,
            acknowledged: before.is_some_and(|tries| tries.acknowledged)
                || status.is_some_and(|status| (200..300).contains(&status)),
            status,
            at: Timestamp(row.ended_at),
            next_at: row.next_at.map(Timestamp),
        });
    }
    Ok(counted)
}

/// The last change of a round below a position that was parked.
pub(crate) async fn last_parked(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    number: i64,
    below: u64,
) -> Result<Option<u64>, StoreError> {
    let text = "select * from dead_letter where cursor_id = $1 and round = $2 and position < $3
                order by position desc limit 1";
    let values = vec![cursor.clone().into(), number.into(), signed(below).into()];
    let row: Option<dead_letter::Model> = rows::one(connection, "dead_letter", text, values).await?;
    row.map(|row| unsigned("dead_letter", row.position)).transpose()
}

#[derive(FromQueryResult)]
struct ChangePosition {
    cursor_id: CursorId,
    round: i64,
    position: i64,
}

/// Cursor, round and position of a delivery of an app that failed or was parked; other deliveries have no
/// row.
pub(crate) async fn delivery(
    connection: &impl ConnectionTrait,
    app: &AppId,
    id: &DeliveryId,
) -> Result<Option<(CursorId, i64, u64)>, StoreError> {
    for text in [
        "select cursor_id, round, position from dead_letter where delivery_id = $2 and app_id = $1 limit 1",
        "select c.id as cursor_id, a.round, a.position from attempt a
         join cursor c on c.id = a.owner_id join watch w on w.id = c.watch_id
         where a.delivery_id = $2 and a.owner_kind = 'cursor' and w.app_id = $1 limit 1",
    ] {
        let values = vec![app.clone().into(), id.as_str().into()];
        let found: Option<ChangePosition> = rows::one(connection, "attempt", text, values).await?;
        if let Some(place) = found {
            return Ok(Some((place.cursor_id, place.round, unsigned("attempt", place.position)?)));
        }
    }
    Ok(None)
}
