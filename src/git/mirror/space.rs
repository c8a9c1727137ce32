//! Disk space for mirrors: the size of all, the free space on their disk, and whether more may be fetched.
//! The database is usually on the same disk, and a cache must never fill it.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use parking_lot::Mutex;
use tidings_actors::ports::{GitError, Storage};

use crate::settings::GitSettings;

/// The room of all mirrors.
pub(crate) struct Space {
    mirrors: PathBuf,
    free_min: u64,
    total_max: u64,
    taken: Mutex<HashMap<PathBuf, u64>>,
}

impl Space {
    pub(crate) fn new(mirrors: PathBuf, settings: &GitSettings) -> Self {
        let (free_min, total_max) = (settings.free_min_bytes, settings.mirrors_max_bytes);
        Self { mirrors, free_min, total_max, taken: Mutex::default() }
    }

    /// Stores the size of a mirror; `None`: the mirror was removed.
    pub(crate) fn measured(&self, mirror: &std::path::Path, bytes: Option<u64>) {
        let mut taken = self.taken.lock();
        match bytes {
            Some(bytes) => drop(taken.insert(mirror.to_owned(), bytes)),
            None => drop(taken.remove(mirror)),
        }
    }

    /// Forgets all mirrors but these, because other processes may remove mirrors too.
    pub(crate) fn only(&self, mirrors: &HashSet<PathBuf>) {
        self.taken.lock().retain(|mirror, _| mirrors.contains(mirror));
    }

    /// The size of all mirrors, and whether there is room for more.
    pub(crate) fn storage(&self) -> Storage {
        let (mirrors, mirror_bytes) = {
            let taken = self.taken.lock();
            (taken.len() as u64, taken.values().sum())
        };
        let free = self.free();
        let fetches_stopped = stop(free, self.free_min, mirror_bytes, self.total_max);
        Storage { mirrors, mirror_bytes, free_bytes: free.unwrap_or(0), fetches_stopped }
    }

    /// Whether more may be fetched.
    ///
    /// # Errors
    /// [`GitError::Storage`] says why not.
    pub(crate) fn check(&self) -> Result<(), GitError> {
        self.storage().fetches_stopped.map_or(Ok(()), |reason| Err(GitError::Storage(reason)))
    }

    /// Checks that this many bytes can be written without filling the disk.
    ///
    /// # Errors
    /// [`GitError::Storage`] if they cannot.
    pub(crate) fn check_for(&self, bytes: u64) -> Result<(), GitError> {
        match self.free() {
            Some(free) if free <= bytes => Err(GitError::Storage(format!(
                "{} are free, and rebuilding this mirror may take {}",
                shown(free),
                shown(bytes)
            ))),
            _ => Ok(()),
        }
    }

    /// The bytes that this user may still write; `None` if the system does not report it.
    fn free(&self) -> Option<u64> {
        let facts = rustix::fs::statvfs(&self.mirrors).ok()?;
        Some(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

/// The reason why nothing more may be fetched. The total may exceed its maximum by a tenth, because upkeep
/// makes room only after a fetch has used it.
fn stop(free: Option<u64>, free_min: u64, total: u64, total_max: u64) -> Option<String> {
    if let Some(free) = free.filter(|free| *free < free_min) {
        let (free, least) = (shown(free), shown(free_min));
        return Some(format!(
            "nothing is fetched: only {free} of the disk are free, less than git.free_min_bytes ({least})"
        ));
    }
    let most = total_max.saturating_add(total_max / 10);
    (total_max > 0 && total > most).then(|| {
        let (total, most) = (shown(total), shown(total_max));
        format!("nothing is fetched: mirrors take {total}, more than git.mirrors_max_bytes ({most})")
    })
}

/// A number of bytes for people.
fn shown(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let steps = UNITS.iter().enumerate().rev();
    for (step, unit) in steps {
        let size = 1_u64 << (10 * (step + 1));
        if bytes >= size {
            return format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_another_process_removed_counts_no_longer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let space = Space::new(folder.path().to_owned(), &GitSettings::default());
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        space.measured(&one, Some(3));
        space.measured(&other, Some(4));
        space.only(&HashSet::from([other]));
        assert_eq!((space.storage().mirrors, space.storage().mirror_bytes), (1, 4));
    }

    #[test]
    fn fetches_stop_while_the_disk_is_nearly_full_or_mirrors_take_too_much() {
        for (free, free_min, total, total_max, stops) in [
            (Some(99), 100, 0, 0, true),
            (Some(100), 100, 1 << 50, 0, false),
            (None, 100, 0, 0, false),
            (Some(1_000), 100, 1_100, 1_000, false),
            (Some(1_000), 100, 1_101, 1_000, true),
            (Some(u64::MAX), 0, u64::MAX, u64::MAX, false),
        ] {
            let reason = stop(free, free_min, total, total_max);
            assert_eq!(reason.is_some(), stops, "{free:?} {free_min} {total} {total_max}: {reason:?}");
        }
        let reason = stop(Some(1 << 20), 3 << 29, 0, 0).expect("too little");
        assert!(reason.contains("1.0 MiB") && reason.contains("git.free_min_bytes (1.5 GiB)"), "{reason}");
        assert_eq!(shown(1_023), "1023 bytes");
    }
}
