//! Keeping mirrors small: rebuilding, making room, and never fetching into a full disk.

use tidings_actors::{
    housekeeping::is_due,
    ports::{Content, MirrorFacts},
};

use super::*;
use crate::support::{dice::Dice, repository::git_command};

/// Packs, and commits without parents, that a mirror may have.
const MOST: u64 = 50;

async fn facts(desk: &Desk, remote: &Remote) -> MirrorFacts {
    desk.git.mirror(&remote.repository).await.expect("measured").expect("a mirror")
}

/// What git itself says of the mirror when it starts at these commits.
fn check(desk: &Desk, commits: &[ObjectId]) {
    let mut command = git_command(&desk.mirror());
    command.args(["fsck", "--connectivity-only", "--no-dangling"]);
    command.args(commits.iter().map(ToString::to_string));
    let checked = command.output().expect("git runs");
    let told =
        format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success() && !told.contains("missing"), "{told}");
}

fn text(number: usize) -> Vec<u8> {
    (0..40).map(|line| format!("{line} {}\n", number.wrapping_mul(7_919 + line))).collect::<String>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_commits_never_pile_up_and_leave_little_more_than_one_pack() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let commits = repository.commits("main", 501, |number| {
        if number > 0 {
            return vec![(format!("d{}/f", number % 20).into_bytes(), Some(("100644", text(number))))];
        }
        (0..60)
            .map(|file| (format!("d{}/g{file}", file % 20).into_bytes(), Some(("100644", text(file)))))
            .collect()
    });
    let remote = desk.remote("r.git");
    desk.fetch(&remote, commits[0], &[]).await.expect("a fetch");
    let (mut most, mut rebuilt) = ((0, 0), 0);
    for pair in commits.windows(2) {
        desk.fetch(&remote, pair[1], &[pair[0]]).await.expect("a fetch");
        let mut now = facts(&desk, &remote).await;
        most = (now.packs.max(most.0), now.shallow.max(most.1));
        if is_due(&now, 2, MOST) {
            now = desk.git.compact(&remote.repository, &keep(pair)).await.expect("rebuilt");
            rebuilt += 1;
            assert_eq!(now.packs, 1);
            check(&desk, pair);
        }
    }
    assert!(most.0 <= MOST && most.1 <= MOST, "{most:?}");
    assert!((10..=20).contains(&rebuilt), "{rebuilt}");
    let head = *commits.last().expect("a head");
    let after = desk.git.compact(&remote.repository, &keep(&[head])).await.expect("rebuilt");
    let fresh = Desk { data: tempfile::tempdir().expect("a folder"), ..desk };
    let fresh = Desk { git: engine(engine_settings(), &fresh.data), ..fresh };
    fresh.fetch(&remote, head, &[]).await.expect("a fetch");
    let alone = facts(&fresh, &remote).await;
    println!("{} bytes after 500 commits, {} bytes fetched at once", after.bytes, alone.bytes);
    assert!(after.bytes * 10 <= alone.bytes * 12, "{} bytes, alone {}", after.bytes, alone.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilding_keeps_what_is_named_and_is_worth_nothing_twice() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let commits = repository.commits("main", 12, |number| {
        vec![
            (b"counter".to_vec(), Some(("100644", text(number)))),
            (b"same".to_vec(), Some(("100644", text(0)))),
        ]
    });
    let remote = desk.remote("r.git");
    for pair in commits.windows(2) {
        desk.fetch(&remote, pair[1], &pair[..1]).await.expect("a fetch");
    }
    let (held, head) = (commits[9], commits[11]);
    let once = desk.git.compact(&remote.repository, &keep(&[held, head])).await.expect("rebuilt");
    assert_eq!(once.packs, 1);
    check(&desk, &[held, head]);
    assert_eq!(desk.changes(&remote, &sync(Some(held), head)).await.expect("a list").len(), 1);
    // What piles up beside an equal pack goes as well.
    let blob = repository.write_object("blob", b"by id");
    desk.fetch(&remote, blob, &[]).await.expect("a fetch");
    for commit in &commits[..5] {
        desk.fetch(&remote, *commit, &[]).await.expect("a fetch");
    }
    assert!(facts(&desk, &remote).await.packs > 2);
    desk.fetch(&remote, head, &[held]).await.expect("nothing to fetch");
    let twice = desk.git.compact(&remote.repository, &keep(&[held, head])).await.expect("rebuilt");
    let thrice = desk.git.compact(&remote.repository, &keep(&[held, head])).await.expect("rebuilt");
    assert_eq!((twice.packs, thrice.packs), (1, 1));
    let next = repository.commit("main", &[("counter", Some(("100644", b"next")))]);
    assert_eq!(
        desk.fetch(&remote, next, &[head]).await.expect("a fetch").objects,
        3,
        "it still counts as here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_just_now_stays_although_no_row_names_it_yet() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    let head = repository.commit("main", &[("a", Some(("100644", b"2")))]);
    desk.fetch(&remote, head, &[held]).await.expect("a fetch");
    desk.git.compact(&remote.repository, &keep(&[held])).await.expect("rebuilt");
    assert_eq!(desk.changes(&remote, &sync(Some(held), head)).await.expect("a list").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_whose_second_parent_went_is_known_as_cut_off() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let base = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let side = repository.commit_on("side", &[&base.to_string()], &[("b", Some(("100644", b"1")))]);
    let merge = repository.commit_on(
        "main",
        &[&base.to_string(), &side.to_string()],
        &[("b", Some(("100644", b"1"))), ("c", Some(("100644", b"1")))],
    );
    let remote = desk.remote("r.git");
    let order = FetchOrder { wants: vec![merge], depth: 5, ..FetchOrder::default() };
    desk.git.fetch(&remote, &order).await.expect("a fetch");
    desk.git.compact(&remote.repository, &keep(&[base, merge])).await.expect("rebuilt");
    let shallow = std::fs::read_to_string(desk.mirror().join("shallow")).expect("a list");
    assert!(shallow.contains(&merge.to_string()), "{shallow}");
    check(&desk, &[base, merge]);
}

#[tokio::test(flavor = "multi_thread")]
async fn walked_commits_stay_where_somebody_wants_every_commit() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let commits =
        repository.commits("main", 20, |number| vec![(b"a".to_vec(), Some(("100644", text(number))))]);
    let (held, head) = (commits[3], commits[19]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    desk.git.walk(&remote, head, held, 100).await.expect("a walk");
    let every = Keep { chains: true, ..keep(&[held, head]) };
    desk.git.compact(&remote.repository, &every).await.expect("rebuilt");
    desk.host.take_seen();
    desk.git.walk(&remote, head, held, 100).await.expect("a walk");
    assert!(desk.host.take_seen().is_empty(), "they were fetched again");
    desk.git.compact(&remote.repository, &keep(&[held, head])).await.expect("rebuilt");
    desk.git.walk(&remote, head, held, 100).await.expect("a walk");
    assert!(!desk.host.take_seen().is_empty(), "they were kept for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn making_room_drops_contents_alone_and_they_come_back_one_by_one() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let files: Vec<_> = (0..30).map(|file| (format!("d{}/f{file}", file % 5), text(file))).collect();
    let listed: Vec<_> =
        files.iter().map(|(path, text)| (path.as_str(), Some(("100644", text.as_slice())))).collect();
    let head = repository.commit("main", &listed);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("a fetch");
    let truth = desk.changes(&remote, &sync(None, head)).await.expect("a list");
    let whole = facts(&desk, &remote).await;
    let after =
        desk.git.compact(&remote.repository, &Keep { blobs: false, ..keep(&[head]) }).await.expect("freed");
    assert!(after.bytes < whole.bytes / 2 && after.evicted_to == Some(after.bytes), "{whole:?} {after:?}");
    assert_eq!(desk.changes(&remote, &sync(None, head)).await.expect("a list"), truth);
    desk.host.take_seen();
    desk.fetch(&remote, head, &[head]).await.expect("nothing to fetch");
    assert!(desk.host.take_seen().is_empty(), "a poll brought everything back");
    check(&desk, &[head]);

    let next = repository.commit("main", &[("d1/f1", Some(("100644", b"next")))]);
    desk.fetch(&remote, next, &[head]).await.expect("a fetch");
    assert_eq!(desk.changes(&remote, &sync(Some(head), next)).await.expect("a list").len(), 1);
    let blob = truth[0].new.expect("a create").blob;
    assert!(
        matches!(desk.git.content(&remote, blob, 1 << 20).await, Err(GitError::Missing(id)) if id == blob)
    );
    desk.git.fetch_blobs(&remote, &[blob]).await.expect("a fetch");
    assert!(matches!(desk.git.content(&remote, blob, 1 << 20).await, Ok(Content::Whole(_))));
    // What came back stays over a rebuilding, and the mirror is whole again when all came back.
    desk.git.compact(&remote.repository, &keep(&[head])).await.expect("rebuilt");
    assert!(matches!(desk.git.content(&remote, blob, 1 << 20).await, Ok(Content::Whole(_))));
    let blobs: Vec<_> = truth.iter().filter_map(|change| change.new).map(|entry| entry.blob).collect();
    let blobs = [blobs, vec![repository.resolve("main:d1/f1")]].concat();
    desk.git.fetch_blobs(&remote, &blobs).await.expect("a fetch");
    let whole = desk.git.compact(&remote.repository, &keep(&[head, next])).await.expect("rebuilt");
    assert_eq!(whole.evicted_to, None);
    let order = FetchOrder { wants: vec![next], depth: 1, extent: Extent::Whole, ..FetchOrder::default() };
    assert_eq!(desk.git.fetch(&remote, &order).await.expect("all is here"), FetchReport::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_gets_no_fetches_and_says_so() {
    let desk = Desk::with(GitSettings { free_min_bytes: u64::MAX, ..engine_settings() }).await;
    let repository = desk.host.repository("r.git");
    let head = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = desk.remote("r.git");
    let before = desk.host.requests();
    let error = desk.fetch(&remote, head, &[]).await.expect_err("no room");
    assert!(matches!(&error, GitError::Storage(text) if text.contains("git.free_min_bytes")), "{error}");
    assert!(!error.is_remote(), "it is no fault of the host");
    assert_eq!(desk.host.requests(), before, "the host was asked for nothing");
    let stopped = desk.git.storage().await.expect("an answer").fetches_stopped.expect("a reason");
    assert!(stopped.contains("git.free_min_bytes"), "{stopped}");
    assert_eq!(desk.list(&remote, &[]).await.expect("polls go on").refs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_bounds_one_fetch_and_all_mirrors() {
    let desk = Desk::with(GitSettings { mirror_max_bytes: 10_000, ..engine_settings() }).await;
    let repository = desk.host.repository("r.git");
    let noise = Dice::of(7).bytes(30_000);
    let small = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let large = repository.commit("main", &[("b", Some(("100644", &noise)))]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, small, &[]).await.expect("it fits");
    desk.fetch(&remote, large, &[small]).await.expect("its trees");
    let error = desk.fetch(&remote, repository.resolve("main:b"), &[]).await.expect_err("too large");
    assert!(matches!(error, GitError::TooLarge(_)), "{error}");
    assert_eq!(desk.changes(&remote, &sync(None, small)).await.expect("the mirror is whole").len(), 1);
    let taken = desk.git.storage().await.expect("an answer");
    assert_eq!((taken.mirrors, taken.mirror_bytes), (1, facts(&desk, &remote).await.bytes));

    let git = engine(GitSettings { mirrors_max_bytes: 100, ..engine_settings() }, &desk.data);
    git.sweep(None).await.expect("measured");
    let next = repository.commit("main", &[("c", Some(("100644", b"1")))]);
    let order = FetchOrder { wants: vec![next], depth: 1, ..FetchOrder::default() };
    let error = git.fetch(&remote, &order).await.expect_err("no room");
    assert!(matches!(&error, GitError::Storage(text) if text.contains("git.mirrors_max_bytes")), "{error}");
    git.remove_mirror(&remote.repository).await.expect("removed");
    git.fetch(&remote, &order).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fetch_of_objects_makes_upkeep_look_and_a_proof_does_not() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let first = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    for number in 0..4 {
        repository.commit("main", &[("a", Some(("100644", format!("more {number}").as_bytes())))]);
    }
    let head = repository.commit("main", &[("b", Some(("100644", b"the content")))]);
    let remote = desk.remote("r.git");
    let growth = desk.git.growth();
    let grew = async || {
        let waited = tokio::time::timeout(Duration::ZERO, growth.wait()).await;
        waited.is_ok_and(|grown| grown.contains(&remote.repository))
    };
    desk.fetch_so_much(&remote, first, &[], Extent::Commit).await.expect("a proof");
    assert!(!grew().await, "a proof leaves nothing to look at");
    desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("a fetch");
    assert!(grew().await, "a fetch");
    desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("nothing to do");
    assert!(!grew().await, "nothing was fetched");
    let blob = desk.changes(&remote, &sync(None, head)).await.expect("a list")[1].new.expect("an entry").blob;
    desk.git.fetch_blobs(&remote, &[blob]).await.expect("its content");
    assert!(grew().await, "contents, as they are foreseen and downloaded");
    desk.git.walk(&remote, head, first, 100).await.expect("a walk");
    assert!(grew().await, "a history that is deepened");
}
