//! The ledgers of all apps together, for the staff: as a list, and as a tail.
//!
//! Each ledger has its own numbers, so the tail goes by moments: it reads the last seconds each time, and
//! sends entries that it did not send before. Entries of a transaction that takes longer than that appear
//! only in the list.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tidings_actors::{
    ports::{EntryPlace, LedgerEntry, LedgerFilter, Searched},
    time::Timestamp,
};
use tracing::warn;
use utoipa::ToSchema;

use super::{FILTERS, LAST_EVENT_ID, TailState, filter, tail};
use crate::http::{
    bodies::{
        names::Names,
        paging::{Page, Query, cursor_at},
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        places::Places,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
    front::Front,
    ledger::tail::News,
};
use crate::sinks::EntryShown;

/// The name of the list in its cursors.
const LEDGER: &str = "admin ledger";
/// The most entries of one look; if more were written since the last look, older ones are skipped, and the
/// reader is told.
const PIECE: u64 = 256;
/// How far back each look goes: transactions that end later may have entries with earlier moments.
const BACK: Duration = Duration::from_secs(10);

/// The routes of this file.
pub(super) fn routes(places: &Arc<Places>, lifecycle: &Lifecycle) -> Vec<Route> {
    let state = TailState { places: places.clone(), lifecycle: lifecycle.clone() };
    vec![
        route::<__path_list, _, _>(Access::Staff(Permission::LedgerRead), list),
        route_with::<__path_follow, _, _, _>(Access::Staff(Permission::LedgerRead), &state, follow),
    ]
}

/// An entry of the ledger, with the name of its app.
#[derive(Serialize, ToSchema)]
struct EntryOfApp {
    /// Name of the app, for people. Empty: the app was erased meanwhile.
    app_name: String,
    #[serde(flatten)]
    entry: EntryShown,
}

impl EntryOfApp {
    async fn of(entry: &LedgerEntry, names: &mut Names<'_>) -> Result<Self, Problem> {
        Ok(Self { app_name: names.app(&entry.app).await?.name, entry: EntryShown::of(entry) })
    }
}

/// Lists the ledgers of all apps by time, newest entry first.
#[utoipa::path(get, path = "/api/admin/ledger", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
        ("type" = Option<String>, Query, description = "Only entries of these types, separated by commas."),
        ("repository_id" = Option<String>, Query, description = "Only entries about this watch \
            (`repo_...`)."),
        ("subject" = Option<String>, Query, description = "Only entries about this source, branch, watch, \
            sink or app, by its id."),
        ("since" = Option<String>, Query, description = "Only entries from this time (RFC 3339) on."),
        ("until" = Option<String>, Query, description = "Only entries before this time (RFC 3339)."),
    ),
    responses((status = 200, body = Page<EntryOfApp>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let query = Query::of(&request.query, &[&["limit", "cursor"], &FILTERS[..]].concat())?;
    let (limit, filter) = (query.limit()?, filter(&front, &query)?);
    let before: Option<EntryPlace> = query.after(LEDGER)?;
    let Searched { found, next } = entries(&front, &filter, before.as_ref(), limit).await?;
    let next_cursor = next.map(|place| cursor_at(LEDGER, &place.to_string()));
    let mut names = Names::of(&front);
    let mut items = Vec::with_capacity(found.len());
    for entry in &found {
        items.push(EntryOfApp::of(entry, &mut names).await?);
    }
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}

async fn entries(
    front: &Front,
    filter: &LedgerFilter,
    before: Option<&EntryPlace>,
    limit: u64,
) -> Result<Searched<LedgerEntry, EntryPlace>, Problem> {
    let entries = front.ledgers.entries_of_all(filter, before, limit).await;
    entries.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))
}

/// Follows the ledgers of all apps as server-sent events, from now on or after a given event. The type of
/// each event is the type of its entry; the data is the entry as the list shows it. The event `gap` says that
/// entries are left out, because too many came at once; the list has them.
#[utoipa::path(get, path = "/api/admin/ledger/follow", tag = "admin",
    params(
        ("after" = Option<String>, Query, description = "Id of the last event that the caller has. Default: \
            new events only."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
        ("type" = Option<String>, Query, description = "Only entries of these types, separated by commas."),
        ("repository_id" = Option<String>, Query, description = "Only entries about this watch \
            (`repo_...`)."),
        ("subject" = Option<String>, Query, description = "Only entries about this source, branch, watch, \
            sink or app, by its id."),
        ("Last-Event-ID" = Option<String>, Header, description = "The same as `after`. Overrides `after`."),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 429, description = "The caller has 8 event streams open already, or the server has reached \
            its limit for all callers.")
    ))]
async fn follow(front: Arc<Front>, state: TailState, request: Request) -> Answer {
    let query = Query::of(&request.query, &["after", "q", "type", "repository_id", "subject"])?;
    let filter = filter(&front, &query)?;
    let seen = seen(&request.headers, &query)?;
    let share = state.places.tail(&request.actor)?;
    let now = front.clock.now();
    let mut told = VecDeque::new();
    if seen.is_none() {
        // Entries from just before the beginning are not new.
        let back = LedgerFilter { since: Some(before(now)), ..filter.clone() };
        told.extend(
            entries(&front, &back, None, PIECE).await?.found.iter().map(|entry| entry.id.to_string()),
        );
    }
    let at = seen.as_ref().map_or(now, |place| place.at);
    let news = EntriesOfAll { front, filter, seen, at, told, is_placed: false };
    Ok(tail::answer(news, &state.lifecycle, share, &request))
}

fn seen(headers: &HeaderMap, query: &Query) -> Result<Option<EntryPlace>, Problem> {
    let read = |what: &str, text: &str| {
        text.parse().map_err(|()| Problem::malformed(format!("{what} must be an event id of this route")))
    };
    match (headers.get(LAST_EVENT_ID), query.get("after")) {
        (Some(value), _) => read("Last-Event-ID", value.to_str().unwrap_or("")).map(Some),
        (None, Some(text)) => read("after", text).map(Some),
        (None, None) => Ok(None),
    }
}

fn before(at: Timestamp) -> Timestamp {
    Timestamp(at.0.saturating_sub(Timestamp(0).after(BACK).0))
}

/// The entries of all apps, as they come.
struct EntriesOfAll {
    front: Arc<Front>,
    filter: LedgerFilter,
    /// The last entry that the reader saw before; later entries are sent again.
    seen: Option<EntryPlace>,
    /// The moment of the newest entry that was sent.
    at: Timestamp,
    /// The ids of the entries that were sent last.
    told: VecDeque<String>,
    is_placed: bool,
}

impl EntriesOfAll {
    /// The entries that were not sent before, in the order of their moments; and whether there were more.
    async fn fresh(&mut self) -> Result<(Vec<LedgerEntry>, bool), Problem> {
        let since = if self.seen.is_some() { self.at } else { before(self.at) };
        let filter = LedgerFilter { since: Some(since), ..self.filter.clone() };
        let mut found = entries(&self.front, &filter, None, PIECE).await?.found;
        let is_cut = found.len() as u64 == PIECE;
        if let Some(seen) = self.seen.take() {
            // Another entry of the same moment may have been sent before it.
            let is_it = |entry: &LedgerEntry| EntryPlace::of(entry) == seen;
            self.told.extend(found.iter().filter(|entry| is_it(entry)).map(|entry| entry.id.to_string()));
        }
        found.reverse();
        let is_gap = is_cut && found.first().is_some_and(|first| !self.told.contains(&first.id.to_string()));
        found.retain(|entry| !self.told.contains(&entry.id.to_string()));
        self.told.extend(found.iter().map(|entry| entry.id.to_string()));
        let most = usize::try_from(2 * PIECE).unwrap_or(usize::MAX);
        let surplus = self.told.len().saturating_sub(most);
        self.told.drain(..surplus);
        self.at = found.iter().map(|entry| entry.at).chain([self.at]).max().unwrap_or(self.at);
        Ok((found, is_gap))
    }
}

#[async_trait]
impl News for EntriesOfAll {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut piece = String::new();
        let is_first = !std::mem::replace(&mut self.is_placed, true);
        let (found, is_gap) = self.fresh().await?;
        if is_gap && !is_first {
            let reason = "more entries came at once than this stream sends; the list has all of them";
            piece.push_str(&format!("event: gap\ndata: {}\n\n", serde_json::json!({ "reason": reason })));
        }
        let mut names = Names::of(&self.front);
        for entry in &found {
            let shown = EntryOfApp::of(entry, &mut names).await?;
            let data = serde_json::to_string(&shown).map_err(|_| Problem::new(Kind::INTERNAL))?;
            let (place, word) = (EntryPlace::of(entry), &shown.entry.entry_type);
            piece.push_str(&format!("id: {place}\nevent: {word}\ndata: {data}\n\n"));
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    fn ends_by(&mut self, problem: &Problem, is_first: bool) -> bool {
        if is_first {
            warn!(problem = problem.code(), "a tail of all ledgers waits: they cannot be read");
        }
        false
    }

    fn subject(&self) -> String {
        "the ledgers of all apps".to_owned()
    }
}
