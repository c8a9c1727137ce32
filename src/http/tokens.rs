//! Tokens: those of an app, which the app manages itself, and those of the staff. A rotation creates a new
//! token, uses it, and revokes the old one. A token is shown once, when it is created. A token may be
//! narrowed to permissions and commands; no token may do more than its creator.

mod narrowing;
pub(super) mod session;

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    ports::{AccessToken, TokenOwner, TokensOf},
    time::Timestamp,
};
use tidings_entity::id::TokenId;
use utoipa::ToSchema;
use warp::reply::Response;

use self::narrowing::Wanted;
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
        route::{Access, Answer, Permission, Route, route},
    },
};
use crate::{
    secrets::{TOKEN_PREFIX, Token},
    store::audit,
};

/// The name of the staff's list in its cursors.
const STAFF: &str = "admin tokens";
/// Most characters of a name.
const NAME_CHARACTERS_MAX: usize = 100;
/// The farthest end of a token: ten years.
const LIVES_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_create, _, _>(Access::App(Permission::TokensCreate), create),
        route::<__path_list, _, _>(Access::App(Permission::TokensRead), list),
        route::<__path_revoke, _, _>(Access::App(Permission::TokensRevoke), revoke),
        route::<__path_create_staff, _, _>(Access::Staff(Permission::StaffTokensCreate), create_staff),
        route::<__path_list_staff, _, _>(Access::Staff(Permission::StaffTokensList), list_staff),
        route::<__path_revoke_staff, _, _>(Access::Staff(Permission::StaffTokensRevoke), revoke_staff),
    ]
}

body! {
    /// A token to create for an app.
    struct TokenRequest {
        /// Purpose of the token.
        #[schema(min_length = 1, max_length = 100)]
        name: String,
        /// When the token expires: within ten years, and no later than the token that makes this request.
        /// Missing: when that token expires.
        expires_at: Option<String>,
        /// Permissions of the token, as `resource:action`; `*` stands for every resource or action. The
        /// caller needs each of them. Missing: all permissions of the app.
        #[schema(min_items = 1, max_items = 100)]
        permissions: Option<Vec<String>>,
        /// Commands of tasks that the token may use, as names and globs (`mail.*`). Only together with
        /// `permissions`. Missing: every command.
        #[schema(max_items = 100)]
        commands: Option<Vec<String>>,
    }
}

body! {
    /// A token to create for a member of the staff.
    struct StaffTokenRequest {
        /// Purpose of the token.
        #[schema(min_length = 1, max_length = 100)]
        name: String,
        /// `viewer`, `operator`, `admin` or a role of the settings. Required if `permissions` is missing.
        role: Option<String>,
        /// Permissions of the token in place of a role, as `resource:action`; `*` stands for every resource
        /// or action. The caller needs each of them.
        #[schema(min_items = 1, max_items = 100)]
        permissions: Option<Vec<String>>,
        /// Commands of tasks that the token may use, as names and globs (`mail.*`). Missing: every command.
        #[schema(max_items = 100)]
        commands: Option<Vec<String>>,
        /// When the token expires: within ten years, and no later than the token that makes this request.
        /// Missing: when that token expires.
        expires_at: Option<String>,
    }
}

/// A token, without its secret.
#[derive(Serialize, ToSchema)]
struct TokenShown {
    token_id: String,
    /// Purpose of the token.
    name: String,
    /// The public part of the token.
    public_id: String,
    /// Role of a staff token. Missing: the token has permissions instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// Permissions of a narrowed token, as `resource:action`. Missing: the token has all permissions of its
    /// owner or role.
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<String>>,
    /// Commands of tasks that the token may use, as names and globs. Missing: every command.
    #[serde(skip_serializing_if = "Option::is_none")]
    commands: Option<Vec<String>>,
    /// State of the token: `live`, `expired` or `revoked`.
    state: &'static str,
    /// When the token expires.
    expires_at: Option<String>,
    /// When the token was last used, to about a minute.
    last_used_at: Option<String>,
    /// When the token was revoked.
    revoked_at: Option<String>,
    created_at: String,
    /// The token itself. Only in the answer that creates it.
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
        let narrowing = token.narrowing.as_ref();
        let role = match token.owner {
            TokenOwner::Staff(Some(role)) => Some(role.to_string()),
            TokenOwner::App(_) | TokenOwner::Staff(None) => narrowing.and_then(|to| to.role.clone()),
        };
        let permissions = narrowing.map(|to| to.permissions.clone()).filter(|some| !some.is_empty());
        Self {
            token_id: token.id.to_string(),
            name: token.name.clone(),
            public_id: token.public_id.clone(),
            role,
            permissions,
            commands: narrowing.and_then(|to| to.commands.clone()),
            state,
            expires_at: token.expires_at.map(iso),
            last_used_at: token.last_used_at.map(iso),
            revoked_at: token.revoked_at.map(iso),
            created_at: iso(token.created_at),
            token: None,
        }
    }
}

/// Creates another token for the app.
#[utoipa::path(post, path = "/api/app/tokens", tag = "apps", request_body = TokenRequest, responses(
    (status = 201, body = TokenShown)
))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let mut fields = Fields::of_body::<TokenRequest>(&request.body)?;
    let (name, expires_at) = read(&front, &mut fields);
    let wanted = narrowing::of_app(&mut fields, app);
    make(&front, &request, fields, wanted, name, expires_at).await
}

/// Lists the tokens of the app, oldest first.
#[utoipa::path(get, path = "/api/app/tokens", tag = "apps",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<TokenShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let list = format!("tokens of {app}");
    listed(&front, &request, &TokensOf::App(app), &list).await
}

/// Revokes a token of the app, at once and for good.
#[utoipa::path(delete, path = "/api/app/tokens/{id}", tag = "apps", params(("id" = String, Path)),
    responses((status = 204)))]
async fn revoke(front: Arc<Front>, request: Request) -> Answer {
    let of = TokensOf::App(request.app()?.id.clone());
    revoked(&front, &request, &of).await
}

/// Creates a token for a member of the staff.
#[utoipa::path(post, path = "/api/admin/tokens", tag = "admin", request_body = StaffTokenRequest, responses(
    (status = 201, body = TokenShown)
))]
async fn create_staff(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_body::<StaffTokenRequest>(&request.body)?;
    let (name, expires_at) = read(&front, &mut fields);
    let wanted = narrowing::of_staff(&mut fields, &front.settings.roles());
    make(&front, &request, fields, wanted, name, expires_at).await
}

/// Lists the tokens of the staff, oldest first. The admin token of the server itself is not listed.
#[utoipa::path(get, path = "/api/admin/tokens", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<TokenShown>)))]
async fn list_staff(front: Arc<Front>, request: Request) -> Answer {
    listed(&front, &request, &TokensOf::Staff, STAFF).await
}

/// Revokes a token of the staff, at once and for good.
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

async fn make(
    front: &Front,
    request: &Request,
    mut fields: Fields,
    wanted: Option<Wanted>,
    name: String,
    expires_at: Option<Timestamp>,
) -> Answer {
    let maker_ends = request.ends_at;
    if expires_at.zip(maker_ends).is_some_and(|(wanted, maker)| wanted > maker) {
        fields.refuse("expires_at", "must be no later than the end of the token that makes this one");
    }
    fields.finish()?;
    let expires_at = expires_at.or(maker_ends);
    let wanted = wanted.ok_or_else(|| Problem::new(Kind::INVALID))?.within(&request.powers)?;
    let (owner, narrowing) = (wanted.owner, wanted.narrowing);
    let now = front.clock.now();
    let made = Token::generate(TOKEN_PREFIX, front.random.as_ref());
    let token = AccessToken {
        id: TokenId::new(front.random.ulid(now)),
        owner,
        narrowing,
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
