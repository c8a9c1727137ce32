//! Apps that take many changes in one request.

use std::time::Duration;

use tidings_entity::kind::{OrderMode, ParkReason, PayloadFormat};

use crate::{
    ports::{Action, AppPatch, AppStore, BatchSettings, DeliverySettings, ItemOutcome, SendFailure},
    testing::{
        house::{House, files, refs},
        transport::Answer,
    },
};

const TEN: BatchSettings = BatchSettings { count: 10, bytes: 1 << 20, linger_ms: 50 };

fn batched(delivery: &mut DeliverySettings) {
    delivery.batch = Some(TEN);
}

#[tokio::test(start_paused = true)]
async fn everything_arrives_in_batches_and_once() {
    for order in [OrderMode::Strict, OrderMode::Phased] {
        let house = House::running().await;
        let commit = house.commit(&refs(&files(200, "one")));
        let app = house.app_with(|delivery| (delivery.order, delivery.batch) = (order, Some(TEN))).await;
        let watch = house.watch(&app).await;
        house.until_held(&watch, commit).await;
        house.assert_mirrors(&app, commit);
        let arrivals = house.transport.arrivals();
        assert_eq!(arrivals.len(), 200, "each of them once");
        let batches = house.transport.batches();
        assert!(batches.iter().all(|batch| (2..=10).contains(&batch.len())));
        assert!(batches.len() < 40, "{} batches", batches.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_spoils_every_batch_is_given_up_alone() {
    let house = House::running().await;
    let list = files(60, "one");
    let commit = house.commit(&refs(&list));
    let app = house.app_with(batched).await;
    let poison = &list[33].0;
    house.transport.answer_path(poison, Some(Answer::Status(422)));
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    let letters = house.letters(&app).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((letters[0].path.as_slice(), letters[0].reason), (poison.as_bytes(), ParkReason::Rejected));
    assert_eq!(house.transport.mirror(&app).len(), 59);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_batch_is_kept_once() {
    let house = House::running().await;
    let list = files(60, "one");
    let commit = house.commit(&refs(&list));
    let app = house.app_with(batched).await;
    let poison = list[33].0.as_bytes();
    house.transport.answer_path(&list[33].0, Some(Answer::Status(422)));
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    let spoilt = house
        .transport
        .batches()
        .iter()
        .filter(|batch| batch.iter().any(|path| path.as_bytes() == poison))
        .count();
    let arrivals = house.transport.arrivals();
    let alone =
        arrivals.iter().filter(|arrival| arrival.action != Action::Batch && arrival.path == poison).count();
    let rows = house.store.attempts();
    let answers: Vec<_> = rows.iter().filter_map(|row| row.answer.as_ref()).collect();
    assert_eq!(answers.len(), spoilt + alone, "one for each request that was refused");
    assert!(spoilt > 0 && rows.len() > answers.len(), "{} rows of {spoilt} batches", rows.len());
    assert!(answers.iter().all(|answer| answer.body == "said 422"));
}

#[tokio::test(start_paused = true)]
async fn each_change_of_a_batch_is_settled_by_its_own_word() {
    let house = House::running().await;
    let list = files(40, "one");
    let commit = house.commit(&refs(&list));
    let app = house.app_with(batched).await;
    let (refused, again) = (&list[25].0, &list[27].0);
    house.transport.say_of(refused, [ItemOutcome::Refused("not today".into())]);
    house.transport.say_of(again, [ItemOutcome::Retry(String::new()), ItemOutcome::Retry(String::new())]);
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    let letters = house.letters(&app).await;
    assert_eq!((letters.len(), letters[0].excerpt.as_str()), (1, "not today"));
    let tries = |path: &str| {
        house.transport.arrivals().iter().filter(|arrival| arrival.path == path.as_bytes()).count()
    };
    assert_eq!((tries(refused), tries(&list[26].0)), (1, 1));
    assert!(tries(again) >= 2, "what is to come again does");
    assert_eq!(house.transport.mirror(&app).len(), 39);
}

#[tokio::test(start_paused = true)]
async fn an_outage_parks_nothing_of_a_batch_and_is_probed_with_one_change() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(100, "one")));
    let app = house.app_with(batched).await;
    house.transport.script([Answer::Status(200); 4]);
    house.transport.script([Answer::Failure(SendFailure::Connection); 12]);
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    assert!(house.letters(&app).await.is_empty());
    house.assert_mirrors(&app, commit);
    let failed = house.transport.arrivals().into_iter().filter(|arrival| arrival.answer != Ok(200));
    let alone = failed.filter(|arrival| arrival.action != Action::Batch).count();
    assert!(alone >= 11, "after the first failure single changes are tried: {alone}");
}

#[tokio::test(start_paused = true)]
async fn a_new_format_counts_from_the_next_round_on() {
    let house = House::running().await;
    let app = house.app().await;
    let first = house.commit(&[("a", "1"), ("b", "1"), ("c", "1")]);
    house.transport.script([Answer::Slow(200, Duration::from_secs(5))]);
    let watch = house.watch(&app).await;
    house.until("the first one is on its way", async || house.transport.flying(&app) == 1).await;
    let delivery = DeliverySettings { format: PayloadFormat::Cloudevents, ..DeliverySettings::default() };
    let patch = AppPatch { delivery: Some(delivery), ..AppPatch::default() };
    house.store.patch_app(&app, &patch, house.context.now()).await.expect("patched");
    house.refresh(&app).await;
    house.until_held(&watch, first).await;
    let formats = |from: usize| {
        let arrivals = house.transport.arrivals();
        let of = |id| house.transport.order(id).expect("rendered").lane.round.format;
        arrivals[from..].iter().map(|arrival| of(&arrival.id)).collect::<Vec<_>>()
    };
    assert_eq!(formats(0), [PayloadFormat::Docora; 3], "an open round ends as it began");
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(formats(3).last(), Some(&PayloadFormat::Cloudevents));
}

#[tokio::test(start_paused = true)]
async fn what_an_endpoint_did_not_come_to_is_never_blamed_for_it() {
    let house = House::running().await;
    let list = files(4, "one");
    let commit = house.commit(&refs(&list));
    let app = house.app_with(batched).await;
    // Many more times than a change that fails is tried; two, because one alone is no batch.
    for (path, _) in &list[2..] {
        house.transport.say_of(path, std::iter::repeat_n(ItemOutcome::Untaken, 30));
    }
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    let tries =
        house.transport.arrivals().iter().filter(|arrival| arrival.path == list[3].0.as_bytes()).count();
    assert!(tries > 30, "{tries}");
    assert!(house.letters(&app).await.is_empty());
    assert_eq!(house.transport.mirror(&app).len(), 4);
}
