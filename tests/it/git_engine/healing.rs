//! A mirror is a cache: it may be lost or damaged at any moment.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tidings_actors::ports::Content;

use super::*;
use crate::support::repository::Repository;

fn populate(repository: &Repository) -> ObjectId {
    let files = |_| {
        (0..30_u8)
            .map(|file| (vec![b'f', b'0' + file / 10, b'0' + file % 10], Some(("100644", vec![file; 700]))))
            .collect()
    };
    repository.commits("main", 1, files)[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_vanishes_between_calls_is_missing_until_it_is_fetched_again() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let head = populate(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("a fetch");
    let changes = desk.changes(&remote, &sync(None, head)).await.expect("a list");
    let blob = changes[0].new.expect("a create").blob;
    desk.git.content(&remote, blob, 1_000).await.expect("content");
    fs::remove_dir_all(desk.mirror()).expect("removable");
    assert_eq!(desk.list(&remote, &[]).await.expect("polls need no mirror").refs.len(), 1);
    let error = desk.git.content(&remote, blob, 1_000).await.expect_err("gone");
    assert!(matches!(error, GitError::Missing(id) if id == blob), "{error}");
    let error = desk.git.commit(&remote, head).await.expect_err("gone");
    assert!(matches!(error, GitError::Missing(id) if id == head), "{error}");
    assert!(desk.fetch(&remote, head, &[head]).await.expect("a fetch").objects > 30);
    desk.git.content(&remote, blob, 1_000).await.expect("content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_vanishes_under_a_commit_is_fetched_again() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = populate(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    let head = repository.commit("main", &[("f00", Some(("100644", b"new")))]);
    let first: Vec<_> = packs(&desk.mirror());
    desk.fetch(&remote, head, &[held]).await.expect("a fetch");
    // Whoever has a pack open goes on reading it; a new process does not have it.
    let git = engine(engine_settings(), &desk.data);
    for pack in first {
        fs::remove_file(pack.with_extension("idx")).expect("removable");
        fs::remove_file(pack).expect("removable");
    }
    let old = repository.resolve("main:f29");
    drop(desk.git);
    assert!(matches!(git.content(&remote, old, 1_000).await, Err(GitError::Missing(_))));
    let order = FetchOrder { wants: vec![head], haves: vec![held], depth: 1 };
    git.fetch(&remote, &order).await.expect("a fetch");
    assert!(matches!(git.content(&remote, old, 1_000).await, Ok(Content::Whole(_))));
    let changes = git.window(&remote, &sync(None, head), &Seek::Position(0), 100).await.expect("a list");
    assert_eq!(changes.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_below_what_is_said_to_be_here_is_found_and_filled() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let first = populate(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, first, &[]).await.expect("a fetch");
    let gap = packs(&desk.mirror()).remove(0);
    let held = repository.commit("main", &[("f00", Some(("100644", b"new")))]);
    desk.fetch(&remote, held, &[first]).await.expect("a fetch");
    drop(desk.git);
    fs::remove_file(gap.with_extension("idx")).expect("removable");
    fs::remove_file(gap).expect("removable");
    let head = repository.commit("main", &[("f01", Some(("100644", b"newer")))]);
    let git = engine(engine_settings(), &desk.data);
    let order = FetchOrder { wants: vec![head], haves: vec![held], depth: 1 };
    git.fetch(&remote, &order).await.expect("what differs came");
    let old = repository.resolve("main:f29");
    assert!(matches!(git.content(&remote, old, 1_000).await, Err(GitError::Missing(id)) if id == old));
    git.fetch(&remote, &order).await.expect("the gap is found");
    assert!(matches!(git.content(&remote, old, 1_000).await, Ok(Content::Whole(_))));
}

fn packs(mirror: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(mirror.join("objects/pack")).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "pack")).collect()
}

/// Reads everything that the head needs and compares it with the truth.
async fn read_all(git: &Git, remote: &Remote, head: ObjectId, truth: &[Change]) -> Result<(), GitError> {
    let changes = git.window(remote, &sync(None, head), &Seek::Position(0), 1_000).await?;
    assert_eq!(changes, truth, "damage must never change a list");
    for (file, change) in changes.iter().enumerate() {
        let blob = change.new.expect("a create").blob;
        let Content::Whole(bytes) = git.content(remote, blob, 10_000).await? else { panic!("small") };
        assert_eq!(bytes, vec![u8::try_from(file).expect("few"); 700], "damage must never change content");
    }
    git.commit(remote, head).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_byte_anywhere_is_detected_and_healed_by_a_fetch() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let head = populate(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("a fetch");
    let truth = desk.changes(&remote, &sync(None, head)).await.expect("a list");
    let mirror = desk.mirror();
    let pack = packs(&mirror).remove(0);
    drop(desk.git);
    let whole = fs::read(&pack).expect("readable");
    let mut detected = 0;
    for place in (12..whole.len() - 20).step_by(whole.len() / 40) {
        let pack = packs(&mirror).remove(0);
        let mut bytes = fs::read(&pack).expect("readable");
        bytes[place] ^= 0x24;
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).expect("ours");
        // Replaced, not overwritten: what is mapped already stays as it was.
        fs::remove_file(&pack).expect("removable");
        fs::write(&pack, bytes).expect("writable");
        let git = engine(engine_settings(), &desk.data);
        if let Err(error) = read_all(&git, &remote, head, &truth).await {
            assert!(matches!(error, GitError::Corrupt(_) | GitError::Missing(_)), "byte {place}: {error}");
            detected += 1;
            let order = FetchOrder { wants: vec![head], haves: vec![], depth: 1 };
            git.fetch(&remote, &order).await.expect("a fetch heals");
            read_all(&git, &remote, head, &truth).await.expect("healed");
        } else {
            fs::remove_dir_all(&mirror).expect("removable");
            git.fetch(&remote, &FetchOrder { wants: vec![head], haves: vec![], depth: 1 })
                .await
                .expect("a fetch");
        }
    }
    assert!(detected >= 38, "only {detected} of 40 damaged bytes were noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_behind_is_swept_away() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let head = populate(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("a fetch");
    let mirror = desk.mirror();
    fs::create_dir_all(mirror.join("quarantine-7/pack")).expect("writable");
    let files = [
        "quarantine-7/pack/pack_git2_x",
        "objects/pack/pack_git2_abc",
        "objects/pack/tmp_pack_x",
        "objects/pack/pack-1234.pack",
        "objects/info/alternates",
        "shallow.lock",
        "shallow.new",
    ];
    for file in files {
        fs::write(mirror.join(file), "left behind").expect("writable");
    }
    let aside = mirror.with_file_name("rep_x.damaged-0");
    fs::create_dir_all(&aside).expect("writable");
    let git = engine(engine_settings(), &desk.data);
    assert!(!aside.exists());
    let next = repository.commit("main", &[("new", Some(("100644", b"new")))]);
    git.fetch(&remote, &FetchOrder { wants: vec![next], haves: vec![head], depth: 1 })
        .await
        .expect("a fetch");
    for file in files {
        assert!(!mirror.join(file).exists(), "{file}");
    }
    assert_eq!(
        git.window(&remote, &sync(Some(head), next), &Seek::Position(0), 9).await.expect("a list").len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_for_something_that_is_no_commit_costs_no_mirror() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let head = populate(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("a fetch");
    let before = packs(&desk.mirror());
    for odd in ["main^{tree}", "main:f00"] {
        let odd = repository.resolve(odd);
        desk.fetch(&remote, odd, &[]).await.expect("it is there");
        let error = desk.changes(&remote, &sync(Some(odd), head)).await.expect_err("no commit");
        assert!(matches!(error, GitError::Protocol(_)), "{error}");
        desk.fetch(&remote, odd, &[]).await.expect("it is still there");
    }
    assert_eq!(packs(&desk.mirror()), before, "the mirror that others share was begun anew");
}
