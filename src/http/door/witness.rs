//! Writing down who did what. The deed of each request that changes something goes into the log in
//! the transaction of the first change that the store makes for it; where a request changes no row
//! (a poll that is asked for, a breaker that is closed), it is written before the answer. What the
//! staff was refused is written as well, with the code of the refusal; what apps were refused is not.
//!
//! Of what an app (or who has no token) does again and again the first few in a minute are written one
//! by one; the others are counted, and one row says how many there were (`times:n`). So no app pushes
//! rows of others out of a log whose length is bounded. What the staff does is always written.
//!
//! Not written are the settlements of apps that pull: they are a stream, with a record of their own.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use http::Method;
use tidings_actors::{
    ports::{AuditKept, Deed},
    time::Timestamp,
};
use tidings_entity::id::AppId;
use tokio::time::sleep;
use tracing::error;

use super::{
    request::{Caller, Known},
    route::{Access, Answer, Route},
};
use crate::http::{document, front::Front};
use crate::{
    identity::{Identity, WRITTEN_EVERY},
    store::audit::{OK, Pending, SYSTEM},
};

/// The deed of refusals at the staff's door.
const REFUSED: &str = "sign_in.refused";
/// The deed of a start.
const STARTED: &str = "server.start";
/// Longest id that is written.
const ID_CHARACTERS_MAX: usize = 64;

/// How much of the log is kept now.
pub(crate) fn kept(front: &Front) -> AuditKept {
    let settings = &front.settings.housekeeping;
    let age = Duration::from_secs(u64::from(settings.audit_days) * 86_400);
    AuditKept { since: Timestamp(front.clock.now().0 - Timestamp(0).after(age).0), rows: settings.audit_rows }
}

/// Writes down what requests do.
#[derive(Clone)]
pub(crate) struct Witness {
    front: Arc<Front>,
    identity: Arc<Identity>,
}

impl Witness {
    /// A witness that asks `identity` what is written by itself and what is counted.
    pub(crate) fn new(front: Arc<Front>, identity: Arc<Identity>) -> Self {
        Self { front, identity }
    }

    /// What a request does, if it is one that is written down.
    pub(crate) fn deed(
        &self,
        route: &Route,
        known: &Known,
        parameters: &[String],
        request_id: &str,
        client: IpAddr,
    ) -> Option<Deed> {
        if route.method == Method::GET || route.unwitnessed || matches!(route.access, Access::Hook(_)) {
            return None;
        }
        let named = parameters.first().and_then(|id| id.parse::<AppId>().ok());
        let app = match &known.caller {
            Caller::App(app) => Some(app.id.clone()),
            _ => named,
        };
        Some(Deed {
            at: self.front.clock.now(),
            actor: known.actor.clone(),
            app: app.map_or_else(String::new, |app| app.to_string()),
            action: document::operation_id(&route.method, &route.template),
            target: parameters.last().filter(|id| is_id(id)).cloned().unwrap_or_default(),
            result: OK.to_owned(),
            request: request_id.to_owned(),
            address: Some(client.to_string()),
        })
    }

    /// Does the work of a request and writes its deed down.
    pub(crate) async fn witnessed(
        self,
        deed: Deed,
        is_staff: bool,
        work: impl Future<Output = Answer>,
    ) -> Answer {
        if !is_staff && !self.identity.is_deed_written(&deed.app, &deed.action, deed.at) {
            let answer = work.await;
            if answer.as_ref().is_ok_and(|response| response.status().is_success()) {
                self.count(deed);
            }
            return answer;
        }
        let (app, action) = (deed.app.clone(), deed.action.clone());
        let pending = Pending::of(deed, kept(&self.front));
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
        if let Some(deed) = pending.take() {
            write(&self.front, &Deed { result: result.to_owned(), ..deed }).await;
        }
        answer
    }

    /// Counts a deed that gets no row of its own. The first of many sees to the row that they get together.
    fn count(self, deed: Deed) {
        if !self.identity.count_deed(&deed.app, &deed.action) {
            return;
        }
        let work = async move {
            sleep(WRITTEN_EVERY).await;
            let times = self.identity.counted_deeds(&deed.app, &deed.action);
            let actor = if deed.app.is_empty() { "anyone".to_owned() } else { deed.app.clone() };
            let (at, target) = (self.front.clock.now(), format!("times:{times}"));
            write(&self.front, &Deed { at, actor, target, request: String::new(), ..deed }).await;
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "one a minute for each app and action, and it ends by itself"
        )]
        tokio::spawn(work);
    }

    /// Somebody was refused at the staff's door; `by`: the id of a token that is known.
    pub(crate) fn refused(&self, by: Option<String>, result: &'static str, request_id: &str, client: IpAddr) {
        let now = self.front.clock.now();
        let Some(times) = self.identity.refused(now) else { return };
        let deed = Deed {
            at: now,
            actor: by.unwrap_or_else(|| "anyone".to_owned()),
            app: String::new(),
            action: REFUSED.to_owned(),
            target: format!("times:{times}"),
            result: result.to_owned(),
            request: request_id.to_owned(),
            address: Some(client.to_string()),
        };
        let front = self.front.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "a few a minute; who is refused does not wait for a write"
        )]
        tokio::spawn(async move { write(&front, &deed).await });
    }
}

/// Whatever stands in a path is an id by its looks, or is not written.
fn is_id(text: &str) -> bool {
    text.len() <= ID_CHARACTERS_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// This process serves, with these settings: their digest is written down.
pub async fn started(front: &Front) {
    let settings = front.settings.redacted().to_string();
    let deed = Deed {
        at: front.clock.now(),
        actor: SYSTEM.to_owned(),
        app: String::new(),
        action: STARTED.to_owned(),
        target: tidings_entity::id::Sha256Hash::of(settings.as_bytes()).to_string(),
        result: OK.to_owned(),
        request: String::new(),
        address: None,
    };
    write(front, &deed).await;
}

async fn write(front: &Front, deed: &Deed) {
    if let Err(reason) = front.administration.record(deed, kept(front)).await {
        let Deed { actor, action, target, result, .. } = deed;
        error!(%reason, "the audit log lacks {action} of {actor} to {target:?}: {result}");
    }
}
