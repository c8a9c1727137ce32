//! The keys of the keyring and the rows that they seal: listing, rotating, retiring. `resealing.rs` seals
//! again, `key_shares.rs` coordinates replicas. Retiring reads beside the writer, in bounded steps.

pub(crate) mod key_shares;
pub(crate) mod resealing;
pub(crate) mod sealed;

use async_trait::async_trait;
use tidings_actors::ports::{RESEAL_STEP_MAX, Resealed, SealingKey, SealingKeys, StoreError};
use tidings_secrets::{AuditKeyring, AuditKeys, SecretsError};
use tracing::info;

use super::{Context, SqlStore, database::error::of_keyring};

#[async_trait]
impl SealingKeys for SqlStore {
    async fn keys(&self) -> Result<Vec<SealingKey>, StoreError> {
        let mut uses = sealed::by_key(&self.snapshot().await?).await?;
        let status = self.context.keyring.status();
        let known = status.keys.into_iter().map(|id| SealingKey {
            is_primary: id == status.primary,
            sealed: uses.remove(&id).unwrap_or(0),
            id,
        });
        let mut keys: Vec<SealingKey> = known.collect();
        keys.extend(uses.into_iter().map(|(id, sealed)| SealingKey { id, is_primary: false, sealed }));
        Ok(keys)
    }

    async fn rotate_key(&self) -> Result<String, StoreError> {
        if self.is_shared() {
            return self.rotate_among_replicas().await;
        }
        let rotated = self.writer.verb(|_transaction, context| {
            Box::pin(async move { context.keyring.rotate(&*context.random).map_err(of_keyring) })
        });
        rotated.await?;
        let id = self.context.keyring.status().primary;
        info!("the key {id} seals from now on; `tidings key reencrypt` seals again what older keys sealed");
        Ok(id)
    }

    async fn reseal(&self, most: u64) -> Result<Resealed, StoreError> {
        // So that the key which seals on all replicas is used, even if this replica missed the notification.
        self.follow_keys().await?;
        let mut at = self.resealing.lock().await;
        self.reseal_step(&mut at, most.clamp(1, RESEAL_STEP_MAX)).await
    }

    async fn retire_key(&self, id: &str) -> Result<(), StoreError> {
        if self.is_shared() {
            self.retire_among_replicas(id).await?;
            info!("the key {id} was retired: backups from before need the keyring that they were taken with");
            return Ok(());
        }
        // A key that seals no more never seals again. So once everything that was asked before is on disk,
        // nothing that it sealed can come there any more, and looking needs no writer.
        let key = id.to_owned();
        let may_go = self
            .writer
            .question(move |_transaction, context| Box::pin(async move { may_retire(context, &key) }));
        may_go.await?;
        self.refuse_needed(id).await?;
        let key = id.to_owned();
        let retire = self.writer.verb(move |_transaction, context| {
            Box::pin(async move { context.keyring.retire(&key).map_err(of_keyring) })
        });
        retire.await?;
        info!("the key {id} was retired: backups from before need the keyring that they were taken with");
        Ok(())
    }
}

impl AuditKeyring for SqlStore {
    fn audit_keys(&self) -> AuditKeys {
        self.context.keyring.audit_keys()
    }
}

/// Whether a key is there and seals no more.
pub(super) fn may_retire(context: &Context, id: &str) -> Result<(), StoreError> {
    let status = context.keyring.status();
    if !status.keys.iter().any(|known| known == id) {
        return Err(StoreError::NotFound);
    }
    if status.primary == id { Err(of_keyring(SecretsError::PrimaryKey)) } else { Ok(()) }
}
