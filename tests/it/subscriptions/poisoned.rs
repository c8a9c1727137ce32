//! Receivers that fail on one entry for ever, or on all of them for a while.

use std::{mem, sync::mpsc};

use super::*;
use crate::support::inbox::{CUT, SILENT};

/// What eight failed tries and more get, also on a busy machine.
const LONG: Duration = Duration::from_secs(240);
/// Tries of the first entry during a long outage: more than after which an entry is suspect.
const OUTAGE: u32 = 14;

impl Scene {
    /// Makes the subscription `ops`, whose first entries are of this many commits and wait together.
    fn with_backlog(commits: u64, inbox: &Inbox, more: &Value) -> Self {
        Self::start().and_backlog(commits, inbox, more)
    }

    /// The same, on a server that is there.
    fn and_backlog(self, commits: u64, inbox: &Inbox, more: &Value) -> Self {
        let scene = self;
        scene.subscribe("ops", &inbox.url(), more);
        scene.act("ops", "pause");
        scene.commit(commits);
        scene.settle();
        scene.act("ops", "resume");
        scene
    }

    /// Closes the breaker of the subscription's sink, so that the story does not wait for its next probe.
    fn hasten(&self) {
        let sink = self.shown("ops")["sink"].clone();
        if sink["endpoint"]["state"] == "open" {
            let id = sink["sink_id"].as_str().expect("an id");
            let path = format!("/api/admin/breakers/endpoint/{id}/reset");
            assert_eq!(self.server.ask_as_admin("POST", &path).status, 202);
        }
    }

    /// Waits until the subscription took the last entry of a round; the numbers of all such entries.
    fn wait_past_failures(&self, inbox: &Inbox) -> Vec<u64> {
        self.settle();
        let all = self.numbers(ROUNDS);
        let last = all.last().expect("entries");
        eventually("the last entry", LONG, || {
            self.hasten();
            inbox.taken().contains(last).then_some(())
        });
        all
    }

    /// The numbers of the skipped entries, with the status and the reason.
    fn skipped(&self) -> Vec<(Value, Value, Value)> {
        let of = |entry: &Value| {
            let data = &entry["data"];
            (data["number"].clone(), data["http_status"].clone(), data["reason"].clone())
        };
        self.entries("type:subscription.skipped").iter().map(of).collect()
    }

    /// Entry 3 alone was skipped, and the receiver did not answer it.
    fn assert_skipped_without_an_answer(&self, kind: &str) {
        let skipped = self.skipped();
        let [(number, status, reason)] = &skipped[..] else { panic!("{skipped:?}") };
        assert_eq!((number, status), (&json!(3), &Value::Null));
        let reason = reason.as_str().expect("a reason");
        assert!(reason.starts_with(kind), "{reason}");
        assert!(reason.ends_with(", while a later entry was accepted"), "{reason}");
        self.wait_for_state("ops", "active");
    }
}

fn without(all: &[u64], left_out: &[u64]) -> Vec<u64> {
    all.iter().copied().filter(|number| !left_out.contains(number)).collect()
}

#[test]
fn an_entry_that_a_receiver_always_fails_on_is_passed_over_noted_and_sent_again_by_its_number() {
    let inbox = Inbox::start();
    inbox.script(|letter| if letter.number() == 3 { 500 } else { 200 });
    let scene = Scene::with_backlog(4, &inbox, &json!({ "filter": "" }));
    let rounds = scene.wait_past_failures(&inbox);
    assert_eq!(inbox.taken(), without(&rounds, &[3]), "each once, in order");
    let reason = "status 500, while a later entry was accepted";
    assert_eq!(scene.skipped(), [(json!(3), json!(500), json!(reason))]);
    scene.wait_for_state("ops", "active");
    let statuses = |query: &str| -> Vec<Value> {
        scene.tries("ops", query).iter().map(|one| one["http_status"].clone()).collect()
    };
    assert_eq!(statuses("&number=3"), vec![json!(500); 11], "eight, and three more behind entry 4");
    assert_eq!(statuses("&number=4"), [json!(200)], "the entry behind is listed, too");
    let letters = inbox.letters();
    assert!(letters.iter().all(|letter| letter.kind().starts_with("round.")), "nothing else was sent");

    inbox.script(|_| 200);
    let (status, outcome) = scene.ask("POST", "/ops/send", Some(&json!({ "number": 3 })));
    assert_eq!((status, &outcome["accepted"]), (200, &json!(true)), "{outcome}");
    assert_eq!(inbox.taken().last(), Some(&3));
    scene.commit(1);
    let rounds = scene.wait_past_failures(&inbox);
    assert_eq!(inbox.taken()[rounds.len() - 2..], rounds[rounds.len() - 2..], "it goes on behind it");
    assert_eq!(scene.skipped().len(), 1);
}

#[test]
fn an_entry_that_a_receiver_breaks_the_connection_at_is_passed_over() {
    let inbox = Inbox::start();
    inbox.script(|letter| if letter.number() == 3 { CUT } else { 200 });
    let scene = Scene::with_backlog(4, &inbox, &json!({}));
    let rounds = scene.wait_past_failures(&inbox);
    assert_eq!(inbox.taken(), without(&rounds, &[3]), "each once, in order");
    scene.assert_skipped_without_an_answer("Cut: ");
    let letters = inbox.letters();
    let tries = letters.iter().filter(|letter| letter.number() == 3).count();
    assert_eq!(tries, 11, "eight, and three more behind entry 4");
}

#[test]
fn an_entry_that_a_receiver_never_answers_is_passed_over() {
    let inbox = Inbox::start();
    let mut is_later = false;
    // It is busy when entry 4 comes for the first time.
    inbox.script(move |letter| match letter.number() {
        3 => SILENT,
        4 if !mem::replace(&mut is_later, true) => SILENT,
        _ => 200,
    });
    let mut server = Server::prepare().with("delivery.attempt_timeout", "2s");
    server.run();
    let scene = Scene::with(server).and_backlog(4, &inbox, &json!({}));
    let rounds = scene.wait_past_failures(&inbox);
    let mut expected = without(&rounds, &[3]);
    expected.swap(2, 3);
    assert_eq!(inbox.taken(), expected, "entry 5 was sent ahead of its turn after entry 4");
    scene.assert_skipped_without_an_answer("Timeout: ");
    let tries = scene.tries("ops", "&number=4");
    assert_eq!(tries.len(), 2, "{tries:?}");
    assert_eq!(tries[1]["took_ms"], 1_000, "the entry behind has half of the time: {tries:?}");
}

#[test]
fn two_such_entries_in_a_row_are_passed_over() {
    let inbox = Inbox::start();
    // A firewall that dislikes the content of two messages.
    inbox.script(|letter| if [3, 4].contains(&letter.number()) { 403 } else { 200 });
    let scene = Scene::with_backlog(4, &inbox, &json!({}));
    let rounds = scene.wait_past_failures(&inbox);
    eventually("both", LONG, || (scene.skipped().len() == 2).then_some(()));
    assert_eq!(inbox.taken(), without(&rounds, &[3, 4]), "each once, in order");
    let reason = json!("status 403, while a later entry was accepted");
    let skipped = |number: u64| (json!(number), json!(403), reason.clone());
    assert_eq!(scene.skipped(), [skipped(3), skipped(4)]);
}

#[test]
fn an_endpoint_that_is_down_for_long_gets_everything_in_order_and_nothing_is_passed_over() {
    let inbox = Inbox::start();
    let mut tries = 0;
    inbox.script(move |letter| {
        tries += u32::from(letter.number() == 1);
        if tries > OUTAGE { 200 } else { 500 }
    });
    let scene = Scene::with_backlog(4, &inbox, &json!({}));
    let rounds = scene.wait_past_failures(&inbox);
    assert_eq!(inbox.taken(), rounds, "each once, in order");
    assert!(scene.skipped().is_empty(), "{:?}", scene.skipped());
    let letters = inbox.letters();
    let failed: Vec<u64> = letters.iter().filter(|one| one.status == 500).map(|one| one.number()).collect();
    assert_eq!(failed[..8], [1; 8], "before eight tries nothing goes ahead of its turn");
    let is_head_first = failed.windows(2).all(|two| two[0] == 1 || two[1] == 1);
    assert!(is_head_first, "one entry at most is tried behind each try of the first: {failed:?}");
    assert!(failed.iter().any(|number| *number > 1), "{failed:?}");
}

#[test]
fn an_endpoint_that_recovers_in_the_middle_of_a_probe_loses_nothing() {
    let inbox = Inbox::start();
    let mut is_well = false;
    inbox.script(move |letter| {
        is_well |= letter.number() > 1;
        if is_well { 200 } else { 500 }
    });
    let scene = Scene::with_backlog(3, &inbox, &json!({}));
    let rounds = scene.wait_past_failures(&inbox);
    let mut expected = rounds;
    expected.swap(0, 1);
    assert_eq!(inbox.taken(), expected, "each once; the first follows the entry behind it at once");
    assert!(scene.skipped().is_empty(), "{:?}", scene.skipped());
}

#[test]
fn a_kill_before_the_skip_is_written_repeats_the_entry_behind_and_loses_nothing() {
    let inbox = Inbox::start();
    let (asked, waits) = mpsc::channel();
    let (go, answers) = mpsc::channel::<()>();
    let (mut is_ahead, mut was_held) = (false, false);
    inbox.script(move |letter| {
        if letter.number() != 3 {
            is_ahead |= letter.number() > 3;
            return 200;
        }
        if is_ahead && !mem::replace(&mut was_held, true) {
            asked.send(()).expect("the story waits");
            answers.recv().expect("the story goes on");
        }
        500
    });
    let mut scene = Scene::with_backlog(4, &inbox, &json!({}));
    eventually("entry 3 after entry 4", LONG, || {
        scene.hasten();
        waits.try_recv().ok()
    });
    scene.server.kill();
    scene._subscriber.model().note_kill();
    go.send(()).expect("the receiver waits");
    scene.server.run();
    let rounds = scene.wait_past_failures(&inbox);
    let taken = inbox.taken();
    assert_eq!(once(&taken), without(&rounds, &[3]), "each at least once, in order");
    assert_eq!(taken.len(), rounds.len(), "entry 4 came twice: {taken:?}");
    let skipped = scene.skipped();
    assert_eq!((skipped.len(), &skipped[0].0), (1, &json!(3)));
}
