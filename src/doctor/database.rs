//! Checks the database: whether it is undamaged, of this version, and can be opened with this keyring; and
//! whether the clock has not gone back behind its rows.

use std::{fs, os::unix::fs::MetadataExt};

use tidings_actors::ports::Clock;

use super::Finding;
use crate::{
    app::served,
    secrets::Keyring,
    settings::Settings,
    store::{
        OpenError, copy,
        examine::{self, Examination},
    },
};

/// A clock that is further behind the newest row than this is set wrong; in milliseconds.
const BEHIND_MAX: i64 = 5_000;
const CHECK: &str = "database";
const BACKUP: &str = "stop the server and restore the last backup into an empty data directory";

/// All checks of the database. Returns the data that the other checks need, as far as it could be read.
pub(super) async fn examine(
    settings: &Settings,
    keyring: Option<&Keyring>,
    clock: &dyn Clock,
    findings: &mut Vec<Finding>,
) -> Option<Examination> {
    let url = settings.database_url();
    let file = copy::file_of(&url).ok().flatten();
    if let Some(file) = &file
        && let Ok(facts) = fs::metadata(file)
        && facts.mode() & 0o077 != 0
    {
        findings.push(Finding::fault(
            CHECK,
            format!("{} has mode {:o}: others can read it", file.display(), facts.mode() & 0o7777),
            format!("chmod 600 {}", file.display()),
        ));
    }
    let found = match examine::examine(&url, keyring).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            findings.push(match served::was_here(&settings.data_dir) {
                true => lost("it is gone"),
                false => Finding::ok(CHECK, "there is none yet: the first start makes it"),
            });
            return None;
        }
        Err(error) => {
            let remedy = match &error {
                OpenError::Address(_) => "set database.url to sqlite: or postgres://, or leave it out",
                OpenError::Unreachable(_) => "start the database server, and see that database.url names it",
                OpenError::NewerSchema(_) => "start the version that wrote it, or restore an older backup",
                OpenError::UnfinishedCopy => {
                    "run tidings migrate copy again, or let database.url name the source"
                }
                OpenError::Database(_) if file.is_none() => "correct the cause on the database server",
                _ => BACKUP,
            };
            findings.push(Finding::fault(CHECK, error.to_string(), remedy));
            return None;
        }
    };
    if !found.faults.is_empty() {
        findings.push(Finding::fault(CHECK, format!("it is damaged: {}", found.faults.join("; ")), BACKUP));
        return None;
    }
    findings.push(Finding::ok(CHECK, "it is whole"));
    for (said, remedy) in &found.advice {
        findings.push(Finding::warning(CHECK, said.as_str(), *remedy));
    }
    if found.is_new && served::was_here(&settings.data_dir) {
        findings.push(lost("it is empty"));
        return None;
    }
    if found.missing_steps > 0 {
        let said = format!("its schema is of an older version: {} steps are missing", found.missing_steps);
        findings.push(Finding::warning(CHECK, said, "take a backup; the next start applies them"));
        return None;
    }
    keys(&found, keyring, findings);
    findings.push(match found.latest.0 - clock.now().0 {
        behind if behind > BEHIND_MAX => Finding::fault(
            "clock",
            format!("it is {} s behind the newest time in the database", behind / 1000),
            "set the clock of this machine (is it kept by NTP?)",
        ),
        _ => Finding::ok("clock", "it is not behind the newest time in the database"),
    });
    Some(found)
}

/// The finding that the database of this data directory is missing; `what` describes what is there instead.
fn lost(what: &str) -> Finding {
    Finding::fault(
        CHECK,
        format!("{what}, and this data directory was used with a database before"),
        "put it back, restore the last backup into an empty data directory, or let database.url name it; \
         tidings serve --new-database starts with an empty one",
    )
}

fn keys(found: &Examination, keyring: Option<&Keyring>, findings: &mut Vec<Finding>) {
    const CHECK: &str = "key";
    let Some(keyring) = keyring else { return };
    if let Some(Err(error)) = &found.key {
        let remedy = "put back the keyring that belongs to this database, from a backup that has both";
        findings.push(Finding::fault(CHECK, error.to_string(), remedy));
        return;
    }
    let status = keyring.status();
    let lost: u64 =
        found.sealed.iter().filter(|(key, _)| !status.keys.contains(key)).map(|(_, count)| count).sum();
    let old: u64 =
        found.sealed.iter().filter(|(key, _)| **key != status.primary).map(|(_, count)| count).sum();
    findings.push(if lost > 0 {
        Finding::fault(
            CHECK,
            format!("{} sealed with keys that the keyring lacks", values(lost)),
            "put a keyring back that has them, or let their apps give these secrets again",
        )
    } else if old > 0 {
        Finding::warning(
            CHECK,
            format!("{} sealed with older keys", values(old)),
            "tidings key reencrypt, then tidings key retire",
        )
    } else {
        Finding::ok(CHECK, "the primary key seals everything")
    });
}

/// A count of values with its verb, for sentences.
fn values(count: u64) -> String {
    if count == 1 { "1 value is".to_owned() } else { format!("{count} values are") }
}
