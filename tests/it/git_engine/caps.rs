//! What a repository may cost: each limit is crossed once, by a real repository of a real host. The
//! error names what was crossed, nothing of it is let in, and what is here stays readable.

use tidings_actors::ports::Content;

use super::*;
use crate::support::{git_host::Fault, pack::Pack, repository::Repository};

/// A limit, what crosses it, and how the error says so.
type Case = (fn(&mut GitSettings), fn(&Repository) -> ObjectId, &'static str);

const CASES: &[Case] = &[
    (|settings| settings.tree_max_entries = 100, wide, "more than 100 entries"),
    (|settings| settings.tree_max_depth = 20, deep, "directories deeper than 20"),
    (
        |settings| settings.fetch_max_objects = 30,
        wide,
        "a pack of 42 objects, where git.fetch_max_objects admits 30",
    ),
    (|settings| settings.tree_timeout = Duration::from_nanos(1), wide, "takes longer than 1ns"),
    (|_| {}, heavy_directories, "bytes within each other"),
];

fn wide(repository: &Repository) -> ObjectId {
    let names: Vec<_> = (0..1_000).map(|number| format!("{:02}/{number:04}", number % 40)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), Some(("100644", name.as_bytes())))).collect();
    repository.commit("main", &files)
}

fn deep(repository: &Repository) -> ObjectId {
    repository.commit("main", &[(&format!("{}f", "d/".repeat(30)), Some(("100644", b"x")))])
}

fn long_path(repository: &Repository) -> ObjectId {
    let directory = format!("{}/", "n".repeat(200)).repeat(21);
    repository.commit("main", &[(&format!("{directory}f"), Some(("100644", b"x")))])
}

fn large(repository: &Repository) -> ObjectId {
    repository.commit("main", &[("large", Some(("100644", &[0; 10_000])))])
}

fn noisy(repository: &Repository) -> ObjectId {
    let text: String = (0_u64..500).map(|number| format!("{:x}", number * number * 7_919)).collect();
    repository.commit("main", &[("noise", Some(("100644", text.as_bytes())))])
}

/// Directories within each other, each with 8 MB of names behind the one that is entered.
fn heavy_directories(repository: &Repository) -> ObjectId {
    let blob = repository.write_object("blob", b"x");
    let mut below: Option<ObjectId> = None;
    for _ in 0..10 {
        let mut tree = Vec::new();
        if let Some(below) = below {
            tree.extend_from_slice(b"40000 a\0");
            tree.extend_from_slice(below.as_bytes());
        }
        for number in 0..2_000 {
            tree.extend_from_slice(format!("100644 b{number:04}{}\0", "n".repeat(3_900)).as_bytes());
            tree.extend_from_slice(blob.as_bytes());
        }
        below = Some(repository.write_object("tree", &tree));
    }
    repository.commit_tree("main", below.expect("ten of them"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_named_when_a_repository_crosses_it() {
    for (limit, build, text) in CASES {
        let mut settings = engine_settings();
        limit(&mut settings);
        let desk = Desk::with(settings).await;
        let good = desk.host.repository("good.git").commit("main", &[("a", Some(("100644", b"1")))]);
        let remote = desk.remote("good.git");
        desk.fetch(&remote, good, &[]).await.expect("a small one is welcome");
        let hostile = build(&desk.host.repository("bad.git"));
        refuses(&desk, hostile, text).await;
        assert_eq!(desk.changes(&remote, &sync(None, good)).await.expect("readable").len(), 1, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_keeps_no_other_from_coming() {
    let limits: [fn(&mut GitSettings); 2] =
        [|settings| settings.object_max_bytes = 9_999, |settings| settings.unpacked_max_bytes = 9_999];
    for limit in limits {
        let mut settings = engine_settings();
        limit(&mut settings);
        let desk = Desk::with(settings).await;
        let repository = desk.host.repository("r.git");
        repository.commit("main", &[("small", Some(("100644", b"1")))]);
        let head = large(&repository);
        let remote = desk.remote("r.git");
        desk.fetch(&remote, head, &[]).await.expect("its trees");
        let small = repository.resolve("main:small");
        desk.fetch(&remote, small, &[]).await.expect("a content by itself");
        assert!(matches!(desk.git.content(&remote, small, 10).await, Ok(Content::Whole(_))));
        let large = repository.resolve("main:large");
        let error = desk.fetch(&remote, large, &[]).await.expect_err("too large");
        assert_eq!(error.code(), "repository_too_large", "{error}");
        assert!(error.to_string().contains("9999"), "{error}");
        // Nothing of that is asked for at each look.
        let before = desk.host.requests();
        desk.fetch(&remote, head, &[]).await.expect("here already");
        assert_eq!(desk.host.requests(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_too_large_as_a_whole_comes_by_its_trees() {
    let desk = Desk::with(GitSettings { fetch_max_bytes: 500, ..engine_settings() }).await;
    let repository = desk.host.repository("r.git");
    let head = noisy(&repository);
    let remote = desk.remote("r.git");
    desk.fetch(&remote, head, &[]).await.expect("its trees");
    assert_eq!(desk.changes(&remote, &sync(None, head)).await.expect("readable").len(), 1);
    let error = desk.fetch(&remote, repository.resolve("main:noise"), &[]).await.expect_err("too large");
    assert!(error.to_string().contains("the answer has more than 500 bytes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_too_long_is_refused_where_a_view_lets_it_through() {
    let desk = Desk::new().await;
    let head = long_path(&desk.host.repository("long.git"));
    let remote = desk.remote("long.git");
    desk.fetch(&remote, head, &[]).await.expect("nobody asked for it yet");
    let error = desk.changes(&remote, &sync(None, head)).await.expect_err("it is seen");
    assert!(error.to_string().contains("a path of more than 4096 bytes"), "{error}");
    assert!(error.is_of_the_object(), "its branch is blocked");
    let mut elsewhere = sync(None, head);
    let docs = View::new(vec!["docs/**".into()], vec![], false, ContentRule::Inline, MAX_SIZE_DEFAULT);
    elsewhere.target.as_mut().expect("a target").view = docs.expect("a view");
    assert!(desk.changes(&remote, &elsewhere).await.expect("readable").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_delta_may_make_or_be_made_from_more_than_the_limit() {
    for (base, from, to, text) in [
        (100, 100, 2_147_483_648, "a delta of or to an object of 2147483648 bytes"),
        (100, 2_147_483_648, 100, "a delta of or to an object of 2147483648 bytes"),
        (70 << 20, 100, 100, "a delta of an object of 73400320 bytes"),
    ] {
        let desk = Desk::new().await;
        let head = desk.host.repository("bad.git").commit("main", &[("a", Some(("100644", b"1")))]);
        let mut pack = Pack::new();
        let at = pack.blob(&vec![0; base]);
        pack.delta(at, from, to, b"\x01x");
        desk.list(&desk.remote("bad.git"), &[]).await.expect("a listing");
        desk.host.set_fault(Some(Fault::Pack(pack.finish())));
        refuses(&desk, head, text).await;
    }
}

async fn refuses(desk: &Desk, hostile: ObjectId, text: &str) {
    let error = in_time(desk.fetch(&desk.remote("bad.git"), hostile, &[])).await.expect_err(text);
    assert_eq!(error.code(), "repository_too_large", "{error}");
    assert!(error.to_string().contains(text), "{error} does not say {text}");
    let inside = desk.git.commit(&desk.remote("bad.git"), hostile).await;
    assert!(matches!(inside, Err(GitError::Missing(_))), "{text}: it was let in");
}
