//! The keyring among replicas, each with a store and a keyring of its own on one PostgreSQL database.

use std::{fs, time::Duration};

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tidings_actors::ports::{AppStore, Leases, Replica, SealingKeys, StoreError};
use tidings_entity::id::ReplicaId;
use ulid::Ulid;

use super::{SqlStore, home::Home, leases::replica, new_app, number, watch};
use crate::{
    OpenError,
    database::connect::{self, Share},
};

const LIFE: Duration = Duration::from_secs(60);

/// A replica: its store and its leases.
struct House {
    store: SqlStore,
    leases: crate::leases::SqlLeases,
    replica: Replica,
}

impl House {
    /// It starts with the keyring in this file, says that it lives, and looks once more, as a process does.
    async fn open(home: &Home, keyring: &str, seed: u64) -> Result<Self, OpenError> {
        let store = home.open_as(keyring, seed).await?;
        let id = ReplicaId::new(Ulid::from_parts(9, u128::from(seed)));
        let replica = Replica { id: id.clone(), ..replica(1) };
        let leases = store.leases(&id).expect("replicas");
        leases.renew(&replica, LIFE).await.expect("renewed");
        leases.take_keys().await.expect("taken");
        Ok(Self { store, leases, replica })
    }

    /// The id of the key that seals.
    fn primary(&self) -> String {
        self.store.context.keyring.status().primary
    }

    fn has(&self, key: &str) -> bool {
        self.store.context.keyring.has(key)
    }

    async fn take(&self) {
        self.leases.take_keys().await.expect("taken");
    }

    async fn rotate(&self) -> Result<String, StoreError> {
        self.store.rotate_key().await
    }

    /// It ends without a word.
    async fn die(self) {
        self.store.close().await;
    }
}

/// A database with a keyring for each of two replicas.
async fn home() -> Option<Home> {
    let home = Home::server().await?;
    home.open(99).await.expect("opened").close().await;
    for name in ["one", "two"] {
        fs::copy(home.path().join("keyring"), home.path().join(name)).expect("copied");
    }
    Some(home)
}

async fn count(home: &Home, text: &str) -> i64 {
    number(&home.raw().await, text).await
}

/// Keeps all who write waiting.
async fn hold(store: &SqlStore) -> DatabaseTransaction {
    let connection = connect::beside(&store.address).await.expect("connected");
    connection.begin(Share::Rebuilding).await.expect("nobody else writes")
}

/// Waits until somebody does that.
async fn until_somebody_waits(home: &Home) {
    let text = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                and database = (select oid from pg_database where datname = current_database())";
    until(home, text).await;
}

/// Waits until something is counted.
async fn until(home: &Home, text: &str) {
    let connection = home.raw().await;
    while number(&connection, text).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_key_seals_once_every_replica_that_lives_has_it_and_not_before() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let two = House::open(&home, "two", 2).await.expect("opened");
    let old = one.primary();
    let other = async {
        while count(&home, "select count(*) from key_share").await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(count(&home, "select count(*) from key_share where state = 'offered'").await, 1);
        assert_eq!((one.primary(), two.primary()), (old.clone(), old.clone()));
        one.store.create_app(&new_app(1)).await.expect("created");
        assert_eq!(count(&home, "select count(*) from app_key").await, 1);
        two.store.app(&new_app(1).id).await.expect("what is sealed meanwhile opens").expect("there");
        two.take().await;
        assert_eq!(two.primary(), old, "what is offered seals nothing");
    };
    let (new, ()) = tokio::join!(one.rotate(), other);
    let new = new.expect("rotated");
    assert_eq!((one.primary(), two.primary()), (new.clone(), old.clone()));

    // With two primary keys for a moment, either reads the other, and a credential is found again.
    one.store.create_app(&new_app(2)).await.expect("created");
    two.store.create_app(&new_app(3)).await.expect("created");
    assert_eq!(one.store.app(&new_app(3).id).await.expect("opens").expect("there").keys.len(), 1);
    assert_eq!(two.store.app(&new_app(2).id).await.expect("opens").expect("there").keys.len(), 1);
    for (index, store) in [&one.store, &two.store, &one.store].into_iter().enumerate() {
        watch(store, &new_app(2).id, index as u128, Some("a credential")).await;
        watch(store, &new_app(3).id, 10 + index as u128, Some("another")).await;
    }
    assert_eq!(count(&home, "select count(*) from credential").await, 2, "one of each app");

    // While one still seals with a key, it stays.
    while one.store.reseal(500).await.expect("sealed again").left > 0 {}
    let refused = one.store.retire_key(&old).await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict(why)) if why.contains(two.replica.id.as_str())),
        "{refused:?}"
    );
    two.take().await;
    assert_eq!(two.primary(), new);
    one.store.retire_key(&old).await.expect("retired");
    assert!(!one.has(&old) && two.has(&old));
    two.take().await;
    assert!(!two.has(&old));
    two.store.app(&new_app(2).id).await.expect("opens").expect("there");
    assert_eq!(count(&home, "select count(*) from key_share where sealed is not null").await, 0);
    let (one, two) = (&one.store.context.keyring, &two.store.context.keyring);
    for keys in [one.audit_keys(), two.audit_keys()] {
        assert!(keys.authenticate(&old, b"row").is_some(), "old rows of the audit log are checked as before");
    }
}

#[tokio::test]
async fn who_does_not_take_a_key_is_named_and_asking_again_goes_on_with_it() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let two = House::open(&home, "two", 2).await.expect("opened");
    let old = one.primary();
    let refused = one.rotate().await;
    let Err(StoreError::Conflict(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains(two.replica.id.as_str()) && why.contains(&two.replica.name), "{why}");
    assert_eq!((one.primary(), two.primary()), (old.clone(), old.clone()));
    assert_eq!(count(&home, "select count(*) from key_share where state = 'offered'").await, 1);
    let refused = one.store.retire_key(&one.store.context.keyring.status().keys[1]).await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("not at its end")),
        "{refused:?}"
    );

    // The replica that is asked goes on.
    two.take().await;
    let new = two.rotate().await.expect("rotated");
    assert!(why.contains(&new), "{why}");
    one.take().await;
    assert_eq!((one.primary(), two.primary()), (new.clone(), new));
    assert_eq!(count(&home, "select count(*) from key_share").await, 1);

    // One of an older version does not say which keys it has; one whose word is over is not waited for.
    one.store.tamper("update replica set keys = '' where name = 'host 1'").await;
    one.take().await;
    assert!(matches!(one.rotate().await, Err(StoreError::Conflict(_))));
    one.store.tamper(&format!("update replica set seen_at = 0 where id = '{}'", two.replica.id)).await;
    one.rotate().await.expect("rotated");
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_every_value_readable_and_a_start_takes_what_was_handed_on() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let two = House::open(&home, "two", 2).await.expect("opened");
    let old = one.primary();
    // Offered, and nobody took it: not even the one that made it.
    let refused = one.rotate().await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    let id = one.store.context.keyring.status().keys[1].clone();
    one.die().await;
    two.die().await;
    fs::copy(home.path().join("keyring"), home.path().join("one")).expect("as before");
    let one = House::open(&home, "one", 3).await.expect("opened");
    assert!(one.has(&id) && one.primary() == old);
    // Active, and the process ended before it sealed with it.
    one.store.tamper("update key_share set state = 'active', active_at = 0").await;
    assert_eq!(one.primary(), old);
    one.store.create_app(&new_app(1)).await.expect("created");
    one.die().await;
    let one = House::open(&home, "one", 4).await.expect("opened");
    assert_eq!(one.primary(), id);
    one.store.app(&new_app(1).id).await.expect("opens").expect("there");
    // What the other one needs to prove itself was sealed with a key that it never saw.
    one.store.create_app(&new_app(2)).await.expect("created");
    while one.store.reseal(500).await.expect("sealed again").left > 0 {}
    fs::copy(home.path().join("keyring"), home.path().join("two")).expect("as before");
    let two = House::open(&home, "two", 5).await.expect("opened");
    assert_eq!(two.primary(), id);
    for app in [1, 2] {
        two.store.app(&new_app(app).id).await.expect("opens").expect("there");
    }
    // Closed, and the process ended before it was retired: asked again, it is.
    one.store.tamper("delete from replica").await;
    one.take().await;
    one.store
        .tamper(&format!(
            "insert into key_share (id, number, state, offered_at) values ('{old}', 0, 'closed', 0)"
        ))
        .await;
    one.take().await;
    assert!(one.has(&old));
    one.store.retire_key(&old).await.expect("retired");
    // Retired, and the process ended before it dropped it.
    two.die().await;
    let two = House::open(&home, "two", 6).await.expect("opened");
    assert!(!two.has(&old) && two.primary() == id);
}

#[tokio::test]
async fn a_replica_that_was_away_writes_nothing_with_a_closed_key_and_gets_no_lease_without_the_new_one() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let two = House::open(&home, "two", 2).await.expect("opened");
    let old = one.primary();
    one.store.tamper(&format!("update replica set seen_at = 0 where id = '{}'", two.replica.id)).await;
    let new = one.rotate().await.expect("rotated: its word does not count");
    while one.store.reseal(500).await.expect("sealed again").left > 0 {}
    two.store.create_app(&new_app(1)).await.expect("the old key seals as long as it is there");
    let refused = one.store.retire_key(&old).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("still seals 1 values")));
    let refused = two.store.create_app(&new_app(2)).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains(&old)), "{refused:?}");
    while one.store.reseal(500).await.expect("sealed again").left > 0 {}
    one.store.retire_key(&old).await.expect("retired");

    let refused = two.leases.renew(&two.replica, LIFE).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains(&new)), "{refused:?}");
    assert!(two.store.create_app(&new_app(2)).await.is_err());
    two.die().await;
    let refused = House::open(&home, "two", 3).await.err().expect("refused");
    assert!(matches!(&refused, OpenError::MissingKey(id) if *id == new), "{refused}");
    fs::copy(home.path().join("one"), home.path().join("two")).expect("copied");
    let two = House::open(&home, "two", 4).await.expect("opened");
    two.store.app(&new_app(1).id).await.expect("opens").expect("there");
}

#[tokio::test]
async fn one_that_was_away_takes_the_key_with_its_next_lease() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let two = House::open(&home, "two", 2).await.expect("opened");
    one.store.tamper(&format!("update replica set seen_at = 0 where id = '{}'", two.replica.id)).await;
    let new = one.rotate().await.expect("rotated");
    assert!(!two.has(&new));
    two.leases.renew(&two.replica, LIFE).await.expect("renewed");
    assert_eq!(two.primary(), new);
}

#[tokio::test]
async fn what_hands_a_key_on_goes_when_nobody_needs_it() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    one.rotate().await.expect("rotated");
    let handed = "select count(*) from key_share where sealed is not null";
    one.take().await;
    assert_eq!(count(&home, handed).await, 1, "one that is stopped for a while finds it");
    one.store
        .tamper("insert into replica (id, name, version, works, started_at, seen_at, life_ms, keys)
                 select 'rpl_01ARZ3NDEKTSV4RRFFQ69G5FAV', 'away', '1', true, 1, seen_at - 3600000, 1, '' from replica")
        .await;
    one.store.tamper("update key_share set active_at = 0").await;
    one.take().await;
    assert_eq!(count(&home, handed).await, 1, "one that was seen an hour ago lacks it");
    one.store.tamper("update replica set seen_at = seen_at - 86400000 where name = 'away'").await;
    one.take().await;
    assert_eq!(count(&home, handed).await, 0);
    let refused = House::open(&home, "two", 2).await.err().expect("refused");
    assert!(matches!(refused, OpenError::MissingKey(_)), "{refused}");
}

#[tokio::test]
async fn without_a_server_a_new_key_stays_in_one_keyring() {
    let Some(home) = home().await else { return };
    let alone = home.open_as("one", 1).await.expect("opened");
    let new = alone.rotate_key().await.expect("rotated");
    assert_eq!(alone.context.keyring.status().primary, new);
    assert_eq!(
        count(&home, "select count(*) from key_share where sealed is null and state = 'active'").await,
        1
    );
    alone.create_app(&new_app(1)).await.expect("created");
    alone.close().await;
    let refused = House::open(&home, "two", 2).await.err().expect("refused");
    assert!(matches!(&refused, OpenError::MissingKey(id) if *id == new), "{refused}");

    // With a replica that lives it is handed on.
    fs::copy(home.path().join("one"), home.path().join("two")).expect("copied");
    let two = House::open(&home, "two", 3).await.expect("opened");
    let alone = home.open_as("one", 4).await.expect("opened");
    let take = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        two.take().await;
    };
    let (newer, ()) = tokio::join!(alone.rotate_key(), take);
    two.take().await;
    assert_eq!(two.primary(), newer.expect("rotated"));
}

#[tokio::test]
async fn who_has_a_file_to_itself_hands_nothing_on() {
    let home = Home::file();
    let store = home.open(1).await.expect("opened");
    let first = store.context.keyring.status().primary;
    store.rotate_key().await.expect("rotated");
    while store.reseal(500).await.expect("sealed again").left > 0 {}
    store.retire_key(&first).await.expect("retired");
    assert_eq!(count(&home, "select count(*) from key_share").await, 0);
}

#[tokio::test]
async fn who_begins_to_live_while_a_key_is_to_seal_holds_it_up() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let two = House::open(&home, "two", 2).await.expect("opened");
    let say = async |keys: &str| {
        let text = format!("update replica set keys = {keys} where id = '{}'", two.replica.id);
        home.raw().await.execute_unprepared(&text).await.expect("said");
    };
    let other = async {
        let has_it = format!(
            "select count(*) from key_share k join replica r on strpos(r.keys, k.id) > 0 where r.id = '{}'",
            one.replica.id
        );
        until(&home, &has_it).await;
        let held = hold(&one.store).await;
        say("(select id from key_share)").await;
        until_somebody_waits(&home).await;
        say("''").await;
        held.commit().await.expect("released");
    };
    let (refused, ()) = tokio::join!(one.rotate(), other);
    assert!(
        matches!(&refused, Err(StoreError::Conflict(why)) if why.contains(two.replica.id.as_str())),
        "{refused:?}"
    );
    assert_eq!(count(&home, "select count(*) from key_share where state = 'offered'").await, 1);
}

#[tokio::test]
async fn what_is_sealed_anew_with_a_key_that_is_closed_meanwhile_is_not_written() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    one.store.create_app(&new_app(1)).await.expect("created");
    let new = one.rotate().await.expect("rotated");
    let held = hold(&one.store).await;
    let close = async {
        until_somebody_waits(&home).await;
        held.execute_unprepared("update key_share set state = 'closed'").await.expect("closed");
        held.commit().await.expect("released");
    };
    let (refused, ()) = tokio::join!(one.store.reseal(500), close);
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains(&new)), "{refused:?}");
    assert_eq!(one.store.sealed_with(&new, 500).await.expect("counted"), 0, "nobody would look for it");
}

#[tokio::test]
async fn what_is_sealed_anew_with_a_key_that_seals_no_more_is_not_written() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    one.store.create_app(&new_app(1)).await.expect("created");
    let new = one.rotate().await.expect("rotated");
    let held = hold(&one.store).await;
    let rotate = async {
        until_somebody_waits(&home).await;
        let context = &one.store.context;
        context.keyring.rotate(&*context.random).expect("rotated");
        held.commit().await.expect("released");
    };
    let (step, ()) = tokio::join!(one.store.reseal(500), rotate);
    assert_eq!(step.expect("sealed again").left, 0);
    assert_eq!(one.store.sealed_with(&new, 500).await.expect("counted"), 0, "it may be retired by now");
    assert_eq!(one.store.sealed_with(&one.primary(), 500).await.expect("counted"), 2);
}

#[tokio::test]
async fn who_lacks_a_key_gets_no_lease_and_does_not_start_where_that_may_have_sealed_something() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let lacked = "ffffffff";
    for (seed, (state, is_needed)) in
        [("offered", false), ("active", true), ("closed", true), ("retired", false)].into_iter().enumerate()
    {
        one.store
            .tamper(&format!(
                "insert into key_share (id, number, state, offered_at) values ('{lacked}', 9, '{state}', 0)"
            ))
            .await;
        let renewed = one.leases.renew(&one.replica, LIFE).await;
        assert_eq!(renewed.is_err(), is_needed, "{state}: {renewed:?}");
        let started = home.open_as("two", 10 + seed as u64).await;
        let is_missing = matches!(&started, Err(OpenError::MissingKey(id)) if id == lacked);
        assert_eq!((started.is_err(), is_missing), (is_needed, is_needed), "{state}");
        one.store.tamper("delete from key_share").await;
    }
}

#[tokio::test]
async fn a_key_that_opens_one_which_is_offered_is_not_retired() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let first = one.primary();
    one.rotate().await.expect("rotated");
    while one.store.reseal(500).await.expect("sealed again").left > 0 {}
    // A replica that did not hear of the second one yet offered a third, and died.
    one.store
        .tamper(&format!(
            "insert into key_share (id, number, state, sealed, offered_at)
             values ('ffffffff', 9, 'offered', decode('01{first}00', 'hex'), 0)"
        ))
        .await;
    let refused = one.store.retire_key(&first).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("ffffffff")), "{refused:?}");
    one.store.tamper("delete from key_share where state = 'offered'").await;
    one.store.retire_key(&first).await.expect("retired");
}

#[tokio::test]
async fn a_key_that_was_retired_is_in_no_row_and_stays_where_something_needs_it() {
    let Some(home) = home().await else { return };
    let one = House::open(&home, "one", 1).await.expect("opened");
    let first = one.primary();
    one.store.create_app(&new_app(1)).await.expect("created");
    let second = one.rotate().await.expect("rotated");
    let third = one.rotate().await.expect("rotated");
    // As if somebody had not looked for what it seals.
    one.store
        .tamper(&format!(
            "insert into key_share (id, number, state, offered_at) values ('{first}', 0, 'retired', 0)"
        ))
        .await;
    one.take().await;
    assert!(one.has(&first), "it seals two values");
    while one.store.reseal(500).await.expect("sealed again").left > 0 {}
    assert_eq!(count(&home, "select count(*) from key_share where sealed is not null").await, 2);
    one.store.retire_key(&second).await.expect("retired");
    assert_eq!(
        count(&home, "select count(*) from key_share where sealed is not null").await,
        0,
        "neither itself nor what it opens"
    );
    one.take().await;
    assert!(!one.has(&first) && !one.has(&second) && one.primary() == third);
}
