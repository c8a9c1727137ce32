//! The keyring among replicas on PostgreSQL: a key is made by one of them, taken by all, and seals only then.
//!
//! Each key that was handed on has a row. *Offered*: every replica takes it, in its file and in force, and
//! says so in its own row; it opens, and nothing is sealed with it. *Active*: every replica whose word counts
//! had it, and the last active one seals. *Closed*: no write that was sealed with it is committed any more
//! ([`may_seal`]), by nobody, also not by one that was away: so what it sealed can be counted. *Retired*:
//! nothing is sealed with it, and replicas drop it after a look of their own.
//!
//! A replica looks at the rows before it proves its keyring at a start, once more after it said that it
//! lives (whoever waited for all of them either saw it, or it sees the key), when it is told, and now and
//! then. One that lacks a key which may have sealed something gets no lease. So a crash at any line leaves
//! every value readable by all, and whoever asks again goes on with the key that was offered.
//!
//! A new key lies in its row sealed with the one that sealed before, and no longer than it must: whoever had
//! that one and reads the database would get the new one. The rest of the row stays, so that a keyring which
//! lacks a key is recognised. SQLite has one process, and no rows here.

use std::{slice, time::Duration};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, FromQueryResult};
use tidings_actors::ports::{Signal, StoreError};
use tidings_entity::{
    id::ReplicaId,
    key_share,
    kind::KeyState::{Active, Closed, Offered, Retired},
};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::{
    OpenError, SqlStore,
    error::of_first_use,
    keys::{self, LOOK_MAX, refused},
    leases::{self, NOW},
    rows,
};
use crate::secrets::{HandedKey, Keyring, Place};

/// How long a rotation waits until every replica took the new key: longer than one that died is believed to
/// live by default, and than those behind a pooler take to look. Unit tests wait in vain on purpose.
const TAKE_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 20 });
/// How often it looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often it tells the others again, in looks: a notification may be lost.
const TELL_AGAIN: u32 = 10;
/// How long a key that seals is still handed to replicas that were away, in milliseconds.
const HANDED_FOR: i64 = 24 * 3600 * 1000;

/// What the rows ask of a keyring.
struct Steps {
    /// Keys that it lacks and can open.
    take: Vec<HandedKey>,
    /// The key that is to seal, where another one does.
    seal_with: Option<String>,
    /// Keys that it has and that are to go.
    retired: Vec<String>,
    /// Keys that it lacks, cannot open, and that may have sealed something.
    lacking: Vec<String>,
}

impl Steps {
    fn of(shares: &[key_share::Model], keyring: &Keyring) -> Result<Self, StoreError> {
        let mut ring = keyring.with(&[]).map_err(refused)?;
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
        keyring.follow(&self.take, self.seal_with.as_deref()).map_err(refused)?;
        for key in &self.take {
            info!("the key {} of another replica is in the keyring", key.id);
        }
        if let Some(id) = &self.seal_with {
            info!("the key {id} seals from now on");
        }
        Ok(())
    }
}

/// A replica whose word counts.
#[derive(FromQueryResult)]
struct Living {
    id: ReplicaId,
    name: String,
    keys: String,
}

/// What a replica says of its keyring: the key that seals first.
pub(super) fn said(keyring: &Keyring) -> String {
    let status = keyring.status();
    let others = status.keys.iter().filter(|id| **id != status.primary);
    std::iter::once(&status.primary).chain(others).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// At a start, before the keyring is proved: takes what was handed on while this one was away.
pub(super) async fn take_at_start(
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

/// The keyring as a start would have it, in memory; for whoever only looks.
pub(super) async fn foreseen(
    connection: &impl ConnectionTrait,
    keyring: &Keyring,
) -> Result<Keyring, OpenError> {
    let steps = Steps::of(&read(connection).await.map_err(of_first_use)?, keyring).map_err(of_first_use)?;
    match steps.lacking.first() {
        Some(id) => Err(OpenError::MissingKey(id.clone())),
        None => keyring.with(&steps.take).map_err(OpenError::WrongKey),
    }
}

/// Refuses what was sealed with a key that another replica closed meanwhile: nobody would look for it.
pub(super) async fn may_seal(transaction: &DatabaseTransaction, keyring: &Keyring) -> Result<(), StoreError> {
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

/// The first key that may have sealed something and that this keyring lacks.
pub(super) async fn lacking(
    connection: &impl ConnectionTrait,
    keyring: &Keyring,
) -> Result<Option<String>, StoreError> {
    let shares = read(connection).await?;
    let may_have_sealed = shares.into_iter().filter(|share| matches!(share.state, Active | Closed));
    Ok(may_have_sealed.map(|share| share.id).find(|id| !keyring.has(id)))
}

impl SqlStore {
    /// Whether several processes may share the database.
    pub(super) fn is_shared(&self) -> bool {
        self.address.file().is_none()
    }

    /// Does what the rows ask of this keyring, and says which keys it has.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also when it lacks a key and cannot take it.
    pub(super) async fn follow_keys(&self) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut steps = Steps::of(&read(&self.readers).await?, &self.context.keyring)?;
        if steps.changes_something() {
            // Between verbs: what one of them names and seals is of one key. And by what the rows say then.
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

    /// Drops a key that was retired, once this one finds nothing either that needs it.
    async fn drop_key(&self, id: String) -> Result<(), StoreError> {
        let count = self.sealed_with(&id, LOOK_MAX).await?;
        if count > 0 || self.context.keyring.status().primary == id {
            warn!("the key {id} was retired, but stays here: it seals {count} values");
            return Ok(());
        }
        let drop = self.writer.question(|_transaction, context| {
            Box::pin(async move { context.keyring.retire(&id).map_err(refused).map(|()| id) })
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

    /// Wipes keys out of their rows that nobody needs from there any more.
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

    /// A rotation with replicas: offers a key, waits until all have it, then it seals.
    pub(super) async fn rotate_among_replicas(&self) -> Result<String, StoreError> {
        self.follow_keys().await?;
        let id = self.offer_key().await?;
        self.follow_keys().await?;
        self.wait_until_taken(&id).await?;
        let (key, by) = (id.clone(), self.speaker());
        let activate = self.writer.verb(move |transaction, _context| {
            Box::pin(async move {
                // One may have begun to live meanwhile, and looks itself; one that was there is waited for.
                if let Some(other) = without(transaction, &key).await?.first() {
                    return Err(not_taken(&key, other));
                }
                let text = format!(
                    "update key_share set state = 'active', active_at = {NOW} where id = $1 and state = 'offered'"
                );
                rows::execute(transaction, "key_share", &text, vec![key.into()]).await?;
                leases::notify(transaction, &by, Signal::Keys).await
            })
        });
        activate.await?;
        if let Err(reason) = self.follow_keys().await {
            warn!("the key {id} does not seal here yet: {reason}");
        }
        Ok(id)
    }

    /// The key that is offered, which is made where there is none; its id.
    async fn offer_key(&self) -> Result<String, StoreError> {
        let (by, is_replica) = (self.speaker(), self.mine().is_some());
        let offer = self.writer.question(move |transaction, context| {
            Box::pin(async move {
                let shares = read(transaction).await?;
                if let Some(offered) = shares.iter().find(|share| share.state == Offered) {
                    return Ok(offered.id.clone());
                }
                let key = HandedKey::generate(&*context.random);
                // Without a server, and nobody lives: then it goes into this keyring alone, and no
                // key that was there before opens the way to it.
                let sealed = if is_replica || !living(transaction).await?.is_empty() {
                    Some(context.keyring.seal(&place(&key.id), &key.key, &*context.random))
                } else {
                    context.keyring.follow(slice::from_ref(&key), None).map_err(refused)?;
                    None
                };
                let number = shares.last().map_or(1, |share| share.number + 1);
                let text = format!(
                    "insert into key_share (id, number, state, sealed, offered_at) values ($1, $2, $3, $4, {NOW})"
                );
                let values = vec![key.id.clone().into(), number.into(), Offered.into(), sealed.into()];
                rows::execute(transaction, "key_share", &text, values).await?;
                leases::notify(transaction, &by, Signal::Keys).await?;
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
                    Box::pin(async move { leases::notify(transaction, &by, Signal::Keys).await })
                });
                tell.await?;
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Retires a key with replicas: nobody may seal with it, then nothing is sealed with it, then all drop it.
    pub(super) async fn retire_among_replicas(&self, id: &str) -> Result<(), StoreError> {
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
                // What it opens goes with it, or it would open the way to a key that seals.
                let text = "update key_share set sealed = null where id = $1
                            or encode(substr(sealed, 2, 4), 'hex') = $1";
                rows::execute(transaction, "key_share", text, vec![key.into()]).await?;
                leases::notify(transaction, &by, Signal::Keys).await
            })
        });
        retire.await?;
        if let Err(reason) = self.follow_keys().await {
            warn!("the key {id} was retired and is still in the keyring here: {reason}");
        }
        Ok(())
    }

    /// Under which name the others are told.
    fn speaker(&self) -> ReplicaId {
        let own = || ReplicaId::new(self.context.random.ulid(self.context.clock.now()));
        self.mine().unwrap_or_else(own)
    }
}

/// Closes a key, unless a replica whose word counts may still seal with it.
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
    // Keys of before the first that was handed on have no row yet, and come before all others.
    let number = shares.first().map_or(0, |share| share.number - 1);
    let text = format!(
        "insert into key_share (id, number, state, offered_at) values ($1, $2, 'closed', {NOW})
         on conflict (id) do update set state = 'closed'"
    );
    rows::execute(transaction, "key_share", &text, vec![id.into(), number.into()]).await.map(drop)
}

/// Every row, in the order in which keys came.
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

fn place(id: &str) -> Place<'_> {
    Place { table: "key_share", column: "sealed", row: id }
}
