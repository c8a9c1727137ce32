//! What reads bytes of strangers, as functions of bytes alone: `fuzz/` feeds them with a coverage
//! guided fuzzer, the tests here with the corpus that is kept and with bytes made up at random.
//!
//! Each panics where a promise is broken; an error for bad bytes is what is promised.

use tidings_actors::{
    model::filter::{Filter, Record, Value, sets},
    time::Timestamp,
};
use tidings_entity::kind::HookProvider;
pub use tidings_git::fuzzing::{address, commit, credential, pack, packets, refs, side_band, tree};

use crate::hook::payload::{ADDRESSES_MAX, read};

/// What is done with the bytes of a stranger; it panics where it finds a fault.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder in `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("packets", packets),
    ("refs", refs),
    ("side_band", side_band),
    ("address", address),
    ("tree", tree),
    ("pack", pack),
    ("commit", commit),
    ("credential", credential),
    ("filter", filter),
];

/// Bodies of hooks, as each host and each form: few addresses, none of which holds a credential, and
/// a ref by its name or none.
pub fn hook(bytes: &[u8]) {
    for provider in [HookProvider::Github, HookProvider::Gitlab, HookProvider::Gitea] {
        for (event, form) in [("push", false), ("push", true), ("delete", false), ("create", true)] {
            let Ok(payload) = read(provider, event, form, bytes) else { continue };
            assert!(payload.addresses.len() <= ADDRESSES_MAX, "{provider:?} {event}");
            assert!(payload.addresses.iter().all(|address| is_bare(address)), "{provider:?} {event}");
            assert!(payload.ref_name.is_none_or(|name| !name.is_empty()), "{provider:?} {event}");
        }
    }
}

/// Filters of every list: what is printed of one is read as the same one, a fault has a column within the
/// text, and a row of which nothing is known is judged.
pub fn filter(bytes: &[u8]) {
    struct Blank;
    impl Record for Blank {
        fn value(&self, _: &str) -> Value<'_> {
            Value::Unknown
        }
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    for set in sets::ALL {
        match Filter::parse(text, set, Timestamp(1_769_860_800_000)) {
            Err(fault) => assert!((1..=text.chars().count() + 1).contains(&fault.column), "{fault}"),
            Ok(filter) => {
                assert_eq!(Filter::reread(&filter.to_string(), set).as_ref(), Ok(&filter));
                assert!(filter.is_empty() || !filter.admits(&Blank));
            }
        }
    }
}

/// Whether an address names no user. An `@` in its path is a letter like others.
fn is_bare(address: &str) -> bool {
    let (_, rest) = address.split_once("://").expect("a normalised address");
    !rest.split('/').next().expect("a first part").contains('@')
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = fs::read_dir(&folder).expect("every target has a corpus").flatten();
        files.map(|file| fs::read(file.path()).expect("a file")).collect()
    }

    #[test]
    fn the_kept_corpus_breaks_no_promise() {
        for (name, target) in TARGETS {
            let kept = corpus(name);
            assert!(!kept.is_empty(), "{name}");
            for bytes in kept {
                target(&bytes);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn made_up_bytes_break_no_promise(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }

        /// Recombined pieces of the corpus reach more code than random bytes.
        #[test]
        fn a_mutated_corpus_breaks_no_promise(
            which in 0..TARGETS.len(),
            file: prop::sample::Index,
            at: prop::sample::Index,
            put in prop::collection::vec(any::<u8>(), 0..8),
            cut in 0_usize..8,
        ) {
            let (name, target) = TARGETS[which];
            let kept = corpus(name);
            let mut bytes = file.get(&kept).clone();
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put);
            target(&bytes);
        }
    }
}
