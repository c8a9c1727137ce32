//! The valid leases, as a transaction sees them: work that was begun under an invalid lease changes nothing.
//! On PostgreSQL claims exclude every writing transaction, so a plain read is enough.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult};
use tidings_actors::ports::{Fence, Shard, StoreError};
use tidings_entity::id::ReplicaId;

use crate::database::rows;

/// The lease of the whole database: its epoch fences off every process at once.
pub(crate) const ALL: &str = "all";

#[derive(FromQueryResult)]
struct Standing {
    shard: String,
    epoch: i64,
    owner: Option<ReplicaId>,
}

/// The fences that are still valid.
///
/// # Errors
/// [`StoreError::Fenced`] if another process took over the whole database.
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

/// The epoch of the lease of the whole database, as this transaction sees it.
pub(crate) async fn epoch(connection: &impl ConnectionTrait) -> Result<i64, StoreError> {
    rows::number(connection, "lease", "select epoch from lease where shard = $1", vec![ALL.into()]).await
}

/// The name of a shard's row.
pub(crate) fn name(shard: Shard) -> String {
    shard.number().to_string()
}

/// The shard whose row has this name; `None`: the row is the lease of the whole database.
pub(crate) fn shard(name: &str) -> Option<Shard> {
    name.parse().ok().map(Shard::new)
}
