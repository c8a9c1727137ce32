//! Rendering a window of a lane's deliveries within the budget of bytes that all lanes share.

use std::sync::Arc;

use tidings_entity::id::AppId;

use super::{healing, lane::AHEAD_BYTES};
use crate::{
    budget::Held,
    context::Context,
    ports::{DeliveryOrder, GitError, Parcel, PrepareError},
};

/// A head of at most so many bytes is rendered whatever the budget says: its attempt alone, with its
/// connection, costs about as much. So no receiver that is slow keeps others from their changes.
const SMALL: u64 = 16 << 10;
/// What a rendered delivery weighs beyond its content: escapes, base64, and the rest of its body.
const GROWTH: u64 = 2;

/// Renders the first delivery and as many after it as there is room for, when it is the turn of its
/// app. Blobs that are not here are fetched by id; [`GitError::Unobtainable`] comes only after two
/// definitive refusals.
pub(super) async fn render(
    context: &Context,
    app: &AppId,
    orders: Arc<[DeliveryOrder]>,
) -> Result<Vec<Parcel>, PrepareError> {
    let mut roomy = None;
    // New content, old content: two blobs are the most that one delivery reads, and each may be
    // missing and may be heavy; and once the mirror may turn out to be damaged.
    let mut patience = 10;
    let (parcels, held) = loop {
        patience -= 1;
        // Nothing is held while this waits for its turn; a fetch and a wait for much room, which may
        // take long, hold up nobody else.
        let desk = context.desks.take(app).await;
        let room = roomy.take().unwrap_or_else(|| Room::now(context, &orders));
        let result = context.transport.prepare(&room.orders, room.limit).await;
        drop(desk);
        match result {
            Err(PrepareError::Git(fault @ (GitError::Missing(_) | GitError::Corrupt(_)))) if patience > 0 => {
                drop(room);
                let Some(order) = orders.first() else { return Ok(Vec::new()) };
                match fault {
                    GitError::Missing(blob) => healing::bring(context, order, blob).await?,
                    _ => healing::mend(context, order).await?,
                }
            }
            Err(PrepareError::Heavy(size)) if patience > 0 => {
                drop(room);
                let turn = context.heavy.take(app).await;
                let held = Some(context.budget.take(size.saturating_mul(GROWTH)).await);
                drop(turn);
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

/// What may be rendered with how much.
struct Room {
    orders: Arc<[DeliveryOrder]>,
    limit: u64,
    held: Option<Held>,
}

impl Room {
    /// All of them, if there is room now; else the first, if it is small.
    fn now(context: &Context, orders: &Arc<[DeliveryOrder]>) -> Self {
        match context.budget.try_take(AHEAD_BYTES * GROWTH) {
            Some(held) => Self { orders: Arc::clone(orders), limit: AHEAD_BYTES, held: Some(held) },
            None => Self { orders: first(orders), limit: SMALL, held: None },
        }
    }
}

fn first(orders: &Arc<[DeliveryOrder]>) -> Arc<[DeliveryOrder]> {
    orders.iter().take(1).cloned().collect()
}
