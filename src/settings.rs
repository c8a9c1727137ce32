//! Settings: one struct a section, each in its own file below this one. Parsed once, by
//! [`Settings::load`]; all faults are reported together, each with its key, its value (never that
//! of a secret) and where it came from. `config/default.toml` shows every key; a test holds it and
//! the defaults here equal.
//!
//! An empty text means that the key is not set, because TOML and the environment have no other word
//! for it: the default stands.

mod database;
mod delivery;
mod hooks;
mod housekeeping;
mod identity;
mod load;
mod onboarding;
mod server;
mod watch;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
pub use tidings_egress::settings::EgressSettings;
use tidings_entity::kind::ReplicaRole;
pub use tidings_git::settings::GitSettings;
pub use tidings_section::{Fault, Rate, duration, optional, secret, secrets};
pub use tidings_telemetry::settings::{LogFormat, Ratio, TelemetrySettings};

pub(crate) use self::load::DEFAULTS;
pub use self::{
    database::DatabaseSettings,
    delivery::{DeliverySettings, History},
    hooks::HooksSettings,
    housekeeping::HousekeepingSettings,
    identity::IdentitySettings,
    load::ENVIRONMENT_PREFIX,
    onboarding::{OnboardingMode, OnboardingSettings},
    server::ServerSettings,
    watch::WatchSettings,
};

/// Every setting of the system.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Database, keyring, the admin token and, unless another place is named, mirrors lie here (mode 0700).
    pub data_dir: PathBuf,
    /// A keyring that a start copies into a data directory which has none; not set: one is made.
    #[serde(with = "optional")]
    pub keyring_file: Option<PathBuf>,
    /// Where rows are kept.
    pub database: DatabaseSettings,
    /// The HTTP front door.
    pub server: ServerSettings,
    /// Who may register an app.
    pub onboarding: OnboardingSettings,
    /// Tokens of an external issuer for the staff.
    pub identity: IdentitySettings,
    /// What may be reached from here.
    pub egress: EgressSettings,
    /// Polling and fetching.
    pub git: GitSettings,
    /// Hooks of Git hosts.
    pub hooks: HooksSettings,
    /// Bringing changes to apps.
    pub delivery: DeliverySettings,
    /// Guards of each watch.
    pub watch: WatchSettings,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
    /// What is thrown away, and when.
    pub housekeeping: HousekeepingSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            keyring_file: None,
            database: DatabaseSettings::default(),
            server: ServerSettings::default(),
            onboarding: OnboardingSettings::default(),
            identity: IdentitySettings::default(),
            egress: EgressSettings::default(),
            git: GitSettings::default(),
            hooks: HooksSettings::default(),
            delivery: DeliverySettings::default(),
            watch: WatchSettings::default(),
            telemetry: TelemetrySettings::default(),
            housekeeping: HousekeepingSettings::default(),
        }
    }
}

impl Settings {
    /// The address of the database: the one that was set, or the SQLite file in the data
    /// directory. May hold a password.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.database.url_in(&self.data_dir)
    }

    /// All settings as TOML-like JSON, secrets replaced by a word.
    #[must_use]
    pub fn redacted(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("settings are plain data")
    }

    fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.data_dir.as_os_str().is_empty() {
            faults.push(Fault::new("data_dir", "\"\" is no directory"));
        }
        faults.extend(self.database.validate());
        faults.extend(self.server.validate());
        if self.server.role != ReplicaRole::All && !self.database.is_shared() {
            let message = format!(
                "\"{}\" leaves something to other servers, and with a SQLite file there are none: set \
                 database.url to a PostgreSQL database",
                self.server.role
            );
            faults.push(Fault::new("server.role", message));
        }
        faults.extend(self.onboarding.validate());
        faults.extend(self.identity.validate());
        faults.extend(self.egress.validate());
        faults.extend(self.git.validate());
        faults.extend(self.hooks.validate());
        faults.extend(self.delivery.validate());
        faults.extend(self.telemetry.validate());
        faults.extend(self.housekeeping.validate());
        faults
    }
}

#[cfg(test)]
mod tests;
