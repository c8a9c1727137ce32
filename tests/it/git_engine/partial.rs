//! Mirrors of trees alone, and contents that come by id.

use std::{fs, path::Path};

use tidings_actors::ports::{BlobsReport, Content, Walk};
use tidings_entity::kind::ContentRule;

use super::*;
use crate::support::{
    dice::Dice,
    repository::{Repository, git_command},
};

/// Content that does not compress.
fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    Dice::of(seed as u64).bytes(bytes)
}

/// A repository with this many files in ten folders.
fn populate(repository: &Repository, files: usize) -> ObjectId {
    let tree = |_| {
        (0..files)
            .map(|file| {
                (format!("d{}/f{file}", file % 10).into_bytes(), Some(("100644", noise(file, 1_000))))
            })
            .collect()
    };
    repository.commits("main", 1, tree)[0]
}

/// Commit, root and ten folders.
const TREES: u64 = 1 + 1 + 10;

async fn blobs(desk: &Desk, remote: &Remote, commit: ObjectId) -> Vec<ObjectId> {
    let changes = desk.changes(remote, &sync(None, commit)).await.expect("a list needs no content");
    changes.iter().map(|change| change.new.expect("a create").blob).collect()
}

async fn is_present(desk: &Desk, remote: &Remote, blob: ObjectId) -> bool {
    match desk.git.content(remote, blob, 1 << 20).await {
        Ok(Content::Whole(_)) => true,
        Err(GitError::Missing(missing)) if missing == blob => false,
        other => panic!("{other:?}"),
    }
}

/// Whether git finds nothing wrong below `commit`.
fn is_sound(mirror: &Path, commit: ObjectId) -> bool {
    let git = |arguments: &[&str]| git_command(mirror).args(arguments).output().expect("git runs");
    let commit = commit.to_string();
    assert!(git(&["update-ref", "refs/heads/main", &commit]).status.success());
    let checked = git(&["fsck", "--connectivity-only"]);
    assert!(git(&["update-ref", "-d", "refs/heads/main"]).status.success());
    checked.status.success()
}

fn promisors(mirror: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(mirror.join("objects/pack")).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "promisor")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_come_alone_and_contents_with_one_request() {
    for version_0 in [false, true] {
        let desk = Desk::new().await;
        if version_0 {
            desk.host.speak_version_0();
        }
        let head = populate(&desk.host.repository("r.git"), 60);
        let remote = desk.remote("r.git");
        let report = desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("a fetch");
        assert_eq!(report.objects, TREES);
        let blobs = blobs(&desk, &remote, head).await;
        assert_eq!(blobs.len(), 60);
        assert_eq!(desk.git.absent_blobs(&remote, &blobs).await.expect("an answer"), blobs);
        assert!(!is_present(&desk, &remote, blobs[7]).await);
        assert!(is_sound(&desk.mirror(), head), "what is absent on purpose is no damage to git");

        desk.host.take_seen();
        let report = desk.git.fetch_blobs(&remote, &blobs[..40]).await.expect("a fetch");
        assert_eq!((report.fetched.objects, report.refused.len()), (40, 0));
        let seen = desk.host.take_seen();
        assert_eq!(seen.len(), 1, "one request for all");
        assert!(seen[0].answered < 45_000, "{} bytes for 40 files of 1,000", seen[0].answered);
        assert_eq!(desk.git.absent_blobs(&remote, &blobs).await.expect("an answer"), blobs[40..]);
        assert!(is_present(&desk, &remote, blobs[7]).await);
        let again = desk.git.fetch_blobs(&remote, &blobs[..40]).await.expect("nothing to do");
        assert_eq!((again, desk.host.take_seen().len()), (BlobsReport::default(), 0));

        for promisor in promisors(&desk.mirror()) {
            fs::remove_file(promisor).expect("removable");
        }
        assert!(!is_sound(&desk.mirror(), head), "without its mark the mirror looks damaged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_trees_cost_what_differs_and_walking_back_brings_no_content() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let first = populate(&repository, 60);
    let remote = desk.remote("r.git");
    desk.fetch_so_much(&remote, first, &[], Extent::Trees).await.expect("a fetch");
    let commits = repository.commits("main", 5, |number| {
        vec![(b"d1/new".to_vec(), Some(("100644", noise(700 + number, 50_000))))]
    });
    let head = commits[4];
    desk.host.take_seen();
    let report = desk.fetch_so_much(&remote, head, &[first], Extent::Trees).await.expect("a fetch");
    assert_eq!(report.objects, 3, "commit, root, folder");
    let walked = desk.git.walk(&remote, head, first, 100).await.expect("a walk");
    assert_eq!(walked, Walk::Reached(commits.clone()));
    let answered: u64 = desk.host.take_seen().iter().map(|seen| seen.answered).sum();
    assert!(answered < 50_000, "{answered} bytes without any content");
    for pair in commits.windows(2) {
        let changes = desk.changes(&remote, &sync(Some(pair[0]), pair[1])).await.expect("a list");
        assert_eq!(changes.len(), 1, "each commit on the way has its trees");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_leaves_nothing_out_sends_everything() {
    for (offers, refuses) in [("false", None), ("true", Some("uploadpackfilter.allow"))] {
        let desk = Desk::new().await;
        let repository = desk.host.repository("r.git");
        repository.config("uploadpack.allowFilter", offers);
        if let Some(key) = refuses {
            repository.config(key, "false");
        }
        let head = populate(&repository, 20);
        let remote = desk.remote("r.git");
        let report = desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("a fetch");
        assert_eq!(report.objects, TREES + 20);
        assert!(promisors(&desk.mirror()).is_empty());
        desk.host.take_seen();
        let next = repository.commit("main", &[("new", Some(("100644", b"new")))]);
        desk.fetch_so_much(&remote, next, &[head], Extent::Trees).await.expect("a fetch");
        assert_eq!(desk.host.take_seen().len(), 1, "what a host refuses is asked for once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_proved_by_itself_where_the_host_can_and_by_more_where_it_cannot() {
    for (key, objects) in [("none", 1), ("uploadpackfilter.tree.allow", TREES)] {
        let desk = Desk::new().await;
        let repository = desk.host.repository("r.git");
        if key != "none" {
            repository.config(key, "false");
        }
        let head = populate(&repository, 20);
        let remote = desk.remote("r.git");
        let report = desk.fetch_so_much(&remote, head, &[], Extent::Commit).await.expect("a fetch");
        assert_eq!(report.objects, objects);
        assert_eq!(desk.git.commit(&remote, head).await.expect("it is here").first_parent, None);
        let absent = ObjectId::new([0xab; 20]);
        let error = desk.fetch_so_much(&remote, absent, &[], Extent::Commit).await.expect_err("foreign");
        assert!(matches!(error, GitError::Unobtainable(id) if id == absent), "{error}");
        // What proved it is not enough to read it.
        desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("a fetch");
        assert_eq!(blobs(&desk, &remote, head).await.len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_host_refuses_does_not_hold_up_the_others() {
    let desk = Desk::new().await;
    let head = populate(&desk.host.repository("r.git"), 20);
    let remote = desk.remote("r.git");
    desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("a fetch");
    let known = blobs(&desk, &remote, head).await;
    let strangers = [ObjectId::new([1; 20]), ObjectId::new([0xee; 20])];
    let wanted: Vec<_> = known.iter().chain(&strangers).copied().collect();
    desk.host.take_seen();
    let report = desk.git.fetch_blobs(&remote, &wanted).await.expect("a fetch");
    assert_eq!(report.fetched.objects, 20);
    assert_eq!(report.refused.into_iter().collect::<std::collections::BTreeSet<_>>(), strangers.into());
    assert_eq!(desk.host.take_seen().len(), 3, "one more for each refusal");
    let many: Vec<_> = (0..200_u8).map(|byte| ObjectId::new([byte; 20])).collect();
    let report = desk.git.fetch_blobs(&remote, &many).await.expect("what was refused");
    assert_eq!((report.fetched.objects, report.refused.len()), (0, 4));
    assert_eq!(desk.host.take_seen().len(), 4, "a host that refuses everything is not asked for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_are_too_much_for_one_answer_come_in_pieces() {
    let desk = Desk::with(GitSettings { fetch_max_bytes: 12_000, ..engine_settings() }).await;
    let head = populate(&desk.host.repository("r.git"), 40);
    let remote = desk.remote("r.git");
    desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("a fetch");
    let blobs = blobs(&desk, &remote, head).await;
    let report = desk.git.fetch_blobs(&remote, &blobs).await.expect("a fetch");
    assert_eq!(report.fetched.objects, 40);
    assert!(desk.git.absent_blobs(&remote, &blobs).await.expect("an answer").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_everything_makes_a_partial_mirror_whole() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = populate(&repository, 40);
    let remote = desk.remote("r.git");
    desk.fetch_so_much(&remote, held, &[], Extent::Trees).await.expect("a fetch");
    let old = blobs(&desk, &remote, held).await;
    // What is here of `held` is not enough to be said to be here.
    let head = repository.commit("main", &[("new", Some(("100644", b"new")))]);
    let report = desk.fetch(&remote, head, &[held]).await.expect("a fetch");
    assert_eq!(report.objects, TREES + 41);
    assert!(is_present(&desk, &remote, old[3]).await);
    // From here on, and after a restart, only what differs.
    let git = engine(engine_settings(), &desk.data);
    let next = repository.commit("main", &[("new", Some(("100644", b"newer")))]);
    let order = FetchOrder { wants: vec![next], haves: vec![held, head], depth: 1, extent: Extent::Whole };
    assert_eq!(git.fetch(&remote, &order).await.expect("a fetch").objects, 3);
    assert!(desk.git.absent_blobs(&remote, &old).await.expect("an answer").is_empty());
    // The same commit, first its trees and then the rest.
    let other = desk.host.repository("other.git");
    let lone = populate(&other, 15);
    let repository = RepositoryId::new(Ulid::from_parts(1, 8));
    let remote = Remote { repository, ..desk.remote("other.git") };
    desk.fetch_so_much(&remote, lone, &[], Extent::Trees).await.expect("a fetch");
    assert_eq!(desk.fetch(&remote, lone, &[]).await.expect("a fetch").objects, TREES + 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn compacting_keeps_the_contents_that_are_here_and_passes_over_the_others() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let first = populate(&repository, 40);
    let remote = desk.remote("r.git");
    desk.fetch_so_much(&remote, first, &[], Extent::Trees).await.expect("a fetch");
    let blobs = blobs(&desk, &remote, first).await;
    let (here, absent) = blobs.split_at(10);
    desk.git.fetch_blobs(&remote, here).await.expect("a fetch");
    let head = repository.commit("main", &[("d0/f0", None)]);
    desk.fetch_so_much(&remote, head, &[first], Extent::Trees).await.expect("a fetch");
    desk.git.compact(&remote.repository, &keep(&[head])).await.expect("compacted");
    assert_eq!(desk.git.absent_blobs(&remote, absent).await.expect("an answer"), absent);
    assert_eq!(desk.git.absent_blobs(&remote, here).await.expect("an answer"), here[..1], "nobody needs it");
    assert_eq!(desk.changes(&remote, &sync(None, head)).await.expect("a list").len(), 39);
    assert!(is_sound(&desk.mirror(), head));
    assert_eq!(promisors(&desk.mirror()).len(), 1);
    let next = repository.commit("main", &[("d1/f1", None)]);
    let report = desk.fetch_so_much(&remote, next, &[head], Extent::Trees).await.expect("a fetch");
    assert_eq!(report.objects, 3, "what was compacted still counts as here");

    desk.git.fetch_blobs(&remote, absent).await.expect("a fetch");
    desk.git.compact(&remote.repository, &keep(&[head])).await.expect("compacted");
    assert!(promisors(&desk.mirror()).is_empty(), "nothing lacks: the mirror is whole again");
    assert!(is_sound(&desk.mirror(), head));
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_are_lost_are_damage_also_in_a_partial_mirror() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = populate(&repository, 40);
    let remote = desk.remote("r.git");
    desk.fetch_so_much(&remote, held, &[], Extent::Trees).await.expect("a fetch");
    let lost = promisors(&desk.mirror()).remove(0);
    let head = repository.commit("main", &[("d0/f0", None)]);
    desk.fetch_so_much(&remote, head, &[held], Extent::Trees).await.expect("a fetch");
    drop(desk.git);
    for extension in ["idx", "pack", "promisor"] {
        fs::remove_file(lost.with_extension(extension)).expect("removable");
    }
    let git = engine(engine_settings(), &desk.data);
    assert!(matches!(
        git.window(&remote, &sync(None, head), &Seek::Position(0), 100).await,
        Err(GitError::Missing(_))
    ));
    assert!(git.compact(&remote.repository, &keep(&[head])).await.is_err(), "nothing is thrown away");
    let order = FetchOrder { wants: vec![head], haves: vec![held], depth: 1, extent: Extent::Trees };
    git.fetch(&remote, &order).await.expect("a fetch");
    let changes = git.window(&remote, &sync(None, head), &Seek::Position(0), 100).await.expect("a list");
    assert_eq!(changes.len(), 39);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_depends_on_sizes_brings_what_it_must_know_at_once() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let sizes = |_| {
        (1..=30)
            .map(|file| (format!("f{file}").into_bytes(), Some(("100644", noise(file, file * 100)))))
            .collect()
    };
    let head = repository.commits("main", 1, sizes)[0];
    let remote = desk.remote("r.git");
    desk.fetch_so_much(&remote, head, &[], Extent::Trees).await.expect("a fetch");
    let view = |max| View::new(vec!["f*".into()], vec![], false, ContentRule::Inline, max).expect("valid");
    let end = |max| TreeEnd { commit: head, view: view(max) };
    let spec = RoundSpec { held: Some(end(1_000)), target: Some(end(2_000)), ..sync(None, head) };
    desk.host.take_seen();
    let plan = desk.git.plan(&remote, &spec, &[]).await.expect("a plan");
    assert_eq!(
        (plan.summary.updates, plan.summary.total()),
        (10, 10),
        "of more than 1,000 bytes up to 2,000"
    );
    assert_eq!(desk.host.take_seen().len(), 1);
    assert_eq!(desk.changes(&remote, &spec).await.expect("a list").len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_shallow_commits_that_cannot_be_read_is_not_taken_for_empty() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = populate(&repository, 20);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    let head = repository.commit("main", &[("new", Some(("100644", b"new")))]);
    let list = desk.mirror().join("shallow");
    fs::remove_file(&list).expect("removable");
    fs::create_dir(&list).expect("writable");
    let error = desk.fetch(&remote, head, &[held]).await.expect_err("unreadable");
    assert!(matches!(error, GitError::Storage(_)), "{error}");
    assert!(desk.git.compact(&remote.repository, &keep(&[held])).await.is_err());
    fs::remove_dir(&list).expect("removable");
    fs::write(&list, "not a commit\n").expect("writable");
    let report = desk.fetch(&remote, head, &[held]).await.expect("begun again");
    assert_eq!(report.objects, TREES + 21, "a damaged list is damage");
    assert_eq!(fs::read_to_string(&list).expect("a list").trim(), head.to_string());
}
