//! Reads ledgers: lists for people, and ranges for readers that follow a ledger. Each read looks at a bounded
//! number of entries ([`LOOKED_AT_MAX`]) and says where the next read goes on.

use std::borrow::Cow;

use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Value};
use tidings_actors::{
    model::filter::{Expression, Term, Test},
    ports::{EntryId, EntryPlace, LedgerEnds, LedgerEntry, LedgerFilter, Origin, Searched, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    entry,
    id::{AppId, LedgerId},
    ledger,
};

use crate::database::{
    error::OfTable,
    rows::{
        self, columns,
        filter::{Column, Columns, bounded, condition},
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
) -> Result<Searched<LedgerEntry, i64>, StoreError> {
    let backend = connection.get_database_backend();
    let end = of_app(backend, app, filter, before).end(connection, NEWEST).await?;
    let end = end.map(|end| end.number);
    let (text, values) = listing(backend, app, filter, (before, end), limit + 1);
    let mut found = read(connection, &text, values).await?;
    let is_more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if is_more { found.last().map(|entry| entry.id.number) } else { end };
    Ok(Searched { found, next })
}

/// The statement that lists entries of an app, below the number `before` and not below `end`.
pub(crate) fn listing(
    backend: DbBackend,
    app: &AppId,
    filter: &LedgerFilter,
    (before, end): (Option<i64>, Option<i64>),
    limit: u64,
) -> (String, Vec<Value>) {
    let mut search = of_app(backend, app, filter, before);
    if let Some(end) = end {
        search.and("e.number >=", end);
    }
    search.statement(NEWEST, limit)
}

fn of_app<'f>(backend: DbBackend, app: &AppId, filter: &'f LedgerFilter, before: Option<i64>) -> Search<'f> {
    let mut search = Search::of(backend, filter);
    search.and("e.app_id =", app.clone());
    if let Some(before) = before {
        search.and("e.number <", before);
    }
    search
}

/// Entries of an app behind `after` and not behind `to`, in their order. The search goes on at least to the
/// number `least`.
pub(crate) async fn between(
    connection: &impl ConnectionTrait,
    app: &AppId,
    filter: &LedgerFilter,
    (after, to): (i64, i64),
    least: i64,
    limit: u64,
) -> Result<Searched<LedgerEntry, i64>, StoreError> {
    let mut search = Search::of(connection.get_database_backend(), filter);
    search.and("e.app_id =", app.clone());
    search.and("e.number >", after);
    search.and("e.number <=", to);
    let end = search.end(connection, "e.number").await?.map(|end| end.number.max(least));
    if let Some(end) = end {
        search.and("e.number <=", end);
    }
    let (text, values) = search.statement("e.number", limit);
    let found = read(connection, &text, values).await?;
    let is_cut = found.len() as u64 >= limit;
    let last = found.last().filter(|_| is_cut).map(|entry| entry.id.number);
    Ok(Searched { found, next: last.or(end).filter(|next| *next < to) })
}

/// Entries of all apps, newest first.
pub(crate) async fn of_all(
    connection: &impl ConnectionTrait,
    filter: &LedgerFilter,
    before: Option<&EntryPlace>,
    limit: u64,
) -> Result<Searched<LedgerEntry, EntryPlace>, StoreError> {
    let mut search = Search::of(connection.get_database_backend(), filter);
    // Moments are the order of this list, so they limit the entries that are looked at.
    search.moments();
    if let Some(before) = before {
        search.and_place("<", before);
    }
    let end = search.end(connection, LATEST).await?;
    if let Some(end) = &end {
        search.and_place(">=", end);
    }
    let (text, values) = search.statement(LATEST, limit + 1);
    let mut found = read(connection, &text, values).await?;
    let is_more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = if is_more { found.last().map(EntryPlace::of) } else { end };
    Ok(Searched { found, next })
}

/// Entries that one search looks at, with a filter of few terms. Entries that do not match count as well, so
/// a filter without matches takes no longer than another filter.
const LOOKED_AT_MAX: u64 = 10_000;
/// The order of an app's list.
const NEWEST: &str = "e.number desc";
/// The order of the list of all apps.
const LATEST: &str = "e.at desc, e.app_id desc, e.number desc";
/// The entries that subscriptions may get. An entry about sending would cause the next one.
const SENDABLE: &str = "e.type not like 'subscription.%' and e.type not like 'mail.%'";

#[derive(FromQueryResult)]
struct End {
    at: i64,
    app_id: AppId,
    number: i64,
}

/// A search: first the conditions that an index meets, over which the entries are counted that are looked at;
/// then the conditions that each of those entries is tested for.
struct Search<'f> {
    backend: DbBackend,
    filter: &'f LedgerFilter,
    has_moments: bool,
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl<'f> Search<'f> {
    /// With the conditions that an index meets.
    fn of(backend: DbBackend, filter: &'f LedgerFilter) -> Self {
        let conditions = vec!["1 = 1".to_owned()];
        let mut search = Self { backend, filter, has_moments: false, conditions, values: Vec::new() };
        if let [word] = &filter.types[..] {
            search.and("e.type =", *word);
        }
        if let Some(word) = filter.query.as_ref().and_then(|query| one_type(query.expression())) {
            search.and("e.type =", word);
        }
        if let Some(subject) = &filter.subject {
            search.and("e.subject =", subject.clone());
        }
        if let Some(recipient) = &filter.recipient {
            search.and("e.recipient =", recipient.clone());
        }
        search
    }

    fn moments(&mut self) {
        self.has_moments = true;
        if let Some(Timestamp(since)) = self.filter.since {
            self.and("e.at >=", since);
        }
        if let Some(Timestamp(until)) = self.filter.until {
            self.and("e.at <", until);
        }
    }

    /// Whether entries that the index finds may fail a further condition.
    fn has_tests(&self) -> bool {
        let LedgerFilter { types, watch, since, until, query, is_for_sending, .. } = self.filter;
        let is_narrowed = *is_for_sending || types.len() > 1 || watch.is_some() || query.is_some();
        is_narrowed || (!self.has_moments && (since.is_some() || until.is_some()))
    }

    /// The last entry that the search looks at; `None`: the search looks at all of them, or each of them
    /// matches.
    async fn end(
        &self,
        connection: &impl ConnectionTrait,
        order: &str,
    ) -> Result<Option<EntryPlace>, StoreError> {
        if !self.has_tests() {
            return Ok(None);
        }
        let last = bounded(LOOKED_AT_MAX, self.filter.query.as_ref()).saturating_sub(1);
        let text = format!(
            "select e.at, e.app_id, e.number from entry e where {} order by {order} limit 1 offset {last}",
            self.conditions.join(" and ")
        );
        let end: Option<End> = rows::one(connection, "entry", &text, self.values.clone()).await?;
        Ok(end.map(|End { at, app_id, number }| EntryPlace { at: Timestamp(at), app: app_id, number }))
    }

    /// Adds the conditions that each entry is tested for.
    fn tests(&mut self) {
        let filter = self.filter;
        let LedgerFilter { types, watch, query, is_for_sending, .. } = filter;
        if *is_for_sending {
            self.conditions.push(SENDABLE.to_owned());
        }
        if types.len() > 1 {
            let places: Vec<String> = types.iter().map(|word| self.bind(*word)).collect();
            self.conditions.push(format!("e.type in ({})", places.join(", ")));
        }
        if let Some(watch) = watch {
            self.and("e.watch_id =", watch.clone());
        }
        if !self.has_moments {
            self.moments();
        }
        if let Some(query) = query {
            // The condition on the owner is separate from the filter's condition.
            let meant = condition(self.backend, query, columns_of(self.backend), &mut self.values);
            self.conditions.push(format!("({meant})"));
        }
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

    fn and_place(&mut self, comparison: &str, EntryPlace { at, app, number }: &EntryPlace) {
        let (at, app, number) = (self.bind(at.0), self.bind(app.clone()), self.bind(*number));
        self.conditions.push(format!("(e.at, e.app_id, e.number) {comparison} ({at}, {app}, {number})"));
    }

    fn statement(mut self, order: &str, limit: u64) -> (String, Vec<Value>) {
        self.tests();
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

/// The one type that each entry that a filter means has.
fn one_type(expression: &Expression) -> Option<&str> {
    match expression {
        Expression::All(parts) => parts.iter().find_map(one_type),
        Expression::Term(Term::Field { field, test: Test::Is(word) }) if field.name == "type" => Some(word),
        _ => None,
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

/// The repository that the data of an entry names: the data names the repository after the watch is removed,
/// too. PostgreSQL refuses to read JSON with the character NUL.
const NAMED_ON_POSTGRES: &str =
    "case when strpos(e.data, '\\u0000') > 0 then null else cast(e.data as json) ->> 'repository' end";
/// The same on SQLite.
const NAMED_ON_SQLITE: &str = "e.data ->> 'repository'";

/// The fields of an entry on a database.
pub(crate) fn columns_of(backend: DbBackend) -> Columns {
    match backend {
        DbBackend::Postgres => |field| column(field, NAMED_ON_POSTGRES),
        _ => |field| column(field, NAMED_ON_SQLITE),
    }
}

/// The fields of an entry, as `e` with its app `a` and its watch `w`; `named` is the repository in its data.
fn column(field: &str, named: &'static str) -> Option<Column> {
    Some(match field {
        "app" => Column::texts(&["a.id", "a.name"]),
        "repository" => {
            // What is behind the last slash.
            let alone = format!("replace({named}, rtrim({named}, replace({named}, '/', '')), '')");
            let texts = ["e.watch_id", "w.owner || '/' || w.name", "w.name", named];
            Column::Texts(texts.into_iter().map(Cow::Borrowed).chain([Cow::Owned(alone)]).collect())
        }
        "name" => Column::texts(&["w.owner || '/' || w.name", named]),
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
