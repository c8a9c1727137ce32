//! Registering apps, and what the administrator does with them.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{House, house::ADMIN};

fn onboarding() -> Value {
    json!({
        "app_name": "an app",
        "email": "a@b.c",
        "base_url": "https://app.example/hook",
        "client_auth_key": "sixteen letters!",
        "description": "",
    })
}

#[tokio::test]
async fn an_app_gets_its_token_and_the_standard_form_of_its_key() {
    let house = House::open().await;
    let answered = house.call("POST", "/api/apps/onboard", None, Some(&onboarding())).await;
    let app = answered.json();
    assert_eq!(answered.status, 201, "{answered:?}");
    assert!(app["app_id"].as_str().is_some_and(|id| id.starts_with("app_")));
    assert_eq!(app["signing_secret"], format!("whsec_{}", BASE64.encode(b"sixteen letters!")));
    let names: Vec<_> = app.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names, ["app_id", "created_at", "signing_secret", "token"]);
    let token = app["token"].as_str().expect("a token");
    let own = house.call("GET", "/api/app", Some(token), None).await.json();
    assert_eq!((&own["app_id"], &own["base_url"]), (&app["app_id"], &json!("https://app.example/hook")));
    assert!(!own.to_string().contains("sixteen"), "a key is never shown again");
}

#[tokio::test]
async fn a_key_is_made_for_an_app_that_brings_none() {
    let house = House::open().await;
    let mut body = onboarding();
    body.as_object_mut().expect("an object").remove("client_auth_key");
    let one = house.call("POST", "/api/apps/onboard", None, Some(&body)).await.json();
    let other = house.call("POST", "/api/apps/onboard", None, Some(&body)).await.json();
    let secret = one["signing_secret"].as_str().expect("a secret");
    assert!(secret.strip_prefix("whsec_").is_some_and(|text| text.len() >= 32), "{secret}");
    assert_ne!(one["signing_secret"], other["signing_secret"]);
}

#[tokio::test]
async fn an_app_changes_itself_and_a_new_key_is_shown_once() {
    let house = House::open().await;
    let (token, other) = (house.app().await, house.app().await);
    let change = async |body: Value| house.call("PATCH", "/api/app", Some(&token), Some(&body)).await;
    let moved =
        json!({ "base_url": "https://new.example/in", "delivery": { "synced": true }, "disabled": true });
    let shown = change(moved).await.json();
    assert_eq!(
        (&shown["base_url"], &shown["disabled"]),
        (&json!("https://new.example/in"), &json!("disabled by the app"))
    );
    let shown = change(json!({ "delivery": { "max_in_flight": 3 }, "disabled": false })).await.json();
    assert_eq!(
        (&shown["delivery"]["synced"], &shown["delivery"]["max_in_flight"]),
        (&json!(true), &json!(3))
    );
    assert_eq!((&shown["disabled"], &shown["signing_secret"]), (&json!(null), &json!(null)));
    let made = change(json!({ "rotate_signing_key": true })).await.json();
    let secret = made["signing_secret"].as_str().expect("a made key is shown");
    assert!(secret.starts_with("whsec_"), "{secret}");
    let given =
        json!({ "rotate_signing_key": true, "client_auth_key": "sixteen letters?", "overlap_seconds": 0 });
    assert_eq!(change(given).await.json()["signing_secret"], json!(null), "who brings a key knows it");
    let untouched = house.call("GET", "/api/app", Some(&other), None).await.json();
    assert_eq!(untouched["delivery"]["synced"], json!(false));
    for (body, field) in [
        (json!({ "base_url": "http://app.example" }), "/base_url"),
        (json!({ "base_url": 5 }), "/base_url"),
        (json!({ "delivery": { "batch": { "count": 1 } } }), "/delivery/batch/count"),
        (json!({ "delivery": { "batch": { "bytes": 9_000_000 } } }), "/delivery/batch/bytes"),
        (json!({ "delivery": { "batch": { "linger_ms": 10_001 } } }), "/delivery/batch/linger_ms"),
        (json!({ "delivery": { "batch": { "changes": 5 } } }), "/delivery/batch"),
        (json!({ "delivery": { "batch": true } }), "/delivery/batch"),
        (json!({ "delivery": { "format": "xml" } }), "/delivery/format"),
        (json!({ "delivery": { "retry_cap_ms": 0 } }), "/delivery/retry_cap_ms"),
        (json!({ "delivery": { "max_in_flight": 0 } }), "/delivery/max_in_flight"),
        (json!({ "delivery": { "nope": 1 } }), "/delivery/nope"),
        (json!({ "client_auth_key": "sixteen letters?" }), "/rotate_signing_key"),
        (json!({ "rotate_signing_key": true, "client_auth_key": "short" }), "/client_auth_key"),
        (json!({ "rotate_signing_key": true, "overlap_seconds": 2_592_001 }), "/overlap_seconds"),
        (json!({ "app_name": "x" }), "/app_name"),
    ] {
        let refused = change(body.clone()).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!(field)), "{body}");
    }
    assert_eq!(house.call("DELETE", "/api/app", Some(&token), None).await.status, 204);
    assert_eq!(house.call("GET", "/api/app", Some(&token), None).await.status, 401);
    assert_eq!(house.call("GET", "/api/app", Some(&other), None).await.status, 200);
}

#[tokio::test]
async fn every_field_of_an_onboarding_is_checked() {
    const NO_RECEIVER: &str =
        "must be a web address (https://HOST/PATH), or nats://HOST/SUBJECT for a stream";
    let house = House::open().await;
    for (field, value, detail) in [
        ("app_name", json!("ab"), "must have 3 to 100 characters"),
        ("app_name", json!(7), "must be a text"),
        ("app_name", json!("a\u{0}b"), "must not hold control characters"),
        ("email", json!("nobody"), "must be an email address"),
        ("email", json!("a b@c"), "must be an email address"),
        ("email", json!(null), "is required"),
        (
            "base_url",
            json!("http://app.example"),
            "plain http is refused: egress.allow_http is not set (set it to true to allow plain http)",
        ),
        (
            "base_url",
            json!("https://app.example:22"),
            "port 22 is never reached: only 80, 443 and those from 1024 on are",
        ),
        ("base_url", json!("ftp://app.example"), NO_RECEIVER),
        ("base_url", json!("app.example"), NO_RECEIVER),
        ("base_url", json!("https://user:pw@app.example"), "must not hold a user or a password"),
        (
            "base_url",
            json!("https://app.example/?x"),
            "must not hold a query or a fragment, because a path is appended to it",
        ),
        (
            "base_url",
            json!("https://127.0.0.1/"),
            "127.0.0.1 is a private address and egress.allow does not list it (add 127.0.0.0/8 to allow it)",
        ),
        (
            "base_url",
            json!("https://0x7f.1/"),
            "127.0.0.1 is a private address and egress.allow does not list it (add 127.0.0.0/8 to allow it)",
        ),
        (
            "base_url",
            json!("https://[::ffff:10.0.0.1]/"),
            "10.0.0.1 is a private address and egress.allow does not list it (add 10.0.0.1 to allow it)",
        ),
        (
            "base_url",
            json!("https://169.254.169.254/"),
            "169.254.169.254 is a link-local or metadata address and egress.allow does not list it (add 169.254.169.254 to allow it)",
        ),
        ("website", json!("javascript:alert(1)"), "must be a web address (https://HOST/PATH)"),
        ("description", json!("x".repeat(501)), "must have 0 to 500 characters"),
        ("client_auth_key", json!("short"), "must have 16 to 500 characters"),
    ] {
        let mut body = onboarding();
        body[field] = value.clone();
        let answered = house.call("POST", "/api/apps/onboard", None, Some(&body)).await;
        let problem = answered.problem();
        assert_eq!(answered.status, 422, "{field} {value}: {answered:?}");
        let errors = json!([{ "pointer": format!("/{field}"), "detail": detail }]);
        assert_eq!(problem["errors"], errors, "{value}");
        let error = match detail {
            detail if detail.contains("egress.allow_http") => "URL must use HTTPS".to_owned(),
            detail if detail.contains("egress.allow ") => "Private IP addresses are not allowed".to_owned(),
            detail if detail.starts_with("port") => format!("{field}: {detail}"),
            detail => format!("{field} {detail}"),
        };
        assert_eq!(problem["error"], error, "clients of Docora read the reason there");
    }
    assert!(house.apps().await.is_empty(), "nothing was registered");
}

#[tokio::test]
async fn unknown_fields_are_passed_over_only_for_those_who_know_docora_alone() {
    let house = House::open().await;
    let mut body = onboarding();
    body["extra"] = json!(1);
    assert_eq!(house.call("POST", "/api/apps/onboard", None, Some(&body)).await.status, 201);
    body["delivery"] = json!({ "order": "phased", "max_in_flight": 4, "multi_branch": true });
    let answered = house.call("POST", "/api/apps/onboard", None, Some(&body)).await;
    assert_eq!(
        answered.problem()["errors"][0],
        json!({ "pointer": "/extra", "detail": "there is no such field" })
    );
    body.as_object_mut().expect("an object").remove("extra");
    // Passed over, this would make an app that nobody delivers to.
    let mut misspelt = onboarding();
    misspelt["base_urll"] =
        misspelt.as_object_mut().expect("an object").remove("base_url").expect("an address");
    let answered = house.call("POST", "/api/apps/onboard", None, Some(&misspelt)).await;
    assert_eq!(
        answered.problem()["errors"][0],
        json!({ "pointer": "/base_urll", "detail": "there is no such field; did you mean base_url?" })
    );
    assert_eq!(house.call("POST", "/api/apps/onboard", None, Some(&body)).await.status, 201);
    for delivery in [
        json!({ "max_in_flight": 0 }),
        json!({ "orders": "strict" }),
        json!({ "retry_base_ms": -1 }),
        json!([]),
    ] {
        body["delivery"] = delivery;
        assert_eq!(house.call("POST", "/api/apps/onboard", None, Some(&body)).await.status, 422, "{body}");
    }
}

#[tokio::test]
async fn the_administrator_lists_shows_and_erases_apps() {
    let house = House::open().await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(house.app().await);
    }
    let mut seen = Vec::new();
    let mut path = "/api/admin/apps?limit=2".to_owned();
    loop {
        let page = house.call("GET", &path, Some(ADMIN), None).await.json();
        seen.extend(page["items"].as_array().expect("items").iter().map(|app| app["app_id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/api/admin/apps?limit=2&cursor={next}");
    }
    assert_eq!(seen.len(), 3);
    let one = format!("/api/admin/apps/{}", seen[0].as_str().expect("an id"));
    assert_eq!(house.call("GET", &one, Some(ADMIN), None).await.json()["app_id"], seen[0]);
    assert_eq!(house.call("DELETE", &one, Some(ADMIN), None).await.status, 204);
    for method in ["GET", "DELETE"] {
        let answered = house.call(method, &one, Some(ADMIN), None).await;
        assert_eq!(answered.problem()["type"], "urn:tidings:problem:app-not-found");
    }
    let mut still = 0;
    for token in &tokens {
        still += usize::from(house.call("GET", "/api/app", Some(token), None).await.status == 200);
    }
    assert_eq!(still, 2);
}

#[tokio::test]
async fn what_an_app_says_of_itself_is_shown() {
    let house = House::open().await;
    let body = json!({
        "app_name": "docs", "email": "a@b.c", "website": "https://docs.example", "description": "our pages",
    });
    let made = house.call("POST", "/api/apps/onboard", None, Some(&body)).await.json();
    let app = house.call("GET", "/api/app", made["token"].as_str(), None).await.json();
    assert_eq!((&app["website"], &app["description"]), (&body["website"], &body["description"]));
}
