//! Lists walked again for every window against lists made in one pass, over trees in memory.

use std::collections::BTreeMap;

use git2::{ObjectType, Odb};
use proptest::prelude::*;
use tidings_actors::{
    model::round::{DeliveryId, Entry, TreeEnd},
    model::view::View,
};
use tidings_entity::{
    id::{DeadLetterId, ObjectId},
    kind::{ContentRule, RoundKind},
};
use ulid::Ulid;

use super::*;

/// Mode and content of files by path; a path below which there are others is no file.
pub(crate) type Files = BTreeMap<String, (u32, u8)>;

/// An object database that keeps its objects in memory.
pub(crate) struct Memory(pub(crate) Odb<'static>);

impl Memory {
    pub(crate) fn new() -> Self {
        let odb = Odb::new().expect("memory");
        odb.add_new_mempack_backend(1_000).expect("memory");
        Self(odb)
    }

    pub(crate) fn write(&self, kind: ObjectType, data: &[u8]) -> ObjectId {
        let oid = self.0.write(kind, data).expect("memory");
        ObjectId::new(oid.as_bytes().try_into().expect("20 bytes"))
    }

    fn tree(&self, files: &Files) -> ObjectId {
        let mut folders = BTreeMap::<&str, Files>::new();
        let mut entries = Vec::new();
        for (path, file) in files {
            match path.split_once('/') {
                Some((folder, rest)) => {
                    folders.entry(folder).or_default().insert(rest.to_owned(), *file);
                }
                None => entries.push((
                    path.clone(),
                    file.0,
                    self.write(ObjectType::Blob, &vec![file.1; usize::from(file.1)]),
                )),
            }
        }
        entries.retain(|(name, _, _)| !folders.contains_key(name.as_str()));
        for (folder, files) in &folders {
            entries.push((format!("{folder}/"), 0o040_000, self.tree(files)));
        }
        entries.sort();
        let mut raw = Vec::new();
        for (name, mode, id) in entries {
            raw.extend_from_slice(format!("{mode:o} {}\0", name.trim_end_matches('/')).as_bytes());
            raw.extend_from_slice(id.as_bytes());
        }
        self.write(ObjectType::Tree, &raw)
    }

    /// The files that a tree of these has.
    pub(crate) fn stored<'f>(&self, files: &'f Files) -> Vec<(&'f String, &'f (u32, u8))> {
        let is_folder = |path: &str| files.keys().any(|other| other.starts_with(&format!("{path}/")));
        files.iter().filter(|(path, _)| !is_folder(path)).collect()
    }

    pub(crate) fn commit(&self, files: &Files) -> ObjectId {
        self.write(ObjectType::Commit, format!("tree {}\n\nx\n", self.tree(files)).as_bytes())
    }
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "a.b", "a-b", "b", "c0"]), 1..4)
        .prop_map(|names| names.join("/"))
}

pub(crate) fn files() -> impl Strategy<Value = Files> {
    let mode = prop::sample::select(vec![0o100_644, 0o100_644, 0o100_755, 0o120_000]);
    prop::collection::btree_map(paths(), (mode, 1..4_u8), 0..25)
}

pub(crate) fn views() -> impl Strategy<Value = View> {
    let glob = || {
        prop::collection::vec(
            prop::sample::select(vec!["a/**", "**/b", "b/", "*"]).prop_map(str::to_owned),
            0..2,
        )
    };
    let rule = prop::sample::select(vec![ContentRule::Inline, ContentRule::None]);
    (glob(), glob(), any::<bool>(), rule, 0..4_u64).prop_map(|(include, exclude, symlinks, rule, size)| {
        View::new(include, exclude, symlinks, rule, size).expect("valid")
    })
}

/// Entries that a dead letter has as its state before, or none.
fn befores() -> impl Strategy<Value = Option<Entry>> {
    let entry = (prop::sample::select(vec![0o100_644, 0o120_000]), 1..4_u8)
        .prop_map(|(mode, byte)| Entry { mode, blob: ObjectId::new([byte; 20]) });
    prop::option::of(entry)
}

fn whole<T>(made: Result<Made<T>, GitError>) -> T {
    match made {
        Ok(Made::Whole(made)) => made,
        Ok(Made::Lacks(blobs)) => panic!("{blobs:?} are here"),
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_list_is_the_same_in_one_pass_and_walked_anew_from_anywhere(
        kind in prop::sample::select(RoundKind::ALL.to_vec()),
        trees in prop::collection::vec((files(), views()), 3),
        candidates in prop::collection::btree_map(paths(), befores(), 0..6),
        (has_held, has_target) in (any::<bool>(), any::<bool>()),
    ) {
        let memory = Memory::new();
        let ends: Vec<_> = trees
            .iter()
            .map(|(files, view)| TreeEnd { commit: memory.commit(files), view: view.clone() })
            .collect();
        let spec = RoundSpec {
            kind,
            held: has_held.then(|| ends[0].clone()),
            target: has_target.then(|| ends[1].clone()),
            bases: if kind == RoundKind::Resync { vec![ends[0].clone(), ends[2].clone()] } else { vec![] },
            letters: vec![],
        };
        let candidates: Vec<_> = candidates
            .into_iter()
            .map(|(path, before)| Letter {
                id: DeadLetterId::new(Ulid::from_parts(1, 1)),
                path: path.into_bytes(),
                before,
                delivery: DeliveryId::from_stored("dlv_x".to_owned()),
            })
            .collect();
        let objects = Objects::of(memory.0);
        let (settings, cancel) = (GitSettings::default(), Cancel::default());
        let (one, other) = (Lists::default(), Lists::default());
        let kept = Lister { objects: &objects, settings: &settings, lists: &one, cancel: &cancel, small: SMALL };
        let walked = Lister { lists: &other, small: 0, ..kept };
        let plan = whole(kept.plan(&spec, &candidates));
        prop_assert_eq!(&whole(walked.plan(&spec, &candidates)), &plan);
        let spec = RoundSpec { letters: plan.letters, ..spec };
        let all = whole(kept.window(&spec, &Seek::Position(0), usize::MAX));
        prop_assert_eq!(summarise(&all), plan.summary);
        prop_assert_eq!(&whole(walked.window(&spec, &Seek::Position(0), usize::MAX)), &all);
        prop_assert!(all.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])));
        for begin in 0..all.len() {
            for lister in [&kept, &walked] {
                let after = Seek::After(all[begin].clone());
                prop_assert_eq!(&whole(lister.window(&spec, &after, usize::MAX)), &all[begin + 1..]);
                let position = Seek::Position(begin as u64);
                let end = all.len().min(begin + 2);
                prop_assert_eq!(&whole(lister.window(&spec, &position, 2)), &all[begin..end]);
            }
        }
    }
}

#[test]
fn where_trees_are_equal_every_round_but_a_sync_binds_a_letter_all_the_same() {
    for kind in RoundKind::ALL.iter().copied() {
        let memory = Memory::new();
        let files: Files = [("a".to_owned(), (0o100_644, 1)), ("b".to_owned(), (0o100_644, 2))].into();
        let end = TreeEnd { commit: memory.commit(&files), view: View::default() };
        let spec = RoundSpec {
            kind,
            held: Some(end.clone()),
            target: Some(end.clone()),
            bases: if kind == RoundKind::Resync { vec![end] } else { vec![] },
            letters: vec![],
        };
        let letter = Letter {
            id: DeadLetterId::new(Ulid::from_parts(1, 1)),
            path: b"a".to_vec(),
            before: None,
            delivery: DeliveryId::from_stored("dlv_x".to_owned()),
        };
        let objects = Objects::of(memory.0);
        let (settings, cancel, lists) = (GitSettings::default(), Cancel::default(), Lists::default());
        let lister =
            Lister { objects: &objects, settings: &settings, lists: &lists, cancel: &cancel, small: 0 };
        let bound = whole(lister.plan(&spec, std::slice::from_ref(&letter))).letters;
        let expected = if kind == RoundKind::Sync { vec![] } else { vec![letter] };
        assert_eq!(bound, expected, "{kind}");
    }
}

#[test]
fn a_list_is_made_once_and_is_no_proof_that_its_commits_are_still_here() {
    let memory = Memory::new();
    let files: Files = [("a".to_owned(), (0o100_644, 1)), ("b".to_owned(), (0o100_644, 2))].into();
    let target = Some(TreeEnd { commit: memory.commit(&files), view: View::default() });
    let spec = RoundSpec { kind: RoundKind::Sync, held: None, target, bases: vec![], letters: vec![] };
    let (here, gone) = (Objects::of(memory.0), Objects::of(Memory::new().0));
    let (settings, cancel, lists) = (GitSettings::default(), Cancel::default(), Lists::default());
    let lister = Lister { objects: &here, settings: &settings, lists: &lists, cancel: &cancel, small: SMALL };
    let plan = whole(lister.plan(&spec, &[]));
    // Nothing is walked: no walk is possible that may look at nothing.
    let nothing = GitSettings { tree_max_entries: 0, ..GitSettings::default() };
    let idle = Lister { settings: &nothing, ..lister };
    assert_eq!(whole(idle.plan(&spec, &[])), plan);
    assert!(Lister { lists: &Lists::default(), ..idle }.plan(&spec, &[]).is_err());
    let lost = Lister { objects: &gone, settings: &settings, lists: &lists, cancel: &cancel, small: SMALL };
    assert!(matches!(lost.plan(&spec, &[]), Err(GitError::Missing(_))), "the mirror has vanished");
}
