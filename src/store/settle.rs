//! Settling many lanes at once: one read, then one statement per table, however many there are.
//! Several settlements of one lane become one range. What they park, what they do to their cursor
//! as a whole and what is to be sent again follow one by one: that is rare.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::{
    ports::{Park, Settlement, StoreError},
    round::LetterState,
};
use tidings_entity::{
    id::CursorId,
    kind::{LetterStateKind, LetterStatus},
};

use super::{
    redrive, rounds,
    rows::{self, list, signed},
};

#[derive(FromQueryResult)]
struct OpenRound {
    cursor_id: CursorId,
    number: i64,
    position: i64,
    total: i64,
    streak: i64,
    acknowledged: bool,
}

/// What the settlements of one lane come to.
struct Lane<'s> {
    from: i64,
    to: i64,
    last: &'s Settlement,
    acknowledged: bool,
    /// Its cursor's row says something else.
    is_news: bool,
}

/// Records settled prefixes. False for each whose round is not open, or whose position is not new
/// or lies beyond the end.
pub(super) async fn settle(
    connection: &impl ConnectionTrait,
    settlements: &[Settlement],
) -> Result<Vec<bool>, StoreError> {
    let open = open_rounds(connection, settlements).await?;
    let mut order: Vec<usize> = (0..settlements.len()).collect();
    order.sort_by_key(|index| settlements[*index].position);
    let mut fresh = vec![false; settlements.len()];
    let mut lanes: BTreeMap<&CursorId, Lane<'_>> = BTreeMap::new();
    for index in order {
        let settlement = &settlements[index];
        let to = signed(settlement.position);
        let Some(round) = open.get(&settlement.cursor).filter(|round| round.number == settlement.round)
        else {
            continue;
        };
        let lane = lanes.get(&settlement.cursor);
        if to <= lane.map_or(round.position, |lane| lane.to) || to > round.total {
            continue;
        }
        let acknowledged = settlement.acknowledged || lane.is_some_and(|lane| lane.acknowledged);
        fresh[index] = true;
        let is_news = i64::from(settlement.streak) != round.streak || (acknowledged && !round.acknowledged);
        let lane = Lane { from: round.position, to, last: settlement, acknowledged, is_news };
        lanes.insert(&settlement.cursor, lane);
    }
    if !lanes.is_empty() {
        record(connection, &lanes).await?;
    }
    let mut recorded: Vec<&Settlement> = settlements
        .iter()
        .zip(&fresh)
        .filter(|(_, fresh)| **fresh)
        .map(|(settlement, _)| settlement)
        .collect();
    recorded.sort_by_key(|settlement| settlement.position);
    for settlement in recorded {
        for park in &settlement.parked {
            bury(connection, settlement, park).await?;
        }
        rounds::stand(connection, &settlement.cursor, &settlement.standing).await?;
        redrive::of_cursor(connection, &settlement.cursor, &settlement.redrive).await?;
    }
    Ok(fresh)
}

async fn open_rounds(
    connection: &impl ConnectionTrait,
    settlements: &[Settlement],
) -> Result<BTreeMap<CursorId, OpenRound>, StoreError> {
    let asked: Vec<_> = settlements.iter().map(|settlement| vec![settlement.cursor.clone().into()]).collect();
    let (list, values) = list(connection, &["text"], &asked);
    let text = format!(
        "with v(cursor_id) as ({list})
         select r.cursor_id, r.number, r.position, r.total, cast(c.streak as bigint) as streak, c.acknowledged
         from (select distinct cursor_id from v) v
         join cursor c on c.id = v.cursor_id
         join round r on r.cursor_id = c.id and r.number = c.open_round"
    );
    let rounds: Vec<OpenRound> = rows::all(connection, "round", &text, values).await?;
    Ok(rounds.into_iter().map(|round| (round.cursor_id.clone(), round)).collect())
}

async fn record(
    connection: &impl ConnectionTrait,
    lanes: &BTreeMap<&CursorId, Lane<'_>>,
) -> Result<(), StoreError> {
    let ranges: Vec<_> = lanes
        .iter()
        .map(|(cursor, lane)| {
            let last = lane.last;
            vec![
                (*cursor).clone().into(),
                last.round.into(),
                lane.from.into(),
                lane.to.into(),
                last.at.0.into(),
            ]
        })
        .collect();
    let (values, bound) = list(connection, &["text", "bigint", "bigint", "bigint", "bigint"], &ranges);
    let with = format!("with v(cursor_id, round, start, finish, at) as ({values})");
    let text = format!(
        "{with} insert into settled (cursor_id, round, from_position, to_position, settled_at)
         select cursor_id, round, start, finish, at from v where true on conflict do nothing"
    );
    rows::execute(connection, "settled", &text, bound.clone()).await?;
    let text = format!(
        "{with} update round set position = v.finish from v
         where round.cursor_id = v.cursor_id and round.number = v.round and round.position < v.finish"
    );
    rows::execute(connection, "round", &text, bound).await?;
    let news: Vec<_> = lanes
        .iter()
        .filter(|(_, lane)| lane.is_news)
        .map(|(cursor, lane)| {
            vec![
                (*cursor).clone().into(),
                i64::from(lane.last.streak).into(),
                i64::from(lane.acknowledged).into(),
            ]
        })
        .collect();
    if news.is_empty() {
        return Ok(());
    }
    let (values, bound) = list(connection, &["text", "bigint", "bigint"], &news);
    let text = format!(
        "with v(cursor_id, streak, acknowledged) as ({values})
         update cursor set streak = v.streak, acknowledged = (cursor.acknowledged or v.acknowledged > 0)
         from v where cursor.id = v.cursor_id"
    );
    rows::execute(connection, "cursor", &text, bound).await?;
    Ok(())
}

/// Writes a dead letter; an older open one of the same path is superseded, though a round that it
/// is bound to keeps it in its list.
async fn bury(
    connection: &impl ConnectionTrait,
    settlement: &Settlement,
    park: &Park,
) -> Result<(), StoreError> {
    let text = "update dead_letter set status = $1, closed_at = $2
                where cursor_id = $3 and path = $4 and status in ('open', 'redrive_requested')";
    let values = vec![
        LetterStatus::Superseded.into(),
        settlement.at.0.into(),
        settlement.cursor.clone().into(),
        park.change.path.clone().into(),
    ];
    rows::execute(connection, "dead_letter", text, values).await?;
    let (kind, entry) = match park.state {
        LetterState::Has(entry) => (LetterStateKind::Has, Some(entry)),
        LetterState::Nothing => (LetterStateKind::Nothing, None),
        LetterState::Unknown { before } => (LetterStateKind::Unknown, before),
    };
    let text = "insert into dead_letter (id, app_id, watch_id, cursor_id, round, position, path, operation,
                delivery_id, reason, status, state_kind, state_mode, state_blob, http_status, excerpt, created_at)
                select $1, w.app_id, w.id, c.id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
                from cursor c join watch w on w.id = c.watch_id where c.id = $15";
    let values = vec![
        park.id.clone().into(),
        settlement.round.into(),
        signed(park.position).into(),
        park.change.path.clone().into(),
        park.change.operation.into(),
        park.delivery.as_str().into(),
        park.reason.into(),
        LetterStatus::Open.into(),
        kind.into(),
        entry.and_then(|entry| i32::try_from(entry.mode).ok()).into(),
        entry.map(|entry| entry.blob).into(),
        park.status.map(i32::from).into(),
        park.excerpt.clone().into(),
        settlement.at.0.into(),
        settlement.cursor.clone().into(),
    ];
    rows::execute(connection, "dead_letter", text, values).await?;
    Ok(())
}
