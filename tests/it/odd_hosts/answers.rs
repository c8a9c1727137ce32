//! Answers that no honest host gives, as bytes.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::FETCH_MAX;
use crate::support::pack::Pack;

/// A quarter more than a fetch may bring, of blobs that differ.
pub(super) fn flood() -> Bytes {
    let (mut pack, mut block) = (Pack::new(), vec![0; 64 << 10]);
    for number in 0..FETCH_MAX / block.len() * 5 / 4 {
        block[..8].copy_from_slice(&(number as u64).to_be_bytes());
        pack.stored_blob(&block);
    }
    pack.finish()
}

/// 256 MiB of zeros, a member of gzip for each of them.
pub(super) fn bomb() -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![0; 1 << 20]).expect("memory");
    encoder.finish().expect("memory").repeat(256).into()
}

/// A pack that is whole and has nothing of what was asked for.
pub(super) fn another() -> Bytes {
    let mut pack = Pack::new();
    pack.blob(b"of another repository");
    pack.finish()
}

/// A pack of one delta, whose base is nowhere.
pub(super) fn thin() -> Bytes {
    let mut pack = Pack::new();
    pack.thin_delta([7; 20], 5, 5, b"\x05hello");
    pack.finish()
}

fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

/// What a host of version 0 says of itself.
pub(super) fn advertisement() -> Vec<u8> {
    let head = format!("{} HEAD\0multi_ack thin-pack side-band-64k ofs-delta shallow\n", "1".repeat(40));
    let main = format!("{} refs/heads/main\n", "1".repeat(40));
    [packet("# service=git-upload-pack\n"), "0000".into(), packet(&head), packet(&main), "0000".into()]
        .concat()
        .into_bytes()
}

/// More commits without parents than are taken, and less than a fetch may bring.
pub(super) fn shallow_lines() -> Bytes {
    let mut answer = packet("shallow-info\n");
    (0..250_000).for_each(|number| answer.push_str(&packet(&format!("shallow {number:040x}\n"))));
    assert!(answer.len() < FETCH_MAX, "{} bytes", answer.len());
    answer.into()
}
