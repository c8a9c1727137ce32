//! Tokens (JWT) of external issuers: their kind, how they are checked, and what they allow. The keys of the
//! section itself describe one issuer for the staff; `[identity.issuers.<name>]` describes further issuers,
//! of both kinds.

mod issuers;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tidings_actors::model::permission::roles::Roles;
use url::Url;

pub use self::issuers::{IssuerSettings, Opens};
use super::{Fault, duration, optional};

/// The signature algorithms that can be checked. All are asymmetric: with a shared secret every
/// server that checks could also sign.
const ALGORITHMS: [&str; 6] = ["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"];
/// The default algorithms of the issuer of the section itself.
const ALGORITHMS_OF_ONE: [&str; 3] = ["RS256", "ES256", "EdDSA"];
/// The name of the issuer that the section itself describes.
const OF_SECTION: &str = "staff";
/// The largest difference between two clocks that is borne.
const LEEWAY_MAX: Duration = Duration::from_mins(5);

/// Tokens of an external issuer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySettings {
    /// The issuer, exactly as its tokens name it (`iss`). None: no such token opens anything.
    #[serde(with = "optional")]
    pub issuer: Option<String>,
    /// The value that `aud` of a token must have; not set: it is not checked.
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
    /// The values of the claim that give the role operator.
    pub operators: Vec<String>,
    /// The values of the claim that give the role admin.
    pub admins: Vec<String>,
    /// How far the clocks may be apart.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// For how long keys are used before they are asked for again.
    #[serde(with = "duration")]
    pub keys_fresh: Duration,
    /// More issuers, by their names.
    pub issuers: BTreeMap<String, IssuerSettings>,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            issuer: None,
            audience: None,
            jwks_url: None,
            algorithms: words(&ALGORITHMS_OF_ONE),
            role_claim: "roles".to_owned(),
            viewers: words(&["tidings-viewer"]),
            operators: words(&["tidings-operator"]),
            admins: words(&["tidings-admin"]),
            leeway: Duration::from_secs(30),
            keys_fresh: Duration::from_mins(10),
            issuers: BTreeMap::new(),
        }
    }
}

impl IdentitySettings {
    /// Every issuer by its name. The one of the section itself is called `staff`.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, IssuerSettings> {
        let mut all = self.issuers.clone();
        if self.issuer.is_some() {
            let roles = [("viewer", &self.viewers), ("operator", &self.operators), ("admin", &self.admins)];
            let of_section = IssuerSettings {
                opens: Some(Opens::Staff),
                issuer: self.issuer.clone(),
                audience: self.audience.clone(),
                jwks_url: self.jwks_url.clone(),
                algorithms: self.algorithms.clone(),
                leeway: self.leeway,
                keys_fresh: self.keys_fresh,
                role_claim: self.role_claim.clone(),
                roles: roles.map(|(role, values)| (role.to_owned(), values.clone())).into(),
                ..IssuerSettings::default()
            };
            all.insert(OF_SECTION.to_owned(), of_section);
        }
        all
    }

    pub(super) fn validate(&self, roles: &Roles) -> Vec<Fault> {
        let mut faults = Vec::new();
        let given = [self.issuer.is_some(), self.audience.is_some(), self.jwks_url.is_some()];
        if given.contains(&true) && given.contains(&false) {
            let message = "issuer, audience and jwks_url are set together, or none of them";
            faults.push(Fault::new("identity.issuer", message));
        }
        for (part, reason) in issuers::algorithm_faults(&self.algorithms) {
            faults.push(Fault::new(format!("identity.{part}"), reason));
        }
        if self.role_claim.is_empty() {
            faults.push(Fault::new("identity.role_claim", "\"\" is no claim"));
        }
        if self.leeway > LEEWAY_MAX {
            faults.push(Fault::new("identity.leeway", "it is 5m at most: tokens would live too long"));
        }
        faults.extend(Fault::of_zero("identity.keys_fresh", self.keys_fresh));
        faults.extend(self.issuers.iter().flat_map(|(name, issuer)| issuer.validate(name, roles)));
        faults.extend(self.faults_of_names());
        faults
    }

    /// Faults of issuers that their tokens could not tell apart.
    fn faults_of_names(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.issuer.is_some() && self.issuers.contains_key(OF_SECTION) {
            let message = "identity.issuer is called staff already: give this one another name";
            faults.push(Fault::new(format!("identity.issuers.{OF_SECTION}.issuer"), message));
        }
        let all = self.all();
        for (name, issuer) in &self.issuers {
            let is_alike = |(other, settings): &(&String, &IssuerSettings)| {
                *other < name && (&settings.issuer, &settings.audience) == (&issuer.issuer, &issuer.audience)
            };
            if let Some((other, _)) = all.iter().find(is_alike).filter(|_| issuer.issuer.is_some()) {
                let message =
                    format!("{other} has the same issuer and audience: give each an audience of its own");
                faults.push(Fault::new(format!("identity.issuers.{name}.audience"), message));
            }
        }
        faults
    }
}
