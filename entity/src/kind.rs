//! The closed sets of words that rows and messages share. Each is stored as its snake-case text;
//! a word that a row holds and this list lacks is a typed decode error, never a guess.

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

words! {
    /// Why a round was begun.
    RoundKind {
        /// From what the app holds to the head of its branch.
        Sync = "sync",
        /// Everything anew: deletes of what the view lacks, then creates of all it has.
        Resync = "resync",
        /// Dead letters once more.
        Redrive = "redrive",
        /// From a commit that the app names to its head.
        Replay = "replay",
    }

    /// What happened to a path.
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
        /// The net change once.
        Net = "net",
        /// One round per first-parent commit.
        Every = "every",
    }

    /// What a body carries of a file.
    ContentRule {
        /// The content, up to the view's maximum size.
        Inline = "inline",
        /// Path, mode and blob id only.
        None = "none",
    }

    /// Which refs a watch follows.
    SelectorKind {
        /// Whatever branch HEAD names, also after it was renamed.
        DefaultBranch = "default_branch",
        /// One branch by name.
        Branch = "branch",
        /// Each branch that a glob matches.
        BranchPattern = "branch_pattern",
        /// Each tag that a glob matches.
        TagPattern = "tag_pattern",
        /// One ref that is no branch, by its full name.
        Ref = "ref",
        /// Each ref that a glob over full names matches.
        RefPattern = "ref_pattern",
    }

    /// What becomes of an app's files when their branch vanished.
    BranchGone {
        /// They go: a round to nothing. Branches and tags of a pattern only.
        Delete = "delete",
        /// They stay, until the branch comes back.
        Keep = "keep",
    }

    /// Whether a watch is served.
    WatchState {
        /// Served.
        Active = "active",
        /// Held still by its app, or by a guard, until resumed.
        Paused = "paused",
    }

    /// Whether a cursor moves.
    CursorState {
        /// Moves.
        Active = "active",
        /// Waits at its head under probe; the reason says why.
        Blocked = "blocked",
        /// The branch vanished from its repository; [`BranchGone`] says what becomes of its files.
        BranchMissing = "branch_missing",
        /// The repository has no commit yet.
        Empty = "empty",
    }

    /// Where a dead letter stands.
    LetterStatus {
        /// Given up; the next sync round may bind it.
        Open = "open",
        /// To be sent again by the next redrive round.
        RedriveRequested = "redrive_requested",
        /// Sent again and acknowledged.
        Redriven = "redriven",
        /// A later change of the path made it moot.
        Superseded = "superseded",
        /// Closed by hand: it is sent again only when its path changes.
        Dismissed = "dismissed",
    }

    /// Why a change was given up.
    ParkReason {
        /// The receiver refused it for good (4xx).
        Rejected = "rejected",
        /// The receiver failed on it too often (5xx).
        Failing = "failing",
        /// Its content can be had nowhere.
        ContentUnavailable = "content_unavailable",
        /// Skipped by hand.
        Skipped = "skipped",
    }

    /// What a breaker guards.
    BreakerKind {
        /// A source: the Git host, seen with one credential.
        Source = "source",
        /// An app's endpoint.
        Endpoint = "endpoint",
    }

    /// Where the changes of a watch go.
    SinkKind {
        /// Requests to a web address.
        Endpoint = "endpoint",
        /// Messages of a NATS stream.
        Stream = "stream",
        /// A consumer claims them.
        Pull = "pull",
        /// A line each on the terminal of the process.
        Print = "print",
    }

    /// Whether sends of one cursor may overlap.
    OrderMode {
        /// One at a time.
        Strict = "strict",
        /// Up to `max_in_flight` within deletes, creates or updates, never across.
        Phased = "phased",
    }

    /// What a body looks like.
    PayloadFormat {
        /// What Docora's clients read.
        Docora = "docora",
        /// CloudEvents 1.0 in structured mode, the same object as its `data`.
        Cloudevents = "cloudevents",
    }

    /// How the wait between tries grows.
    RetryPolicy {
        /// Always the base.
        Fixed = "fixed",
        /// The base times the number of tries.
        Linear = "linear",
        /// The base doubled at each try.
        Exponential = "exponential",
        /// Anywhere between nothing and the doubled base.
        ExpFullJitter = "exp_full_jitter",
        /// Half of the doubled base, and anywhere in the other half.
        ExpEqualJitter = "exp_equal_jitter",
    }

    /// What somebody of the staff may do; each may what those before it may.
    Role {
        /// Reads.
        Viewer = "viewer",
        /// Changes deliveries and repositories.
        Operator = "operator",
        /// Everything, also tokens, keys and erasing.
        Admin = "admin",
    }

    /// Whose attempt a row tells of.
    OwnerKind {
        /// A cursor's.
        Cursor = "cursor",
        /// A subscription's.
        Subscription = "subscription",
    }

    /// How a subscription stands.
    SubscriptionState {
        /// It is sent what it asks for.
        Active = "active",
        /// Somebody holds it still.
        Paused = "paused",
        /// Its next message waits: the sink fails. It is tried again now and then.
        Blocked = "blocked",
        /// Its time is over.
        Expired = "expired",
    }

    /// What a process is there for that shares its database with others.
    ReplicaRole {
        /// It answers requests and works.
        All = "all",
        /// It answers requests, and leaves repositories and deliveries to others.
        Api = "api",
        /// It works, and answers only who looks after it and what other replicas hand on.
        Worker = "worker",
    }

    /// How far a key of the keyring is among replicas.
    KeyState {
        /// Replicas take it; nothing is sealed with it.
        Offered = "offered",
        /// It seals, unless a later one does.
        Active = "active",
        /// It opens, and nothing may be sealed with it any more.
        Closed = "closed",
        /// Nothing is sealed with it: replicas drop it.
        Retired = "retired",
    }

    /// Which kind of Git host sent a hook.
    HookProvider {
        /// GitHub.
        Github = "github",
        /// GitLab.
        Gitlab = "gitlab",
        /// Gitea and Forgejo.
        Gitea = "gitea",
    }

    /// What a hook tells of.
    HookNews {
        /// The host tries the hook.
        Ping = "ping",
        /// A ref was made or moved.
        Push = "push",
        /// A ref was deleted.
        Deletion = "deletion",
        /// The repository itself: renamed, handed over, another default branch.
        Repository = "repository",
        /// Something that moves no ref.
        Other = "other",
    }

    /// What became of a hook.
    ReceiptVerdict {
        /// The repositories it names are polled soon.
        Accepted = "accepted",
        /// A hook with this delivery id was received before.
        Duplicate = "duplicate",
        /// Genuine, and nothing that anybody watches.
        Ignored = "ignored",
        /// Not genuine, or not readable.
        Refused = "refused",
    }

    /// Why a hook got its verdict.
    ReceiptReason {
        /// Accepted: a watched ref moved.
        RefMoved = "ref_moved",
        /// Accepted: a watched ref was deleted.
        RefDeleted = "ref_deleted",
        /// Accepted: a watched repository changed as a whole.
        RepositoryChanged = "repository_changed",
        /// Duplicate.
        SeenBefore = "seen_before",
        /// Ignored: the host tried the hook.
        Ping = "ping",
        /// Ignored: an event that moves no ref.
        OtherEvent = "other_event",
        /// Ignored: nobody watches this ref.
        OtherRef = "other_ref",
        /// Ignored: nobody watches this repository.
        UnknownRepository = "unknown_repository",
        /// Refused: nothing says who sent it.
        NoSignature = "no_signature",
        /// Refused: none of the secrets makes this signature over this body.
        WrongSignature = "wrong_signature",
        /// Refused: signed too long ago, or in the future.
        WrongTime = "wrong_time",
        /// Refused: genuine, and its body cannot be read.
        Unreadable = "unreadable",
    }

    /// What an entry of the ledger says: the noun, and what happened to it.
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
        /// Changes were given up and lie among the dead letters.
        LetterParked = "letter.parked",
        /// Nothing is sent to a sink any more: it was disabled, or it answered 410.
        SinkDisabled = "sink.disabled",
        /// A disabled sink is sent to again.
        SinkEnabled = "sink.enabled",
        /// The breaker of a sink opened: it fails, and is only probed.
        SinkOpened = "sink.opened",
        /// The breaker of a sink closed: it answers again.
        SinkClosed = "sink.closed",
        /// The sink of a subscription fails: its next entry waits.
        SubscriptionBlocked = "subscription.blocked",
        /// A blocked subscription moves again.
        SubscriptionRecovered = "subscription.recovered",
        /// The sink of a subscription refused an entry, which was passed over.
        SubscriptionSkipped = "subscription.skipped",
        /// Entries were gone before a subscription was sent them.
        SubscriptionGap = "subscription.gap",
        /// The database was restored from a backup: entries behind the backup are gone.
        LedgerRestored = "ledger.restored",
    }

    /// Where an entry comes from.
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

impl ReplicaRole {
    /// Whether it takes shards.
    #[must_use]
    pub fn works(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}
