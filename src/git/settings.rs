//! `[git]`: how often repositories are polled, how many requests their hosts get, and the limits for hostile
//! or broken hosts.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use tidings_section::{Fault, Rate, duration, optional};

/// No cache of small files needs more (1 GiB, in bytes).
const CONTENT_CACHE_CEILING: u64 = 1 << 30;

/// The settings of the Git engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GitSettings {
    /// Shortest interval between two polls of a source.
    #[serde(with = "duration")]
    pub poll_min: Duration,
    /// Longest interval between two polls of a source.
    #[serde(with = "duration")]
    pub poll_max: Duration,
    /// Longest interval while verified hooks of the repository arrive.
    #[serde(with = "duration")]
    pub poll_max_hooked: Duration,
    /// Requests to one host (`15/s`, `900/m`); a second's worth may come at once.
    pub host_rate: Rate,
    /// Requests to one host at the same time; one app leaves some of them to other apps.
    pub host_concurrency: u32,
    /// Paths and `file://` as repositories.
    pub allow_local: bool,
    /// A branch counts as gone when it was missing twice, this far apart.
    #[serde(with = "duration")]
    pub branch_gone_after: Duration,
    /// Most refs that one pattern of a watch follows at a time.
    pub pattern_refs_max: u32,
    /// Most commits that an `every` watch gets one by one.
    pub every_max: u32,
    /// Longest wait for a connection to a host.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Longest silence of a host within an answer.
    #[serde(with = "duration")]
    pub read_timeout: Duration,
    /// Longest duration of a poll, from its first byte to its last.
    #[serde(with = "duration")]
    pub poll_timeout: Duration,
    /// Longest duration of a fetch, from its first byte to its last; and of taking its pack in.
    #[serde(with = "duration")]
    pub fetch_timeout: Duration,
    /// Longest wait for the first byte of a pack, whatever its host says meanwhile.
    #[serde(with = "duration")]
    pub fetch_begin_timeout: Duration,
    /// Bytes per second below which the reception of a pack is ended.
    pub least_rate_bytes: u64,
    /// The span over which the least rate is measured.
    #[serde(with = "duration")]
    pub least_rate_window: Duration,
    /// Most bytes of a listing of refs.
    pub listing_max_bytes: u64,
    /// Most bytes of one fetch.
    pub fetch_max_bytes: u64,
    /// Most objects of one fetch; each takes some 160 bytes of memory while its pack is indexed.
    pub fetch_max_objects: u32,
    /// Largest object of a fetch, in bytes; whole objects are never held in memory.
    pub object_max_bytes: u64,
    /// Largest object of a fetch that a delta makes or is made from, in bytes; taking one in needs
    /// three times as much memory.
    pub delta_max_bytes: u64,
    /// Most bytes of all objects of a fetch together, unpacked.
    pub unpacked_max_bytes: u64,
    /// Most entries that one pass over the trees of a round looks at.
    pub tree_max_entries: u64,
    /// Deepest admitted directory; at most 2,048.
    pub tree_max_depth: u32,
    /// Longest duration of one pass over the trees of a round.
    #[serde(with = "duration")]
    pub tree_timeout: Duration,
    /// Bytes of small contents that were read lately; 0: none are kept.
    pub content_cache_bytes: u64,
    /// Mirrors lie here instead of in the data directory; replicas of one database may share it.
    #[serde(with = "optional")]
    pub mirrors_dir: Option<PathBuf>,
    /// Reads of mirrors at the same time; each holds a thread.
    pub readers: u32,
    /// Most packs of a mirror, and most commits whose parents it lacks; upkeep rebuilds it before.
    pub packs_max: u64,
    /// Most bytes of the mirror of one repository, and of a fetch; 0: no limit.
    pub mirror_max_bytes: u64,
    /// Most bytes of all mirrors together; 0: no limit.
    pub mirrors_max_bytes: u64,
    /// Fetches stop while less than this is free where the mirrors lie.
    pub free_min_bytes: u64,
    /// Each file of a mirror is compared with its checksum once in this time.
    #[serde(with = "duration")]
    pub scrub_every: Duration,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            poll_min: Duration::from_secs(45),
            poll_max: Duration::from_mins(5),
            poll_max_hooked: Duration::from_hours(1),
            host_rate: Rate::per_second(15),
            host_concurrency: 5,
            allow_local: false,
            branch_gone_after: Duration::from_mins(1),
            pattern_refs_max: 10_000,
            every_max: 1_000,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            poll_timeout: Duration::from_mins(1),
            fetch_timeout: Duration::from_mins(10),
            fetch_begin_timeout: Duration::from_mins(3),
            least_rate_bytes: 1_024,
            least_rate_window: Duration::from_secs(30),
            listing_max_bytes: 16 << 20,
            fetch_max_bytes: 4 << 30,
            fetch_max_objects: 1_200_000,
            object_max_bytes: 2 << 30,
            delta_max_bytes: 64 << 20,
            unpacked_max_bytes: 32 << 30,
            tree_max_entries: 1_200_000,
            tree_max_depth: 256,
            tree_timeout: Duration::from_mins(1),
            content_cache_bytes: 16 << 20,
            mirrors_dir: None,
            readers: 4,
            packs_max: 50,
            mirror_max_bytes: 16 << 30,
            mirrors_max_bytes: 0,
            free_min_bytes: 1 << 30,
            scrub_every: Duration::from_hours(30 * 24),
        }
    }
}

/// The highest number of refs that one pattern may follow under any setting: each ref is a row.
const PATTERN_REFS_CEILING: u32 = 100_000;

/// The deepest directories that are walked under any setting.
pub const TREE_DEPTH_CEILING: u32 = 2_048;

/// Fewer packs than this would mean a rebuild for almost every fetch.
const PACKS_LEAST: u64 = 5;
/// More packs than this make every read slow.
const PACKS_MOST: u64 = 1_000;

impl GitSettings {
    /// All faults of these settings.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| {
            faults.push(Fault { key: format!("git.{key}"), message });
        };
        for (key, value) in [
            ("poll_min", self.poll_min),
            ("connect_timeout", self.connect_timeout),
            ("read_timeout", self.read_timeout),
            ("poll_timeout", self.poll_timeout),
            ("fetch_timeout", self.fetch_timeout),
            ("fetch_begin_timeout", self.fetch_begin_timeout),
            ("least_rate_window", self.least_rate_window),
            ("tree_timeout", self.tree_timeout),
            ("scrub_every", self.scrub_every),
        ] {
            if value.is_zero() {
                fault(key, "must be longer than nothing".to_owned());
            }
        }
        for (key, longest) in [("poll_max", self.poll_max), ("poll_max_hooked", self.poll_max_hooked)] {
            if longest < self.poll_min {
                let (longest, least) =
                    (humantime::format_duration(longest), humantime::format_duration(self.poll_min));
                fault(key, format!("{longest} is shorter than git.poll_min, {least}"));
            }
        }
        for (key, value) in [
            ("host_concurrency", u64::from(self.host_concurrency)),
            ("pattern_refs_max", u64::from(self.pattern_refs_max)),
            ("every_max", u64::from(self.every_max)),
            ("listing_max_bytes", self.listing_max_bytes),
            ("fetch_max_bytes", self.fetch_max_bytes),
            ("fetch_max_objects", u64::from(self.fetch_max_objects)),
            ("object_max_bytes", self.object_max_bytes),
            ("delta_max_bytes", self.delta_max_bytes),
            ("unpacked_max_bytes", self.unpacked_max_bytes),
            ("tree_max_entries", self.tree_max_entries),
            ("tree_max_depth", u64::from(self.tree_max_depth)),
            ("readers", u64::from(self.readers)),
        ] {
            if value == 0 {
                fault(key, "must be at least 1".to_owned());
            }
        }
        if self.tree_max_depth > TREE_DEPTH_CEILING {
            fault("tree_max_depth", format!("{} is more than {TREE_DEPTH_CEILING}", self.tree_max_depth));
        }
        if self.host_concurrency > 1_000 {
            fault("host_concurrency", format!("{} is more than 1000", self.host_concurrency));
        }
        if self.pattern_refs_max > PATTERN_REFS_CEILING {
            let message = format!("{} is more than {PATTERN_REFS_CEILING}", self.pattern_refs_max);
            fault("pattern_refs_max", message);
        }
        if !(PACKS_LEAST..=PACKS_MOST).contains(&self.packs_max) {
            fault("packs_max", format!("{} is not from {PACKS_LEAST} to {PACKS_MOST}", self.packs_max));
        }
        if self.content_cache_bytes > CONTENT_CACHE_CEILING {
            let message = format!("{} is more than {CONTENT_CACHE_CEILING}", self.content_cache_bytes);
            fault("content_cache_bytes", message);
        }
        if self.readers > 256 {
            fault("readers", format!("{} is more than 256", self.readers));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_round_trip() {
        let settings = GitSettings::default();
        assert_eq!(settings.validate(), vec![]);
        let text = serde_json::to_string(&settings).expect("plain data");
        assert!(text.contains(r#""host_rate":"15/s""#) && text.contains(r#""poll_min":"45s""#), "{text}");
        assert_eq!(serde_json::from_str::<GitSettings>(&text).expect("its own text"), settings);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<GitSettings>(r#"{"pol_min":"45s"}"#).is_err());
    }

    #[test]
    fn every_fault_is_named() {
        let settings = GitSettings {
            poll_max: Duration::from_secs(1),
            tree_max_depth: 4_096,
            readers: 0,
            ..GitSettings::default()
        };
        let keys: Vec<_> = settings.validate().into_iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["git.poll_max", "git.readers", "git.tree_max_depth"]);
    }
}
