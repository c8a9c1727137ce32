//! Who is calling. A token is found by its public part, with one search of an index, and compared in
//! constant time; an unknown public part costs the same comparison. What is sent is never logged, not
//! even in part. A token of an app opens nothing of the staff's, nor the other way round.

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, header};
use tidings_actors::ports::{AccessToken, App, TokenOwner};
use tidings_entity::{
    id::{Sha256Hash, TokenId},
    kind::Role,
};
use tracing::{Span, debug};
use ulid::Ulid;

use super::{
    admin_token::AdminToken,
    request::{Caller, Known, Recheck, Staff},
    route::Access,
    witness::Witness,
};
use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
    hooks::{self, Bounds},
};
use crate::{
    identity::{
        Identity,
        issuer::{Issuer, Refusal, Subject, TOKEN_BYTES_MAX},
    },
    secrets::{TOKEN_PREFIX, Token},
    settings::OnboardingMode,
};

/// Who holds the admin token of the server itself.
const BOOTSTRAP: &str = "admin";
/// Who is not known.
const ANYONE: &str = "anyone";
/// Longest `Authorization` that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = "Bearer ".len() + TOKEN_BYTES_MAX;

/// Finds out who calls.
pub struct Authentication {
    /// What handlers work with.
    pub(crate) front: Arc<Front>,
    /// The token of the server itself.
    pub(crate) admin: AdminToken,
    /// What is remembered of callers between requests.
    pub(crate) identity: Arc<Identity>,
    /// Told of refusals at the staff's door.
    pub(crate) witness: Witness,
    /// What hooks that offer no proof may cost.
    pub(crate) hooks: Arc<Bounds>,
}

#[async_trait]
impl Recheck for Authentication {
    async fn check(&self, access: Access, headers: &HeaderMap, client: IpAddr) -> Result<(), Problem> {
        self.caller(access, headers, "", client).await.map(drop)
    }
}

impl Authentication {
    /// The caller, if it may call a route with this access.
    ///
    /// # Errors
    /// 401, 400 for two `Authorization` headers, 503 if the store does not answer.
    pub async fn caller(
        &self,
        access: Access,
        headers: &HeaderMap,
        request_id: &str,
        client: IpAddr,
    ) -> Result<Known, Problem> {
        let anyone = |caller| Known { caller, actor: ANYONE.to_owned() };
        match access {
            Access::Public => Ok(anyone(Caller::Anyone)),
            Access::App => self.app(headers).await,
            Access::Hook(provider) => {
                hooks::caller(&self.front, &self.hooks, provider, headers).await.map(anyone)
            }
            Access::Onboarding if self.front.settings.onboarding.mode == OnboardingMode::Open => {
                Ok(anyone(Caller::Anyone))
            }
            Access::Viewer | Access::Operator | Access::Admin | Access::Onboarding => {
                let mut by = None;
                let known = self.staff(access, headers, &mut by).await;
                if let Err(problem) = &known
                    && [Kind::ADMIN_REQUIRED.code, Kind::ROLE_REQUIRED.code].contains(&problem.code())
                {
                    self.witness.refused(by, problem.code(), request_id, client);
                }
                known
            }
        }
    }

    /// The app whose token was sent.
    ///
    /// # Errors
    /// Those of [`Self::caller`].
    pub async fn app(&self, headers: &HeaderMap) -> Result<Known, Problem> {
        let refused = || Problem::new(Kind::INVALID_TOKEN);
        let found = self.token(bearer(headers)?).await?.filter(|found| found.is_live);
        let Found { token, app: Some(app), .. } = found.ok_or_else(refused)? else { return Err(refused()) };
        Span::current().record("app.id", app.id.as_str());
        Ok(Known { caller: Caller::App(Box::new(app)), actor: token.id.to_string() })
    }

    /// Proves that the request has a valid token, of an app or of the staff.
    ///
    /// # Errors
    /// Those of [`Self::app`].
    pub async fn anybody(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Err(refused) = self.app(headers).await else { return Ok(()) };
        self.staff(Access::Viewer, headers, &mut None).await.map(drop).map_err(|_| refused)
    }

    /// Somebody of the staff whose role reaches that of the route; `by`: the id of a known token.
    async fn staff(
        &self,
        access: Access,
        headers: &HeaderMap,
        by: &mut Option<String>,
    ) -> Result<Known, Problem> {
        let refused = || Problem::new(Kind::ADMIN_REQUIRED);
        let sent = bearer(headers).map_err(|problem| match problem.code() {
            code if code == Kind::MISSING_AUTHORIZATION.code => refused(),
            _ => problem,
        })?;
        let staff = if self.admin.opens(sent) {
            Staff { id: BOOTSTRAP.to_owned(), role: Role::Admin, keys: Ulid::nil() }
        } else if let Some(issuer) = self.identity.issuer.as_ref().filter(|_| Issuer::is_token(sent)) {
            match issuer.subject(sent, self.front.clock.now()).await {
                Ok(Subject { id, role, keys }) => Staff { id, role, keys },
                Err(Refusal::Invalid) => return Err(refused()),
                Err(Refusal::NoRole) => return Err(Problem::new(Kind::ROLE_REQUIRED)),
            }
        } else {
            let Some(Found { token: found, is_live, .. }) = self.token(sent).await? else {
                return Err(refused());
            };
            *by = Some(found.id.to_string());
            match found.owner {
                TokenOwner::Staff(role) if is_live => {
                    let rest = found.id.as_str().trim_start_matches(TokenId::PREFIX);
                    let keys = rest.parse().unwrap_or_else(|_| Ulid::nil());
                    Staff { id: found.id.to_string(), role, keys }
                }
                _ => return Err(refused()),
            }
        };
        *by = Some(staff.id.clone());
        let least = access.role().unwrap_or(Role::Admin);
        if staff.role < least {
            let said = format!("it needs the role {least}, and this token has the role {}", staff.role);
            return Err(Problem::new(Kind::ROLE_REQUIRED).with_detail(said));
        }
        Ok(Known { actor: staff.id.clone(), caller: Caller::Staff(staff) })
    }

    /// The row of a token of ours that was sent, and whether it is live. One that is notes its use.
    async fn token(&self, sent: &str) -> Result<Option<Found>, Problem> {
        let Ok(sent) = Token::parse(TOKEN_PREFIX, sent) else { return Ok(None) };
        let found = self.front.administration.find_token(sent.public_id()).await;
        let found = found.map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
        let nobody = Sha256Hash::new([0; 32]);
        let stored = found.as_ref().map_or(nobody, |(token, _)| token.hash);
        let equal = sent.matches(&stored);
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

/// A token of ours that was sent.
struct Found {
    token: AccessToken,
    /// Whose it is, where it is one of an app.
    app: Option<App>,
    is_live: bool,
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
        // RFC 9110, 11.1: the case of a scheme does not matter.
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
        .map(|(_, token)| token)
        .ok_or_else(|| Problem::new(Kind::MISSING_AUTHORIZATION))
}
