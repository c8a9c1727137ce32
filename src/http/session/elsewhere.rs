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
use utoipa::ToSchema;
use warp::reply::Response;

use super::{SignIns, begin};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        request::{Request, json},
        route::{Access, Answer, Route, route, route_with},
        session::{self, SESSION_PREFIX},
    },
    front::Front,
};
use crate::{
    identity::{
        issuer::{Grant, Issuer, Subject},
        login::{LoginFault, LoginSecret},
    },
    secrets::Token,
};

/// How long a sign-in may take at the issuer.
const SIGN_IN_LASTS: Duration = Duration::from_mins(10);
/// The prefix of the secret of a sign-in.
const SIGN_IN_PREFIX: &str = "tdo";
/// The cookie that holds the name of the issuer and the secret of a sign-in.
const COOKIE: &str = "tidings_sign_in";
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
    sign_ins.admit(request.client)?;
    let name = request.parameters.first().map_or("", String::as_str);
    let issuer = request.recheck.issuers().named(name).filter(|issuer| issuer.takes_sign_ins());
    let issuer = issuer.ok_or_else(|| Problem::new(Kind::NO_PAGE))?;
    let secret = Token::generate(SIGN_IN_PREFIX, front.random.as_ref());
    let secret = secret.text().expose();
    let login = LoginSecret::of(secret);
    let url = match issuer.sign_in_url(&login).await {
        Ok(url) => url,
        Err(fault) => return Ok(led_back(&request, Some(fault))),
    };
    let now = front.clock.now();
    let begun =
        SignIn { state: login.state_hash(), issuer: name.to_owned(), expires_at: now.after(SIGN_IN_LASTS) };
    let remembered = front.administration.begin_sign_in(&begun, now).await;
    remembered.map_err(|error| Problem::of_store(error, Kind::NO_PAGE))?;
    let place = HeaderValue::from_str(url.as_str()).map_err(|_| Problem::new(Kind::INTERNAL))?;
    let mut response = led(place);
    let kept = cookie(&format!("{name}.{secret}"), SIGN_IN_LASTS, request.is_secure);
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
    sign_ins.admit(request.client)?;
    match signed_in(&front, &request).await {
        Ok((subject, issuer)) => begun(&front, &request, subject, issuer).await,
        Err(fault) => Ok(led_back(&request, Some(fault))),
    }
}

/// The person who came back, and the name of the issuer. The state is used up, even if the sign-in fails.
async fn signed_in(front: &Front, request: &Request) -> Result<(Subject, String), LoginFault> {
    let kept = of_cookie(&request.headers).ok_or(LoginFault::Refused)?;
    let (name, secret) = kept.split_once('.').ok_or(LoginFault::Refused)?;
    let secret = LoginSecret::of(secret);
    let sent = |field: &str| {
        let mut pairs =
            url::form_urlencoded::parse(request.query.as_bytes()).filter(|(name, _)| name == field);
        pairs.next().map(|(_, value)| value.into_owned()).filter(|_| pairs.next().is_none())
    };
    if sent("state").is_none_or(|state| state != secret.state()) {
        return Err(LoginFault::Refused);
    }
    let now = front.clock.now();
    let taken = front.administration.take_sign_in(&secret.state_hash(), name, now).await;
    if !taken.map_err(|_| LoginFault::Unavailable)? {
        return Err(LoginFault::Refused);
    }
    let issuer = request.recheck.issuers().named(name).ok_or(LoginFault::Refused)?;
    let code = sent("code").ok_or(LoginFault::Refused)?;
    Ok((issuer.signed_in(&code, &secret, now).await?, name.to_owned()))
}

async fn begun(front: &Front, request: &Request, subject: Subject, issuer: String) -> Answer {
    let Grant::Staff(roles) = subject.grant else { return Ok(led_back(request, Some(LoginFault::NoRole))) };
    let secret = Token::generate(SESSION_PREFIX, front.random.as_ref());
    let now = front.clock.now();
    let lasts = request.recheck.issuers().named(&issuer).map(Issuer::session_lasts).unwrap_or_default();
    let session = Session {
        hash: secret.hash(),
        token: None,
        subject: Some(SessionSubject { id: subject.id.clone(), issuer, roles }),
        // The session belongs to no token: this is the hash of its own secret.
        token_hash: secret.hash(),
        created_at: now,
        expires_at: now.after(lasts),
    };
    begin(front, request, &session, &subject.id, None).await?;
    let mut response = led_back(request, None);
    let cookie = session::cookie(secret.text().expose(), lasts, request.is_secure);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Redirects to the dashboard, which shows the fault, and removes the cookie of the sign-in.
fn led_back(request: &Request, fault: Option<LoginFault>) -> Response {
    let place = match fault {
        None => "/dashboard/",
        Some(LoginFault::Unavailable) => "/dashboard/?sign_in=unavailable",
        Some(LoginFault::Refused) => "/dashboard/?sign_in=refused",
        Some(LoginFault::NoRole) => "/dashboard/?sign_in=no_role",
    };
    let mut response = led(HeaderValue::from_static(place));
    let gone = cookie("", Duration::ZERO, request.is_secure);
    response.headers_mut().append(header::SET_COOKIE, gone);
    response
}

fn led(place: HeaderValue) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, place);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The cookie of a sign-in. It is sent with a redirect from another site, because the issuer sends the
/// browser back.
fn cookie(value: &str, lasts: Duration, is_secure: bool) -> HeaderValue {
    let (secure, seconds) = (if is_secure { "; Secure" } else { "" }, lasts.as_secs());
    let text =
        format!("{COOKIE}={value}; Path={COOKIE_PATH}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).expect("names of issuers and secrets are plain ASCII")
}

/// The value of a sign-in's cookie; `None` without one, with several, or with a malformed one.
fn of_cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut sent = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    let first = sent.next().filter(|value| value.len() <= 512)?;
    let (_, secret) = first.split_once('.')?;
    Token::parse(SIGN_IN_PREFIX, secret).ok()?;
    sent.next().is_none().then(|| first.to_owned())
}
