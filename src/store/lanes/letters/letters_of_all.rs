//! Dead letters over all apps, for the staff. Open ones are found by an index of their own, so that
//! millions of closed letters cost nothing.

use sea_orm::{ConnectionTrait, Value};
use tidings_actors::ports::{LetterFilter, LettersOfAll, SEARCH_STEP, StoreError};
use tidings_entity::id::{AppId, DeadLetterId};

use super::letter_search::{self, LetterRange, Looked};
use crate::database::error::undecodable;
use crate::database::rows;

/// Letters that one statement reads.
const PAGE: u64 = 500;

/// Letters that a filter means, newest first.
pub(crate) async fn list(
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
    while looked < rows::filter::bounded(SEARCH_STEP, filter.q.as_ref()) {
        let range = older(app, filter, page.next.as_ref());
        let Looked { found, count, last } = letter_search::look(connection, range).await?;
        looked += count;
        for found in found {
            if page.letters.len() == limit {
                return Ok(page);
            }
            let (id, app) = (found.row.id.clone(), found.row.app_id.clone());
            page.letters.extend(found.meant(&matcher).map(|letter| (app, letter)));
            page.next = Some(id);
        }
        if count < PAGE {
            page.next = None;
            return Ok(page);
        }
        page.next = last;
    }
    Ok(page)
}

fn older<'f>(
    app: Option<&AppId>,
    filter: &'f LetterFilter,
    before: Option<&DeadLetterId>,
) -> LetterRange<'f> {
    let mut values: Vec<Value> = Vec::new();
    let mut conditions = vec!["d.id <> ''".to_owned()];
    if let Some(app) = app {
        values.push(app.clone().into());
        conditions.push(format!("d.app_id = ${}", values.len()));
    }
    if let Some(before) = before {
        values.push(before.clone().into());
        conditions.push(format!("d.id < ${}", values.len()));
    }
    conditions.extend(letter_search::of_open(filter, &mut values));
    let condition = conditions.join(" and ");
    LetterRange { condition, values, order: "desc", limit: PAGE, filter: filter.q.as_ref() }
}
