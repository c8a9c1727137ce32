//! A client that never heard its answer asks again under the same key: nothing is done twice,
//! wherever the server was killed in between.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    replicas::LEASE,
    support::{
        api::{App, items},
        dice::Dice,
        fleet::Fleet,
        http::{Reply, raw},
        kills,
        patience::{SOON, eventually},
        peer::{Peer, Word},
        project::Project,
        server::Server,
        subscriber::Subscriber,
    },
};

/// Apps that are made, each over two kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const APPS: u64 = 12;
/// A page of a list shows no more apps.
const APPS_MAX: u64 = 100;

/// A POST under a key.
#[derive(Clone)]
struct Asked {
    path: &'static str,
    token: Option<String>,
    key: String,
    body: Value,
}

impl Asked {
    fn of(&self, address: SocketAddr) -> std::io::Result<Reply> {
        let body = self.body.to_string();
        let token = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n"));
        let request = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{}\
             idempotency-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.path,
            token.unwrap_or_default(),
            self.key,
            body.len()
        );
        raw(address, request.as_bytes())
    }

    /// Asks, kills the server after `life`, starts it and asks until there is an answer.
    fn over_a_kill(&self, server: &mut Server, life: Duration) -> Reply {
        let (asked, address) = (self.clone(), server.address());
        let first = thread::spawn(move || asked.of(address));
        thread::sleep(life);
        server.kill();
        let first = first.join().expect("no panic").ok();
        server.run();
        let answer =
            eventually("answer", SOON, || self.of(server.address()).ok().filter(|reply| reply.status != 409));
        assert!(answer.status == 201, "{}", answer.json());
        if let Some(first) = first {
            assert_eq!(first.message.body, answer.message.body, "what was told once stays");
            assert_eq!(answer.message.header("idempotent-replayed"), Some("true"));
        }
        answer
    }
}

#[test]
fn what_a_kill_left_unanswered_is_done_once_under_its_key() {
    let mut dice = Dice::thrown("asked twice");
    let project = Project::with(&[("a", "1")]);
    let mut server = Server::start();
    let count = |server: &Server, what: &str| {
        items(&server.ask_as_admin("GET", &format!("/api/admin/{what}?limit=100")).json()).len()
    };
    for round in 0..usize::try_from(kills(APPS).min(APPS_MAX)).expect("few") {
        let onboard = Asked {
            path: "/api/apps/onboard",
            token: None,
            key: format!("{round:032}"),
            body: json!({ "app_name": "stories", "email": "stories@example.org" }),
        };
        let app = onboard.over_a_kill(&mut server, dice.up_to(Duration::from_millis(20))).json();
        assert_eq!(count(&server, "apps"), round + 1, "one app a key");
        let token = app["token"].as_str().expect("a token").to_owned();
        let known = server.ask("GET", "/api/app", Some(&token), None).expect("an answer");
        assert_eq!(known.json()["app_id"], app["app_id"], "the token is that of the app");

        let watch = Asked {
            path: "/api/repositories",
            token: Some(token),
            key: "1".into(),
            body: json!({ "url": project.url() }),
        };
        watch.over_a_kill(&mut server, dice.up_to(Duration::from_millis(20)));
        assert_eq!(count(&server, "watches"), round + 1, "one watch a key");
    }
}

/// A request that takes as long as the story wants, because the receiver of a test delivery says nothing.
#[test]
fn what_a_replica_runs_is_waited_for_by_the_others_while_it_lives_and_no_longer() {
    let dress = |server: Server| server.with("delivery.attempt_timeout", "10m");
    let Some(mut fleet) = Fleet::dressed(1, LEASE, dress) else { return };
    let app = App::onboard(&fleet.servers[0], &Subscriber::start());
    let silent = Peer::plain(|_| Word::Hang);
    let asked = Asked {
        path: "/api/app/test",
        token: Some(app.token.clone()),
        key: "a-test-that-takes-long".into(),
        body: json!({ "base_url": silent.url() }),
    };
    let (first, address) = (asked.clone(), fleet.servers[0].address());
    let answer = thread::spawn(move || first.of(address));
    // The receiver has the test delivery, so the request runs.
    silent.wait_for(1);

    // A replica that started later does not run it a second time.
    fleet.join();
    let later = asked.of(fleet.servers[1].address()).expect("an answer");
    assert_eq!(later.status, 409, "{}", later.json());
    assert_eq!(later.json()["type"], "urn:tidings:problem:request-still-running");
    assert_eq!(silent.seen().len(), 1, "nothing was sent a second time");

    silent.script(|_| Word::status(204));
    fleet.servers[0].kill();
    let killed = Instant::now();
    let cut_off = answer.join().expect("no panic");
    assert!(cut_off.is_err(), "it was still running, but: {cut_off:?}");
    let address = fleet.servers[1].address();
    let again = eventually("request that runs again", SOON, || {
        Some(asked.of(address).expect("an answer")).filter(|reply| reply.status != 409)
    });
    println!("it ran again {:?} after the kill, with a lease of {LEASE:?}", killed.elapsed());
    assert_eq!((again.status, &again.json()["status"]), (200, &json!(204)), "{}", again.json());
    assert_eq!(silent.seen().len(), 2, "it ran once more");
}
