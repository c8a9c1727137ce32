//! Settings: one struct a section, each in its own file below this one. Parsed once, by [`Settings::load`];
//! all faults are reported together, each with its key, its value (never that of a secret) and where it came
//! from. `config/default.toml` shows every key; a test holds it and the defaults here equal.
//!
//! An empty text means that the key is not set, because TOML and the environment have no other way to say
//! that: the default applies.

mod artifacts;
mod database;
mod delivery;
mod hooks;
mod housekeeping;
mod identity;
mod load;
mod mail;
mod onboarding;
mod roles;
mod server;
mod watch;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use tidings_actors::model::permission::roles::Roles;
pub use tidings_egress::settings::EgressSettings;
use tidings_entity::kind::ReplicaRole;
pub use tidings_git::settings::GitSettings;
pub use tidings_section::{Fault, Rate, duration, optional, secret, secrets, word};
pub use tidings_telemetry::settings::{LogFormat, Ratio, TelemetrySettings};

pub use self::{
    artifacts::ArtifactsSettings,
    database::DatabaseSettings,
    delivery::{DeliverySettings, History},
    hooks::HooksSettings,
    housekeeping::HousekeepingSettings,
    identity::{IdentitySettings, IssuerSettings, Opens},
    load::ENVIRONMENT_PREFIX,
    mail::{Encryption, MailSettings},
    onboarding::{OnboardingMode, OnboardingSettings},
    roles::RoleSettings,
    server::ServerSettings,
    watch::WatchSettings,
};
pub(crate) use self::{load::DEFAULTS, server::fault_of_admin_token};
use crate::sinks::mail::{MailServer, address::AllowList};

/// Every setting of the system.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Database, keyring, the admin token and, unless another place is named, mirrors lie here (mode 0700).
    pub data_dir: PathBuf,
    /// A keyring that a start copies into a data directory which has none; not set: one is made.
    #[serde(with = "optional")]
    pub keyring_file: Option<PathBuf>,
    /// The database that rows are kept in.
    pub database: DatabaseSettings,
    /// The HTTP server: listeners, limits and proxies.
    pub server: ServerSettings,
    /// Who may register an app.
    pub onboarding: OnboardingSettings,
    /// Tokens of an external issuer for the staff.
    pub identity: IdentitySettings,
    /// Roles of the operator beside viewer, operator and admin, by their names.
    pub roles: BTreeMap<String, RoleSettings>,
    /// Where requests may go, and which certificates they trust.
    pub egress: EgressSettings,
    /// Scans of Git hosts and fetches from them.
    pub git: GitSettings,
    /// Files that belong to tasks.
    pub artifacts: ArtifactsSettings,
    /// Hooks of Git hosts.
    pub hooks: HooksSettings,
    /// Deliveries to apps; an app's own settings override these.
    pub delivery: DeliverySettings,
    /// Section `[mail]`: the mail server for mails of subscriptions.
    pub mail: MailSettings,
    /// Guards of each watch.
    pub watch: WatchSettings,
    /// Logs, traces and metrics, and where they are exported.
    pub telemetry: TelemetrySettings,
    /// How long old rows are kept.
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
            roles: BTreeMap::new(),
            egress: EgressSettings::default(),
            git: GitSettings::default(),
            artifacts: ArtifactsSettings::default(),
            hooks: HooksSettings::default(),
            delivery: DeliverySettings::default(),
            mail: MailSettings::default(),
            watch: WatchSettings::default(),
            telemetry: TelemetrySettings::default(),
            housekeeping: HousekeepingSettings::default(),
        }
    }
}

impl Settings {
    /// The addresses that mails may go to.
    #[must_use]
    pub fn mail_allow(&self) -> AllowList {
        self.mail.allow_list(self.onboarding.mode == OnboardingMode::Open)
    }

    /// The server that mails go through; `None`: no mail is sent.
    #[must_use]
    pub fn mail_server(&self) -> Option<MailServer> {
        self.mail.as_server(self.onboarding.mode == OnboardingMode::Open)
    }

    /// The address of the database: the configured one, or the SQLite file in the data directory. It may
    /// contain a password.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.database.url_in(&self.data_dir)
    }

    /// The built-in roles and those of the settings.
    #[must_use]
    pub fn roles(&self) -> Roles {
        roles::resolved(&self.roles).unwrap_or_default()
    }

    /// The folder of artifacts: the configured one, or `artifacts` in the data directory.
    #[must_use]
    pub fn artifacts_dir(&self) -> PathBuf {
        self.artifacts.dir.clone().unwrap_or_else(|| self.data_dir.join("artifacts"))
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
        faults.extend(self.identity.validate(&self.roles()));
        faults.extend(roles::resolved(&self.roles).err().into_iter().flatten());
        faults.extend(self.egress.validate());
        faults.extend(self.git.validate());
        faults.extend(self.artifacts.validate());
        faults.extend(self.hooks.validate());
        faults.extend(self.delivery.validate());
        faults.extend(self.mail.validate());
        faults.extend(self.telemetry.validate());
        faults.extend(self.housekeeping.validate());
        faults
    }
}

#[cfg(test)]
mod tests;
