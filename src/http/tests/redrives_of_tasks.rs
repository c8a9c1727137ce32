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
