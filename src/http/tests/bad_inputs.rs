//! Whatever a client sends, it gets a 4xx and a reason, soon; never a 5xx, never silence, never its
//! own secrets back.

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
