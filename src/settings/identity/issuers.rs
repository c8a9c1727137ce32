//! `[identity.issuers.<name>]`: issuers of tokens (JWT), each for the staff or for apps, never for both.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use tidings_actors::model::{
    permission::{
        PermissionSet,
        roles::{Roles, is_name},
    },
    secret::Secret,
};
use url::Url;

use super::super::{Fault, duration, optional, secret};
use super::{ALGORITHMS, LEEWAY_MAX};
use crate::identity::pem;

/// The shortest session that begins with a sign-in.
const SESSION_MIN: Duration = Duration::from_mins(1);
/// The longest one: as long as a session that begins with a token.
const SESSION_MAX: Duration = Duration::from_hours(8);

/// The kind of callers that an issuer makes tokens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Opens {
    /// Tokens of people: they get roles of the staff.
    Staff,
    /// Tokens of programs: each is of one app, with permissions and commands.
    Apps,
}

impl FromStr for Opens {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "staff" => Ok(Self::Staff),
            "apps" => Ok(Self::Apps),
            _ => Err("write staff or apps"),
        }
    }
}

/// An issuer of tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerSettings {
    /// Whose tokens it makes: `staff` or `apps`.
    #[serde(with = "optional")]
    pub opens: Option<Opens>,
    /// The issuer, exactly as its tokens name it (`iss`).
    #[serde(with = "optional")]
    pub issuer: Option<String>,
    /// The value that `aud` of a token must have.
    #[serde(with = "optional")]
    pub audience: Option<String>,
    /// Where its keys are (JWKS).
    #[serde(with = "optional")]
    pub jwks_url: Option<Url>,
    /// Its public keys as PEM, in place of an address.
    #[serde(with = "optional")]
    pub keys: Option<String>,
    /// A file with its public keys as PEM.
    #[serde(with = "optional")]
    pub keys_file: Option<PathBuf>,
    /// The algorithms that are let in.
    pub algorithms: Vec<String>,
    /// How far the clocks may be apart.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// For how long keys are used before they are asked for again.
    #[serde(with = "duration")]
    pub keys_fresh: Duration,
    /// For staff: the claim that tells roles; a dot goes into an object.
    pub role_claim: String,
    /// For staff: each role with the values of that claim that give it.
    pub roles: BTreeMap<String, Vec<String>>,
    /// For apps: the claim that holds the id of the app.
    pub app_claim: String,
    /// For apps: the claim that holds permissions; words that are none are passed over.
    pub permissions_claim: String,
    /// For apps: the claim that holds commands; a token without it may use no command.
    pub commands_claim: String,
    /// For apps: what tokens of this issuer may do at most, as permissions.
    pub most: Vec<String>,
    /// For staff: this server's name at the issuer. Set, people sign in to the dashboard there.
    #[serde(with = "optional")]
    pub client_id: Option<String>,
    /// The secret that belongs to the name.
    #[serde(with = "secret")]
    pub client_secret: Option<Secret>,
    /// A file that holds that secret.
    #[serde(with = "optional")]
    pub client_secret_file: Option<PathBuf>,
    /// The address of this server that the issuer sends browsers back to, below the public address.
    #[serde(with = "optional")]
    pub redirect_url: Option<Url>,
    /// The scopes that the sign-in asks the issuer for.
    pub scopes: Vec<String>,
    /// How long a session lasts that begins with a sign-in. The roles stay until its end, even if the issuer
    /// takes them away meanwhile.
    #[serde(with = "duration")]
    pub session: Duration,
    /// What the button of the sign-in page says; not set: the name of the issuer.
    #[serde(with = "optional")]
    pub label: Option<String>,
}

impl Default for IssuerSettings {
    fn default() -> Self {
        Self {
            opens: None,
            issuer: None,
            audience: None,
            jwks_url: None,
            keys: None,
            keys_file: None,
            algorithms: ALGORITHMS.iter().map(|name| (*name).to_owned()).collect(),
            leeway: Duration::from_secs(30),
            keys_fresh: Duration::from_mins(10),
            role_claim: "roles".to_owned(),
            roles: BTreeMap::new(),
            app_claim: "tenant".to_owned(),
            permissions_claim: "scope".to_owned(),
            commands_claim: "eventTypes".to_owned(),
            most: vec!["*:*".to_owned()],
            client_id: None,
            client_secret: None,
            client_secret_file: None,
            redirect_url: None,
            scopes: vec!["openid".to_owned()],
            session: Duration::from_hours(1),
            label: None,
        }
    }
}

impl IssuerSettings {
    /// Every fault of an issuer of this name.
    pub(super) fn validate(&self, name: &str, roles: &Roles) -> Vec<Fault> {
        let mut faults = Vec::new();
        let at = |part: &str| format!("identity.issuers.{name}.{part}");
        let mut fault = |part: &str, message: String| faults.push(Fault::new(at(part), message));
        if !is_name(name) {
            fault("issuer", "the name of an issuer has 1 to 40 small letters, digits, - and _".to_owned());
        }
        let Some(opens) = self.opens else {
            fault("opens", "set it to \"staff\" or \"apps\": an issuer is for one of the two".to_owned());
            return faults;
        };
        for (part, is_set) in [("issuer", self.issuer.is_some()), ("audience", self.audience.is_some())] {
            if !is_set {
                fault(part, "is needed: a token for somebody else must not open this server".to_owned());
            }
        }
        match (&self.jwks_url, &self.keys) {
            (None, None) => fault("jwks_url", "set it, keys or keys_file: tokens need keys".to_owned()),
            (Some(_), Some(_)) => fault("keys", "jwks_url is set as well; give one of the two".to_owned()),
            (None, Some(text)) => {
                if let Err(reason) = pem::keys(text) {
                    let part = if self.keys_file.is_some() { "keys_file" } else { "keys" };
                    fault(part, reason);
                }
            }
            (Some(_), None) => {}
        }
        for (part, reason) in algorithm_faults(&self.algorithms) {
            fault(part, reason);
        }
        if self.leeway > LEEWAY_MAX {
            fault("leeway", "it is 5m at most: tokens would live too long".to_owned());
        }
        if !(SESSION_MIN..=SESSION_MAX).contains(&self.session) {
            fault("session", "it must lie between 1m and 8h".to_owned());
        }
        let for_opens = match opens {
            Opens::Staff => self.faults_of_staff(roles),
            Opens::Apps => self.faults_of_apps(),
        };
        for (part, reason) in for_opens {
            fault(part, reason);
        }
        faults.extend(Fault::of_zero(&at("keys_fresh"), self.keys_fresh));
        faults
    }

    fn faults_of_staff(&self, roles: &Roles) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.role_claim.is_empty() {
            faults.push(("role_claim", "\"\" is no claim".to_owned()));
        }
        if self.roles.is_empty() {
            faults.push(("roles", "no claim gives a role: set roles.viewer, for instance".to_owned()));
        }
        for name in self.roles.keys().filter(|name| !roles.is_of_staff(name)) {
            let known = roles.names_of_staff().join(", ");
            faults.push(("roles", format!("there is no role {name:?} of the staff; there are {known}")));
        }
        faults.extend(self.faults_of_login());
        faults
    }

    fn faults_of_apps(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.app_claim.is_empty() {
            faults.push(("app_claim", "\"\" is no claim".to_owned()));
        }
        if !self.roles.is_empty() {
            let message = "an issuer for apps gives no roles: make another issuer, with opens = \"staff\"";
            faults.push(("roles", message.to_owned()));
        }
        if self.client_id.is_some() {
            let message = "people sign in at an issuer with opens = \"staff\" only";
            faults.push(("client_id", message.to_owned()));
        }
        if let Err(unknown) = PermissionSet::of_patterns(self.most.iter().map(String::as_str)) {
            faults.push(("most", unknown.to_string()));
        }
        faults
    }

    fn faults_of_login(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.client_id.is_none() {
            if self.client_secret.is_some() || self.redirect_url.is_some() {
                faults.push(("client_id", "is needed beside client_secret and redirect_url".to_owned()));
            }
            return faults;
        }
        match &self.redirect_url {
            None => faults.push(("redirect_url", "is needed beside client_id".to_owned())),
            Some(url) if !url.path().ends_with("/api/session/callback") || url.query().is_some() => {
                let message = "it ends in /api/session/callback, where this server takes browsers back";
                faults.push(("redirect_url", message.to_owned()));
            }
            Some(_) => {}
        }
        if self.issuer.as_deref().and_then(|issuer| Url::parse(issuer).ok()).is_none() {
            faults.push(("issuer", "it is an address where people sign in: https://...".to_owned()));
        }
        if !self.scopes.iter().any(|scope| scope == "openid") {
            faults.push(("scopes", "openid is among them, or the issuer gives no identity".to_owned()));
        }
        faults
    }
}

/// The faults of a list of algorithms.
pub(super) fn algorithm_faults(algorithms: &[String]) -> Vec<(&'static str, String)> {
    let known = ALGORITHMS.join(", ");
    let of = |name: &String| match name.as_str() {
        name if ALGORITHMS.contains(&name) => None,
        name if name.starts_with("HS") => Some(format!(
            "{name} is refused: its key is shared, so every server that checks tokens could also make them; \
             use one of {known}"
        )),
        name => Some(format!("{name:?} is none of {known}")),
    };
    let mut faults: Vec<_> =
        algorithms.iter().filter_map(of).map(|reason| ("algorithms", reason)).take(1).collect();
    if algorithms.is_empty() {
        faults.push(("algorithms", "one is needed at least".to_owned()));
    }
    faults
}
