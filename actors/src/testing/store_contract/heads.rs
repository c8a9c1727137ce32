//! Heads, sources and what follows them.

use std::{collections::BTreeSet, time::Duration};

use tidings_entity::{
    id::{AppId, CursorId, SourceId},
    kind::{BranchGone, ContentRule, CursorState, HistoryMode, HookNews, HookProvider, SelectorKind},
};

use super::world::{MAIN, World, commit, listing};
use crate::{
    model::secret::Secret,
    model::view::View,
    ports::{
        Extent, Hook, Location, Moved, Reach, RefListing, Selector, SinkKey, Start, Store, StoreError, Watch,
        WatchPatch,
    },
    time::Timestamp,
};

const LATER: Timestamp = Timestamp(6000);

/// What one credential reports is never the target of another's cursor.
pub async fn a_cursor_never_sees_a_head_of_another_source(store: &dyn Store) {
    let world = World::new(store);
    let (_, public, public_cursor) = world.watched().await;
    let app = world.app().await;
    let mut new = world.new_watch(&app);
    new.credential = Some(Secret::new("private".into()));
    let private = store.register_watch(&new).await.expect("registered");
    assert_eq!(private.repository, public.repository);
    let moved = store.move_heads(&private.source, &listing(&[(MAIN, 9)]), LATER).await.expect("moved");
    assert!(moved.changed);
    assert_eq!(moved.cursors, [(SinkKey::own(&app), private.cursors[0].id.clone())]);
    assert_eq!(world.lane(&private.cursors[0].id).await.head, Some(commit(9)));
    assert_eq!(world.lane(&public_cursor).await.head, Some(commit(1)));
    let missing = SourceId::new(world.ulid());
    assert!(matches!(store.move_heads(&missing, &listing(&[]), LATER).await, Err(StoreError::NotFound)));
}

/// A fault of a head is known to its lane until the head can be fetched.
pub async fn a_lane_knows_why_its_head_cannot_be_had(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, cursor) = world.watched().await;
    let mut bad = listing(&[(MAIN, 2)]);
    bad.refused.insert(commit(2), "its tree is malformed".to_owned());
    store.move_heads(&watch.source, &bad, LATER).await.expect("moved");
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.head, Some(commit(2)));
    assert_eq!(lane.head_fault.as_deref(), Some("its tree is malformed"));
    let moved = store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), LATER).await.expect("moved");
    assert!(moved.changed, "the lane is told");
    assert_eq!(world.lane(&cursor).await.head_fault, None);
}

/// A poll that finds nothing new changes nothing; cursors still behind are named again.
pub async fn an_equal_listing_writes_nothing_but_names_who_is_behind(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let same = listing(&[(MAIN, 1), ("refs/heads/unfollowed", 5)]);
    let again = store.move_heads(&watch.source, &same, LATER).await.expect("polled");
    assert_eq!(again, Moved { cursors: vec![(SinkKey::own(&app), cursor.clone())], ..Moved::default() });
    world.sync(&cursor, 1).await;
    assert_eq!(store.move_heads(&watch.source, &same, LATER).await.expect("polled"), Moved::default());
    let source = &store.sources(&watch.repository).await.expect("sources")[0];
    assert_eq!(source.last_change, Timestamp(1000), "the moment of registration");
    let next = listing(&[(MAIN, 2)]);
    let moved = store.move_heads(&watch.source, &next, LATER).await.expect("moved");
    assert_eq!(
        moved,
        Moved { changed: true, cursors: vec![(SinkKey::own(&app), cursor)], ..Moved::default() }
    );
    let source = &store.sources(&watch.repository).await.expect("sources")[0];
    assert_eq!(source.last_change, LATER);
    let status = &store.watch(&app, &watch.id).await.expect("watch").cursors[0];
    assert_eq!((status.head, status.held), (Some(commit(2)), Some(commit(1))));
    assert_eq!(status.behind_since, Some(LATER));
}

/// Its head did not move, and yet the watch has nothing of it.
pub async fn a_watch_of_a_known_head_is_behind_from_its_registration_on(store: &dyn Store) {
    let world = World::new(store);
    let (_, first, _) = world.watched().await;
    let app = world.app().await;
    let mut new = world.new_watch(&app);
    new.created_at = Timestamp(1700);
    let second = store.register_watch(&new).await.expect("registered");
    assert_eq!(second.source, first.source);
    let shown = store.watch(&app, &second.id).await.expect("watch");
    assert_eq!(shown.cursors[0].behind_since, Some(Timestamp(1700)));
}

/// What only a watch that was removed followed is neither kept nor named as present.
pub async fn a_head_that_nobody_follows_any_more_goes(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, _) = world.watched().await;
    let both = listing(&[(MAIN, 1), ("refs/heads/other", 2)]);
    let mut new = world.new_watch(&app);
    new.selector = Selector { kind: SelectorKind::Branch, value: "other".into() };
    new.listing = both.clone();
    let other = store.register_watch(&new).await.expect("registered");
    assert_eq!(other.source, watch.source);
    let haves = async || store.sources(&watch.repository).await.expect("sources").remove(0).haves;
    assert_eq!(haves().await, [commit(1), commit(2)]);
    store.unwatch(&app, &other.id).await.expect("removed");
    store.move_heads(&watch.source, &both, LATER).await.expect("polled");
    assert_eq!(haves().await, [commit(1)]);
}

/// A rename alone leaves nothing to do.
pub async fn a_renamed_default_branch_moves_no_held_commit(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let mut new = world.new_watch(&app);
    new.selector = Selector { kind: SelectorKind::DefaultBranch, value: String::new() };
    let watch = store.register_watch(&new).await.expect("registered");
    let cursor = watch.cursors[0].id.clone();
    assert_eq!(watch.cursors[0].branch, MAIN);
    world.sync(&cursor, 1).await;
    let renamed = RefListing { head: Some("refs/heads/trunk".into()), ..listing(&[("refs/heads/trunk", 1)]) };
    let moved = store.move_heads(&watch.source, &renamed, LATER).await.expect("moved");
    assert!(moved.cursors.is_empty());
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.branch, "refs/heads/trunk");
    assert_eq!(lane.held.map(|(held, _)| held), Some(commit(1)));
    assert!(!world.is_pending(&cursor).await);
}

/// A vanished branch keeps what the app has; a repository without refs is empty.
pub async fn a_missing_branch_waits_and_comes_back(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let state = async || store.watch(&app, &watch.id).await.expect("watch").cursors[0].state;
    store.move_heads(&watch.source, &listing(&[]), LATER).await.expect("polled");
    assert_eq!(state().await, CursorState::Empty);
    assert!(!world.is_pending(&cursor).await);
    store.move_heads(&watch.source, &listing(&[(MAIN, 1)]), LATER).await.expect("polled");
    assert_eq!(state().await, CursorState::Active);
    world.sync(&cursor, 1).await;
    let why = async || store.watch(&app, &watch.id).await.expect("watch").cursors[0].reason.clone();
    store.request_cursor_resync(&cursor, false, "its mirror was lost").await.expect("asked");
    assert!(why().await.is_some());
    store.move_heads(&watch.source, &listing(&[("refs/heads/other", 4)]), LATER).await.expect("polled");
    assert_eq!((state().await, why().await), (CursorState::BranchMissing, None));
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.head, lane.held.map(|(held, _)| held)), (None, Some(commit(1))));
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), LATER).await.expect("polled");
    assert_eq!(state().await, CursorState::Active);
    assert!(world.is_pending(&cursor).await);
}

/// Each matching ref has its own cursor, also when it appears later.
pub async fn a_pattern_has_a_cursor_per_ref(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let mut new = world.new_watch(&app);
    new.selector = Selector { kind: SelectorKind::TagPattern, value: "v*".into() };
    new.listing = listing(&[("refs/tags/v1", 1), ("refs/tags/x", 2), (MAIN, 3)]);
    let watch = store.register_watch(&new).await.expect("registered");
    let branches = |watch: &crate::ports::Watch| -> Vec<String> {
        watch.cursors.iter().map(|cursor| cursor.branch.clone()).collect()
    };
    assert_eq!(branches(&watch), ["refs/tags/v1"]);
    let more = listing(&[("refs/tags/v1", 1), ("refs/tags/v2", 2)]);
    let moved = store.move_heads(&watch.source, &more, LATER).await.expect("moved");
    assert_eq!(moved.cursors.len(), 2);
    let watch = store.watch(&app, &watch.id).await.expect("watch");
    assert_eq!(branches(&watch), ["refs/tags/v1", "refs/tags/v2"]);
    let fewer = listing(&[("refs/tags/v2", 2)]);
    store.move_heads(&watch.source, &fewer, LATER).await.expect("moved");
    let watch = store.watch(&app, &watch.id).await.expect("watch");
    assert_eq!(watch.cursors[0].state, CursorState::BranchMissing);
    assert_eq!(watch.cursors.len(), 2, "its row stays");
}

/// A scan that leaves refs out changes nothing about them and wakes none of their lanes. Only a scan that
/// asks for all refs of a pattern meets new ones. What is listed moves for every app.
pub async fn refs_that_a_scan_leaves_out_stay_as_they_are(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, cursor) = world.watched().await;
    let app = world.app().await;
    let (one, two, later) = ("refs/heads/many/1", "refs/heads/many/2", "refs/heads/later");
    let mut new = world.new_watch(&app);
    new.selector = Selector { kind: SelectorKind::BranchPattern, value: "**".into() };
    new.listing = listing(&[(MAIN, 1), (one, 1), (two, 1)]);
    let many = store.register_watch(&new).await.expect("registered");
    assert_eq!(many.source, watch.source, "they share it");
    let cursors = async || store.watch(&app, &many.id).await.expect("watch").cursors;
    let of = async |branch: &str| cursors().await.into_iter().find(|cursor| cursor.branch == branch);
    let on_main = of(MAIN).await.expect("a cursor").id;
    world.sync(&cursor, 1).await;
    world.sync(&on_main, 1).await;
    let few = RefListing {
        seen: vec![MAIN.into(), later.into()],
        unseen: vec!["refs/heads/".into()],
        is_partial: true,
        gone: [one.to_owned()].into(),
        ..listing(&[(MAIN, 2), (later, 2)])
    };
    let moved = store.move_heads(&watch.source, &few, LATER).await.expect("polled");
    assert!(moved.changed && moved.absent.is_empty(), "{moved:?}");
    let woken: BTreeSet<CursorId> = moved.cursors.into_iter().map(|(_, cursor)| cursor).collect();
    assert_eq!(woken, BTreeSet::from([cursor, on_main]));
    assert_eq!(of(MAIN).await.expect("a cursor").behind_since, Some(LATER));
    assert!(of(later).await.is_none(), "there may be no room for it");
    for left_out in [one, two] {
        let left_out = of(left_out).await.expect("a cursor");
        assert_eq!((left_out.state, left_out.head), (CursorState::Active, Some(commit(1))));
    }
    let again = store.move_heads(&watch.source, &few, LATER).await.expect("polled");
    assert!(!again.changed && again.cursors.len() == 2, "{again:?}");
    let all = listing(&[(MAIN, 2), (one, 3), (two, 1), (later, 2)]);
    let moved = store.move_heads(&watch.source, &all, LATER).await.expect("polled");
    assert_eq!((moved.changed, moved.cursors.len()), (true, 5));
    assert_eq!(of(one).await.expect("a cursor").head, Some(commit(3)));
    assert_eq!(of(later).await.expect("a cursor").head, Some(commit(2)));
}

const RELEASE: &str = "refs/heads/release/1";

/// A pattern's one branch, held at commit 1 and then confirmed to be gone.
async fn vanished(world: &World<'_>, gone: BranchGone) -> (AppId, Watch, CursorId) {
    let app = world.app().await;
    let mut new = world.new_watch(&app);
    new.selector = Selector { kind: SelectorKind::BranchPattern, value: "release/*".into() };
    new.on_branch_gone = gone;
    new.listing = listing(&[(RELEASE, 1), (MAIN, 3)]);
    let watch = world.store.register_watch(&new).await.expect("registered");
    let cursor = watch.cursors[0].id.clone();
    world.sync(&cursor, 1).await;
    let once = RefListing { gone: BTreeSet::new(), ..listing(&[(MAIN, 3)]) };
    let moved = world.store.move_heads(&watch.source, &once, LATER).await.expect("polled");
    assert_eq!((moved.absent.len(), moved.cursors.len()), (1, 0), "once is not enough");
    assert!(!world.is_pending(&cursor).await);
    (app, watch, cursor)
}

/// Since when the app lacks changes of the only branch of a watch. The watch, the list of watches that are
/// behind and the list of the longest lags must say the same.
async fn lacks_since(world: &World<'_>, app: &AppId, watch: &Watch) -> Option<Timestamp> {
    let since = world.store.watch(app, &watch.id).await.expect("watch").cursors[0].behind_since;
    let laggards = world.store.laggards(1_000).await.expect("read");
    let listed = laggards.iter().find(|laggard| laggard.watch == watch.id).map(|laggard| laggard.since);
    assert_eq!(listed, since, "the list of the longest lags");
    since
}

/// Its files are deleted; its row stays, and its round numbers go on when the branch comes back.
pub async fn a_vanished_branch_of_a_pattern_leads_to_nothing_and_comes_back_from_nothing(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = vanished(&world, BranchGone::Delete).await;
    let moved = store.move_heads(&watch.source, &listing(&[(MAIN, 3)]), LATER).await.expect("polled");
    assert_eq!(moved.cursors, [(SinkKey::own(&app), cursor.clone())]);
    assert!(world.is_pending(&cursor).await);
    assert_eq!(lacks_since(&world, &app, &watch).await, Some(LATER), "its files are to be deleted");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.head, lane.state), (None, CursorState::BranchMissing));
    assert_eq!(lane.on_branch_gone, BranchGone::Delete);
    let mut to_nothing = world.plan(&cursor, 9, 2).await;
    to_nothing.round.spec.target = None;
    store.begin_round(&to_nothing).await.expect("begun");
    assert_eq!(world.lane(&cursor).await.open.expect("open").spec.target, None, "as it was begun");
    assert_eq!(lacks_since(&world, &app, &watch).await, Some(LATER));
    world.finish(&to_nothing.round).await;
    assert!(!world.is_pending(&cursor).await);
    assert_eq!(lacks_since(&world, &app, &watch).await, None);
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.held, lane.last_round), (None, to_nothing.round.number));
    assert_eq!(store.watch(&app, &watch.id).await.expect("watch").cursors.len(), 1, "its row stays");
    let back = listing(&[(MAIN, 3), (RELEASE, 1)]);
    let moved = store.move_heads(&watch.source, &back, LATER).await.expect("polled");
    assert_eq!(moved.cursors, [(SinkKey::own(&app), cursor.clone())]);
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.held, lane.head, lane.state), (None, Some(commit(1)), CursorState::Active));
}

/// A cursor at rest stays as long as its history and no longer; its numbers go on all the same.
pub async fn a_cursor_at_rest_goes_with_its_history(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = vanished(&world, BranchGone::Delete).await;
    store.move_heads(&watch.source, &listing(&[(MAIN, 3)]), LATER).await.expect("polled");
    let day = Duration::from_secs(86_400);
    let (soon, later) = (Timestamp(5_000).after(29 * day), Timestamp(5_000).after(31 * day));
    let cursors = async || store.watch(&app, &watch.id).await.expect("watch").cursors;
    let prune = async |at| while store.prune(at, 30 * day, 90 * day, 2).await.expect("pruned") > 0 {};
    prune(later).await;
    assert_eq!(cursors().await.len(), 1, "its app still holds files");
    let mut to_nothing = world.plan(&cursor, 9, 2).await;
    to_nothing.round.spec.target = None;
    store.begin_round(&to_nothing).await.expect("begun");
    prune(later).await;
    assert_eq!(cursors().await.len(), 1, "a round is open");
    world.finish(&to_nothing.round).await;
    prune(soon).await;
    assert_eq!(cursors().await.len(), 1, "its history is kept");
    prune(later).await;
    assert_eq!(cursors().await.len(), 0);
    let back = listing(&[(MAIN, 3), (RELEASE, 1)]);
    let moved = store.move_heads(&watch.source, &back, later).await.expect("polled");
    assert_eq!(moved.cursors.len(), 1);
    let lane = world.lane(&moved.cursors[0].1).await;
    assert_eq!((lane.held, lane.head, lane.last_round), (None, Some(commit(1)), 0), "the clock goes on");
    prune(later.after(100 * day)).await;
    assert_eq!(cursors().await.len(), 1, "only what is at rest goes");
}

/// A source is asked where its repository was found last; hooks name either address.
pub async fn a_repository_that_moved_is_asked_there(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let stranger = world.app().await;
    let mut other = world.new_watch(&stranger);
    other.credential = Some(Secret::new("private".into()));
    let other = store.register_watch(&other).await.expect("registered");
    let new = "https://git.example/one/renamed";
    let found = |place: &str| RefListing { moved_to: Some(place.into()), ..listing(&[(MAIN, 1)]) };
    let moved = store.move_heads(&watch.source, &found(new), LATER).await.expect("polled");
    assert!(moved.changed);
    let again = store.move_heads(&watch.source, &found(new), LATER).await.expect("polled");
    assert!(!again.changed, "it is known");
    let asked = async |id: &SourceId| {
        let sources = store.sources(&watch.repository).await.expect("sources");
        let source = sources.into_iter().find(|source| source.id == *id).expect("a source");
        match source.remote.location {
            Location::Http(url) => url.to_string(),
            Location::Local(path) => path.display().to_string(),
        }
    };
    assert_eq!(asked(&watch.source).await, new);
    assert_eq!(asked(&other.source).await, super::world::URL, "another source saw nothing of it");
    assert!(matches!(world.lane(&cursor).await.remote.location, Location::Http(url) if url.as_str() == new));
    let shown = store.watch(&app, &watch.id).await.expect("watch");
    assert_eq!(shown.moved_to.as_deref(), Some(new));
    assert_eq!(store.watch(&stranger, &other.id).await.expect("watch").moved_to, None);
    let hook = |address: &str, delivery: &str| Hook {
        owner: None,
        provider: HookProvider::Github,
        delivery: Some(delivery.into()),
        event: "push".into(),
        news: HookNews::Push,
        ref_name: Some(MAIN.into()),
        addresses: vec![address.into()],
        received_at: LATER,
    };
    for (address, delivery) in [(new, "1"), (super::world::URL, "2")] {
        let receipt = store.receive(&hook(address, delivery), None).await.expect("received");
        assert_eq!(receipt.repositories, std::slice::from_ref(&watch.repository), "{address}");
    }
    let back = store.move_heads(&watch.source, &found(super::world::URL), LATER).await.expect("polled");
    assert!(back.changed);
    assert_eq!(store.watch(&app, &watch.id).await.expect("watch").moved_to, None, "it came back");
    assert_eq!(asked(&watch.source).await, super::world::URL);
}

/// With `keep` nothing happens until it is back, or the watch is told otherwise.
pub async fn a_vanished_branch_whose_files_stay_waits_for_its_return(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = vanished(&world, BranchGone::Keep).await;
    let moved = store.move_heads(&watch.source, &listing(&[(MAIN, 3)]), LATER).await.expect("polled");
    assert!(moved.cursors.is_empty() && !world.is_pending(&cursor).await);
    assert_eq!(lacks_since(&world, &app, &watch).await, None, "its files stay");
    let patch = WatchPatch { on_branch_gone: Some(BranchGone::Delete), ..WatchPatch::default() };
    let patched = store.patch_watch(&app, &watch.id, &patch).await.expect("patched");
    assert_eq!(patched.on_branch_gone, BranchGone::Delete);
    assert!(world.is_pending(&cursor).await);
    assert!(lacks_since(&world, &app, &watch).await.is_some(), "its files are to be deleted");
    let patch = WatchPatch { on_branch_gone: Some(BranchGone::Keep), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &patch).await.expect("patched");
    assert_eq!(lacks_since(&world, &app, &watch).await, None);
    let back = listing(&[(MAIN, 3), (RELEASE, 2)]);
    store.move_heads(&watch.source, &back, LATER).await.expect("polled");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.held.map(|(held, _)| held), lane.head), (Some(commit(1)), Some(commit(2))));
}

/// A registration whose question was answered before a poll's, and written after it.
pub async fn a_listing_that_was_overtaken_moves_no_head_backwards(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), LATER).await.expect("moved");
    let mut again = world.new_watch(&app);
    again.listing.asked_at = Some(Timestamp(5999));
    again.created_at = Timestamp(6500);
    store.register_watch(&again).await.expect("registered again");
    assert_eq!(world.lane(&cursor).await.head, Some(commit(2)));
    let overtaken = RefListing { asked_at: Some(Timestamp(5999)), ..listing(&[(MAIN, 1)]) };
    let moved = store.move_heads(&watch.source, &overtaken, Timestamp(6500)).await.expect("polled");
    assert!(!moved.changed);
    let fresh = RefListing { asked_at: Some(Timestamp(6001)), ..listing(&[(MAIN, 1)]) };
    let moved = store.move_heads(&watch.source, &fresh, Timestamp(6500)).await.expect("polled");
    assert!(moved.changed);
    assert_eq!(world.lane(&cursor).await.head, Some(commit(1)));
}

/// Neither a resync nor another view is forgotten because the head is the held commit.
pub async fn a_branch_that_returns_at_the_held_commit_brings_back_what_waits(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    let gone = listing(&[("refs/heads/other", 4)]);
    let back = listing(&[(MAIN, 1)]);
    store.move_heads(&watch.source, &gone, LATER).await.expect("polled");
    let patch = WatchPatch { view: Some(super::world::view("docs/**")), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &patch).await.expect("patched");
    let moved = store.move_heads(&watch.source, &back, LATER).await.expect("polled");
    assert_eq!(moved.cursors, [(SinkKey::own(&app), cursor.clone())], "another view");
    world.sync(&cursor, 1).await;
    assert!(store.move_heads(&watch.source, &back, LATER).await.expect("polled").cursors.is_empty());
    store.move_heads(&watch.source, &gone, LATER).await.expect("polled");
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    let moved = store.move_heads(&watch.source, &back, LATER).await.expect("polled");
    assert_eq!(moved.cursors, [(SinkKey::own(&app), cursor)], "a resync");
}

/// `start: now` delivers nothing of what is there already.
pub async fn a_watch_that_starts_at_a_commit_holds_it(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let mut new = world.new_watch(&app);
    new.start = Start::At(commit(1));
    let watch = store.register_watch(&new).await.expect("registered");
    let cursor = &watch.cursors[0];
    assert_eq!((cursor.held, cursor.head), (Some(commit(1)), Some(commit(1))));
    assert!(!world.is_pending(&cursor.id).await);
    let lane = world.lane(&cursor.id).await;
    assert_eq!(lane.held, Some((commit(1), new.view)));
    assert_eq!(lane.deliver_after, Timestamp(2000));
}

/// What a poll needs: refs, depth, what is present, where.
pub async fn a_source_says_what_to_ask_for(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    let mut new = world.new_watch(&app);
    new.selector = Selector { kind: SelectorKind::BranchPattern, value: "release/*".into() };
    new.mode = HistoryMode::Every;
    store.register_watch(&new).await.expect("registered");
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), LATER).await.expect("moved");
    let sources = store.sources(&watch.repository).await.expect("sources");
    let source = &sources[0];
    assert_eq!(source.patterns, [vec![MAIN.to_owned(), "refs/heads/release/".to_owned()]]);
    assert_eq!(source.followed.selectors, [watch.selector.clone(), new.selector.clone()]);
    assert_eq!(source.followed.branches, [MAIN]);
    assert_eq!(source.extent, Extent::Whole);
    assert!(source.every);
    assert_eq!(source.haves, [commit(1), commit(2)]);
    assert!(matches!(&source.remote.location, Location::Http(url) if url.as_str() == super::world::URL));
    assert_eq!(source.remote.repository, watch.repository);
    store.record_scan_error(&watch.source, Some("no answer")).await.expect("noted");
    let through = store.watches_of_source(&watch.source).await.expect("watches");
    assert_eq!(through.len(), 2);
    assert_eq!(through[0].last_error.as_deref(), Some("no answer"));
    store.record_scan_error(&watch.source, None).await.expect("forgotten");
    assert_eq!(store.watch(&app, &watch.id).await.expect("watch").last_error, None);
}

/// Contents are left out of a scan only while every watch of the repository is narrow, through
/// whatever source it sees it.
pub async fn a_repository_is_fetched_whole_for_a_single_watch_that_is_not_narrow(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let mut new = world.new_watch(&app);
    new.view = View::new(vec!["docs/**".into()], vec![], false, ContentRule::Inline, 1).expect("valid");
    let narrow = store.register_watch(&new).await.expect("registered");
    let extents = async || {
        let sources = store.sources(&narrow.repository).await.expect("sources");
        sources.iter().map(|source| source.extent).collect::<Vec<_>>()
    };
    assert_eq!(extents().await, [Extent::Trees]);
    let stranger = world.app().await;
    let mut other = world.new_watch(&stranger);
    other.credential = Some(Secret::new("private".into()));
    let other = store.register_watch(&other).await.expect("registered");
    assert_eq!(extents().await, [Extent::Whole, Extent::Whole]);
    let all = store.repositories(&Reach::All).await.expect("sources");
    let of_all: Vec<_> = all.iter().flat_map(|(_, sources)| sources).map(|source| source.extent).collect();
    assert_eq!(of_all, [Extent::Whole, Extent::Whole]);
    store.unwatch(&stranger, &other.id).await.expect("removed");
    assert_eq!(extents().await, [Extent::Trees]);
    let wide = WatchPatch { view: Some(View::default()), ..WatchPatch::default() };
    store.patch_watch(&app, &narrow.id, &wide).await.expect("patched");
    assert_eq!(extents().await, [Extent::Whole]);
}
