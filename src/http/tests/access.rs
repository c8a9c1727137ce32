//! What an app wants in requests to its endpoint: which fields there are, and what is refused.

use serde_json::{Value, json};

use super::House;

#[tokio::test]
async fn every_field_of_what_goes_with_requests_is_checked_and_never_repeated() {
    let house = House::open().await;
    let token = house.app().await;
    let oauth = |field: &str, value: Value| {
        let mut client =
            json!({ "token_url": "https://tokens.example/t", "client_id": "i", "client_secret": "s" });
        client[field] = value;
        json!({ "endpoint_auth": { "oauth2": client } })
    };
    let headers = |headers: Value| json!({ "delivery": { "headers": headers } });
    let many: serde_json::Map<String, Value> =
        (0..17).map(|number| (format!("x-{number}"), json!("v"))).collect();
    let auth = |auth: Value| json!({ "endpoint_auth": auth });
    for (body, pointer) in [
        (headers(json!("SECRET")), "/delivery/headers"),
        (headers(json!(["SECRET"])), "/delivery/headers"),
        (headers(json!({ "x-a": 5 })), "/delivery/headers/x-a"),
        (headers(json!({ "x-a": "" })), "/delivery/headers/x-a"),
        (headers(json!({ "x-a": " SECRET" })), "/delivery/headers/x-a"),
        (headers(json!({ "x-a": "SECRET\r\nx-b: 1" })), "/delivery/headers/x-a"),
        (headers(json!({ "x-a": "SECRET\u{e4}" })), "/delivery/headers/x-a"),
        (headers(json!({ "x a": "SECRET" })), "/delivery/headers/x a"),
        (headers(json!({ "x/a": "SECRET" })), "/delivery/headers/x~1a"),
        (headers(json!({ "x-a": "1", "X-A": "SECRET" })), "/delivery/headers"),
        (headers(json!(many)), "/delivery/headers"),
        (headers(json!({ "x-a": "v".repeat(8_200) })), "/delivery/headers"),
        (auth(json!("SECRET")), "/endpoint_auth"),
        (auth(json!({})), "/endpoint_auth"),
        (auth(json!({ "digest": { "password": "SECRET" } })), "/endpoint_auth"),
        (auth(json!({ "bearer": { "token": "t" }, "basic": {} })), "/endpoint_auth"),
        (auth(json!({ "bearer": "SECRET" })), "/endpoint_auth"),
        (auth(json!({ "bearer": {} })), "/endpoint_auth/bearer/token"),
        (auth(json!({ "bearer": { "token": "two SECRETs" } })), "/endpoint_auth/bearer/token"),
        (auth(json!({ "bearer": { "token": ["SECRET"] } })), "/endpoint_auth/bearer/token"),
        (auth(json!({ "bearer": { "token": "t", "more": "SECRET" } })), "/endpoint_auth/bearer/more"),
        (auth(json!({ "basic": { "username": "a:b", "password": "p" } })), "/endpoint_auth/basic/username"),
        (auth(json!({ "basic": { "username": "a" } })), "/endpoint_auth/basic/password"),
        (
            auth(json!({ "basic": { "username": "a", "password": "SECRET\n" } })),
            "/endpoint_auth/basic/password",
        ),
        (oauth("token_url", json!("http://tokens.example/t")), "/endpoint_auth/oauth2/token_url"),
        (oauth("token_url", json!("https://10.0.0.1/t")), "/endpoint_auth/oauth2/token_url"),
        (oauth("token_url", json!("https://u:SECRET@tokens.example/")), "/endpoint_auth/oauth2/token_url"),
        (oauth("token_url", json!("SECRET")), "/endpoint_auth/oauth2/token_url"),
        (oauth("client_id", json!("")), "/endpoint_auth/oauth2/client_id"),
        (oauth("client_secret", json!({ "SECRET": 1 })), "/endpoint_auth/oauth2/client_secret"),
        (oauth("scope", json!(["SECRET"])), "/endpoint_auth/oauth2/scope"),
        (oauth("audience", json!("a\u{0}b")), "/endpoint_auth/oauth2/audience"),
        (oauth("grant", json!("SECRET")), "/endpoint_auth/oauth2/grant"),
        (
            json!({ "delivery": { "headers": { "Authorization": "SECRET" } }, "endpoint_auth": { "bearer": { "token": "t" } } }),
            "/endpoint_auth",
        ),
    ] {
        let refused = house.call("PATCH", "/api/app", Some(&token), Some(&body)).await;
        let problem = refused.json();
        assert_eq!(
            (refused.status, &problem["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{body} {problem}"
        );
        assert!(!refused.body.contains("SECRET"), "{problem}");
    }
    let shown = house.call("GET", "/api/app", Some(&token), None).await.json();
    assert_eq!(shown["endpoint_headers"], json!([]), "nothing was changed");
}

#[tokio::test]
async fn header_fields_that_are_ours_or_frame_a_request_are_refused_in_any_case() {
    let house = House::open().await;
    let token = house.app().await;
    for name in [
        "Host",
        "content-length",
        "Content-Type",
        "content-encoding",
        "USER-AGENT",
        "traceparent",
        "Expect",
        "connection",
        "keep-alive",
        "Proxy-Connection",
        "proxy-authenticate",
        "proxy-authorization",
        "TE",
        "trailer",
        "Transfer-Encoding",
        "upgrade",
        "webhook-id",
        "Webhook-Signature",
        "webhook-anything",
        "X-Docora-App-Id",
        "x-docora-signature",
    ] {
        let body = json!({ "delivery": { "headers": { name: "v" } } });
        let refused = house.call("PATCH", "/api/app", Some(&token), Some(&body)).await;
        assert_eq!(refused.status, 422, "{name}");
    }
    let body =
        json!({ "delivery": { "headers": { "Authorization": "Custom v", "X-Host": "v", "Cookie": "a=b" } } });
    let taken = house.call("PATCH", "/api/app", Some(&token), Some(&body)).await;
    assert_eq!(taken.json()["endpoint_headers"], json!(["authorization", "cookie", "x-host"]));
    let body = json!({ "endpoint_auth": { "bearer": { "token": "t" } } });
    let both = house.call("PATCH", "/api/app", Some(&token), Some(&body)).await;
    assert_eq!(both.status, 422, "authorization is taken already");
}

#[tokio::test]
async fn an_app_brings_its_credentials_along_when_it_registers() {
    let house = House::open().await;
    let mut body = json!({
        "app_name": "an app", "email": "a@b.c", "base_url": "https://app.example",
        "delivery": { "synced": true, "headers": { "X-Key": "v" } },
        "endpoint_auth": { "oauth2": {
            "token_url": "https://tokens.example/t?x=1", "client_id": "i", "client_secret": "s", "scope": "a b",
        } },
    });
    let onboarded = house.call("POST", "/api/apps/onboard", None, Some(&body)).await;
    assert_eq!(onboarded.status, 201, "{onboarded:?}");
    let token = onboarded.json()["token"].as_str().expect("a token").to_owned();
    let shown = house.call("GET", "/api/app", Some(&token), None).await.json();
    assert_eq!((&shown["endpoint_headers"], &shown["delivery"]["synced"]), (&json!(["x-key"]), &json!(true)));
    assert_eq!(
        shown["endpoint_auth"],
        json!({ "oauth2": {
            "token_url": "https://tokens.example/t?x=1", "client_id": "i", "scope": "a b", "audience": null,
        } })
    );
    body["unknown"] = json!(1);
    let refused = house.call("POST", "/api/apps/onboard", None, Some(&body)).await;
    assert_eq!(refused.status, 422, "who names our fields knows them all");
}

#[tokio::test]
async fn secrets_need_https() {
    let house = House::with(|settings| settings.egress.allow_http = true).await;
    let token = house.app().await;
    let secret = json!({ "bearer": { "token": "t" } });
    let change = async |body: Value| house.call("PATCH", "/api/app", Some(&token), Some(&body)).await;
    let plain = change(json!({ "base_url": "http://app.example", "endpoint_auth": secret })).await;
    assert_eq!((plain.status, &plain.json()["errors"][0]["pointer"]), (422, &json!("/base_url")));
    assert_eq!(change(json!({ "endpoint_auth": secret })).await.status, 200);
    let later = change(json!({ "base_url": "http://app.example" })).await;
    assert_eq!((later.status, &later.json()["errors"][0]["pointer"]), (422, &json!("/base_url")));
    let both = change(json!({ "base_url": "http://app.example", "endpoint_auth": null })).await;
    assert_eq!(both.status, 200, "{both:?}");
}

#[tokio::test]
async fn what_goes_with_requests_does_not_follow_to_another_origin_by_itself() {
    let house = House::with(|settings| settings.egress.allow_http = true).await;
    let token = house.app().await;
    let change = async |body: Value| house.call("PATCH", "/api/app", Some(&token), Some(&body)).await;
    let refused = async |body: Value, words: &str| {
        let answer = change(body.clone()).await;
        let fault = answer.json()["errors"][0].clone();
        assert_eq!((answer.status, &fault["pointer"]), (422, &json!("/base_url")), "{body} {answer:?}");
        assert!(fault["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{body} {fault}");
    };
    assert_eq!(
        change(json!({ "base_url": "https://other.example" })).await.status,
        200,
        "nothing would follow"
    );
    let both = json!({ "endpoint_auth": { "bearer": { "token": "SECRET" } }, "delivery": { "headers": { "x-a": "1" } } });
    assert_eq!(change(both).await.status, 200);
    for elsewhere in ["https://app.example", "https://other.example:8443", "https://sub.other.example"] {
        refused(json!({ "base_url": elsewhere }), "delivery.headers and endpoint_auth").await;
    }
    let half = json!({ "base_url": "https://app.example", "endpoint_auth": { "bearer": { "token": "u" } } });
    refused(half, "delivery.headers").await;
    let half = json!({ "base_url": "https://app.example", "delivery": { "headers": null } });
    refused(half, "endpoint_auth").await;
    assert_eq!(
        change(json!({ "base_url": "https://other.example:443/below" })).await.status,
        200,
        "the same one"
    );
    for meant in [
        json!({ "base_url": "https://app.example", "keep_endpoint_access": true }),
        json!({ "base_url": "https://third.example", "endpoint_auth": null, "delivery": { "headers": { "x-a": "2" } } }),
    ] {
        let answer = change(meant.clone()).await;
        assert_eq!((answer.status, &answer.json()["base_url"]), (200, &meant["base_url"]), "{answer:?}");
    }
    // The way over nowhere is no way around.
    assert_eq!(change(json!({ "base_url": null })).await.status, 200);
    refused(json!({ "base_url": "https://evil.example" }), "delivery.headers").await;
}
