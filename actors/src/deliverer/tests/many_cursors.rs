//! An app with a hundred thousand cursors: each is served, and few of them are in memory at a time.

use std::{collections::BTreeSet, time::Duration};

use tidings_entity::kind::SelectorKind;
use tokio::time::Instant;

use crate::{
    context::policy::Policy,
    model::follow::CURSORS_PER_WATCH_MAX,
    ports::{LaneStore, Reach, Selector},
    supervision::{directory::Doing, tree::DELIVERER},
    testing::{
        house::{House, URL, location},
        transport::Answer,
    },
};

/// Each a pattern that as many branches match as one watch may have.
const WATCHES: usize = 10;
/// Of all watches together.
const CURSORS: usize = WATCHES * CURSORS_PER_WATCH_MAX;

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_cursors_are_served_by_few_lanes_at_a_time() {
    let mut house = House::new();
    let app = house.app().await;
    // On paused time only what takes time can be looked at while it happens.
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(5))));
    for number in 0..WATCHES {
        let url = format!("{URL}/{number}");
        for branch in 0..CURSORS_PER_WATCH_MAX {
            house.git.commit(&location(&url), &format!("b/{branch:05}"), &[("a", "1")]);
        }
        let branches = Selector { kind: SelectorKind::BranchPattern, value: "b/*".into() };
        house.register(&app, &url, |watch| watch.selector = branches).await;
    }
    assert_eq!(house.store.pending(Some(&app), &Reach::All).await.expect("cursors").len(), CURSORS);

    house.start().await;
    let (began, mut most) = (Instant::now(), 0);
    while house.transport.arrived() < CURSORS {
        if let Some(Doing::Delivering { lanes, .. }) = house.doing(DELIVERER, app.as_str()) {
            most = most.max(lanes);
        }
        let arrived = house.transport.arrived();
        assert!(began.elapsed() < Duration::from_secs(3_600), "{arrived} arrived");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let bound = Policy::default().app_lanes;
    assert!((bound / 2..=bound).contains(&most), "{most} lanes were in memory, at most {bound} may be");

    let nothing_waits =
        async || house.store.pending(Some(&app), &Reach::All).await.expect("cursors").is_empty();
    house.until("nothing waits any more", nothing_waits).await;
    let arrivals = house.transport.arrivals();
    assert!(arrivals.iter().all(|arrival| arrival.answer == Ok(200)));
    let cursors: BTreeSet<_> = arrivals
        .iter()
        .map(|arrival| house.transport.order(&arrival.id).expect("rendered").lane.round.cursor.clone())
        .collect();
    assert_eq!((cursors.len(), arrivals.len()), (CURSORS, CURSORS), "each cursor is served once");
}
