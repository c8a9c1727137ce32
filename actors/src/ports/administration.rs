//! [`Administration`]: the calls of the HTTP handlers to the store: tokens, sessions, the audit log, and
//! searches over all apps. No actor uses it.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, DeadLetterId, RepositoryId, Sha256Hash, SourceId, TokenId, WatchId},
    kind::Role,
};

use super::{App, AttemptRecord, DeadLetter, LetterFilter, StoreError, Watch};
use crate::{
    model::{filter::Filter, permission::narrowing::Narrowing},
    time::Timestamp,
};

/// Live tokens of one app at most: enough for every place it runs at and a rotation of each.
pub const APP_TOKENS_MAX: u64 = 20;
/// Live narrowed tokens of one app at most, and of the staff: enough for every worker.
pub const NARROWED_TOKENS_MAX: u64 = 1_000;
/// Live tokens of the staff at most.
pub const STAFF_TOKENS_MAX: u64 = 1_000;
/// Tokens that are live no more, kept for each owner; older ones go when a new one is made.
pub const DEAD_TOKENS_KEPT: u64 = 50;

/// Sessions of one token at most; with one more the oldest ends.
pub const SESSIONS_MAX: u64 = 100;

/// Sign-ins under way at once at most: a bound for what people without a token can write.
pub const SIGN_INS_MAX: u64 = 10_000;

/// The owner of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOwner {
    /// The token of an app.
    App(AppId),
    /// A token of the staff, with its role; `None`: the token is narrowed.
    Staff(Option<Role>),
}

/// The owner of the tokens that are listed or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokensOf {
    /// The tokens of this app.
    App(AppId),
    /// The tokens of the staff.
    Staff,
}

impl TokenOwner {
    /// The group of tokens to which this owner's tokens belong.
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
    /// Id of the token, `tok_` and a ULID.
    pub id: TokenId,
    /// The app or the staff role that the token was made for.
    pub owner: TokenOwner,
    /// The narrowing of the token; `None`: the token may do what its owner may.
    pub narrowing: Option<Narrowing>,
    /// The purpose of the token, in the words of the person who made it.
    pub name: String,
    /// The public part of the token, unique; a lookup by it finds the token.
    pub public_id: String,
    /// SHA-256 of the whole token, compared in constant time.
    pub hash: Sha256Hash,
    /// The moment of expiry.
    pub expires_at: Option<Timestamp>,
    /// When the token was last used, to about a minute.
    pub last_used_at: Option<Timestamp>,
    /// When the token was revoked; `None`: it is not revoked.
    pub revoked_at: Option<Timestamp>,
    /// When the token was created.
    pub created_at: Timestamp,
}

impl AccessToken {
    /// Whether the token is valid at `now`: neither revoked nor expired.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A session: a browser in which a person signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the secret that the browser holds.
    pub hash: Sha256Hash,
    /// The token that the person signed in with; `None`: the server's own token.
    pub token: Option<TokenId>,
    /// The person who signed in at an issuer, without a token of Tidings.
    pub subject: Option<SessionSubject>,
    /// The SHA-256 hash of the session's token.
    pub token_hash: Sha256Hash,
    /// The moment of the sign-in.
    pub created_at: Timestamp,
    /// The moment of expiry.
    pub expires_at: Timestamp,
}

/// A person who signed in at an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSubject {
    /// `jwt:` and a hash of issuer and subject.
    pub id: String,
    /// Where the person signed in: the name of the issuer in the settings, the issuer and the client.
    pub issuer: String,
    /// The roles that the issuer gave.
    pub roles: Vec<String>,
}

/// A sign-in that is under way at an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// SHA-256 of the state that the issuer hands back.
    pub state: Sha256Hash,
    /// The name of the issuer in the settings.
    pub issuer: String,
    /// When the sign-in expires and its row is deleted.
    pub expires_at: Timestamp,
}

/// An act, before it has a place in the audit log. Ids and addresses only: erasing an app leaves nothing of
/// its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When the act was done.
    pub at: Timestamp,
    /// Who did it: `admin`, `tok_...`, `jwt:...`, `anyone` or `system`.
    pub actor: String,
    /// The id of the app that acted or was acted on; empty where there is none.
    pub app: String,
    /// The act, as a stable word.
    pub action: String,
    /// The id of the thing that was acted on; empty where there is none.
    pub target: String,
    /// `ok`, or the stable code of the refusal.
    pub result: String,
    /// The id of the API request; empty where the act had none.
    pub request: String,
    /// The address that the request came from; `None` where there was no request, and in rows from before
    /// addresses were stored. Where a row stands for several requests, the address of one of them.
    pub address: Option<String>,
}

/// An entry with its place in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// The place of the row in the log; rises by one.
    pub id: i64,
    /// The act that the row records.
    pub entry: AuditEntry,
    /// The hash of the row before this one.
    pub previous: Sha256Hash,
    /// Id of the key that the hash was made with; `None`: a row from before hashes had keys.
    pub key: Option<String>,
    /// The hash of this row.
    pub hash: Sha256Hash,
}

/// The part of the audit log that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditKept {
    /// Rows older than this go.
    pub since: Timestamp,
    /// Rows beyond this number go, the oldest first.
    pub rows: u64,
}

/// A filter for rows of the audit log. A field that is `None` restricts nothing.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only acts of this actor.
    pub actor: Option<String>,
    /// Only acts by or on this app.
    pub app: Option<String>,
    /// Only acts of this kind.
    pub action: Option<String>,
    /// Only acts on the thing of this id.
    pub target: Option<String>,
    /// Only acts at this moment or later.
    pub since: Option<Timestamp>,
    /// Only acts before this moment.
    pub until: Option<Timestamp>,
}

/// Conditions of a watch that lists over all apps filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchCondition {
    /// A branch of the watch is behind its head, or may be: the last scan of its source failed.
    Behind,
    /// A branch of the watch is blocked.
    Blocked,
    /// The watch is paused.
    Paused,
    /// The last scan of the source failed, the breaker of the source or of the app's endpoint is open, or the
    /// app is not served.
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

/// A filter for watches. A field that is `None` restricts nothing.
#[derive(Clone, Debug, Default)]
pub struct WatchFilter {
    /// Only watches in this condition, such as behind or blocked.
    pub condition: Option<WatchCondition>,
    /// Only watches of this app.
    pub app: Option<AppId>,
    /// Only watches of this repository.
    pub repository: Option<RepositoryId>,
    /// Only watches that match this filter over [`REPOSITORIES`](crate::model::filter::sets::REPOSITORIES).
    pub q: Option<Filter>,
}

/// A source as the staff sees it, with the result of its last scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// Id of the source, `src_` and a ULID.
    pub id: SourceId,
    /// The repository that the source reads.
    pub repository: RepositoryId,
    /// The normalised address of the repository.
    pub url: String,
    /// The address that the repository moved to, according to its host.
    pub moved_to: Option<String>,
    /// The app whose credential the source uses; `None`: the anonymous source.
    pub app: Option<AppId>,
    /// The number of watches that use the source.
    pub watches: u64,
    /// When a head of it moved last.
    pub last_change: Timestamp,
    /// Why the last scan failed, where it did.
    pub last_error: Option<String>,
}

/// One page of a search for dead letters over all apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LettersOfAll {
    /// The letters that were found, newest first, each with its app.
    pub letters: Vec<(AppId, DeadLetter)>,
    /// The last letter that was looked at; `None`: there are no older ones.
    pub next: Option<DeadLetterId>,
}

/// The disk space and rows that the database uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DatabaseUse {
    /// Bytes of the database itself.
    pub bytes: u64,
    /// Bytes in it that are free to be used again.
    pub free_bytes: u64,
    /// Rows of each table.
    pub rows: std::collections::BTreeMap<String, u64>,
}

/// The calls of the HTTP handlers to the store; no actor makes them.
#[async_trait]
pub trait Administration: Send + Sync + 'static {
    // ---- tokens -----------------------------------------------------------------------------

    /// Makes a token. More live ones than their owner may have are a [`StoreError::Conflict`].
    async fn create_token(&self, token: &AccessToken) -> Result<(), StoreError>;
    /// The token with this public part, live or not, with its app: one search of an index, or two for a
    /// narrowed or unknown token. The caller compares the hash.
    async fn find_token(&self, public_id: &str) -> Result<Option<(AccessToken, Option<App>)>, StoreError>;
    /// Tokens, oldest first, after `after`, at most `limit`.
    async fn tokens(
        &self,
        of: &TokensOf,
        after: Option<&TokenId>,
        limit: u64,
    ) -> Result<Vec<AccessToken>, StoreError>;
    /// Ends a token for good. A token that was revoked before stays as it is. The id of another owner's token
    /// is [`StoreError::NotFound`], like an unknown id.
    async fn revoke_token(&self, of: &TokensOf, id: &TokenId, at: Timestamp) -> Result<(), StoreError>;
    /// Remembers that a token was used.
    async fn note_use(&self, id: &TokenId, at: Timestamp) -> Result<(), StoreError>;

    // ---- names ------------------------------------------------------------------------------

    /// Apps with exactly this name, oldest first, at most `limit`: names are not unique.
    async fn apps_named(&self, name: &str, limit: u64) -> Result<Vec<AppId>, StoreError>;

    // ---- sessions ---------------------------------------------------------------------------

    /// Begins a session. Ended sessions are removed, and so are the oldest sessions of the token beyond
    /// [`SESSIONS_MAX`]. [`StoreError::NotFound`]: there is no such token any more.
    async fn begin_session(&self, session: &Session) -> Result<(), StoreError>;
    /// The session with this hash that has not ended at `now`, and the public part of its token (`None`: the
    /// server's own token).
    async fn find_session(
        &self,
        hash: &Sha256Hash,
        now: Timestamp,
    ) -> Result<Option<(Session, Option<String>)>, StoreError>;
    /// Ends a session, if there is one with this hash.
    async fn end_session(&self, hash: &Sha256Hash) -> Result<(), StoreError>;
    /// Ends all sessions of a token; `None`: those of the server's own token. Returns their number.
    async fn end_sessions(&self, token: Option<&TokenId>) -> Result<u64, StoreError>;
    /// Ends all sessions of a person who signed in at an issuer. Returns their number.
    async fn end_sessions_of(&self, subject: &str) -> Result<u64, StoreError>;
    /// Ends the sessions that began at issuers other than these; those of tokens stay. Returns their number.
    async fn end_sessions_of_others(&self, origins: &[String]) -> Result<u64, StoreError>;
    /// Remembers a sign-in. More than [`SIGN_INS_MAX`] are a [`StoreError::Conflict`].
    async fn begin_sign_in(&self, sign_in: &SignIn, now: Timestamp) -> Result<(), StoreError>;
    /// Removes a sign-in. Returns whether it existed at this issuer and had not ended; a second call returns
    /// `false`.
    async fn take_sign_in(
        &self,
        state: &Sha256Hash,
        issuer: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    // ---- audit ------------------------------------------------------------------------------

    /// Writes an entry at the end of the log.
    async fn record(&self, entry: &AuditEntry, kept: AuditKept) -> Result<(), StoreError>;
    /// Rows of the log that a filter means, newest first, before `before`, at most `limit`.
    async fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<AuditRow>, StoreError>;
    /// The rows of the log, oldest first, after `after`, at most `limit`.
    async fn audit_chain(&self, after: i64, limit: u64) -> Result<Vec<AuditRow>, StoreError>;

    // ---- ledgers ----------------------------------------------------------------------------

    /// Gives the ledger of one app, or of all apps, another name, because the database may have lost
    /// entries: the numbers of lost entries are given again, and no id may mean two entries.
    async fn rename_ledgers(&self, of: Option<&AppId>) -> Result<(), StoreError>;

    // ---- looks over all apps ----------------------------------------------------------------

    /// Watches of all apps that match a filter, in the order of their ids, after `after`, at most `limit`.
    async fn all_watches(
        &self,
        filter: &WatchFilter,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError>;
    /// Apps that a filter over [`APPS`](crate::model::filter::sets::APPS) means, oldest first, after
    /// `after`, at most `limit`.
    async fn filtered_apps(
        &self,
        filter: &Filter,
        after: Option<&AppId>,
        limit: u64,
    ) -> Result<Vec<App>, StoreError>;
    /// Sources of all repositories, in the order of their ids, after `after`, at most `limit`; with
    /// `failing`, only those whose last scan failed.
    async fn all_sources(
        &self,
        failing: bool,
        after: Option<&SourceId>,
        limit: u64,
    ) -> Result<Vec<SourceLine>, StoreError>;
    /// Dead letters of all apps, or of one, that match a filter, newest first, before `before`, at most
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
    /// The disk space and rows of the database. Counts every row: about a second for some million rows.
    async fn database_use(&self) -> Result<DatabaseUse, StoreError>;
}
