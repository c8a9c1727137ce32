//! Asking which commits refs name.

use tidings_actors::ports::GitError;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_poll_is_one_small_request_at_one_ref_and_at_many() {
    for refs in [0, 100_000] {
        let desk = Desk::new().await;
        let repository = desk.host.repository("r.git");
        let commit = repository.commit("main", &[("a", Some(("100644", b"1")))]);
        repository.many_refs(refs, commit);
        let remote = desk.remote("r.git");
        let first = desk.list(&remote, &["refs/heads/main"]).await.expect("a listing");
        assert_eq!(first.refs.len(), 1, "prefixes match more than what was asked for");
        assert_eq!((first.refs[0].commit, first.head.as_deref()), (commit, Some("refs/heads/main")));
        desk.host.take_seen();
        assert_eq!(desk.list(&remote, &["refs/heads/main"]).await.expect("a listing"), first);
        let seen = desk.host.take_seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].sent + seen[0].answered <= 400, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_same_bytes_is_not_read_again_unless_it_comes_from_another_address() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("o/old");
    repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = desk.remote("o/old");
    let patterns = vec!["refs/heads/main".to_owned()];
    let unless = async |known: Option<_>| {
        let known = known.expect("a listing of one answer");
        desk.git.list_refs_unless(&remote, &patterns, known).await.expect("an answer")
    };
    let first = desk.list(&remote, &["refs/heads/main"]).await.expect("a listing");
    let connections = desk.host.connections();
    for _ in 0..20 {
        assert_eq!(unless(first.answer).await, None);
    }
    let opened = desk.host.connections() - connections;
    assert!(opened < 5, "an answer that is left out is still read to its end: {opened} were opened");
    // A host answers with all refs that begin with the name.
    repository.commit("main-2", &[("a", Some(("100644", b"2")))]);
    let beside = unless(first.answer).await.expect("other bytes");
    assert!(beside.answer != first.answer && beside.digest() == first.digest());
    assert_eq!(unless(beside.answer).await, None);
    let moved = repository.commit("main", &[("a", Some(("100644", b"3")))]);
    let listing = unless(beside.answer).await.expect("other bytes");
    assert_eq!(listing.refs[0].commit, moved);
    // The same refs at another address: the listing says that the repository moved.
    let copy = repository.path().with_file_name("new");
    let copied = std::process::Command::new("cp").arg("-r").arg(repository.path()).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    let new = desk.host.url("o/new").to_string();
    desk.host.rename("o/old", &new);
    let renamed = unless(listing.answer).await.expect("it moved");
    assert_eq!((renamed.moved_to, renamed.refs), (Some(new), listing.refs));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_several_answers_and_version_0_are_read_at_each_poll() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("many");
    let commit = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    repository.many_refs(20_000, commit);
    desk.host.repository("none");
    let many = desk.list(&desk.remote("many"), &["refs/heads/", "refs/tags/"]).await.expect("a listing");
    assert!(many.answer.is_none() && many.refs.len() > 20_000, "{} refs", many.refs.len());
    let none = desk.list(&desk.remote("none"), &["refs/heads/main"]).await.expect("a listing");
    assert!(none.answer.is_none() && !none.has_refs);
    desk.host.speak_version_0();
    let git = engine(engine_settings(), &desk.data);
    let main = vec!["refs/heads/main".to_owned()];
    let listing = git.list_refs(&desk.remote("many"), &main).await.expect("a listing");
    assert!(listing.answer.is_none() && listing.refs.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_poll_writes_nothing_into_the_mirror_and_opens_no_connection() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let commit = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = desk.remote("r.git");
    desk.list(&remote, &["refs/heads/main"]).await.expect("a listing");
    desk.fetch(&remote, commit, &[]).await.expect("a fetch");
    let (before, connections) = (files_below(&desk.mirror()), desk.host.connections());
    for _ in 0..20 {
        let listing = desk.list(&remote, &["refs/heads/main"]).await.expect("a listing");
        let report = desk.fetch(&remote, listing.refs[0].commit, &[commit]).await.expect("nothing to do");
        assert_eq!(report, FetchReport::default());
    }
    assert_eq!(files_below(&desk.mirror()), before, "every file and folder is as it was");
    // One that is not back in time, on a busy machine, is opened beside it; each poll opening one is not that.
    let opened = desk.host.connections() - connections;
    assert!(opened < 5, "connections are kept: {opened} were opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_moved_is_found_at_its_new_address_and_nowhere_else() {
    for was_known in [false, true] {
        let desk = Desk::new().await;
        desk.host.demand("x-access-token:the-token");
        let old = desk.with_credential("o/old", "the-token");
        let commit = desk.host.repository("o/new").commit("main", &[("a", Some(("100644", b"1")))]);
        if was_known {
            desk.host.repository("o/old").commit("main", &[("a", Some(("100644", b"1")))]);
            desk.list(&old, &[]).await.expect("a listing");
        }
        let new = desk.host.url("o/new").to_string();
        desk.host.rename("o/old", &new);
        let listing = desk.list(&old, &["refs/heads/main"]).await.expect("the host says where it is");
        assert_eq!((listing.moved_to.as_deref(), listing.refs[0].commit), (Some(new.as_str()), commit));
        desk.fetch(&old, commit, &[]).await.expect("a fetch");
        desk.host.take_seen();
        let again = desk.list(&old, &["refs/heads/main"]).await.expect("a listing");
        assert_eq!(again.moved_to.as_deref(), Some(new.as_str()));
        let seen: Vec<_> = desk.host.take_seen().into_iter().map(|seen| seen.path).collect();
        assert_eq!(seen, ["/o/new/git-upload-pack"], "one request, where it is now");
        let there = desk.list(&desk.with_credential("o/new", "the-token"), &[]).await.expect("a listing");
        assert_eq!(there.moved_to, None, "a client that asks there hears of no move");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_follows_a_repository_to_no_other_host_and_to_nothing_that_is_none() {
    let (desk, other) = (Desk::new().await, Desk::new().await);
    desk.host.repository("o/old").commit("main", &[("a", Some(("100644", b"1")))]);
    other.host.repository("o/new").commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = desk.with_credential("o/old", "the-token");
    desk.list(&remote, &[]).await.expect("a listing");
    let elsewhere = other.host.url("o/new").to_string();
    desk.host.rename("o/old", &elsewhere);
    let error = desk.list(&remote, &[]).await.expect_err("another host");
    assert_eq!(error.code(), "repository_moved");
    assert!(error.to_string().contains(&elsewhere), "it says where to watch it: {error}");
    assert_eq!(other.host.requests(), 0, "nobody is asked there, with a credential or without");
    for nowhere in [desk.host.url("o/missing").to_string(), desk.host.url("o/old").to_string()] {
        desk.host.rename("o/old", &nowhere);
        let before = desk.host.requests();
        let error = desk.list(&remote, &[]).await.expect_err("nothing is there");
        assert_eq!(error.code(), "repository_moved", "{error}");
        assert!(desk.host.requests() - before <= 4, "once, and no further");
    }
}

/// Every file and folder below a folder, with size and time of its last change.
fn files_below(folder: &std::path::Path) -> Vec<(PathBuf, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let facts = std::fs::symlink_metadata(&path).expect("readable");
        if facts.is_dir() {
            open.extend(
                std::fs::read_dir(&path).expect("readable").map(|entry| entry.expect("an entry").path()),
            );
        }
        found.push((path, facts.len(), facts.ctime(), facts.ctime_nsec()));
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_tags_and_missing_branches_are_answered_by_whole_name() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let one = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    let two = repository.commit("main-2", &[("a", Some(("100644", b"2")))]);
    let three = repository.commit("release/1", &[("a", Some(("100644", b"3")))]);
    repository.git(["tag", "-a", "-m", "x", "v1", &one.to_string()]);
    let remote = desk.remote("r.git");
    for version_0 in [false, true] {
        if version_0 {
            desk.host.speak_version_0();
        }
        let git = engine(engine_settings(), &desk.data);
        let patterns = ["refs/heads/gone", "refs/heads/release/", "refs/tags/"].map(str::to_owned);
        let listing = git.list_refs(&remote, &patterns.to_vec()).await.expect("a listing");
        let refs: Vec<_> = listing.refs.iter().map(|one| (one.name.as_str(), one.commit)).collect();
        let expected = [("refs/heads/main", one), ("refs/heads/release/1", three), ("refs/tags/v1", one)];
        assert_eq!(refs, expected, "version 0: {version_0}");
        assert!(listing.has_refs && listing.head.as_deref() == Some("refs/heads/main"));
        let listing = git.list_refs(&remote, &vec!["refs/heads/main-2".to_owned()]).await.expect("a listing");
        assert!(listing.refs.iter().any(|one| one.commit == two));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_names_its_unborn_branch() {
    let desk = Desk::new().await;
    desk.host.repository("r.git");
    let listing = desk.list(&desk.remote("r.git"), &["refs/heads/main"]).await.expect("a listing");
    assert_eq!(listing.head.as_deref(), Some("refs/heads/main"));
    assert!(listing.refs.is_empty() && !listing.has_refs);
}

#[tokio::test(flavor = "multi_thread")]
async fn refs_that_nobody_asked_for_prove_that_a_repository_is_there() {
    for version_0 in [false, true] {
        let desk = Desk::new().await;
        if version_0 {
            desk.host.speak_version_0();
        }
        let repository = desk.host.repository("r.git");
        repository.commit("other", &[("a", Some(("100644", b"1")))]);
        repository.git(["symbolic-ref", "HEAD", "refs/heads/nowhere"]);
        let listing = desk.list(&desk.remote("r.git"), &["refs/heads/gone"]).await.expect("a listing");
        assert!(listing.refs.is_empty() && listing.has_refs, "version 0: {version_0}");
        repository.git(["update-ref", "-d", "refs/heads/other"]);
        let listing = desk.list(&desk.remote("r.git"), &["refs/heads/gone"]).await.expect("a listing");
        assert!(!listing.has_refs, "version 0: {version_0}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_works_without_the_suffix_that_the_repository_has() {
    let desk = Desk::new().await;
    let commit = desk.host.repository("plain.git").commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = desk.remote("plain");
    for _ in 0..2 {
        let listing = desk.list(&remote, &["refs/heads/main"]).await.expect("a listing");
        assert_eq!(listing.refs[0].commit, commit);
    }
    let paths: Vec<_> = desk.host.take_seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths.len(), 3, "what worked is remembered: {paths:?}");
    desk.fetch(&remote, commit, &[]).await.expect("a fetch");
    desk.host.repository("bare");
    let error = desk.list(&desk.remote("bare.git"), &[]).await.expect_err("that may be another one");
    assert!(matches!(error, GitError::NotFound), "{error}");
    let error = desk.list(&desk.remote("absent"), &[]).await.expect_err("absent");
    assert!(matches!(error, GitError::NotFound), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_opens_only_to_its_credential_which_is_never_told() {
    let desk = Desk::new().await;
    let commit = desk.host.repository("r.git").commit("main", &[("a", Some(("100644", b"1")))]);
    desk.host.demand("x-access-token:sesame");
    for remote in [desk.remote("r.git"), desk.with_credential("r.git", "wrong-secret")] {
        let error = desk.list(&remote, &[]).await.expect_err("closed");
        assert!(matches!(error, GitError::Unauthorized), "{error}");
        assert!(!format!("{error:?} {error} {remote:?}").contains("wrong-secret"));
        assert!(matches!(desk.fetch(&remote, commit, &[]).await, Err(GitError::Unauthorized)));
    }
    let remote = desk.with_credential("r.git", "sesame");
    assert_eq!(desk.list(&remote, &[]).await.expect("open").refs[0].commit, commit);
    desk.fetch(&remote, commit, &[]).await.expect("open");
    let seen = desk.host.take_seen();
    let anonymous = seen.iter().filter(|seen| seen.authorization.is_none()).count();
    assert!((1..seen.len()).contains(&anonymous), "who has no credential sends none: {seen:?}");
    assert!(
        seen.iter().all(|seen| !seen.path.contains("sesame") && !seen.body.contains("sesame")),
        "{seen:?}"
    );
    let found = std::process::Command::new("grep").args(["-r", "sesame"]).arg(desk.data.path()).output();
    assert!(found.expect("grep runs").stdout.is_empty(), "the credential is on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_another_object_format_is_refused_by_name() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    std::fs::remove_dir_all(repository.path()).expect("removable");
    std::fs::create_dir_all(repository.path()).expect("writable");
    repository.git(["init", "--quiet", "--bare", "--object-format=sha256", "."]);
    let error = desk.list(&desk.remote("r.git"), &[]).await.expect_err("refused");
    assert!(matches!(error, GitError::UnsupportedObjectFormat), "{error}");
}
