//! Attempts: remembered when they fail, counted for the change at the head of a lane.

use std::{sync::Arc, time::Duration};

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    model::round::DeliveryId,
    ports::{AttemptOutcome, AttemptRecord, HeadAttempts, KeptAnswer, SendFailure, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    attempt,
    id::{CursorId, WatchId},
    kind::OwnerKind,
};

use crate::database::{
    error::undecodable,
    rows::{self, signed},
};

#[derive(FromQueryResult)]
struct Failures {
    tried: i64,
    tries: i64,
    item_tries: i64,
    first: Option<i64>,
    last: Option<i64>,
}

/// Stores an attempt. A repeated attempt changes nothing, and so does an attempt of a removed cursor.
pub(crate) async fn record(
    connection: &impl ConnectionTrait,
    attempt: &AttemptRecord,
) -> Result<(), StoreError> {
    let text = "insert into attempt (owner_kind, owner_id, round, position, number, delivery_id, status,
                item_failure, excerpt, took_ms, ended_at, answer_headers, answer_body, next_at)
                select $1, id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 from cursor where id = $14
                on conflict do nothing";
    let (headers, body) = kept(attempt.answer.as_deref())?;
    let values = vec![
        OwnerKind::Cursor.into(),
        attempt.round.into(),
        signed(attempt.position).into(),
        i32::try_from(attempt.number).unwrap_or(i32::MAX).into(),
        attempt.delivery.as_str().into(),
        attempt.status.map(i32::from).into(),
        attempt.item_failure.into(),
        attempt.excerpt.clone().into(),
        signed(attempt.took_ms).into(),
        attempt.at.0.into(),
        headers.into(),
        body.into(),
        attempt.next_at.map(|at| at.0).into(),
        attempt.cursor.clone().into(),
    ];
    rows::execute(connection, "attempt", text, values).await?;
    Ok(())
}

/// The stored part of an answer, as columns.
pub(crate) fn kept(answer: Option<&KeptAnswer>) -> Result<(Option<String>, Option<String>), StoreError> {
    let Some(answer) = answer else { return Ok((None, None)) };
    let headers = serde_json::to_string(&answer.headers).map_err(|error| undecodable("attempt", error))?;
    Ok((Some(headers), Some(answer.body.clone())))
}

/// The outcome of an attempt, as far as its row has it. The reason for a missing answer is only in the
/// excerpt.
pub(crate) fn outcome(row: attempt::Model) -> Result<AttemptOutcome, StoreError> {
    let status = row.status.and_then(|status| u16::try_from(status).ok());
    Ok(AttemptOutcome {
        result: status.ok_or(SendFailure::Connection),
        retry_after: None,
        excerpt: row.excerpt,
        took: Duration::from_millis(rows::unsigned("attempt", row.took_ms)?),
        answer: answer(row.answer_headers, row.answer_body)?,
    })
}

/// The recorded attempts of one change, oldest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
    position: u64,
    limit: u64,
) -> Result<Vec<AttemptRecord>, StoreError> {
    let text = "select * from attempt where owner_kind = 'cursor' and owner_id = $1 and round = $2
                and position = $3 order by number limit $4";
    let values = vec![cursor.clone().into(), round.into(), signed(position).into(), signed(limit).into()];
    let found: Vec<attempt::Model> = rows::readable(connection, "attempt", text, values).await?;
    Ok(found.into_iter().map(|row| shown(cursor, row)).filter_map(rows::readable_or_logged).collect())
}

/// The last attempt at the change at the head of each open round of these watches, at most 256, where there
/// was one.
pub(crate) async fn of_heads(
    connection: &impl ConnectionTrait,
    watches: &[WatchId],
) -> Result<Vec<AttemptRecord>, StoreError> {
    if watches.is_empty() {
        return Ok(Vec::new());
    }
    let asked: Vec<_> = watches.iter().map(|watch| vec![watch.clone().into()]).collect();
    let (list, values) = rows::list(connection, &["text"], &asked);
    let text = format!(
        "with v(id) as ({list})
         select a.* from (select distinct id from v) v
         join cursor c on c.watch_id = v.id
         join round r on r.cursor_id = c.id and r.number = c.open_round
         join attempt a on a.owner_kind = 'cursor' and a.owner_id = c.id and a.round = r.number
           and a.position = r.position
         where not exists (select 1 from attempt b where b.owner_kind = 'cursor' and b.owner_id = a.owner_id
           and b.round = a.round and b.position = a.position and b.number > a.number)"
    );
    let found: Vec<attempt::Model> = rows::readable(connection, "attempt", &text, values).await?;
    let owned = |row: attempt::Model| {
        let cursor = row.owner_id.parse::<CursorId>().map_err(|error| undecodable("attempt", error))?;
        shown(&cursor, row)
    };
    Ok(found.into_iter().map(owned).filter_map(rows::readable_or_logged).collect())
}

fn shown(cursor: &CursorId, row: attempt::Model) -> Result<AttemptRecord, StoreError> {
    Ok(AttemptRecord {
        cursor: cursor.clone(),
        round: row.round,
        position: rows::unsigned("attempt", row.position)?,
        number: u32::try_from(row.number).unwrap_or(0),
        delivery: DeliveryId::from_stored(row.delivery_id),
        status: row.status.and_then(|status| u16::try_from(status).ok()),
        item_failure: row.item_failure,
        excerpt: row.excerpt,
        answer: answer(row.answer_headers, row.answer_body)?,
        took_ms: rows::unsigned("attempt", row.took_ms)?,
        at: Timestamp(row.ended_at),
        next_at: row.next_at.map(Timestamp),
    })
}

fn answer(headers: Option<String>, body: Option<String>) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
    let Some((headers, body)) = headers.zip(body) else { return Ok(None) };
    let headers = serde_json::from_str(&headers).map_err(|error| undecodable("attempt", error))?;
    Ok(Some(Arc::new(KeptAnswer { headers, body })))
}

/// The failed attempts of one change; those at the present endpoint are counted separately.
pub(crate) async fn of_change(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
    position: u64,
    endpoint_since: i64,
) -> Result<HeadAttempts, StoreError> {
    let text =
        "select count(*) as tried, coalesce(sum(case when ended_at >= $4 then 1 else 0 end), 0) as tries,
                coalesce(sum(case when item_failure and ended_at >= $4 then 1 else 0 end), 0) as item_tries,
                min(case when ended_at >= $4 then ended_at end) as first,
                max(case when ended_at >= $4 then ended_at end) as last from attempt
                where owner_kind = 'cursor' and owner_id = $1 and round = $2 and position = $3
                and (status is null or status < 200 or status > 299)";
    let values = vec![cursor.clone().into(), round.into(), signed(position).into(), endpoint_since.into()];
    let failures: Option<Failures> = rows::one(connection, "attempt", text, values).await?;
    Ok(failures.map_or_else(HeadAttempts::default, |failures| HeadAttempts {
        earlier: u32::try_from(failures.tried - failures.tries).unwrap_or(u32::MAX),
        tries: u32::try_from(failures.tries).unwrap_or(u32::MAX),
        item_tries: u32::try_from(failures.item_tries).unwrap_or(u32::MAX),
        first_failure: failures.first.map(Timestamp),
        last_failure: failures.last.map(Timestamp),
    }))
}
