//! A tail of the changes that an app has received, as server-sent events, for people and dashboards. It has
//! no effect on deliveries: it reads settled changes in their order, and waits for more ([`tail`]).
//!
//! An event's id is `<round>.<position>`, which `Last-Event-ID` brings back after a break. Changes that
//! cannot be shown any more are reported as a gap: the history of the round was pruned before the tail
//! reached its end, or its trees cannot be read again. A tail also ends when its watch is removed.

use std::{str::FromStr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tidings_actors::{
    model::round::Change,
    ports::{CursorStatus, RoundFacts, RoundFilter, RoundPlace, Seek},
};
use tidings_entity::id::{AppId, CursorId, WatchId};
use tracing::warn;

use super::super::{
    deliveries::histories::{ChangeShown, Histories, Reading, Unread, followed, round_failed},
    front::Front,
};
use super::named;
use crate::http::{
    bodies::{
        paging::Query,
        problem::{Kind, Problem},
    },
    door::{
        lifecycle::Lifecycle,
        places::Places,
        request::Request,
        route::{Access, Answer, Permission, Route, route_with},
    },
    ledger::tail::{self, LAST_EVENT_ID, News},
};

/// The number of changes in one piece.
const PIECE: u64 = 64;

/// The state that tails share with each other and with other routes.
#[derive(Clone)]
struct TailState {
    histories: Arc<Histories>,
    places: Arc<Places>,
    lifecycle: Lifecycle,
}

/// The routes of this file.
pub(super) fn routes(histories: &Arc<Histories>, places: &Arc<Places>, lifecycle: &Lifecycle) -> Vec<Route> {
    let state =
        TailState { histories: histories.clone(), places: places.clone(), lifecycle: lifecycle.clone() };
    vec![route_with::<__path_events, _, _, _>(Access::App(Permission::WatchesRead), &state, events)]
}

/// The next change of a tail: its round and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EventMark {
    round: i64,
    position: u64,
}

/// The id of an event: the change after which a tail continues.
struct Seen(EventMark);

impl FromStr for Seen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (round, position) = text.split_once('.').ok_or(())?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then_some(()).ok_or(());
        number(round)?;
        number(position)?;
        let position: u64 = position.parse().map_err(drop)?;
        let position = position.checked_add(1).ok_or(())?;
        Ok(Self(EventMark { round: round.parse().map_err(drop)?, position }))
    }
}

/// Follows the settled changes of a branch as server-sent events, from now on or after a given event. The
/// event types are `file.created`, `file.updated` and `file.deleted`; the data is the change as `.../changes`
/// shows it. The event `gap` names changes that can no longer be shown.
#[utoipa::path(get, path = "/api/repositories/{id}/events", tag = "repositories",
    params(
        ("id" = String, Path),
        ("branch" = Option<String>, Query,
            description = "Short or full name of the branch. Required if the watch follows several \
                branches."),
        ("after" = Option<String>, Query, description = "Id of the last event that the caller has. Default: \
            new events only."),
        ("Last-Event-ID" = Option<String>, Header, description = "The same as `after`. Overrides `after`."),
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 429, description = "The caller has 8 event streams open already, or the server has reached \
            its limit for all callers.")
    ))]
async fn events(front: Arc<Front>, state: TailState, request: Request) -> Answer {
    let app = request.app()?;
    let query = Query::of(&request.query, &["branch", "after"])?;
    let seen = seen(&request.headers, &query)?;
    let watch = named(&front, &request).await?;
    let cursor = followed(&watch, query.get("branch"))?;
    let share = tail::place(&state.places, &request, &app.id)?;
    let place = begin(&front, &app.id, cursor, seen).await?;
    let news = Changes {
        front,
        histories: state.histories,
        app: app.id.clone(),
        cursor: cursor.id.clone(),
        watch: watch.id,
        place,
        is_at_end: false,
        reading: None,
        last: None,
    };
    Ok(tail::answer(news, &state.lifecycle, share, &request))
}

fn seen(headers: &HeaderMap, query: &Query) -> Result<Option<EventMark>, Problem> {
    let malformed =
        |what: &str| Problem::malformed(format!("{what} is the id of an event: <round>.<position>"));
    let read = |text: &str, what| text.parse().map(|Seen(place)| Some(place)).map_err(|()| malformed(what));
    match (headers.get(LAST_EVENT_ID), query.get("after")) {
        (Some(value), _) => read(value.to_str().unwrap_or(""), "Last-Event-ID"),
        (None, Some(text)) => read(text, "after"),
        (None, None) => Ok(None),
    }
}

/// The place where a tail begins.
async fn begin(
    front: &Front,
    app: &AppId,
    cursor: &CursorStatus,
    seen: Option<EventMark>,
) -> Result<EventMark, Problem> {
    let newest = rounds(front, app, &cursor.id, RoundPlace::Newest).await?.into_iter().next();
    let newest = newest.map(|newest| EventMark { round: newest.number, position: newest.position });
    match seen {
        None => Ok(newest.unwrap_or(EventMark { round: 0, position: 0 })),
        // An id that was never given out would be waited for without an end.
        Some(seen) if !has_happened(seen, newest, cursor.last_round) => {
            Err(Problem::malformed("no such event has happened yet"))
        }
        Some(seen) => Ok(seen),
    }
}

/// Whether a place can have been reached: by the settled part of the newest stored round, and by the round
/// that began last. Of a round that is no longer stored any place may be genuine.
fn has_happened(seen: EventMark, newest: Option<EventMark>, last_round: i64) -> bool {
    match newest {
        Some(newest) if seen.round == newest.round => seen.position <= newest.position,
        Some(newest) if seen.round < newest.round => true,
        _ => (1..=last_round).contains(&seen.round),
    }
}

async fn rounds(
    front: &Front,
    app: &AppId,
    cursor: &CursorId,
    place: RoundPlace,
) -> Result<Vec<RoundFacts>, Problem> {
    let filter = RoundFilter { cursor: Some(cursor.clone()), place, ..RoundFilter::default() };
    front.history.rounds(app, &filter, 2).await.map_err(round_failed)
}

/// The settled changes of a branch, read one range after another.
struct Changes {
    front: Arc<Front>,
    histories: Arc<Histories>,
    app: AppId,
    watch: WatchId,
    cursor: CursorId,
    place: EventMark,
    /// Whether the round has ended, and all of its settled changes were sent.
    is_at_end: bool,
    reading: Option<Reading>,
    /// The change before `place`, if known: the next window is found from it.
    last: Option<Change>,
}

#[async_trait]
impl News for Changes {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        self.news().await
    }

    fn ends_by(&mut self, problem: &Problem, is_first: bool) -> bool {
        if problem.code() == Kind::NOT_REGISTERED.code {
            return true;
        }
        if is_first {
            let (cursor, round) = (&self.cursor, self.place.round);
            warn!(cursor.id = %cursor, round.number = round, problem = problem.code(),
                "a tail waits: round {round} cannot be read just now");
        }
        // The round may have ended: its row is read again.
        self.reading = None;
        false
    }

    fn subject(&self) -> String {
        self.cursor.to_string()
    }
}

impl Changes {
    /// The next piece, if something was settled.
    async fn news(&mut self) -> Result<Option<Bytes>, Problem> {
        let found = rounds(&self.front, &self.app, &self.cursor, RoundPlace::From(self.place.round)).await?;
        let Some(facts) = found.first() else {
            // The branch has no round yet, none is stored, or the watch was removed.
            let watch = self.front.store.watch(&self.app, &self.watch).await;
            return watch.map(|_| None).map_err(|error| Problem::of_store(error, Kind::NOT_REGISTERED));
        };
        if facts.number != self.place.round {
            let is_missed = self.place.round != 0 && !self.is_at_end;
            let gone = is_missed.then(|| gap(self.place.round, None, "the history is no longer stored"));
            self.go_to(EventMark { round: facts.number, position: 0 });
            if let Some(gone) = gone {
                return Ok(Some(gone));
            }
        }
        if self.place.position < facts.position {
            return self.piece(facts).await.map(Some);
        }
        self.is_at_end = facts.ended_at.is_some();
        if self.is_at_end
            && let Some(next) = found.get(1)
        {
            self.go_to(EventMark { round: next.number, position: 0 });
            if next.position > 0 {
                return self.piece(next).await.map(Some);
            }
        }
        Ok(None)
    }

    fn go_to(&mut self, place: EventMark) {
        (self.place, self.is_at_end, self.reading, self.last) = (place, false, None, None);
    }

    /// The next settled changes of the present round.
    async fn piece(&mut self, facts: &RoundFacts) -> Result<Bytes, Problem> {
        let from = self.place.position;
        let to = facts.position.min(from + PIECE);
        if self.reading.is_none() {
            self.reading = Some(Reading::open(&self.front, &self.app, &self.cursor, facts.number).await?);
        }
        let Some(reading) = &self.reading else { return Ok(Bytes::new()) };
        let seek = self.last.clone().map_or(Seek::Position(from), Seek::After);
        let limit = usize::try_from(to - from).unwrap_or(usize::MAX);
        let changes = match reading.window(&self.front, &self.histories, &seek, limit).await {
            Err(Unread::Gone(_)) => {
                let piece =
                    gap(facts.number, Some((from, facts.position)), "the mirror lost the trees of the round");
                self.place.position = facts.position;
                return Ok(piece);
            }
            window => window.map_err(Unread::problem)?,
        };
        let fates =
            self.front.history.fates(&self.cursor, facts.number, from..to).await.map_err(round_failed)?;
        let mut piece = String::new();
        for (position, change) in (from..to).zip(&changes) {
            let shown = ChangeShown::of(&reading.past, position, change, &fates.of(position));
            let data = serde_json::to_string(&shown).map_err(|_| Problem::new(Kind::INTERNAL))?;
            let (round, word) = (facts.number, shown.change_type());
            piece.push_str(&format!("id: {round}.{position}\nevent: {word}\ndata: {data}\n\n"));
        }
        self.last = changes.into_iter().next_back();
        self.place.position = to;
        Ok(piece.into())
    }
}

/// The event for changes that can no longer be shown: the rest of a round, or a range of it.
fn gap(round: i64, range: Option<(u64, u64)>, reason: &str) -> Bytes {
    let (from, to) = range.unzip();
    let data = json!({ "round": round, "from": from, "to": to, "reason": reason });
    let id = range.map_or_else(String::new, |(_, to)| format!("id: {round}.{}\n", to.saturating_sub(1)));
    format!("{id}event: gap\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_known_again_also_when_its_history_is_gone() {
        let place = |(round, position)| EventMark { round, position };
        for (seen, newest, last_round, happened) in [
            // Of the newest round that is kept: what is settled.
            ((9, 3), Some((9, 3)), 9, true),
            ((9, 4), Some((9, 3)), 9, false),
            ((8, 40), Some((9, 3)), 9, true),
            ((10, 1), Some((9, 3)), 9, false),
            // The last rounds went before an older one that a letter names.
            ((9, 4), Some((7, 1)), 9, true),
            ((8, 4), Some((7, 1)), 9, true),
            ((10, 1), Some((7, 1)), 9, false),
            // Nothing is kept.
            ((9, 4), None, 9, true),
            ((2, 1), None, 9, true),
            ((10, 1), None, 9, false),
            ((0, 1), None, 9, false),
            ((0, 1), None, 0, false),
            ((1, 1), None, 0, false),
        ] {
            let found = has_happened(place(seen), newest.map(place), last_round);
            assert_eq!(found, happened, "{seen:?} {newest:?} {last_round}");
        }
    }

    #[test]
    fn an_event_id_leads_to_the_change_behind_it_and_nothing_else_is_one() {
        for (text, place) in [
            ("7.0", Some((7, 1))),
            ("1767225600000.499999", Some((1_767_225_600_000, 500_000))),
            ("7", None),
            ("7.", None),
            (".7", None),
            ("7.0.0", None),
            ("-7.0", None),
            ("+7.0", None),
            ("7.18446744073709551615", None),
            ("9223372036854775808.0", None),
            ("", None),
            ("a.b", None),
        ] {
            let read = text.parse().ok().map(|Seen(place)| (place.round, place.position));
            assert_eq!(read, place, "{text:?}");
        }
    }
}
