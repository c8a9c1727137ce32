//! Rounds of before and what became of their changes.

use tidings_entity::kind::Operation;

use super::world::{World, change, commit};
use crate::{
    ports::{AttemptRecord, ChangeState, Fate, RoundFilter, RoundPlace, Settlement, Store, StoreError},
    round::{DeliveryId, Round},
    time::Timestamp,
};

fn attempt(round: &Round, position: u64, number: u32, status: Option<u16>) -> AttemptRecord {
    AttemptRecord {
        cursor: round.cursor.clone(),
        round: round.number,
        position,
        number,
        delivery: DeliveryId::from_stored(format!("dlv_{position}")),
        status,
        item_failure: false,
        excerpt: String::new(),
        answer: None,
        took_ms: 5,
        at: Timestamp(4000 + i64::from(number)),
    }
}

/// Newest first over all cursors, or from a number on; open and past ones, of their own app only.
pub async fn rounds_are_listed_newest_first_or_from_a_number_on(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let (other, _, foreign) = world.watched().await;
    world.sync(&foreign, 1).await;
    world.sync(&cursor, 1).await;
    world.parked(&cursor, 2, &["a", "b"]).await;
    let open = world.begin(&cursor, 3, 5).await;
    assert!(world.settle(&open, 2).await);
    let list = async |filter: RoundFilter, limit| store.rounds(&app, &filter, limit).await.expect("read");
    let numbers =
        async |filter, limit| list(filter, limit).await.iter().map(|facts| facts.number).collect::<Vec<_>>();
    let at = |place| RoundFilter { place, ..RoundFilter::default() };
    assert_eq!(numbers(RoundFilter::default(), 10).await, [3, 2, 1]);
    assert_eq!(numbers(RoundFilter::default(), 2).await, [3, 2]);
    assert_eq!(numbers(at(RoundPlace::Before(3, cursor.clone())), 10).await, [2, 1]);
    assert_eq!(numbers(at(RoundPlace::At(2, cursor.clone())), 10).await, [2, 1]);
    assert_eq!(numbers(at(RoundPlace::From(2)), 10).await, [2, 3]);
    let of = |cursor| RoundFilter { cursor: Some(cursor), ..RoundFilter::default() };
    assert_eq!(numbers(of(cursor.clone()), 10).await, [3, 2, 1]);
    assert!(numbers(of(foreign.clone()), 10).await.is_empty(), "of another app");
    let watched = RoundFilter { watch: Some(watch.id.clone()), ..RoundFilter::default() };
    assert_eq!(numbers(watched.clone(), 10).await, [3, 2, 1]);
    assert!(store.rounds(&other, &watched, 10).await.expect("read").is_empty());
    assert_eq!(numbers(RoundFilter { is_open: true, ..RoundFilter::default() }, 10).await, [3]);
    // World's rounds begin at 3000 and end at 5000.
    assert_eq!(numbers(RoundFilter { from: Some(Timestamp(5001)), ..RoundFilter::default() }, 10).await, [3]);
    assert_eq!(
        numbers(RoundFilter { from: Some(Timestamp(5000)), ..RoundFilter::default() }, 10).await.len(),
        3
    );
    assert!(
        numbers(RoundFilter { to: Some(Timestamp(3000)), ..RoundFilter::default() }, 10).await.is_empty()
    );
    assert_eq!(
        numbers(RoundFilter { to: Some(Timestamp(3001)), ..RoundFilter::default() }, 10).await.len(),
        3
    );
    let rounds = list(RoundFilter::default(), 10).await;
    let shown: Vec<_> = rounds.iter().map(|facts| (facts.position, facts.total(), facts.parked)).collect();
    assert_eq!(shown, [(2, 5, 0), (2, 2, 2), (1, 1, 0)]);
    let facts = &rounds[0];
    assert_eq!((&facts.watch, facts.held, facts.target), (&watch.id, Some(commit(2)), Some(commit(3))));
    assert_eq!((facts.began_at, facts.ended_at), (Timestamp(3000), None));
    assert_eq!(rounds[1].ended_at, Some(Timestamp(5000)));
    assert!(facts.history_rewritten && !facts.skipped_commits && !facts.complete);
}

/// A round that has ended has the spec that it began with, letters of its own among it.
pub async fn a_round_of_before_is_given_back_as_it_was_begun(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["b", "a"]).await;
    let mut plan = world.plan(&cursor, 2, 1).await;
    plan.round.spec.letters = vec![letters[1].clone(), letters[0].clone()];
    store.begin_round(&plan).await.expect("begun");
    world.finish(&plan.round).await;
    world.begin(&cursor, 3, 4).await;
    let past = store.past_round(&app, &cursor, plan.round.number).await.expect("read");
    assert_eq!(past.round, Round { position: 1, ..plan.round.clone() });
    assert_eq!((past.watch, past.ended_at), (watch.id, Some(Timestamp(5000))));
    let open = store.past_round(&app, &cursor, plan.round.number + 1).await.expect("read");
    assert_eq!((open.ended_at, open.round.summary.creates), (None, 4));
    let stranger = world.app().await;
    for (app, number) in [(&stranger, plan.round.number), (&app, 99)] {
        let refused = store.past_round(app, &cursor, number).await;
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    }
}

/// Settled ranges, letters and attempts together say what became of each change.
pub async fn what_became_of_each_change_is_told(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 6).await;
    assert!(world.settle(&round, 2).await);
    let park = world.park(&round, 2, "c");
    let settlement =
        Settlement { parked: vec![park.clone()], at: Timestamp(4500), ..world.settlement(&round, 4) };
    for row in [
        attempt(&round, 1, 1, Some(503)),
        attempt(&round, 2, 1, Some(422)),
        attempt(&round, 2, 2, Some(400)),
        attempt(&round, 3, 1, None),
        attempt(&round, 3, 2, Some(204)),
        attempt(&round, 4, 1, None),
    ] {
        store.record_attempt(row).await.expect("recorded");
    }
    assert!(store.settle(settlement).await.expect("settled"));
    let fates = store.fates(&cursor, round.number, 0..6).await.expect("read");
    assert!(fates.is_open);
    let fate = |state, at: Option<i64>, attempts, status| Fate {
        state,
        at: at.map(Timestamp),
        letter: None,
        attempts,
        status,
    };
    assert_eq!(fates.of(0), fate(ChangeState::Delivered, Some(4000), 1, None));
    assert_eq!(fates.of(1), fate(ChangeState::Delivered, Some(4000), 2, None), "its 2xx is no row");
    let parked =
        Fate { letter: Some(park.id.clone()), ..fate(ChangeState::Parked, Some(4500), 2, Some(400)) };
    assert_eq!(fates.of(2), parked);
    assert_eq!(fates.of(3), fate(ChangeState::Delivered, Some(4500), 2, Some(204)), "every attempt is a row");
    assert_eq!(fates.of(4), fate(ChangeState::Failed, Some(4001), 1, None));
    assert_eq!(fates.of(5), fate(ChangeState::Pending, None, 0, None));
    let some = store.fates(&cursor, round.number, 3..5).await.expect("read");
    assert_eq!((some.of(3), some.of(4)), (fates.of(3), fates.of(4)), "a part says the same");
    assert!(some.letters.is_empty() && some.settled.len() == 1 && some.tries.len() == 2, "{some:?}");
    for (below, last) in [(6, Some(2)), (3, Some(2)), (2, None)] {
        assert_eq!(store.last_parked(&cursor, round.number, below).await.expect("read"), last, "{below}");
    }

    // Found by id: what failed and what was given up; never by another app.
    let find = async |app, id: &DeliveryId| store.delivery(app, id).await.expect("read");
    let failed = DeliveryId::from_stored("dlv_4".into());
    assert_eq!(find(&app, &failed).await, Some((cursor.clone(), round.number, 4)));
    assert_eq!(find(&app, &park.delivery).await, Some((cursor.clone(), round.number, 2)));
    let unheard = DeliveryId::of(&cursor, round.number, &change("c", Operation::Create));
    assert_eq!(find(&app, &unheard).await, None);
    let stranger = world.app().await;
    assert_eq!(find(&stranger, &failed).await, None);
    assert_eq!(find(&stranger, &park.delivery).await, None);

    // A resync ends the round: what it did not reach is dropped.
    store.request_cursor_resync(&cursor, false, "why").await.expect("asked");
    let fates = store.fates(&cursor, round.number, 0..6).await.expect("read");
    assert!(!fates.is_open);
    let states: Vec<_> = (0..6).map(|position| fates.of(position).state.as_str()).collect();
    assert_eq!(states, ["delivered", "delivered", "parked", "delivered", "dropped", "dropped"]);
    let missing = store.fates(&cursor, 99, 0..6).await;
    assert!(matches!(missing, Err(StoreError::NotFound)));
}
