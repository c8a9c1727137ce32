//! The pages that show the API: whole, and from this server only.

use super::House;

#[tokio::test]
async fn the_pages_are_there_and_load_nothing_from_elsewhere() {
    let house = House::open().await;
    for path in ["/docs", "/docs/"] {
        let entrance = house.call("GET", path, None, None).await;
        assert_eq!((entrance.status, entrance.header("location")), (308, Some("/docs/index.html")), "{path}");
    }

    let page = house.call("GET", "/docs/index.html", None, None).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html"));
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "{}", page.body);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("script-src 'self'") && !policy.contains("script-src 'self' 'unsafe"),
        "{policy}"
    );
    assert!(!page.body.contains("<script>"), "no script stands in the page itself: {}", page.body);

    let mut files = 0;
    for part in page.body.split(['"', '\'']).filter(|part| part.starts_with("./")) {
        let file = house.call("GET", &format!("/docs/{}", part.trim_start_matches("./")), None, None).await;
        assert_eq!(file.status, 200, "{part}");
        files += 1;
    }
    assert!(files >= 4, "style, scripts and pictures: {files}");
    let start = house.call("GET", "/docs/swagger-initializer.js", None, None).await;
    assert!(start.body.contains("/openapi.json"), "{}", start.body);

    for path in ["/docs/none.js", "/docs/..%2F..%2Fetc%2Fpasswd", "/docs/%00", "/docs//"] {
        let nothing = house.call("GET", path, None, None).await;
        assert!([401, 404].contains(&nothing.status), "{path}");
    }
}
