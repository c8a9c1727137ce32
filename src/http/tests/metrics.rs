//! The texts of `/metrics` and the rows of `/api/admin/lag`.

use super::{House, house::ADMIN};

#[tokio::test]
async fn requests_are_measured_by_the_template_of_their_route() {
    let house = House::open().await;
    let token = house.app().await;
    let secret_id = "repo_00000000000000000000000000";
    let path = format!("/api/repositories/{secret_id}");
    assert_eq!(house.call("GET", &path, Some(&token), None).await.status, 404);
    assert_eq!(house.call("GET", "/no/such/route", Some(&token), None).await.status, 404);
    let shown = house.call("GET", "/metrics", None, None).await;
    assert_eq!(
        (shown.status, shown.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    let measured = |route: &str| {
        let start = "tidings_http_request_duration_seconds_count{method=\"GET\",";
        let line = format!("{start}route=\"{route}\",status=\"4xx\"}}");
        shown.body.lines().any(|shown| shown.starts_with(&line))
    };
    assert!(measured("/api/repositories/{id}") && measured("none"), "{}", shown.body);
    assert!(!shown.body.contains(secret_id) && !shown.body.contains("no/such"), "{}", shown.body);
    assert!(shown.body.contains("tidings_http_connections "));
}

#[tokio::test]
async fn the_worst_watches_are_named_to_the_administrator_alone() {
    let house = House::open().await;
    let token = house.app().await;
    for number in 0..20 {
        house.repository(&token, &format!("https://github.com/o/r{number}")).await;
        house
            .plant(&format!(
                "update cursor set state = 'blocked', reason = 'ten in a row', behind_since = {}
                 where watch_id in (select id from watch where name = 'r{number}')",
                1_000 + number
            ))
            .await;
    }
    let named = house.call("GET", "/api/admin/lag", Some(ADMIN), None).await;
    let page = named.json();
    let named = &page["items"];
    assert_eq!(named.as_array().map(Vec::len), Some(10));
    assert_eq!((&named[0]["name"], &named[0]["state"]), (&"r0".into(), &"blocked".into()));
    assert_eq!(named[0]["behind_since"], "1970-01-01T00:00:01.000Z");
    assert!(named[0]["lag_ms"].as_u64().is_some_and(|lag| lag > 1_000_000_000));
    let two = house.call("GET", "/api/admin/lag?limit=2", Some(ADMIN), None).await.json();
    assert_eq!(two["items"].as_array().map(Vec::len), Some(2));
    let cursor = page["next_cursor"].as_str().expect("ten more");
    let more = house.call("GET", &format!("/api/admin/lag?cursor={cursor}"), Some(ADMIN), None).await.json();
    assert_eq!((&more["items"][0]["name"], &more["items"][9]["name"]), (&"r10".into(), &"r19".into()));
    assert!(more["next_cursor"].is_null(), "{more}");
    assert_eq!(house.call("GET", "/api/admin/lag?limit=0", Some(ADMIN), None).await.status, 400);
    for token in [None, Some(token.as_str())] {
        assert_eq!(house.call("GET", "/api/admin/lag", token, None).await.status, 401);
    }
}
