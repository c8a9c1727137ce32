//! Which leases stand, as a transaction sees them: what was begun under one that does not stand any more
//! changes nothing. On PostgreSQL claims exclude every transaction that writes, so a plain read is enough.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::{Fence, Shard, StoreError};
use tidings_entity::id::ReplicaId;

use crate::rows;

/// The lease that stands for all: its epoch fences off every process at once.
pub(crate) const ALL: &str = "all";

#[derive(FromQueryResult)]
struct Standing {
    shard: String,
    epoch: i64,
    owner: Option<ReplicaId>,
}

/// Those of these fences that stand.
///
/// # Errors
/// [`StoreError::Fenced`] where the database was taken from this process as a whole.
pub(crate) async fn standing(
    connection: &impl ConnectionTrait,
    epoch: i64,
    asked: &BTreeSet<Fence>,
) -> Result<BTreeSet<Fence>, StoreError> {
    if asked.is_empty() {
        let stands = self::epoch(connection).await? == epoch;
        return if stands { Ok(BTreeSet::new()) } else { Err(StoreError::Fenced) };
    }
    let shards: Vec<_> = asked.iter().map(|fence| vec![name(fence.shard).into()]).collect();
    let (list, values) = rows::list(connection, &["text"], &shards);
    let text = format!(
        "with v(shard) as ({list}) select shard, epoch, owner from lease
         where shard = '{ALL}' or (owner is not null and shard in (select shard from v))"
    );
    let found: Vec<Standing> = rows::all(connection, "lease", &text, values).await?;
    if !found.iter().any(|lease| lease.shard == ALL && lease.epoch == epoch) {
        return Err(StoreError::Fenced);
    }
    let fence = |lease: Standing| {
        Some(Fence { shard: shard(&lease.shard)?, epoch: lease.epoch, owner: lease.owner?.ulid() })
    };
    let standing: BTreeSet<Fence> = found.into_iter().filter_map(fence).collect();
    Ok(standing.intersection(asked).copied().collect())
}

/// The epoch of the lease that stands for all, as this transaction sees it.
pub(crate) async fn epoch(connection: &impl ConnectionTrait) -> Result<i64, StoreError> {
    rows::number(connection, "lease", "select epoch from lease where shard = $1", vec![ALL.into()]).await
}

/// What the row of a shard is named.
pub(crate) fn name(shard: Shard) -> String {
    shard.number().to_string()
}

/// The shard whose row has this name; `None`: it is the one for all.
pub(crate) fn shard(name: &str) -> Option<Shard> {
    name.parse().ok().map(Shard::new)
}
