//! The ledger: what happened to an app's sources, watches, sinks and letters, as a list and as a tail. The
//! staff reads that of one app, or those of all apps together.

pub(crate) mod tail;

use std::{str::FromStr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tidings_actors::{
    filter::sets,
    ports::{EntryId, EntryPlace, LedgerEnds, LedgerEntry, LedgerFilter},
};
use tidings_entity::{
    id::{AppId, LedgerId},
    kind::EntryType,
};
use tracing::warn;

use super::front::Front;
use crate::http::{
    bodies::{
        filters,
        moment::parsed,
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        places::Places,
        request::{Request, json},
        route::{Access, Answer, Route, route, route_with},
    },
    ledger::tail::{LAST_EVENT_ID, News},
};
use crate::sinks::EntryShown;

/// What the cursors of the list are made for, beside the app.
const LEDGER: &str = "ledger";
/// What the cursors of the list of all apps are made for.
const LEDGER_OF_ALL: &str = "admin ledger";
/// Entries of one piece of a tail.
const PIECE: u64 = 64;
/// What a list may be filtered by.
const FILTERS: [&str; 6] = ["q", "type", "repository_id", "subject", "since", "until"];

/// What tails share with one another and with other routes.
#[derive(Clone)]
struct TailState {
    places: Arc<Places>,
    lifecycle: Lifecycle,
}

/// The routes of an app.
pub(super) fn routes(places: &Arc<Places>, lifecycle: &Lifecycle) -> Vec<Route> {
    let state = TailState { places: places.clone(), lifecycle: lifecycle.clone() };
    vec![
        route::<__path_list, _, _>(Access::App, list),
        route_with::<__path_follow, _, _, _>(Access::App, &state, follow),
    ]
}

/// The routes of the staff alone.
pub(super) fn staff_routes() -> Vec<Route> {
    vec![route::<__path_list_of_all, _, _>(Access::Viewer, list_of_all)]
}

/// What happened to this app: its newest entries first.
#[utoipa::path(get, path = "/api/ledger", tag = "ledger",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("q" = Option<String>, Query, description = "a filter (docs/filters.md)"),
        ("type" = Option<String>, Query, description = "only entries of these types, separated by commas"),
        ("repository_id" = Option<String>, Query, description = "only what happened to this watch"),
        ("subject" = Option<String>, Query, description = "only what happened to this source, branch, watch, \
            sink or app, by its id"),
        ("since" = Option<String>, Query, description = "not before this moment (RFC 3339)"),
        ("until" = Option<String>, Query, description = "before this moment (RFC 3339)"),
    ),
    responses((status = 200, body = Page<EntryShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let query = Query::of(&request.query, &[&["limit", "cursor"], &FILTERS[..]].concat())?;
    let (limit, filter) = (query.limit()?, filter(&front, &query)?);
    let list = format!("{LEDGER} {app}");
    let before = query.after(&list)?;
    let entries = front.ledgers.entries(&app, &filter, before, limit + 1).await;
    let entries = entries.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    let page = page(entries, limit, &list, |entry| entry.id.number.to_string(), EntryShown::of);
    Ok(json(StatusCode::OK, &page))
}

/// What happened to all apps: the newest entries first, by their moments.
#[utoipa::path(get, path = "/api/admin/ledger", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("q" = Option<String>, Query, description = "a filter (docs/filters.md)"),
        ("type" = Option<String>, Query, description = "only entries of these types, separated by commas"),
        ("repository_id" = Option<String>, Query, description = "only what happened to this watch"),
        ("subject" = Option<String>, Query, description = "only what happened to this source, branch, watch, \
            sink or app, by its id"),
        ("since" = Option<String>, Query, description = "not before this moment (RFC 3339)"),
        ("until" = Option<String>, Query, description = "before this moment (RFC 3339)"),
    ),
    responses((status = 200, body = Page<EntryShown>)))]
async fn list_of_all(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &[&["limit", "cursor"], &FILTERS[..]].concat())?;
    let (limit, filter) = (query.limit()?, filter(&front, &query)?);
    let before: Option<EntryPlace> = query.after(LEDGER_OF_ALL)?;
    let entries = front.ledgers.entries_of_all(&filter, before.as_ref(), limit + 1).await;
    let entries = entries.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    let place = |entry: &LedgerEntry| EntryPlace::of(entry).to_string();
    Ok(json(StatusCode::OK, &page(entries, limit, LEDGER_OF_ALL, place, EntryShown::of)))
}

/// What happens to this app, as server-sent events: each with the type of its entry, and the entry as in the
/// list. From now on, or behind an entry that was seen; `gap` says that entries before the next one are not
/// kept any more.
#[utoipa::path(get, path = "/api/ledger/follow", tag = "ledger",
    params(
        ("after" = Option<String>, Query, description = "the id of the last entry that was seen, or \
            `beginning`; the present where it is missing"),
        ("q" = Option<String>, Query, description = "a filter (docs/filters.md)"),
        ("type" = Option<String>, Query, description = "only entries of these types, separated by commas"),
        ("repository_id" = Option<String>, Query, description = "only what happened to this watch"),
        ("subject" = Option<String>, Query, description = "only what happened to this subject"),
        ("Last-Event-ID" = Option<String>, Header, description = "the same as `after`; goes before it"),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 429, description = "the caller, or all callers together, have as many tails as they may \
            have")
    ))]
async fn follow(front: Arc<Front>, state: TailState, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let query = Query::of(&request.query, &["after", "q", "type", "repository_id", "subject"])?;
    let (seen, filter) = (seen(&request.headers, &query)?, filter(&front, &query)?);
    let share = tail::place(&state.places, &request, &app)?;
    let ends = ends(&front, &app).await?;
    let (place, missed) = match (seen, ends) {
        (Seen::Beginning, ends) => (ends.map(|ends| (ends.name, ends.first - 1)), false),
        (Seen::Nothing, None) => (None, false),
        (Seen::Nothing, Some(ends)) => (Some((ends.name, ends.last)), false),
        (Seen::Entry(seen), Some(ends)) if seen.ledger == ends.name => {
            if seen.number > ends.last {
                return Err(Problem::malformed("no such entry has been written yet"));
            }
            (Some((ends.name, seen.number)), false)
        }
        // Of a ledger from before a restore: what came behind that entry is not known any more.
        (Seen::Entry(_), ends) => (ends.map(|ends| (ends.name, ends.first - 1)), true),
    };
    let news = Entries { front, app, filter, place, missed, is_placed: false };
    Ok(tail::answer(news, &state.lifecycle, share, &request))
}

/// What a reader has seen.
enum Seen {
    /// It wants what happens from now on.
    Nothing,
    /// It wants everything that is kept.
    Beginning,
    /// It has seen this one and those before it.
    Entry(EntryId),
}

impl FromStr for Seen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "beginning" { Ok(Self::Beginning) } else { text.parse().map(Self::Entry) }
    }
}

fn seen(headers: &HeaderMap, query: &Query) -> Result<Seen, Problem> {
    let malformed =
        |what: &str| Problem::malformed(format!("{what} is the id of an entry (ent_...), or `beginning`"));
    match (headers.get(LAST_EVENT_ID), query.get("after")) {
        (Some(value), _) => value.to_str().unwrap_or("").parse().map_err(|()| malformed("Last-Event-ID")),
        (None, Some(text)) => text.parse().map_err(|()| malformed("after")),
        (None, None) => Ok(Seen::Nothing),
    }
}

/// Reads what a list is filtered by.
fn filter(front: &Front, query: &Query) -> Result<LedgerFilter, Problem> {
    let moment = |key: &str| match query.get(key).map(parsed) {
        Some(None) => Err(Problem::malformed(format!("{key} is a moment (RFC 3339)"))),
        other => Ok(other.flatten()),
    };
    let types = query.get("type").map_or(Ok(Vec::new()), |text| {
        text.split(',').map(|word| word.trim().parse::<EntryType>()).collect()
    });
    let watch = query.get("repository_id").map(str::parse).transpose();
    Ok(LedgerFilter {
        types: types.map_err(|_| {
            let words: Vec<_> = EntryType::ALL.iter().map(|word| word.as_str()).collect();
            Problem::malformed(format!("type is one or several of: {}", words.join(", ")))
        })?,
        watch: watch.map_err(|error| Problem::malformed(format!("repository_id: {error}")))?,
        subject: query.get("subject").map(str::to_owned),
        since: moment("since")?,
        until: moment("until")?,
        query: filters::of_query(query, &sets::LEDGER, front.clock.now())?,
        is_for_sending: false,
    })
}

async fn ends(front: &Front, app: &AppId) -> Result<Option<LedgerEnds>, Problem> {
    let ends = front.ledgers.ledger_ends(app).await;
    ends.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))
}

/// The entries of an app, one piece after another.
struct Entries {
    front: Arc<Front>,
    app: AppId,
    filter: LedgerFilter,
    /// The ledger, and the number behind which it goes on; `None`: nothing was written yet.
    place: Option<(LedgerId, i64)>,
    /// Entries that the reader has not seen are gone.
    missed: bool,
    /// The reader was told where it begins.
    is_placed: bool,
}

impl Entries {
    /// An event without data: it only gives its reader the id to go on with, should the tail break off before
    /// anything happens.
    fn placed(&mut self) -> Bytes {
        self.is_placed = true;
        match &self.place {
            Some((ledger, number)) => {
                format!("id: {}\n\n", EntryId { ledger: ledger.clone(), number: *number }).into()
            }
            None => Bytes::from_static(b"id: beginning\n\n"),
        }
    }

    /// Tells that entries are gone, and goes on with the first one that is kept. Its id leads there, so a
    /// reader that breaks off right behind it is not told again.
    fn gap(&mut self, ends: &LedgerEnds) -> Bytes {
        (self.missed, self.is_placed) = (false, true);
        let place = EntryId { ledger: ends.name.clone(), number: ends.first - 1 };
        let data = json!({ "next": ends.first, "reason": "entries before this one are not kept any more" });
        let text = format!("id: {place}\nevent: gap\ndata: {data}\n\n");
        self.place = Some((place.ledger, place.number));
        text.into()
    }
}

#[async_trait]
impl News for Entries {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if !self.is_placed && !self.missed {
            return Ok(Some(self.placed()));
        }
        let Some(ends) = ends(&self.front, &self.app).await? else { return Ok(None) };
        let after = match &self.place {
            Some((name, after)) if *name == ends.name => *after,
            // The first entry of this app.
            None => 0,
            Some(_) => {
                self.missed = true;
                ends.first - 1
            }
        };
        if std::mem::take(&mut self.missed) || after < ends.first - 1 {
            return Ok(Some(self.gap(&ends)));
        }
        if after >= ends.last {
            return Ok(None);
        }
        let found =
            self.front.ledgers.entries_between(&self.app, &self.filter, after, ends.last, PIECE).await;
        let found = found.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
        // Retention may have been there meanwhile; then the next look tells of a gap.
        let now = self::ends(&self.front, &self.app).await?;
        if now.is_none_or(|now| now.name != ends.name || now.first - 1 > after) {
            return Ok(None);
        }
        // Not by their number: an entry that cannot be read is left out.
        self.place = Some((ends.name, found.last().map_or(ends.last, |entry| entry.id.number)));
        let mut piece = String::new();
        for entry in &found {
            let shown = EntryShown::of(entry);
            let data = serde_json::to_string(&shown).map_err(|_| Problem::new(Kind::INTERNAL))?;
            piece.push_str(&format!("id: {}\nevent: {}\ndata: {data}\n\n", shown.entry_id, shown.entry_type));
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    fn ends_by(&mut self, problem: &Problem, is_first: bool) -> bool {
        if is_first {
            warn!(app.id = %self.app, problem = problem.code(), "a tail waits: the ledger cannot be read");
        }
        false
    }

    fn subject(&self) -> String {
        format!("the ledger of {}", self.app)
    }
}
