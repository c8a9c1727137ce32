//! What reads bytes of Git hosts, as functions of bytes alone, for the fuzzer.
//!
//! Each panics where a promise is broken; an error for bad bytes is what is promised.

use tidings_actors::{model::secret::Secret, ports::Location};
use tidings_entity::id::ObjectId;

use super::{address::Address, credential::Credential, objects::parse_commit};
use crate::{
    host::{
        fetch::band,
        listing::Listing,
        pack_check::{PackCheck, PackLimits},
        packet::{Decoder, Packet},
        receive::ShallowChange,
    },
    objects::tree::Tree,
};

/// Packet lines: the same packets, or an error, however the stream is cut.
pub fn packets(bytes: &[u8]) {
    let whole = decoded(bytes, bytes.len().max(1));
    for step in [1, 3, 7] {
        assert_eq!(decoded(bytes, step), whole, "cut into pieces of {step}");
    }
}

fn decoded(bytes: &[u8], step: usize) -> (Vec<Packet>, bool) {
    let (mut decoder, mut packets) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(step) {
        decoder.push(piece);
        loop {
            match decoder.packet() {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(_) => return (packets, true),
            }
        }
    }
    (packets, false)
}

/// Lines of refs in both forms: what is kept was asked for, is sorted, and can be shown.
pub fn refs(bytes: &[u8]) {
    let patterns = vec!["refs/heads/main".to_owned(), "refs/tags/".to_owned()];
    let (mut listed, mut advertised) = (Listing::new(&patterns), Listing::new(&patterns));
    for bytes in bytes.split(|byte| *byte == b'\n') {
        // An error ends a real listing; here the next line has its turn.
        drop(listed.listed(bytes));
        drop(advertised.advertised(bytes));
    }
    for listing in [listed.finish(), advertised.finish()] {
        let names: Vec<_> = listing.refs.iter().map(|found| found.name.as_str()).collect();
        assert!(names.is_sorted(), "{names:?}");
        for name in names {
            let is_head = listing.head.as_deref() == Some(name);
            assert!(is_head || name == "refs/heads/main" || name.starts_with("refs/tags/"), "{name}");
            assert!(!name.contains(char::is_control), "{name:?}");
        }
    }
}

/// The bands of a fetch: the pieces of a pack are what band 1 brought.
pub fn side_band(bytes: &[u8]) {
    let wants = [ObjectId::new([0xab; 20])];
    let (mut in_pack, mut shallow, mut taken) = (false, ShallowChange::default(), 0);
    for packet in decoded(bytes, bytes.len().max(1)).0 {
        let Packet::Data(data) = packet else { continue };
        match band(&data, &mut in_pack, &wants, &mut shallow) {
            Ok(Some(piece)) => {
                assert_eq!((data[0], piece.len()), (1, data.len() - 1));
                taken += piece.len();
            }
            Ok(None) => {}
            Err(_) => break,
        }
    }
    assert!(taken <= bytes.len() && (taken == 0 || in_pack));
}

/// Addresses: an accepted one keeps its key, shows no secret and asks one host.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (allow_local, allow_http) in [(false, false), (true, true)] {
        let Ok(address) = Address::parse(text, allow_local, allow_http) else { continue };
        let again = Address::parse(&address.normalised, allow_local, allow_http).expect("its own key");
        assert_eq!((&again.normalised, &again.location), (&address.normalised, &address.location));
        match &address.location {
            Location::Http(url) => {
                assert!(matches!(url.scheme(), "https" | "http") && (allow_http || url.scheme() == "https"));
                assert!(url.username().is_empty() && url.password().is_none(), "{url}");
                assert!(url.query().is_none() && url.fragment().is_none(), "{url}");
                assert!(url.host_str().is_some_and(|host| !host.is_empty()) && !address.name.is_empty());
            }
            Location::Local(path) => assert!(allow_local && path.is_absolute(), "{path:?}"),
        }
    }
}

/// Trees: an accepted one has exactly the bytes of its entries, and each is found by its name.
pub fn tree(bytes: &[u8]) {
    let Ok(tree) = Tree::parse(ObjectId::new([1; 20]), bytes.to_vec()) else { return };
    let mut length = 0;
    for index in 0..tree.len() {
        let entry = tree.get(index).expect("it has so many");
        assert!(!entry.name.is_empty() && !entry.name.contains(&b'/') && entry.name != b"..");
        let found = tree.find(entry.name).expect("it is there");
        assert_eq!((found.name, found.id), (entry.name, entry.id));
        length += entry.name.len() + 22;
    }
    assert!(length <= bytes.len() && (tree.len() > 0 || bytes.is_empty()));
}

/// Packs: admitted or not, however they are cut. Which of two faults is named may differ.
pub fn pack(bytes: &[u8]) {
    let limits = PackLimits { object_bytes: 1 << 20, delta_bytes: 1 << 16, unpacked_bytes: 1 << 21 };
    let verdict = |step: usize| {
        let mut check = PackCheck::new(limits, 3);
        bytes.chunks(step).try_for_each(|piece| check.take(piece, &|_| None)).is_ok()
    };
    assert_eq!(verdict(bytes.len().max(1)), verdict(1));
}

/// Commits: the subject is one short line.
pub fn commit(bytes: &[u8]) {
    if let Some(commit) = parse_commit(bytes) {
        assert!(commit.facts.subject.chars().count() <= 256 && !commit.facts.subject.contains('\n'));
    }
}

/// The text form of credentials: what is read is written as it was.
pub fn credential(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(credential) = Credential::of(&Secret::new(text.to_owned())) {
        let again = Credential::of(&credential.text()).expect("its own form");
        assert_eq!(again.text().expose(), credential.text().expose());
    }
}
