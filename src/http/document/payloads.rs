//! The bodies of deliveries as schemas of the OpenAPI document.
//!
//! [`crate::sinks`] writes these bodies field by field and needs no such types. A story sends one of each,
//! compares every field with these schemas in both directions, and generates docs/payloads.md from both.

use utoipa::ToSchema;

/// A change of one file: the body of `/create`, `/update` and `/delete`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct ChangePayload {
    repository: PayloadRepository,
    file: PayloadFile,
    /// SHA-256 of the content that an update replaces, 64 hexadecimal digits. Missing where the app did not
    /// get that content.
    #[schema(nullable = false)]
    previous_sha: Option<String>,
    /// The commit that the round leads to, 40 hexadecimal digits; 40 zeros when the branch is gone.
    commit_sha: String,
    /// When the round began, in ISO 8601 with milliseconds, UTC. It is the same in all bodies of a round, and
    /// in each repetition.
    timestamp: String,
    event: PayloadEvent,
}

/// The repository that changed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadRepository {
    /// The id of the watch, `repo_...`, as the registration answered it.
    repository_id: String,
    /// The address that was registered, whichever Git host it names.
    github_url: String,
    /// The path before the repository's name.
    owner: String,
    /// The repository's name without `.git`.
    name: String,
}

/// The file after the change. Of a delete: the path, and the last `sha`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadFile {
    /// The path from the root of the repository, `/` between names. In a path that is not UTF-8, U+FFFD
    /// stands for each byte sequence that is not; then `path_base64` is there.
    path: String,
    /// SHA-256 of the whole content, 64 hexadecimal digits. Missing where the content is left out.
    #[schema(nullable = false)]
    sha: Option<String>,
    /// Bytes of the whole content. Missing in a delete, and with `content: none`.
    #[schema(nullable = false)]
    size: Option<u64>,
    /// The content: as text if it is UTF-8 without NUL, otherwise base64. In a chunk: its part, at most
    /// 524,288 characters of base64, which decode by themselves. Missing where the content is left out.
    #[schema(nullable = false)]
    content: Option<String>,
    /// `base64`; missing where `content` is text.
    #[schema(nullable = false)]
    content_encoding: Option<String>,
    #[schema(nullable = false)]
    chunk: Option<PayloadChunk>,
    /// The mode as Git writes it: `100644`, `100755` (executable), `100664` (as `100644`: early versions of
    /// Git wrote it, and old commits still have it), or `120000` (symbolic link, whose content is its target;
    /// sent only to a watch with `symlinks: send`). Missing in a delete.
    #[schema(nullable = false)]
    mode: Option<String>,
    /// Git's id of the content, 40 hexadecimal digits. Missing in a delete.
    #[schema(nullable = false)]
    blob: Option<String>,
    /// The bytes of the path in base64, where they are not UTF-8.
    #[schema(nullable = false)]
    path_base64: Option<String>,
    /// In a create: a path that the same round deletes and that had the same content.
    #[schema(nullable = false)]
    renamed_from: Option<String>,
    /// The bytes of `renamed_from` in base64, where they are not UTF-8.
    #[schema(nullable = false)]
    renamed_from_base64: Option<String>,
    /// The mode before, where it was another one.
    #[schema(nullable = false)]
    previous_mode: Option<String>,
    #[schema(nullable = false)]
    lfs: Option<PayloadLfs>,
    /// Why there is no content: `too_large`, the file has more bytes than `max_size` of the watch.
    #[schema(nullable = false)]
    content_omitted: Option<String>,
    /// The path of this API that gives the content that was left out, to the app's token. It is answered
    /// with 410 once the app no longer holds a commit with this content.
    #[schema(nullable = false)]
    content_url: Option<String>,
}

/// Which part of a binary file of more than `delivery.chunk_threshold` (1 MiB) this is. The parts come one
/// after another, in order, and make one file under one `event.id`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadChunk {
    /// A UUID, the same in all chunks of one attempt. A new attempt has a new one and begins with index 0.
    id: String,
    /// The number of the chunk within the file, from 0.
    index: u64,
    /// The number of chunks of the file.
    total: u64,
    /// How many bytes of the file come before this chunk: where its decoded `content` begins.
    offset: u64,
}

/// What a Git LFS pointer points to; the content is the pointer itself.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadLfs {
    /// SHA-256 of the object, 64 hexadecimal digits.
    oid: String,
    /// Bytes of the object.
    size: u64,
}

/// Which change this is, and where it stands in the order of changes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadEvent {
    /// The id of the change, `dlv_...`. It never changes, and never names another change.
    id: String,
    /// `file.created`, `file.updated` or `file.deleted`.
    r#type: String,
    /// The branch of the watch, `cur_...`. Order holds within a cursor.
    cursor: String,
    /// The name of the branch or tag.
    branch: String,
    /// The commit that the app held before the round; null in a first synchronisation.
    #[schema(required = true)]
    previous_commit_sha: Option<String>,
    /// The number of the round. It rises with each round of the cursor.
    round: i64,
    /// The place of the change in its round, from 0.
    position: u64,
    /// How many changes the round has.
    total: u64,
    #[schema(required = true)]
    commit: Option<PayloadCommit>,
    /// Of a watch of mode `every`: `true` where the commit that the app has is no first parent behind this
    /// one, as after a force push; otherwise missing.
    #[schema(nullable = false)]
    history_rewritten: Option<bool>,
    /// `true` where a watch of mode `every` lacks commits in between; otherwise missing.
    #[schema(nullable = false)]
    skipped_commits: Option<bool>,
    /// The id of the dead letter's delivery that this change repeats.
    #[schema(nullable = false)]
    replay_of: Option<String>,
}

/// The commit that the round leads to; null where it cannot be read.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadCommit {
    /// The author of the commit, as `Name <address>`.
    author: String,
    /// The committer's time, in ISO 8601 with milliseconds, UTC.
    time: String,
    /// The first line of the message, at most 256 characters.
    subject: String,
}

/// What would have been sent. A large binary file is whole here, without `chunk`.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is handed out")]
#[expect(clippy::large_enum_variant, reason = "no value of it is made")]
pub(in crate::http) enum PulledPayload {
    /// A change, with the actions `create`, `update` and `delete`.
    Change(ChangePayload),
    /// A notice of a round, with the actions `resync` and `synced`.
    Round(RoundPayload),
    /// Either, for an app with `delivery.format: cloudevents`.
    CloudEvent(CloudEventPayload),
}

/// Many changes of one round, in order: the body of `/batch`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(super) struct BatchPayload {
    batch: PayloadBatch,
    /// The bodies that would have been sent one by one. After a crash the same changes may come in other
    /// batches: the identity of a change is its `event.id`.
    changes: Vec<ChangePayload>,
}

/// The batch that the changes are sent in.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadBatch {
    /// The id of the batch, the same as `webhook-id`.
    id: String,
}

/// What a receiver answers to a batch, with a 2xx. A 2xx without `results` accepts all changes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is answered")]
pub(super) struct BatchAnswer {
    /// One for each change. A change that is not named is sent again.
    results: Vec<BatchResult>,
}

/// What became of one change of a batch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is answered")]
struct BatchResult {
    /// The `event.id` of the change.
    id: String,
    /// `accepted`; `refused`: it becomes a dead letter; `retry`: it is sent again.
    outcome: String,
    /// Why, for people; 1,024 characters are kept.
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// A resync begins or a round is over: the body of `/resync` and `/synced`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct RoundPayload {
    event: RoundPayloadEvent,
    repository: PayloadRepository,
    /// When the round began, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
}

/// The round that begins or is finished.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct RoundPayloadEvent {
    /// The id of the notice, the same as `webhook-id`.
    id: String,
    /// `resync` before the changes of a resync, `synced` after a round.
    r#type: String,
    /// The branch of the watch, as in changes.
    cursor: String,
    /// The name of the branch or tag.
    branch: String,
    /// The number of the round.
    round: i64,
    /// How many changes the round has.
    total: u64,
    /// `true` where the round names every file: once `/synced` came, drop each file that the round did not
    /// name. Otherwise missing.
    #[schema(nullable = false)]
    complete: Option<bool>,
}

/// The repository cannot be read, after failures in a row: the body of `/sync_failed`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct SyncFailedPayload {
    /// The type of the message: `sync_failed`.
    event: String,
    repository: PayloadRepository,
    error: SyncFailedError,
    circuit_breaker: SyncFailedBreaker,
    /// Failures before this one.
    retry_count: u32,
    /// When it failed, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
    /// A stable code: `auth_failed`, `repository_not_found`, `repository_moved`, `redirected`,
    /// `address_refused`, `unreachable`, `timeout`, `rate_limited`, `host_error`, `protocol_error`,
    /// `repository_too_large`, ...
    error_type: String,
    /// The same as `error.message`.
    error_message: String,
}

/// The failure that opened the breaker.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SyncFailedError {
    /// The type of the failure: `git_failure`.
    r#type: String,
    /// The failure in words, without credentials.
    message: String,
}

/// The state of the breaker, and when the repository is read again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SyncFailedBreaker {
    /// `open`: the repository is asked again at `cooldown_until`.
    status: String,
    /// Failures in a row.
    consecutive_failures: u32,
    /// After how many of them the breaker opens.
    threshold: u32,
    /// When the repository is asked again, in ISO 8601 with milliseconds, UTC.
    cooldown_until: String,
}

/// The repository can be read again: the body of `/sync_recovered`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct SyncRecoveredPayload {
    event: SyncRecoveredEvent,
    repository: PayloadRepository,
    /// When the repository was read again, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
}

/// The type and the id of the message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SyncRecoveredEvent {
    /// The id of the message, the same as `webhook-id`.
    id: String,
    /// The type of the message: `sync_recovered`.
    r#type: String,
}

/// The type and the id of the message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct TestEvent {
    /// The id of the message, the same as `webhook-id`.
    id: String,
    /// The type of the message: `test`.
    r#type: String,
}

/// A test delivery: the body of `/test`. It names no repository.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct TestPayload {
    event: TestEvent,
    app: TestedApp,
    /// When the test was asked for, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
}

/// The app that is tested.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct TestedApp {
    /// Id of the app, `app_...`.
    app_id: String,
}

/// An event of CloudEvents 1.0 in structured mode, for an app with `delivery.format: cloudevents`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct CloudEventPayload {
    /// The version of CloudEvents: `1.0`.
    specversion: String,
    /// `dev.tidings.` and `event.type` of the data: `dev.tidings.file.created`, `.file.updated`,
    /// `.file.deleted`, `.resync`, `.synced`, `.sync_failed`, `.sync_recovered` or `.test`.
    r#type: String,
    /// `/api/repositories/{repository_id}`; of a test delivery `/api/app`.
    source: String,
    /// Of a change: the path. U+FFFD stands for what CloudEvents does not allow in a text.
    #[schema(nullable = false)]
    subject: Option<String>,
    /// The `timestamp` of the data.
    time: String,
    /// The type of `data`: `application/json`.
    datacontenttype: String,
    /// The extension *partitioning*: `event.cursor` of the data. Events with the same key keep their order.
    #[schema(nullable = false)]
    partitionkey: Option<String>,
    /// The extension *sequence*: round and position of a change, as a text that rises with them.
    #[schema(nullable = false)]
    sequence: Option<String>,
    data: CloudEventData,
    /// The same as `webhook-id`; in a batch `event.id` of the data.
    id: String,
}

/// The body that an app without `delivery.format: cloudevents` gets.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is sent")]
#[expect(clippy::large_enum_variant, reason = "no value of it is made")]
enum CloudEventData {
    Change(ChangePayload),
    Round(RoundPayload),
    SyncFailed(SyncFailedPayload),
    SyncRecovered(SyncRecoveredPayload),
    Test(TestPayload),
}
