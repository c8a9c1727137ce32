//! A receiver that knows nothing but the wire ends with the tree that git itself tells, after every
//! round, over smart HTTP, whatever people do to a repository.

use serde_json::json;

use crate::support::{
    api::App, churn::Churn, dice::Dice, length, project::Project, remote::Host, server::Server,
    subscriber::Subscriber,
};

/// Commits at random, beside those of the table, unless `TIDINGS_STORY_COMMITS` says otherwise.
const COMMITS: u64 = 280;

/// What is odd, each a commit.
type Oddity = (&'static str, fn(&Project));

const ODDITIES: &[Oddity] = &[
    ("a file becomes a folder", |project| {
        project.write("turns", b"file");
        project.commit("a file");
        project.remove("turns");
        project.write("turns/inside/deep", b"folder");
    }),
    ("a folder becomes a file", |project| {
        project.remove("turns");
        project.write("turns", b"file again");
    }),
    ("a folder moves", |project| {
        for number in 0..20 {
            project.write(format!("here/sub/{number}"), format!("content {number}").as_bytes());
        }
        project.commit("a folder");
        project.git(["mv", "here", "there"]);
    }),
    ("only the mode changes", |project| project.set_executable("there/sub/3", true)),
    ("an empty file comes", |project| project.write("nothing.txt", b"")),
    ("an empty file is filled", |project| project.write("nothing.txt", b"something")),
    ("text becomes binary", |project| project.write("nothing.txt", &[0, 1, 2, 255])),
    ("a binary of 3 MiB comes", |project| project.write("large.bin", &Dice::of(7).bytes(3 << 20))),
    ("and changes", |project| project.write("large.bin", &Dice::of(8).bytes(3 << 20))),
    ("and goes", |project| project.remove("large.bin")),
    ("names that are not ASCII", |project| {
        project.write("grüße/日本語 file.md", "ß".as_bytes());
        project.write("emoji-🎉", b"x");
    }),
    ("names that are not UTF-8", |project| {
        project.write_raw(b"latin-\xe9\xff.txt", b"x");
        project.write_raw(b"\xff\xfe", b"y");
    }),
    ("names with all that JSON escapes", |project| {
        project.write_raw(b"quote\" back\\slash tab\t newline\n bell\x07 del\x7f", b"x");
    }),
    ("names that sort oddly", |project| {
        for name in ["a", "a.b", "a-b/c", "a0", "A", "a b"] {
            project.write(format!("sort/{name}"), name.as_bytes());
        }
        project.commit("some");
        project.remove("sort/a");
        project.write("sort/a/b", b"folder between them");
    }),
    ("a symlink and a submodule are nobody's business", |project| {
        std::os::unix::fs::symlink("nothing.txt", project.path().join("link")).expect("a link");
        let commit = project.head();
        project.git(["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
        project.git(["add", "link"]);
        project.git(["commit", "--quiet", "--message", "odd entries"]);
    }),
    ("a symlink becomes a file", |project| {
        project.remove("link");
        project.write("link", b"a file now");
    }),
    ("latin text and text with carriage returns", |project| {
        project.write("latin.txt", b"caf\xe9\r\n");
        project.write("dos.txt", b"one\r\ntwo\r\n");
        project.write(".gitattributes", b"*.txt text eol=crlf\n");
    }),
    ("a merge of an old branch", |project| {
        project.git(["checkout", "--quiet", "-b", "side", "HEAD~5"]);
        project.write("from-the-side", b"x");
        project.git(["add", "from-the-side"]);
        project.git(["commit", "--quiet", "--message", "side"]);
        project.git(["checkout", "--quiet", "--force", "main"]);
        project.git(["merge", "--quiet", "--no-edit", "side"]);
    }),
    ("a force push to an older commit", |project| {
        project.git(["reset", "--quiet", "--hard", "HEAD~4"]);
        project.write("another-history", b"x");
    }),
    ("a force push to an unrelated history", |project| {
        project.git(["checkout", "--quiet", "--orphan", "fresh"]);
        project.git(["rm", "-r", "--quiet", "--cached", "--force", "."]);
        project.remove("sort");
        project.write("fresh-start", b"x");
        project.commit("unrelated");
        project.git(["branch", "--force", "main", "fresh"]);
        project.git(["checkout", "--quiet", "--force", "main"]);
        project.git(["branch", "-D", "fresh"]);
    }),
];

#[test]
fn a_mirror_made_from_the_wire_is_the_tree_after_every_round() {
    let mut dice = Dice::thrown("same tree");
    let host = Host::start();
    let project = Project::new();
    let mut churn = Churn::begin(&project, 120);
    host.publish(&project, "team/project");
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("team/project") }));
    subscriber.wait_for_tree(&id, &project.tree("HEAD"));

    for number in 0..length("TIDINGS_STORY_COMMITS", COMMITS, COMMITS / 2) {
        churn.commit(&project, &mut dice);
        host.publish(&project, "team/project");
        if number % 40 == 39 {
            subscriber.wait_for_tree(&id, &project.tree("HEAD"));
        }
    }
    for (what, happens) in ODDITIES {
        println!("{what}");
        happens(&project);
        project.commit(what);
        host.publish(&project, "team/project");
        subscriber.wait_for_tree(&id, &project.tree("HEAD"));
    }

    app.wait_until_held(&server, &id, &project.head());
    subscriber.assert_straight();
    let model = subscriber.model();
    for round in &model.finished {
        // Commits that a force push left behind are still in the work repository.
        assert!(
            round.tree == project.tree(&round.commit),
            "the mirror after {} is another tree",
            round.commit
        );
    }
    println!("{} rounds, {} changes", model.finished.len(), model.applied.len());
    assert!(model.finished.len() > ODDITIES.len());
}

#[test]
fn a_branch_that_is_deleted_keeps_its_files_and_comes_back() {
    let host = Host::start();
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    project.git(["branch", "release"]);
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let mut server = Server::prepare().with("git.branch_gone_after", "300ms");
    server.run();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "release" }));
    let first = project.head();
    app.wait_until_held(&server, &id, &first);

    project.git(["branch", "-D", "release"]);
    host.publish(&project, "o/r");
    let shown = app.wait_for_state(&server, &id, "branch_missing");
    assert_eq!(shown["branches"][0]["held_commit"], first.as_str());
    assert_eq!(subscriber.mirror(&id), project.tree(&first), "the files stay");

    project.remove("a");
    project.write("c", b"2");
    let second = project.commit("again");
    project.git(["branch", "release"]);
    host.publish(&project, "o/r");
    subscriber.wait_for_tree(&id, &project.tree(&second));
    app.wait_until_held(&server, &id, &second);
    subscriber.assert_straight();
    assert_eq!(subscriber.applied().len(), 4, "two creates at first, then one delete and one create");
}

#[test]
fn a_renamed_default_branch_is_followed_without_sending_anything_again() {
    let host = Host::start();
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());

    project.git(["branch", "--move", "main", "trunk"]);
    host.publish(&project, "o/r");
    project.write("c", b"2");
    let second = project.commit("on trunk");
    host.publish(&project, "o/r");

    subscriber.wait_for_tree(&id, &project.tree(&second));
    let shown = app.wait_until_held(&server, &id, &second);
    assert_eq!(shown["branches"][0]["branch"], "refs/heads/trunk");
    subscriber.assert_straight();
    assert_eq!(subscriber.applied().len(), 3);
}

#[test]
fn a_lost_mirror_loses_and_invents_nothing() {
    let host = Host::start();
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());

    server.kill();
    subscriber.model().note_kill();
    server.lose(&server.data().join("mirrors"));
    server.run();
    project.remove("a");
    project.write("b", b"2");
    let second = project.commit("second");
    host.publish(&project, "o/r");

    subscriber.wait_for_tree(&id, &project.tree(&second));
    app.wait_until_held(&server, &id, &second);
    subscriber.assert_straight();
    assert_eq!(subscriber.applied().len(), 5, "three creates, then one delete and one update");
}

#[test]
fn a_merge_of_an_old_branch_and_a_force_push_fetch_little() {
    let host = Host::start();
    let project = Project::new();
    let mut dice = Dice::of(1);
    for number in 0..60 {
        project.write(format!("f{number}"), &dice.bytes(20_000));
    }
    project.commit("first");
    project.git(["branch", "old"]);
    for number in 0..60 {
        project.write(format!("f{number}"), &dice.bytes(20_000));
        project.commit("history");
    }
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());

    host.take_answered();
    project.git(["checkout", "--quiet", "old"]);
    project.write("merged", &dice.bytes(50_000));
    project.commit("on the old branch");
    project.git(["checkout", "--quiet", "main"]);
    project.git(["merge", "--quiet", "--no-edit", "old"]);
    host.publish(&project, "o/r");
    app.wait_until_held(&server, &id, &project.head());
    let merge = host.take_answered();
    assert!(merge < 2 * 50_000 + 20_000, "the merge of 50 kB fetched {merge} bytes");

    project.git(["reset", "--quiet", "--hard", "HEAD~1"]);
    project.write("forced", &dice.bytes(50_000));
    project.commit("rewritten");
    host.publish(&project, "o/r");
    app.wait_until_held(&server, &id, &project.head());
    let forced = host.take_answered();
    assert!(forced < 2 * 50_000 + 20_000, "the force push of 50 kB fetched {forced} bytes");
    subscriber.wait_for_tree(&id, &project.tree("HEAD"));
    subscriber.assert_straight();
}
