//! The bodies of deliveries as schemas of the OpenAPI document.
//!
//! [`crate::sinks`] writes these bodies field by field and needs no such types. A story sends one of each,
//! compares every field with these schemas in both directions, and generates docs/payloads.md from both.

use utoipa::ToSchema;

use crate::sinks::EntryShown;

/// A change of one file: the body of `/create`, `/update` and `/delete`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct ChangePayload {
    repository: PayloadRepository,
    file: PayloadFile,
    /// SHA-256 of the content that an update replaces, 64 hexadecimal digits. Missing: the app did not get
    /// that content.
    #[schema(nullable = false)]
    previous_sha: Option<String>,
    /// The commit that the app holds after the round, 40 hexadecimal digits. 40 zeros: the branch is gone.
    commit_sha: String,
    /// When the round began, in ISO 8601 with milliseconds, UTC. All bodies of a round, and all repetitions,
    /// have the same value.
    timestamp: String,
    event: PayloadEvent,
}

/// The repository that changed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadRepository {
    /// Id of the watch, `repo_...`, from the answer to the registration.
    repository_id: String,
    /// The registered address of the repository, at any Git host.
    github_url: String,
    /// Path before the repository's name.
    owner: String,
    /// Name of the repository without `.git`.
    name: String,
}

/// The file after the change. A delete has only the path and the last `sha`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadFile {
    /// Path from the root of the repository, with `/` between names. If the path is not UTF-8, U+FFFD
    /// replaces each invalid byte sequence, and `path_base64` has the bytes.
    path: String,
    /// SHA-256 of the whole content, 64 hexadecimal digits. Missing: the content is left out.
    #[schema(nullable = false)]
    sha: Option<String>,
    /// Size of the whole content in bytes. Missing in a delete, and with `content: none`.
    #[schema(nullable = false)]
    size: Option<u64>,
    /// The content: text if it is UTF-8 without NUL, otherwise base64. In a chunk: the part of the file, at
    /// most 524,288 characters of base64, which can be decoded alone. Missing: the content is left out.
    #[schema(nullable = false)]
    content: Option<String>,
    /// `base64`. Missing: `content` is text.
    #[schema(nullable = false)]
    content_encoding: Option<String>,
    #[schema(nullable = false)]
    chunk: Option<PayloadChunk>,
    /// File mode in Git: `100644`, `100755` (executable), `100664` (same meaning as `100644`, only in old
    /// commits) or `120000` (symbolic link, whose content is its target; sent only to a watch with `symlinks:
    /// send`). Missing in a delete.
    #[schema(nullable = false)]
    mode: Option<String>,
    /// Git object id of the content, 40 hexadecimal digits. Missing in a delete.
    #[schema(nullable = false)]
    blob: Option<String>,
    /// Bytes of the path in base64. Only if the path is not UTF-8.
    #[schema(nullable = false)]
    path_base64: Option<String>,
    /// In a create: a path with the same content that the same round deletes.
    #[schema(nullable = false)]
    renamed_from: Option<String>,
    /// Bytes of `renamed_from` in base64. Only if that path is not UTF-8.
    #[schema(nullable = false)]
    renamed_from_base64: Option<String>,
    /// Mode before the change. Only if the mode changed.
    #[schema(nullable = false)]
    previous_mode: Option<String>,
    #[schema(nullable = false)]
    lfs: Option<PayloadLfs>,
    /// Why the content is missing: `too_large` (the file is larger than `max_size` of the watch).
    #[schema(nullable = false)]
    content_omitted: Option<String>,
    /// Path in this API of the content that was left out; the app's token gives access. The answer is 410
    /// once the app holds no commit with this content.
    #[schema(nullable = false)]
    content_url: Option<String>,
}

/// The chunk that this request carries: one part of a binary file larger than `delivery.chunk_threshold` (1
/// MiB). The chunks of a file are sent in order and have the same `event.id`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadChunk {
    /// UUID of the attempt, the same in all its chunks. A new attempt has a new UUID and begins with index 0.
    id: String,
    /// Number of the chunk in the file, from 0.
    index: u64,
    /// Number of chunks of the file.
    total: u64,
    /// Offset of the decoded `content` in the file, in bytes.
    offset: u64,
}

/// The object that a Git LFS pointer names. The content of the file is the pointer.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadLfs {
    /// SHA-256 of the object, 64 hexadecimal digits.
    oid: String,
    /// Size of the object in bytes.
    size: u64,
}

/// Identity of the change, and its place in the order of changes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadEvent {
    /// Id of the change, `dlv_...`. No other change ever has the same id.
    id: String,
    /// Type of the change: `file.created`, `file.updated` or `file.deleted`.
    r#type: String,
    /// Id of the branch of the watch, `cur_...`. Changes are ordered within a cursor.
    cursor: String,
    /// Name of the branch or tag.
    branch: String,
    /// The commit that the app held before the round. Null: the app held no commit.
    #[schema(required = true)]
    previous_commit_sha: Option<String>,
    /// Number of the round. Numbers rise with each round of the cursor.
    round: i64,
    /// Position of the change in its round, from 0.
    position: u64,
    /// Number of changes in the round.
    total: u64,
    #[schema(required = true)]
    commit: Option<PayloadCommit>,
    /// `true`: the history was rewritten, for example by a force push: the commit that the app holds is no
    /// first-parent ancestor of this one. Otherwise missing. Only for a watch of mode `every`.
    #[schema(nullable = false)]
    history_rewritten: Option<bool>,
    /// `true`: commits between `previous_commit_sha` and `commit_sha` were skipped. Otherwise missing. Only
    /// for a watch of mode `every`.
    #[schema(nullable = false)]
    skipped_commits: Option<bool>,
    /// In a redrive: id of the parked delivery that this change repeats.
    #[schema(nullable = false)]
    replay_of: Option<String>,
}

/// The commit that the app holds after the round. Null: the commit cannot be read.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadCommit {
    /// Author of the commit, as `Name <address>`.
    author: String,
    /// Committer time, in ISO 8601 with milliseconds, UTC.
    time: String,
    /// First line of the commit message, at most 256 characters.
    subject: String,
}

/// The body that a request would have. A large binary file is not divided into chunks.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is handed out")]
#[expect(clippy::large_enum_variant, reason = "no value of it is made")]
pub(in crate::http) enum PulledPayload {
    /// A change: the actions `create`, `update` and `delete`.
    Change(ChangePayload),
    /// A notice of a round: the actions `resync` and `synced`.
    Round(RoundPayload),
    /// A change or notice for an app with `delivery.format: cloudevents`.
    CloudEvent(CloudEventPayload),
}

/// Many changes of one round, in order: the body of `/batch`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(super) struct BatchPayload {
    batch: PayloadBatch,
    /// The bodies of the changes, as in single requests. After a crash the same changes may come in other
    /// batches: only `event.id` identifies a change.
    changes: Vec<ChangePayload>,
}

/// The batch that the changes are sent in.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct PayloadBatch {
    /// Id of the batch, the same as `webhook-id`.
    id: String,
}

/// Body of a receiver's 2xx answer to a batch. Without `results` all changes are accepted.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is answered")]
pub(super) struct BatchAnswer {
    /// One result for each change. A change without a result is sent again.
    results: Vec<BatchResult>,
}

/// Result of one change of a batch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is answered")]
struct BatchResult {
    /// `event.id` of the change.
    id: String,
    /// `accepted`; `refused` (the change becomes a dead letter); `retry` (the change is sent again).
    outcome: String,
    /// Reason of a refusal, for people. The first 1,024 characters are kept.
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// Notice that a resync begins or a round has ended: the body of `/resync` and `/synced`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct RoundPayload {
    event: RoundPayloadEvent,
    repository: PayloadRepository,
    /// When the round began, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
}

/// The round that begins or ends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct RoundPayloadEvent {
    /// Id of the notice, the same as `webhook-id`.
    id: String,
    /// `resync` before the changes of a resync, `synced` after a round.
    r#type: String,
    /// Id of the branch of the watch, as in changes.
    cursor: String,
    /// Name of the branch or tag.
    branch: String,
    /// Number of the round.
    round: i64,
    /// Number of changes in the round.
    total: u64,
    /// `true`: the round names every file. After `/synced`, drop each file that the round did not name.
    /// Otherwise missing.
    #[schema(nullable = false)]
    complete: Option<bool>,
}

/// Notice that a repository cannot be read after failures in a row: the body of `/sync_failed`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct SyncFailedPayload {
    /// The type of the message: `sync_failed`.
    event: String,
    repository: PayloadRepository,
    error: SyncFailedError,
    circuit_breaker: SyncFailedBreaker,
    /// Number of failures before this one.
    retry_count: u32,
    /// When the failure happened, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
    /// Stable code of the failure: `auth_failed`, `repository_not_found`, `repository_moved`, `redirected`,
    /// `address_refused`, `unreachable`, `timeout`, `rate_limited`, `host_error`, `protocol_error`,
    /// `repository_too_large`, ...
    error_type: String,
    /// Failure in words, the same as `error.message`.
    error_message: String,
}

/// The failure that opened the circuit breaker.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SyncFailedError {
    /// The type of the failure: `git_failure`.
    r#type: String,
    /// The failure in words, without credentials.
    message: String,
}

/// State of the circuit breaker of the repository.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SyncFailedBreaker {
    /// `open`: the Git host is asked again at `cooldown_until`.
    status: String,
    /// Number of failures in a row.
    consecutive_failures: u32,
    /// Number of failures in a row that open the breaker.
    threshold: u32,
    /// When the Git host is asked again, in ISO 8601 with milliseconds, UTC.
    cooldown_until: String,
}

/// Notice that a repository can be read again: the body of `/sync_recovered`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct SyncRecoveredPayload {
    event: SyncRecoveredEvent,
    repository: PayloadRepository,
    /// When the repository was read again, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
}

/// Type and id of the message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SyncRecoveredEvent {
    /// Id of the message, the same as `webhook-id`.
    id: String,
    /// The type of the message: `sync_recovered`.
    r#type: String,
}

/// Type and id of the message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct TestEvent {
    /// Id of the message, the same as `webhook-id`.
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
    /// When the test was requested, in ISO 8601 with milliseconds, UTC.
    timestamp: String,
}

/// The app that is tested.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct TestedApp {
    /// Id of the app, `app_...`.
    app_id: String,
}

/// A message to the sink of a subscription or to the `webhook` of a task: an entry of the ledger, a gap in
/// the ledger, or a test.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(super) struct SubscriptionPayload {
    event: SubscriptionEventPayload,
    subscription: SubscribedPayload,
    #[schema(nullable = false)]
    entry: Option<EntryShown>,
    #[schema(nullable = false)]
    gap: Option<GapPayload>,
    /// When the entry was written, in ISO 8601 with milliseconds, UTC. For a gap or a test: when the message
    /// was made.
    timestamp: String,
}

/// Id and type of the message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SubscriptionEventPayload {
    /// Id of the message, the same as `webhook-id`. For an entry: `entry_id`.
    id: String,
    /// Type of the entry; `subscription.gap` or `test` for a message without an entry.
    r#type: String,
}

/// The subscription that the message is for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct SubscribedPayload {
    /// Id of the subscription, `sub_...`.
    subscription_id: String,
    /// Name of the subscription.
    name: String,
    /// Id of the app whose ledger it reads, `app_...`.
    app_id: String,
}

/// Entries that were removed before they were sent. Only in a message of the type `subscription.gap`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
struct GapPayload {
    /// Number of the first removed entry.
    first: i64,
    /// Number of the last removed entry.
    last: i64,
}

/// A message to a worker subscription: a queue has work.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(super) struct WorkPayload {
    /// The type of the message: `work.available`.
    r#type: String,
    /// Command of the tasks.
    command: String,
    /// Number of tasks of the command that can be claimed.
    ready: u64,
    /// When the message was made, in ISO 8601 with milliseconds, UTC.
    sent_at: String,
    /// Id of the worker subscription.
    subscription_id: String,
}

/// A CloudEvents 1.0 event in structured mode, for an app with `delivery.format: cloudevents`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is sent")]
pub(in crate::http) struct CloudEventPayload {
    /// Version of CloudEvents: `1.0`.
    specversion: String,
    /// `dev.tidings.` followed by `event.type` of the data: `dev.tidings.file.created`, `.file.updated`,
    /// `.file.deleted`, `.resync`, `.synced`, `.sync_failed`, `.sync_recovered` or `.test`.
    r#type: String,
    /// `/api/repositories/{repository_id}`. For a test delivery: `/api/app`.
    source: String,
    /// For a change: the path. U+FFFD replaces characters that CloudEvents does not allow.
    #[schema(nullable = false)]
    subject: Option<String>,
    /// The `timestamp` of the data.
    time: String,
    /// Media type of `data`: `application/json`.
    datacontenttype: String,
    /// The extension *partitioning*: `event.cursor` of the data. Events with the same key are ordered.
    #[schema(nullable = false)]
    partitionkey: Option<String>,
    /// The extension *sequence*: a text made of round and position, which sorts in the order of the changes.
    #[schema(nullable = false)]
    sequence: Option<String>,
    data: CloudEventData,
    /// The same as `webhook-id`; in a batch `event.id` of the data.
    id: String,
}

/// The body that an app with `delivery.format: docora` gets.
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
