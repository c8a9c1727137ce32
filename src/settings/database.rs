//! `database`: the SQLite file or the PostgreSQL server that rows are kept in.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize, Serializer};
use tidings_actors::model::secret::Secret;
use url::Url;

use super::{Fault, duration, optional, secret};

/// The file in the data directory.
const FILE_NAME: &str = "tidings.db";
/// A lease is prolonged at a third of its life: below, a busy database costs leases; above, a dead replica
/// is waited for too long.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// The characters that are encoded in the path of an address.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'?').add(b'#').add(b'%');

/// Where rows are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `sqlite://path` or `postgres://...`; not set: a SQLite file in the data directory.
    #[serde(deserialize_with = "secret::deserialize", serialize_with = "masked")]
    pub url: Option<Secret>,
    /// A file that holds the address, for one with a password.
    #[serde(with = "optional")]
    pub url_file: Option<PathBuf>,
    /// How long a start waits for a PostgreSQL server that is not up yet, in vain at most.
    #[serde(with = "duration")]
    pub start_wait: Duration,
    /// How long a replica that falls silent keeps its share of the work before others take it
    /// (PostgreSQL).
    #[serde(with = "duration")]
    pub lease: Duration,
    /// Whether an unused database is accepted although the data directory was used with another database. No
    /// setting can change this: only `tidings serve --new-database` and `tidings watch` set it.
    #[serde(skip)]
    pub may_be_new: bool,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        let (start_wait, lease) = (Duration::from_secs(60), Duration::from_secs(15));
        Self { url: None, url_file: None, start_wait, lease, may_be_new: false }
    }
}

impl DatabaseSettings {
    pub(super) fn url_in(&self, data_dir: &Path) -> String {
        if let Some(url) = &self.url {
            return url.expose().to_owned();
        }
        let path = data_dir.join(FILE_NAME);
        format!("sqlite://{}?mode=rwc", utf8_percent_encode(&path.to_string_lossy(), PATH))
    }

    /// Whether several processes may share it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let is_server = |url: &Secret| {
            ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme))
        };
        self.url.as_ref().is_some_and(is_server)
    }

    pub(super) fn validate(&self) -> impl Iterator<Item = Fault> {
        let is_known = |url: &Secret| {
            let url = url.expose();
            ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
        };
        let url = self.url.as_ref().filter(|url| !is_known(url));
        let url = url.map(|_| Fault::new("database.url", "this is neither sqlite: nor postgres://"));
        let lease = (!LEASE.contains(&self.lease)).then(|| {
            let (least, most) = (LEASE.start(), LEASE.end());
            Fault::new("database.lease", format!("{:?} is not within {least:?} and {most:?}", self.lease))
        });
        url.into_iter().chain(lease)
    }
}

/// Writes the address without its password.
fn masked<S: Serializer>(url: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(url) = url else { return serializer.serialize_str("") };
    match Url::parse(url.expose()) {
        Ok(url) => serializer.serialize_str(&tidings_section::masked(&url)),
        Err(_) => serializer.serialize_str(secret::REDACTED),
    }
}
