//! A local repository whose objects are away for a while, as when the disk of its alternates is not mounted.
//! Its refs are still there, so its branches are not gone: no file is deleted and nothing is sent again. The
//! source says what it cannot read, and goes on when the disk is back.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    repository::Repository,
    server::Server,
    subscriber::Subscriber,
};

/// Failures of the source in a row: more looks than it takes to believe that a branch is gone.
const LOOKS: u64 = 3;

#[test]
fn a_disk_that_is_not_mounted_is_an_error_of_the_source_and_takes_no_file_away() {
    let folder = TempDir::new().expect("a folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    for branch in ["main", "release/1", "release/2"] {
        repository.commit(branch, &[("a", Some(("100644", branch.as_bytes())))]);
    }
    let (disk, elsewhere) = (folder.path().join("disk"), folder.path().join("elsewhere"));
    repository.keep_objects_at(&disk);
    let mut server = Server::prepare().with("git.branch_gone_after", "100ms");
    server.run();
    let subscriber = Subscriber::start();
    subscriber.model().by_branch = true;
    let delivery = json!({ "delivery": { "multi_branch": true, "resync": true, "synced": true } });
    let app = App::onboard_with(&server, &subscriber, &delivery);
    let id = app.watch_with(&server, &json!({ "url": repository.path(), "branch": "release/*" }));
    let applied = |count: usize| {
        subscriber.wait_for("changes", |model| (model.applied.len() == count).then_some(()));
    };
    applied(2);
    let scan = || app.repository(&server, &id)["scan"].clone();
    // A look that changed nothing: from then on an unchanged listing costs no further look.
    let calm = eventually("a calm look", SOON, || {
        let scan = scan();
        (scan["outcome"] == "ok" && scan["bytes"] == 0).then_some(scan)
    });
    eventually("another one", SOON, || (scan()["last_at"] != calm["last_at"]).then_some(()));

    fs::rename(&disk, &elsewhere).expect("unmounted");
    let shown = eventually("the error of the source", SOON, || {
        let shown = app.repository(&server, &id);
        let is_long = shown["scan"]["failures"].as_u64().is_some_and(|failures| failures >= LOOKS);
        (is_long && shown["effective_state"] == "source_failing").then_some(shown)
    });
    let reason = shown["last_error"].as_str().expect("a reason");
    assert!(reason.contains("neither in the mirror nor at the Git host"), "{reason}");
    fs::rename(&elsewhere, &disk).expect("mounted");
    eventually("the end of the error", 2 * SOON, || {
        app.repository(&server, &id)["last_error"].is_null().then_some(())
    });
    repository.commit("release/2", &[("b", Some(("100644", b"2")))]);
    applied(3);
    subscriber.assert_straight();
    let model = subscriber.model();
    let resyncs: Vec<&Value> =
        model.notices.iter().filter(|notice| notice.action == "resync").map(|notice| &notice.body).collect();
    assert!(resyncs.is_empty(), "{resyncs:?}");
    assert!(model.applied.iter().all(|change| change.action == "create"), "{:?}", model.applied);
}
