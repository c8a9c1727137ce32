//! [`Administration`]: what only the front door asks of the store: who may call, what was done, and
//! looks over all apps. No actor uses it.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, DeadLetterId, RepositoryId, Sha256Hash, SourceId, TokenId, WatchId},
    kind::Role,
};

use super::{App, AttemptRecord, DeadLetter, LetterFilter, StoreError, Watch};
use crate::time::Timestamp;

/// Live tokens of one app at most: enough for every place it runs at and a rotation of each.
pub const APP_TOKENS_MAX: u64 = 20;
/// Live tokens of the staff at most.
pub const STAFF_TOKENS_MAX: u64 = 1_000;
/// Tokens that are live no more, kept for each owner; older ones go when a new one is made.
pub const DEAD_TOKENS_KEPT: u64 = 50;

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOwner {
    /// An app's.
    App(AppId),
    /// The staff's, with what it may do.
    Staff(Role),
}

/// Whose tokens are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokensOf {
    /// Those of an app.
    App(AppId),
    /// Those of the staff.
    Staff,
}

impl TokenOwner {
    /// Among whose tokens it is found.
    #[must_use]
    pub fn of(&self) -> TokensOf {
        match self {
            Self::App(app) => TokensOf::App(app.clone()),
            Self::Staff(_) => TokensOf::Staff,
        }
    }
}

/// A token that opens this API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub owner: TokenOwner,
    /// What it is for.
    pub name: String,
    /// The part that finds it, unique.
    pub public_id: String,
    /// SHA-256 of the whole, compared in constant time.
    pub hash: Sha256Hash,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was used last, to about a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl AccessToken {
    /// Whether it opens anything at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What somebody did, before it has a place in the log. Ids and addresses only: erasing an app leaves nothing
/// of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// When it was done.
    pub at: Timestamp,
    /// Who: `admin`, `tok_...`, `jwt:...`, `anyone` or `system`.
    pub actor: String,
    /// The app that it was done by or to; empty where there is none.
    pub app: String,
    /// The verb.
    pub action: String,
    /// The id of what it was done to; empty where there is none.
    pub target: String,
    /// `ok` or a stable code.
    pub result: String,
    /// The id of the request; empty where there was none.
    pub request: String,
    /// The address that the request came from; `None` where there was none, and in rows from before it was
    /// written down. Where a row stands for several requests, that of one of them.
    pub address: Option<String>,
}

/// A deed in its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Rising by one.
    pub id: i64,
    /// What was done.
    pub deed: Deed,
    /// The hash of the row before.
    pub previous: Sha256Hash,
    /// The key that the hash was made with; `None`: it was made without one, as before there were any.
    pub key: Option<String>,
    /// The hash of this row.
    pub hash: Sha256Hash,
}

/// How much of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditKept {
    /// Rows older than this go.
    pub since: Timestamp,
    /// Rows beyond this number go, the oldest first.
    pub rows: u64,
}

/// Which rows of the log are asked for; what is `None` is not asked.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// By whom.
    pub actor: Option<String>,
    /// By or to which app.
    pub app: Option<String>,
    /// Which verb.
    pub action: Option<String>,
    /// To what.
    pub target: Option<String>,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
}

/// How watches are, for looks over all apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchCondition {
    /// A branch of it is behind its head, or nobody knows: the last scan of its source failed.
    Behind,
    /// A branch of it is blocked.
    Blocked,
    /// It is paused.
    Paused,
    /// The last scan of its source failed, the breaker of its source or of its app's endpoint is open,
    /// or its app is not served.
    Failing,
}

impl WatchCondition {
    /// Every condition with its word.
    pub const ALL: [(&'static str, Self); 4] = [
        ("behind", Self::Behind),
        ("blocked", Self::Blocked),
        ("paused", Self::Paused),
        ("failing", Self::Failing),
    ];
}

/// Which watches are asked for; what is `None` is not asked.
#[derive(Clone, Debug, Default)]
pub struct WatchFilter {
    /// The condition of the watch, such as behind or blocked.
    pub condition: Option<WatchCondition>,
    /// Of which app.
    pub app: Option<AppId>,
    /// Of which repository.
    pub repository: Option<RepositoryId>,
}

/// A source as the staff sees it: what came of its last scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// Its id.
    pub id: SourceId,
    /// The repository.
    pub repository: RepositoryId,
    /// Its normalised address.
    pub url: String,
    /// Where its host says that it is now.
    pub moved_to: Option<String>,
    /// The app whose credential it is seen with.
    pub app: Option<AppId>,
    /// How many watches see through it.
    pub watches: u64,
    /// When a head of it moved last.
    pub last_change: Timestamp,
    /// Why the last scan failed, where it did.
    pub last_error: Option<String>,
}

/// One page of a search for dead letters over all apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LettersOfAll {
    /// What was found, newest first, each with its app.
    pub letters: Vec<(AppId, DeadLetter)>,
    /// The last letter that was looked at; `None`: there are no older ones.
    pub next: Option<DeadLetterId>,
}

/// What the database takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DatabaseUse {
    /// Bytes of the database itself.
    pub bytes: u64,
    /// Bytes in it that are free to be used again.
    pub free_bytes: u64,
    /// Rows of each table.
    pub rows: std::collections::BTreeMap<String, u64>,
}

/// What only the front door asks of the store.
#[async_trait]
pub trait Administration: Send + Sync + 'static {
    // ---- tokens -----------------------------------------------------------------------------

    /// Makes a token. More live ones than their owner may have are a [`StoreError::Conflict`].
    async fn create_token(&self, token: &AccessToken) -> Result<(), StoreError>;
    /// The token with this public part, live or not, and the app whose it is: one search of an index. The
    /// caller compares the hash.
    async fn find_token(&self, public_id: &str) -> Result<Option<(AccessToken, Option<App>)>, StoreError>;
    /// Tokens, oldest first, after `after`, at most `limit`.
    async fn tokens(
        &self,
        of: &TokensOf,
        after: Option<&TokenId>,
        limit: u64,
    ) -> Result<Vec<AccessToken>, StoreError>;
    /// Ends a token for good. One that was revoked before stays as it is; foreign ids are
    /// [`StoreError::NotFound`] like missing ones.
    async fn revoke_token(&self, of: &TokensOf, id: &TokenId, at: Timestamp) -> Result<(), StoreError>;
    /// Remembers that a token was used.
    async fn note_use(&self, id: &TokenId, at: Timestamp) -> Result<(), StoreError>;

    // ---- audit ------------------------------------------------------------------------------

    /// Writes a deed at the end of the log.
    async fn record(&self, deed: &Deed, kept: AuditKept) -> Result<(), StoreError>;
    /// Rows of the log that a filter means, newest first, before `before`, at most `limit`.
    async fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<AuditRow>, StoreError>;
    /// The log itself, oldest first, after `after`, at most `limit`.
    async fn audit_chain(&self, after: i64, limit: u64) -> Result<Vec<AuditRow>, StoreError>;

    // ---- looks over all apps ----------------------------------------------------------------

    /// Watches of all apps that a filter means, in the order of their ids, after `after`, at most
    /// `limit`.
    async fn all_watches(
        &self,
        filter: &WatchFilter,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError>;
    /// Sources of all repositories, in the order of their ids, after `after`, at most `limit`; with
    /// `failing`, only those whose last scan failed.
    async fn all_sources(
        &self,
        failing: bool,
        after: Option<&SourceId>,
        limit: u64,
    ) -> Result<Vec<SourceLine>, StoreError>;
    /// Dead letters of all apps, or of one, that a filter means, newest first, before `before`, at most
    /// `limit`. Looks at no more than [`SEARCH_STEP`](super::SEARCH_STEP) of them.
    async fn all_dead_letters(
        &self,
        app: Option<&AppId>,
        filter: &LetterFilter,
        before: Option<&DeadLetterId>,
        limit: u64,
    ) -> Result<LettersOfAll, StoreError>;
    /// The last attempt at the change at the head of each open round of these watches, at most 256, where
    /// there was one.
    async fn attempts_at_heads(&self, watches: &[WatchId]) -> Result<Vec<AttemptRecord>, StoreError>;
    /// What the database takes. Counts every row: a second or so for some million.
    async fn database_use(&self) -> Result<DatabaseUse, StoreError>;
}
