//! What replicas tell each other of tasks.

use tidings_entity::id::ReplicaId;
use ulid::Ulid;

use super::*;
use crate::{
    housekeeping::work_caller::turns::tests::{subscription, work},
    ports::{Leases, Notice},
    testing::house::House,
};

fn apps(count: usize) -> BTreeSet<AppId> {
    (0..count).map(|number| AppId::new(Ulid::from_parts(1, number as u128))).collect()
}

#[test]
fn a_moment_alone_names_no_app_and_many_apps_mean_all() {
    let soon = Some(Timestamp(7));
    assert!(signals(apps(0), false, None).is_empty());
    assert_eq!(signals(apps(0), false, soon), [Signal::Tasks(vec![], Some(7))]);
    let two: Vec<AppId> = apps(2).into_iter().collect();
    assert_eq!(signals(apps(2), true, soon), [Signal::Tasks(two, Some(7))]);
    let all = Signal::Tasks(vec![], None);
    assert_eq!(signals(apps(0), true, None), std::slice::from_ref(&all));
    let many = signals(apps(APPS_TOLD + 1), false, soon);
    assert_eq!(many, [all, Signal::Tasks(vec![], Some(7))]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_at_another_replica_tells_no_worker_of_work() {
    let house = House::alone(Duration::from_secs(9)).await;
    house.until("it leads", async || house.context.shards.leads()).await;
    let other = house.store.leases().seen_by(&ReplicaId::new(Ulid::from_parts(1, 99)));
    let work = work(vec![subscription(1, None, Duration::ZERO)]);
    let app = work.app.id.clone();
    house.store.give_work(work);
    let is_work = |notice: &Notice| matches!(notice, Notice::WorkAvailable(_));
    let told = || house.transport.notices(&app).iter().filter(|notice| is_work(notice)).count();
    let soon = house.context.now().after(Duration::from_secs(2)).0;
    for (signal, expected) in [
        (Signal::Tasks(vec![], Some(soon)), 0),
        (Signal::Tasks(vec![app.clone()], Some(soon)), 1),
        (Signal::Tasks(vec![], None), 2),
    ] {
        other.tell(&signal).await.expect("told");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(told(), expected, "{signal:?}");
    }
}
