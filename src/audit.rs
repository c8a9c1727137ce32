//! The audit log: what is hashed, how a chain is checked, and how the deed of a request comes into
//! the transaction of its change.
//!
//! **Canonical form, version 1.** The hash of a row is SHA-256 over the text `tidings audit v1` and
//! these fields, each as UTF-8 behind its length in bytes (8 bytes, big-endian): id, moment (unix
//! milliseconds), actor, app, action, target, result, request, hash of the row before (64 hexadecimal
//! digits). Numbers are decimal. The row before the first has the hash of 64 zeros.
//!
//! **Old rows go** together with a row that says so: its action is [`PRUNED`] and its target names
//! the last row that went, as `<id>:<hash>`. A log that begins later than that was cut.
//!
//! A chain shows each row that was changed, put in or taken out. Who can write to the database can
//! also write the whole log anew, or drop its end: against that, keep the id and hash of the last row
//! elsewhere (each export ends with it) and let [`Chain`] look for it.
//!
//! The deed of a request waits in [`Pending`], which goes with the task of the request. The first
//! change that the store makes in that task takes it along, into the same transaction. What changes
//! no row is recorded by the front door, before the answer.
//!
//! Of one action of one app, or of those without a token, at most ten deeds a minute have rows of their own. The others have one
//! together a minute later, whose target is `times:<n>` and whose actor is the app (or `anyone`); those that were
//! counted when the process ends have none.

use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use tidings_actors::ports::{AuditKept, AuditRow, Deed};
use tidings_entity::id::Sha256Hash;

/// What the canonical form begins with.
const VERSION: &str = "tidings audit v1";
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
pub fn beginning() -> Sha256Hash {
    Sha256Hash::new([0; 32])
}

/// The hash of a row.
#[must_use]
pub fn hash(id: i64, deed: &Deed, previous: &Sha256Hash) -> Sha256Hash {
    let Deed { at, actor, app, action, target, result, request } = deed;
    let mut hash = Sha256::new();
    hash.update(VERSION.as_bytes());
    let (id, at, previous) = (id.to_string(), at.0.to_string(), previous.to_string());
    for field in [&id, &at, actor, app, action, target, result, request, &previous] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    Sha256Hash::new(hash.finalize().into())
}

/// The row that a deed becomes behind `last`.
#[must_use]
pub fn next(last: Option<(i64, Sha256Hash)>, deed: Deed) -> AuditRow {
    let (id, previous) = last.map_or((1, beginning()), |(id, hash)| (id + 1, hash));
    let hash = hash(id, &deed, &previous);
    AuditRow { id, deed, previous, hash }
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
            Self::Cut(id) => write!(formatter, "rows before {id} were removed"),
            Self::Forgotten(id) => write!(formatter, "row {id} is not the one that was kept elsewhere"),
        }
    }
}

/// Checks a log, row after row.
#[derive(Debug, Default)]
pub struct Chain {
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
    /// What is wrong, at most a hundred things; empty: nothing.
    pub faults: Vec<Fault>,
}

impl Chain {
    /// A chain in which this row must be, as it was kept elsewhere.
    #[must_use]
    pub fn with(kept: Option<(i64, Sha256Hash)>) -> Self {
        Self { kept, ..Self::default() }
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
        if hash(row.id, &row.deed, &row.previous) != row.hash {
            self.fault(Fault::Changed(row.id));
        }
        if row.deed.action == PRUNED && row.deed.actor == SYSTEM {
            self.pruned.extend(named(&row.deed.target));
        }
        if self.kept == Some((row.id, row.hash)) {
            self.kept = None;
        }
        self.last = Some((row.id, row.hash));
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
        Verdict { rows: self.rows, last: self.last, faults: self.faults }
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

/// A deed on its way into the log.
pub struct Pending {
    /// How much of the log is kept.
    pub kept: AuditKept,
    deed: Mutex<Option<Deed>>,
}

tokio::task_local! {
    static REQUEST: Arc<Pending>;
}

impl Pending {
    /// A deed that no change took along yet.
    #[must_use]
    pub fn of(deed: Deed, kept: AuditKept) -> Arc<Self> {
        Arc::new(Self { kept, deed: Mutex::new(Some(deed)) })
    }

    /// The pending deed of the request that this task serves.
    #[must_use]
    pub fn current() -> Option<Arc<Self>> {
        REQUEST.try_with(Arc::clone).ok()
    }

    /// Does work whose first change takes this deed along.
    pub async fn during<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        REQUEST.scope(self.clone(), work).await
    }

    /// Names what it is done to, where nobody knew before.
    pub fn about(&self, target: &str) {
        if let Some(deed) = self.deed().as_mut() {
            target.clone_into(&mut deed.target);
        }
    }

    /// Takes the deed, if none did before.
    #[must_use]
    pub fn take(&self) -> Option<Deed> {
        self.deed().take()
    }

    /// Gives it back: the change was not made.
    pub fn put_back(&self, deed: Deed) {
        *self.deed() = Some(deed);
    }

    fn deed(&self) -> MutexGuard<'_, Option<Deed>> {
        self.deed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names what the deed of this request is done to, where its path does not: something that is made.
pub fn about(target: &str, app: Option<&str>) {
    let Some(pending) = Pending::current() else { return };
    if let Some(deed) = pending.deed().as_mut() {
        target.clone_into(&mut deed.target);
        if let Some(app) = app {
            app.clone_into(&mut deed.app);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_actors::time::Timestamp;

    use super::*;

    fn deed(number: i64) -> Deed {
        Deed {
            at: Timestamp(1_767_225_600_000 + number),
            actor: "admin".into(),
            app: String::new(),
            action: "post_api_admin_tokens".into(),
            target: format!("tok_{number}"),
            result: OK.into(),
            request: "req_1".into(),
        }
    }

    fn log(length: i64) -> Vec<AuditRow> {
        let mut rows: Vec<AuditRow> = Vec::new();
        for number in 1..=length {
            rows.push(next(rows.last().map(|row| (row.id, row.hash)), deed(number)));
        }
        rows
    }

    fn faults(rows: &[AuditRow]) -> Vec<Fault> {
        let mut chain = Chain::default();
        rows.iter().for_each(|row| chain.take(row));
        chain.end().faults
    }

    #[test]
    fn the_canonical_form_is_the_one_that_is_described() {
        let row = &log(1)[0];
        let fields = [
            "1",
            "1767225600001",
            "admin",
            "",
            "post_api_admin_tokens",
            "tok_1",
            "ok",
            "req_1",
            "0000000000000000000000000000000000000000000000000000000000000000",
        ];
        let mut bytes = b"tidings audit v1".to_vec();
        for field in fields {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field.as_bytes());
        }
        assert_eq!(row.hash, Sha256Hash::of(&bytes));
    }

    #[test]
    fn a_whole_log_has_no_fault_and_every_tampering_is_named() {
        let whole = log(6);
        assert!(faults(&whole).is_empty());
        assert!(faults(&[]).is_empty());
        type Change = fn(&mut Deed);
        let changes: [Change; 7] = [
            |deed| deed.at = Timestamp(deed.at.0 + 1),
            |deed| deed.actor.push('x'),
            |deed| deed.app.push('x'),
            |deed| deed.action.push('x'),
            |deed| deed.target.push('x'),
            |deed| deed.result.push('x'),
            |deed| deed.request.push('x'),
        ];
        for change in changes {
            let mut rows = whole.clone();
            change(&mut rows[2].deed);
            assert_eq!(faults(&rows), [Fault::Changed(3)]);
            // Hashed anew, it is no longer the row that the next one was written behind.
            rows[2] = next(Some((2, rows[1].hash)), rows[2].deed.clone());
            assert_eq!(faults(&rows), [Fault::Replaced(3)]);
        }
        let mut rows = whole.clone();
        rows.remove(2);
        assert_eq!(faults(&rows), [Fault::Missing(3, 3)]);
        rows.remove(2);
        assert_eq!(faults(&rows), [Fault::Missing(3, 4)]);
        assert_eq!(faults(&whole[2..]), [Fault::Cut(3)]);
        let mut rows = whole.clone();
        rows.insert(3, next(Some((3, rows[2].hash)), deed(99)));
        assert_eq!(faults(&rows), [Fault::Replaced(4)], "two rows cannot have one id");
        let mut rows = whole;
        let (one, other) = (rows[1].deed.clone(), rows[2].deed.clone());
        (rows[1].deed, rows[2].deed) = (other, one);
        assert_eq!(faults(&rows), [Fault::Changed(2), Fault::Changed(3)], "rows that changed places");
    }

    #[test]
    fn rows_that_went_with_a_word_are_not_missed_and_others_are() {
        let mut rows = log(5);
        let gone = format!("2:{}", rows[1].hash);
        let prune = Deed { actor: SYSTEM.into(), action: PRUNED.into(), target: gone, ..deed(6) };
        rows.push(next(Some((5, rows[4].hash)), prune));
        assert!(faults(&rows[2..]).is_empty());
        assert_eq!(faults(&rows[3..]), [Fault::Cut(4)], "one more than was said");
    }

    #[test]
    fn a_log_that_was_written_anew_or_cut_at_its_end_lacks_what_was_kept_elsewhere() {
        let rows = log(4);
        let check = |rows: &[AuditRow], kept: (i64, Sha256Hash)| {
            let mut chain = Chain::with(Some(kept));
            rows.iter().for_each(|row| chain.take(row));
            chain.end().faults
        };
        let kept = named(&format!("4:{}", rows[3].hash)).expect("a name");
        assert!(check(&rows, kept).is_empty());
        assert_eq!(check(&rows[..3], kept), [Fault::Forgotten(4)]);
        assert_eq!(check(&rows, (4, beginning())), [Fault::Forgotten(4)]);
        assert_eq!(named("4"), None);
    }
}
