//! Patterns over refs that hosts number and hardly ever remove (`refs/pull/*/head`): where more match than
//! may be followed, the highest numbers stay. Without this rule the first requests of a repository would keep
//! every later request out for ever.
//!
//! A ref that has to make room is *displaced*: its cursor stands as if the ref were gone, and is followed
//! again if there is room again. A ref that anything else of the source follows is not displaced.

use std::collections::{BTreeMap, BTreeSet};

use tidings_entity::id::{ObjectId, WatchId};

use super::{Followed, Known, newest};
use crate::ports::{RefListing, Selector};

/// The names that stay, for each watch that matches more numbered refs than it may follow.
pub(super) type Kept<'n> = BTreeMap<WatchId, BTreeSet<&'n str>>;

/// The refs of these that a numbered pattern follows; `None`: there is room for all.
fn kept<'n>(
    selector: &Selector,
    names: impl Iterator<Item = &'n str>,
    max: usize,
) -> Option<BTreeSet<&'n str>> {
    let matcher = if selector.is_numbered() { selector.matcher()? } else { return None };
    let names: Vec<_> = names.filter(|name| matcher.matches(name)).collect();
    (names.len() > max).then(|| newest(names, max).into_iter().collect())
}

/// For each watch that must leave refs out: the refs that it keeps.
pub(super) fn kept_by_watch<'n>(known: &Known, listed: &BTreeMap<&'n str, ObjectId>, max: usize) -> Kept<'n> {
    let of = |watch: &super::KnownWatch| {
        Some((watch.id.clone(), kept(&watch.selector, listed.keys().copied(), max)?))
    };
    known.watches.iter().filter_map(of).collect()
}

/// The listed refs that no cursor follows any longer, because higher numbers took their room.
pub(super) fn displaced<'k>(
    known: &'k Known,
    listed: &BTreeMap<&str, ObjectId>,
    kept: &Kept<'_>,
) -> BTreeSet<&'k str> {
    if kept.is_empty() {
        return BTreeSet::new();
    }
    let stays = |watch: &WatchId, name: &str| kept.get(watch).is_none_or(|kept| kept.contains(name));
    let (mut displaced, mut staying) = (BTreeSet::new(), BTreeSet::new());
    for cursor in known.cursors.iter().filter(|cursor| listed.contains_key(cursor.branch.as_str())) {
        let set = if stays(&cursor.watch, &cursor.branch) { &mut staying } else { &mut displaced };
        set.insert(cursor.branch.as_str());
    }
    &displaced - &staying
}

/// The refs of a listing that are not worth a fetch, because higher numbers took their room.
pub(super) fn not_fetched<'n>(followed: &Followed, listing: &'n RefListing) -> BTreeSet<&'n str> {
    let names = || listing.refs.iter().map(|entry| entry.name.as_str());
    let (numbered, others): (Vec<_>, Vec<_>) =
        followed.selectors.iter().partition(|selector| selector.is_numbered());
    let (mut left, mut staying) = (BTreeSet::new(), BTreeSet::new());
    for selector in numbered {
        let Some(matcher) = selector.matcher() else { continue };
        let kept = kept(selector, names(), listing.pattern_max());
        for name in names().filter(|name| matcher.matches(name)) {
            let stays = kept.as_ref().is_none_or(|kept| kept.contains(name));
            if stays { &mut staying } else { &mut left }.insert(name);
        }
    }
    if left.is_empty() {
        return left;
    }
    for selector in others {
        match selector.matcher() {
            Some(matcher) => left.retain(|name| !matcher.matches(name)),
            None => {
                let single = selector.single_ref(listing.head.as_deref());
                left.retain(|name| single.as_deref() != Some(*name));
            }
        }
    }
    &left - &staying
}
