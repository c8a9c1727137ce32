//! What is told while reads of the store take their time.

use std::time::Duration;

use tidings_entity::id::{AppId, QueueId};

use super::{
    WorkCallerMessage,
    turns::tests::{subscription, work},
};
use crate::{
    ports::{Notice, QueueWork},
    supervision::tree::WORK_CALLER,
    testing::{Fault, house::House},
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// How often a worker was told of this command.
fn told(house: &House, app: &AppId, command: &str) -> usize {
    let is_it = |notice: &Notice| matches!(notice, Notice::WorkAvailable(call) if call.command == command);
    house.transport.notices(app).iter().filter(|notice| is_it(notice)).count()
}

#[tokio::test(start_paused = true)]
async fn a_late_word_that_becomes_due_during_a_read_about_others_is_told_after_it() {
    let house = House::running().await;
    let late = work(vec![subscription(1, None, 1_000 * MILLISECOND)]);
    let app = late.app.id.clone();
    let queue = QueueId::of(&app, "other");
    let listeners = vec![subscription(2, None, Duration::ZERO)];
    let other = QueueWork { queue, command: "other".into(), ..work(listeners) };
    let ready = |work: &QueueWork| {
        let caller = house.context.directory.find(WORK_CALLER, "").expect("it runs");
        caller.send(WorkCallerMessage::Ready([(app.clone(), work.queue.clone())].into()));
    };
    house.store.give_work(late.clone());
    house.store.give_work(other.clone());

    ready(&late);
    tokio::time::sleep(100 * MILLISECOND).await;
    assert_eq!(told(&house, &app, "embed"), 1);
    ready(&late);
    tokio::time::sleep(800 * MILLISECOND).await;
    assert_eq!(told(&house, &app, "embed"), 1, "the interval is not over");

    house.store.befall("work_for", Fault::Waits(500 * MILLISECOND));
    ready(&other);
    tokio::time::sleep(1_000 * MILLISECOND).await;
    assert!(!house.store.awaits_fault("work_for"), "the read waited");
    assert_eq!(told(&house, &app, "other"), 1);
    assert_eq!(told(&house, &app, "embed"), 2, "its interval ended during that read");
}
