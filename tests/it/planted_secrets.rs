//! Secrets of every kind, planted and searched for: through success and failure, with everything
//! logged and traced, none of them, and no beginning of one, may stand in a log, a trace, an answer,
//! a file of the data directory, or what the system shows of the process.

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::endpoints::Owner;
use crate::support::{
    api::App,
    collector::Collector,
    git_host::Fault,
    github_api::{GithubApi, KEY},
    leaks::{everything_below, search},
    patience::{SOON, eventually},
    peer::{Authority, Peer, Seen, Word},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

const BARE: &str = "PLANTEDbareTokenQ7wXz1";
const PASSWORD: &str = "PLANTEDpasswordK3vTy2";
const BEARER: &str = "PLANTEDbearerTokenM9sRu3";
const REPLACEMENT: &str = "PLANTEDreplacementH5nPo4";
const WRONG: &str = "PLANTEDwrongTokenB8cLi5";
const USERINFO: &str = "PLANTEDuserinfoD2fGe6";
const QUERY: &str = "PLANTEDqueryTokenJ4kHa7";
const SIGNING: &str = "PLANTEDsigningKeyV6bNm8-and-long-enough";
const HOOK: &str = "PLANTEDhookSecretR4tYq0-and-long-enough";
const NEXT_HOOK: &str = "PLANTEDnextHookW2eUi8-and-long-enough";
const APP_HOOK: &str = "PLANTEDappHookSecretL2kJh5-and-long-enough";
const NEXT_APP_HOOK: &str = "PLANTEDnextAppHookZ7xCv4-and-long-enough";
const ADMIN: &str = "PLANTEDadminTokenC1xZq9-and-long-enough";
const HEADER: &str = "PLANTEDheaderValueT5gBn2";
// Such as must be escaped in JSON, in addresses and in pages.
const BASIC: &str = "PLANTED\"basic\\Pass/word&L7+mK j3";
const ENDPOINT_BEARER: &str = "PLANTED/endpoint+BearerF4dSa6==";
const CLIENT_SECRET: &str = "PLANTED<client>\"SecretX9cVb1";
const COLLECTOR: &str = "PLANTEDcollectorTokenU6yTr5";
const PROXY: &str = "PLANTEDproxyPasswordE3wQa2";
const DATABASE: &str = "PLANTEDdatabasePasswordS8dFg1";
const ISSUED: &str = "PLANTEDissuedTokenP0oIu8";
/// How much of a secret is looked for: its beginning gives it away too.
const PIECE: usize = 12;

#[test]
fn no_planted_secret_is_found_anywhere() {
    let traces = Collector::start();
    let mut server = Server::prepare()
        .with("telemetry.log_filter", "trace")
        .with("telemetry.otlp_endpoint", &traces.endpoint("traces"))
        .with("telemetry.otlp_metrics_endpoint", &traces.endpoint("metrics"))
        .with("telemetry.otlp_logs_endpoint", &traces.endpoint("logs"))
        .with("telemetry.otlp_headers", &format!("authorization=Bearer {COLLECTOR}"))
        .with("telemetry.otlp_interval", "500ms")
        .with("telemetry.survey_interval", "500ms")
        .with("hooks.secret", &format!("{HOOK},{NEXT_HOOK}"))
        .with("server.admin_token", ADMIN);
    server.run();
    let subscriber = Subscriber::start_with(SIGNING);
    let app = App::onboard_with(&server, &subscriber, &json!({ "client_auth_key": SIGNING }));
    let mut answers = Vec::new();
    let project = Project::with(&[("a", "1")]);
    let faults = [
        Fault::Echo,
        Fault::Status(401, None),
        Fault::Status(500, None),
        Fault::Moved(format!("http://127.0.0.1:9/{USERINFO}")),
        Fault::Html,
        Fault::CutInHalf,
    ];
    let watched: Vec<_> =
        faults.into_iter().flat_map(|fault| watched(&server, &app, &project, &fault)).collect();
    refusals(&server, &app, &watched[0].host, &mut answers);
    hooks(&server, &watched[0].host, &mut answers);
    hooks_of_an_app(&server, &app, &watched[0].host, &mut answers);
    project.write("b", b"2");
    project.commit("next");
    failures(&server, &app, &project, &watched, &mut answers);
    for watch in &watched {
        watch.host.misbehave(None);
        watch.host.demand(&format!("x-access-token:{REPLACEMENT}"));
        let path = format!("/api/repositories/{}/token", watch.id);
        let replaced = app.ask(&server, "PATCH", &path, Some(&json!({ "token": REPLACEMENT })));
        assert_eq!(replaced.status, 200, "{}", replaced.json());
        answers.push(replaced.json().to_string());
        app.wait_until_held(&server, &watch.id, &project.head());
    }
    subscriber.assert_straight();
    let client_key = endpoint_secrets(&server, &mut answers);
    let list = server.ask("GET", "/api/admin/overview", Some(ADMIN), None).expect("an answer");
    assert_eq!(list.status, 200);
    answers.push(list.json().to_string());
    for path in ["/api/admin/tree", "/api/admin/lag", "/api/admin/mirrors", "/api/admin/apps", "/version"] {
        let shown = server.ask("GET", path, Some(ADMIN), None).expect("an answer");
        assert_eq!(shown.status, 200, "{path}");
        answers.push(shown.json().to_string());
    }
    let numbers =
        crate::support::http::ask(server.address(), "GET", "/metrics", None, None).expect("numbers");
    search("the numbers", &[("/metrics".to_owned(), numbers.message.body)], &secrets(&app, &client_key));

    let secrets = [secrets(&app, &client_key), keyring(&server)].concat();
    // While it runs the journal of the database is there too, and so is the process.
    search("the running data directory", &kept(&server), &secrets);
    let (arguments, children) = server.shown_by_the_system();
    search("the process", &[("arguments".to_owned(), arguments)], &secrets);
    assert_eq!(children, "", "nobody else is started");
    server.terminate();
    search("the data directory", &kept(&server), &secrets);
    search("the log", &[("log".to_owned(), server.log().into_bytes())], &secrets);
    let answers: Vec<_> = answers.into_iter().map(|text| ("answer".to_owned(), text.into_bytes())).collect();
    search("answers", &answers, &secrets);
    for what in ["traces", "metrics", "logs"] {
        assert!(!traces.exports(what).is_empty(), "no {what} were exported");
    }
    search("exports", &traces.bodies(), &secrets);
}

#[test]
fn passwords_of_the_proxy_and_of_the_database_are_told_to_nobody() {
    let needles: Vec<_> = [("proxy's password", PROXY), ("database's password", DATABASE)]
        .into_iter()
        .flat_map(|(name, secret)| spellings(name, secret))
        .collect();
    let mut server = Server::prepare()
        .with("telemetry.log_filter", "trace")
        .with("egress.proxy", &format!("http://someone:{PROXY}@127.0.0.1:9"));
    server.run();
    // Nobody listens at the proxy, so nothing leaves this machine.
    let outside = "https://93.184.216.34/o/r";
    let owner = Owner::at(&server, Some(outside));
    let refused = owner.ask(&server, "POST", "/api/repositories", Some(&json!({ "url": outside })));
    assert_eq!(refused.status, 503, "{}", refused.json());
    let project = Project::with(&[("a", "1")]);
    let watched = owner.ask(&server, "POST", "/api/repositories", Some(&json!({ "url": project.url() })));
    assert_eq!(watched.status, 201, "{}", watched.json());
    let tested = owner.ask(&server, "POST", "/api/app/test", None);
    eventually("failed attempt", SOON, || server.log().contains("attempt 1 of delivery").then_some(()));
    let listed = owner.ask(&server, "GET", "/api/deliveries", None);
    let mut answers: Vec<_> =
        [refused, watched, tested, listed].map(|reply| ("answer".to_owned(), reply.message.body)).into();
    let (arguments, _) = server.shown_by_the_system();
    search("the process", &[("arguments".to_owned(), arguments)], &needles);
    server.terminate();
    let checked = server.command(&["check-config", "--json"]).output().expect("it ran");
    answers.push(("check-config".to_owned(), [checked.stdout, checked.stderr].concat()));
    search("answers", &answers, &needles);
    search("the log", &[("log".to_owned(), server.log().into_bytes())], &needles);
    search("the data directory", &everything_below(&server.data()), &needles);

    for address in [
        format!("postgres://someone:{DATABASE}@127.0.0.1:9/none"),
        format!("postgres://someone:{DATABASE}@"),
        format!("nonsense://someone:{DATABASE}@127.0.0.1/none"),
    ] {
        let refused = Server::prepare().with("telemetry.log_filter", "trace").with("database.url", &address);
        let refused = refused.with("database.start_wait", "1s");
        for verb in ["serve", "check-config", "migrate"] {
            let arguments: &[&str] = if verb == "migrate" { &["migrate", "status"] } else { &[verb] };
            let output = refused.command(arguments).output().expect("it ran");
            assert!(!output.status.success(), "{verb} with {address}");
            let said = [output.stdout, output.stderr].concat();
            search("what a refused start says", &[(verb.to_owned(), said)], &needles);
        }
    }
}

/// The files of the data directory that are not there to hold a secret.
fn kept(server: &Server) -> Vec<(String, Vec<u8>)> {
    let mut files = everything_below(&server.data());
    files.retain(|(path, _)| !path.ends_with("/keyring"));
    files
}

/// The keys of the keyring, as they are and as the file has them.
fn keyring(server: &Server) -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(server.data().join("keyring")).expect("a keyring");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let mut needles = Vec::new();
    for key in file["keys"].as_array().expect("keys") {
        let texts = key.as_object().expect("a key").values().filter_map(Value::as_str);
        for text in texts.filter(|text| text.len() > 40) {
            let bytes = BASE64.decode(text.as_bytes()).expect("base64");
            needles.push(("key".to_owned(), bytes[..PIECE].to_vec()));
            needles.push(("key in hexadecimal".to_owned(), HEXLOWER.encode(&bytes).into_bytes()));
            needles.push(("key in base64".to_owned(), text.trim_end_matches('=').as_bytes().to_vec()));
        }
    }
    assert!(!needles.is_empty(), "the keyring has a key");
    needles
}

/// A secret as it is, its beginning alone, and as others would write it.
fn spellings(name: &str, secret: &str) -> Vec<(String, Vec<u8>)> {
    let json = serde_json::to_string(secret).expect("a text");
    let json = &json[1..json.len() - 1];
    let twice = serde_json::to_string(json).expect("a text");
    let address = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let page = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let base64 = |text: String| {
        let text = BASE64.encode(text.as_bytes());
        text.trim_end_matches('=').as_bytes()[..16].to_vec()
    };
    [
        ("", secret.as_bytes()[..PIECE].to_vec()),
        (" in JSON", json.as_bytes()[..PIECE + 2].to_vec()),
        (" in JSON in JSON", twice.as_bytes()[1..PIECE + 2].to_vec()),
        (" in an address", address.as_bytes()[..PIECE + 2].to_vec()),
        (" in a page", page.as_bytes()[..PIECE + 2].to_vec()),
        (" in hexadecimal", HEXLOWER.encode(secret.as_bytes()).into_bytes()),
        (" in large hexadecimal", HEXUPPER.encode(secret.as_bytes()).into_bytes()),
        (" in base64", base64(secret.to_owned())),
        (" in base64", base64(format!("x-access-token:{secret}"))),
        (" in base64", base64(format!("someone:{secret}"))),
    ]
    .map(|(form, bytes)| (format!("{name}{form}"), bytes))
    .into()
}

struct Watched {
    host: Host,
    fault: Fault,
    id: String,
}

/// One watch a kind of credential, each at a host of its own, and all of them held.
fn watched(server: &Server, app: &App, project: &Project, fault: &Fault) -> Vec<Watched> {
    let api = GithubApi::start();
    let kinds: [(String, Value); 4] = [
        (format!("x-access-token:{BARE}"), json!({ "token": BARE })),
        (format!("someone:{PASSWORD}"), json!({ "github_token": format!("someone:{PASSWORD}") })),
        (BEARER.to_owned(), json!({ "token": BEARER, "token_type": "bearer" })),
        (format!("x-access-token:{}", GithubApi::token(1)), json!({ "github_app": api.app() })),
    ];
    let watched = kinds.map(|(demanded, mut body)| {
        let host = Host::start();
        host.publish(project, "o/r");
        host.demand(&demanded);
        body["url"] = json!(host.url("o/r"));
        let id = app.watch_with(server, &body);
        app.wait_until_held(server, &id, &project.head());
        Watched { host, fault: fault.clone(), id }
    });
    watched.into()
}

/// Everything that is refused at the door.
fn refusals(server: &Server, app: &App, host: &Host, answers: &mut Vec<String>) {
    let url = host.url("o/r");
    let (scheme, rest) = url.split_once("://").expect("an address");
    for (body, status) in [
        (json!({ "url": url, "token": WRONG }), 404),
        (json!({ "url": format!("{scheme}://x:{USERINFO}@{rest}") }), 422),
        (json!({ "url": format!("{scheme}://{USERINFO}@{rest}") }), 422),
        (json!({ "url": format!("{USERINFO}@github.com/o/r") }), 422),
        (json!({ "url": format!("{url}?private_token={QUERY}") }), 422),
        (json!({ "url": "http://192.0.2.1/o/r", "token": WRONG }), 422),
        (
            json!({ "url": url, "github_app": { "app_id": 1, "installation_id": 1, "private_key": WRONG } }),
            422,
        ),
        (json!({ "url": url, "token": [WRONG] }), 422),
        (json!({ "url": url, "token": WRONG, "token_type": WRONG }), 422),
    ] {
        let refused = app.ask(server, "POST", "/api/repositories", Some(&body));
        assert_eq!(refused.status, status, "{}", refused.json());
        answers.push(refused.json().to_string());
    }
    for token in [WRONG, ADMIN] {
        let refused = server.ask("GET", "/api/repositories", Some(token), None).expect("an answer");
        assert_eq!(refused.status, 401);
        answers.push(refused.json().to_string());
    }
}

/// Hooks that are proved, not proved and not readable; GitLab sends its secret as it is.
fn hooks(server: &Server, host: &Host, answers: &mut Vec<String>) {
    let url = host.url("o/r");
    let push = json!({
        "object_kind": "push", "ref": "refs/heads/main", "after": "1".repeat(40),
        "project": { "git_http_url": format!("{url}.git"), "web_url": url },
    });
    for (number, (token, body, status)) in [
        (HOOK, push.to_string(), 202),
        (NEXT_HOOK, push.to_string(), 202),
        (WRONG, push.to_string(), 401),
        (HOOK, "no JSON".to_owned(), 400),
    ]
    .into_iter()
    .enumerate()
    {
        let head = format!(
            "POST /hooks/gitlab HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-gitlab-event: Push Hook\r\n\
             idempotency-key: {number}\r\nx-gitlab-token: {token}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = crate::support::http::raw(server.address(), head.as_bytes()).expect("an answer");
        assert_eq!(reply.status, status, "{}", reply.json());
        answers.push(reply.json().to_string());
    }
    let listed = server.ask("GET", "/api/admin/receipts", Some(ADMIN), None).expect("an answer");
    assert_eq!(listed.status, 200);
    answers.push(listed.json().to_string());
}

/// A hook of an app, with both secrets of a rotation and a wrong one; all that is told of what came there.
fn hooks_of_an_app(server: &Server, app: &App, host: &Host, answers: &mut Vec<String>) {
    let ask = |method: &str, path: &str, body: Option<&Value>| app.ask(server, method, path, body).json();
    let wish = json!({ "name": "planted", "provider": "gitlab", "secret": APP_HOOK });
    let made = ask("POST", "/api/hooks", Some(&wish));
    let path = made["path"].as_str().expect("a path");
    ask("POST", "/api/hooks/planted/rotate-secret", Some(&json!({ "secret": NEXT_APP_HOOK })));
    for (number, (token, status)) in
        [(APP_HOOK, 202), (NEXT_APP_HOOK, 202), (WRONG, 401)].into_iter().enumerate()
    {
        let body = json!({
            "object_kind": "push", "ref": "refs/heads/main", "number": number,
            "project": { "git_http_url": host.url("o/r") },
        });
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-gitlab-event: Push Hook\r\n\
             x-gitlab-token: {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = crate::support::http::raw(server.address(), head.as_bytes()).expect("an answer");
        assert_eq!(reply.status, status, "{}", reply.json());
        answers.push(reply.json().to_string());
    }
    for path in ["/api/hooks", "/api/hooks/planted", "/api/receipts"] {
        answers.push(ask("GET", path, None).to_string());
    }
    for receipt in ask("GET", "/api/receipts", None)["items"].as_array().expect("a page") {
        let id = receipt["receipt_id"].as_str().expect("an id");
        answers.push(ask("GET", &format!("/api/receipts/{id}"), None).to_string());
    }
}

/// Credentials of endpoints, sent to some that repeat them in what they answer, and to a token server
/// that does. The part of the client key that is secret.
fn endpoint_secrets(server: &Server, answers: &mut Vec<String>) -> String {
    let echo = |seen: &Seen| {
        let sent = seen.message.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        sent.collect::<Vec<_>>().join(" | ")
    };
    // What it was sent, first the secrets alone in every spelling, a password as it is meant too.
    let peer = Peer::plain(move |seen| {
        let authorization = seen.header("authorization");
        let pair = authorization.strip_prefix("Basic ").and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let meant = pair.and_then(|pair| String::from_utf8(pair).ok()).unwrap_or_default();
        let password = meant.split_once(':').map_or("", |(_, password)| password);
        let bearer = authorization.strip_prefix("Bearer ").unwrap_or_default();
        let said = format!("{password} {bearer} {}", seen.header("x-key"));
        let spelt = [
            said.clone(),
            json!({ "sent": said }).to_string(),
            json!({ "inner": json!({ "sent": said }).to_string() }).to_string(),
            utf8_percent_encode(&said, NON_ALPHANUMERIC).to_string(),
            said.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
            BASE64.encode(password.as_bytes()),
            HEXLOWER.encode(bearer.as_bytes()),
        ];
        Word::Say(503, format!("{} {}", spelt.join(" "), echo(seen)))
    });
    let tokens = Peer::plain(move |seen| {
        if seen.path == "/good" {
            let token = json!({ "access_token": ISSUED, "token_type": "Bearer", "expires_in": 3600 });
            return Word::Say(200, token.to_string());
        }
        Word::Say(401, json!({ "error": "invalid_client", "error_description": echo(seen) }).to_string())
    });
    let authority = Authority::new();
    let pair = authority.pair("client", 2999);
    let oauth = |path: &str| {
        json!({ "endpoint_auth": { "oauth2": {
            "token_url": format!("{}{path}", tokens.url()), "client_id": "client", "client_secret": CLIENT_SECRET,
        } } })
    };
    let owner = Owner::at(server, Some(&peer.url()));
    let project = Project::with(&[("a", "1")]);
    owner.ask(server, "POST", "/api/repositories", Some(&json!({ "url": project.url() })));
    for change in [
        json!({ "delivery": { "headers": { "x-key": HEADER } } }),
        json!({ "endpoint_tls": { "client_certificate": pair.certificate, "client_key": pair.key } }),
        json!({ "endpoint_auth": { "basic": { "username": "someone", "password": BASIC } } }),
        json!({ "endpoint_auth": { "bearer": { "token": ENDPOINT_BEARER } } }),
        oauth("/good"),
        oauth("/bad"),
    ] {
        let before = peer.seen().len() + tokens.seen().len();
        answers.push(owner.set(server, &change).to_string());
        answers.push(owner.test(server).to_string());
        assert!(peer.seen().len() + tokens.seen().len() > before, "it was used");
    }
    for (change, status) in [
        (json!({ "delivery": { "headers": { "x-key": [HEADER] } } }), 422),
        (json!({ "delivery": { "headers": { "host": HEADER } } }), 422),
        (json!({ "delivery": { "headers": HEADER } }), 422),
        (json!({ "endpoint_auth": { "basic": { "username": "x:y", "password": BASIC } } }), 422),
        (json!({ "endpoint_auth": { "bearer": { "token": format!("{ENDPOINT_BEARER} x") } } }), 422),
        (json!({ "endpoint_auth": { "bearer": ENDPOINT_BEARER } }), 422),
        (json!({ "endpoint_auth": ENDPOINT_BEARER }), 422),
        (json!({ "endpoint_tls": { "client_key": pair.key } }), 422),
        (json!({ "endpoint_tls": pair.key }), 422),
    ] {
        let refused = owner.change(server, &change);
        assert_eq!(refused.status, status, "{}", refused.json());
        answers.push(refused.json().to_string());
    }
    answers.push(owner.ask(server, "GET", "/api/app", None).json().to_string());
    answers.push(owner.ask(server, "GET", "/api/dead-letters", None).json().to_string());
    pair.key.lines().nth(2).expect("a key has lines").to_owned()
}

/// Every host misbehaves in a way that makes a credential worth mentioning.
fn failures(server: &Server, app: &App, project: &Project, watched: &[Watched], answers: &mut Vec<String>) {
    for watch in watched {
        watch.host.misbehave(Some(watch.fault.clone()));
        watch.host.publish(project, "o/r");
    }
    for watch in watched {
        answers.push(eventually(&format!("error of {:?}", watch.fault), SOON, || {
            let shown = app.repository(server, &watch.id);
            shown["last_error"].is_string().then(|| shown.to_string())
        }));
    }
}

/// What is looked for, with a name that may be shown.
fn secrets(app: &App, client_key: &str) -> Vec<(String, Vec<u8>)> {
    let minted = GithubApi::token(1);
    let key: String = KEY.lines().nth(5).expect("a key has lines").to_owned();
    let mut secrets = Vec::new();
    for (name, secret) in [
        ("bare token", BARE),
        ("password", PASSWORD),
        ("bearer token", BEARER),
        ("replacement", REPLACEMENT),
        ("wrong token", WRONG),
        ("userinfo", USERINFO),
        ("query", QUERY),
        ("signing key", SIGNING),
        ("hook secret", HOOK),
        ("next hook secret", NEXT_HOOK),
        ("secret of an app's hook", APP_HOOK),
        ("next secret of an app's hook", NEXT_APP_HOOK),
        ("admin token", ADMIN),
        ("minted token", &minted),
        ("private key", &key),
        ("client key", client_key),
        ("header value", HEADER),
        ("basic password", BASIC),
        ("endpoint's bearer token", ENDPOINT_BEARER),
        ("client secret", CLIENT_SECRET),
        ("issued access token", ISSUED),
        ("collector's token", COLLECTOR),
        // Its beginning is public; behind it stands the secret part.
        ("app token", app.token.rsplit('_').nth(1).expect("a token has parts")),
    ] {
        secrets.extend(spellings(name, secret));
    }
    // What every basic header of ours begins with is no secret.
    let common = BASE64.encode(b"x-access-token:");
    secrets.retain(|(_, secret)| !common.as_bytes().starts_with(&secret[..16.min(secret.len())]));
    secrets
}
