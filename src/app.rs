//! The composition root: builds the adapters, starts the tree, and in the end drains it. `serve`
//! adds the front door, `watch` a single app; both run the same house.

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
    budget::Budget,
    causes::Causes,
    context::Context,
    crowds::Crowds,
    directory::Directory,
    handle::{Handle, Tree},
    pace::Paces,
    ports::{Clock, GitError, GitSource, Leases, Meter, Random},
    scan_slots::ScanSlots,
    shards::Shards,
    terms::Terms,
    turns::Turns,
    untold::Untold,
};
use tokio::sync::watch;
use url::Url;

pub use self::unfinished::Unfinished;
pub(crate) use self::{
    data_dir::{Claim, KEYRING, LOCK, make_private_directory, refuse_unfinished, why_unusable},
    privacy::mode_for_others,
};
use crate::{
    egress::{Egress, EgressError},
    git::Git,
    machine::{MachineRandom, SharedClock},
    secrets::SecretsError,
    settings::{History, Settings},
    sinks::{Webhooks, print::Printer},
    store::{OpenError, SqlStore, StartRules},
    telemetry::{self, Metrics, ProcessTracer},
};

/// Lanes whose rows are read, and rounds that begin or end, at the same time: enough to keep a database busy,
/// few enough that an app with thousands of branches holds up nobody else's.
const ROWS: usize = 16;

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
        let store = Arc::new(opened.await?.with_meter(Arc::new(Metrics::of_process())));
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
                .chunked_above(settings.delivery.chunk_threshold as usize)
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
        let policy = policy::of(&settings, replica);
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
