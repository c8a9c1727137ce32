//! The composition root: builds the adapters, starts the tree, and drains it at the end. `serve` adds the
//! HTTP server, `watch` a single app; both start the same adapters and the same tree.

mod data_dir;
mod keyring;
mod policy;
mod privacy;
mod replica;
pub(crate) mod served;
pub(crate) mod unfinished;

use std::sync::Arc;

use thiserror::Error;
use tidings_actors::{
    context::Context,
    handle::{Handle, Tree},
    limits::budget::Budget,
    limits::in_flight::InFlightLimits,
    limits::pace::Paces,
    limits::scan_slots::ScanSlots,
    limits::turns::Turns,
    ownership::shards::Shards,
    ownership::terms::Terms,
    ports::{Clock, GitError, GitSource, Leases, Meter, Objects, Random, StatusBoard},
    signals::causes::Causes,
    signals::untold::Untold,
    supervision::directory::Directory,
};
use tokio::sync::watch;
use url::Url;

pub use self::unfinished::Unfinished;
pub(crate) use self::{
    data_dir::{Claim, KEYRING, LOCK, lock_of, make_private_directory, refuse_unfinished, why_unusable},
    privacy::mode_for_others,
};
use crate::{
    egress::{Egress, EgressError},
    git::Git,
    machine::{MachineRandom, SharedClock},
    objects::{self, ForeignObjects},
    secrets::SecretsError,
    settings::{History, Settings},
    sinks::{Terminal, Webhooks, mail::Mailer},
    store::{OpenError, SqlStore, StartRules},
    telemetry::{self, Metrics, ProcessTracer},
};

/// Lanes that read rows, and rounds that begin or end, at the same time: enough to keep a database busy, few
/// enough that an app with thousands of branches does not delay other apps.
const ROWS: usize = 16;

/// The reason why the data directory or the database could not be opened. Nothing was changed, except that
/// missing files may have been created.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(
        "the data directory {path} cannot be used: {}; name a directory that this user may write in data_dir \
         (TIDINGS__DATA_DIR)",
        why_unusable(.reason)
    )]
    DataDirectory {
        /// The path of the data directory.
        path: String,
        /// The error of the file system.
        reason: std::io::Error,
    },
    /// Another process has it open.
    #[error(
        "the data directory {path} is in use by another process ({owner}): stop that one, or name another \
         directory in data_dir (TIDINGS__DATA_DIR)"
    )]
    InUse {
        /// The path of the data directory.
        path: String,
        /// The other process, by the name that it wrote into the lock.
        owner: String,
    },
    /// Another process has the SQLite file open, with another data directory.
    #[error(
        "the database {path} is in use by another process ({owner}): stop that process, or name another file \
         in database.url (TIDINGS__DATABASE__URL)"
    )]
    DatabaseInUse {
        /// The path of the SQLite file.
        path: String,
        /// The other process, by the name that it wrote into the lock.
        owner: String,
    },
    /// A restore into the data directory was cut off.
    #[error("the data directory {path} cannot be used: {what}; {}", .what.remedy())]
    Unfinished {
        /// The path of the data directory.
        path: String,
        /// The step that the restore had reached.
        what: Unfinished,
    },
    /// The keyring of the data directory cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The keyring of the settings cannot be used.
    #[error("keyring_file: {0}")]
    GivenKeyring(#[source] SecretsError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The object store of artifacts belongs to another database.
    #[error(transparent)]
    Artifacts(#[from] ForeignObjects),
    /// The egress settings cannot be used.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The mirrors cannot be used.
    #[error("{0}; git.mirrors_dir names the directory, or else data_dir")]
    Git(#[from] GitError),
    /// The supervision tree could not be started.
    #[error("the supervision tree did not start: {0}")]
    Tree(String),
}

/// The running server: its adapters and its supervision tree.
pub struct App {
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// The database: everything that must survive a restart.
    pub store: Arc<SqlStore>,
    /// Git hosts and mirrors.
    pub git: Arc<dyn GitSource>,
    /// The objects of artifacts.
    pub objects: Arc<dyn Objects>,
    /// The guarded client for all requests that leave this machine.
    pub egress: Egress,
    /// The wall clock, for moments in rows and bodies.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness, for jitter, ids and keys.
    pub random: Arc<dyn Random>,
    tree: Tree,
    fatal: watch::Receiver<Option<String>>,
    _claim: Claim,
}

/// The adapters before the tree runs: `watch` registers its app between the two steps.
pub struct Adapters {
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// The database: everything that must survive a restart.
    pub store: Arc<SqlStore>,
    /// Git hosts and mirrors.
    pub git: Arc<dyn GitSource>,
    /// The objects of artifacts.
    pub objects: Arc<dyn Objects>,
    /// The guarded client for all requests that leave this machine.
    pub egress: Egress,
    /// The wall clock, for moments in rows and bodies.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness, for jitter, ids and keys.
    pub random: Arc<dyn Random>,
    board: Arc<dyn StatusBoard>,
    claim: Claim,
    reached_at: Option<Url>,
}

impl Adapters {
    /// Sets the address at which other processes that share the database reach this one; `None`: they cannot.
    #[must_use]
    pub fn reached_at(self, url: Option<Url>) -> Self {
        Self { reached_at: url, ..self }
    }

    /// Opens the data directory, the keyring, the database and the mirrors.
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
        let store = Arc::new(opened.await?.with_meter(Arc::new(Metrics::of_process())));
        if is_new {
            keyring::tell(&settings);
        }
        served::note(&data_dir)?;
        privacy::tell(&settings);
        let egress = Egress::new(&settings.egress)?;
        // Polls and deliveries share no connections, and each waits for a connection within its own limit.
        let to_hosts = Egress::connecting_within(&settings.egress, settings.git.connect_timeout)?;
        let git = Git::new(settings.git.clone(), &data_dir, to_hosts, clock.clone(), random.as_ref())?;
        let git = Arc::new(git);
        let objects = objects::open(&settings, &egress, store.identity()).await?;
        let (board, reached_at) = (git.clone(), None);
        Ok(Self { settings, store, board, git, objects, egress, clock, random, claim, reached_at })
    }

    /// Starts the tree over these adapters; `printer` prints the changes for sinks of the kind `print`.
    ///
    /// # Errors
    /// [`StartError::Tree`] if the tree cannot be started.
    pub async fn start(self, terminal: Option<Terminal>) -> Result<App, StartError> {
        let Self { settings, store, git, objects, egress, clock, random, board, claim, reached_at } = self;
        let meter: Arc<dyn Meter> = Arc::new(Metrics::of_process());
        let webhooks =
            Webhooks::new(egress.clone(), git.clone(), store.clone(), clock.clone(), random.clone())
                .with_traceparent(telemetry::traceparent)
                .with_meter(meter.clone())
                .chunked_above(settings.delivery.chunk_threshold as usize)
                .mailing(Mailer::new(egress.clone(), settings.mail_server()))
                .keeping_all(settings.delivery.history == History::All)
                .at_terminal(terminal);
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
        let policy = policy::of(&settings, replica);
        let context = Context {
            in_flight: InFlightLimits::default(),
            paces: Paces::new(store.clone(), clock.clone()),
            read_turns: Turns::new(policy.readers),
            rows: Turns::new(ROWS),
            outbound: Turns::new(policy.in_flight),
            scan_slots: ScanSlots::new(policy.scan_workers),
            store: store.clone(),
            git: git.clone(),
            transport: Arc::new(webhooks),
            board,
            objects: objects.clone(),
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
        Ok(App { settings, store, git, objects, egress, clock, random, tree, fatal, _claim: claim })
    }
}

impl App {
    /// The handle through which the HTTP handlers call the tree.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.tree.handle()
    }

    /// Waits for the reason why this process must end by itself: the tree failed too often, or another
    /// process took over its database.
    pub async fn failed(&mut self) -> String {
        let fatal = async {
            match self.fatal.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // The sender lives as long as the tree; the other branch reports the end of the tree.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = fatal => reason,
            () = self.tree.failed() => "the supervision tree failed too often".to_owned(),
        }
    }

    /// Lets attempts end, settles answered changes, stops the tree, and closes the database.
    pub async fn stop(self) {
        self.tree.stop(self.settings.delivery.drain_deadline).await;
        self.store.close().await;
    }
}
