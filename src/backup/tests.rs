//! What a backup holds and what a restore refuses. The story of a server that goes on meanwhile is
//! told in tests/it/backups.rs.

use std::{fs, path::Path, sync::Arc};

use tidings_actors::{
    ports::{Clock, Store},
    secret::Secret,
    testing::SeededRandom,
    time::Timestamp,
};

use super::*;
use crate::{machine::MachineClock, secrets::Keyring, settings::Settings, store::SqlStore};

const PASSPHRASE: &str = "correct horse battery";

struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn settings(data_dir: &Path) -> Settings {
    Settings { data_dir: data_dir.to_owned(), ..Settings::default() }
}

/// A data directory that was started once.
async fn house(folder: &Path) -> Settings {
    let settings = settings(&folder.join("data"));
    fs::create_dir_all(&settings.data_dir).expect("a data directory");
    let random = Arc::new(SeededRandom::new(3));
    let keyring = Keyring::create(&settings.data_dir.join("keyring"), &*random).expect("a keyring");
    let url = settings.database_url();
    let store = SqlStore::open(&url, Arc::new(keyring), Arc::new(MachineClock), random).await;
    let store = store.expect("a database");
    store.ping().await.expect("it answers");
    store.close().await;
    settings
}

async fn taken(settings: &Settings, to: &Path, form: &KeyringForm) -> Result<Manifest, BackupError> {
    take(settings, to, form, &MachineClock, &SeededRandom::new(4)).await
}

fn sealed() -> KeyringForm {
    KeyringForm::Sealed(Secret::new(PASSPHRASE.into()))
}

fn with_passphrase(text: &str) -> KeyringFrom {
    KeyringFrom { passphrase: Some(Secret::new(text.into())), file: None }
}

fn holds(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).expect("a folder").any(|entry| {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a file");
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test]
async fn a_backup_holds_no_key_unless_it_is_asked_for_and_comes_back_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = house(folder.path()).await;
    let key = fs::read_to_string(old.data_dir.join("keyring")).expect("a keyring");
    let key =
        key.split("\"key\": \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a key").to_owned();
    for (name, form, from, shows) in [
        ("sealed", sealed(), with_passphrase(PASSPHRASE), false),
        ("plain", KeyringForm::Plain, KeyringFrom::default(), true),
        (
            "without",
            KeyringForm::LeftOut,
            KeyringFrom { file: Some(old.data_dir.join("keyring")), passphrase: None },
            false,
        ),
    ] {
        let to = folder.path().join(name);
        let manifest = taken(&old, &to, &form).await.expect("taken");
        assert_eq!(holds(&to, key.as_bytes()), shows, "{name}");
        assert_eq!(manifest.keyring.is_some(), name != "without");
        assert!(!folder.path().join(format!("{name}.partial")).exists());
        let again = taken(&old, &to, &form).await;
        assert!(matches!(again, Err(BackupError::Exists(_))), "{name}: nothing is written over");

        let new = settings(&folder.path().join(format!("{name}-data")));
        let restored = restore(&new, &to, &from, &MachineClock).await.expect("restored");
        assert_eq!(restored.manifest, manifest);
        let read = |settings: &Settings| fs::read(settings.data_dir.join("keyring")).expect("a keyring");
        assert_eq!(read(&old), read(&new), "{name}");
        let keyring = Keyring::open(&new.data_dir.join("keyring")).expect("private and whole");
        let random = Arc::new(SeededRandom::new(5));
        let store =
            SqlStore::open(&new.database_url(), Arc::new(keyring), Arc::new(MachineClock), random).await;
        store.expect("it starts").close().await;
        let used = restore(&new, &to, &from, &MachineClock).await;
        assert!(matches!(used, Err(BackupError::Exists(_) | BackupError::Used { .. })), "{used:?}");
    }
}

#[tokio::test]
async fn what_is_not_whole_or_does_not_fit_is_refused_and_leaves_no_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = house(folder.path()).await;
    let to = folder.path().join("backup");
    let manifest = taken(&old, &to, &sealed()).await.expect("taken");
    let new = settings(&folder.path().join("new"));
    let right = with_passphrase(PASSPHRASE);

    let wrong = restore(&new, &to, &with_passphrase("correct horse batterz"), &MachineClock).await;
    assert!(matches!(wrong, Err(BackupError::Export(_))), "{wrong:?}");
    let none = restore(&new, &to, &KeyringFrom::default(), &MachineClock).await;
    assert!(matches!(none, Err(BackupError::Keyring(_))), "{none:?}");
    let both = KeyringFrom { file: Some(old.data_dir.join("keyring")), ..with_passphrase(PASSPHRASE) };
    let both = restore(&new, &to, &both, &MachineClock).await;
    assert!(matches!(both, Err(BackupError::Keyring(_))), "{both:?}");
    let early = At(Timestamp(manifest.taken_at - 90_000));
    let early = restore(&new, &to, &right, &early).await;
    assert!(matches!(early, Err(BackupError::Clock(90_000))), "{early:?}");

    for name in ["database.sqlite", "keyring.sealed", "manifest.json"] {
        let path = to.join(name);
        let good = fs::read(&path).expect("a file");
        let mut changes = vec![good[..good.len() / 2].to_vec(), Vec::new()];
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        changes.push(flipped);
        for bad in changes {
            fs::write(&path, bad).expect("written");
            let refused = restore(&new, &to, &right, &MachineClock).await;
            assert!(refused.is_err(), "{name}: {refused:?}");
        }
        fs::write(&path, good).expect("written");
    }
    let elsewhere = fs::read_to_string(to.join("manifest.json")).expect("a manifest");
    fs::write(to.join("manifest.json"), elsewhere.replace("database.sqlite", "../data/tidings.db"))
        .expect("written");
    let refused = restore(&new, &to, &right, &MachineClock).await;
    assert!(matches!(refused, Err(BackupError::Damaged(_))), "{refused:?}");
    fs::write(to.join("manifest.json"), &elsewhere).expect("written");
    assert!(!new.data_dir.exists(), "nothing was begun");

    fs::create_dir(&new.data_dir).expect("a folder");
    fs::write(new.data_dir.join("something"), "mine").expect("written");
    let used = restore(&new, &to, &right, &MachineClock).await;
    assert!(matches!(&used, Err(BackupError::Used { found, .. }) if found == "something"), "{used:?}");
    fs::remove_file(new.data_dir.join("something")).expect("removed");
    // What a crash in the middle leaves, and what an empty volume may hold.
    fs::create_dir(new.data_dir.join(".restore")).expect("a folder");
    fs::write(new.data_dir.join(".restore/database.sqlite"), "half").expect("written");
    fs::create_dir(new.data_dir.join("lost+found")).expect("a folder");
    restore(&new, &to, &right, &MachineClock).await.expect("restored");
    assert!(!new.data_dir.join(".restore").exists());
}

#[tokio::test]
async fn another_keyring_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = house(folder.path()).await;
    let to = folder.path().join("backup");
    taken(&old, &to, &KeyringForm::LeftOut).await.expect("taken");
    let other = folder.path().join("other");
    Keyring::create(&other, &SeededRandom::new(77)).expect("made");
    let new = settings(&folder.path().join("new"));
    let from = KeyringFrom { file: Some(other), passphrase: None };
    let refused = restore(&new, &to, &from, &MachineClock).await;
    assert!(matches!(refused, Err(BackupError::MissingKey(_))), "{refused:?}");
    assert!(!new.data_dir.exists());
}
