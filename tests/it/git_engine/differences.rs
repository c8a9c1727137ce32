//! Lists of changes: equal to git's own, whole under every view, and cut anywhere.

use std::{collections::BTreeMap, sync::LazyLock};

use proptest::prelude::*;
use tidings_actors::model::round::{DeliveryId, Entry, Letter, ListDigest};
use tidings_entity::{
    id::DeadLetterId,
    kind::{ContentRule, Operation},
};

use super::*;
use crate::support::repository::Repository;

const COMMITS: usize = 120;

/// A history with every kind of entry, type changes, odd names and wide folders, made once.
struct History {
    repository: Repository,
    commits: Vec<ObjectId>,
    trees: Vec<Tree>,
    _folder: TempDir,
}

type Tree = BTreeMap<Vec<u8>, Entry>;

/// A number that looks random but is the same every time.
fn scramble(number: usize) -> usize {
    let number = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    usize::try_from((number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33).expect("31 bits")
}

const NAMES: [&[u8]; 14] = [
    b"a",
    b"a.b",
    b"a-b",
    b"a0",
    b"b",
    b"docs",
    b"docs.md",
    b"docs-x",
    b"x\n",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"A",
    b"z",
    b"q\"",
];

static HISTORY: LazyLock<History> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let commits = repository.commits("main", COMMITS, |commit| {
        let changes = if commit == 0 { 150 } else { 1 + scramble(commit) % 12 };
        let change = |index: usize| {
            let seed = scramble(commit * 1_000 + index);
            let depth = 1 + seed % 4;
            let names: Vec<_> = (0..depth).map(|level| NAMES[scramble(seed + level) % NAMES.len()]).collect();
            let data = format!("{}", seed % 3).into_bytes();
            let file = match scramble(seed + 9) % 16 {
                0..4 => None,
                4..9 => Some(("100644", data)),
                9..13 => Some(("100755", data)),
                13 | 14 => Some(("120000", data)),
                _ => Some(("160000", b"1111111111111111111111111111111111111111".to_vec())),
            };
            (names.join(&b'/'), file)
        };
        (0..changes).map(change).collect()
    });
    let trees = commits.iter().map(|commit| tree_of(&repository, *commit)).collect();
    History { repository, commits, trees, _folder: folder }
});

/// All files of a commit, as git lists them.
fn tree_of(repository: &Repository, commit: ObjectId) -> Tree {
    let listed = repository.git_bytes(["ls-tree", "-r", "-z", "--full-tree", &commit.to_string()], b"");
    let entries = listed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let tab = entry.iter().position(|byte| *byte == b'\t').expect("a tab");
            let head = std::str::from_utf8(&entry[..tab]).expect("text");
            let parts: Vec<_> = head.split(' ').collect();
            let mode = u32::from_str_radix(parts[0], 8).expect("a mode");
            (entry[tab + 1..].to_vec(), Entry { mode, blob: parts[2].parse().expect("an id") })
        })
        .collect()
}

fn history_remote() -> Remote {
    let location = Location::Local(HISTORY.repository.path().to_owned());
    Remote {
        repository: RepositoryId::new(Ulid::from_parts(1, 9)),
        location,
        credential: None,
        apps: Vec::new(),
    }
}

fn everything() -> View {
    View::new(vec![], vec![], true, ContentRule::Inline, 1_000).expect("a view")
}

fn round(kind: RoundKind, held: Option<(usize, &View)>, target: Option<(usize, &View)>) -> RoundSpec {
    let end =
        |(commit, view): (usize, &View)| TreeEnd { commit: HISTORY.commits[commit], view: view.clone() };
    RoundSpec { kind, held: held.map(end), target: target.map(end), bases: vec![], letters: vec![] }
}

fn rank(change: &Change) -> (usize, Vec<u8>) {
    let rank = match change.operation {
        Operation::Delete => 0,
        Operation::Create => 1,
        Operation::Update => 2,
    };
    (rank, change.path.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_equal_those_of_git_on_five_hundred_pairs() {
    let desk = Desk::new().await;
    let view = everything();
    let mut seen = BTreeMap::<&str, usize>::new();
    for pair in 0..500 {
        let (old, new) = (scramble(pair) % COMMITS, scramble(pair + 7_000) % COMMITS);
        let spec = round(RoundKind::Sync, Some((old, &view)), Some((new, &view)));
        let ours = desk.changes(&history_remote(), &spec).await.expect("a list");
        let mut expected = git_diff(HISTORY.commits[old], HISTORY.commits[new], &mut seen);
        expected.sort_by_key(rank);
        assert_eq!(ours, expected, "{old} to {new}");
    }
    for kind in ["A", "D", "M", "T", "mode"] {
        assert!(seen.get(kind).is_some_and(|count| *count > 5), "{kind} is hardly covered: {seen:?}");
    }
}

/// `git diff-tree -r --raw`, without submodules.
fn git_diff(old: ObjectId, new: ObjectId, seen: &mut BTreeMap<&'static str, usize>) -> Vec<Change> {
    let (old, new) = (old.to_string(), new.to_string());
    let arguments = ["diff-tree", "-r", "--raw", "--no-renames", "-z", "--full-index", &old, &new];
    let output = HISTORY.repository.git_bytes(arguments, b"");
    let mut fields = output.split(|byte| *byte == 0);
    let mut changes = Vec::new();
    while let Some(head) = fields.next().filter(|head| !head.is_empty()) {
        let path = fields.next().expect("a path").to_vec();
        let head = std::str::from_utf8(&head[1..]).expect("text");
        let parts: Vec<_> = head.split(' ').collect();
        let entry = |mode: &str, blob: &str| {
            let mode = u32::from_str_radix(mode, 8).expect("a mode");
            let blob = blob.parse().expect("an id");
            (mode != 0 && mode & 0o170_000 != 0o160_000).then_some(Entry { mode, blob })
        };
        let (was, is) = (entry(parts[0], parts[2]), entry(parts[1], parts[3]));
        let kind = ["A", "D", "M", "T"].into_iter().find(|kind| *kind == parts[4]).expect("a known status");
        *seen.entry(kind).or_default() += 1;
        let make = |operation, old, new| Change { operation, path: path.clone(), old, new, replay_of: None };
        match (was, is) {
            (None, None) => {}
            (Some(_), None) => changes.push(make(Operation::Delete, was, None)),
            (None, Some(_)) => changes.push(make(Operation::Create, None, is)),
            (Some(one), Some(other)) if one.mode & 0o170_000 != other.mode & 0o170_000 => {
                changes.push(make(Operation::Delete, was, None));
                changes.push(make(Operation::Create, None, is));
            }
            (Some(one), Some(other)) => {
                *seen.entry("mode").or_default() += usize::from(one.blob == other.blob);
                changes.push(make(Operation::Update, was, is));
            }
        }
    }
    changes
}

fn filtered(tree: &Tree, view: &View) -> Tree {
    let filter = view.filter().expect("valid");
    tree.iter()
        .filter(|(path, entry)| filter.admits(path, entry.mode))
        .map(|(path, entry)| (path.clone(), *entry))
        .collect()
}

/// Applies changes as a receiver would: each must fit what is there.
fn apply(tree: &mut Tree, changes: &[Change]) {
    for change in changes {
        assert_eq!(tree.get(&change.path).copied(), change.old, "{change:?}");
        match change.new {
            Some(entry) => tree.insert(change.path.clone(), entry),
            None => tree.remove(&change.path),
        };
    }
}

fn any_view() -> impl Strategy<Value = View> {
    let glob = prop::sample::select(vec![
        "a/**",
        "**/docs/**",
        "docs/",
        "*",
        "**/*.md",
        "a",
        "b/**",
        "**/a.b",
        "z/a/",
    ]);
    let globs = || prop::collection::vec(glob.clone().prop_map(str::to_owned), 0..3);
    (globs(), globs(), any::<bool>()).prop_map(|(include, exclude, symlinks)| {
        View::new(include, exclude, symlinks, ContentRule::Inline, 1_000).expect("valid")
    })
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn applying_the_changes_of_one_tree_to_another_gives_it_under_any_views(
        old in 0..COMMITS, new in 0..COMMITS, held_view in any_view(), view in any_view(),
        (from_nothing, to_nothing) in (any::<bool>(), prop::bool::weighted(0.1)),
    ) {
        block(async {
            let data = tempfile::tempdir().expect("a temporary folder");
            let git = engine(engine_settings(), &data);
            let held = (!from_nothing).then_some((old, &held_view));
            let target = (!to_nothing).then_some((new, &view));
            let spec = round(RoundKind::Sync, held, target);
            let plan = git.plan(&history_remote(), &spec, &[]).await.expect("a plan");
            let changes = git.window(&history_remote(), &spec, &Seek::Position(0), usize::MAX).await.expect("a list");
            let mut tree = held.map(|(commit, view)| filtered(&HISTORY.trees[commit], view)).unwrap_or_default();
            apply(&mut tree, &changes);
            let expected = target.map(|(commit, view)| filtered(&HISTORY.trees[commit], view));
            assert_eq!(tree, expected.unwrap_or_default());
            assert!(changes.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])), "in order, nothing twice");
            let mut digest = ListDigest::default();
            changes.iter().for_each(|change| digest.add(change));
            assert_eq!((plan.summary.total(), plan.summary.digest), (changes.len() as u64, digest.finish()));
        });
    }

    #[test]
    fn a_resync_over_several_bases_leaves_exactly_the_target(
        bases in prop::collection::vec((0..COMMITS, any_view()), 0..4), new in 0..COMMITS, view in any_view(), holds in 0..4_usize,
    ) {
        block(async {
            let data = tempfile::tempdir().expect("a temporary folder");
            let git = engine(engine_settings(), &data);
            let mut spec = round(RoundKind::Resync, None, Some((new, &view)));
            spec.bases = bases.iter().map(|(commit, view)| TreeEnd { commit: HISTORY.commits[*commit], view: view.clone() }).collect();
            spec.held = spec.bases.first().cloned();
            let changes = git.window(&history_remote(), &spec, &Seek::Position(0), usize::MAX).await.expect("a list");
            let target = filtered(&HISTORY.trees[new], &view);
            // Whichever of the bases the app really holds, deletes and creates bring it to the target.
            let mut tree = bases.get(holds).map(|(commit, view)| filtered(&HISTORY.trees[*commit], view)).unwrap_or_default();
            for change in &changes {
                match change.new {
                    Some(entry) => tree.insert(change.path.clone(), entry),
                    None => tree.remove(&change.path),
                };
            }
            assert_eq!(tree, target);
            assert!(changes.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])), "in order, nothing twice");
            assert_eq!(changes.iter().filter(|change| change.operation == Operation::Create).count(), target.len());
        });
    }
}

/// More changes than are kept: the list is walked again for each window.
fn large(repository: &Repository) -> (ObjectId, ObjectId) {
    let file = |number: usize| format!("d{:02}/e{}/f{number:05}", number % 37, number % 11).into_bytes();
    let one = repository.commits("main", 1, |_| {
        (0..9_000).map(|number| (file(number), Some(("100644", b"1".to_vec())))).collect()
    });
    let two = repository.commits("main", 1, |_| {
        let changed = (0..4_000).map(|number| (file(number), Some(("100644", b"2".to_vec()))));
        let deleted = (4_000..8_000).map(|number| (file(number), None));
        let created = (9_000..13_000).map(|number| (file(number), Some(("100644", b"1".to_vec()))));
        changed.chain(deleted).chain(created).collect()
    });
    (one[0], two[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_from_any_place_make_up_the_whole_list() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let (one, two) = large(&repository);
    let large = Remote { location: Location::Local(repository.path().to_owned()), ..history_remote() };
    let desk = Desk::new().await;
    let small = round(RoundKind::Sync, Some((0, &everything())), Some((COMMITS - 1, &everything())));
    for (remote, spec, step) in [(history_remote(), small, 1), (large, sync(Some(one), two), 397)] {
        let whole = desk.changes(&remote, &spec).await.expect("a list");
        let plan = desk.git.plan(&remote, &spec, &[]).await.expect("a plan");
        let mut digest = ListDigest::default();
        whole.iter().for_each(|change| digest.add(change));
        assert_eq!((plan.summary.total(), plan.summary.digest), (whole.len() as u64, digest.finish()));
        for begin in (0..whole.len()).step_by(step) {
            let position = Seek::Position(begin as u64);
            let window = desk.git.window(&remote, &spec, &position, 5).await.expect("a window");
            assert_eq!(window, whole[begin..(begin + 5).min(whole.len())], "from {begin}");
            let after = Seek::After(whole[begin].clone());
            let window = desk.git.window(&remote, &spec, &after, 70).await.expect("a window");
            assert_eq!(window, whole[begin + 1..(begin + 71).min(whole.len())], "after {begin}");
        }
        let end =
            desk.git.window(&remote, &spec, &Seek::Position(whole.len() as u64), 5).await.expect("a window");
        assert_eq!(end, []);
    }
}

fn letter(path: &str, before: Option<Entry>) -> Letter {
    let (id, delivery) =
        (DeadLetterId::new(Ulid::from_parts(2, 2)), DeliveryId::from_stored("dlv_x".to_owned()));
    Letter { id, path: path.as_bytes().to_vec(), before, delivery }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_bound_where_the_trees_differ_and_stand_for_what_is_held() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let file = |data: &'static [u8]| Some(("100644", data));
    let one = repository.commit(
        "main",
        &[("a/same", file(b"1")), ("a/x", file(b"1")), ("b/y", file(b"1")), ("c", file(b"1"))],
    );
    let two = repository.commit(
        "main",
        &[("a/x", file(b"2")), ("b/y", None), ("n/new", file(b"3")), ("n/newer", file(b"3"))],
    );
    let remote = Remote { location: Location::Local(repository.path().to_owned()), ..history_remote() };
    let blob = |data: &[u8]| Entry { mode: 0o100_644, blob: repository.write_object("blob", data) };
    let candidates = [
        letter("a/same", None),
        letter("a/x", None),
        letter("b/y", None),
        letter("gone", Some(blob(b"1"))),
        letter("n/new", Some(blob(b"3"))),
        letter("n/newer", Some(blob(b"1"))),
    ];
    let desk = Desk::new().await;
    let shown = |changes: &[Change]| {
        let show = |change: &Change| {
            let again = if change.replay_of.is_some() { " again" } else { "" };
            format!("{} {}{again}", change.operation, String::from_utf8_lossy(&change.path))
        };
        changes.iter().map(show).collect::<Vec<_>>()
    };
    let mut spec = sync(Some(one), two);
    let plan = desk.git.plan(&remote, &spec, &candidates).await.expect("a plan");
    let bound: Vec<_> =
        plan.letters.iter().map(|letter| String::from_utf8_lossy(&letter.path).into_owned()).collect();
    assert_eq!(bound, ["a/x", "b/y", "n/new", "n/newer"]);
    spec.letters = plan.letters;
    let changes = desk.changes(&remote, &spec).await.expect("a list");
    assert_eq!(shown(&changes), ["delete b/y", "create a/x", "update n/new", "update n/newer"]);
    for begin in 0..changes.len() {
        let after =
            desk.git.window(&remote, &spec, &Seek::After(changes[begin].clone()), 9).await.expect("a window");
        assert_eq!(after, changes[begin + 1..]);
    }

    let redrive = RoundSpec { kind: RoundKind::Redrive, held: Some(end(two)), ..sync(None, two) };
    let plan = desk.git.plan(&remote, &redrive, &candidates).await.expect("a plan");
    assert_eq!(plan.letters.len(), candidates.len());
    let redrive = RoundSpec { letters: plan.letters, ..redrive };
    let changes = desk.changes(&remote, &redrive).await.expect("a list");
    let expected = [
        "delete b/y again",
        "delete gone again",
        "create a/same again",
        "create a/x again",
        "update n/new again",
        "update n/newer again",
    ];
    assert_eq!(shown(&changes), expected);

    let resync = RoundSpec { kind: RoundKind::Resync, bases: vec![end(one)], ..sync(Some(one), two) };
    let plan = desk.git.plan(&remote, &resync, &candidates).await.expect("a plan");
    let resync = RoundSpec { letters: plan.letters, ..resync };
    let changes = desk.changes(&remote, &resync).await.expect("a list");
    let expected = [
        "delete b/y",
        "delete gone",
        "create a/same",
        "create a/x",
        "create c",
        "create n/new",
        "create n/newer",
    ];
    assert_eq!(shown(&changes), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_gives_more_content_updates_what_did_not_change() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let repository = Repository::create(&folder.path().join("r.git"));
    let commit = repository
        .commit("main", &[("d/small", Some(("100644", b"12"))), ("large", Some(("100644", b"123456")))]);
    let remote = Remote { location: Location::Local(repository.path().to_owned()), ..history_remote() };
    let desk = Desk::new().await;
    let view = |rule, size| View::new(vec![], vec![], false, rule, size).expect("a view");
    let (inline, none) = (ContentRule::Inline, ContentRule::None);
    for (old, new, updated) in [
        (view(inline, 4), view(inline, 10), vec!["large"]),
        (view(inline, 10), view(inline, 4), vec![]),
        (view(none, 10), view(inline, 10), vec!["d/small", "large"]),
        (view(inline, 10), view(none, 10), vec![]),
        (view(inline, 0), view(inline, 3), vec!["d/small"]),
    ] {
        let end = |view| Some(TreeEnd { commit, view });
        let spec = RoundSpec { held: end(old), target: end(new), ..sync(None, commit) };
        let changes = desk.changes(&remote, &spec).await.expect("a list");
        let paths: Vec<_> =
            changes.iter().map(|change| String::from_utf8_lossy(&change.path).into_owned()).collect();
        assert_eq!(paths, updated);
        assert!(
            changes.iter().all(|change| change.operation == Operation::Update && change.old == change.new)
        );
    }
}
