//! Contents by blob id.

use super::{House, house::Answered};

/// A blob of which [`GitDouble`](super::git::GitDouble) does what its first byte says.
fn blob(first: u8) -> String {
    format!("{first:02x}").repeat(20)
}

async fn get(house: &House, token: &str, path: &str, headers: &str) -> Answered {
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n");
    house.send(format!("{head}{headers}\r\n").as_bytes()).await
}

#[tokio::test]
async fn a_content_that_a_tree_of_the_watch_has_is_served_with_its_headers() {
    let house = House::open().await;
    let token = house.app().await;
    let id = house.held_repository(&token, "https://github.com/o/r").await;
    for (first, length) in [(1, 5), (5, 2 << 20), (8, 0)] {
        let path = format!("/api/repositories/{id}/blobs/{}", blob(first));
        let answered = get(&house, &token, &path, "").await;
        assert_eq!((answered.status, answered.body.len()), (200, length));
        for (name, value) in [
            ("content-type", "application/octet-stream"),
            ("content-length", length.to_string().as_str()),
            ("etag", format!("\"{}\"", blob(first)).as_str()),
            ("cache-control", "private, no-cache"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answered.header(name), Some(value), "{answered:?}");
        }
        let head = house.call("HEAD", &path, Some(&token), None).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), Some(length.to_string().as_str()));
    }
    let upper = format!("/api/repositories/{id}/blobs/{}", "AB".repeat(20));
    assert_eq!(get(&house, &token, &upper, "").await.status, 200);
}

#[tokio::test]
async fn what_the_client_has_already_is_not_sent_again() {
    let house = House::open().await;
    let token = house.app().await;
    let id = house.held_repository(&token, "https://github.com/o/r").await;
    let path = format!("/api/repositories/{id}/blobs/{}", blob(1));
    for (sent, status) in [
        (format!("\"{}\"", blob(1)), 304),
        (format!("W/\"{}\"", blob(1)), 304),
        (format!("\"other\", \"{}\"", blob(1)), 304),
        ("*".to_owned(), 304),
        (format!("\"{}\"", blob(2)), 200),
        (blob(1), 200),
        (String::new(), 200),
    ] {
        let answered = get(&house, &token, &path, &format!("if-none-match: {sent}\r\n")).await;
        assert_eq!(answered.status, status, "{sent}");
        assert_eq!(answered.header("etag"), Some(format!("\"{}\"", blob(1)).as_str()));
        assert_eq!(answered.body.is_empty(), status == 304);
    }
    let gone = format!("/api/repositories/{id}/blobs/{}", blob(0));
    let answered = get(&house, &token, &gone, &format!("if-none-match: \"{}\"\r\n", blob(0))).await;
    assert_eq!(answered.status, 410, "an app that has the blob is told as well that it is gone");
}

#[tokio::test]
async fn what_cannot_be_served_says_why() {
    let house = House::with(|settings| settings.server.download_memory_bytes = 1 << 20).await;
    let (token, other) = (house.app().await, house.app().await);
    let id = house.held_repository(&token, "https://github.com/o/r").await;
    let foreign = house.held_repository(&other, "https://github.com/o/r").await;
    let seen = |id: &str, blob: &str| format!("/api/repositories/{id}/blobs/{blob}");
    for (path, status, code, retry_after) in [
        (seen(&id, &blob(0)), 410, "content-gone", None),
        (seen(&id, &blob(2)), 503, "content-unavailable", Some("30")),
        (seen(&id, &blob(3)), 503, "content-unavailable", Some("77")),
        (seen(&id, &blob(4)), 503, "content-unavailable", Some("30")),
        (seen(&id, &blob(6)), 422, "content-too-large", None),
        (seen(&id, &blob(7)), 503, "content-unavailable", Some("30")),
        (seen(&id, &blob(0xbb)), 503, "content-unavailable", Some("30")),
        (seen(&foreign, &blob(1)), 404, "repository-not-registered", None),
        (seen("repo_nothing", &blob(1)), 404, "repository-not-registered", None),
        (seen(&id, &blob(1)[1..]), 400, "malformed", None),
        (seen(&id, &format!("{}0", blob(1))), 400, "malformed", None),
        (seen(&id, &"g".repeat(40)), 400, "malformed", None),
        (seen(&id, "%2e%2e"), 400, "malformed", None),
    ] {
        let answered = get(&house, &token, &path, "").await;
        assert_eq!(answered.status, status, "{path}: {answered:?}");
        assert_eq!(answered.problem()["type"], format!("urn:tidings:problem:{code}"), "{path}");
        assert_eq!(answered.header("retry-after"), retry_after, "{path}");
        assert!(!answered.body.contains("planted"), "{answered:?}");
        assert_eq!(answered.header("cache-control"), Some("no-store"));
    }
    let path = seen(&id, &blob(1));
    assert_eq!(house.call("GET", &path, None, None).await.status, 401);
    for _ in 0..20 {
        assert_eq!(get(&house, &token, &path, "").await.status, 200, "what is over counts no more");
    }
}
