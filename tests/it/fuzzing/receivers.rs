//! The five apps: what each chose, what its receiver does, and what it watches.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::branches::{Branches, PATHS};
use crate::support::{
    alphabet::{Ending, Program, Word},
    api::{App, items},
    dice::Dice,
    server::Server,
    subscriber::Subscriber,
};

/// Branches of the pattern, whether they are there or not.
pub(super) const RELEASES: [&str; 3] = ["release/1", "release/2", "release/3"];
/// What a filter excludes.
const FILTERS: [&[&str]; 3] = [&[], &["d/**"], &["a1", "n", "stable/**"]];
/// Most changes of a batch.
const BATCH: usize = 8;
/// Later than any attempt is waited for.
const TOO_LATE: Duration = Duration::from_millis(4_500);

/// An app, its receiver and its watch.
pub(super) struct Receiver {
    pub(super) name: &'static str,
    pub(super) app: App,
    pub(super) subscriber: Subscriber,
    pub(super) program: Program,
    /// Id of the watch.
    pub(super) id: String,
    pub(super) is_pattern: bool,
    filter: usize,
    is_at_second_door: bool,
}

/// Name, delivery settings, and more fields of the watch of each app.
fn kinds() -> [(&'static str, Value, Value); 5] {
    let batch = json!({ "count": BATCH, "linger_ms": 5 });
    let main = json!({ "branch": "main" });
    let every = json!({ "branch": "main", "mode": "every" });
    let pattern = json!({ "branch": "release/*", "on_branch_gone": "delete" });
    [
        ("every", json!({}), every),
        ("phased", json!({ "order": "phased", "max_in_flight": 4 }), main.clone()),
        ("batch", json!({ "batch": batch }), main.clone()),
        ("phased batch", json!({ "order": "phased", "batch": batch }), main),
        ("pattern", json!({ "multi_branch": true }), pattern),
    ]
}

/// Registers all five receivers with one watch each.
pub(super) fn register(server: &Server, branches: &Branches) -> Vec<Receiver> {
    let register = |(name, delivery, mut watch): (&'static str, Value, Value)| {
        let subscriber = Subscriber::start_with_two_doors();
        let is_pattern = name == "pattern";
        {
            let mut model = subscriber.model();
            model.phased = delivery["order"] == "phased";
            model.batch_max = delivery["batch"].is_object().then_some(BATCH);
            model.by_branch = is_pattern;
        }
        let program = Program::default();
        subscriber.follow(&program);
        let app = App::onboard_with(server, &subscriber, &json!({ "delivery": delivery }));
        watch["url"] = json!(branches.url());
        watch["symlinks"] = json!("send");
        let id = app.watch_with(server, &watch);
        Receiver { name, app, subscriber, program, id, is_pattern, filter: 0, is_at_second_door: false }
    };
    kinds().into_iter().map(register).collect()
}

impl Receiver {
    /// The branches that it may follow.
    pub(super) fn branches(&self) -> &'static [&'static str] {
        if self.is_pattern { &RELEASES } else { &["main"] }
    }

    /// What its mirror of a branch is called.
    pub(super) fn mirror(&self, branch: &str) -> String {
        if self.is_pattern { format!("{} {branch}", self.id) } else { self.id.clone() }
    }

    /// Whether its filter admits a path.
    pub(super) fn admits(&self, path: &str) -> bool {
        !FILTERS[self.filter].iter().any(|glob| match glob.strip_suffix("**") {
            Some(folder) => path.starts_with(folder),
            None => path == *glob,
        })
    }

    /// Its receiver answers some paths badly from now on; what it does, for the log.
    pub(super) fn misbehave(&self, dice: &mut Dice) -> String {
        let refusals = [
            Word::Refuse(422),
            Word::Refuse(422),
            Word::Refuse(409),
            Word::Refuse(404),
            Word::Refuse(500),
            Word::Apply(Ending::Status(422)),
            Word::Apply(Ending::Status(422)),
            Word::Apply(Ending::Status(409)),
            Word::Apply(Ending::Status(403)),
            Word::Apply(Ending::Status(500)),
        ];
        // What says that the endpoint is not well ends by itself, before the breaker hears of it five times.
        let hiccups = [
            Word::Apply(Ending::Silence),
            Word::Apply(Ending::Reset),
            Word::Apply(Ending::Late(TOO_LATE)),
            Word::Apply(Ending::Late(Duration::from_millis(200))),
            Word::Apply(Ending::Status(503)),
            Word::Apply(Ending::Status(500)),
            Word::Refuse(503),
            Word::Refuse(500),
        ];
        let pattern = match dice.below(8) {
            0 => "*",
            1 => "d/*",
            2 => "a*",
            _ => dice.pick(&PATHS).expect("some"),
        };
        let count = if pattern == "*" { 0 } else { dice.below(3) };
        let first: Vec<Word> = (0..count).map(|_| *dice.pick(&hiccups).expect("some")).collect();
        let then =
            if count > 0 && dice.one_in(3) { Word::Accept } else { *dice.pick(&refusals).expect("some") };
        self.program.answer(pattern, &first, then);
        format!("{}: {pattern} meets {first:?} {then:?}", self.name)
    }

    /// Another filter; what it leaves out.
    pub(super) fn filter(&mut self, server: &Server, dice: &mut Dice) -> String {
        self.filter = usize::try_from(dice.below(FILTERS.len() as u64)).expect("few");
        self.app.patch(server, &self.id, &json!({ "exclude": FILTERS[self.filter] }));
        format!("{}: without {:?}", self.name, FILTERS[self.filter])
    }

    /// It is reached at its other address from now on.
    pub(super) fn move_house(&mut self, server: &Server) -> String {
        self.is_at_second_door = !self.is_at_second_door;
        let url = if self.is_at_second_door { self.subscriber.second_url() } else { self.subscriber.url() };
        let reply = self.app.ask(server, "PATCH", "/api/app", Some(&json!({ "base_url": url })));
        assert_eq!(reply.status, 200, "{}", reply.json());
        format!("{}: moves to {url}", self.name)
    }

    /// Its letters of a status.
    pub(super) fn letters(&self, server: &Server, status: &str) -> Vec<Value> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let after = next.map_or(String::new(), |next: String| format!("&cursor={next}"));
            let path = format!("/api/dead-letters?status={status}&limit=100{after}");
            let page = self.app.ask(server, "GET", &path, None).json();
            found.extend(items(&page));
            match page["next_cursor"].as_str() {
                Some(cursor) => next = Some(cursor.to_owned()),
                None => return found,
            }
        }
    }

    /// The paths of a branch that were given up: of letters that are open or wait for a redrive.
    pub(super) fn parked(&self, server: &Server, cursor: &str) -> BTreeSet<Vec<u8>> {
        // First those that wait: a letter that is reopened meanwhile is seen twice and not never.
        let waiting = self.letters(server, "redrive_requested");
        let letters = waiting.into_iter().chain(self.letters(server, "open"));
        let own = letters.filter(|letter| letter["cursor"] == cursor);
        own.map(|letter| letter["path"].as_str().expect("a path").as_bytes().to_vec()).collect()
    }
}
