//! Receivers that fail, refuse and vanish; entries that are gone; an older database.

use std::sync::mpsc;

use super::*;
use crate::support::database;

#[test]
fn one_whose_endpoint_is_down_is_blocked_once_and_catches_up() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    inbox.script(|_| 503);
    scene.subscribe("ops", &inbox.url(), &json!({}));
    scene.commit(4);
    scene.settle();
    let blocked = scene.wait_for_state("ops", "blocked");
    assert_eq!(blocked["reason"], "status 503");
    assert_eq!((&blocked["sink"]["endpoint"]["state"], &blocked["position"]), (&json!("open"), &json!(0)));
    eventually("its entry", SOON, || scene.entries("type:subscription.blocked").pop());
    let told = scene.entries("type:~subscription");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["type"], &told[0]["subject"], &told[0]["data"]["subscription"]),
        (&json!("subscription.blocked"), &blocked["subscription_id"], &json!("ops"))
    );
    let tried = inbox.letters().len();
    scene.commit(4);
    scene.settle();
    inbox.script(|_| 200);
    let all = scene.wait_until_done(&inbox);
    assert_eq!(inbox.taken(), all, "each once, in order");
    assert_eq!(all.len(), 16);
    let letters = inbox.letters();
    // From the eighth try on, an entry behind the head may be tried.
    let mut first = letters.iter().take_while(|letter| letter.status == 503).take(8);
    assert!(first.all(|letter| letter.number() == 1));
    assert!(tried < 30, "a dead endpoint is only probed: {tried}");
    scene.wait_for_state("ops", "active");
    eventually("its recovery", FOLDED, || scene.entries("type:subscription.recovered").pop());
    assert_eq!(scene.entries("type:~subscription").len(), 2, "blocked and recovered, each once");
}

#[test]
fn an_entry_that_is_refused_is_passed_over_noted_and_sent_again_by_its_number() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    scene.subscribe("ops", &inbox.url(), &json!({ "filter": "" }));
    inbox.script(|letter| if letter.number() == 3 { 422 } else { 200 });
    scene.commit(4);
    scene.settle();
    let rounds = scene.wait_until_done(&inbox);
    let taken = inbox.taken();
    let others: Vec<u64> = rounds.iter().copied().filter(|number| *number != 3).collect();
    assert_eq!(taken, others, "one that is refused keeps no other back, and nothing about sending is sent");
    let skipped = scene.entries("type:subscription.skipped");
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    let data = &skipped[0]["data"];
    assert_eq!((&data["number"], &data["http_status"]), (&json!(3), &json!(422)), "{data}");
    assert_eq!(scene.entries("").len(), rounds.len() + 1, "nothing else was written");

    let (status, outcome) = scene.ask("POST", "/ops/send", Some(&json!({ "number": 3 })));
    assert_eq!((status, &outcome["accepted"], &outcome["status"]), (200, &json!(false), &json!(422)));
    inbox.script(|_| 200);
    let (status, outcome) = scene.ask("POST", "/ops/send", Some(&json!({ "number": 3 })));
    assert_eq!((status, &outcome["accepted"]), (200, &json!(true)), "{outcome}");
    assert_eq!(inbox.taken().last(), Some(&3));
    let letters = inbox.letters();
    let of_third: Vec<_> = letters.iter().filter(|letter| letter.number() == 3).collect();
    assert_eq!(of_third.len(), 3);
    assert!(of_third.iter().all(|letter| letter.header("webhook-id") == of_third[0].header("webhook-id")));
    let tries = scene.tries("ops", "&number=3");
    let told: Vec<_> = tries.iter().map(|one| (one["number"].clone(), one["http_status"].clone())).collect();
    assert_eq!(told, [(json!(3), json!(200)), (json!(2), json!(422)), (json!(1), json!(422))]);

    // What is about sending, what is not there, and what is no number, is not sent.
    let number = skipped[0]["number"].clone();
    for (body, expected) in [(json!({ "number": number }), 404), (json!({ "number": 1_000 }), 404)] {
        assert_eq!(scene.ask("POST", "/ops/send", Some(&body)).0, expected, "{body}");
    }
    assert_eq!(scene.ask("POST", "/ops/send", Some(&json!({}))).0, 422);
}

#[test]
fn receivers_that_refuse_or_fail_at_everything_lead_to_no_loop() {
    let (scene, refusing, failing, well) = (Scene::start(), Inbox::start(), Inbox::start(), Inbox::start());
    refusing.script(|_| 400);
    failing.script(|_| 500);
    for (name, inbox) in [("refusing", &refusing), ("failing", &failing), ("well", &well)] {
        scene.subscribe(name, &inbox.url(), &json!({ "filter": "" }));
    }
    scene.commit(8);
    scene.settle();
    for name in ["refusing", "failing"] {
        scene.wait_for_state(name, "blocked");
    }
    let rounds = scene.numbers(ROUNDS);
    well.wait_for(*rounds.last().expect("entries"));
    // Ten are refused before it is blocked, and each of the two is blocked once.
    let about_sending = eventually("entries about sending", SOON, || {
        Some(scene.entries("type:~subscription")).filter(|entries| entries.len() >= 12)
    });
    assert_eq!(about_sending.len(), 12, "{about_sending:?}");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(scene.entries("").len(), rounds.len() + 12, "nothing leads to more");
    for inbox in [&refusing, &failing, &well] {
        let letters = inbox.letters();
        assert!(letters.iter().all(|letter| letter.kind().starts_with("round.")), "{letters:?}");
    }
    assert_eq!(well.taken(), rounds);
}

#[test]
fn an_endpoint_that_is_gone_is_sent_nothing_until_it_is_resumed() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    inbox.script(|_| 410);
    scene.subscribe("ops", &inbox.url(), &json!({}));
    scene.commit(3);
    scene.settle();
    let shown = eventually("disabled", SOON, || {
        let shown = scene.shown("ops");
        shown["sink"]["disabled"].is_string().then_some(shown)
    });
    assert_eq!(shown["sink"]["disabled"], "the endpoint answered 410 Gone");
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("disabled"), &shown["sink"]["disabled"]));
    for (filter, count) in [("state:disabled", 1), ("state:active", 0), ("reason:~gone", 1)] {
        assert_eq!(items(&scene.ask("GET", &format!("?q={filter}"), None).1).len(), count, "{filter}");
    }
    eventually("its entry", SOON, || scene.entries("type:sink.disabled").pop());
    assert_eq!(inbox.letters().len(), 1, "nothing is sent there any more");
    inbox.script(|_| 200);
    assert_eq!(scene.act("ops", "resume")["state"], "active");
    let all = scene.wait_until_done(&inbox);
    assert_eq!(inbox.taken(), all);
}

#[test]
fn a_gap_is_told_before_the_rest() {
    let (mut scene, inbox) = (Scene::start(), Inbox::start());
    scene.subscribe("ops", &inbox.url(), &json!({}));
    scene.commit(1);
    scene.wait_until_done(&inbox);
    scene.act("ops", "pause");
    scene.commit(4);
    scene.settle();
    assert!(scene.server.terminate().0.success());
    for statement in ["delete from entry where number between 1 and 6", "update ledger set first = 7"] {
        database::change(&scene.server, statement);
    }
    scene.server.run();
    let mut refused = false;
    // The message of the gap is sent again until it is taken, as every message.
    inbox.script(move |letter| {
        let is_first = letter.kind() == "subscription.gap" && !std::mem::replace(&mut refused, true);
        if is_first { 503 } else { 200 }
    });
    scene.act("ops", "resume");
    let all = scene.wait_until_done(&inbox);
    let letters = inbox.letters();
    let kinds: Vec<&str> = letters[2..].iter().map(|letter| letter.kind()).collect();
    assert_eq!(kinds[..2], ["subscription.gap", "subscription.gap"]);
    assert_eq!(letters[2].data()["gap"], json!({ "first": 3, "last": 6 }));
    assert_eq!(letters[2].header("webhook-id"), letters[3].header("webhook-id"), "one id");
    assert_eq!(inbox.taken(), [&[1, 2][..], &all].concat());
    let told = scene.entries("type:subscription.gap");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["data"]["first"], &told[0]["data"]["last"]), (&json!(3), &json!(6)));
}

#[test]
fn after_a_restore_it_goes_on_behind_what_the_backup_knew_under_new_ids() {
    let (mut scene, inbox) = (Scene::start(), Inbox::start());
    scene.subscribe("ops", &inbox.url(), &json!({ "filter": "" }));
    scene.commit(2);
    scene.wait_until_done(&inbox);
    eventually("position", SOON, || (scene.shown("ops")["position"] == 4).then_some(()));
    let folder = tempfile::tempdir().expect("a folder");
    let backup = folder.path().join("backup");
    let to = backup.to_str().expect("a path");
    run(&scene.server, &["backup", to]);
    scene.commit(2);
    scene.wait_until_done(&inbox);
    let before: Vec<String> =
        inbox.letters().iter().map(|letter| letter.header("webhook-id").to_owned()).collect();
    assert!(scene.server.terminate().0.success());
    let mut server = Server::prepare();
    run(&server, &["restore", to]);
    server.run();
    scene.server = server;
    // Entries of the same numbers came before the restore as well.
    let letters = eventually("a message after the restore", SOON, || {
        Some(inbox.letters()).filter(|letters| letters.len() > before.len())
    });
    let restored = &letters[before.len()];
    assert_eq!((restored.kind(), restored.number()), ("ledger.restored", 5), "it goes on behind entry 4");
    let after = letters[before.len()..].iter().map(|letter| letter.header("webhook-id").to_owned());
    assert!(after.into_iter().all(|id| !before.contains(&id)), "no id means two entries");
    let numbers: Vec<u64> = inbox.taken()[before.len()..].to_vec();
    assert_eq!(once(&numbers), numbers, "each once");
}

fn run(server: &Server, arguments: &[&str]) {
    let mut command = server.command(arguments);
    let ended = command.env("TIDINGS_PASSPHRASE", "a passphrase for stories").output().expect("it ran");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn nothing_is_sent_for_an_app_that_is_disabled_until_it_is_enabled_again() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    scene.subscribe("ops", &inbox.url(), &json!({}));
    // Much waits already when the app is disabled, and one message is on its way.
    scene.act("ops", "pause");
    scene.commit(4);
    scene.settle();
    let (asked, waits) = mpsc::channel();
    let (go, answers) = mpsc::channel::<()>();
    inbox.script(move |_| {
        asked.send(()).expect("the story waits");
        // Until the other side is gone; then at once.
        match answers.recv() {
            Ok(()) | Err(_) => 200,
        }
    });
    scene.act("ops", "resume");
    waits.recv_timeout(SOON).expect("a message");
    let disable = |disabled: bool| {
        let body = json!({ "disabled": disabled });
        assert_eq!(scene.app.ask(&scene.server, "PATCH", "/api/app", Some(&body)).status, 200);
    };
    disable(true);
    // From now on nothing waits for an answer.
    drop(go);
    eventually("the message on its way", SOON, || (!inbox.letters().is_empty()).then_some(()));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(inbox.letters().len(), 1, "what is on its way ends, and nothing else begins");
    inbox.script(|_| 200);
    disable(false);
    let all = scene.wait_until_done(&inbox);
    assert_eq!(inbox.taken(), all, "nothing is lost");
}
