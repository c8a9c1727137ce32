//! Limits on things under way at once: per owner, and in all. Owners without any leave no entry.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// A limit per owner and in all.
pub(crate) struct Quota {
    of_owner: usize,
    of_all: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    owners: HashMap<String, usize>,
    count: usize,
}

/// Why no more may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The limit of the owner is reached.
    Owner,
    /// All owners together have as many as there may be.
    All,
}

impl Quota {
    /// At most `of_owner` at once for one owner, and `of_all` for all owners together.
    pub(crate) fn new(of_owner: usize, of_all: usize) -> Self {
        Self { of_owner, of_all, counts: Arc::default() }
    }

    /// Counts one more of an owner, until the share is dropped.
    pub(crate) fn take(&self, owner: &str) -> Result<QuotaShare, Full> {
        let mut counts = self.counts.lock();
        if counts.owners.get(owner).is_some_and(|own| *own >= self.of_owner) {
            return Err(Full::Owner);
        }
        if counts.count >= self.of_all {
            return Err(Full::All);
        }
        counts.count += 1;
        *counts.owners.entry(owner.to_owned()).or_default() += 1;
        Ok(QuotaShare { owner: owner.to_owned(), counts: Arc::clone(&self.counts) })
    }

    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        let counts = self.counts.lock();
        counts.owners.is_empty() && counts.count == 0
    }
}

/// One counted unit, until it is dropped.
pub(crate) struct QuotaShare {
    owner: String,
    counts: Arc<Mutex<Counts>>,
}

impl Drop for QuotaShare {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.count -= 1;
        if let Some(own) = counts.owners.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                counts.owners.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_takes_its_part_and_no_more_and_all_of_them_what_there_is() {
        let quota = Quota::new(2, 3);
        let mut own: Vec<_> = (0..2).map(|_| quota.take("one").expect("there is room")).collect();
        assert_eq!(quota.take("one").err(), Some(Full::Owner));
        let other = quota.take("other").expect("there is room");
        assert_eq!(quota.take("third").err(), Some(Full::All));
        own.pop();
        own.push(quota.take("one").expect("one has ended"));
        drop((own, other));
        assert!(quota.is_unused(), "nothing is left of what has ended");
    }
}
