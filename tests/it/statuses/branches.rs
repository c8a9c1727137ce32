//! Several branches of one watch at one commit: the host is shown the worst of them.

use std::collections::BTreeMap;

use super::*;

#[test]
fn of_several_branches_at_one_commit_the_worst_is_shown_until_it_is_no_more() {
    let mut server = prepared();
    server.run();
    let (forge, subscriber) = (Forge::start(StatusHost::Gitea), Subscriber::start());
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    for branch in ["second", "third"] {
        project.git(["branch", branch]);
    }
    forge.publish(&project);
    let gate = std::sync::Arc::new(crate::support::subscriber::Gate::default());
    let (at, mut cursors) = (gate.clone(), BTreeMap::new());
    // The first branch loses one change, the second one waits, the third one takes everything.
    subscriber.script(move |arrival| {
        let Arrival::Change(change) = arrival else { return Answer::Accept };
        let number = cursors.len();
        match cursors.entry(change.cursor.clone()).or_insert(number) {
            0 if change.path == b"b" => Answer::Refuse(400),
            1 => Answer::Wait(at.clone()),
            _ => Answer::Accept,
        }
    });
    let app = App::onboard_with(&server, &subscriber, &json!({ "app_name": "docs" }));
    let delivery = json!({ "delivery": { "multi_branch": true } });
    assert_eq!(app.ask(&server, "PATCH", "/api/app", Some(&delivery)).status, 200);
    let body = json!({ "url": forge.url(), "token": TOKEN, "branch": "*", "status": "gitea" });
    let watch = app.watch_with(&server, &body);
    let head = project.head();
    let line = forge.wait_for(&head, "failure");
    assert_eq!(line, "docs: 1 of 2 delivered, 1 parked");
    eventually("one branch waits, the others are done", SOON, || {
        let shown = app.repository(&server, &watch);
        let branches = shown["branches"].as_array()?;
        let held = branches.iter().filter(|branch| branch["held_commit"] == head.as_str()).count();
        (branches.len() == 3 && held == 2 && gate.arrived() > 0).then_some(())
    });
    assert_eq!(forge.wait_for(&head, "failure"), line, "a success beside it does not hide it");

    // Dismissed, it is a failure no more; the branch that waits is worse than the one that is done.
    let letters = app.dead_letters(&server);
    let path = format!("/api/dead-letters/{}/dismiss", letters[0]["dead_letter_id"].as_str().expect("an id"));
    let reply = app.ask(&server, "POST", &path, None);
    assert!(reply.status < 300, "{}", reply.json());
    forge.wait_for(&head, "pending");
    gate.open();
    forge.wait_for(&head, "success");
    forge.assert_straight();
}

/// Refuses the changes of these paths for good.
fn refuse(scene: &Scene, paths: &'static [&'static [u8]]) {
    scene.subscriber.script(move |arrival| match arrival {
        Arrival::Change(change) if paths.contains(&&change.path[..]) => Answer::Refuse(400),
        _ => Answer::Accept,
    });
}

fn ask_for(scene: &Scene, verb: &str, filter: &str) {
    let path = format!("/api/dead-letters/{verb}");
    let reply = scene.app.ask(&scene.server, "POST", &path, Some(&json!({ "q": filter })));
    assert!(reply.status < 300, "{}", reply.json());
}

#[test]
fn a_change_that_is_parked_is_missing_at_later_commits_as_well_until_its_letter_is_closed() {
    let scene = Scene::start(StatusHost::Gitlab);
    scene.forge.wait_for(&scene.project.head(), "success");
    refuse(&scene, &[b"file-1"]);
    let first = scene.push(3);
    assert_eq!(scene.forge.wait_for(&first, "failed"), "docs: 2 of 3 delivered, 1 parked");
    // A commit that leaves the file alone does not bring it: the app lacks the file at this commit as well.
    scene.project.write("another", b"1");
    let second = scene.project.commit("another");
    scene.forge.publish(&scene.project);
    assert_eq!(scene.forge.wait_for(&second, "failed"), "docs: 1 of 1 delivered, 1 parked earlier");
    let third = scene.push(0);
    assert_eq!(scene.forge.wait_for(&third, "failed"), "docs: nothing to deliver, 1 parked earlier");
    ask_for(&scene, "dismiss", "path:file-1");
    assert_eq!(scene.forge.wait_for(&third, "success"), "docs: nothing to deliver");
    scene.end();
}

#[test]
fn what_was_dismissed_is_no_failure_and_nobody_says_that_it_was_delivered() {
    let scene = Scene::start(StatusHost::Gitea);
    scene.forge.wait_for(&scene.project.head(), "success");
    refuse(&scene, &[b"file-1", b"file-2"]);
    let first = scene.push(3);
    assert_eq!(scene.forge.wait_for(&first, "failure"), "docs: 1 of 3 delivered, 2 parked");
    scene.subscriber.accept_all();
    ask_for(&scene, "dismiss", "path:file-1");
    ask_for(&scene, "redrive", "path:file-2");
    assert_eq!(scene.forge.wait_for(&first, "success"), "docs: 2 of 3 delivered, 1 dismissed");
    refuse(&scene, &[b"file-0", b"file-1"]);
    let second = scene.push(3);
    assert_eq!(scene.forge.wait_for(&second, "failure"), "docs: 1 of 3 delivered, 2 parked");
    ask_for(&scene, "dismiss", "path:file-*");
    assert_eq!(scene.forge.wait_for(&second, "success"), "docs: 1 of 3 delivered, 2 dismissed");
    scene.end();
}
