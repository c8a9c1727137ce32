//! The chain: each row that is changed, put in or taken out shows.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tidings_actors::{testing::SeededRandom, time::Timestamp};
use tidings_secrets::Keyring;

use super::*;

fn entry(number: i64) -> AuditEntry {
    AuditEntry {
        at: Timestamp(1_767_225_600_000 + number),
        actor: "admin".into(),
        app: String::new(),
        action: "post_api_admin_tokens".into(),
        target: format!("tok_{number}"),
        result: OK.into(),
        request: "req_1".into(),
        address: None,
    }
}

/// A keyring in a folder of its own.
fn keyring() -> (Keyring, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (Keyring::create(&folder.path().join("keyring"), &SeededRandom::new(6)).expect("made"), folder)
}

fn keys() -> AuditKeys {
    keyring().0.audit_keys()
}

fn place(rows: &[AuditRow]) -> Option<(i64, Sha256Hash)> {
    rows.last().map(|row| (row.id, row.hash))
}

fn log(length: i64) -> Vec<AuditRow> {
    let (mut rows, keys): (Vec<AuditRow>, _) = (Vec::new(), keys());
    for number in 1..=length {
        rows.push(next(place(&rows), entry(number), &keys));
    }
    rows
}

/// A row as it was written before there were keys.
fn unkeyed(last: Option<(i64, Sha256Hash)>, entry: AuditEntry) -> AuditRow {
    let row = AuditRow { key: None, ..next(last, entry, &keys()) };
    AuditRow { hash: hash(&row, &AuditKeys::default()).expect("no key is needed"), ..row }
}

fn verdict(rows: &[AuditRow], keys: Option<AuditKeys>) -> Verdict {
    let mut chain = Chain::with(None, keys);
    rows.iter().for_each(|row| chain.take(row));
    chain.end()
}

fn faults(rows: &[AuditRow]) -> Vec<Fault> {
    verdict(rows, Some(keys())).faults
}

#[test]
fn the_canonical_forms_are_those_that_are_described() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keyring");
    let keyring = Keyring::create(&file, &SeededRandom::new(6)).expect("made");
    let stored: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
    let id = stored["primary"].as_str().expect("a text");
    let key = data_encoding::BASE64.decode(stored["keys"][0]["key"].as_str().expect("a text").as_bytes());
    let mac = |key: &[u8], text: &[u8]| -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
        mac.update(text);
        mac.finalize().into_bytes().into()
    };
    let key = mac(&key.expect("base64"), b"tidings v1 audit");
    let from = AuditEntry { address: Some("192.0.2.7".into()), ..entry(1) };
    let rows = [
        next(None, entry(1), &keyring.audit_keys()),
        unkeyed(None, entry(1)),
        next(None, from, &keyring.audit_keys()),
    ];
    let fields = [
        "1",
        "1767225600001",
        "admin",
        "",
        "post_api_admin_tokens",
        "tok_1",
        "ok",
        "req_1",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ];
    let canonical = |version: &str, fields: &[&str]| {
        let mut bytes = version.as_bytes().to_vec();
        for field in fields {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field.as_bytes());
        }
        bytes
    };
    let keyed = canonical("tidings audit v2", &[fields.as_slice(), &[id]].concat());
    assert_eq!(rows[0].key.as_deref(), Some(id));
    assert_eq!(rows[0].hash, Sha256Hash::new(mac(&key, &keyed)));
    assert_eq!(rows[1].hash, Sha256Hash::of(&canonical("tidings audit v1", &fields)));
    let from = canonical("tidings audit v3", &[fields.as_slice(), &[id, "192.0.2.7"]].concat());
    assert_eq!(rows[2].hash, Sha256Hash::new(mac(&key, &from)));
}

#[test]
fn who_has_no_keyring_can_write_no_row_that_is_believed() {
    let rows = log(6);
    assert_eq!(verdict(&rows, Some(keys())).keyed_from, Some(1));
    // Written again from the third row on, without a key, or with one that is not ours.
    let mut anew = rows[..2].to_vec();
    for number in 3..=6 {
        anew.push(unkeyed(place(&anew), entry(number + 10)));
    }
    assert_eq!(faults(&anew), (3..=6).map(Fault::Unkeyed).collect::<Vec<_>>());
    let folder = tempfile::tempdir().expect("a folder");
    let other = Keyring::create(&folder.path().join("keyring"), &SeededRandom::new(7)).expect("made");
    let (mut foreign, mut disguised) = (rows[..2].to_vec(), rows[..2].to_vec());
    foreign.push(next(place(&foreign), entry(3), &other.audit_keys()));
    let key = foreign[2].key.clone().expect("a key");
    assert_eq!(faults(&foreign), [Fault::UnknownKey(3, key)]);
    disguised.push(AuditRow { key: rows[2].key.clone(), ..foreign[2].clone() });
    assert_eq!(faults(&disguised), [Fault::Changed(3)]);
}

#[test]
fn rows_from_before_there_were_keys_are_checked_and_told_apart() {
    let mut rows = vec![unkeyed(None, entry(1))];
    rows.push(unkeyed(place(&rows), entry(2)));
    rows.push(next(place(&rows), entry(3), &keys()));
    let found = verdict(&rows, Some(keys()));
    assert_eq!((found.keyed_from, found.unchecked, found.faults), (Some(3), 0, vec![]));
    let mut changed = rows.clone();
    changed[0].entry.target.push('x');
    assert_eq!(faults(&changed), [Fault::Changed(1)]);
    // Without a keyring the places of rows can be checked, and it is said that no more was.
    let found = verdict(&rows, None);
    assert_eq!((found.unchecked, found.faults), (1, vec![]));
}

#[test]
fn rows_with_and_without_an_address_make_one_chain_and_none_loses_or_gets_one_unseen() {
    let from = |number| AuditEntry { address: Some("192.0.2.7".into()), ..entry(number) };
    let mut rows = log(2);
    rows.push(next(place(&rows), from(3), &keys()));
    rows.push(next(place(&rows), entry(4), &keys()));
    assert!(faults(&rows).is_empty());
    let changes = [(1, Some("192.0.2.7")), (2, None), (2, Some("192.0.2.8")), (3, Some(""))];
    for (row, address) in changes {
        let mut rows = rows.clone();
        rows[row].entry.address = address.map(str::to_owned);
        assert_eq!(faults(&rows), [Fault::Changed(rows[row].id)], "{address:?}");
    }
}

#[test]
fn a_rotation_and_a_retired_key_leave_every_row_checkable() {
    let (keyring, folder) = keyring();
    let first = keyring.status().primary;
    let mut rows = vec![next(None, entry(1), &keyring.audit_keys())];
    keyring.rotate(&SeededRandom::new(8)).expect("rotated");
    rows.push(next(place(&rows), entry(2), &keyring.audit_keys()));
    assert_ne!(rows[0].key, rows[1].key);
    keyring.retire(&first).expect("retired");
    keyring.rotate(&SeededRandom::new(9)).expect("rotated");
    rows.push(next(place(&rows), entry(3), &keyring.audit_keys()));
    let read = Keyring::open(&folder.path().join("keyring")).expect("read");
    for keyring in [keyring, read] {
        assert_eq!(verdict(&rows, Some(keyring.audit_keys())).faults, []);
    }
}

#[test]
fn a_whole_log_has_no_fault_and_every_tampering_is_named() {
    let whole = log(6);
    assert!(faults(&whole).is_empty());
    assert!(faults(&[]).is_empty());
    type Change = fn(&mut AuditEntry);
    let changes: [Change; 7] = [
        |entry| entry.at = Timestamp(entry.at.0 + 1),
        |entry| entry.actor.push('x'),
        |entry| entry.app.push('x'),
        |entry| entry.action.push('x'),
        |entry| entry.target.push('x'),
        |entry| entry.result.push('x'),
        |entry| entry.request.push('x'),
    ];
    for change in changes {
        let mut rows = whole.clone();
        change(&mut rows[2].entry);
        assert_eq!(faults(&rows), [Fault::Changed(3)]);
        // Hashed again, it is no longer the row that the next one was written behind.
        rows[2] = next(Some((2, rows[1].hash)), rows[2].entry.clone(), &keys());
        assert_eq!(faults(&rows), [Fault::Replaced(3)]);
    }
    let mut rows = whole.clone();
    rows.remove(2);
    assert_eq!(faults(&rows), [Fault::Missing(3, 3)]);
    rows.remove(2);
    assert_eq!(faults(&rows), [Fault::Missing(3, 4)]);
    assert_eq!(faults(&whole[2..]), [Fault::Cut(3)]);
    let mut rows = whole.clone();
    rows.insert(3, next(Some((3, rows[2].hash)), entry(99), &keys()));
    assert_eq!(faults(&rows), [Fault::Replaced(4)], "two rows cannot have one id");
    let mut rows = whole;
    let (one, other) = (rows[1].entry.clone(), rows[2].entry.clone());
    (rows[1].entry, rows[2].entry) = (other, one);
    assert_eq!(faults(&rows), [Fault::Changed(2), Fault::Changed(3)], "rows that changed places");
}

#[test]
fn rows_that_went_with_a_word_are_not_missed_and_others_are() {
    let mut rows = log(5);
    let gone = format!("2:{}", rows[1].hash);
    let prune = AuditEntry { actor: SYSTEM.into(), action: PRUNED.into(), target: gone, ..entry(6) };
    rows.push(next(Some((5, rows[4].hash)), prune, &keys()));
    assert!(faults(&rows[2..]).is_empty());
    assert_eq!(faults(&rows[3..]), [Fault::Cut(4)], "one more than was said");
}

#[test]
fn a_log_that_was_written_anew_or_cut_at_its_end_lacks_what_was_kept_elsewhere() {
    let rows = log(4);
    let check = |rows: &[AuditRow], kept: (i64, Sha256Hash)| {
        let mut chain = Chain::with(Some(kept), Some(keys()));
        rows.iter().for_each(|row| chain.take(row));
        chain.end().faults
    };
    let kept = named(&format!("4:{}", rows[3].hash)).expect("a name");
    assert!(check(&rows, kept).is_empty());
    assert_eq!(check(&rows[..3], kept), [Fault::Forgotten(4)]);
    assert_eq!(check(&rows, (4, beginning())), [Fault::Forgotten(4)]);
    assert_eq!(named("4"), None);
}
