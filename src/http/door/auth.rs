//! Authentication of callers. A token is found by its public part, with one search of an index, and compared
//! in constant time; an unknown public part costs the same comparison. No part of a sent token is ever
//! logged. A token of an app opens no route of the staff, and the other way round. The cookie of a session
//! stands for the token that a person signed in with, and is checked like that token.

pub mod admin_token;
pub(crate) mod session;

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, Method, header};
use subtle::ConstantTimeEq;
use tidings_actors::{
    model::permission::{Permission, PermissionSet, narrowing::Powers, roles::Roles},
    ports::{AccessToken, App, SessionSubject, TokenOwner},
};
use tidings_entity::{
    id::{Sha256Hash, TokenId},
    kind::Role,
};
use tracing::{Span, debug, info};
use ulid::Ulid;

use self::admin_token::AdminToken;
use super::{
    audit_layer::AuditLayer,
    request::{ANYONE, Caller, Known, Recheck, Staff},
    route::Access,
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
    hooks::{self, Bounds},
};
use crate::{
    identity::{
        Identity,
        issuer::{Grant, Issuers, Subject, TOKEN_BYTES_MAX},
        refusal::{Refusal, TokenFault},
    },
    secrets::{TOKEN_PREFIX, Token},
    settings::{OnboardingMode, Opens},
};

/// The actor for the admin token of the server itself.
pub(crate) const BOOTSTRAP: &str = "admin";
/// The detail of a refusal at a route of the staff, for the valid token of an app.
pub(crate) const TOKEN_OF_APP: &str =
    "the token is valid, but it is the token of an app; this route needs a token of the staff";
/// The detail of a refusal at a route of apps, for a valid token of the staff.
pub(crate) const TOKEN_OF_STAFF: &str = "the token is valid, but it is a token of the staff; this route \
     needs the token of an app (the staff has the routes of an app below /api/admin/apps/{app_id})";
/// Longest `Authorization` that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = "Bearer ".len() + TOKEN_BYTES_MAX;

/// Finds the caller of a request.
pub struct Authentication {
    /// The ports and settings for handlers.
    pub(crate) front: Arc<Front>,
    /// The token of the server itself.
    pub(crate) admin: AdminToken,
    /// Caches about callers between requests.
    pub(crate) identity: Arc<Identity>,
    /// Records refusals at the routes of the staff.
    pub(crate) audit: AuditLayer,
    /// The limits for hooks without a proof.
    pub(crate) hooks: Arc<Bounds>,
    /// The roles that the staff may have.
    pub(crate) roles: Roles,
}

#[async_trait]
impl Recheck for Authentication {
    fn issuers(&self) -> &Issuers {
        &self.identity.issuers
    }

    async fn known(&self, access: Access, headers: &HeaderMap, client: IpAddr) -> Result<Known, Problem> {
        // A long answer only reads; the checks for changes were made when the request came.
        self.caller(access, &Method::GET, headers, "", client).await
    }
}

impl Authentication {
    /// The caller, if the caller may call a route with this access.
    ///
    /// # Errors
    /// 401, 400 for two `Authorization` headers, 403 for the cookie of a session with a request of another
    /// site, 409 for that of another person than the page shows, 503 if the store does not answer.
    pub async fn caller(
        &self,
        access: Access,
        method: &Method,
        headers: &HeaderMap,
        request_id: &str,
        client: IpAddr,
    ) -> Result<Known, Problem> {
        let known = self.found(access, method, headers, request_id, client).await?;
        if matches!(known.caller, Caller::App(_) | Caller::Staff(_)) {
            session::check_person(headers, &known.actor)?;
        }
        Ok(known)
    }

    async fn found(
        &self,
        access: Access,
        method: &Method,
        headers: &HeaderMap,
        request_id: &str,
        client: IpAddr,
    ) -> Result<Known, Problem> {
        let anyone =
            |caller| Known { caller, actor: ANYONE.to_owned(), powers: Powers::default(), ends_at: None };
        match access {
            Access::Public => Ok(anyone(Caller::Anyone)),
            Access::App(permission) | Access::Holder(permission) => {
                let mut of = RefusedCaller::default();
                let known = self.app(&self.sent(method, headers).await?, &mut of).await;
                let known = known.inspect_err(|_| self.note(&of))?;
                let may_hold =
                    matches!(access, Access::Holder(_)) && known.powers.may(Permission::TasksClaim);
                if may_hold || known.powers.may(permission) { Ok(known) } else { Err(lacking(permission)) }
            }
            Access::Anybody => self.anybody(&self.sent(method, headers).await?).await,
            Access::Hook(provider) => {
                hooks::caller(&self.front, &self.hooks, provider, headers).await.map(anyone)
            }
            Access::AppHook(provider) => hooks::caller_of_app(provider, headers).map(anyone),
            Access::Onboarding if self.front.settings.onboarding.mode == OnboardingMode::Open => {
                Ok(anyone(Caller::Anyone))
            }
            Access::Staff(_) | Access::Onboarding => {
                let mut of = RefusedCaller::default();
                let known = match self.sent(method, headers).await {
                    Ok(sent) => self.staff(access.permission(), &sent, &mut of).await,
                    Err(problem) if problem.code() == Kind::MISSING_AUTHORIZATION.code => {
                        Err(Problem::new(Kind::ADMIN_REQUIRED))
                    }
                    Err(problem) => Err(problem),
                };
                if known.is_err() {
                    self.note(&of);
                }
                if let Err(problem) = &known
                    && [Kind::ADMIN_REQUIRED, Kind::ROLE_REQUIRED, Kind::PERMISSION_REQUIRED]
                        .map(|kind| kind.code)
                        .contains(&problem.code())
                {
                    self.audit.refused(of, problem.code(), request_id, client);
                }
                known
            }
        }
    }

    /// The proof in a request: a token, or else the cookie of a session.
    async fn sent<'h>(&self, method: &Method, headers: &'h HeaderMap) -> Result<Sent<'h>, Problem> {
        if headers.contains_key(header::AUTHORIZATION) {
            return bearer(headers).map(Sent::of_token);
        }
        let missing = || Problem::new(Kind::MISSING_AUTHORIZATION);
        let hash = session::of_cookie(&self.front.session_cookie, headers).ok_or_else(missing)?;
        session::check_page(method, headers)?;
        let found = self.front.administration.find_session(&hash, self.front.clock.now()).await;
        let found = found.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
        let (session, public_id) = found.ok_or_else(missing)?;
        Ok(Sent { text: None, public_id, hash: session.token_hash, subject: session.subject })
    }

    /// The app of the token in the request. `of` learns what is known of a refused caller.
    async fn app(&self, sent: &Sent<'_>, of: &mut RefusedCaller) -> Result<Known, Problem> {
        let refused = || Problem::new(Kind::INVALID_TOKEN);
        if let Some(text) = sent.text.filter(|text| Issuers::is_token(text)) {
            return self.app_of_issuer(text, of).await;
        }
        if self.admin.has_hash(&sent.hash) {
            return Err(refused().with_detail(TOKEN_OF_STAFF));
        }
        let found = self.token(sent).await?.filter(|found| found.is_live);
        let Found { token, app: Some(app), .. } = found.ok_or_else(refused)? else {
            return Err(refused().with_detail(TOKEN_OF_STAFF));
        };
        let mut powers = Powers::of(PermissionSet::of_apps());
        if let Some(narrowing) = &token.narrowing {
            let narrowed = Powers::of_narrowed(narrowing, &self.roles);
            powers = Powers { permissions: narrowed.permissions.both(powers.permissions), ..narrowed };
        }
        Span::current().record("app.id", app.id.as_str());
        let (actor, ends_at) = (token.id.to_string(), token.expires_at);
        Ok(Known { caller: Caller::App(Box::new(app)), actor, powers, ends_at })
    }

    /// The app that the token of an issuer for apps is of.
    async fn app_of_issuer(&self, text: &str, of: &mut RefusedCaller) -> Result<Known, Problem> {
        let refused = || Problem::new(Kind::INVALID_TOKEN);
        let subject = self.identity.issuers.subject(Opens::Apps, text, self.front.clock.now()).await;
        let (id, app, powers, ends_at) = match subject {
            Ok(Subject { id, grant: Grant::App(app, powers), ends_at, .. }) => (id, app, powers, ends_at),
            Ok(_) | Err(Refusal::NoRole) => return Err(refused()),
            Err(Refusal::Invalid(fault)) => {
                of.fault = Some(fault);
                return Err(refused());
            }
        };
        let app = self.front.store.app(&app).await;
        let app = app.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
        let Some(app) = app else {
            of.fault = Some(TokenFault::AppUnknown);
            return Err(refused());
        };
        Span::current().record("app.id", app.id.as_str());
        Ok(Known { caller: Caller::App(Box::new(app)), actor: id, powers, ends_at: Some(ends_at) })
    }

    /// The owner of a valid token, of an app or of the staff.
    async fn anybody(&self, sent: &Sent<'_>) -> Result<Known, Problem> {
        let (mut as_app, mut as_staff) = (RefusedCaller::default(), RefusedCaller::default());
        let refused = match self.app(sent, &mut as_app).await {
            Ok(known) => return Ok(known),
            Err(refused) => refused,
        };
        self.staff(None, sent, &mut as_staff).await.map_err(|_| {
            // Each issuer is for one of the two, and is unknown to the other.
            let is_of_app = as_staff.fault == Some(TokenFault::UnknownIssuer);
            self.note(if is_of_app { &as_app } else { &as_staff });
            refused
        })
    }

    /// A member of the staff with the required permission. `of` learns what is known of a refused caller.
    async fn staff(
        &self,
        asked: Option<Permission>,
        sent: &Sent<'_>,
        of: &mut RefusedCaller,
    ) -> Result<Known, Problem> {
        let refused = || Problem::new(Kind::ADMIN_REQUIRED);
        let of_issuer = sent.text.filter(|text| Issuers::is_token(text));
        let mut ends_at = None;
        let (id, keys, roles, narrowing) = if let Some(SessionSubject { id, issuer, roles }) = &sent.subject {
            // A session ends with the issuer that it began at.
            if !self.identity.issuers.has_sessions_of(issuer) {
                return Err(refused());
            }
            let keys = id.strip_prefix("jwt:").and_then(|half| u128::from_str_radix(half, 16).ok());
            (id.clone(), Ulid::from(keys.unwrap_or_default()), roles.clone(), None)
        } else if self.admin.has_hash(&sent.hash) {
            (BOOTSTRAP.to_owned(), Ulid::nil(), vec![Role::Admin.to_string()], None)
        } else if let Some(text) = of_issuer {
            match self.identity.issuers.subject(Opens::Staff, text, self.front.clock.now()).await {
                Ok(Subject { id, keys, grant: Grant::Staff(roles), ends_at: at }) => {
                    ends_at = Some(at);
                    (id, keys, roles, None)
                }
                Ok(_) => return Err(refused()),
                Err(Refusal::Invalid(fault)) => {
                    of.fault = Some(fault);
                    return Err(refused());
                }
                Err(Refusal::NoRole) => return Err(Problem::new(Kind::ROLE_REQUIRED)),
            }
        } else {
            let Some(Found { token: found, is_live, .. }) = self.token(sent).await? else {
                return Err(refused());
            };
            of.id = Some(found.id.to_string());
            ends_at = found.expires_at;
            let roles = match (&found.owner, &found.narrowing) {
                (TokenOwner::Staff(role), narrowing) if is_live => {
                    let own = narrowing.as_ref().and_then(|narrowing| narrowing.role.clone());
                    role.map(|role| role.to_string()).or(own).into_iter().collect()
                }
                (TokenOwner::App(_), _) if is_live => return Err(refused().with_detail(TOKEN_OF_APP)),
                _ => return Err(refused()),
            };
            let rest = found.id.as_str().trim_start_matches(TokenId::PREFIX);
            let keys = rest.parse().unwrap_or_else(|_| Ulid::nil());
            (found.id.to_string(), keys, roles, found.narrowing)
        };
        of.id = Some(id.clone());
        let powers = match &narrowing {
            Some(narrowing) => Powers::of_narrowed(narrowing, &self.roles),
            None => Powers::of(self.roles.of_staff(roles.iter().map(String::as_str))),
        };
        if let Some(permission) = asked.filter(|permission| !powers.may(*permission)) {
            return Err(lacking_of_staff(permission, &roles));
        }
        Ok(Known { actor: id.clone(), caller: Caller::Staff(Staff { id, roles, keys }), powers, ends_at })
    }

    /// Tells the operator in the log why the token of an issuer is refused: a few times a minute for each
    /// fault, because anyone can send such tokens. The line has no part of the token.
    fn note(&self, of: &RefusedCaller) {
        let Some(reason) = of.fault.map(TokenFault::as_str) else { return };
        if self.identity.is_action_written("", reason, self.front.clock.now()) {
            info!(token.fault = reason, "the token of an issuer was refused: {reason}");
        }
    }

    /// The row of the token in the request, and whether the token is live. The use of a live token is
    /// recorded.
    async fn token(&self, sent: &Sent<'_>) -> Result<Option<Found>, Problem> {
        let Some(public_id) = &sent.public_id else { return Ok(None) };
        let found = self.front.administration.find_token(public_id).await;
        let found = found.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
        let nobody = Sha256Hash::new([0; 32]);
        let stored = found.as_ref().map_or(nobody, |(token, _)| token.hash);
        let equal: bool = sent.hash.as_bytes().ct_eq(stored.as_bytes()).into();
        let Some((token, app)) = found.filter(|_| equal) else { return Ok(None) };
        let now = self.front.clock.now();
        let is_live = token.is_live(now);
        if is_live && self.identity.is_use_written(&token, now) {
            let (front, id) = (self.front.clone(), token.id.clone());
            #[expect(
                clippy::disallowed_methods,
                reason = "one a minute for each token; no request waits for it"
            )]
            tokio::spawn(async move {
                if let Err(reason) = front.administration.note_use(&id, now).await {
                    debug!(%reason, token.id = %id, "the use of a token was not noted");
                }
            });
        }
        Ok(Some(Found { token, app, is_live }))
    }
}

/// What is known of a caller who is refused at a route of the staff.
#[derive(Default)]
pub(crate) struct RefusedCaller {
    /// The id of the token, or of the person.
    pub(crate) id: Option<String>,
    /// The fault of the token of an issuer.
    pub(crate) fault: Option<TokenFault>,
}

/// The proof of the caller in a request.
struct Sent<'h> {
    /// The token itself; `None`: the request has the cookie of a session.
    text: Option<&'h str>,
    /// The public part of a token of Tidings; `None`: the token has another form.
    public_id: Option<String>,
    /// SHA-256 of the token.
    hash: Sha256Hash,
    /// The person of a session without a token of Tidings.
    subject: Option<SessionSubject>,
}

impl<'h> Sent<'h> {
    fn of_token(text: &'h str) -> Self {
        let public_id = Token::parse(TOKEN_PREFIX, text).ok().map(|token| token.public_id().to_owned());
        Self { text: Some(text), public_id, hash: Sha256Hash::of(text.as_bytes()), subject: None }
    }
}

/// A token of ours that was sent.
struct Found {
    token: AccessToken,
    /// The app of the token, if it is one of an app.
    app: Option<App>,
    is_live: bool,
}

/// The refusal of a caller that is known and lacks a permission.
pub(crate) fn lacking(permission: Permission) -> Problem {
    Problem::new(Kind::PERMISSION_REQUIRED)
        .with_detail(format!("this token lacks the permission {permission}"))
}

/// The refusal for the staff; it names roles if the member has a built-in one.
fn lacking_of_staff(permission: Permission, roles: &[String]) -> Problem {
    let [role] = roles else { return lacking(permission) };
    match (role.parse::<Role>(), permission.least_role()) {
        (Ok(role), Some(least)) => Problem::new(Kind::ROLE_REQUIRED).with_detail(format!(
            "it needs the role {least}, and this token has the role {role}: it lacks {permission}"
        )),
        _ => lacking(permission),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let first = sent.next();
    if sent.next().is_some() {
        return Err(Problem::malformed("Authorization was sent twice"));
    }
    first
        .filter(|value| value.len() <= HEADER_BYTES_MAX)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        // By RFC 9110, 11.1, the name of a scheme is case-insensitive.
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
        .map(|(_, token)| token)
        .ok_or_else(|| Problem::new(Kind::MISSING_AUTHORIZATION))
}
