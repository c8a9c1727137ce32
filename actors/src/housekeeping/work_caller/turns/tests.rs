//! Which subscription receives which message, and when.

use std::time::Duration;

use ulid::Ulid;

use super::*;
use crate::{
    model::sink::SinkAddress,
    ports::{App, DeliverySettings},
    time::Timestamp,
};

const SECOND: Duration = Duration::from_secs(1);

fn app() -> App {
    App {
        id: AppId::new(Ulid::from_parts(1, 1)),
        sink: None,
        name: "app".to_owned(),
        email: String::new(),
        is_from_anyone: false,
        receives_at: SinkAddress::Pull,
        website: None,
        description: None,
        keys: Vec::new(),
        access: std::sync::Arc::default(),
        delivery: DeliverySettings::default(),
        disabled: None,
        endpoint_since: Timestamp(1),
        created_at: Timestamp(0),
    }
}

pub(in crate::housekeeping) fn subscription(
    number: u128,
    group: Option<&str>,
    interval: Duration,
) -> WorkerSubscription {
    WorkerSubscription {
        id: WorkerSubscriptionId::new(Ulid::from_parts(1, number)),
        app: app().id,
        url: format!("https://workers.example/{number}"),
        commands: vec!["embed".into()],
        group: group.map(str::to_owned),
        min_interval: interval,
        ttl: 300 * SECOND,
        expires_at: Timestamp(i64::MAX),
        created_at: Timestamp(0),
    }
}

pub(in crate::housekeeping) fn work(subscriptions: Vec<WorkerSubscription>) -> QueueWork {
    let app = app();
    let queue = QueueId::of(&app.id, "embed");
    QueueWork { app, queue, command: "embed".into(), ready: 1, free_at: None, subscriptions }
}

/// The numbers of those that are told.
fn told(turns: &mut Turns, work: &QueueWork, is_new: bool, now: Instant) -> Vec<u128> {
    let told = turns.tell(work, is_new, now, &mut |_| true);
    told.iter().map(|one| one.id.ulid().random()).collect()
}

#[test]
fn a_word_that_comes_too_soon_is_told_once_at_the_end_of_the_interval() {
    let (mut turns, begin) = (Turns::default(), Instant::now());
    let both = work(vec![subscription(1, None, 5 * SECOND), subscription(2, None, Duration::ZERO)]);
    assert_eq!(told(&mut turns, &both, true, begin), [1, 2]);
    for second in 1..4 {
        assert_eq!(told(&mut turns, &both, true, begin + second * SECOND), [2], "the other waits");
    }
    assert_eq!(turns.next(begin + 4 * SECOND), Some(begin + 5 * SECOND));
    assert!(turns.due(begin + 4 * SECOND).is_empty());
    let place = (both.app.id.clone(), both.queue.clone());
    assert_eq!(turns.due(begin + 5 * SECOND), [place]);
    assert_eq!(told(&mut turns, &both, false, begin + 5 * SECOND), [1], "three words are one");
    assert_eq!(turns.next(begin + 6 * SECOND), None);
    assert_eq!(told(&mut turns, &both, false, begin + 20 * SECOND), Vec::<u128>::new());
}

#[test]
fn a_late_word_without_work_is_forgotten() {
    let (mut turns, begin) = (Turns::default(), Instant::now());
    let one = work(vec![subscription(1, None, 5 * SECOND)]);
    told(&mut turns, &one, true, begin);
    told(&mut turns, &one, true, begin + SECOND);
    turns.nothing(&(one.app.id.clone(), one.queue.clone()));
    assert_eq!(turns.next(begin + 5 * SECOND), None);
}

#[test]
fn a_word_about_a_queue_whose_rate_is_used_up_waits_until_it_allows_a_claim() {
    let (mut turns, begin) = (Turns::default(), Instant::now());
    let one = work(vec![subscription(1, None, Duration::ZERO)]);
    turns.put_off(&one, true, begin + SECOND);
    assert_eq!(told(&mut turns, &one, false, begin), Vec::<u128>::new());
    assert_eq!(turns.next(begin), Some(begin + SECOND));
    // Other workers were faster.
    turns.put_off(&one, false, begin + 2 * SECOND);
    assert!(turns.due(begin + SECOND).is_empty());
    assert_eq!(told(&mut turns, &one, false, begin + 2 * SECOND), [1]);
    turns.put_off(&one, false, begin + 3 * SECOND);
    assert_eq!(turns.next(begin + 2 * SECOND), None, "there is no word to keep");
}

#[test]
fn of_a_group_one_member_is_told_in_turn() {
    let (mut turns, begin) = (Turns::default(), Instant::now());
    let member = |number| subscription(number, Some("gpu"), Duration::ZERO);
    let three = work(vec![member(1), member(2), member(3)]);
    let order: Vec<u128> = (0..5).flat_map(|_| told(&mut turns, &three, true, begin)).collect();
    assert_eq!(order, [1, 2, 3, 1, 2]);
    // The one whose turn it is left; another one came.
    let others = work(vec![member(1), member(2), member(4)]);
    let order: Vec<u128> = (0..3).flat_map(|_| told(&mut turns, &others, true, begin)).collect();
    assert_eq!(order, [4, 1, 2]);
}

#[test]
fn a_member_that_was_told_too_recently_is_passed_over() {
    let (mut turns, begin) = (Turns::default(), Instant::now());
    let member = |number| subscription(number, Some("gpu"), 5 * SECOND);
    let two = work(vec![member(1), member(2)]);
    let order: Vec<Vec<u128>> = (0..4).map(|_| told(&mut turns, &two, true, begin)).collect();
    assert_eq!(order, [vec![1], vec![2], vec![], vec![]]);
    assert_eq!(told(&mut turns, &two, false, begin + 5 * SECOND), [1], "one word for the group");
    assert_eq!(turns.next(begin + 5 * SECOND), None);
}

#[test]
fn a_word_without_room_waits_a_second() {
    let (mut turns, begin) = (Turns::default(), Instant::now());
    let one = work(vec![subscription(1, None, 60 * SECOND)]);
    assert!(turns.tell(&one, true, begin, &mut |_| false).is_empty());
    assert_eq!(turns.next(begin), Some(begin + NO_ROOM), "it was not told, so its interval does not begin");
    assert_eq!(told(&mut turns, &one, false, begin + NO_ROOM), [1]);
}
