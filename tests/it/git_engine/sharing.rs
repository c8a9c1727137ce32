//! Two engines over one directory of mirrors, as replicas that share a volume: one writer at a time, and
//! whatever the other one does, reads go on.

use std::collections::BTreeMap;

use tidings_actors::ports::Walk;

use super::*;
use crate::support::{git_host::Fault, repository::git_command};

/// Two engines of their own processes, as far as they can tell.
struct Pair {
    one: Desk,
    other: Git,
    settings: GitSettings,
    mirrors: TempDir,
}

impl Pair {
    async fn new() -> Self {
        let mirrors = tempfile::tempdir().expect("a temporary folder");
        let settings = GitSettings {
            mirrors_dir: Some(mirrors.path().to_owned()),
            host_concurrency: 20,
            ..engine_settings()
        };
        let one = Desk::with(settings.clone()).await;
        let other = engine(settings.clone(), &one.data);
        Self { one, other, settings, mirrors }
    }

    /// Another process, that far ahead of the others.
    fn later(&self, by: Duration) -> Git {
        let now = Timestamp(StoppedClock.now().0 + i64::try_from(by.as_millis()).expect("minutes"));
        engine_at(self.settings.clone(), &self.one.data, Arc::new(Moment(now)))
    }

    /// What begins so, in the directory of mirrors or in a mirror.
    fn named(&self, beginning: &str) -> Vec<PathBuf> {
        let entries = |path: &std::path::Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let mirrors = entries(self.mirrors.path());
        let within: Vec<_> = mirrors.iter().flat_map(|mirror| entries(mirror)).collect();
        let is_so = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().contains(beginning);
        mirrors.into_iter().chain(within).filter(is_so).collect()
    }
}

struct Moment(Timestamp);

impl Clock for Moment {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Commits of one more file each.
fn files(pair: &Pair, count: usize) -> Vec<ObjectId> {
    pair.one.host.repository("r.git").commits("main", count, |number| {
        vec![(format!("f{number}").into(), Some(("100644", format!("content {number}\n").into())))]
    })
}

fn order(want: ObjectId, haves: &[ObjectId]) -> FetchOrder {
    FetchOrder { wants: vec![want], haves: haves.to_vec(), depth: 1, extent: Extent::Whole }
}

async fn read(git: &Git, remote: &Remote, commit: ObjectId) -> usize {
    let changes = git.window(remote, &sync(None, commit), &Seek::Position(0), usize::MAX).await;
    let changes = changes.expect("a list");
    for change in &changes {
        git.content(remote, change.new.expect("created").blob, 1 << 20).await.expect("a content");
    }
    changes.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_fetched_another_reads_and_fetches_no_more() {
    let pair = Pair::new().await;
    let commits = files(&pair, 3);
    let remote = pair.one.remote("r.git");
    assert!(pair.one.fetch(&remote, commits[0], &[]).await.expect("a fetch").objects > 0);
    let order = order(commits[0], &[]);
    let report = in_time(pair.other.fetch(&remote, &order)).await.expect("a fetch");
    assert_eq!((report.objects, report.bytes), (0, 0), "it was here");
    assert_eq!(read(&pair.other, &remote, commits[0]).await, 1);
    assert!(!pair.one.data.path().join("mirrors").exists(), "mirrors lie where the settings say");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_one_process_rebuilds_and_empties_is_read_by_the_other_all_the_time() {
    let pair = Pair::new().await;
    let commits = files(&pair, 12);
    let remote = pair.one.remote("r.git");
    for at in 0..commits.len() {
        pair.one.fetch(&remote, commits[at], &commits[at.saturating_sub(1)..at]).await.expect("a fetch");
    }
    let head = commits[11];
    assert_eq!(read(&pair.other, &remote, head).await, 12);
    let rebuilt = pair.one.git.compact(&remote.repository, &keep(&[head])).await.expect("rebuilt");
    assert_eq!(rebuilt.packs, 1);
    assert_eq!(read(&pair.other, &remote, head).await, 12);

    // What was replaced is still there for readers that have it open, takes no part, and goes later.
    assert_eq!(pair.named("leaving-").len(), 1);
    let measured = pair.other.mirror(&remote.repository).await.expect("measured").expect("a mirror");
    assert_eq!(measured, rebuilt);
    pair.later(Duration::from_mins(9)).sweep(Some(&remote.repository)).await.expect("swept");
    assert_eq!(pair.named("leaving-").len(), 1);
    let later = pair.later(Duration::from_mins(11));
    in_time(async {
        // The process that rebuilt it may be giving its turn back at this moment.
        while !pair.named("leaving-").is_empty() {
            later.sweep(Some(&remote.repository)).await.expect("swept");
        }
    })
    .await;
    let measured = pair.other.mirror(&remote.repository).await.expect("measured").expect("a mirror");
    assert_eq!(measured, rebuilt, "what had left did not count");
    assert_eq!(read(&pair.other, &remote, head).await, 12);

    // Contents that one dropped to make room come back for the other when it needs them.
    let empty = Keep { blobs: false, ..keep(&[head]) };
    pair.one.git.compact(&remote.repository, &empty).await.expect("emptied");
    let spec = sync(None, head);
    let window = pair.other.window(&remote, &spec, &Seek::Position(0), usize::MAX).await.expect("a list");
    let blob = window[0].new.expect("created").blob;
    let missing = pair.other.content(&remote, blob, 1_000).await.expect_err("dropped");
    assert!(matches!(missing, GitError::Missing(_)), "{missing}");
    let brought = pair.other.fetch_blobs(&remote, &[blob]).await.expect("fetched");
    assert_eq!(brought.fetched.objects, 1);
    pair.one.git.content(&remote, blob, 1_000).await.expect("here again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_one_process_removes_is_begun_anew_by_the_other() {
    let pair = Pair::new().await;
    let commits = files(&pair, 2);
    let remote = pair.one.remote("r.git");
    in_time(pair.other.fetch(&remote, &order(commits[0], &[]))).await.expect("a fetch");
    pair.one.git.remove_mirror(&remote.repository).await.expect("removed");
    assert_eq!(pair.one.git.mirror(&remote.repository).await.expect("measured"), None);
    assert!(pair.named(".lock").is_empty(), "a lock goes with its mirror");
    let report = in_time(pair.other.fetch(&remote, &order(commits[0], &[]))).await.expect("a fetch");
    assert!(report.objects > 0, "nothing of it is here, whatever was known of it");
    assert_eq!(read(&pair.one.git, &remote, commits[0]).await, 1);
    pair.later(Duration::from_mins(11)).sweep(None).await.expect("swept");
    assert!(pair.named(".damaged-").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_knows_of_a_mirror_ends_where_the_other_wrote() {
    let pair = Pair::new().await;
    let commits = files(&pair, 1);
    let remote = pair.one.remote("r.git");
    in_time(pair.other.fetch(&remote, &order(commits[0], &[]))).await.expect("a fetch");
    // Begun again with the bare commit: the other one saw all of it here, once.
    pair.one.git.remove_mirror(&remote.repository).await.expect("removed");
    pair.one.fetch_so_much(&remote, commits[0], &[], Extent::Commit).await.expect("a fetch");
    let report = in_time(pair.other.fetch(&remote, &order(commits[0], &[]))).await.expect("a fetch");
    assert!(report.objects > 0, "its trees are lacking");
    assert_eq!(read(&pair.other, &remote, commits[0]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_two_writers_lost_does_not_make_a_history_look_rewritten() {
    let desk = Desk::new().await;
    let commits = desk
        .host
        .repository("r.git")
        .commits("main", 9, |number| vec![(b"f".to_vec(), Some(("100644", format!("{number}").into())))]);
    let remote = desk.remote("r.git");
    // Of the two lines the one that says that nothing lies behind the head; then all of them, damaged.
    for lines in [format!("{}\n", commits[0]), "nonsense\n".to_owned()] {
        desk.git.remove_mirror(&remote.repository).await.expect("removed");
        desk.fetch(&remote, commits[8], &[]).await.expect("a fetch");
        desk.fetch(&remote, commits[0], &[]).await.expect("a fetch");
        std::fs::write(desk.mirror().join("shallow"), lines).expect("written");
        let walk = desk.git.walk(&remote, commits[8], commits[0], 100).await.expect("walked");
        assert_eq!(walk, Walk::Reached(commits[1..].to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_written_again_stays_where_others_read_it() {
    use std::os::unix::fs::MetadataExt;

    let pair = Pair::new().await;
    let commits = files(&pair, 3);
    let remote = pair.one.remote("r.git");
    pair.one.fetch(&remote, commits[2], &[]).await.expect("a fetch");
    let packs = || {
        let packs = pair.mirrors.path().join(remote.repository.as_str()).join("objects/pack");
        let files = std::fs::read_dir(packs).expect("a directory").flatten();
        files
            .map(|file| (file.file_name(), file.metadata().expect("there").ino()))
            .collect::<BTreeMap<_, _>>()
    };
    pair.one.git.compact(&remote.repository, &keep(&commits[2..])).await.expect("rebuilt");
    let before = packs();
    pair.one.git.compact(&remote.repository, &keep(&commits[2..])).await.expect("rebuilt");
    assert_eq!(packs(), before, "the same files, not others of the same names");
    assert_eq!(read(&pair.other, &remote, commits[2]).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_turn_while_a_pack_arrived_makes_nothing_of_it_visible() {
    let pair = Pair::new().await;
    let commits = files(&pair, 1);
    let remote = pair.one.remote("r.git");
    pair.one.host.set_fault(Some(Fault::Drip(60)));
    let lost = pair.one.fetch(&remote, commits[0], &[]);
    let meanwhile = async {
        let lock = in_time(async {
            loop {
                // It is taken away as by one that waited, once something is on its way.
                if let ([lock], [_]) = (&pair.named(".lock")[..], &pair.named("quarantine-")[..]) {
                    return lock.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let (lock, fresh) = (lock.await, pair.mirrors.path().join("fresh"));
        std::fs::write(&fresh, "another 0\n").expect("written");
        std::fs::rename(fresh, lock).expect("taken away");
    };
    let (lost, ()) = tokio::join!(lost, meanwhile);
    let error = lost.expect_err("another has the turn");
    assert!(matches!(&error, GitError::Storage(text) if text.contains("lost")), "{error}");
    let left = pair.one.git.mirror(&remote.repository).await.expect("measured").expect("a mirror");
    assert_eq!(left.packs, 0);
    pair.one.host.set_fault(None);
    assert!(pair.one.fetch(&remote, commits[0], &[]).await.expect("a fetch").objects > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_fetch_and_rebuild_at_once_leave_a_whole_mirror() {
    const COMMITS: usize = 60;
    let pair = Pair::new().await;
    let commits = files(&pair, COMMITS);
    let remote = pair.one.remote("r.git");
    let run = async |git: &Git, first: usize| {
        for at in (first..COMMITS).step_by(2) {
            let haves = &commits[at.saturating_sub(2)..at];
            git.fetch(&remote, &order(commits[at], haves)).await.expect("a fetch");
            assert_eq!(read(git, &remote, commits[at]).await, at + 1);
            if at % 5 == 0 {
                // Rows name what any of them needs.
                git.compact(&remote.repository, &keep(&commits)).await.expect("rebuilt");
            }
        }
    };
    in_time(async { tokio::join!(run(&pair.one.git, 0), run(&pair.other, 1)) }).await;
    for git in [&pair.one.git, &pair.other] {
        git.fetch(&remote, &order(commits[COMMITS - 1], &[])).await.expect("a fetch");
        assert_eq!(read(git, &remote, commits[COMMITS - 1]).await, COMMITS);
    }
    assert!(pair.named("quarantine-").is_empty(), "nothing is left behind");
    let mirror = pair.mirrors.path().join(remote.repository.as_str());
    let mut check = git_command(&mirror);
    check.args(["fsck", "--connectivity-only", "--no-dangling"]).arg(commits[COMMITS - 1].to_string());
    assert!(check.output().expect("git runs").status.success());
}
