//! Whatever a client sends, it gets a 4xx and a reason, soon; never a 5xx, never silence, never its
//! own secrets back.

use serde_json::json;

use super::House;

/// A POST with this body, as JSON unless `headers` say something else.
fn post(path: &str, token: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn bodies_that_are_no_honest_json_are_refused() {
    let house = House::open().await;
    let token = house.app().await;
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    let nested = [b"{\"github_url\":".as_slice(), &deep, b"}"].concat();
    let cases: &[(&str, &[u8], u16)] = &[
        ("empty", b"", 400),
        ("null", b"null", 400),
        ("array", b"[]", 400),
        ("text", b"\"x\"", 400),
        ("number", b"1", 400),
        ("deep", &deep, 400),
        ("nested", &nested, 400),
        ("truncated", b"{\"github_url\":\"https", 400),
        ("two values", b"{} {}", 400),
        ("named twice", b"{\"github_url\":\"a\",\"github_url\":\"b\"}", 400),
        (
            "named twice within",
            b"{\"github_url\":\"https://x.example/o/r\",\"github_app\":{\"app_id\":1,\"app_id\":2}}",
            400,
        ),
        ("too large a number", b"{\"max_size\":1e400}", 400),
        ("negative zero", b"{\"github_url\":\"https://x.example/o/r\",\"max_size\":-0}", 422),
        (
            "beyond 64 bits",
            b"{\"github_url\":\"https://x.example/o/r\",\"max_size\":18446744073709551616}",
            422,
        ),
        ("fraction", b"{\"github_url\":\"https://x.example/o/r\",\"max_size\":1.5}", 422),
        ("lone surrogate", b"{\"github_url\":\"\\ud800\"}", 400),
        ("NUL", b"{\"github_url\":\"https://x.example/o/\\u0000\"}", 422),
        ("byte order mark", b"\xef\xbb\xbf{}", 400),
        ("not UTF-8", b"{\"github_url\":\"\xff\"}", 400),
        ("trailing comma", b"{\"a\":1,}", 400),
        ("no field", b"{}", 422),
        ("empty name", b"{\"mode\":\"net\",\"\":1,\"github_url\":\"https://x.example/o/r\"}", 422),
    ];
    for (name, body, status) in cases {
        let request = post("/api/repositories", &token, "content-type: application/json\r\n", body);
        let answered = house.send(&request).await;
        assert_eq!(answered.status, *status, "{name}: {answered:?}");
        answered.problem();
    }
    assert!(house.watches().await.is_empty());
}

#[tokio::test]
async fn bodies_say_what_they_are_and_keep_to_the_limit() {
    let house = House::open().await;
    let token = house.app().await;
    for (headers, status) in [
        ("", 415),
        ("content-type: text/plain\r\n", 415),
        ("content-type: application/x-www-form-urlencoded\r\n", 415),
        ("content-type: application/jsonp\r\n", 415),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", 415),
        ("content-type: Application/JSON; charset=utf-8\r\n", 422),
    ] {
        let answered = house.send(&post("/api/repositories", &token, headers, b"{}")).await;
        assert_eq!(answered.status, status, "{headers}");
        answered.problem();
    }
    let large = vec![b' '; (1 << 20) + 1];
    let answered =
        house.send(&post("/api/repositories", &token, "content-type: application/json\r\n", &large)).await;
    assert_eq!(answered.status, 413);
    assert_eq!(answered.header("connection"), Some("close"));
    let chunked = format!(
        "POST /api/repositories HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
        large.len()
    );
    let answered = house.send(&[chunked.as_bytes(), &large, b"\r\n0\r\n\r\n"].concat()).await;
    assert_eq!(answered.status, 413, "a length that is not announced counts as well");
    let announced = format!(
        "POST /api/repositories HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n"
    );
    assert_eq!(house.send(announced.as_bytes()).await.status, 413, "nothing of it needs to arrive");
}

#[tokio::test]
async fn queries_are_read_strictly() {
    let house = House::open().await;
    let token = house.app().await;
    let long = format!("cursor={}", "x".repeat(7000));
    for query in [
        "limit=0",
        "limit=-1",
        "limit=101",
        "limit=1e9",
        "limit=NaN",
        "limit=",
        "limit=1&limit=2",
        "limits=1",
        "cursor=",
        "cursor=%00",
        "cursor=%",
        "cursor=AAAA",
        "cursor=AAAAAAAAAAAAAAAA",
        &long,
        "&a",
        "%ff=1",
    ] {
        for list in ["/api/repositories", "/api/dead-letters", "/api/deliveries"] {
            let answered = house.call("GET", &format!("{list}?{query}"), Some(&token), None).await;
            assert_eq!(answered.status, 400, "{list}?{query}");
            answered.problem();
        }
    }
    let answered = house
        .call("GET", &format!("/api/repositories?cursor={}", "x".repeat(9000)), Some(&token), None)
        .await;
    assert_eq!(answered.status, 414);
    assert_eq!(house.call("GET", "/api/repositories?limit=100", Some(&token), None).await.status, 200);
}

#[tokio::test]
async fn requests_that_are_no_http_are_answered_with_4xx() {
    let house = House::open().await;
    let many: String = (0..100).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        "GARBAGE\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
        format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(64 << 10)),
        "GET /health HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nhost: x\r\nx: a\r\n folded\r\n\r\n".to_owned(),
        "POST /api/app HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
        "POST /api/app HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for case in cases {
        let answered = house.send(case.as_bytes()).await;
        assert!(answered.status == 0 || (400..500).contains(&answered.status), "{case:.40}: {answered:?}");
    }
    assert_eq!(house.call("GET", "/livez", None, None).await.status, 200);
}

#[tokio::test]
async fn a_field_that_cannot_be_changed_is_refused_with_the_reason() {
    let house = House::open().await;
    let token = house.app().await;
    let id = house.repository(&token, "https://github.com/o/r").await;
    let watch = format!("/api/repositories/{id}");
    for (path, field, reason) in [
        (watch.as_str(), "branch", "cannot be changed: remove the watch, and add one"),
        (&watch, "url", "cannot be changed: remove the watch, and add one"),
        (&watch, "token", "cannot be changed: PATCH /api/repositories/{id}/token"),
        ("/api/app", "app_name", "cannot be changed: it was given when the app was registered"),
        ("/api/hooks/any", "provider", "cannot be changed: the address of the hook"),
    ] {
        let answered = house.call("PATCH", path, Some(&token), Some(&json!({ field: "x" }))).await;
        let problem = answered.problem();
        assert_eq!((answered.status, &problem["errors"][0]["pointer"]), (422, &json!(format!("/{field}"))));
        let detail = problem["errors"][0]["detail"].as_str().unwrap_or_default();
        assert!(detail.starts_with(reason), "{path}: {problem}");
    }
}

#[tokio::test]
async fn what_is_not_found_is_named_with_its_id_and_no_word_about_other_apps() {
    let house = House::open().await;
    let (token, other) = (house.app().await, house.app().await);
    let foreign = house.repository(&other, "https://github.com/o/r").await;
    let nothing = "repo_00000000000000000000000000";
    for id in [foreign.as_str(), nothing] {
        let path = format!("/api/repositories/{id}/rounds");
        let answered = house.call("GET", &path, Some(&token), None).await;
        let expected = format!("this app has no repository {id}");
        assert_eq!((answered.status, &answered.problem()["detail"]), (404, &json!(expected)));
        let body = json!({ "repository_id": id });
        let answered = house.call("POST", "/api/dead-letters/redrive", Some(&token), Some(&body)).await;
        assert_eq!((answered.status, &answered.problem()["detail"]), (404, &json!(expected)));
    }
    let nobody = "dead_00000000000000000000000000";
    for verb in ["redrive", "dismiss"] {
        let path = format!("/api/dead-letters/{verb}");
        for (ids, expected) in [
            (json!([nobody]), Some(format!("there is no dead letter {nobody}"))),
            (json!([nobody, "nope"]), Some("there is no dead letter nope".to_owned())),
            (json!(["with space"]), None),
        ] {
            let answered = house.call("POST", &path, Some(&token), Some(&json!({ "ids": ids }))).await;
            let problem = answered.problem();
            assert_eq!((answered.status, problem["detail"].as_str()), (404, expected.as_deref()));
        }
    }
    let claim = house.call("POST", "/api/tasks/claim", Some(&token), Some(&json!({}))).await;
    assert_eq!(claim.problem()["error"], "commands is required", "a fault is named once");
    let redrive = house.call("POST", "/api/tasks/redrive", Some(&token), Some(&json!({}))).await;
    let error = redrive.problem()["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.starts_with("all must be true") && error.ends_with("give command, state or q"), "{error}");
}
