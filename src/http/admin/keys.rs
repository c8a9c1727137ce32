//! The keys that seal secrets at rest: listing them, rotating, sealing again step by step, retiring.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidings_actors::ports::{RESEAL_STEP_MAX, SealingKey};
use utoipa::ToSchema;
use warp::reply::Response;

use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        paging::{LIMIT_DEFAULT, Page, Query, Window},
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route},
    },
    front::Front,
};

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    vec![
        route::<__path_list, _, _>(Access::Staff(Permission::KeysList), list),
        route::<__path_rotate, _, _>(Access::Staff(Permission::KeysRotate), rotate),
        route::<__path_reencrypt, _, _>(Access::Staff(Permission::KeysRotate), reencrypt),
        route::<__path_retire, _, _>(Access::Staff(Permission::KeysRotate), retire),
    ]
}

/// A key of the keyring, without its secret, and the number of values that the key seals.
#[derive(Serialize, ToSchema)]
struct EncryptionKey {
    /// Id of the key: eight hexadecimal digits.
    id: String,
    /// Whether the key seals new values.
    is_primary: bool,
    /// Number of values in the database that only this key opens.
    sealed: u64,
}

impl EncryptionKey {
    fn of(facts: SealingKey) -> Self {
        let SealingKey { id, is_primary, sealed } = facts;
        Self { id, is_primary, sealed }
    }
}

body! {
    /// Size of one step of re-encryption.
    struct ReencryptionStep {
        /// Most values that the step seals with the primary key, 1 to 500. Default 500.
        limit: Option<u64>,
    }
}

/// Result of one step of re-encryption.
#[derive(Serialize, ToSchema)]
struct Reencrypted {
    /// Number of values that this step sealed with the primary key.
    resealed: u64,
    /// Number of values that other keys still seal.
    left: u64,
    /// Number of the values in `left` that cannot be opened: their key is missing, or they are damaged.
    unreadable: u64,
}

/// Lists the keys of the keyring, oldest first, with the number of values that each key seals.
#[utoipa::path(get, path = "/api/admin/keys", tag = "admin",
    params(
        ("limit" = Option<u64>, Query, description = "Page size, 1 to 100. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, body = Page<EncryptionKey>)))]
async fn list(front: Arc<Front>, request: Request) -> Answer {
    let window = Window::of(&Query::of(&request.query, &["limit", "cursor"])?, "keys", LIMIT_DEFAULT)?;
    let keys = front.keys.keys().await.map_err(|error| Problem::of_store(error, Kind::NO_KEY))?;
    let (keys, next_cursor) = window.cut(keys);
    let items: Vec<EncryptionKey> = keys.into_iter().map(EncryptionKey::of).collect();
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}

/// Adds a key to the keyring and its file. The key seals new values, with several replicas as soon as all of
/// them have it. Older keys still open their values.
#[utoipa::path(post, path = "/api/admin/keys/rotate", tag = "admin", responses(
    (status = 201, body = EncryptionKey),
    (status = 409, description = "A replica did not take the key. A repeated request continues with the same \
        key.")
))]
async fn rotate(front: Arc<Front>, request: Request) -> Answer {
    Fields::of_optional(&request.body)?.finish()?;
    let id = front.keys.rotate_key().await.map_err(|error| Problem::of_store(error, Kind::NO_KEY))?;
    Ok(json(StatusCode::CREATED, &EncryptionKey { id, is_primary: true, sealed: 0 }))
}

/// Seals the next values again with the primary key, at most `limit` of them. Repeat the request until `left`
/// equals `unreadable`. An interrupted request loses nothing.
#[utoipa::path(post, path = "/api/admin/keys/reencrypt", tag = "admin",
    request_body = Option<ReencryptionStep>,
    responses(
        (status = 200, body = Reencrypted)
    ))]
async fn reencrypt(front: Arc<Front>, request: Request) -> Answer {
    let mut fields = Fields::of_optional_body::<ReencryptionStep>(&request.body)?;
    let limit = fields.number_within("limit", 1..=RESEAL_STEP_MAX);
    fields.finish()?;
    let done = front.keys.reseal(limit.unwrap_or(RESEAL_STEP_MAX)).await;
    let done = done.map_err(|error| Problem::of_store(error, Kind::NO_KEY))?;
    let shown = Reencrypted { resealed: done.resealed, left: done.left, unreadable: done.unreadable };
    Ok(json(StatusCode::OK, &shown))
}

/// Removes a key from the keyring. A key that still seals values is refused.
#[utoipa::path(delete, path = "/api/admin/keys/{id}", tag = "admin", params(("id" = String, Path)), responses(
    (status = 204),
    (status = 409, description = "The key seals values, or may still seal some, or is the primary key.")
))]
async fn retire(front: Arc<Front>, request: Request) -> Answer {
    let id: String = request.id(Kind::NO_KEY)?;
    front.keys.retire_key(&id).await.map_err(|error| Problem::of_store(error, Kind::NO_KEY))?;
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
