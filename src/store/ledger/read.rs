//! Reads ledgers: lists for people, and ranges for readers that follow a ledger.

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};
use tidings_actors::{
    ports::{EntryId, EntryPlace, LedgerEnds, LedgerEntry, LedgerFilter, Origin, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    entry,
    id::{AppId, LedgerId},
    ledger,
};

use crate::{
    error::OfTable,
    rows::{
        self, columns,
        filter::{Column, condition},
        signed,
    },
};

/// Where the ledger of an app begins and ends.
pub(crate) async fn ends(
    connection: &impl ConnectionTrait,
    app: &AppId,
) -> Result<Option<LedgerEnds>, StoreError> {
    let text = "select * from ledger where app_id = $1";
    let row: Option<ledger::Model> = rows::one(connection, "ledger", text, vec![app.clone().into()]).await?;
    Ok(row.map(|row| LedgerEnds { name: row.name, first: row.first, last: row.last }))
}

/// Entries of an app, newest first.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &LedgerFilter,
    before: Option<i64>,
    limit: u64,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let (text, values) = listing(connection.get_database_backend(), app, filter, before, limit);
    read(connection, &text, values).await
}

/// The statement that lists entries of an app.
pub(crate) fn listing(
    backend: DbBackend,
    app: &AppId,
    filter: &LedgerFilter,
    before: Option<i64>,
    limit: u64,
) -> (String, Vec<Value>) {
    let mut search = Search::of(backend, filter);
    search.and("e.app_id =", app.clone());
    if let Some(before) = before {
        search.and("e.number <", before);
    }
    search.statement("e.number desc", limit)
}

/// Entries of an app behind `after` and not behind `to`, in their order.
pub(crate) async fn between(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &LedgerFilter,
    (after, to): (i64, i64),
    limit: u64,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let mut search = Search::of(connection.get_database_backend(), filter);
    search.and("e.app_id =", app.clone());
    search.and("e.number >", after);
    search.and("e.number <=", to);
    let (text, values) = search.statement("e.number", limit);
    read(connection, &text, values).await
}

/// Entries of all apps, newest first.
pub(crate) async fn of_all(
    connection: &impl ConnectionTrait,
    filter: &LedgerFilter,
    before: Option<&EntryPlace>,
    limit: u64,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let mut search = Search::of(connection.get_database_backend(), filter);
    if let Some(EntryPlace { at, app, number }) = before {
        let (at, app, number) = (search.bind(at.0), search.bind(app.clone()), search.bind(*number));
        search.conditions.push(format!("(e.at, e.app_id, e.number) < ({at}, {app}, {number})"));
    }
    let (text, values) = search.statement("e.at desc, e.app_id desc, e.number desc", limit);
    read(connection, &text, values).await
}

/// The entries that subscriptions may get. An entry about sending would cause the next one.
const SENDABLE: &str = "e.type not like 'subscription.%' and e.type not like 'mail.%'";

struct Search {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Search {
    fn of(backend: DbBackend, filter: &LedgerFilter) -> Self {
        let LedgerFilter { types, watch, subject, since, until, query, is_for_sending, recipient } = filter;
        let mut search = Self { conditions: vec!["1 = 1".to_owned()], values: Vec::new() };
        if *is_for_sending {
            search.conditions.push(SENDABLE.to_owned());
        }
        if !types.is_empty() {
            let places: Vec<String> = types.iter().map(|word| search.bind(*word)).collect();
            search.conditions.push(format!("e.type in ({})", places.join(", ")));
        }
        if let Some(watch) = watch {
            search.and("e.watch_id =", watch.clone());
        }
        if let Some(subject) = subject {
            search.and("e.subject =", subject.clone());
        }
        if let Some(recipient) = recipient {
            search.and("e.recipient =", recipient.clone());
        }
        if let Some(Timestamp(since)) = since {
            search.and("e.at >=", *since);
        }
        if let Some(Timestamp(until)) = until {
            search.and("e.at <", *until);
        }
        if let Some(query) = query {
            // The condition on the owner is separate from the filter's condition.
            let meant = condition(backend, query, column, &mut search.values);
            search.conditions.push(format!("({meant})"));
        }
        search
    }

    /// The place of a value in the statement.
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        let place = self.bind(value);
        self.conditions.push(format!("{condition} {place}"));
    }

    fn statement(mut self, order: &str, limit: u64) -> (String, Vec<Value>) {
        let limit = self.bind(signed(limit));
        // Outer joins, although each entry has its ledger and its app: so entries come first, in the order of
        // their index, and no more of them are read than the list has.
        let text = format!(
            "select {}, l.name as ledger_name from entry e left join ledger l on l.app_id = e.app_id
             left join app a on a.id = e.app_id left join watch w on w.id = e.watch_id
             where {} order by {order} limit {limit}",
            columns::<entry::Entity>("e"),
            self.conditions.join(" and ")
        );
        (text, self.values)
    }
}

async fn read(
    connection: &impl ConnectionTrait,
    text: &str,
    values: Vec<Value>,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let found = rows::mixed(connection, "entry", text, values).await?;
    let read = found.iter().map(|row| {
        let entry = entry::Model::from_query_result(row, "e_");
        let name: Result<LedgerId, _> = row.try_get("ledger_", "name");
        entry.and_then(|entry| Ok(shown(entry, name?)))
    });
    Ok(read.filter_map(|row| rows::readable_or_logged(row.of("entry"))).collect())
}

/// The fields of an entry, as `e` with its app `a` and its watch `w`.
pub(crate) fn column(field: &str) -> Option<Column> {
    Some(match field {
        "app" => Column::texts(&["a.id", "a.name"]),
        "repository" => Column::texts(&["e.watch_id", "w.owner || '/' || w.name", "w.name"]),
        "name" => Column::texts(&["w.owner || '/' || w.name"]),
        "type" => Column::Word("e.type"),
        "subject" => Column::texts(&["e.subject"]),
        "origin" => Column::texts(&["e.origin_kind"]),
        "by" => Column::texts(&["e.origin"]),
        "data" => Column::texts(&["e.data"]),
        "since" | "until" => Column::Number("e.at"),
        _ => return None,
    })
}

fn shown(row: entry::Model, ledger: LedgerId) -> LedgerEntry {
    LedgerEntry {
        id: EntryId { ledger, number: row.number },
        app: row.app_id,
        at: Timestamp(row.at),
        entry_type: row.entry_type,
        watch: row.watch_id,
        subject: row.subject,
        origin: Origin { kind: row.origin_kind, name: row.origin },
        cause: row.cause,
        data: row.data,
    }
}
