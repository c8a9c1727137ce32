//! The mirror against every order, repeat and hostile path that a sender could produce.

mod paths;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

struct World {
    folder: TempDir,
    mirror: Option<Mirror>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mirror = Some(Mirror::open(folder.path(), false).expect("opened"));
        Self { folder, mirror }
    }

    /// As after a crash: whatever was in memory is gone.
    fn restart(&mut self) {
        self.mirror = None;
        self.mirror = Some(Mirror::open(self.folder.path(), false).expect("opened again"));
    }

    fn apply(&mut self, verb: Verb, body: &Value) -> Result<Effect, MirrorError> {
        let message = serde_json::from_value(body.clone()).expect("a message");
        self.mirror.as_mut().expect("open").apply(verb, &message)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Every file of the mirror but its state.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(self.folder.path()).expect("below").display().to_string();
                if path.is_dir() && name != STATE_FOLDER {
                    folders.push(path);
                } else if path.is_file() {
                    let content = fs::read(&path).expect("read");
                    files.insert(name, String::from_utf8_lossy(&content).into_owned());
                }
            }
        }
        files
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.path(STATE_FOLDER).join("staging")).expect("a folder").count()
    }
}

fn repository() -> Value {
    json!({"repository_id": "repo_1", "github_url": "https://example.org/o/r", "owner": "o", "name": "r"})
}

fn event(round: i64, position: u64) -> Value {
    json!({"id": format!("dlv_{round}_{position}"), "type": "file.created", "cursor": "cur_1", "branch": "main",
           "round": round, "position": position, "total": 9})
}

fn put(path: &str, content: &str, round: i64, position: u64) -> Value {
    let sha = Sha256Hash::of(content.as_bytes()).to_string();
    json!({"repository": repository(), "commit_sha": "c", "event": event(round, position),
           "file": {"path": path, "sha": sha, "size": content.len(), "content": content, "mode": "100644"}})
}

fn delete(path: &str, round: i64, position: u64) -> Value {
    json!({"repository": repository(), "file": {"path": path}, "event": event(round, position)})
}

fn notice(kind: &str, round: i64, complete: bool) -> Value {
    let mut event = json!({"id": format!("dlv_{kind}_{round}"), "type": kind, "cursor": "cur_1", "round": round, "total": 1});
    if complete {
        event["complete"] = true.into();
    }
    json!({"repository": repository(), "event": event})
}

fn chunk(path: &str, bytes: &[u8], id: &str, index: usize, size: usize, round: i64) -> Value {
    let text = BASE64_STANDARD.encode(bytes);
    let slices: Vec<&str> =
        text.as_bytes().chunks(size).map(|slice| std::str::from_utf8(slice).expect("ASCII")).collect();
    let sha = Sha256Hash::of(bytes).to_string();
    json!({"repository": repository(), "event": event(round, 0), "file": {
        "path": path, "sha": sha, "size": bytes.len(), "content": slices[index], "content_encoding": "base64",
        "chunk": {"id": id, "index": index, "total": slices.len()}, "mode": "100644"}})
}

#[test]
fn creates_updates_and_deletes_are_followed() {
    let mut world = World::new();
    assert_eq!(world.apply(Verb::Put, &put("a/b/c.txt", "one", 1, 0)).expect("applied"), Effect::Applied);
    assert_eq!(world.apply(Verb::Put, &put("a/d.txt", "", 1, 1)).expect("applied"), Effect::Applied);
    assert_eq!(world.apply(Verb::Put, &put("a/b/c.txt", "two", 2, 0)).expect("applied"), Effect::Applied);
    assert_eq!(
        world.files(),
        BTreeMap::from([("a/b/c.txt".into(), "two".into()), ("a/d.txt".into(), String::new())])
    );
    world.apply(Verb::Delete, &delete("a/b/c.txt", 3, 0)).expect("applied");
    assert!(world.path("a").is_dir() && !world.path("a/b").exists(), "empty directories go, others stay");
    world.apply(Verb::Delete, &delete("a/d.txt", 3, 1)).expect("applied");
    assert!(!world.path("a").exists());
    assert_eq!(world.apply(Verb::Delete, &delete("never/there", 3, 2)).expect("applied"), Effect::Applied);
    assert_eq!(world.staged(), 0);
}

#[test]
fn repeats_and_late_arrivals_have_no_effect_also_after_a_restart() {
    let mut world = World::new();
    world.apply(Verb::Put, &put("a", "new", 2, 5)).expect("applied");
    for _ in 0..2 {
        let inode = fs::metadata(world.path("a")).expect("there").ino();
        assert_eq!(world.apply(Verb::Put, &put("a", "new", 2, 5)).expect("repeat"), Effect::Repeat);
        assert_eq!(world.apply(Verb::Put, &put("a", "old", 2, 4)).expect("late"), Effect::Late);
        assert_eq!(world.apply(Verb::Delete, &delete("a", 1, 9)).expect("late"), Effect::Late);
        assert_eq!(fs::metadata(world.path("a")).expect("there").ino(), inode, "not even written again");
        world.restart();
    }
    world.apply(Verb::Delete, &delete("a", 3, 0)).expect("applied");
    world.restart();
    assert_eq!(world.apply(Verb::Put, &put("a", "older", 2, 6)).expect("late"), Effect::Late);
    assert!(world.files().is_empty(), "a delete is remembered");
}

#[test]
fn a_half_written_line_of_the_journal_does_not_count() {
    let mut world = World::new();
    world.apply(Verb::Put, &put("a", "one", 1, 0)).expect("applied");
    let journal = world.path(STATE_FOLDER).join("journal");
    let whole = fs::read(&journal).expect("read");
    fs::write(&journal, [&whole[..], &whole[..whole.len() / 2]].concat()).expect("written");
    world.restart();
    world.apply(Verb::Put, &put("b", "two", 1, 1)).expect("applied");
    world.restart();
    assert_eq!(world.apply(Verb::Put, &put("b", "two", 1, 1)).expect("repeat"), Effect::Repeat);
    assert_eq!(world.apply(Verb::Put, &put("a", "one", 1, 0)).expect("repeat"), Effect::Repeat);
}

#[test]
fn chunks_are_joined_checked_and_begun_anew_after_a_loss() {
    let bytes: Vec<u8> = (0..1000_u32).map(|number| (number % 251) as u8).collect();
    // Slices that do not end on a multiple of four are joined before they are decoded.
    let part = |id, index| chunk("big.bin", &bytes, id, index, 333, 1);
    let mut world = World::new();
    assert_eq!(world.apply(Verb::Put, &part("first", 0)).expect("stored"), Effect::Stored);
    for (id, index) in [("first", 2), ("first", 3), ("other", 1)] {
        assert_eq!(world.apply(Verb::Put, &part(id, index)).expect_err("out of order").status(), 409);
    }
    assert_eq!(world.apply(Verb::Put, &part("first", 1)).expect("stored"), Effect::Stored);
    assert_eq!(world.apply(Verb::Put, &part("first", 1)).expect_err("twice").status(), 409);
    world.restart();
    assert_eq!(world.apply(Verb::Put, &part("first", 2)).expect_err("forgotten").status(), 409);
    for index in 0..4 {
        assert_eq!(world.apply(Verb::Put, &part("second", index)).expect("stored"), Effect::Stored);
    }
    assert!(!world.path("big.bin").exists());
    assert_eq!(world.apply(Verb::Put, &part("second", 4)).expect("whole"), Effect::Applied);
    assert_eq!(fs::read(world.path("big.bin")).expect("read"), bytes);
    assert_eq!(world.apply(Verb::Put, &part("third", 0)).expect("repeat"), Effect::Repeat);
    assert_eq!(world.staged(), 0);
}

#[test]
fn a_chunk_that_begins_elsewhere_in_the_file_is_refused() {
    let bytes: Vec<u8> = (0..900_u32).map(|number| (number % 251) as u8).collect();
    let part = |index: usize, offset: usize| {
        let mut part = chunk("big.bin", &bytes, "id", index, 400, 1);
        part["file"]["chunk"]["offset"] = offset.into();
        part
    };
    let mut world = World::new();
    assert_eq!(world.apply(Verb::Put, &part(0, 300)).expect_err("a gap").status(), 409);
    assert_eq!(world.apply(Verb::Put, &part(0, 0)).expect("stored"), Effect::Stored);
    assert_eq!(world.apply(Verb::Put, &part(1, 299)).expect_err("an overlap").status(), 409);
    assert_eq!(world.apply(Verb::Put, &part(1, 300)).expect("stored"), Effect::Stored);
    assert_eq!(world.apply(Verb::Put, &part(2, 600)).expect("whole"), Effect::Applied);
    assert_eq!(fs::read(world.path("big.bin")).expect("read"), bytes);
}

#[test]
fn content_that_does_not_hash_to_its_sha_is_refused() {
    let mut world = World::new();
    let mut lie = put("a", "text", 1, 0);
    lie["file"]["content"] = "other".into();
    assert_eq!(world.apply(Verb::Put, &lie).expect_err("a lie").status(), 422);
    let mut large = chunk("a", b"bytes", "id", 0, 100, 1);
    large["file"]["content"] = BASE64_STANDARD.encode("other").into();
    assert_eq!(world.apply(Verb::Put, &large).expect_err("a lie").status(), 422);
    large["file"]["content"] = "!".into();
    assert_eq!(world.apply(Verb::Put, &large).expect_err("no base64").status(), 400);
    assert!(world.files().is_empty() && world.staged() == 0);
    assert_eq!(world.apply(Verb::Put, &put("a", "text", 1, 0)).expect("not recorded"), Effect::Applied);
}

#[test]
fn content_that_was_left_out_leaves_no_outdated_file() {
    let mut world = World::new();
    world.apply(Verb::Put, &put("a", "small", 1, 0)).expect("applied");
    let mut large = put("a", "", 2, 0);
    let file = large["file"].as_object_mut().expect("a file");
    file.remove("content");
    file.insert("content_omitted".into(), "too_large".into());
    assert_eq!(world.apply(Verb::Put, &large).expect("noted"), Effect::Omitted);
    assert!(world.files().is_empty());
}

#[test]
fn a_complete_resync_drops_what_it_does_not_name() {
    for complete_on_synced in [true, false] {
        let mut world = World::new();
        for (position, path) in ["kept", "gone/a", "gone/b"].into_iter().enumerate() {
            world.apply(Verb::Put, &put(path, "1", 1, position as u64)).expect("applied");
        }
        assert_eq!(world.apply(Verb::Synced, &notice("synced", 1, false)).expect("noted"), Effect::Noted);
        world.apply(Verb::Resync, &notice("resync", 2, true)).expect("noted");
        world.apply(Verb::Put, &put("kept", "2", 2, 0)).expect("applied");
        world.restart();
        assert_eq!(world.files().len(), 3, "nothing goes before the end of the round");
        let synced = notice("synced", 2, complete_on_synced);
        assert_eq!(world.apply(Verb::Synced, &synced).expect("dropped"), Effect::Dropped(2));
        assert_eq!(world.files(), BTreeMap::from([("kept".into(), "2".into())]));
        assert!(!world.path("gone").exists());
        assert_eq!(world.apply(Verb::Put, &put("gone/a", "1", 1, 1)).expect("late"), Effect::Late);
        assert_eq!(world.apply(Verb::Put, &put("gone/a", "3", 3, 0)).expect("applied"), Effect::Applied);
        assert_eq!(world.apply(Verb::Synced, &synced).expect("repeat"), Effect::Dropped(0));
    }
}

#[test]
fn what_stands_in_the_way_of_a_complete_round_makes_room() {
    let mut world = World::new();
    for (position, path) in ["lib/x", "lib/y/z", "a", "k"].into_iter().enumerate() {
        world.apply(Verb::Put, &put(path, "old", 1, position as u64)).expect("applied");
    }
    world.apply(Verb::Resync, &notice("resync", 2, true)).expect("noted");
    for (position, path) in ["a/b", "k", "lib"].into_iter().enumerate() {
        assert_eq!(
            world.apply(Verb::Put, &put(path, "new", 2, position as u64)).expect(path),
            Effect::Applied
        );
    }
    world.restart();
    assert_eq!(world.apply(Verb::Put, &put("a", "old", 1, 2)).expect("late"), Effect::Late);
    world.apply(Verb::Synced, &notice("synced", 2, true)).expect("dropped");
    let expected = ["a/b", "k", "lib"].map(|path| (path.to_owned(), "new".to_owned()));
    assert_eq!(world.files(), BTreeMap::from(expected));
}

#[test]
fn a_sender_without_events_is_followed_as_it_comes() {
    let mut world = World::new();
    for content in ["one", "two", "one"] {
        let mut body = put("a", content, 0, 0);
        body.as_object_mut().expect("an object").remove("event");
        body["file"]["sha"] = Sha256Hash::of(b"bytes that the text has lost").to_string().into();
        assert_eq!(world.apply(Verb::Put, &body).expect("applied"), Effect::Applied);
        assert_eq!(world.files()["a"], content);
    }
    let failed = json!({"event": "sync_failed", "repository": repository(), "error_message": "why"});
    assert_eq!(world.apply(Verb::News, &failed).expect("noted"), Effect::Noted);
}

#[test]
fn one_process_at_a_time() {
    let world = World::new();
    assert!(Mirror::open(world.folder.path(), false).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// However often each arrives and in whatever order, the highest of each path decides.
    #[test]
    fn any_order_with_any_repeats_ends_the_same(
        mut arrivals in proptest::collection::vec((0_usize..3, 1_i64..4, 0_u64..3, any::<bool>()), 1..20),
        seed: u64,
    ) {
        // One event for each place, as in real life.
        arrivals.sort_unstable();
        arrivals.dedup_by_key(|(path, round, position, _)| (*path, *round, *position));
        let mut order: Vec<usize> = (0..arrivals.len()).chain(0..arrivals.len()).collect();
        let mut state = seed | 1;
        for at in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(at, usize::try_from(state >> 33).expect("fits") % (at + 1));
        }
        let mut world = World::new();
        for index in order {
            let (path, round, position, deletes) = arrivals[index];
            let path = ["a", "b/c", "b/d/e"][path];
            let (verb, body) = if deletes { (Verb::Delete, delete(path, round, position)) }
                else { (Verb::Put, put(path, &format!("{round}.{position}"), round, position)) };
            let mut body = body;
            body["event"]["id"] = format!("{path}{round}{position}").into();
            world.apply(verb, &body).expect("applied or passed over");
        }
        let mut expected = BTreeMap::new();
        for (path, round, position, deletes) in arrivals {
            let path = ["a", "b/c", "b/d/e"][path].to_owned();
            if deletes { expected.remove(&path); } else { expected.insert(path, format!("{round}.{position}")); }
        }
        prop_assert_eq!(world.files(), expected);
    }
}

#[test]
fn a_folder_with_other_files_is_mirrored_into_only_where_that_is_allowed() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("README.md"), "mine").expect("written");
    let refused = Mirror::open(folder.path(), false).map(drop).expect_err("it holds a file").to_string();
    assert!(refused.contains("README.md") && refused.contains("--mirror-into-existing"), "{refused}");
    assert!(!folder.path().join(STATE_FOLDER).exists(), "a refusal makes nothing");
    drop(Mirror::open(folder.path(), true).expect("allowed"));
    drop(Mirror::open(folder.path(), false).expect("the mirror that was made goes on"));
    let missing = folder.path().join("not/there");
    drop(Mirror::open(&missing, false).expect("a folder that is missing is made"));
}

#[test]
fn the_watch_of_a_mirror_is_kept_over_restarts_and_learnt_by_an_older_journal() {
    let mut world = World::new();
    world.apply(Verb::Put, &put("a", "1", 1, 0)).expect("applied");
    let journal = world.path(STATE_FOLDER).join("journal");
    let mut other = put("a", "2", 2, 0);
    other["repository"]["repository_id"] = "repo_2".into();
    world.restart();
    assert!(matches!(world.apply(Verb::Put, &other), Err(MirrorError::OtherWatch { .. })));
    assert_eq!(world.files()["a"], "1");
    // As an older version left it: without the line that names the watch.
    let text = fs::read_to_string(&journal).expect("a journal");
    let old: String =
        text.lines().filter(|line| !line.contains("watch")).map(|line| format!("{line}\n")).collect();
    assert_ne!(old, text);
    world.mirror = None;
    fs::write(&journal, old).expect("written");
    world.restart();
    assert_eq!(world.apply(Verb::Put, &put("b", "1", 1, 1)).expect("applied"), Effect::Applied);
    assert!(matches!(world.apply(Verb::Put, &other), Err(MirrorError::OtherWatch { .. })));
}

#[test]
fn a_second_branch_is_refused_and_an_older_journal_goes_on_with_its_own() {
    let mut world = World::new();
    world.apply(Verb::Put, &put("a", "1", 1, 0)).expect("applied");
    let mut other = put("a", "2", 2, 0);
    other["event"]["cursor"] = "cur_2".into();
    other["event"]["branch"] = "release".into();
    let refused = |world: &mut World| {
        let error = world.apply(Verb::Put, &other).expect_err("another branch");
        assert_eq!(error.status(), 404);
        let text = error.to_string();
        assert!(text.contains("cur_1") && text.contains("cur_2 (release)") && text.contains(FLAG), "{text}");
    };
    refused(&mut world);
    world.restart();
    refused(&mut world);
    // As an older version left it: the mark names the watch alone.
    let journal = world.path(STATE_FOLDER).join("journal");
    let text = fs::read_to_string(&journal).expect("a journal");
    let old = text.replacen(r#","cursor":"cur_1"}"#, "}", 1);
    assert_ne!(old, text);
    world.mirror = None;
    fs::write(&journal, old).expect("written");
    world.restart();
    assert_eq!(world.apply(Verb::Put, &put("b", "1", 1, 1)).expect("applied"), Effect::Applied);
    refused(&mut world);
    assert_eq!(world.files()["a"], "1");
    world.mirror = None;
    world.mirror = Some(Mirror::open(world.folder.path(), true).expect("opened"));
    assert_eq!(world.apply(Verb::Put, &other).expect("allowed"), Effect::Applied);
}

#[test]
fn a_mirror_that_nothing_was_applied_to_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("made");
    for root in [&made, &folder.path().to_owned()] {
        let mut mirror = Mirror::open(root, false).expect("opened");
        mirror.claim("repo_1", None, None).expect("claimed");
        mirror.take_back().expect("taken back");
    }
    assert!(!made.exists() && folder.path().exists() && !folder.path().join(STATE_FOLDER).exists());
    let mut world = World::new();
    world.apply(Verb::Put, &put("a", "1", 1, 0)).expect("applied");
    world.mirror.as_ref().expect("open").take_back().expect("kept");
    assert!(world.path(STATE_FOLDER).exists());
}
