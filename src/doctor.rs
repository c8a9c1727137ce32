//! `tidings doctor`: finds faults of this installation and obstacles to its work, and names a remedy for
//! each. Works with and without a running server, changes nothing, and sends nothing to other machines unless
//! a flag asks for it, except connections to `egress.proxy` and
//! `mail.server`, and questions to the bucket of `artifacts.s3_endpoint`.

mod artifacts;
mod database;
mod home;
mod network;
mod work;

use serde::Serialize;
use tidings_actors::ports::Clock;

pub(crate) use self::home::unusable;
use crate::{secrets::Keyring, settings::Settings};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The check found nothing wrong.
    Ok,
    /// The thing works now, but an operator should know.
    Warning,
    /// The thing does not work, or data may be lost.
    Fault,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check; stable.
    pub check: &'static str,
    /// Whether the check found a fault, a warning or nothing.
    pub status: Status,
    /// The result of the check, in words.
    pub found: String,
    /// The remedy; `None` if there is nothing to do.
    pub remedy: Option<String>,
}

impl Finding {
    /// The finding of a check that found nothing wrong.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), remedy: None }
    }

    /// The finding of a check that an operator should know about, with a remedy.
    pub fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// The finding of a check that failed, with a remedy.
    pub fn fault(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Fault, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything; `judged` names the settings that are looked at. `asks_hosts`: also at the Git hosts
/// of the repositories that are watched, over the network.
pub async fn examine(settings: &Settings, judged: &str, asks_hosts: bool, clock: &dyn Clock) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("settings", format!("{judged}; every value is in its bounds"))];
    let is_running = home::directory(settings, &mut findings);
    let keyring: Option<Keyring> = home::keyring(settings, &mut findings);
    home::admin_token(settings, &mut findings);
    home::disk(settings, &mut findings);
    home::open_files(&mut findings);
    let database = database::examine(settings, keyring.as_ref(), clock, &mut findings).await;
    if let Some(found) = &database {
        work::examine(found, &mut findings);
    }
    network::listen(settings, is_running, &mut findings);
    let mut of_egress = Vec::new();
    let egress = network::egress(settings, &mut of_egress);
    network::mail(settings, egress.as_ref(), &mut findings).await;
    findings.append(&mut of_egress);
    if let Some(egress) = egress {
        let (repositories, endpoints) = match &database {
            Some(database) => (&database.repositories[..], &database.endpoints[..]),
            None => (&[][..], &[][..]),
        };
        let identity = database.as_ref().and_then(|database| database.identity.as_deref());
        artifacts::examine(settings, &egress, identity, &mut findings).await;
        network::proxy(settings, &mut findings).await;
        network::endpoints(&egress, endpoints, &mut findings);
        network::local_repositories(settings, repositories, &mut findings);
        if asks_hosts {
            network::hosts(&egress, repositories, clock, &mut findings).await;
        }
    }
    findings
}
