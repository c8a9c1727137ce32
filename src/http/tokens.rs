//! Tokens: those of an app, which it looks after itself, and those of the staff. A rotation is to
//! make one, to use it, and to revoke the old one. A token is shown once, when it is made.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    ports::{AccessToken, TokenOwner, TokensOf},
    time::Timestamp,
};
use tidings_entity::{id::TokenId, kind::Role};
use utoipa::ToSchema;
use warp::reply::Response;

use super::front::Front;
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        moment::{iso, parsed},
        paging::{Page, Query, page},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Route, route},
    },
};
use crate::{
    secrets::{TOKEN_PREFIX, Token},
    store::audit,
};

/// What the cursors of the staff's list are made for.
const STAFF: &str = "admin tokens";
/// Most characters of a name.
const NAME_CHARACTERS_MAX: usize = 100;
/// The farthest end of a token: ten years.
const LIVES_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_create, _, _>(Access::App, create),
        route::<__path_list, _, _>(Access::App, list),
        route::<__path_revoke, _, _>(Access::App, revoke),
        route::<__path_create_staff, _, _>(Access::Admin, create_staff),
        route::<__path_list_staff, _, _>(Access::Admin, list_staff),
        route::<__path_revoke_staff, _, _>(Access::Admin, revoke_staff),
    ]
}

body! {
    /// A token that an app wants.
    struct TokenWish {
        /// What it is for.
        #[schema(min_length = 1, max_length = 100)]
        name: String,
        /// When it ends by itself, within ten years; never where it is missing.
        expires_at: Option<String>,
    }
}

body! {
    /// A token for somebody of the staff.
    struct StaffTokenWish {
        /// What it is for.
        #[schema(min_length = 1, max_length = 100)]
        name: String,
        /// `viewer`, `operator` or `admin`.
        role: String,
        /// When it ends by itself, within ten years; never where it is missing.
        expires_at: Option<String>,
    }
}

/// A token, without its secret.
#[derive(Serialize, ToSchema)]
struct TokenShown {
    token_id: String,
    /// What it is for.
    name: String,
    /// The part of it that is no secret.
    public_id: String,
    /// What it may do; only of the staff's.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// `live`, `expired` or `revoked`.
    state: &'static str,
    /// When it ends by itself.
    expires_at: Option<String>,
    /// When it was used last, to about a minute.
    last_used_at: Option<String>,
    /// When it was revoked.
    revoked_at: Option<String>,
    created_at: String,
    /// The token itself; only when it is made, never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenShown {
    fn of(token: &AccessToken, now: Timestamp) -> Self {
        let state = match token.revoked_at {
            Some(_) => "revoked",
            None if token.is_live(now) => "live",
            None => "expired",
        };
        Self {
            token_id: token.id.to_string(),
            name: token.name.clone(),
            public_id: token.public_id.clone(),
            role: match token.owner {
                TokenOwner::App(_) => None,
                TokenOwner::Staff(role) => Some(role.as_str()),
            },
            state,
            expires_at: token.expires_at.map(iso),
            last_used_at: token.last_used_at.map(iso),
            revoked_at: token.revoked_at.map(iso),
            created_at: iso(token.created_at),
            token: None,
        }
    }
}

/// Makes another token for the app that asks.
#[utoipa::path(post, path = "/api/app/tokens", tag = "apps", request_body = TokenWish, responses(
    (status = 201, body = TokenShown)
))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let owner = TokenOwner::App(request.app()?.id.clone());
    let mut fields = Fields::of_body::<TokenWish>(&request.body)?;
    let (name, expires_at) = read(&front, &mut fields);
    fields.finish()?;
    make(&front, owner, name, expires_at).await
}

/// The tokens of the app that asks, oldest first.
#[utoipa::path(get, path = "/api/app/tokens", tag = "apps",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<TokenShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let list = format!("tokens of {app}");
    listed(&front, &request, &TokensOf::App(app), &list).await
}

/// Ends a token of the app that asks, at once and for good.
#[utoipa::path(delete, path = "/api/app/tokens/{id}", tag = "apps", params(("id" = String, Path)),
    responses((status = 204)))]
async fn revoke(front: Arc<Front>, request: Request) -> Answer {
    let of = TokensOf::App(request.app()?.id.clone());
    revoked(&front, &request, &of).await
}

/// Makes a token for somebody of the staff.
#[utoipa::path(post, path = "/api/admin/tokens", tag = "admin", request_body = StaffTokenWish, responses(
    (status = 201, body = TokenShown)
))]
async fn create_staff(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_body::<StaffTokenWish>(&request.body)?;
    let (name, expires_at) = read(&front, &mut fields);
    if !fields.has("role") {
        fields.refuse("role", "is required");
    }
    let role: Option<Role> = fields.word("role", "viewer, operator, admin");
    fields.finish()?;
    make(&front, TokenOwner::Staff(role.unwrap_or(Role::Viewer)), name, expires_at).await
}

/// The tokens of the staff, oldest first. The admin token of the server itself is none of them.
#[utoipa::path(get, path = "/api/admin/tokens", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 100; 50 where it is missing"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<TokenShown>)))]
async fn list_staff(front: Arc<Front>, request: Request) -> Answer {
    listed(&front, &request, &TokensOf::Staff, STAFF).await
}

/// Ends a token of the staff, at once and for good.
#[utoipa::path(delete, path = "/api/admin/tokens/{id}", tag = "admin", params(("id" = String, Path)),
    responses((status = 204)))]
async fn revoke_staff(front: Arc<Front>, request: Request) -> Answer {
    revoked(&front, &request, &TokensOf::Staff).await
}

fn read(front: &Front, fields: &mut Fields) -> (String, Option<Timestamp>) {
    let name = fields.required_text("name", 1..=NAME_CHARACTERS_MAX);
    let expires_at = fields.text("expires_at", 1..=64).and_then(|text| {
        let now = front.clock.now();
        let moment = parsed(&text).filter(|moment| *moment > now && *moment <= now.after(LIVES_MAX));
        if moment.is_none() {
            fields.refuse("expires_at", "must be a moment (RFC 3339) to come, within ten years");
        }
        moment
    });
    (name, expires_at)
}

async fn make(front: &Front, owner: TokenOwner, name: String, expires_at: Option<Timestamp>) -> Answer {
    let now = front.clock.now();
    let made = Token::generate(TOKEN_PREFIX, front.random.as_ref());
    let token = AccessToken {
        id: TokenId::new(front.random.ulid(now)),
        owner,
        name,
        public_id: made.public_id().to_owned(),
        hash: made.hash(),
        expires_at,
        last_used_at: None,
        revoked_at: None,
        created_at: now,
    };
    audit::about(token.id.as_str(), None);
    let created = front.administration.create_token(&token).await;
    created.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    let shown = TokenShown { token: Some(made.text().expose().to_owned()), ..TokenShown::of(&token, now) };
    Ok(json(StatusCode::CREATED, &shown))
}

async fn listed(front: &Front, request: &Request, of: &TokensOf, list: &str) -> Answer {
    let query = Query::of(&request.query, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let after = query.after(list)?;
    let tokens = front.administration.tokens(of, after.as_ref(), limit + 1).await;
    let tokens = tokens.map_err(|error| Problem::of_store(error, Kind::NO_TOKEN))?;
    let now = front.clock.now();
    let page = page(tokens, limit, list, |token| token.id.to_string(), |token| TokenShown::of(token, now));
    Ok(json(StatusCode::OK, &page))
}

async fn revoked(front: &Front, request: &Request, of: &TokensOf) -> Answer {
    let id: TokenId = request.id(Kind::NO_TOKEN)?;
    let revoked = front.administration.revoke_token(of, &id, front.clock.now()).await;
    revoked.map_err(|error| Problem::of_store(error, Kind::NO_TOKEN))?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
