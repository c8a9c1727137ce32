//! How watches stand, and what was given up, as apps and the staff see it through the API.

use serde_json::{Value, json};
use tidings_actors::{
    circuit_breaker::OPENED_BY_HAND,
    model::round::DeliveryId,
    ports::{AttemptRecord, BreakerRow, LaneStore, SourceStore, UpkeepStore},
    time::Timestamp,
};
use tidings_entity::{id::AppId, kind::BreakerKind};

use super::house::{ADMIN, House};

const LATER: Timestamp = Timestamp(4_000_000_000_000);

async fn own(house: &House, token: &str) -> AppId {
    let app = house.call("GET", "/api/app", Some(token), None).await.json();
    app["app_id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
}

fn breaker(kind: BreakerKind, id: &str) -> BreakerRow {
    BreakerRow {
        kind,
        id: id.to_owned(),
        failures: 5,
        opened_at: Some(Timestamp(1)),
        probe_at: Some(LATER),
        last_error: "status 503".into(),
    }
}

#[tokio::test]
async fn a_watch_shows_what_is_in_its_way_to_its_app_and_to_the_staff() {
    let house = House::open().await;
    let token = house.app().await;
    let app = own(&house, &token).await;
    let id = house.held_repository(&token, "https://github.com/o/r").await;
    let shown = async || -> (Value, Value, Value) {
        let one = house.call("GET", &format!("/api/repositories/{id}"), Some(&token), None).await.json();
        let list = house.call("GET", "/api/repositories", Some(&token), None).await.json();
        let all = house.call("GET", "/api/admin/watches", Some(ADMIN), None).await.json();
        (one, list["items"][0].clone(), all["items"][0].clone())
    };
    let state = async || -> String {
        let (one, listed, staffs) = shown().await;
        for (field, other) in [("effective_state", &listed), ("effective_state", &staffs), ("state", &listed)]
        {
            assert_eq!(one[field], other[field], "{field}");
        }
        one["effective_state"].as_str().expect("a word").to_owned()
    };
    assert_eq!(state().await, "active");
    let own = house.watch(&id).await;
    house.begin_round(&own, 7, 3, 9).await;
    for path in [b"a", b"b"] {
        house.park(&app, path).await;
    }
    let attempt = AttemptRecord {
        cursor: own.cursors[0].id.clone(),
        round: 7,
        position: 3,
        number: 2,
        delivery: DeliveryId::from_stored("dlv_x".into()),
        status: Some(500),
        item_failure: true,
        excerpt: "no".into(),
        answer: None,
        took_ms: 1,
        at: Timestamp(1),
        next_at: Some(Timestamp(2)),
    };
    house.sqlite().record_attempt(attempt).await.expect("recorded");
    assert_eq!(state().await, "retrying");
    let (one, _, staffs) = shown().await;
    assert_eq!(one["branches"][0]["next_attempt_at"], "1970-01-01T00:00:00.002Z");
    assert_eq!((&one["dead_letters"], &one["repository"]), (&json!(2), &json!("o/r")));
    assert_eq!((&staffs["waits_for"], &staffs["last_attempt"]["number"]), (&json!("dlv_x"), &json!(2)));
    assert_eq!(staffs["app_id"], json!(app));
    assert!(staffs["app_name"].is_string());

    let failing = breaker(BreakerKind::Endpoint, app.as_str());
    house.sqlite().record_breaker(&failing).await.expect("recorded");
    assert_eq!(state().await, "endpoint_failing");
    let (one, _, _) = shown().await;
    assert_eq!(one["branches"][0]["next_attempt_at"], "2096-10-02T07:06:40.000Z", "with the next probe");
    let of_app = house.call("GET", "/api/app", Some(&token), None).await.json();
    let expected = json!({
        "state": "open", "failures": 5, "probe_at": "2096-10-02T07:06:40.000Z", "last_error": "status 503",
    });
    assert_eq!(of_app["endpoint"], expected);
    let breakers = house.call("GET", "/api/admin/breakers", Some(ADMIN), None).await.json();
    assert_eq!(breakers["items"][0]["app_name"], of_app["app_name"]);

    let refused = Some("the Git host refuses the credential");
    house.sqlite().record_scan_error(&own.source, refused).await.expect("recorded");
    assert_eq!(state().await, "credential_refused");
}

#[tokio::test]
async fn breakers_come_in_pages_and_one_that_closes_keeps_no_other_out() {
    let house = House::open().await;
    for id in ["src_b", "src_a", "src_d", "src_c"] {
        house.sqlite().record_breaker(&breaker(BreakerKind::Source, id)).await.expect("recorded");
    }
    let mut path = "/api/admin/breakers?limit=3".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = house.call("GET", &path, Some(ADMIN), None).await.json();
        let ids = page["items"].as_array().expect("items").iter().map(|one| one["id"].clone());
        pages.push(ids.collect::<Vec<_>>());
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/api/admin/breakers?limit=3&cursor={next}");
        // One that closes between two pages keeps no other out.
        house.plant("delete from breaker where id = 'src_a'").await;
    }
    assert_eq!(pages, [vec![json!("src_a"), json!("src_b"), json!("src_c")], vec![json!("src_d")]]);
}

#[tokio::test]
async fn the_breaker_of_a_subscription_names_the_app_and_the_subscription() {
    let house = House::open().await;
    let token = house.app().await;
    let wanted = json!({ "name": "ops", "sink": { "url": "https://receiver.example/x" } });
    let made = house.call("POST", "/api/subscriptions", Some(&token), Some(&wanted)).await.json();
    let sink = made["sink"]["sink_id"].as_str().unwrap_or_else(|| panic!("{made}"));
    house.sqlite().record_breaker(&breaker(BreakerKind::Endpoint, sink)).await.expect("recorded");
    let listed = house.call("GET", "/api/admin/breakers", Some(ADMIN), None).await.json();
    let app = house.call("GET", "/api/app", Some(&token), None).await.json();
    assert_eq!(listed["items"][0]["app_name"], app["app_name"], "{listed}");
    assert_eq!(listed["items"][0]["subscription"], "ops", "{listed}");
    let id = house.repository(&token, "https://github.com/o/r").await;
    let source = house.watch(&id).await.source;
    house.sqlite().record_breaker(&breaker(BreakerKind::Source, source.as_str())).await.expect("recorded");
    let listed = house.call("GET", "/api/admin/breakers", Some(ADMIN), None).await.json();
    assert_eq!(listed["items"][1]["repository"], "https://github.com/o/r", "{listed}");
}

#[tokio::test]
async fn a_breaker_that_is_open_says_until_when_it_stays_so() {
    let house = House::open().await;
    let token = house.app().await;
    let app = own(&house, &token).await;
    house.sqlite().record_breaker(&breaker(BreakerKind::Endpoint, app.as_str())).await.expect("recorded");
    let again = format!("/api/admin/breakers/endpoint/{app}/open");
    let told = house.call("POST", &again, Some(ADMIN), Some(&json!({ "seconds": 60 }))).await.json();
    let expected = json!({ "kind": "endpoint", "state": "open", "until": "2096-10-02T07:06:40.000Z" });
    assert_eq!(told, expected, "one that is open stays as it is");
}

#[tokio::test]
async fn what_the_staff_does_for_an_app_is_done_by_hand() {
    let house = House::open().await;
    let token = house.app().await;
    let app = own(&house, &token).await;
    house.repository(&token, "https://github.com/o/r").await;
    let watch = house.watches().await[0].id.clone();
    let pause = format!("/api/admin/apps/{app}/repositories/{watch}/pause");
    let paused = house.call("POST", &pause, Some(ADMIN), None).await.json();
    assert_eq!(paused["reason"], "paused by hand");
    let change = json!({ "disabled": true });
    let path = format!("/api/admin/apps/{app}");
    let disabled = house.call("PATCH", &path, Some(ADMIN), Some(&change)).await.json();
    assert_eq!(disabled["disabled"], "disabled by hand");
}

#[tokio::test]
async fn a_skip_with_nothing_to_skip_says_what_is_in_the_way() {
    let house = House::open().await;
    let token = house.app().await;
    house.repository(&token, "https://github.com/o/r").await;
    let watch = house.watches().await[0].clone();
    let cursor = &watch.cursors[0];
    house.sqlite().set_blocked(&cursor.id, Some("its tree cannot be read")).await.expect("blocked");
    let path = format!("/api/repositories/{}/skip", watch.id);
    let refused = house.call("POST", &path, Some(&token), None).await;
    assert_eq!(refused.status, 409);
    let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.ends_with(&format!("{} is blocked: its tree cannot be read", cursor.branch)), "{detail}");
}

#[tokio::test]
async fn dead_letters_are_listed_over_all_apps() {
    let house = House::open().await;
    let (one, other) = (house.app().await, house.app().await);
    let (mine, theirs) = (own(&house, &one).await, own(&house, &other).await);
    for token in [&one, &other] {
        house.repository(token, "https://github.com/o/r").await;
    }
    let first = house.park(&mine, b"docs/a.md").await;
    house.park(&theirs, b"docs/b.md").await;
    house.park(&mine, b"src/x").await;
    let list = "/api/admin/dead-letters";
    let paths = async |query: &str| -> Vec<String> {
        let page = house.call("GET", &format!("{list}?{query}"), Some(ADMIN), None).await.json();
        let items = page["items"].as_array().expect("items").clone();
        items.iter().map(|item| item["path"].as_str().expect("a path").to_owned()).collect()
    };
    assert_eq!(paths("").await, ["src/x", "docs/b.md", "docs/a.md"]);
    assert_eq!(paths("path_prefix=docs/").await, ["docs/b.md", "docs/a.md"]);
    assert_eq!(paths(&format!("app_id={mine}&path_prefix=docs/")).await, ["docs/a.md"]);
    let page = house.call("GET", &format!("{list}?limit=2"), Some(ADMIN), None).await.json();
    assert_eq!(page["items"][1]["app_id"], json!(theirs));
    assert!(page["items"][1]["app_name"].is_string(), "{page}");
    let next = page["next_cursor"].as_str().expect("there is more");
    assert_eq!(paths(&format!("limit=2&cursor={next}")).await, ["docs/a.md"]);
    let dismiss = format!("/api/admin/apps/{mine}/dead-letters/{first}/dismiss");
    assert_eq!(house.call("POST", &dismiss, Some(ADMIN), None).await.status, 200, "the staff may");
    assert_eq!(paths("status=open").await, ["src/x", "docs/b.md"]);
    assert_eq!(paths("status=dismissed").await, ["docs/a.md"]);
    for wrong in ["app_id=x", "status=lost", "path=a&path_prefix=b", "app=1"] {
        let answered = house.call("GET", &format!("{list}?{wrong}"), Some(ADMIN), None).await;
        assert_eq!(answered.status, 400, "{wrong}");
    }
    assert_eq!(house.call("GET", list, Some(&one), None).await.status, 401, "apps see their own");
}

#[tokio::test]
async fn a_source_that_an_operator_keeps_from_being_asked_is_asked_by_nobody() {
    let house = House::open().await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    let watch = house.watch(&id).await;
    let by_app = format!("/api/repositories/{id}/scan");
    let by_staff = format!("/api/admin/repositories/{}/scan", watch.repository);
    let both = async || {
        let app = house.call("POST", &by_app, Some(&token), None).await;
        [app, house.call("POST", &by_staff, Some(ADMIN), None).await]
    };
    assert_eq!(both().await.map(|answered| answered.status), [202, 202]);
    let of_itself = breaker(BreakerKind::Source, watch.source.as_str());
    house.sqlite().record_breaker(&of_itself).await.expect("recorded");
    assert_eq!(both().await.map(|answered| answered.status), [202, 202], "it is asked as a probe");
    let by_hand = BreakerRow { last_error: OPENED_BY_HAND.into(), ..of_itself };
    house.sqlite().record_breaker(&by_hand).await.expect("recorded");
    for answered in both().await {
        assert_eq!(answered.status, 409, "{answered:?}");
        assert!(answered.body.contains("tidings admin breaker reset"), "{answered:?}");
    }
}
