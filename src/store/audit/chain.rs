//! The chain of the audit log: the hashed text of each row, and how the chain is checked.
//!
//! **Canonical form, version 3.** The hash of a row is HMAC-SHA-256, with the key that the row names
//! ([`AuditKeys`]), over the text `tidings audit v3` and these fields, each as UTF-8 after its length in
//! bytes (8 bytes, big-endian): id, moment (unix milliseconds), actor, app, action, target, result, request,
//! hash of the previous row (64 hexadecimal digits), id of the key, address of the client. Numbers are
//! decimal. The first row has 64 zeros as the previous hash.
//!
//! **Version 2**, for rows without an address: the same with `tidings audit v2`, without the last field.
//!
//! **Version 1**, for rows without a key: SHA-256 over `tidings audit v1` and the fields of version 2 except
//! the last. Such a row never comes after a row with a key.
//!
//! **Old rows are removed** together with a new row that says so: its action is [`PRUNED`] and its target
//! names the last removed row, as `<id>:<hash>`. A log that begins later than that was cut.
//!
//! A chain reveals each row that was changed, added or removed, even by an attacker who can write to the
//! database but has no keyring. Such an attacker can only remove the end of the log, or rewrite all of it
//! without keys, which shows in the first row with a key. Against that, store the id and hash of the last row
//! elsewhere (each export ends with it) and let [`Chain`] search for it.

use std::{collections::BTreeSet, fmt};

use tidings_actors::ports::{AuditEntry, AuditRow};
use tidings_entity::id::Sha256Hash;
use tidings_secrets::AuditKeys;

/// The action of rows that report removed older rows.
pub const PRUNED: &str = "audit.prune";
/// The result of a successful act.
pub const OK: &str = "ok";
/// The actor of acts that no request asked for.
pub const SYSTEM: &str = "system";
/// The most faults that are listed.
const FAULTS_TOLD: usize = 100;

/// The hash that the first row of all names.
#[must_use]
fn beginning() -> Sha256Hash {
    Sha256Hash::new([0; 32])
}

/// The hash that a row should have; `None` if its key is unknown here.
fn hash(row: &AuditRow, keys: &AuditKeys) -> Option<Sha256Hash> {
    let AuditEntry { at, actor, app, action, target, result, request, address } = &row.entry;
    let version = match (&row.key, address) {
        (_, Some(_)) => "tidings audit v3",
        (Some(_), None) => "tidings audit v2",
        (None, None) => "tidings audit v1",
    };
    let mut text = version.as_bytes().to_vec();
    let (id, at, previous) = (row.id.to_string(), at.0.to_string(), row.previous.to_string());
    let fields = [&id, &at, actor, app, action, target, result, request, &previous];
    for field in fields.into_iter().chain(&row.key).chain(address) {
        text.extend((field.len() as u64).to_be_bytes());
        text.extend(field.as_bytes());
    }
    match &row.key {
        None => Some(Sha256Hash::of(&text)),
        Some(key) => keys.authenticate(key, &text),
    }
}

/// The row that an entry becomes behind `last`.
#[must_use]
pub(super) fn next(last: Option<(i64, Sha256Hash)>, entry: AuditEntry, keys: &AuditKeys) -> AuditRow {
    let (id, previous) = last.map_or((1, beginning()), |(id, hash)| (id + 1, hash));
    let key = Some(keys.primary().to_owned());
    let row = AuditRow { id, entry, previous, key, hash: beginning() };
    let hash = hash(&row, keys).expect("the primary key is among the keys");
    AuditRow { hash, ..row }
}

/// A fault of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The content of the row is not the content that was hashed.
    Changed(i64),
    /// Rows that are not there.
    Missing(i64, i64),
    /// The previous row is not the row that this one was written after: one of them was replaced.
    Replaced(i64),
    /// The row names no key, although an earlier row does.
    Unkeyed(i64),
    /// The row names a key that the keyring lacks.
    UnknownKey(i64, String),
    /// The log begins with this row, and no row reports the removal of earlier ones.
    Cut(i64),
    /// The row that was stored elsewhere is missing, or has another hash.
    Forgotten(i64),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(id) => write!(formatter, "row {id} was changed"),
            Self::Missing(from, to) if from == to => write!(formatter, "row {from} was removed"),
            Self::Missing(from, to) => write!(formatter, "rows {from} to {to} were removed"),
            Self::Replaced(id) => write!(formatter, "row {id} was replaced or put in"),
            Self::Unkeyed(id) => write!(formatter, "row {id} was written without a key"),
            Self::UnknownKey(id, key) => {
                write!(formatter, "row {id} names the key {key}, which the keyring lacks")
            }
            Self::Cut(id) => write!(formatter, "rows before {id} were removed"),
            Self::Forgotten(id) => write!(formatter, "row {id} is not the one that was kept elsewhere"),
        }
    }
}

/// Checks a log, row after row.
#[derive(Debug, Default)]
pub struct Chain {
    /// `None`: rows with a key are counted, and not checked.
    keys: Option<AuditKeys>,
    keyed_from: Option<i64>,
    unchecked: u64,
    first: Option<(i64, Sha256Hash)>,
    last: Option<(i64, Sha256Hash)>,
    pruned: BTreeSet<(i64, Sha256Hash)>,
    kept: Option<(i64, Sha256Hash)>,
    rows: u64,
    faults: Vec<Fault>,
}

/// The result of checking a chain.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that were looked at.
    pub rows: u64,
    /// The id and hash of the last row.
    pub last: Option<(i64, Sha256Hash)>,
    /// The first row whose hash was made with a key.
    pub keyed_from: Option<i64>,
    /// Rows of which only the place was checked: no key is here.
    pub unchecked: u64,
    /// The faults, at most a hundred; empty if there is none.
    pub faults: Vec<Fault>,
}

impl Chain {
    /// A check with these keys of a chain that must contain the row `kept`, which was stored elsewhere.
    #[must_use]
    pub fn with(kept: Option<(i64, Sha256Hash)>, keys: Option<AuditKeys>) -> Self {
        Self { kept, keys, ..Self::default() }
    }

    /// Looks at the next row.
    pub fn take(&mut self, row: &AuditRow) {
        self.rows += 1;
        match self.last {
            None => self.first = Some((row.id - 1, row.previous)),
            Some((last, _)) if row.id > last + 1 => self.fault(Fault::Missing(last + 1, row.id - 1)),
            Some((last, _)) if row.id <= last => self.fault(Fault::Replaced(row.id)),
            Some((last, hash)) if hash != row.previous => self.fault(Fault::Replaced(last)),
            Some(_) => {}
        }
        self.check(row);
        if row.entry.action == PRUNED && row.entry.actor == SYSTEM {
            self.pruned.extend(named(&row.entry.target));
        }
        if self.kept == Some((row.id, row.hash)) {
            self.kept = None;
        }
        self.last = Some((row.id, row.hash));
    }

    /// Checks the hash of a row, regardless of its place.
    fn check(&mut self, row: &AuditRow) {
        match (&row.key, &self.keys) {
            (None, _) if self.keyed_from.is_some() => self.fault(Fault::Unkeyed(row.id)),
            (Some(_), None) => self.unchecked += 1,
            (key, keys) => match (hash(row, keys.as_ref().unwrap_or(&AuditKeys::default())), key) {
                (Some(hash), _) if hash == row.hash => {}
                (None, Some(key)) => self.fault(Fault::UnknownKey(row.id, key.clone())),
                _ => self.fault(Fault::Changed(row.id)),
            },
        }
        if row.key.is_some() {
            self.keyed_from.get_or_insert(row.id);
        }
    }

    /// Ends the check and returns its verdict.
    #[must_use]
    pub fn end(mut self) -> Verdict {
        if let Some(first) = self.first {
            // Old rows may be removed while the log is read: each reported removal is a valid beginning.
            if first != (0, beginning()) && !self.pruned.contains(&first) {
                self.fault(Fault::Cut(first.0 + 1));
            }
        }
        // A stored row that was removed since as an old row is not missing.
        if let Some((id, _)) = self.kept
            && self.first.is_none_or(|(before, _)| id > before)
        {
            self.fault(Fault::Forgotten(id));
        }
        let Self { rows, last, keyed_from, unchecked, faults, .. } = self;
        Verdict { rows, last, keyed_from, unchecked, faults }
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(fault);
        }
    }
}

/// A row as it is named elsewhere: `<id>:<hash>`.
#[must_use]
pub fn named(text: &str) -> Option<(i64, Sha256Hash)> {
    let (id, hash) = text.split_once(':')?;
    Some((id.parse().ok()?, hash.parse().ok()?))
}

#[cfg(test)]
mod tests;
