//! The held commit is lost at the host, in the mirror, or both: what is obtainable is used, and what
//! is neither in the mirror nor at the Git host is said.

use serde_json::{Value, json};

use crate::support::{api::App, project::Project, remote::Host, server::Server, subscriber::Subscriber};

/// What is lost while the server is down and the history is rewritten.
struct Loss {
    mirror: bool,
    host: bool,
    /// Whether the app wants to hear of resyncs.
    hears: bool,
}

/// What came after the loss, and the branch as it is shown then.
struct Aftermath {
    applied: Vec<(String, String)>,
    resyncs: Vec<Value>,
    branch: Value,
}

fn suffer(loss: &Loss) -> Aftermath {
    let host = Host::start();
    let project = Project::with(&[("edited", "1"), ("ghost", "1"), ("kept", "1")]);
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let delivery = json!({ "delivery": { "resync": loss.hears, "synced": loss.hears } });
    let app = App::onboard_with(&server, &subscriber, &delivery);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());
    let before = subscriber.applied().len();

    server.kill();
    subscriber.model().note_kill();
    project.git(["checkout", "--quiet", "--orphan", "fresh"]);
    project.remove("ghost");
    project.write("edited", b"2");
    let second = project.commit("unrelated");
    project.git(["branch", "--force", "main", "fresh"]);
    project.git(["checkout", "--quiet", "--force", "main"]);
    project.git(["branch", "-D", "fresh"]);
    host.publish(&project, "o/r");
    if loss.host {
        host.forget_unreachable("o/r");
    }
    if loss.mirror {
        server.lose(&server.data().join("mirrors"));
    }
    server.run();
    let shown = app.wait_until_held(&server, &id, &second);
    subscriber.assert_faultless();
    let notices = subscriber.model().notices.clone();
    let resyncs = notices.into_iter().filter(|notice| notice.action == "resync");
    Aftermath {
        applied: subscriber.applied()[before..].to_vec(),
        resyncs: resyncs.map(|notice| notice.body).collect(),
        branch: shown["branches"][0].clone(),
    }
}

fn changes(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    changes.iter().map(|(action, path)| ((*action).to_owned(), (*path).to_owned())).collect()
}

#[test]
fn what_the_mirror_or_the_host_still_has_leads_to_the_true_changes() {
    for (mirror, host) in [(false, true), (true, false)] {
        let aftermath = suffer(&Loss { mirror, host, hears: true });
        assert_eq!(aftermath.applied, changes(&[("delete", "ghost"), ("update", "edited")]));
        assert!(aftermath.resyncs.is_empty());
        assert_eq!(aftermath.branch["deletes_unknown"], json!(null));
    }
}

#[test]
fn what_is_obtainable_nowhere_is_announced_and_no_delete_is_invented() {
    let aftermath = suffer(&Loss { mirror: true, host: true, hears: true });
    assert_eq!(aftermath.applied, changes(&[("create", "edited"), ("create", "kept")]));
    assert_eq!(aftermath.resyncs.len(), 1);
    assert_eq!(aftermath.resyncs[0]["event"]["complete"], true);
    assert_eq!(aftermath.branch["deletes_unknown"], json!(null), "the app was told to drop the rest");
}

#[test]
fn an_app_that_hears_of_no_resync_may_keep_ghosts_and_its_branch_says_so() {
    let aftermath = suffer(&Loss { mirror: true, host: true, hears: false });
    assert_eq!(aftermath.applied, changes(&[("create", "edited"), ("create", "kept")]));
    assert!(aftermath.resyncs.is_empty());
    assert_eq!(aftermath.branch["deletes_unknown"], true);
}
