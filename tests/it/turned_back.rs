//! Receivers that apply a change and answer as if they had not, and receivers that really did not: after
//! the dead letter the commit is turned back, then the file is removed, and the trees are compared. What
//! the server believes that a receiver has shows only then.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    alphabet::{Ending, Program, Word},
    api::App,
    project::Project,
    server::Server,
    subscriber::Subscriber,
};

/// Later than any attempt is waited for.
const TOO_LATE: Duration = Duration::from_secs(5);
/// The deadline of an attempt, which a busy machine meets where the receiver answers.
const ATTEMPT: &str = "2s";

/// The answers to the first tries of a change, and to the tries after them.
const WORDS: [(&[Word], Word); 11] = [
    (&[], Word::Refuse(422)),
    (&[], Word::Refuse(409)),
    (&[], Word::Refuse(500)),
    (&[], Word::Apply(Ending::Status(422))),
    (&[], Word::Apply(Ending::Status(409))),
    (&[], Word::Apply(Ending::Status(500))),
    (&[Word::Apply(Ending::Status(500))], Word::Refuse(422)),
    (&[Word::Apply(Ending::Silence)], Word::Refuse(422)),
    (&[Word::Apply(Ending::Reset)], Word::Refuse(422)),
    (&[Word::Apply(Ending::Late(TOO_LATE))], Word::Refuse(422)),
    (&[Word::Refuse(500)], Word::Apply(Ending::Status(422))),
];

/// What happens to a file: before, and with the commit that is answered so.
const CHANGES: [(&str, Option<&str>, Option<&str>); 3] =
    [("create", None, Some("new")), ("update", Some("old"), Some("new")), ("delete", Some("old"), None)];

/// The files of every word and change; each has a neighbour that is accepted, so that no streak begins.
fn names() -> Vec<(String, usize, &'static str)> {
    let of = |word: usize| CHANGES.map(|(change, ..)| (format!("{word:02}-{change}"), word, change));
    (0..WORDS.len()).flat_map(of).collect()
}

/// Writes each file as it is before (`false`) or after the commit that is answered badly.
fn write(project: &Project, is_after: bool) {
    for (name, _, change) in names() {
        let (_, before, after) = CHANGES.into_iter().find(|(known, ..)| *known == change).expect("known");
        for name in [name.clone(), format!("{name}-neighbour")] {
            match if is_after { after } else { before } {
                Some(content) => project.write(&name, content.as_bytes()),
                None if project.path().join(&name).exists() => project.remove(&name),
                None => {}
            }
        }
    }
}

/// The words of the table for every file, then the table's commit turned back, then everything removed.
fn is_right_after_it_is_turned_back(delivery: Value) {
    let project = Project::with(&[("kept", "1")]);
    write(&project, false);
    project.commit("before");
    let subscriber = Subscriber::start();
    subscriber.model().phased = delivery["order"] == "phased";
    subscriber.model().batch_max =
        delivery["batch"]["count"].as_u64().and_then(|count| usize::try_from(count).ok());
    let program = Program::default();
    subscriber.follow(&program);
    let mut server = Server::prepare().with("delivery.attempt_timeout", ATTEMPT);
    server.run();
    let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": delivery }));
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());

    for (name, word, _) in names() {
        let (first, then) = WORDS[word];
        program.answer(&name, first, then);
    }
    write(&project, true);
    let answered = project.commit("answered badly");
    app.wait_until_held(&server, &id, &answered);
    let open: BTreeSet<Vec<u8>> = app.dead_letters(&server).iter().map(path_of).collect();
    assert_eq!(open.len(), names().len(), "each was given up: {open:?}");
    in_step(&subscriber, &project, &id, &open);

    program.accept_all();
    write(&project, false);
    app.wait_until_held(&server, &id, &project.commit("turned back"));
    in_step(&subscriber, &project, &id, &BTreeSet::new());
    assert_eq!(app.dead_letters(&server), Vec::<Value>::new(), "what was sent again is parked no more");

    project.git(["rm", "--quiet", "-r", "0*", "1*"]);
    app.wait_until_held(&server, &id, &project.commit("removed"));
    in_step(&subscriber, &project, &id, &BTreeSet::new());
    subscriber.assert_faultless();
}

fn path_of(letter: &Value) -> Vec<u8> {
    letter["path"].as_str().expect("a path").as_bytes().to_vec()
}

fn in_step(subscriber: &Subscriber, project: &Project, id: &str, parked: &BTreeSet<Vec<u8>>) {
    let differences = subscriber.model().differences(id, &project.tree("HEAD"), parked);
    assert_eq!(differences, Vec::<String>::new());
}

#[test]
fn what_one_lane_gave_up_is_right_after_it_is_turned_back_and_removed() {
    is_right_after_it_is_turned_back(json!({}));
}

#[test]
fn what_a_phased_lane_gave_up_is_right_after_it_is_turned_back_and_removed() {
    is_right_after_it_is_turned_back(json!({ "order": "phased", "max_in_flight": 16 }));
}

#[test]
fn what_was_given_up_of_batches_is_right_after_it_is_turned_back_and_removed() {
    is_right_after_it_is_turned_back(json!({ "batch": { "count": 16, "linger_ms": 5 } }));
    is_right_after_it_is_turned_back(json!({ "order": "phased", "batch": { "count": 16, "linger_ms": 5 } }));
}
