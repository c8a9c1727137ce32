//! The endpoint or source that a breaker guards, and the keys of breakers in the address book.

use std::fmt;

use tidings_entity::{id::RepositoryId, kind::BreakerKind};

/// The endpoint or the Git source that a breaker guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// A sink that attempts go to.
    Endpoint {
        /// The id of the app for the app's own sink; the id of the sink for any other sink.
        id: String,
    },
    /// A source of a repository.
    Source {
        /// The id of the source.
        source: String,
        /// The id of its repository.
        repository: String,
    },
}

impl Guarded {
    /// Parses the key of a breaker; `None` if the text is not such a key.
    pub(super) fn of(key: &str) -> Option<Self> {
        let (kind, id) = key.split_once(':')?;
        Some(match kind.parse().ok()? {
            BreakerKind::Endpoint => Self::Endpoint { id: id.to_owned() },
            BreakerKind::Source => {
                let (source, repository) = id.split_once('@').unwrap_or((id, id));
                Self::Source { source: source.to_owned(), repository: repository.to_owned() }
            }
        })
    }

    pub(super) fn kind(&self) -> BreakerKind {
        match self {
            Self::Endpoint { .. } => BreakerKind::Endpoint,
            Self::Source { .. } => BreakerKind::Source,
        }
    }

    /// The id by which the row of the breaker is found.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Endpoint { id } | Self::Source { source: id, .. } => id,
        }
    }
}

/// `source src_...`, for logs.
impl fmt::Display for Guarded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind(), self.id())
    }
}

/// The key of a sink's breaker: `id` is the id of the app for the app's own sink, and the id of the sink for
/// any other sink.
#[must_use]
pub fn endpoint_key(id: &str) -> String {
    format!("endpoint:{id}")
}

/// The key of a source's breaker; the repository finds the watcher.
#[must_use]
pub fn source_key(source: &str, repository: &str) -> String {
    format!("source:{source}@{repository}")
}

/// Whether a row is that of the breaker with this key.
#[must_use]
pub(crate) fn is_of(key: &str, kind: BreakerKind, id: &str) -> bool {
    let Some((of, rest)) = key.split_once(':') else { return false };
    of == kind.as_str() && rest.split_once('@').map_or(rest, |(id, _)| id) == id
}

/// The repository in the key of a source's breaker.
#[must_use]
pub(crate) fn repository_of(key: &str) -> Option<RepositoryId> {
    key.split_once('@').and_then(|(_, repository)| repository.parse().ok())
}
