//! [`MemoryTransport`]: a receiver in memory that keeps what it acknowledged and answers what it was
//! told to. It can also keep a change and then say that it failed ([`Answer::Applied`]).

mod answer;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tidings_entity::{
    id::{AppId, ObjectId, WatchId},
    kind::{Operation, PayloadFormat},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    model::round::DeliveryId,
    ownership::shards::ShardHold,
    ports::{
        Action, AttemptOutcome, DeliveryOrder, Endpoint, GitError, ItemOutcome, KeptAnswer, MailOutcome,
        Notice, Parcel, ParcelBody, PrepareError, SendFailure, SubscriptionMessage, Transport,
    },
};

pub use answer::{Answer, Reply};

/// One request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The app that the request was for.
    pub app: AppId,
    /// The delivery id (`webhook-id`) of the request.
    pub id: DeliveryId,
    /// The route that it arrived at.
    pub action: Action,
    /// The path, for a change.
    pub path: Vec<u8>,
    /// The answer that was given.
    pub answer: Result<u16, SendFailure>,
    /// When the request arrived, on the monotonic clock.
    pub at: Instant,
    /// The header fields of the app that the request carried.
    pub headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct Receiver {
    arrivals: Vec<Arrival>,
    next: VecDeque<Answer>,
    by_path: HashMap<Vec<u8>, Answer>,
    tries: HashMap<Vec<u8>, VecDeque<Answer>>,
    by_app: HashMap<AppId, Answer>,
    by_watch: HashMap<WatchId, Answer>,
    items: HashMap<Vec<u8>, VecDeque<ItemOutcome>>,
    batches: Vec<Vec<Vec<u8>>>,
    slices: Vec<Instant>,
    flying: HashMap<AppId, usize>,
    orders: HashMap<DeliveryId, DeliveryOrder>,
    notices: Vec<(AppId, Notice)>,
    unprepared: VecDeque<PrepareError>,
    rendering: Duration,
    rendered: Vec<WatchId>,
    lost: HashSet<Vec<u8>>,
    mirror: BTreeMap<(AppId, Vec<u8>), ObjectId>,
}

/// A transport whose receiver is in memory; a test scripts its answers.
pub struct MemoryTransport {
    receiver: Mutex<Receiver>,
    count: watch::Sender<usize>,
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self { receiver: Mutex::default(), count: watch::channel(0).0 }
    }
}

impl MemoryTransport {
    /// The next requests are answered like this, one each.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.receiver().next.extend(answers);
    }

    /// Answers every change of this path like this, until set otherwise (`None`).
    pub fn answer_path(&self, path: &str, answer: Option<Answer>) {
        let mut receiver = self.receiver();
        match answer {
            Some(answer) => receiver.by_path.insert(path.as_bytes().to_vec(), answer),
            None => receiver.by_path.remove(path.as_bytes()),
        };
    }

    /// The next tries of changes of this path are answered like this, one each; then as
    /// [`MemoryTransport::answer_path`] says.
    pub fn script_path(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.receiver().tries.entry(path.as_bytes().to_vec()).or_default().extend(answers);
    }

    /// In batches that are acknowledged, gives these answers for this path, one in each batch.
    pub fn say_of(&self, path: &str, words: impl IntoIterator<Item = ItemOutcome>) {
        self.receiver().items.entry(path.as_bytes().to_vec()).or_default().extend(words);
    }

    /// The batches that arrived, as the paths in them.
    pub fn batches(&self) -> Vec<Vec<String>> {
        let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
        self.receiver().batches.iter().map(|paths| paths.iter().map(text).collect()).collect()
    }

    /// When requests that are one of several of their attempt came.
    pub fn slices(&self) -> Vec<Instant> {
        self.receiver().slices.clone()
    }

    /// Answers every request for this app like this, until set otherwise (`None`).
    pub fn answer_app(&self, app: &AppId, answer: Option<Answer>) {
        let mut receiver = self.receiver();
        match answer {
            Some(answer) => receiver.by_app.insert(app.clone(), answer),
            None => receiver.by_app.remove(app),
        };
    }

    /// Answers every change of this watch like this, until set otherwise (`None`).
    pub fn answer_watch(&self, watch: &WatchId, answer: Option<Answer>) {
        let mut receiver = self.receiver();
        match answer {
            Some(answer) => receiver.by_watch.insert(watch.clone(), answer),
            None => receiver.by_watch.remove(watch),
        };
    }

    /// The next deliveries cannot be rendered, one error each.
    pub fn fail_to_prepare(&self, errors: impl IntoIterator<Item = PrepareError>) {
        self.receiver().unprepared.extend(errors);
    }

    /// Makes rendering take this long each time.
    pub fn render_slowly(&self, time: Duration) {
        self.receiver().rendering = time;
    }

    /// For which watch it was rendered, each time.
    pub fn rendered(&self) -> Vec<WatchId> {
        self.receiver().rendered.clone()
    }

    /// Makes the content of this path impossible to fetch, or possible again.
    pub fn lose_content(&self, path: &str, lost: bool) {
        let mut receiver = self.receiver();
        let path = path.as_bytes().to_vec();
        if lost {
            receiver.lost.insert(path)
        } else {
            receiver.lost.remove(&path)
        };
    }

    /// What was rendered under this id last.
    pub fn order(&self, id: &DeliveryId) -> Option<DeliveryOrder> {
        self.receiver().orders.get(id).cloned()
    }

    /// The notices to an app.
    pub fn notices(&self, app: &AppId) -> Vec<Notice> {
        let receiver = self.receiver();
        let own = receiver.notices.iter().filter(|(owner, _)| owner == app);
        own.map(|(_, notice)| notice.clone()).collect()
    }

    /// Requests to an app that are not answered yet.
    pub fn flying(&self, app: &AppId) -> usize {
        self.receiver().flying.get(app).copied().unwrap_or(0)
    }

    /// Everything that arrived so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.receiver().arrivals.clone()
    }

    /// How many requests arrived so far; dearer questions can wait until there were enough.
    pub fn arrived(&self) -> usize {
        self.receiver().arrivals.len()
    }

    /// What an app has: blobs by path.
    pub fn mirror(&self, app: &AppId) -> BTreeMap<Vec<u8>, ObjectId> {
        let receiver = self.receiver();
        let own = receiver.mirror.iter().filter(|((owner, _), _)| owner == app);
        own.map(|((_, path), blob)| (path.clone(), *blob)).collect()
    }

    /// An app is restored from a backup: it has these blobs and nothing else.
    pub fn restore(&self, app: &AppId, files: BTreeMap<Vec<u8>, ObjectId>) {
        let mut receiver = self.receiver();
        receiver.mirror.retain(|(owner, _), _| owner != app);
        let own = files.into_iter().map(|(path, blob)| ((app.clone(), path), blob));
        receiver.mirror.extend(own);
    }

    /// Waits until `condition` holds over what arrived; on paused time at most an hour of it.
    ///
    /// # Panics
    /// When it does not come to hold.
    pub async fn until(&self, what: &str, condition: impl Fn(&[Arrival]) -> bool) {
        let mut count = self.count.subscribe();
        let wait = async {
            loop {
                if condition(&self.arrivals()) {
                    return;
                }
                count.changed().await.expect("the transport is alive");
            }
        };
        if tokio::time::timeout(Duration::from_secs(3_600), wait).await.is_err() {
            panic!("it never happened that {what}: {:#?}", self.arrivals());
        }
    }

    fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock()
    }

    fn answer(&self, app: &AppId, id: &DeliveryId, path: &[u8]) -> Answer {
        let mut receiver = self.receiver();
        if let Some(answer) = receiver.tries.get_mut(path).and_then(VecDeque::pop_front) {
            return answer;
        }
        let watch = receiver.orders.get(id).map(|order| &order.lane.repository.repository_id);
        let told = watch.and_then(|watch| receiver.by_watch.get(watch));
        let told = told.or_else(|| receiver.by_path.get(path)).or_else(|| receiver.by_app.get(app)).copied();
        told.or_else(|| receiver.next.pop_front()).unwrap_or(Answer::Status(200))
    }

    async fn arrive(
        &self,
        endpoint: &Endpoint,
        id: &DeliveryId,
        action: Action,
        path: Vec<u8>,
        hold: &ShardHold,
    ) -> Option<AttemptOutcome> {
        let _flight = Flight::begin(self, &endpoint.app);
        let answer = self.answer(&endpoint.app, id, &path);
        if matches!(answer, Answer::Applied(_)) {
            self.apply(endpoint, id, &path);
        }
        let (result, retry_after) = self.answered(answer, hold).await?;
        // An applied change is not applied again after its wait: a later one of the path may have come.
        let taken = matches!(result, Ok(200..=299)) && !matches!(answer, Answer::Applied(_));
        self.note(endpoint, vec![(id.clone(), path, taken)], action, result);
        Some(AttemptOutcome {
            result,
            retry_after,
            excerpt: String::new(),
            took: Duration::ZERO,
            answer: kept(result),
        })
    }

    /// What comes of a request; `None`: its right ended before all of it was sent.
    async fn answered(
        &self,
        answer: Answer,
        hold: &ShardHold,
    ) -> Option<(Result<u16, SendFailure>, Option<Duration>)> {
        Some(match answer {
            Answer::Status(status) => (Ok(status), None),
            Answer::Failure(failure) => (Err(failure), None),
            Answer::RetryAfter(status, wait) => (Ok(status), Some(wait)),
            Answer::Slow(status, wait) => {
                tokio::time::sleep(wait).await;
                (Ok(status), None)
            }
            Answer::Sliced(status, slices, wait) => {
                for slice in 0..slices {
                    if slice > 0 && !hold.lasts() {
                        return None;
                    }
                    self.receiver().slices.push(Instant::now());
                    tokio::time::sleep(wait).await;
                }
                (Ok(status), None)
            }
            Answer::Late(wait) => {
                tokio::time::sleep(wait).await;
                (Err(SendFailure::Timeout), None)
            }
            Answer::Applied(reply) => Box::pin(self.answered(reply.into(), hold)).await?,
            Answer::Hang => std::future::pending().await,
            Answer::Panic => panic!("as asked"),
        })
    }

    /// The app has from now on what a change brings.
    fn apply(&self, endpoint: &Endpoint, id: &DeliveryId, path: &[u8]) {
        let mut receiver = self.receiver();
        let Some(order) = receiver.orders.get(id) else { return };
        let key = (endpoint.app.clone(), path.to_vec());
        match (order.change.operation, order.change.new) {
            (Operation::Create | Operation::Update, Some(entry)) => receiver.mirror.insert(key, entry.blob),
            _ => receiver.mirror.remove(&key),
        };
    }

    /// Notes what arrived in one request, and applies what was taken.
    fn note(
        &self,
        endpoint: &Endpoint,
        changes: Vec<(DeliveryId, Vec<u8>, bool)>,
        action: Action,
        answer: Result<u16, SendFailure>,
    ) {
        for (id, path, _) in changes.iter().filter(|(.., taken)| *taken) {
            self.apply(endpoint, id, path);
        }
        let mut receiver = self.receiver();
        for (id, path, _) in changes {
            let (app, at) = (endpoint.app.clone(), Instant::now());
            let headers = endpoint.access.headers.iter();
            let headers = headers.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
            receiver.arrivals.push(Arrival { app, id, action, path, answer, at, headers });
        }
        let arrived = receiver.arrivals.len();
        drop(receiver);
        self.count.send_replace(arrived);
    }
}

/// Counts a request in flight, also if its task is aborted.
struct Flight<'t>(&'t MemoryTransport, AppId);

impl<'t> Flight<'t> {
    fn begin(transport: &'t MemoryTransport, app: &AppId) -> Self {
        *transport.receiver().flying.entry(app.clone()).or_default() += 1;
        Self(transport, app.clone())
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(flying) = self.0.receiver().flying.get_mut(&self.1) {
            *flying -= 1;
        }
    }
}

/// The stored answer of a refusal: status codes outside 2xx have a body that says so.
fn kept(result: Result<u16, SendFailure>) -> Option<Arc<KeptAnswer>> {
    let status = result.ok().filter(|status| !(200..300).contains(status))?;
    Some(Arc::new(KeptAnswer { headers: Vec::new(), body: format!("said {status}") }))
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn prepare(
        &self,
        orders: &Arc<[DeliveryOrder]>,
        _budget: u64,
    ) -> Result<Vec<Parcel>, PrepareError> {
        let time = self.receiver().rendering;
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        let mut receiver = self.receiver();
        receiver.rendered.extend(orders.first().map(|order| order.lane.repository.repository_id.clone()));
        if let Some(error) = receiver.unprepared.pop_front() {
            return Err(error);
        }
        let lost = |order: &&DeliveryOrder| receiver.lost.contains(&order.change.path);
        let first = orders.first().filter(lost).and_then(|order| order.change.new);
        if let Some(entry) = first {
            return Err(PrepareError::Git(GitError::Unobtainable(entry.blob)));
        }
        let obtainable: Vec<DeliveryOrder> =
            orders.iter().take_while(|order| !lost(order)).cloned().collect();
        let parcel = |order: DeliveryOrder| {
            let body = ParcelBody::Whole(Bytes::from(order.change.path.clone()));
            let (id, action) = (order.id.clone(), order.change.operation.into());
            let watch = order.lane.repository.repository_id.clone();
            receiver.orders.insert(order.id.clone(), order);
            Parcel { id, action, watch, format: PayloadFormat::Docora, body, held: None }
        };
        Ok(obtainable.into_iter().map(parcel).collect())
    }

    async fn send(&self, endpoint: &Endpoint, parcel: &Parcel, hold: &ShardHold) -> Option<AttemptOutcome> {
        let ParcelBody::Whole(path) = &parcel.body else { unreachable!("prepare makes whole bodies") };
        self.arrive(endpoint, &parcel.id, parcel.action, path.to_vec(), hold).await
    }

    async fn send_batch(
        &self,
        endpoint: &Endpoint,
        parcels: Vec<Parcel>,
        _hold: &ShardHold,
    ) -> (AttemptOutcome, Vec<ItemOutcome>) {
        let _flight = Flight::begin(self, &endpoint.app);
        let path = |parcel: &Parcel| match &parcel.body {
            ParcelBody::Whole(path) => path.to_vec(),
            ParcelBody::Chunked { .. } => unreachable!("prepare makes whole bodies"),
        };
        let paths: Vec<Vec<u8>> = parcels.iter().map(path).collect();
        // One that is answered badly spoils the request.
        let told = {
            let mut receiver = self.receiver();
            receiver.batches.push(paths.clone());
            let told = |path: &Vec<u8>| {
                let scripted = receiver.tries.get(path).is_some_and(|tries| !tries.is_empty());
                scripted || receiver.by_path.contains_key(path)
            };
            let bad = paths.iter().position(told);
            bad.unwrap_or_default()
        };
        let answer = self.answer(&endpoint.app, &parcels[told].id, &paths[told]);
        let applied = matches!(answer, Answer::Applied(_));
        if applied {
            parcels.iter().zip(&paths).for_each(|(parcel, path)| self.apply(endpoint, &parcel.id, path));
        }
        // One request is sent to its end.
        let answered = self.answered(answer, &ShardHold::sole()).await;
        let (result, retry_after) = answered.expect("that right does not end");
        let word = |path: &Vec<u8>| {
            let said = self.receiver().items.get_mut(path).and_then(VecDeque::pop_front);
            said.unwrap_or(ItemOutcome::Accepted)
        };
        let acknowledged = matches!(result, Ok(200..=299));
        let items: Vec<ItemOutcome> =
            if acknowledged { paths.iter().map(word).collect() } else { Vec::new() };
        let taken = |at: usize| !applied && items.get(at) == Some(&ItemOutcome::Accepted);
        let changes = parcels.iter().zip(paths).enumerate();
        let changes = changes.map(|(at, (parcel, path))| (parcel.id.clone(), path, taken(at))).collect();
        self.note(endpoint, changes, Action::Batch, result);
        (
            AttemptOutcome {
                result,
                retry_after,
                excerpt: String::new(),
                took: Duration::ZERO,
                answer: kept(result),
            },
            items,
        )
    }

    async fn mail(
        &self,
        endpoint: &Endpoint,
        message: &SubscriptionMessage,
        _is_last: bool,
        _hold: &ShardHold,
    ) -> Option<MailOutcome> {
        let notice = Notice::OfSubscription(Arc::new(message.clone()));
        let attempt = self.notify(endpoint, &notice).await;
        Some(MailOutcome { attempt, refused: Vec::new(), is_in_doubt: false })
    }

    async fn notify(&self, endpoint: &Endpoint, notice: &Notice) -> AttemptOutcome {
        self.receiver().notices.push((endpoint.app.clone(), notice.clone()));
        let (id, action) = match notice {
            Notice::OfRound { action, round, .. } => {
                (DeliveryId::of_notice(&round.cursor, round.number, action.as_str()), *action)
            }
            Notice::SyncFailed { id, .. } => (id.clone(), Action::SyncFailed),
            Notice::SyncRecovered { id, .. } => (id.clone(), Action::SyncRecovered),
            Notice::OfSubscription(message) => (message.id.clone(), Action::Entry),
            Notice::WorkAvailable(call) => (call.id.clone(), Action::Entry),
            Notice::Test { id, .. } => (id.clone(), Action::Test),
        };
        let arrived = self.arrive(endpoint, &id, action, Vec::new(), &ShardHold::sole()).await;
        arrived.expect("that right does not end")
    }
}
