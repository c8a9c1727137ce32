//! Following refs: what a listing of a source means for its heads and cursors. Pure, so that every
//! store decides alike: `known state, listing -> what to write`.
//!
//! - A single branch or the default branch has one cursor from the beginning (slot: empty). The
//!   default branch is whatever HEAD names; a rename changes the cursor's branch and nothing else.
//! - A pattern has a cursor per matching ref (slot: the ref), made when the ref is first listed.
//! - A ref that a listing lacks is missing, if the repository has any ref at all; whether to
//!   believe the listing is its caller's decision. In a repository without refs, cursors that
//!   never held anything are empty and nothing else changes.
//! - A blocked cursor stays blocked whatever its branch does.

use std::collections::{BTreeMap, BTreeSet};

use globset::{GlobBuilder, GlobMatcher};
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, WatchId},
    kind::{CursorState, SelectorKind},
};

use crate::ports::{RefListing, Selector};

const BRANCHES: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// A pattern follows at most so many refs; further ones are left out, first by name wins. A host
/// with a million tags costs no more than this.
pub const CURSORS_PER_WATCH_MAX: usize = 10_000;

impl Selector {
    /// What to ask a host for: a full ref name, or a prefix that ends in `/`. `None` for the
    /// default branch: HEAD is always asked for.
    #[must_use]
    pub fn ref_pattern(&self) -> Option<String> {
        let pattern = |space: &str| {
            let literal =
                &self.value[..self.value.find(['*', '?', '[', '{', '\\']).unwrap_or(self.value.len())];
            if literal.len() == self.value.len() {
                return format!("{space}{literal}");
            }
            format!("{space}{}", literal.rfind('/').map_or("", |slash| &literal[..=slash]))
        };
        match self.kind {
            SelectorKind::DefaultBranch => None,
            SelectorKind::Branch => Some(format!("{BRANCHES}{}", self.value)),
            SelectorKind::BranchPattern => Some(pattern(BRANCHES)),
            SelectorKind::TagPattern => Some(pattern(TAGS)),
        }
    }

    /// The full ref name that a single-branch selector follows; `head` is what HEAD names. Empty
    /// while nobody knows. `None` for a pattern.
    #[must_use]
    pub fn single_ref(&self, head: Option<&str>) -> Option<String> {
        match self.kind {
            SelectorKind::DefaultBranch => Some(head.unwrap_or_default().to_owned()),
            SelectorKind::Branch => Some(format!("{BRANCHES}{}", self.value)),
            SelectorKind::BranchPattern | SelectorKind::TagPattern => None,
        }
    }

    /// Answers which refs a pattern follows; `None` for a single branch, and for a glob that does
    /// not parse.
    #[must_use]
    pub fn matcher(&self) -> Option<RefMatcher> {
        let space = match self.kind {
            SelectorKind::BranchPattern => BRANCHES,
            SelectorKind::TagPattern => TAGS,
            SelectorKind::DefaultBranch | SelectorKind::Branch => return None,
        };
        let glob = GlobBuilder::new(&self.value).literal_separator(true).build().ok()?;
        Some(RefMatcher { space, glob: glob.compile_matcher() })
    }
}

/// A compiled pattern selector.
#[derive(Clone, Debug)]
pub struct RefMatcher {
    space: &'static str,
    glob: GlobMatcher,
}

impl RefMatcher {
    /// Whether the pattern follows this full ref name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        name.strip_prefix(self.space).is_some_and(|short| self.glob.is_match(short))
    }
}

/// What is known of a source before a listing.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its heads by full ref name.
    pub heads: BTreeMap<String, ObjectId>,
    /// The ref that HEAD named last.
    pub head_ref: Option<String>,
    /// The watches that see through it.
    pub watches: Vec<KnownWatch>,
    /// Their cursors.
    pub cursors: Vec<KnownCursor>,
}

/// A watch as following sees it.
#[derive(Clone, Debug)]
pub struct KnownWatch {
    /// Its id.
    pub id: WatchId,
    /// Its app.
    pub app: AppId,
    /// Which refs.
    pub selector: Selector,
    /// Whether it and its app are served.
    pub served: bool,
}

/// A cursor as following sees it.
#[derive(Clone, Debug)]
pub struct KnownCursor {
    /// Its id.
    pub id: CursorId,
    /// Its watch.
    pub watch: WatchId,
    /// Empty, or the ref of a pattern.
    pub slot: String,
    /// The full ref name.
    pub branch: String,
    /// What the app held last.
    pub held: Option<ObjectId>,
    /// Whether a round is open.
    pub open: bool,
    /// Whether it moves.
    pub state: CursorState,
}

impl Known {
    /// The served cursors that may move and are behind their head.
    #[must_use]
    pub fn behind(&self) -> Vec<(AppId, CursorId)> {
        let served: BTreeMap<_, _> =
            self.watches.iter().filter(|watch| watch.served).map(|watch| (&watch.id, &watch.app)).collect();
        let is_behind = |cursor: &&KnownCursor| {
            let moves = cursor.open || matches!(cursor.state, CursorState::Active | CursorState::Blocked);
            let head = self.heads.get(&cursor.branch);
            moves && head.is_some() && head != cursor.held.as_ref()
        };
        let behind = self.cursors.iter().filter(is_behind);
        behind
            .filter_map(|cursor| served.get(&cursor.watch).map(|app| ((*app).clone(), cursor.id.clone())))
            .collect()
    }
}

/// Which watches a listing speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All of the source: a poll asked for everything they follow.
    Source,
    /// One: its proof of access asked for its refs only, so others' refs may be absent from it.
    Watch(&'a WatchId),
}

/// What a listing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// Heads to write.
    pub moved: Vec<(String, ObjectId)>,
    /// Heads to remove.
    pub gone: Vec<String>,
    /// The ref that HEAD names now, where that changed.
    pub head_ref: Option<String>,
    /// Cursors whose branch or state changes, with both.
    pub edits: Vec<(CursorId, String, CursorState)>,
    /// Refs that a pattern meets for the first time: cursors to be made.
    pub births: Vec<(WatchId, String)>,
    /// Whether a followed ref is absent from a repository that has others, believed or not.
    pub absent: bool,
}

impl Following {
    /// Whether nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { absent: self.absent, ..Self::default() }
    }
}

/// Decides what `listing` changes.
#[must_use]
pub fn follow(known: &Known, listing: &RefListing, scope: Scope<'_>) -> Following {
    let mut listed: BTreeMap<&str, ObjectId> =
        listing.refs.iter().map(|entry| (entry.name.as_str(), entry.commit)).collect();
    let head_ref = listing.head.as_deref().or(known.head_ref.as_deref());
    // Some hosts name the default branch by HEAD alone.
    if let (Some(name), Some(commit)) = (head_ref, listed.get("HEAD").copied()) {
        listed.entry(name).or_insert(commit);
    }
    let mut following = Following {
        head_ref: listing.head.clone().filter(|head| known.head_ref.as_ref() != Some(head)),
        ..Following::default()
    };
    let mut followed = BTreeSet::new();
    for watch in &known.watches {
        let spoken_of = scope == Scope::Source || scope == Scope::Watch(&watch.id);
        let cursors = known.cursors.iter().filter(|cursor| cursor.watch == watch.id);
        let mut slots = BTreeSet::new();
        for cursor in cursors {
            slots.insert(cursor.slot.as_str());
            let branch = branch_of(watch, cursor, head_ref);
            if spoken_of {
                let state = state_of(cursor, &branch, &listed, known, listing);
                if branch != cursor.branch || state != cursor.state {
                    following.edits.push((cursor.id.clone(), branch.clone(), state));
                }
            }
            followed.insert(branch);
        }
        if let Some(matcher) = watch.selector.matcher() {
            let mut room = CURSORS_PER_WATCH_MAX.saturating_sub(slots.len());
            for name in listed.keys().filter(|name| matcher.matches(name) && !slots.contains(*name)) {
                if room == 0 {
                    break;
                }
                room -= 1;
                followed.insert((*name).to_owned());
                following.births.push((watch.id.clone(), (*name).to_owned()));
            }
        }
    }
    // Absence is believed only when the watcher saw it twice.
    let believed = listing.has_refs && listing.absence_confirmed;
    for name in &followed {
        if let Some(commit) = listed.get(name.as_str())
            && known.heads.get(name) != Some(commit)
        {
            following.moved.push((name.clone(), *commit));
        }
    }
    if scope == Scope::Source {
        let keep = |name: &str| followed.contains(name) && (listed.contains_key(name) || !believed);
        following.absent = listing.has_refs
            && followed
                .iter()
                .any(|name| known.heads.contains_key(name) && !listed.contains_key(name.as_str()));
        following.gone = known.heads.keys().filter(|name| !keep(name)).cloned().collect();
    }
    following
}

/// The branch of a cursor after a listing.
fn branch_of(watch: &KnownWatch, cursor: &KnownCursor, head_ref: Option<&str>) -> String {
    match (watch.selector.kind, head_ref) {
        (SelectorKind::DefaultBranch, Some(head)) => head.to_owned(),
        _ => cursor.branch.clone(),
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
        CursorState::Blocked => CursorState::Blocked,
        _ if listed.contains_key(branch) => CursorState::Active,
        // A default branch that was just renamed was not asked for by its new name.
        state if branch != cursor.branch && has_refs && !known.heads.contains_key(branch) => state,
        // One listing without it is no proof that it is gone.
        state if has_refs && !listing.absence_confirmed && known.heads.contains_key(branch) => state,
        _ if has_refs => CursorState::BranchMissing,
        _ if untouched => CursorState::Empty,
        state => state,
    }
}

/// The state of a cursor that is no longer blocked. The next listing tells missing from empty.
#[must_use]
pub fn unblocked(head: Option<ObjectId>) -> CursorState {
    if head.is_some() { CursorState::Active } else { CursorState::BranchMissing }
}

#[cfg(test)]
mod tests;
