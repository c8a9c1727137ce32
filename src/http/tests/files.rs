//! The files that an app holds, page by page.

use serde_json::{Value, json};
use tidings_actors::ports::LaneStore;

use super::House;

#[tokio::test]
async fn files_are_listed_in_pages_of_one_tree() {
    let house = House::open().await;
    let token = house.app().await;
    let id = house.held_repository(&token, "https://github.com/o/r").await;
    let path = format!("/api/repositories/{id}/files");
    let mut paths = Vec::new();
    let mut query = "?limit=2".to_owned();
    let mut cursors = Vec::new();
    loop {
        let page = house.call("GET", &format!("{path}{query}"), Some(&token), None).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        assert_eq!(page["branch"], "refs/heads/main");
        assert_eq!(page["held_commit"], "07".repeat(20));
        paths.extend(page["items"].as_array().expect("items").clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&branch=main&cursor={next}");
        cursors.push(next.to_owned());
    }
    let shown: Vec<&Value> = paths.iter().map(|file| &file["path"]).collect();
    assert_eq!(shown, ["a", "b/a", "c", "d\u{fffd}", "e"]);
    assert_eq!(paths[0], json!({ "path": "a", "mode": "100644", "blob": "61".repeat(20) }));
    assert_eq!((&paths[3]["path_base64"], cursors.len()), (&json!("ZP8="), 2));

    // What is held moves on between two pages: here by another view of the same commit.
    let patch = json!({ "include": ["docs/**"] });
    let patched = house.call("PATCH", &format!("/api/repositories/{id}"), Some(&token), Some(&patch)).await;
    assert_eq!(patched.status, 200, "{patched:?}");
    let watch = house.watch(&id).await;
    let held = Some((watch.cursors[0].held.expect("it starts now"), watch.view.id()));
    house.sqlite().advance(&watch.cursors[0].id, 0, held).await.expect("advanced");
    let stale = house.call("GET", &format!("{path}?cursor={}", cursors[0]), Some(&token), None).await;
    assert_eq!((stale.status, &stale.problem()["type"]), (409, &json!("urn:tidings:problem:conflict")));
    assert_eq!(house.call("GET", &path, Some(&token), None).await.status, 200);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told() {
    let house = House::open().await;
    let (token, other) = (house.app().await, house.app().await);
    let id = house.held_repository(&token, "https://github.com/o/r").await;
    let foreign = house.held_repository(&other, "https://github.com/o/r").await;
    for (path, status) in [
        (format!("{id}/files?branch=nope"), 400),
        (format!("{id}/files?limit=0"), 400),
        (format!("{id}/files?cursor=AAAAAAAAAAAAAAAA"), 400),
        (format!("{id}/files?path=a"), 400),
        (format!("{foreign}/files"), 404),
        ("repo_nothing/files".to_owned(), 404),
        (format!("{id}/files?branch=refs%2Fheads%2Fmain"), 200),
    ] {
        let answered = house.call("GET", &format!("/api/repositories/{path}"), Some(&token), None).await;
        assert_eq!(answered.status, status, "{path}: {answered:?}");
    }
}
