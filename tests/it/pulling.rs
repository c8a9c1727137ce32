//! Apps without an endpoint: they ask for what is pending and say how far they got. The same order,
//! ids and dead letters as for those that are sent to, over kills, lost answers and switches.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    churn::{BETWEEN_COMMITS, Churn},
    dice::Dice,
    http, kills,
    patience::{SOON, SetAtEnd, eventually},
    project::{Project, sha256},
    puller::Puller,
    server::Server,
    subscriber::Subscriber,
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 25;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(900);
/// Bytes of a large binary file, whose text in base64 is a third longer, and what handing it out may take of
/// memory: the file and its text once each, and something beside them.
const LARGE: usize = 64 << 20;
const LARGE_MEMORY: u64 = 250 << 20;

#[test]
fn kills_lose_nothing_of_what_is_pulled_and_keep_its_order() {
    let kills = kills(KILLS);
    let mut dice = Dice::thrown("pulling");
    let mut server = Server::start();
    let mut puller = Puller::onboard(&server);
    let project = Project::new();
    let mut churn = Churn::begin(&project, 120);
    let id = puller.app.watch(&server, &project);
    let over = AtomicBool::new(false);
    let mut unanswered = 0;
    thread::scope(|scope| {
        let mut committing = Dice::of(dice.number());
        let (over, project) = (&over, &project);
        scope.spawn(move || {
            while !over.load(Ordering::SeqCst) {
                churn.commit(project, &mut committing);
                thread::sleep(committing.up_to(BETWEEN_COMMITS));
            }
        });
        let _end = SetAtEnd(over);
        for _ in 0..kills {
            let (life, alive) = (dice.up_to(LIFE), &server);
            thread::scope(|scope| {
                scope.spawn(move || {
                    thread::sleep(life);
                    alive.signal(Signal::KILL);
                });
                unanswered += u64::from(pull_until_killed(&mut puller, alive, &id, &mut dice));
            });
            server.kill();
            puller.model.note_kill();
            puller.assert_faultless();
            server.run();
        }
    });
    let head = project.head();
    let until = Instant::now() + 2 * SOON;
    while !crate::support::api::is_settled(&puller.app.repository(&server, &id), &head) {
        let shown = puller.app.repository(&server, &id);
        assert!(Instant::now() < until, "{head} is not held: {shown:#}");
        puller.drain(&server, &id);
    }
    puller.assert_has(&id, &project.tree(&head));
    let (changes, repeats) = (puller.model.applied.len(), puller.model.repeats);
    println!("{kills} kills, {unanswered} of them in a settlement: {changes} changes, {repeats} repeats");
    assert_eq!(repeats, 0, "what was answered was on disk");
    assert!(puller.app.dead_letters(&server).is_empty());
}

/// Pulls until the server is gone, and now and then forgets to settle, settles only a part or gives
/// everything back; whether it went in the middle of a settlement.
fn pull_until_killed(puller: &mut Puller, server: &Server, id: &str, dice: &mut Dice) -> bool {
    loop {
        let limit = 1 + dice.below(64);
        let Ok(pending) = puller.try_ask(server, id, &format!("limit={limit}&lease_seconds=1")) else {
            return false;
        };
        let Some(pending) = pending else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let (from, to) = (pending["from"].as_u64().expect("from"), pending["to"].as_u64().expect("to"));
        let lease = &pending["lease_id"];
        let (body, arrivals) = match dice.below(10) {
            0 => continue,
            1 => (json!({ "lease_id": lease }), Vec::new()),
            choice => {
                let through = if choice < 4 { from + dice.below(to - from) } else { to - 1 };
                let body = json!({ "lease_id": lease, "accepted_through": through });
                (body, puller.take(&pending, through))
            }
        };
        match puller.try_settle(server, id, &body) {
            Ok((200, _)) => arrivals.iter().for_each(|arrival| puller.model.acknowledged(arrival)),
            Ok((409, _)) => {}
            Ok((status, answer)) => panic!("{status}: {answer}"),
            // Settled or not: what was taken in may come again, under the same ids.
            Err(_) => return true,
        }
    }
}

#[test]
fn a_lease_that_is_over_is_refused_and_its_changes_come_again_under_the_same_ids() {
    let server = Server::start();
    let mut puller = Puller::onboard(&server);
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let id = puller.app.watch(&server, &project);
    let first = puller.ask(&server, &id, "wait_seconds=30&limit=2&lease_seconds=1").expect("changes");
    assert_eq!(
        (first["from"].as_u64(), first["to"].as_u64(), first["total"].as_u64()),
        (Some(0), Some(2), Some(3))
    );
    assert_eq!((&first["kind"], &first["through"]), (&json!("sync"), &json!(1)), "the last one of the two");
    let again = eventually("changes after the lease", SOON, || puller.ask(&server, &id, "wait_seconds=5"));
    let ids = |pending: &Value| -> Vec<String> {
        let changes = pending["changes"].as_array().expect("changes");
        changes.iter().map(|change| change["body"]["event"]["id"].to_string()).collect()
    };
    assert_eq!(ids(&first), ids(&again)[..2]);
    assert_ne!(first["lease_id"], again["lease_id"]);
    let stale = json!({ "lease_id": first["lease_id"], "accepted_through": 1 });
    assert_eq!(puller.settle(&server, &id, &stale).0, 409);
    assert_eq!(puller.ask(&server, &id, ""), None, "what is lent is nobody else's");
    for (body, status) in [
        (json!({ "lease_id": again["lease_id"], "accepted_through": 3 }), 422),
        (
            json!({ "lease_id": again["lease_id"], "accepted_through": 0, "refused": [{ "position": 1 }] }),
            422,
        ),
        (json!({ "lease_id": again["lease_id"], "more": 1 }), 422),
        (json!({ "accepted_through": 0 }), 422),
        (json!({ "lease_id": "lease_of_nobody", "accepted_through": 0 }), 409),
    ] {
        assert_eq!(puller.settle(&server, &id, &body).0, status, "{body}");
    }
    let last = again["to"].as_u64().expect("a position") - 1;
    let arrivals = puller.take(&again, last);
    let good = json!({ "lease_id": again["lease_id"], "accepted_through": last });
    let (status, settled) = puller.settle(&server, &id, &good);
    assert_eq!((status, settled["position"].as_u64()), (200, Some(last + 1)));
    arrivals.iter().for_each(|arrival| puller.model.acknowledged(arrival));
    assert_eq!(puller.settle(&server, &id, &good).0, 409, "a lease is settled once");
    puller.drain(&server, &id);
    puller.assert_has(&id, &project.tree("HEAD"));
}

#[test]
fn changes_that_come_for_a_token_that_ended_are_the_next_callers_at_once() {
    // One request of an app may wait at a time.
    let mut server = Server::prepare().with("server.connections_max", "16");
    server.run();
    let puller = Puller::onboard(&server);
    let project = Project::with(&[("a", "1")]);
    let id = puller.app.watch(&server, &project);
    let first = puller.ask(&server, &id, "wait_seconds=30").expect("changes");
    let taken = json!({ "lease_id": first["lease_id"], "accepted_through": first["through"] });
    assert_eq!(puller.settle(&server, &id, &taken).0, 200);
    let made = puller.app.ask(&server, "POST", "/api/app/tokens", Some(&json!({ "name": "second" }))).json();
    let text = |key: &str| made[key].as_str().expect("a text").to_owned();
    let (token, token_id) = (text("token"), text("token_id"));
    let path = format!("/api/repositories/{id}/pending?wait_seconds=");
    let is_over = AtomicBool::new(false);
    let refused = thread::scope(|scope| {
        let _over = SetAtEnd(&is_over);
        let waiting = scope.spawn(|| {
            loop {
                let path = format!("{path}30&lease_seconds=3600");
                let reply = server.ask("GET", &path, Some(&token), None).expect("an answer");
                if reply.status != 204 || is_over.load(Ordering::SeqCst) {
                    break reply;
                }
            }
        });
        eventually("a request waits, so that no other one may", SOON, || {
            // A refusal takes a second, as this request does: without a rest, the other one could be refused for ever.
            thread::sleep(Duration::from_millis(300));
            let reply = puller.app.ask(&server, "GET", &format!("{path}1"), None);
            (reply.status == 204 && reply.message.header("retry-after").is_some()).then_some(())
        });
        let ended = puller.app.ask(&server, "DELETE", &format!("/api/app/tokens/{token_id}"), None);
        assert_eq!(ended.status, 204);
        project.write("a", b"2");
        project.commit("for nobody");
        waiting.join().expect("an answer")
    });
    assert_eq!(refused.status, 401, "{}", refused.json());
    let next = eventually("the changes", SOON, || puller.ask(&server, &id, "wait_seconds=5"));
    assert_eq!((&next["from"], &next["total"]), (&json!(0), &json!(1)), "{next}");
}

#[test]
fn what_an_app_refuses_becomes_a_dead_letter_and_the_next_goes_on() {
    let server = Server::start();
    let mut puller = Puller::onboard(&server);
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let id = puller.app.watch(&server, &project);
    let mut refused = Vec::new();
    while refused.is_empty() {
        let pending = puller.ask(&server, &id, "wait_seconds=30").expect("changes");
        let (from, to) = (pending["from"].as_u64().expect("from"), pending["to"].as_u64().expect("to"));
        if (from..to).contains(&1) {
            refused.push(json!({ "position": 1, "reason": "no b here" }));
        }
        let body = json!({ "lease_id": pending["lease_id"], "accepted_through": to - 1, "refused": refused });
        let (status, answer) = puller.settle(&server, &id, &body);
        assert_eq!(status, 200, "{answer}");
    }
    puller.drain(&server, &id);
    puller.app.wait_until_held(&server, &id, &project.head());
    let letters = puller.app.dead_letters(&server);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["path"], &letters[0]["reason"]), (&json!("b"), &json!("rejected")));
    assert_eq!(letters[0]["excerpt"], "no b here");
}

#[test]
fn a_switch_of_sink_in_mid_round_goes_on_at_the_position() {
    let server = Server::start();
    let subscriber = Subscriber::start();
    let puller = Puller::onboard(&server);
    let files: Vec<(String, String)> = (0..40).map(|file| (format!("f{file:02}"), "1".to_owned())).collect();
    let project =
        Project::with(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>());
    let id = puller.app.watch(&server, &project);
    let first = puller.ask(&server, &id, "wait_seconds=30&limit=1").expect("a change");
    let settled = json!({ "lease_id": first["lease_id"], "accepted_through": 0 });
    assert_eq!(puller.settle(&server, &id, &settled).0, 200);
    let lent = puller.ask(&server, &id, "wait_seconds=30&limit=1").expect("a change");
    assert_eq!(lent["from"], 1);

    let to = json!({ "base_url": subscriber.url(), "rotate_signing_key": true, "overlap_seconds": 0,
        "client_auth_key": crate::support::subscriber::KEY });
    assert_eq!(puller.app.ask(&server, "PATCH", "/api/app", Some(&to)).status, 200);
    puller.app.wait_until_held(&server, &id, &project.head());
    let late = json!({ "lease_id": lent["lease_id"], "accepted_through": 1 });
    assert_eq!(puller.settle(&server, &id, &late).0, 409, "the lease ended with the switch");
    let path = format!("/api/repositories/{id}/pending");
    assert_eq!(puller.app.ask(&server, "GET", &path, None).status, 409, "it has an endpoint");
    let sent: Vec<String> = subscriber.applied().into_iter().map(|(_, path)| path).collect();
    let expected: Vec<String> = files[1..].iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(sent, expected, "what was lent and not settled is sent, nothing else again");

    let back = puller.app.ask(&server, "PATCH", "/api/app", Some(&json!({ "base_url": null })));
    assert_eq!((back.status, &back.json()["base_url"]), (200, &Value::Null));
    project.write("f00", b"2");
    project.commit("second");
    let next = puller.ask(&server, &id, "wait_seconds=30").expect("a change");
    assert_eq!(next["changes"][0]["action"], "update");
    assert_eq!(next["changes"][0]["body"]["file"]["path"], "f00");
}

#[test]
fn listen_pulls_into_a_folder_and_ends_when_nothing_is_pending() {
    let server = Server::start();
    let puller = Puller::onboard(&server);
    let project = Project::with(&[("a", "1"), ("dir/b", "2")]);
    project.write("big", &vec![0_u8; 3 << 20]);
    project.commit("with a large binary");
    let id = puller.app.watch(&server, &project);
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("http://{}", server.address());
    let listen = || {
        let mut command = crate::support::server::bare_command(folder.path());
        command.args(["listen", "--pull", &id, "--once", "--server", &url, "--mirror", "copy"]);
        command.env("TIDINGS_TOKEN", &puller.app.token).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output().expect("it ran");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let copy = folder.path().join("copy");
    eventually("first copy", SOON, || {
        listen();
        copy.join("dir/b").exists().then_some(())
    });
    assert_eq!(std::fs::read(copy.join("big")).expect("a file").len(), 3 << 20);
    puller.app.wait_until_held(&server, &id, &project.head());
    project.git(["rm", "--quiet", "a"]);
    project.commit("without a");
    eventually("delete", SOON, || {
        listen();
        (!copy.join("a").exists()).then_some(())
    });
    assert!(copy.join("dir/b").exists());
}

#[test]
fn listen_without_a_folder_prints_what_is_pending_and_settles_it_only_if_told_to() {
    let server = Server::start();
    let puller = Puller::onboard(&server);
    let project = Project::with(&[("a", "1"), ("b", "2")]);
    let id = puller.app.watch(&server, &project);
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("http://{}", server.address());
    let listen = |options: &[&str]| {
        let mut command = crate::support::server::bare_command(folder.path());
        command.args(["listen", "--pull", &id, "--server", &url]).args(options);
        command.env("TIDINGS_TOKEN", &puller.app.token).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output().expect("it ran");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let printed = eventually("pending changes", SOON, || {
        let (succeeded, out, said) = listen(&["--once"]);
        assert!(succeeded, "{said}");
        out.contains("create").then_some((out, said))
    });
    assert_eq!(printed.0.lines().count(), 2, "{printed:?}");
    assert!(printed.1.contains("2 of 2 pending changes are printed, and none is settled"), "{printed:?}");
    let again = listen(&["--once"]);
    assert_eq!((again.1, again.2), printed, "the same changes are handed out again at once");

    let (succeeded, _, said) = listen(&[]);
    assert!(!succeeded && said.contains("--settle"), "an endless repetition is refused: {said}");

    let settled = listen(&["--once", "--settle"]);
    assert!(settled.0 && settled.1.lines().count() == 2, "{settled:?}");
    puller.app.wait_until_held(&server, &id, &project.head());
    let (succeeded, out, said) = listen(&["--once"]);
    assert!(succeeded && out.is_empty() && said.contains("nothing is new"), "{out}{said}");
}

#[test]
fn a_large_file_that_is_pulled_is_joined_nowhere() {
    let server = Server::start();
    let puller = Puller::onboard(&server);
    let project = Project::new();
    let content = vec![0xff; LARGE];
    project.write("large.bin", &content);
    project.commit("a large file");
    let watch = json!({ "url": project.url(), "max_size": LARGE });
    let id = puller.app.watch_with(&server, &watch);
    let before = server.resident();
    let path = format!("/api/repositories/{id}/pending?wait_seconds=10&limit=1");
    let reply = eventually("the large file", 3 * SOON, || {
        let reply = http::ask(server.address(), "GET", &path, Some(&puller.app.token), None).ok()?;
        (reply.status == 200).then_some(reply)
    });
    let grown = server.peak_resident().saturating_sub(before);
    println!("{} MiB more for {} MiB", grown >> 20, LARGE >> 20);
    assert_eq!(reply.message.header("content-length"), Some(reply.message.body.len().to_string().as_str()));
    let pending = reply.json();
    let file = &pending["changes"][0]["body"]["file"];
    assert_eq!((&file["sha"], &file["size"]), (&json!(sha256(&content)), &json!(LARGE)));
    assert_eq!(file["content"].as_str().map(str::len), Some(LARGE.div_ceil(3) * 4));
    assert!(grown < LARGE_MEMORY, "{grown} bytes more were resident");
}
