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

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::Method;
use tidings_actors::{
    ports::{AuditKept, Deed},
    time::Timestamp,
};
use tidings_entity::id::AppId;
use tokio::time::sleep;
use tracing::error;

use super::{
    Front, document,
    request::Caller,
    route::{Access, Handler, Route},
};
use crate::{
    audit::{OK, Pending, SYSTEM},
    identity::WRITTEN_EVERY,
};

/// The deed of refusals at the staff's door.
const REFUSED: &str = "sign_in.refused";
/// The deed of a start.
const STARTED: &str = "server.start";
/// Longest id that is written.
const ID_CHARACTERS_MAX: usize = 64;

/// How much of the log is kept now.
pub(super) fn kept(front: &Front) -> AuditKept {
    let settings = &front.settings.housekeeping;
    let age = Duration::from_secs(u64::from(settings.audit_days) * 86_400);
    AuditKept { since: Timestamp(front.clock.now().0 - Timestamp(0).after(age).0), rows: settings.audit_rows }
}

/// What a request does, if it is one that is written down.
pub(super) fn deed(
    front: &Front,
    route: &Route,
    caller: &Caller,
    actor: &str,
    parameters: &[String],
    request_id: &str,
    client: IpAddr,
) -> Option<Deed> {
    if route.method == Method::GET || route.unwitnessed || matches!(route.access, Access::Hook(_)) {
        return None;
    }
    let named = parameters.first().and_then(|id| id.parse::<AppId>().ok());
    let app = match caller {
        Caller::App(app) => Some(app.id.clone()),
        _ => named,
    };
    Some(Deed {
        at: front.clock.now(),
        actor: actor.to_owned(),
        app: app.map_or_else(String::new, |app| app.to_string()),
        action: document::operation_id(&route.method, &route.template),
        target: parameters.last().filter(|id| is_id(id)).cloned().unwrap_or_default(),
        result: OK.to_owned(),
        request: request_id.to_owned(),
        address: Some(client.to_string()),
    })
}

/// Whatever stands in a path is an id by its looks, or is not written.
fn is_id(text: &str) -> bool {
    text.len() <= ID_CHARACTERS_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The same handler, and its deed is written down.
pub(super) fn witnessed(handler: Handler, deed: Deed) -> Handler {
    Arc::new(move |front, request| {
        let (handler, deed) = (handler.clone(), deed.clone());
        let is_staff = matches!(request.caller, Caller::Staff(_));
        async move {
            if !is_staff && !front.identity.is_deed_written(&deed.app, &deed.action, deed.at) {
                let answer = handler(front.clone(), request).await;
                if answer.as_ref().is_ok_and(|response| response.status().is_success()) {
                    count(&front, deed);
                }
                return answer;
            }
            let (app, action) = (deed.app.clone(), deed.action.clone());
            let pending = Pending::of(deed, kept(&front));
            let answer = pending.during(handler(front.clone(), request)).await;
            let result = match &answer {
                Ok(response) if response.status().is_success() => OK,
                Err(problem) if is_staff => problem.code(),
                _ => {
                    if !is_staff && pending.take().is_some() {
                        front.identity.deed_failed(&app, &action);
                    }
                    return answer;
                }
            };
            if let Some(deed) = pending.take() {
                write(&front, &Deed { result: result.to_owned(), ..deed }).await;
            }
            answer
        }
        .boxed()
    })
}

/// Counts a deed that gets no row of its own. The first of many sees to the row that they get together.
fn count(front: &Arc<Front>, deed: Deed) {
    if !front.identity.count_deed(&deed.app, &deed.action) {
        return;
    }
    let front = front.clone();
    let work = async move {
        sleep(WRITTEN_EVERY).await;
        let times = front.identity.counted_deeds(&deed.app, &deed.action);
        let actor = if deed.app.is_empty() { "anyone".to_owned() } else { deed.app.clone() };
        let (at, target) = (front.clock.now(), format!("times:{times}"));
        write(&front, &Deed { at, actor, target, request: String::new(), ..deed }).await;
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "one a minute for each app and action, and it ends by itself"
    )]
    tokio::spawn(work);
}

/// Somebody was refused at the staff's door; `by`: the id of a token that is known.
pub(super) fn refused(
    front: &Arc<Front>,
    by: Option<String>,
    result: &'static str,
    request_id: &str,
    client: IpAddr,
) {
    let now = front.clock.now();
    let Some(times) = front.identity.refused(now) else { return };
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
    let front = front.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "a few a minute; who is refused does not wait for a write"
    )]
    tokio::spawn(async move { write(&front, &deed).await });
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
