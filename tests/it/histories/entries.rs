//! What an app is told of each kind of entry, word by word.

use serde_json::{Value, json};

use super::{Desk, tree_of};
use crate::support::repository::Repository;

const PLAIN: &str = "100644";
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
/// What submodules and nothing else name.
const ELSEWHERE: &[u8] = b"1111111111111111111111111111111111111111";

/// A name, settings of the watch, and commits one after another.
type Case = (&'static str, Value, Vec<fn(&Repository)>);

fn put(repository: &Repository, path: &str, mode: &str, content: &[u8]) {
    repository.commit("main", &[(path, Some((mode, content)))]);
}

/// The root of `main` from now on: entries as they are given.
fn root(repository: &Repository, entries: &[(&str, &[u8])]) {
    let blob = repository.write_object("blob", b"x");
    let entries: Vec<_> = entries.iter().map(|(mode, name)| (*mode, *name, blob)).collect();
    let tree = tree_of(repository, &entries);
    repository.commit_tree("main", tree);
}

/// One case for each kind of tree entry: file, executable, symbolic link, submodule.
fn kinds() -> Vec<Case> {
    let plain = || json!({});
    vec![
        (
            "modes",
            plain(),
            vec![|at| root(at, &[("100644", b"plain"), ("100664", b"shared"), ("100755", b"tool")]), |at| {
                root(at, &[("100755", b"plain"), ("100644", b"shared"), ("100644", b"tool")])
            }],
        ),
        (
            "symlinks_are_skipped",
            plain(),
            vec![
                |at| put(at, "link", "120000", b"target"),
                |at| put(at, "file", PLAIN, b"1"),
                |at| put(at, "link", PLAIN, b"a file now"),
                |at| put(at, "file", "120000", b"target"),
            ],
        ),
        (
            "symlinks_are_sent",
            json!({ "symlinks": "send" }),
            vec![
                |at| put(at, "link", "120000", b"target"),
                |at| put(at, "link", "120000", b"elsewhere"),
                |at| put(at, "link", PLAIN, b"elsewhere"),
            ],
        ),
        (
            "gitlinks",
            plain(),
            vec![
                |at| put(at, "module", "160000", ELSEWHERE),
                |at| put(at, "module", PLAIN, b"a file now"),
                |at| put(at, "module", "160000", ELSEWHERE),
            ],
        ),
        ("lfs_pointers", plain(), vec![|at| put(at, "large.psd", PLAIN, POINTER)]),
    ]
}

/// Cases with unusual file names.
fn names() -> Vec<Case> {
    let plain = || json!({});
    vec![
        (
            "case_collisions",
            plain(),
            vec![|at| root(at, &[(PLAIN, b"README"), (PLAIN, b"Readme"), (PLAIN, b"readme")]), |at| {
                root(at, &[(PLAIN, b"README"), (PLAIN, b"readme")])
            }],
        ),
        (
            "paths",
            plain(),
            vec![|at| {
                let long = "p".repeat(4_096);
                root(
                    at,
                    &[
                        (PLAIN, b" "),
                        (PLAIN, b"a\nb"),
                        (PLAIN, b"back\\slash"),
                        (PLAIN, b"con"),
                        (PLAIN, long.as_bytes()),
                        (PLAIN, b"q\"uote"),
                        (PLAIN, b"\xc3\xa9"),
                        (PLAIN, b"\xff\xfe"),
                    ],
                );
            }],
        ),
    ]
}

/// Contents, and files that move.
fn shapes() -> Vec<Case> {
    let plain = || json!({});
    vec![
        (
            "contents",
            plain(),
            vec![
                |at| {
                    at.commit(
                        "main",
                        &[
                            (".gitattributes", Some((PLAIN, b"* text eol=crlf\n"))),
                            ("binary", Some((PLAIN, b"\0\x01"))),
                            ("dos", Some((PLAIN, b"one\r\ntwo\n"))),
                            ("empty", Some((PLAIN, b""))),
                            ("latin", Some((PLAIN, b"caf\xe9"))),
                        ],
                    );
                },
                |at| put(at, "empty", PLAIN, b"no more"),
            ],
        ),
        (
            "folders_and_files",
            plain(),
            vec![
                |at| put(at, "turns", PLAIN, b"1"),
                |at| {
                    at.commit("main", &[("turns", None), ("turns/in/deep", Some((PLAIN, b"2")))]);
                },
                |at| {
                    at.commit("main", &[("turns/in/deep", None), ("turns", Some((PLAIN, b"3")))]);
                },
            ],
        ),
        (
            "renames",
            plain(),
            vec![
                |at| {
                    at.commit("main", &[("a/1", Some((PLAIN, b"one"))), ("a/2", Some((PLAIN, b"two")))]);
                },
                |at| {
                    at.commit(
                        "main",
                        &[
                            ("a/1", None),
                            ("a/2", None),
                            ("b/1", Some((PLAIN, b"one"))),
                            ("b/2", Some((PLAIN, b"two, but changed"))),
                        ],
                    );
                },
            ],
        ),
    ]
}

#[test]
fn every_kind_of_entry_has_its_event() {
    for (name, settings, commits) in kinds().into_iter().chain(names()).chain(shapes()) {
        let desk = Desk::new();
        commits[0](&desk.repository);
        let id = desk.watch(&settings);
        desk.hold(&id, "main");
        for commit in &commits[1..] {
            commit(&desk.repository);
            desk.hold(&id, "main");
        }
        desk.subscriber.assert_straight();
        insta::assert_snapshot!(name, desk.told(&id));
    }
}
