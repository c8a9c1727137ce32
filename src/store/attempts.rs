//! Attempts: remembered when they fail, counted for the change at the head of a lane.

use std::sync::Arc;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    ports::{AttemptRecord, HeadAttempts, KeptAnswer, StoreError},
    round::DeliveryId,
    time::Timestamp,
};
use tidings_entity::{attempt, id::CursorId, kind::OwnerKind};

use super::{
    error::undecodable,
    rows::{self, signed},
};

#[derive(FromQueryResult)]
struct Failures {
    tries: i64,
    item_tries: i64,
    first: Option<i64>,
    last: Option<i64>,
}

/// Remembers an attempt. The same one again changes nothing; one of a cursor that is gone neither.
pub(super) async fn record(
    connection: &impl ConnectionTrait,
    attempt: &AttemptRecord,
) -> Result<(), StoreError> {
    let text = "insert into attempt (owner_kind, owner_id, round, position, number, delivery_id, status,
                item_failure, excerpt, took_ms, ended_at, answer_headers, answer_body)
                select $1, id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 from cursor where id = $13
                on conflict do nothing";
    let headers = attempt
        .answer
        .as_ref()
        .map(|answer| serde_json::to_string(&answer.headers).map_err(|error| undecodable("attempt", error)));
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
        headers.transpose()?.into(),
        attempt.answer.as_ref().map(|answer| answer.body.clone()).into(),
        attempt.cursor.clone().into(),
    ];
    rows::execute(connection, "attempt", text, values).await?;
    Ok(())
}

/// The attempts of one change that are rows, the first first.
pub(super) async fn list(
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
    let shown = |row: attempt::Model| -> Result<AttemptRecord, StoreError> {
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
        })
    };
    Ok(found.into_iter().map(shown).filter_map(rows::readable_or_logged).collect())
}

fn answer(headers: Option<String>, body: Option<String>) -> Result<Option<Arc<KeptAnswer>>, StoreError> {
    let Some((headers, body)) = headers.zip(body) else { return Ok(None) };
    let headers = serde_json::from_str(&headers).map_err(|error| undecodable("attempt", error))?;
    Ok(Some(Arc::new(KeptAnswer { headers, body })))
}

/// The failed attempts of one change.
pub(super) async fn of_change(
    connection: &impl ConnectionTrait,
    cursor: &CursorId,
    round: i64,
    position: u64,
) -> Result<HeadAttempts, StoreError> {
    let text =
        "select count(*) as tries, coalesce(sum(case when item_failure then 1 else 0 end), 0) as item_tries,
                min(ended_at) as first, max(ended_at) as last from attempt
                where owner_kind = 'cursor' and owner_id = $1 and round = $2 and position = $3
                and (status is null or status < 200 or status > 299)";
    let values = vec![cursor.clone().into(), round.into(), signed(position).into()];
    let failures: Option<Failures> = rows::one(connection, "attempt", text, values).await?;
    Ok(failures.map_or_else(HeadAttempts::default, |failures| HeadAttempts {
        tries: u32::try_from(failures.tries).unwrap_or(u32::MAX),
        item_tries: u32::try_from(failures.item_tries).unwrap_or(u32::MAX),
        first_failure: failures.first.map(Timestamp),
        last_failure: failures.last.map(Timestamp),
    }))
}
