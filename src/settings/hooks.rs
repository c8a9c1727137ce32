//! Hooks of Git hosts: the secrets that they are signed with, and how large they may be.

use std::{ops::RangeInclusive, path::PathBuf};

use serde::{Deserialize, Serialize};
use tidings_actors::model::secret::Secret;

use super::{Fault, optional, secrets};

/// The fewest characters of a secret: a person who guesses it can cause scans.
const SECRET_CHARACTERS_MIN: usize = 16;
/// Most secrets at once; each of them is tried on each body.
const SECRETS_MAX: usize = 8;

/// The allowed sizes of the storage for bodies, in bytes: at the least size, the largest body still fits into
/// the part of one app.
const KEPT_BYTES: RangeInclusive<u64> = (1 << 20)..=(16 << 30);

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
    /// Most bytes that the kept bodies of all hooks take together; 0: none is kept.
    pub kept_bytes: u64,
}

impl Default for HooksSettings {
    fn default() -> Self {
        // GitHub sends at most 25 MB, and a form is larger than the JSON inside it.
        Self { secret: Vec::new(), secret_file: None, body_bytes_max: 32 << 20, kept_bytes: 64 << 20 }
    }
}

impl HooksSettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        let short = |secret: &Secret| secret.expose().chars().count() < SECRET_CHARACTERS_MIN;
        let too_short = self.secret.iter().any(short);
        let too_many = self.secret.len() > SECRETS_MAX;
        let least = format!("a secret has fewer than {SECRET_CHARACTERS_MIN} characters");
        let most = format!("there are {} secrets; at most {SECRETS_MAX} are tried", self.secret.len());
        let kept = self.kept_bytes;
        let is_kept_odd = kept != 0 && !KEPT_BYTES.contains(&kept);
        let kept = format!("{kept} is neither 0 nor between {} and {}", KEPT_BYTES.start(), KEPT_BYTES.end());
        [
            too_short.then(|| Fault::new("hooks.secret", least)),
            too_many.then(|| Fault::new("hooks.secret", most)),
            Fault::of_range("hooks.body_bytes_max", self.body_bytes_max, 1024..=64 << 20),
            is_kept_odd.then(|| Fault::new("hooks.kept_bytes", kept)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
