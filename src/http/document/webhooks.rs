//! The `webhooks` of the OpenAPI document: the requests that the server sends to an app's `base_url`, to the
//! sinks of its subscriptions, and to its workers.
//!
//! The functions describe requests and are never called. The name of each is the path that is appended; the
//! last two go to an address as it is.

use utoipa::{
    __dev::SchemaReferences,
    IntoParams, Path,
    openapi::{PathItem, Paths, PathsBuilder, RefOr, schema::Schema},
};

use super::payloads::{
    BatchAnswer, BatchPayload, ChangePayload, CloudEventPayload, RoundPayload, SubscriptionPayload,
    SyncFailedPayload, SyncRecoveredPayload, TestPayload, WorkPayload,
};

/// The headers of every request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes what is sent")]
struct Headers {
    /// Id of the message, the same in each attempt. For a chunk: `{event.id}.{chunk.id}.{chunk.index}`.
    #[param(rename = "webhook-id")]
    id: String,
    /// Time at which this attempt was signed, in Unix seconds.
    #[param(rename = "webhook-timestamp")]
    timestamp: String,
    /// Signature of Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of
    /// `{webhook-id}.{webhook-timestamp}.{body}`. During a rotation one signature per key, the newest key
    /// first, separated by spaces.
    #[param(rename = "webhook-signature")]
    signature: String,
    /// The id of the receiving app, `app_...`.
    #[param(rename = "x-docora-app-id")]
    app_id: String,
    /// Time of signing in Unix seconds, the same as `webhook-timestamp`.
    #[param(rename = "x-docora-timestamp")]
    docora_timestamp: String,
    /// `sha256=` and the HMAC-SHA256 of `{x-docora-timestamp}.{body}` in hexadecimal digits. During a
    /// rotation the old key signs until the overlap ends.
    #[param(rename = "x-docora-signature")]
    docora_signature: String,
    /// Trace context of the attempt (W3C). Missing if the server exports no traces.
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
        described::<__path_subscription_message>(&mut schemas),
        described::<__path_work_available>(&mut schemas),
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

/// The branch has a file that the app does not have.
///
/// A binary file of more than `delivery.chunk_threshold` (default 1 MiB) is sent in chunks: one request per
/// chunk, in order, all with the same `event.id`.
#[utoipa::path(post, path = "create", tag = "changes", params(Headers),
    request_body(content(
        (ChangePayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses(
        (status = "2XX", description = "The receiver has stored the change, or this chunk of it. The request \
            is not sent again."),
        (status = 410, description = "The receiver no longer exists: Tidings disables the app."),
        (status = "4XX", description = "The receiver refuses the change, which becomes a dead letter. After \
            408, 425 or 429 the request is sent again."),
        (status = "5XX", description = "The request is sent again."),
    ))]
#[expect(dead_code, reason = "it stands for a request")]
fn create() {}

/// The content or the mode of a file has changed. The body has the fields of a `create`, and `previous_sha`.
#[utoipa::path(post, path = "update", tag = "changes", params(Headers),
    request_body(content(
        (ChangePayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "The receiver has stored the change. The request is not sent \
        again.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn update() {}

/// A file was deleted. The body has its path and its last `sha`.
#[utoipa::path(post, path = "delete", tag = "changes", params(Headers),
    request_body(content(
        (ChangePayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "The receiver has stored the change. The request is not sent \
        again.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn delete() {}

/// Several changes of one round, in order. Sent to apps with `delivery.batch`. A batch never has chunked
/// files.
#[utoipa::path(post, path = "batch", tag = "changes", params(Headers),
    request_body(content((BatchPayload = "application/json"),
        (Vec<CloudEventPayload> = "application/cloudevents-batch+json"))),
    responses((status = "2XX", body = BatchAnswer, description = "The result of each change.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn batch() {}

/// A resync begins. Sent to apps with `delivery.resync`. No change of the round is sent before the 2xx
/// answer.
#[utoipa::path(post, path = "resync", tag = "notices", params(Headers),
    request_body(content(
        (RoundPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "The receiver is ready for the changes. A refusal blocks the \
        branch.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn resync() {}

/// All changes of a round are settled. Sent to apps with `delivery.synced`.
#[utoipa::path(post, path = "synced", tag = "notices", params(Headers),
    request_body(content(
        (RoundPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "The notice has arrived. A refusal is recorded, and the round \
        ends all the same.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn synced() {}

/// The repository cannot be read. Sent each time the breaker of its source opens. The answer has no effect.
#[utoipa::path(post, path = "sync_failed", tag = "notices", params(Headers),
    request_body(content(
        (SyncFailedPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "The notice has arrived.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn sync_failed() {}

/// The repository can be read again. Sent to apps with `delivery.sync_recovered`. The answer has no effect.
#[utoipa::path(post, path = "sync_recovered", tag = "notices", params(Headers),
    request_body(content((SyncRecoveredPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json"))),
    responses((status = "2XX", description = "The notice has arrived.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn sync_recovered() {}

/// A test delivery that a person requested with `POST /api/app/test`. The person sees the answer.
#[utoipa::path(post, path = "test", tag = "notices", params(Headers),
    request_body(content(
        (TestPayload = "application/json"),
        (CloudEventPayload = "application/cloudevents+json")
    )),
    responses((status = "2XX", description = "The test delivery has arrived, and its signature is valid.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn test() {}

/// A message of a subscription, or the end of a task with a `webhook`. Goes to the address itself, in the
/// order of the entries.
///
/// With `format: cloudevents` the body is a CloudEvent (`application/cloudevents+json`) with this object as
/// its `data`.
#[utoipa::path(post, path = "subscription_message", tag = "subscriptions", params(Headers),
    request_body(content((SubscriptionPayload = "application/json"))),
    responses(
        (status = "2XX", description = "The entry has arrived. The next one is sent."),
        (status = 410, description = "Nothing more is sent to this sink until the subscription is resumed or \
            its sink is set again."),
        (status = "4XX", description = "The entry is refused and skipped. After 401, 403, 404, 405, 408, 425 \
            or 429 the message is sent again."),
        (status = "5XX", description = "The message is sent again."),
    ))]
#[expect(dead_code, reason = "it stands for a request")]
fn subscription_message() {}

/// A queue has work for a worker subscription. Sent once, to its address itself; the answer has no effect on
/// the tasks.
#[utoipa::path(post, path = "work_available", tag = "workers", params(Headers),
    request_body(content((WorkPayload = "application/json"))),
    responses((status = "2XX", description = "The message has arrived.")))]
#[expect(dead_code, reason = "it stands for a request")]
fn work_available() {}
