//! A PostgreSQL server of its own, in a temporary folder: made from the binaries of this machine, asked,
//! stopped and started again. However the tests end, it ends with them.
//!
//! The unit tests of the store use this file as well. Where there is no PostgreSQL, there is no cluster,
//! and tests that need one say so and pass.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;

/// Where the binaries are looked for first: a folder with `postgres` and `initdb`.
const BINARIES: &str = "TIDINGS_POSTGRES_BIN";
/// A server that is there, by an address that may make databases; it is used in place of one of ours.
const SERVER: &str = "TIDINGS_TEST_POSTGRES";
/// Where Debian puts them, a folder a version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The user of the server, who has no password.
const USER: &str = "postgres";
/// What a server on a busy machine gets to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// Ends the server and removes its folder when the process that started this is gone: then its input ends.
const WATCH: &str = r#"read -r _
[ -f "$0/data/postmaster.pid" ] && kill -INT "$(head -n 1 "$0/data/postmaster.pid")"
while [ -f "$0/data/postmaster.pid" ]; do sleep 0.1; done
rm -rf "$0""#;

/// A database that goes when this does.
pub(crate) struct Database {
    /// The address of the database, with user and password.
    pub(crate) url: String,
    name: String,
    server: String,
}

/// An empty database, or a copy of another one, on a server that all tests of this process share.
pub(crate) fn database(template: Option<&Database>) -> Option<Database> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = shared()?;
    let name = format!("tidings_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let template = template.map_or("template0", |template| &template.name);
    run_sql(server, &format!("create database {name} template {template}")).expect("made");
    let mut url = url::Url::parse(server).expect("an address");
    url.set_path(&name);
    Some(Database { url: url.into(), name, server: server.to_owned() })
}

impl Drop for Database {
    fn drop(&mut self) {
        // Where the server is gone already, so is this.
        drop(run_sql(&self.server, &format!("drop database {} with (force)", self.name)));
    }
}

/// The address of that server.
fn shared() -> Option<&'static str> {
    static SHARED: OnceLock<Option<(String, Option<Cluster>)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        if let Some(url) = std::env::var_os(SERVER) {
            return Some((url.into_string().expect("an address"), None));
        }
        let cluster = Cluster::start(&[])?;
        Some((cluster.url("postgres"), Some(cluster)))
    });
    if shared.is_none() {
        println!("skipped: there is no PostgreSQL here ({BINARIES} may name the folder of its binaries)");
    }
    shared.as_ref().map(|(url, _)| url.as_str())
}

/// A server, running or not.
pub(crate) struct Cluster {
    folder: TempDir,
    binaries: PathBuf,
    settings: Vec<String>,
    server: Option<Child>,
    /// Its end is the sign for the watch.
    _sign: ChildStdin,
}

impl Cluster {
    /// A running server with these settings (`name=value`); `None` where this machine has no PostgreSQL.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().expect("a folder"), settings)
    }

    /// The same in a folder that may lie on a disk of its own.
    pub(crate) fn start_in(folder: TempDir, settings: &[&str]) -> Option<Self> {
        let binaries = binaries()?;
        if let Some((user, group)) = servant() {
            let within = fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.path());
            for path in within.chain([folder.path().to_owned()]) {
                chown(path, Some(user), Some(group)).expect("given away");
            }
        }
        let mut watch = as_servant(Command::new("sh"));
        watch.args(["-c", WATCH]).arg(folder.path()).stdin(Stdio::piped());
        let sign = watch.spawn().expect("a shell").stdin.take().expect("its input");
        // Texts in an order of their own, where it can: nothing of ours may depend on the order.
        let languages: [&[&str]; 2] =
            [&["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"], &["--locale=C.UTF-8"]];
        let made = languages.iter().any(|language| {
            let mut command = as_servant(Command::new(binaries.join("initdb")));
            command.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--username", USER]);
            command.args(*language).arg("-D").arg(folder.path().join("data"));
            command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().expect("initdb").success()
        });
        assert!(made, "initdb of {} failed", binaries.display());
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut cluster = Self { folder, binaries, settings, server: None, _sign: sign };
        cluster.run();
        Some(cluster)
    }

    /// Starts it and waits until it answers.
    pub(crate) fn run(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let folder = self.folder.path();
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = as_servant(Command::new(self.binaries.join("postgres")));
        command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
        // On a socket in the folder alone: no port is taken. A power cut is none of these stories.
        for setting in ["listen_addresses=", "fsync=off", "max_connections=200", "max_wal_size=256MB"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.current_dir(folder).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("the log")).stderr(log);
        self.server = Some(command.spawn().expect("postgres"));
        let until = Instant::now() + PATIENCE;
        while let Err(error) = run_sql(&self.url("postgres"), "select 1") {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "the server does not answer: {error}\n{log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it: at once for its clients, in order for itself.
    pub(crate) fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        kill_process(Pid::from_child(&server), Signal::INT).expect("asked to stop");
        server.wait().expect("ended");
    }

    /// Stops all its processes where they are, or lets them go on.
    pub(crate) fn freeze(&self, still: bool) {
        let signal = if still { Signal::STOP } else { Signal::CONT };
        let main = self.server.as_ref().expect("it runs").id();
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).expect("children");
        let all = children.split_whitespace().map(|id| id.parse::<i32>().expect("an id"));
        for id in all.chain([main.cast_signed()]) {
            // One that just ended is no loss.
            let _ended: Result<(), _> = kill_process(Pid::from_raw(id).expect("an id"), signal);
        }
    }

    /// Starts it again if it ended by itself.
    pub(crate) fn revive(&mut self) {
        let ended = self.server.as_mut().is_none_or(|server| server.try_wait().expect("a child").is_some());
        if ended {
            self.server = None;
            self.run();
        }
    }

    /// Its address with a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let named = self.settings.iter().find_map(|setting| setting.strip_prefix("port="));
        let (port, folder) = (named.unwrap_or("5432"), self.folder.path().display());
        format!("postgres://{USER}@localhost:{port}/{database}?host={folder}")
    }

    /// The folder of the cluster, which holds its socket.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.freeze(false);
            self.stop();
        }
    }
}

/// Runs statements at an address.
pub(crate) fn run_sql(url: &str, text: &str) -> Result<(), sqlx::Error> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await?;
            connection.execute(AssertSqlSafe(text.to_owned())).await?;
            connection.close().await
        })
    };
    // On a thread of its own: the caller may stand in a runtime.
    thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}

/// The folder of the newest binaries.
fn binaries() -> Option<PathBuf> {
    let named = std::env::var_os(BINARIES).map(PathBuf::from);
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut places = named.into_iter().chain(debian.into_iter().rev().map(|(_, path)| path));
    let whole = |folder: &PathBuf| folder.join("postgres").exists() && folder.join("initdb").exists();
    places.find(whole).or_else(|| std::env::split_paths(&paths).find(whole))
}

/// Who runs it where we are root, which PostgreSQL refuses.
fn servant() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("the users");
    let ids = |name: &str| {
        let user = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = user.split(':').skip(2).map(str::parse::<u32>);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("a user who is not root"))
}

/// Lets a command run as the user of the PostgreSQL server.
pub(crate) fn as_servant(mut command: Command) -> Command {
    if let Some((user, group)) = servant() {
        command.uid(user).gid(group);
    }
    command
}
