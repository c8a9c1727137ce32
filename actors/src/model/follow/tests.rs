//! Tables of what a listing means.

use tidings_entity::id::{AppId, CursorId, ObjectId, WatchId};
use ulid::Ulid;

use super::*;
use crate::{
    model::selector::{BRANCHES, TAGS},
    ports::Ref,
};

const LEARNT: Timestamp = Timestamp(1_000);
const NOW: Timestamp = Timestamp(9_000);

fn watch(number: u128, kind: SelectorKind, value: &str) -> KnownWatch {
    KnownWatch {
        id: WatchId::new(Ulid::from_parts(1, number)),
        sink: SinkKey::own(&AppId::new(Ulid::from_parts(1, 1))),
        selector: Selector { kind, value: value.into() },
        on_branch_gone: BranchGone::Delete,
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
        due: false,
        state: CursorState::Active,
    }
}

fn listing(head: Option<&str>, refs: &[(&str, u8)]) -> RefListing {
    RefListing {
        gone: gone(refs),
        asked_at: None,
        moved_to: None,
        refs: refs
            .iter()
            .map(|(name, commit)| Ref { name: (*name).into(), commit: ObjectId::new([*commit; 20]) })
            .collect(),
        head: head.map(str::to_owned),
        has_refs: !refs.is_empty(),
        ..RefListing::default()
    }
}

/// Every ref that is not among these.
fn gone(refs: &[(&str, u8)]) -> BTreeSet<String> {
    let names =
        ["main", "trunk", "dev", "other", "release/1", "release/2"].map(|name| format!("{BRANCHES}{name}"));
    names
        .into_iter()
        .chain(["v1", "v2"].map(|name| format!("{TAGS}{name}")))
        .filter(|name| refs.iter().all(|(there, _)| there != name))
        .collect()
}

fn moved(name: &str, commit: u8) -> MovedHead {
    MovedHead { name: name.to_owned(), commit: ObjectId::new([commit; 20]), fault: None }
}

fn known(watch: KnownWatch, cursors: Vec<KnownCursor>, heads: &[(&str, u8)]) -> Known {
    Known {
        heads: heads
            .iter()
            .map(|(name, commit)| ((*name).into(), (ObjectId::new([*commit; 20]), LEARNT)))
            .collect(),
        head_ref: Some("refs/heads/main".into()),
        moved_to: None,
        watches: vec![watch],
        cursors,
        ..Known::default()
    }
}

#[test]
fn an_equal_listing_changes_nothing() {
    let watch = watch(1, SelectorKind::DefaultBranch, "");
    let cursors = vec![cursor(&watch, 1, "", "refs/heads/main")];
    let known = known(watch, cursors, &[("refs/heads/main", 1)]);
    let same = listing(Some("refs/heads/main"), &[("refs/heads/main", 1), ("refs/heads/unfollowed", 9)]);
    assert!(follow(&known, &same, Scope::Source, NOW).is_empty());
}

#[test]
fn a_renamed_default_branch_changes_only_the_branch() {
    let watch = watch(1, SelectorKind::DefaultBranch, "");
    let cursors = vec![cursor(&watch, 1, "", "refs/heads/main")];
    let id = cursors[0].id.clone();
    let known = known(watch, cursors, &[("refs/heads/main", 1)]);
    let renamed = listing(Some("refs/heads/trunk"), &[("refs/heads/trunk", 1)]);
    let following = follow(&known, &renamed, Scope::Source, NOW);
    assert_eq!(following.edits, [(id.clone(), "refs/heads/trunk".to_owned(), CursorState::Active)]);
    assert_eq!(following.gone, ["refs/heads/main"]);
    let by_head_alone = listing(Some("refs/heads/trunk"), &[("HEAD", 1)]);
    assert_eq!(follow(&known, &by_head_alone, Scope::Source, NOW), following);
    let not_asked_yet = listing(Some("refs/heads/trunk"), &[("refs/heads/main", 1)]);
    let edits = follow(&known, &not_asked_yet, Scope::Source, NOW).edits;
    assert_eq!(edits, [(id, "refs/heads/trunk".to_owned(), CursorState::Active)], "not called missing");
}

#[test]
fn a_missing_branch_is_marked_and_unmarked_but_a_blocked_one_stays_blocked_while_a_round_is_open() {
    let watch = watch(1, SelectorKind::Branch, "dev");
    let cursors = vec![cursor(&watch, 1, "", "refs/heads/dev")];
    let mut known = known(watch, cursors, &[("refs/heads/dev", 1)]);
    known.cursors[0].held = Some(ObjectId::new([1; 20]));
    let gone = listing(Some("refs/heads/main"), &[("refs/heads/main", 1)]);
    assert_eq!(follow(&known, &gone, Scope::Source, NOW).edits[0].2, CursorState::BranchMissing);
    known.cursors[0].state = CursorState::BranchMissing;
    let back = listing(None, &[("refs/heads/dev", 1)]);
    assert_eq!(follow(&known, &back, Scope::Source, NOW).edits[0].2, CursorState::Active);
    known.cursors[0].state = CursorState::Blocked;
    assert!(follow(&known, &back, Scope::Source, NOW).edits.is_empty());
    assert_eq!(follow(&known, &gone, Scope::Source, NOW).edits[0].2, CursorState::BranchMissing);
    known.cursors[0].open = true;
    assert!(follow(&known, &gone, Scope::Source, NOW).edits.is_empty());
    known.cursors[0].open = false;
    known.cursors[0].state = CursorState::Active;
    assert!(
        follow(&known, &listing(None, &[]), Scope::Source, NOW).is_empty(),
        "an empty listing proves nothing"
    );
    known.cursors[0].held = None;
    assert_eq!(follow(&known, &listing(None, &[]), Scope::Source, NOW).edits[0].2, CursorState::Empty);
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
    let following = follow(&known, &listing, Scope::Source, NOW);
    assert_eq!(following.births, [(id, "refs/heads/release/2".to_owned())]);
    assert_eq!(following.moved, [moved("refs/heads/release/2", 2)]);
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
    let following = follow(&known, &proof, Scope::Watch(&id), NOW);
    assert!(following.edits.is_empty() && following.gone.is_empty());
    assert_eq!(following.moved.len(), 1);
}

#[test]
fn a_proof_that_names_a_commit_again_says_nothing_of_its_fault() {
    let dev = watch(1, SelectorKind::Branch, "dev");
    let cursors = vec![cursor(&dev, 1, "", "refs/heads/dev")];
    let id = dev.id.clone();
    let mut known = known(dev, cursors, &[("refs/heads/dev", 1)]);
    known.faults.insert("refs/heads/dev".into(), "the tree is malformed".into());
    let follow = |commit, scope| {
        let listing = listing(Some("refs/heads/main"), &[("refs/heads/main", 1), ("refs/heads/dev", commit)]);
        follow(&known, &listing, scope, NOW).moved
    };
    assert_eq!(follow(1, Scope::Watch(&id)), []);
    assert_eq!(follow(2, Scope::Watch(&id)), [moved("refs/heads/dev", 2)], "another commit");
    assert_eq!(follow(1, Scope::Source), [moved("refs/heads/dev", 1)], "a scan took it");
}

/// A pattern that follows one release, which the app holds.
fn holding() -> Known {
    let watch = watch(1, SelectorKind::BranchPattern, "release/*");
    let mut cursors = vec![cursor(&watch, 1, "refs/heads/release/1", "refs/heads/release/1")];
    cursors[0].held = Some(ObjectId::new([1; 20]));
    known(watch, cursors, &[("refs/heads/release/1", 1)])
}

#[test]
fn a_vanished_branch_of_a_pattern_goes_after_two_listings_also_at_a_source_that_never_had_it() {
    let absent = listing(Some("refs/heads/main"), &[("refs/heads/main", 3)]);
    let once = RefListing { gone: BTreeSet::new(), ..absent.clone() };
    let mut never_had_it = holding();
    never_had_it.heads.clear();
    for mut known in [holding(), never_had_it] {
        let following = follow(&known, &once, Scope::Source, NOW);
        assert!(
            following.is_empty() && following.absent.len() == 1,
            "one listing proves nothing, but is noted"
        );
        let following = follow(&known, &absent, Scope::Source, NOW);
        assert_eq!(following.edits[0].2, CursorState::BranchMissing);
        known.cursors[0].state = CursorState::BranchMissing;
        known.heads.clear();
        assert_eq!(known.waiting().len(), 1, "its files go");
        let following = follow(&known, &once, Scope::Source, NOW);
        assert!(following.is_empty() && following.absent.is_empty(), "it is gone and that is that");
        known.watches[0].on_branch_gone = BranchGone::Keep;
        assert!(known.waiting().is_empty(), "its files stay");
    }
    for nothing_said in [listing(None, &[]), listing(Some("refs/heads/main"), &[])] {
        assert!(follow(&holding(), &nothing_said, Scope::Source, NOW).is_empty());
    }
}

#[test]
fn a_proof_at_another_source_takes_no_files_away() {
    let mut known = holding();
    known.heads.clear();
    let id = known.watches[0].id.clone();
    let proof = RefListing { gone: BTreeSet::new(), ..listing(None, &[("refs/heads/main", 3)]) };
    assert!(follow(&known, &proof, Scope::Watch(&id), NOW).edits.is_empty());
    assert!(known.waiting().is_empty());
    assert_eq!(unblocked(None, "refs/heads/release/1"), CursorState::Active);
    assert_eq!(unblocked(None, ""), CursorState::BranchMissing);
}

#[test]
fn an_answer_that_was_overtaken_moves_nothing_backwards() {
    let watch = watch(1, SelectorKind::DefaultBranch, "");
    let mut cursors = vec![cursor(&watch, 1, "", "refs/heads/trunk")];
    cursors[0].held = Some(ObjectId::new([2; 20]));
    let mut known = known(watch, cursors, &[("refs/heads/trunk", 2)]);
    known.head_ref = Some("refs/heads/trunk".into());
    let old = |asked_at| RefListing {
        asked_at: Some(Timestamp(asked_at)),
        ..listing(Some("refs/heads/main"), &[("refs/heads/main", 1), ("HEAD", 1)])
    };
    assert!(follow(&known, &old(LEARNT.0 - 1), Scope::Source, NOW).is_empty(), "asked before");
    let following = follow(&known, &old(LEARNT.0), Scope::Source, NOW);
    assert_eq!(following.moved, [moved("refs/heads/main", 1)]);
    // The clock was set back: what was learnt in the future is no measure.
    let set_back = follow(&known, &old(LEARNT.0 - 2), Scope::Source, Timestamp(LEARNT.0 - 1));
    assert_eq!(set_back.moved, following.moved);
}

#[test]
fn what_waits_at_the_commit_that_is_held_is_named() {
    let watch = watch(1, SelectorKind::Branch, "dev");
    let mut cursors = vec![cursor(&watch, 1, "", "refs/heads/dev")];
    cursors[0].held = Some(ObjectId::new([1; 20]));
    let mut known = known(watch, cursors, &[("refs/heads/dev", 1)]);
    assert!(known.waiting().is_empty());
    known.cursors[0].due = true;
    assert_eq!(known.waiting().len(), 1);
    known.cursors[0].state = CursorState::BranchMissing;
    known.watches[0].on_branch_gone = BranchGone::Keep;
    known.heads.clear();
    assert!(known.waiting().is_empty(), "it waits for the branch");
}

#[test]
fn branches_that_are_gone_take_no_room_from_those_that_come() {
    let watch = watch(1, SelectorKind::BranchPattern, "f/*");
    let dead = (0..CURSORS_PER_WATCH_MAX).map(|number| {
        let name = format!("refs/heads/f/old{number}");
        let state = CursorState::BranchMissing;
        KnownCursor { state, ..cursor(&watch, number as u128 + 1, &name, &name) }
    });
    let dead = dead.collect();
    let known = known(watch, dead, &[]);
    let fresh = listing(None, &[("refs/heads/f/new", 1)]);
    assert_eq!(follow(&known, &fresh, Scope::Source, NOW).births.len(), 1);
}

#[test]
fn a_host_that_invents_refs_is_not_followed_without_end() {
    let watch = watch(1, SelectorKind::BranchPattern, "f/*");
    let dead = (0..CURSORS_KEPT_FACTOR * CURSORS_PER_WATCH_MAX - 3).map(|number| {
        let name = format!("refs/heads/f/old{number}");
        let state = CursorState::BranchMissing;
        KnownCursor { state, ..cursor(&watch, number as u128 + 1, &name, &name) }
    });
    let dead = dead.collect();
    let known = known(watch, dead, &[]);
    let names: Vec<String> = (0..10).map(|number| format!("refs/heads/f/new{number}")).collect();
    let fresh = listing(None, &names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    let births = follow(&known, &fresh, Scope::Source, NOW).births;
    assert_eq!(births.len(), 3, "{births:?}");
    assert_eq!(room(10, 0, 0), 10);
    assert_eq!(room(10, 10, 4), 4);
    assert_eq!(room(10, 51, 50), 0);
    assert_eq!(room(10, 20, 0), 0, "it followed more before");
}

#[test]
fn a_source_is_asked_where_its_repository_was_found_last() {
    let watch = watch(1, SelectorKind::DefaultBranch, "");
    let cursors = vec![cursor(&watch, 1, "", "refs/heads/main")];
    let mut known = known(watch, cursors, &[("refs/heads/main", 1)]);
    let same = listing(Some("refs/heads/main"), &[("refs/heads/main", 1)]);
    let moved = RefListing { moved_to: Some("https://git.example/o/new".into()), ..same.clone() };
    let following = follow(&known, &moved, Scope::Source, NOW);
    assert_eq!(following.moved_to, moved.moved_to);
    assert!(!following.is_empty() && following.moved.is_empty(), "nothing else changes");
    known.moved_to = moved.moved_to.clone();
    assert!(follow(&known, &moved, Scope::Source, NOW).is_empty());
    assert!(follow(&known, &same, Scope::Source, NOW).is_empty(), "it stays there");
}

#[test]
fn only_what_somebody_follows_is_fetched() {
    let all = listing(
        Some("refs/heads/main"),
        &[
            ("refs/heads/experiment", 1),
            ("refs/heads/fixed", 2),
            ("refs/heads/main", 3),
            ("refs/heads/release/1", 4),
            ("refs/heads/release/2/rc", 5),
            ("refs/tags/v1", 6),
            ("refs/tags/w1", 2),
        ],
    );
    let commits = |selectors: &[(SelectorKind, &str)], branches: &[&str]| {
        let selector =
            |(kind, value): &(SelectorKind, &str)| Selector { kind: *kind, value: (*value).into() };
        let followed = Followed {
            selectors: selectors.iter().map(selector).collect(),
            branches: branches.iter().map(|name| (*name).to_owned()).collect(),
        };
        followed.commits(&all).iter().map(|commit| commit.as_bytes()[0]).collect::<Vec<_>>()
    };
    assert_eq!(commits(&[], &[]), [0_u8; 0]);
    assert_eq!(commits(&[(SelectorKind::DefaultBranch, "")], &[]), [3]);
    assert_eq!(commits(&[(SelectorKind::Branch, "fixed")], &["refs/heads/fixed"]), [2], "HEAD is listed too");
    assert_eq!(commits(&[(SelectorKind::BranchPattern, "release/*")], &[]), [4]);
    assert_eq!(
        commits(&[(SelectorKind::TagPattern, "*1"), (SelectorKind::DefaultBranch, "")], &[]),
        [2, 3, 6]
    );
    assert_eq!(
        commits(&[(SelectorKind::BranchPattern, "x*")], &["refs/heads/release/2/rc"]),
        [5],
        "a cursor is there"
    );
}

#[test]
fn a_pattern_that_matches_too_much_fetches_no_more_than_it_follows() {
    let refs: Vec<(String, u8)> =
        (0..CURSORS_PER_WATCH_MAX + 5).map(|number| (format!("refs/tags/{number:06}"), 1)).collect();
    let mut many =
        listing(None, &refs.iter().map(|(name, commit)| (name.as_str(), *commit)).collect::<Vec<_>>());
    for (number, entry) in many.refs.iter_mut().enumerate() {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        entry.commit = ObjectId::new(id);
    }
    let selectors = [Selector { kind: SelectorKind::TagPattern, value: "*".into() }].into();
    let last = format!("refs/tags/{:06}", CURSORS_PER_WATCH_MAX + 4);
    for branches in [[].into(), [last].into()] {
        let followed = Followed { selectors: Vec::clone(&selectors), branches };
        assert_eq!(followed.commits(&many).len(), CURSORS_PER_WATCH_MAX);
    }
}

#[test]
fn of_more_refs_than_there_is_room_for_the_greatest_versions_are_taken() {
    let names = vec!["v1.9", "v1.10", "v2", "a", "v0010", "v1.10-rc1"];
    assert_eq!(newest(names.clone(), 3), ["v0010", "v2", "v1.10-rc1"]);
    assert_eq!(newest(names.clone(), 6), names, "all of them in their order");
    assert!(newest(names, 0).is_empty());
    assert!(
        by_version("v9", "v10").is_lt() && by_version("v010", "v10").is_eq() && by_version("a", "ab").is_lt()
    );
}

#[test]
fn what_a_pattern_leaves_out_is_counted() {
    let watch = watch(1, SelectorKind::TagPattern, "v*");
    let cursors = vec![cursor(&watch, 1, "refs/tags/v1", "refs/tags/v1")];
    let id = watch.id.clone();
    let known = known(watch, cursors, &[("refs/tags/v1", 1)]);
    let names: Vec<String> = (1..=9).map(|number| format!("refs/tags/v{number}")).collect();
    let mut many = listing(None, &names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    assert!(follow(&known, &many, Scope::Source, NOW).left_out.is_empty());
    many.pattern_refs_max = Some(3);
    let following = follow(&known, &many, Scope::Source, NOW);
    let births: Vec<_> = following.births.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(births, ["refs/tags/v9", "refs/tags/v8"]);
    assert_eq!(following.left_out, [(id, 6)].into());
    let only_left_out = Following { left_out: following.left_out, ..Following::default() };
    assert!(only_left_out.is_empty(), "it leads to no write");
}

/// A pattern over requests that follows two refs at most, with cursors for these numbers.
fn requests(numbers: &[u8]) -> (Known, CursorId) {
    let watch = watch(1, SelectorKind::RefPattern, "refs/pull/*/head");
    let name = |number: &u8| format!("refs/pull/{number}/head");
    let cursors = numbers.iter().map(|number| {
        let mut cursor = cursor(&watch, u128::from(*number), &name(number), &name(number));
        cursor.held = Some(ObjectId::new([*number; 20]));
        cursor
    });
    let cursors: Vec<_> = cursors.collect();
    let first = cursors[0].id.clone();
    let heads: Vec<_> = numbers.iter().map(|number| (name(number), *number)).collect();
    let heads: Vec<_> = heads.iter().map(|(name, number)| (name.as_str(), *number)).collect();
    (known(watch, cursors, &heads), first)
}

fn of_requests(numbers: &[u8]) -> RefListing {
    let names: Vec<_> = numbers.iter().map(|number| (format!("refs/pull/{number}/head"), *number)).collect();
    let refs: Vec<_> = names.iter().map(|(name, number)| (name.as_str(), *number)).collect();
    RefListing { pattern_refs_max: Some(2), ..listing(None, &refs) }
}

#[test]
fn the_highest_requests_take_the_room_of_lower_ones() {
    let (mut known, lowest) = requests(&[8, 9]);
    assert!(follow(&known, &of_requests(&[8, 9]), Scope::Source, NOW).is_empty());
    let more = of_requests(&[1, 8, 9, 10]);
    let following = follow(&known, &more, Scope::Source, NOW);
    assert_eq!(following.births, [(known.watches[0].id.clone(), "refs/pull/10/head".to_owned())]);
    let displaced = (lowest.clone(), "refs/pull/8/head".to_owned(), CursorState::BranchMissing);
    assert_eq!(following.edits, [displaced]);
    assert_eq!(following.gone, ["refs/pull/8/head"]);
    assert_eq!(following.left_out.values().copied().collect::<Vec<_>>(), [2]);
    let followed = Followed {
        selectors: [known.watches[0].selector.clone()].into(),
        branches: ["refs/pull/8/head", "refs/pull/9/head"].map(str::to_owned).into(),
    };
    let fetched: Vec<_> = followed.commits(&more).iter().map(|commit| commit.as_bytes()[0]).collect();
    assert_eq!(fetched, [9, 10], "what is displaced is not fetched");
    let proof = follow(&known, &more, Scope::Watch(&known.watches[0].id), NOW);
    assert!(proof.edits.is_empty() && proof.gone.is_empty(), "a proof takes nothing away");
    // Its files go, and that is that until there is room again.
    known.cursors[0].state = CursorState::BranchMissing;
    known.heads.remove("refs/pull/8/head");
    assert_eq!(known.waiting(), [(known.watches[0].sink.clone(), lowest.clone())]);
    let watch = known.watches[0].clone();
    known.cursors.push(cursor(&watch, 10, "refs/pull/10/head", "refs/pull/10/head"));
    known.heads.insert("refs/pull/10/head".to_owned(), (ObjectId::new([10; 20]), LEARNT));
    assert!(follow(&known, &more, Scope::Source, NOW).is_empty());
    known.cursors[1].state = CursorState::BranchMissing;
    known.heads.remove("refs/pull/9/head");
    let room_again = follow(&known, &of_requests(&[8, 10]), Scope::Source, NOW);
    assert_eq!(room_again.edits, [(lowest, "refs/pull/8/head".to_owned(), CursorState::Active)]);
}

#[test]
fn a_request_that_another_watch_follows_is_not_displaced() {
    let (mut known, _) = requests(&[8, 9]);
    let single = watch(2, SelectorKind::Ref, "refs/pull/8/head");
    known.cursors.push(cursor(&single, 100, "", "refs/pull/8/head"));
    let selectors = [known.watches[0].selector.clone(), single.selector.clone()].into();
    known.watches.push(single);
    let more = of_requests(&[8, 9, 10]);
    let following = follow(&known, &more, Scope::Source, NOW);
    assert!(following.edits.is_empty() && following.gone.is_empty(), "{following:?}");
    assert_eq!(following.births.len(), 1);
    let followed = Followed { selectors, branches: Vec::new() };
    assert_eq!(followed.commits(&more).len(), 3);
}

#[test]
fn a_blocked_request_that_is_displaced_stays_blocked_while_its_round_is_open() {
    let (mut known, _) = requests(&[8, 9]);
    known.cursors[0].state = CursorState::Blocked;
    known.cursors[0].open = true;
    assert!(follow(&known, &of_requests(&[8, 9, 10]), Scope::Source, NOW).edits.is_empty());
}

#[test]
fn what_one_app_cannot_list_another_apps_listing_still_proves_absent() {
    let mut listing = RefListing {
        unseen: vec!["refs/heads/".to_owned()],
        seen: vec!["refs/heads/release/".to_owned(), "refs/heads/main".to_owned()],
        ..RefListing::default()
    };
    assert!(listing.is_unseen("refs/heads/topic"));
    assert!(!listing.is_unseen("refs/heads/release/1"));
    assert!(!listing.is_unseen("refs/heads/main"));
    listing.unseen.clear();
    assert!(!listing.is_unseen("refs/heads/topic"));
}
