//! Closes dead letters by hand, so that they are not redriven. It stays unknown which file the app has at
//! such a path: a later round sends the path as soon as it differs, like every path. A letter that an open
//! round sends is part of that round's list and stays until the round has ended.
//!
//! Many letters are closed some thousand per transaction, so that deliveries never wait for it.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    ports::{DeadLetter, Dismissed, LetterFilter, REDRIVE_STEP, StoreError, bound_to_open_round},
    time::Timestamp,
};
use tidings_entity::{
    dead_letter,
    id::{AppId, CursorId, DeadLetterId},
    kind::LetterStatus,
};

use super::letter_search::{self, LetterRange};
use crate::{
    Context,
    database::{error::undecodable, rows},
    lanes::letters,
    watching::statuses,
};

/// The most letters in one statement.
const LIST: usize = 256;

#[derive(FromQueryResult)]
struct OpenRound {
    id: CursorId,
    open_round: i64,
}

/// Closes the named letters: all, or none. Returns how many were open.
pub(crate) async fn named(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    ids: &[DeadLetterId],
    at: Timestamp,
) -> Result<u64, StoreError> {
    let rounds = open_rounds(connection, app).await?;
    let mut open = Vec::new();
    for id in ids.iter().collect::<BTreeSet<_>>() {
        let row = letters::row(connection, app, id).await?;
        match row.status {
            LetterStatus::Open | LetterStatus::RedriveRequested if is_bound(&row, &rounds) => {
                return Err(StoreError::Conflict(bound_to_open_round(id)));
            }
            LetterStatus::Open | LetterStatus::RedriveRequested => open.push((row.id, row.cursor_id)),
            LetterStatus::Dismissed => {}
            LetterStatus::Redriven | LetterStatus::Superseded => {
                return Err(StoreError::Conflict(format!("{id} is {} already", row.status)));
            }
        }
    }
    close(connection, context, &open, at).await?;
    Ok(open.len() as u64)
}

/// Closes the open letters among the next letters of an app that match a filter.
pub(crate) async fn some(
    connection: &impl ConnectionTrait,
    context: &Context,
    (app, filter, before): (&AppId, &LetterFilter, Option<DeadLetterId>),
    at: Timestamp,
) -> Result<Dismissed, StoreError> {
    let matcher = filter.matcher().map_err(|error| undecodable("dead_letter", error))?;
    let limit = rows::filter::bounded(REDRIVE_STEP, filter.q.as_ref());
    let range = LetterRange {
        condition: "d.app_id = $1 and (cast($2 as text) is null or d.id < $2)".to_owned(),
        values: vec![app.clone().into(), before.map(|id| id.to_string()).into()],
        order: "desc",
        limit,
        filter: filter.q.as_ref(),
    };
    let looked = letter_search::look(connection, range).await?;
    let next = looked.last.filter(|_| looked.count == limit);
    let rounds = open_rounds(connection, app).await?;
    let (mut open, mut bound) = (Vec::new(), 0);
    for found in looked.found {
        let is_bound = is_bound(&found.row, &rounds);
        let Some(letter) = found.meant(&matcher).filter(is_open) else { continue };
        if is_bound {
            bound += 1;
        } else {
            open.push((letter.id, letter.cursor));
        }
    }
    close(connection, context, &open, at).await?;
    Ok(Dismissed { dismissed: open.len() as u64, bound, next })
}

fn is_open(letter: &DeadLetter) -> bool {
    matches!(letter.status, LetterStatus::Open | LetterStatus::RedriveRequested)
}

fn is_bound(row: &dead_letter::Model, rounds: &BTreeMap<CursorId, i64>) -> bool {
    row.bound_round.is_some() && row.bound_round.as_ref() == rounds.get(&row.cursor_id)
}

/// The open rounds of an app, by their cursors.
async fn open_rounds(
    connection: &impl ConnectionTrait,
    app: &AppId,
) -> Result<BTreeMap<CursorId, i64>, StoreError> {
    let text = "select c.id, c.open_round from cursor c join watch w on w.id = c.watch_id
                where w.app_id = $1 and c.open_round is not null";
    let found: Vec<OpenRound> = rows::all(connection, "cursor", text, vec![app.clone().into()]).await?;
    Ok(found.into_iter().map(|row| (row.id, row.open_round)).collect())
}

/// A closed letter belongs to no redrive any more; the redrive that waited for it counts it as cancelled.
async fn close(
    connection: &impl ConnectionTrait,
    context: &Context,
    letters: &[(DeadLetterId, CursorId)],
    at: Timestamp,
) -> Result<(), StoreError> {
    for some in letters.chunks(LIST) {
        let listed: Vec<Vec<Value>> =
            some.iter().map(|(id, _)| vec![id.clone().into(), at.0.into()]).collect();
        let (list, values) = rows::list(connection, &["text", "bigint"], &listed);
        let text = format!(
            "with v(id, at) as ({list}), t(id, n) as (select redrive_id, count(*) from dead_letter
               where id in (select id from v) and redrive_id is not null group by redrive_id)
             update redrive set cancelled = cancelled + t.n from t where redrive.id = t.id"
        );
        rows::execute(connection, "redrive", &text, values.clone()).await?;
        let text = format!(
            "with v(id, at) as ({list}) update dead_letter set status = 'dismissed', redrive_id = null,
             closed_at = (select at from v limit 1) where id in (select id from v)"
        );
        rows::execute(connection, "dead_letter", &text, values).await?;
    }
    let cursors: BTreeSet<&CursorId> = letters.iter().map(|(_, cursor)| cursor).collect();
    for cursor in cursors {
        statuses::refresh_held(connection, context, cursor).await?;
    }
    Ok(())
}
