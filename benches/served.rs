//! The server as a process of its own, which ends with the benchmark, also where that is interrupted.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A process of `tidings serve`, killed on drop.
pub(crate) struct Served(pub(crate) Child);

impl Served {
    /// Starts the real binary on a free port over `data`, with settings by their names below `TIDINGS__`.
    pub(crate) fn start(home: &Path, data: &Path, settings: &[(&str, &str)]) -> Self {
        drop(fs::remove_file(home.join("address")));
        // The kernel kills the server when this process ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_tidings"), "serve", "--address-file"])
            .arg(home.join("address"))
            .env_clear()
            .env("HOME", home)
            // As the image and the unit of systemd set it.
            .env("MALLOC_ARENA_MAX", "2")
            .env("TIDINGS__DATA_DIR", data)
            .env("TIDINGS__SERVER__LISTEN", "127.0.0.1:0")
            .env("TIDINGS__EGRESS__ALLOW", "127.0.0.0/8")
            .env("TIDINGS__EGRESS__ALLOW_HTTP", "true")
            .env("TIDINGS__TELEMETRY__LOG_FILTER", "error")
            .envs(settings.iter().map(|(name, value)| (format!("TIDINGS__{name}"), *value)))
            .stdin(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Self(child)
    }

    /// Where it listens, as soon as it does.
    pub(crate) fn address(&self, home: &Path) -> SocketAddr {
        loop {
            let said = fs::read_to_string(home.join("address")).unwrap_or_default();
            if let Ok(address) = said.trim().parse() {
                return address;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) {
        let stopped = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(stopped.expect("kill runs").success());
        assert!(self.0.wait().expect("it ends").success());
    }

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
