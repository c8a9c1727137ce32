//! What tokens with fewer permissions, or for some commands alone, open and make.

use super::*;

#[tokio::test]
async fn a_token_for_some_commands_works_on_their_tasks_alone() {
    let house = house().await;
    let app = house.app().await;
    let permissions = ["tasks:*", "queues:*", "schedules:*"];
    let body = json!({ "name": "worker", "permissions": permissions, "commands": ["mail.*"] });
    let worker = token_of(&make(&house, "/api/app/tokens", &app, body).await);
    let create = async |token: &str, command: &str| {
        house.call("POST", "/api/tasks", Some(token), Some(&json!({ "command": command }))).await
    };
    let own = create(&worker, "mail.send").await;
    let foreign = create(&app, "orders.ship").await;
    assert_eq!((own.status, foreign.status), (201, 201), "{own:?}");
    let schedule = async |token: &str, name: &str, command: &str| {
        let body = json!({ "cron": "@daily", "command": command });
        house.call("PUT", &format!("/api/schedules/{name}"), Some(token), Some(&body)).await.status
    };
    assert_eq!(
        (schedule(&worker, "own", "mail.send").await, schedule(&app, "not", "orders.ship").await),
        (200, 200)
    );
    assert_eq!(schedule(&worker, "new", "orders.ship").await, 403);
    assert_eq!(schedule(&app, "%2e%2e", "orders.ship").await, 422, "no client could ask for it");
    assert_eq!(
        schedule(&worker, "not", "mail.send").await,
        404,
        "it would take the schedule of another command"
    );
    let id = |made: &Answered| made.json()["id"].as_str().expect("an id").to_owned();
    let (own, foreign) = (id(&own), id(&foreign));
    for (method, path, status) in [
        ("GET", "/api/tasks".to_owned(), 403),
        ("GET", "/api/tasks?command=orders.ship".to_owned(), 403),
        ("GET", "/api/tasks?command=mail.send".to_owned(), 200),
        ("GET", format!("/api/tasks/{own}"), 200),
        ("GET", format!("/api/tasks/{foreign}"), 404),
        ("GET", format!("/api/tasks/{foreign}/result"), 404),
        ("GET", "/api/queues/orders.ship".to_owned(), 404),
        ("GET", "/api/queues/mail.send".to_owned(), 200),
        ("GET", "/api/schedules/not".to_owned(), 404),
        ("DELETE", "/api/schedules/not".to_owned(), 404),
        ("GET", "/api/schedules/own".to_owned(), 200),
    ] {
        assert_eq!(house.call(method, &path, Some(&worker), None).await.status, status, "{path}");
    }
    for (path, field, all, of_worker) in [
        ("/api/queues", "command", json!(["mail.send", "orders.ship"]), json!(["mail.send"])),
        ("/api/schedules", "name", json!(["not", "own"]), json!(["own"])),
    ] {
        for (token, listed) in [(&app, all), (&worker, of_worker)] {
            let page = house.call("GET", path, Some(token), None).await.json();
            let rows = page["items"].as_array().expect("rows");
            let names: Vec<&Value> = rows.iter().map(|row| &row[field]).collect();
            assert_eq!(json!(names), listed, "{path}");
        }
    }
    for (path, body, status) in [
        ("/api/tasks".to_owned(), json!({ "command": "orders.ship" }), 403),
        ("/api/tasks/batch".to_owned(), json!({ "tasks": [{ "command": "orders.ship" }] }), 403),
        ("/api/tasks/claim".to_owned(), json!({ "commands": ["mail.send", "orders.ship"] }), 403),
        (format!("/api/tasks/{foreign}/cancel"), json!({}), 404),
        (format!("/api/tasks/{foreign}/redrive"), json!({}), 404),
        ("/api/tasks/redrive".to_owned(), json!({ "all": true }), 403),
        ("/api/queues/orders.ship/pause".to_owned(), json!({}), 404),
        ("/api/schedules/not/pause".to_owned(), json!({}), 404),
    ] {
        assert_eq!(house.call("POST", &path, Some(&worker), Some(&body)).await.status, status, "{path}");
    }
    let shown = house.call("GET", &format!("/api/tasks/{foreign}"), Some(&app), None).await.json();
    assert_eq!(shown["state"], "ready", "nothing of it changed");
}

#[tokio::test]
async fn a_narrowed_token_opens_what_it_names_and_hands_on_no_more() {
    let house = house().await;
    let app = house.app().await;
    let (tokens, watch) = ("/api/app/tokens", house.repository(&app, "https://github.com/o/r").await);
    let body = json!({
        "name": "worker", "permissions": ["watches:read", "tokens:*"], "commands": ["mail.*", "orders.ship"],
    });
    let made = make(&house, tokens, &app, body).await;
    assert_eq!(
        (&made.json()["permissions"], &made.json()["commands"]),
        (&json!(["watches:read", "tokens:*"]), &json!(["mail.*", "orders.ship"]))
    );
    let worker = token_of(&made);
    let get = async |path: &str| house.call("GET", path, Some(&worker), None).await;
    assert_eq!(get(&format!("/api/repositories/{watch}")).await.status, 200);
    let refused = get("/api/app").await;
    assert_eq!(
        (refused.status, refused.problem()["detail"].as_str()),
        (403, Some("this token lacks the permission apps:read"))
    );
    let shown = get("/api/session").await.json();
    assert_eq!(
        shown["permissions"],
        json!(["tokens:read", "tokens:create", "tokens:revoke", "watches:read"])
    );
    for (body, says) in [
        (json!({ "name": "whole" }), "the permission apps:read"),
        (json!({ "name": "x", "permissions": ["watches:scan"], "commands": ["mail.a"] }), "watches:scan"),
        (json!({ "name": "x", "permissions": ["*:read"], "commands": ["mail.a"] }), "apps:read"),
        (json!({ "name": "x", "permissions": ["watches:read"] }), "the command *"),
        (json!({ "name": "x", "permissions": ["watches:read"], "commands": ["*"] }), "the command *"),
        (
            json!({ "name": "x", "permissions": ["watches:read"], "commands": ["orders.*"] }),
            "the command orders.*",
        ),
    ] {
        let refused = make(&house, tokens, &worker, body.clone()).await;
        let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(refused.status == 403 && detail.contains(says), "{body} {refused:?}");
    }
    let body =
        json!({ "name": "less", "permissions": ["tokens:*", "watches:read"], "commands": ["mail.send"] });
    let less = make(&house, tokens, &worker, body).await;
    assert_eq!(
        less.json()["permissions"],
        json!(["tokens:read", "tokens:create", "tokens:revoke", "watches:read"]),
        "what its maker may grow by is not handed on"
    );
    for (body, pointer, says) in [
        (json!({ "name": "x", "permissions": [] }), "/permissions", "has 1 to 100"),
        (json!({ "name": "x", "permissions": "watches:read" }), "/permissions", "must be a list"),
        (json!({ "name": "x", "permissions": null }), "/permissions", "must be a list"),
        (json!({ "name": "x", "permissions": ["watches"] }), "/permissions", "\"watches\" is no permission"),
        (json!({ "name": "x", "permissions": ["keys:rotate"] }), "/permissions", "an app no permission"),
        (json!({ "name": "x", "commands": ["a"] }), "/permissions", "is required beside commands"),
        (
            json!({ "name": "x", "permissions": ["*:*"], "commands": ["a b"] }),
            "/commands",
            "which is no command",
        ),
    ] {
        let refused = make(&house, tokens, &app, body.clone()).await;
        let fault = &refused.json()["errors"][0];
        let is_said = fault["detail"].as_str().is_some_and(|detail| detail.contains(says));
        assert!(refused.status == 422 && fault["pointer"] == pointer && is_said, "{body} {refused:?}");
    }
}

#[tokio::test]
async fn a_token_makes_none_that_outlives_it() {
    let house = house().await;
    let app = house.app().await;
    let (soon, later) = (in_years(1), in_years(2));
    for (path, maker, what) in [
        ("/api/app/tokens", app.as_str(), json!({ "permissions": ["tokens:create"], "commands": [] })),
        ("/api/admin/tokens", ADMIN, json!({ "role": "admin" })),
    ] {
        let with = |end: Option<&str>| {
            let mut body = what.clone();
            body["name"] = "a token".into();
            if let Some(end) = end {
                body["expires_at"] = end.into();
            }
            body
        };
        let ends = token_of(&make(&house, path, maker, with(Some(&soon))).await);
        let made = make(&house, path, &ends, with(None)).await;
        assert_eq!((made.status, &made.json()["expires_at"]), (201, &json!(soon)), "{made:?}");
        let refused = make(&house, path, &ends, with(Some(&later))).await;
        let fault = &refused.json()["errors"][0];
        assert_eq!((refused.status, &fault["pointer"]), (422, &json!("/expires_at")), "{refused:?}");
        assert_eq!(make(&house, path, maker, with(Some(&later))).await.status, 201);
    }
}

#[tokio::test]
async fn a_task_has_one_key_however_it_is_sent_and_a_batch_has_none_of_its_own() {
    let house = house().await;
    let app = house.app().await;
    let create = async |body: &str, key: Option<&str>| {
        let line = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
        let request = format!(
            "POST /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {app}\r\n{line}content-type: \
             application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        house.send(request.as_bytes()).await
    };
    let first = create(r#"{"command":"k","payload":1,"key":"a"}"#, None).await;
    assert_eq!(first.status, 201, "{first:?}");
    for (body, key, status) in [
        (r#" {"payload":1, "priority":0, "command":"k"}"#, Some("a"), 200),
        (r#"{"command":"k","payload":1,"key":"a","delay_seconds":0}"#, Some("a"), 200),
        (r#"{"command":"k","payload":2}"#, Some("a"), 409),
        (r#"{"command":"k","payload":1,"priority":1}"#, Some("a"), 409),
    ] {
        assert_eq!(create(body, key).await.status, status, "{body}");
    }
    let batch = r#"{"tasks":[{"command":"k"}]}"#;
    let request = format!(
        "POST /api/tasks/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {app}\r\nidempotency-key: \
         a\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{batch}",
        batch.len()
    );
    let refused = house.send(request.as_bytes()).await;
    assert_eq!(refused.status, 400, "{refused:?}");
}

/// A moment in this many years, to the second.
fn in_years(years: u64) -> String {
    iso(Timestamp(MachineClock.now().0 / 1_000 * 1_000).after(Duration::from_secs(years * 365 * 86_400)))
}

#[tokio::test]
async fn a_key_of_a_whole_token_gives_a_narrowed_one_no_answer() {
    let house = house().await;
    let app = house.app().await;
    let body = json!({ "name": "w", "permissions": ["tokens:create"] });
    let narrowed = token_of(&make(&house, "/api/app/tokens", &app, body).await);
    let ask = async |token: &str| {
        let body = json!({ "name": "whole" }).to_string();
        let request = format!(
            "POST /api/app/tokens HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             idempotency-key: the-same\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        house.send(request.as_bytes()).await
    };
    assert_eq!(ask(&app).await.status, 201);
    assert_eq!(ask(&app).await.status, 201, "the whole token is answered again");
    let other = ask(&narrowed).await;
    assert!(other.status == 403 && !other.body.contains("tdg_"), "its keys are its own: {other:?}");
    // Narrowed to some commands alone, a token may make no whole one, and is not shown one.
    let body = json!({ "name": "c", "permissions": ["*:*"], "commands": ["mail.*"] });
    let of_commands = token_of(&make(&house, "/api/app/tokens", &app, body).await);
    let other = ask(&of_commands).await;
    assert!(other.status >= 400 && !other.body.contains("tdg_"), "{other:?}");
}

#[tokio::test]
async fn a_browser_that_signed_in_with_a_narrowed_token_may_no_more() {
    let house = house().await;
    let app = house.app().await;
    let body = json!({ "name": "w", "permissions": ["apps:read"] });
    let made = make(&house, "/api/app/tokens", &app, body).await;
    let (narrowed, id) = (token_of(&made), made.json()["token_id"].as_str().expect("an id").to_owned());
    let body = json!({ "token": narrowed }).to_string();
    let mut head =
        String::from("POST /api/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntidings-page: 1\r\n");
    write!(head, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .expect("text");
    let signed_in = house.send(head.as_bytes()).await;
    assert_eq!(signed_in.status, 201, "{signed_in:?}");
    let cookie =
        signed_in.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    let get = async |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: {cookie}\r\n\r\n");
        house.send(request.as_bytes()).await.status
    };
    assert_eq!((get("/api/app").await, get("/api/repositories").await), (200, 403));
    let revoked = house.call("DELETE", &format!("/api/app/tokens/{id}"), Some(&app), None).await;
    assert_eq!((revoked.status, get("/api/app").await), (204, 401));
}
