//! Where rows are kept.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize, Serializer};
use tidings_actors::secret::Secret;
use url::Url;

use super::{Fault, duration, optional, secret, text};

/// The file in the data directory.
const FILE_NAME: &str = "tidings.db";
/// What may not stand in the path of an address as it is.
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
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self { url: None, url_file: None, start_wait: Duration::from_secs(60) }
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

    pub(super) fn validate(&self) -> Option<Fault> {
        let url = self.url.as_ref()?.expose();
        let known = ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        (!known).then(|| Fault::new("database.url", "this is neither sqlite: nor postgres://"))
    }
}

/// Writes the address without its password.
fn masked<S: Serializer>(url: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(url) = url else { return serializer.serialize_str("") };
    match Url::parse(url.expose()) {
        Ok(url) => serializer.serialize_str(&text::masked(&url)),
        Err(_) => serializer.serialize_str(secret::REDACTED),
    }
}
