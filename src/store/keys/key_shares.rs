//! The keyring among replicas on PostgreSQL: one replica creates a key, all replicas take it, and only then
//! it seals.
//!
//! Each key that was handed on has a row. *Offered*: every replica takes the key, in its file and in memory,
//! and records that in its own row; the key opens, and nothing is sealed with it. *Active*: every live
//! replica had the key, and the last active key seals. *Closed*: no write that was sealed with the key is
//! committed any more ([`may_seal`]), not even by a replica that was away: so the values of the key can be
//! counted. *Retired*: nothing is sealed with the key, and replicas drop it after a check of their own.
//!
//! A replica reads the rows before it proves its keyring at a start, again after it wrote its own row (a
//! replica that waits for all others either saw this row, or this replica sees the key), when it is notified,
//! and from time to time. A replica that lacks a key which may have sealed a value gets no lease. So after a
//! crash at any line all replicas can still open every value, and a repeated call continues with the offered
//! key.
//!
//! A new key is stored in its row sealed with the previous key, and no longer than necessary: an attacker
//! with the previous key and the database would get the new one. The rest of the row stays, so that a keyring
//! which lacks a key is recognised. SQLite has one process, and no rows here.

mod rotation;

use std::slice;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult};
use tidings_actors::ports::StoreError;
use tidings_entity::{
    id::ReplicaId,
    key_share,
    kind::KeyState::{Active, Closed, Offered, Retired},
};
use tidings_secrets::{HandedKey, Keyring, SealedField};
use tracing::{error, info, warn};

use super::sealed::LOOK_MAX;
use crate::{
    OpenError, SqlStore,
    database::{
        error::{of_first_use, of_keyring},
        rows,
    },
    leases::notifications::NOW,
};

/// How long a key that seals is still handed to replicas that were away, in milliseconds.
const HANDED_FOR: i64 = 24 * 3600 * 1000;

/// The changes of a keyring that the rows require.
struct Steps {
    /// Keys that it lacks and can open.
    take: Vec<HandedKey>,
    /// The key that must seal, if another one does.
    seal_with: Option<String>,
    /// Keys of the keyring that must be dropped.
    retired: Vec<String>,
    /// Keys that the keyring lacks, cannot take, and that may have sealed values.
    lacking: Vec<String>,
}

impl Steps {
    fn of(shares: &[key_share::Model], keyring: &Keyring) -> Result<Self, StoreError> {
        let mut ring = keyring.with(&[]).map_err(of_keyring)?;
        let mut steps = Self { take: Vec::new(), seal_with: None, retired: Vec::new(), lacking: Vec::new() };
        for share in shares {
            let id = &share.id;
            if share.state == Retired {
                steps.retired.extend(ring.has(id).then(|| id.clone()));
            } else if !ring.has(id) {
                match handed(&ring, share).map(|key| (ring.with(slice::from_ref(&key)), key)) {
                    Some((Ok(with), key)) => {
                        ring = with;
                        steps.take.push(key);
                    }
                    other => {
                        if let Some((Err(reason), _)) = other {
                            error!("the key {id} is not taken: {reason}");
                        }
                        steps.lacking.extend((share.state != Offered).then(|| id.clone()));
                    }
                }
            }
        }
        let latest = shares.iter().rfind(|share| share.state == Active).map(|share| share.id.clone());
        steps.seal_with = latest.filter(|id| ring.has(id) && ring.status().primary != *id);
        Ok(steps)
    }

    fn changes_something(&self) -> bool {
        !self.take.is_empty() || self.seal_with.is_some()
    }

    fn carry_out(&self, keyring: &Keyring) -> Result<(), StoreError> {
        if !self.changes_something() {
            return Ok(());
        }
        keyring.follow(&self.take, self.seal_with.as_deref()).map_err(of_keyring)?;
        for key in &self.take {
            info!("the key {} of another replica is in the keyring", key.id);
        }
        if let Some(id) = &self.seal_with {
            info!("the key {id} seals from now on");
        }
        Ok(())
    }
}

/// A replica that counts as alive.
#[derive(FromQueryResult)]
struct Living {
    id: ReplicaId,
    name: String,
    keys: String,
}

/// The ids of the keys in a keyring for the replica's row; the key that seals comes first.
pub(crate) fn said(keyring: &Keyring) -> String {
    let status = keyring.status();
    let others = status.keys.iter().filter(|id| **id != status.primary);
    std::iter::once(&status.primary).chain(others).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// At a start, before the keyring is proved: takes the keys that were handed on while this process was away.
pub(crate) async fn take_at_start(
    connection: &impl ConnectionTrait,
    keyring: &Keyring,
) -> Result<(), OpenError> {
    let steps = Steps::of(&read(connection).await.map_err(of_first_use)?, keyring).map_err(of_first_use)?;
    match steps.lacking.into_iter().next() {
        Some(id) => Err(OpenError::MissingKey(id)),
        None => Steps { lacking: Vec::new(), ..steps }
            .carry_out(keyring)
            .map_err(|error| OpenError::Database(error.to_string())),
    }
}

/// The keyring as a start would have it, in memory, for checks that change nothing.
pub(crate) async fn keyring_after_start(
    connection: &impl ConnectionTrait,
    keyring: &Keyring,
) -> Result<Keyring, OpenError> {
    let steps = Steps::of(&read(connection).await.map_err(of_first_use)?, keyring).map_err(of_first_use)?;
    match steps.lacking.first() {
        Some(id) => Err(OpenError::MissingKey(id.clone())),
        None => keyring.with(&steps.take).map_err(OpenError::WrongKey),
    }
}

/// Refuses a value that was sealed with a key that another replica closed meanwhile: sealing again would not
/// find that value.
pub(crate) async fn may_seal(transaction: &DatabaseTransaction, keyring: &Keyring) -> Result<(), StoreError> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let primary = keyring.status().primary;
    let text = "select count(*) from key_share where id = $1 and state in ('closed', 'retired')";
    match rows::number(transaction, "key_share", text, vec![primary.clone().into()]).await? {
        0 => Ok(()),
        _ => Err(StoreError::Unavailable(format!(
            "another replica closed the key {primary}, and this one did not hear of it yet"
        ))),
    }
}

/// The first key that this keyring lacks and that may have sealed values.
pub(crate) async fn lacking(
    connection: &impl ConnectionTrait,
    keyring: &Keyring,
) -> Result<Option<String>, StoreError> {
    let shares = read(connection).await?;
    let may_have_sealed = shares.into_iter().filter(|share| matches!(share.state, Active | Closed));
    Ok(may_have_sealed.map(|share| share.id).find(|id| !keyring.has(id)))
}

impl SqlStore {
    /// Whether several processes may share the database.
    pub(crate) fn is_shared(&self) -> bool {
        self.address.file().is_none()
    }

    /// Applies the rows to this keyring, and records the keys that it has.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also if a key is missing and cannot be taken.
    pub(crate) async fn follow_keys(&self) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut steps = Steps::of(&read(&self.readers).await?, &self.context.keyring)?;
        if steps.changes_something() {
            // Runs between other calls, so that a call names and seals with the same key, and by the rows at
            // that moment.
            let follow = self.writer.question(|transaction, context| {
                Box::pin(async move {
                    let steps = Steps::of(&read(transaction).await?, &context.keyring)?;
                    steps.carry_out(&context.keyring).map(|()| steps)
                })
            });
            steps = follow.await?;
        }
        for id in steps.retired {
            self.drop_key(id).await?;
        }
        self.say_keys().await?;
        self.forget_handed().await?;
        match steps.lacking.first() {
            None => Ok(()),
            Some(id) => Err(StoreError::Unavailable(OpenError::MissingKey(id.clone()).to_string())),
        }
    }

    /// Drops a key that was retired, after this replica has checked that no row needs it.
    async fn drop_key(&self, id: String) -> Result<(), StoreError> {
        let count = self.sealed_with(&id, LOOK_MAX).await?;
        if count > 0 || self.context.keyring.status().primary == id {
            warn!("the key {id} was retired, but stays here: it seals {count} values");
            return Ok(());
        }
        let drop = self.writer.question(|_transaction, context| {
            Box::pin(async move { context.keyring.retire(&id).map_err(of_keyring).map(|()| id) })
        });
        let id = drop.await?;
        info!("the key {id} was retired and is gone from the keyring");
        Ok(())
    }

    async fn say_keys(&self) -> Result<(), StoreError> {
        let Some(id) = self.mine() else { return Ok(()) };
        let values = vec![id.into(), said(&self.context.keyring).into()];
        let text = "select count(*) from replica where id = $1 and keys <> $2";
        if rows::number(&self.readers, "replica", text, values.clone()).await? == 0 {
            return Ok(());
        }
        let text = "update replica set keys = $2 where id = $1";
        let say = self.writer.question(move |transaction, _context| {
            Box::pin(async move { rows::execute(transaction, "replica", text, values).await })
        });
        say.await.map(drop)
    }

    /// Removes keys from their rows once every replica has them.
    async fn forget_handed(&self) -> Result<(), StoreError> {
        let needless = format!(
            "sealed is not null and state <> 'offered' and active_at <= {NOW} - $1 and not exists
               (select 1 from replica r where r.seen_at >= {NOW} - $1 and strpos(r.keys, key_share.id) = 0)"
        );
        let text = format!("select count(*) from key_share where {needless}");
        if rows::number(&self.readers, "key_share", &text, vec![HANDED_FOR.into()]).await? == 0 {
            return Ok(());
        }
        let text = format!("update key_share set sealed = null where {needless}");
        let forget = self.writer.question(move |transaction, _context| {
            Box::pin(
                async move { rows::execute(transaction, "key_share", &text, vec![HANDED_FOR.into()]).await },
            )
        });
        forget.await.map(drop)
    }
}

/// Every row, in the order in which the keys were offered.
async fn read(connection: &impl ConnectionTrait) -> Result<Vec<key_share::Model>, StoreError> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(Vec::new());
    }
    rows::all(connection, "key_share", "select * from key_share order by number, id", vec![]).await
}

async fn living(connection: &impl ConnectionTrait) -> Result<Vec<Living>, StoreError> {
    let text = format!("select id, name, keys from replica where seen_at + life_ms > {NOW} order by id");
    rows::all(connection, "replica", &text, vec![]).await
}

/// A key as its row holds it.
fn handed(ring: &Keyring, share: &key_share::Model) -> Option<HandedKey> {
    let key = ring.open_sealed(&place(&share.id), share.sealed.as_deref()?);
    match key {
        Ok(key) => Some(HandedKey { id: share.id.clone(), key }),
        Err(reason) => {
            error!("the key {} of another replica does not open: {reason}", share.id);
            None
        }
    }
}

fn place(id: &str) -> SealedField<'_> {
    SealedField { table: "key_share", column: "sealed", row: id }
}
