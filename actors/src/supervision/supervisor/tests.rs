//! The supervisor with children that crash, hang and end.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use ractor::concurrency::JoinHandle;

use super::*;
use crate::supervision::directory::Mailbox;

const CHILD: ChildSpec = ChildSpec {
    id: "child",
    restart: Restart::Permanent,
    failures: 2,
    within: Duration::from_secs(60),
    beyond: Beyond::Contain,
    shutdown: Duration::from_secs(1),
    progress: Duration::from_secs(5),
    bound: "",
    many: true,
    keys: "",
    children: &[],
};

static CONTAINING: ChildSpec = ChildSpec { id: "parent", many: false, children: &[CHILD], ..CHILD };
static TRANSIENT: ChildSpec = ChildSpec {
    id: "parent",
    many: false,
    children: &[ChildSpec { restart: Restart::Transient, ..CHILD }],
    ..CHILD
};
static ESCALATING: ChildSpec = ChildSpec {
    id: "parent",
    many: false,
    children: &[ChildSpec { beyond: Beyond::Escalate, many: false, ..CHILD }],
    ..CHILD
};

#[derive(Debug)]
enum ChildMessage {
    Panic,
    Hang,
    End,
    Touch,
}

struct Child(Arc<AtomicU32>, Arc<Gauge>);

#[ractor::async_trait]
impl Actor for Child {
    type Msg = ChildMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        self.0.fetch_add(1, SeqCst);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let _busy = self.1.begin();
        match message {
            ChildMessage::Panic => panic!("as asked"),
            ChildMessage::Hang => std::future::pending().await,
            ChildMessage::End => myself.stop(None),
            ChildMessage::Touch => {}
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

struct Family {
    directory: Directory,
    supervisor: ActorRef<SupervisorMessage>,
    join: JoinHandle<()>,
    births: Arc<AtomicU32>,
}

impl Family {
    async fn of(spec: &'static ChildSpec) -> Self {
        let (directory, births) = (Directory::default(), Arc::new(AtomicU32::new(0)));
        let counted = births.clone();
        let start: Start = Arc::new(move |spawn_context: SpawnContext| {
            let child = Child(counted.clone(), spawn_context.gauge);
            Box::pin(async move {
                let (actor, _join) = Actor::spawn_linked(None, child, (), spawn_context.supervisor).await?;
                Ok(actor.get_cell())
            })
        });
        let arguments = SupervisorArguments {
            spec,
            directory: directory.clone(),
            starts: HashMap::from([("child", start)]),
            gauge: Arc::default(),
        };
        let (supervisor, join) = Actor::spawn(None, Supervisor, arguments).await.expect("starts");
        Self { directory, supervisor, join, births }
    }

    async fn ensure(&self, key: &str) {
        self.supervisor.send_message(SupervisorMessage::Ensure(key.to_owned())).expect("alive");
        self.child(key).await;
    }

    /// The running child, waited for on paused time.
    async fn child(&self, key: &str) -> Mailbox<ChildMessage> {
        for _ in 0..100_000 {
            if let Some(mailbox) = self.directory.find("child", key) {
                return mailbox;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{key} does not run");
    }

    async fn births(&self, expected: u32) {
        for _ in 0..100_000 {
            if self.births.load(SeqCst) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} births instead of {expected}", self.births.load(SeqCst));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_restarts_one_child_and_its_sibling_does_not_notice() {
    let family = Family::of(&CONTAINING).await;
    family.ensure("a").await;
    family.ensure("b").await;
    family.child("a").await.send(ChildMessage::Panic);
    family.births(3).await;
    assert!(family.child("b").await.send(ChildMessage::Touch));
    assert_eq!(family.births.load(SeqCst), 3, "only the one that failed was born again");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_fails_each_time_is_contained_while_its_sibling_goes_on() {
    let family = Family::of(&CONTAINING).await;
    family.ensure("a").await;
    family.ensure("b").await;
    let start = Instant::now();
    for crash in 0..4 {
        family.child("a").await.send(ChildMessage::Panic);
        family.births(3 + crash).await;
    }
    assert!(start.elapsed() >= CONTAINED_FIRST, "after {:?}", start.elapsed());
    assert!(family.child("b").await.send(ChildMessage::Touch));
}

#[tokio::test(start_paused = true)]
async fn a_hung_child_is_killed_and_restarted() {
    let family = Family::of(&CONTAINING).await;
    family.ensure("a").await;
    family.child("a").await.send(ChildMessage::Hang);
    family.births(2).await;
    assert!(family.child("a").await.send(ChildMessage::Touch));
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_of_a_static_child_end_its_supervisor() {
    let mut family = Family::of(&ESCALATING).await;
    for spawn_context in 1..=3 {
        family.births(spawn_context).await;
        family.child("").await.send(ChildMessage::Panic);
    }
    tokio::time::timeout(Duration::from_secs(60), &mut family.join)
        .await
        .expect("it escalates")
        .expect("joined");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_stop_in_time_is_killed() {
    let family = Family::of(&CONTAINING).await;
    family.ensure("a").await;
    family.ensure("b").await;
    family.child("a").await.send(ChildMessage::Hang);
    let start = Instant::now();
    family.supervisor.stop_and_wait(None, Some(Duration::from_secs(60))).await.expect("it stops");
    assert!(
        start.elapsed() >= CHILD.shutdown && start.elapsed() < CHILD.progress,
        "after {:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_transient_child_that_ends_is_struck_out_unless_a_message_waits_for_it() {
    let family = Family::of(&TRANSIENT).await;
    family.ensure("a").await;
    let mailbox = family.child("a").await;
    mailbox.send(ChildMessage::End);
    while family.directory.find::<ChildMessage>("child", "a").is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(family.births.load(SeqCst), 1);

    family.ensure("a").await;
    let mailbox = family.child("a").await;
    mailbox.send(ChildMessage::End);
    mailbox.send(ChildMessage::Touch);
    family.births(3).await;
}
