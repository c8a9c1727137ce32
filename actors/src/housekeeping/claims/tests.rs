//! Who in this process hears of changes of tasks, and what replicas tell each other of them. Which verbs of
//! the store send which word is the table in `src/store/tests/watch_tasks/waiting.rs`.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tidings_entity::id::ReplicaId;
use tokio::sync::oneshot;
use ulid::Ulid;

use super::*;
use crate::{
    housekeeping::work_caller::turns::tests::{subscription, work},
    ports::{Leases, Notice},
    supervision::tree::CLAIMS,
    testing::{Fault, house::House},
};

const SECOND: Duration = Duration::from_secs(1);

/// Everybody in a process who waits for a change of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    Claim,
    Listener,
    Result,
    Lane,
    Clock,
}

/// A deliverer that only counts words of room.
struct CountingDeliverer;

#[ractor::async_trait]
impl Actor for CountingDeliverer {
    type Msg = DelivererMessage;
    type State = Arc<AtomicUsize>;
    type Arguments = Arc<AtomicUsize>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        heard: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(heard)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        heard: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if matches!(message, DelivererMessage::Room) {
            heard.fetch_add(1, SeqCst);
        }
        Ok(())
    }
}

/// One of each kind of those who wait, for the queue `embed` of an app.
struct Waiting {
    app: AppId,
    rooms: Arc<AtomicUsize>,
    lane: ActorRef<DelivererMessage>,
    result: oneshot::Receiver<()>,
    /// Its end would take the claim out of the line.
    _claim: oneshot::Receiver<GivenTasks>,
}

fn task() -> TaskId {
    TaskId::new(Ulid::from_parts(1, 1))
}

impl Waiting {
    /// They wait, and nothing is under way for them.
    async fn begin(house: &House) -> Self {
        let work = work(vec![subscription(1, None, Duration::ZERO)]);
        let app = work.app.id.clone();
        house.store.give_work(work);
        let rooms = Arc::<AtomicUsize>::default();
        let (lane, _join) = Actor::spawn(None, CountingDeliverer, rooms.clone()).await.expect("it starts");
        let key = format!("{app}/snk_1");
        house.context.directory.enter(DELIVERER, key, Some(lane.get_cell()), &Arc::default());
        let claims = house.context.directory.find(CLAIMS, "").expect("it runs");
        let (sender, result) = ractor::concurrency::oneshot();
        claims.send(ClaimsMessage::WaitForEnd(task(), RpcReplyPort::from(sender)));
        let (sender, claim) = ractor::concurrency::oneshot();
        let commands = vec!["embed".to_owned()];
        let worker = "tok_w".to_owned();
        let request = ClaimRequest { app: app.clone(), commands, count: 1, claim: 60 * SECOND, worker };
        let waiting = WaitingClaim { request, reply: RpcReplyPort::from(sender), is_patient: true };
        claims.send(ClaimsMessage::Wait(Box::new(waiting)));
        tokio::time::sleep(SECOND).await;
        for verb in ["claim_tasks", "wake_tasks"] {
            house.store.befall(verb, Fault::Waits(Duration::ZERO));
        }
        Self { app, rooms, lane, result, _claim: claim }
    }

    /// Who heard of something since.
    async fn told(mut self, house: &House) -> Vec<Waiter> {
        tokio::time::sleep(2 * SECOND).await;
        let is_work = |notice: &Notice| matches!(notice, Notice::WorkAvailable(_));
        let told = [
            (Waiter::Claim, !house.store.awaits_fault("claim_tasks")),
            (Waiter::Listener, house.transport.notices(&self.app).iter().any(is_work)),
            (Waiter::Result, self.result.try_recv().is_ok()),
            (Waiter::Lane, self.rooms.load(SeqCst) > 0),
            (Waiter::Clock, !house.store.awaits_fault("wake_tasks")),
        ];
        self.lane.stop(None);
        told.into_iter().filter(|(_, is_told)| *is_told).map(|(waiter, _)| waiter).collect()
    }
}

/// Each part of the news of tasks, and who hears of it.
fn parts(app: &AppId, soon: Timestamp) -> Vec<(TaskNews, Vec<Waiter>)> {
    // A part that is new does not compile before it has a row below.
    let TaskNews { ready: _, rated: _, ended: _, room: _, wake_at: _, tally: _ } = TaskNews::default();
    let queues = BTreeSet::from([(app.clone(), QueueId::of(app, "embed"))]);
    let none = TaskNews::default;
    vec![
        (TaskNews { ready: queues.clone(), ..none() }, vec![Waiter::Claim, Waiter::Listener]),
        (TaskNews { rated: queues, ..none() }, vec![Waiter::Listener]),
        (TaskNews { ended: [task()].into(), ..none() }, vec![Waiter::Result]),
        (TaskNews { room: [app.clone()].into(), ..none() }, vec![Waiter::Lane]),
        (TaskNews { wake_at: Some(soon), ..none() }, vec![Waiter::Clock]),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_part_of_the_news_of_tasks_reaches_those_who_wait_for_it() {
    for part in 0.. {
        let mut house = House::running().await;
        let waiting = Waiting::begin(&house).await;
        let mut parts = parts(&waiting.app, house.context.now().after(SECOND));
        if part >= parts.len() {
            break;
        }
        let (news, expected) = parts.swap_remove(part);
        let claims = house.context.directory.find(CLAIMS, "").expect("it runs");
        claims.send(ClaimsMessage::Written(Ok(news.clone())));
        assert_eq!(waiting.told(&house).await, expected, "{news:?}");
        house.stop(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_who_waits_hears_of_what_another_replica_wrote() {
    let house = House::alone(Duration::from_secs(9)).await;
    house.until("it leads", async || house.context.shards.leads()).await;
    let other = house.store.leases().seen_by(&ReplicaId::new(Ulid::from_parts(1, 99)));
    let waiting = Waiting::begin(&house).await;
    let soon = house.context.now().after(SECOND).0;
    other.tell(&Signal::Tasks(vec![waiting.app.clone()], Some(soon))).await.expect("told");
    let all = [Waiter::Claim, Waiter::Listener, Waiter::Result, Waiter::Lane, Waiter::Clock];
    assert_eq!(waiting.told(&house).await, all);
    // A word about more apps than a signal names is about all of them.
    let waiting = Waiting::begin(&house).await;
    other.tell(&Signal::Tasks(vec![], None)).await.expect("told");
    let told = waiting.told(&house).await;
    assert!(all[..4].iter().all(|waiter| told.contains(waiter)), "{told:?}");
    // A word that was lost may be about anything.
    let waiting = Waiting::begin(&house).await;
    other.tell(&Signal::Missed).await.expect("told");
    let told = waiting.told(&house).await;
    let all = [Waiter::Claim, Waiter::Result, Waiter::Lane];
    assert!(all.iter().all(|waiter| told.contains(waiter)), "{told:?}");
}

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
