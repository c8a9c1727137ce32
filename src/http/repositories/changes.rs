//! The changes of a round as a list, and the rounds of a watch.
//!
//! A page looks at some thousand changes at most: with a filter it may hold fewer than were requested, or
//! none, and still name a next page.

use std::{str::FromStr, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::round::Change,
    ports::{PathMatcher, RoundFacts, RoundFilter, RoundPlace, Seek},
};
use tidings_entity::{id::CursorId, kind::Operation};
use utoipa::ToSchema;

use super::super::{
    deliveries::{
        dead_letters::search,
        histories::{ChangeShown, Histories, Reading, Unread, followed, round_failed},
    },
    front::Front,
};
use super::{contents::check_claim, named};
use crate::http::{
    bodies::{
        moment::iso,
        paging::{Page, Query, cursor_at, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
};

/// The number of changes that one walk of the trees returns.
const WINDOW: usize = 512;
/// The most changes that one page looks at.
const CHANGES_LOOKED_AT_MAX: usize = 10_000;
/// The filter parameters for changes.
const WORDS: [&str; 5] = ["path", "path_base64", "path_prefix", "path_glob", "kind"];

/// The routes of this file.
pub(super) fn routes(histories: &Arc<Histories>) -> Vec<Route> {
    vec![
        route_with::<__path_changes, _, _, _>(Access::Holder(Permission::ChangesRead), histories, changes),
        route::<__path_rounds, _, _>(Access::App(Permission::ChangesRead), rounds),
    ]
}

/// Changes of one round.
#[derive(Serialize, ToSchema)]
struct RoundChanges {
    /// Id of the branch of the watch, as `event.cursor` in bodies.
    cursor: String,
    /// The full name of the branch.
    branch: String,
    /// Number of the round. Null: no round is open.
    round: Option<i64>,
    /// Number of changes in the whole round.
    total: u64,
    /// Number of settled changes of the round.
    settled: u64,
    /// The changes, in the order of their delivery.
    items: Vec<ChangeShown>,
    /// Value of `cursor` for the next page. Missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The last change that was looked at.
struct ChangeMark {
    round: i64,
    position: u64,
    operation: Operation,
    path: Vec<u8>,
}

impl ChangeMark {
    fn of(round: i64, position: u64, change: &Change) -> Self {
        Self { round, position, operation: change.operation, path: change.path.clone() }
    }

    fn text(&self) -> String {
        let path = BASE64URL_NOPAD.encode(&self.path);
        format!("{} {} {} {path}", self.round, self.position, self.operation)
    }

    fn seek(self) -> Seek {
        let Self { operation, path, .. } = self;
        Seek::After(Change { operation, path, old: None, new: None, replay_of: None })
    }
}

impl FromStr for ChangeMark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        Ok(Self {
            round: word()?.parse().map_err(drop)?,
            position: word()?.parse().map_err(drop)?,
            operation: word()?.parse().map_err(drop)?,
            path: BASE64URL_NOPAD.decode(word()?.as_bytes()).map_err(drop)?,
        })
    }
}

/// Lists the changes of the open round, or of an earlier round, in the order of their delivery. A token with
/// `tasks:claim` reads them while it has a claim on a task of the watch.
#[utoipa::path(get, path = "/api/repositories/{id}/changes", tag = "repositories",
    params(
        ("id" = String, Path),
        ("branch" = Option<String>, Query,
            description = "Short or full name of the branch. Required if the watch follows several \
                branches."),
        ("round" = Option<i64>, Query, description = "Number of the round. Default: the open round."),
        ("path" = Option<String>, Query, description = "Only changes of this path."),
        ("path_base64" = Option<String>, Query, description = "Only changes of this path, given as base64 of \
            its raw bytes."),
        ("path_prefix" = Option<String>, Query, description = "Only changes of paths that begin with this \
            text."),
        ("path_glob" = Option<String>, Query, description = "Only changes of paths that match this glob, \
            written as in `include`."),
        ("kind" = Option<String>, Query, description = "Only changes of this operation: `create`, `update` \
            or `delete`."),
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, body = RoundChanges),
        (status = 404, description = "The repository does not exist, or it has no such round."),
        (status = 409, description = "The mirror no longer has the trees of the round.")
    ))]
async fn changes(front: Arc<Front>, histories: Arc<Histories>, request: Request) -> Answer {
    let app = request.app()?;
    let query =
        Query::of(&request.query, &[&["branch", "round", "limit", "cursor"][..], &WORDS[..]].concat())?;
    let limit = usize::try_from(query.limit()?).unwrap_or(usize::MAX);
    let filter = search::of_query(&query)?;
    let asked = query.get("round").map(str::parse::<i64>).transpose();
    let asked = asked.map_err(|_| Problem::malformed("round is the number of a round"))?;
    check_claim(&front, &request, &request.id(Kind::NOT_REGISTERED)?, Permission::ChangesRead).await?;
    let watch = named(&front, &request).await?;
    let cursor = followed(&watch, query.get("branch"))?;
    let name = format!("changes of {} {asked:?} {:?} {:?}", cursor.id, filter.path, filter.operation);
    let after: Option<ChangeMark> = query.after(&name)?;
    // The next page is of the same round, also when that has ended meanwhile.
    let number = after.as_ref().map(|place| place.round).or(asked).or(cursor.open.map(|open| open.0));
    let mut shown = RoundChanges {
        cursor: cursor.id.to_string(),
        branch: cursor.branch.clone(),
        round: number,
        total: 0,
        settled: 0,
        items: Vec::new(),
        next_cursor: None,
    };
    let Some(number) = number else { return Ok(json(StatusCode::OK, &shown)) };
    let _download = histories.downloads.begin(&app.id)?;
    let reading = Reading::open(&front, &app.id, &cursor.id, number).await?;
    (shown.total, shown.settled) = (reading.past.round.summary.total(), reading.past.round.position);
    let paths =
        PathMatcher::new(filter.path.as_ref()).map_err(|_| Problem::malformed("path_glob is no glob"))?;
    let is_meant = |change: &Change| {
        filter.operation.is_none_or(|operation| operation == change.operation) && paths.admits(&change.path)
    };
    let mut position = after.as_ref().map_or(0, |place| place.position + 1);
    let mut seek = after.map_or(Seek::Position(0), ChangeMark::seek);
    let mut looked = 0;
    while looked < CHANGES_LOOKED_AT_MAX {
        let window = reading.window(&front, &histories, &seek, WINDOW).await.map_err(Unread::problem)?;
        let range = position..position + window.len() as u64;
        let fates = front.history.fates(&cursor.id, number, range).await.map_err(round_failed)?;
        shown.settled = fates.position;
        for change in &window {
            if is_meant(change) {
                let fate = fates.of(position);
                shown.items.push(ChangeShown::of(&reading.past, position, change, &fate));
            }
            if shown.items.len() == limit {
                let more = position + 1 < shown.total;
                let place = ChangeMark::of(number, position, change);
                shown.next_cursor = more.then(|| cursor_at(&name, &place.text()));
                return Ok(json(StatusCode::OK, &shown));
            }
            position += 1;
        }
        looked += window.len();
        let Some(last) = window.last().filter(|_| position < shown.total) else {
            return Ok(json(StatusCode::OK, &shown));
        };
        let place = ChangeMark::of(number, position - 1, last);
        if looked >= CHANGES_LOOKED_AT_MAX {
            shown.next_cursor = Some(cursor_at(&name, &place.text()));
        }
        seek = place.seek();
    }
    Ok(json(StatusCode::OK, &shown))
}

/// A round of a watch.
#[derive(Serialize, ToSchema)]
struct RoundShown {
    round: i64,
    /// Id of the branch of the watch, as `event.cursor` in bodies.
    cursor: String,
    /// The full name of the branch.
    branch: String,
    /// Kind of the round: `sync`, `resync`, `redrive` or `replay`.
    kind: &'static str,
    /// `open`, `finished`, or `ended` (the round ended before all its changes were settled).
    state: &'static str,
    /// The commit that the app held before the round. Null: none.
    held_commit: Option<String>,
    /// The commit that the round brings the app to. Null: none.
    target_commit: Option<String>,
    deletes: u64,
    creates: u64,
    updates: u64,
    total: u64,
    /// Number of settled changes of the round.
    position: u64,
    /// Number of parked changes, as far as their dead letters are kept.
    parked: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    history_rewritten: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skipped_commits: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    complete: bool,
    began_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

impl RoundShown {
    fn of(facts: &RoundFacts) -> Self {
        Self {
            round: facts.number,
            cursor: facts.cursor.to_string(),
            branch: facts.branch.clone(),
            kind: facts.kind.as_str(),
            state: match facts.ended_at {
                None => "open",
                Some(_) if facts.position == facts.total() => "finished",
                Some(_) => "ended",
            },
            held_commit: facts.held.map(|commit| commit.to_string()),
            target_commit: facts.target.map(|commit| commit.to_string()),
            deletes: facts.deletes,
            creates: facts.creates,
            updates: facts.updates,
            total: facts.total(),
            position: facts.position,
            parked: facts.parked,
            history_rewritten: facts.history_rewritten,
            skipped_commits: facts.skipped_commits,
            complete: facts.complete,
            began_at: iso(facts.began_at),
            ended_at: facts.ended_at.map(iso),
        }
    }
}

/// The last round of a page.
struct RoundSeen(i64, CursorId);

impl FromStr for RoundSeen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, cursor) = text.split_once(' ').ok_or(())?;
        Ok(Self(number.parse().map_err(drop)?, cursor.parse().map_err(drop)?))
    }
}

/// Lists the rounds of a repository, newest first, as far back as history is stored.
#[utoipa::path(get, path = "/api/repositories/{id}/rounds", tag = "repositories",
    params(
        ("id" = String, Path),
        ("branch" = Option<String>, Query, description = "Only rounds of this branch, by its short or full \
            name."),
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<RoundShown>)))]
async fn rounds(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?;
    let query = Query::of(&request.query, &["branch", "limit", "cursor"])?;
    let limit = query.limit()?;
    let watch = named(&front, &request).await?;
    let branch = query.get("branch");
    let cursor = branch.map(|_| followed(&watch, branch)).transpose()?.map(|cursor| cursor.id.clone());
    let name = format!("rounds of {} {cursor:?}", watch.id);
    let place = query
        .after(&name)?
        .map_or(RoundPlace::Newest, |RoundSeen(number, cursor)| RoundPlace::Before(number, cursor));
    let filter = RoundFilter { watch: Some(watch.id.clone()), cursor, place, ..RoundFilter::default() };
    let found = front.history.rounds(&app.id, &filter, limit + 1).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED))?;
    let text = |facts: &RoundFacts| format!("{} {}", facts.number, facts.cursor);
    Ok(json(StatusCode::OK, &page(found, limit, &name, text, RoundShown::of)))
}
