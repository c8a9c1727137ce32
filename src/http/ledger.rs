//! The ledger: changes of state of an app's sources, watches, sinks and letters, as a list and as a tail. The
//! staff reads the ledger of one app, or those of all apps together.

mod of_all;
pub(super) mod subscriptions;
pub(crate) mod tail;

use std::{str::FromStr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tidings_actors::{
    model::filter::sets,
    ports::{EntryId, LedgerEnds, LedgerFilter},
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
        paging::{Page, Query, searched},
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        places::Places,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
    ledger::tail::{LAST_EVENT_ID, News},
};
use crate::sinks::EntryShown;

/// The name of the list in its cursors, beside the app.
const LEDGER: &str = "ledger";
/// The number of entries in one piece of a tail.
const PIECE: u64 = 64;
/// The filter parameters of the list.
const FILTERS: [&str; 6] = ["q", "type", "repository_id", "subject", "since", "until"];

/// The state that tails share with each other and with other routes.
#[derive(Clone)]
struct TailState {
    places: Arc<Places>,
    lifecycle: Lifecycle,
}

/// The routes of an app.
pub(super) fn routes(places: &Arc<Places>, lifecycle: &Lifecycle) -> Vec<Route> {
    let state = TailState { places: places.clone(), lifecycle: lifecycle.clone() };
    vec![
        route::<__path_list, _, _>(Access::App(Permission::LedgerRead), list),
        route_with::<__path_follow, _, _, _>(Access::App(Permission::LedgerRead), &state, follow),
    ]
}

/// The routes of the staff alone.
pub(super) fn staff_routes(places: &Arc<Places>, lifecycle: &Lifecycle) -> Vec<Route> {
    of_all::routes(places, lifecycle)
}

/// Lists the ledger of the app, newest entry first.
#[utoipa::path(get, path = "/api/ledger", tag = "ledger",
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
    responses((status = 200, body = Page<EntryShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let query = Query::of(&request.query, &[&["limit", "cursor"], &FILTERS[..]].concat())?;
    let (limit, filter) = (query.limit()?, filter(&front, &query)?);
    let list = format!("{LEDGER} {app}");
    let before = query.after(&list)?;
    let entries = front.ledgers.entries(&app, &filter, before, limit).await;
    let entries = entries.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
    Ok(json(StatusCode::OK, &searched(&entries, &list, EntryShown::of)))
}

/// Follows the ledger of the app as server-sent events, from now on or after a given entry. The type of each
/// event is the type of its entry; the data is the entry as the list shows it. The event `gap` says that the
/// entries before the next one are no longer stored.
#[utoipa::path(get, path = "/api/ledger/follow", tag = "ledger",
    params(
        ("after" = Option<String>, Query, description = "Id of the last entry that the caller has, or \
            `beginning`. Default: new entries only."),
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
    let app = request.app()?.id.clone();
    let query = Query::of(&request.query, &["after", "q", "type", "repository_id", "subject"])?;
    let (seen, filter) = (seen(&request.headers, &query)?, filter(&front, &query)?);
    let share = tail::place(&state.places, &request, &app)?;
    let ends = ends(&front, &app).await?;
    let (place, missed) = match (seen, ends) {
        (Seen::Beginning, ends) => (ends.map(|ends| (ends.name, ends.first - 1)), None),
        (Seen::Nothing, None) => (None, None),
        (Seen::Nothing, Some(ends)) => (Some((ends.name, ends.last)), None),
        (Seen::Entry(seen), Some(ends)) if seen.ledger == ends.name => {
            if seen.number > ends.last {
                let text = format!("entry {} is not written yet; the last one is {}", seen.number, ends.last);
                return Err(Problem::malformed(text));
            }
            (Some((ends.name, seen.number)), None)
        }
        // For a ledger from before a restore, the entries after that one are unknown.
        (Seen::Entry(_), ends) => (ends.map(|ends| (ends.name, ends.first - 1)), Some(ANOTHER_LEDGER)),
    };
    let news = Entries { front, app, filter, place, missed, is_placed: false };
    Ok(tail::answer(news, &state.lifecycle, share, &request))
}

/// The part of a ledger that a reader has seen.
enum Seen {
    /// The reader wants new entries only.
    Nothing,
    /// The reader wants every entry that is kept.
    Beginning,
    /// The reader has seen this entry and those before it.
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

/// The reason for a gap: entries were pruned by their age or number.
const NOT_KEPT: &str = "entries before this one are not kept any more";
/// The reason for a gap: the reader's entry is of a ledger that a restore ended, or of another server.
const ANOTHER_LEDGER: &str = "the entry is not of this ledger: a restore gives the ledger another name, and \
                              this is the first entry that it keeps";

/// Reads the filter of a list.
fn filter(front: &Front, query: &Query) -> Result<LedgerFilter, Problem> {
    let moment = |key: &str| match query.get(key).map(parsed) {
        Some(None) => {
            Err(Problem::malformed(format!("{key} is a moment (RFC 3339), for example 2026-11-25T08:00:00Z")))
        }
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
        ..LedgerFilter::default()
    })
}

async fn ends(front: &Front, app: &AppId) -> Result<Option<LedgerEnds>, Problem> {
    let ends = front.ledgers.ledger_ends(app).await;
    ends.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))
}

/// The entries of an app, read one piece after another.
struct Entries {
    front: Arc<Front>,
    app: AppId,
    filter: LedgerFilter,
    /// The ledger, and the number after which the tail continues; `None`: the ledger is empty.
    place: Option<(LedgerId, i64)>,
    /// Why the reader may miss entries; `None`: none are missing.
    missed: Option<&'static str>,
    /// Whether the reader knows where the tail begins.
    is_placed: bool,
}

impl Entries {
    /// An event without data: it only gives the reader the id to continue with if the tail breaks off before
    /// the first entry.
    fn placed(&mut self) -> Bytes {
        self.is_placed = true;
        match &self.place {
            Some((ledger, number)) => {
                format!("id: {}\n\n", EntryId { ledger: ledger.clone(), number: *number }).into()
            }
            None => Bytes::from_static(b"id: beginning\n\n"),
        }
    }

    /// Tells the reader that entries are gone, and continues with the first stored one. The id of the event
    /// points there, so a reader that breaks off right after it is not told again.
    fn gap(&mut self, ends: &LedgerEnds) -> Bytes {
        let reason = self.missed.take().unwrap_or(NOT_KEPT);
        self.is_placed = true;
        let place = EntryId { ledger: ends.name.clone(), number: ends.first - 1 };
        let data = json!({ "next": ends.first, "reason": reason });
        let text = format!("id: {place}\nevent: gap\ndata: {data}\n\n");
        self.place = Some((place.ledger, place.number));
        text.into()
    }
}

#[async_trait]
impl News for Entries {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if !self.is_placed && self.missed.is_none() {
            return Ok(Some(self.placed()));
        }
        let Some(ends) = ends(&self.front, &self.app).await? else { return Ok(None) };
        let after = match &self.place {
            Some((name, after)) if *name == ends.name => *after,
            // The first entry of this app.
            None => 0,
            Some(_) => {
                self.missed = Some(ANOTHER_LEDGER);
                ends.first - 1
            }
        };
        if self.missed.is_some() || after < ends.first - 1 {
            return Ok(Some(self.gap(&ends)));
        }
        if after >= ends.last {
            return Ok(None);
        }
        let found =
            self.front.ledgers.entries_between(&self.app, &self.filter, after, ends.last, PIECE).await;
        let found = found.map_err(|error| Problem::of_store(error, Kind::NO_ROUTE))?;
        // Entries may have been pruned meanwhile; then the next look reports a gap.
        let now = self::ends(&self.front, &self.app).await?;
        if now.is_none_or(|now| now.name != ends.name || now.first - 1 > after) {
            return Ok(None);
        }
        self.place = Some((ends.name, found.next.unwrap_or(ends.last)));
        let mut piece = String::new();
        for entry in &found.found {
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
