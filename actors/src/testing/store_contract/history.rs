//! Ended rounds and what became of their changes.

use std::time::Duration;

use tidings_entity::{id::CursorId, kind::Operation};

use super::world::{World, change, commit, listing};
use crate::{
    model::round::{DeliveryId, Round},
    ports::{
        AttemptRecord, ChangeState, Fate, Fates, RoundFilter, RoundPlace, Settlement, Store, StoreError,
    },
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
        next_at: Some(Timestamp(4500 + i64::from(number))),
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
    let all = store.rounds_of_all(&RoundFilter::default(), 10).await.expect("read");
    let shown: Vec<_> = all.iter().map(|(of, facts)| (of == &app, facts.number)).collect();
    assert_eq!((shown.len(), shown.iter().filter(|(is_own, _)| *is_own).count()), (4, 3), "of both apps");
    assert_eq!(shown[..2], [(true, 3), (true, 2)]);
    let open = RoundFilter { is_open: true, ..RoundFilter::default() };
    assert_eq!(store.rounds_of_all(&open, 10).await.expect("read").len(), 1);
    let late = RoundFilter { from: Some(Timestamp(5001)), ..RoundFilter::default() };
    assert_eq!(store.rounds_of_all(&late, 10).await.expect("read").len(), 1);
    let early = RoundFilter { to: Some(Timestamp(3000)), ..RoundFilter::default() };
    assert!(store.rounds_of_all(&early, 10).await.expect("read").is_empty());
    assert_eq!(store.rounds_of_all(&watched, 10).await.expect("read").len(), 3);
    let rounds = list(RoundFilter::default(), 10).await;
    assert_eq!(all[0].1, rounds[0], "the same facts");
    let shown: Vec<_> = rounds.iter().map(|facts| (facts.position, facts.total(), facts.parked)).collect();
    assert_eq!(shown, [(2, 5, 0), (2, 2, 2), (1, 1, 0)]);
    let facts = &rounds[0];
    assert_eq!((&facts.watch, facts.held, facts.target), (&watch.id, Some(commit(2)), Some(commit(3))));
    assert_eq!((facts.began_at, facts.ended_at), (Timestamp(3000), None));
    assert_eq!(rounds[1].ended_at, Some(Timestamp(5000)));
    assert!(facts.history_rewritten && !facts.skipped_commits && !facts.complete);
}

/// By number, then by cursor, in whichever direction, wherever the list goes on and however short it is.
pub async fn rounds_of_many_cursors_come_in_one_order(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let mut keys = Vec::new();
    for rounds in [1_u8, 4, 0, 6, 2] {
        let branch = format!("b{rounds}");
        let mut new = world.new_watch(&app);
        new.listing = listing(&[(&format!("refs/heads/{branch}"), 1)]);
        new.selector.value = branch;
        let watch = store.register_watch(&new).await.expect("a watch");
        let cursor = &watch.cursors[0].id;
        for number in 1..=rounds {
            world.sync(cursor, number).await;
            keys.push((i64::from(number), cursor.clone()));
        }
    }
    keys.sort();
    let list = async |place, limit: usize| {
        let filter = RoundFilter { place, ..RoundFilter::default() };
        let found = store.rounds(&app, &filter, limit as u64).await.expect("read");
        found.into_iter().map(|facts| (facts.number, facts.cursor)).collect::<Vec<_>>()
    };
    let list_of_all = async |place, limit: usize| {
        let filter = RoundFilter { place, ..RoundFilter::default() };
        let found = store.rounds_of_all(&filter, limit as u64).await.expect("read");
        found.into_iter().map(|(_, facts)| (facts.number, facts.cursor)).collect::<Vec<_>>()
    };
    let newest: Vec<_> = keys.iter().rev().cloned().collect();
    for limit in [1, 2, 3, 5, 100] {
        let some = |keys: &[(i64, CursorId)]| keys.iter().take(limit).cloned().collect::<Vec<_>>();
        assert_eq!(list(RoundPlace::Newest, limit).await, some(&newest), "{limit}");
        for (at, (number, cursor)) in newest.iter().enumerate() {
            let place = RoundPlace::At(*number, cursor.clone());
            assert_eq!(list(place.clone(), limit).await, some(&newest[at..]), "{limit} at {at}");
            assert_eq!(list_of_all(place, limit).await, some(&newest[at..]), "{limit} of all at {at}");
            let place = RoundPlace::Before(*number, cursor.clone());
            assert_eq!(list(place.clone(), limit).await, some(&newest[at + 1..]), "{limit} before {at}");
            assert_eq!(
                list_of_all(place, limit).await,
                some(&newest[at + 1..]),
                "{limit} of all before {at}"
            );
            let from = keys.partition_point(|key| key.0 < *number);
            assert_eq!(
                list(RoundPlace::From(*number), limit).await,
                some(&keys[from..]),
                "{limit} from {at}"
            );
        }
    }
}

/// Nothing of its history need be kept.
pub async fn the_round_that_began_last_is_known_without_its_row(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let last = async || store.watch(&app, &watch.id).await.expect("a watch").cursors[0].last_round;
    assert_eq!(last().await, 0);
    world.sync(&cursor, 1).await;
    world.sync(&cursor, 2).await;
    let day = Duration::from_secs(86_400);
    while store.prune(Timestamp(0).after(40 * day), 30 * day, 30 * day, 100).await.expect("pruned") > 0 {}
    assert!(store.rounds(&app, &RoundFilter::default(), 10).await.expect("read").is_empty());
    assert_eq!(last().await, 2);
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
        next_at: None,
    };
    assert_eq!(fates.of(0), fate(ChangeState::Delivered, Some(4000), 1, None));
    assert_eq!(fates.of(1), fate(ChangeState::Delivered, Some(4000), 2, None), "its 2xx is no row");
    let parked =
        Fate { letter: Some(park.id.clone()), ..fate(ChangeState::Parked, Some(4500), 2, Some(400)) };
    assert_eq!(fates.of(2), parked);
    let without_rows = Fates { tries: Vec::new(), ..fates.clone() };
    assert_eq!(without_rows.of(2).status, Some(422), "a letter keeps its last answer");
    assert_eq!(fates.of(3), fate(ChangeState::Delivered, Some(4500), 2, Some(204)), "every attempt is a row");
    let failed = Fate { next_at: Some(Timestamp(4501)), ..fate(ChangeState::Failed, Some(4001), 1, None) };
    assert_eq!(fates.of(4), failed, "it is tried again");
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
