//! Patterns of branches and tags: each matching ref has a cursor and a mirror of its own, whatever
//! comes, moves, vanishes and returns, and whenever the server is killed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{
    api::App,
    dice::Dice,
    git_host::Fault,
    length,
    patience::{SOON, eventually},
    project::{Project, Tree},
    remote::Host,
    repository::git_command,
    server::Server,
    subscriber::Subscriber,
};

/// Things that happen to refs, unless `TIDINGS_STORY_STEPS` says otherwise.
const STEPS: u64 = 40;
const BRANCHES: [&str; 4] = ["release/1", "release/2", "release/3", "other"];
const TAGS: [&str; 3] = ["v1", "v2", "x1"];

/// A project at a host, a server that soon believes that a branch is gone, and an app that watches
/// `release/*` and `v*`, each ref apart.
struct Desk {
    host: Host,
    project: Project,
    subscriber: Subscriber,
    server: Server,
    app: App,
    branches: String,
    tags: String,
}

impl Desk {
    fn new() -> Self {
        let host = Host::start();
        let project = Project::with(&[("a", "1"), ("b", "1")]);
        host.publish(&project, "o/r");
        let subscriber = Subscriber::start();
        subscriber.model().by_branch = true;
        let mut server = Server::prepare().with("git.branch_gone_after", "300ms");
        server.run();
        let multi = json!({ "delivery": { "multi_branch": true } });
        let app = App::onboard_with(&server, &subscriber, &multi);
        let watch = |more: Value| {
            let mut body = more;
            body["url"] = json!(host.url("o/r"));
            app.watch_with(&server, &body)
        };
        let (branches, tags) = (watch(json!({ "branch": "release/*" })), watch(json!({ "tags": "v*" })));
        Self { host, project, subscriber, server, app, branches, tags }
    }

    fn publish(&self) {
        self.host.publish(&self.project, "o/r");
    }

    fn refs(&self, space: &str) -> BTreeSet<String> {
        let format = format!("refs/{space}");
        let listed = self.project.git(["for-each-ref", "--format=%(refname:lstrip=2)", &format]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Waits until each ref's mirror is its tree, and those of what is gone are empty.
    fn wait_for_mirrors(&self) {
        for (id, space, names) in [(&self.branches, "heads", &BRANCHES[..]), (&self.tags, "tags", &TAGS[..])]
        {
            let there = self.refs(space);
            for name in names {
                let is_followed = name.starts_with("release/") || name.starts_with('v');
                let expected = if is_followed && there.contains(*name) {
                    self.project.tree(&format!("refs/{space}/{name}"))
                } else {
                    Tree::new()
                };
                self.subscriber.wait_for_tree(&format!("{id} {name}"), &expected);
            }
        }
    }

    /// A commit on a branch, which need not exist.
    fn commit(&self, branch: &str, path: &str, content: &[u8]) {
        let exists = self.refs("heads").contains(branch);
        let from = if exists { branch } else { "main" };
        self.project.git(["checkout", "--quiet", "--force", "--detach", from]);
        self.project.write(path, content);
        self.project.commit("a change");
        self.project.git(["branch", "--force", branch, "HEAD"]);
        self.project.git(["checkout", "--quiet", "--force", "main"]);
    }

    fn step(&self, dice: &mut Dice) {
        let branch = *dice.pick(&BRANCHES).expect("some");
        let tag = *dice.pick(&TAGS).expect("some");
        let known = self.refs("heads").contains(branch);
        match dice.below(10) {
            0..=3 => self.commit(branch, &format!("f{}", dice.below(4)), &dice.bytes(20)),
            4..=5 if known => {
                self.project.git(["branch", "-D", branch]);
            }
            6 if known => {
                self.project.git(["branch", "--force", branch, "main"]);
            }
            7 if self.refs("tags").contains(tag) => {
                self.project.git(["tag", "--delete", tag]);
            }
            _ => {
                let target = if known { branch } else { "main" };
                self.project.git(["tag", "--annotate", "--force", "--message", "a tag", tag, target]);
            }
        }
    }
}

#[test]
fn refs_that_come_move_vanish_and_return_are_mirrored_each_over_kills() {
    let mut dice = Dice::thrown("patterns");
    let mut desk = Desk::new();
    for number in 0..length("TIDINGS_STORY_STEPS", STEPS, STEPS / 2) {
        desk.step(&mut dice);
        desk.publish();
        if number % 4 == 3 {
            desk.server.kill();
            desk.subscriber.model().note_kill();
            desk.server.run();
        }
        if number % 10 == 9 {
            desk.wait_for_mirrors();
        }
    }
    desk.wait_for_mirrors();
    desk.subscriber.assert_straight();
}

#[test]
fn a_vanished_branch_is_a_round_to_nothing_and_a_moved_tag_is_a_round() {
    let desk = Desk::new();
    desk.commit("release/1", "a", b"2");
    desk.project.git(["tag", "--annotate", "--message", "first", "v1", "main"]);
    desk.publish();
    desk.wait_for_mirrors();
    let shown = desk.app.repository(&desk.server, &desk.tags);
    assert_eq!(shown["branches"][0]["head_commit"], desk.project.head().as_str(), "the tag is peeled");
    let before = desk.subscriber.model().applied.len();

    desk.project.git(["branch", "-D", "release/1"]);
    desk.project.write("a", b"3");
    desk.project.commit("moved");
    desk.project.git(["tag", "--annotate", "--force", "--message", "again", "v1", "main"]);
    desk.publish();
    desk.wait_for_mirrors();
    let applied = desk.subscriber.model().applied[before..].to_vec();
    let of = |id: &str| -> Vec<(String, String, Value)> {
        let own = applied.iter().filter(|change| change.repository == id);
        own.map(|change| {
            let path = String::from_utf8_lossy(&change.path).into_owned();
            (change.action.clone(), path, change.body["commit_sha"].clone())
        })
        .collect()
    };
    let nothing = json!("0".repeat(40));
    let gone = |path: &str| ("delete".to_owned(), path.to_owned(), nothing.clone());
    assert_eq!(of(&desk.branches), [gone("a"), gone("b")]);
    assert_eq!(of(&desk.tags), [("update".to_owned(), "a".to_owned(), json!(desk.project.head()))]);
    // Its row stays.
    desk.app.wait_for_state(&desk.server, &desk.branches, "branch_missing");
    desk.subscriber.assert_straight();
}

#[test]
fn an_empty_or_a_failed_answer_takes_no_file_away() {
    let desk = Desk::new();
    desk.commit("release/1", "a", b"2");
    desk.publish();
    desk.wait_for_mirrors();
    let before = desk.subscriber.model().applied.len();
    // More polls than it takes to believe that a branch is gone.
    let polls = |count: usize| {
        let from = desk.host.requests();
        eventually("several polls", SOON, || (desk.host.requests() >= from + count).then_some(()));
    };
    let path = desk.host.path("o/r");
    for name in desk.refs("heads") {
        let status = git_command(&path).args(["update-ref", "-d", &format!("refs/heads/{name}")]).status();
        assert!(status.expect("git runs").success());
    }
    polls(12);
    desk.host.misbehave(Some(Fault::Status(503, None)));
    desk.publish();
    polls(4);
    desk.host.misbehave(None);
    desk.commit("release/1", "c", b"1");
    desk.publish();
    // The breaker of the host, which is open by now, lets a scan through that is asked for.
    for id in [&desk.branches, &desk.tags] {
        desk.app.tell(&desk.server, id, "scan");
    }
    desk.wait_for_mirrors();
    let applied = desk.subscriber.model().applied[before..].to_vec();
    let told: Vec<_> =
        applied.iter().map(|change| (change.action.as_str(), change.path.as_slice())).collect();
    assert_eq!(told, [("create", &b"c"[..])]);
    desk.subscriber.assert_straight();
}

#[test]
fn a_tag_that_names_no_commit_is_a_state_with_a_reason() {
    let desk = Desk::new();
    for (tag, object) in [("v-tree", "main^{tree}"), ("v-blob", "main:a"), ("v-odd", "main:b")] {
        desk.project.git(["tag", "--annotate", "--message", "odd", tag, object]);
    }
    desk.publish();
    let blocked = |count: usize| {
        eventually("blocked branches", SOON, || {
            let shown = desk.app.repository(&desk.server, &desk.tags);
            let branches = shown["branches"].as_array().expect("a list");
            (branches.iter().filter(|branch| branch["state"] == "blocked").count() == count)
                .then(|| branches.clone())
        })
    };
    for branch in blocked(3) {
        let reason = branch["reason"].as_str().expect("a reason");
        assert!(reason.ends_with("is no commit"), "{reason}");
    }
    desk.project.git(["tag", "--force", "v-blob", "main"]);
    desk.publish();
    desk.subscriber.wait_for_tree(&format!("{} v-blob", desk.tags), &desk.project.tree("main"));
    blocked(2);
    desk.subscriber.assert_straight();
}
