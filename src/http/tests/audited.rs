//! Rows of the audit log: the names of what was changed, and why tokens of issuers were refused.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    House,
    house::{ADMIN, PATIENCE},
};

#[tokio::test]
async fn the_audit_log_has_the_fault_of_a_refused_token_and_no_part_of_the_token() {
    let house = House::open().await;
    let part = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let claims = json!({ "iss": "https://stranger.example", "sub": "a-person" });
    let stranger = format!("{}.{}.c2ln", part(&json!({ "alg": "ES256" })), part(&claims));
    let sent = [("a.b.c", "jwt:malformed"), (stranger.as_str(), "jwt:unknown-issuer")];
    for (token, fault) in sent {
        let answer = house.call("GET", "/api/admin/overview", Some(token), None).await;
        assert_eq!((answer.status, answer.json()["detail"].as_str()), (401, None), "{fault}: {answer:?}");
        let of_app = house.call("GET", "/api/app", Some(token), None).await;
        assert_eq!((of_app.status, of_app.json()["detail"].as_str()), (401, None), "{fault}: {of_app:?}");
    }
    let until = Instant::now() + PATIENCE;
    let rows = loop {
        let path = "/api/admin/audit?action=sign_in.refused";
        let answer = house.call("GET", path, Some(ADMIN), None).await;
        let found = answer.json()["items"].as_array().expect("items").len();
        if found == sent.len() {
            break answer;
        }
        assert!(found < sent.len() && Instant::now() < until, "{answer:?}");
        sleep(std::time::Duration::from_millis(5)).await;
    };
    let targets: Vec<_> = rows.json()["items"].as_array().expect("items").clone();
    for (token, fault) in sent {
        assert!(targets.iter().any(|row| row["target"] == fault), "{fault}: {rows:?}");
        assert!(!rows.body.contains(token) && !rows.body.contains("a-person"), "{rows:?}");
    }
}

#[tokio::test]
async fn rows_name_queues_and_schedules_whatever_characters_their_names_have() {
    let house = House::open().await;
    let app = house.app().await;
    let body = json!({ "cron": "@daily", "command": "report" });
    for name in ["nightly-report", "a.b_c"] {
        for (method, path, body) in [
            ("PUT", format!("/api/schedules/{name}"), Some(&body)),
            ("POST", format!("/api/schedules/{name}/pause"), None),
            ("PUT", format!("/api/queues/{name}"), Some(&json!({}))),
        ] {
            let answer = house.call(method, &path, Some(&app), body).await;
            assert!(answer.status < 300, "{path}: {answer:?}");
        }
        let path = format!("/api/admin/audit?target={name}");
        let rows = house.call("GET", &path, Some(ADMIN), None).await.json();
        let actions: Vec<_> =
            rows["items"].as_array().expect("items").iter().map(|row| row["action"].clone()).collect();
        assert_eq!(
            actions,
            ["put_api_queues_command", "post_api_schedules_name_pause", "put_api_schedules_name"]
        );
    }
}
