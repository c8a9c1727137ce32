//! `tidings doctor`: what is wrong with this installation and in the way of its work, and what to do about
//! it. Works with and without a running server, changes nothing, and leaves the machine only where it is
//! asked to, but to knock at `egress.proxy`.

mod database;
mod home;
mod network;
mod work;

use serde::Serialize;
use tidings_actors::ports::Clock;

pub(crate) use self::home::unusable;
use crate::{secrets::Keyring, settings::Settings};

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// It does not work, or loses something.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at; stable.
    pub check: &'static str,
    /// Whether something is wrong with it.
    pub status: Status,
    /// The result of the check, in words.
    pub found: String,
    /// What to do; nothing where nothing is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), remedy: None }
    }

    /// Somebody should know.
    pub fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// It does not work.
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
    if let Some(egress) = network::egress(settings, &mut findings) {
        let (repositories, endpoints) = match &database {
            Some(database) => (&database.repositories[..], &database.endpoints[..]),
            None => (&[][..], &[][..]),
        };
        network::proxy(settings, &mut findings).await;
        network::endpoints(&egress, endpoints, &mut findings);
        network::local_repositories(settings, repositories, &mut findings);
        if asks_hosts {
            network::hosts(&egress, repositories, clock, &mut findings).await;
        }
    }
    findings
}
