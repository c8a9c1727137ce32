//! The search against the plain truth: every file of every tree, one by one.

use proptest::prelude::*;
use tidings_actors::model::view::View;

use super::*;
use crate::{
    list::tests::{Files, Memory, files, views},
    objects::limits::Cancel,
    settings::GitSettings,
};

fn search(memory: Memory, ends: &[TreeEnd], blob: ObjectId, entries: u64) -> Result<bool, GitError> {
    let settings = GitSettings { tree_max_entries: entries, ..GitSettings::default() };
    holds(&Objects::of(memory.0), &Limits::new(&settings, Cancel::default()), ends, blob)
}

proptest! {
    #[test]
    fn a_blob_is_found_where_a_view_shows_it_and_nowhere_else(
        shown in prop::collection::vec(views(), 2),
        trees in prop::collection::vec((files(), 0..2_usize), 0..5),
        wanted in 1..5_u8,
        from in 0..5_usize,
    ) {
        let mut trees = trees;
        // So that it is often one of the later trees alone that has it.
        trees.iter_mut().take(from).for_each(|(files, _)| files.retain(|_, (_, content)| *content != wanted));
        let memory = Memory::new();
        let mut ends = Vec::new();
        let mut expected = false;
        for (files, view) in trees.iter().map(|(files, view)| (files, &shown[*view])) {
            ends.push(TreeEnd { commit: memory.commit(files), view: view.clone() });
            let filter = view.filter().expect("valid");
            expected |= memory.stored(files).iter().any(|(path, (mode, content))| {
                *content == wanted && filter.admits(path.as_bytes(), *mode)
            });
        }
        let blob = memory.write(git2::ObjectType::Blob, &vec![wanted; usize::from(wanted)]);
        prop_assert_eq!(search(memory, &ends, blob, 1_000_000).expect("all is there"), expected);
    }
}

fn wide(number: usize) -> Files {
    let mut files: Files = (0..500).map(|file| (format!("d{}/f{file}", file % 50), (0o100_644, 1))).collect();
    files.insert(format!("new{number}"), (0o100_644, 2));
    files
}

#[test]
fn what_only_a_later_tree_has_is_found() {
    let files =
        |content| Files::from([("d/a".to_owned(), (0o100_644, 1)), ("d/b".to_owned(), (0o100_644, content))]);
    for contents in [[1, 2], [2, 1]] {
        let memory = Memory::new();
        let end = |content| TreeEnd { commit: memory.commit(&files(content)), view: View::default() };
        let (ends, blob) = (contents.map(end), memory.write(git2::ObjectType::Blob, &[2, 2]));
        assert!(search(memory, &ends, blob, 1_000).expect("all is there"), "{contents:?}");
    }
}

#[test]
fn many_branches_of_one_repository_cost_about_as_much_as_one() {
    let memory = Memory::new();
    let ends: Vec<TreeEnd> = (0..100)
        .map(|number| TreeEnd { commit: memory.commit(&wide(number)), view: View::default() })
        .collect();
    let absent = ObjectId::new([9; 20]);
    // The root of each, and once the files: not a hundred times five hundred.
    assert!(!search(memory, &ends, absent, 551 + 99 * 60).expect("within the budget"));
    let memory = Memory::new();
    let one = TreeEnd { commit: memory.commit(&wide(0)), view: View::default() };
    let error = search(memory, &[one], absent, 500).expect_err("the budget binds");
    assert!(matches!(error, GitError::TooLarge(_)), "{error}");
}

#[test]
fn a_tree_that_is_not_here_is_said_to_be_missing() {
    let lost = TreeEnd { commit: ObjectId::new([8; 20]), view: View::default() };
    let error = search(Memory::new(), &[lost], ObjectId::new([9; 20]), 1_000).expect_err("missing");
    assert!(matches!(error, GitError::Missing(id) if id == ObjectId::new([8; 20])), "{error}");
}
