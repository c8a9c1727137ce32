//! How many of something may be under way at once: of one owner, and of all together. What has ended
//! leaves nothing behind.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// A bound on what is under way.
pub(crate) struct Quota {
    of_owner: usize,
    of_all: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    owners: HashMap<String, usize>,
    count: usize,
}

/// Why no more may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The owner has as many as one may have.
    Owner,
    /// All owners together have as many as there may be.
    All,
}

impl Quota {
    /// At most so many of one owner, and so many of all owners together.
    pub(crate) fn new(of_owner: usize, of_all: usize) -> Self {
        Self { of_owner, of_all, held: Arc::default() }
    }

    /// Counts one more of an owner, until the share is dropped.
    pub(crate) fn take(&self, owner: &str) -> Result<QuotaShare, Full> {
        let mut held = self.held.lock();
        if held.owners.get(owner).is_some_and(|own| *own >= self.of_owner) {
            return Err(Full::Owner);
        }
        if held.count >= self.of_all {
            return Err(Full::All);
        }
        held.count += 1;
        *held.owners.entry(owner.to_owned()).or_default() += 1;
        Ok(QuotaShare { owner: owner.to_owned(), held: Arc::clone(&self.held) })
    }

    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        let held = self.held.lock();
        held.owners.is_empty() && held.count == 0
    }
}

/// One of what is under way, until it is dropped.
pub(crate) struct QuotaShare {
    owner: String,
    held: Arc<Mutex<Held>>,
}

impl Drop for QuotaShare {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        held.count -= 1;
        if let Some(own) = held.owners.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                held.owners.remove(&self.owner);
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
