//! Dead letters over all apps, for the staff. Open ones are found by an index of their own, so that
//! millions of closed letters cost nothing.

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::ports::{LetterFilter, LettersOfAll, SEARCH_STEP, StoreError};
use tidings_entity::{
    dead_letter,
    id::{AppId, DeadLetterId},
    kind::LetterStatus,
};

use super::{error::undecodable, letters, rows};

/// Letters that one statement reads.
const PAGE: u64 = 500;

/// Letters that a filter means, newest first.
pub(super) async fn list(
    connection: &impl ConnectionTrait,
    app: Option<&AppId>,
    filter: &LetterFilter,
    before: Option<&DeadLetterId>,
    limit: u64,
) -> Result<LettersOfAll, StoreError> {
    let matcher = filter.matcher().map_err(|error| undecodable("dead_letter", error))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut page = LettersOfAll { letters: Vec::new(), next: before.cloned() };
    let mut looked = 0;
    while looked < SEARCH_STEP {
        let found = older(connection, app, filter.status, page.next.as_ref()).await?;
        let is_last = (found.len() as u64) < PAGE;
        looked += found.len() as u64;
        let last = found.last().map(|row| row.id.clone());
        for row in found {
            if page.letters.len() == limit {
                return Ok(page);
            }
            let (id, app) = (row.id.clone(), row.app_id.clone());
            if let Some(letter) = rows::readable_or_logged(letters::shown(row))
                && matcher.admits(&letter)
            {
                page.letters.push((app, letter));
            }
            page.next = Some(id);
        }
        if is_last {
            page.next = None;
            return Ok(page);
        }
        page.next = last;
    }
    Ok(page)
}

async fn older(
    connection: &impl ConnectionTrait,
    app: Option<&AppId>,
    status: Option<LetterStatus>,
    before: Option<&DeadLetterId>,
) -> Result<Vec<dead_letter::Model>, StoreError> {
    let mut values: Vec<Value> = vec![rows::signed(PAGE).into()];
    let mut conditions = vec!["id <> ''".to_owned()];
    if let Some(app) = app {
        values.push(app.clone().into());
        conditions.push(format!("app_id = ${}", values.len()));
    }
    if let Some(before) = before {
        values.push(before.clone().into());
        conditions.push(format!("id < ${}", values.len()));
    }
    if matches!(status, Some(LetterStatus::Open | LetterStatus::RedriveRequested)) {
        // As the index is written.
        conditions.push("status in ('open', 'redrive_requested')".to_owned());
    }
    let text =
        format!("select * from dead_letter where {} order by id desc limit $1", conditions.join(" and "));
    rows::readable(connection, "dead_letter", &text, values).await
}
