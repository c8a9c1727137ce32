//! Deliveries and their results, over all watches of an app: the newest round first, and within a round the
//! last change first.
//!
//! A success has no row of its own. Its round is computed again, a chunk at a time, and combined with the
//! rows of settled ranges, attempts and letters. One page looks at a bounded number of changes, skips a
//! bounded number and reads a bounded number of rounds; then it names the place to continue, even if it found
//! nothing. If the trees of a round cannot be read, only its dead letters are shown, and the page says so.

pub(crate) mod attempt;
mod content;
pub mod dead_letters;
pub mod histories;
mod of_all;
mod page_asked;
mod request_body;
mod single;
mod wanted;

use std::{collections::HashMap, str::FromStr, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::round::DeliveryId,
    ports::{
        App, BreakerRow, ChangeState, Fate, Fates, RepositoryFacts, RoundFacts, RoundPlace, Seek, StoreError,
    },
};
use tidings_entity::{
    id::{AppId, CursorId, WatchId},
    kind::BreakerKind,
};
use utoipa::ToSchema;

use self::{
    histories::{ChangeShown, Histories, Reading, Unread, round_failed},
    page_asked::PageAsked,
    wanted::{Changed, OfRound, Wanted},
};
use super::{
    front::Front,
    repositories::standing::{next_attempt, open_breaker},
};
use crate::http::{
    bodies::{
        moment::iso,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
};

/// The number of changes that are computed at a time.
const CHUNK: u64 = 2_048;
/// The most changes that one page looks at.
const LOOKED_AT_MAX: u64 = 10_000;
/// The most changes that one page may skip before its first one: the beginning of a chunk in a long list is
/// found by counting.
const PASSED_MAX: u64 = 500_000;
/// Lists up to this length are cached whole, so nothing is skipped.
const SHORT: u64 = 10_000;
/// The most rounds that one page reads.
const ROUNDS_MAX: u64 = 32;

/// The routes of this file.
pub fn routes(histories: &Arc<Histories>) -> Vec<Route> {
    vec![
        route_with::<__path_list, _, _, _>(Access::App(Permission::DeliveriesRead), histories, list),
        single::route(histories),
        content::route(histories),
        request_body::route(histories),
    ]
}

/// The routes of the staff alone.
pub fn staff_routes(histories: &Arc<Histories>) -> Vec<Route> {
    vec![of_all::route(histories)]
}

/// A delivery: one change that is or was sent to the app.
#[derive(Serialize, ToSchema)]
struct DeliveryShown {
    #[serde(flatten)]
    change: ChangeShown,
    repository_id: String,
    /// Id of the branch of the watch, as `event.cursor` in bodies.
    cursor: String,
    /// The full name of the branch.
    branch: String,
    /// Number of attempts so far.
    attempts: u64,
    /// The last known status code of an answer. The code of an acknowledgement is known only with
    /// `delivery.history = all`.
    last_status: Option<u16>,
    /// When the next attempt is due. Only after a failed attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
}

/// One page of deliveries.
#[derive(Default, Serialize, ToSchema)]
struct Deliveries {
    /// The deliveries, newest round first; within a round the last change first.
    items: Vec<DeliveryShown>,
    /// Rounds that show only their dead letters, because their trees cannot be read: the mirror lacks them,
    /// or the Git host does not give them now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<UnreadableRound>,
    /// Value of `cursor` for the next page. Missing on the last page. An empty page may have a next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A round that is shown only in part.
#[derive(Serialize, ToSchema, PartialEq, Eq)]
struct UnreadableRound {
    repository_id: String,
    cursor: String,
    round: i64,
}

/// Where a page continues: below this position of this round, then with the rounds before it.
#[derive(Clone)]
struct Mark {
    round: i64,
    cursor: CursorId,
    below: u64,
}

impl Mark {
    fn at(facts: &RoundFacts, below: u64) -> Self {
        Self { round: facts.number, cursor: facts.cursor.clone(), below }
    }

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

/// The state of computing one page.
struct Search<'f> {
    front: &'f Front,
    histories: &'f Histories,
    app: &'f App,
    wanted: &'f Wanted,
    /// The facts that filters need about the page's repositories; looked up once each, if there is a filter.
    named: HashMap<WatchId, RepositoryFacts>,
    /// The breaker of the app's endpoint, while it is open.
    endpoint: Option<BreakerRow>,
    limit: usize,
    cost: PageCost,
    page: Deliveries,
}

/// The work that a page has taken so far.
#[derive(Clone, Copy, Default)]
struct PageCost {
    looked: u64,
    passed: u64,
}

impl PageCost {
    fn is_enough(self) -> bool {
        self.looked >= LOOKED_AT_MAX || self.passed >= PASSED_MAX
    }
}

impl Search<'_> {
    /// Collects deliveries until the page is full, or the limits of one page are reached. Returns where the
    /// next page continues; `None`: there is no next page.
    async fn run(&mut self, mark: Option<Mark>) -> Result<Option<Mark>, Problem> {
        let place =
            mark.as_ref().map_or(RoundPlace::Newest, |mark| RoundPlace::At(mark.round, mark.cursor.clone()));
        let filter = self.wanted.rounds(place);
        // One round more than are read, to know where the next page begins.
        let listed =
            self.front.history.rounds(&self.app.id, &filter, ROUNDS_MAX + 1).await.map_err(round_failed)?;
        for (facts, before) in listed.iter().zip(0..) {
            if before == ROUNDS_MAX || (before > 0 && self.cost.is_enough()) {
                return Ok(Some(Mark::at(facts, u64::MAX)));
            }
            if let Some(below) = self.of_round(facts, mark.as_ref()).await? {
                return Ok(Some(Mark::at(facts, below)));
            }
        }
        Ok(None)
    }

    /// Looks at a round from its last position, or from the end of the previous page. Returns the position
    /// below which the next page continues, if there is one.
    async fn of_round(&mut self, facts: &RoundFacts, mark: Option<&Mark>) -> Result<Option<u64>, Problem> {
        let (low, mut high) = self.wanted.range(facts);
        if let Some(mark) = mark.filter(|mark| mark.round == facts.number && mark.cursor == facts.cursor) {
            high = high.min(mark.below);
        }
        let named = self.named(&facts.watch).await?;
        let of = OfRound { app: &self.app.id, app_name: &self.app.name, facts, named: named.as_ref() };
        if self.wanted.leaves_out(&of) {
            return Ok(None);
        }
        match self.round(&of, low, high).await {
            // The history of the round was removed after it was listed.
            Err(problem) if problem.code() == Kind::NO_ROUND.code => Ok(None),
            below => below,
        }
    }

    /// The facts that filters need about a repository; `None`: the watch was removed, so it has no rounds.
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

    /// Looks at a round from its last position. Returns the position below which the next page continues, if
    /// there is one.
    async fn round(&mut self, of: &OfRound<'_>, low: u64, high: u64) -> Result<Option<u64>, Problem> {
        let (facts, mut high) = (of.facts, high);
        let mut reading = None;
        let mut only_letters = self.wanted.is_parked_only();
        let mut is_readable = true;
        while low < high {
            if self.cost.looked >= LOOKED_AT_MAX || (self.cost.passed >= PASSED_MAX && facts.total() > SHORT)
            {
                return Ok(Some(high));
            }
            if only_letters {
                let last = self.front.history.last_parked(&facts.cursor, facts.number, high).await;
                match last.map_err(round_failed)?.filter(|last| *last >= low) {
                    None => return Ok(None),
                    Some(last) => high = last + 1,
                }
            }
            let from = low.max(high.saturating_sub(CHUNK));
            let fates = self.front.history.fates(&facts.cursor, facts.number, from..high).await;
            let fates = fates.map_err(round_failed)?;
            let mut found = None;
            if is_readable {
                if reading.is_none() {
                    reading =
                        Some(Reading::open(self.front, &self.app.id, &facts.cursor, facts.number).await?);
                }
                found = self.chunk(reading.as_ref(), of, &fates, from, high).await?;
                is_readable = found.is_some();
                only_letters |= !is_readable;
            }
            let found = match found {
                Some(found) => found,
                None => self.letters(of, &fates),
            };
            self.cost.looked += high - from;
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

    /// The matching deliveries of a chunk, in order; `None`: the round cannot be read any more.
    async fn chunk(
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
            self.cost.passed += to;
        }
        let changes = match reading.window(self.front, self.histories, &Seek::Position(from), limit).await {
            // A repository that cannot be read must not hide the others.
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

    /// The deliveries of a round whose trees cannot be read, from its dead letters.
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

/// One page, and the place where the next page begins.
async fn searched(
    front: &Front,
    histories: &Histories,
    app: &App,
    wanted: &Wanted,
    mark: Option<Mark>,
    limit: usize,
) -> Result<(Deliveries, Option<Mark>), Problem> {
    let endpoint = open_endpoint(front, &app.id).await?;
    let (named, cost, page) = (HashMap::new(), PageCost::default(), Deliveries::default());
    let mut search = Search { front, histories, app, wanted, named, endpoint, limit, cost, page };
    let mark = search.run(mark).await?;
    Ok((search.page, mark))
}

/// Lists the deliveries of the app, the newest round first. Changes that were never attempted are listed only
/// on request, for example with `status=pending`.
#[utoipa::path(get, path = "/api/deliveries", tag = "deliveries",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
        ("q" = Option<String>, Query, description = "Only items that match this filter; see \
            docs/filters.md."),
        ("status" = Option<String>, Query,
            description = "Only deliveries in this state: `delivered`, `parked`, `failed`, `pending` or \
                `dropped`. Default: the first three."),
        ("repository_id" = Option<String>, Query, description = "Only changes of this repository \
            (`repo_...`)."),
        ("path" = Option<String>, Query, description = "Only changes of this path."),
        ("path_base64" = Option<String>, Query, description = "Only changes of this path, given as base64 of \
            its raw bytes."),
        ("path_prefix" = Option<String>, Query, description = "Only changes of paths that begin with this \
            text."),
        ("path_glob" = Option<String>, Query, description = "Only changes of paths that match this glob, \
            written as in `include`."),
        ("kind" = Option<String>, Query, description = "Only changes of this operation: `create`, `update` \
            or `delete`."),
        ("id" = Option<String>, Query, description = "Only the delivery with this id."),
        ("from" = Option<String>, Query,
            description = "Only deliveries settled, or last attempted, at this time (RFC 3339) or later."),
        ("to" = Option<String>, Query, description = "Only deliveries settled, or last attempted, before \
            this time (RFC 3339)."),
    ),
    responses((status = 200, body = Deliveries)))]
async fn list(front: Arc<Front>, histories: Arc<Histories>, request: Request) -> Answer {
    let app = request.app()?;
    let mut asked = PageAsked::of(&front, &request, &format!("deliveries of {}", app.id))?;
    let _download = histories.downloads.begin(&app.id)?;
    let mark = asked.mark.take();
    let (mut page, mark) = searched(&front, &histories, app, &asked.wanted, mark, asked.limit).await?;
    page.next_cursor = asked.next_cursor(page.items.is_empty(), mark);
    Ok(json(StatusCode::OK, &page))
}

fn delivery_id(text: &str) -> Result<DeliveryId, Problem> {
    let is_id = text.strip_prefix("dlv_").is_some_and(|rest| {
        rest.len() == 52 && rest.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    });
    let malformed = || Problem::malformed("id must be the id of a delivery: dlv_ and 52 letters and digits");
    is_id.then(|| DeliveryId::from_stored(text.to_owned())).ok_or_else(malformed)
}
