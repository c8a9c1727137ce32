//! Rendering a window of a lane's deliveries within the budget of bytes that all lanes share.
//!
//! A window takes its memory only if the share of its app has it now. Otherwise the lane renders its head
//! alone: at once if it is small, or when the budget has room for it. The memory of a delivery is held until
//! its attempt has ended or its bytes are dropped, and an attempt has a deadline. So a receiver that is slow
//! with a body of more than half of the memory delays only the rendering of large files, and each of those by
//! one attempt of each other app.

use std::sync::Arc;

use tidings_entity::id::AppId;

use super::{healing, lane::AHEAD_BYTES};
use crate::{
    context::Context,
    limits::budget::MemoryPermit,
    ports::{DeliveryOrder, GitError, Parcel, PrepareError},
};

/// A head of at most this many bytes is rendered even if the budget is used up: its attempt with its
/// connection costs about as much. So a slow receiver does not keep other apps waiting.
const SMALL: u64 = 16 << 10;
/// The factor from the bytes of content that [`Transport::prepare`](crate::ports::Transport::prepare) may
/// read to the most memory that it takes: while a second content is read there are two copies of that one,
/// and bodies take up to twice the bytes of their contents.
const GROWTH: u64 = 3;

/// Renders the first delivery and as many more as there is room for, when the app has its turn. Blobs that
/// the mirror lacks are fetched by id; [`GitError::Unobtainable`] comes only after two definitive refusals.
pub(super) async fn render(
    context: &Context,
    app: &AppId,
    orders: Arc<[DeliveryOrder]>,
) -> Result<Vec<Parcel>, PrepareError> {
    let mut roomy = None;
    // A delivery reads at most two blobs, the new and the old content. Each may be missing and may need much
    // memory, and the mirror may turn out to be damaged once.
    let mut tries_left = 10;
    let (parcels, held) = loop {
        tries_left -= 1;
        // No turn and no memory is held during a fetch or a wait for much memory: both may take long.
        let turn = context.read_turns.take(app).await;
        let room = roomy.take().unwrap_or_else(|| Room::now(context, app, &orders));
        let result = context.transport.prepare(&room.orders, room.limit).await;
        drop(turn);
        match result {
            Err(PrepareError::Git(fault @ (GitError::Missing(_) | GitError::Corrupt(_))))
                if tries_left > 0 =>
            {
                drop(room);
                let Some(order) = orders.first() else { return Ok(Vec::new()) };
                match fault {
                    GitError::Missing(blob) => healing::bring(context, order, blob).await?,
                    _ => healing::mend(context, order).await?,
                }
            }
            Err(PrepareError::OverBudget(size)) if tries_left > 0 => {
                drop(room);
                let held = Some(context.budget.take(app, size.saturating_mul(GROWTH)).await);
                roomy = Some(Room { orders: first(&orders), limit: size, held });
            }
            result => break (result?, room.held),
        }
    };
    if let Some(mut held) = held {
        held.shrink(parcels.iter().map(Parcel::size).sum());
        let held = Arc::new(held);
        let share = |parcel| Parcel { held: Some(Arc::clone(&held)), ..parcel };
        return Ok(parcels.into_iter().map(share).collect());
    }
    Ok(parcels)
}

/// Deliveries to render, and the memory for them.
struct Room {
    orders: Arc<[DeliveryOrder]>,
    limit: u64,
    held: Option<MemoryPermit>,
}

impl Room {
    /// Takes memory for all deliveries if the app's share has it now; otherwise for the first one, if that is
    /// small.
    fn now(context: &Context, app: &AppId, orders: &Arc<[DeliveryOrder]>) -> Self {
        let limit = AHEAD_BYTES.min(context.budget.share_max() / GROWTH);
        match context.budget.try_take(app, limit * GROWTH) {
            Some(held) => Self { orders: Arc::clone(orders), limit, held: Some(held) },
            None => Self { orders: first(orders), limit: SMALL, held: None },
        }
    }
}

fn first(orders: &Arc<[DeliveryOrder]>) -> Arc<[DeliveryOrder]> {
    orders.iter().take(1).cloned().collect()
}
