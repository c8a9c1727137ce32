//! What all routes share: finding them, knowing callers, headers, problems.

use serde_json::{Value, json};
use tidings_entity::id::Sha256Hash;

use super::{super::document::document, House, house::ADMIN, sqlite};
use crate::{
    http::{
        door::{
            auth::{TOKEN_OF_APP, TOKEN_OF_STAFF},
            route::Route,
        },
        table,
    },
    machine::MachineRandom,
    secrets::Token,
    settings::OnboardingMode,
};

#[tokio::test]
async fn every_documented_route_is_served_and_every_served_route_is_documented() {
    let house = House::open().await;
    let document = serde_json::to_value(document(table())).expect("JSON");
    let mut documented = 0;
    for (template, methods) in document["paths"].as_object().expect("paths") {
        let path = template.replace("{id}", "x");
        for method in methods.as_object().expect("methods").keys() {
            documented += 1;
            let answered = house.call(&method.to_uppercase(), &path, None, None).await;
            let problem = answered.json()["type"].as_str().unwrap_or_default().to_owned();
            assert!(
                !problem.ends_with("no-route") && answered.status != 405,
                "{method} {template}: {answered:?}"
            );
        }
        let answered = house.call("TRACE", &path, None, None).await;
        assert_eq!(answered.status, 405, "{template}");
    }
    assert_eq!(documented, table().len());
}

#[test]
fn every_schema_that_the_document_names_is_in_it() {
    let document = serde_json::to_value(document(table())).expect("JSON");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let ids: Vec<&str> =
        text.split("\"operationId\":\"").skip(1).filter_map(|id| id.split('"').next()).collect();
    let operations = table().len() + document["webhooks"].as_object().expect("webhooks").len();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), operations, "{ids:?}");
    insta::assert_json_snapshot!("openapi", document);
}

#[test]
fn every_post_but_those_of_hooks_and_workers_takes_an_idempotency_key() {
    let routes = table();
    let of_workers = |method: &str, template: &str| {
        let is_it =
            |route: &&Route| route.template == template && route.method.as_str().eq_ignore_ascii_case(method);
        routes.iter().find(is_it).is_some_and(|route| route.of_workers.is_some())
    };
    let document = serde_json::to_value(document(table())).expect("JSON");
    for (template, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let takes = parameters.iter().any(|parameter| parameter["name"] == "idempotency-key");
            let may = !template.starts_with("/hooks/") && !of_workers(method, template);
            assert_eq!(takes, method == "post" && may, "{method} {template}");
        }
    }
}

#[tokio::test]
async fn who_has_no_token_learns_nothing_and_who_has_one_gets_404() {
    let house = House::open().await;
    let token = house.app().await;
    for path in ["/nope", "/api/repositories/", "/health/", "/api//repositories", "/%68ealth"] {
        assert_eq!(house.call("GET", path, None, None).await.status, 401, "{path}");
        let answered = house.call("GET", path, Some(&token), None).await;
        assert_eq!(answered.problem()["type"], "urn:tidings:problem:no-route", "{path}");
        let staff = house.call("GET", path, Some(ADMIN), None).await;
        assert_eq!(staff.problem()["type"], "urn:tidings:problem:no-route", "{path}");
    }
    let answered = house.call("PUT", "/api/repositories", Some(&token), None).await;
    assert_eq!((answered.status, answered.header("allow")), (405, Some("GET, HEAD, POST")));
}

#[tokio::test]
async fn a_request_keeps_the_id_that_its_caller_gave_it() {
    let house = House::open().await;
    for (given, is_kept) in [
        ("7c1f0c3a-8f0e-4a36-9a55-0c1f", true),
        ("trace=1:abc/def", true),
        ("7", true),
        ("", false),
        ("has a space in it", false),
        (&*"x".repeat(129), false),
    ] {
        let head =
            format!("GET /api/app HTTP/1.1\r\nhost: x\r\nx-request-id: {given}\r\nconnection: close\r\n\r\n");
        let answered = house.send(head.as_bytes()).await;
        assert_eq!(answered.header("x-request-id") == Some(given), is_kept, "{given}");
        assert_eq!(answered.json()["request_id"].as_str(), answered.header("x-request-id"), "{given}");
    }
}

#[tokio::test]
async fn tokens_are_told_apart() {
    let house = House::with(|settings| settings.onboarding.mode = OnboardingMode::Admin).await;
    let body = serde_json::json!({ "app_name": "an app", "email": "a@b.c" });
    for token in [None, Some("wrong")] {
        let answered = house.call("POST", "/api/apps/onboard", token, Some(&body)).await;
        assert_eq!(answered.problem()["type"], "urn:tidings:problem:admin-required");
    }
    let answered = house.call("POST", "/api/apps/onboard", Some(ADMIN), Some(&body)).await;
    assert_eq!(answered.status, 201, "{answered:?}");
    let token = answered.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(house.call("GET", "/api/app", Some(&token), None).await.status, 200);
    let of_app = house.call("GET", "/api/admin/overview", Some(&token), None).await;
    assert_eq!(of_app.status, 401);
    assert_eq!(of_app.problem()["detail"], TOKEN_OF_APP);
    let of_staff = house.call("GET", "/api/app", Some(ADMIN), None).await;
    assert_eq!((of_staff.status, &of_staff.problem()["detail"]), (401, &json!(TOKEN_OF_STAFF)));
    for path in ["/api/app", "/api/admin/overview"] {
        let dead = house.call("GET", path, Some("wrong"), None).await;
        let detail = dead.problem()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.ends_with("mistyped, revoked or expired"), "{path}: {detail}");
    }
    assert_eq!(house.call("GET", "/api/app", Some(ADMIN), None).await.status, 401);
    for path in ["/api/admin/overview", "/api/admin/tree", "/api/admin/apps", "/api/admin/mirrors"] {
        assert_eq!(house.call("GET", path, Some(ADMIN), None).await.status, 200, "{path}");
        assert_eq!(house.call("GET", path, None, None).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn what_mirrors_take_is_shown_together_and_one_by_one() {
    let house = House::open().await;
    let overview = house.call("GET", "/api/admin/overview", Some(ADMIN), None).await.json();
    let storage = serde_json::json!({
        "mirrors": 2, "mirror_bytes": 30, "free_bytes": 1_000, "fetches_stopped": null,
    });
    assert_eq!((&overview["storage"], &overview["apps"]), (&storage, &serde_json::json!(0)));
    let hosts = overview["hosts"].as_array().expect("hosts");
    let patience = hosts[0]["patience_ms"].as_u64().expect("a number");
    assert!((3_500_000..=3_600_000).contains(&patience), "{patience}");
    let rest = serde_json::json!([{
        "host": "busy.example", "waiting": 0, "scanning": 0, "waited_ms": 0, "patience_ms": patience, "silent": false,
    }]);
    assert_eq!(overview["hosts"], rest, "the hosts where polls wait");
    let shown = |answered: serde_json::Value| -> Vec<u64> {
        answered["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|mirror| mirror["bytes"].as_u64())
            .collect()
    };
    let all = house.call("GET", "/api/admin/mirrors", Some(ADMIN), None).await.json();
    assert_eq!(shown(all), [20, 10], "the largest first");
    let one = house.call("GET", "/api/admin/mirrors?limit=1", Some(ADMIN), None).await.json();
    let next = one["next_cursor"].as_str().expect("one more").to_owned();
    assert_eq!(shown(one), [20]);
    let path = format!("/api/admin/mirrors?limit=1&cursor={next}");
    let other = house.call("GET", &path, Some(ADMIN), None).await.json();
    assert!(other["next_cursor"].is_null(), "{other}");
    assert_eq!(shown(other), [10]);
    let foreign = house.call("GET", &format!("/api/admin/lag?cursor={next}"), Some(ADMIN), None).await;
    assert_eq!(foreign.status, 400, "a cursor is good for its own list");
    let replicas = house.call("GET", "/api/admin/replicas", Some(ADMIN), None).await.json();
    assert_eq!(replicas["items"].as_array().map(Vec::len), Some(1), "{replicas}");
    assert_eq!(house.call("GET", "/api/admin/mirrors?limit=0", Some(ADMIN), None).await.status, 400);
}

#[tokio::test]
async fn a_token_that_is_almost_right_is_refused_like_any_other() {
    let house = House::open().await;
    let token = house.app().await;
    let stranger = Token::generate("tdg", &MachineRandom);
    let stranger = stranger.text().expose();
    for wrong in [stranger, &token[1..], &format!("{token}x"), "tdg_", "é", &"x".repeat(9000)] {
        let answered = house.call("GET", "/api/app", Some(wrong), None).await;
        assert!(matches!(answered.status, 401 | 431), "{answered:?}");
        assert!(!answered.body.contains(&token[13..]), "no part of a token is echoed");
    }
    let header =
        |value: &str| format!("GET /api/app HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{value}\r\n\r\n");
    for (value, status) in [
        (format!("authorization: bearer {token}"), 200),
        (format!("authorization: BEARER {token}"), 200),
        (format!("authorization: bearer{token}"), 401),
        (format!("authorization: Bearers {token}"), 401),
        (format!("authorization: Basic {token}"), 401),
        (format!("authorization: Bearer  {token}"), 401),
        ("authorization: Bearer ".to_owned(), 401),
        (format!("authorization: Bearer {token}\r\nauthorization: Bearer {token}"), 400),
        (format!("Authorization: Bearer {token}"), 200),
    ] {
        assert_eq!(house.send(header(&value).as_bytes()).await.status, status, "{value}");
    }
}

#[tokio::test]
async fn the_public_part_of_a_token_alone_opens_nothing() {
    let house = House::open().await;
    let token = house.app().await;
    assert_eq!(house.call("GET", "/api/app", Some(&token), None).await.status, 200);
    // The row with this public part now belongs to another token.
    let hash = Sha256Hash::of(b"another token");
    house.sqlite().tamper(&format!("update access_token set hash = '{hash}'")).await;
    assert_eq!(house.call("GET", "/api/app", Some(&token), None).await.status, 401);
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect_it() {
    let house = House::open().await;
    for path in ["/health", "/nope", "/api/app"] {
        let answered = house.call("GET", path, None, None).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answered.header(name), Some(value), "{path}");
        }
        assert!(answered.header("server").is_none());
    }
    let answered = house.call("GET", "/api/app", None, None).await;
    assert_eq!(answered.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let house = House::open().await;
    let get = house.call("GET", "/version", None, None).await;
    let head = house.call("HEAD", "/version", None, None).await;
    assert_eq!((get.status, head.status, head.body.as_str()), (200, 200, ""));
    assert_eq!(get.header("content-length"), head.header("content-length"));
    for field in ["version", "buildNumber", "gitSha", "buildDate"] {
        assert!(get.json()[field].is_string(), "{field}");
    }
}

#[tokio::test]
async fn a_panic_costs_one_answer() {
    let house = House::open().await;
    let token = house.app().await;
    let body = json!({ "url": "https://github.com/o/panics" });
    let answered = house.call("POST", "/api/repositories", Some(&token), Some(&body)).await;
    assert_eq!(answered.problem()["type"], "urn:tidings:problem:internal");
    assert!(!answered.body.contains("planted"));
    assert_eq!(house.call("GET", "/readyz", None, None).await.status, 200);
}

#[tokio::test]
async fn without_a_database_the_server_lives_but_is_not_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let house = sqlite::house(folder.path()).await;
    let token = house.app().await;
    house.sqlite().close().await;
    for (path, status) in
        [("/livez", 200), ("/health", 200), ("/version", 200), ("/readyz", 503), ("/api/app", 503)]
    {
        let answered = house.call("GET", path, Some(&token), None).await;
        assert_eq!(answered.status, status, "{path}");
        assert!(!answered.body.contains("closed"), "{answered:?}");
        assert_eq!(answered.header("retry-after").is_some(), status == 503);
    }
    drop(house);
    let house = sqlite::house(folder.path()).await;
    assert_eq!(house.call("GET", "/readyz", None, None).await.status, 200);
    house.lifecycle.drain();
    assert_eq!(house.call("GET", "/readyz", None, None).await.status, 503);
}

#[tokio::test]
async fn problems_look_as_they_always_did() {
    let house = House::open().await;
    let token = house.app().await;
    let mut shown = Vec::new();
    for (method, path, token, body) in [
        ("GET", "/api/app", None, None),
        ("GET", "/nope", Some(&token), None),
        ("PUT", "/health", None, None),
        ("GET", "/api/repositories?limit=0", Some(&token), None),
        ("DELETE", "/api/repositories/repo_00000000000000000000000000", Some(&token), None),
        (
            "POST",
            "/api/repositories",
            Some(&token),
            Some(serde_json::json!({ "url": 1, "mode": "some", "nope": 1 })),
        ),
        (
            "POST",
            "/api/repositories",
            Some(&token),
            Some(serde_json::json!({ "url": "https://x.example/o/missing" })),
        ),
        (
            "POST",
            "/api/repositories",
            Some(&token),
            Some(serde_json::json!({ "url": "https://x.example/o/down" })),
        ),
    ] {
        shown.push(house.call(method, path, token.map(String::as_str), body.as_ref()).await.problem());
    }
    insta::assert_json_snapshot!("problems", shown);
}

#[test]
fn a_registration_requires_no_delivery_settings() {
    let document = serde_json::to_value(document(table())).expect("JSON");
    for (name, required) in [("Onboarding", json!(["app_name", "email"])), ("AppChange", Value::Null)] {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["required"], required, "{name}");
        let delivery = schema["properties"]["delivery"].to_string();
        assert!(delivery.contains("/DeliverySettingsRequest"), "{name}: {delivery}");
    }
    assert_eq!(document["servers"][0]["url"], "/");
}

#[test]
fn every_request_to_an_app_is_documented() {
    use tidings_actors::ports::Action;

    let document = serde_json::to_value(document(table())).expect("JSON");
    let webhooks = document["webhooks"].as_object().expect("webhooks");
    let actions = [
        Action::Create,
        Action::Update,
        Action::Delete,
        Action::Batch,
        Action::Resync,
        Action::Synced,
        Action::SyncFailed,
        Action::SyncRecovered,
        Action::Test,
    ];
    for action in actions {
        let body = &webhooks[action.as_str()]["post"]["requestBody"]["content"];
        assert!(body["application/json"].is_object(), "{}", action.as_str());
    }
    let to_addresses = ["subscription_message", "work_available"];
    for name in to_addresses {
        let body = &webhooks[name]["post"]["requestBody"]["content"];
        assert!(body["application/json"].is_object(), "{name}");
    }
    assert_eq!(webhooks.len(), actions.len() + to_addresses.len());
}
