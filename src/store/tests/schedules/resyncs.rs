//! Schedules that resync a watch: once a tick, and never a paused one.

use sea_orm::ConnectionTrait;
use tidings_actors::ports::{Watch, WatchPatch, WatchStore};
use tidings_entity::kind::WatchState;

use super::*;
use crate::tests::new_watch;

/// A store with a watch, and a schedule that resyncs it every ten minutes.
async fn begin(home: &Home, overlap: TickOverlap) -> (SqlStore, Arc<ManualClock>, Watch) {
    let (store, clock) = open(home).await;
    let watch = store.register_watch(&new_watch(&app(), 1, None)).await.expect("registered");
    let settings = ScheduleSettings {
        watch: Some(watch.id.clone()),
        command: String::new(),
        payload: "null".into(),
        overlap,
        ..every(10)
    };
    set(&store, &settings).await;
    (store, clock, watch)
}

/// Whether a resync of the watch is asked for.
async fn is_asked(store: &SqlStore, watch: &Watch) -> bool {
    use tidings_actors::ports::LaneStore;
    store.lane(&watch.cursors[0].id).await.expect("a lane").resync.is_some()
}

/// The resync that was asked for is done.
async fn done(home: &Home) {
    let text = "update cursor set resync = null where resync is not null";
    crate::database::rows::execute(&home.raw().await, "cursor", text, vec![]).await.expect("done");
}

async fn shown(store: &SqlStore) -> Schedule {
    store.schedule(&app(), "nightly").await.expect("there")
}

async fn a_tick_asks_for_a_resync_once_over_restarts_and_replicas(home: Home) {
    let (store, clock, watch) = begin(&home, TickOverlap::Allow).await;
    clock.set(Timestamp(minute(10).0 - 1));
    assert_eq!(wake(&store).await.next, Some(minute(10)));
    assert!(!is_asked(&store, &watch).await);
    clock.set(minute(10));
    let woken = wake(&store).await;
    assert_eq!((woken.resynced, woken.next), ([app()].into(), Some(minute(10))), "it looks again at once");
    assert!(is_asked(&store, &watch).await);
    assert!(tasks(&store).await.is_empty(), "no task is created");
    done(&home).await;
    let woken = wake(&store).await;
    assert!(woken.resynced.is_empty());
    assert_eq!(woken.next, Some(minute(20)));
    // On a server a second replica works beside the first; a file is taken over.
    let other = home.open_timed(clock.clone()).await.expect("opened again");
    assert!(wake(&other).await.resynced.is_empty() && !is_asked(&other, &watch).await);
    clock.set(minute(30));
    let (one, two) = tokio::join!(store.wake_tasks(), other.wake_tasks());
    let asked = one.map_or(0, |woken| woken.resynced.len()) + two.map_or(0, |woken| woken.resynced.len());
    assert_eq!(asked, 1);
    assert!(is_asked(&other, &watch).await);
    let schedule = shown(&other).await;
    assert_eq!((schedule.last_tick, schedule.missed_ticks), (minute(30), 1));
    assert_eq!(told(&other).await, [1], "the tick of minute 20");
    done(&home).await;
    clock.set(minute(25));
    assert!(wake(&other).await.resynced.is_empty(), "a clock that is set back repeats no tick");
}

async fn a_tick_of_a_paused_watch_is_skipped(home: Home) {
    let (store, clock, watch) = begin(&home, TickOverlap::Wait).await;
    let patch = |state| WatchPatch { state: Some((state, None)), ..WatchPatch::default() };
    store.patch_watch(&app(), &watch.id, &patch(WatchState::Paused)).await.expect("paused");
    clock.set(minute(20));
    assert!(wake(&store).await.resynced.is_empty() && !is_asked(&store, &watch).await);
    assert_eq!(store.watch(&app(), &watch.id).await.expect("there").state, WatchState::Paused);
    assert_eq!(shown(&store).await.skipped_ticks, 2);
    store.patch_watch(&app(), &watch.id, &patch(WatchState::Active)).await.expect("resumed");
    assert!(wake(&store).await.resynced.is_empty(), "what was skipped is not made up");
    clock.set(minute(30));
    assert_eq!(wake(&store).await.resynced, [app()].into());
}

async fn a_tick_while_a_resync_is_open_begins_anew_waits_or_is_skipped(home: Home) {
    let (store, clock, watch) = begin(&home, TickOverlap::Allow).await;
    clock.set(minute(10));
    assert_eq!(wake(&store).await.resynced.len(), 1);
    clock.set(minute(20));
    assert_eq!(wake(&store).await.resynced.len(), 1, "the resync begins again");
    let settings = shown(&store).await.settings;
    set(&store, &ScheduleSettings { overlap: TickOverlap::Skip, ..settings.clone() }).await;
    clock.set(minute(30));
    assert!(wake(&store).await.resynced.is_empty());
    assert_eq!(shown(&store).await.skipped_ticks, 1);
    set(&store, &ScheduleSettings { overlap: TickOverlap::Wait, ..settings }).await;
    clock.set(minute(40));
    assert!(wake(&store).await.resynced.is_empty());
    done(&home).await;
    clock.advance(Duration::from_secs(10));
    assert_eq!(wake(&store).await.resynced.len(), 1, "after the end of the resync before");
    assert!(is_asked(&store, &watch).await);
    assert_eq!(shown(&store).await.last_tick, minute(40));
}

async fn a_schedule_goes_with_its_watch(home: Home) {
    let (store, clock, watch) = begin(&home, TickOverlap::Allow).await;
    store.set_schedule(&app(), "tasks", &every(10)).await.expect("set");
    store.unwatch(&app(), &watch.id).await.expect("unwatched");
    let left = store.schedules(&ScheduleFilter::default(), None, 10).await.expect("listed");
    assert_eq!(left.iter().map(|schedule| schedule.name.as_str()).collect::<Vec<_>>(), ["tasks"]);
    clock.set(minute(10));
    assert_eq!((wake(&store).await.ticks, tasks(&store).await.len()), (1, 1));
}

async fn a_resync_that_fails_holds_up_no_task(home: Home) {
    let (store, clock, watch) = begin(&home, TickOverlap::Allow).await;
    store.set_schedule(&app(), "tasks", &every(10)).await.expect("set");
    let raw = home.raw().await;
    raw.execute_unprepared("alter table round_base rename to gone").await.expect("renamed");
    clock.set(minute(10));
    assert!(wake(&store).await.resynced.is_empty());
    assert_eq!(tasks(&store).await.len(), 1, "the tick of the other schedule has its task");
    assert!(shown(&store).await.error.is_some(), "the failure is shown");
    raw.execute_unprepared("alter table gone rename to round_base").await.expect("renamed");
    clock.set(minute(11));
    assert_eq!(wake(&store).await.resynced, [app()].into());
    assert!(is_asked(&store, &watch).await);
}

async fn a_schedule_that_cannot_be_read_holds_up_no_other_resync(home: Home) {
    let (store, clock, watch) = begin(&home, TickOverlap::Allow).await;
    let settings = shown(&store).await.settings;
    store.set_schedule(&app(), "broken", &settings).await.expect("set");
    let raw = home.raw().await;
    let overlap = |word: &str| format!("update schedule set overlap = '{word}' where name = 'broken'");
    raw.execute_unprepared(&overlap("from a later version")).await.expect("changed");
    clock.set(minute(10));
    assert_eq!(wake(&store).await.resynced, [app()].into());
    assert!(is_asked(&store, &watch).await);
    let woken = wake(&store).await;
    assert_eq!((woken.resynced.len(), woken.next), (0, Some(minute(11))), "the other is put off");
    done(&home).await;
    raw.execute_unprepared(&overlap("allow")).await.expect("changed");
    clock.set(minute(11));
    assert_eq!(wake(&store).await.resynced, [app()].into());
    assert!(is_asked(&store, &watch).await);
}

on_both! {
    a_tick_asks_for_a_resync_once_over_restarts_and_replicas
    a_tick_of_a_paused_watch_is_skipped
    a_tick_while_a_resync_is_open_begins_anew_waits_or_is_skipped
    a_schedule_goes_with_its_watch
    a_resync_that_fails_holds_up_no_task
    a_schedule_that_cannot_be_read_holds_up_no_other_resync
}
