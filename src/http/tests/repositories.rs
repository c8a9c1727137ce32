//! Watching repositories: the contract that Docora's clients rely on, and what we add to it.

mod letters;

use serde_json::{Value, json};
use tidings_actors::ports::LaneStore;
use tidings_entity::{
    id::{AppId, ObjectId},
    kind::SelectorKind,
};

use super::{House, git::HEAD};

const REPOSITORIES: &str = "/api/repositories";

#[tokio::test]
async fn a_client_of_docora_registers_changes_its_token_and_leaves() {
    let house = House::open().await;
    let token = house.app().await;
    let body =
        json!({ "github_url": "https://github.com/Owner/private", "github_token": "good", "unknown": 1 });
    let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
    assert_eq!(answered.status, 201, "{answered:?}");
    let first = [
        r#"{"repository_id":"repo_"#,
        r#","github_url":"https://github.com/Owner/private","owner":"Owner","name":"private","is_private":true,"created_at":"#,
    ];
    assert!(answered.body.starts_with(first[0]) && answered.body.contains(first[1]), "{answered:?}");
    let id = answered.json()["repository_id"].as_str().expect("an id").to_owned();
    let again = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
    assert_eq!((again.status, &again.json()["repository_id"]), (201, &json!(id)), "the same id again");

    let one = format!("{REPOSITORIES}/{id}");
    let patch = |token: &str| json!({ "github_token": token });
    let answered = house.call("PATCH", &format!("{one}/token"), Some(&token), Some(&patch("good"))).await;
    assert_eq!(
        (answered.status, answered.body.as_str()),
        (200, r#"{"message":"Token updated successfully"}"#)
    );
    let answered = house.call("PATCH", &format!("{one}/token"), Some(&token), Some(&patch("bad"))).await;
    assert_eq!((answered.status, &answered.problem()["error"]), (422, &json!("Invalid GitHub token")));
    assert_eq!(house.credential(&id).await.as_deref(), Some("good"), "the refused one was not written");

    let delete = format!(
        "DELETE {one} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"
    );
    let answered = house.send(delete.as_bytes()).await;
    assert_eq!((answered.status, answered.body.as_str()), (204, ""));
    let answered = house.send(delete.as_bytes()).await;
    assert_eq!(answered.status, 404);
    assert_eq!(answered.problem()["error"], "Repository not found or not registered for this app");
    assert_eq!(answered.problem()["detail"], format!("this app has no repository {id}"));
}

#[tokio::test]
async fn what_the_git_host_says_becomes_the_answer_that_clients_know() {
    let house = House::open().await;
    let token = house.app().await;
    for (name, git_token, status, error) in [
        ("missing", None, 404, "Repository not found or not accessible"),
        ("private", None, 404, "Repository not found or not accessible"),
        ("private", Some("bad"), 404, "Invalid GitHub token"),
        ("down", None, 503, "Failed to validate repository"),
        ("busy", None, 503, "Failed to validate repository"),
        ("moved", None, 422, "github_url: the address answers with a redirect; give the one it leads to"),
        ("html", None, 422, "github_url: the address does not speak the Git protocol"),
        (
            "forbidden",
            None,
            422,
            "github_url: the name github.com leads to a private address and egress.allow lists neither \
             the name nor the address (add github.com to allow it)",
        ),
    ] {
        let mut body = json!({ "github_url": format!("https://github.com/o/{name}") });
        if let Some(git_token) = git_token {
            body["github_token"] = json!(git_token);
        }
        let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
        let problem = answered.problem();
        assert_eq!((answered.status, &problem["error"]), (status, &json!(error)), "{name}");
        assert!(!answered.body.contains("planted"), "{answered:?}");
        let wait = if name == "busy" { Some("77") } else { Some("30").filter(|_| status == 503) };
        assert_eq!(answered.header("retry-after"), wait, "{name}");
    }
    assert!(house.watches().await.is_empty(), "nothing was written");
}

#[tokio::test]
async fn a_credential_is_judged_where_it_is_given_and_never_repeated() {
    let house = House::with(|settings| settings.egress.allow_http = true).await;
    let token = house.app().await;
    let app = |change: &dyn Fn(&mut Value)| {
        let key = include_str!("../../../tests/keys/rfc7515-a2.pkcs1.pem");
        let mut app = json!({ "app_id": 7, "installation_id": "8", "private_key": key });
        change(&mut app);
        json!({ "github_app": app })
    };
    for (fields, pointer) in [
        (json!({ "token": "hush", "token_type": "magic" }), "/token_type"),
        (json!({ "token_type": "bearer" }), "/token_type"),
        (json!({ "token": "hush", "token_type": "basic" }), "/token"),
        (json!({ "token": "hush", "url": "http://git.example/o/r" }), "/token"),
        (json!({ "github_token": "hush", "url": "http://10.0.0.1/o/r" }), "/github_token"),
        (json!({ "token": "hush", "github_app": {} , "token_type": "auto" }), "/github_app"),
        (json!({ "github_app": "hush" }), "/github_app"),
        (app(&|app| app["app_id"] = json!("hush hush")), "/github_app/app_id"),
        (app(&|app| app["installation_id"] = json!("hush")), "/github_app/installation_id"),
        (app(&|app| app["private_key"] = json!(["hush"])), "/github_app/private_key"),
        (app(&|app| app["private_key"] = json!("hush")), "/github_app"),
        (app(&|app| app["api_url"] = json!("hush")), "/github_app/api_url"),
        (app(&|app| app["api_url"] = json!("https://hush.example/")), "/github_app"),
        (app(&|app| app["api_url"] = json!("http://github.com/")), "/github_app"),
        (app(&|app| app["extra"] = json!("hush")), "/github_app/extra"),
    ] {
        let mut body = json!({ "url": "https://github.com/o/r" });
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
        assert_eq!(answered.status, 422, "{fields}: {answered:?}");
        let problem = answered.problem();
        let pointers: Vec<_> =
            problem["errors"].as_array().expect("errors").iter().map(|fault| &fault["pointer"]).collect();
        assert!(pointers.contains(&&json!(pointer)), "{fields}: {problem}");
        assert!(!answered.body.contains("hush"), "{answered:?}");
    }
    assert!(house.watches().await.is_empty());

    for (fields, kept) in [
        (json!({ "token": "good" }), "good".to_owned()),
        (json!({ "token": "good", "token_type": "auto" }), "good".to_owned()),
        (json!({ "token": "good", "token_type": "gitlab" }), "\ngitlab\ngood".to_owned()),
        (json!({ "token": "good", "url": "http://127.0.0.1:8000/o/r" }), "good".to_owned()),
        (
            app(&|_| {}),
            format!("\ngithub_app\n7\n8\n\n{}", include_str!("../../../tests/keys/rfc7515-a2.pkcs1.pem")),
        ),
    ] {
        let mut body = json!({ "url": "https://github.com/o/r" });
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
        assert_eq!(answered.status, 201, "{answered:?}");
        let id = answered.json()["repository_id"].as_str().expect("an id").to_owned();
        assert_eq!(house.credential(&id).await, Some(kept));
    }
}

#[tokio::test]
async fn the_page_of_a_branch_watches_that_branch() {
    let house = House::open().await;
    let token = house.app().await;
    let page = "https://github.com/o/r/tree/main";
    for more in [json!({}), json!({ "branch": "main" })] {
        let mut body = json!({ "url": page });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let shown = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
        assert_eq!(shown.status, 201, "{shown:?}");
        let shown = shown.json();
        assert_eq!(shown["selector"], json!({ "kind": "branch", "value": "main" }));
        assert_eq!(shown["github_url"], "https://github.com/o/r");
    }
    for (field, value, status) in [("branch", "other", 422), ("tags", "v*", 422)] {
        let body = json!({ "url": page, field: value });
        let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
        assert_eq!(answered.status, status);
        assert!(answered.body.contains("the page of another branch"), "{answered:?}");
    }
    let body = json!({ "url": "https://github.com/o/r/tree/absent" });
    let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
    assert!(answered.status == 422 && answered.body.contains("no such branch"), "{answered:?}");
}

#[tokio::test]
async fn all_our_fields_reach_the_store() {
    let house = House::open().await;
    let token = house.app().await;
    let body = json!({
        "url": "https://git.example/o/r.git", "branch": "main", "include": ["docs/**", "*.md"], "exclude": ["*.tmp"],
        "symlinks": "send", "content": "none", "max_size": 1000, "mode": "every", "start": "now",
    });
    let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
    assert_eq!(answered.status, 201, "{answered:?}");
    let shown = answered.json();
    for (name, value) in [
        ("include", json!(["*.md", "docs/**"])),
        ("exclude", json!(["*.tmp"])),
        ("symlinks", json!("send")),
        ("content", json!("none")),
        ("max_size", json!(1000)),
        ("mode", json!("every")),
        ("state", json!("active")),
        ("is_private", json!(false)),
        ("selector", json!({ "kind": "branch", "value": "main" })),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let watch = &house.watches().await[0];
    assert_eq!(watch.cursors[0].held, Some(ObjectId::new(HEAD)), "it starts now");
    assert_eq!((watch.facts.owner.as_str(), watch.facts.name.as_str()), ("o", "r"));
    assert_eq!(watch.deliver_after, watch.created_at.after(std::time::Duration::from_secs(1)));
}

#[tokio::test]
async fn what_is_left_out_has_its_default() {
    let house = House::open().await;
    let token = house.app().await;
    house.repository(&token, "https://github.com/o/r").await;
    let watch = &house.watches().await[0];
    assert_eq!((watch.selector.kind, watch.cursors[0].held), (SelectorKind::DefaultBranch, None));
    assert_eq!(watch.view, tidings_actors::model::view::View::default());
}

#[tokio::test]
async fn every_field_of_a_registration_is_checked() {
    let house = House::open().await;
    let token = house.app().await;
    for (field, value) in [
        ("github_url", json!("")),
        ("github_url", json!(7)),
        ("github_url", json!("ext::sh -c id")),
        ("github_url", json!("--upload-pack=x")),
        ("github_url", json!("file:///etc")),
        ("github_url", json!("/etc")),
        ("github_url", json!("git://github.com/o/r")),
        ("github_url", json!("http://github.com/o/r")),
        ("github_url", json!("https://user:hush@github.com/o/r")),
        ("github_url", json!("https://github.com/")),
        ("github_url", json!(format!("https://github.com/o/{}", "r".repeat(3000)))),
        ("url", json!("https://github.com/o/r")),
        ("github_token", json!("")),
        ("github_token", json!("a b")),
        ("github_token", json!("a\r\nb")),
        ("token_type", json!("auto")),
        ("branch", json!("no such")),
        ("branch", json!("other")),
        ("branch", json!("release/*")),
        ("tags", json!("v*")),
        ("include", json!("docs")),
        ("include", json!(["a["])),
        ("include", json!([""])),
        ("include", json!(["a\u{0}"])),
        ("exclude", json!(vec!["x"; 300])),
        ("symlinks", json!("follow")),
        ("content", json!("all")),
        ("max_size", json!(-1)),
        ("max_size", json!(1_u64 << 40)),
        ("mode", json!("each")),
        ("start", json!("abc")),
        ("start", json!("A".repeat(40))),
        ("nope", json!(1)),
    ] {
        let mut body = json!({ "github_url": "https://github.com/o/r", "mode": "net" });
        body[field] = value.clone();
        let answered = house.call("POST", REPOSITORIES, Some(&token), Some(&body)).await;
        assert_eq!(answered.status, 422, "{field} {value}: {answered:?}");
        let errors = answered.problem()["errors"].clone();
        // A repeated glob is no fault; too many different ones are.
        let pointers: Vec<_> =
            errors.as_array().expect("errors").iter().map(|fault| fault["pointer"].clone()).collect();
        assert_eq!(pointers, [json!(format!("/{field}"))], "{value}");
        assert!(!answered.body.contains("hush"), "{answered:?}");
    }
    assert!(house.watches().await.is_empty());
}

#[tokio::test]
async fn an_app_sees_lists_and_steers_its_own_only() {
    let house = House::open().await;
    let (mine, other) = (house.app().await, house.app().await);
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(house.repository(&mine, &format!("https://github.com/o/{name}")).await);
    }
    let first = house.call("GET", "/api/repositories?limit=2", Some(&mine), None).await.json();
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    let cursor = first["next_cursor"].as_str().expect("there is more");
    let path = format!("/api/repositories?limit=2&cursor={cursor}");
    let second = house.call("GET", &path, Some(&mine), None).await.json();
    assert_eq!((second["items"].as_array().map(Vec::len), &second["next_cursor"]), (Some(1), &Value::Null));
    assert_eq!(house.call("GET", &path, Some(&other), None).await.status, 400, "a cursor belongs to its app");
    assert_eq!(house.call("GET", REPOSITORIES, Some(&other), None).await.json()["items"], json!([]));

    let missing = "repo_00000000000000000000000000";
    for (method, verb, body) in [
        ("GET", "", None),
        ("PATCH", "", Some(json!({ "mode": "net" }))),
        ("PATCH", "/token", Some(json!({ "token": "good" }))),
        ("DELETE", "", None),
        ("POST", "/scan", None),
        ("POST", "/resync", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
    ] {
        let call = async |id: &str| {
            let path = format!("{REPOSITORIES}/{id}{verb}");
            let answered = house.call(method, &path, Some(&other), body.as_ref()).await;
            (answered.status, answered.problem().to_string().replace(id, "ID"))
        };
        let (status, problem) = call(missing).await;
        assert_eq!(status, 404, "{method} {verb}: {problem}");
        for id in [ids[0].as_str(), "repo_x", "app_00000000000000000000000000"] {
            assert_eq!(call(id).await, (404, problem.clone()), "missing and foreign look the same");
        }
        for id in ["..%2f..", "%00", "%ff"] {
            assert_eq!(call(id).await.0, 404, "{method} {id}{verb}");
        }
    }
}

#[tokio::test]
async fn a_watch_is_steered() {
    let house = House::open().await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    let one = format!("{REPOSITORIES}/{id}");
    let call = async |method: &str, verb: &str, body: Option<Value>| {
        house.call(method, &format!("{one}{verb}"), Some(&token), body.as_ref()).await
    };
    assert_eq!(call("POST", "/scan", None).await.status, 202);
    let watch = house.watch(&id).await;
    house.begin_round(&watch, 7, 3, 9).await;
    let skipped = call("POST", "/skip", None).await;
    assert_eq!(
        (skipped.status, &skipped.json()["round"], &skipped.json()["position"]),
        (202, &json!(7), &json!(3))
    );
    let cursor = skipped.json()["cursor"].clone();
    let seen = json!({ "cursor": cursor, "round": 7, "position": 3 });
    assert_eq!(call("POST", "/skip", Some(seen)).await.status, 202);
    assert_eq!(call("POST", "/skip", Some(json!({ "round": 7, "position": 2 }))).await.status, 409);
    assert_eq!(call("POST", "/skip", Some(json!({ "cursor": "cur_x" }))).await.status, 404);
    assert_eq!(call("POST", "/resync", Some(json!({ "complete": true }))).await.status, 202);
    assert_eq!(call("POST", "/resync", None).await.status, 202);
    let lane = house.sqlite().lane(&watch.cursors[0].id).await.expect("read");
    assert_eq!(lane.resync, Some(true), "one that is complete stays so");
    let settings = json!({ "delivery": { "resync": false } });
    assert_eq!(house.call("PATCH", "/api/app", Some(&token), Some(&settings)).await.status, 200);
    let answered = call("POST", "/resync", Some(json!({ "complete": true }))).await;
    assert!(answered.body.contains("delivery.resync of this app is false"), "{answered:?}");
    let paused = call("POST", "/pause", None).await.json();
    assert_eq!((&paused["state"], &paused["reason"]), (&json!("paused"), &json!("paused by the app")));
    assert_eq!(call("POST", "/resume", None).await.json()["state"], "active");
    let patched = call("PATCH", "", Some(json!({ "include": ["a/**"], "state": "paused", "mode": "every" })))
        .await
        .json();
    assert_eq!(
        (&patched["include"], &patched["state"], &patched["mode"]),
        (&json!(["a/**"]), &json!("paused"), &json!("every"))
    );
    let patched = call("PATCH", "", Some(json!({ "exclude": ["*.x"] }))).await.json();
    assert_eq!((&patched["include"], &patched["exclude"]), (&json!(["a/**"]), &json!(["*.x"])));
    for body in [
        json!({ "url": "x" }),
        json!({ "state": "gone" }),
        json!({ "include": ["["] }),
        json!({ "token": "x" }),
    ] {
        assert_eq!(call("PATCH", "", Some(body.clone())).await.status, 422, "{body}");
    }
    for (verb, body) in [
        ("/scan", json!({ "x": 1 })),
        ("/resync", json!({ "complete": "yes" })),
        ("/pause", json!({ "reason": 1 })),
        ("/skip", json!({ "position": 1 })),
        ("/skip", json!({ "round": -1, "position": 1 })),
    ] {
        assert_eq!(call("POST", verb, Some(body)).await.status, 422, "{verb}");
    }
    let shown = call("GET", "", None).await.json();
    assert_eq!(shown["branches"][0]["branch"], "refs/heads/main");
    assert_eq!(shown["breaker"]["state"], "closed");
}
