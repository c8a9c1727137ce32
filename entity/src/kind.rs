//! The enums of rows and messages. Each is stored as its snake-case text; unknown text is a decode error.

use std::{fmt, str::FromStr};

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A stored or sent word that this binary does not know.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("unknown {kind} {word:?}")]
pub struct UnknownWord {
    kind: &'static str,
    word: String,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize, DeriveValueType)]
        #[sea_orm(value_type = "String")]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every word of this set.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The same as texts, in the same order.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// The word as it is stored.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { kind: stringify!($name), word: word.to_owned() }),
                }
            }
        }

        /// SeaORM asks this of every primary key; a word is never a number.
        impl TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($name)))
            }
        }
    )+};
}

mod work;

pub use work::{ClaimEnd, MissedTicks};

words! {
    /// The reason for a round, which decides the content of its list.
    RoundKind {
        /// The changes from the commit that the app holds to the head of its branch.
        Sync = "sync",
        /// Sends every file again: deletes of paths that the view lacks, then creates of all its files.
        Resync = "resync",
        /// Dead letters are sent again.
        Redrive = "redrive",
        /// Sends the changes since a commit that the app held earlier, as requested by the app or the staff.
        Replay = "replay",
    }

    /// The kind of change at a path.
    Operation {
        /// The app no longer has the path.
        Delete = "delete",
        /// The app did not have the path.
        Create = "create",
        /// The app has the path with other content or mode.
        Update = "update",
    }

    /// How commits between two heads are delivered.
    HistoryMode {
        /// One round from the held commit to the newest.
        Net = "net",
        /// One round per first-parent commit.
        Every = "every",
    }

    /// The part of a file that a body carries.
    ContentRule {
        /// The content, up to the view's maximum size.
        Inline = "inline",
        /// Path, mode and blob id only.
        None = "none",
    }

    /// Which refs a watch follows.
    SelectorKind {
        /// The branch that HEAD names, also after HEAD names another one.
        DefaultBranch = "default_branch",
        /// One branch by name.
        Branch = "branch",
        /// Each branch that a glob matches.
        BranchPattern = "branch_pattern",
        /// Each tag that a glob matches.
        TagPattern = "tag_pattern",
        /// One ref that is neither branch nor tag, by its full name.
        Ref = "ref",
        /// Each ref that a glob over full names matches.
        RefPattern = "ref_pattern",
    }

    /// What happens to an app's files when their branch vanishes.
    BranchGone {
        /// A round deletes every file. Only for the branches and tags of a pattern.
        Delete = "delete",
        /// The app keeps the files until the branch comes back.
        Keep = "keep",
    }

    /// Whether changes of a watch are delivered.
    WatchState {
        /// Changes are scanned and delivered.
        Active = "active",
        /// The app, the staff or a guard paused the watch; nothing is delivered until it is resumed.
        Paused = "paused",
    }

    /// Whether rounds of a cursor are delivered.
    CursorState {
        /// Rounds are delivered as the branch moves.
        Active = "active",
        /// The change at the head is only probed from time to time; the reason of the cursor says why.
        Blocked = "blocked",
        /// The branch vanished from its repository; [`BranchGone`] says what happens to its files.
        BranchMissing = "branch_missing",
        /// The repository has no commit yet.
        Empty = "empty",
    }

    /// The state of a dead letter since its change was parked.
    LetterStatus {
        /// The change was parked and not sent again; the next sync round may bind the letter.
        Open = "open",
        /// The next redrive round sends the change again.
        RedriveRequested = "redrive_requested",
        /// Sent again and acknowledged.
        Redriven = "redriven",
        /// A later round sent the path, so the letter has no effect any more.
        Superseded = "superseded",
        /// Closed by hand: it is sent again only when its path changes.
        Dismissed = "dismissed",
    }

    /// Why a change was parked.
    ParkReason {
        /// The receiver refused the change for good (4xx).
        Rejected = "rejected",
        /// The receiver failed at the change too often (5xx).
        Failing = "failing",
        /// The content of the file cannot be fetched from the Git host or read from the mirror.
        ContentUnavailable = "content_unavailable",
        /// An operator or the app skipped the change.
        Skipped = "skipped",
    }

    /// The kind of thing that a breaker guards.
    BreakerKind {
        /// A source: the Git host, seen with one credential.
        Source = "source",
        /// An app's own endpoint, or the endpoint of a sink of one watch or subscription.
        Endpoint = "endpoint",
    }

    /// How the changes of a watch reach their receiver.
    SinkKind {
        /// Requests to a web address.
        Endpoint = "endpoint",
        /// Messages of a NATS stream.
        Stream = "stream",
        /// A consumer claims the changes.
        Pull = "pull",
        /// Each change is one line on the terminal of the server.
        Print = "print",
        /// Mails to people. Sinks of subscriptions only.
        Mail = "mail",
        /// Each change becomes a task of a queue, which workers claim.
        Tasks = "tasks",
    }

    /// Whether attempts of one cursor may overlap.
    OrderMode {
        /// One attempt at a time.
        Strict = "strict",
        /// Up to `max_in_flight` within deletes, creates or updates, never across.
        Phased = "phased",
    }

    /// The format of a body.
    PayloadFormat {
        /// The format that Docora's clients read.
        Docora = "docora",
        /// CloudEvents 1.0 in structured mode, with the Docora object as its `data`.
        Cloudevents = "cloudevents",
    }

    /// How the wait between attempts grows.
    RetryPolicy {
        /// Every wait is the base wait.
        Fixed = "fixed",
        /// The base wait times the number of failed attempts.
        Linear = "linear",
        /// The base wait, doubled after each failed attempt.
        Exponential = "exponential",
        /// A random wait between zero and the doubled base wait.
        ExpFullJitter = "exp_full_jitter",
        /// Half of the doubled base wait, plus a random part of the other half.
        ExpEqualJitter = "exp_equal_jitter",
    }

    /// The built-in role of a staff token; each role includes the roles before it.
    Role {
        /// May read everything that the admin API shows, and change nothing.
        Viewer = "viewer",
        /// May also change deliveries and repositories.
        Operator = "operator",
        /// May do everything, also manage tokens and keys, and erase apps.
        Admin = "admin",
    }

    /// The kind of thing that an attempt was made for.
    OwnerKind {
        /// The attempt belongs to a change of a cursor.
        Cursor = "cursor",
        /// The attempt belongs to a message of a subscription.
        Subscription = "subscription",
    }

    /// Whether a subscription is sent entries.
    SubscriptionState {
        /// The subscription is sent the entries that its filter matches.
        Active = "active",
        /// The app or the staff paused the subscription.
        Paused = "paused",
        /// The sink fails: the next message waits and is tried from time to time.
        Blocked = "blocked",
        /// The end that the subscription was made with has passed.
        Expired = "expired",
    }

    /// The work of a process that shares its database with other processes.
    ReplicaRole {
        /// The process answers API requests, scans and delivers.
        All = "all",
        /// The process answers API requests; other replicas scan and deliver.
        Api = "api",
        /// The process scans and delivers; it answers only health checks and what other replicas forward.
        Worker = "worker",
    }

    /// How far replicas have adopted or given up a key of the keyring.
    KeyState {
        /// Replicas load the key; nothing is sealed with it yet.
        Offered = "offered",
        /// The key seals, unless a later key is active.
        Active = "active",
        /// The key still opens values, but no value may be sealed with it any more.
        Closed = "closed",
        /// No value is sealed with the key: replicas drop it.
        Retired = "retired",
    }

    /// Which kind of Git host sent a hook.
    HookProvider {
        /// A hook of GitHub, from github.com or GitHub Enterprise Server.
        Github = "github",
        /// A hook of GitLab, from gitlab.com or a GitLab server.
        Gitlab = "gitlab",
        /// A hook of Gitea or Forgejo.
        Gitea = "gitea",
    }

    /// The kind of event that a hook reports.
    HookNews {
        /// The host tests the hook.
        Ping = "ping",
        /// A ref was created or moved.
        Push = "push",
        /// A ref was deleted.
        Deletion = "deletion",
        /// The repository was renamed, moved to another owner, or got another default branch.
        Repository = "repository",
        /// Something that moves no ref.
        Other = "other",
    }

    /// How a received hook was judged.
    ReceiptVerdict {
        /// A scan of the repositories that the hook names is due soon.
        Accepted = "accepted",
        /// A hook with this delivery id was received before.
        Duplicate = "duplicate",
        /// The hook is genuine, but concerns nothing that a watch follows.
        Ignored = "ignored",
        /// The hook is not genuine, or cannot be read.
        Refused = "refused",
    }

    /// What happened to the body of a genuine hook.
    BodyFate {
        /// The body is kept, sealed.
        Kept = "kept",
        /// The body was larger than the limit for one hook.
        TooLarge = "too_large",
        /// The body is not UTF-8.
        NotText = "not_text",
        /// `hooks.kept_bytes` is 0: no bodies are kept.
        Off = "off",
        /// The body was kept, and was removed when newer bodies took its place.
        Dropped = "dropped",
    }

    /// Why a hook got its verdict.
    ReceiptReason {
        /// Accepted: a watched ref moved.
        RefMoved = "ref_moved",
        /// Accepted: a watched ref was deleted.
        RefDeleted = "ref_deleted",
        /// Accepted: a watched repository changed as a whole.
        RepositoryChanged = "repository_changed",
        /// Duplicate: a hook with this delivery id was received before.
        SeenBefore = "seen_before",
        /// Ignored: the host tested the hook.
        Ping = "ping",
        /// Ignored: an event that moves no ref.
        OtherEvent = "other_event",
        /// Ignored: no watch follows this ref.
        OtherRef = "other_ref",
        /// Ignored: no watch follows this repository.
        UnknownRepository = "unknown_repository",
        /// Refused: the request has no signature or token.
        NoSignature = "no_signature",
        /// Refused: no configured secret makes this signature over this body.
        WrongSignature = "wrong_signature",
        /// Refused: signed too long ago, or in the future.
        WrongTime = "wrong_time",
        /// Refused: the hook is genuine, but its body cannot be read.
        Unreadable = "unreadable",
    }

    /// The kind of Git host whose API takes the statuses of commits.
    StatusHost {
        /// GitHub, also GitHub Enterprise.
        Github = "github",
        /// GitLab, on gitlab.com or self-hosted.
        Gitlab = "gitlab",
        /// Gitea and Forgejo, which have the same API.
        Gitea = "gitea",
    }

    /// The state of a watch at one commit.
    StatusWord {
        /// A round brings the app to it.
        Pending = "pending",
        /// The app holds it.
        Success = "success",
        /// The app holds it, but for changes that were given up.
        Parked = "parked",
        /// The branch is blocked on the way to it.
        Blocked = "blocked",
        /// The watch is paused, or its sink is not served, on the way to it.
        Paused = "paused",
        /// The app is brought to another commit instead.
        Superseded = "superseded",
        /// Nothing is said of it any more.
        Cancelled = "cancelled",
    }

    /// The type of a ledger entry: a noun, and its change.
    EntryType {
        /// Scans of a source fail again and again: nothing of it is seen.
        SourceFailing = "source.failing",
        /// A source that failed is scanned again.
        SourceRecovered = "source.recovered",
        /// A branch of a watch is blocked: its next change waits.
        WatchBlocked = "watch.blocked",
        /// A blocked branch moves again.
        WatchRecovered = "watch.recovered",
        /// A watch was paused, by a person or by a guard.
        WatchPaused = "watch.paused",
        /// A paused watch is delivered again.
        WatchResumed = "watch.resumed",
        /// A round of a branch began. Written only while a subscription reads it.
        RoundBegan = "round.began",
        /// A round of a branch ended: the app holds its commit. Written only while a subscription reads it.
        RoundEnded = "round.ended",
        /// Changes were parked as dead letters.
        LetterParked = "letter.parked",
        /// Nothing is sent to a sink any more: it was disabled, or it answered 410.
        SinkDisabled = "sink.disabled",
        /// A disabled sink is sent to again.
        SinkEnabled = "sink.enabled",
        /// The breaker of a sink opened: the sink fails and only gets probes.
        SinkOpened = "sink.opened",
        /// The breaker of a sink closed: it answers again.
        SinkClosed = "sink.closed",
        /// The sink of a subscription fails: its next entry waits.
        SubscriptionBlocked = "subscription.blocked",
        /// A blocked subscription moves again.
        SubscriptionRecovered = "subscription.recovered",
        /// The sink of a subscription refused an entry, which was passed over.
        SubscriptionSkipped = "subscription.skipped",
        /// Entries were pruned before a subscription was sent them.
        SubscriptionGap = "subscription.gap",
        /// A mail of a subscription was taken by the mail server.
        MailSent = "mail.sent",
        /// A mail of a subscription was refused for good, for all of its recipients or for some.
        MailFailed = "mail.failed",
        /// A Git host is told no further statuses of a commit: it refused one, or it was told hundreds.
        StatusEnded = "status.ended",
        /// The attempts of a task are used up: no worker is given it any more.
        TaskDead = "task.dead",
        /// A task ended that has a `webhook`. Written only for such tasks.
        TaskEnded = "task.ended",
        /// Ticks of a schedule passed without a task: no server ran at their time.
        ScheduleMissed = "schedule.missed",
        /// The database was restored from a backup: entries behind the backup are gone.
        LedgerRestored = "ledger.restored",
    }

    /// The state of a task.
    TaskState {
        /// The task is not due yet.
        Waiting = "waiting",
        /// The next worker that asks gets it.
        Ready = "ready",
        /// A worker has it.
        Claimed = "claimed",
        /// A worker completed it.
        Succeeded = "succeeded",
        /// A worker gave it up.
        Failed = "failed",
        /// The task failed and has no attempts left.
        Dead = "dead",
        /// A pause set it aside.
        Aside = "aside",
        /// A person cancelled it.
        Cancelled = "cancelled",
    }

    /// What a schedule does at a tick while the task of an earlier tick has not ended.
    TickOverlap {
        /// It creates the next task all the same.
        Allow = "allow",
        /// The schedule creates no task for this tick.
        Skip = "skip",
        /// It creates the next task once that one has ended.
        Wait = "wait",
    }

    /// The kind of origin of an entry.
    OriginKind {
        /// A commit: a cursor and its round.
        Commit = "commit",
        /// A moment of a schedule.
        Tick = "tick",
        /// A person or program with a token.
        Person = "person",
        /// A Git host, an endpoint or a deadline.
        Outside = "outside",
    }
}

impl TaskState {
    /// Whether a task in this state has ended.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Dead | Self::Cancelled)
    }
}

impl ReplicaRole {
    /// Whether it takes shards.
    #[must_use]
    pub fn works(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}
