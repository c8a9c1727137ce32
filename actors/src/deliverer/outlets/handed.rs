//! One batch of changes on its way to the queue of a sink: the room for it, its payloads, and the call that
//! makes tasks of it. Runs as a task of the deliverer.

use std::sync::Arc;

use tidings_entity::{
    id::{AppId, ObjectId, Sha256Hash, TaskId},
    kind::Operation,
};
use ulid::Ulid;

use crate::{
    context::Context,
    deliverer::{opening::OpenLane, rendering},
    limits::budget::MemoryPermit,
    model::round::{Change, DeliveryId, Round},
    ports::{
        DeliveryOrder, GitError, HandOver, HandedChange, LaneFacts, Parcel, ParcelBody, PrepareError, Seek,
        StoreError,
    },
    supervision::tasks::in_time,
};

/// The most bytes of a content in a payload; a worker downloads a larger one from `content_url`.
pub const INLINE_MAX: u64 = 16 << 10;
/// Changes that are handed over in one transaction.
const AT_ONCE: usize = 128;
/// The most changes of a round whose one task lists them; a worker reads a longer list from `changes_url`.
const LISTED: usize = 100;

/// Where a lane stands with handing over.
#[derive(Debug, Default)]
pub(in crate::deliverer) enum Handing {
    /// Nothing is under way, and there may be room.
    #[default]
    Idle,
    /// A batch is under way; with `true` there was word of room since it began.
    Busy(bool),
    /// There is no room before a task of the app is claimed or ends.
    Full,
}

/// What became of a batch.
#[derive(Debug)]
pub enum HandedOver {
    /// Changes were handed over, the last of them at this position; more may follow.
    More(u64, Box<Change>),
    /// Rows changed meanwhile: look again.
    Again,
    /// There is no room now.
    Full,
    /// Every change of the round has ended.
    Settled,
    /// The round is not open any more, or nothing may be handed over: the rows are to be read again.
    Stale,
}

/// Why a batch was not handed over; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// A read or a write of the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or rendering changes failed.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// The next changes of a lane.
pub(in crate::deliverer) struct Batch {
    /// The lane with its round.
    pub(in crate::deliverer) open: Arc<OpenLane>,
    /// The facts that all deliveries of the lane share.
    pub(in crate::deliverer) facts: Arc<LaneFacts>,
    /// The last change that was handed over here, with its position.
    pub(in crate::deliverer) last: Option<(u64, Change)>,
}

impl Batch {
    /// Hands over as many of them as there is room for.
    pub(in crate::deliverer) async fn hand_over(
        self,
        context: &Context,
        app: &AppId,
    ) -> Result<HandedOver, HandOverError> {
        let Self { open, facts, last } = self;
        let round = &open.round;
        let room = in_time(open.store.hand_over_room(&round.cursor, round.number)).await?;
        let Some(room) = room else { return Ok(HandedOver::Stale) };
        if room.is_settled {
            return Ok(HandedOver::Settled);
        }
        let from = room.positions.start;
        let most = usize::try_from(room.positions.end - from).unwrap_or(AT_ONCE).min(AT_ONCE);
        if most == 0 {
            return Ok(HandedOver::Full);
        }
        if room.per_round {
            return hand_over_round(context, app, &open, &facts).await;
        }
        let seek = match last {
            Some((position, change)) if position + 1 == from => Seek::After(change),
            _ => Seek::Position(from),
        };
        let (remote, spec) = (&facts.remote, &round.spec);
        let changes = context.in_read_turn(app, context.git.window(remote, spec, &seek, most)).await;
        let changes = changes.map_err(PrepareError::Git)?;
        if changes.is_empty() {
            return Ok(HandedOver::Stale);
        }
        context.transport.prefetch(remote, spec, &changes).await;
        let order = |(position, change)| open.order(&facts, position, change, Vec::new());
        let orders: Vec<DeliveryOrder> = (from..).zip(changes).map(order).collect();
        // The payloads count as memory until they are rows: many lanes may wait for the database.
        let (changes, _held) = rendered(context, app, orders).await?;
        let Some(handed) = changes.last() else { return Ok(HandedOver::Again) };
        let last = (from + changes.len() as u64 - 1, Box::new(handed.change.clone()));
        let next = HandOver { cursor: round.cursor.clone(), round: round.number, from, changes };
        let is_done = {
            let _turn = context.rows.take(app).await;
            in_time(open.store.hand_over(next)).await?
        };
        Ok(if is_done { HandedOver::More(last.0, last.1) } else { HandedOver::Again })
    }
}

/// Hands over a whole round as one task.
async fn hand_over_round(
    context: &Context,
    app: &AppId,
    open: &OpenLane,
    facts: &LaneFacts,
) -> Result<HandedOver, HandOverError> {
    let round = &open.round;
    let mut changes = Vec::new();
    if round.summary.total() <= LISTED as u64 {
        let window = context.git.window(&facts.remote, &round.spec, &Seek::Position(0), LISTED);
        changes = context.in_read_turn(app, window).await.map_err(PrepareError::Git)?;
    }
    let id = DeliveryId::of_round(&round.cursor, round.number);
    let payload = context.transport.round_body(facts, &id, &changes);
    let whole =
        Change { operation: Operation::Update, path: Vec::new(), old: None, new: None, replay_of: None };
    let handed =
        HandedChange { task: task_id(round, &id), delivery: id, change: whole.clone(), payload: Ok(payload) };
    let next = HandOver { cursor: round.cursor.clone(), round: round.number, from: 0, changes: vec![handed] };
    let is_done = {
        let _turn = context.rows.take(app).await;
        in_time(open.store.hand_over(next)).await?
    };
    Ok(if is_done { HandedOver::More(0, Box::new(whole)) } else { HandedOver::Again })
}

/// Changes with their payloads, and the memory that the payloads take.
type Rendered = (Vec<HandedChange>, Option<Arc<MemoryPermit>>);

/// Renders these changes: the first, and as many after it as there is memory for. A first change whose
/// content is not available has a reason in place of its payload.
async fn rendered(
    context: &Context,
    app: &AppId,
    mut orders: Vec<DeliveryOrder>,
) -> Result<Rendered, PrepareError> {
    // A change has at most two contents, and one of them may be missing from its body.
    for _ in 0..2 {
        let Some(first) = orders.first() else { return Ok((Vec::new(), None)) };
        let refused = match rendering::render(context, app, Arc::from(orders.clone())).await {
            Ok(parcels) => {
                // All parcels that were rendered at once hold the same memory.
                let held = parcels.first().and_then(|parcel| parcel.held.clone());
                let changes = orders.into_iter().zip(parcels).map(|(order, parcel)| handed(order, &parcel));
                return Ok((changes.collect(), held));
            }
            Err(PrepareError::Git(GitError::Unobtainable(blob))) if !is_new(first, blob) => Some(blob),
            Err(PrepareError::Git(reason @ GitError::Unobtainable(_))) => {
                return Ok((vec![unavailable(first.clone(), &reason)], None));
            }
            Err(PrepareError::Git(reason)) if reason.is_of_the_object() => {
                return Ok((vec![unavailable(first.clone(), &reason)], None));
            }
            Err(reason) => return Err(reason),
        };
        orders[0].unobtainable.extend(refused);
    }
    let reason = "its content is neither in the mirror nor at the Git host";
    Ok((orders.into_iter().take(1).map(|order| unavailable(order, &reason)).collect(), None))
}

/// Whether the body of a change cannot do without this blob.
fn is_new(order: &DeliveryOrder, blob: ObjectId) -> bool {
    order.unobtainable.contains(&blob) || order.change.new.is_some_and(|new| new.blob == blob)
}

fn unavailable(order: DeliveryOrder, reason: &dyn std::fmt::Display) -> HandedChange {
    let task = task_id(&order.lane.round, &order.id);
    HandedChange { task, delivery: order.id, change: order.change, payload: Err(reason.to_string()) }
}

fn handed(order: DeliveryOrder, parcel: &Parcel) -> HandedChange {
    let task = task_id(&order.lane.round, &order.id);
    let payload = match &parcel.body {
        ParcelBody::Whole(bytes) => {
            String::from_utf8(bytes.to_vec()).map_err(|_| "its body is no text".to_owned())
        }
        // Contents of payloads are below every threshold of chunks.
        ParcelBody::Chunked { .. } => Err("its content is too large for a payload".to_owned()),
    };
    HandedChange { task, delivery: order.id, change: order.change, payload }
}

/// The id of the task of a delivery: the same at every try, in the order of rounds.
fn task_id(round: &Round, delivery: &DeliveryId) -> TaskId {
    let hash = Sha256Hash::of(delivery.as_str().as_bytes()).to_string();
    let random = u128::from_str_radix(&hash[..20], 16).unwrap_or_default();
    TaskId::new(Ulid::from_parts(u64::try_from(round.began_at.0).unwrap_or(0), random))
}

#[cfg(test)]
mod tests;
