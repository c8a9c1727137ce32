//! The files of the dashboard: whole, from this server only, asked again cheaply, and never more than there is.

use super::House;

/// What every answer of the dashboard lets a page do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

async fn get(house: &House, path: &str, line: &str) -> super::house::Answered {
    let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{line}\r\n");
    house.send(request.as_bytes()).await
}

#[tokio::test]
async fn a_browser_is_led_to_the_dashboard_and_nobody_else() {
    let house = House::open().await;
    let led = get(&house, "/", "accept: text/html,application/xhtml+xml\r\n").await;
    assert_eq!((led.status, led.header("location")), (303, Some("/dashboard/")));
    assert_eq!(get(&house, "/", "").await.status, 404);
    let entrance = get(&house, "/dashboard", "").await;
    assert_eq!((entrance.status, entrance.header("location")), (308, Some("/dashboard/")));
}

#[tokio::test]
async fn every_page_has_a_strict_policy_and_no_code_of_its_own() {
    let house = House::open().await;
    for (path, status) in [("/dashboard/", 200), ("/dashboard/letters?q=x", 200), ("/dashboard/nothing", 404)]
    {
        let page = get(&house, path, "").await;
        assert_eq!((page.status, page.header("content-security-policy")), (status, Some(POLICY)), "{path}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(!page.body.contains("<script>") && !page.body.contains("style="), "{}", page.body);
        assert!(!page.body.contains("{version}"), "{}", page.body);
    }
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let house = House::open().await;
    let frame = get(&house, "/dashboard/", "").await.body;
    let mut files = 0;
    for path in frame.split('"').filter(|part| part.starts_with("/dashboard/assets/")) {
        let file = get(&house, path, "").await;
        assert_eq!((file.status, file.header("content-security-policy")), (200, Some(POLICY)), "{path}");
        let tag = file.header("etag").expect("a tag");
        let again = get(&house, path, &format!("if-none-match: {tag}\r\n")).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assert_eq!(get(&house, path, "if-none-match: \"other\"\r\n").await.status, 200);
        files += 1;
    }
    assert!(files >= 5, "styles and scripts: {files}");
    for path in ["none.js", "..%2F..%2F..%2FCargo.toml", "core/..%2F..%2Fhttp.rs", "%2Fetc%2Fpasswd", "%00"] {
        let nothing = get(&house, &format!("/dashboard/assets/0/{path}"), "").await;
        assert_eq!(nothing.status, 404, "{path}");
    }
}

/// The words of the page for an action of the audit log stand in a list of its own names.
#[test]
fn the_audit_page_has_words_for_every_action() {
    let words = include_str!("../../dashboard/parts/audit-words.js");
    let mut lacking = Vec::new();
    for route in crate::http::table() {
        if route.method == http::Method::GET || route.unaudited || route.access.is_of_hooks() {
            continue;
        }
        let own = route.template.replace("/api/admin/apps/{app_id}/", "/api/");
        let of_app = own.replacen("/api/", "/api/app/", 1);
        let names = [&route.template, &own, &of_app]
            .map(|template| crate::http::document::operation_id(&route.method, template));
        if !names.iter().any(|name| words.contains(&format!("  {name}: \""))) {
            lacking.push(names[0].clone());
        }
    }
    assert!(lacking.is_empty(), "{lacking:?}");
    for action in ["server.start", "sign_in.refused", "sign_in.failed"] {
        assert!(words.contains(&format!("\"{action}\": ")), "{action}");
    }
}
