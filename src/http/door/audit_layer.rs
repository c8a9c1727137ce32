//! Writes the audit log. The entry of each request that changes something is written in the transaction of
//! the first change that the store makes for it; if a request changes no row (a requested poll, a closed
//! breaker), its entry is written before the answer. Refused requests of the staff are written as well, with
//! the code of the refusal; refused requests of apps are not.
//!
//! Of repeated acts of an app, or of callers without a token, the first few in a minute are written one by
//! one; the others are counted, and one row holds their number (`times:n`). So no app pushes rows of others
//! out of the log, whose length is limited. Refusals at routes of the staff are counted in the same way, for
//! each caller. Acts of the staff are always written.
//!
//! The settlements of apps that pull are not written: they are too many, and have a record of their own.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use http::Method;
use tidings_actors::{
    ports::{AuditEntry, AuditKept},
    time::Timestamp,
};
use tidings_entity::id::AppId;
use tokio::time::sleep;
use tracing::error;

use super::{
    auth::RefusedCaller,
    lifecycle::Lifecycle,
    request::{ANYONE, Caller, Known},
    route::{Answer, Route},
};
use crate::http::{document, front::Front};
use crate::{
    identity::{Identity, WRITTEN_EVERY},
    store::audit::{OK, Pending, SYSTEM},
};

/// The entry of refusals at the staff's door.
const REFUSED: &str = "sign_in.refused";
/// The entry of a start.
const STARTED: &str = "server.start";
/// Longest id or name that is written.
const NAME_CHARACTERS_MAX: usize = 128;
/// The end of the path of an artifact.
const ARTIFACT: &str = "/artifacts/{name}";
/// The prefix of the target of a row that stands for several acts.
const TIMES: &str = "times:";

/// The part of the log that is kept.
pub(crate) fn kept(front: &Front) -> AuditKept {
    let settings = &front.settings.housekeeping;
    let age = Duration::from_secs(u64::from(settings.audit_days) * 86_400);
    AuditKept { since: Timestamp(front.clock.now().0 - Timestamp(0).after(age).0), rows: settings.audit_rows }
}

/// Writes the audit entries of requests.
#[derive(Clone)]
pub(crate) struct AuditLayer {
    front: Arc<Front>,
    identity: Arc<Identity>,
    lifecycle: Lifecycle,
}

impl AuditLayer {
    /// An audit layer that asks `identity` which entries get a row each and which are counted.
    pub(crate) fn new(front: Arc<Front>, identity: Arc<Identity>, lifecycle: Lifecycle) -> Self {
        Self { front, identity, lifecycle }
    }

    /// The audit entry of a request; `None`: the audit log leaves out such requests.
    pub(crate) fn entry(
        &self,
        route: &Route,
        known: &Known,
        parameters: &[String],
        request_id: &str,
        client: IpAddr,
    ) -> Option<AuditEntry> {
        if route.method == Method::GET || route.unaudited || route.access.is_of_hooks() {
            return None;
        }
        let named = parameters.first().and_then(|id| id.parse::<AppId>().ok());
        let app = match &known.caller {
            Caller::App(app) => Some(app.id.clone()),
            _ => named,
        };
        Some(AuditEntry {
            at: self.front.clock.now(),
            actor: known.actor.clone(),
            app: app.map_or_else(String::new, |app| app.to_string()),
            action: document::operation_id(&route.method, &route.template),
            target: target(&route.template, parameters),
            result: OK.to_owned(),
            request: request_id.to_owned(),
            address: Some(client.to_string()),
        })
    }

    /// Handles a request and writes its entry.
    pub(crate) async fn audited(
        self,
        entry: AuditEntry,
        is_staff: bool,
        work: impl Future<Output = Answer>,
    ) -> Answer {
        if !is_staff && !self.identity.is_action_written(&entry.app, &entry.action, entry.at) {
            let answer = work.await;
            if answer.as_ref().is_ok_and(|response| response.status().is_success()) {
                let whose = entry.app.clone();
                self.count(whose, entry);
            }
            return answer;
        }
        let (app, action) = (entry.app.clone(), entry.action.clone());
        let pending = Pending::of(entry, kept(&self.front));
        let answer = pending.during(work).await;
        let result = match &answer {
            Ok(response) if response.status().is_success() => OK,
            Err(problem) if is_staff => problem.code(),
            _ => {
                if !is_staff && pending.take().is_some() {
                    self.identity.deed_failed(&app, &action);
                }
                return answer;
            }
        };
        if let Some(entry) = pending.take() {
            write(&self.front, &AuditEntry { result: result.to_owned(), ..entry }).await;
        }
        answer
    }

    /// Counts an entry that gets no row of its own, by the app or caller whose act it is; empty: of callers
    /// without a token. The first such entry starts the row for all of them, which is written a minute later,
    /// or when the server stops.
    fn count(self, whose: String, entry: AuditEntry) {
        if !self.identity.count_deed(&whose, &entry.action) {
            return;
        }
        let work = async move {
            tokio::select! {
                () = sleep(WRITTEN_EVERY) => {}
                () = self.lifecycle.drained() => {}
            }
            let times = self.identity.counted_deeds(&whose, &entry.action);
            let actor = named(&whose);
            let (at, target) = (self.front.clock.now(), format!("{TIMES}{times}"));
            write(&self.front, &AuditEntry { at, actor, target, request: String::new(), ..entry }).await;
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "one a minute for each caller and action, and it ends by itself"
        )]
        tokio::spawn(work);
    }

    /// Logs a refused caller of the admin API. For the token of an issuer, the target of the entry is the
    /// fault of the token.
    pub(crate) fn refused(&self, of: RefusedCaller, result: &'static str, request_id: &str, client: IpAddr) {
        let now = self.front.clock.now();
        let whose = of.id.unwrap_or_default();
        let entry = AuditEntry {
            at: now,
            actor: named(&whose),
            app: String::new(),
            action: REFUSED.to_owned(),
            target: of.fault.map_or_else(String::new, |fault| format!("jwt:{}", fault.as_str())),
            result: result.to_owned(),
            request: request_id.to_owned(),
            address: Some(client.to_string()),
        };
        if !self.identity.is_action_written(&whose, REFUSED, now) {
            return self.clone().count(whose, entry);
        }
        let front = self.front.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "a few a minute; who is refused does not wait for a write"
        )]
        tokio::spawn(async move { write(&front, &entry).await });
    }
}

/// The actor of an entry, by the id of an app or token; empty: a caller without a token.
fn named(whose: &str) -> String {
    if whose.is_empty() { ANYONE.to_owned() } else { whose.to_owned() }
}

/// The target of an entry, by the parameters of its path: the last one. An artifact is named with its task,
/// because every task may have an artifact of that name.
fn target(template: &str, parameters: &[String]) -> String {
    let named: Vec<&String> = match parameters {
        [.., task, name] if template.ends_with(ARTIFACT) => vec![task, name],
        [.., last] => vec![last],
        [] => Vec::new(),
    };
    if !named.iter().all(|part| is_plain(part)) {
        return String::new();
    }
    named.into_iter().map(String::as_str).collect::<Vec<_>>().join("/")
}

/// Whether a part of a path looks like an id, or the name of a queue, a schedule or an artifact; other parts
/// are not written to the log. Nothing may look like the target of a row for several acts.
fn is_plain(text: &str) -> bool {
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:+=@".contains(&byte);
    text.len() <= NAME_CHARACTERS_MAX && text.bytes().all(is_of_names) && !text.starts_with(TIMES)
}

/// Records the start of this process, with the digest of its settings.
pub async fn started(front: &Front) {
    let settings = front.settings.redacted().to_string();
    let entry = AuditEntry {
        at: front.clock.now(),
        actor: SYSTEM.to_owned(),
        app: String::new(),
        action: STARTED.to_owned(),
        target: tidings_entity::id::Sha256Hash::of(settings.as_bytes()).to_string(),
        result: OK.to_owned(),
        request: String::new(),
        address: None,
    };
    write(front, &entry).await;
}

/// Writes an entry by itself; the log of the process tells if that fails.
pub(crate) async fn write(front: &Front, entry: &AuditEntry) {
    if let Err(reason) = front.administration.record(entry, kept(front)).await {
        let AuditEntry { actor, action, target, result, .. } = entry;
        error!(%reason, "the audit log lacks {action} of {actor} to {target:?}: {result}");
    }
}
