//! Histories that were rewritten: the difference of the trees and nothing else.

use serde_json::json;

use super::Desk;
use crate::support::repository::{File, Repository};

const PLAIN: &str = "100644";

/// Puts an unrelated history of these commits in the place of `main`.
fn rewrite(repository: &Repository, commits: &[&[File<'_>]]) {
    for (number, files) in commits.iter().enumerate() {
        let before = ["refs/heads/fresh"];
        let parents: &[&str] = if number == 0 { &[] } else { &before };
        repository.commit_on("fresh", parents, files);
    }
    repository.git(["update-ref", "refs/heads/main", "refs/heads/fresh"]);
    repository.git(["update-ref", "-d", "refs/heads/fresh"]);
}

#[test]
fn a_force_push_to_an_unrelated_history_sends_only_what_differs() {
    for (name, settings) in
        [("force_push", json!({})), ("force_push_in_every_mode", json!({ "mode": "every" }))]
    {
        let desk = Desk::new();
        let kept = ("kept", Some((PLAIN, &b"the same"[..])));
        let old: [File<'_>; 3] = [kept, ("edited", Some((PLAIN, b"1"))), ("gone", Some((PLAIN, b"1")))];
        desk.repository.commit("main", &old);
        let id = desk.watch(&settings);
        desk.hold(&id, "main");
        let edited = ("edited", Some((PLAIN, &b"2"[..])));
        rewrite(&desk.repository, &[&[kept, edited], &[("new", Some((PLAIN, b"1")))]]);
        desk.hold(&id, "main");
        desk.subscriber.assert_straight();
        insta::assert_snapshot!(name, desk.told(&id));
    }
}

#[test]
fn more_commits_than_are_walked_are_one_round_that_says_so() {
    let desk = Desk::new();
    desk.repository.commit("main", &[("a", Some((PLAIN, b"0")))]);
    let id = desk.watch(&json!({ "mode": "every" }));
    desk.hold(&id, "main");
    for count in [3, 4] {
        desk.repository.commits("main", count, |number| {
            vec![(b"a".to_vec(), Some((PLAIN, format!("{number} of {count}").into_bytes())))]
        });
        desk.hold(&id, "main");
    }
    // Only first parents are steps: what a merge brings is one of them.
    desk.repository.commit_on("side", &["refs/heads/main"], &[("b", Some((PLAIN, b"1")))]);
    desk.repository.commit("side", &[("c", Some((PLAIN, b"1")))]);
    let merged: [File<'_>; 2] = [("b", Some((PLAIN, b"1"))), ("c", Some((PLAIN, b"1")))];
    desk.repository.commit_on("main", &["refs/heads/main", "refs/heads/side"], &merged);
    desk.hold(&id, "main");
    desk.subscriber.assert_straight();
    insta::assert_snapshot!("every_commit", desk.told(&id));
}

#[test]
fn a_renamed_default_branch_with_an_equal_tree_is_no_event() {
    let desk = Desk::new();
    desk.repository.commit("main", &[("a", Some((PLAIN, b"1")))]);
    let id = desk.watch(&json!({}));
    desk.hold(&id, "main");
    // Another commit of the same files: not even the ids need to agree.
    desk.repository.commit_on("trunk", &[], &[("a", Some((PLAIN, b"1")))]);
    desk.repository.git(["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    desk.repository.git(["update-ref", "-d", "refs/heads/main"]);
    desk.hold(&id, "trunk");
    assert_eq!(desk.subscriber.applied().len(), 1);
    desk.repository.commit("trunk", &[("a", Some((PLAIN, b"2")))]);
    desk.hold(&id, "trunk");
    insta::assert_snapshot!("renamed_default_branch", desk.told(&id));
}
