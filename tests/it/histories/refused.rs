//! What cannot be watched, or not now: a state or a refusal that says why, and no event.

use serde_json::json;

use super::{Desk, tree_of};
use crate::support::repository::Repository;

#[test]
fn an_empty_repository_is_a_state_and_its_first_commit_is_all_creates() {
    let desk = Desk::new();
    let id = desk.watch(&json!({}));
    let shown = desk.app.wait_for_state(&desk.server, &id, "empty");
    assert_eq!(shown["last_error"], json!(null));
    desk.repository.commit("main", &[("a", Some(("100644", b"1"))), ("b", Some(("100644", b"2")))]);
    desk.hold(&id, "main");
    insta::assert_snapshot!("first_commit_of_an_empty_repository", desk.told(&id));
}

#[test]
fn an_unborn_branch_beside_others_is_missing_until_its_first_commit() {
    let desk = Desk::new();
    desk.repository.commit("side", &[("x", Some(("100644", b"1")))]);
    let id = desk.watch(&json!({}));
    let shown = desk.app.wait_for_state(&desk.server, &id, "branch_missing");
    assert_eq!(shown["branches"][0]["branch"], "refs/heads/main");
    desk.repository.commit("main", &[("a", Some(("100644", b"1")))]);
    desk.hold(&id, "main");
    insta::assert_snapshot!("first_commit_of_an_unborn_branch", desk.told(&id));
}

#[test]
fn a_repository_with_sha256_ids_is_refused_at_its_registration() {
    let desk = Desk::new();
    let path = desk.folder.path().join("sha256.git");
    std::fs::create_dir(&path).expect("a folder");
    desk.repository.git([
        "init",
        "--quiet",
        "--bare",
        "--object-format=sha256",
        path.to_str().expect("plain"),
    ]);
    let body = json!({ "url": format!("file://{}", path.display()) });
    let reply = desk.app.ask(&desk.server, "POST", "/api/repositories", Some(&body));
    let mut problem = reply.json();
    problem.as_object_mut().expect("an object").remove("request_id");
    insta::assert_json_snapshot!("sha256", problem);
}

/// Names and kinds of entries that no honest tool puts into one tree.
type Hostile = (&'static str, Vec<(&'static str, &'static [u8])>);

fn hostile() -> Vec<Hostile> {
    let file = |name: &'static [u8]| ("100644", name);
    vec![
        ("parent", vec![file(b"..")]),
        ("itself", vec![file(b".")]),
        ("dot git", vec![file(b".git")]),
        ("dot git of NTFS", vec![file(b"GIT~1")]),
        ("slash", vec![file(b"a/b")]),
        ("empty name", vec![file(b"")]),
        ("twice", vec![file(b"a"), file(b"a")]),
        ("a file and a folder", vec![file(b"a"), ("40000", b"a")]),
        ("unsorted", vec![file(b"b"), file(b"a")]),
        ("impossible mode", vec![("170000", b"a")]),
    ]
}

fn commit(repository: &Repository, entries: &[(&str, &[u8])]) {
    let blob = repository.write_object("blob", b"x");
    let folder = tree_of(repository, &[("100644", b"inside", blob)]);
    let of = |mode: &str| if mode == "40000" { folder } else { blob };
    let entries: Vec<_> = entries.iter().map(|(mode, name)| (*mode, *name, of(mode))).collect();
    let tree = tree_of(repository, &entries);
    repository.commit_tree("main", tree);
}

#[test]
fn a_hostile_tree_is_reported_and_changes_nothing_until_a_good_one_comes() {
    let desk = Desk::new();
    commit(&desk.repository, &[("100644", b"good")]);
    let id = desk.watch(&json!({}));
    desk.hold(&id, "main");
    let held = desk.repository.resolve("refs/heads/main").to_string();
    let mut reports = Vec::new();
    for (what, entries) in hostile() {
        commit(&desk.repository, &entries);
        reports.push(format!("{what}: {}", desk.failure(&id)));
        let shown = desk.app.repository(&desk.server, &id);
        assert_eq!(shown["branches"][0]["held_commit"], held.as_str(), "{what}");
        commit(&desk.repository, &[("100644", b"good")]);
        crate::support::patience::eventually("good scan", crate::support::patience::SOON, || {
            desk.app.repository(&desk.server, &id)["last_error"].is_null().then_some(())
        });
    }
    assert_eq!(desk.subscriber.applied().len(), 1, "nothing but the first create");
    insta::assert_snapshot!("hostile_trees", reports.join("\n"));
}
