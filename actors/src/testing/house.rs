//! A whole tree over the in-memory ports, on paused time: both clocks are tokio's, so that waiting
//! moves them together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tidings_entity::{
    id::{AppId, CursorId, ObjectId, ReplicaId, RepositoryId, Sha256Hash, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind},
};
use tokio::{sync::watch, time::Instant};
use ulid::Ulid;
use url::Url;

use super::{
    MemoryGit, MemoryMeter, MemoryObjects, MemoryStore, MemoryTransport, NoTracer, OpenBoard, SeededRandom,
    transport::Arrival,
};
use crate::{
    context::{Context, policy::Policy},
    deliverer::DelivererMessage,
    handle::{Handle, Tree},
    limits::{
        budget::Budget, hosts::HostPolicy, in_flight::InFlightLimits, pace::Paces, scan_slots::ScanSlots,
        turns::Turns,
    },
    model::{secret::Secret, sink::SinkAddress, view::View},
    ownership::{shards::Shards, terms::Terms},
    ports::{
        Action, AppPatch, AppStore, Clock, CursorStatus, DeadLetter, DeliverySettings, EndpointAccess,
        GitSource, Leases, LetterFilter, LetterStore, Location, NewApp, NewWatch, Random, Reach, RefListing,
        Remote, Replica, RepositoryFacts, SHARDS, Selector, Start, Watch, WatchStore,
    },
    signals::{causes::Causes, untold::Untold},
    supervision::{
        directory::{Directory, Doing, Mailbox},
        tree::DELIVERER,
    },
    time::Timestamp,
};

/// The moment at which every test begins.
const BEGINNING: Timestamp = Timestamp(1_750_000_000_000);
/// The address of the repository that most tests watch.
pub(crate) const URL: &str = "https://git.example/one/two";

/// A wall clock that moves with tokio's, and can be set back.
struct TokioClock {
    start: Instant,
    /// How far the clock was set back, in milliseconds.
    behind: AtomicI64,
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGINNING.after(self.start.elapsed()).0 - self.behind.load(SeqCst))
    }
}

/// Randomness that panics as often as a test asked for, in whichever handler draws next.
pub(crate) struct FragileRandom {
    sound: SeededRandom,
    panics: AtomicU32,
}

impl FragileRandom {
    /// The next draws panic.
    pub(crate) fn panic(&self, draws: u32) {
        self.panics.store(draws, SeqCst);
    }

    /// How many of them are still to come.
    pub(crate) fn panics_left(&self) -> u32 {
        self.panics.load(SeqCst)
    }
}

impl Random for FragileRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let left = self.panics.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "a draw panics, as asked");
        self.sound.fill(bytes);
    }
}

/// A supervision tree over doubles in memory, with what tests check it by.
pub(crate) struct House {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) git: Arc<MemoryGit>,
    pub(crate) transport: Arc<MemoryTransport>,
    pub(crate) random: Arc<FragileRandom>,
    pub(crate) meter: Arc<MemoryMeter>,
    pub(crate) objects: Arc<MemoryObjects>,
    pub(crate) context: Context,
    clock: Arc<TokioClock>,
    tree: Option<Tree>,
}

impl House {
    /// Everything but a running tree.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A house with edited policies.
    pub(crate) fn with(edit: impl FnOnce(&mut Policy)) -> Self {
        Self::made(HostPolicy::default(), edit)
    }

    /// A house where each Git host takes one request each `interval`.
    pub(crate) fn with_slow_hosts(interval: Duration) -> Self {
        Self::made(HostPolicy { interval, burst: 1, concurrency: 5 }, |_| {})
    }

    fn made(hosts: HostPolicy, edit: impl FnOnce(&mut Policy)) -> Self {
        let own_clock = Arc::new(TokioClock { start: Instant::now(), behind: AtomicI64::default() });
        let clock: Arc<dyn Clock> = own_clock.clone();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let (git, transport) = (Arc::new(MemoryGit::with_hosts(hosts)), Arc::new(MemoryTransport::default()));
        let meter = Arc::new(MemoryMeter::default());
        let objects = Arc::<MemoryObjects>::default();
        let random = Arc::new(FragileRandom { sound: SeededRandom::new(7), panics: AtomicU32::new(0) });
        let mut policy = Policy::default();
        edit(&mut policy);
        let context = Context {
            in_flight: InFlightLimits::default(),
            paces: Paces::new(store.clone(), clock.clone()),
            read_turns: Turns::new(policy.readers),
            rows: Turns::new(4),
            outbound: Turns::new(policy.in_flight),
            scan_slots: ScanSlots::new(policy.scan_workers),
            store: store.clone(),
            git: git.clone(),
            transport: transport.clone(),
            board: Arc::new(OpenBoard),
            objects: objects.clone(),
            clock,
            random: random.clone(),
            meter: meter.clone(),
            tracer: Arc::new(NoTracer),
            causes: Causes::default(),
            policy: Arc::new(policy),
            budget: Budget::new(128 << 20),
            shards: Shards::sole(),
            terms: Terms::default(),
            untold: Untold::default(),
            leases: None,
            directory: Directory::default(),
            fatal: watch::channel(None).0,
        };
        Self { store, git, transport, random, meter, objects, context, clock: own_clock, tree: None }
    }

    /// Sets the wall clock back.
    pub(crate) fn set_clock_back(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).expect("a span of a test");
        self.clock.behind.fetch_add(by, SeqCst);
    }

    /// Several replicas over the same rows, hosts and receivers. None of them is started.
    pub(crate) fn replicas(count: u128, life: Duration) -> Vec<Self> {
        Self::replicas_with(count, life, |_| {})
    }

    fn replicas_with(count: u128, life: Duration, edit: impl Fn(&mut Policy)) -> Vec<Self> {
        let house = Self::new();
        let replica = |number: u128| {
            let id = ReplicaId::new(Ulid::from_parts(1, number));
            let mut policy = Policy { lease_life: life, ..Policy::default() };
            policy.replica = Replica { id: id.clone(), name: format!("replica {number}"), ..policy.replica };
            edit(&mut policy);
            let random = Arc::new(FragileRandom {
                sound: SeededRandom::new(number as u64 + 100),
                panics: AtomicU32::new(0),
            });
            let context = Context {
                policy: Arc::new(policy),
                shards: Shards::leased(),
                terms: Terms::default(),
                untold: Untold::default(),
                leases: Some(Arc::new(house.store.leases().seen_by(&id))),
                directory: Directory::default(),
                causes: Causes::default(),
                random: random.clone(),
                fatal: watch::channel(None).0,
                ..house.context.clone()
            };
            Self {
                store: house.store.clone(),
                git: house.git.clone(),
                transport: house.transport.clone(),
                random,
                meter: house.meter.clone(),
                objects: house.objects.clone(),
                context,
                clock: house.clock.clone(),
                tree: None,
            }
        };
        (1..=count).map(replica).collect()
    }

    /// How many shards it believes to hold now.
    pub(crate) fn shards(&self) -> usize {
        match self.context.shards.reach() {
            Reach::All => SHARDS,
            Reach::These(shards) => shards.len(),
        }
    }

    /// A replica that is alone, and holds everything.
    pub(crate) async fn alone(life: Duration) -> Self {
        Self::alone_with(life, |_| {}).await
    }

    /// A replica that is alone and holds every shard, with edited policies.
    pub(crate) async fn alone_with(life: Duration, edit: impl Fn(&mut Policy)) -> Self {
        let mut house = Self::replicas_with(1, life, edit).pop().expect("one");
        house.start().await;
        house.until("it holds everything", async || house.shards() == SHARDS).await;
        house
    }

    /// All its shards go to another replica for a day. It hears of that when it prolongs them.
    pub(crate) async fn lose_shards(&self) {
        let (leases, other) = (self.store.leases(), ReplicaId::new(Ulid::from_parts(1, 99)));
        leases.expire(&self.context.policy.replica.id);
        let claimed = leases.seen_by(&other).claim(&other, SHARDS, Duration::from_secs(86_400)).await;
        assert_eq!(claimed.expect("claimed").len(), SHARDS);
    }

    /// Ends like a process that is killed: no lease is released and no replica is notified.
    pub(crate) async fn die(&mut self) {
        self.tree.take().expect("it runs").die().await;
    }

    /// A house whose tree is started.
    pub(crate) async fn running() -> Self {
        let mut house = Self::new();
        house.start().await;
        house
    }

    pub(crate) async fn start(&mut self) {
        self.tree = Some(Tree::start(self.context.clone()).await.expect("the tree starts"));
    }

    /// Stops the tree; what is in the store stays.
    pub(crate) async fn stop(&mut self, deadline: Duration) {
        self.tree.take().expect("it runs").stop(deadline).await;
        self.context.directory = Directory::default();
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle::new(self.context.clone())
    }

    pub(crate) async fn app(&self) -> AppId {
        self.app_with(|_| {}).await
    }

    pub(crate) async fn app_with(&self, edit: impl FnOnce(&mut DeliverySettings)) -> AppId {
        let now = self.context.now();
        let ulid = self.context.random.ulid(now);
        let mut delivery = DeliverySettings::default();
        edit(&mut delivery);
        let app = NewApp {
            id: AppId::new(ulid),
            name: "an app".into(),
            email: "a@example.org".into(),
            is_from_anyone: false,
            receives_at: SinkAddress::Endpoint("https://app.example".into()),
            website: None,
            description: None,
            token_public_id: ulid.to_string(),
            token_hash: Sha256Hash::of(b"token"),
            signing_key: Secret::new("signing".into()),
            access: EndpointAccess::default(),
            delivery,
            created_at: now,
            answer: None,
        };
        self.store.create_app(&app).await.expect("an app");
        app.id
    }

    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> ObjectId {
        self.git.commit(&location(URL), "main", files)
    }

    /// A watch of branch `main` of [`URL`], as the front door registers it.
    pub(crate) async fn watch(&self, app: &AppId) -> Watch {
        self.watch_with(app, URL, |_| {}).await
    }

    pub(crate) async fn watch_with(&self, app: &AppId, url: &str, edit: impl FnOnce(&mut NewWatch)) -> Watch {
        let watch = self.register(app, url, edit).await;
        if self.tree.is_some() {
            self.handle().repository_changed(&watch.repository).await;
            self.handle().refresh(app).await;
        }
        watch
    }

    /// What the host of a repository lists now.
    pub(crate) async fn listing(&self, url: &str) -> RefListing {
        let repository = RepositoryId::new(self.context.random.ulid(self.context.now()));
        let remote = Remote { repository, location: location(url), credential: None, apps: Vec::new() };
        self.git.list_refs(&remote, &vec!["refs/heads/".into()]).await.expect("access")
    }

    /// The rows of a watch, without a word to anybody.
    pub(crate) async fn register(&self, app: &AppId, url: &str, edit: impl FnOnce(&mut NewWatch)) -> Watch {
        let now = self.context.now();
        let id = WatchId::new(self.context.random.ulid(now));
        let listing = self.listing(url).await;
        let mut new = NewWatch {
            facts: RepositoryFacts {
                repository_id: id.clone(),
                github_url: url.into(),
                owner: "one".into(),
                name: "two".into(),
            },
            id,
            app: app.clone(),
            url: url.into(),
            is_private: false,
            credential: None,
            selector: Selector { kind: SelectorKind::Branch, value: "main".into() },
            alias: String::new(),
            may_replace: true,
            sink: None,
            status: None,
            view: View::default(),
            mode: HistoryMode::Net,
            on_branch_gone: BranchGone::Keep,
            start: Start::All,
            listing,
            deliver_after: now,
            created_at: now,
        };
        edit(&mut new);
        self.store.register_watch(&new).await.expect("a watch")
    }

    /// An app that watches `main` of [`URL`].
    pub(crate) async fn watching(&self) -> (AppId, Watch, CursorId) {
        let app = self.app().await;
        let watch = self.watch(&app).await;
        let cursor = watch.cursors[0].id.clone();
        (app, watch, cursor)
    }

    pub(crate) async fn poke(&self, watch: &Watch) {
        self.handle().poke(&watch.repository).await;
    }

    /// Serves an app no more for a reason, or again.
    pub(crate) async fn disable(&self, app: &AppId, reason: Option<&str>) {
        let patch = AppPatch { disabled: Some(reason.map(str::to_owned)), ..AppPatch::default() };
        self.store.patch_app(app, &patch, self.context.now()).await.expect("patched");
    }

    pub(crate) async fn refresh(&self, app: &AppId) {
        self.handle().refresh(app).await;
    }

    /// The progress of the one branch of a watch.
    pub(crate) async fn cursor(&self, watch: &Watch) -> CursorStatus {
        let watch = self.store.watch(&watch.app, &watch.id).await.expect("it is watched");
        watch.cursors.into_iter().next().expect("it has a cursor")
    }

    /// How many of these watches hold something and have nothing open.
    pub(crate) async fn store_holds(&self, watches: &[Watch]) -> usize {
        let mut held = 0;
        for watch in watches {
            let cursor = self.cursor(watch).await;
            held += usize::from(cursor.held.is_some() && cursor.open.is_none());
        }
        held
    }

    /// What an actor says that it does.
    pub(crate) fn doing(&self, role: &'static str, key: &str) -> Option<Doing> {
        self.context.directory.gauge(role, key).map(|gauge| gauge.doing())
    }

    /// Waits, at most an hour, until the app holds `commit` and nothing is open.
    pub(crate) async fn until_held(&self, watch: &Watch, commit: ObjectId) {
        let what = format!("{commit} is held");
        self.until(&what, async || {
            let cursor = self.cursor(watch).await;
            cursor.held == Some(commit) && cursor.open.is_none()
        })
        .await;
    }

    /// Waits, at most an hour of paused time, until a state holds.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        for _ in 0..36_000 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let tree = self.handle().tree().await;
        panic!("it never happened that {what}; {tree:#?}; {:#?}", self.transport.arrivals());
    }

    pub(crate) fn deliverer(&self, app: &AppId) -> Option<Mailbox<DelivererMessage>> {
        self.context.directory.find(DELIVERER, app.as_str())
    }

    /// Kills a running actor, as nothing in the product does.
    pub(crate) fn kill(&self, role: &'static str, key: &str) {
        self.context.directory.cell(role, key).expect("it runs").kill();
    }

    pub(crate) async fn letters(&self, app: &AppId) -> Vec<DeadLetter> {
        self.store.dead_letters(app, &LetterFilter::default(), None, 1_000).await.expect("letters").letters
    }

    /// Asks that every open letter of an app be sent again; how many.
    pub(crate) async fn redrive_all(&self, app: &AppId) -> u64 {
        let id = self.store.begin_redrive(app, &LetterFilter::default()).await.expect("begun");
        while self.store.mark_redrive(Some(&id)).await.expect("marked").is_some() {}
        self.store.redrive(app, &id).await.expect("shown").asked
    }

    /// The changes that arrived at an app and were acknowledged, as `C path`.
    pub(crate) fn taken(&self, app: &AppId) -> Vec<String> {
        let arrivals = self.transport.arrivals();
        let taken = arrivals.iter().filter(|arrival| arrival.app == *app && arrival.answer == Ok(200));
        taken.filter_map(shown).collect()
    }

    /// All changes that arrived at an app, acknowledged or not.
    pub(crate) fn tried(&self, app: &AppId) -> Vec<Arrival> {
        let mut arrivals = self.transport.arrivals();
        arrivals.retain(|arrival| arrival.app == *app && shown(arrival).is_some());
        arrivals
    }

    /// # Panics
    /// When the app has other files than `commit`.
    pub(crate) fn assert_mirrors(&self, app: &AppId, commit: ObjectId) {
        let files: BTreeMap<Vec<u8>, ObjectId> = self.git.files(commit);
        let text = |tree: BTreeMap<Vec<u8>, ObjectId>| -> Vec<String> {
            tree.iter().map(|(path, blob)| format!("{} {blob}", String::from_utf8_lossy(path))).collect()
        };
        assert_eq!(text(self.transport.mirror(app)), text(files), "ghosts or gaps");
    }
}

pub(crate) fn shown(arrival: &Arrival) -> Option<String> {
    let letter = match arrival.action {
        Action::Create => 'C',
        Action::Update => 'U',
        Action::Delete => 'D',
        _ => return None,
    };
    Some(format!("{letter} {}", String::from_utf8_lossy(&arrival.path)))
}

pub(crate) fn location(url: &str) -> Location {
    Location::Http(Url::parse(url).expect("an address"))
}

/// Names and contents of `count` files, `name0000` first.
pub(crate) fn files(count: usize, content: &str) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("name{number:04}"), format!("{content} {number}"))).collect()
}

/// The files in the form that [`House::commit`] takes.
pub(crate) fn refs(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect()
}
