//! The composition root: builds the adapters, starts the tree, and in the end drains it. `serve`
//! adds the front door, `watch` a single app; both run the same house.

mod keyring;
mod privacy;
mod replica;
pub(crate) mod served;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
};

use thiserror::Error;
use tidings_actors::{
    budget::Budget,
    causes::Causes,
    context::Context,
    crowds::Crowds,
    directory::Directory,
    handle::{Handle, Tree},
    pace::Paces,
    policy::Policy,
    ports::{Clock, GitError, GitSource, Leases, Meter, Random, Replica},
    scan_slots::ScanSlots,
    shards::Shards,
    terms::Terms,
    turns::Turns,
    untold::Untold,
};
use tokio::sync::watch;
use tracing::warn;
use url::Url;

pub(crate) use self::privacy::mode_for_others;
use crate::{
    backup::{Unfinished, unfinished},
    egress::{Egress, EgressError},
    git::Git,
    machine::{MachineRandom, SharedClock},
    secrets::SecretsError,
    settings::{History, Settings},
    store::{OpenError, SqlStore, StartRules},
    telemetry::{self, Metrics, ProcessTracer},
    webhook::{Webhooks, print::Printer},
};

/// Why the house could not be opened. Nothing was changed but, perhaps, files made that were
/// missing.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(
        "the data directory {path} cannot be used: {}; name a directory that this user may write in data_dir \
         (TIDINGS__DATA_DIR)",
        why_unusable(.reason)
    )]
    DataDirectory {
        /// The directory.
        path: String,
        /// What the machine says.
        reason: std::io::Error,
    },
    /// Another process has it open.
    #[error(
        "the data directory {path} is in use by another process ({owner}): stop that one, or name another \
         directory in data_dir (TIDINGS__DATA_DIR)"
    )]
    InUse {
        /// The directory.
        path: String,
        /// The other process, as it named itself.
        owner: String,
    },
    /// A restore into it did not end.
    #[error("the data directory {path} cannot be used: {what}; {}", .what.remedy())]
    Unfinished {
        /// The directory.
        path: String,
        /// How far it came.
        what: Unfinished,
    },
    /// The keyring cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The egress settings cannot be used.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The mirrors cannot be used.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The tree did not start.
    #[error("the supervision tree did not start: {0}")]
    Tree(String),
}

/// What the machine says of a directory that cannot be used, in words that fit a directory.
pub(crate) fn why_unusable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => "there is a file of that name".to_owned(),
        _ => error.to_string(),
    }
}

/// The running house.
pub struct App {
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// What survives.
    pub store: Arc<SqlStore>,
    /// Git hosts and mirrors.
    pub git: Arc<dyn GitSource>,
    /// The guarded way out.
    pub egress: Egress,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    tree: Tree,
    fatal: watch::Receiver<Option<String>>,
    _claim: Claim,
}

/// The adapters before the tree runs: `watch` registers its one app in between.
pub struct Adapters {
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// What survives.
    pub store: Arc<SqlStore>,
    /// Git hosts and mirrors.
    pub git: Arc<dyn GitSource>,
    /// The guarded way out.
    pub egress: Egress,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    claim: Claim,
    reached_at: Option<Url>,
}

impl Adapters {
    /// The same for a process that others which share its database reach there.
    #[must_use]
    pub fn reached_at(self, url: Option<Url>) -> Self {
        Self { reached_at: url, ..self }
    }

    /// Opens data directory, keyring, database and mirrors.
    ///
    /// # Errors
    /// [`StartError`] says which of them cannot be used, and why.
    pub async fn open(settings: Settings) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let clock: Arc<dyn Clock> = Arc::new(SharedClock::default());
        let random: Arc<dyn Random> = Arc::new(MachineRandom);
        let data_dir = settings.data_dir.clone();
        privacy::keep_others_out();
        make_private_directory(&data_dir)?;
        let claim = Claim::take(&settings)?;
        let keyring = Arc::new(keyring::open(&settings, random.as_ref())?);
        Metrics::of_process().keyring(&keyring);
        let is_new = !keyring.is_kept();
        let rules = StartRules {
            wait: settings.database.start_wait,
            refuses_new: served::was_here(&data_dir) && !settings.database.may_be_new,
        };
        let url = settings.database_url();
        let opened = SqlStore::open_at_start(rules, &url, keyring, clock.clone(), random.clone());
        let store = Arc::new(opened.await?);
        if is_new {
            keyring::tell(&settings);
        }
        served::note(&data_dir)?;
        privacy::tell(&settings);
        let egress = Egress::new(&settings.egress)?;
        // Polls and deliveries share no connections, and wait for one as long as each may.
        let to_hosts = Egress::connecting_within(&settings.egress, settings.git.connect_timeout)?;
        let git = Git::new(settings.git.clone(), &data_dir, to_hosts, clock.clone(), random.as_ref())?;
        let git = Arc::new(git);
        Ok(Self { settings, store, git, egress, clock, random, claim, reached_at: None })
    }

    /// Starts the tree over these adapters; what goes to the sink `print` is printed by `printer`.
    ///
    /// # Errors
    /// [`StartError::Tree`].
    pub async fn start(self, printer: Option<Printer>) -> Result<App, StartError> {
        let Self { settings, store, git, egress, clock, random, claim, reached_at } = self;
        let meter: Arc<dyn Meter> = Arc::new(Metrics::of_process());
        let webhooks =
            Webhooks::new(egress.clone(), git.clone(), store.clone(), clock.clone(), random.clone())
                .with_traceparent(telemetry::traceparent)
                .with_meter(meter.clone())
                .keeping_all(settings.delivery.history == History::All)
                .printing(printer);
        let (sender, fatal) = watch::channel(None);
        let role = settings.server.role;
        let mut replica = replica::describe(role, reached_at, clock.as_ref(), random.as_ref());
        let leases: Option<Arc<dyn Leases>> = match store.leases(&replica.id) {
            Some(leases) => {
                replica::follow(&leases, clock.as_ref()).await;
                replica.started_at = clock.now();
                replica::succeed(&settings.data_dir, &leases, &replica.id).await;
                replica::enter(&leases, &replica, settings.database.lease).await?;
                Some(Arc::new(leases))
            }
            None => None,
        };
        let policy = policy(&settings, replica);
        let context = Context {
            crowds: Crowds::default(),
            paces: Paces::new(store.clone(), clock.clone()),
            desks: Turns::new(policy.desks),
            rows: Turns::new(ROWS),
            heavy: Turns::new(1),
            outbound: Turns::new(policy.in_flight),
            scan_slots: ScanSlots::new(policy.scan_workers),
            store: store.clone(),
            git: git.clone(),
            transport: Arc::new(webhooks),
            clock: clock.clone(),
            random: random.clone(),
            meter,
            tracer: Arc::new(ProcessTracer),
            causes: Causes::default(),
            policy: Arc::new(policy),
            budget: Budget::new(settings.delivery.memory_bytes),
            shards: if leases.is_some() { Shards::leased() } else { Shards::sole() },
            terms: Terms::default(),
            untold: Untold::default(),
            leases,
            directory: Directory::default(),
            fatal: sender,
        };
        let tree = Tree::start(context).await.map_err(|reason| StartError::Tree(reason.to_string()))?;
        Ok(App { settings, store, git, egress, clock, random, tree, fatal, _claim: claim })
    }
}

impl App {
    /// What the front door may ask of the tree.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.tree.handle()
    }

    /// Waits for the reason why this process must end although nobody asked: the tree failed too
    /// often, or another process took over its database.
    pub async fn failed(&mut self) -> String {
        let fatal = async {
            match self.fatal.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // The sender lives as long as the tree; that arm speaks then.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = fatal => reason,
            () = self.tree.failed() => "the supervision tree failed too often".to_owned(),
        }
    }

    /// Lets attempts end, settles what was answered, stops the tree, closes the database.
    pub async fn stop(self) {
        self.tree.stop(self.settings.delivery.drain_deadline).await;
        self.store.close().await;
    }
}

fn policy(settings: &Settings, replica: Replica) -> Policy {
    Policy {
        replica,
        lease_life: settings.database.lease,
        leaving_max: settings.delivery.drain_deadline,
        poll_min: settings.git.poll_min,
        poll_max: settings.git.poll_max,
        poll_max_hooked: settings.git.poll_max_hooked,
        branch_gone_after: settings.git.branch_gone_after,
        first_delay: settings.delivery.first_delay,
        every_max: settings.git.every_max,
        attempt_timeout: settings.delivery.attempt_timeout,
        retry_base: settings.delivery.retry_base,
        retry_cap: settings.delivery.retry_cap,
        retry_window: settings.delivery.retry_window,
        app_in_flight: settings.delivery.app_max_concurrent as usize,
        app_rate: Some(settings.delivery.app_rate).filter(|rate| *rate > 0),
        in_flight: settings.delivery.max_concurrent as usize,
        desks: settings.git.readers as usize,
        max_delete_percent: settings.watch.max_delete_percent,
        record_all: settings.delivery.history == History::All,
        history: std::time::Duration::from_secs(u64::from(settings.delivery.history_days) * 86_400),
        history_rows: settings.delivery.history_rows,
        blob_age: std::time::Duration::from_secs(u64::from(settings.housekeeping.blob_days) * 86_400),
        upkeep_interval: settings.housekeeping.interval,
        upkeep_rows: settings.housekeeping.rows_max,
        packs_max: settings.git.packs_max,
        mirror_max_bytes: settings.git.mirror_max_bytes,
        mirrors_max_bytes: settings.git.mirrors_max_bytes,
        mirrors_shared: settings.git.mirrors_dir.is_some(),
        scrub_every: settings.git.scrub_every,
        survey_interval: settings.telemetry.survey_interval,
        ..Policy::default()
    }
}

/// The data directory belongs to this process until this is dropped or the process ends, however
/// it ends: two that fetch into one mirror would sweep away each other's work.
pub(crate) struct Claim(#[expect(dead_code, reason = "the lock is held by the open file")] fs::File);

impl Claim {
    /// Takes it, or says who has it, or that a restore into it did not end.
    pub(crate) fn take(settings: &Settings) -> Result<Self, StartError> {
        let claim = Self::hold(&settings.data_dir)?;
        refuse_unfinished(settings)?;
        Ok(claim)
    }

    /// Takes it, whatever lies in it, or says who has it.
    pub(crate) fn hold(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join(LOCK);
        let failed = |reason| StartError::DataDirectory { path: path.display().to_string(), reason };
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.take(OWNER_BYTES_MAX).read_to_string(&mut owner).map_err(failed)?;
                let path = data_dir.display().to_string();
                return Err(StartError::InUse { path, owner: owner.trim().to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id())).map_err(failed)?;
        // Nothing that matters lies there: a start does not fail over it.
        if let Err(error) = unfinished::sweep(data_dir) {
            warn!(%error, "what a restore left at its end could not be removed");
        }
        Ok(Self(file))
    }
}

/// Lanes whose rows are read, and rounds that begin or end, at the same time: enough to keep a database busy, few
/// enough that an app with thousands of branches holds up nobody else's.
const ROWS: usize = 16;

/// The file in the data directory that says who has it.
pub(crate) const LOCK: &str = "lock";

/// The folder in the data directory where a restore makes things ready; there as long as it lasts.
pub(crate) const STAGE: &str = ".restore";

/// Refuses a data directory into which a restore did not end: what is missing would be made anew, and
/// nobody would notice.
pub(crate) fn refuse_unfinished(settings: &Settings) -> Result<(), StartError> {
    let Some(what) = Unfinished::of(settings) else { return Ok(()) };
    Err(StartError::Unfinished { path: settings.data_dir.display().to_string(), what })
}

/// Longest name of another process that is read, in bytes.
const OWNER_BYTES_MAX: u64 = 100;

/// Makes a directory that only this user may enter, if it is not there.
pub(crate) fn make_private_directory(path: &Path) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|reason| StartError::DataDirectory { path: path.display().to_string(), reason })
}

/// The keyring's file in the data directory.
pub(crate) const KEYRING: &str = "keyring";
