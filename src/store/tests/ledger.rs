//! Ledgers: what is told, in which order, and what is told together.

mod search;

use std::sync::Arc;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    model::filter::{Filter, sets::LEDGER},
    ports::{
        Administration, AppPatch, AppStore, BreakerRow, LaneStore, LedgerEntry, LedgerFilter, Ledgers,
        NewApp, Ref, RefListing, SourceStore, UpkeepStore, WatchPatch, WatchStore,
    },
    testing::{ManualClock, SeededRandom},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, ObjectId},
    kind::{BreakerKind, EntryType, WatchState},
};
use tidings_secrets::Keyring;

use super::{
    MAIN,
    home::{Home, on_both},
    listing, new_app, watch,
};
use crate::{SqlStore, StartRules, ledger};

const MINUTE: i64 = 60_000;

/// A store whose clock the test sets.
async fn clocked(home: &Home) -> (SqlStore, Arc<ManualClock>) {
    let (random, path) = (Arc::new(SeededRandom::new(7)), home.path().join("keyring"));
    let keyring = Keyring::open(&path).or_else(|_| Keyring::create(&path, &*random)).expect("a keyring");
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let rules = StartRules::default();
    let opened = SqlStore::open_at_start(rules, home.url(), Arc::new(keyring), clock.clone(), random).await;
    (opened.expect("opened"), clock)
}

async fn entries(store: &SqlStore, app: &AppId) -> Vec<LedgerEntry> {
    let all = store.entries_between(app, &LedgerFilter::default(), 0, i64::MAX, 1_000).await;
    all.expect("entries").found
}

/// `number type data cause`, a line for each.
async fn told(store: &SqlStore, app: &AppId) -> Vec<String> {
    let line = |entry: LedgerEntry| {
        let cause = entry.cause.map_or_else(String::new, |cause| format!(" after {cause}"));
        format!("{} {} {}{cause}", entry.id.number, entry.entry_type, entry.data)
    };
    entries(store, app).await.into_iter().map(line).collect()
}

async fn blocks(store: &SqlStore, cursor: &tidings_entity::id::CursorId, reason: Option<&str>) {
    store.set_blocked(cursor, reason).await.expect("written");
}

async fn a_block_and_its_end_are_told_with_what_they_are_about(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    let cursor = &watched.cursors[0].id;
    assert_eq!(store.ledger_ends(&app).await.expect("read"), None, "nothing happened yet");
    blocks(&store, cursor, Some("ten in a row")).await;
    // Another reason is the same state.
    blocks(&store, cursor, Some("eleven in a row")).await;
    clock.set(Timestamp(1_000_000 + MINUTE));
    blocks(&store, cursor, None).await;
    let branch = "refs/heads/main";
    assert_eq!(
        told(&store, &app).await,
        [
            format!(r#"1 watch.blocked {{"branch":"{branch}","reason":"ten in a row","repository":"a/b"}}"#),
            format!(r#"2 watch.recovered {{"branch":"{branch}","repository":"a/b"}} after 1"#),
        ]
    );
    let ends = store.ledger_ends(&app).await.expect("read").expect("a ledger");
    assert_eq!((ends.first, ends.last), (1, 2));
    let first = entries(&store, &app).await.swap_remove(0);
    assert_eq!((first.watch, first.subject), (Some(watched.id), cursor.to_string()));
    assert_eq!(first.id.ledger, ends.name);
}

async fn a_state_that_flaps_is_told_at_once_and_then_where_it_stands(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    let cursor = &watched.cursors[0].id;
    for second in 0..30 {
        clock.set(Timestamp(1_000_000 + 1_000 * second));
        blocks(&store, cursor, (second % 2 == 0).then_some("flaps")).await;
    }
    assert_eq!(told(&store, &app).await.len(), 1, "the first change at once, the others are folded");
    let now = Timestamp(1_000_000 + 29_000 + MINUTE - 1);
    assert_eq!(store.tell_folded(now, 500).await.expect("told"), 0, "it did not stand still for a minute");
    let now = Timestamp(now.0 + 1);
    assert_eq!(store.tell_folded(now, 500).await.expect("told"), 1);
    let all = told(&store, &app).await;
    assert_eq!(all.len(), 2);
    assert!(all[1].starts_with("2 watch.recovered ") && all[1].contains(r#""changes":29"#), "{all:?}");
    // It is at rest: what follows is told at once again.
    clock.set(Timestamp(now.0 + 2 * MINUTE));
    store.tell_folded(Timestamp(now.0 + 2 * MINUTE), 500).await.expect("told");
    blocks(&store, cursor, Some("again")).await;
    assert!(told(&store, &app).await[2].starts_with("3 watch.blocked "));
}

async fn a_state_that_comes_back_to_what_was_told_needs_no_entry(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    let cursor = &watched.cursors[0].id;
    for (second, reason) in [(0, Some("blocked")), (1, None), (2, Some("blocked"))] {
        clock.set(Timestamp(1_000_000 + 1_000 * second));
        blocks(&store, cursor, reason).await;
    }
    let later = 1_000_000 + 2_000 + MINUTE;
    store.tell_folded(Timestamp(later), 500).await.expect("told");
    assert_eq!(told(&store, &app).await.len(), 1);
    clock.set(Timestamp(later + MINUTE));
    blocks(&store, cursor, None).await;
    let all = told(&store, &app).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[1].starts_with("2 watch.recovered ") && all[1].ends_with("after 1"));
}

async fn a_state_that_comes_back_after_more_than_a_minute_needs_no_entry_either(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    let cursor = &watched.cursors[0].id;
    for (second, reason, entries) in [(0, Some("blocked"), 1), (40, None, 1), (62, Some("again"), 1)] {
        clock.set(Timestamp(1_000_000 + 1_000 * second));
        blocks(&store, cursor, reason).await;
        assert_eq!(told(&store, &app).await.len(), entries, "after {second} s");
    }
    store.tell_folded(Timestamp(1_000_000 + 62_000 + MINUTE), 500).await.expect("told");
    assert_eq!(told(&store, &app).await.len(), 1, "the last entry says where the state stands");
    clock.set(Timestamp(1_000_000 + 3 * MINUTE));
    blocks(&store, cursor, None).await;
    assert!(told(&store, &app).await[1].starts_with("2 watch.recovered "));
}

async fn more_states_than_one_look_tells_are_told_by_the_next_looks(home: Home) {
    let (store, clock) = clocked(&home).await;
    let apps: Vec<AppId> = (1..=5).map(|number| new_app(number).id).collect();
    for number in 1..=5 {
        store.create_app(&new_app(number)).await.expect("created");
    }
    for (second, is_open) in [(0, true), (1, false), (2, true), (3, false)] {
        clock.set(Timestamp(1_000_000 + 1_000 * second));
        for app in &apps {
            let breaker = BreakerRow {
                kind: BreakerKind::Endpoint,
                id: app.to_string(),
                failures: if is_open { 5 } else { 0 },
                opened_at: is_open.then_some(clock_now(&clock)),
                probe_at: None,
                last_error: "status 503".to_owned(),
            };
            store.record_breaker(&breaker).await.expect("recorded");
        }
    }
    let later = Timestamp(1_003_000 + MINUTE);
    let mut looks = Vec::new();
    for _look in 0..4 {
        looks.push(store.tell_folded(later, 2).await.expect("told"));
    }
    assert_eq!(looks, [2, 2, 1, 0], "a full look says that there may be more");
    for app in &apps {
        let all = told(&store, app).await;
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[1].starts_with("2 sink.closed "), "{all:?}");
    }
}

async fn a_pause_a_disabled_app_and_open_breakers_are_told_once_each(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    let pause = |state, reason: Option<&str>| WatchPatch {
        state: Some((state, reason.map(str::to_owned))),
        ..WatchPatch::default()
    };
    for at in [0, MINUTE] {
        clock.set(Timestamp(1_000_000 + 10 * at));
        let patch = if at == 0 {
            pause(WatchState::Paused, Some("by hand"))
        } else {
            pause(WatchState::Active, None)
        };
        for _twice in 0..2 {
            store.patch_watch(&app, &watched.id, &patch).await.expect("patched");
        }
        let disabled = (at == 0).then(|| "by hand".to_owned());
        for _twice in 0..2 {
            let patch = AppPatch { disabled: Some(disabled.clone()), ..AppPatch::default() };
            store.patch_app(&app, &patch, clock_now(&clock)).await.expect("patched");
        }
        for (kind, id) in
            [(BreakerKind::Endpoint, app.to_string()), (BreakerKind::Source, store.all_of_source(&app).await)]
        {
            let is_open = at == 0;
            let breaker = BreakerRow {
                kind,
                id,
                failures: if is_open { 5 } else { 0 },
                opened_at: is_open.then_some(Timestamp(1)),
                probe_at: None,
                last_error: "status 503".to_owned(),
            };
            for _twice in 0..2 {
                store.record_breaker(&breaker).await.expect("recorded");
            }
        }
    }
    let types: Vec<EntryType> =
        entries(&store, &app).await.into_iter().map(|entry| entry.entry_type).collect();
    use EntryType::*;
    assert_eq!(
        types,
        [
            WatchPaused,
            SinkDisabled,
            SinkOpened,
            SourceFailing,
            WatchResumed,
            SinkEnabled,
            SinkClosed,
            SourceRecovered
        ]
    );
}

fn clock_now(clock: &ManualClock) -> Timestamp {
    use tidings_actors::ports::Clock;
    clock.now()
}

impl SqlStore {
    /// The one source that an app sees.
    async fn all_of_source(&self, app: &AppId) -> String {
        use tidings_actors::ports::Reach;
        let all = self.repositories(&Reach::All).await.expect("repositories");
        let mut sources = all.into_iter().flat_map(|(_, sources)| sources);
        let found = sources.find(|source| source.remote.apps.contains(app));
        found.expect("a source").id.to_string()
    }
}

async fn old_entries_go_and_the_first_number_that_is_kept_is_known(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    for turn in 0..20 {
        clock.set(Timestamp(1_000_000 + turn * 2 * MINUTE));
        blocks(&store, &watched.cursors[0].id, (turn % 2 == 0).then_some("blocked")).await;
    }
    let age = std::time::Duration::from_secs(3_600);
    let now = Timestamp(1_000_000 + 40 * MINUTE + 3_600_000);
    // All are older than an hour but the last ones; then the number goes below what is kept.
    let pruned = store.prune_ledgers(Timestamp(1_000_000 + 3_600_000 + 10 * MINUTE), age, 1_000, 3).await;
    assert_eq!(pruned.expect("pruned"), 3, "no more than asked for");
    assert_eq!(
        store.ledger_ends(&app).await.expect("read").map(|ends| (ends.first, ends.last)),
        Some((4, 20))
    );
    store.prune_ledgers(Timestamp(1_000_000), age, 5, 1_000).await.expect("pruned");
    assert_eq!(
        store.ledger_ends(&app).await.expect("read").map(|ends| (ends.first, ends.last)),
        Some((16, 20))
    );
    store.prune_ledgers(now, age, 1_000, 1_000).await.expect("pruned");
    let ends = store.ledger_ends(&app).await.expect("read").map(|ends| (ends.first, ends.last));
    assert_eq!(ends, Some((21, 20)), "nothing is kept, and the numbers go on");
    clock.set(Timestamp(now.0 + MINUTE));
    blocks(&store, &watched.cursors[0].id, Some("blocked")).await;
    assert_eq!(entries(&store, &app).await.len(), 1);
    assert_eq!(entries(&store, &app).await[0].id.number, 21);
    store.erase_app(&app).await.expect("erased");
    let raw = home.raw().await;
    for table in ["entry", "ledger", "entry_fold"] {
        assert_eq!(super::number(&raw, &format!("select count(*) from {table}")).await, 0, "{table}");
    }
    raw.execute_unprepared("select 1").await.expect("alive");
}

async fn an_entry_that_a_wrong_clock_made_old_takes_no_younger_one_with_it(home: Home) {
    const DAY: i64 = 24 * 60 * MINUTE;
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    for (at, reason) in [(300 * DAY, Some("blocked")), (DAY, None), (300 * DAY + MINUTE, Some("again"))] {
        clock.set(Timestamp(at));
        blocks(&store, &watched.cursors[0].id, reason).await;
    }
    assert_eq!(told(&store, &app).await.len(), 3);
    let prune = async |days: i64| {
        let age = std::time::Duration::from_secs(90 * 86_400);
        store.prune_ledgers(Timestamp(days * DAY), age, 1_000, 100).await.expect("pruned")
    };
    assert_eq!(prune(301).await, 0, "the first entry is a day old");
    assert_eq!(told(&store, &app).await.len(), 3);
    assert_eq!(prune(391).await, 3);
}

async fn the_list_of_all_apps_goes_back_through_time_without_a_hole(home: Home) {
    let (store, clock) = clocked(&home).await;
    let mut cursors = Vec::new();
    for number in 1..=3 {
        store.create_app(&new_app(number)).await.expect("created");
        cursors.push(watch(&store, &new_app(number).id, number, None).await.cursors[0].id.clone());
    }
    for turn in 0..10 {
        // Some at one moment.
        clock.set(Timestamp(1_000_000 + turn / 2 * 2 * MINUTE));
        for cursor in &cursors {
            blocks(&store, cursor, (turn / 2 % 2 == 0).then_some("blocked")).await;
        }
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = store.entries_of_all(&LedgerFilter::default(), before.as_ref(), 4).await.expect("read");
        seen.extend(page.found);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 15, "five turns of three apps");
    assert!(seen.is_sorted_by(|one, other| (other.at, &other.app) < (one.at, &one.app)));
}

async fn a_filter_finds_entries_and_shows_no_app_those_of_another(home: Home) {
    let (store, clock) = clocked(&home).await;
    for number in 1..=2 {
        let new = NewApp { name: format!("app {number}"), ..new_app(number) };
        store.create_app(&new).await.expect("created");
        let watched = watch(&store, &new.id, number, None).await;
        blocks(&store, &watched.cursors[0].id, Some("ten in a row")).await;
        clock.set(Timestamp(clock_now(&clock).0 + 2 * MINUTE));
        blocks(&store, &watched.cursors[0].id, None).await;
        let disabled = AppPatch { disabled: Some(Some("by hand".to_owned())), ..AppPatch::default() };
        store.patch_app(&new.id, &disabled, clock_now(&clock)).await.expect("patched");
    }
    let (own, other) = (new_app(1).id, new_app(2).id);
    for (q, expected) in [
        ("type:watch.blocked".to_owned(), vec![1]),
        ("NOT type:~watch".to_owned(), vec![3]),
        ("repository:a/b type:~recovered".to_owned(), vec![2]),
        ("\"ten in\"".to_owned(), vec![1]),
        ("origin:outside by:endpoint".to_owned(), vec![3]),
        ("app:\"app 1\" since:-1000d".to_owned(), vec![3, 2, 1]),
        (format!("app:{other}"), vec![]),
        (format!("NOT app:{own} OR app:{other} OR NOT type:mail.failed"), vec![3, 2, 1]),
    ] {
        let query = Filter::parse(&q, &LEDGER, clock_now(&clock)).expect(&q);
        let filter = LedgerFilter { query: Some(query), ..LedgerFilter::default() };
        let found = store.entries(&own, &filter, None, 10).await.expect(&q).found;
        assert!(found.iter().all(|entry| entry.app == own), "{q}");
        let numbers: Vec<i64> = found.iter().map(|entry| entry.id.number).collect();
        assert_eq!(numbers, expected, "{q}");
    }
}

async fn a_blocked_branch_that_is_gone_has_recovered_and_may_be_blocked_again(home: Home) {
    let (store, clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    blocks(&store, &watched.cursors[0].id, Some("blocked")).await;
    let away = Ref { name: "refs/heads/other".into(), commit: ObjectId::new([7; 20]) };
    let away = RefListing { refs: vec![away], head: None, gone: [MAIN.into()].into(), ..listing(1) };
    for turn in 1..=2 {
        clock.set(Timestamp(1_000_000 + turn * MINUTE));
        let listed = if turn == 1 { &away } else { &listing(1) };
        store.move_heads(&watched.source, listed, Timestamp(1_000_000 + turn * MINUTE)).await.expect("moved");
    }
    clock.set(Timestamp(1_000_000 + 3 * MINUTE));
    blocks(&store, &watched.cursors[0].id, Some("again")).await;
    let types: Vec<EntryType> =
        entries(&store, &app).await.into_iter().map(|entry| entry.entry_type).collect();
    assert_eq!(types, [EntryType::WatchBlocked, EntryType::WatchRecovered, EntryType::WatchBlocked]);
}

async fn each_restore_is_told_and_gives_the_ledger_another_name(home: Home) {
    let (store, _clock) = clocked(&home).await;
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let watched = watch(&store, &app, 1, None).await;
    blocks(&store, &watched.cursors[0].id, Some("blocked")).await;
    let (raw, random) = (home.raw().await, SeededRandom::new(9));
    let mut names = vec![store.ledger_ends(&app).await.expect("read").expect("a ledger").name];
    for second in 0..2 {
        let at = Timestamp(1_000_000 + second);
        ledger::restored(&raw, &random, Timestamp(1), at).await.expect("restored");
        names.push(store.ledger_ends(&app).await.expect("read").expect("a ledger").name);
    }
    assert!(names[0] != names[1] && names[1] != names[2], "{names:?}");
    let all = entries(&store, &app).await;
    let before: Vec<bool> = [1, 2].map(|at: usize| all[at].data.contains(&*names[at - 1].to_string())).into();
    assert_eq!((all.len(), before), (3, vec![true, true]), "{all:?}");
}

async fn a_ledger_that_may_have_lost_entries_gets_another_name_and_says_so(home: Home) {
    let (store, _clock) = clocked(&home).await;
    let mut apps = Vec::new();
    for number in 1..=2 {
        store.create_app(&new_app(number)).await.expect("created");
        let watched = watch(&store, &new_app(number).id, number, None).await;
        blocks(&store, &watched.cursors[0].id, Some("blocked")).await;
        apps.push(new_app(number).id);
    }
    let mut names = Vec::new();
    for of in [None, Some(&apps[0])] {
        for app in &apps {
            names.push(store.ledger_ends(app).await.expect("read").expect("a ledger").name);
        }
        store.rename_ledgers(of).await.expect("renamed");
    }
    for app in &apps {
        names.push(store.ledger_ends(app).await.expect("read").expect("a ledger").name);
    }
    assert!(names[0] != names[2] && names[1] != names[3], "all were renamed: {names:?}");
    assert!(names[2] != names[4] && names[3] == names[5], "then one was: {names:?}");
    let said = format!(r#"2 ledger.restored {{"ledger_before":"{}"}}"#, names[1]);
    assert_eq!(told(&store, &apps[1]).await[1..], [said]);
}

async fn what_happens_to_a_source_stands_in_the_ledgers_of_those_who_watch_through_it(home: Home) {
    let (store, _clock) = clocked(&home).await;
    let mut apps = Vec::new();
    for number in 1..=3 {
        store.create_app(&new_app(number)).await.expect("created");
        watch(&store, &new_app(number).id, number, None).await;
        apps.push(new_app(number).id);
    }
    let breaker = BreakerRow {
        kind: BreakerKind::Source,
        id: store.all_of_source(&apps[0]).await,
        failures: 5,
        opened_at: Some(Timestamp(1)),
        probe_at: None,
        last_error: "status 503".to_owned(),
    };
    store.record_breaker(&breaker).await.expect("recorded");
    let mut counts = Vec::new();
    for app in &apps {
        let own = entries(&store, app).await;
        assert!(own.iter().all(|entry| entry.app == *app && entry.id.number == 1), "{own:?}");
        counts.push(own.len());
    }
    assert_eq!(counts, [1, 0, 0], "each watches through a source of its own");
}

on_both! {
    a_filter_finds_entries_and_shows_no_app_those_of_another
    a_blocked_branch_that_is_gone_has_recovered_and_may_be_blocked_again
    each_restore_is_told_and_gives_the_ledger_another_name
    a_ledger_that_may_have_lost_entries_gets_another_name_and_says_so
    what_happens_to_a_source_stands_in_the_ledgers_of_those_who_watch_through_it
    a_block_and_its_end_are_told_with_what_they_are_about
    a_state_that_flaps_is_told_at_once_and_then_where_it_stands
    a_state_that_comes_back_to_what_was_told_needs_no_entry
    a_state_that_comes_back_after_more_than_a_minute_needs_no_entry_either
    more_states_than_one_look_tells_are_told_by_the_next_looks
    a_pause_a_disabled_app_and_open_breakers_are_told_once_each
    old_entries_go_and_the_first_number_that_is_kept_is_known
    an_entry_that_a_wrong_clock_made_old_takes_no_younger_one_with_it
    the_list_of_all_apps_goes_back_through_time_without_a_hole
}
