//! Repositories on this machine, read in place.

use super::*;
use crate::support::repository::{Repository, git_command};

fn remote(path: &std::path::Path) -> Remote {
    let repository = RepositoryId::new(Ulid::from_parts(1, 8));
    Remote { repository, location: Location::Local(path.to_owned()), credential: None, apps: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_repository_is_read_in_place_and_never_written() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let one = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let two = repository.commit("main", &[("a", Some(("100644", b"2")))]);
    repository.git(["tag", "-a", "-m", "x", "v1", &one.to_string()]);
    let work = folder.path().join("work");
    let clone = |arguments: &[&str]| {
        let status = git_command(folder.path()).args(arguments).arg(repository.path()).arg(&work).status();
        assert!(status.expect("git runs").success());
    };
    clone(&["clone", "--quiet", "--shared"]);
    let linked = folder.path().join("linked");
    let status = git_command(&work).args(["worktree", "add", "--quiet", "--detach"]).arg(&linked).status();
    assert!(status.expect("git runs").success());
    for path in [repository.path(), work.as_path(), linked.as_path()] {
        let remote = remote(path);
        let listing = desk.list(&remote, &["refs/heads/main", "refs/tags/"]).await.expect("a listing");
        let refs: Vec<_> = listing.refs.iter().map(|one| (one.name.as_str(), one.commit)).collect();
        assert_eq!(refs, [("refs/heads/main", two), ("refs/tags/v1", one)], "{path:?}");
        assert_eq!(desk.fetch(&remote, two, &[one]).await.expect("here"), FetchReport::default());
        assert_eq!(desk.changes(&remote, &sync(Some(one), two)).await.expect("a list").len(), 1);
        let walk = desk.git.walk(&remote, two, one, 10).await.expect("a walk");
        assert_eq!(walk, tidings_actors::ports::Walk::Reached(vec![two]));
        let absent = ObjectId::new([1; 20]);
        let error = desk.fetch(&remote, absent, &[]).await.expect_err("absent");
        assert!(matches!(error, GitError::Unobtainable(id) if id == absent), "{error}");
    }
    assert_eq!(std::fs::read_dir(desk.data.path().join("mirrors")).expect("a folder").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_that_names_no_commit_is_listed_with_what_it_names_as_a_host_does() {
    let desk = Desk::new().await;
    let hosted = desk.host.repository("r.git");
    hosted.commit("main", &[("a", Some(("100644", b"1")))]);
    let (tree, blob) = (hosted.resolve("main^{tree}"), hosted.resolve("main:a"));
    hosted.git(["tag", "--annotate", "--message", "x", "v-blob", &blob.to_string()]);
    hosted.git(["tag", "v-tree", &tree.to_string()]);
    for remote in [desk.remote("r.git"), remote(hosted.path())] {
        let listing = desk.list(&remote, &["refs/tags/"]).await.expect("a listing");
        let tags = listing.refs.iter().filter(|found| found.name.starts_with("refs/tags/"));
        let tags: Vec<_> = tags.map(|found| (found.name.as_str(), found.commit)).collect();
        assert_eq!(tags, [("refs/tags/v-blob", blob), ("refs/tags/v-tree", tree)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_local_repository_has_an_unborn_head() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let listing = desk.list(&remote(repository.path()), &["refs/heads/main"]).await.expect("a listing");
    assert_eq!((listing.head.as_deref(), listing.has_refs), (Some("refs/heads/main"), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_no_repository_is_not_found_and_none_is_read_where_it_is_forbidden() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for path in [folder.path().to_owned(), folder.path().join("absent")] {
        let error = desk.list(&remote(&path), &[]).await.expect_err("nothing there");
        assert!(matches!(error, GitError::NotFound), "{error}");
    }
    let repository = Repository::create(&folder.path().join("r.git"));
    let strict = engine(GitSettings { allow_local: false, ..engine_settings() }, &desk.data);
    let error = strict.list_refs(&remote(repository.path()), &vec![]).await.expect_err("forbidden");
    assert!(matches!(&error, GitError::Refused(why) if why.contains("git.allow_local")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_whose_file_cannot_be_read_is_unknown_and_all_others_are_listed() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let first = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let second = repository.commit("release/1", &[("a", Some(("100644", b"2")))]);
    let file = repository.path().join("refs/heads/release/1");
    let damaged = async |damage: &str| {
        std::fs::write(&file, damage).expect("written");
        let listing = desk.list(&remote(repository.path()), &["refs/heads/"]).await.expect("a listing");
        let refs: Vec<_> = listing.refs.iter().map(|found| (found.name.as_str(), found.commit)).collect();
        assert_eq!(refs, [("refs/heads/main", first)], "{damage:?}");
        assert!(listing.has_refs && listing.is_unseen("refs/heads/release/1"), "neither present nor gone");
        let reason = &listing.unreadable["refs/heads/release/1"];
        assert!(reason.contains("git update-ref -d refs/heads/release/1"), "{reason}");
        let of_main = desk.list(&remote(repository.path()), &["refs/heads/main"]).await.expect("a listing");
        assert!(of_main.unreadable.is_empty(), "nobody asked for the other");
    };
    for damage in ["", "what a power cut left"] {
        damaged(damage).await;
    }
    // Packed, the ref has an older commit there too, which it must not be taken back to.
    std::fs::write(&file, format!("{second}\n")).expect("written");
    repository.git(["pack-refs", "--all"]);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    for damage in ["", "zzz", "\n", "0123456789abcdef0123"] {
        damaged(damage).await;
    }
    // A ref that leads nowhere is none, nor is what a file manager leaves.
    std::fs::write(repository.path().join("refs/heads/.DS_Store"), b"\0\0\0\x01Bud1").expect("written");
    std::fs::write(repository.path().join("refs/heads/dangling"), "ref: refs/heads/nowhere\n")
        .expect("written");
    std::fs::write(&file, format!("{second}\n")).expect("written");
    let listing = desk.list(&remote(repository.path()), &["refs/heads/"]).await.expect("a listing");
    assert_eq!((listing.refs.len(), listing.unreadable.len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_a_device_or_a_huge_file_in_a_local_repository_is_named_and_not_read() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    repository.commit("main", &[("a", Some(("100644", b"1")))]);
    for name in ["refs/heads/odd", "packed-refs", "config", "HEAD", "objects/info/alternates"] {
        let path = repository.path().join(name);
        let kept = std::fs::read(&path).ok();
        for odd in ["pipe", "device", "huge"] {
            drop(std::fs::remove_file(&path));
            match odd {
                "pipe" => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status();
                    assert!(made.expect("mkfifo runs").success());
                }
                "device" => std::os::unix::fs::symlink("/dev/zero", &path).expect("linked"),
                _ => std::fs::File::create(&path).and_then(|file| file.set_len(3 << 30)).expect("made"),
            }
            let remote = remote(repository.path());
            let listed = desk.list(&remote, &["refs/heads/main"]);
            let listed = tokio::time::timeout(std::time::Duration::from_secs(20), listed).await;
            let error = listed.expect("no read that lasts").expect_err("not readable");
            let place = path.file_name().expect("a name").to_str().expect("text");
            assert!(error.to_string().contains(&format!("{place} cannot be read: it ")), "{odd}: {error}");
        }
        std::fs::remove_file(&path).expect("removed");
        if let Some(content) = kept {
            std::fs::write(&path, content).expect("written");
        }
    }
    let listing = desk.list(&remote(repository.path()), &["refs/heads/main"]).await.expect("a listing");
    assert_eq!(listing.refs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_a_symbolic_link_names_its_branch() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let head = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    std::fs::remove_file(repository.path().join("HEAD")).expect("removed");
    std::os::unix::fs::symlink("refs/heads/main", repository.path().join("HEAD")).expect("linked");
    let listing = desk.list(&remote(repository.path()), &["refs/heads/main"]).await.expect("a listing");
    assert_eq!(listing.head.as_deref(), Some("refs/heads/main"));
    assert_eq!(listing.refs.first().map(|found| found.commit), Some(head));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reftable_is_refused_with_the_way_around() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    repository.config("core.repositoryformatversion", "1");
    repository.config("extensions.refStorage", "reftable");
    let error = desk.list(&remote(repository.path()), &[]).await.expect_err("not readable");
    assert!(error.to_string().contains("git refs migrate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refs_whose_objects_are_away_are_listed_and_the_listing_is_another_one() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let first = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let second = repository.commit("release/1", &[("a", Some(("100644", b"2")))]);
    let (disk, elsewhere) = (folder.path().join("disk"), folder.path().join("elsewhere"));
    repository.keep_objects_at(&disk);
    let remote = remote(repository.path());
    let there = desk.list(&remote, &["refs/heads/"]).await.expect("a listing");
    assert!(there.dangling.is_empty());
    std::fs::rename(&disk, &elsewhere).expect("unmounted");
    let away = desk.list(&remote, &["refs/heads/"]).await.expect("a listing");
    assert_eq!(away.refs, there.refs, "no ref is gone");
    assert_eq!(away.dangling, [first, second].into());
    assert_ne!(away.digest(), there.digest(), "a calm source is looked at again");
    let error = desk.fetch(&remote, first, &[]).await.expect_err("it is away");
    assert!(matches!(error, GitError::Unobtainable(id) if id == first), "{error}");
    std::fs::rename(&elsewhere, &disk).expect("mounted");
    let back = desk.list(&remote, &["refs/heads/"]).await.expect("a listing");
    assert_eq!(back.digest(), there.digest());
}
