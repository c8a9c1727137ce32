//! Redrives of tasks where their app has as many open tasks as it may have.

use serde_json::{Value, json};

use super::house::House;

#[tokio::test]
async fn a_redrive_of_tasks_says_how_far_it_came_and_is_refused_where_there_is_no_room() {
    let house = House::open().await;
    let app = house.app().await;
    let post = async |path: &str, body: Value| house.call("POST", path, Some(&app), Some(&body)).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let made = post("/api/tasks", json!({ "command": "embed", "payload": number })).await;
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(post(&format!("/api/tasks/{id}/cancel"), json!({})).await.status, 200);
        ids.push(id);
    }
    let all = "/api/tasks/redrive";
    let room_for = async |tasks: u64| {
        house.plant(&format!("update queue set ready = {}", 1_000_000 - tasks)).await;
    };
    room_for(2).await;
    let dry = post(all, json!({ "command": "embed", "dry_run": true })).await.json();
    assert_eq!(dry, json!({ "count": 3, "more": false, "dry_run": true }), "a count needs no room");
    let some = post(all, json!({ "command": "embed" })).await.json();
    assert_eq!(some, json!({ "count": 2, "more": true, "dry_run": false }));
    for (path, body) in
        [(all.to_owned(), json!({ "all": true })), (format!("/api/tasks/{}/redrive", ids[2]), json!({}))]
    {
        let refused = post(&path, body).await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")), "{refused:?}");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("1000000 open tasks"), "{detail}");
    }
    let task = house.call("GET", &format!("/api/tasks/{}", ids[2]), Some(&app), None).await.json();
    assert_eq!(task["state"], "cancelled", "{task}");
    room_for(1).await;
    let rest = post(all, json!({ "all": true })).await.json();
    assert_eq!(rest, json!({ "count": 1, "more": false, "dry_run": false }), "the same request goes on");
}

#[tokio::test]
async fn a_redrive_goes_on_behind_tasks_for_which_there_is_no_room() {
    let house = House::open().await;
    let app = house.app().await;
    let post = async |path: &str, body: Value| house.call("POST", path, Some(&app), Some(&body)).await;
    let large = json!({ "command": "embed", "payload": "a payload for which there is no room" });
    for _ in 0..6 {
        let tasks = vec![large.clone(); 100];
        assert_eq!(post("/api/tasks/batch", json!({ "tasks": tasks })).await.status, 201);
    }
    let small = post("/api/tasks", json!({ "command": "embed", "payload": 1 })).await.json();
    let small = small["id"].as_str().expect("an id");
    house.plant("update task set state = 'cancelled', ended_at = created_at").await;
    let room_for = async |bytes: u64| {
        let bytes = (1_u64 << 30) - bytes;
        house.plant(&format!("update queue set ready = 0, cancelled = 601, bytes = {bytes}")).await;
    };
    room_for(10).await;
    let all = "/api/tasks/redrive";
    let sent = post(all, json!({ "command": "embed" })).await.json();
    assert_eq!(sent, json!({ "count": 1, "more": true, "dry_run": false }), "the last of two steps");
    let task = house.call("GET", &format!("/api/tasks/{small}"), Some(&app), None).await.json();
    assert_eq!(task["state"], "ready", "{task}");
    let refused = post(all, json!({ "command": "embed" })).await;
    assert_eq!(refused.status, 429, "{refused:?}");
    room_for(1 << 20).await;
    let rest = post(all, json!({ "command": "embed" })).await.json();
    assert_eq!(rest, json!({ "count": 600, "more": false, "dry_run": false }));
}
