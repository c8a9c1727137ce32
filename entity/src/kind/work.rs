//! The ends of claims, and the ticks that schedules missed.

use std::{fmt, str::FromStr};

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::{Deserialize, Serialize};

use super::UnknownWord;

words! {
    /// How a claim of a task ended.
    ClaimEnd {
        /// Its worker completed the task.
        Completed = "completed",
        /// Its worker gave the task up for good.
        Failed = "failed",
        /// Its worker could not do the task this time.
        Nacked = "nacked",
        /// Its worker did not try the task.
        Abandoned = "abandoned",
        /// Its time was over.
        Expired = "expired",
        /// The database was restored from a backup.
        Voided = "voided",
    }

    /// What a schedule does about ticks that passed while no server ran.
    MissedTicks {
        /// One task for all missed ticks.
        One = "one",
        /// A task for each of them, up to a bound.
        Each = "each",
    }
}
