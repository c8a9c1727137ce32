//! Facts computed from blobs: a cache.

use std::collections::HashMap;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{BlobFacts, StoreError},
    time::Timestamp,
};
use tidings_entity::{blob, id::ObjectId};

use crate::database::rows::{self, list};

/// The blobs in one statement.
const CHUNK: usize = 256;

/// The known facts, in the order of the ids.
pub(crate) async fn facts(
    connection: &impl ConnectionTrait,
    blobs: &[ObjectId],
) -> Result<Vec<Option<BlobFacts>>, StoreError> {
    let mut known: HashMap<ObjectId, BlobFacts> = HashMap::with_capacity(blobs.len());
    for chunk in blobs.chunks(CHUNK) {
        let asked: Vec<_> = chunk.iter().map(|id| vec![(*id).into()]).collect();
        let (list, values) = list(connection, &["text"], &asked);
        let text = format!("with v(id) as ({list}) select * from blob where id in (select id from v)");
        for row in rows::readable::<blob::Model>(connection, "blob", &text, values).await? {
            let size = rows::unsigned("blob", row.size)?;
            known.insert(row.id, BlobFacts { sha256: row.sha256, size, text: row.is_text });
        }
    }
    Ok(blobs.iter().map(|id| known.get(id).copied()).collect())
}

/// Stores facts about blobs, and that they were used.
pub(crate) async fn remember(
    connection: &impl ConnectionTrait,
    blobs: &[(ObjectId, BlobFacts)],
    at: Timestamp,
) -> Result<(), StoreError> {
    for chunk in blobs.chunks(CHUNK) {
        let facts: Vec<_> = chunk
            .iter()
            .map(|(id, facts)| {
                let size = rows::signed(facts.size);
                vec![(*id).into(), facts.sha256.into(), size.into(), i64::from(facts.text).into()]
            })
            .collect();
        let (list, mut values) = list(connection, &["text", "text", "bigint", "bigint"], &facts);
        values.push(at.0.into());
        let text = format!(
            "with v(id, sha256, size, is_text) as ({list})
             insert into blob (id, sha256, size, is_text, used_at)
             select distinct id, sha256, size, is_text > 0, cast(${} as bigint) from v where true
             on conflict (id) do update set used_at = excluded.used_at",
            values.len()
        );
        rows::execute(connection, "blob", &text, values).await?;
    }
    Ok(())
}
