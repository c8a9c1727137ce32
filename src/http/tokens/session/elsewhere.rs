//! Signing in at an issuer of the settings: the browser goes there, comes back with a code, and gets a
//! session.
//!
//! The address that a browser is sent to comes only from the settings and the issuer's own description; no
//! request can name one. A failure is reported as a word in the address of the dashboard, which has a
//! sentence for each.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tidings_actors::ports::{Session, SessionSubject, SignIn};
use tokio::time::Instant;
use utoipa::ToSchema;
use warp::reply::Response;

use super::{SignIns, begin, sign_ins::SIGN_IN_LASTS};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        auth::session::{self, SESSION_PREFIX},
        request::{Request, json},
        route::{Access, Answer, Route, route, route_with},
    },
    front::Front,
};
use crate::{
    identity::{
        issuer::{Grant, Subject},
        login::{LoginFault, LoginSecret},
    },
    secrets::Token,
};

/// The prefix of the secret of a sign-in.
const SIGN_IN_PREFIX: &str = "tdo";
/// The prefix of the cookie that holds the name of the issuer and the secret of a sign-in. The beginning of
/// the state follows: several tabs may sign in at once, each with its own cookie.
const COOKIE: &str = "tidings_sign_in_";
/// The characters of the state in the name of its cookie.
const STATE_CHARACTERS: usize = 8;
/// Sign-ins of a browser at once; a further one ends the oldest.
const PENDING_MAX: usize = 8;
/// The only routes that this cookie goes to.
const COOKIE_PATH: &str = "/api/session";

/// The routes of this file.
pub(super) fn routes(sign_ins: &Arc<SignIns>) -> Vec<Route> {
    vec![
        route::<__path_issuers, _, _>(Access::Public, issuers),
        route_with::<__path_start, _, _, _>(Access::Public, sign_ins, start),
        route_with::<__path_callback, _, _, _>(Access::Public, sign_ins, callback),
    ]
}

/// An issuer at which people sign in.
#[derive(Serialize, ToSchema)]
struct SignInIssuer {
    /// Name of the issuer in the settings.
    name: String,
    /// Text of the sign-in button.
    label: String,
}

/// Lists the issuers at which people can sign in to the dashboard.
#[utoipa::path(get, path = "/api/session/issuers", tag = "dashboard",
    responses((status = 200, body = Vec<SignInIssuer>)))]
async fn issuers(_front: Arc<Front>, request: Request) -> Answer {
    let shown: Vec<SignInIssuer> = request
        .recheck
        .issuers()
        .of_sign_ins()
        .map(|issuer| SignInIssuer { name: issuer.name().to_owned(), label: issuer.label().to_owned() })
        .collect();
    Ok(json(StatusCode::OK, &shown))
}

/// Redirects a browser to an issuer, to sign in there.
#[utoipa::path(get, path = "/api/session/issuers/{name}", tag = "dashboard",
    params(("name" = String, Path, description = "Name of the issuer in the settings.")),
    responses((status = 303, description = "Redirect to the sign-in page of the issuer.")))]
async fn start(front: Arc<Front>, sign_ins: Arc<SignIns>, request: Request) -> Answer {
    if let Err(wait) = sign_ins.admit(request.client) {
        sign_ins.failed(&front, &request, Kind::TOO_MANY.code);
        return Ok(held_back(wait));
    }
    let name = request.parameters.first().map_or("", String::as_str);
    let issuer = request.recheck.issuers().named(name).filter(|issuer| issuer.takes_sign_ins());
    let issuer = issuer.ok_or_else(|| Problem::new(Kind::NO_PAGE))?;
    let secret = Token::generate(SIGN_IN_PREFIX, front.random.as_ref());
    let secret = secret.text().expose();
    let login = LoginSecret::of(secret);
    let url = match issuer.sign_in_url(&login).await {
        Ok(url) => url,
        Err(fault) => return Ok(led_back(Some(fault))),
    };
    let now = front.clock.now();
    let begun =
        SignIn { state: login.state_hash(), issuer: name.to_owned(), expires_at: now.after(SIGN_IN_LASTS) };
    let remembered = front.administration.begin_sign_in(&begun, now).await;
    remembered.map_err(|error| Problem::of_store(error, Kind::NO_PAGE))?;
    let place = HeaderValue::from_str(url.as_str()).map_err(|_| Problem::new(Kind::INTERNAL))?;
    sign_ins.goes(begun.state, Instant::now());
    let mut response = led(place);
    // A browser sends the oldest cookies first (RFC 6265, 5.4).
    let pending = cookies(&request.headers).map(|(state, _)| state.to_owned()).collect::<Vec<_>>();
    let over = (pending.len() + 1).saturating_sub(PENDING_MAX);
    for state in &pending[..over] {
        let gone = cookie(state, "", Duration::ZERO, request.is_secure);
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    let state = &login.state()[..STATE_CHARACTERS];
    let kept = cookie(state, &format!("{name}.{secret}"), SIGN_IN_LASTS, request.is_secure);
    response.headers_mut().append(header::SET_COOKIE, kept);
    Ok(response)
}

/// Receives the browser that an issuer sends back: starts its session and redirects to the dashboard.
#[utoipa::path(get, path = "/api/session/callback", tag = "dashboard",
    params(
        ("state" = Option<String>, Query, description = "`state` of the sign-in, as the issuer received it."),
        ("code" = Option<String>, Query, description = "Authorization code, which the issuer exchanges for \
            an identity token."),
    ),
    responses((status = 303, description = "Redirect to the dashboard, which shows the error if the sign-in \
        failed.")))]
async fn callback(front: Arc<Front>, sign_ins: Arc<SignIns>, request: Request) -> Answer {
    let pending = Pending::of(&request);
    // The two halves of a sign-in are one attempt.
    let state = pending.as_ref().map(|pending| LoginSecret::of(&pending.secret).state_hash());
    let is_counted = state.is_some_and(|state| sign_ins.comes_back(&state, Instant::now()));
    if !is_counted && let Err(wait) = sign_ins.admit(request.client) {
        sign_ins.failed(&front, &request, Kind::TOO_MANY.code);
        return Ok(held_back(wait));
    }
    let mut response = match signed_in(&front, &request, pending.as_ref()).await {
        Ok((subject, issuer)) => begun(&front, &request, subject, &issuer).await?,
        Err(fault) => {
            sign_ins.failed(&front, &request, word(fault));
            led_back(Some(fault))
        }
    };
    if let Some(Pending { state, .. }) = &pending {
        let gone = cookie(state, "", Duration::ZERO, request.is_secure);
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    Ok(response)
}

/// The sign-in of this browser that a state belongs to.
struct Pending {
    /// The beginning of the state, which is in the name of the cookie.
    state: String,
    /// The name of the issuer.
    name: String,
    secret: String,
}

impl Pending {
    /// The sign-in that the state in the query belongs to; `None`: this browser began no such sign-in, or
    /// holds several cookies for it.
    fn of(request: &Request) -> Option<Self> {
        let sent = sent(request, "state")?;
        let mut own = cookies(&request.headers)
            .filter(|(state, _)| sent.get(..STATE_CHARACTERS) == Some(*state))
            .map(|(_, value)| value);
        let (name, secret) = own.next().filter(|value| value.len() <= 512)?.split_once('.')?;
        Token::parse(SIGN_IN_PREFIX, secret).ok()?;
        let is_of_state = own.next().is_none() && LoginSecret::of(secret).state() == sent;
        is_of_state.then(|| Self {
            state: sent[..STATE_CHARACTERS].to_owned(),
            name: name.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

/// The value of a field of the query that is there once.
fn sent(request: &Request, field: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(request.query.as_bytes()).filter(|(name, _)| name == field);
    pairs.next().map(|(_, value)| value.into_owned()).filter(|_| pairs.next().is_none())
}

/// The person who came back, and the name of the issuer. The state is used up, even if the sign-in fails.
async fn signed_in(
    front: &Front,
    request: &Request,
    pending: Option<&Pending>,
) -> Result<(Subject, String), LoginFault> {
    let Pending { name, secret, .. } = pending.ok_or(LoginFault::Refused)?;
    let secret = LoginSecret::of(secret);
    let now = front.clock.now();
    let taken = front.administration.take_sign_in(&secret.state_hash(), name, now).await;
    if !taken.map_err(|_| LoginFault::Unavailable)? {
        return Err(LoginFault::Refused);
    }
    let issuer = request.recheck.issuers().named(name).ok_or(LoginFault::Refused)?;
    let code = sent(request, "code").ok_or(LoginFault::Refused)?;
    Ok((issuer.signed_in(&code, &secret, now).await?, name.clone()))
}

async fn begun(front: &Front, request: &Request, subject: Subject, issuer: &str) -> Answer {
    let Grant::Staff(roles) = subject.grant else { return Ok(led_back(Some(LoginFault::NoRole))) };
    let issuer = request.recheck.issuers().named(issuer).ok_or_else(|| Problem::new(Kind::NO_PAGE))?;
    let secret = Token::generate(SESSION_PREFIX, front.random.as_ref());
    let now = front.clock.now();
    let lasts = issuer.session_lasts();
    let session = Session {
        hash: secret.hash(),
        token: None,
        subject: Some(SessionSubject { id: subject.id.clone(), issuer: issuer.session_origin(), roles }),
        // The session belongs to no token: this is the hash of its own secret.
        token_hash: secret.hash(),
        created_at: now,
        expires_at: now.after(lasts),
    };
    begin(front, request, &session, &subject.id, None).await?;
    let mut response = led_back(None);
    let secret = secret.text().expose();
    let cookie = session::cookie(&front.session_cookie, secret, lasts, request.is_secure);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Redirects to the dashboard, which has a sentence for the fault.
fn led_back(fault: Option<LoginFault>) -> Response {
    let place = match fault {
        None => "/dashboard/".to_owned(),
        Some(fault) => format!("/dashboard/?sign_in={}", word(fault)),
    };
    led(HeaderValue::from_str(&place).expect("the words are plain ASCII"))
}

/// The word for a fault, in the address of the dashboard and in the audit log.
fn word(fault: LoginFault) -> &'static str {
    match fault {
        LoginFault::Unavailable => "unavailable",
        LoginFault::Refused => "refused",
        LoginFault::NoRole => "no_role",
    }
}

/// Redirects a browser beyond the limit: a person reads this answer, so it is the page, not a problem body.
fn held_back(wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let place = format!("/dashboard/?sign_in=too_many&seconds={seconds}");
    led(HeaderValue::from_str(&place).expect("a number is plain ASCII"))
}

fn led(place: HeaderValue) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, place);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The cookie of a sign-in with this beginning of its state. It is sent with a redirect from another site,
/// because the issuer sends the browser back.
fn cookie(state: &str, value: &str, lasts: Duration, is_secure: bool) -> HeaderValue {
    let (secure, seconds) = (if is_secure { "; Secure" } else { "" }, lasts.as_secs());
    let text = format!(
        "{COOKIE}{state}={value}; Path={COOKIE_PATH}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    );
    HeaderValue::from_str(&text).expect("names of issuers and secrets are plain ASCII")
}

/// The cookies of sign-ins in a request: the beginning of the state and the value of each.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';'));
    let named = pairs.filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.split_once('='));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    named.filter(move |(state, _)| state.len() == STATE_CHARACTERS && state.bytes().all(is_plain))
}
