//! Ended rounds as the API reads them: how often, and what it says of removed ones.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tidings_actors::{
    model::round::{Change, DeliveryId, Entry, Letter, RULES, Round, RoundSpec, Summary, TreeEnd},
    model::view::View,
    ports::{
        Administration, Fates, HistoryStore, Location, PastRound, Remote, RoundFacts, RoundFilter,
        RoundPlace, StatusPlace, StatusRow, StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, RepositoryId, Sha256Hash, WatchId},
    kind::{Operation, PayloadFormat, RoundKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use ulid::Ulid;

use super::{
    House,
    git::HEAD,
    house::{ADMIN, Answered, PATIENCE},
};
use crate::identity::WRITTEN_EVERY;

/// The rounds of one cursor.
#[derive(Default)]
struct PastRows {
    rounds: Vec<RoundFacts>,
    /// These are listed still, and gone when they are read.
    went: HashSet<i64>,
    /// The trees of these are gone.
    broken: HashSet<i64>,
    /// This many letters are bound to each round.
    bound: usize,
    places: HashMap<DeliveryId, (CursorId, i64, u64)>,
    /// How often rounds were listed.
    listings: usize,
}

/// What is shown of them, through the port.
#[derive(Default)]
pub(crate) struct Past(Mutex<PastRows>);

impl Past {
    fn rows(&self) -> MutexGuard<'_, PastRows> {
        self.0.lock()
    }
}

#[async_trait]
impl HistoryStore for Past {
    async fn rounds(
        &self,
        _: &AppId,
        filter: &RoundFilter,
        most: u64,
    ) -> Result<Vec<RoundFacts>, StoreError> {
        Ok(self.rows().listed(filter, most))
    }

    async fn rounds_of_all(&self, _: &RoundFilter, _: u64) -> Result<Vec<(AppId, RoundFacts)>, StoreError> {
        Ok(Vec::new())
    }

    async fn past_round(&self, _: &AppId, _: &CursorId, number: i64) -> Result<PastRound, StoreError> {
        self.rows().round(number).ok_or(StoreError::NotFound)
    }

    async fn fates(&self, _: &CursorId, number: i64, _: Range<u64>) -> Result<Fates, StoreError> {
        self.rows().fates(number).ok_or(StoreError::NotFound)
    }

    async fn last_parked(&self, _: &CursorId, _: i64, _: u64) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    async fn delivery(&self, _: &AppId, id: &DeliveryId) -> Result<Option<(CursorId, i64, u64)>, StoreError> {
        Ok(self.rows().places.get(id).cloned())
    }

    async fn statuses(
        &self,
        _: &WatchId,
        _: Option<&StatusPlace>,
        _: u64,
    ) -> Result<Vec<StatusRow>, StoreError> {
        Ok(Vec::new())
    }
}

async fn house() -> (House, Arc<Past>) {
    let past = Arc::default();
    (House::with_past(&past, |_| {}).await, past)
}

impl PastRows {
    fn listed(&mut self, filter: &RoundFilter, most: u64) -> Vec<RoundFacts> {
        self.listings += 1;
        let is_meant = |facts: &&RoundFacts| match &filter.place {
            RoundPlace::Newest => true,
            RoundPlace::Before(number, _) => facts.number < *number,
            RoundPlace::At(number, _) => facts.number <= *number,
            RoundPlace::From(number) => facts.number >= *number,
        };
        let mut found: Vec<_> = self.rounds.iter().filter(is_meant).cloned().collect();
        found.sort_by_key(|facts| facts.number);
        if !matches!(filter.place, RoundPlace::From(_)) {
            found.reverse();
        }
        found.truncate(usize::try_from(most).expect("small"));
        found
    }

    fn kept(&self, number: i64) -> Option<&RoundFacts> {
        self.rounds.iter().find(|facts| facts.number == number && !self.went.contains(&number))
    }

    fn round(&self, number: i64) -> Option<PastRound> {
        let facts = self.kept(number)?;
        let name = if self.broken.contains(&number) { "broken" } else { "r" };
        let url = format!("https://git.example/o/{name}");
        let letter = |number: usize| Letter {
            id: DeadLetterId::new(Ulid::from_parts(1, number as u128)),
            path: format!("letter{number}").into(),
            before: None,
            delivery: DeliveryId::from_stored("dlv_x".into()),
        };
        let target = TreeEnd { commit: ObjectId::new(HEAD), view: View::default() };
        Some(PastRound {
            watch: facts.watch.clone(),
            remote: Remote {
                repository: RepositoryId::new(Ulid::from_parts(1, 1)),
                location: Location::Http(url.parse().expect("an address")),
                credential: None,
                apps: Vec::new(),
            },
            round: Round {
                cursor: facts.cursor.clone(),
                number,
                spec: RoundSpec {
                    kind: facts.kind,
                    held: None,
                    target: Some(target),
                    bases: Vec::new(),
                    letters: (0..self.bound).map(letter).collect(),
                },
                summary: summary(facts.total()),
                rules: RULES,
                began_at: facts.began_at,
                branch: facts.branch.clone(),
                url,
                format: PayloadFormat::Cloudevents,
                history_rewritten: false,
                skipped_commits: false,
                complete: false,
                position: facts.position,
            },
            ended_at: facts.ended_at,
        })
    }

    fn fates(&self, number: i64) -> Option<Fates> {
        let facts = self.kept(number)?;
        let (position, is_open) = (facts.position, facts.ended_at.is_none());
        Some(Fates { position, is_open, ..Fates::default() })
    }
}

/// Of a list of this many creates.
pub(crate) fn summary(creates: u64) -> Summary {
    Summary { deletes: 0, creates, updates: 0, digest: Sha256Hash::of(b"list") }
}

fn cursor() -> CursorId {
    CursorId::new(Ulid::from_parts(1, 0))
}

/// A round of one change, which is settled.
fn facts(number: i64) -> RoundFacts {
    RoundFacts {
        watch: WatchId::new(Ulid::from_parts(1, 0)),
        cursor: cursor(),
        number,
        kind: RoundKind::Sync,
        branch: "refs/heads/main".into(),
        held: None,
        target: Some(ObjectId::new(HEAD)),
        deletes: 0,
        creates: 1,
        updates: 0,
        history_rewritten: false,
        skipped_commits: false,
        complete: false,
        position: 1,
        parked: 0,
        began_at: Timestamp(number),
        ended_at: None,
    }
}

fn ended(number: i64) -> RoundFacts {
    RoundFacts { ended_at: Some(Timestamp(number + 1)), ..facts(number) }
}

/// The id of the one change of a round.
fn delivery(number: i64) -> DeliveryId {
    let new = Some(Entry { mode: 0o100_644, blob: ObjectId::new([b'a'; 20]) });
    let change =
        Change { operation: Operation::Create, path: b"a".to_vec(), old: None, new, replay_of: None };
    DeliveryId::of(&cursor(), number, &change)
}

#[tokio::test]
async fn a_page_lists_rounds_once_and_passes_over_those_that_went_meanwhile() {
    let (house, past) = house().await;
    let token = house.app().await;
    {
        let past = &mut *past.rows();
        past.rounds = (1..=100).map(facts).collect();
        past.went = [95, 68, 1].into();
    }
    let (mut rounds, mut next, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/api/deliveries?limit=100{next}");
        let page = house.call("GET", &path, Some(&token), None).await;
        assert_eq!(page.status, 200, "{page:?}");
        pages += 1;
        let items = page.json()["items"].as_array().expect("items").clone();
        rounds.extend(items.iter().map(|item| item["round"].as_i64().expect("a number")));
        let Some(cursor) = page.json()["next_cursor"].as_str().map(str::to_owned) else { break };
        next = format!("&cursor={cursor}");
    }
    let kept: Vec<i64> = (1..=100).rev().filter(|number| ![95, 68, 1].contains(number)).collect();
    assert_eq!(rounds, kept);
    assert_eq!((pages, past.rows().listings), (4, 4), "32 rounds a page, listed at once");
}

#[tokio::test]
async fn a_delivery_whose_place_is_known_is_read_there_and_nowhere_else() {
    let (house, past) = house().await;
    let token = house.app().await;
    {
        let past = &mut *past.rows();
        past.rounds = (1..=99).map(facts).collect();
        past.rounds[6] = ended(7);
        past.broken = [7].into();
        past.went = [8].into();
        past.places = [3, 7, 8, 200].map(|number| (delivery(number), (cursor(), number, 0))).into();
        past.places.insert(delivery(4), (cursor(), 5, 0));
    }
    for (number, status, code) in [
        (3, 200, None),
        (7, 409, Some("tree-unavailable")),
        (8, 404, Some("delivery-not-found")),
        (200, 404, Some("delivery-not-found")),
        // What stands there is another.
        (4, 404, Some("delivery-not-found")),
    ] {
        let path = format!("/api/deliveries/{}", delivery(number));
        past.rows().listings = 0;
        let shown: Answered = house.call("GET", &path, Some(&token), None).await;
        assert_eq!(shown.status, status, "{number}: {shown:?}");
        let told = code.map(|code| json!(format!("urn:tidings:problem:{code}")));
        assert_eq!(shown.json().get("type").filter(|_| status != 200), told.as_ref(), "{number}");
        assert_eq!(past.rows().listings, 1, "{number}");
    }
}

#[tokio::test]
async fn a_list_is_checked_again_when_other_letters_are_bound_to_it() {
    let (house, past) = house().await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    {
        let past = &mut *past.rows();
        past.rounds = vec![RoundFacts { creates: 3, position: 3, ..ended(5) }];
        past.bound = 2;
    }
    let path = format!("/api/repositories/{id}/changes?round=5&limit=1");
    for (bound, status) in [(2, 200), (2, 200), (1, 409), (2, 200)] {
        past.rows().bound = bound;
        let page = house.call("GET", &path, Some(&token), None).await;
        assert_eq!(page.status, status, "{bound}: {page:?}");
    }
}

/// A tail, after its head.
pub(super) struct Tail(TcpStream, String);

impl Tail {
    pub(super) async fn open(house: &House, token: &str, path: &str) -> Self {
        let mut stream = house.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut tail = Self(stream, String::new());
        let head = tail.until(": tail").await;
        // What was read along with the greeting is still to come.
        tail.1 = head.split_once(": tail").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        tail
    }

    /// All that was said until there.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let reading = async {
            while !self.1.contains(end) {
                let mut some = [0; 4096];
                let count = self.0.read(&mut some).await.expect("more");
                assert!(count > 0, "it ended: {}", self.1);
                self.1.push_str(&String::from_utf8_lossy(&some[..count]));
            }
        };
        timeout(PATIENCE, reading).await.expect("it is told");
        std::mem::take(&mut self.1)
    }
}

/// Waits until rounds were listed so often more.
async fn looked(past: &Past, times: usize) {
    let (before, until) = (past.rows().listings, Instant::now() + PATIENCE);
    while past.rows().listings < before + times {
        assert!(Instant::now() < until, "it looks for news");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_tail_at_the_end_of_a_round_misses_nothing_when_its_history_goes() {
    let (house, past) = house().await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    past.rows().rounds = vec![ended(5)];
    let path = format!("/api/repositories/{id}/events");
    let mut tail = Tail::open(&house, &token, &path).await;
    looked(&past, 2).await;
    past.rows().rounds = vec![facts(9)];
    let told = tail.until("id: 9.0").await;
    assert!(!told.contains("gap"), "{told}");

    // One that was in the middle of it does.
    past.rows().rounds = vec![RoundFacts { creates: 2, ..facts(9) }];
    let mut tail = Tail::open(&house, &token, &format!("{path}?after=9.0")).await;
    looked(&past, 2).await;
    past.rows().rounds = vec![facts(12)];
    let told = tail.until("id: 12.0").await;
    assert!(told.contains("event: gap\ndata: {\"from\":null") && told.contains("\"round\":9"), "{told}");
}

#[tokio::test]
async fn a_tail_goes_on_behind_a_round_of_which_nothing_is_kept() {
    let (house, past) = house().await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    house.plant("update cursor set last_round = 5").await;
    let path = format!("/api/repositories/{id}/events");
    let never = house.call("GET", &format!("{path}?after=6.0"), Some(&token), None).await;
    assert_eq!(never.status, 400, "{never:?}");
    let mut tail = Tail::open(&house, &token, &format!("{path}?after=5.40")).await;
    looked(&past, 2).await;
    past.rows().rounds = vec![facts(9)];
    let told = tail.until("id: 9.0").await;
    assert!(told.contains("\"round\":5"), "what was behind it nobody knows: {told}");
}

#[tokio::test]
async fn tails_of_all_apps_leave_connections_for_others() {
    let house = House::with(|settings| settings.server.connections_max = 7).await;
    let (token, other) = (house.app().await, house.app().await);
    let id = house.repository(&token, "https://github.com/o/r").await;
    let of_other = house.repository(&other, "https://github.com/o/r").await;
    let _tail = Tail::open(&house, &token, &format!("/api/repositories/{id}/events")).await;
    let path = format!("/api/repositories/{of_other}/events");
    let refused = house.call("GET", &path, Some(&other), None).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")), "{refused:?}");
}

#[tokio::test]
async fn a_tail_ends_soon_after_its_token_and_the_staff_takes_no_apps_part() {
    let house = House::open().await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    let app = house.apps().await[0].id.clone();
    let wish = json!({ "name": "a viewer", "role": "viewer" });
    let staff = house.call("POST", "/api/admin/tokens", Some(ADMIN), Some(&wish)).await.json();
    let staff = staff["token"].as_str().expect("a token").to_owned();
    let path = format!("/api/repositories/{id}/events");
    let of_staff = format!("/api/admin/apps/{app}/repositories/{id}/events");
    let mut tails = Vec::new();
    for _ in 0..8 {
        tails.push(Tail::open(&house, &staff, &of_staff).await);
    }
    let refused = house.call("GET", &of_staff, Some(&staff), None).await;
    assert_eq!(refused.status, 429, "one of the staff has so many: {refused:?}");
    tails.push(Tail::open(&house, &token, &path).await);
    house.plant("update access_token set revoked_at = 1").await;
    for mut tail in tails {
        tail.until("0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn an_app_that_does_much_gets_few_rows_of_the_audit_log_and_one_that_counts_the_others() {
    let house = House::with(|settings| {
        settings.server.address_rate = "1000000/s".parse().expect("a rate");
        settings.server.token_rate = "1000000/s".parse().expect("a rate");
    })
    .await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    let scan = format!("/api/repositories/{id}/scan");
    let targets = async || -> Vec<String> {
        let rows = house.sqlite().audit_chain(0, 1_000).await.expect("read");
        let of_scans = rows.iter().filter(|row| row.entry.action == "post_api_repositories_id_scan");
        of_scans.map(|row| row.entry.target.clone()).collect()
    };
    for _ in 0..30 {
        let answered = house.call("POST", &scan, Some(&token), None).await;
        assert!(answered.status < 300, "{answered:?}");
    }
    assert_eq!(targets().await, vec![id.clone(); 10]);
    tokio::time::pause();
    tokio::time::advance(WRITTEN_EVERY).await;
    tokio::time::resume();
    let until = Instant::now() + PATIENCE;
    while targets().await.len() == 10 {
        assert!(Instant::now() < until, "the others are written");
        sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(targets().await[10..], ["times:20"]);
}
