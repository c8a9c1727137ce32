//! What became of deliveries, and the tail of them.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    past_rounds::{Twice, all, delivered_and_lost, texts},
    support::{
        api::App,
        database,
        http::Reply,
        model::Arrival,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
        server::Server,
        subscriber::{Answer, Subscriber},
        tail::Tail,
    },
};

pub(crate) fn refuse(
    paths: &'static [&'static str],
    status: u16,
) -> impl FnMut(&Arrival) -> Answer + Send + 'static {
    move |arrival| match arrival {
        Arrival::Change(change) if paths.iter().any(|path| change.path == path.as_bytes()) => {
            Answer::Refuse(status)
        }
        _ => Answer::Accept,
    }
}

/// An app with two repositories, of which six changes were delivered and one of them given up.
struct Delivered {
    server: Server,
    subscriber: Subscriber,
    app: App,
    second: String,
    projects: [Project; 2],
}

impl Delivered {
    fn on(server: Server) -> Self {
        let one = Project::with(&[("a", "1"), ("b", "1"), ("bad", "1")]);
        let other = Project::with(&[("z", "1")]);
        let subscriber = Subscriber::start();
        let app = App::onboard(&server, &subscriber);
        subscriber.script(refuse(&["bad"], 404));
        let id = app.watch(&server, &one);
        app.wait_until_held(&server, &id, &one.head());
        let second = app.watch(&server, &other);
        app.wait_until_held(&server, &second, &other.head());
        one.remove("a");
        one.write("b", b"2");
        let newest = one.commit("second");
        app.tell(&server, &id, "scan");
        app.wait_until_held(&server, &id, &newest);
        Self { server, subscriber, app, second, projects: [one, other] }
    }

    fn found(&self, query: &str) -> Vec<Value> {
        all(&self.app, &self.server, &format!("/api/deliveries{query}"))
    }

    fn show(&self, delivery: &Value) -> Reply {
        let id = delivery["id"].as_str().expect("an id");
        self.app.ask(&self.server, "GET", &format!("/api/deliveries/{id}"), None)
    }
}

#[test]
fn deliveries_are_found_by_everything_that_is_known_of_them() {
    let delivered = Delivered::on(Server::start());
    let everything = delivered.found("");
    let told = ["b", "a", "z", "bad", "b", "a"];
    assert_eq!(texts(&everything, "path"), told, "the newest round, the last change first");
    let taken: Vec<Value> = everything.iter().filter(|it| it["state"] == "delivered").cloned().collect();
    let sent: Vec<String> =
        delivered.subscriber.model().applied.iter().rev().map(|change| change.id.clone()).collect();
    assert_eq!(texts(&taken, "id"), sent, "what the receiver took");
    let bad = &everything[3];
    assert_eq!(
        (&bad["state"], &bad["attempts"], &bad["last_status"]),
        (&json!("parked"), &json!(3), &json!(404))
    );
    let newest = &everything[0];
    assert_eq!((&newest["attempts"], &newest["last_status"]), (&json!(1), &Value::Null));
    let middle = everything[2]["settled_at"].as_str().expect("a moment");
    for (query, paths) in [
        ("?status=parked".to_owned(), &["bad"][..]),
        ("?status=delivered&kind=create".to_owned(), &["z", "b", "a"]),
        ("?kind=delete".to_owned(), &["a"]),
        ("?path=b".to_owned(), &["b", "b"]),
        ("?path_prefix=ba".to_owned(), &["bad"]),
        ("?path_glob=%3F".to_owned(), &["b", "a", "z", "b", "a"]),
        ("?path_base64=eg%3D%3D".to_owned(), &["z"]),
        (format!("?repository_id={}", delivered.second), &["z"]),
        (format!("?from={middle}"), &["b", "a", "z"]),
        (format!("?to={middle}"), &["bad", "b", "a"]),
        ("?status=pending".to_owned(), &[]),
        ("?status=failed".to_owned(), &[]),
        ("?status=dropped".to_owned(), &[]),
        (format!("?id={}", everything[5]["id"].as_str().expect("an id")), &["a"]),
        (format!("?id=dlv_{}", "a".repeat(52)), &[]),
        // A time before now is another moment on each page, and the filter is the same.
        ("?q=since%3A-1h".to_owned(), &told),
        ("?q=until%3A-1h".to_owned(), &[]),
        ("?q=state%3Aparked+OR+path%3Az".to_owned(), &["z", "bad"]),
        ("?q=branch%3Amain+kind%3Adelete".to_owned(), &["a"]),
        ("?q=NOT+attempts%3A1&kind=create".to_owned(), &["bad"]),
        ("?q=state%3Apending+OR+state%3Adropped".to_owned(), &[]),
        (format!("?q=repository%3A{}", delivered.second), &["z"]),
    ] {
        assert_eq!(texts(&delivered.found(&query), "path"), paths, "{query}");
    }
}

#[test]
fn a_repository_that_cannot_be_read_hides_no_other() {
    let mut delivered = Delivered::on(Server::start());
    let [one, other] = &delivered.projects;
    std::fs::rename(one.path(), one.path().with_extension("away")).expect("it goes");
    delivered.server.kill();
    delivered.server.run();
    let page = delivered.app.ask(&delivered.server, "GET", "/api/deliveries", None).json();
    assert_eq!(texts(page["items"].as_array().expect("items"), "path"), ["z", "bad"], "{page:#}");
    assert_eq!(page["unreadable"].as_array().map(Vec::len), Some(2), "{page:#}");
    std::fs::rename(one.path().with_extension("away"), one.path()).expect("it comes back");
    assert_eq!(delivered.found("").len(), 6);
    assert!(other.path().exists());
}

#[test]
fn a_delivery_is_shown_with_its_tries_to_its_own_app() {
    let delivered = Delivered::on(Server::start());
    let Delivered { server, app, .. } = &delivered;
    let everything = delivered.found("");
    let parked = eventually("rows of the attempts", SOON, || {
        let shown = delivered.show(&everything[3]).json();
        (shown["tries"].as_array().map(Vec::len) == Some(3)).then_some(shown)
    });
    let letter = &app.dead_letters(server)[0];
    assert_eq!((&parked["path"], &parked["dead_letter_id"]), (&json!("bad"), &letter["dead_letter_id"]));
    let tries = parked["tries"].as_array().expect("tries");
    let names = texts(tries[0]["answer"]["headers"].as_array().expect("headers"), "name");
    assert!(tries.len() == 3 && tries[0]["http_status"] == 404, "{parked:#}");
    assert!(names.contains(&"content-length".to_owned()), "{parked:#}");
    let taken = delivered.show(&everything[5]);
    assert_eq!((taken.status, &taken.json()["path"], &taken.json()["tries"]), (200, &json!("a"), &json!([])));

    let stranger = App::onboard(server, &Subscriber::start());
    assert_eq!(stranger.ask(server, "GET", "/api/deliveries", None).json()["items"], json!([]));
    for at in [3, 5] {
        let path = format!("/api/deliveries/{}", everything[at]["id"].as_str().expect("an id"));
        assert_eq!(stranger.ask(server, "GET", &path, None).status, 404, "{path}");
    }
    for (path, status) in [
        (format!("/dlv_{}", "a".repeat(52)), 404),
        ("/dlv_a".to_owned(), 404),
        ("/x".to_owned(), 404),
        ("?id=x".to_owned(), 400),
        (format!("?id=dlv_{}", "A".repeat(52)), 400),
        ("?status=open".to_owned(), 400),
        ("?kind=rename".to_owned(), 400),
        ("?from=yesterday".to_owned(), 400),
        ("?path=a&path_glob=b".to_owned(), 400),
        ("?path_glob=%5B".to_owned(), 400),
        ("?repository_id=x".to_owned(), 400),
        ("?reason=rejected".to_owned(), 400),
        ("?limit=0".to_owned(), 400),
        ("?cursor=AAAAAAAAAAAAAAAA".to_owned(), 400),
    ] {
        let reply = app.ask(server, "GET", &format!("/api/deliveries{path}"), None);
        assert_eq!(reply.status, status, "{path}: {}", reply.json());
    }
}

#[test]
fn where_every_attempt_is_recorded_a_delivery_shows_its_acknowledgement() {
    let mut server = Server::prepare().with("delivery.history", "all");
    server.run();
    let delivered = Delivered::on(server);
    // Its row is written beside the settlement, not before it.
    let newest = eventually("row of the attempt", SOON, || {
        let newest = delivered.found("?status=delivered")[0].clone();
        (newest["attempts"] == 1 && newest["last_status"] == 200).then_some(newest)
    });
    let shown = delivered.show(&newest).json();
    assert_eq!(shown["tries"].as_array().map(Vec::len), Some(1), "{shown:#}");
    let answer = &shown["tries"][0]["answer"];
    assert!(answer["headers"].as_array().is_some_and(|headers| !headers.is_empty()), "{shown:#}");
}

#[test]
fn what_waits_is_shown_where_it_is_asked_for() {
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    subscriber.script(refuse(&["b"], 503));
    app.watch(&server, &project);
    let found = |query: &str| texts(&all(&app, &server, &format!("/api/deliveries{query}")), "path");
    eventually("b that failed", SOON * 4, || (found("?status=failed") == ["b"]).then_some(()));
    assert_eq!(found(""), ["b", "a"]);
    assert_eq!(found("?status=pending"), ["d", "c"]);
    assert_eq!(found("?status=delivered"), ["a"]);
}

#[test]
fn of_a_round_whose_trees_are_gone_its_dead_letters_are_left_and_that_is_said() {
    let (host, project) = (Host::start(), Project::with(&[("a", "1"), ("bad", "1"), ("c", "1")]));
    let subscriber = Subscriber::start();
    subscriber.script(refuse(&["bad"], 422));
    let (server, app, id) = delivered_and_lost(&host, &project, &subscriber);
    let page = app.ask(&server, "GET", "/api/deliveries", None).json();
    assert_eq!(texts(page["items"].as_array().expect("items"), "path"), ["bad"], "{page:#}");
    let unreadable = page["unreadable"].as_array().expect("rounds");
    assert!(unreadable.len() == 2 && unreadable[0]["repository_id"] == json!(id), "{page:#}");
    let letter = page["items"][0]["id"].as_str().expect("an id").to_owned();
    let shown = app.ask(&server, "GET", &format!("/api/deliveries/{letter}"), None);
    assert_eq!((shown.status, &shown.json()["path"]), (200, &json!("bad")));

    // A tail that is to go on in there says what it cannot show, and goes on behind it.
    let path = format!("/api/repositories/{id}/events");
    let mut tail = Tail::open(&server, &app, &format!("{path}?after={}.0", unreadable[1]["round"]), "");
    for (round, range) in [(&unreadable[1]["round"], [1, 3]), (&unreadable[0]["round"], [0, 1])] {
        let (id, word, data) = tail.next();
        assert_eq!((word.as_str(), id), ("gap", format!("{round}.{}", range[1] - 1)));
        assert_eq!((&data["round"], &data["from"], &data["to"]), (round, &json!(range[0]), &json!(range[1])));
    }
}

#[test]
fn a_tail_tells_what_was_delivered_and_parked_and_goes_on_after_a_break() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let (mut server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let path = format!("/api/repositories/{id}/events");
    let mut present = Tail::open(&server, &app, &path, "");
    project.write("a", b"2");
    project.write("bad", b"1");
    project.remove("b");
    subscriber.script(refuse(&["bad"], 422));
    let second = project.commit("second");
    app.tell(&server, &id, "scan");
    let told: Vec<_> = (0..3).map(|_| present.next()).collect();
    let shown: Vec<_> = told
        .iter()
        .map(|(_, word, data)| (word.as_str(), data["path"].as_str(), data["state"].as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("file.deleted", Some("b"), Some("delivered")),
            ("file.created", Some("bad"), Some("parked")),
            ("file.updated", Some("a"), Some("delivered")),
        ],
        "nothing of before it began, all of it in order"
    );
    app.wait_until_held(&server, &id, &second);
    let round = &all(&app, &server, &format!("/api/repositories/{id}/rounds"))[0]["round"];
    let ids: Vec<String> = told.iter().map(|(id, ..)| id.clone()).collect();
    assert_eq!(ids, [format!("{round}.0"), format!("{round}.1"), format!("{round}.2")]);
    let listed = all(&app, &server, &format!("/api/repositories/{id}/changes?round={round}"));
    assert_eq!(
        listed,
        told.iter().map(|(.., data)| data.clone()).collect::<Vec<_>>(),
        "as the list shows them"
    );

    // Behind the last event that was seen, in either way of saying so, also over rounds.
    let first = &all(&app, &server, &format!("/api/repositories/{id}/rounds"))[1]["round"];
    let mut resumed = Tail::open(&server, &app, &path, &format!("last-event-id: {first}.0\r\n"));
    let paths: Vec<_> =
        (0..4).map(|_| resumed.next().2["path"].as_str().expect("a path").to_owned()).collect();
    assert_eq!(paths, ["b", "b", "bad", "a"]);
    let mut resumed = Tail::open(&server, &app, &format!("{path}?after={}", ids[1]), "");
    assert_eq!(resumed.next().0, ids[2]);

    // It moves nothing, and a stop does not wait for it.
    assert_eq!(app.repository(&server, &id)["branches"][0]["held_commit"], json!(second));
    let tails = [present, resumed];
    let (status, took) = server.terminate();
    // A stop that waited for them would take its deadline, 20 seconds.
    assert!(status.success() && took < Duration::from_secs(15), "{status} after {took:?}");
    assert!(tails.into_iter().all(Tail::ends), "both ended");
}

#[test]
fn a_tail_says_where_history_is_kept_no_longer() {
    let mut twice = Twice::delivered();
    let rounds = twice.list("rounds");
    let [newest, oldest] = [0, 1].map(|at| rounds[at]["round"].as_i64().expect("a number"));
    twice.server.kill();
    database::change_with(&twice.server, "delete from round where number = ?", &[oldest]);
    twice.server.run();
    let path = twice.path(&format!("events?after={oldest}.4"));
    let mut tail = Tail::open(&twice.server, &twice.app, &path, "");
    let (_, word, data) = tail.next();
    assert_eq!((word.as_str(), &data["round"]), ("gap", &json!(oldest)));
    let told: Vec<_> = (0..3).map(|_| tail.next().0).collect();
    assert_eq!(told, [0, 1, 2].map(|position| format!("{newest}.{position}")));
}

/// What is damaged stays so: nobody fetches the trees of a round that has ended.
#[test]
fn a_tail_passes_over_rounds_whose_trees_are_damaged() {
    let mut twice = Twice::delivered();
    let rounds = twice.list("rounds");
    twice.server.kill();
    twice.damage_the_first_commit();
    twice.server.run();
    let path = twice.path(&format!("events?after={}.4", rounds[1]["round"]));
    let mut tail = Tail::open(&twice.server, &twice.app, &path, "");
    for (round, from, to) in [(&rounds[1]["round"], 5, 41), (&rounds[0]["round"], 0, 3)] {
        let (_, word, data) = tail.next();
        assert_eq!((word.as_str(), &data["round"]), ("gap", round), "{data}");
        assert_eq!((&data["from"], &data["to"]), (&json!(from), &json!(to)));
    }
}

#[test]
fn a_tail_takes_what_is_an_event_id_only_and_an_app_has_eight_of_them() {
    let project = Project::with(&[("a", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let path = format!("/api/repositories/{id}/events");
    let status = |asker: &App, query: &str| asker.ask(&server, "GET", &format!("{path}{query}"), None).status;
    for query in [
        "?after=x",
        "?after=1",
        "?after=-1.0",
        "?after=9999999999999.0",
        "?branch=nope",
        "?limit=1",
        "?after=",
    ] {
        assert_eq!(status(&app, query), 400, "{query}");
    }
    for header in ["x", "1.", "1.0.0", "\u{e4}", "9999999999999.0"] {
        let header = format!("last-event-id: {header}\r\n");
        assert_eq!(status_of_head(&server, &app, &format!("{path}?after=1.0"), &header), 400, "{header}");
    }
    let stranger = App::onboard(&server, &Subscriber::start());
    assert_eq!(status(&stranger, ""), 404);
    let tails: Vec<Tail> = (0..8).map(|_| Tail::open(&server, &app, &path, "")).collect();
    assert_eq!(status(&app, ""), 429);
    drop(tails);
    let last = until_there_is_room(&server, &app, &path);
    app.unwatch(&server, &id);
    assert!(last.ends(), "of a repository that is watched no more");
}

/// A tail, as soon as one of the others has ended.
fn until_there_is_room(server: &Server, app: &App, path: &str) -> Tail {
    let until = Instant::now() + SOON;
    while status_of_head(server, app, path, "") == 429 {
        assert!(Instant::now() < until, "the places are free again");
        std::thread::sleep(Duration::from_millis(50));
    }
    Tail::open(server, app, path, "")
}

/// The status alone: the body has no end.
fn status_of_head(server: &Server, app: &App, path: &str, more: &str) -> u16 {
    let mut stream = TcpStream::connect(server.address()).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("set");
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{more}\r\n", app.token);
    stream.write_all(request.as_bytes()).expect("sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}
