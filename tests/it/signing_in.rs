//! Signing in at an identity provider, and tokens of two issuers: one for the staff and one for apps.

use serde_json::{Value, json};
use url::Url;

use crate::support::{
    api::{App, items},
    http::{self, Reply},
    oidc::{CLIENT_ID, CLIENT_SECRET, Misdeed, Provider, REDIRECT_URL},
    patience::{SOON, eventually},
    server::Server,
    subscriber::Subscriber,
};

/// A server at which people of a provider sign in.
fn server(provider: &Provider) -> Server {
    let issuer = provider.issuer();
    let key = |part: &str| format!("identity.issuers.corp.{part}");
    let mut server = Server::prepare()
        .with(&key("opens"), "staff")
        .with(&key("issuer"), &issuer)
        .with(&key("audience"), "tidings")
        .with(&key("jwks_url"), &format!("{issuer}/keys"))
        .with(&key("role_claim"), "groups")
        .with(&key("roles.operator"), "ops, on-call")
        .with(&key("roles.support"), "help-desk")
        .with(&key("client_id"), CLIENT_ID)
        .with(&key("client_secret"), CLIENT_SECRET)
        .with(&key("redirect_url"), REDIRECT_URL)
        .with(&key("label"), "Corp")
        .with("roles.support.permissions", "breakers:read, dead-letters:redrive");
    server.run();
    server
}

fn send(server: &Server, method: &str, path: &str, lines: &str) -> Reply {
    let host = server.address();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{lines}\r\n");
    http::raw(host, request.as_bytes()).expect("an answer")
}

/// The cookies that an answer sets, as a header line for the next request.
fn cookies(reply: &Reply) -> String {
    let set = reply.message.headers.iter().filter(|(name, _)| name == "set-cookie");
    let pairs: Vec<&str> = set.filter_map(|(_, value)| value.split(';').next()).collect();
    let kept: Vec<&str> = pairs.into_iter().filter(|pair| !pair.ends_with('=')).collect();
    format!("cookie: {}\r\n", kept.join("; "))
}

fn location(reply: &Reply) -> String {
    assert_eq!(reply.status, 303, "{:?}", reply.message);
    reply.message.header("location").expect("a place").to_owned()
}

/// Goes to the provider: its page, and the cookie of the sign-in.
fn start(server: &Server) -> (String, String) {
    let started = send(server, "GET", "/api/session/issuers/corp", "");
    let set = started.message.header("set-cookie").expect("a cookie").to_owned();
    assert!(set.contains("; Path=/api/session; Max-Age=600; HttpOnly; SameSite=Lax"), "{set}");
    (location(&started), cookies(&started))
}

fn come_back(server: &Server, back: &Url, cookie: &str) -> Reply {
    let query = back.query().unwrap_or_default();
    let cross_site = format!("{cookie}sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\n");
    send(server, "GET", &format!("/api/session/callback?{query}"), &cross_site)
}

fn sign_in(server: &Server, provider: &Provider) -> Reply {
    let (page, cookie) = start(server);
    come_back(server, &provider.agrees(&page), &cookie)
}

#[test]
fn a_person_signs_in_at_the_provider_and_may_what_the_provider_says() {
    let provider = Provider::start(json!(["other", "on-call"]));
    let server = server(&provider);
    let shown = send(&server, "GET", "/api/session/issuers", "").json();
    assert_eq!(shown, json!([{ "name": "corp", "label": "Corp" }]));
    let signed_in = sign_in(&server, &provider);
    assert_eq!(location(&signed_in), "/dashboard/");
    let cookie = cookies(&signed_in);
    let set = signed_in.message.headers.iter().map(|(_, value)| value.as_str());
    let set: Vec<&str> = set.filter(|value| value.starts_with("tidings_session_")).collect();
    assert!(set[0].contains("; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict"), "{set:?}");
    let session = send(&server, "GET", "/api/session", &cookie).json();
    assert_eq!((&session["kind"], &session["role"]), (&json!("staff"), &json!("operator")), "{session}");
    let person = session["token_id"].as_str().expect("an id").to_owned();
    assert!(person.starts_with("jwt:") && !session.to_string().contains("person-1"), "{session}");
    let status = |method: &str, path: &str, lines: &str| send(&server, method, path, lines).status;
    assert_eq!(status("GET", "/api/admin/overview", &cookie), 200);
    assert_eq!(status("GET", "/api/admin/keys", &cookie), 403);
    assert_eq!(status("GET", "/api/app", &cookie), 401);
    assert_eq!(status("DELETE", "/api/sessions", &cookie), 403, "a forged form");
    let second = format!("{}tidings-page: 1\r\n", cookies(&sign_in(&server, &provider)));
    assert_eq!(status("DELETE", "/api/session", &second), 204);
    let rows = items(&server.ask_as_admin("GET", "/api/admin/audit?action=delete_api_session").json());
    assert_eq!((rows.len(), &rows[0]["actor"]), (1, &json!(person)), "who signed out: {rows:?}");
    let rows = items(&server.ask_as_admin("GET", "/api/admin/audit?action=get_api_session_callback").json());
    assert_eq!(
        (rows.len(), &rows[0]["actor"], &rows[0]["result"]),
        (2, &json!(person), &json!("ok")),
        "{rows:?}"
    );
    // A role of the settings, in another browser; signing out everywhere ends both.
    provider.gives(json!("help-desk"));
    let other = cookies(&sign_in(&server, &provider));
    assert_eq!(status("GET", "/api/admin/breakers", &other), 200);
    assert_eq!(status("GET", "/api/admin/overview", &other), 403);
    let page = format!("{other}tidings-page: 1\r\n");
    assert_eq!(status("DELETE", "/api/sessions", &page), 204);
    assert_eq!(status("GET", "/api/admin/overview", &cookie), 401, "it was the same person");
    assert_eq!(status("GET", "/api/session", &other), 401);
}

#[test]
fn a_session_lasts_as_long_as_the_settings_of_its_issuer_say() {
    let provider = Provider::start(json!(["ops"]));
    let mut server = server(&provider);
    server.terminate();
    let mut server = server.with("identity.issuers.corp.session", "90s").with_clock_of_its_own();
    server.run();
    let signed_in = sign_in(&server, &provider);
    let set = signed_in.message.headers.iter().map(|(_, value)| value.as_str());
    let set: Vec<&str> = set.filter(|value| value.starts_with("tidings_session_")).collect();
    assert!(set[0].contains("; Path=/; Max-Age=90; "), "{set:?}");
    let cookie = cookies(&signed_in);
    let session = send(&server, "GET", "/api/session", &cookie).json();
    let ends = session["expires_at"].as_str().expect("a moment").to_owned();
    // The identity token ended long ago; the session goes by its own end.
    if server.move_clock(60) {
        assert_eq!(send(&server, "GET", "/api/admin/overview", &cookie).status, 200, "it ends at {ends}");
        server.move_clock(100);
        // The server reads its clock again once a second.
        eventually("end of the session", SOON, || {
            (send(&server, "GET", "/api/admin/overview", &cookie).status == 401).then_some(())
        });
    }
}

#[test]
fn a_session_ends_with_the_sign_in_of_the_issuer_that_it_began_at() {
    let provider = Provider::start(json!(["ops"]));
    let mut server = server(&provider);
    let cookie = cookies(&sign_in(&server, &provider));
    assert_eq!(send(&server, "GET", "/api/admin/overview", &cookie).status, 200);
    server.terminate();
    server.run();
    assert_eq!(send(&server, "GET", "/api/admin/overview", &cookie).status, 200, "a restart ends none");
    server.terminate();
    for part in ["client_id", "client_secret", "redirect_url"] {
        server = server.without(&format!("identity.issuers.corp.{part}"));
    }
    server.run();
    assert_eq!(send(&server, "GET", "/api/admin/overview", &cookie).status, 401);
    assert_eq!(send(&server, "GET", "/api/session", &cookie).status, 401);
}

#[test]
fn a_state_and_a_code_are_good_once_and_in_one_browser() {
    let provider = Provider::start(json!(["ops"]));
    let server = server(&provider);
    let refused = |reply: &Reply, why: &str| {
        assert_eq!(location(reply), "/dashboard/?sign_in=refused", "{why}");
        let all = format!("{:?}", reply.message.headers);
        assert!(!all.contains("tidings_session_"), "{why}: {all}");
    };
    let (page, cookie) = start(&server);
    let back = provider.agrees(&page);
    refused(&come_back(&server, &back, ""), "a browser that began nothing");
    let (_, strangers) = start(&server);
    refused(&come_back(&server, &back, &strangers), "another browser");
    assert_eq!(location(&come_back(&server, &back, &cookie)), "/dashboard/");
    refused(&come_back(&server, &back, &cookie), "the same again");
    let again = provider.agrees(&page);
    refused(&come_back(&server, &again, &cookie), "a new code with a state that was used");
    let (page, cookie) = start(&server);
    let mut back = provider.agrees(&page);
    back.set_query(Some("error=access_denied&state=x"));
    refused(&come_back(&server, &back, &cookie), "another state");
    // Whatever a request names, the browser stays here.
    for path in [
        "/api/session/callback?redirect=https://evil.example&return_to=//evil.example&next=/evil",
        "/api/session/callback?state=a&state=b&code=c",
        "/api/session/callback",
    ] {
        refused(&send(&server, "GET", path, &cookie), path);
    }
    let started = send(&server, "GET", "/api/session/issuers/corp?redirect_uri=https://evil.example", "");
    let place = location(&started);
    assert!(place.starts_with(&provider.issuer()) && !place.contains("evil"), "{place}");
    assert_eq!(send(&server, "GET", "/api/session/issuers/nobody", "").status, 404);
}

#[test]
fn tabs_of_one_browser_sign_in_at_once() {
    let provider = Provider::start(json!(["ops"]));
    let server = server(&provider);
    let pages: Vec<(String, String)> = (0..3).map(|_| start(&server)).collect();
    let pairs: Vec<&str> =
        pages.iter().map(|(_, cookie)| cookie.trim_end().trim_start_matches("cookie: ")).collect();
    let all = format!("cookie: {}\r\n", pairs.join("; "));
    // The newest comes back first; the cookies of the others stay.
    for (at, (page, _)) in pages.iter().enumerate().rev() {
        let back = come_back(&server, &provider.agrees(page), &all);
        assert_eq!(location(&back), "/dashboard/", "tab {at}");
        let set = back.message.headers.iter().filter(|(name, _)| name == "set-cookie");
        let gone: Vec<&String> =
            set.map(|(_, value)| value).filter(|set| set.contains("Max-Age=0")).collect();
        let own = pairs[at].split('=').next().expect("a name");
        assert!(matches!(gone[..], [one] if one.starts_with(own)), "tab {at}: {gone:?}");
    }
    // A browser that begins again and again holds a few sign-ins, and loses the oldest of them.
    let many: Vec<String> = (0..9).map(|at| format!("tidings_sign_in_{at:08}=corp.x")).collect();
    let started =
        send(&server, "GET", "/api/session/issuers/corp", &format!("cookie: {}\r\n", many.join("; ")));
    let set = started.message.headers.iter().filter(|(name, _)| name == "set-cookie");
    let gone: Vec<&str> = set
        .filter(|(_, set)| set.contains("Max-Age=0"))
        .filter_map(|(_, set)| set.split('=').next())
        .collect();
    assert_eq!(gone, ["tidings_sign_in_00000000", "tidings_sign_in_00000001"]);
}

#[test]
fn a_sign_in_at_a_provider_is_one_attempt() {
    let provider = Provider::start(json!(["ops"]));
    let server = server(&provider);
    // Each is a start and a return; an address has 20 attempts.
    for at in 0..15 {
        assert_eq!(location(&sign_in(&server, &provider)), "/dashboard/", "sign-in {at}");
    }
}

#[test]
fn a_session_stays_ended_when_its_issuer_returns() {
    let provider = Provider::start(json!(["ops"]));
    let mut server = server(&provider);
    let cookie = cookies(&sign_in(&server, &provider));
    let parts =
        ["client_id", "client_secret", "redirect_url"].map(|part| format!("identity.issuers.corp.{part}"));
    let opens = |server: &Server| send(server, "GET", "/api/admin/overview", &cookie).status;
    assert_eq!(opens(&server), 200);
    server.terminate();
    for part in &parts {
        server = server.without(part);
    }
    server.run();
    server.terminate();
    for (part, value) in parts.iter().zip([CLIENT_ID, CLIENT_SECRET, REDIRECT_URL]) {
        server = server.with(part, value);
    }
    server.run();
    assert_eq!(opens(&server), 401, "nobody used the session while its issuer was away");
    // Another client under the same name is another place to sign in.
    let cookie = cookies(&sign_in(&server, &provider));
    server.terminate();
    let mut server = server.with("identity.issuers.corp.client_id", "another-client");
    server.run();
    assert_eq!(send(&server, "GET", "/api/admin/overview", &cookie).status, 401);
}

#[test]
fn what_a_provider_does_wrong_signs_nobody_in() {
    let provider = Provider::start(json!(["ops"]));
    let server = server(&provider);
    provider.does(Some(Misdeed::OtherIssuer));
    let started = send(&server, "GET", "/api/session/issuers/corp", "");
    assert_eq!(location(&started), "/dashboard/?sign_in=unavailable");
    provider.does(None);
    for (misdeed, word) in [
        (Misdeed::RefusesCodes, "refused"),
        (Misdeed::OtherNonce, "refused"),
        (Misdeed::OtherAudience, "refused"),
        (Misdeed::OtherParty, "refused"),
        (Misdeed::OtherKey, "refused"),
        (Misdeed::Over, "refused"),
        (Misdeed::NoToken, "refused"),
        (Misdeed::Down, "unavailable"),
    ] {
        let (page, cookie) = start(&server);
        let back = provider.agrees(&page);
        provider.does(Some(misdeed));
        let reply = come_back(&server, &back, &cookie);
        provider.does(None);
        assert_eq!(location(&reply), format!("/dashboard/?sign_in={word}"), "{misdeed:?}");
        let all = format!("{:?}", reply.message.headers);
        assert!(!all.contains("tidings_session_"), "{misdeed:?}: {all}");
    }
    provider.gives(json!(["somebody"]));
    assert_eq!(location(&sign_in(&server, &provider)), "/dashboard/?sign_in=no_role");
    let rows = items(&server.ask_as_admin("GET", "/api/admin/audit?action=get_api_session_callback").json());
    assert!(rows.is_empty(), "{rows:?}");
    let failed = items(&server.ask_as_admin("GET", "/api/admin/audit?action=sign_in.failed").json());
    assert!((1..=3).contains(&failed.len()), "{failed:?}");
    let log = server.log();
    assert!(
        !log.contains(CLIENT_SECRET) && !log.contains("person-1"),
        "the log tells no secret and no person"
    );
}

#[test]
fn one_address_does_not_guess_without_end() {
    let provider = Provider::start(json!(["ops"]));
    let server = server(&provider);
    let tried = (0..40).map(|_| location(&send(&server, "GET", "/api/session/callback?state=a&code=b", "")));
    let tried: Vec<String> = tried.collect();
    assert_eq!(tried[0], "/dashboard/?sign_in=refused");
    let is_held_back = |place: &String| place.starts_with("/dashboard/?sign_in=too_many&seconds=");
    assert!(tried.iter().filter(|place| is_held_back(place)).count() >= 15, "{tried:?}");
    // A browser is led to the page that says it; a program is told in its own language.
    // An attempt that the time since the last one allows is used up by this.
    eventually("an attempt that is held back", SOON, || {
        is_held_back(&location(&send(&server, "GET", "/api/session/issuers/corp", ""))).then_some(())
    });
    let body =
        "content-type: application/json\r\ntidings-page: 1\r\ncontent-length: 13\r\n\r\n{\"token\":\"x\"}";
    let host = server.address();
    let request = format!("POST /api/session HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{body}");
    eventually("a program that is held back", SOON, || {
        (http::raw(host, request.as_bytes()).expect("an answer").status == 429).then_some(())
    });
    // The log is written beside the answers.
    let rows = eventually("a row of the audit log", SOON, || {
        let rows = items(&server.ask_as_admin("GET", "/api/admin/audit?action=sign_in.failed").json());
        (!rows.is_empty()).then_some(rows)
    });
    assert!((1..=3).contains(&rows.len()), "the first has a row; those of its minute share one: {rows:?}");
    let rows = [rows.last().expect("a row")];
    assert_eq!((&rows[0]["result"], &rows[0]["address"]), (&json!("refused"), &json!("127.0.0.1")));
}

#[test]
fn tokens_of_two_issuers_open_the_staffs_door_and_one_apps() {
    let (people, programs) = (Provider::start(json!([])), Provider::start(json!([])));
    let key = |part: &str| format!("identity.issuers.programs.{part}");
    let mut server = server(&people);
    server.terminate();
    let mut server = server
        .with(&key("opens"), "apps")
        .with(&key("issuer"), &programs.issuer())
        .with(&key("audience"), "tidings")
        .with(&key("jwks_url"), &format!("{}/keys", programs.issuer()))
        .with(&key("most"), "*:read, watches:*, tokens:*");
    server.run();
    let receiver = Subscriber::start();
    let (one, other) = (App::onboard(&server, &receiver), App::onboard(&server, &receiver));
    let claims = |app: &str, scope: &str| json!({ "aud": "tidings", "sub": "worker", "tenant": app, "scope": scope, "eventTypes": ["mail.*"] });
    let status = |token: &str, method: &str, path: &str| {
        server.ask(method, path, Some(token), None).expect("an answer").status
    };
    let worker = programs.token(&claims(&one.id, "openid apps:read watches:read dead-letters:dismiss"));
    let shown = server.ask("GET", "/api/session", Some(&worker), None).expect("an answer").json();
    assert_eq!(
        (&shown["kind"], &shown["app_id"], &shown["permissions"]),
        (&json!("app"), &json!(one.id), &json!(["apps:read", "watches:read"])),
        "what the issuer may not give at most is not given"
    );
    assert_eq!(status(&worker, "GET", "/api/app"), 200);
    assert_eq!(status(&worker, "GET", "/api/ledger"), 403);
    assert_eq!(status(&worker, "GET", "/api/admin/overview"), 401);
    assert_eq!(status(&worker, "GET", &format!("/api/admin/apps/{}", other.id)), 401);
    // It hands on no more than it has, not even a command.
    let make = |body: Value| {
        server
            .ask(
                "POST",
                "/api/app/tokens",
                Some(&programs.token(&claims(&one.id, "tokens:create apps:read"))),
                Some(&body),
            )
            .expect("an answer")
    };
    assert_eq!(make(json!({ "name": "whole" })).status, 403);
    assert_eq!(make(json!({ "name": "x", "permissions": ["apps:read"] })).status, 403, "every command");
    let less = json!({ "name": "x", "permissions": ["apps:read"], "commands": ["mail.send"] });
    assert_eq!(make(less).status, 201);
    // An issuer for apps gives no role, and one for the staff opens no app.
    let mut both = claims(&one.id, "*:*");
    both["groups"] = json!(["ops", "on-call"]);
    both["roles"] = json!(["tidings-admin"]);
    let (of_programs, of_people) = (programs.token(&both), people.token(&both));
    assert_eq!(
        (status(&of_programs, "GET", "/api/admin/overview"), status(&of_programs, "GET", "/api/app")),
        (401, 200)
    );
    assert_eq!(
        (status(&of_people, "GET", "/api/admin/overview"), status(&of_people, "GET", "/api/app")),
        (200, 401)
    );
    // One issuer cannot speak for the other.
    both["iss"] = people.issuer().into();
    assert_eq!(status(&programs.token(&both), "GET", "/api/admin/overview"), 401);
    both["iss"] = programs.issuer().into();
    for (claim, value) in [
        ("tenant", json!("app_00000000000000000000000000")),
        ("tenant", json!([one.id])),
        ("tenant", Value::Null),
        ("aud", json!("another")),
        ("sub", Value::Null),
        ("exp", Value::Null),
        ("exp", json!(1)),
    ] {
        let mut claims = both.clone();
        claims[claim] = value.clone();
        assert_eq!(status(&programs.token(&claims), "GET", "/api/app"), 401, "{claim} {value}");
    }
}
