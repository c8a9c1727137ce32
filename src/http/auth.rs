//! Who is calling. A token is found by its public part and compared in constant time; an unknown
//! public part costs the same comparison. What is sent is never logged, not even in part.

use http::{HeaderMap, header};
use subtle::ConstantTimeEq;
use tidings_actors::ports::App;
use tidings_entity::id::Sha256Hash;
use tracing::Span;

use super::{
    Front, hooks,
    problem::{Kind, Problem},
    request::Caller,
    route::Access,
};
use crate::{secrets::Token, settings::OnboardingMode};

/// What every token of ours begins with.
pub(crate) const TOKEN_PREFIX: &str = "tdg";
/// Longest `Authorization` that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = 512;

/// The caller, if it may call a route with this access.
///
/// # Errors
/// 401, 400 for two `Authorization` headers, 503 if the store does not answer.
pub async fn caller(front: &Front, access: Access, headers: &HeaderMap) -> Result<Caller, Problem> {
    match access {
        Access::Public => Ok(Caller::Anyone),
        Access::App => Ok(Caller::App(Box::new(app(front, headers).await?))),
        Access::Admin => administrator(front, headers),
        Access::Hook(provider) => hooks::caller(front, provider, headers).await,
        Access::Onboarding if front.settings.onboarding.mode == OnboardingMode::Open => Ok(Caller::Anyone),
        Access::Onboarding => administrator(front, headers),
    }
}

/// The app whose token was sent.
///
/// # Errors
/// Those of [`caller`].
pub async fn app(front: &Front, headers: &HeaderMap) -> Result<App, Problem> {
    let Ok(token) = Token::parse(TOKEN_PREFIX, bearer(headers)?) else {
        return Err(Problem::new(Kind::INVALID_TOKEN));
    };
    let found = front
        .store
        .app_by_token(token.public_id())
        .await
        .map_err(|error| Problem::of_store(error, Kind::INVALID_TOKEN))?;
    let nobody = Sha256Hash::new([0; 32]);
    let stored = found.as_ref().map_or(nobody, |app| app.token_hash);
    let equal = token.matches(&stored);
    match found {
        Some(app) if equal => {
            Span::current().record("app.id", app.id.as_str());
            Ok(app)
        }
        _ => Err(Problem::new(Kind::INVALID_TOKEN)),
    }
}

fn administrator(front: &Front, headers: &HeaderMap) -> Result<Caller, Problem> {
    let sent = bearer(headers).map_err(|problem| match problem.code() {
        code if code == Kind::MISSING_AUTHORIZATION.code => Problem::new(Kind::ADMIN_REQUIRED),
        _ => problem,
    })?;
    if front.admin.opens(sent) { Ok(Caller::Admin) } else { Err(Problem::new(Kind::ADMIN_REQUIRED)) }
}

/// Whether two hashes are equal, in constant time.
pub(super) fn same(one: &Sha256Hash, other: &Sha256Hash) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let first = sent.next();
    if sent.next().is_some() {
        return Err(Problem::malformed("Authorization was sent twice"));
    }
    first
        .filter(|value| value.len() <= HEADER_BYTES_MAX)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Problem::new(Kind::MISSING_AUTHORIZATION))
}
