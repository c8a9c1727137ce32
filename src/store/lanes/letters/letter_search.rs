//! Reads letters in the order of their ids, and tells which of them a filter may match. A search is limited
//! by the letters that it reads, not by those that it finds, so that a filter without matches costs no more
//! than one that matches every letter.

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::filter::Filter,
    ports::{DeadLetter, LetterFilter, LetterMatcher, LetterNames, StoreError},
};
use tidings_entity::{dead_letter, id::DeadLetterId, kind::LetterStatus};

use crate::{
    database::rows::{
        self,
        filter::{Column, condition},
    },
    lanes::letters,
};

/// The letters that a search looks at, as parts of a statement.
pub(crate) struct LetterRange<'s> {
    /// A condition in SQL over `d`, the row of the dead letter.
    pub(crate) condition: String,
    /// The values that the condition is bound to.
    pub(crate) values: Vec<Value>,
    /// The order of the ids: `asc` or `desc`.
    pub(crate) order: &'static str,
    /// The most letters that one statement looks at.
    pub(crate) limit: u64,
    /// Only letters that this filter may match are read.
    pub(crate) filter: Option<&'s Filter>,
}

/// The result of reading a range of letters.
pub(crate) struct Looked {
    /// Letters that may match, in order.
    pub(crate) found: Vec<Found>,
    /// How many letters were looked at.
    pub(crate) count: u64,
    /// The last letter that was looked at.
    pub(crate) last: Option<DeadLetterId>,
}

/// A letter, with names if a filter needs them.
#[derive(FromQueryResult)]
pub(crate) struct Found {
    #[sea_orm(nested)]
    pub(crate) row: dead_letter::Model,
    app_name: Option<String>,
    owner: Option<String>,
    name: Option<String>,
}

#[derive(FromQueryResult)]
struct End {
    count: i64,
    reached: Option<DeadLetterId>,
}

impl Found {
    /// The letter, if it can be read and matches.
    pub(crate) fn meant(self, matcher: &LetterMatcher) -> Option<DeadLetter> {
        let names = match (self.app_name, self.owner, self.name) {
            (Some(app_name), Some(owner), Some(name)) => {
                Some(LetterNames { app: self.row.app_id.clone(), app_name, owner, name })
            }
            _ => None,
        };
        let letter = rows::readable_or_logged(letters::shown(self.row))?;
        matcher.admits(&letter, names.as_ref()).then_some(letter)
    }
}

/// Reads a range of letters. With a filter it takes two statements; the second reads nothing beyond the
/// letters that the first has counted.
pub(crate) async fn look(
    connection: &impl ConnectionTrait,
    range: LetterRange<'_>,
) -> Result<Looked, StoreError> {
    let LetterRange { condition: within, mut values, order, limit, filter } = range;
    let limit = rows::signed(limit);
    let Some(filter) = filter else {
        let text = format!(
            "select d.*, null as app_name, null as owner, null as name from dead_letter d where {within}
             order by d.id {order} limit {limit}"
        );
        let found: Vec<Found> = rows::readable(connection, "dead_letter", &text, values).await?;
        let (count, last) = (found.len() as u64, found.last().map(|found| found.row.id.clone()));
        return Ok(Looked { found, count, last });
    };
    let (end, beyond) = if order == "asc" { ("max", "<=") } else { ("min", ">=") };
    let text = format!(
        "select count(*) as count, {end}(id) as reached from (select d.id from dead_letter d where {within}
         order by d.id {order} limit {limit}) as looked"
    );
    let ended: Option<End> = rows::one(connection, "dead_letter", &text, values.clone()).await?;
    let Some(End { count, reached: Some(last) }) = ended else {
        return Ok(Looked { found: Vec::new(), count: 0, last: None });
    };
    values.push(last.clone().into());
    let place = values.len();
    let meant = condition(connection.get_database_backend(), filter, column, &mut values);
    let text = format!(
        "select d.*, a.name as app_name, w.owner as owner, w.name as name
         from dead_letter d join app a on a.id = d.app_id join watch w on w.id = d.watch_id
         where {within} and d.id {beyond} ${place} and ({meant}) order by d.id {order}"
    );
    let found: Vec<Found> = rows::readable(connection, "dead_letter", &text, values).await?;
    Ok(Looked { found, count: rows::unsigned("dead_letter", count)?, last: Some(last) })
}

/// The condition over `d` by which an index finds open letters, of one watch if a filter names the watch.
/// `None`: the filter also means closed letters.
pub(crate) fn of_open(filter: &LetterFilter, values: &mut Vec<Value>) -> Option<String> {
    if !matches!(filter.status, Some(LetterStatus::Open | LetterStatus::RedriveRequested)) {
        return None;
    }
    // As the indexes are written.
    let mut condition = "d.status in ('open', 'redrive_requested')".to_owned();
    if let Some(watch) = &filter.watch {
        values.push(watch.clone().into());
        condition.push_str(&format!(" and d.watch_id = ${}", values.len()));
    }
    Some(condition)
}

/// The fields of letters in SQL.
pub(crate) fn column(field: &str) -> Option<Column> {
    Some(match field {
        "app" => Column::texts(&["d.app_id", "a.name"]),
        "repository" => Column::texts(&["d.watch_id", "w.name", "w.owner || '/' || w.name"]),
        "name" => Column::texts(&["w.owner || '/' || w.name"]),
        "path" => Column::Path("d.path"),
        "kind" => Column::texts(&["d.operation"]),
        "reason" => Column::texts(&["d.reason"]),
        "state" => Column::texts(&["d.status"]),
        "status" => Column::Number("d.http_status"),
        "answer" => Column::texts(&["d.excerpt"]),
        "since" | "until" => Column::Number("d.created_at"),
        _ => return None,
    })
}
