//! Values that Linux reports about this process. Other systems report none, and nothing is shown.

use std::fs;

/// Ticks per second in `/proc`, equal on every machine with Linux.
const TICKS: f64 = 100.0;

/// Resident memory in bytes.
pub(super) fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1_024.0)
}

/// Processor time, of user and system together.
pub(super) fn cpu_seconds() -> Option<f64> {
    let fields = stat()?;
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// Number of open file descriptors of this process; `None`: the system does not report it.
pub(super) fn open_files() -> Option<f64> {
    // The descriptor that is open for this read is not counted.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

/// When this process started, in Unix seconds; `None`: the system does not report it.
pub(super) fn started_at() -> Option<f64> {
    let since_boot = stat()?.get(19)?.parse::<f64>().ok()? / TICKS;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + since_boot)
}

/// The fields after the name, which may contain spaces: the first of them is the state.
fn stat() -> Option<Vec<String>> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_read() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1_000_000.0));
        assert!(cpu_seconds().is_some_and(|seconds| (0.0..1e6).contains(&seconds)));
        assert!(open_files().is_some_and(|files| files >= 3.0));
        assert!(started_at().is_some_and(|at| at > 1.6e9));
    }
}
