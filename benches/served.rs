//! The server as a process of its own, which ends with the benchmark.

use std::{fs, process::Child, time::Duration};

/// The server.
pub(crate) struct Served(pub(crate) Child);

impl Served {
    /// Bytes of memory by the system's account: `VmRSS` (now) or `VmHWM` (the most there ever were).
    pub(crate) fn memory(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("its numbers");
        let line = status.lines().find(|line| line.starts_with(which)).expect("its memory");
        line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("a number") << 10
    }

    /// What it took of the processor.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("its numbers");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("a number");
        // Ticks of 10 ms, as on every Linux that this runs on.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
