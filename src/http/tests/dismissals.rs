//! Dead letters that are closed by hand, through the API.

use serde_json::{Value, json};
use tidings_entity::id::AppId;

use super::house::House;

#[tokio::test]
async fn letters_are_dismissed_by_id_by_filter_or_all_of_them() {
    let house = House::open().await;
    let (mine, other) = (house.app().await, house.app().await);
    let owner = house.call("GET", "/api/app", Some(&mine), None).await.json();
    let owner: AppId = owner["app_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    house.repository(&mine, "https://github.com/o/r").await;
    let mut ids = Vec::new();
    for path in [&b"docs/a.md"[..], b"docs/b.md", b"src/x", b"src/y"] {
        ids.push(house.park(&owner, path).await);
    }
    let open = async || -> Vec<String> {
        let page = house.call("GET", "/api/dead-letters?status=open", Some(&mine), None).await.json();
        let items = page["items"].as_array().expect("items").clone();
        items.iter().map(|item| item["path"].as_str().expect("a path").to_owned()).collect()
    };
    let all = "/api/dead-letters/dismiss";
    let one = format!("/api/dead-letters/{}/dismiss", ids[0]);

    for path in [one.as_str(), "/api/dead-letters/dead_00000000000000000000000000/dismiss"] {
        let answered = house.call("POST", path, Some(&other), None).await;
        assert_eq!(answered.problem()["type"], "urn:tidings:problem:dead-letter-not-found");
    }
    let ask = async |body: Value| house.call("POST", all, Some(&mine), Some(&body)).await;
    for wrong in [
        json!({}),
        json!({ "all": false }),
        json!({ "all": true, "path": "a" }),
        json!({ "ids": [ids[0]], "all": true }),
        json!({ "ids": [] }),
        json!({ "path_glob": "[" }),
        json!({ "everything": true }),
        json!({ "q": " " }),
        json!({ "q": " ", "dry_run": true }),
        json!({ "q": "", "dry_run": true }),
        json!({ "q": " ", "path_prefix": "docs/", "dry_run": true }),
    ] {
        assert_eq!(ask(wrong.clone()).await.status, 422, "{wrong}");
    }
    for verb in ["dead-letters/redrive", "tasks/redrive"] {
        for dry_run in [false, true] {
            let blank = json!({ "q": " ", "dry_run": dry_run });
            let answer = house.call("POST", &format!("/api/{verb}"), Some(&mine), Some(&blank)).await;
            let problem = answer.problem();
            assert_eq!((answer.status, &problem["errors"][0]["pointer"]), (422, &json!("/q")), "{verb}");
        }
    }
    assert_eq!(ask(json!({ "repository_id": "repo_00000000000000000000000000" })).await.status, 404);
    assert_eq!(house.call("POST", all, Some(&mine), None).await.status, 422, "no body is not all");
    let dry = ask(json!({ "path_prefix": "docs/", "dry_run": true })).await.json();
    assert_eq!((&dry["would_request"], &dry["sample"][1]["path"]), (&json!(2), &json!("docs/a.md")));
    assert_eq!(open().await.len(), 4, "a wrong request and a dry run close nothing");

    let done = house.call("POST", &one, Some(&mine), None).await;
    let closed = |dismissed: u64| json!({ "dismissed": dismissed, "bound": 0, "more": false });
    assert_eq!((done.status, done.json()), (200, closed(1)));
    assert_eq!(house.call("POST", &one, Some(&mine), None).await.json(), closed(0), "closed before");
    let shown = house.call("GET", &format!("/api/dead-letters/{}", ids[0]), Some(&mine), None).await.json();
    assert_eq!(shown["status"], "dismissed");
    assert_eq!(ask(json!({ "path_glob": "docs/*" })).await.json(), closed(1));
    assert_eq!(open().await, ["src/y", "src/x"]);
    house.supersede(&ids[2]).await;
    let answered = ask(json!({ "ids": [ids[2]] })).await;
    assert_eq!(answered.problem()["type"], "urn:tidings:problem:conflict");
    assert_eq!(ask(json!({ "all": true })).await.json(), closed(1));
    assert_eq!(open().await, Vec::<String>::new());
    let listed = house.call("GET", "/api/dead-letters?status=dismissed", Some(&mine), None).await.json();
    assert_eq!(listed["items"].as_array().expect("items").len(), 3);
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_is_not_taken_for_a_request_for_all() {
    let house = House::open().await;
    let token = house.app().await;
    for verb in ["dead-letters/dismiss", "dead-letters/redrive", "tasks/redrive"] {
        let (path, wrong) = (format!("/api/{verb}"), json!({ "q": "colour:red" }));
        let problem = house.call("POST", &path, Some(&token), Some(&wrong)).await.problem();
        let faults = problem["errors"].as_array().expect("faults");
        let pointers: Vec<&Value> = faults.iter().map(|fault| &fault["pointer"]).collect();
        assert_eq!(pointers, [&json!("/q")], "{verb}: {problem}");
    }
    for verb in ["dead-letters/dismiss", "tasks/redrive"] {
        let path = format!("/api/{verb}");
        let problem = house.call("POST", &path, Some(&token), Some(&json!({}))).await.problem();
        assert_eq!(problem["errors"][0]["pointer"], "/all", "{verb}: {problem}");
    }
}
