//! What a start demands of database and keyring, and what a refused one leaves behind.

use std::{fs, path::Path, sync::Arc};

use tidings_actors::{
    testing::{ManualClock, SeededRandom},
    time::Timestamp,
};
use tidings_secrets::{Keyring, SecretsError};

use super::home::{Home, on_both};
use crate::{OpenError, SqlStore, StartRules, database::schema};

/// A start by these rules.
async fn start(home: &Home, keyring: Keyring, refuses_new: bool) -> Result<(), OpenError> {
    let (clock, random) = (Arc::new(ManualClock::new(Timestamp(3000))), Arc::new(SeededRandom::new(9)));
    let rules = StartRules { refuses_new, ..StartRules::default() };
    let store = SqlStore::open_at_start(rules, home.url(), Arc::new(keyring), clock, random).await?;
    store.close().await;
    Ok(())
}

fn made(path: &Path, seed: u64) -> Keyring {
    Keyring::generate(&SeededRandom::new(seed)).destined_for(path)
}

async fn a_database_that_no_server_has_used_is_refused_where_another_one_is_expected(home: Home) {
    let path = home.path().join("keyring");
    let refused = start(&home, made(&path, 1), true).await;
    assert!(matches!(refused, Err(OpenError::NotTheSame { .. })), "{refused:?}");
    schema::up(home.url()).await.expect("up");
    let refused = start(&home, made(&path, 1), true).await;
    assert!(matches!(refused, Err(OpenError::NotTheSame { .. })), "its tables alone make it no used one");
    assert!(!path.exists(), "no keyring was made for it");
    start(&home, made(&path, 1), false).await.expect("again");
    start(&home, Keyring::open(&path).expect("kept"), true).await.expect("it is the one now");
}

#[tokio::test]
async fn a_refused_start_makes_no_file() {
    let home = Home::file();
    let refused = start(&home, made(&home.path().join("keyring"), 1), true).await;
    assert!(matches!(refused, Err(OpenError::NotTheSame { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(home.path()).expect("a folder").count(), 0);
}

async fn a_start_that_lacks_the_keyring_leaves_no_wrong_one_behind(home: Home) {
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    start(&home, made(&first, 1), false).await.expect("a house");
    let refused = start(&home, made(&second, 2), false).await;
    let Err(OpenError::NoKeyring(reason)) = &refused else { panic!("{refused:?}") };
    assert!(matches!(**reason, OpenError::WrongKey(SecretsError::UnknownKey(_))), "{reason:?}");
    let stranger = home.path().join("stranger");
    Keyring::create(&stranger, &SeededRandom::new(3)).expect("made");
    let given = |path: &Path| Keyring::open_given(path).expect("a keyring").destined_for(&second);
    let refused = start(&home, given(&stranger), false).await;
    assert!(matches!(refused, Err(OpenError::NoKeyring(_))), "one that was given is judged as well");
    assert!(!second.exists() && !home.path().join("second.new").exists());
    start(&home, given(&first), false).await.expect("the right one");
    assert_eq!(fs::read(&second).expect("kept"), fs::read(&first).expect("there"));
}

on_both! {
    a_database_that_no_server_has_used_is_refused_where_another_one_is_expected
    a_start_that_lacks_the_keyring_leaves_no_wrong_one_behind
}
