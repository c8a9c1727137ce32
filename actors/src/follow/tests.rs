//! Tables of what a listing means.

use tidings_entity::id::{AppId, CursorId, ObjectId, WatchId};
use ulid::Ulid;

use super::*;
use crate::ports::Ref;

fn watch(number: u128, kind: SelectorKind, value: &str) -> KnownWatch {
    KnownWatch {
        id: WatchId::new(Ulid::from_parts(1, number)),
        app: AppId::new(Ulid::from_parts(1, 1)),
        selector: Selector { kind, value: value.into() },
        served: true,
    }
}

fn cursor(watch: &KnownWatch, number: u128, slot: &str, branch: &str) -> KnownCursor {
    KnownCursor {
        id: CursorId::new(Ulid::from_parts(1, number)),
        watch: watch.id.clone(),
        slot: slot.into(),
        branch: branch.into(),
        held: None,
        open: false,
        state: CursorState::Active,
    }
}

fn listing(head: Option<&str>, refs: &[(&str, u8)]) -> RefListing {
    RefListing {
        absence_confirmed: true,
        refs: refs
            .iter()
            .map(|(name, commit)| Ref { name: (*name).into(), commit: ObjectId::new([*commit; 20]) })
            .collect(),
        head: head.map(str::to_owned),
        has_refs: !refs.is_empty(),
    }
}

fn known(watch: KnownWatch, cursors: Vec<KnownCursor>, heads: &[(&str, u8)]) -> Known {
    Known {
        heads: heads.iter().map(|(name, commit)| ((*name).into(), ObjectId::new([*commit; 20]))).collect(),
        head_ref: Some("refs/heads/main".into()),
        watches: vec![watch],
        cursors,
    }
}

#[test]
fn an_equal_listing_changes_nothing() {
    let watch = watch(1, SelectorKind::DefaultBranch, "");
    let cursors = vec![cursor(&watch, 1, "", "refs/heads/main")];
    let known = known(watch, cursors, &[("refs/heads/main", 1)]);
    let same = listing(Some("refs/heads/main"), &[("refs/heads/main", 1), ("refs/heads/unfollowed", 9)]);
    assert!(follow(&known, &same, Scope::Source).is_empty());
}

#[test]
fn a_renamed_default_branch_changes_only_the_branch() {
    let watch = watch(1, SelectorKind::DefaultBranch, "");
    let cursors = vec![cursor(&watch, 1, "", "refs/heads/main")];
    let id = cursors[0].id.clone();
    let known = known(watch, cursors, &[("refs/heads/main", 1)]);
    let renamed = listing(Some("refs/heads/trunk"), &[("refs/heads/trunk", 1)]);
    let following = follow(&known, &renamed, Scope::Source);
    assert_eq!(following.edits, [(id.clone(), "refs/heads/trunk".to_owned(), CursorState::Active)]);
    assert_eq!(following.gone, ["refs/heads/main"]);
    let by_head_alone = listing(Some("refs/heads/trunk"), &[("HEAD", 1)]);
    assert_eq!(follow(&known, &by_head_alone, Scope::Source), following);
    let not_asked_yet = listing(Some("refs/heads/trunk"), &[("refs/heads/main", 1)]);
    let edits = follow(&known, &not_asked_yet, Scope::Source).edits;
    assert_eq!(edits, [(id, "refs/heads/trunk".to_owned(), CursorState::Active)], "not called missing");
}

#[test]
fn a_missing_branch_is_marked_and_unmarked_but_a_blocked_one_stays_blocked() {
    let watch = watch(1, SelectorKind::Branch, "dev");
    let cursors = vec![cursor(&watch, 1, "", "refs/heads/dev")];
    let mut known = known(watch, cursors, &[("refs/heads/dev", 1)]);
    known.cursors[0].held = Some(ObjectId::new([1; 20]));
    let gone = listing(Some("refs/heads/main"), &[("refs/heads/main", 1)]);
    assert_eq!(follow(&known, &gone, Scope::Source).edits[0].2, CursorState::BranchMissing);
    known.cursors[0].state = CursorState::BranchMissing;
    let back = listing(None, &[("refs/heads/dev", 1)]);
    assert_eq!(follow(&known, &back, Scope::Source).edits[0].2, CursorState::Active);
    known.cursors[0].state = CursorState::Blocked;
    assert!(follow(&known, &gone, Scope::Source).edits.is_empty());
    known.cursors[0].state = CursorState::Active;
    assert!(follow(&known, &listing(None, &[]), Scope::Source).is_empty(), "an empty listing proves nothing");
    known.cursors[0].held = None;
    assert_eq!(follow(&known, &listing(None, &[]), Scope::Source).edits[0].2, CursorState::Empty);
}

#[test]
fn a_pattern_gets_a_cursor_per_matching_ref() {
    let watch = watch(1, SelectorKind::BranchPattern, "release/*");
    let cursors = vec![cursor(&watch, 1, "refs/heads/release/1", "refs/heads/release/1")];
    let id = watch.id.clone();
    let known = known(watch, cursors, &[("refs/heads/release/1", 1)]);
    let listing = listing(
        None,
        &[
            ("refs/heads/main", 3),
            ("refs/heads/release/1", 1),
            ("refs/heads/release/2", 2),
            ("refs/heads/release/a/b", 4),
        ],
    );
    let following = follow(&known, &listing, Scope::Source);
    assert_eq!(following.births, [(id, "refs/heads/release/2".to_owned())]);
    assert_eq!(following.moved, [("refs/heads/release/2".to_owned(), ObjectId::new([2; 20]))]);
}

#[test]
fn a_proof_speaks_of_its_own_watch_only() {
    let dev = watch(1, SelectorKind::Branch, "dev");
    let main = watch(2, SelectorKind::Branch, "main");
    let cursors = vec![cursor(&dev, 1, "", "refs/heads/dev"), cursor(&main, 2, "", "refs/heads/main")];
    let mut known = known(dev, cursors, &[("refs/heads/dev", 1)]);
    let id = main.id.clone();
    known.watches.push(main);
    let proof = listing(Some("refs/heads/main"), &[("refs/heads/main", 2)]);
    let following = follow(&known, &proof, Scope::Watch(&id));
    assert!(following.edits.is_empty() && following.gone.is_empty());
    assert_eq!(following.moved.len(), 1);
}

#[test]
fn what_is_asked_of_a_host_covers_what_a_selector_follows() {
    let ask = |kind, value: &str| Selector { kind, value: value.into() }.ref_pattern();
    for (kind, value, asked) in [
        (SelectorKind::DefaultBranch, "", None),
        (SelectorKind::Branch, "a/b", Some("refs/heads/a/b")),
        (SelectorKind::BranchPattern, "release/*", Some("refs/heads/release/")),
        (SelectorKind::BranchPattern, "rel*", Some("refs/heads/")),
        (SelectorKind::BranchPattern, "plain", Some("refs/heads/plain")),
        (SelectorKind::TagPattern, "v*", Some("refs/tags/")),
    ] {
        assert_eq!(ask(kind, value).as_deref(), asked, "{value}");
    }
}
