//! `/api/session`: signing in with a token, showing the session, and signing out. A session is for browsers:
//! its secret is a cookie that no script can read, and stands for the token until the session or the token
//! ends.

mod elsewhere;
mod sign_ins;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tidings_actors::{
    model::permission::{PermissionSet, narrowing::Powers},
    ports::{AuditEntry, Session, StoreError},
};
use tidings_entity::{
    id::{Sha256Hash, TokenId},
    kind::Role,
};
use utoipa::ToSchema;
use warp::reply::Response;

use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        moment::iso,
        problem::{Kind, Problem},
    },
    document,
    door::{
        audit_layer::kept,
        auth::{
            BOOTSTRAP,
            session::{self, SESSION_LASTS, SESSION_PREFIX},
        },
        request::{Caller, Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
    front::Front,
};
use crate::{identity::issuer::TOKEN_BYTES_MAX, secrets::Token, store::audit};

pub(in crate::http) use self::sign_ins::SignIns;

/// The routes of this file.
pub(crate) fn routes(sign_ins: &Arc<SignIns>) -> Vec<Route> {
    let here = vec![
        route_with::<__path_sign_in, _, _, _>(Access::Public, sign_ins, sign_in).unaudited(),
        route::<__path_show, _, _>(Access::Anybody, show),
        route::<__path_sign_out, _, _>(Access::Public, sign_out).unaudited(),
        route::<__path_sign_out_everywhere, _, _>(Access::Anybody, sign_out_everywhere),
    ];
    [here, elsewhere::routes(sign_ins)].concat()
}

body! {
    /// Sign-in of a browser.
    struct SignIn {
        /// Token of an app, of the staff, or of the server itself.
        #[schema(min_length = 1, max_length = 8192)]
        token: String,
    }
}

/// The person who is signed in, or the owner of the token of the request.
#[derive(Serialize, ToSchema)]
struct SessionShown {
    /// Owner of the token: `app` or `staff`.
    kind: &'static str,
    /// Highest of the roles `viewer`, `operator` and `admin` whose permissions the caller has. Only for the
    /// staff. Missing: the caller has fewer permissions than a viewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// Permissions of the caller, as `resource:action`.
    permissions: Vec<&'static str>,
    /// Names and globs of the commands that the caller may use. Missing: every command.
    #[serde(skip_serializing_if = "Option::is_none")]
    commands: Option<Vec<String>>,
    /// Id of the app. Only for the token of an app.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    /// Name of the app. Only for the token of an app.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_name: Option<String>,
    /// Id of the token: `tok_...`, or `admin` for the server's own token.
    token_id: String,
    /// When the session ends. Null: the request has no session.
    expires_at: Option<String>,
    /// Version of the server.
    version: &'static str,
}

impl SessionShown {
    fn of(caller: &Caller, powers: &Powers, actor: &str, session: Option<&Session>) -> Self {
        let app = match caller {
            Caller::App(app) => Some(app),
            Caller::Staff(_) | Caller::Anyone | Caller::Hook(_) => None,
        };
        let has_all = |role: &&Role| PermissionSet::of_role(**role).beyond(powers.permissions).is_empty();
        let role = Role::ALL.iter().rev().find(has_all).filter(|_| app.is_none());
        Self {
            kind: if app.is_some() { "app" } else { "staff" },
            role: role.map(|role| role.as_str()),
            permissions: powers.permissions.iter().map(Permission::as_str).collect(),
            commands: powers.commands.entries().map(<[String]>::to_vec),
            app_id: app.map(|app| app.id.to_string()),
            app_name: app.map(|app| app.name.clone()),
            token_id: actor.to_owned(),
            expires_at: session.map(|session| iso(session.expires_at)),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Signs a browser in with a token, for 8 hours. The answer sets a cookie that stands for the token. The
/// request must come from a page of this server.
#[utoipa::path(post, path = "/api/session", tag = "dashboard", request_body = SignIn, responses(
    (status = 201, body = SessionShown)
))]
async fn sign_in(front: Arc<Front>, sign_ins: Arc<SignIns>, request: Request) -> Answer {
    let admitted = sign_ins.admit(request.client).map_err(sign_ins::too_many);
    let answer = match admitted {
        Ok(()) => signed_in(&front, &request).await,
        Err(problem) => Err(problem),
    };
    // A body that holds no token is no guess.
    if let Err(problem) = &answer
        && [Kind::INVALID_TOKEN, Kind::TOO_MANY, Kind::CROSS_SITE]
            .map(|kind| kind.code)
            .contains(&problem.code())
    {
        sign_ins.failed(&front, &request, problem.code());
    }
    answer
}

/// The answer to a counted attempt.
async fn signed_in(front: &Arc<Front>, request: &Request) -> Answer {
    let mut fields = Fields::of_body::<SignIn>(&request.body)?;
    let token = fields.required_text("token", 1..=TOKEN_BYTES_MAX);
    fields.finish()?;
    session::check_page(&request.method, &request.headers)?;
    let token = token.trim();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let bearer = bearer.map_err(|_| Problem::new(Kind::INVALID_TOKEN))?;
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
    let known = request.recheck.known(Access::Anybody, &headers, request.client).await?;
    let token_id = token_of(&known.actor).ok_or_else(|| {
        Problem::new(Kind::INVALID_TOKEN)
            .with_detail("a token of the identity provider is valid for the API, but not for a session")
    })?;
    let (now, random) = (front.clock.now(), front.random.as_ref());
    let secret = Token::generate(SESSION_PREFIX, random);
    let session = Session {
        hash: secret.hash(),
        token: token_id,
        subject: None,
        token_hash: Sha256Hash::of(token.as_bytes()),
        created_at: now,
        expires_at: now.after(SESSION_LASTS),
    };
    let app = match &known.caller {
        Caller::App(app) => Some(app.id.to_string()),
        _ => None,
    };
    begin(front, request, &session, &known.actor, app).await?;
    let shown = SessionShown::of(&known.caller, &known.powers, &known.actor, Some(&session));
    let mut response = json(StatusCode::CREATED, &shown);
    let secret = secret.text().expose();
    let cookie = session::cookie(&front.session_cookie, secret, SESSION_LASTS, request.is_secure);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Begins a session. Its row of the audit log names the person, and is always written, because nobody gets
/// here without a token or an issuer's proof.
async fn begin(
    front: &Front,
    request: &Request,
    session: &Session,
    actor: &str,
    app: Option<String>,
) -> Result<(), Problem> {
    let pending = audit::Pending::of(row(front, request, actor, app), kept(front));
    let begun = pending.during(front.administration.begin_session(session)).await;
    begun.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))
}

/// The row of the audit log about the session of a person.
fn row(front: &Front, request: &Request, actor: &str, app: Option<String>) -> AuditEntry {
    AuditEntry {
        at: front.clock.now(),
        actor: actor.to_owned(),
        app: app.unwrap_or_default(),
        action: document::operation_id(&request.method, &request.path),
        target: actor.to_owned(),
        result: audit::OK.to_owned(),
        request: request.request_id.clone(),
        address: Some(request.client.to_string()),
    }
}

/// The token of an actor in the audit log: `Some(None)` is the server's own token, `None` an actor without a
/// token row.
fn token_of(actor: &str) -> Option<Option<TokenId>> {
    match actor {
        BOOTSTRAP => Some(None),
        actor => actor.parse().ok().map(Some),
    }
}

/// Shows who is signed in, or the owner of the token that the request carries.
#[utoipa::path(get, path = "/api/session", tag = "dashboard", responses((status = 200, body = SessionShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let session = match session::of_cookie(&front.session_cookie, &request.headers) {
        Some(hash) => front.administration.find_session(&hash, front.clock.now()).await,
        None => Ok(None),
    };
    let session = session.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
    let session = session.map(|(session, _)| session);
    Ok(json(
        StatusCode::OK,
        &SessionShown::of(&request.caller, &request.powers, &request.actor, session.as_ref()),
    ))
}

/// Signs this browser out.
#[utoipa::path(delete, path = "/api/session", tag = "dashboard", responses((status = 204)))]
async fn sign_out(front: Arc<Front>, request: Request) -> Answer {
    if let Some(hash) = session::of_cookie(&front.session_cookie, &request.headers) {
        session::check_page(&request.method, &request.headers)?;
        end(&front, &request, &hash).await.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
    }
    Ok(signed_out(&front, &request))
}

/// Ends a session. Its row of the audit log names the person who signed out. A session that has ended already
/// is nobody's: that leaves no row.
async fn end(front: &Front, request: &Request, hash: &Sha256Hash) -> Result<(), StoreError> {
    let found = front.administration.find_session(hash, front.clock.now()).await?;
    let Some((session, public_id)) = found else { return Ok(()) };
    let token = match &public_id {
        Some(public_id) => front.administration.find_token(public_id).await?,
        None => None,
    };
    let app = token.and_then(|(_, app)| app).map(|app| app.id.to_string());
    let actor = match (session.subject, session.token) {
        (Some(subject), _) => subject.id,
        (None, Some(token)) => token.to_string(),
        (None, None) => BOOTSTRAP.to_owned(),
    };
    let pending = audit::Pending::of(row(front, request, &actor, app), kept(front));
    pending.during(front.administration.end_session(hash)).await
}

/// Signs out every browser that was signed in with the same token, or by the same person at an issuer.
#[utoipa::path(delete, path = "/api/sessions", tag = "dashboard", responses((status = 204)))]
async fn sign_out_everywhere(front: Arc<Front>, request: Request) -> Answer {
    let ended = match token_of(&request.actor) {
        Some(token) => front.administration.end_sessions(token.as_ref()).await,
        None => front.administration.end_sessions_of(&request.actor).await,
    };
    ended.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
    Ok(signed_out(&front, &request))
}

fn signed_out(front: &Front, request: &Request) -> Response {
    let cookie = session::no_cookie(&front.session_cookie, request.is_secure);
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}
