//! What became of deliveries, over all watches of an app: the newest round first, and in a round the
//! last change first.
//!
//! A success has no row of its own. Its round is read again, a stretch of it at a time, and what the rows
//! of settled ranges, attempts and letters say is laid over it. One page looks at so many changes, passes
//! over so many and reads so many rounds; then it names where to go on, whatever it found until there.
//! Where the trees of a round cannot be read, its dead letters are all that is left of it, and the page says
//! so.

pub(crate) mod attempt;
mod single;
mod wanted;

use std::{collections::HashMap, str::FromStr, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    filter::sets::DELIVERIES,
    ports::{
        App, BreakerRow, ChangeState, Fate, Fates, RepositoryFacts, RoundFacts, RoundPlace, Seek, StoreError,
    },
    round::DeliveryId,
};
use tidings_entity::{
    id::{AppId, CursorId, WatchId},
    kind::BreakerKind,
};
use utoipa::ToSchema;

use self::wanted::{Changed, OfRound, Wanted};
use super::{
    dead_letters::search,
    front::Front,
    histories::{ChangeShown, Histories, Reading, Unread, round_failed},
    standing::{next_attempt, open_breaker},
};
use crate::http::{
    bodies::{
        filters,
        moment::iso,
        paging::{Query, cursor_at},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Route, route_with},
    },
};

/// Changes of a round that are looked at in one go.
const STRETCH: u64 = 2_048;
/// Changes that one page looks at.
const LOOKED_AT_MAX: u64 = 10_000;
/// Changes that one page passes over on its way to those: of a long list the beginning of a stretch is
/// found by counting.
const PASSED_MAX: u64 = 500_000;
/// Lists up to this length are kept as a whole; nothing is passed over.
const SHORT: u64 = 10_000;
/// Rounds that one page reads.
const ROUNDS_MAX: u64 = 32;

/// The routes of this file.
pub fn routes(histories: &Arc<Histories>) -> Vec<Route> {
    vec![route_with::<__path_list, _, _, _>(Access::App, histories, list), single::route(histories)]
}

/// A delivery.
#[derive(Serialize, ToSchema)]
struct DeliveryShown {
    #[serde(flatten)]
    change: ChangeShown,
    repository_id: String,
    /// As in `event.cursor`.
    cursor: String,
    /// The full name of the branch.
    branch: String,
    /// How often it was tried.
    attempts: u64,
    /// The last status code that is known: that of an acknowledgement only with `delivery.history = all`.
    last_status: Option<u16>,
    /// When it is tried next, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
}

/// One page of deliveries.
#[derive(Serialize, ToSchema)]
struct Deliveries {
    /// The newest round first, and in a round the last change first.
    items: Vec<DeliveryShown>,
    /// Rounds of which only dead letters are shown, because their trees cannot be read: they are no longer
    /// in the mirror, or the Git host does not give them just now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<UnreadableRound>,
    /// Gives the next page as `cursor`; missing on the last. A page may be empty and have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A round that cannot be shown whole.
#[derive(Serialize, ToSchema, PartialEq, Eq)]
struct UnreadableRound {
    repository_id: String,
    cursor: String,
    round: i64,
}

/// Where a page goes on: below this position of this round, then with the rounds before it.
#[derive(Clone)]
struct Mark {
    round: i64,
    cursor: CursorId,
    below: u64,
}

impl Mark {
    fn text(&self) -> String {
        format!("{} {} {}", self.round, self.cursor, self.below)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        Ok(Self {
            round: word()?.parse().map_err(drop)?,
            cursor: word()?.parse().map_err(drop)?,
            below: word()?.parse().map_err(drop)?,
        })
    }
}

/// One page being made.
struct Search<'f> {
    front: &'f Front,
    histories: &'f Histories,
    app: &'f App,
    wanted: &'f Wanted,
    /// What filters can ask of its repositories; looked up once each, where there is a filter.
    named: HashMap<WatchId, RepositoryFacts>,
    /// The breaker of the app's endpoint, while it is open.
    endpoint: Option<BreakerRow>,
    limit: usize,
    looked: u64,
    passed: u64,
    page: Deliveries,
}

impl Search<'_> {
    /// Looks until the page is full, or enough was looked at. Where it goes on, unless nothing is left.
    async fn run(&mut self, mark: Option<Mark>) -> Result<Option<Mark>, Problem> {
        let place =
            mark.as_ref().map_or(RoundPlace::Newest, |mark| RoundPlace::At(mark.round, mark.cursor.clone()));
        let filter = self.wanted.rounds(place);
        // One more than are read: where the next page begins.
        let listed =
            self.front.history.rounds(&self.app.id, &filter, ROUNDS_MAX + 1).await.map_err(round_failed)?;
        for (facts, before) in listed.iter().zip(0..) {
            let is_enough = self.looked >= LOOKED_AT_MAX || self.passed >= PASSED_MAX;
            let at = |below| Mark { round: facts.number, cursor: facts.cursor.clone(), below };
            if before == ROUNDS_MAX || (before > 0 && is_enough) {
                return Ok(Some(at(u64::MAX)));
            }
            let (low, mut high) = self.wanted.range(facts);
            if let Some(mark) =
                mark.as_ref().filter(|mark| mark.round == facts.number && mark.cursor == facts.cursor)
            {
                high = high.min(mark.below);
            }
            let named = self.named(&facts.watch).await?;
            let of = OfRound { app: &self.app.id, app_name: &self.app.name, facts, named: named.as_ref() };
            if self.wanted.leaves_out(&of) {
                continue;
            }
            match self.round(&of, low, high).await {
                // Its history went after it was listed.
                Err(problem) if problem.code() == Kind::NO_ROUND.code => {}
                below => {
                    if let Some(below) = below? {
                        return Ok(Some(at(below)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What filters can ask of a repository. One that is not watched any more has no rounds.
    async fn named(&mut self, watch: &WatchId) -> Result<Option<RepositoryFacts>, Problem> {
        if self.wanted.is_unfiltered() {
            return Ok(None);
        }
        if !self.named.contains_key(watch) {
            match self.front.store.watch(&self.app.id, watch).await {
                Ok(found) => drop(self.named.insert(watch.clone(), found.facts)),
                Err(StoreError::NotFound) => {}
                Err(error) => return Err(round_failed(error)),
            }
        }
        Ok(self.named.get(watch).cloned())
    }

    /// Looks at a round from above; below which position it was left, if it was.
    async fn round(&mut self, of: &OfRound<'_>, low: u64, high: u64) -> Result<Option<u64>, Problem> {
        let (facts, mut high) = (of.facts, high);
        let mut reading = None;
        let mut only_letters = self.wanted.is_parked_only();
        let mut is_readable = true;
        while low < high {
            if self.looked >= LOOKED_AT_MAX || (self.passed >= PASSED_MAX && facts.total() > SHORT) {
                return Ok(Some(high));
            }
            if only_letters {
                let last = self.front.history.last_parked(&facts.cursor, facts.number, high).await;
                match last.map_err(round_failed)?.filter(|last| *last >= low) {
                    None => return Ok(None),
                    Some(last) => high = last + 1,
                }
            }
            let from = low.max(high.saturating_sub(STRETCH));
            let fates = self.front.history.fates(&facts.cursor, facts.number, from..high).await;
            let fates = fates.map_err(round_failed)?;
            let mut found = None;
            if is_readable {
                if reading.is_none() {
                    reading =
                        Some(Reading::open(self.front, &self.app.id, &facts.cursor, facts.number).await?);
                }
                found = self.stretch(reading.as_ref(), of, &fates, from, high).await?;
                is_readable = found.is_some();
                only_letters |= !is_readable;
            }
            let found = match found {
                Some(found) => found,
                None => self.letters(of, &fates),
            };
            self.looked += high - from;
            for (position, shown) in found.into_iter().rev() {
                self.page.items.push(shown);
                if self.page.items.len() == self.limit {
                    return Ok(Some(position));
                }
            }
            high = from;
        }
        Ok(None)
    }

    /// Those of a stretch that are meant, in order; `None`: the round cannot be read any more.
    async fn stretch(
        &mut self,
        reading: Option<&Reading>,
        of: &OfRound<'_>,
        fates: &Fates,
        from: u64,
        to: u64,
    ) -> Result<Option<Vec<(u64, DeliveryShown)>>, Problem> {
        let Some(reading) = reading else { return Ok(None) };
        let facts = of.facts;
        let limit = usize::try_from(to - from).unwrap_or(usize::MAX);
        if facts.total() > SHORT {
            self.passed += to;
        }
        let changes = match reading.window(self.front, self.histories, &Seek::Position(from), limit).await {
            // One repository that cannot be read does not hide the others.
            Err(Unread::Gone(_) | Unread::Failed(_)) => return Ok(None),
            window => window.map_err(Unread::problem)?,
        };
        let mut found = Vec::new();
        for (position, change) in (from..to).zip(&changes) {
            let fate = fates.of(position);
            let is_it = |id: &DeliveryId| *id == DeliveryId::of(&facts.cursor, facts.number, change);
            let changed = Changed { operation: change.operation, path: &change.path, fate: &fate };
            if self.wanted.admits(of, &changed) && self.wanted.id.as_ref().is_none_or(is_it) {
                let shown = ChangeShown::of(&reading.past, position, change, &fate);
                found.push((position, shown_delivery(facts, shown, &fate, self.endpoint.as_ref())));
            }
        }
        Ok(Some(found))
    }

    /// What letters alone still say of a round.
    fn letters(&mut self, of: &OfRound<'_>, fates: &Fates) -> Vec<(u64, DeliveryShown)> {
        let facts = of.facts;
        let unreadable = UnreadableRound {
            repository_id: facts.watch.to_string(),
            cursor: facts.cursor.to_string(),
            round: facts.number,
        };
        if !self.page.unreadable.contains(&unreadable) {
            self.page.unreadable.push(unreadable);
        }
        let mut found = Vec::new();
        for letter in &fates.letters {
            let (position, fate) = (letter.position, fates.of(letter.position));
            let changed = Changed { operation: letter.operation, path: &letter.path, fate: &fate };
            if self.wanted.admits(of, &changed)
                && self.wanted.id.as_ref().is_none_or(|id| *id == letter.delivery)
            {
                let (id, path) = (letter.delivery.to_string(), &letter.path);
                let shown = ChangeShown::of_path(id, facts.number, position, letter.operation, path, &fate);
                found.push((position, shown_delivery(facts, shown, &fate, self.endpoint.as_ref())));
            }
        }
        found
    }
}

fn shown_delivery(
    facts: &RoundFacts,
    change: ChangeShown,
    fate: &Fate,
    endpoint: Option<&BreakerRow>,
) -> DeliveryShown {
    let is_waiting = fate.state == ChangeState::Failed;
    let next = fate.next_at.filter(|_| is_waiting);
    DeliveryShown {
        next_attempt_at: next.and_then(|at| next_attempt(Some(at), endpoint)).map(iso),
        change,
        repository_id: facts.watch.to_string(),
        cursor: facts.cursor.to_string(),
        branch: facts.branch.clone(),
        attempts: fate.attempts,
        last_status: fate.status,
    }
}

/// The breaker of an app's endpoint, while it is open.
async fn open_endpoint(front: &Front, app: &AppId) -> Result<Option<BreakerRow>, Problem> {
    let breakers = front.store.breakers().await.map_err(round_failed)?;
    Ok(open_breaker(&breakers, BreakerKind::Endpoint, app.as_str()).cloned())
}

/// One page, and where the next one begins.
async fn searched(
    front: &Front,
    histories: &Histories,
    app: &App,
    wanted: &Wanted,
    mark: Option<Mark>,
    limit: usize,
) -> Result<(Deliveries, Option<Mark>), Problem> {
    let page = Deliveries { items: Vec::new(), unreadable: Vec::new(), next_cursor: None };
    let endpoint = open_endpoint(front, &app.id).await?;
    let named = HashMap::new();
    let mut search =
        Search { front, histories, app, wanted, named, endpoint, limit, looked: 0, passed: 0, page };
    let mark = search.run(mark).await?;
    Ok((search.page, mark))
}

/// The app's deliveries, the newest round first. What waits and was never tried is shown where it is
/// asked for (`status=pending`).
#[utoipa::path(get, path = "/api/deliveries", tag = "deliveries",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("q" = Option<String>, Query, description = "only what this filter means; see docs/filters.md"),
        ("status" = Option<String>, Query,
            description = "`delivered`, `parked`, `failed`, `pending` or `dropped`; what was tried where it \
                is missing"),
        ("repository_id" = Option<String>, Query, description = "only of this repository"),
        ("path" = Option<String>, Query, description = "only of this path"),
        ("path_base64" = Option<String>, Query, description = "the same by its raw bytes"),
        ("path_prefix" = Option<String>, Query, description = "only of paths that begin so"),
        ("path_glob" = Option<String>, Query, description = "only of paths that match, as in `include`"),
        ("kind" = Option<String>, Query, description = "`create`, `update` or `delete`"),
        ("id" = Option<String>, Query, description = "only this delivery"),
        ("from" = Option<String>, Query,
            description = "settled, or tried last, at this moment (RFC 3339) or later"),
        ("to" = Option<String>, Query, description = "settled, or tried last, before this moment"),
    ),
    responses((status = 200, body = Deliveries)))]
async fn list(front: Arc<Front>, histories: Arc<Histories>, request: Request) -> Answer {
    const OWN: [&str; 13] = [
        "limit",
        "cursor",
        "q",
        "status",
        "id",
        "repository_id",
        "path",
        "path_base64",
        "path_prefix",
        "path_glob",
        "kind",
        "from",
        "to",
    ];
    let app = request.app()?;
    let query = Query::of(&request.query, &OWN)?;
    let limit = usize::try_from(query.limit()?).unwrap_or(usize::MAX);
    let status = query.get("status").map(state).transpose()?;
    let id = query.get("id").map(delivery_id).transpose()?;
    let filter = search::of_query(&query)?;
    let q = filters::of_query(&query, &DELIVERIES, front.clock.now())?;
    let wanted = Wanted::of(&filter, status, id, q)?;
    let mut name = format!("deliveries of {} {status:?} {:?} {filter:?}", app.id, wanted.id);
    if let Some(q) = query.get("q") {
        // As it is written: a time before now is another moment on each page.
        name.push_str(&format!(" {q:?}"));
    }
    let mark: Option<Mark> = query.after(&name)?;
    let _download = histories.downloads.begin(&app.id)?;
    let (mut page, mark) = searched(&front, &histories, app, &wanted, mark, limit).await?;
    let is_found = wanted.id.is_some() && !page.items.is_empty();
    page.next_cursor = mark.filter(|_| !is_found).map(|mark| cursor_at(&name, &mark.text()));
    Ok(json(StatusCode::OK, &page))
}

fn state(word: &str) -> Result<ChangeState, Problem> {
    ChangeState::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
        let words: Vec<_> = ChangeState::ALL.iter().map(|state| state.as_str()).collect();
        Problem::malformed(format!("status is one of: {}", words.join(", ")))
    })
}

fn delivery_id(text: &str) -> Result<DeliveryId, Problem> {
    let is_id = text.strip_prefix("dlv_").is_some_and(|rest| {
        rest.len() == 52 && rest.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    });
    let malformed = || Problem::malformed("id is that of a delivery: dlv_ and 52 letters and digits");
    is_id.then(|| DeliveryId::from_stored(text.to_owned())).ok_or_else(malformed)
}
