//! One bad ref harms nobody else: an app watches a branch that is malformed, too deep, broken at its host, or
//! names nothing, of a repository that another app watches, too. The other app notices nothing, and the bad
//! branch shows its reason until it names something else.

use std::{
    fs,
    ops::Range,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidings_entity::id::ObjectId;

use crate::{
    isolation::usual,
    support::{
        api::App,
        patience::{SOON, eventually},
        remote::Host,
        repository::Repository,
        server::Server,
        subscriber::Subscriber,
    },
};

/// Makes a commit that nobody can take; of some the host sends nothing.
struct Bad {
    what: &'static str,
    make: fn(&Repository) -> ObjectId,
    /// Whether a watch that sees everything shows a reason; else it gets what can be fetched.
    shows: bool,
}

const BAD: [Bad; 9] = [
    Bad {
        what: "a tree with .git",
        make: |repository| odd_tree(repository, &[("40000", ".git")]),
        shows: true,
    },
    Bad {
        what: "an unsorted tree",
        make: |repository| odd_tree(repository, &[("100644", "b"), ("100644", "a")]),
        shows: true,
    },
    Bad {
        what: "an impossible mode",
        make: |repository| odd_tree(repository, &[("170000", "a")]),
        shows: true,
    },
    Bad {
        what: "a file that is a tree",
        make: |repository| {
            let blob = repository.write_object("blob", b"odd");
            let inner = [b"100644 b\0".as_slice(), blob.as_bytes()].concat();
            let inner = repository.write_object("tree", &inner);
            let tree = [b"100644 a\0".as_slice(), inner.as_bytes()].concat();
            let tree = repository.write_object("tree", &tree);
            repository.commit_tree("evil", tree)
        },
        shows: false,
    },
    Bad {
        what: "a tree that is missing",
        make: |repository| without(repository, "evil^{tree}"),
        shows: true,
    },
    Bad { what: "a blob that is missing", make: |repository| without(repository, "evil:only"), shows: false },
    Bad { what: "a commit that is missing", make: |_| ObjectId::new([7; 20]), shows: true },
    Bad {
        what: "directories deeper than 256",
        make: |repository| {
            repository.commit("evil", &[(&format!("{}f", "d/".repeat(300)), Some(("100644", b"x")))])
        },
        shows: true,
    },
    Bad {
        what: "a path of more than 4,096 bytes",
        make: |repository| {
            let directory = format!("{}/", "d".repeat(200));
            repository.commit("evil", &[(&format!("{}f", directory.repeat(25)), Some(("100644", b"x")))])
        },
        shows: true,
    },
];

/// A commit of a tree of these entries, all of one content.
fn odd_tree(repository: &Repository, entries: &[(&str, &str)]) -> ObjectId {
    let blob = repository.write_object("blob", b"odd");
    let inner = repository.write_object("tree", b"");
    let mut tree = Vec::new();
    for (mode, name) in entries {
        tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        tree.extend_from_slice(if *mode == "40000" { inner.as_bytes() } else { blob.as_bytes() });
    }
    let tree = repository.write_object("tree", &tree);
    repository.commit_tree("evil", tree)
}

/// A commit that the repository has, but for an object that it needs.
fn without(repository: &Repository, object: &str) -> ObjectId {
    let commit = repository.commit("evil", &[("only", Some(("100644", b"only on the bad branch")))]);
    let lost = repository.resolve(object).to_string();
    let file = repository.path().join("objects").join(&lost[..2]).join(&lost[2..]);
    fs::remove_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    commit
}

/// Lets a branch name what git itself would not let it name.
fn point(repository: &Repository, branch: &str, commit: ObjectId) {
    fs::write(repository.path().join("refs/heads").join(branch), format!("{commit}\n")).expect("a ref");
}

fn story(over_http: bool) {
    let server = Server::start();
    let (victim_side, attacker_side) = (Subscriber::start(), Subscriber::start());
    let (victim, attacker) = (App::onboard(&server, &victim_side), App::onboard(&server, &attacker_side));
    let host = Host::start();
    let repository = host.repository("r");
    let good = |branch: &str, text: String| {
        repository.commit(branch, &[("a", Some(("100644", text.as_bytes())))]).to_string()
    };
    let first = good("main", "0".into());
    good("evil", "0".into());
    let url = if over_http { host.url("r") } else { repository.path().display().to_string() };
    let watched = victim.watch_with(&server, &json!({ "url": url }));
    let bad_watch = attacker.watch_with(&server, &json!({ "url": url, "branch": "evil" }));
    victim.wait_until_held(&server, &watched, &first);
    let deliver = |text: String| {
        let began = Instant::now();
        victim.wait_until_held(&server, &watched, &good("main", text));
        began.elapsed()
    };
    for (number, Bad { what, make, shows }) in BAD.iter().enumerate() {
        let undisturbed = deliver(format!("before {number}"));

        let bad = make(&repository);
        point(&repository, "evil", bad);
        let beside: Vec<Duration> =
            (0..3).map(|turn| deliver(format!("beside {number}, turn {turn}"))).collect();
        println!("{what}: {beside:?} beside, {undisturbed:?} alone");
        assert!(
            usual(&beside) < undisturbed * 4 + Duration::from_secs(10),
            "{what}: {beside:?}, {undisturbed:?} alone"
        );
        let shown = victim.repository(&server, &watched);
        assert_eq!(shown["last_error"], Value::Null, "{what}");
        if *shows {
            let reason = eventually(what, SOON, || {
                let shown = attacker.repository(&server, &bad_watch);
                shown["branches"][0]["reason"].as_str().map(ToOwned::to_owned)
            });
            println!("{what}: {reason}");
        }
        if number == 0 {
            let fault = eventually("the fault of the branch", SOON, || {
                let fault = attacker.repository(&server, &bad_watch)["branches"][0]["fault"].clone();
                fault.is_object().then_some(fault)
            });
            for field in ["reason", "since", "next_try_at"] {
                assert!(fault[field].is_string(), "{field} of {fault}");
            }
        }
        repository.git(["update-ref", "-d", "refs/heads/evil"]);
        let healed = good("evil", format!("healed {number}"));
        let shown = attacker.wait_until_held(&server, &bad_watch, &healed);
        assert_eq!(shown["branches"][0]["fault"], Value::Null, "{what}");
    }
    victim_side.assert_straight();
    let notices: Vec<_> = victim_side.model().notices.iter().map(|notice| notice.action.clone()).collect();
    assert!(notices.is_empty(), "the neighbour was told of {notices:?}");
}

#[test]
fn a_bad_branch_stops_no_other_app_over_http() {
    story(true);
}

#[test]
fn a_bad_branch_stops_no_other_app_at_a_path() {
    story(false);
}

#[test]
fn what_two_apps_follow_together_may_be_more_than_one_listing_says() {
    let mut server = Server::prepare().with("git.listing_max_bytes", "20000");
    server.run();
    let host = Host::start();
    let repository = host.repository("r");
    let commit = |branch: &str, text: &str| {
        repository.commit(branch, &[("a", Some(("100644", text.as_bytes())))]).to_string()
    };
    let mut last = commit("main", "0");
    // Some 680 bytes a ref: each app's refs fit, those of two do not.
    let (first, long) = (last.clone(), ["n".repeat(200).as_str(); 3].join("/"));
    let name = |space: &str, number: usize| format!("refs/{space}/{number:03}/{long}");
    let many = |space: &str, numbers: Range<usize>| {
        let refs = numbers.map(|number| format!("create {} {first}\n", name(space, number)));
        repository.git_with(["update-ref", "--stdin"], refs.collect::<String>().as_bytes());
    };
    many("heads/b", 0..25);
    many("tags/t", 0..25);
    let sides: Vec<Subscriber> = (0..3).map(|_| Subscriber::start()).collect();
    let patterns = json!({ "delivery": { "multi_branch": true } });
    let onboard = |side| App::onboard_with(&server, side, &patterns);
    let apps: Vec<App> = sides.iter().map(onboard).collect();
    let watch = |app: usize, more: Value| {
        let mut body = json!({ "url": host.url("r") });
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        apps[app].watch_with(&server, &body)
    };
    let watched = watch(0, json!({}));
    let tags = watch(1, json!({ "tags": "t/**" }));
    apps[0].wait_until_held(&server, &watched, &last);
    let wide = json!({ "url": host.url("r"), "branch": "b/**" });
    let mut third = None;
    for round in 0..3 {
        match round {
            0 => {}
            1 => third = Some(apps[2].watch_with(&server, &wide)),
            // From now on its refs alone do not fit either.
            _ => many("heads/b", 25..50),
        }
        let began = Instant::now();
        last = commit("main", &format!("round {round}"));
        apps[0].wait_until_held(&server, &watched, &last);
        let took = began.elapsed();
        println!("round {round}: main after {took:?}");
        assert!(took < SOON, "round {round}: main after {took:?}");
        let tag = commit("side", &format!("tagged {round}"));
        repository.git(["update-ref", &name("tags/t", 0), &tag]);
        eventually("the tag that moved", SOON, || {
            let shown = apps[1].repository(&server, &tags);
            let branches = shown["branches"].as_array().cloned().unwrap_or_default();
            branches.iter().any(|branch| branch["held_commit"] == tag.as_str()).then_some(())
        });
        println!("round {round}: tag after {:?}", began.elapsed());
        assert_eq!(apps[0].repository(&server, &watched)["last_error"], Value::Null, "round {round}");
    }
    // The app that follows too much is told, and nobody else is.
    let third = third.expect("it watches");
    let shown = eventually("refs that are not listed", SOON, || {
        let shown = apps[2].repository(&server, &third);
        shown["scan"]["unseen"].is_object().then_some(shown)
    });
    assert_eq!(shown["scan"]["unseen"]["refs"], json!(["refs/heads/b/"]), "{shown:#}");
    assert!(shown["scan"]["unseen"]["reason"].as_str().is_some_and(|why| why.contains("20000")), "{shown:#}");
    assert_eq!(shown["effective_state"], "source_failing", "{shown:#}");
    for (app, id) in [(0, &watched), (1, &tags)] {
        let shown = apps[app].repository(&server, id);
        assert_eq!(shown["scan"]["unseen"], Value::Null, "{shown:#}");
    }
    sides[0].assert_straight();
}
