//! Rounds and their changes as data. The list of changes is a pure function of a [`RoundSpec`]: the
//! difference of two filtered trees, ordered deletes, creates, updates, each by raw path bytes.
//! [`crate::ports::GitSource`] computes the list; this file has its data types, the digest over it and the id
//! of each change.

use data_encoding::{Encoding, Specification};
use sha2::{Digest, Sha256};
use std::{fmt, sync::LazyLock};
use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, Sha256Hash},
    kind::{Operation, PayloadFormat, RoundKind},
};

use crate::{model::view::View, time::Timestamp};

/// The version of the order, encoding and body format under which this binary begins rounds. Version 1 had
/// another list for rounds with bound letters.
pub const RULES: i32 = 2;

/// A file in a tree: its mode and its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The Git mode as stored (100644, 100755, 100664, 120000).
    pub mode: u32,
    /// The Git object id of the file's content.
    pub blob: ObjectId,
}

/// One change of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the file is created, updated or deleted.
    pub operation: Operation,
    /// The raw path bytes, `/` between components.
    pub path: Vec<u8>,
    /// The file that the app has; `None`: no file, or it is unknown which.
    pub old: Option<Entry>,
    /// The file that the app gets; `None` for a delete.
    pub new: Option<Entry>,
    /// In a redrive: the id of the delivery that was parked.
    pub replay_of: Option<DeliveryId>,
}

/// An open dead letter as a round sees it. The file that the app has is always unknown: the parked change, or
/// an earlier one, may have been applied although the receiver refused it or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Id of the dead letter, `dead_` and a ULID.
    pub id: DeadLetterId,
    /// The path it is about; a cursor has at most one open letter per path.
    pub path: Vec<u8>,
    /// The file that the app had before the first parked change of the path; `None`: none. It decides the
    /// operation of the next change and proves nothing: a path that the target has is sent even if the target
    /// equals it, and a path that the target lacks is deleted.
    pub before: Option<Entry>,
    /// The id of the delivery that was parked.
    pub delivery: DeliveryId,
}

/// One end of a round: a commit under a view. `None` is the empty tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEnd {
    /// The commit whose tree is used.
    pub commit: ObjectId,
    /// The view that the tree is filtered by.
    pub view: View,
}

/// The rule that makes the list, by kind (the comment below this struct).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundSpec {
    /// The rule that makes the list (below).
    pub kind: RoundKind,
    /// The tree that the app holds; `None`: nothing.
    pub held: Option<TreeEnd>,
    /// The tree that the round brings the app to; `None`: nothing (the branch of a pattern vanished).
    pub target: Option<TreeEnd>,
    /// For a resync: every tree of which the app may hold files, `held` among them.
    pub bases: Vec<TreeEnd>,
    /// The letters bound to the round, sorted by path.
    pub letters: Vec<Letter>,
}

// How a list is made, by kind:
// - `Sync` and `Replay`: entries(held) against entries(target). Equal entries give nothing. At the path of
//   a bound letter `Letter::before` stands for entries(held), and always gives a change: a delete where the
//   target lacks the path, else a create or an update. A sync round binds the letters whose paths it touches,
//   a replay binds every open letter.
// - `Resync`: deletes of each path of any base tree or letter that entries(target) lacks (`old` of a delete
//   is the entry of the first base that has it), then creates of all entries(target).
// - `Redrive`: only the bound letters' paths, as above. An entry whose mode class differs (file against
//   symlink) is a delete and a create of one path. Under a view that sends content which the held view left
//   out (rule none -> inline, or a size between the two maxima) an unchanged entry is an update with `old` =
//   `new`.

/// Counts and digest of a round's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The number of deletes in the list.
    pub deletes: u64,
    /// The number of creates in the list.
    pub creates: u64,
    /// The number of updates in the list.
    pub updates: u64,
    /// [`ListDigest`] over all changes in order.
    pub digest: Sha256Hash,
}

impl Summary {
    /// The number of changes in the list.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.deletes + self.creates + self.updates
    }
}

/// The plan of a list: which letters a sync round binds, and the summary with those bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The letters to bind, sorted by path.
    pub letters: Vec<Letter>,
    /// Counts and digest of the list, bound letters included.
    pub summary: Summary,
}

/// The digest of a list: SHA-256 over (operation, path length, path, modes, blobs) of each change,
/// without cursor and round, so that equal differences of different cursors have equal digests.
#[derive(Default)]
pub struct ListDigest(Sha256);

impl ListDigest {
    /// Adds the next change.
    pub fn add(&mut self, change: &Change) {
        hash_change(&mut self.0, change);
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn finish(self) -> Sha256Hash {
        Sha256Hash::new(self.0.finalize().into())
    }
}

/// The id of a change of a round, the `webhook-id` of its delivery: `dlv_` and the base32 of a
/// SHA-256. It never changes over retries, restarts and replicas and never names two changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(String);

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 distinct symbols")
});

impl DeliveryId {
    /// Names `change` of round `round` of `cursor`.
    #[must_use]
    pub fn of(cursor: &CursorId, round: i64, change: &Change) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"v1");
        hasher.update([0]);
        hasher.update(cursor.as_str());
        hasher.update([0]);
        hasher.update(round.to_be_bytes());
        hash_change(&mut hasher, change);
        Self(format!("dlv_{}", BASE32.encode(&hasher.finalize())))
    }

    /// Names a notice (`resync`, `synced`, ...) of a round.
    #[must_use]
    pub fn of_notice(cursor: &CursorId, round: i64, kind: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"v1-notice");
        hasher.update([0]);
        hasher.update(cursor.as_str());
        hasher.update([0]);
        hasher.update(round.to_be_bytes());
        hasher.update(kind);
        Self(format!("dlv_{}", BASE32.encode(&hasher.finalize())))
    }

    /// Names a batch by the ids of its changes, in their order. All ids count: after an answer that accepted
    /// some changes, a batch with the same first and last change may hold other changes.
    #[must_use]
    pub fn of_batch<'d>(changes: impl IntoIterator<Item = &'d Self>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"v1-batch");
        for change in changes {
            hasher.update([0]);
            hasher.update(change.as_str());
        }
        Self(format!("bat_{}", BASE32.encode(&hasher.finalize())))
    }

    /// Names a test delivery to an app; `salt` makes the name unique.
    #[must_use]
    pub fn of_test(app: &AppId, salt: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"v1-test");
        hasher.update([0]);
        hasher.update(app.as_str());
        hasher.update([0]);
        hasher.update(salt);
        Self(format!("dlv_{}", BASE32.encode(&hasher.finalize())))
    }

    /// Names the task of a round, where the round becomes one task.
    #[must_use]
    pub fn of_round(cursor: &CursorId, round: i64) -> Self {
        Self::of_notice(cursor, round, "round")
    }

    /// Takes an id back from a row.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn hash_change(hasher: &mut Sha256, change: &Change) {
    hasher.update([match change.operation {
        Operation::Delete => b'd',
        Operation::Create => b'c',
        Operation::Update => b'u',
    }]);
    hasher.update((change.path.len() as u64).to_be_bytes());
    hasher.update(&change.path);
    for entry in [change.old, change.new] {
        match entry {
            None => hasher.update([0]),
            Some(entry) => {
                hasher.update([1]);
                hasher.update(entry.mode.to_be_bytes());
                hasher.update(entry.blob.as_bytes());
            }
        }
    }
}

/// A round as it was begun: its spec, its frozen display and how far it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The cursor it belongs to.
    pub cursor: CursorId,
    /// The number of the round, strictly rising per cursor.
    pub number: i64,
    /// The specification that decides the list of the round.
    pub spec: RoundSpec,
    /// The counts and digest of the list when the round was begun.
    pub summary: Summary,
    /// The [`RULES`] it was begun under.
    pub rules: i32,
    /// The `timestamp` of every body.
    pub began_at: Timestamp,
    /// The full ref name at the beginning (`refs/heads/main`).
    pub branch: String,
    /// The address shown in bodies (`github_url`).
    pub url: String,
    /// The format of its bodies: that of the sink when the round began or, where the changes go to another
    /// sink or kind of sink since, that of the new sink.
    pub format: PayloadFormat,
    /// The history before the target was rewritten.
    pub history_rewritten: bool,
    /// Commits between held and target were skipped because the limit was reached.
    pub skipped_commits: bool,
    /// A base could not be fetched anywhere: the app must drop files that the round does not name.
    pub complete: bool,
    /// The length of the settled prefix: 0 to `summary.total()`.
    pub position: u64,
}

impl Round {
    /// Whether this binary computes the same list as the binary that began the round.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.rules == RULES || (self.rules == RULES - 1 && self.spec.letters.is_empty())
    }

    /// The branch as people say it: the ref name without `refs/heads/` or `refs/tags/`.
    #[must_use]
    pub fn branch_name(&self) -> &str {
        short_ref(&self.branch)
    }
}

/// A ref name without `refs/heads/` or `refs/tags/`.
#[must_use]
pub fn short_ref(name: &str) -> &str {
    name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_entity::id::ObjectId;
    use ulid::Ulid;

    fn change() -> Change {
        Change {
            operation: Operation::Update,
            path: b"a/b".to_vec(),
            old: Some(Entry { mode: 0o100_644, blob: ObjectId::new([1; 20]) }),
            new: Some(Entry { mode: 0o100_644, blob: ObjectId::new([2; 20]) }),
            replay_of: None,
        }
    }

    #[test]
    fn an_id_is_pinned_for_ever() {
        let cursor = CursorId::new(Ulid::from_parts(1, 1));
        expect_test::expect!["dlv_"].assert_eq(&DeliveryId::of(&cursor, 7, &change()).as_str()[..4]);
        let id = DeliveryId::of(&cursor, 7, &change());
        assert_eq!(id.as_str().len(), 4 + 52);
        assert_eq!(id, DeliveryId::of(&cursor, 7, &change()));
    }

    #[test]
    fn every_part_of_a_change_is_in_its_id() {
        let cursor = CursorId::new(Ulid::from_parts(1, 1));
        let base = DeliveryId::of(&cursor, 7, &change());
        let mut others = vec![
            DeliveryId::of(&CursorId::new(Ulid::from_parts(1, 2)), 7, &change()),
            DeliveryId::of(&cursor, 8, &change()),
        ];
        for edit in [
            |change: &mut Change| change.operation = Operation::Create,
            |change: &mut Change| change.path.push(b'x'),
            |change: &mut Change| change.old = None,
            |change: &mut Change| change.new = None,
        ] {
            let mut other = change();
            edit(&mut other);
            others.push(DeliveryId::of(&cursor, 7, &other));
        }
        for other in others {
            assert_ne!(base, other);
        }
    }
}
