//! Hosts that are broken, slow or hostile: a typed error in time, the mirror as it was, and the
//! next fetch works.

use super::*;
use crate::support::git_host::Fault;

/// The one deadline that ends a fetch from such a host, short enough for a test. All others are longer than the
/// test: a busy machine takes its time to answer, and no answer here is late because of that.
fn impatient(fault: &Fault) -> GitSettings {
    let long = Duration::from_secs(600);
    let mut settings = GitSettings {
        connect_timeout: long,
        read_timeout: long,
        fetch_timeout: long,
        fetch_begin_timeout: long,
        least_rate_window: long,
        fetch_max_objects: 1_000,
        listing_max_bytes: 1 << 20,
        ..engine_settings()
    };
    match fault {
        // The first answer is waited for as long as a connection and a silence may take together.
        Fault::Hang => {
            settings.connect_timeout = Duration::from_secs(2);
            settings.read_timeout = Duration::from_secs(2);
        }
        Fault::Stall => settings.read_timeout = Duration::from_secs(2),
        // A drip is so slow that the pack does not begin.
        Fault::Drip(_) | Fault::ProgressAlone => settings.fetch_begin_timeout = Duration::from_secs(4),
        Fault::ProgressInPack => settings.least_rate_window = Duration::from_secs(1),
        _ => {}
    }
    settings
}

/// Bytes that do not shrink.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_answer_is_a_typed_error_and_the_next_fetch_works() {
    let cases = [
        (Fault::CutInHalf, &["unreachable"][..]),
        (Fault::Hang, &["timeout"]),
        (Fault::Stall, &["timeout"]),
        (Fault::Drip(300), &["timeout"]),
        (Fault::ProgressAlone, &["timeout"]),
        (Fault::ProgressInPack, &["timeout"]),
        (Fault::Html, &["protocol_error"]),
        (Fault::WebPage, &["protocol_error"]),
        (Fault::ObjectCount(900), &["protocol_error"]),
        (Fault::ObjectCount(1), &["protocol_error"]),
        (Fault::ObjectCount(u32::MAX), &["repository_too_large"]),
        (Fault::FlippedBit, &["protocol_error", "unreachable"]),
        (Fault::Status(500, None), &["host_error"]),
        (Fault::Status(302, None), &["redirected"]),
        (Fault::Status(404, None), &["repository_not_found"]),
        (Fault::Status(403, None), &["auth_failed"]),
    ];
    futures_util::future::join_all(cases.map(|(fault, codes)| survives(fault, codes))).await;
}

async fn survives(fault: Fault, codes: &[&str]) {
    {
        let desk = Desk::with(impatient(&fault)).await;
        let repository = desk.host.repository("r.git");
        let held = repository.commit("main", &[("a", Some(("100644", b"1")))]);
        let remote = desk.remote("r.git");
        fetched(&desk, &remote, held, &[]).await;
        let noise = noise(20_000);
        let head = repository.commit("main", &[("b", Some(("100644", noise.as_slice())))]);
        desk.host.set_fault(Some(fault.clone()));
        // Well below the deadline of a fetch: silence and slowness are noticed by themselves.
        let noticed = Duration::from_secs(60);
        let result = tokio::time::timeout(noticed, desk.fetch(&remote, head, &[held])).await;
        let result = result.unwrap_or_else(|_| panic!("{fault:?} is not noticed within {noticed:?}"));
        let error = result.expect_err("a broken answer");
        assert!(codes.contains(&error.code()), "{fault:?}: {}: {error}", error.code());
        if fault == Fault::ProgressAlone {
            assert!(error.to_string().contains("did not begin to arrive"), "progress is no pack: {error}");
        }
        if fault == Fault::ProgressInPack {
            assert!(
                error.to_string().contains("bytes came in"),
                "{fault:?}: the least rate ends it: {error}"
            );
        }
        assert_eq!(desk.changes(&remote, &sync(None, held)).await.expect("as it was").len(), 1);
        assert_eq!(leftovers(&desk), Vec::<String>::new(), "{fault:?}");
        desk.host.set_fault(None);
        fetched(&desk, &remote, head, &[held]).await;
        assert_eq!(desk.changes(&remote, &sync(Some(held), head)).await.expect("a list").len(), 1);
    }
}

/// Fetches from a host that behaves. On a busy machine its answer may come too late for the short times here.
async fn fetched(desk: &Desk, remote: &Remote, want: ObjectId, haves: &[ObjectId]) {
    for _ in 0..5 {
        match desk.fetch(remote, want, haves).await {
            Ok(_) => return,
            Err(GitError::Timeout(_)) => {}
            Err(error) => panic!("a fetch: {error}"),
        }
    }
    panic!("five fetches ended with a timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_of_many_objects_is_taken_in_whole_or_not_at_all() {
    let desk = Desk::with(GitSettings { fetch_max_objects: 10_000, ..engine_settings() }).await;
    let repository = desk.host.repository("r.git");
    let names: Vec<_> = (0..1_500).map(|number| format!("{:02}/{number:04}", number % 40)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), Some(("100644", name.as_bytes())))).collect();
    let head = repository.commit("main", &files);
    let remote = desk.remote("r.git");
    for fault in [Fault::CutInHalf, Fault::FlippedBit] {
        desk.host.set_fault(Some(fault.clone()));
        desk.fetch(&remote, head, &[]).await.expect_err("a broken pack");
        assert_eq!(leftovers(&desk), Vec::<String>::new(), "{fault:?}");
    }
    desk.host.set_fault(None);
    desk.fetch(&remote, head, &[]).await.expect("a whole pack");
    assert_eq!(desk.changes(&remote, &sync(None, head)).await.expect("a list").len(), 1_500);
    assert_eq!(leftovers(&desk), Vec::<String>::new());
}

/// What an interrupted fetch might leave in the mirror.
fn leftovers(desk: &Desk) -> Vec<String> {
    let names = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    let mut all = names(desk.mirror());
    all.extend(names(desk.mirror().join("objects/pack")));
    all.retain(|name| {
        name.starts_with("quarantine")
            || name.starts_with("tmp_")
            || name.starts_with("pack_git2")
            || name.ends_with(".lock")
    });
    all
}

/// Spent until a minute after the clock of the engine.
const SPENT: &[(&str, &str)] = &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111837")];

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_asks_for_patience_is_asked_nothing_with_that_credential_until_then() {
    for (fault, seconds) in [
        (Fault::Status(429, Some("17")), 17),
        (Fault::Status(429, Some("Sun, 06 Nov 1994 08:50:37 GMT")), 60),
        (Fault::Status(429, None), 60),
        (Fault::Status(503, Some("5")), 5),
        (Fault::Headers(403, SPENT), 60),
        (Fault::Headers(429, SPENT), 60),
    ] {
        let desk = Desk::new().await;
        let commit = desk.host.repository("r.git").commit("main", &[("a", Some(("100644", b"1")))]);
        desk.host.repository("s.git").commit("main", &[("a", Some(("100644", b"1")))]);
        let (remote, neighbour) =
            (desk.with_credential("r.git", "one"), desk.with_credential("s.git", "one"));
        for remote in [&remote, &neighbour] {
            desk.list(remote, &[]).await.expect("a listing");
        }
        desk.host.set_fault(Some(fault.clone()));
        let waited = |error: GitError| match error {
            GitError::RateLimited { retry_after } => retry_after.map(|wait| wait.as_secs_f64().ceil() as u64),
            other => panic!("{fault:?}: {other}"),
        };
        assert_eq!(waited(desk.list(&remote, &[]).await.expect_err("patience")), Some(seconds), "{fault:?}");
        desk.host.set_fault(None);
        desk.host.take_seen();
        for remote in [&remote, &neighbour] {
            waited(desk.list(remote, &[]).await.expect_err("it shares the credential"));
            waited(desk.fetch(remote, commit, &[]).await.expect_err("it shares the credential"));
        }
        assert_eq!(desk.host.take_seen().len(), 0, "{fault:?}: nothing was asked");
        desk.list(&desk.with_credential("s.git", "two"), &[]).await.expect("another credential");
        desk.list(&desk.remote("s.git"), &[]).await.expect("no credential");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_without_a_spent_rate_is_a_refusal() {
    let desk = Desk::new().await;
    desk.host.repository("r.git").commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = desk.remote("r.git");
    desk.list(&remote, &[]).await.expect("a listing");
    let left: &[(&str, &str)] = &[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "784111837")];
    desk.host.set_fault(Some(Fault::Headers(403, left)));
    assert!(matches!(desk.list(&remote, &[]).await, Err(GitError::Unauthorized)));
    desk.host.set_fault(None);
    desk.list(&remote, &[]).await.expect("no patience was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refs_is_cut_off() {
    // What cuts it off is its size alone: a busy machine may take its time to list this many.
    let settings = || GitSettings { listing_max_bytes: 1 << 20, ..engine_settings() };
    let desk = Desk::with(settings()).await;
    let repository = desk.host.repository("r.git");
    let head = repository.commit("main", &[("a", Some(("100644", b"1")))]);
    repository.many_refs(100_000, head);
    let remote = desk.remote("r.git");
    desk.list(&remote, &["refs/heads/main"]).await.expect("version 2 sends only what is asked for");
    let error = desk.list(&remote, &["refs/heads/"]).await.expect_err("too many");
    assert!(matches!(error, GitError::TooLarge(_)), "{error}");
    desk.host.speak_version_0();
    let git = engine(settings(), &desk.data);
    let error = git.list_refs(&remote, &vec!["refs/heads/main".to_owned()]).await.expect_err("too many");
    assert!(matches!(error, GitError::TooLarge(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_no_connection_is_given_up_after_the_connect_timeout() {
    // Nobody accepts, and the queue of those who wait to be accepted is full: nothing answers.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(1).expect("it listens");
    let address = listener.local_addr().expect("bound");
    let mut waiting = Vec::new();
    while let Ok(Ok(connection)) =
        tokio::time::timeout(Duration::from_secs(2), tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(connection);
        assert!(waiting.len() < 64, "the queue is never full");
    }
    // Only the deadline of the connection is short.
    let settings = GitSettings {
        connect_timeout: Duration::from_millis(500),
        read_timeout: Duration::from_secs(3_000),
        poll_timeout: Duration::from_secs(3_000),
        ..engine_settings()
    };
    let desk = Desk::with(settings).await;
    let url = format!("http://{address}/r.git").parse().expect("an address");
    let remote = Remote { location: Location::Http(url), ..desk.remote("r.git") };
    let error = in_time(desk.list(&remote, &[])).await.expect_err("nobody answers");
    assert!(matches!(error, GitError::Timeout(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_given_up_leaves_nothing_behind() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let noise = noise(300_000);
    let head = repository.commit("main", &[("a", Some(("100644", noise.as_slice())))]);
    let remote = desk.remote("r.git");
    desk.list(&remote, &[]).await.expect("a listing");
    desk.host.set_fault(Some(Fault::Stall));
    let before = desk.host.requests();
    {
        let fetch = desk.fetch(&remote, head, &[]);
        tokio::pin!(fetch);
        let quarantined = async {
            desk.host.request_after(before).await;
            while leftovers(&desk).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        in_time(async {
            tokio::select! {
                result = &mut fetch => panic!("it stalls, but: {result:?}"),
                () = quarantined => {}
            }
        })
        .await;
    }
    desk.host.set_fault(None);
    in_time(desk.fetch(&remote, head, &[])).await.expect("the next fetch works");
    assert_eq!(leftovers(&desk), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_tree_is_refused_before_it_is_let_in() {
    for name in ["..", ".git", "a/b", ".GIT ", "git~1"] {
        let desk = Desk::new().await;
        let repository = desk.host.repository("r.git");
        let blob = repository.write_object("blob", b"evil");
        let mut tree = format!("100644 {name}\0").into_bytes();
        tree.extend_from_slice(blob.as_bytes());
        let tree = repository.write_object("tree", &tree);
        let head = repository.commit_tree("main", tree);
        let remote = desk.remote("r.git");
        let error = desk.fetch(&remote, head, &[]).await.expect_err("hostile");
        assert!(matches!(error, GitError::MalformedTree(_)), "{name}: {error}");
        assert!(matches!(desk.git.commit(&remote, head).await, Err(GitError::Missing(_))), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_multiplies_itself_is_too_large() {
    let desk = Desk::with(GitSettings { tree_max_entries: 20_000, ..engine_settings() }).await;
    let repository = desk.host.repository("r.git");
    let mut object = repository.write_object("blob", b"x");
    for level in 0..10 {
        let mode = if level == 0 { "100644" } else { "40000" };
        let mut tree = Vec::new();
        for number in 0..10 {
            tree.extend_from_slice(format!("{mode} {number}\0").as_bytes());
            tree.extend_from_slice(object.as_bytes());
        }
        object = repository.write_object("tree", &tree);
    }
    let head = repository.commit_tree("main", object);
    let remote = desk.remote("r.git");
    // To look whether all is here costs a look at each tree, however often it is named.
    in_time(desk.fetch(&remote, head, &[])).await.expect("ten trees");
    let error = in_time(desk.changes(&remote, &sync(None, head))).await.expect_err("too large");
    assert!(matches!(error, GitError::TooLarge(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_not_what_their_tree_says_are_the_hosts_fault() {
    let desk = Desk::new().await;
    let repository = desk.host.repository("r.git");
    let blob = repository.write_object("blob", b"no tree");
    let mut tree = b"40000 folder\0".to_vec();
    tree.extend_from_slice(blob.as_bytes());
    let tree = repository.write_object("tree", &tree);
    let head = repository.commit_tree("main", tree);
    let error = in_time(desk.fetch(&desk.remote("r.git"), head, &[])).await.expect_err("nonsense");
    assert!(
        matches!(error, GitError::Protocol(_) | GitError::Status(_) | GitError::Unreachable(_)),
        "{error}"
    );
}
