//! A cache of small contents, by the repository that they were read from. Apps that watch one repository need
//! the same files at the same time: each is read, unpacked and hashed once. Contents of another repository
//! are never used, because knowledge of an id proves no access.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};
use tidings_actors::ports::{BlobWanted, Content};
use tidings_entity::id::{ObjectId, RepositoryId};

/// Larger contents cost more to keep than to read again, in bytes.
const CONTENT_BYTES_MAX: usize = 16 << 10;
/// The cost of an entry in addition to its content, in bytes.
const ENTRY_BYTES: u64 = 200;
/// About how many entries there will be.
const ENTRIES: usize = 4_096;

type ContentKey = (RepositoryId, ObjectId);

#[derive(Clone)]
struct Bytewise;

impl Weighter<ContentKey, Bytes> for Bytewise {
    fn weight(&self, _key: &ContentKey, content: &Bytes) -> u64 {
        ENTRY_BYTES + content.len() as u64
    }
}

/// The cached contents of all repositories; `None`: nothing is cached.
pub(crate) struct Recent(Option<Arc<Cache<ContentKey, Bytes, Bytewise>>>);

impl Recent {
    /// Creates a cache of at most this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self((bytes > 0).then(|| Arc::new(Cache::with_weighter(ENTRIES, bytes, Bytewise))))
    }

    /// The cache for one repository.
    pub(crate) fn of(&self, repository: &RepositoryId) -> RecentOf {
        RecentOf { cache: self.0.clone(), repository: repository.clone() }
    }
}

/// The cached contents of one repository.
pub(crate) struct RecentOf {
    cache: Option<Arc<Cache<ContentKey, Bytes, Bytewise>>>,
    repository: RepositoryId,
}

impl RecentOf {
    /// A content, unless it was not read lately.
    pub(crate) fn get(&self, blob: ObjectId) -> Option<Bytes> {
        self.cache.as_ref()?.get(&(self.repository.clone(), blob))
    }

    /// Keeps a content that was read, if it is small.
    pub(crate) fn keep(&self, blob: ObjectId, content: &Bytes) {
        if let Some(cache) = self.cache.as_ref().filter(|_| content.len() <= CONTENT_BYTES_MAX) {
            cache.insert((self.repository.clone(), blob), content.clone());
        }
    }

    /// All of these contents, if all are cached and together within `budget` bytes.
    pub(crate) fn all(&self, wanted: &[BlobWanted], budget: u64) -> Option<Vec<Content>> {
        let mut left = budget;
        wanted
            .iter()
            .map(|BlobWanted { blob, limit }| {
                let content = self.get(*blob)?;
                let size = content.len() as u64;
                if size > *limit {
                    return Some(Content::TooLarge { size });
                }
                left = left.checked_sub(size)?;
                Some(Content::Whole(content))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(last: u8) -> RepositoryId {
        RepositoryId::new(ulid::Ulid::from_bytes([last; 16]))
    }

    fn wanted(blob: ObjectId, limit: u64) -> BlobWanted {
        BlobWanted { blob, limit }
    }

    const BYTES: u64 = 1 << 20;

    #[test]
    fn contents_are_given_for_their_repository_and_within_limits() {
        let recent = Recent::new(BYTES);
        let (own, other) = (recent.of(&repository(1)), recent.of(&repository(2)));
        let [one, two] = [[1; 20], [2; 20]].map(ObjectId::new);
        own.keep(one, &Bytes::from_static(b"hello"));
        assert_eq!(own.get(one).as_deref(), Some(&b"hello"[..]));
        assert!(other.get(one).is_none(), "another repository proves nothing");

        let whole = Content::Whole(Bytes::from_static(b"hello"));
        assert_eq!(own.all(&[wanted(one, 5)], 5), Some(vec![whole]));
        assert_eq!(own.all(&[wanted(one, 4)], 5), Some(vec![Content::TooLarge { size: 5 }]));
        assert_eq!(own.all(&[wanted(one, 5), wanted(one, 5)], 9), None, "more than may be read at once");
        assert_eq!(own.all(&[wanted(one, 5), wanted(two, 5)], 100), None);

        let none = Recent::new(0).of(&repository(1));
        none.keep(one, &Bytes::from_static(b"hello"));
        assert_eq!(none.get(one), None);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let own = Recent::new(BYTES).of(&repository(1));
        let cache = own.cache.clone().expect("something is kept");
        own.keep(ObjectId::new([9; 20]), &Bytes::from(vec![0; CONTENT_BYTES_MAX + 1]));
        assert!(cache.is_empty());
        for number in 0..1_000_u32 {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&number.to_be_bytes());
            own.keep(ObjectId::new(id), &Bytes::from(vec![0; CONTENT_BYTES_MAX]));
        }
        assert!(cache.weight() <= BYTES, "{}", cache.weight());
        assert!(cache.len() > 30, "{}", cache.len());
    }
}
