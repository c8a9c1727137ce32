//! What a backup holds and what a restore refuses. The story of a server that goes on meanwhile is
//! told in tests/it/backups.rs.

use std::{fs, path::Path, sync::Arc};

use tidings_actors::{
    model::secret::Secret,
    ports::{Clock, UpkeepStore},
    testing::SeededRandom,
    time::Timestamp,
};

use super::{
    restore::{Restoration, STEPS, Step},
    *,
};
use crate::{
    app::{
        Claim,
        unfinished::{State, Unfinished},
    },
    machine::{MachineClock, MachineRandom},
    secrets::Keyring,
    settings::Settings,
    store::SqlStore,
};

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
    take(settings, to, form, &MachineClock, &SeededRandom::new(4), &|_| {}).await
}

async fn restored(settings: &Settings, from: &Path, keyring: &KeyringFrom) -> Result<Restored, BackupError> {
    restore(settings, from, keyring, &MachineClock, &MachineRandom, &|_| {}).await
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
        let done = restored(&new, &to, &from).await.expect("restored");
        assert_eq!(done.manifest, manifest);
        let read = |settings: &Settings| fs::read(settings.data_dir.join("keyring")).expect("a keyring");
        assert_eq!(read(&old), read(&new), "{name}");
        let keyring = Keyring::open(&new.data_dir.join("keyring")).expect("private and whole");
        let random = Arc::new(SeededRandom::new(5));
        let store =
            SqlStore::open(&new.database_url(), Arc::new(keyring), Arc::new(MachineClock), random).await;
        store.expect("it starts").close().await;
        let used = restored(&new, &to, &from).await;
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

    let wrong = restored(&new, &to, &with_passphrase("correct horse batterz")).await;
    assert!(matches!(wrong, Err(BackupError::Export(_))), "{wrong:?}");
    let none = restored(&new, &to, &KeyringFrom::default()).await;
    assert!(matches!(none, Err(BackupError::Keyring(_))), "{none:?}");
    let both = KeyringFrom { file: Some(old.data_dir.join("keyring")), ..with_passphrase(PASSPHRASE) };
    let both = restored(&new, &to, &both).await;
    assert!(matches!(both, Err(BackupError::Keyring(_))), "{both:?}");
    let early = At(Timestamp(manifest.taken_at - 90_000));
    let early = restore(&new, &to, &right, &early, &MachineRandom, &|_| {}).await;
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
            let refused = restored(&new, &to, &right).await;
            assert!(refused.is_err(), "{name}: {refused:?}");
        }
        fs::write(&path, good).expect("written");
    }
    let elsewhere = fs::read_to_string(to.join("manifest.json")).expect("a manifest");
    fs::write(to.join("manifest.json"), elsewhere.replace("database.sqlite", "../data/tidings.db"))
        .expect("written");
    let refused = restored(&new, &to, &right).await;
    assert!(matches!(refused, Err(BackupError::Damaged(_))), "{refused:?}");
    fs::write(to.join("manifest.json"), &elsewhere).expect("written");
    assert!(!new.data_dir.exists(), "nothing was begun");

    fs::create_dir(&new.data_dir).expect("a folder");
    fs::write(new.data_dir.join("something"), "mine").expect("written");
    let used = restored(&new, &to, &right).await;
    assert!(matches!(&used, Err(BackupError::Used { found, .. }) if found == "something"), "{used:?}");
    fs::remove_file(new.data_dir.join("something")).expect("removed");
    // What a crash in the middle leaves, and what an empty volume may hold.
    fs::create_dir(new.data_dir.join(".restore")).expect("a folder");
    fs::write(new.data_dir.join(".restore/database.sqlite"), "half").expect("written");
    fs::create_dir(new.data_dir.join("lost+found")).expect("a folder");
    restored(&new, &to, &right).await.expect("restored");
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
    let refused = restored(&new, &to, &from).await;
    assert!(matches!(refused, Err(BackupError::MissingKey(_))), "{refused:?}");
    assert!(!new.data_dir.exists());
}

/// What lies in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// What a kill within a step leaves, beside what one between two steps does.
fn half(step: Option<&Step>, data_dir: &Path) {
    match step {
        Some(Step::Copy) => fs::write(data_dir.join(".restore/database.sqlite"), "half").expect("written"),
        Some(Step::Mark) => fs::write(data_dir.join(".restore/manifest.json"), "{").expect("written"),
        Some(Step::Keyring) => fs::write(data_dir.join("keyring.new"), "half").expect("written"),
        Some(Step::Database) => fs::write(data_dir.join("tidings.restoring"), "half").expect("written"),
        _ => {}
    }
}

#[tokio::test]
async fn a_restore_that_is_cut_off_anywhere_is_refused_by_a_start_and_finished_by_the_next_try() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = house(folder.path()).await;
    let to = folder.path().join("backup");
    taken(&old, &to, &sealed()).await.expect("taken");
    let right = with_passphrase(PASSPHRASE);
    for is_half in [false, true] {
        for cut in 1..=STEPS.len() {
            let new = settings(&folder.path().join(format!("cut-{cut}-{is_half}")));
            let restoration = Restoration::check(&new, &to, &right, &MachineClock).expect("may be done");
            for step in &STEPS[..cut] {
                restoration.run(*step, &MachineClock, &MachineRandom).await.expect("done");
            }
            drop(restoration);
            if is_half {
                half(STEPS.get(cut), &new.data_dir);
            }
            let state = Unfinished::of(&new).map(|unfinished| unfinished.state);
            let expected = match STEPS[cut - 1] {
                Step::Stage => Some(State::Copying),
                Step::Copy if is_half => Some(State::Placing),
                Step::Copy => Some(State::Copying),
                Step::Mark | Step::Keyring => Some(State::Placing),
                Step::Database | Step::Sweep => Some(State::Placed),
                Step::Unstage => None,
            };
            assert_eq!(state, expected, "after {:?}", STEPS[cut - 1]);
            let claimed = Claim::take(&new).map(drop);
            assert_eq!(claimed.is_err(), state.is_some(), "after {:?}: {claimed:?}", STEPS[cut - 1]);

            let again = restored(&new, &to, &right).await;
            if state.is_some() {
                again.expect("the same again");
            } else {
                assert!(matches!(again, Err(BackupError::Exists(_))), "it was done: {again:?}");
            }
            assert_eq!(
                names(&new.data_dir),
                ["keyring", "lock", "served", "tidings.db", "tidings.db.lock"],
                "after {:?}",
                STEPS[cut - 1]
            );
            let keyring = Keyring::open(&new.data_dir.join("keyring")).expect("private and whole");
            let random = Arc::new(SeededRandom::new(5));
            let store =
                SqlStore::open(&new.database_url(), Arc::new(keyring), Arc::new(MachineClock), random).await;
            store.expect("it starts").close().await;
        }
    }
}

/// A folder on another disk than the temporary ones; none where this machine has no such place.
fn elsewhere(here: &Path) -> Option<tempfile::TempDir> {
    use std::os::unix::fs::MetadataExt;
    let disk = |path: &Path| fs::metadata(path).map(|facts| facts.dev()).ok();
    let there = tempfile::tempdir_in("/dev/shm").ok().filter(|there| disk(there.path()) != disk(here));
    if there.is_none() {
        println!("skipped: /dev/shm is no other disk");
    }
    there
}

#[tokio::test]
async fn a_restore_onto_another_disk_that_is_cut_off_says_how_far_it_came() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(other) = elsewhere(folder.path()) else { return };
    let old = house(folder.path()).await;
    let to = folder.path().join("backup");
    taken(&old, &to, &sealed()).await.expect("taken");
    let right = with_passphrase(PASSPHRASE);
    for cut in 1..=STEPS.len() {
        let mut new = settings(&folder.path().join(format!("cut-{cut}")));
        let database = other.path().join(format!("cut-{cut}.db"));
        new.database.url = Some(Secret::new(format!("sqlite://{}", database.display())));
        let restoration = Restoration::check(&new, &to, &right, &MachineClock).expect("may be done");
        for step in &STEPS[..cut] {
            restoration.run(*step, &MachineClock, &MachineRandom).await.expect("done");
        }
        drop(restoration);
        let state = Unfinished::of(&new).map(|unfinished| unfinished.state);
        let expected = match STEPS[cut - 1] {
            Step::Stage | Step::Copy => Some(State::Copying),
            Step::Mark | Step::Keyring => Some(State::Placing),
            Step::Database | Step::Sweep => Some(State::Placed),
            Step::Unstage => None,
        };
        assert_eq!(state, expected, "after {:?}", STEPS[cut - 1]);
        let again = restored(&new, &to, &right).await;
        assert_eq!(again.is_ok(), state.is_some(), "after {:?}: {again:?}", STEPS[cut - 1]);
        assert!(database.exists() && !database.with_extension("restoring").exists());
        assert_eq!(names(&new.data_dir), ["keyring", "lock", "served"], "after {:?}", STEPS[cut - 1]);
    }
}

#[tokio::test]
async fn what_a_restore_leaves_that_is_cut_off_at_its_very_end_is_swept_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = house(folder.path()).await;
    let to = folder.path().join("backup");
    taken(&old, &to, &sealed()).await.expect("taken");
    let new = settings(&folder.path().join("new"));
    let left = new.data_dir.join(".restored");
    fs::create_dir_all(&left).expect("a folder");
    fs::write(left.join("manifest.json"), "{}").expect("written");
    restored(&new, &to, &with_passphrase(PASSPHRASE)).await.expect("it is not in the way");
    assert!(!left.exists());

    fs::create_dir(&left).expect("a folder");
    fs::write(left.join("manifest.json"), "{}").expect("written");
    drop(Claim::take(&new).expect("a start"));
    assert!(!left.exists(), "a start sweeps it");
    fs::create_dir(&left).expect("a folder");
    fs::write(left.join("mine"), "mine").expect("written");
    drop(Claim::take(&new).expect("a start"));
    assert_eq!(names(&left), ["mine"], "what no restore made stays");
    let other = settings(&folder.path().join("other"));
    fs::create_dir_all(&other.data_dir).expect("a folder");
    fs::rename(&left, other.data_dir.join(".restored")).expect("moved");
    let refused = restored(&other, &to, &with_passphrase(PASSPHRASE)).await;
    assert!(matches!(&refused, Err(BackupError::Used { found, .. }) if found == ".restored"), "{refused:?}");
}

#[tokio::test]
async fn a_restore_that_was_cut_off_takes_nothing_that_is_not_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = house(folder.path()).await;
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    taken(&old, &one, &sealed()).await.expect("taken");
    let later = At(Timestamp(MachineClock.now().0 - 1_000));
    take(&old, &other, &sealed(), &later, &SeededRandom::new(4), &|_| {}).await.expect("taken");
    let right = with_passphrase(PASSPHRASE);
    let begun = async |name: &str, steps: usize| {
        let new = settings(&folder.path().join(name));
        let restoration = Restoration::check(&new, &one, &right, &MachineClock).expect("may be done");
        for step in &STEPS[..steps] {
            restoration.run(*step, &MachineClock, &MachineRandom).await.expect("done");
        }
        new
    };
    let new = begun("another-backup", 5).await;
    let refused = restored(&new, &other, &right).await;
    assert!(matches!(refused, Err(BackupError::OtherBackup(_))), "{refused:?}");
    let new = begun("another-backup-before-it-was-placed", 4).await;
    restored(&new, &other, &right).await.expect("begun again");

    let new = begun("a-keyring", 3).await;
    Keyring::create(&new.data_dir.join("keyring"), &SeededRandom::new(8)).expect("made");
    let refused = restored(&new, &one, &right).await;
    assert!(matches!(&refused, Err(BackupError::Used { found, .. }) if found == "keyring"), "{refused:?}");
    let new = begun("a-database", 3).await;
    fs::write(new.data_dir.join("tidings.db"), "mine").expect("written");
    let refused = restored(&new, &one, &right).await;
    assert!(matches!(refused, Err(BackupError::Exists(_))), "{refused:?}");
    assert_eq!(fs::read(new.data_dir.join("tidings.db")).expect("there"), b"mine");
}

#[tokio::test]
async fn of_two_backups_to_one_name_the_second_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = house(folder.path()).await;
    let (to, aside) = (folder.path().join("backup"), folder.path().join("backup.partial"));
    fs::create_dir(&aside).expect("a folder");
    let first = fs::File::open(&aside).expect("open");
    first.lock().expect("the lock that a filler takes");
    fs::write(aside.join("database.sqlite"), "half").expect("written");
    let refused = taken(&old, &to, &sealed()).await;
    assert!(matches!(refused, Err(BackupError::Busy(_))), "{refused:?}");
    assert_eq!(names(&aside), ["database.sqlite"], "what the first one made is there");
    drop(first);
    // It was killed: what it left is no backup, but what somebody else put there stays.
    fs::write(aside.join("notes"), "mine").expect("written");
    let refused = taken(&old, &to, &sealed()).await;
    assert!(matches!(refused, Err(BackupError::Exists(_))), "{refused:?}");
    fs::remove_file(aside.join("notes")).expect("removed");
    taken(&old, &to, &sealed()).await.expect("taken");
    assert!(!aside.exists());
}
