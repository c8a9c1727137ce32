//! Sessions: what a cookie opens, who can use it, and when it ends.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use serde_json::{Value, json};

use super::Scene;
use crate::support::{
    api::items,
    browser::Browser,
    http::{self, Reply},
    patience::{SOON, eventually},
    server::Server,
};

/// What a browser sends for a page of the dashboard.
const PAGE: &str = "tidings-page: 1\r\n";

/// A request as a browser would send it, with these header lines.
fn send(scene: &Scene, method: &str, path: &str, lines: &str, body: Option<&Value>) -> Reply {
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    let host = scene.server.address();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{lines}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    http::raw(host, request.as_bytes()).expect("an answer")
}

/// Signs in; the cookie as a header line.
fn cookie(scene: &Scene, token: &str) -> String {
    let reply = send(scene, "POST", "/api/session", PAGE, Some(&json!({ "token": token })));
    assert_eq!(reply.status, 201, "{}", reply.json());
    let set = reply.message.header("set-cookie").expect("a cookie").to_owned();
    assert!(set.contains("; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict"), "{set}");
    assert!(!set.contains("Secure"), "without TLS a browser would drop such a cookie: {set}");
    format!("cookie: {}\r\n", set.split(';').next().expect("a pair"))
}

fn status(scene: &Scene, path: &str, cookie: &str) -> u16 {
    send(scene, "GET", path, cookie, None).status
}

#[test]
fn a_session_opens_what_its_token_opens_and_ends_with_it() {
    let scene = Scene::start();
    let (id, viewer) = scene.staff("viewer");
    let staff = cookie(&scene, &viewer);
    let app = cookie(&scene, &scene.app.token);
    let shown = send(&scene, "GET", "/api/session", &staff, None).json();
    assert_eq!(
        (&shown["kind"], &shown["role"], &shown["token_id"]),
        (&json!("staff"), &json!("viewer"), &json!(id))
    );
    assert_eq!(status(&scene, "/api/admin/overview", &staff), 200);
    assert_eq!(status(&scene, "/api/admin/tokens", &staff), 403, "a role stays what it is");
    assert_eq!(status(&scene, "/api/app", &staff), 401);
    assert_eq!(status(&scene, "/api/app", &app), 200);
    assert_eq!(status(&scene, "/api/admin/overview", &app), 401);
    let (name, _) = staff.split_once('=').expect("a pair");
    assert_eq!(status(&scene, "/api/app", &format!("{name}=tds_00000000_x_y\r\n")), 401);
    let admin = scene.admin_token();
    let path = format!("/api/admin/tokens/{id}");
    assert_eq!(scene.server.ask("DELETE", &path, Some(&admin), None).expect("an answer").status, 204);
    assert_eq!(status(&scene, "/api/admin/overview", &staff), 401, "a revoked token ends its sessions");
    assert_eq!(status(&scene, "/api/app", &app), 200, "and those of no other");
}

#[test]
fn signing_out_ends_one_session_and_signing_out_everywhere_all_of_the_token() {
    let scene = Scene::start();
    let token = &scene.app.token;
    let [one, two, three] = [cookie(&scene, token), cookie(&scene, token), cookie(&scene, token)];
    let other = cookie(&scene, &scene.away.token);
    let out = send(&scene, "DELETE", "/api/session", &format!("{one}{PAGE}"), None);
    assert_eq!(out.status, 204);
    assert!(out.message.header("set-cookie").is_some_and(|set| set.contains("Max-Age=0")));
    assert_eq!(status(&scene, "/api/app", &one), 401);
    assert_eq!(status(&scene, "/api/app", &two), 200);
    assert_eq!(send(&scene, "DELETE", "/api/sessions", &format!("{two}{PAGE}"), None).status, 204);
    assert_eq!((status(&scene, "/api/app", &two), status(&scene, "/api/app", &three)), (401, 401));
    assert_eq!(status(&scene, "/api/app", &other), 200);
}

#[test]
fn the_audit_log_names_the_person_who_signed_out() {
    let scene = Scene::start();
    let (id, viewer) = scene.staff("viewer");
    let (server, app) = (scene.admin_token(), &scene.app);
    let own = scene.server.ask("GET", "/api/session", Some(&app.token), None).expect("an answer").json();
    let sign_out = |cookie: &str, path: &str| {
        assert_eq!(send(&scene, "DELETE", path, &format!("{cookie}{PAGE}"), None).status, 204);
    };
    for token in [&viewer, &server, &app.token] {
        let cookie = cookie(&scene, token);
        sign_out(&cookie, "/api/session");
        // A session that has ended is nobody's: this leaves no row.
        sign_out(&cookie, "/api/session");
    }
    sign_out(&cookie(&scene, &viewer), "/api/sessions");
    let rows = |action: &str| {
        let path = format!("/api/admin/audit?action={action}");
        let rows = items(&scene.server.ask_as_admin("GET", &path).json());
        rows.iter().map(|row| (row["actor"].clone(), row["app"].clone())).collect::<Vec<_>>()
    };
    let of_app = (own["token_id"].clone(), json!(app.id));
    let of_staff = |actor: &str| (json!(actor), json!(""));
    let newest_first = [of_app, of_staff("admin"), of_staff(&id)];
    assert_eq!(rows("delete_api_session"), newest_first);
    assert_eq!(rows("delete_api_sessions"), [of_staff(&id)]);
}

#[test]
fn what_no_page_of_this_server_made_changes_nothing() {
    let scene = Scene::start();
    let cookie = cookie(&scene, &scene.app.token);
    let path = format!("/api/repositories/{}/pause", scene.watch);
    let own = format!("origin: http://{}\r\n", scene.server.address());
    for lines in [
        String::new(),
        own.clone(),
        format!("{PAGE}origin: http://evil.example\r\n"),
        format!("{PAGE}origin: null\r\n"),
        format!("{PAGE}{own}sec-fetch-site: cross-site\r\n"),
        format!("{PAGE}{own}sec-fetch-site: same-site\r\n"),
    ] {
        let refused = send(&scene, "POST", &path, &format!("{cookie}{lines}"), None);
        assert_eq!(refused.status, 403, "{lines}");
        assert_eq!(refused.json()["type"], "urn:tidings:problem:cross-site-request");
    }
    let shown = scene.app.repository(&scene.server, &scene.watch);
    assert_eq!(shown["state"], "active", "nothing of it had an effect");
    let signed_in = send(&scene, "POST", "/api/session", &own, Some(&json!({ "token": scene.app.token })));
    assert_eq!(signed_in.status, 403, "nor signs another page anybody in");
    for lines in [own.clone(), format!("{PAGE}sec-fetch-site: cross-site\r\n")] {
        let signed_out = send(&scene, "DELETE", "/api/session", &format!("{cookie}{lines}"), None);
        assert_eq!(signed_out.status, 403, "nor out: {lines}");
    }
    let taken =
        send(&scene, "POST", &path, &format!("{cookie}{PAGE}{own}sec-fetch-site: same-origin\r\n"), None);
    assert_eq!(taken.status, 200, "{}", taken.json());
}

#[test]
fn a_form_of_another_site_does_nothing_in_a_browser_that_is_signed_in() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let pause = format!("http://{}/api/repositories/{}/pause", scene.server.address(), scene.watch);
    let foreign =
        serve_page(&format!("<!doctype html><title>foreign</title><form method=post action={pause}></form>"));
    // Another port is another origin, and the same site: what SameSite alone would let through.
    browser.go(&foreign);
    let fetches = "const done = arguments[arguments.length - 1];
        Promise.allSettled([fetch(arguments[0], { method: 'POST', credentials: 'include', mode: 'no-cors' }),
            fetch(arguments[0], { method: 'POST', credentials: 'include', headers: { 'tidings-page': '1' } })])
            .then((ends) => done(ends.map((end) => end.status)))";
    let ends = browser.run_async(fetches, &[json!(pause)]);
    assert_eq!(ends[1], "rejected", "a page of another origin cannot send the header: {ends}");
    browser.run("document.forms[0].submit()", &[]);
    browser.wait_for("cross-site-request");
    assert_eq!(scene.app.repository(&scene.server, &scene.watch)["state"], "active");
}

/// Serves a page to everybody who asks, at another port; its address.
fn serve_page(page: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            // A browser that goes away needs no answer.
            drop(reader.get_mut().write_all(answer.as_bytes()));
        }
    });
    format!("http://{address}/")
}

#[test]
fn who_guesses_tokens_is_slowed_down() {
    let scene = Scene::start();
    let guess = json!({ "token": "tdg_00000000_wrong" });
    let good = json!({ "token": scene.app.token });
    // On a slow machine the next attempt may be allowed between a refusal and the right guess.
    eventually("a right guess that is refused as a wrong one is", SOON, || {
        let refused = send(&scene, "POST", "/api/session", PAGE, Some(&guess));
        assert!([401, 429].contains(&refused.status), "{}", refused.status);
        if refused.status == 401 {
            return None;
        }
        let seconds = refused.message.header("retry-after").and_then(|text| text.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| (1..=10).contains(&seconds)), "{seconds:?}");
        let right = send(&scene, "POST", "/api/session", PAGE, Some(&good)).status;
        assert!([201, 429].contains(&right), "{right}");
        (right == 429).then_some(())
    });
}

#[test]
fn a_server_tells_where_its_dashboard_is_and_where_the_token_lies() {
    let server = Server::start();
    let token = server.data().join("admin-token");
    let told = format!(
        "dashboard on http://{}/dashboard/; sign in with the token in {}",
        server.address(),
        token.display()
    );
    eventually(&told, SOON, || server.log().contains(&told).then_some(()));
}

#[test]
fn a_browser_that_is_handed_on_holds_nothing_of_the_story_before() {
    let server = Server::start();
    let page = format!("http://{}/dashboard/", server.address());
    let keep = "document.cookie = 'kept=1; path=/'; localStorage.setItem('kept', '1');
        sessionStorage.setItem('kept', '1'); console.error('kept')";
    let kept = "return [document.cookie.includes('kept'), localStorage.getItem('kept'),
        sessionStorage.getItem('kept'), innerWidth]";
    let Some(browser) = Browser::start() else { return };
    browser.go(&page);
    browser.run(keep, &[]);
    browser.resize(360, 900);
    assert_eq!(browser.run(kept, &[]), json!([true, "1", "1", 360]));
    browser.open_tab();
    drop(browser);
    let Some(browser) = Browser::start() else { return };
    assert_eq!(browser.logged(), Vec::<String>::new());
    browser.go(&page);
    assert_eq!(browser.run(kept, &[]), json!([false, null, null, 1280]));
}
