//! The guides for Git hosts: hooks, private repositories, the GitHub App, and being told. Their commands are run
//! against hosts of this machine, and what the guides say of errors is compared with what is answered.

use serde_json::{Value, json};
use tidings_entity::kind::StatusHost;

use super::{Scenery, follow_in, free_port, is_there, page};
use crate::support::{
    api::App,
    forge::Forge,
    git_host::Fault,
    github_api::{GithubApi, KEY},
    http::Reply,
    mail_server::{MailServer, PASSWORD, USER},
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

/// The address that stands for GitHub in the pages.
const GITHUB: &str = "https://github.com/octocat";

/// A host with one repository, and what lets a page meet it.
fn host(name: &str) -> (Host, Project, Scenery) {
    let (host, project) = (Host::start(), Project::with(&[("index.html", "1")]));
    host.publish(&project, &format!("octocat/{name}"));
    let scenery = Scenery {
        instead: vec![(GITHUB.to_owned(), host.url("octocat"))],
        settings: vec![
            ("TIDINGS__EGRESS__ALLOW", "127.0.0.0/8".to_owned()),
            ("TIDINGS__EGRESS__ALLOW_HTTP", "true".to_owned()),
        ],
        files: Vec::new(),
    };
    (host, project, scenery)
}

#[test]
fn the_commands_for_hooks_work_as_they_stand() {
    let (_host, _project, scenery) = host("site");
    follow_in("hooks.md", &scenery);
}

#[test]
fn the_commands_for_private_repositories_work_as_they_stand() {
    let (host, _project, scenery) = host("secret-site");
    host.demand_token("github_pat_11EXAMPLE");
    host.admit_token("github_pat_22EXAMPLE");
    follow_in("private-repositories.md", &scenery);
    let shown: Vec<_> = host.take_seen().into_iter().filter_map(|seen| seen.authorization).collect();
    let basic = |token: &str| {
        let pair = format!("x-access-token:{token}");
        format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()))
    };
    assert!(shown.contains(&basic("github_pat_11EXAMPLE")) && shown.contains(&basic("github_pat_22EXAMPLE")));
}

#[test]
fn the_commands_for_a_github_app_work_as_they_stand() {
    let (host, _project, mut scenery) = host("secret-site");
    let api = GithubApi::start();
    host.demand_token(&GithubApi::token(1));
    host.admit_token(&GithubApi::token(2));
    let with_api = format!("--github-api-url {} --github-app-id", api.url());
    scenery.instead.push(("--github-app-id".to_owned(), with_api));
    scenery.files.push(("app-key.pem", KEY.to_owned()));
    follow_in("github-app.md", &scenery);
    assert!(!api.seen().is_empty());
}

#[test]
fn the_commands_for_being_told_work_as_they_stand() {
    if !is_there("python3") {
        println!("skipped: there is no python3 on this machine");
        return;
    }
    let Some(mails) = MailServer::start("implicit") else { return };
    let (forge, project) = (Forge::start(StatusHost::Github), Project::with(&[("a", "1"), ("b", "1")]));
    forge.publish(&project);
    let server = mails.used_by(Server::prepare());
    let of_mail = |name: &'static str, key: &str| (name, server.setting(key).to_owned());
    let instead = [
        ("https://github.com/octocat/site", forge.url()),
        ("octocat/site", "one/two".to_owned()),
        ("--status\n", "--status=github\n".to_owned()),
    ];
    follow_in(
        "be-told.md",
        &Scenery {
            instead: instead.map(|(from, to)| (from.to_owned(), to)).to_vec(),
            settings: vec![
                of_mail("TIDINGS__EGRESS__CA_FILE", "egress.ca_file"),
                of_mail("TIDINGS__MAIL__SERVER", "mail.server"),
                of_mail("TIDINGS__MAIL__PORT", "mail.port"),
                of_mail("TIDINGS__MAIL__TLS", "mail.tls"),
                ("TIDINGS__MAIL__USERNAME", USER.to_owned()),
                ("TIDINGS__MAIL__PASSWORD", PASSWORD.to_owned()),
                of_mail("TIDINGS__MAIL__FROM", "mail.from"),
                of_mail("TIDINGS__MAIL__ALLOW", "mail.allow"),
                of_mail("TIDINGS__MAIL__DIGEST_INTERVAL", "mail.digest_interval"),
            ],
            files: Vec::new(),
        },
    );
    assert_eq!(forge.words(&project.head()).last().map(String::as_str), Some("success"));
    let told = mails.mails();
    assert!(told.len() >= 3 && told.iter().all(|mail| mail.to() == ["ada@example.org"]), "{told:?}");
    assert!(told.iter().any(|mail| !mail.numbers().is_empty()), "the pause was mailed: {told:?}");
}

/// Whether a table of the page has a row with all of these texts.
fn has_row(page: &str, texts: &[&str]) -> bool {
    page.lines().any(|line| line.starts_with("| ") && texts.iter().all(|text| line.contains(text)))
}

/// The title and the detail of a refusal.
fn words(reply: &Reply) -> (String, String) {
    let problem = reply.json();
    let of_field = problem["errors"][0]["detail"].as_str();
    let detail = problem["detail"].as_str().or(of_field).unwrap_or_default();
    (problem["title"].as_str().unwrap_or_default().to_owned(), detail.to_owned())
}

#[test]
fn the_errors_of_private_repositories_are_those_of_the_guide() {
    let page = page("private-repositories.md");
    let (host, project, _) = host("secret-site");
    host.demand_token("good");
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let watch = |body: Value| app.ask(&server, "POST", "/api/repositories", Some(&body));
    let url = host.url("octocat/secret-site");
    let is_said = |reply: &Reply, row: &[&str]| {
        let (title, detail) = words(reply);
        assert!(reply.status >= 400 && has_row(&page, row), "{reply:?}");
        assert!(row.iter().all(|text| format!("{title} {detail}").contains(text)), "{title}: {detail}");
    };
    is_said(
        &watch(json!({ "url": url, "token": "wrong" })),
        &["Invalid GitHub token", "the token is wrong, has expired, or may not read this repository"],
    );
    is_said(
        &watch(json!({ "url": url })),
        &["Repository not found or not accessible", "shows no such repository without a credential"],
    );
    is_said(
        &watch(json!({ "url": host.url("octocat/nothing"), "token": "good" })),
        &["Repository not found or not accessible", "shows no such repository to this credential"],
    );
    is_said(
        &watch(json!({ "url": url, "token": "bare", "token_type": "basic" })),
        &["basic authentication needs", "user:password"],
    );
    let nobody = format!("http://127.0.0.1:{}/octocat/x", free_port());
    let silent = json!({ "url": nobody, "token": "good" });
    is_said(&watch(silent), &["Failed to validate repository", "the Git host did not answer"]);

    let id = app.watch_with(&server, &json!({ "url": url, "token": "good" }));
    app.wait_until_held(&server, &id, &project.head());
    host.demand_token("another");
    let refused = eventually("refused credential", SOON, || {
        let shown = app.repository(&server, &id);
        (shown["effective_state"] == "credential_refused").then_some(shown)
    });
    let error = refused["last_error"].as_str().expect("an error");
    assert!(has_row(&page, &["`credential_refused`", &format!("`{error}`")]), "{error}");
    host.demand_token("good");
    host.misbehave(Some(Fault::Status(404, None)));
    let hidden = eventually("hidden repository", SOON, || {
        let shown = app.repository(&server, &id);
        shown["last_error"].as_str().is_some_and(|text| text.contains("not found")).then_some(shown)
    });
    let (state, error) = (hidden["effective_state"].as_str(), hidden["last_error"].as_str());
    let (state, error) = (state.expect("a state"), error.expect("an error"));
    assert!(has_row(&page, &[&format!("`{state}`"), &format!("`{error}`")]), "{state}: {error}");
}

#[test]
fn the_errors_of_a_github_app_are_those_of_the_guide() {
    let page = page("github-app.md");
    let (host, project, _) = host("secret-site");
    let (server, subscriber, api) = (Server::start(), Subscriber::start(), GithubApi::start());
    let app = App::onboard(&server, &subscriber);
    host.demand_token(&GithubApi::token(1));
    let url = host.url("octocat/secret-site");
    let said = |github_app: &Value| {
        let body = json!({ "url": url, "github_app": github_app });
        let reply = app.ask(&server, "POST", "/api/repositories", Some(&body));
        assert!(reply.status >= 400, "{}", reply.json());
        words(&reply).1
    };
    let mut other_key = api.app();
    other_key["private_key"] = json!("no key");
    let mut elsewhere = api.app();
    elsewhere["api_url"] = json!("https://elsewhere.example/api/v3/");
    for (github_app, row) in [
        (&other_key, "the private key is no RSA key in PEM"),
        (&elsewhere, "the API of a GitHub App must be on the Git host itself"),
    ] {
        let said = said(github_app);
        assert!(said.contains(row) && has_row(&page, &[row]), "{said}");
    }
    for (installation, status) in (1_000..).zip([401, 404, 422]) {
        api.refuse(Some((status, "")));
        // A failure stands for all who ask for the same installation, for some seconds.
        let mut github_app = api.app();
        github_app["installation_id"] = json!(installation);
        let row = format!("the API refuses the GitHub App's key or installation with status {status}");
        let said = said(&github_app);
        assert!(said.contains(&row) && has_row(&page, &[&row]), "{said}");
    }
    api.refuse(None);
    let id = app.watch_with(&server, &json!({ "url": url, "github_app": api.app() }));
    app.wait_until_held(&server, &id, &project.head());
    api.refuse(Some((404, "")));
    host.demand_token("nobody has this one");
    let removed = eventually("removed installation", SOON, || {
        let shown = app.repository(&server, &id);
        shown["last_error"].as_str().is_some_and(|text| text.contains("installation")).then_some(shown)
    });
    assert_eq!(removed["effective_state"], "credential_refused", "{removed}");
}
