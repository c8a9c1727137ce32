//! [`MemoryTransport`]: a receiver in memory that keeps what it acknowledged and answers what it was
//! told to.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tidings_entity::{
    id::{AppId, ObjectId},
    kind::Operation,
};
use tokio::sync::watch;

use crate::{
    ports::{
        Action, AttemptOutcome, DeliveryOrder, Endpoint, Notice, Parcel, ParcelBody, PrepareError,
        SendFailure, Transport,
    },
    round::DeliveryId,
};

/// One request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whom it was for.
    pub app: AppId,
    /// The delivery id.
    pub id: DeliveryId,
    /// What kind.
    pub action: Action,
    /// The path, for a change.
    pub path: Vec<u8>,
    /// What it was answered.
    pub answer: Result<u16, SendFailure>,
}

/// How to answer: by path, or whatever comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// Nothing.
    Failure(SendFailure),
    /// Never; the attempt hangs until its task ends.
    Hang,
}

#[derive(Default)]
struct Receiver {
    arrivals: Vec<Arrival>,
    next: VecDeque<Answer>,
    by_path: HashMap<Vec<u8>, Answer>,
    orders: HashMap<DeliveryId, DeliveryOrder>,
    mirror: BTreeMap<(AppId, Vec<u8>), ObjectId>,
}

/// The transport.
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

    /// Every change of this path is answered like this, until told otherwise (`None`).
    pub fn answer_path(&self, path: &str, answer: Option<Answer>) {
        let mut receiver = self.receiver();
        match answer {
            Some(answer) => receiver.by_path.insert(path.as_bytes().to_vec(), answer),
            None => receiver.by_path.remove(path.as_bytes()),
        };
    }

    /// Everything that arrived so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.receiver().arrivals.clone()
    }

    /// What an app has: blobs by path.
    pub fn mirror(&self, app: &AppId) -> BTreeMap<Vec<u8>, ObjectId> {
        let receiver = self.receiver();
        let own = receiver.mirror.iter().filter(|((owner, _), _)| owner == app);
        own.map(|((_, path), blob)| (path.clone(), *blob)).collect()
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
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(
        &self,
        endpoint: &Endpoint,
        id: &DeliveryId,
        action: Action,
        path: Vec<u8>,
    ) -> Option<AttemptOutcome> {
        let mut receiver = self.receiver();
        let by_path = receiver.by_path.get(&path).copied();
        let answer = by_path.or_else(|| receiver.next.pop_front()).unwrap_or(Answer::Status(200));
        let result = match answer {
            Answer::Status(status) => Ok(status),
            Answer::Failure(failure) => Err(failure),
            Answer::Hang => return None,
        };
        if matches!(result, Ok(200..=299))
            && let Some(order) = receiver.orders.get(id).cloned()
        {
            let key = (endpoint.app.clone(), path.clone());
            match (order.change.operation, order.change.new) {
                (Operation::Create | Operation::Update, Some(entry)) => {
                    receiver.mirror.insert(key, entry.blob)
                }
                _ => receiver.mirror.remove(&key),
            };
        }
        receiver.arrivals.push(Arrival {
            app: endpoint.app.clone(),
            id: id.clone(),
            action,
            path,
            answer: result,
        });
        let arrived = receiver.arrivals.len();
        drop(receiver);
        self.count.send_replace(arrived);
        Some(AttemptOutcome { result, retry_after: None, excerpt: String::new(), took: Duration::ZERO })
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn prepare(&self, order: &DeliveryOrder) -> Result<Parcel, PrepareError> {
        self.receiver().orders.insert(order.id.clone(), order.clone());
        let body = ParcelBody::Whole(Bytes::from(order.change.path.clone()));
        Ok(Parcel { id: order.id.clone(), action: order.change.operation.into(), body })
    }

    async fn send(&self, endpoint: &Endpoint, parcel: &Parcel) -> AttemptOutcome {
        let ParcelBody::Whole(path) = &parcel.body else { unreachable!("prepare makes whole bodies") };
        match self.arrive(endpoint, &parcel.id, parcel.action, path.to_vec()) {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }

    async fn notify(&self, endpoint: &Endpoint, notice: &Notice) -> AttemptOutcome {
        let (id, action) = match notice {
            Notice::OfRound { action, round, .. } => {
                (DeliveryId::of_notice(&round.cursor, round.number, action.as_str()), *action)
            }
            Notice::SyncFailed { id, .. } => (id.clone(), Action::SyncFailed),
            Notice::SyncRecovered { id, .. } => (id.clone(), Action::SyncRecovered),
        };
        match self.arrive(endpoint, &id, action, Vec::new()) {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }
}
