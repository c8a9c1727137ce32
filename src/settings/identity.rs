//! Tokens (JWT) of an external issuer for the staff: whose they are, how they are checked, and what
//! they allow.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Fault, duration, optional};

/// The signature algorithms that can be checked. All are asymmetric: with a shared secret every
/// server that checks could also sign.
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];
/// The largest difference between two clocks that is borne.
const LEEWAY_MAX: Duration = Duration::from_mins(5);

/// Tokens of an external issuer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySettings {
    /// The issuer, exactly as its tokens name it (`iss`). None: no such token opens anything.
    #[serde(with = "optional")]
    pub issuer: Option<String>,
    /// Whom its tokens must be for (`aud`).
    #[serde(with = "optional")]
    pub audience: Option<String>,
    /// Where its keys are (JWKS).
    #[serde(with = "optional")]
    pub jwks_url: Option<Url>,
    /// The algorithms that are let in.
    pub algorithms: Vec<String>,
    /// The claim that tells roles: a text or a list of texts; a dot goes into an object.
    pub role_claim: String,
    /// The words of that claim that make a viewer.
    pub viewers: Vec<String>,
    /// Those that make an operator.
    pub operators: Vec<String>,
    /// Those that make an admin.
    pub admins: Vec<String>,
    /// How far the clocks may be apart.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// For how long keys are used before they are asked for again.
    #[serde(with = "duration")]
    pub keys_fresh: Duration,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            issuer: None,
            audience: None,
            jwks_url: None,
            algorithms: words(&ALGORITHMS),
            role_claim: "roles".to_owned(),
            viewers: words(&["tidings-viewer"]),
            operators: words(&["tidings-operator"]),
            admins: words(&["tidings-admin"]),
            leeway: Duration::from_secs(30),
            keys_fresh: Duration::from_mins(10),
        }
    }
}

impl IdentitySettings {
    pub(super) fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let given = [self.issuer.is_some(), self.audience.is_some(), self.jwks_url.is_some()];
        if given.contains(&true) && given.contains(&false) {
            let message = "issuer, audience and jwks_url are set together, or none of them";
            faults.push(Fault::new("identity.issuer", message));
        }
        let unknown = self.algorithms.iter().find(|name| !ALGORITHMS.contains(&name.as_str()));
        if let Some(name) = unknown {
            let message = format!("{name:?} is none of {}", ALGORITHMS.join(", "));
            faults.push(Fault::new("identity.algorithms", message));
        }
        if self.algorithms.is_empty() {
            faults.push(Fault::new("identity.algorithms", "one is needed at least"));
        }
        if self.role_claim.is_empty() {
            faults.push(Fault::new("identity.role_claim", "\"\" is no claim"));
        }
        if self.leeway > LEEWAY_MAX {
            faults.push(Fault::new("identity.leeway", "it is 5m at most: tokens would live too long"));
        }
        faults.extend(Fault::of_zero("identity.keys_fresh", self.keys_fresh));
        faults
    }
}
