//! Paths in the folder of a mirror: hostile ones, links, directories in the way, and bytes.

use super::*;

#[test]
fn hostile_paths_are_refused_for_good() {
    let outside = tempfile::tempdir().expect("a folder");
    let mut world = World::new();
    symlink(outside.path(), world.path("link")).expect("a link");
    fs::write(outside.path().join("victim"), "safe").expect("written");
    for path in [
        "/etc/passwd",
        "../escape",
        "a/../../escape",
        "a//b",
        "a/",
        "",
        ".",
        "a/./b",
        "..",
        ".git/config",
        "a/.GIT/hooks/x",
        ".git",
        "GIT~1/config",
        ".tidings-mirror/journal",
        ".Tidings-Mirror/x",
        ".tidings-mirror",
        "nul\0byte",
        "link/x",
        "link/victim",
        "link/deep/er",
        &"x".repeat(300),
        &"d/".repeat(3000),
    ] {
        for (verb, body) in [(Verb::Put, put(path, "evil", 1, 0)), (Verb::Delete, delete(path, 1, 0))] {
            match world.apply(verb, &body) {
                Err(error) => assert_eq!(error.status(), 422, "{path:?}: {error}"),
                Ok(effect) => panic!("{path:?}: {effect:?}"),
            }
        }
    }
    let evil = BASE64_STANDARD.encode("../escape");
    let mut body = put("innocent", "evil", 1, 0);
    body["file"]["path_base64"] = evil.into();
    assert_eq!(world.apply(Verb::Put, &body).expect_err("refused").status(), 422);
    assert_eq!(fs::read_to_string(outside.path().join("victim")).expect("read"), "safe");
    assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 1);
    assert!(!world.path("../escape").exists());
    assert_eq!(world.staged(), 0);
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_and_not_followed() {
    let outside = tempfile::tempdir().expect("a folder");
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe").expect("written");
    let mut world = World::new();
    symlink(&victim, world.path("a")).expect("a link");
    world.apply(Verb::Put, &put("a", "new", 1, 0)).expect("applied");
    assert_eq!(fs::read_to_string(&victim).expect("read"), "safe");
    assert!(fs::symlink_metadata(world.path("a")).expect("there").is_file());
}

#[test]
fn modes_and_links_become_plain_files() {
    let mut world = World::new();
    let mut script = put("run.sh", "#!/bin/sh", 1, 0);
    script["file"]["mode"] = "100755".into();
    world.apply(Verb::Put, &script).expect("applied");
    let mut link = put("link", "/etc/passwd", 1, 1);
    link["file"]["mode"] = "120000".into();
    world.apply(Verb::Put, &link).expect("applied");
    let mode = |path| fs::symlink_metadata(world.path(path)).expect("there").permissions().mode();
    assert_eq!((mode("run.sh") & 0o777, mode("link") & 0o777), (0o755, 0o644));
    assert!(fs::symlink_metadata(world.path("link")).expect("there").is_file());
    let mut plain = put("run.sh", "#!/bin/sh", 2, 0);
    plain["file"]["mode"] = "100644".into();
    world.apply(Verb::Put, &plain).expect("applied");
    assert_eq!(fs::metadata(world.path("run.sh")).expect("there").permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_file_where_a_directory_is_needed_is_a_conflict_until_it_is_gone() {
    let mut world = World::new();
    world.apply(Verb::Put, &put("a", "file", 1, 0)).expect("applied");
    assert_eq!(world.apply(Verb::Put, &put("a/b", "x", 2, 1)).expect_err("in the way").status(), 409);
    assert_eq!(world.apply(Verb::Delete, &delete("a/b/c", 2, 2)).expect("gone anyway"), Effect::Applied);
    world.apply(Verb::Delete, &delete("a", 2, 0)).expect("applied");
    world.apply(Verb::Put, &put("a/b", "x", 2, 1)).expect("applied");
    assert_eq!(world.apply(Verb::Put, &put("a", "y", 3, 0)).expect_err("in the way").status(), 409);
    fs::create_dir(world.path("empty")).expect("made");
    world.apply(Verb::Put, &put("empty", "z", 3, 1)).expect("an empty directory makes room");
    assert_eq!(world.staged(), 0);
}

#[test]
fn paths_are_bytes() {
    let mut world = World::new();
    let mut body = put("caf\u{fffd}", "x", 1, 0);
    body["file"]["path_base64"] = BASE64_STANDARD.encode(b"caf\xe9").into();
    world.apply(Verb::Put, &body).expect("applied");
    let names: Vec<_> = fs::read_dir(world.folder.path())
        .expect("read")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(names.iter().any(|name| name.as_encoded_bytes() == b"caf\xe9"), "{names:?}");
}
