//! The model that the stories trust, made to fail: each promise broken once, each noticed. A build
//! that moved its cursor before the answer would look like `a_change_that_was_skipped`.

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::support::{
    alphabet::{Ending, Program, Word},
    http::Message,
    model::{Arrival, Model, REPEATS_MAX, sign},
    project::{FileFacts, Tree, sha256},
    subscriber::KEY,
};

/// One create of a round of 100.
fn create(position: u64) -> Value {
    let content = format!("content {position}");
    json!({
        "repository": { "repository_id": "repo_1" },
        "file": {
            "path": format!("f{position:03}"), "sha": sha256(content.as_bytes()), "size": content.len(),
            "content": content, "mode": "100644",
        },
        "commit_sha": "c1",
        "event": { "id": format!("dlv_{position}"), "cursor": "cur_1", "round": 7, "position": position, "total": 100 },
    })
}

fn message(action: &str, body: &Value) -> Message {
    let id = body["event"]["id"].as_str().unwrap_or("dlv_x").to_owned();
    let timestamp = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs().to_string();
    let body = body.to_string().into_bytes();
    let standard = BASE64_STANDARD.encode(sign(KEY.as_bytes(), &[&id, ".", &timestamp, "."], &body));
    let docora = data_encoding::HEXLOWER.encode(&sign(KEY.as_bytes(), &[&timestamp, "."], &body));
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", timestamp.clone()),
        ("webhook-signature", format!("v1,{standard}")),
        ("x-docora-timestamp", timestamp),
        ("x-docora-signature", format!("sha256={docora}")),
        ("content-type", "application/json".to_owned()),
    ];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Message { first_line: format!("POST /{action} HTTP/1.1"), headers, body }
}

fn take(model: &mut Model, message: &Message) {
    if let Some(arrival) = model.arrive(message) {
        model.apply(&arrival);
        model.acknowledged(&arrival);
    }
}

fn taken(positions: impl IntoIterator<Item = u64>) -> Model {
    let mut model = Model::new(KEY);
    for position in positions {
        take(&mut model, &message("create", &create(position)));
    }
    model
}

#[test]
fn what_is_as_promised_has_no_fault() {
    let mut model = taken(0..100);
    model.note_kill();
    for position in 36..100 {
        take(&mut model, &message("create", &create(position)));
    }
    assert!(model.faults.is_empty() && model.surprises.is_empty(), "{:?}", model.faults);
    assert_eq!((model.repeats, model.finished.len(), model.mirrors["repo_1"].len()), (64, 1, 100));
}

#[test]
fn a_change_that_was_skipped_is_noticed() {
    let mut model = taken(0..10);
    model.note_kill();
    take(&mut model, &message("create", &create(11)));
    assert!(model.faults[0].starts_with("position 11"), "{:?}", model.faults);
}

#[test]
fn a_change_that_came_too_early_is_noticed() {
    assert_eq!(taken([0, 1, 3, 2]).faults.len(), 2);
}

#[test]
fn in_phased_order_a_change_may_overtake_within_the_window_and_the_phase_only() {
    let arrived = |positions: &[(&str, u64)]| {
        let mut model = Model::new(KEY);
        model.phased = true;
        for (action, position) in positions {
            // Seen and not answered: all of them are under way at once.
            model.arrive(&message(action, &create(*position)));
        }
        model.faults
    };
    assert_eq!(arrived(&[("create", 3), ("create", 0), ("create", 63)]), Vec::<String>::new());
    assert_eq!(arrived(&[("create", 64)]).len(), 1, "beyond the window");
    assert_eq!(arrived(&[("create", 0), ("update", 1)]).len(), 1, "into the next phase");
}

#[test]
fn a_repeat_without_a_kill_is_noticed() {
    assert_eq!(taken([0, 1, 1]).faults.len(), 1);
}

#[test]
fn a_repeat_too_many_is_noticed() {
    let mut model = taken(0..100);
    model.note_kill();
    let first = 100 - REPEATS_MAX as u64 - 1;
    for position in first..100 {
        take(&mut model, &message("create", &create(position)));
    }
    assert_eq!(model.faults.len(), 1, "{:?}", model.faults);
}

#[test]
fn another_body_under_the_same_id_is_noticed() {
    let mut model = taken(0..2);
    model.note_kill();
    let mut other = create(1);
    other["commit_sha"] = json!("c2");
    take(&mut model, &message("create", &other));
    assert!(model.faults[0].contains("two bodies"), "{:?}", model.faults);
}

#[test]
fn a_round_that_was_left_early_is_noticed() {
    let mut model = taken(0..50);
    let mut next = create(0);
    next["event"]["round"] = json!(8);
    next["event"]["id"] = json!("dlv_next");
    take(&mut model, &message("update", &next));
    assert_eq!(model.left, [("cur_1".to_owned(), 7)]);
}

#[test]
fn a_round_from_the_past_is_noticed() {
    let mut model = taken(0..2);
    let mut past = create(0);
    past["event"]["round"] = json!(6);
    past["event"]["id"] = json!("dlv_past");
    take(&mut model, &message("create", &past));
    assert!(model.faults[0].contains("came after round 7"), "{:?}", model.faults);
}

#[test]
fn content_or_signatures_that_are_not_right_are_noticed() {
    let mut wrong = create(0);
    wrong["file"]["content"] = json!("content O");
    let mut model = Model::new(KEY);
    take(&mut model, &message("create", &wrong));
    assert!(model.faults[0].contains("sha"), "{:?}", model.faults);

    for header in ["webhook-signature", "x-docora-signature"] {
        let mut forged = message("create", &create(0));
        for (name, value) in &mut forged.headers {
            if name == header {
                value.push('0');
            }
        }
        let mut model = Model::new(KEY);
        take(&mut model, &forged);
        assert!(model.faults[0].contains("signature"), "{:?}", model.faults);
        assert!(model.mirrors.is_empty());
    }
}

#[test]
fn an_update_or_delete_of_what_is_not_there_is_noticed() {
    let mut model = Model::new(KEY);
    let mut body = create(0);
    body["file"] = json!({ "path": "f000", "sha": sha256(b"x") });
    take(&mut model, &message("delete", &body));
    assert_eq!(model.surprises.len(), 1);
}

/// A batch of these positions.
fn batch(id: &str, positions: impl IntoIterator<Item = u64>) -> Message {
    let mut changes: Vec<Value> = positions.into_iter().map(create).collect();
    changes.iter_mut().for_each(|change| change["event"]["type"] = json!("file.created"));
    let mut body = json!({ "batch": { "id": id }, "changes": changes });
    // The header of a batch names the batch.
    body["event"] = json!({ "id": id });
    message("batch", &body)
}

fn batching() -> Model {
    let mut model = Model::new(KEY);
    model.batch_max = Some(10);
    model
}

#[test]
fn batches_as_agreed_have_no_fault_and_may_be_repeated_once_a_kill() {
    let mut model = batching();
    for from in (0..100).step_by(10) {
        take(&mut model, &batch(&format!("dlv_batch_{from}"), from..from + 10));
    }
    model.note_kill();
    take(&mut model, &batch("dlv_batch_90", 90..100));
    assert!(model.faults.is_empty(), "{:?}", model.faults);
    assert_eq!((model.repeats, model.finished.len(), model.mirrors["repo_1"].len()), (10, 1, 100));
}

#[test]
fn batches_that_are_not_as_agreed_are_noticed() {
    let faults = |messages: &[Message]| {
        let mut model = batching();
        messages.iter().for_each(|message| take(&mut model, message));
        model.faults
    };
    for (what, messages) in [
        ("changes of at most", vec![batch("dlv_b", 0..11)]),
        ("changes of at most", vec![batch("dlv_b", 0..1)]),
        ("do not follow", vec![batch("dlv_b", [1, 0])]),
        ("position 11", vec![batch("dlv_a", 0..10), batch("dlv_b", 11..13)]),
        ("two batches", vec![batch("dlv_a", 0..10), batch("dlv_a", 10..20)]),
        ("without a kill", vec![batch("dlv_a", 0..10), batch("dlv_b", 9..12)]),
    ] {
        let faults = faults(&messages);
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
    }
    let mut unasked = Model::new(KEY);
    take(&mut unasked, &batch("dlv_b", 0..2));
    assert_eq!(unasked.faults.len(), 1, "{:?}", unasked.faults);
}

#[test]
fn more_than_a_batch_repeated_by_one_kill_is_noticed() {
    let mut model = batching();
    take(&mut model, &batch("dlv_a", 0..10));
    take(&mut model, &batch("dlv_b", 10..20));
    model.note_kill();
    take(&mut model, &batch("dlv_c", 9..19));
    assert!(model.faults.is_empty(), "{:?}", model.faults);
    let mut alone = create(19);
    alone["event"]["type"] = json!("file.created");
    take(&mut model, &message("create", &alone));
    assert!(model.faults[0].contains("more than 10"), "{:?}", model.faults);
}

#[test]
fn what_was_taken_of_a_batch_must_not_come_again_and_the_rest_may() {
    let mut model = batching();
    let part = batch("dlv_a", 0..4);
    let Some(Arrival::Batch(changes)) = model.arrive(&part) else { panic!("a batch") };
    let words = model.take_some(&changes, &[true, false, false, true]);
    assert_eq!(words["results"].as_array().expect("words").len(), 3, "one is not named");
    take(&mut model, &batch("dlv_b", 1..3));
    assert!(model.faults.is_empty(), "{:?}", model.faults);
    take(&mut model, &batch("dlv_c", 3..5));
    assert_eq!(model.faults.len(), 1, "{:?}", model.faults);
}

#[test]
fn what_a_receiver_lacks_or_has_in_excess_at_rest_is_noticed_unless_a_letter_is_open() {
    let model = taken(0..3);
    let facts = |content: &str| FileFacts { mode: "100644".into(), sha: sha256(content.as_bytes()) };
    let tree: Tree =
        (0..3).map(|at| (format!("f{at:03}").into_bytes(), facts(&format!("content {at}")))).collect();
    let differences = |tree: &Tree, parked: &[&str]| {
        let parked: BTreeSet<Vec<u8>> = parked.iter().map(|path| path.as_bytes().to_vec()).collect();
        model.differences("repo_1", tree, &parked)
    };
    assert_eq!(differences(&tree, &[]), Vec::<String>::new());

    let mut more = tree.clone();
    more.insert(b"g".to_vec(), facts("g"));
    assert!(differences(&more, &[])[0].contains("lacks g"));
    let mut fewer = tree.clone();
    fewer.remove(b"f001".as_slice());
    assert!(differences(&fewer, &[])[0].contains("still has f001"));
    let mut other = tree.clone();
    other.insert(b"f002".to_vec(), facts("other"));
    assert!(differences(&other, &[])[0].contains("another f002"));
    for (tree, path) in [(more, "g"), (fewer, "f001"), (other, "f002")] {
        assert_eq!(differences(&tree, &[path]), Vec::<String>::new(), "{path} is parked");
        assert_eq!(differences(&tree, &["f000"]).len(), 1, "a letter of another path excuses nothing");
    }
}

#[test]
fn what_was_applied_and_answered_with_an_error_is_in_the_mirror_and_may_come_again() {
    let mut model = Model::new(KEY);
    let first = message("create", &create(0));
    let arrival = model.arrive(&first).expect("a change");
    model.apply(&arrival);
    model.turned_down(&arrival);
    assert_eq!(model.mirrors["repo_1"].len(), 1, "it was applied");
    take(&mut model, &first);
    assert!(model.faults.is_empty(), "no 2xx had been said: {:?}", model.faults);
    take(&mut model, &first);
    assert_eq!(model.faults.len(), 1, "now one had");
}

#[test]
fn in_phased_order_a_change_that_was_turned_down_holds_no_other_phase_up() {
    let mut model = Model::new(KEY);
    model.phased = true;
    let refused = model.arrive(&message("create", &create(0))).expect("a change");
    model.turned_down(&refused);
    model.arrive(&message("update", &create(1)));
    assert!(model.faults.is_empty(), "{:?}", model.faults);
}

#[test]
fn one_skip_by_hand_explains_one_gap() {
    let mut model = taken(0..2);
    model.skips = 1;
    take(&mut model, &message("create", &create(3)));
    assert!(model.faults.is_empty(), "{:?}", model.faults);
    take(&mut model, &message("create", &create(5)));
    assert_eq!(model.faults.len(), 1, "{:?}", model.faults);
}

#[test]
fn a_program_answers_each_try_of_each_pattern_as_it_was_told() {
    let program = Program::default();
    let late = Word::Apply(Ending::Late(Duration::from_secs(1)));
    program.answer("f00*", &[late, Word::Apply(Ending::Reset)], Word::Refuse(422));
    program.answer("f001", &[], Word::Refuse(500));
    let mut model = batching();
    let mut tries = |message: &Message, times: usize| -> Vec<String> {
        let arrival = model.arrive(message).expect("changes");
        (0..times).map(|_| format!("{:?}", program.next(&arrival))).collect()
    };
    let all = |word: Word| format!("All({word:?})");
    let first = tries(&message("create", &create(0)), 4);
    assert_eq!(first[..2], [all(late), all(Word::Apply(Ending::Reset))]);
    assert_eq!(first[2..], [all(Word::Refuse(422)), all(Word::Refuse(422))]);
    assert_eq!(tries(&message("create", &create(1)), 1), [all(Word::Refuse(500))]);
    assert_eq!(tries(&message("create", &create(20)), 1), [all(Word::Accept)]);
    // A batch is answered change by change, and every second time as a whole.
    let each = format!("Each({:?})", [Word::Refuse(500), Word::Accept]);
    assert_eq!(tries(&batch("dlv_b", [1, 20]), 2), [each, all(Word::Refuse(500))]);
    // A reset is a reset for all of a batch.
    assert_eq!(tries(&batch("dlv_c", [2, 21]), 2), [all(late), all(Word::Apply(Ending::Reset))]);
}

#[test]
fn what_a_word_applies_of_a_batch_is_in_the_mirror_and_what_it_refuses_is_named() {
    let mut model = batching();
    let Some(Arrival::Batch(changes)) = model.arrive(&batch("dlv_a", 0..5)) else { panic!("a batch") };
    let words = [
        Word::Accept,
        Word::Refuse(422),
        Word::Refuse(500),
        Word::Apply(Ending::Status(422)),
        Word::Apply(Ending::Status(500)),
    ];
    let answer = model.take_by_word(&changes, &words);
    let outcomes: Vec<&str> = answer["results"]
        .as_array()
        .expect("words")
        .iter()
        .filter_map(|word| word["outcome"].as_str())
        .collect();
    assert_eq!(outcomes, ["accepted", "refused", "retry", "refused", "retry"]);
    let has: Vec<String> =
        model.mirrors["repo_1"].keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(has, ["f000", "f003", "f004"]);
}
