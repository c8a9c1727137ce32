//! Packs made by hand: honest ones pass however they are cut, each limit is crossed once.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use proptest::prelude::*;

use super::*;

const LIMITS: PackLimits = PackLimits { object_bytes: 10_000, delta_bytes: 1_000, unpacked_bytes: 30_000 };
const NAME: [u8; 20] = [7; 20];

/// An entry: kind, size as it is said, base, data.
fn entry(kind: u8, size: u64, base: &[u8], data: &[u8]) -> Vec<u8> {
    let (mut rest, mut bytes) = (size >> 4, vec![]);
    let more = |rest: u64| if rest > 0 { 0x80 } else { 0 };
    bytes.push(kind << 4 | (size & 15) as u8 | more(rest));
    while rest > 0 {
        bytes.push((rest & 0x7f) as u8 | more(rest >> 7));
        rest >>= 7;
    }
    bytes.extend_from_slice(base);
    let mut encoder = ZlibEncoder::new(bytes, Compression::fast());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

fn blob(length: usize) -> Vec<u8> {
    entry(3, length as u64, &[], &vec![b'x'; length])
}

fn varint(mut size: u64) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let more = if size > 0x7f { 0x80 } else { 0 };
        bytes.push((size & 0x7f) as u8 | more);
        size >>= 7;
        if more == 0 {
            return bytes;
        }
    }
}

/// A delta on a base this many bytes before it, or on a named one.
fn delta(base: Option<u8>, from: u64, to: u64) -> Vec<u8> {
    let data = [varint(from), varint(to), b"\x01x".to_vec()].concat();
    match base {
        Some(distance) => entry(6, data.len() as u64, &[distance], &data),
        None => entry(7, data.len() as u64, &NAME, &data),
    }
}

fn check(entries: &[Vec<u8>], known: Option<u64>, step: usize) -> Result<u64, GitError> {
    let mut check = PackCheck::new(LIMITS, u32::try_from(entries.len()).expect("few"));
    let stream = [entries.concat(), vec![0; 20]].concat();
    for piece in stream.chunks(step) {
        check.take(piece, &|id| known.filter(|_| id == ObjectId::new(NAME)))?;
    }
    assert!(matches!(check.entry, Entry::Trailer), "all of it was seen");
    Ok(check.largest_delta())
}

#[test]
fn an_honest_pack_passes_however_it_is_cut() {
    let base = blob(300);
    let distance = u8::try_from(base.len()).expect("small");
    let entries = [base, delta(Some(distance), 300, 900), blob(0), blob(10_000), delta(None, 40, 41)];
    // The named base is known to be small, so the large blob is none.
    for step in 1..200 {
        assert_eq!(check(&entries, Some(40), step).expect("honest"), 900, "{step}");
    }
}

#[test]
fn every_limit_is_named_when_it_is_crossed() {
    let large = blob(5_000);
    let distance = u8::try_from(large.len()).expect("it shrinks well");
    for (entries, known, text) in [
        (vec![blob(10_001)], None, "an object of 10001 bytes, where 10000"),
        (vec![entry(3, u64::MAX >> 4, &[], b"x")], None, "an object of 1152921504606846975 bytes"),
        (vec![blob(10_000), blob(10_000), blob(10_000), blob(1)], None, "a pack of 30001 bytes, where 30000"),
        (vec![entry(6, 1_001, &[1], b"x")], None, "a delta of 1001 bytes"),
        (
            vec![blob(9), delta(Some(1), 2_147_483_648, 9)],
            None,
            "a delta of or to an object of 2147483648 bytes",
        ),
        (
            vec![blob(9), delta(Some(1), 9, 2_147_483_648)],
            None,
            "a delta of or to an object of 2147483648 bytes",
        ),
        (vec![large.clone(), delta(Some(distance), 5, 5)], None, "a delta of an object of 5000 bytes"),
        (vec![delta(None, 5, 5)], Some(1_001), "a delta of an object of 1001 bytes"),
        (vec![large.clone(), delta(None, 5, 5)], None, "perhaps a delta of an object of 5000 bytes"),
        (vec![delta(None, 5, 5), large], None, "perhaps a delta of an object of 5000 bytes"),
    ] {
        let error = check(&entries, known, 7).expect_err(text);
        assert!(matches!(&error, GitError::TooLarge(said) if said.contains(text)), "{error}");
    }
}

#[test]
fn what_is_no_pack_is_told_apart() {
    let mut cut = blob(100);
    cut.truncate(4);
    for (entries, text) in [
        (vec![entry(0, 1, &[], b"x")], "unknown kind"),
        (vec![entry(5, 1, &[], b"x")], "unknown kind"),
        (vec![entry(3, 2, &[], b"x")], "another size"),
        (vec![entry(3, 1, &[], b"xx")], "another size"),
        (vec![vec![0xff; 12]], "a size beyond any"),
        (vec![vec![0x3f, 0x78, 0xff, 0xff, 0xff]], "not deflated"),
        (vec![delta(Some(1), 1, 1)], "outside"),
        (vec![blob(9), entry(6, 2, &[0xff; 20], b"xx")], "beyond any"),
        (vec![blob(9), entry(6, 1, &[1], b"\x80")], "without sizes"),
        (vec![blob(9), entry(6, 12, &[1], &[0x80; 12])], "without sizes"),
    ] {
        let error = check(&entries, None, 3).expect_err(text);
        assert!(matches!(&error, GitError::Protocol(said) if said.contains(text)), "{error} for {text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, objects in 0_u32..4) {
        let mut check = PackCheck::new(LIMITS, objects);
        for piece in bytes.chunks(5) {
            if check.take(piece, &|_| None).is_err() {
                break;
            }
        }
    }
}
