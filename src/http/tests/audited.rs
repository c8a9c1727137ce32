//! Rows of the audit log: one for each change with the name of what was changed, refusals at the door of the
//! staff and why tokens of issuers were refused, and what a check of the log says of rows that were altered.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    House,
    house::{ADMIN, PATIENCE},
    identity::World,
};

#[tokio::test]
async fn the_audit_log_has_the_fault_of_a_refused_token_and_no_part_of_the_token() {
    let house = House::open().await;
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let claims = json!({ "iss": "https://stranger.example", "sub": "a-person" });
    let stranger = format!("{}.{}.c2ln", part(&json!({ "alg": "ES256" })), part(&claims));
    let sent = [("a.b.c", "jwt:malformed"), (stranger.as_str(), "jwt:unknown-issuer")];
    // The caller is told the same of every token.
    let of_staff = "send the header `Authorization: Bearer TOKEN` with a token of the staff; if one was sent, it \
                    is mistyped, revoked or expired";
    let unknown = "the server does not know this token: it is mistyped, revoked or expired";
    for (token, fault) in sent {
        let answer = house.call("GET", "/api/admin/overview", Some(token), None).await;
        assert_eq!(
            (answer.status, answer.json()["detail"].as_str()),
            (401, Some(of_staff)),
            "{fault}: {answer:?}"
        );
        let of_app = house.call("GET", "/api/app", Some(token), None).await;
        assert_eq!(
            (of_app.status, of_app.json()["detail"].as_str()),
            (401, Some(unknown)),
            "{fault}: {of_app:?}"
        );
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
async fn audit_rows_name_queues_and_schedules_whose_names_have_dots_dashes_and_underscores() {
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

#[tokio::test]
async fn a_refused_removal_of_an_artifact_is_no_deed_and_its_row_names_the_task() {
    let house = House::open().await;
    let app = house.app().await;
    let own = house.call("GET", "/api/app", Some(&app), None).await.json();
    let own = own["app_id"].as_str().expect("an id").to_owned();
    let made = house.call("POST", "/api/tasks", Some(&app), Some(&json!({ "command": "a" }))).await;
    assert_eq!(made.status, 201, "{made:?}");
    let task = made.json()["id"].as_str().expect("an id").to_owned();
    let rows = async || {
        let path = format!("/api/admin/audit?target={task}/nope");
        let rows = house.call("GET", &path, Some(ADMIN), None).await.json();
        let results = rows["items"].as_array().expect("items").iter().map(|row| row["result"].clone());
        results.collect::<Vec<_>>()
    };
    let removed = async |path: String, token: &str| {
        let answer = house.call("DELETE", &path, Some(token), None).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    };
    removed(format!("/api/tasks/{task}/artifacts/nope"), &app).await;
    assert!(rows().await.is_empty(), "what an app was refused is not written");
    removed(format!("/api/admin/apps/{own}/tasks/{task}/artifacts/nope"), ADMIN).await;
    assert_eq!(rows().await, ["artifact-not-found"]);
    let of_apps = "/api/admin/audit?action=delete_api_tasks_id_artifacts_name";
    let answer = house.call("GET", of_apps, Some(ADMIN), None).await.json();
    assert_eq!(answer["items"].as_array().map(Vec::len), Some(0), "{answer}");
}

#[tokio::test]
async fn what_was_done_is_written_down_with_it_and_tampering_is_found() {
    let world = World::new().await;
    let app = &world.apps[0];
    let call = async |method: &str, path: &str, token: &str, body: Option<Value>| {
        world.house.call(method, path, Some(token), body.as_ref()).await
    };
    let pause = format!("/api/repositories/{}/pause", app.watch);
    assert_eq!(call("POST", &pause, &app.token, None).await.status, 200);
    let resume = format!("/api/admin/apps/{}/repositories/{}/resume", app.id, app.watch);
    assert_eq!(call("POST", &resume, ADMIN, None).await.status, 200);
    let viewer = world.viewer();
    assert_eq!(call("POST", &resume, viewer, None).await.status, 403);
    let missing = "/api/admin/receipts/rct_00000000000000000000000000/replay";
    assert_eq!(call("POST", missing, ADMIN, None).await.status, 404);
    let rows = call("GET", &format!("/api/admin/audit?app={}", app.id), viewer, None).await.json();
    let rows = rows["items"].as_array().expect("items");
    let told: Vec<_> = rows.iter().map(|row| (&row["action"], &row["actor"], &row["target"])).collect();
    let first = json!(format!("tok_{}", &app.id[4..]));
    let (watch, admin) = (json!(app.watch), json!("admin"));
    assert_eq!(
        told,
        [
            (&json!("post_api_admin_apps_app_id_repositories_id_resume"), &admin, &watch),
            (&json!("post_api_repositories_id_pause"), &first, &watch),
            (&json!("post_api_app_tokens"), &first, &json!(app.spare)),
            (&json!("post_api_repositories"), &first, &watch),
            (&json!("post_api_apps_onboard"), &admin, &json!(app.id)),
        ]
    );
    assert!(rows.iter().all(|row| row["address"] == "127.0.0.1"), "{rows:?}");
    let failed = call("GET", "/api/admin/audit?action=post_api_admin_receipts_id_replay", viewer, None).await;
    assert_eq!(failed.json()["items"][0]["result"], "receipt-not-found");
    let verified = call("GET", "/api/admin/audit/verify", viewer, None).await.json();
    assert_eq!(verified["intact"], true, "{verified}");
    assert_eq!(verified["keyed_from"], 1, "{verified}");
    let head = verified["head"].as_str().expect("a head");
    let exported = call("GET", "/api/admin/audit/export", viewer, None).await;
    assert_eq!(exported.header("content-type"), Some("application/x-ndjson"));
    let last = exported.body.lines().filter(|line| line.starts_with('{')).count();
    assert!(last >= 9, "{last} rows");
    assert!(!exported.body.contains("example") && !exported.body.contains("one app"), "ids only");
    let with_head = call("GET", &format!("/api/admin/audit/verify?head={head}"), viewer, None).await.json();
    assert_eq!(with_head["intact"], true, "{with_head}");
    world.store.tamper("update audit set target = 'tok_other' where id = 3").await;
    world.store.tamper("delete from audit where id = 5").await;
    let verified = call("GET", "/api/admin/audit/verify", viewer, None).await.json();
    assert_eq!(verified["faults"], json!(["row 3 was changed", "row 5 was removed"]));
}

#[tokio::test]
async fn refusals_at_the_staffs_door_are_written_down_but_not_each() {
    let world = World::new().await;
    for _ in 0..50 {
        let answered = world.house.call("GET", "/api/admin/overview", Some("guess"), None).await;
        assert_eq!(answered.status, 401);
    }
    let path = "/api/admin/audit?action=sign_in.refused";
    let until = Instant::now() + PATIENCE;
    loop {
        let rows = world.house.call("GET", path, Some(ADMIN), None).await.json();
        let refused = rows["items"].as_array().expect("items");
        let rows = refused.len();
        if rows == 10 {
            assert!(refused.iter().all(|row| row["address"] == "127.0.0.1"), "{refused:?}");
            break;
        }
        assert!(rows < 10 && Instant::now() < until, "{rows} rows");
        sleep(std::time::Duration::from_millis(5)).await;
    }
}
