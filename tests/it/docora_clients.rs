//! What the existing clients of Docora rely on, seen with their eyes.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    dice::Dice,
    http,
    model::Arrival,
    project::{Project, sha256},
    remote::Host,
    server::Server,
    subscriber::{Answer, KEY, Subscriber},
};

#[test]
fn registration_answers_as_docora_does() {
    let host = Host::start();
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "owner/name");
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let url = host.url("owner/name");

    let body = json!({ "github_url": url, "an_unknown_field": 1 });
    let reply = app.ask(&server, "POST", "/api/repositories", Some(&body));

    assert_eq!(reply.status, 201, "{}", reply.json());
    let text = String::from_utf8(reply.message.body.clone()).expect("text");
    let answer = reply.json();
    let id = answer["repository_id"].as_str().expect("an id");
    let created_at = answer["created_at"].as_str().expect("a moment");
    let begins = format!(
        r#"{{"repository_id":"{id}","github_url":"{url}","owner":"owner","name":"name","is_private":false,"created_at":"{created_at}""#
    );
    assert!(text.starts_with(&begins), "{text}");
    assert!(created_at.ends_with('Z') && created_at.len() == 24, "{created_at}");
    app.wait_until_held(&server, id, &project.head());

    let again = app.ask(&server, "POST", "/api/repositories", Some(&json!({ "github_url": url })));
    assert_eq!((again.status, again.json()["repository_id"].as_str()), (201, Some(id)), "the same id again");
    for (token, error) in
        [(None, "Missing or invalid Authorization header"), (Some("docora_0000"), "Invalid token")]
    {
        let reply = server.ask("POST", "/api/repositories", token, Some(&body)).expect("an answer");
        assert_eq!((reply.status, &reply.json()["error"]), (401, &json!(error)));
    }
    let missing =
        app.ask(&server, "POST", "/api/repositories", Some(&json!({ "github_url": host.url("owner/no") })));
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"], "Repository not found or not accessible");

    // Helix names a type for a body that it does not send.
    let delete = format!(
        "DELETE /api/repositories/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\nauthorization: Bearer {}\r\n\r\n",
        app.token
    );
    let reply = http::raw(server.address(), delete.as_bytes()).expect("an answer");
    assert_eq!((reply.status, reply.message.body.len()), (204, 0));
    let reply = http::raw(server.address(), delete.as_bytes()).expect("an answer");
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json()["error"], "Repository not found or not registered for this app");
}

#[test]
fn an_onboarding_answers_with_the_key_as_a_standard_webhooks_secret() {
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);

    let secret = app.onboarded["signing_secret"].as_str().expect("a secret");
    assert_eq!(secret, format!("whsec_{}", data_encoding::BASE64.encode(KEY.as_bytes())));
    assert!(app.id.starts_with("app_") && app.token.starts_with("tdg_"), "{}", app.onboarded);
    assert!(app.onboarded["created_at"].as_str().is_some_and(|at| at.ends_with('Z')));
}

#[test]
fn a_registration_again_sends_everything_again_under_the_same_id() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());

    assert_eq!(app.watch(&server, &project), id);

    subscriber.wait_for("everything again", |model| (model.applied.len() == 4).then_some(()));
    app.wait_until_held(&server, &id, &project.head());
    subscriber.assert_faultless();
    let told = subscriber.applied();
    assert!(told.iter().all(|(action, _)| action == "create"), "{told:?}");
}

#[test]
fn bodies_have_docoras_keys_first_and_in_its_order() {
    let host = Host::start();
    let project = Project::with(&[("grüße/a \"b\".md", "line\r\n\ttab \u{7f}\u{2028}é"), ("gone", "x")]);
    host.publish(&project, "owner/name");
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let url = host.url("owner/name");
    let id = app.watch_with(&server, &json!({ "github_url": url }));
    let first = project.head();
    app.wait_until_held(&server, &id, &first);
    project.write("grüße/a \"b\".md", &[0, 255]);
    project.remove("gone");
    let second = project.commit("second");
    host.publish(&project, "owner/name");
    app.wait_until_held(&server, &id, &second);

    let repository = format!(
        r#"{{"repository":{{"repository_id":"{id}","github_url":"{url}","owner":"owner","name":"name"}},"#
    );
    let text = "line\r\n\ttab \u{7f}\u{2028}é";
    let before = sha256(text.as_bytes());
    let bodies = subscriber.model().bodies.clone();
    let at = |body: &str| -> String {
        let body: Value = serde_json::from_str(body).expect("JSON");
        body["timestamp"].as_str().expect("a moment").to_owned()
    };
    let expected = |file: &str, previous: &str, commit: &str, body: &str| {
        format!("{repository}\"file\":{{{file}",).to_owned()
            + &format!("|{previous}\"commit_sha\":\"{commit}\",\"timestamp\":\"{}\",\"event\":{{", at(body))
    };
    let check = |body: &str, expected: String| {
        let (begins, then) = expected.split_once('|').expect("two parts");
        assert!(body.starts_with(begins), "{body}\ndoes not begin with\n{begins}");
        assert!(body[begins.len()..].contains(&format!("}},{then}")), "{body}\ndoes not go on with\n{then}");
    };
    let file = format!(
        r#""path":"grüße/a \"b\".md","sha":"{before}","size":{},"content":"line\r\n\ttab {}{}é","mode":"100644","#,
        text.len(),
        '\u{7f}',
        '\u{2028}'
    );
    let [_, create, delete, update] = bodies.as_slice() else { panic!("{bodies:#?}") };
    check(create, expected(&file, "", &first, create));
    let file = format!(r#""path":"gone","sha":"{}""#, sha256(b"x"));
    check(delete, expected(&file, "", &second, delete));
    let file = format!(
        r#""path":"grüße/a \"b\".md","sha":"{}","size":2,"content":"AP8=","content_encoding":"base64","mode":"100644","#,
        sha256(&[0, 255])
    );
    check(update, expected(&file, &format!(r#""previous_sha":"{before}","#), &second, update));
    subscriber.assert_straight();
}

#[test]
fn a_large_binary_comes_in_chunks_that_helix_can_store() {
    let project = Project::new();
    let mut dice = Dice::of(3);
    project.write("at-the-limit.bin", &dice.bytes(1 << 20));
    project.write("large.bin", &dice.bytes((1 << 20) + 1));
    project.write("large.txt", "text is never cut\n".repeat(80_000).as_bytes());
    project.commit("first");
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    // The second chunk of the first attempt fails: the whole file comes again, under another id.
    let mut refused = false;
    subscriber.script(move |arrival| match arrival {
        Arrival::Change(change) if change.body["file"]["chunk"]["index"] == 1 && !refused => {
            refused = true;
            Answer::Refuse(503)
        }
        _ => Answer::Accept,
    });

    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());

    subscriber.wait_for_tree(&id, &project.tree("HEAD"));
    subscriber.assert_straight();
    let model = subscriber.model();
    let chunks: Vec<(u64, u64)> =
        model.chunks_seen.iter().map(|(_, index, total)| (*index, *total)).collect();
    assert_eq!(chunks, [(0, 3), (1, 3), (0, 3), (1, 3), (2, 3)]);
    let ids: Vec<&String> = model.chunks_seen.iter().map(|(id, _, _)| id).collect();
    assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[3] == ids[4] && ids[0] != ids[2], "{ids:?}");
}

#[test]
fn health_and_version_answer_as_docoras_do() {
    let server = Server::start();
    let health = server.ask("GET", "/health", None, None).expect("an answer").json();
    assert!(health["timestamp"].is_string() && health["uptime"].is_f64(), "{health}");
    let version = server.ask("GET", "/version", None, None).expect("an answer").json();
    for key in ["version", "buildNumber", "gitSha", "buildDate"] {
        assert!(version[key].is_string(), "{version}");
    }
}
