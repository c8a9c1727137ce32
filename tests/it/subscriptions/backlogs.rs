//! Entries that wait: many at once, some that are written while a message is on its way, and messages to an
//! address that is no longer the sink's.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Instant,
};

use super::*;

#[test]
fn a_backlog_is_sent_without_a_pause_between_its_pieces() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    scene.subscribe("ops", &inbox.url(), &json!({}));
    scene.act("ops", "pause");
    scene.commit(170);
    scene.settle();
    let all = scene.numbers(ROUNDS);
    assert!(all.len() >= 340, "more than five pieces of 64: {}", all.len());
    assert_eq!(inbox.taken(), Vec::<u64>::new());
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let noted = arrivals.clone();
    inbox.script(move |_| {
        noted.lock().expect("no panic").push(Instant::now());
        200
    });
    scene.act("ops", "resume");
    let last = *all.last().expect("entries");
    eventually("the backlog", 3 * SOON, || inbox.taken().contains(&last).then_some(()));
    assert_eq!(inbox.taken(), all, "each once, in order");
    // The looks that repair lost wake-ups are ten seconds apart: there would be five pauses like that.
    let arrivals = arrivals.lock().expect("no panic").clone();
    let waits = arrivals.windows(2).map(|two| two[1] - two[0]);
    let pauses: Vec<Duration> = waits.filter(|wait| *wait > Duration::from_secs(5)).collect();
    assert!(pauses.len() < 3, "{pauses:?}");
}

#[test]
fn an_entry_that_is_written_while_another_one_is_sent_follows_at_once() {
    let (scene, inbox) = (Scene::start(), Inbox::start());
    scene.subscribe("ops", &inbox.url(), &json!({}));
    inbox.script(|_| {
        thread::sleep(Duration::from_millis(300));
        200
    });
    let waits: Vec<Duration> = (0..10)
        .map(|_| {
            // The round ends while the entry of its beginning is being answered.
            scene.commit(1);
            scene.settle();
            let all = scene.numbers(ROUNDS);
            let began = Instant::now();
            inbox.wait_for(*all.last().expect("entries"));
            began.elapsed()
        })
        .collect();
    // A lost wake-up is repaired by a look within ten seconds: then most of them would take longer.
    let quick = waits.iter().filter(|wait| **wait < Duration::from_secs(4)).count();
    assert!(quick >= 7, "{waits:?}");
    assert_eq!(inbox.taken(), scene.numbers(ROUNDS), "each once, in order");
}

#[test]
fn what_a_former_address_answers_late_passes_nothing_over_at_the_new_one() {
    let (scene, former, new) = (Scene::start(), Inbox::start(), Inbox::start());
    scene.subscribe("ops", &former.url(), &json!({}));
    let (asked, waits) = mpsc::channel();
    let (go, answers) = mpsc::channel::<()>();
    former.script(move |letter| {
        asked.send(letter.number()).expect("the story waits");
        answers.recv().expect("the story goes on");
        422
    });
    scene.commit(1);
    let first = waits.recv_timeout(SOON).expect("a message");
    let changed = scene.ask("PATCH", "/ops", Some(&json!({ "sink": { "url": new.url() } })));
    assert_eq!(changed.0, 200, "{}", changed.1);
    go.send(()).expect("the receiver waits");
    let all = scene.wait_until_done(&new);
    assert_eq!(once(&new.taken()), all, "the new address gets every entry, also number {first}");
    assert_eq!(scene.entries("type:subscription.skipped"), Vec::<Value>::new());
}
