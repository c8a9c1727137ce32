//! A mirror is a cache: it may be lost or damaged at any moment.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tidings_actors::ports::{Content, Share};

use super::*;
use crate::support::{
    dice::Dice,
    repository::{Repository, git_command},
};

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
    // A reader that has a pack open goes on reading it; a new process does not have it.
    let git = engine(engine_settings(), &desk.data);
    for pack in first {
        fs::remove_file(pack.with_extension("idx")).expect("removable");
        fs::remove_file(pack).expect("removable");
    }
    let old = repository.resolve("main:f29");
    drop(desk.git);
    assert!(matches!(git.content(&remote, old, 1_000).await, Err(GitError::Missing(_))));
    let order = FetchOrder { wants: vec![head], haves: vec![held], depth: 1, ..FetchOrder::default() };
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
    let order = FetchOrder { wants: vec![head], haves: vec![held], depth: 1, ..FetchOrder::default() };
    git.fetch(&remote, &order).await.expect("the gap is found");
    let old = repository.resolve("main:f29");
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

/// Flips one byte of a file, as a disk would: in place, under readers that have it open.
fn flip(file: &Path, at: u64, mask: u8) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("ours");
    let file = fs::OpenOptions::new().read(true).write(true).open(file).expect("writable");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within the file");
    file.write_all_at(&[byte[0] ^ mask], at).expect("writable");
}

/// Where each object of a pack begins.
fn objects_of(pack: &Path) -> Vec<u64> {
    let index = pack.with_extension("idx");
    let listed =
        git_command(pack.parent().expect("a folder")).args(["verify-pack", "-v"]).arg(index).output();
    let listed = String::from_utf8(listed.expect("git runs").stdout).expect("text");
    let offset = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_object = words.len() >= 5 && words[0].len() == 40;
        is_object.then(|| words[4].parse().expect("an offset"))
    };
    listed.lines().filter_map(offset).collect()
}

/// Bytes worth flipping: all that are no content, and some that are.
fn places(pack: &Path, dice: &mut Dice) -> Vec<(PathBuf, u64)> {
    let (index, length) = (pack.with_extension("idx"), pack.metadata().expect("a pack").len());
    let index_length = index.metadata().expect("an index").len();
    let header = 0..12;
    let entries = objects_of(pack).into_iter().flat_map(|object| [object, object + 1]);
    let somewhere: Vec<u64> = (0..20).map(|_| dice.below(length)).collect();
    let trailer = [length - 20, length - 1];
    let of_pack: Vec<_> = header.chain(entries).chain(somewhere).chain(trailer).collect();
    let fanout = (8..1_032).step_by(67);
    let somewhere: Vec<u64> = (0..30).map(|_| dice.below(index_length)).collect();
    let of_index: Vec<_> =
        (0..8).chain(fanout).chain(somewhere).chain([index_length - 40, index_length - 1]).collect();
    let of_pack = of_pack.into_iter().map(|at| (pack.to_owned(), at));
    of_pack.chain(of_index.into_iter().map(|at| (index.clone(), at))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_anywhere_is_noticed_and_healed_and_never_changes_what_is_read() {
    let mut dice = Dice::thrown("flipped bytes");
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let head = populate(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("a fetch");
    let truth = desk.changes(&remote, &sync(None, head)).await.expect("a list");
    let pack = packs(&desk.mirror()).remove(0);
    let places = places(&pack, &mut dice);
    let order = FetchOrder { wants: vec![head], haves: vec![], depth: 1, ..FetchOrder::default() };
    let (mut at_read, mut at_scrub) = (0, 0);
    drop(desk.git);
    for (file, at) in places {
        let mask = [0x01, 0x24, 0x80, 0xff][usize::try_from(dice.below(4)).expect("few")];
        let told = format!("byte {at} of {} xor {mask:#x}", file.display());
        // The same content comes as the same pack, so the file is there again after each healing.
        assert!(file.exists(), "{told}");
        flip(&file, at, mask);
        let git = engine(engine_settings(), &desk.data);
        match read_all(&git, &remote, head, &truth).await {
            Ok(()) => at_scrub += 1,
            Err(GitError::Corrupt(_) | GitError::Missing(_)) => at_read += 1,
            Err(error) => panic!("{told}: {error}"),
        }
        git.fetch(&remote, &order).await.unwrap_or_else(|error| panic!("{told}: {error}"));
        if !git.scrub(&remote.repository, Share::Whole).await.expect("readable") {
            git.fetch(&remote, &order).await.unwrap_or_else(|error| panic!("{told}: {error}"));
        }
        read_all(&git, &remote, head, &truth).await.unwrap_or_else(|error| panic!("{told}: {error}"));
        assert!(git.scrub(&remote.repository, Share::Whole).await.expect("readable"), "{told}");
    }
    println!("{at_read} flipped bytes were noticed by a read, {at_scrub} by a scrub alone");
    assert!(at_read > 100 && at_read > 10 * at_scrub, "{at_read} {at_scrub}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_notices_every_flipped_byte_by_itself() {
    let mut dice = Dice::thrown("scrubbed bytes");
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let head = populate(&repository);
    let remote = desk.remote("r.git");
    for _ in 0..20 {
        desk.fetch(&remote, head, &[]).await.expect("a fetch");
        assert!(desk.git.scrub(&remote.repository, Share::Whole).await.expect("readable"));
        let pack = packs(&desk.mirror()).remove(0);
        let file = if dice.one_in(2) { pack } else { pack.with_extension("idx") };
        let at = dice.below(file.metadata().expect("a file").len());
        flip(&file, at, 1 << dice.below(8));
        assert!(
            !desk.git.scrub(&remote.repository, Share::Whole).await.expect("readable"),
            "{at} of {file:?}"
        );
        assert!(packs_if_any(&desk.mirror()).is_empty(), "what is damaged is moved aside at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_a_flipped_byte_made_up_never_decides_that_a_file_is_too_large() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let head = repository.commit("main", &[("a", Some(("100644", &[b'x'; 100])))]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("a fetch");
    let (blob, mirror) = (repository.resolve("main:a"), desk.mirror());
    let pack = packs(&mirror).remove(0);
    drop(desk.git);
    let mut wrong = 0;
    for object in objects_of(&pack) {
        let pack = packs(&mirror).remove(0);
        // The second byte of an entry holds the upper bits of a size above 15.
        flip(&pack, object + 1, 0x7f);
        let git = engine(engine_settings(), &desk.data);
        match git.content(&remote, blob, 200).await {
            Ok(Content::Whole(bytes)) => assert_eq!(bytes, vec![b'x'; 100]),
            Ok(Content::TooLarge { size }) => panic!("a blob of 100 bytes has {size}"),
            Err(GitError::Corrupt(_) | GitError::Missing(_)) => wrong += 1,
            Err(error) => panic!("{error}"),
        }
        drop(git);
        fs::remove_dir_all(&mirror).expect("removable");
        let order = FetchOrder { wants: vec![head], haves: vec![], depth: 1, ..FetchOrder::default() };
        engine(engine_settings(), &desk.data).fetch(&remote, &order).await.expect("a fetch");
    }
    assert!(wrong > 0, "no size was made up");
}

fn packs_if_any(mirror: &Path) -> Vec<PathBuf> {
    if mirror.join("objects/pack").exists() { packs(mirror) } else { Vec::new() }
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
    git.fetch(
        &remote,
        &FetchOrder { wants: vec![next], haves: vec![head], depth: 1, ..FetchOrder::default() },
    )
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
        assert!(matches!(error, GitError::NotACommit(id) if id == odd), "{error}");
        desk.fetch(&remote, odd, &[]).await.expect("it is still there");
    }
    assert_eq!(packs(&desk.mirror()), before, "the mirror that others share was begun again");
}
