//! Hooks of Git hosts: the secrets that they are signed with, and how large they may be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidings_actors::secret::Secret;

use super::{Fault, optional, secrets};

/// A secret has at least this many characters: whoever guesses it may have repositories polled.
const SECRET_CHARACTERS_MIN: usize = 16;
/// Most secrets at once; each of them is tried on each body.
const SECRETS_MAX: usize = 8;

/// Hooks of Git hosts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HooksSettings {
    /// The secrets that hosts may sign with: several while one is replaced by the next. None: hooks
    /// are not served.
    #[serde(with = "secrets")]
    pub secret: Vec<Secret>,
    /// A file that holds the secrets, one a line.
    #[serde(with = "optional")]
    pub secret_file: Option<PathBuf>,
    /// Most bytes of a hook's body.
    pub body_bytes_max: u64,
}

impl Default for HooksSettings {
    fn default() -> Self {
        // GitHub sends at most 25 MB, and a form needs more room than what it holds.
        Self { secret: Vec::new(), secret_file: None, body_bytes_max: 32 << 20 }
    }
}

impl HooksSettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        let short = |secret: &Secret| secret.expose().chars().count() < SECRET_CHARACTERS_MIN;
        let too_short = self.secret.iter().any(short);
        let too_many = self.secret.len() > SECRETS_MAX;
        let least = format!("a secret has fewer than {SECRET_CHARACTERS_MIN} characters");
        let most = format!("there are {} secrets; at most {SECRETS_MAX} are tried", self.secret.len());
        [
            too_short.then(|| Fault::new("hooks.secret", least)),
            too_many.then(|| Fault::new("hooks.secret", most)),
            Fault::of_range("hooks.body_bytes_max", self.body_bytes_max, 1024..=64 << 20),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
