//! Answers about tasks: each item of a batch has its own, and a result is waited for.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{app, ask, claim, create, say, shown};
use crate::support::server::Server;

/// The token of a claim that never was.
fn forged(token: &Value) -> Value {
    let token = token.as_str().expect("a token");
    let (task, _) = token.split_once('.').expect("a task and bits");
    json!(format!("{task}.{}", "0".repeat(32)))
}

#[test]
fn batches_of_words_answer_each_item_and_one_that_cannot_be_read_changes_nothing() {
    let server = Server::start();
    let app = app(&server);
    let ids: Vec<String> = (0..4).map(|_| create(&server, &app, &json!({ "command": "many" }))).collect();
    let wanted = json!({ "commands": ["many"], "count": 4, "claim_seconds": 60 });
    let tasks = claim(&server, &app, &wanted);
    assert_eq!(tasks.iter().map(|task| task["id"].clone()).collect::<Vec<_>>(), ids);
    let batch = |verb: &str, items: &Value| {
        let path = format!("/api/tasks/batch/{verb}");
        ask(&server, &app, &path, &json!({ "items": items })).expect("an answer")
    };
    let told = |verb: &str, items: &Value| -> Vec<(Value, Value)> {
        let (status, answer) = batch(verb, items);
        assert_eq!(status, 200, "{answer}");
        let items = answer["items"].as_array().expect("a list");
        let of = |item: &Value| (item["status"].clone(), item["problem"].clone());
        items.iter().map(of).collect()
    };
    let (done, lost) = ((json!(200), Value::Null), (json!(409), json!("claim-lost")));

    let beats = json!([
        { "token": tasks[0]["token"], "extend_seconds": 600, "progress": { "page": 1 } },
        { "token": forged(&tasks[1]["token"]), "extend_seconds": 600, "progress": "not of its worker" },
        { "token": tasks[2]["token"] },
    ]);
    assert_eq!(told("heartbeat", &beats), [done.clone(), lost.clone(), done.clone()]);
    assert_eq!(shown(&server, &app, &ids[0])["progress"], json!({ "page": 1 }));
    assert_eq!(shown(&server, &app, &ids[1]).get("progress"), None);

    // An item without a token: nothing of the others happens.
    let (status, refused) = batch("complete", &json!([{ "token": tasks[0]["token"] }, { "result": 1 }]));
    assert_eq!(status, 422, "{refused}");
    assert_eq!(shown(&server, &app, &ids[0])["state"], "claimed");

    let given_back = json!([
        { "token": tasks[0]["token"], "delay_seconds": 3_600, "reason": "later" },
        { "token": forged(&tasks[1]["token"]) },
    ]);
    assert_eq!(told("nack", &given_back), [done.clone(), lost.clone()]);
    let completed = json!([
        { "token": tasks[1]["token"], "result": { "pages": 3 } },
        // Given back already, and forged.
        { "token": tasks[0]["token"] },
        { "token": forged(&tasks[2]["token"]) },
        { "token": tasks[2]["token"], "then": [{ "command": "next" }] },
    ]);
    assert_eq!(told("complete", &completed), [done.clone(), lost.clone(), lost, done]);
    let states: Vec<Value> = ids.iter().map(|id| shown(&server, &app, id)["state"].clone()).collect();
    assert_eq!(states, ["waiting", "succeeded", "succeeded", "claimed"]);
    assert_eq!(shown(&server, &app, &ids[1])["result"], json!({ "pages": 3 }));
    assert_eq!(claim(&server, &app, &json!({ "commands": ["next"], "count": 9 })).len(), 1);
}

#[test]
fn a_result_is_waited_for_until_the_task_ends_or_the_time_is_over() {
    let server = Server::start();
    let app = app(&server);
    let id = create(&server, &app, &json!({ "command": "slow" }));
    let task = claim(&server, &app, &json!({ "commands": ["slow"] })).remove(0);
    let result = |wait: &str| {
        let path = format!("/api/tasks/{id}/result?wait_seconds={wait}");
        app.ask(&server, "GET", &path, None)
    };
    for (wait, status) in [("0", 202), ("1", 202), ("61", 400), ("-1", 400), ("soon", 400)] {
        let reply = result(wait);
        assert_eq!(reply.status, status, "{wait}: {}", reply.json());
    }
    assert_eq!(result("0").json()["state"], "claimed");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| (result("60"), Instant::now()));
        // It waits before the end comes; were it late, the answer would be the same.
        thread::sleep(Duration::from_millis(300));
        let ended = Instant::now();
        assert_eq!(say(&server, &app, &task, "complete", json!({ "result": [1, 2] })).0, 200);
        let (reply, at) = waiting.join().expect("answered");
        let took = at.duration_since(ended);
        assert_eq!((reply.status, &reply.json()["result"]), (200, &json!([1, 2])), "{}", reply.json());
        // Without a word the server looks again after ten seconds.
        assert!(took < Duration::from_secs(8), "told by the end and not by a look: {took:?}");
    });
    let nothing = app.ask(&server, "GET", "/api/tasks/tsk_00000000000000000000000000/result", None);
    assert_eq!(nothing.status, 404, "{}", nothing.json());
}
