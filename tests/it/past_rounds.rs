//! Reading what was delivered, and what is being delivered, as lists of changes.

use serde_json::{Value, json};

use crate::support::{
    api::{App, items},
    database,
    git_host::Fault,
    model::Arrival,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// Every item of a list, page after page.
pub(crate) fn all(app: &App, server: &Server, path: &str) -> Vec<Value> {
    let (mut found, mut next) = (Vec::new(), String::new());
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let reply = app.ask(server, "GET", &format!("{path}{joint}limit=3{next}"), None);
        assert_eq!(reply.status, 200, "{path}: {}", reply.json());
        let page = reply.json();
        found.extend(items(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { return found };
        next = format!("&cursor={cursor}");
    }
}

pub(crate) fn texts(items: &[Value], field: &str) -> Vec<String> {
    items.iter().map(|item| item[field].as_str().unwrap_or("-").to_owned()).collect()
}

fn status(app: &App, server: &Server, path: &str) -> u16 {
    app.ask(server, "GET", path, None).status
}

/// A watch of which two commits were delivered.
pub(crate) struct Twice {
    project: Project,
    pub(crate) server: Server,
    subscriber: Subscriber,
    pub(crate) app: App,
    id: String,
    commits: [String; 2],
}

impl Twice {
    pub(crate) fn delivered() -> Self {
        let project = Project::new();
        for file in 0..40 {
            project.write(format!("docs/page{file:02}"), file.to_string().as_bytes());
        }
        project.write_raw(b"odd\xff", b"1");
        let first = project.commit("first");
        let (server, subscriber) = (Server::start(), Subscriber::start());
        let app = App::onboard(&server, &subscriber);
        let id = app.watch(&server, &project);
        app.wait_until_held(&server, &id, &first);
        project.remove("docs/page07");
        project.write("docs/new", b"2");
        project.write("docs/page01", b"changed");
        let second = project.commit("second");
        app.tell(&server, &id, "scan");
        app.wait_until_held(&server, &id, &second);
        Self { project, server, subscriber, app, id, commits: [first, second] }
    }

    pub(crate) fn path(&self, list: &str) -> String {
        format!("/api/repositories/{}/{list}", self.id)
    }

    /// The file of the first commit's tree holds another one.
    pub(crate) fn damage_the_first_commit(&self) {
        let file = |name: &str| {
            let id = self.project.git(["rev-parse", name]);
            self.project.path().join(".git/objects").join(&id[..2]).join(&id[2..])
        };
        let (damaged, other) = (file("HEAD~1^{tree}"), file("HEAD~1:docs"));
        std::fs::remove_file(&damaged).expect("it was there");
        std::fs::copy(other, damaged).expect("copied");
    }

    pub(crate) fn list(&self, list: &str) -> Vec<Value> {
        all(&self.app, &self.server, &self.path(list))
    }
}

#[test]
fn the_rounds_of_a_repository_are_listed_newest_first() {
    let twice = Twice::delivered();
    let rounds = twice.list("rounds");
    let shown = |round: &Value| {
        let words =
            ["kind", "state", "total", "creates", "position", "held_commit", "target_commit", "branch"];
        json!(words.map(|word| round[word].clone()))
    };
    let (main, [first, second]) = ("refs/heads/main", &twice.commits);
    let newest = json!(["sync", "finished", 3, 1, 3, first, second, main]);
    let oldest = json!(["sync", "finished", 41, 41, 41, null, first, main]);
    assert_eq!(rounds.iter().map(shown).collect::<Vec<_>>(), [newest, oldest], "{rounds:#?}");
    assert_eq!(twice.list("rounds?branch=main"), rounds);
    let nothing = twice.app.ask(&twice.server, "GET", &twice.path("changes"), None).json();
    assert_eq!((&nothing["round"], &nothing["items"]), (&Value::Null, &json!([])), "nothing is open");
}

#[test]
fn the_changes_of_every_round_are_listed_as_they_were_delivered() {
    let twice = Twice::delivered();
    let mut listed = Vec::new();
    for round in twice.list("rounds").iter().rev() {
        listed.extend(twice.list(&format!("changes?round={}", round["round"])));
    }
    // Ids, types and paths, in the same order.
    let delivered: Vec<Value> =
        twice.subscriber.model().applied.iter().map(|change| change.body.clone()).collect();
    let told = |field: &str| -> Vec<String> { texts(&listed, field) };
    let sent = |part: &str, field: &str| -> Vec<String> {
        delivered.iter().map(|body| body[part][field].as_str().unwrap_or("-").to_owned()).collect()
    };
    assert_eq!(told("id"), sent("event", "id"));
    assert_eq!(told("type"), sent("event", "type"));
    assert_eq!(told("path"), sent("file", "path"));
    assert_eq!(told("path_base64"), sent("file", "path_base64"));
    assert!(listed.iter().all(|change| change["state"] == "delivered" && change["settled_at"].is_string()));
    let update = listed.iter().find(|change| change["type"] == "file.updated").expect("an update");
    assert_eq!(update["blob"], twice.project.git(["rev-parse", "HEAD:docs/page01"]));
    assert_eq!(update["previous_blob"], twice.project.git(["rev-parse", "HEAD~1:docs/page01"]));
    assert_eq!((&update["mode"], &update["previous_mode"]), (&json!("100644"), &json!("100644")));
}

#[test]
fn changes_are_picked_by_path_and_kind_and_what_is_asked_wrongly_is_told() {
    let twice = Twice::delivered();
    let rounds = twice.list("rounds");
    let (newest, oldest) = (&rounds[0]["round"], &rounds[1]["round"]);
    let of_oldest = |query: &str| twice.list(&format!("changes?round={oldest}{query}"));
    let picked = of_oldest("&path_glob=docs/page1*");
    assert_eq!((picked.len(), &picked[9]["position"]), (10, &json!(19)));
    assert_eq!(texts(&of_oldest("&path_base64=b2Rk%2Fw%3D%3D"), "path_base64"), ["b2Rk/w=="]);
    assert!(of_oldest("&kind=delete").is_empty());
    let gone = twice.list(&format!("changes?round={newest}&kind=delete"));
    assert_eq!(texts(&gone, "path"), ["docs/page07"]);

    let Twice { server, app, .. } = &twice;
    let stranger = App::onboard(server, &Subscriber::start());
    let page = app.ask(server, "GET", &twice.path(&format!("changes?round={oldest}&limit=5")), None).json();
    let next = page["next_cursor"].as_str().expect("more");
    for (asker, query, expected) in [
        (&stranger, format!("changes?round={oldest}"), 404),
        (app, "changes?round=1".to_owned(), 404),
        (app, "changes?round=-1".to_owned(), 404),
        (app, "changes?round=x".to_owned(), 400),
        (app, "changes?round=".to_owned(), 400),
        (app, format!("changes?round={oldest}&path=a&path_glob=b"), 400),
        (app, format!("changes?round={oldest}&path_glob=%5B"), 400),
        (app, format!("changes?round={oldest}&path_base64=%21"), 400),
        (app, format!("changes?round={oldest}&kind=rename"), 400),
        (app, format!("changes?round={oldest}&branch=nope"), 400),
        (app, format!("changes?round={oldest}&status=open"), 400),
        (app, format!("changes?round={oldest}&limit=101"), 400),
        (app, format!("changes?round={oldest}&cursor=AAAAAAAAAAAAAAAA"), 400),
        (app, format!("changes?round={oldest}&kind=create&cursor={next}"), 400),
        (app, format!("changes?round={newest}&cursor={next}"), 400),
        (app, format!("changes?round={oldest}&branch=main&cursor={next}"), 200),
        (&stranger, "rounds".to_owned(), 404),
        (app, "rounds?branch=nope".to_owned(), 400),
        (app, "rounds?round=1".to_owned(), 400),
        (app, "rounds?cursor=AA".to_owned(), 400),
    ] {
        assert_eq!(status(asker, server, &twice.path(&query)), expected, "{query}");
    }
}

#[test]
fn the_open_round_says_of_each_change_how_it_stands() {
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    subscriber.script(|arrival| match arrival {
        Arrival::Change(change) if change.path == b"a" => Answer::Accept,
        Arrival::Change(change) if change.path == b"b" => Answer::Refuse(422),
        _ => Answer::Refuse(503),
    });
    let id = app.watch(&server, &project);
    let changes = format!("/api/repositories/{id}/changes");
    let settled = |state: &Value| state == "delivered" || state == "parked";
    // The try of c begins while b is still tried again.
    let listed = eventually("b that was given up, and c that failed", SOON * 4, || {
        let listed = all(&app, &server, &changes);
        (texts(&listed, "state") == ["delivered", "parked", "failed", "pending"]).then_some(listed)
    });
    assert!(listed.iter().all(|change| settled(&change["state"]) == change["settled_at"].is_string()));
    let letter = &app.dead_letters(&server)[0];
    assert_eq!(listed[1]["dead_letter_id"], letter["dead_letter_id"]);
    assert_eq!(listed[1]["id"], letter["delivery_id"]);
    let rounds = all(&app, &server, &format!("/api/repositories/{id}/rounds"));
    let [round] = rounds.as_slice() else { panic!("{rounds:#?}") };
    assert_eq!(
        (&round["state"], &round["position"], &round["parked"]),
        (&json!("open"), &json!(2), &json!(1))
    );
    // A resync ends it; what it did not reach is said to be dropped.
    app.tell(&server, &id, "resync");
    let listed = all(&app, &server, &format!("{changes}?round={}", round["round"]));
    assert_eq!(texts(&listed, "state"), ["delivered", "parked", "dropped", "dropped"]);
}

/// A watch that was delivered twice, and then lost its mirror: no host gives the first commit again.
pub(crate) fn delivered_and_lost(
    host: &Host,
    project: &Project,
    subscriber: &Subscriber,
) -> (Server, App, String) {
    host.publish(project, "o/r");
    let mut server = Server::start();
    let app = App::onboard(&server, subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());
    project.write("new", b"2");
    let second = project.commit("second");
    host.publish(project, "o/r");
    app.tell(&server, &id, "scan");
    app.wait_until_held(&server, &id, &second);
    server.kill();
    for mirror in std::fs::read_dir(server.data().join("mirrors")).expect("a folder").flatten() {
        std::fs::remove_dir_all(mirror.path()).expect("it goes");
    }
    // A poll would bring the newest tree back.
    host.misbehave(Some(Fault::Status(503, None)));
    server.run();
    (server, app, id)
}

#[test]
fn a_round_whose_trees_are_gone_is_told_apart_from_one_that_never_was() {
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    let (server, app, id) = delivered_and_lost(&host, &project, &Subscriber::start());
    let rounds = all(&app, &server, &format!("/api/repositories/{id}/rounds"));
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        let path = format!("/api/repositories/{id}/changes?round={}", round["round"]);
        let reply = app.ask(&server, "GET", &path, None);
        assert_eq!(
            (reply.status, &reply.json()["type"]),
            (409, &json!("urn:tidings:problem:tree-unavailable"))
        );
    }
    assert_eq!(status(&app, &server, &format!("/api/repositories/{id}/changes?round=5")), 404);
}

/// Letters that an ended round sent may belong to a later one by now; then its list is another.
#[test]
fn a_round_whose_list_is_another_by_now_is_not_shown() {
    let mut twice = Twice::delivered();
    let round = twice.list("rounds")[0]["round"].clone();
    let path = format!("changes?round={round}");
    assert_eq!(twice.list(&path).len(), 3);
    twice.server.kill();
    // As if one of its changes had come from a letter.
    let number = round.as_i64().expect("a number");
    let text = "update round set updates = 0, creates = 2 where number = ?";
    database::change_with(&twice.server, text, &[number]);
    twice.server.run();
    let reply = twice.app.ask(&twice.server, "GET", &twice.path(&path), None);
    assert_eq!((reply.status, &reply.json()["type"]), (409, &json!("urn:tidings:problem:tree-unavailable")));
    assert!(reply.json()["detail"].as_str().is_some_and(|text| text.contains("later round")));
}

/// One page looks at 10,000 changes; a round of more is listed all the same, from either end.
#[test]
fn a_page_looks_at_so_many_changes_and_says_where_to_go_on() {
    let project = Project::new();
    for file in 0..10_300 {
        project.write(format!("{}/{file:05}", file % 50), b"1");
    }
    project.commit("many");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    subscriber.script(|_| Answer::Refuse(503));
    let id = app.watch(&server, &project);
    let changes = format!("/api/repositories/{id}/changes");
    eventually("the round", SOON * 4, || {
        (app.ask(&server, "GET", &changes, None).json()["total"] == 10_300).then_some(())
    });
    // The last by raw path bytes is 9/10259, the first 0/00000.
    for (path, picked) in [
        (format!("{changes}?path=9/10259"), "9/10259"),
        ("/api/deliveries?status=pending&path=0/00050".to_owned(), "0/00050"),
    ] {
        let first = app.ask(&server, "GET", &path, None).json();
        assert_eq!(first["items"], json!([]), "{path}");
        let next = first["next_cursor"].as_str().expect("it goes on");
        let second = app.ask(&server, "GET", &format!("{path}&cursor={next}"), None).json();
        assert_eq!(
            (texts(&items(&second), "path"), &second["next_cursor"]),
            (vec![picked.to_owned()], &Value::Null)
        );
    }
    // Every change once, over the windows of a list that is not kept.
    let page = |query: &str| app.ask(&server, "GET", &format!("{changes}?limit=100{query}"), None).json();
    let (mut positions, mut next) = (Vec::new(), String::new());
    for _ in 0..12 {
        let page = page(&next);
        positions.extend(items(&page).iter().map(|change| change["position"].as_u64().expect("a number")));
        next = format!("&cursor={}", page["next_cursor"].as_str().expect("more"));
    }
    assert_eq!(positions, (0..1_200).collect::<Vec<_>>());
}
