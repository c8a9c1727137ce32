//! Following refs: the effect of a listing of a source on its heads and cursors. Pure, so that every store
//! decides alike: `known state, listing -> what to write`.
//!
//! - A single branch or the default branch has one cursor from the beginning (slot: empty). The default
//!   branch is whatever HEAD names; a rename changes the cursor's branch and nothing else.
//! - A pattern has a cursor per matching ref (slot: the ref), made when the ref is first listed. It stays
//!   when the ref vanishes, so that round numbers go on; what the app holds then goes, or stays
//!   ([`BranchGone`]). A ref counts as absent only after two listings without it, also for a source that
//!   never listed it.
//! - A ref that a listing lacks is missing, if the repository has any ref at all; whether to believe the
//!   listing is its caller's decision. In a repository without refs, cursors that never held anything are
//!   empty and nothing else changes.
//! - Of refs that a host numbers (`refs/pull/*/head`) the highest numbers are followed, whatever was
//!   followed before; of other refs, those that were followed first are kept.
//! - A blocked cursor stays blocked whatever its branch does.
//! - Where a listing found the repository at another address, its source is scanned there from then on.
//! - Answers may overtake each other: heads that were learnt after a listing was requested are newer than
//!   the listing and stay.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use tidings_entity::{
    id::{CursorId, ObjectId, WatchId},
    kind::{BranchGone, CursorState, SelectorKind},
};

use crate::{
    ports::{RefListing, Selector, SinkKey},
    time::Timestamp,
};

mod numbered;

/// A pattern follows at most this many refs at a time where a listing gives no other number; of more refs,
/// those with the greatest versions in their names are taken. A host with a million tags costs no more than
/// this.
pub const CURSORS_PER_WATCH_MAX: usize = 10_000;

/// The most cursors of a pattern, in multiples of the refs that it may follow: cursors whose branch is gone
/// stay until their history is pruned. A host that invents refs and takes them back again and again is not
/// followed beyond this.
pub const CURSORS_KEPT_FACTOR: usize = 5;

/// How many more refs a pattern may follow that follows at most `max`; `at_rest` of its `cursors` have no
/// branch.
fn room(max: usize, cursors: usize, at_rest: usize) -> usize {
    let followed = max.saturating_sub(cursors.saturating_sub(at_rest));
    followed.min((CURSORS_KEPT_FACTOR * max).saturating_sub(cursors))
}

/// The names that there is room for; if not all fit, those with the greatest versions.
#[must_use]
pub fn newest(mut names: Vec<&str>, room: usize) -> Vec<&str> {
    if names.len() > room {
        // A pattern that is full leaves thousands out in each scan: only names that stay are put in order.
        if room > 0 {
            names.select_nth_unstable_by(room - 1, |one, other| by_version(other, one));
        }
        names.truncate(room);
        names.sort_unstable_by(|one, other| by_version(other, one));
    }
    names
}

/// Orders names as people order versions: `v9` before `v10`.
fn by_version(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while let (Some(first), Some(second)) = (one.first(), other.first()) {
        let order = if first.is_ascii_digit() && second.is_ascii_digit() {
            let (number, of_one) = number(one);
            let (counterpart, of_other) = self::number(other);
            (one, other) = (of_one, of_other);
            number.len().cmp(&counterpart.len()).then_with(|| number.cmp(counterpart))
        } else {
            (one, other) = (&one[1..], &other[1..]);
            first.cmp(second)
        };
        if order.is_ne() {
            return order;
        }
    }
    one.len().cmp(&other.len())
}

/// The digits at the beginning, without leading zeros, and what follows them.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let start = text[..end].iter().position(|byte| *byte != b'0').unwrap_or(end);
    (&text[start..end], &text[end..])
}

impl RefListing {
    /// Most refs that one pattern follows.
    fn pattern_max(&self) -> usize {
        self.pattern_refs_max.unwrap_or(CURSORS_PER_WATCH_MAX)
    }
}

/// The refs that the watches of a source follow, as far as a fetch needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The selectors of its watches, each once; in a list: a set has room for eleven at least.
    pub selectors: Vec<Selector>,
    /// The full ref names of its cursors, each once.
    pub branches: Vec<String>,
}

impl Followed {
    /// The commits of a listing that a watch follows, each once. A prefix brings many refs into a listing,
    /// and HEAD is always in it: commits that no watch follows are not fetched.
    #[must_use]
    pub fn commits(&self, listing: &RefListing) -> Vec<ObjectId> {
        let names = || listing.refs.iter().map(|entry| entry.name.as_str());
        let own: BTreeSet<&str> = self.branches.iter().map(String::as_str).collect();
        let mut wanted = own.clone();
        let mut single = BTreeSet::new();
        let left = numbered::not_fetched(self, listing);
        for selector in &self.selectors {
            match selector.matcher() {
                Some(_) if listing.leaves_out(selector.ref_pattern().as_ref()) => {}
                Some(matcher) if selector.is_numbered() => {
                    wanted.extend(names().filter(|name| matcher.matches(name)));
                }
                Some(matcher) => {
                    let (old, new): (Vec<_>, Vec<_>) =
                        names().filter(|name| matcher.matches(name)).partition(|name| own.contains(name));
                    // Cursors of the pattern whose refs are not listed are at rest, or soon will be.
                    let cursors = self.branches.iter().filter(|name| matcher.matches(name)).count();
                    wanted.extend(newest(new, room(listing.pattern_max(), cursors, cursors - old.len())));
                }
                None => single.extend(selector.single_ref(listing.head.as_deref())),
            }
        }
        let is_wanted = |name: &str| !left.contains(name) && (wanted.contains(name) || single.contains(name));
        let commits = listing.refs.iter().filter(|entry| is_wanted(&entry.name)).map(|entry| entry.commit);
        commits.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The facts about a source before a listing.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The heads of the source by full ref name, and when each was learnt.
    pub heads: BTreeMap<String, (ObjectId, Timestamp)>,
    /// Why the commits of some heads cannot be fetched, by ref name.
    pub faults: BTreeMap<String, String>,
    /// The ref that HEAD named last.
    pub head_ref: Option<String>,
    /// The address that is scanned since the repository moved; `None`: the registered address.
    pub moved_to: Option<String>,
    /// The watches that use the source.
    pub watches: Vec<KnownWatch>,
    /// The cursors of these watches.
    pub cursors: Vec<KnownCursor>,
}

/// A watch as following sees it.
#[derive(Clone, Debug)]
pub struct KnownWatch {
    /// Id of the watch, `repo_` and a ULID.
    pub id: WatchId,
    /// The sink that changes of the watch go to.
    pub sink: SinkKey,
    /// The branches or refs that the watch follows.
    pub selector: Selector,
    /// The setting for a branch that vanished.
    pub on_branch_gone: BranchGone,
    /// Whether the watch is active and its sink enabled.
    pub served: bool,
}

/// A cursor as following sees it.
#[derive(Clone, Debug)]
pub struct KnownCursor {
    /// Id of the cursor, `cur_` and a ULID.
    pub id: CursorId,
    /// The watch that the cursor belongs to.
    pub watch: WatchId,
    /// Empty, or the ref of a pattern.
    pub slot: String,
    /// The full ref name.
    pub branch: String,
    /// The commit that the app held last; `None`: the app holds nothing.
    pub held: Option<ObjectId>,
    /// Whether a round is open.
    pub open: bool,
    /// Whether a resync or a new view waits at the commit that the app holds.
    pub due: bool,
    /// Whether rounds of the cursor are delivered, or why not.
    pub state: CursorState,
}

impl KnownCursor {
    /// Whether the end of the branch would cost the app files, so that one listing without the branch does
    /// not prove that end.
    fn awaits_proof(&self) -> bool {
        let holds = self.held.is_some() || self.open || self.due;
        !self.slot.is_empty() && holds && self.state != CursorState::BranchMissing
    }
}

impl Known {
    /// The served cursors that have something to do: they are behind their head, have a resync or redrive
    /// waiting, or their branch is gone and their files must be deleted.
    #[must_use]
    pub fn waiting(&self) -> Vec<(SinkKey, CursorId)> {
        let served: BTreeMap<_, _> =
            self.watches.iter().filter(|watch| watch.served).map(|watch| (&watch.id, watch)).collect();
        let waits = |cursor: &KnownCursor, watch: &KnownWatch| {
            let moves = cursor.open || matches!(cursor.state, CursorState::Active | CursorState::Blocked);
            match self.heads.get(&cursor.branch) {
                Some((head, _)) => moves && (cursor.due || cursor.held.as_ref() != Some(head)),
                None => goes(cursor.state, watch.on_branch_gone) && (cursor.due || cursor.held.is_some()),
            }
        };
        let waiting = self.cursors.iter().filter_map(|cursor| {
            let watch = served.get(&cursor.watch).filter(|watch| waits(cursor, watch))?;
            Some((watch.sink.clone(), cursor.id.clone()))
        });
        waiting.collect()
    }
}

/// The watches that a listing is evaluated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All watches of the source: a scan asked for everything they follow.
    Source,
    /// One watch: its proof of access asked only for its own refs, so refs of other watches may be absent.
    Watch(&'a WatchId),
}

/// A ref that names another commit, or whose commit can now, or can no longer, be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedHead {
    /// The full ref name.
    pub name: String,
    /// The commit that the ref names now.
    pub commit: ObjectId,
    /// Why the commit cannot be fetched; `None`: it can.
    pub fault: Option<String>,
}

/// The changes that a listing makes to heads, cursors and the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// The heads that are written.
    pub moved: Vec<MovedHead>,
    /// The full names of the heads that are removed.
    pub gone: Vec<String>,
    /// The ref that HEAD names now; `None`: it did not change.
    pub head_ref: Option<String>,
    /// The address that is scanned from now on; `None`: it did not change.
    pub moved_to: Option<String>,
    /// Cursors whose branch or state changes, with their new branch and state.
    pub edits: Vec<(CursorId, String, CursorState)>,
    /// Refs that a pattern meets for the first time: cursors to be made.
    pub births: Vec<(WatchId, String)>,
    /// The followed refs that are absent from a repository that has other refs, whether or not the absence
    /// counts yet.
    pub absent: BTreeSet<String>,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub left_out: BTreeMap<WatchId, u64>,
}

impl Following {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let (absent, left_out) = (self.absent.clone(), self.left_out.clone());
        *self == Self { absent, left_out, ..Self::default() }
    }
}

/// Whether a cursor in this state brings its app to nothing: its branch is gone, and so are its files.
#[must_use]
pub fn goes(state: CursorState, on_branch_gone: BranchGone) -> bool {
    state == CursorState::BranchMissing && on_branch_gone == BranchGone::Delete
}

/// Decides what `listing` changes at this moment.
#[must_use]
pub fn follow(known: &Known, listing: &RefListing, scope: Scope<'_>, now: Timestamp) -> Following {
    let mut listed: BTreeMap<&str, ObjectId> =
        listing.refs.iter().map(|entry| (entry.name.as_str(), entry.commit)).collect();
    let newer = newer_than(known, listing, now);
    let head_ref = head_of(known, listing, newer.is_empty());
    // Some hosts name the default branch by HEAD alone.
    let named = head_ref.filter(|name| listing.head.as_deref().is_none_or(|head| head == *name));
    if let (Some(name), Some(commit)) = (named, listed.get("HEAD").copied()) {
        listed.entry(name).or_insert(commit);
    }
    listed.extend(newer);
    let mut following = Following {
        head_ref: head_ref.filter(|head| known.head_ref.as_deref() != Some(head)).map(str::to_owned),
        moved_to: listing.moved_to.clone().filter(|_| listing.moved_to != known.moved_to),
        ..Following::default()
    };
    let mut followed = BTreeSet::new();
    let kept = numbered::kept_by_watch(known, &listed, listing.pattern_max());
    let displaced = numbered::displaced(known, &listed, &kept);
    for watch in &known.watches {
        let spoken_of = scope == Scope::Source || scope == Scope::Watch(&watch.id);
        let cursors = known.cursors.iter().filter(|cursor| cursor.watch == watch.id);
        let (mut slots, mut at_rest) = (BTreeSet::new(), 0);
        for cursor in cursors {
            slots.insert(cursor.slot.as_str());
            at_rest += usize::from(cursor.state == CursorState::BranchMissing);
            let branch = branch_of(watch, cursor, head_ref);
            let is_displaced = displaced.contains(branch.as_str());
            // A proof takes no head away, and without that nothing may go.
            if spoken_of && (!is_displaced || scope == Scope::Source) {
                let gives_way = is_displaced.then(|| displaced_state(cursor));
                let state = gives_way.unwrap_or_else(|| state_of(cursor, &branch, &listed, known, listing));
                if branch != cursor.branch || state != cursor.state {
                    following.edits.push((cursor.id.clone(), branch.clone(), state));
                }
            }
            let is_known = listed.contains_key(branch.as_str()) || listing.is_unseen(&branch);
            if listing.has_refs && cursor.awaits_proof() && !is_known {
                following.absent.insert(branch.clone());
            }
            if !is_displaced {
                followed.insert(branch);
            }
        }
        let kept = kept.get(&watch.id);
        let (taken, left_out) = births(&watch.selector, &listed, (&slots, at_rest), kept, listing);
        if left_out > 0 {
            following.left_out.insert(watch.id.clone(), left_out as u64);
        }
        for name in taken {
            followed.insert(name.to_owned());
            following.births.push((watch.id.clone(), name.to_owned()));
        }
    }
    // Absence is believed only when the watcher saw it twice.
    let believed = |name: &str| listing.has_refs && listing.gone.contains(name);
    following.moved = moved_heads(known, listing, (&listed, &followed), scope, now);
    if scope == Scope::Source {
        let keep = |name: &str| followed.contains(name) && (listed.contains_key(name) || !believed(name));
        let is_absent = |name: &&String| {
            known.heads.contains_key(*name) && !listed.contains_key(name.as_str()) && !listing.is_unseen(name)
        };
        following.absent.extend(followed.iter().filter(|name| listing.has_refs && is_absent(name)).cloned());
        let stays = |name: &str| keep(name) || listing.is_partial && listing.is_unseen(name);
        following.gone = known.heads.keys().filter(|name| !stays(name)).cloned().collect();
    }
    following
}

/// The ref that HEAD names. A listing that was overtaken counts only if no HEAD is known yet.
fn head_of<'k>(known: &'k Known, listing: &'k RefListing, is_latest: bool) -> Option<&'k str> {
    match (&listing.head, &known.head_ref) {
        (Some(listed), known) if is_latest || known.is_none() => Some(listed.as_str()),
        (_, known) => known.as_deref(),
    }
}

/// The listed refs that a pattern meets for the first time and takes, and how many it leaves out. `slots` are
/// its cursors, `at_rest` of them without a branch; `kept` stay of a numbered pattern that matches too many.
fn births<'n>(
    selector: &Selector,
    listed: &BTreeMap<&'n str, ObjectId>,
    (slots, at_rest): (&BTreeSet<&str>, usize),
    kept: Option<&BTreeSet<&'n str>>,
    listing: &RefListing,
) -> (Vec<&'n str>, usize) {
    let asked_for = selector.matcher().filter(|_| !listing.leaves_out(selector.ref_pattern().as_ref()));
    let Some(matcher) = asked_for else { return (Vec::new(), 0) };
    let max = listing.pattern_max();
    let names = listed.keys().copied().filter(|name| matcher.matches(name));
    let is_fresh = |name: &&str| !slots.contains(*name);
    match kept {
        Some(kept) => {
            let fresh: Vec<_> = kept.iter().copied().filter(is_fresh).collect();
            let wanted = fresh.len();
            let taken = newest(fresh, (CURSORS_KEPT_FACTOR * max).saturating_sub(slots.len()));
            let left_out = names.count() - kept.len() + wanted - taken.len();
            (taken, left_out)
        }
        None => {
            let fresh: Vec<_> = names.filter(is_fresh).collect();
            let wanted = fresh.len();
            let taken = newest(fresh, room(max, slots.len(), at_rest));
            let left_out = wanted - taken.len();
            (taken, left_out)
        }
    }
}

/// The followed refs whose heads move, or whose commits can now, or can no longer, be fetched.
fn moved_heads(
    known: &Known,
    listing: &RefListing,
    (listed, followed): (&BTreeMap<&str, ObjectId>, &BTreeSet<String>),
    scope: Scope<'_>,
    now: Timestamp,
) -> Vec<MovedHead> {
    let mut moved = Vec::new();
    for name in followed {
        let Some(commit) = listed.get(name.as_str()).filter(|commit| !listing.untried.contains(*commit))
        else {
            continue;
        };
        let before = (known.heads.get(name).map(|(commit, _)| commit), known.faults.get(name));
        // A head that was learnt since the listing stays, with its fault. The fault of a commit also stays if
        // a proof of access lists the same commit: a proof fetches nothing.
        let is_newer = known.heads.get(name).is_some_and(|(_, at)| is_newer_than(listing, *at, now));
        let is_named_again = scope != Scope::Source && before.0 == Some(commit);
        let fault = if is_newer || is_named_again { before.1 } else { listing.refused.get(commit) };
        if before != (Some(commit), fault) {
            moved.push(MovedHead { name: name.clone(), commit: *commit, fault: fault.cloned() });
        }
    }
    moved
}

/// The heads that were learnt after a listing was requested. A moment in the future comes from a clock that
/// was set back, not from an overtaken answer.
fn newer_than<'k>(known: &'k Known, listing: &RefListing, now: Timestamp) -> Vec<(&'k str, ObjectId)> {
    let heads = known.heads.iter().filter(|(_, (_, at))| is_newer_than(listing, *at, now));
    heads.map(|(name, (commit, _))| (name.as_str(), *commit)).collect()
}

fn is_newer_than(listing: &RefListing, at: Timestamp, now: Timestamp) -> bool {
    at <= now && listing.asked_at.is_some_and(|asked| asked < at)
}

/// The branch of a cursor after a listing.
fn branch_of(watch: &KnownWatch, cursor: &KnownCursor, head_ref: Option<&str>) -> String {
    match (watch.selector.kind, head_ref) {
        (SelectorKind::DefaultBranch, Some(head)) => head.to_owned(),
        _ => cursor.branch.clone(),
    }
}

/// The state of a cursor whose ref exists, but gave its room to higher numbers.
fn displaced_state(cursor: &KnownCursor) -> CursorState {
    match cursor.state {
        CursorState::Blocked if cursor.open => CursorState::Blocked,
        _ => CursorState::BranchMissing,
    }
}

/// The state of a cursor after a listing.
fn state_of(
    cursor: &KnownCursor,
    branch: &str,
    listed: &BTreeMap<&str, ObjectId>,
    known: &Known,
    listing: &RefListing,
) -> CursorState {
    let has_refs = listing.has_refs;
    let untouched = cursor.held.is_none() && !cursor.open;
    match cursor.state {
        // A block is kept only while there is a round or a ref: a vanished branch without a round counts as
        // gone.
        CursorState::Blocked if cursor.open || listed.contains_key(branch) => CursorState::Blocked,
        _ if listed.contains_key(branch) => CursorState::Active,
        state if listing.is_unseen(branch) => state,
        // A default branch that was just renamed was not asked for by its new name.
        state if branch != cursor.branch && has_refs && !known.heads.contains_key(branch) => state,
        // One listing without the ref does not prove that the ref is gone.
        state
            if has_refs
                && !listing.gone.contains(branch)
                && (known.heads.contains_key(branch) || cursor.awaits_proof()) =>
        {
            state
        }
        _ if has_refs => CursorState::BranchMissing,
        _ if untouched => CursorState::Empty,
        state => state,
    }
}

/// The state of a cursor that is no longer blocked. The next listing decides between missing and empty; it
/// takes two listings to prove that the branch of a pattern is gone.
#[must_use]
pub fn unblocked(head: Option<ObjectId>, slot: &str) -> CursorState {
    if head.is_some() || !slot.is_empty() { CursorState::Active } else { CursorState::BranchMissing }
}

#[cfg(test)]
mod tests;
