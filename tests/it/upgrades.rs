//! A database of the version before sinks, names of watches and the ledger, in the middle of its work: rounds
//! that are open on an endpoint, on a stream and on a watch that is pulled, a dead letter, an open breaker.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{
    api::App,
    model::Arrival,
    patience::{SOON, eventually},
    project::Project,
    puller::Puller,
    server::Server,
    stream::Nats,
    subscriber::{Answer, KEY, Subscriber},
    text_setting,
};

fn files(count: usize) -> Project {
    let project = Project::new();
    for number in 0..count {
        project.write(format!("f{number:02}"), number.to_string().as_bytes());
    }
    project.commit("first");
    project
}

/// The numbers of the open rounds; `None`: one of them is not open.
fn open_rounds(server: &Server, watches: &[(&App, &str)]) -> Option<Vec<u64>> {
    let round =
        |(app, id): &(&App, &str)| app.repository(server, id)["branches"][0]["round"]["round"].as_u64();
    watches.iter().map(round).collect()
}

fn streaming(server: &Server, nats: &Nats) -> App {
    let body = json!({ "base_url": nats.url(), "app_name": "streamed", "email": "stories@example.org",
                       "client_auth_key": KEY });
    let onboarded = server.ask("POST", "/api/apps/onboard", None, Some(&body)).expect("an answer").json();
    let text = |key: &str| onboarded[key].as_str().expect("a text").to_owned();
    App { id: text("app_id"), token: text("token"), onboarded: onboarded.clone() }
}

fn breaker(app: &App, server: &Server) -> Value {
    app.ask(server, "GET", "/api/app", None).json()["endpoint"]["state"].clone()
}

#[test]
fn a_database_of_the_version_before_goes_on_where_it_stood() {
    let Some(older) = text_setting("TIDINGS_STORY_OLDER").map(PathBuf::from) else {
        println!("skipped: TIDINGS_STORY_OLDER names no binary of a version before");
        return;
    };
    let Some(nats) = Nats::start() else { return };
    let mut server = Server::prepare();
    server.becomes(Some(older));
    server.run();
    let project = files(20);
    let head = project.head();

    let endpoint = Subscriber::start();
    let sent = App::onboard(&server, &endpoint);
    endpoint.script(|arrival| match arrival {
        Arrival::Change(change) if change.path == b"f03" => Answer::Refuse(422),
        Arrival::Change(change) if change.path.as_slice() < b"f08".as_slice() => Answer::Accept,
        _ => Answer::Refuse(503),
    });
    let sent_id = sent.watch(&server, &project);
    // There is no stream yet.
    let streamed = streaming(&server, &nats);
    let streamed_id = streamed.watch(&server, &project);
    let mut puller = Puller::onboard(&server);
    let pulled_id = puller.app.watch(&server, &project);
    let lent = puller.ask(&server, &pulled_id, "wait_seconds=30&limit=2").expect("changes");
    let arrivals = puller.take(&lent, 1);
    let settled = json!({ "lease_id": lent["lease_id"], "accepted_through": 1 });
    assert_eq!(puller.settle(&server, &pulled_id, &settled).0, 200);
    arrivals.iter().for_each(|arrival| puller.model.acknowledged(arrival));

    eventually("an open breaker", 4 * SOON, || (breaker(&sent, &server) == "open").then_some(()));
    let puller_app = puller.app.clone();
    let watches =
        [(&sent, sent_id.as_str()), (&streamed, streamed_id.as_str()), (&puller_app, pulled_id.as_str())];
    let before = eventually("open rounds", SOON, || open_rounds(&server, &watches));
    let letters = sent.dead_letters(&server);
    assert_eq!(letters.len(), 1);
    server.kill();
    endpoint.model().note_kill();
    puller.model.note_kill();

    server.becomes(None);
    server.run();
    assert_eq!(open_rounds(&server, &watches), Some(before), "the rounds are the same");
    assert_eq!(sent.dead_letters(&server), letters);
    assert_eq!(breaker(&sent, &server), "open");
    endpoint.accept_all();
    nats.make_stream(&json!({}));
    sent.tell(&server, &sent_id, "scan");
    for (app, id) in &watches[..2] {
        app.wait_until_held(&server, id, &head);
    }
    let letter = letters[0]["dead_letter_id"].as_str().expect("an id");
    let redriven = sent.ask(&server, "POST", &format!("/api/dead-letters/{letter}/redrive"), None);
    assert!(matches!(redriven.status, 200 | 202), "{}", redriven.json());
    endpoint.wait_for_tree(&sent_id, &project.tree(&head));
    endpoint.assert_straight();
    assert_eq!(nats.kept().len(), 20, "each change stands in the stream once");
    eventually("what is pulled is held", 2 * SOON, || {
        puller.drain(&server, &pulled_id);
        crate::support::api::is_settled(&puller.app.repository(&server, &pulled_id), &head).then_some(())
    });
    puller.assert_has(&pulled_id, &project.tree(&head));
}
