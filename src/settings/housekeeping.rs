//! The ages and numbers at which old rows are removed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Fault, duration};

/// The section `housekeeping`: which old data is deleted, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HousekeepingSettings {
    /// How often old rows and mirrors are looked at.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// For how many days a blob's hash that nothing used is remembered.
    pub blob_days: u32,
    /// For how many days the audit log is kept.
    pub audit_days: u32,
    /// Most rows of the audit log; the oldest go first.
    pub audit_rows: u64,
    /// For how many days entries of ledgers are kept.
    pub ledger_days: u32,
    /// Most entries in the ledger of an app; the oldest go first.
    pub ledger_rows: u64,
    /// Most rows that go in one transaction.
    pub rows_max: u64,
}

impl Default for HousekeepingSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_hours(1),
            blob_days: 90,
            audit_days: 400,
            audit_rows: 1_000_000,
            ledger_days: 90,
            ledger_rows: 1_000_000,
            rows_max: 1000,
        }
    }
}

impl HousekeepingSettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        [
            Fault::of_zero("housekeeping.interval", self.interval),
            Fault::of_range("housekeeping.blob_days", self.blob_days.into(), 1..=36_500),
            Fault::of_range("housekeeping.audit_days", self.audit_days.into(), 1..=36_500),
            Fault::of_range("housekeeping.audit_rows", self.audit_rows, 1_000..=100_000_000),
            Fault::of_range("housekeeping.ledger_days", self.ledger_days.into(), 1..=36_500),
            Fault::of_range("housekeeping.ledger_rows", self.ledger_rows, 1_000..=100_000_000),
            Fault::of_range("housekeeping.rows_max", self.rows_max, 1..=100_000),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
