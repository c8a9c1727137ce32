//! The ledger over the real binary: what is written in it, who reads it, and that no reader misses an entry
//! or sees one twice, over kills and a restore.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    deliveries::refuse,
    past_by_hand::Ended,
    support::{
        api::{App, items},
        kills,
        model::Arrival,
        patience::{SOON, eventually},
        project::Project,
        server::Server,
        subscriber::{Answer, Subscriber},
        tail::{Tail, TailEvent},
    },
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 20;
/// Kills after which the server may catch up.
const CAUGHT_UP: u64 = 10;
/// Commits of each life between two kills, each with a change that is parked.
const COMMITS: u64 = 6;
/// The second half of what happens within a minute is told when nothing changed for a minute.
const FOLDED: Duration = Duration::from_secs(150);
/// Where a ledger is followed.
pub(crate) const FOLLOW: &str = "/api/ledger/follow";

/// A server whose app has the first commit of a project.
fn settled(project: &Project) -> (Server, Subscriber, App, String) {
    let (subscriber, server) = (Subscriber::start(), Server::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, project);
    app.wait_until_held(&server, &id, &project.head());
    (server, subscriber, app, id)
}

/// The entries of an app that a filter means, oldest first.
pub(crate) fn entries(server: &Server, app: &App, filter: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = app.ask(server, "GET", &format!("/api/ledger?limit=100&{filter}{cursor}"), None);
        assert_eq!(reply.status, 200, "{}", reply.json());
        let page = reply.json();
        all.extend(items(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    all.reverse();
    all
}

/// Waits until an app has this many entries of a type; the last one.
fn entry_of(server: &Server, app: &App, entry_type: &str, deadline: Duration) -> Value {
    eventually(&format!("entry {entry_type}"), deadline, || {
        entries(server, app, &format!("type={entry_type}")).pop()
    })
}

/// The numbers of entries.
pub(crate) fn numbers(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|entry| entry["number"].as_u64().expect("a number")).collect()
}

#[test]
fn a_healthy_delivery_writes_no_entry_and_refused_files_one_for_their_round() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let (server, subscriber, app, id) = settled(&project);
    project.write("a", b"2");
    project.remove("b");
    app.wait_until_held(&server, &id, &project.commit("healthy"));
    assert_eq!(entries(&server, &app, ""), Vec::<Value>::new(), "what goes well is no entry");

    subscriber.script(refuse(&["x.png"], 415));
    project.write("x.png", b"1");
    project.write("y.md", b"1");
    let shown = app.wait_until_held(&server, &id, &project.commit("one is refused"));
    let all = entries(&server, &app, "");
    assert_eq!(all.len(), 1, "{all:?}");
    let letter = &app.dead_letters(&server)[0];
    let branch = &shown["branches"][0];
    let round = all[0]["data"]["round"].as_u64().expect("a round");
    let subject = all[0]["subject"].as_str().expect("a cursor");
    assert!(subject.starts_with("cur_"), "{subject}");
    for (key, value) in [
        ("number", json!(1)),
        ("type", json!("letter.parked")),
        ("app_id", json!(app.id)),
        ("repository_id", json!(id)),
        ("origin", json!({ "kind": "commit", "name": format!("{subject}/{round}") })),
    ] {
        assert_eq!(all[0][key], value, "{key}");
    }
    for (key, value) in [
        ("count", json!(1)),
        ("reason", json!("rejected")),
        ("http_status", json!(415)),
        ("path", json!("x.png")),
        ("branch", branch["branch"].clone()),
        ("dead_letter_id", letter["dead_letter_id"].clone()),
    ] {
        assert_eq!(all[0]["data"][key], value, "{key}: {} {letter}", all[0]);
    }
}

#[test]
fn each_change_of_state_is_told_with_its_origin_and_its_end_names_its_beginning() {
    let project = Project::with(&[("a", "1")]);
    let (server, subscriber, app, id) = settled(&project);
    // The repository is gone, and comes back.
    let aside = project.path().with_extension("aside");
    fs::rename(project.path(), &aside).expect("moved away");
    let failing = entry_of(&server, &app, "source.failing", SOON);
    fs::rename(&aside, project.path()).expect("moved back");
    app.tell(&server, &id, "scan");
    // The endpoint is down, and heals.
    subscriber.script(|_| Answer::Refuse(503));
    project.write("b", b"1");
    let second = project.commit("nobody listens");
    let opened = entry_of(&server, &app, "sink.opened", SOON);
    subscriber.accept_all();
    app.wait_until_held(&server, &id, &second);
    // The app pauses its watch, and the staff resumes it.
    app.tell(&server, &id, "pause");
    let paused = entry_of(&server, &app, "watch.paused", SOON);
    let resume = format!("/api/admin/apps/{}/repositories/{id}/resume", app.id);
    assert_eq!(server.ask_as_admin("POST", &resume).status, 200);

    for (entry, kind, name, subject) in [
        (&failing, "outside", "git", None),
        (&opened, "outside", "endpoint", Some(&app.id)),
        (&paused, "person", token_id(&server, &app).as_str(), Some(&id)),
    ] {
        assert_eq!(entry["origin"], json!({ "kind": kind, "name": name }), "{entry}");
        subject.into_iter().for_each(|subject| assert_eq!(entry["subject"], json!(subject), "{entry}"));
        assert_eq!(entry["cause"], Value::Null, "the first of its kind: {entry}");
    }
    assert!(failing["data"]["reason"].is_string() && failing["data"]["url"] == project.url(), "{failing}");
    for (beginning, end, kind, name) in [
        (&failing, "source.recovered", "outside", "git"),
        (&opened, "sink.closed", "outside", "endpoint"),
        (&paused, "watch.resumed", "person", "admin"),
    ] {
        let ended = entry_of(&server, &app, end, FOLDED);
        assert_eq!(ended["cause"], beginning["number"], "{ended}");
        assert_eq!(ended["subject"], beginning["subject"], "{ended}");
        assert_eq!(ended["origin"], json!({ "kind": kind, "name": name }), "{ended}");
    }
    let all = entries(&server, &app, "");
    assert_eq!(numbers(&all), [1, 2, 3, 4, 5, 6], "{all:?}");
    let of_watch = entries(&server, &app, &format!("repository_id={id}"));
    assert_eq!(of_watch.len(), 2, "{of_watch:?}");
}

/// The id of the one token of an app.
fn token_id(server: &Server, app: &App) -> String {
    let tokens = items(&app.ask(server, "GET", "/api/app/tokens", None).json());
    tokens[0]["token_id"].as_str().unwrap_or_else(|| panic!("no id in {tokens:?}")).to_owned()
}

/// Every second file of a commit is refused: 415.
pub(crate) fn park_bad(subscriber: &Subscriber) -> Arc<AtomicU64> {
    let refusals = Arc::new(AtomicU64::new(0));
    let count = refusals.clone();
    subscriber.script(move |arrival| match arrival {
        Arrival::Change(change) if change.path.starts_with(b"bad") => {
            count.fetch_add(1, Ordering::SeqCst);
            Answer::Refuse(415)
        }
        _ => Answer::Accept,
    });
    refusals
}

/// Commits two files, of which one is refused.
pub(crate) fn commit(project: &Project, number: u64) -> String {
    project.write(format!("bad{number}"), b"1");
    project.write(format!("good{number}"), b"1");
    project.commit("one is refused")
}

/// Reads on behind `seen` until the tail breaks off, or `most` events came.
fn read_on(server: &Server, app: &App, seen: &mut Vec<TailEvent>, most: usize) {
    let (path, header) = match seen.last() {
        Some((id, _, _)) => (FOLLOW.to_owned(), format!("Last-Event-ID: {id}\r\n")),
        None => (format!("{FOLLOW}?after=beginning"), String::new()),
    };
    let Some(mut tail) = Tail::try_open(server, app, &path, &header) else { return };
    for _ in 0..most {
        match tail.try_next() {
            Some(event) => seen.push(event),
            None => return,
        }
    }
}

#[test]
fn a_follower_sees_every_entry_once_and_in_order_over_kills_and_breaks() {
    let kills = kills(KILLS);
    let project = Project::with(&[("a", "1")]);
    let (subscriber, mut server) = (Subscriber::start(), Server::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": project.url(), "mode": "every" }));
    app.wait_until_held(&server, &id, &project.head());
    let refusals = park_bad(&subscriber);
    let mut seen = Vec::new();
    for kill in 0..kills {
        // In the middle of its parks: after one of them in the first life, after two in the second...
        let target = refusals.load(Ordering::SeqCst) + 1 + kill % (COMMITS - 1);
        let (alive, count, project) = (&server, &refusals, &project);
        thread::scope(|scope| {
            let killer = scope.spawn(move || {
                eventually("parks", SOON, || (count.load(Ordering::SeqCst) >= target).then_some(()));
                alive.signal(Signal::KILL);
            });
            scope.spawn(move || {
                (0..COMMITS).for_each(|number| drop(commit(project, kill * COMMITS + number)))
            });
            // Every third entry it hangs up by itself.
            while !killer.is_finished() {
                read_on(alive, &app, &mut seen, 3);
            }
        });
        server.kill();
        subscriber.model().note_kill();
        server.run();
        if kill % CAUGHT_UP == CAUGHT_UP - 1 {
            // What is left over from many lives would take longer than the story waits at its end.
            app.wait_until_held(&server, &id, &project.head());
        }
    }
    app.wait_until_held(&server, &id, &project.head());
    let all = entries(&server, &app, "");
    let missing = all.len().saturating_sub(seen.len());
    read_on(&server, &app, &mut seen, missing);
    println!("{} entries of {} refusals", all.len(), refusals.load(Ordering::SeqCst));
    // Each round has one change that is parked, and each park its entry.
    assert_eq!(numbers(&all), (1..=kills * COMMITS).collect::<Vec<_>>());
    let told: Vec<Value> = seen.iter().map(|(_, _, data)| data.clone()).collect();
    assert_eq!(told, all, "each once, in order");
    assert!(seen.iter().all(|(id, word, data)| data["entry_id"] == **id && data["type"] == **word));
}

#[test]
fn what_is_no_id_and_what_is_yet_to_come_is_refused_and_another_app_sees_nothing() {
    let project = Project::with(&[("a", "1"), ("bad", "1")]);
    let (mut server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    park_bad(&subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let entry = entries(&server, &app, "").remove(0);
    let own = entry["entry_id"].as_str().expect("an id");
    let future = format!("{}_2", own.strip_suffix("_1").expect("its number"));
    for wrong in ["1", "ent_1", "ent_x_1", &future] {
        let reply = app.ask(&server, "GET", &format!("{FOLLOW}?after={wrong}"), None);
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.json());
    }

    let (other_receiver, other_project) = (Subscriber::start(), Project::with(&[("bad", "1"), ("c", "1")]));
    let other = App::onboard(&server, &other_receiver);
    assert_eq!(entries(&server, &other, ""), Vec::<Value>::new());
    for filter in
        [format!("repository_id={id}"), format!("subject={}", entry["subject"].as_str().expect("one"))]
    {
        assert_eq!(entries(&server, &other, &filter), Vec::<Value>::new(), "{filter}");
        assert_eq!(entries(&server, &app, &filter).len(), 1, "{filter}");
    }
    // Its first own entry is the first thing that its tails tell, whatever they ask for.
    let mut tails: Vec<Tail> = ["?after=beginning".to_owned(), String::new()]
        .iter()
        .map(|query| Tail::open(&server, &other, &format!("{FOLLOW}{query}"), ""))
        .collect();
    let mut stranger =
        Tail::open(&server, &other, &format!("{FOLLOW}?after=beginning&repository_id={id}"), "");
    park_bad(&other_receiver);
    let watched = other.watch(&server, &other_project);
    for tail in &mut tails {
        assert_eq!(tail.placed(), "beginning");
        let (_, _, data) = tail.next();
        assert_eq!((&data["app_id"], &data["number"]), (&json!(other.id), &json!(1)));
        assert_eq!(data["repository_id"], json!(watched));
    }
    assert_eq!(entries(&server, &app, "").len(), 1, "nor does the first app see what is the other's");
    app.tell(&server, &id, "pause");
    entry_of(&server, &app, "watch.paused", SOON);
    let of_all = items(&server.ask_as_admin("GET", "/api/admin/ledger").json());
    assert_eq!(of_all.len(), 3, "the staff sees all of them");
    assert!(server.terminate().0.success());
    assert!(stranger.try_next().is_none(), "what happened to a watch of another app is not told");
}

/// Runs a verb on the data directory of a server.
fn run(server: &Server, arguments: &[&str]) {
    let mut command = server.command(arguments);
    let ended = command.env("TIDINGS_PASSPHRASE", "a passphrase for stories").output().expect("it ran");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_restore_gives_the_ledger_another_name_and_a_follower_is_told_of_the_gap() {
    let project = Project::with(&[("a", "1")]);
    let (mut old, subscriber, app, id) = settled(&project);
    let late = App::onboard(&old, &subscriber);
    let late_id = late.watch(&old, &project);
    subscriber.model().expect_app(&app.id);
    park_bad(&subscriber);
    app.wait_until_held(&old, &id, &commit(&project, 1));
    app.tell(&old, &id, "pause");
    late.tell(&old, &late_id, "pause");
    let folder = tempfile::tempdir().expect("a folder");
    let backup = folder.path().join("backup");
    let to = backup.to_str().expect("a path");
    run(&old, &["backup", to]);
    app.tell(&old, &id, "resume");
    app.wait_until_held(&old, &id, &commit(&project, 2));
    let before = entries(&old, &app, "");
    let seen = before[before.len() - 1]["entry_id"].as_str().expect("an id").to_owned();
    assert!(old.terminate().0.success());

    subscriber.accept_all();
    let mut new = Server::prepare();
    run(&new, &["restore", to]);
    new.run();
    let path = format!("{FOLLOW}?after={seen}");
    let mut tail = Tail::open(&new, &app, &path, "");
    let (placed, word, gap) = tail.next();
    assert_eq!((word.as_str(), &gap["next"]), ("gap", &json!(1)), "{gap}");
    let told: Vec<TailEvent> = (0..3).map(|_| tail.next()).collect();
    let types: Vec<&str> = told.iter().map(|(_, word, _)| word.as_str()).collect();
    assert_eq!(types, ["letter.parked", "watch.paused", "ledger.restored"]);
    let known: Vec<&Value> = before.iter().map(|entry| &entry["entry_id"]).collect();
    assert!(told.iter().all(|(id, _, _)| !known.contains(&&json!(id))), "no id means two entries");
    // A reader that breaks off right behind the gap is told of it once.
    let mut again = Tail::open(&new, &app, FOLLOW, &format!("Last-Event-ID: {placed}\r\n"));
    assert_eq!(again.placed(), placed);
    assert_eq!(again.next(), told[0]);
    app.tell(&new, &id, "resume");
    let (_, _, data) = tail.next();
    assert_eq!(
        (&data["type"], &data["number"], &data["cause"]),
        (&json!("watch.resumed"), &json!(4), &json!(2))
    );
}

#[test]
fn the_command_line_lists_and_follows() {
    let project = Project::with(&[("a", "1"), ("bad", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    park_bad(&subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let address = format!("http://{}", server.address());
    let admin = fs::read_to_string(server.data().join("admin-token")).expect("a token");
    let command = |token: &str, arguments: &[&str]| -> Command {
        let mut command = server.command(arguments);
        command.args(["--server", &address]).env("TIDINGS_TOKEN", token.trim());
        command
    };
    let output = |token: &str, arguments: &[&str]| -> String {
        let ended = command(token, arguments).output().expect("it runs");
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).expect("a text")
    };
    let json_of = |token: &str, arguments: &[&str]| -> Vec<Value> {
        items(&serde_json::from_str(&output(token, arguments)).expect("JSON"))
    };
    let all = entries(&server, &app, "");
    assert_eq!(json_of(&app.token, &["ledger", "list", "--json"]), all);
    let mut of_all = json_of(&admin, &["ledger", "list", "--all-apps", "--json"]);
    for entry in &mut of_all {
        assert_eq!(entry.as_object_mut().expect("an entry").remove("app_name"), Some(json!("stories")));
    }
    assert_eq!(of_all, all);
    assert_eq!(json_of(&admin, &["ledger", "list", "--for", &app.id, "--json"]), all);
    assert!(json_of(&app.token, &["ledger", "list", "--type", "sink.opened", "--json"]).is_empty());
    let of_watch = ["ledger", "list", "--repository", &id, "--type", "letter.parked"];
    let shown = output(&app.token, &of_watch);
    assert!(
        shown.contains("letter.parked") && shown.contains("bad") && shown.contains("rejected"),
        "{shown}"
    );

    let mut tail = command(&app.token, &["ledger", "follow", "--after", "beginning", "--json"]);
    let mut tail = Ended(tail.stdout(Stdio::piped()).spawn().expect("it runs"));
    let mut lines = BufReader::new(tail.0.stdout.take().expect("a pipe")).lines();
    let mut next =
        || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("read")).expect("JSON") };
    assert_eq!(next(), all[0]);
    app.tell(&server, &id, "pause");
    assert_eq!(next()["type"], "watch.paused");
    let wrong = command(&app.token, &["ledger", "follow", "--after", "nonsense"]).output().expect("it ends");
    assert_eq!(wrong.status.code(), Some(65), "{}", String::from_utf8_lossy(&wrong.stderr));
}
