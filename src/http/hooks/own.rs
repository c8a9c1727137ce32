//! Hooks of apps: creating, showing, changing, rotating and removing them. Each has its own address, to which
//! a Git host sends, and its own secret, which is shown once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::secret::Secret,
    ports::{AppHook, HookName, HookPatch, NewHook, StoreError},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, HookId, WatchId},
    kind::HookProvider,
};
use utoipa::ToSchema;
use warp::reply::Response;

use crate::{
    http::{
        apps::watch_sink::refuse_beside_older,
        bodies::{
            body::body,
            fields::Fields,
            moment::iso,
            names::NOT_WATCHED,
            paging::{Page, Query, page},
            problem::{Kind, Problem},
        },
        door::{
            request::{Request, json},
            route::{Access, Answer, Permission, Route, route},
        },
        front::Front,
        ledger::subscriptions::no_such,
    },
    secrets::{KEY_CHARACTERS, generate_signing_key},
};

/// Most characters of a name.
const NAME_MAX: usize = 64;
/// How long the previous secret is accepted beside a new one, unless the request says otherwise: a day.
const OVERLAP_SECONDS: u64 = 86_400;
/// The longest overlap: thirty days.
const OVERLAP_SECONDS_MAX: u64 = 30 * 86_400;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::App(Permission::HooksRead), list),
        route::<__path_create, _, _>(Access::App(Permission::HooksCreate), create),
        route::<__path_show, _, _>(Access::App(Permission::HooksRead), show),
        route::<__path_change, _, _>(Access::App(Permission::HooksUpdate), change),
        route::<__path_rotate_secret, _, _>(Access::App(Permission::HooksRotateSecret), rotate_secret),
        route::<__path_remove, _, _>(Access::App(Permission::HooksRemove), remove),
    ]
}

/// A hook of an app: an address for the push webhooks of one Git host.
#[derive(Serialize, ToSchema)]
struct AppHookShown {
    hook_id: String,
    name: String,
    /// Kind of the Git host: `github`, `gitlab` or `gitea`.
    provider: &'static str,
    /// Path on this server that the Git host sends its requests to.
    path: String,
    /// Address of the only repository whose scan the hook can start. Missing: all repositories of the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_url: Option<String>,
    /// Until when the previous secret is accepted, too. Missing: only the present secret is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    former_secret_until: Option<String>,
    created_at: String,
    /// The newest receipt of the hook. Null: no request came yet.
    last_receipt: Option<LastReceiptShown>,
    /// The secret that this request set; the Git host signs with this secret. Never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// The newest receipt of a hook.
#[derive(Serialize, ToSchema)]
struct LastReceiptShown {
    receipt_id: String,
    /// Verdict: `accepted`, `duplicate`, `ignored` or `refused`.
    verdict: &'static str,
    /// Reason for the verdict, as a code.
    reason: &'static str,
    received_at: String,
}

impl AppHookShown {
    fn of(hook: &AppHook, now: Timestamp, secret: Option<&Secret>) -> Self {
        let last_receipt = hook.last.as_ref().map(|last| LastReceiptShown {
            receipt_id: last.id.to_string(),
            verdict: last.verdict.as_str(),
            reason: last.reason.as_str(),
            received_at: iso(last.received_at),
        });
        Self {
            hook_id: hook.id.to_string(),
            name: hook.name.clone(),
            provider: hook.provider.as_str(),
            path: format!("/hooks/{}/{}", hook.provider, hook.id),
            repository_url: hook.repository_url.clone(),
            former_secret_until: hook.former_until.filter(|until| *until > now).map(iso),
            created_at: iso(hook.created_at),
            last_receipt,
            secret: secret.map(|secret| secret.expose().to_owned()),
        }
    }
}

body! {
    /// A hook to create.
    struct HookRequest {
        /// Name, unique among the hooks of the app: letters, digits, `.`, `-` and `_`.
        #[schema(min_length = 1, max_length = 64)]
        name: String,
        /// Kind of the Git host: `github`, `gitlab` or `gitea` (Gitea and Forgejo).
        provider: String,
        /// The only repository of the app whose scan the hook can start. Missing: all repositories of the
        /// app.
        repository_id: Option<String>,
        /// The secret that the Git host signs with. Missing: the server makes a secret.
        #[schema(min_length = 16, max_length = 500)]
        secret: Option<String>,
    }
}

body! {
    /// Changes to a hook. A field that is missing keeps its value. Address and secret do not change.
    struct HookChange {
        /// New name, unique among the hooks of the app.
        #[schema(min_length = 1, max_length = 64)]
        name: Option<String>,
        /// The only repository of the app whose scan the hook can start from now on. Null: all repositories
        /// of the app.
        repository_id: Option<String>,
    }
}

body! {
    /// Replaces the secret of a hook.
    struct SecretRotation {
        /// The new secret. Missing: the server makes a secret.
        #[schema(min_length = 16, max_length = 500)]
        secret: Option<String>,
        /// Seconds for which the previous secret is accepted beside the new one, 0 to 2,592,000. Default
        /// 86,400.
        #[schema(maximum = 2_592_000)]
        overlap_seconds: Option<u64>,
    }
}

fn store_failed(error: StoreError) -> Problem {
    Problem::of_store(error, Kind::NO_HOOK)
}

/// A hook of an app by its id or its name.
pub(super) async fn of_app(front: &Front, app: &AppId, text: &str) -> Result<AppHook, Problem> {
    let name = text.parse().map_or_else(|_| HookName::Name(text.to_owned()), HookName::Id);
    front.hooks.hook(app, &name).await.map_err(|error| match error {
        StoreError::NotFound => Problem::new(Kind::NO_HOOK).with_detail(no_such(text)),
        other => store_failed(other),
    })
}

/// The hook that the path names, if the caller owns it.
async fn named(front: &Front, request: &Request) -> Result<AppHook, Problem> {
    let text: String = request.id(Kind::NO_HOOK)?;
    of_app(front, &request.app()?.id, &text).await
}

/// Lists the hooks of the app, oldest first.
#[utoipa::path(get, path = "/api/hooks", tag = "hooks",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<AppHookShown>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let app = &request.app()?.id;
    let query = Query::of(&request.query, &["limit", "cursor"])?;
    let (limit, now) = (query.limit()?, front.clock.now());
    let list = format!("hooks of {app}");
    let after: Option<HookId> = query.after(&list)?;
    let found = front.hooks.hooks(app, after.as_ref(), limit + 1).await.map_err(store_failed)?;
    let of = |hook: &AppHook| AppHookShown::of(hook, now, None);
    Ok(json(StatusCode::OK, &page(found, limit, &list, |hook| hook.id.to_string(), of)))
}

/// Creates a hook: an address for the webhooks of one Git host, and the secret that authenticates them. Its
/// webhooks cause scans for the watches of this app only. An app has at most 100 hooks.
#[utoipa::path(post, path = "/api/hooks", tag = "hooks", request_body = HookRequest,
    responses(
        (status = 201, body = AppHookShown),
        (status = 409, description = "The name is taken, the app has 100 hooks already, or a replica runs an \
            older version.")
    ))]
async fn create(front: Arc<Front>, request: Request) -> Answer {
    let app = request.app()?.id.clone();
    let now = front.clock.now();
    let mut fields = Fields::of_body::<HookRequest>(&request.body)?;
    if !fields.has("name") {
        fields.refuse("name", "is required");
    }
    let name = read_name(&mut fields).unwrap_or_default();
    let provider = read_provider(&mut fields);
    let watch = read_watch(&mut fields);
    let secret = read_secret(&front, &mut fields);
    fields.finish()?;
    // Without it a fault was noted.
    let provider = provider.ok_or_else(|| Problem::invalid_field("provider", "is required"))?;
    refuse_beside_older(&front, "no hooks of apps").await?;
    let id = HookId::new(front.random.ulid(now));
    let new = NewHook { id, app, name, provider, watch, secret, created_at: now };
    let made = front.hooks.create_hook(&new).await.map_err(no_repository)?;
    Ok(json(StatusCode::CREATED, &AppHookShown::of(&made, now, Some(&new.secret))))
}

fn no_repository(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound => Problem::invalid_field("repository_id", NOT_WATCHED),
        other => store_failed(other),
    }
}

/// The fields of a hook that a change cannot have, each with the reason.
const FIXED: [(&str, &str); 2] = [
    ("provider", "the address of the hook is for this kind of Git host; create another hook"),
    ("secret", "POST /api/hooks/{id}/rotate-secret replaces the secret"),
];

/// Changes the name of a hook, or the repositories whose scans it may cause. To pause a hook, disable the
/// webhook at the Git host.
#[utoipa::path(patch, path = "/api/hooks/{id}", tag = "hooks", params(("id" = String, Path)),
    request_body = HookChange,
    responses(
        (status = 200, body = AppHookShown),
        (status = 409, description = "The name is taken.")
    ))]
async fn change(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_body::<HookChange>(&request.body)?;
    fields.refuse_fixed(&FIXED);
    let name = read_name(&mut fields);
    let watch = if fields.null("repository_id") { Some(None) } else { read_watch(&mut fields).map(Some) };
    fields.finish()?;
    let found = named(&front, &request).await?;
    let patch = HookPatch { name, watch };
    let changed = front.hooks.change_hook(&found.app, &found.id, &patch).await.map_err(no_repository)?;
    Ok(json(StatusCode::OK, &AppHookShown::of(&changed, front.clock.now(), None)))
}

fn read_name(fields: &mut Fields) -> Option<String> {
    let name = fields.text("name", 1..=NAME_MAX)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !name.bytes().all(is_plain) || !name.is_empty() && name.bytes().all(|byte| byte == b'.') {
        fields.refuse("name", "must hold letters, digits, '.', '-' and '_' only");
    } else if name.starts_with(HookId::PREFIX) {
        fields.refuse("name", "must not begin with hook_, as ids do");
    }
    Some(name)
}

fn read_provider(fields: &mut Fields) -> Option<HookProvider> {
    let text = fields.required_text("provider", 1..=64);
    let provider = text.parse().ok();
    if provider.is_none() && !text.is_empty() {
        let words: Vec<_> = HookProvider::ALL.iter().map(|provider| provider.as_str()).collect();
        fields.refuse("provider", format!("must be one of: {}", words.join(", ")));
    }
    provider
}

fn read_watch(fields: &mut Fields) -> Option<WatchId> {
    let text = fields.text("repository_id", 1..=64)?;
    let watch = text.parse().ok();
    if watch.is_none() {
        fields.refuse("repository_id", NOT_WATCHED);
    }
    watch
}

/// The secret in the request, or a new one.
fn read_secret(front: &Front, fields: &mut Fields) -> Secret {
    let given = fields.text("secret", KEY_CHARACTERS).map(Secret::new);
    given.unwrap_or_else(|| generate_signing_key(front.random.as_ref()))
}

/// Shows the hook with this id or name.
#[utoipa::path(get, path = "/api/hooks/{id}", tag = "hooks", params(("id" = String, Path)),
    responses((status = 200, body = AppHookShown)))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    Ok(json(StatusCode::OK, &AppHookShown::of(&found, front.clock.now(), None)))
}

/// Replaces the secret of a hook. The answer shows the new secret once. The previous secret is also accepted
/// for `overlap_seconds`; an older one is no longer accepted.
#[utoipa::path(post, path = "/api/hooks/{id}/rotate-secret", tag = "hooks", params(("id" = String, Path)),
    request_body = Option<SecretRotation>, responses((status = 200, body = AppHookShown)))]
async fn rotate_secret(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional_body::<SecretRotation>(&request.body)?;
    let secret = read_secret(&front, &mut fields);
    let overlap = fields.number_within("overlap_seconds", 0..=OVERLAP_SECONDS_MAX).unwrap_or(OVERLAP_SECONDS);
    fields.finish()?;
    let found = named(&front, &request).await?;
    let now = front.clock.now();
    let until = now.after(Duration::from_secs(overlap));
    let rotated = front.hooks.rotate_hook(&found.app, &found.id, &secret, until).await;
    let rotated = rotated.map_err(store_failed)?;
    Ok(json(StatusCode::OK, &AppHookShown::of(&rotated, now, Some(&secret))))
}

/// Removes a hook and its receipts. Webhooks that still arrive at its address are refused.
#[utoipa::path(delete, path = "/api/hooks/{id}", tag = "hooks", params(("id" = String, Path)),
    responses((status = 204)))]
async fn remove(front: Arc<Front>, request: Request) -> Answer {
    let found = named(&front, &request).await?;
    front.hooks.remove_hook(&found.app, &found.id).await.map_err(store_failed)?;
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
