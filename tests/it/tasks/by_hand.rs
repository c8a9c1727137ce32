//! Tasks by hand: the verbs of the command line for claimed tasks, and bodies whose optional fields are null.

use std::process::Stdio;

use serde_json::{Value, json};

use super::{Worker, app, ask, claim, create, say, shown};
use crate::support::{
    api::App,
    http,
    patience::{SOON, eventually},
    server::Server,
};

/// Runs a verb of the command line; its exit code, its output as JSON, and what it said.
fn run(server: &Server, app: &App, arguments: &[&str]) -> (i32, Value, String) {
    let mut command = server.command(arguments);
    command.args(["--json", "--server", &format!("http://{}", server.address())]);
    let output = command.env("TIDINGS_TOKEN", &app.token).output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("a code"), printed, said)
}

#[test]
fn a_claim_is_extended_and_given_back_by_hand_and_a_claim_of_nothing_ends_with_65() {
    let server = Server::start();
    let app = app(&server);
    let id = create(&server, &app, &json!({ "command": "embed", "max_attempts": 2 }));
    let claimed = || {
        let (code, printed, said) = run(&server, &app, &["task", "claim", "embed", "--claim", "30"]);
        assert_eq!(code, 0, "{said}");
        printed["tasks"][0].clone()
    };
    let first = claimed();
    assert_eq!((&first["id"], &first["attempt"]), (&json!(id), &json!(1)), "{first}");
    let token = first["token"].as_str().expect("a token");
    let until = |task: &Value| task["claimed_until"].as_str().expect("a moment").to_owned();
    let beat = ["task", "heartbeat", token, "--extend", "600", "--progress", "{\"page\" : 3}"];
    let (code, extended, said) = run(&server, &app, &beat);
    assert_eq!((code, &extended["cancelled"]), (0, &json!(false)), "{said}");
    assert!(until(&extended) > until(&first), "{extended} {first}");
    assert_eq!(shown(&server, &app, &id)["progress"], json!({ "page": 3 }));

    // Nobody else is given the task meanwhile.
    let (code, printed, said) = run(&server, &app, &["task", "claim", "embed", "nothing"]);
    assert_eq!((code, &printed), (65, &json!({ "tasks": [] })), "a script tells it from a task");
    assert!(said.contains("no task of embed, nothing is ready, so none was claimed"), "{said}");

    let (code, given_back, said) = run(&server, &app, &["task", "abandon", token]);
    assert_eq!((code, &given_back["state"]), (0, &json!("ready")), "{said}");
    let again = claimed();
    assert_eq!(again["attempt"], 1, "an abandoned claim is no attempt: {again}");
    for verb in ["heartbeat", "abandon"] {
        let (code, _, said) = run(&server, &app, &["task", verb, token]);
        assert_eq!(code, 65, "{verb} with the token of an ended claim: {said}");
        assert!(said.contains("claim"), "{said}");
    }
    let token = again["token"].as_str().expect("a token");
    let (code, later, said) = run(&server, &app, &["task", "abandon", token, "--delay", "3600"]);
    assert_eq!((code, &later["state"]), (0, &json!("waiting")), "{said}");
    assert_eq!(run(&server, &app, &["task", "claim", "embed"]).0, 65, "it is not due");
    assert_eq!(run(&server, &app, &["task", "heartbeat", "no-token"]).0, 64, "no token at all");
}

#[test]
fn optional_fields_of_tasks_may_be_null_as_their_document_says() {
    let server = Server::start();
    let app = app(&server);
    let task = |command: &str| {
        json!({ "command": command, "payload": null, "priority": null, "max_attempts": null, "run_at": null,
            "delay_seconds": null, "key": null, "webhook": null })
    };
    create(&server, &app, &task("one"));
    let (status, made) =
        ask(&server, &app, "/api/tasks/batch", &json!({ "tasks": [task("one"), task("one")] }))
            .expect("told");
    assert_eq!(status, 201, "{made}");
    let wanted = json!({ "commands": ["one"], "count": null, "claim_seconds": null, "wait_seconds": null });
    let next = || claim(&server, &app, &wanted).remove(0);
    let first = next();
    assert_eq!(first["payload"], Value::Null);
    for (verb, body, state) in [
        ("heartbeat", json!({ "extend_seconds": null, "progress": null }), "claimed"),
        ("complete", json!({ "result": null, "then": null }), "succeeded"),
    ] {
        let (status, answer) = say(&server, &app, &first, verb, body);
        assert_eq!((status, &answer["state"]), (200, &json!(state)), "{verb}: {answer}");
    }
    let (status, answer) =
        say(&server, &app, &next(), "nack", json!({ "delay_seconds": null, "reason": null }));
    assert_eq!((status, &answer["state"]), (200, &json!("waiting")), "{answer}");
    let (status, answer) = say(&server, &app, &next(), "abandon", json!({ "delay_seconds": null }));
    assert_eq!((status, &answer["state"]), (200, &json!("ready")), "{answer}");
    let settings = json!({ "max_claimed": null, "rate": null, "max_attempts": null, "retry_policy": null,
        "retry_base_seconds": null, "retry_cap_seconds": null, "timeout_seconds": null,
        "ageing_seconds": null, "retention_seconds": null, "dead_retention_seconds": null,
        "payload_bytes": null });
    let set = app.ask(&server, "PUT", "/api/queues/one", Some(&settings));
    assert_eq!((set.status, &set.json()["settings"]), (200, &json!({})));

    // The document says of each optional field of these bodies that it may be null, and of a required one that
    // it may not.
    let document = server.ask("GET", "/openapi.json", None, None).expect("an answer").json();
    for (body, required) in [
        ("TaskToCreate", &["command"][..]),
        ("ClaimToMake", &["commands"]),
        ("Heartbeat", &["token"]),
        ("Completion", &["token"]),
        ("Nack", &["token"]),
        ("Abandonment", &["token"]),
        ("FailureOfTask", &["token", "error"]),
        ("QueueToSet", &[]),
    ] {
        let fields = &document["components"]["schemas"][body]["properties"];
        for (name, field) in fields.as_object().unwrap_or_else(|| panic!("{body} is described")) {
            let kinds = field["type"].as_array().cloned().unwrap_or_default();
            let is_any = field["type"].is_null() && field["oneOf"].is_null();
            let may_be_null = kinds.contains(&json!("null"))
                || is_any
                || field["oneOf"].as_array().is_some_and(|all| all.contains(&json!({ "type": "null" })));
            assert_eq!(may_be_null, !required.contains(&name.as_str()), "{body}.{name}: {field}");
        }
    }
    let null_command = json!({ "command": null });
    let (status, _) = ask(&server, &app, "/api/tasks", &null_command).expect("told");
    assert_eq!(status, 422, "what is required may not be null");
}

#[test]
fn a_payload_of_100_000_nested_arrays_stops_no_worker_and_is_not_taken_for_no_task() {
    let server = Server::start();
    let app = app(&server);
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let create_deep = || {
        let body = format!("{{\"command\":\"deep\",\"payload\":{nested}}}");
        let request = format!(
            "POST /api/tasks HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            app.token,
            body.len()
        );
        let made = http::raw(server.address(), request.as_bytes()).expect("an answer");
        assert_eq!(made.status, 201, "{}", made.json());
        made.json()["id"].as_str().expect("an id").to_owned()
    };
    create_deep();
    let (code, _, said) = run(&server, &app, &["task", "claim", "deep"]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("the request was done, but its answer cannot be shown"), "{said}");

    let deep = create_deep();
    let after = create(&server, &app, &json!({ "command": "deep", "payload": 1 }));
    let address = format!("http://{}", server.address());
    let program = "wc -c | tr -d ' '";
    let mut command = server.command(&["worker", "start", "deep", "--server", &address, "--exec", program]);
    command.env("TIDINGS_TOKEN", &app.token).stdout(Stdio::null());
    let _worker = Worker(command.spawn().expect("it starts"));
    for (id, bytes) in [(&deep, 200_000), (&after, 1)] {
        eventually("task that is done", SOON, || {
            let path = format!("/api/tasks/{id}/result");
            let reply = app.ask(&server, "GET", &path, None);
            (reply.status == 200 && reply.json()["result"] == bytes).then_some(())
        });
    }
}

#[test]
fn a_queue_shows_its_rates_and_one_that_the_settings_name_has_metrics_of_its_own() {
    let mut server = Server::start();
    let app = app(&server);
    server.terminate();
    let name = format!("{}/embed", app.id);
    let mut server = server.with("telemetry.queues", &name);
    server.run();
    for command in ["embed", "embed", "embed", "other"] {
        create(&server, &app, &json!({ "command": command }));
    }
    let tasks = claim(&server, &app, &json!({ "commands": ["embed"], "count": 2 }));
    assert_eq!(say(&server, &app, &tasks[0], "complete", json!({})).0, 200);
    assert_eq!(say(&server, &app, &tasks[1], "fail", json!({ "error": "no" })).0, 200);
    let number = |rates: &Value, name: &str| rates[name].as_f64().unwrap_or(0.0);
    let rates = eventually("the rates", SOON, || {
        let (code, queue, said) = run(&server, &app, &["queue", "show", "embed"]);
        assert_eq!(code, 0, "{said}");
        let all = ["created_per_min", "claimed_per_min", "succeeded_per_min", "failed_per_min"];
        let rates = queue["rates"].clone();
        all.into_iter().all(|name| number(&rates, name) > 0.0).then_some(rates)
    });
    let share = number(&rates, "created_per_min") / number(&rates, "claimed_per_min");
    assert!((share - 1.5).abs() < 0.01, "three were created and two were claimed: {rates}");
    assert!(rates["minutes"].as_array().is_some_and(|minutes| !minutes.is_empty()), "{rates}");
    let mut command = server.command(&["queue", "show", "embed"]);
    command.args(["--server", &format!("http://{}", server.address())]);
    let output = command.env("TIDINGS_TOKEN", &app.token).output().expect("it ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("rates.claimed_per_min") && !text.contains("minutes"), "{text}");
    let of_staff = server.ask_as_admin("GET", &format!("/api/admin/apps/{}/queues/embed", app.id)).json();
    assert!(number(&of_staff["rates"], "failed_per_min") > 0.0, "{of_staff}");
    for (queue, created, ready) in [(name.as_str(), 3, 1), ("other", 1, 1)] {
        let lines = [
            format!("tidings_tasks_created_total{{queue=\"{queue}\"}} {created}"),
            format!("tidings_tasks{{queue=\"{queue}\",state=\"ready\"}} {ready}"),
        ];
        eventually("the metrics of the queue", SOON, || {
            let reply = server.ask("GET", "/metrics", None, None).expect("an answer");
            let text = String::from_utf8_lossy(&reply.message.body).into_owned();
            lines.iter().all(|line| text.lines().any(|shown| shown == line)).then_some(())
        });
    }
}
