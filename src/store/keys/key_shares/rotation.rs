//! A rotation and a retirement with replicas, carried out by the replica that was asked: a step begins only
//! after the other replicas have completed the previous one.

use std::{slice, time::Duration};

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tidings_actors::ports::{Signal, StoreError};
use tidings_entity::{id::ReplicaId, key_share, kind::KeyState::Offered};
use tidings_secrets::HandedKey;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Living, living, place, read};
use crate::{
    SqlStore,
    database::{error::of_keyring, rows},
    keys,
    leases::notifications::{NOW, notify},
};

/// How long a rotation waits until every replica took the new key: longer than a dead replica counts as alive
/// by default, and than replicas behind a pooler take to look. Unit tests wait in vain on purpose.
const TAKE_MAX: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 20 });
/// How often it looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// After how many looks the other replicas are notified again, because a notification may be lost.
const TELL_AGAIN: u32 = 10;

impl SqlStore {
    /// A rotation with replicas: offers a key, waits until all have it, then it seals.
    pub(crate) async fn rotate_among_replicas(&self) -> Result<String, StoreError> {
        self.follow_keys().await?;
        let id = self.offer_key().await?;
        self.follow_keys().await?;
        self.wait_until_taken(&id).await?;
        let (key, by) = (id.clone(), self.speaker());
        let activate = self.writer.verb(move |transaction, _context| {
            Box::pin(async move {
                // A replica that started meanwhile reads the rows itself; only replicas that existed before
                // are waited for.
                if let Some(other) = without(transaction, &key).await?.first() {
                    return Err(not_taken(&key, other));
                }
                let text = format!(
                    "update key_share set state = 'active', active_at = {NOW} where id = $1 and state = \
                     'offered'"
                );
                rows::execute(transaction, "key_share", &text, vec![key.into()]).await?;
                notify(transaction, &by, Signal::Keys).await
            })
        });
        activate.await?;
        if let Err(reason) = self.follow_keys().await {
            warn!("the key {id} does not seal here yet: {reason}");
        }
        Ok(id)
    }

    /// The offered key, which is created if there is none. Returns its id.
    async fn offer_key(&self) -> Result<String, StoreError> {
        let (by, is_replica) = (self.speaker(), self.mine().is_some());
        let offer = self.writer.question(move |transaction, context| {
            Box::pin(async move {
                let shares = read(transaction).await?;
                if let Some(offered) = shares.iter().find(|share| share.state == Offered) {
                    return Ok(offered.id.clone());
                }
                let key = HandedKey::generate(&*context.random);
                // This process is no replica and no replica is alive: the key goes only into this keyring,
                // and is not stored under an older key.
                let sealed = if is_replica || !living(transaction).await?.is_empty() {
                    Some(context.keyring.seal(&place(&key.id), &key.key, &*context.random))
                } else {
                    context.keyring.follow(slice::from_ref(&key), None).map_err(of_keyring)?;
                    None
                };
                let number = shares.last().map_or(1, |share| share.number + 1);
                let text = format!(
                    "insert into key_share (id, number, state, sealed, offered_at) values ($1, $2, $3, $4, \
                     {NOW})"
                );
                let values = vec![key.id.clone().into(), number.into(), Offered.into(), sealed.into()];
                rows::execute(transaction, "key_share", &text, values).await?;
                notify(transaction, &by, Signal::Keys).await?;
                Ok(key.id)
            })
        });
        offer.await
    }

    async fn wait_until_taken(&self, id: &str) -> Result<(), StoreError> {
        let until = Instant::now() + TAKE_MAX;
        for look in 1.. {
            let Some(other) = without(&self.readers, id).await?.into_iter().next() else { break };
            if Instant::now() >= until {
                return Err(not_taken(id, &other));
            }
            if look % TELL_AGAIN == 0 {
                let by = self.speaker();
                let tell = self.writer.question(move |transaction, _context| {
                    Box::pin(async move { notify(transaction, &by, Signal::Keys).await })
                });
                tell.await?;
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Retires a key with replicas: first no replica may seal with it, then every value is sealed again, then
    /// all replicas drop it.
    pub(crate) async fn retire_among_replicas(&self, id: &str) -> Result<(), StoreError> {
        self.follow_keys().await?;
        let (key, mine) = (id.to_owned(), self.mine());
        let close = self.writer.question(move |transaction, context| {
            Box::pin(async move {
                keys::may_retire(context, &key)?;
                close(transaction, &key, mine.as_ref()).await
            })
        });
        close.await?;
        self.refuse_needed(id).await?;
        let (key, by) = (id.to_owned(), self.speaker());
        let retire = self.writer.verb(move |transaction, _context| {
            Box::pin(async move {
                let text = "update key_share set state = 'retired' where id = $1";
                rows::execute(transaction, "key_share", text, vec![key.clone().into()]).await?;
                // The sealed key goes with it: otherwise a retired key could open a key that seals.
                let text = "update key_share set sealed = null where id = $1
                            or encode(substr(sealed, 2, 4), 'hex') = $1";
                rows::execute(transaction, "key_share", text, vec![key.into()]).await?;
                notify(transaction, &by, Signal::Keys).await
            })
        });
        retire.await?;
        if let Err(reason) = self.follow_keys().await {
            warn!("the key {id} was retired and is still in the keyring here: {reason}");
        }
        Ok(())
    }

    /// The id under which this process notifies the replicas.
    fn speaker(&self) -> ReplicaId {
        let own = || ReplicaId::new(self.context.random.ulid(self.context.clock.now()));
        self.mine().unwrap_or_else(own)
    }
}

/// Closes a key, unless a live replica may still seal with it.
async fn close(
    transaction: &DatabaseTransaction,
    id: &str,
    mine: Option<&ReplicaId>,
) -> Result<(), StoreError> {
    let sealing = |other: &Living| other.keys.split(' ').next().is_none_or(|key| key.is_empty() || key == id);
    let others = living(transaction).await?.into_iter().filter(|other| Some(&other.id) != mine);
    if let Some(Living { id: other, name, .. }) = others.into_iter().find(sealing) {
        return Err(StoreError::Conflict(format!(
            "the replica {other} ({name}) may still seal with the key {id}: ask again in a minute"
        )));
    }
    let needs_it = |share: &key_share::Model| {
        let sealed = share.sealed.as_deref().and_then(|sealed| sealed.get(1..5));
        share.state == Offered
            && (share.id == id
                || sealed.map(|key| data_encoding::HEXLOWER.encode(key)).as_deref() == Some(id))
    };
    let shares = read(transaction).await?;
    if let Some(offered) = shares.iter().find(|share| needs_it(share)) {
        return Err(StoreError::Conflict(format!(
            "a rotation to the key {} is not at its end: ask for it again first (tidings key rotate)",
            offered.id
        )));
    }
    // Keys from before the first handed key have no row yet, and are older than all others.
    let number = shares.first().map_or(0, |share| share.number - 1);
    let text = format!(
        "insert into key_share (id, number, state, offered_at) values ($1, $2, 'closed', {NOW})
         on conflict (id) do update set state = 'closed'"
    );
    rows::execute(transaction, "key_share", &text, vec![id.into(), number.into()]).await.map(drop)
}

/// The replicas that live and do not say that they have a key.
async fn without(connection: &impl ConnectionTrait, key: &str) -> Result<Vec<Living>, StoreError> {
    let mut living = living(connection).await?;
    living.retain(|other| !other.keys.split(' ').any(|known| known == key));
    Ok(living)
}

fn not_taken(key: &str, other: &Living) -> StoreError {
    let Living { id, name, .. } = other;
    StoreError::Conflict(format!(
        "the replica {id} ({name}) did not take the key {key} within {} s, so nothing is sealed with it; \
         look at that replica and ask again, which goes on with the same key",
        TAKE_MAX.as_secs()
    ))
}
