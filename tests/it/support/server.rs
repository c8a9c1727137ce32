//! The real binary as a server in a folder of its own: started, asked, killed and started again.

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    cluster::{self, Database},
    http::{self, Reply},
    leaks::Secrets,
    patience::{SOON, eventually},
    text_setting,
};

/// `postgres`: every server of the stories keeps its rows there, in a database of its own.
const DATABASE: &str = "TIDINGS_STORY_DATABASE";
/// How much of the log a failed story shows, in bytes.
const LOG_SHOWN: usize = 20_000;

/// A server, running or not.
pub(crate) struct Server {
    folder: TempDir,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    address: SocketAddr,
    starts: u32,
    /// The binary, where it is another than that of these tests.
    binary: Option<PathBuf>,
    /// The library that moves its clock.
    clock: Option<PathBuf>,
    secrets: Mutex<Secrets>,
    /// Goes after the process that uses it.
    _database: Option<Database>,
}

impl Server {
    /// Settings for stories: everything on this machine may be reached, nothing waits long.
    pub(crate) fn prepare() -> Self {
        let database = text_setting(DATABASE).map(|kind| {
            assert_eq!(kind, "postgres", "{DATABASE}");
            cluster::database(None).expect("a PostgreSQL")
        });
        let url = database.as_ref().map(|database| database.url.clone());
        let server = Self {
            folder: tempfile::tempdir().expect("a folder"),
            settings: Vec::new(),
            child: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            starts: 0,
            binary: None,
            clock: None,
            secrets: Mutex::default(),
            _database: database,
        };
        let server = match url {
            Some(url) => server.with("database.url", &url),
            None => server,
        };
        server
            .with("onboarding.mode", "open")
            .with("onboarding.apps_per_hour", "1000000")
            .with("egress.allow", "127.0.0.0/8,::1/128,localhost")
            .with("egress.allow_http", "true")
            .with("egress.streams", "127.0.0.1,localhost,10.1.2.3,192.0.2.1")
            .with("git.allow_local", "true")
            .with("git.poll_min", "100ms")
            .with("git.poll_max", "200ms")
            // What else fills the disk of this machine is none of these stories.
            .with("git.free_min_bytes", "1")
            .with("git.host_rate", "1000/s")
            .with("delivery.first_delay", "10ms")
            .with("delivery.retry_base", "10ms")
            .with("delivery.retry_cap", "200ms")
            // What the overview tells comes from surveys.
            .with("telemetry.survey_interval", "500ms")
            .with("telemetry.log_filter", "info,tidings=debug,tidings_actors=debug")
    }

    /// A server with default settings, started and ready.
    pub(crate) fn start() -> Self {
        let mut server = Self::prepare();
        server.run();
        server
    }

    /// Another setting; the last one of a key counts.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.secrets.get_mut().unwrap_or_else(PoisonError::into_inner).note_setting(key, value);
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// What a setting is.
    pub(crate) fn setting(&self, key: &str) -> &str {
        self.settings.iter().find(|(known, _)| known == key).map(|(_, value)| value).expect("it is set")
    }

    /// Whether it has a database of a PostgreSQL, which `database.url` names.
    pub(crate) fn is_on_postgres(&self) -> bool {
        self._database.is_some()
    }

    /// Removes a setting that the tests give by default.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self
    }

    /// From its next start on it is this binary; `None`: that of these tests.
    pub(crate) fn becomes(&mut self, binary: Option<PathBuf>) {
        self.binary = binary;
    }

    /// From its next start on its wall clock can be moved, where this machine has libfaketime.
    pub(crate) fn with_clock_of_its_own(mut self) -> Self {
        let known = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        let path = PathBuf::from(text_setting("TIDINGS_FAKETIME").unwrap_or(known));
        self.clock = path.is_file().then_some(path);
        self.move_clock(0);
        self
    }

    /// Moves its wall clock by these seconds against that of the machine; `false`: it has no clock of its own.
    pub(crate) fn move_clock(&self, seconds: i64) -> bool {
        if self.clock.is_some() {
            // Whole at once: it is read at any moment.
            let fresh = self.clock_file().with_extension("new");
            fs::write(&fresh, format!("{seconds:+}")).expect("written");
            fs::rename(fresh, self.clock_file()).expect("renamed");
        }
        self.clock.is_some()
    }

    fn clock_file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// A command of the binary with this server's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.binary {
            None => bare_command(self.folder.path()),
            Some(binary) => bare_command_of(binary, self.folder.path()),
        };
        command.args(arguments).env("TIDINGS__DATA_DIR", self.data());
        command.env("TIDINGS__SERVER__LISTEN", "127.0.0.1:0");
        for (key, value) in &self.settings {
            command.env(format!("TIDINGS__{}", key.to_uppercase().replace('.', "__")), value);
        }
        if let Some(library) = &self.clock {
            // The file is looked at once a second.
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock_file());
            command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn run(&mut self) {
        self.spawn();
        let address = eventually("address of the server", SOON, || self.announced());
        self.address = address;
        eventually("ready server", SOON, || {
            self.assert_running();
            self.ask("GET", "/readyz", None, None).ok().filter(|reply| reply.status == 200)
        });
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        drop(fs::remove_file(self.address_file()));
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log");
        let address_file = self.address_file();
        let mut command = self.command(&["serve", "--address-file"]);
        command.arg(&address_file).arg("--ops-address-file").arg(self.ops_address_file());
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().expect("the log")).stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// Its address, once it has told it.
    pub(crate) fn announced(&mut self) -> Option<SocketAddr> {
        self.assert_running();
        fs::read_to_string(self.address_file()).ok()?.trim().parse().ok()
    }

    /// The address of `server.ops_listen`, once it has told it.
    pub(crate) fn ops_announced(&mut self) -> Option<SocketAddr> {
        self.assert_running();
        fs::read_to_string(self.ops_address_file()).ok()?.trim().parse().ok()
    }

    fn assert_running(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
        assert!(ended.is_none(), "the server ended by itself: {ended:?}");
    }

    /// Kills the server with SIGKILL and waits for its end.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        let status = child.wait().expect("ended");
        assert_eq!(status.signal(), Some(9), "the server had ended by itself: {status}");
    }

    /// SIGTERM; how it ended, and how long that took.
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let status = eventually("end after SIGTERM", SOON, || child.try_wait().expect("a child"));
        (status, began.elapsed())
    }

    /// Sends a signal to the running server.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("sent");
    }

    /// Waits until it ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        eventually("end of the server", SOON, || child.try_wait().expect("a child"))
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, what: &str) -> u64 {
        let id = self.process();
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("a status");
        let line = status.lines().find(|line| line.starts_with(what)).expect("its memory");
        let kibibytes: u64 =
            line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
        kibibytes << 10
    }

    /// The most memory that ever was resident, in bytes.
    pub(crate) fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Processor time that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process())).expect("Linux");
        // Behind the name, which may hold anything; in hundredths of a second.
        let (_, rest) = stat.rsplit_once(')').expect("a name");
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|ticks| ticks.parse::<u64>().expect("a number"));
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    /// The id of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Its arguments and its children, as the system shows them to everybody.
    pub(crate) fn shown_by_the_system(&self) -> (Vec<u8>, String) {
        let id = self.process();
        let arguments = fs::read(format!("/proc/{id}/cmdline")).expect("arguments");
        let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("threads").flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        (arguments, children.collect())
    }

    /// The address that the server listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The data directory of the server.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Takes a folder of its data directory away, however much it writes there meanwhile.
    pub(crate) fn lose(&self, folder: &Path) {
        eventually("removed folder", SOON, || match fs::remove_dir_all(folder) {
            Ok(()) => Some(()),
            Err(error) => (error.kind() == std::io::ErrorKind::NotFound).then_some(()),
        });
    }

    /// Everything it wrote to its output so far.
    pub(crate) fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_file()) {
            file.read_to_end(&mut text).expect("the log");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Asks the API.
    ///
    /// # Errors
    /// When nobody listens, or the connection breaks.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> std::io::Result<Reply> {
        let reply = http::ask(self.address, method, path, token, body)?;
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        token.into_iter().for_each(|token| secrets.note(token));
        body.into_iter().for_each(|body| secrets.note_all(body));
        if let Ok(answer) = serde_json::from_slice::<Value>(&reply.message.body) {
            secrets.note_all(&answer);
        }
        Ok(reply)
    }

    /// Asks the API as the administrator.
    pub(crate) fn ask_as_admin(&self, method: &str, path: &str) -> Reply {
        let token = fs::read_to_string(self.data().join("admin-token")).expect("an admin token");
        self.ask(method, path, Some(token.trim()), None).expect("an answer")
    }

    fn address_file(&self) -> PathBuf {
        self.folder.path().join("address")
    }

    fn ops_address_file(&self) -> PathBuf {
        self.folder.path().join("ops-address")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing left to kill.
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(LOG_SHOWN);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            println!("the end of the log of {} starts:\n{}", self.starts, &log[from..]);
        } else if self.starts > 0 {
            let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            secrets.assert_absent(self.folder.path());
        }
    }
}

/// The binary without anything of this machine's environment.
pub(crate) fn bare_command(home: &Path) -> Command {
    bare_command_of(Path::new(env!("CARGO_BIN_EXE_tidings")), home)
}

fn bare_command_of(binary: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}
