//! Mails over a real mail server: the first entry at once, the rest in a digest, each entry at least once.

use super::*;
use crate::support::{database, subscriber::Answer};

/// A server that sends its mails through `mails`, and waits this long between two of them.
pub(super) fn scene(mails: &MailServer, interval: &str) -> Scene {
    Scene::with(started(mails.used_by(Server::prepare()).with("mail.digest_interval", interval)))
}

pub(super) fn started(mut server: Server) -> Server {
    server.run();
    server
}

/// Makes a subscription to rounds that is sent by mail.
pub(super) fn subscribe(scene: &Scene, to: &Value) -> Value {
    let sink = json!({ "kind": "mail", "to": to });
    scene.subscribe("ops", "", &json!({ "sink": sink }))
}

/// The numbers that all these mails name, each once, in order.
fn named(mails: &[Mail]) -> Vec<u64> {
    once(&mails.iter().flat_map(Mail::numbers).collect::<Vec<_>>())
}

/// Waits until a subscription is done with every entry that there is; the numbers of those that it wants.
pub(super) fn wait_until_told(scene: &Scene) -> Vec<u64> {
    scene.settle();
    let all = scene.numbers(ROUNDS);
    let last = *all.last().expect("entries");
    eventually("every entry is told", SOON, || {
        (scene.shown("ops")["position"].as_u64()? >= last).then_some(())
    });
    all
}

#[test]
fn the_first_entry_is_told_at_once_and_five_hundred_more_in_one_mail() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let mut scene = scene(&mails, "1h");
    let made = subscribe(&scene, &json!(["ops@example.org", "stories@example.org"]));
    assert_eq!(made["sink"]["to"], json!(["ops@example.org", "stories@example.org"]));
    assert_eq!((&made["sink"]["kind"], &made["sink"]["signing_secret"]), (&json!("mail"), &Value::Null));
    scene.commit(1);
    let first = mails.wait_for(1).remove(0);
    assert_eq!(first.way(), (true, "tidings"), "encrypted, and logged in");
    assert_eq!(first.to(), ["ops@example.org", "stories@example.org"]);
    assert_eq!(first.header("From"), "Tidings <tidings@story.example>");
    assert_eq!(first.header("Auto-Submitted"), "auto-generated");
    assert!(first.html().contains("<!doctype html>"), "{first:?}");
    scene.commit(250);
    scene.settle();
    let all = scene.numbers(ROUNDS);
    assert_eq!(all.len(), 502, "each round begins and ends");
    assert_eq!(mails.mails().len(), 1, "within the hour there is no other mail");
    assert!(scene.shown("ops")["next_mail_at"].is_string(), "{}", scene.shown("ops"));

    // The hour is over.
    assert!(scene.server.terminate().0.success());
    database::change(&scene.server, "update subscription set quiet_until = 1");
    scene.server.run();
    let both = mails.wait_for(2);
    assert_eq!(wait_until_told(&scene), all);
    assert_eq!((both.len(), mails.mails().len()), (2, 2), "two mails for 502 entries");
    assert_eq!(named(&both), all, "the digest names each of them, once");
    assert_eq!(both[1].numbers().len() + both[0].numbers().len(), 502);
    assert!(both[1].bytes() < 400_000, "{} bytes", both[1].bytes());
    assert!(both[1].header("Subject").starts_with("[Tidings] 50"), "{}", both[1].header("Subject"));
    assert_ne!(both[0].header("Message-ID"), both[1].header("Message-ID"));

    // The log of mails is in the ledger; no mail tells of it.
    let sent = scene.entries("type:mail.sent");
    let ranges: Vec<_> = sent.iter().map(|entry| entry["data"]["last"].as_u64().expect("a number")).collect();
    assert_eq!((sent.len(), ranges.last()), (2, all.last()), "{sent:?}");
    for (entry, mail) in sent.iter().zip(&both) {
        assert_eq!(entry["data"]["to"], json!(["ops@example.org", "stories@example.org"]));
        let id = entry["data"]["mail"].as_str().expect("an id");
        assert_eq!(mail.header("Message-ID"), format!("<{id}@story.example>"));
    }
}

#[test]
fn the_doctor_judges_no_mail_by_the_rules_of_web_addresses() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let scene = scene(&mails, "1h");
    subscribe(&scene, &json!("ops@example.org"));
    let output = scene.server.command(&["doctor", "--json"]).output().expect("it ran");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("\"endpoints\"") && !said.contains("only https and http"), "{said}");
    assert!(!said.contains("cannot be reached"), "{said}");
    // The same server, and nothing listens where settings say that it does.
    let mut elsewhere = scene.server.command(&["doctor"]);
    let output = elsewhere.env("TIDINGS__MAIL__PORT", "1").output().expect("it ran");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(
        said.contains(":1 cannot be reached, so no mail is sent") && said.contains("mail.port"),
        "{said}"
    );
}

#[test]
fn a_mail_server_that_is_down_for_a_while_gets_one_mail_with_everything() {
    let Some(mut mails) = MailServer::start("starttls") else { return };
    let scene = scene(&mails, "1h");
    subscribe(&scene, &json!("ops@example.org"));
    mails.kill();
    scene.commit(4);
    let blocked = scene.wait_for_state("ops", "blocked");
    assert!(blocked["reason"].as_str().expect("a reason").starts_with("connect: no connection"), "{blocked}");
    scene.commit(4);
    scene.settle();
    assert_eq!(scene.shown("ops")["position"], 0, "nothing is passed over");
    mails.run();
    // The longer a busy machine took for that, the longer the next try would wait.
    scene.act("ops", "resume");
    let all = wait_until_told(&scene);
    assert_eq!(all.len(), 16);
    let got = mails.mails();
    assert_eq!((got.len(), named(&got)), (1, all), "one mail tells everything");
    assert_eq!(got[0].way(), (true, "tidings"), "after STARTTLS");
    scene.wait_for_state("ops", "active");
}

#[test]
fn every_entry_is_told_over_kills_and_a_mail_that_comes_twice_is_the_same_mail() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let mut scene = scene(&mails, "1s");
    let mut dice = Dice::thrown("kills around mails");
    subscribe(&scene, &json!("ops@example.org"));
    let kills = kills(KILLS) / 2;
    for _ in 0..kills {
        let (life, alive) = (dice.up_to(LIFE), &scene);
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(life);
                alive.server.signal(Signal::KILL);
            });
            scope.spawn(move || alive.commit(2));
        });
        scene.server.kill();
        scene._subscriber.model().note_kill();
        scene.server.run();
    }
    let all = wait_until_told(&scene);
    let got = mails.mails();
    let mut told = named(&got);
    told.sort_unstable();
    assert_eq!(told, all, "each is told");
    let mut ids: Vec<(String, Vec<u64>)> =
        got.iter().map(|mail| (mail.header("Message-ID"), mail.numbers())).collect();
    ids.sort();
    for same in ids.chunk_by(|one, other| one.0 == other.0) {
        assert!(same.iter().all(|one| *one == same[0]), "one id is one mail: {same:?}");
    }
    ids.dedup();
    let numbers: usize = ids.iter().map(|(_, numbers)| numbers.len()).sum();
    assert_eq!(numbers, all.len(), "no entry stands in two mails: {ids:?}");
    println!("{} mails, {} of them once, for {} entries over {kills} kills", got.len(), ids.len(), all.len());
}

#[test]
fn a_mail_whose_answer_was_lost_comes_again_under_the_same_id_also_after_new_entries() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let scene = scene(&mails, "1h");
    mails.behave(&json!({ "vanishes": true }));
    subscribe(&scene, &json!("ops@example.org"));
    scene.commit(1);
    let first = mails.wait_for(1).remove(0);
    scene.commit(3);
    scene.settle();
    let tried = eventually("a try without an answer", SOON, || {
        let shown = scene.shown("ops");
        shown["next_attempt_at"].is_string().then_some(shown)
    });
    let moment = |value: &Value| humantime::parse_rfc3339(value.as_str().expect("a text")).expect("RFC 3339");
    let ended = moment(&scene.tries("ops", "")[0]["ended_at"]);
    let wait = moment(&tried["next_attempt_at"]).duration_since(ended).expect("later");
    assert!(wait >= Duration::from_secs(3_600), "the server may have it, so it counts as a mail: {wait:?}");
    scene.act("ops", "resume");
    mails.wait_for(2);
    mails.behave(&json!({}));
    eventually("a second try without an answer", SOON, || (scene.tries("ops", "").len() == 2).then_some(()));
    scene.act("ops", "resume");
    eventually("the mail is taken", SOON, || scene.entries("type:mail.sent").pop());
    assert_eq!(mails.mails().len(), 3, "nobody else asked for it");
    for again in mails.mails() {
        assert_eq!(again.header("Message-ID"), first.header("Message-ID"));
        assert_eq!(again.numbers(), first.numbers());
    }
    let position = scene.shown("ops")["position"].as_u64();
    assert_eq!(position, first.numbers().last().copied(), "the others wait for the next mail");
}

#[test]
fn hostile_paths_of_changes_that_were_given_up_change_neither_headers_nor_pages() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let scene = scene(&mails, "1s");
    scene._subscriber.script(|_| Answer::Refuse(422));
    scene.subscribe(
        "ops",
        "",
        &json!({ "filter": "type:letter.parked", "sink": { "to": ["ops@example.org"] } }),
    );
    let path = "a\r\nBcc: evil@example.org\r\n\r\n<script>alert(\"1\")</script> m\u{fc}nchen {{ 1 }}";
    scene.project.write_raw(path.as_bytes(), b"content");
    scene.project.commit("one more");
    let mail = mails.wait_for(1).remove(0);
    assert_eq!(mail.to(), ["ops@example.org"], "nobody else is sent it");
    let mut names = mail.header_names();
    names.sort_unstable();
    let usual =
        ["Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"];
    assert_eq!(names, usual);
    assert!(mail.header("Subject").ends_with("given up"), "{}", mail.header("Subject"));
    assert!(mail.text().contains("path: a\\r\\nBcc: evil@example.org\\r\\n"), "{}", mail.text());
    assert!(
        mail.text().contains("m\u{fc}nchen {{ 1 }}") && !mail.html().contains("<script"),
        "{}",
        mail.html()
    );
}

#[test]
fn a_test_and_an_entry_by_hand_are_sent_at_once_and_both_count() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let scene = scene(&mails, "1h");
    subscribe(&scene, &json!("ops@example.org"));
    let outcome = scene.act("ops", "test");
    assert_eq!((&outcome["accepted"], &outcome["status"]), (&json!(true), &json!(250)), "{outcome}");
    assert_eq!(outcome["url"], "mailto:ops@example.org");
    assert_eq!(mails.wait_for(1)[0].header("Subject"), "[Tidings] Mail for the subscription ops works");
    scene.commit(1);
    let number = mails.wait_for(2)[1].numbers()[0];
    for _ in 0..5 {
        let (status, outcome) = scene.ask("POST", "/ops/send", Some(&json!({ "number": number })));
        assert_eq!((status, &outcome["accepted"]), (200, &json!(true)), "{outcome}");
    }
    assert_eq!(mails.wait_for(7)[6].numbers(), [number]);
    assert_eq!(scene.ask("POST", "/ops/send", Some(&json!({ "number": number }))).0, 429, "six a minute");
    assert_eq!(scene.ask("POST", "/ops/rotate-key", None).0, 409, "mails are not signed");
    // A mail is written down after the mail server took it.
    let sent = eventually("the entries of the mails", SOON, || {
        Some(scene.entries("type:mail.sent")).filter(|sent| sent.len() >= 6)
    });
    assert_eq!(sent.len(), 6, "the first one, and five by hand");
}
