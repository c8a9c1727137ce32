//! Bringing objects, and what it costs.

use tidings_actors::ports::{Content, Walk};

use super::*;
use crate::support::{git_host::Fault, repository::Repository};

fn lines(number: usize) -> Vec<u8> {
    (0..200)
        .map(|line| format!("{number} {line} {}\n", number.wrapping_mul(7919 + line)))
        .collect::<String>()
        .into()
}

/// A repository with this many files in ten folders.
fn populate(repository: &Repository, files: usize) -> ObjectId {
    let tree = |_| {
        (0..files)
            .map(|file| (format!("d{}/f{file}", file % 10).into_bytes(), Some(("100644", lines(file)))))
            .collect()
    };
    repository.commits("main", 1, tree)[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_fetch_brings_everything_and_the_list_names_it() {
    for version_0 in [false, true] {
        let desk = Desk::new().await;
        if version_0 {
            desk.host.speak_version_0();
        }
        let repository = desk.host.repository("r.git");
        let head = populate(&repository, 40);
        let remote = desk.remote("r.git");
        let report = desk.fetch(&remote, head, &[]).await.expect("a fetch");
        assert_eq!(report.objects, 40 + 10 + 1 + 1);
        let changes = desk.changes(&remote, &sync(None, head)).await.expect("a list");
        assert_eq!(changes.len(), 40);
        let blob = changes[0].new.expect("a create").blob;
        let Content::Whole(bytes) = desk.git.content(&remote, blob, 1 << 20).await.expect("content") else {
            panic!("small enough")
        };
        assert_eq!(bytes, lines(0));
        assert!(matches!(
            desk.git.content(&remote, blob, 10).await.expect("content"),
            Content::TooLarge { size } if size == bytes.len() as u64
        ));
        let facts = desk.git.commit(&remote, head).await.expect("facts");
        assert_eq!(
            (facts.author.as_str(), facts.subject.as_str()),
            ("Ada <ada@example.org>", "Commit 1700000000")
        );
        assert_eq!(desk.fetch(&remote, head, &[]).await.expect("nothing to do"), FetchReport::default());
        let checked =
            crate::support::repository::git_command(&desk.mirror()).args(["fsck", "--full"]).output();
        let checked = checked.expect("git runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new().await;
    let head = populate(&desk.host.repository("r.git"), 1);
    desk.fetch(&desk.remote("r.git"), head, &[]).await.expect("a fetch");
    for folder in [desk.mirror(), desk.data.path().join("mirrors")] {
        assert_eq!(folder.metadata().expect("there").permissions().mode() & 0o777, 0o700, "{folder:?}");
    }
}

/// What the difference weighs when git itself packs it.
fn weight(repository: &Repository, held: ObjectId, target: ObjectId) -> u64 {
    let tree = |commit| format!("{commit}^{{tree}}");
    let wanted = format!("{target}\n");
    let listed =
        repository.git(["rev-list", "--objects", "--no-object-names", &tree(target), "--not", &tree(held)]);
    let pack = repository
        .git_bytes(["pack-objects", "--stdout", "--quiet"], format!("{listed}\n{wanted}").as_bytes());
    pack.len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_three_files_costs_one_request_and_a_few_kilobytes() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = populate(&repository, 200);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    let edited: Vec<_> = (0..3)
        .map(|file| {
            let mut content = lines(file);
            content.extend_from_slice(b"one more line\n");
            (format!("d{file}/f{file}").into_bytes(), Some(("100644", content)))
        })
        .collect();
    let pushed = repository.commits("main", 1, |_| edited.clone())[0];

    desk.host.take_seen();
    let report = desk.fetch(&remote, pushed, &[held]).await.expect("a fetch");
    let seen = desk.host.take_seen();
    assert_eq!(report.objects, 1 + 1 + 3 + 3, "commit, root, three folders, three files");
    assert_eq!(seen.len(), 1, "{seen:?}");
    let bytes = seen[0].sent + seen[0].answered;
    println!("{bytes} bytes of bodies for three changed files");
    assert!(bytes <= 6_000, "{seen:?}");
    assert_eq!(desk.changes(&remote, &sync(Some(held), pushed)).await.expect("a list").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_of_an_old_branch_and_a_force_push_cost_what_differs() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let root = populate(&repository, 200);
    repository.git(["update-ref", "refs/heads/side", &root.to_string()]);
    let trunk = |number: usize| {
        vec![(format!("d{}/f{number}", number % 10).into_bytes(), Some(("100644", lines(900 + number))))]
    };
    let held = *repository.commits("main", 100, trunk).last().expect("100 commits");
    repository.commit("side", &[("side", Some(("100644", b"side")))]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");

    let merged = repository.commit_on(
        "main",
        &["refs/heads/main", "refs/heads/side"],
        &[("side", Some(("100644", b"side")))],
    );
    let report = desk.fetch(&remote, merged, &[held]).await.expect("a fetch");
    let weight_of_merge = weight(&repository, held, merged);
    assert_eq!(report.objects, 3, "commit, root tree, one file");
    assert!(report.bytes <= 2 * weight_of_merge, "{report:?}, the difference weighs {weight_of_merge}");

    repository.git(["update-ref", "refs/heads/main", &root.to_string()]);
    let forced = repository.commit("main", &[("d1/forced", Some(("100644", b"forced")))]);
    let report = desk.fetch(&remote, forced, &[merged]).await.expect("a fetch");
    let weight_of_force = weight(&repository, merged, forced);
    assert!(report.bytes <= 2 * weight_of_force, "{report:?}, the difference weighs {weight_of_force}");
    let expected = 100 + 1 + 1;
    assert_eq!(desk.changes(&remote, &sync(Some(merged), forced)).await.expect("a list").len(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_blob_can_be_fetched_by_its_id() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    repository.commit("main", &[("a", Some(("100644", b"wanted")))]);
    let blob = repository.resolve("main:a");
    let remote = desk.remote("r.git");
    let error = desk.git.content(&remote, blob, 100).await.expect_err("not here yet");
    assert!(matches!(error, GitError::Missing(id) if id == blob), "{error}");
    desk.fetch(&remote, blob, &[]).await.expect("a fetch");
    assert!(
        matches!(desk.git.content(&remote, blob, 100).await, Ok(Content::Whole(bytes)) if bytes == "wanted")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_does_not_have_is_obtainable_nowhere() {
    for version_0 in [false, true] {
        let desk = Desk::new().await;
        if version_0 {
            desk.host.speak_version_0();
        }
        let repository = desk.host.repository("r.git");
        let head = repository.commit("main", &[("a", Some(("100644", b"1")))]);
        let remote = desk.remote("r.git");
        let absent = ObjectId::new([0xab; 20]);
        let error = desk.fetch(&remote, absent, &[]).await.expect_err("nobody has it");
        assert!(matches!(error, GitError::Unobtainable(id) if id == absent), "{error}");
        desk.fetch(&remote, head, &[absent]).await.expect("a have that is not here is not said");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_have_that_the_host_no_longer_knows_does_no_harm() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = repository.commit("main", &[("a", Some(("100644", b"1"))), ("b", Some(("100644", b"2")))]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    repository.git(["update-ref", "-d", "refs/heads/main"]);
    repository.git(["reflog", "expire", "--expire=now", "--all"]);
    repository.git(["gc", "--quiet", "--prune=now"]);
    assert_eq!(repository.find(&format!("{held}^{{commit}}")), None, "the host has forgotten it");
    let head = repository.commit("main", &[("a", Some(("100644", b"3")))]);
    desk.fetch(&remote, head, &[held]).await.expect("a fetch");
    let changes = desk.changes(&remote, &sync(Some(held), head)).await.expect("a list");
    let shown: Vec<_> =
        changes.iter().map(|change| (change.operation.as_str(), change.path.as_slice())).collect();
    assert_eq!(shown, [("delete", &b"b"[..]), ("update", b"a")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_refuses_what_is_here_is_asked_for_everything() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let held = populate(&repository, 20);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    let head = repository.commit("main", &[("new", Some(("100644", b"new")))]);
    desk.host.set_fault(Some(Fault::RefusesHaves));
    assert!(desk.fetch(&remote, head, &[held]).await.expect("a fetch").objects > 30);
    assert_eq!(desk.changes(&remote, &sync(Some(held), head)).await.expect("a list").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_wrongly_believes_to_be_here_is_asked_for_again() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let file = Some(("100644", &b"comes back"[..]));
    repository.commit("main", &[("a", Some(("100644", b"1"))), ("back", file)]);
    let held = repository.commit("main", &[("back", None)]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    // Without this list the host takes everything behind `held` for being here.
    std::fs::remove_file(desk.mirror().join("shallow")).expect("removable");
    let head = repository.commit("main", &[("back", file)]);
    desk.fetch(&remote, head, &[held]).await.expect("a fetch");
    let blob = repository.resolve("main:back");
    assert!(
        matches!(desk.git.content(&remote, blob, 100).await, Ok(Content::Whole(bytes)) if bytes == "comes back")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_while_fetches_and_compactions_replace_what_they_read() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let first = populate(&repository, 30);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, first, &[]).await.expect("a fetch");
    let truth = desk.changes(&remote, &sync(None, first)).await.expect("a list");
    let done = std::sync::atomic::AtomicBool::new(false);
    let read = async {
        let mut rounds = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) || rounds < 10 {
            for change in &truth {
                let blob = change.new.expect("a create").blob;
                let content = desk.git.content(&remote, blob, 1 << 20).await;
                assert!(matches!(content, Ok(Content::Whole(_))), "{content:?}");
            }
            rounds += 1;
        }
    };
    let replace = async {
        let mut held = first;
        for number in 0..8 {
            let head = repository.commit("main", &[("n", Some(("100644", number.to_string().as_bytes())))]);
            desk.fetch(&remote, head, &[held]).await.expect("a fetch");
            desk.git.compact(&remote.repository, &keep(&[first, head])).await.expect("compacted");
            held = head;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    in_time(async { tokio::join!(read, read_twice(&desk, &remote, &truth), replace) }).await;
}

async fn read_twice(desk: &Desk, remote: &Remote, truth: &[Change]) {
    for change in truth.iter().chain(truth) {
        let blob = change.new.expect("a create").blob;
        desk.git.content(remote, blob, 1 << 20).await.expect("content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn walking_back_deepens_stepwise_and_says_how_it_ended() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let commits = repository.commits("main", 130, |number| {
        vec![(b"a".to_vec(), Some(("100644", number.to_string().into_bytes())))]
    });
    let (held, head) = (commits[9], commits[129]);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, held, &[]).await.expect("a fetch");
    desk.fetch(&remote, head, &[held]).await.expect("a fetch");
    desk.host.take_seen();
    let walk = |held, limit| desk.git.walk(&remote, head, held, limit);
    assert_eq!(walk(held, 1_000).await.expect("a walk"), Walk::Reached(commits[10..].to_vec()));
    assert_eq!(desk.host.take_seen().len(), 3, "50, 100, 200");
    assert_eq!(walk(held, 120).await.expect("a walk"), Walk::Reached(commits[10..].to_vec()));
    assert_eq!(walk(held, 119).await.expect("a walk"), Walk::LimitReached);
    assert_eq!(walk(commits[128], 1).await.expect("a walk"), Walk::Reached(vec![head]));
    assert_eq!(walk(head, 5).await.expect("a walk"), Walk::Reached(vec![]));
    assert_eq!(walk(ObjectId::new([9; 20]), 1_000).await.expect("a walk"), Walk::Rewritten);
    // Each walked commit can be a target now.
    for pair in commits[9..].windows(2) {
        assert_eq!(desk.fetch(&remote, pair[1], &[pair[0]]).await.expect("here"), FetchReport::default());
        assert_eq!(desk.changes(&remote, &sync(Some(pair[0]), pair[1])).await.expect("a list").len(), 1);
    }
}

/// How long a process that has just started takes to see that all branches of a mirror are there.
async fn look_after_a_start(branches: usize) -> Duration {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let who = "A <a@example.org> 1700000000 +0000";
    let mut stream = format!("commit refs/heads/main\nmark :1\ncommitter {who}\ndata 3\none\n");
    for file in 0..20 {
        stream.push_str(&format!("M 644 inline shared/f{file:02}\ndata 2\n{file:02}\n"));
    }
    for branch in 0..branches {
        stream.push_str(&format!(
            "commit refs/heads/b{branch:05}\ncommitter {who}\ndata 3\ntwo\nfrom :1\n\
             M 644 inline own\ndata 5\n{branch:05}\n"
        ));
    }
    repository.import(stream.as_bytes());
    let named = repository.git(["for-each-ref", "--format=%(objectname)", "refs/heads/b*"]);
    let wants: Vec<ObjectId> = named.lines().map(|id| id.parse().expect("an id")).collect();
    assert_eq!(wants.len(), branches);
    let (remote, depth, extent) = (desk.remote("r.git"), 1, Extent::Whole);
    let order = FetchOrder { wants: wants.clone(), haves: Vec::new(), depth, extent };
    desk.git.fetch(&remote, &order).await.expect("a first fetch");
    let started = engine(engine_settings(), &desk.data);
    let order = FetchOrder { haves: wants.clone(), wants, depth, extent };
    let began = std::time::Instant::now();
    let outcome = started.fetch_each(&remote, &order).await.expect("all of them are there");
    assert_eq!((outcome.cost.objects, outcome.refused.len(), outcome.untried.len()), (0, 0, 0));
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_look_after_a_start_takes_as_long_as_there_are_branches_and_not_their_square() {
    let (few, many) = (look_after_a_start(200).await, look_after_a_start(2_000).await);
    println!("200 branches after {few:?}, 2,000 after {many:?}");
    assert!(many < few * 40 + Duration::from_secs(3), "200 after {few:?}, 2,000 after {many:?}");
}
