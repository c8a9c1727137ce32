//! Converts the settings to the numbers that actors need.
//!
//! Each default is written twice: in the sections, which refuse unknown keys and so cannot embed a struct of
//! the actors (serde allows the one or the other), and in [`Policy`], which the actors' own tests start from.
//! The test below holds the two equal.

use tidings_actors::{context::policy::Policy, ports::Replica};

use crate::settings::{History, Settings};

/// The policy of these settings; numbers without a setting are those of [`Policy::default`].
pub(super) fn of(settings: &Settings, replica: Replica) -> Policy {
    Policy {
        replica,
        lease_life: settings.database.lease,
        leaving_max: settings.delivery.drain_deadline,
        poll_min: settings.git.poll_min,
        poll_max: settings.git.poll_max,
        poll_max_hooked: settings.git.poll_max_hooked,
        branch_gone_after: settings.git.branch_gone_after,
        first_delay: settings.delivery.first_delay,
        every_max: settings.git.every_max,
        attempt_timeout: settings.delivery.attempt_timeout,
        retry_base: settings.delivery.retry_base,
        retry_cap: settings.delivery.retry_cap,
        retry_window: settings.delivery.retry_window,
        app_in_flight: settings.delivery.app_max_concurrent as usize,
        app_rate: Some(settings.delivery.app_rate).filter(|rate| *rate > 0),
        in_flight: settings.delivery.max_concurrent as usize,
        readers: settings.git.readers as usize,
        max_delete_percent: settings.watch.max_delete_percent,
        record_all: settings.delivery.history == History::All,
        history: std::time::Duration::from_secs(u64::from(settings.delivery.history_days) * 86_400),
        history_rows: settings.delivery.history_rows,
        blob_age: std::time::Duration::from_secs(u64::from(settings.housekeeping.blob_days) * 86_400),
        ledger_age: std::time::Duration::from_secs(u64::from(settings.housekeeping.ledger_days) * 86_400),
        ledger_rows: settings.housekeeping.ledger_rows,
        mail_interval: settings.mail.digest_interval,
        upkeep_interval: settings.housekeeping.interval,
        upkeep_rows: settings.housekeeping.rows_max,
        packs_max: settings.git.packs_max,
        mirror_max_bytes: settings.git.mirror_max_bytes,
        mirrors_max_bytes: settings.git.mirrors_max_bytes,
        mirrors_shared: settings.git.mirrors_dir.is_some(),
        scrub_every: settings.git.scrub_every,
        survey_interval: settings.telemetry.survey_interval,
        queues: settings.telemetry.queues.clone(),
        ..Policy::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_settings_are_the_default_policy() {
        let usual = Policy::default();
        let of_settings = of(&Settings::default(), usual.replica.clone());
        assert_eq!(format!("{of_settings:#?}"), format!("{usual:#?}"));
    }
}
