//! Dead letters of an app: lists, searches and redrives.

use super::{super::ADMIN, *};

#[tokio::test]
async fn dead_letters_are_searched_and_redriven_by_the_same_words() {
    let house = House::open().await;
    let (mine, other) = (house.app().await, house.app().await);
    let owner = house.call("GET", "/api/app", Some(&mine), None).await.json();
    let owner: AppId = owner["app_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    house.repository(&mine, "https://github.com/o/r").await;
    let mut ids = Vec::new();
    for path in [&b"docs/a.md"[..], b"docs/b/c.md", b"\xff"] {
        ids.push(house.park(&owner, path).await);
    }
    let count = async |query: &str| -> usize {
        let path = format!("/api/dead-letters?{query}");
        let answered = house.call("GET", &path, Some(&mine), None).await;
        assert_eq!(answered.status, 200, "{query}: {answered:?}");
        answered.json()["items"].as_array().expect("items").len()
    };
    for (query, expected) in [
        ("", 3),
        ("path=docs/a.md", 1),
        ("path_base64=/w==", 1),
        ("path_prefix=docs/", 2),
        ("path_glob=docs/*.md", 1),
        ("path_glob=**/*.md&status=open", 2),
        ("kind=delete&reason=rejected", 3),
        ("kind=create", 0),
        ("reason=skipped", 0),
        ("from=1970-01-01T00:00:00Z&to=1970-01-01T00:00:00.001Z", 3),
        ("to=1970-01-01T00:00:00Z", 0),
        ("repository_id=repo_00000000000000000000000000", 0),
    ] {
        assert_eq!(count(query).await, expected, "{query}");
    }
    for wrong in [
        "path=a&path_prefix=b",
        "path_glob=%5B",
        "path_glob=/docs/*.md",
        "kind=move",
        "reason=x",
        "from=today",
        "path_base64=!",
        "repository_id=x",
    ] {
        let path = format!("/api/dead-letters?{wrong}");
        assert_eq!(house.call("GET", &path, Some(&mine), None).await.status, 400, "{wrong}");
    }
    let page = house.call("GET", "/api/dead-letters?limit=2", Some(&mine), None).await.json();
    let next = format!("/api/dead-letters?limit=2&cursor={}", page["next_cursor"].as_str().expect("more"));
    let rest = house.call("GET", &next, Some(&mine), None).await.json();
    assert_eq!(rest["items"][0]["path"], "docs/a.md");
    assert_eq!(house.call("GET", &next, Some(&other), None).await.status, 400, "made for another");

    let one = format!("/api/dead-letters/{}", ids[0]);
    let shown = house.call("GET", &one, Some(&mine), None).await.json();
    assert_eq!((&shown["path"], &shown["attempts"][0]["took_ms"]), (&json!("docs/a.md"), &json!(7)));
    assert_eq!(house.call("GET", &one, Some(&other), None).await.status, 404);

    let all = "/api/dead-letters/redrive";
    let ask = async |body: Value| house.call("POST", all, Some(&mine), Some(&body)).await;
    assert_eq!(ask(json!({ "path_glob": "[" })).await.status, 422);
    let never = ask(json!({ "path_glob": "/docs/*.md" })).await;
    assert_eq!(never.status, 422);
    assert!(never.body.contains("matches no path") && never.body.contains("docs/*.md"), "{never:?}");
    assert_eq!(ask(json!({ "ids": [ids[0]], "reason": "rejected" })).await.status, 422);
    assert_eq!(ask(json!({ "repository_id": "repo_00000000000000000000000000" })).await.status, 404);
    let dry = ask(json!({ "path_prefix": "docs/", "dry_run": true })).await;
    let at_least = json!(false);
    assert_eq!(
        (dry.status, &dry.json()["would_request"], &dry.json()["at_least"]),
        (200, &json!(2), &at_least)
    );
    assert_eq!(count("status=open").await, 3, "a dry run changes nothing");
    let asked = ask(json!({ "path_glob": "docs/*.md" })).await.json();
    assert_eq!(asked["requested"], 1);
    assert_eq!(count("status=redrive_requested&path=docs/a.md").await, 1);
    let shown = house.call("GET", "/api/dead-letters/redrives", Some(&mine), None).await.json();
    assert_eq!(shown["items"][0]["filter"], json!({ "path_glob": "docs/*.md" }));
}

#[tokio::test]
async fn dead_letters_are_listed_and_redriven() {
    let house = House::open().await;
    let (mine, other) = (house.app().await, house.app().await);
    let owner: AppId = house.call("GET", "/api/app", Some(&mine), None).await.json()["app_id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .expect("an id");
    house.repository(&mine, "https://github.com/o/r").await;
    let ids = [house.park(&owner, b"a.txt").await, house.park(&owner, b"\xff").await];
    let listed = house.call("GET", "/api/dead-letters?status=open", Some(&mine), None).await.json();
    let items = listed["items"].as_array().expect("items");
    assert_eq!((&items[0]["path"], &items[0]["path_base64"]), (&json!("\u{fffd}"), &json!("/w==")));
    assert_eq!((&items[1]["path"], &items[1]["path_base64"]), (&json!("a.txt"), &Value::Null));

    let one = format!("/api/dead-letters/{}/redrive", ids[0]);
    for path in [
        one.as_str(),
        "/api/dead-letters/dead_00000000000000000000000000/redrive",
        "/api/dead-letters/x/redrive",
    ] {
        let answered = house.call("POST", path, Some(&other), None).await;
        assert_eq!(answered.problem()["type"], "urn:tidings:problem:dead-letter-not-found");
    }
    let answered = house.call("POST", &one, Some(&mine), None).await;
    assert_eq!((answered.status, answered.json()), (202, json!({ "requested": 1 })));
    let all = "/api/dead-letters/redrive";
    assert_eq!(house.call("POST", all, Some(&mine), Some(&json!({ "ids": [] }))).await.status, 422);
    assert_eq!(house.call("POST", all, Some(&mine), Some(&json!({ "ids": ["x"] }))).await.status, 404);
    let dry = house.call("POST", all, Some(&mine), Some(&json!({ "dry_run": true }))).await.json();
    assert_eq!((&dry["would_request"], &dry["sample"][0]["path_base64"]), (&json!(1), &json!("/w==")));
    let asked = house.call("POST", all, Some(&mine), None).await.json();
    assert_eq!(asked["requested"], 1, "the dry run marked nothing: {asked}");
    let progress = format!("/api/dead-letters/redrives/{}", asked["redrive_id"].as_str().expect("an id"));
    let shown = house.call("GET", &progress, Some(&mine), None).await.json();
    assert_eq!((&shown["state"], &shown["asked"], &shown["left"]), (&json!("sending"), &json!(1), &json!(1)));
    let foreign = house.call("GET", &progress, Some(&other), None).await;
    assert_eq!(foreign.problem()["type"], "urn:tidings:problem:redrive-not-found");
    let list = "/api/dead-letters/redrives";
    let listed = house.call("GET", list, Some(&mine), None).await.json();
    let of_one = json!({ "state": &listed["items"][1]["state"], "filter": &listed["items"][1]["filter"] });
    assert_eq!((&listed["items"][0], listed["items"].as_array().map(Vec::len)), (&shown, Some(2)));
    assert_eq!(of_one, json!({ "state": "sending", "filter": null }), "the one that was named by its id");
    assert_eq!(house.call("GET", list, Some(&other), None).await.json()["items"], json!([]));
    let cancel = "/api/dead-letters/redrive/cancel";
    let of_nobody = json!({ "repository_id": "repo_00000000000000000000000000" });
    assert_eq!(house.call("POST", cancel, Some(&mine), Some(&of_nobody)).await.status, 404);
    assert_eq!(house.call("POST", cancel, Some(&mine), Some(&json!({ "all": true }))).await.status, 422);
    let nothing = house.call("POST", cancel, Some(&other), None).await;
    assert_eq!((nothing.status, nothing.json()), (202, json!({ "reopened": 0, "ending": [] })));
    let cancelled = house.call("POST", cancel, Some(&mine), None).await.json();
    assert_eq!(cancelled, json!({ "reopened": 2, "ending": [] }));
    assert_eq!(house.call("POST", all, Some(&mine), None).await.json()["requested"], 2);
    house.supersede(&ids[0]).await;
    let answered = house.call("POST", &one, Some(&mine), None).await;
    assert_eq!(answered.problem()["type"], "urn:tidings:problem:conflict", "an old state over a newer one");
    let open = house.call("GET", "/api/dead-letters?status=open", Some(&mine), None).await.json();
    assert_eq!(open["items"], json!([]));
    assert_eq!(house.call("GET", "/api/dead-letters?status=lost", Some(&mine), None).await.status, 400);
}

#[tokio::test]
async fn the_lists_of_one_app_and_of_all_apps_read_their_queries_alike() {
    let house = House::open().await;
    let app = house.app().await;
    let refusal = async |path: &str, token: &str, query: &str| -> String {
        let answered = house.call("GET", &format!("{path}?{query}"), Some(token), None).await;
        assert_eq!(answered.status, 400, "{path}?{query}: {answered:?}");
        answered.json()["detail"].as_str().expect("a detail").replace(", app_id", "")
    };
    for list in ["dead-letters", "deliveries", "queues", "schedules"] {
        let mut queries = vec!["nothing=1", "limit=0", "limit=101", "cursor=x", "q=nothing:x"];
        if ["dead-letters", "deliveries"].contains(&list) {
            queries.extend(["status=x", "path=a&path_prefix=b", "kind=move", "from=today"]);
        }
        for query in queries {
            let (of_one, of_all) = (format!("/api/{list}"), format!("/api/admin/{list}"));
            let of_one = refusal(&of_one, &app, query).await;
            assert_eq!(of_one, refusal(&of_all, ADMIN, query).await, "{list}?{query}");
        }
    }
}

#[tokio::test]
async fn every_dead_letter_stands_on_one_page_of_the_list_of_its_app_and_of_the_list_of_all() {
    let house = House::open().await;
    let app = house.app().await;
    let owner = house.call("GET", "/api/app", Some(&app), None).await.json();
    let owner: AppId = owner["app_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    house.repository(&app, "https://github.com/o/r").await;
    for path in [&b"a.md"[..], b"b.md", b"c.md"] {
        house.park(&owner, path).await;
    }
    let pages = async |path: &str, token: &str| -> Vec<String> {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = house.call("GET", &format!("{path}?limit=2{cursor}"), Some(token), None).await.json();
            let items = page["items"].as_array().expect("items");
            seen.extend(items.iter().map(|item| item["path"].as_str().expect("a path").to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { return seen };
            cursor = format!("&cursor={next}");
        }
    };
    let mut of_one = pages("/api/dead-letters", &app).await;
    assert_eq!(of_one, pages("/api/admin/dead-letters", ADMIN).await);
    of_one.sort();
    assert_eq!(of_one, ["a.md", "b.md", "c.md"]);
}
