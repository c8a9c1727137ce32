//! Ids. Every kind of id is its own type, so that the id of a watch can never be used as the id of an app;
//! all of them are listed here and nowhere else.
//!
//! Prefixed ids are `<prefix>` followed by a ULID (26 characters of Crockford base32, upper case): they sort
//! by the moment of creation. They are hard to guess, but no secret.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use ulid::Ulid;

/// A text that is not an id of the kind that was asked for.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("an id is {form}")]
pub struct InvalidId {
    form: &'static str,
}

/// The characters of a ULID.
const ULID_CHARACTERS: usize = 26;

// Each id is its text without an allocation: ids are cloned at every turn, and thousands stay in memory.
macro_rules! prefixed_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType)]
        #[serde(try_from = "String", into = "String")]
        #[sea_orm(value_type = "String")]
        pub struct $name([u8; $prefix.len() + ULID_CHARACTERS]);

        impl $name {
            /// The prefix of every id of this kind.
            pub const PREFIX: &'static str = $prefix;

            /// Creates the id of a new thing. The caller gives moment and randomness, so that tests can set
            /// them.
            #[must_use]
            pub fn new(ulid: Ulid) -> Self {
                let text = format!("{}{ulid}", $prefix);
                Self(text.as_bytes().try_into().expect("a ULID has 26 characters"))
            }

            /// The ULID of the id.
            #[must_use]
            pub fn ulid(&self) -> Ulid {
                // The constructors checked the text.
                let digits = self.as_str().strip_prefix($prefix);
                digits.and_then(|digits| Ulid::from_string(digits).ok()).unwrap_or_default()
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).expect("the constructors took the bytes of a text")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { form: concat!($prefix, " and 26 digits and capital letters") };
                let Some(rest) = text.strip_prefix($prefix) else { return Err(invalid) };
                let bytes = <[u8; $prefix.len() + ULID_CHARACTERS]>::try_from(text.as_bytes());
                match (Ulid::from_string(rest), bytes) {
                    (Ok(ulid), Ok(bytes)) if ulid.to_string() == rest => Ok(Self(bytes)),
                    _ => Err(invalid),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        never_numbers! { $name }
    )+};
}

/// SeaORM asks of every primary key whether a database could have counted it up; ours never are.
macro_rules! never_numbers {
    ($($name:ident)+) => {$(
        impl TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($name)))
            }
        }
    )+};
}

never_numbers! { ObjectId Sha256Hash }

prefixed_ids! {
    /// Id of an app: a registered receiver.
    AppId = "app_";
    /// A file that belongs to a task.
    ArtifactId = "art_";
    /// Id of a credential of one app for a Git host.
    CredentialId = "cred_";
    /// Id of a cursor: the progress of an app on one watched branch.
    CursorId = "cur_";
    /// Id of a dead letter: a change that was parked.
    DeadLetterId = "dead_";
    /// A hook of one app, at its own address.
    HookId = "hook_";
    /// The ledger of one app; a restore of the database begins a new ledger.
    LedgerId = "lgr_";
    /// All tasks of one command of an app; computed from both, so that no lookup is needed.
    QueueId = "que_";
    /// Dead letters that were asked to be sent again together.
    RedriveId = "rdv_";
    /// A token that opens this API.
    TokenId = "tok_";
    /// A hook of a Git host that was received.
    ReceiptId = "rct_";
    /// One process of several that share a database; a restart gets a new id.
    ReplicaId = "rpl_";
    /// A remote repository (normalised URL), shared by all watches of it. Never on the wire.
    RepositoryId = "rep_";
    /// The sink of one watch or one subscription.
    SinkId = "snk_";
    /// A repository seen with one credential, or with none.
    SourceId = "src_";
    /// A reader of an app's ledger.
    SubscriptionId = "sub_";
    /// A unit of work for a worker.
    TaskId = "tsk_";
    /// An app's interest in a repository; on the wire this is `repository_id`.
    WatchId = "repo_";
    /// A request of a worker to be told that queues have work.
    WorkerSubscriptionId = "wsb_";
}

impl QueueId {
    /// The queue of a command of an app.
    #[must_use]
    pub fn of(app: &AppId, command: &str) -> Self {
        Self::new(made_of(app, command))
    }
}

impl SubscriptionId {
    /// The callback of an app's tasks with this address.
    #[must_use]
    pub fn of_callback(app: &AppId, address: &str) -> Self {
        Self::new(made_of(app, address))
    }
}

/// The ULID that an app and a text always have together.
fn made_of(app: &AppId, text: &str) -> Ulid {
    let mut hash = Sha256::new();
    hash.update(app.as_str());
    hash.update([0]);
    hash.update(text);
    let hash: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    Ulid::from_bytes(half)
}

/// Bytes whose text is lower-case hexadecimal digits, all of them.
macro_rules! hexadecimal {
    ($name:ident, $bytes:literal, $digits:literal) => {
        impl $name {
            /// Passes the digits to `look`, without an allocation: a body has several ids.
            fn with_digits<T>(&self, look: impl FnOnce(&str) -> T) -> T {
                let mut digits = [0; 2 * $bytes];
                HEXLOWER.encode_mut(&self.0, &mut digits);
                look(std::str::from_utf8(&digits).expect("digits are ASCII"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.with_digits(|digits| formatter.write_str(digits))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.with_digits(|digits| serializer.serialize_str(digits))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { form: concat!($digits, " hexadecimal digits, 0-9 and a-f") };
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| invalid.clone())?;
                Ok(Self(bytes.try_into().map_err(|_| invalid)?))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
    };
}

/// A Git object id (SHA-1, 20 bytes; repositories of other formats are refused). Its text is 40
/// lower-case hexadecimal digits, no fewer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, DeriveValueType)]
#[serde(try_from = "String")]
#[sea_orm(value_type = "String")]
pub struct ObjectId([u8; 20]);

impl ObjectId {
    /// Wraps the 20 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

hexadecimal!(ObjectId, 20, 40);

/// A SHA-256, shown as 64 lower-case hexadecimal digits: the id of a view (over its canonical
/// text), the digest of a round, the content hash on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, DeriveValueType)]
#[serde(try_from = "String")]
#[sea_orm(value_type = "String")]
pub struct Sha256Hash([u8; 32]);

/// The id of a view: the SHA-256 of its canonical text.
pub type ViewId = Sha256Hash;

impl Sha256Hash {
    /// Computes the SHA-256 hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Wraps a finished hash.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

hexadecimal!(Sha256Hash, 32, 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let app = AppId::new(Ulid::from_parts(1, 2));
        assert_eq!(app.as_str().parse::<AppId>(), Ok(app.clone()));
        assert!(app.as_str().parse::<WatchId>().is_err());
        assert!("app_".parse::<AppId>().is_err());
        assert!("app_0000000000000000000000000l".parse::<AppId>().is_err());
    }

    #[test]
    fn an_id_is_its_text_without_an_allocation() {
        let (app, watch) = (AppId::new(Ulid::from_parts(1, 2)), WatchId::new(Ulid::from_parts(1, 2)));
        assert_eq!((size_of_val(&app), size_of_val(&watch)), (app.as_str().len(), watch.as_str().len()));
        assert_eq!(app.ulid(), Ulid::from_parts(1, 2));
        assert_eq!(String::from(app.clone()), app.to_string());
        assert_eq!(format!("{app:?}"), format!("AppId({:?})", app.as_str()));
        assert!(app < AppId::new(Ulid::from_parts(1, 3)));
    }

    #[test]
    fn an_object_id_is_forty_lower_case_digits() {
        let text = "ab".repeat(20);
        assert_eq!(text.parse::<ObjectId>().map(|id| id.to_string()), Ok(text.clone()));
        for bad in ["abc", &"AB".repeat(20), &"ab".repeat(32), &"zz".repeat(20), ""] {
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
        }
    }
}
