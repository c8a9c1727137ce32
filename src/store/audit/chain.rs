//! The chain of the audit log: what is hashed, and how it is checked.
//!
//! **Canonical form, version 3.** The hash of a row is HMAC-SHA-256, with the key that the row names
//! ([`AuditKeys`]), over the text `tidings audit v3` and these fields, each as UTF-8 behind its length in
//! bytes (8 bytes, big-endian): id, moment (unix milliseconds), actor, app, action, target, result,
//! request, hash of the row before (64 hexadecimal digits), id of the key, address of the client. Numbers are
//! decimal. The row before the first has the hash of 64 zeros.
//!
//! **Version 2**, of rows that name no address: the same with `tidings audit v2`, without the last field.
//!
//! **Version 1**, of rows that name no key: SHA-256 over `tidings audit v1` and the fields of version 2 but
//! the last. Such a row is never behind one that names a key.
//!
//! **Old rows go** together with a row that says so: its action is [`PRUNED`] and its target names
//! the last row that went, as `<id>:<hash>`. A log that begins later than that was cut.
//!
//! A chain shows each row that was changed, put in or taken out, also by whoever can write to the database
//! but has no keyring. What that one can do is to drop the end of the log, or to write all of it anew
//! without keys, which shows in the first row that has one: against that, keep the id and hash of the last
//! row elsewhere (each export ends with it) and let [`Chain`] look for it.

use std::{collections::BTreeSet, fmt};

use tidings_actors::ports::{AuditRow, Deed};
use tidings_entity::id::Sha256Hash;
use tidings_secrets::AuditKeys;

/// The action of rows that say how many older ones went.
pub const PRUNED: &str = "audit.prune";
/// The result of what was done.
pub const OK: &str = "ok";
/// Who does what nobody asked for.
pub const SYSTEM: &str = "system";
/// Most faults that are told one by one.
const FAULTS_TOLD: usize = 100;

/// The hash that the first row of all names.
#[must_use]
fn beginning() -> Sha256Hash {
    Sha256Hash::new([0; 32])
}

/// The hash that a row should have; `None` where its key is not among these.
fn hash(row: &AuditRow, keys: &AuditKeys) -> Option<Sha256Hash> {
    let Deed { at, actor, app, action, target, result, request, address } = &row.deed;
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

/// The row that a deed becomes behind `last`.
#[must_use]
pub(super) fn next(last: Option<(i64, Sha256Hash)>, deed: Deed, keys: &AuditKeys) -> AuditRow {
    let (id, previous) = last.map_or((1, beginning()), |(id, hash)| (id + 1, hash));
    let key = Some(keys.primary().to_owned());
    let row = AuditRow { id, deed, previous, key, hash: beginning() };
    let hash = hash(&row, keys).expect("the primary key is among the keys");
    AuditRow { hash, ..row }
}

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What the row says is not what was hashed.
    Changed(i64),
    /// Rows that are not there.
    Missing(i64, i64),
    /// The row is behind another one than it was written behind: the one before it was replaced.
    Replaced(i64),
    /// The row names no key, and one before it does.
    Unkeyed(i64),
    /// The row names a key that the keyring lacks.
    UnknownKey(i64, String),
    /// The log begins with this row, and no row says that those before it went.
    Cut(i64),
    /// The row that was kept elsewhere is not there, or is another one.
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

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that were looked at.
    pub rows: u64,
    /// Id and hash of the last one.
    pub last: Option<(i64, Sha256Hash)>,
    /// The first row whose hash was made with a key.
    pub keyed_from: Option<i64>,
    /// Rows of which only the place was checked: no key is here.
    pub unchecked: u64,
    /// What is wrong, at most a hundred things; empty: nothing.
    pub faults: Vec<Fault>,
}

impl Chain {
    /// A chain in which this row must be, as it was kept elsewhere, checked with these keys.
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
        if row.deed.action == PRUNED && row.deed.actor == SYSTEM {
            self.pruned.extend(named(&row.deed.target));
        }
        if self.kept == Some((row.id, row.hash)) {
            self.kept = None;
        }
        self.last = Some((row.id, row.hash));
    }

    /// Looks at what a row says, whatever its place.
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

    /// Ends.
    #[must_use]
    pub fn end(mut self) -> Verdict {
        if let Some(first) = self.first {
            // Rows may go while a log is read: any of these is a beginning.
            if first != (0, beginning()) && !self.pruned.contains(&first) {
                self.fault(Fault::Cut(first.0 + 1));
            }
        }
        // What was kept of rows that went since is not missed.
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
