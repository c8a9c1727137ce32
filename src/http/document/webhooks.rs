//! The `webhooks` of the OpenAPI document: the requests that the server sends to an app's `base_url`.
//!
//! The functions describe requests and are never called; the name of each is the path that is appended.

use utoipa::{
    __dev::SchemaReferences,
    IntoParams, Path,
    openapi::{PathItem, Paths, PathsBuilder, RefOr, schema::Schema},
};

use super::payloads::{
    BatchAnswer, BatchPayload, ChangePayload, CloudEventPayload, RoundPayload, SyncFailedPayload,
    SyncRecoveredPayload, TestPayload,
};

/// The headers of every request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes what is sent")]
struct Headers {
    /// The id of the message: the same in each attempt. Of a chunk `{event.id}.{chunk.id}.{chunk.index}`.
    #[param(rename = "webhook-id")]
    id: String,
    /// When this attempt was signed, in unix seconds.
    #[param(rename = "webhook-timestamp")]
    timestamp: String,
    /// Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of
    /// `{webhook-id}.{webhook-timestamp}.{body}`; during a rotation one for each key, the newest first, with
    /// spaces between them.
    #[param(rename = "webhook-signature")]
    signature: String,
    /// The id of the receiving app, `app_...`.
    #[param(rename = "x-docora-app-id")]
    app_id: String,
    /// The moment of signing, the same as `webhook-timestamp`.
    #[param(rename = "x-docora-timestamp")]
    docora_timestamp: String,
    /// `sha256=` and the HMAC-SHA256 of `{x-docora-timestamp}.{body}` in hexadecimal digits. During a
    /// rotation the old key signs until the overlap ends.
    #[param(rename = "x-docora-signature")]
    docora_signature: String,
    /// The trace of the attempt (W3C Trace Context), where the server exports traces.
    traceparent: Option<String>,
}

/// The requests, and the schemas that they name.
pub(super) fn webhooks() -> (Paths, Vec<(String, RefOr<Schema>)>) {
    let (mut paths, mut schemas) = (PathsBuilder::new(), Vec::new());
    let described = [
        described::<__path_create>(&mut schemas),
        described::<__path_update>(&mut schemas),
        described::<__path_delete>(&mut schemas),
        described::<__path_batch>(&mut schemas),
        described::<__path_resync>(&mut schemas),
        described::<__path_synced>(&mut schemas),
        described::<__path_sync_failed>(&mut schemas),
        described::<__path_sync_recovered>(&mut schemas),
        described::<__path_test>(&mut schemas),
    ];
    for (name, item) in described {
        paths = paths.path(name, item);
    }
    (paths.build(), schemas)
}

fn described<P: Path + SchemaReferences>(schemas: &mut Vec<(String, RefOr<Schema>)>) -> (String, PathItem) {
    P::schemas(schemas);
    let mut operation = P::operation();
    operation.operation_id = Some(format!("webhook_{}", P::path()));
    let [method] = P::methods().try_into().unwrap_or([utoipa::openapi::HttpMethod::Post]);
    (P::path(), PathItem::new(method, operation))
}

/// A file is there that the app did not have.
///
/// A binary file of more than `delivery.chunk_threshold` (1 MiB) comes in chunks: one request each, in order,
/// all under one `event.id`.
#[utoipa::path(post, path = "create", tag = "changes", params(Headers),
    request_body(content(
        (ChangePayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses(
        (status = "2XX", description = "The change is safe, or a chunk of it: it is not sent again."),
        (status = 410, description = "The app is gone: it is disabled."),
        (status = "4XX", description = "The receiver does not take this change: it becomes a dead letter. \
            408, 425 and 429 are tried again."),
        (status = "5XX", description = "Tried again."),
    ))]
#[expect(dead_code, reason = "it stands for a request")]
fn create() {}

/// A file has another content or mode. The body is that of a create, with `previous_sha`.
#[utoipa::path(post, path = "update", tag = "changes", params(Headers),
    request_body(content(
        (ChangePayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "As of a create.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn update() {}

/// A file is gone. The body has its path and the last `sha`.
#[utoipa::path(post, path = "delete", tag = "changes", params(Headers),
    request_body(content(
        (ChangePayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "As of a create.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn delete() {}

/// Many changes of one round, in order, for an app with `delivery.batch`. Chunked files never come in one.
#[utoipa::path(post, path = "batch", tag = "changes", params(Headers),
    request_body(content((BatchPayload = "application/json"),
        (Vec<CloudEventPayload> = "application/cloudevents-batch+json"))),
    responses((status = "2XX", body = BatchAnswer, description = "What became of each change.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn batch() {}

/// A resync begins, for an app with `delivery.resync`. Nothing of the round comes before the 2xx to this.
#[utoipa::path(post, path = "resync", tag = "notices", params(Headers),
    request_body(content(
        (RoundPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "The app is ready. A refusal blocks the branch.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn resync() {}

/// All changes of a round are settled, for an app with `delivery.synced`.
#[utoipa::path(post, path = "synced", tag = "notices", params(Headers),
    request_body(content(
        (RoundPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "Noted. A refusal is recorded, and the round is over.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn synced() {}

/// The repository cannot be read. Sent once for each time that its breaker opens; the answer has no effect.
#[utoipa::path(post, path = "sync_failed", tag = "notices", params(Headers),
    request_body(content(
        (SyncFailedPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "Noted.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn sync_failed() {}

/// The repository can be read again, for an app with `delivery.sync_recovered`. The answer has no effect.
#[utoipa::path(post, path = "sync_recovered", tag = "notices", params(Headers),
    request_body(content((SyncRecoveredPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json"))),
    responses((status = "2XX", description = "Noted.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn sync_recovered() {}

/// A test delivery that a person asked for (`POST /api/app/test`), who is shown the answer.
#[utoipa::path(post, path = "test", tag = "notices", params(Headers),
    request_body(content(
        (TestPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "It was received and is genuine.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn test() {}
