//! What must hold of keyring, envelope and tokens.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use data_encoding::BASE64;
use tidings_actors::{model::secret::Secret, ports::Random, testing::SeededRandom};
use tidings_entity::id::AppId;
use ulid::Ulid;

use crate::{
    HandedKey, Keyring, SealedField, SecretsError, Token, generate_signing_key, shown_signing_secret,
};

fn place(row: &str) -> SealedField<'_> {
    SealedField { table: "credential", column: "secret", row }
}

#[test]
fn a_sealed_secret_opens_in_its_own_place_only() {
    let folder = tempfile::tempdir().expect("folder");
    let random = SeededRandom::new(1);
    let keyring = Keyring::create(&folder.path().join("keyring"), &random).expect("created");
    let secret = Secret::new("hunter2".into());
    let sealed = keyring.seal(&place("a"), &secret, &random);
    assert_eq!(keyring.open_sealed(&place("a"), &sealed).expect("opens").expose(), "hunter2");
    let wrong = [
        place("b"),
        SealedField { table: "app_key", ..place("a") },
        SealedField { column: "other", ..place("a") },
    ];
    for wrong in wrong {
        assert!(matches!(keyring.open_sealed(&wrong, &sealed), Err(SecretsError::DoesNotOpen)), "{wrong:?}");
    }
    for index in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[index] ^= 1;
        assert!(keyring.open_sealed(&place("a"), &damaged).is_err(), "byte {index}");
        assert!(keyring.open_sealed(&place("a"), &sealed[..index]).is_err(), "cut at {index}");
    }
    assert_ne!(sealed, keyring.seal(&place("a"), &secret, &random), "a fresh nonce each time");
    assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
}

#[test]
fn a_rotated_keyring_opens_what_the_old_key_sealed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyring");
    let random = SeededRandom::new(2);
    let keyring = Keyring::create(&path, &random).expect("created");
    let app = AppId::new(Ulid::from_parts(1, 1));
    let secret = Secret::new("old".into());
    let sealed = keyring.seal(&place("a"), &secret, &random);
    let fingerprint = keyring.fingerprints(&app, &secret).remove(0);
    fs::write(folder.path().join("keyring.new"), "half a file").expect("what a crash left");
    keyring.rotate(&random).expect("rotated");
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "nothing is left beside it");
    let again = Keyring::open(&path).expect("opened");
    assert_eq!(again.status(), keyring.status());
    assert_eq!(again.status().keys.len(), 2);
    assert_eq!(again.open_sealed(&place("a"), &sealed).expect("opens").expose(), "old");
    let fingerprints = again.fingerprints(&app, &secret);
    assert_eq!((fingerprints.len(), &fingerprints[1]), (2, &fingerprint), "the old one is looked for last");
    assert_ne!(fingerprints[0], fingerprint, "the new key makes the next one");
    assert_ne!(again.seal(&place("a"), &secret, &random)[1..5], sealed[1..5], "the new key seals");
    let other = AppId::new(Ulid::from_parts(1, 2));
    assert!(!again.fingerprints(&other, &secret).contains(&fingerprint), "apps cannot compare");
    let stranger = Keyring::create(&folder.path().join("other"), &random).expect("created");
    assert!(matches!(stranger.open_sealed(&place("a"), &sealed), Err(SecretsError::UnknownKey(_))));
}

#[test]
fn a_keyring_that_is_open_to_others_or_weak_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyring");
    let random = SeededRandom::new(3);
    assert!(matches!(Keyring::open(&path), Err(SecretsError::File { .. })), "missing");
    Keyring::create(&path, &random).expect("created");
    assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
    assert!(Keyring::create(&path, &random).is_err(), "never overwritten");
    let good = fs::read_to_string(&path).expect("text");
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        assert!(matches!(Keyring::open(&path), Err(SecretsError::Permissions { .. })), "{mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
    let value: serde_json::Value = serde_json::from_str(&good).expect("json");
    let key = value["keys"][0]["key"].as_str().expect("key").to_owned();
    let zero = format!("{}=", "A".repeat(43));
    let of = |bytes: [u8; 32]| BASE64.encode(&bytes);
    let typed: [u8; 32] = "0123456789abcdef".repeat(2).into_bytes().try_into().expect("32 bytes");
    let counting = |step: u8| std::array::from_fn(|index| 7_u8.wrapping_add(step.wrapping_mul(index as u8)));
    let period = |length: usize| std::array::from_fn(|index| (index % length) as u8 * 13);
    let bad = [
        good.replace(&key, &of(typed)),
        good.replace(&key, &of(counting(1))),
        good.replace(&key, &of(counting(255))),
        good.replace(&key, &of(period(8))),
        good.replace(&key, &of(period(15))),
        String::new(),
        "garbage".into(),
        good[..good.len() / 2].into(),
        good.replace(&key, &zero),
        good.replace(&key, "AAAA"),
        good.replace(&key, "not base64!"),
        good.replace("\"version\": 1", "\"version\": 2"),
        r#"{"version":1,"primary":"00000000","keys":[]}"#.into(),
    ];
    for text in bad {
        fs::write(&path, &text).expect("written");
        assert!(matches!(Keyring::open(&path), Err(SecretsError::Invalid { .. })), "{text}");
    }
    fs::write(&path, good).expect("written");
    Keyring::open(&path).expect("the good one still opens");
}

#[test]
fn a_keyring_that_is_made_in_memory_is_a_file_once_it_is_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyring");
    let random = SeededRandom::new(8);
    let keyring = Keyring::generate(&random).destined_for(&path);
    assert!(!keyring.is_kept() && !path.exists());
    keyring.keep().expect("kept");
    keyring.keep().expect("it is already");
    assert!(keyring.is_kept());
    assert_eq!(Keyring::open(&path).expect("opened").status(), keyring.status());
    let other = Keyring::generate(&random).destined_for(&path);
    assert!(matches!(other.keep(), Err(SecretsError::File { .. })), "never overwritten");
    assert!(!other.is_kept());
}

#[test]
fn a_key_that_is_handed_on_opens_before_it_seals() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyring");
    let random = SeededRandom::new(6);
    let keyring = Keyring::create(&path, &random).expect("created");
    let first = keyring.status().primary;
    let key = HandedKey::generate(&random);
    let (id, text) = (key.id.clone(), key.key.clone());
    let other = keyring.with(&[key]).expect("in memory");
    assert!(other.has(&id) && !keyring.has(&id));
    let again = HandedKey { id: id.clone(), key: text };
    keyring.follow(&[again], None).expect("taken");
    assert_eq!(Keyring::open(&path).expect("opened").status(), keyring.status());
    assert_eq!((keyring.status().primary, keyring.status().keys), (first.clone(), vec![first, id.clone()]));
    keyring.follow(&[], Some(&id)).expect("it seals");
    assert_eq!(Keyring::open(&path).expect("opened").status().primary, id);
    assert!(matches!(keyring.follow(&[], Some("00000000")), Err(SecretsError::UnknownKey(_))));
    for weak in ["", "AAAA", &format!("{}=", "A".repeat(43))] {
        let weak = HandedKey { id: "00000000".into(), key: Secret::new(weak.into()) };
        assert!(matches!(keyring.follow(&[weak], None), Err(SecretsError::Handed(_))));
    }
    let before = keyring.sealings();
    drop(keyring.seal(&place("a"), &Secret::new("text".into()), &random));
    assert_eq!(keyring.sealings(), before + 1);
}

#[test]
fn a_token_is_read_back_and_a_typing_error_is_caught() {
    let random = SeededRandom::new(4);
    let token = Token::generate("tdg", &random);
    let text = token.text().expose();
    assert_eq!(text.len(), 3 + 1 + 8 + 1 + 43 + 1 + 6);
    let read = Token::parse("tdg", text).expect("valid");
    assert_eq!(read.public_id(), token.public_id());
    assert!(read.matches(&token.hash()));
    assert!(!read.matches(&Token::generate("tdg", &random).hash()));
    for index in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[index] = if bytes[index] == b'x' { b'y' } else { b'x' };
        let typo = String::from_utf8(bytes).expect("ASCII");
        assert!(Token::parse("tdg", &typo).is_err(), "{typo}");
    }
    for bad in ["", "tdg", "tdg_", "tdg____", "tdg_a_b_c", &text[1..], &format!("{text}_"), "tdg_é_é_é"] {
        assert!(Token::parse("tdg", bad).is_err(), "{bad}");
    }
    assert!(Token::parse("adm", text).is_err());
}

#[test]
fn a_signing_key_is_shown_as_the_base64_of_its_text() {
    let shown = shown_signing_secret(&Secret::new("my-client-key".into()));
    assert_eq!(shown.expose(), "whsec_bXktY2xpZW50LWtleQ==");
    let random = SeededRandom::new(5);
    let key = generate_signing_key(&random);
    assert_eq!(key.expose().len(), 43);
    assert_ne!(key.expose(), generate_signing_key(&random).expose());
    assert!(!format!("{key:?}").contains(key.expose()));
}

#[test]
fn a_key_that_seals_is_not_retired_and_one_that_was_opens_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("keyring");
    let random = SeededRandom::new(5);
    let keyring = Keyring::create(&path, &random).expect("created");
    let first = keyring.status().primary;
    let sealed = keyring.seal(&place("a"), &Secret::new("old".into()), &random);
    assert!(matches!(keyring.retire(&first), Err(SecretsError::PrimaryKey)));
    assert!(matches!(keyring.retire("00000000"), Err(SecretsError::UnknownKey(_))));
    keyring.rotate(&random).expect("rotated");
    keyring.rotate(&random).expect("rotated");
    let before = keyring.status();
    keyring.retire(&first).expect("retired");
    let after = keyring.status();
    assert_eq!((&after.primary, &after.keys[..]), (&before.primary, &before.keys[1..]));
    assert_eq!(Keyring::open(&path).expect("opened").status(), after, "the file says the same");
    assert!(matches!(keyring.open_sealed(&place("a"), &sealed), Err(SecretsError::UnknownKey(_))));
    // A disk that takes nothing leaves the keyring in force as it is.
    fs::remove_dir_all(folder.path()).expect("removed");
    assert!(matches!(keyring.rotate(&random), Err(SecretsError::File { .. })));
    assert_eq!(keyring.status(), after);
}

/// Reads the keyring in another thread whenever it is asked for randomness.
struct Reading(Arc<Keyring>, SeededRandom);

impl Random for Reading {
    fn fill(&self, bytes: &mut [u8]) {
        let (sender, read) = mpsc::channel();
        let keyring = self.0.clone();
        thread::spawn(move || drop(sender.send(keyring.status())));
        read.recv_timeout(Duration::from_secs(20)).expect("nobody who reads waits for a change");
        self.1.fill(bytes);
    }
}

#[test]
fn who_seals_and_opens_does_not_wait_while_the_keyring_is_changed() {
    let folder = tempfile::tempdir().expect("folder");
    let keyring = Keyring::create(&folder.path().join("keyring"), &SeededRandom::new(6)).expect("created");
    let keyring = Arc::new(keyring);
    keyring.rotate(&Reading(keyring.clone(), SeededRandom::new(7))).expect("rotated");
    assert_eq!(keyring.status().keys.len(), 2);
}
