//! Where a test keeps its rows: in a file, or in a database of a server. What holds on both is told on both.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sea_orm::{Database, DatabaseConnection};
use tempfile::TempDir;
use tidings_actors::{
    testing::{ManualClock, SeededRandom},
    time::Timestamp,
};
use tidings_secrets::Keyring;

use crate::{OpenError, SqlStore, StartRules, database::schema};

#[path = "../../../tests/it/support/cluster.rs"]
#[expect(dead_code, reason = "stories use the rest")]
pub(super) mod cluster;

/// What tests say and PostgreSQL calls otherwise.
const WORDS: &str = "
    create function instr(text, text) returns integer language sql as 'select strpos($1, $2)';
    create function instr(bytea, text) returns integer language sql
        as 'select position(convert_to($2, ''UTF8'') in $1)'";

/// A database of a test, with a folder for the keyring.
pub(super) struct Home {
    folder: TempDir,
    url: String,
    _database: Option<cluster::Database>,
    _cluster: Option<cluster::Cluster>,
}

impl Home {
    /// A file that is not there yet.
    pub(super) fn file() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("tidings.db").display());
        Self { folder, url, _database: None, _cluster: None }
    }

    /// A database with our tables; `None` where this machine has no PostgreSQL.
    pub(super) async fn server() -> Option<Self> {
        static TEMPLATE: OnceLock<Option<cluster::Database>> = OnceLock::new();
        // Once for all: copying a database costs less than taking all steps.
        let template = tokio::task::spawn_blocking(|| {
            TEMPLATE.get_or_init(|| {
                let database = cluster::database(None)?;
                cluster::run_sql(&database.url, WORDS).expect("words");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(schema::up(&database.url)).expect("up");
                Some(database)
            })
        });
        let database = cluster::database(Some(template.await.expect("made").as_ref()?))?;
        let folder = tempfile::tempdir().expect("a folder");
        Some(Self { folder, url: database.url.clone(), _database: Some(database), _cluster: None })
    }

    /// The same on a server of its own: what is done to its processes must not hold up other tests, nor
    /// they it.
    pub(super) async fn own_server() -> Option<Self> {
        let made = tokio::task::spawn_blocking(|| cluster::Cluster::start(&[]));
        let cluster = made.await.expect("started")?;
        let (folder, url) = (tempfile::tempdir().expect("a folder"), cluster.url("postgres"));
        Some(Self { folder, url, _database: None, _cluster: Some(cluster) })
    }

    /// The temporary folder of the database.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The address of the database, as in `database.url`.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Opens it with the keyring in the folder, which is made where it is missing.
    pub(super) async fn open(&self, seed: u64) -> Result<SqlStore, OpenError> {
        self.open_at(&self.url, seed).await
    }

    /// The same at another address.
    pub(super) async fn open_at(&self, url: &str, seed: u64) -> Result<SqlStore, OpenError> {
        self.open_within(Duration::ZERO, url, seed).await
    }

    /// The same, with patience.
    pub(super) async fn open_within(
        &self,
        wait: Duration,
        url: &str,
        seed: u64,
    ) -> Result<SqlStore, OpenError> {
        self.open_with("keyring", wait, url, seed).await
    }

    /// Opens it as another replica does, with a keyring of its own in the folder.
    pub(super) async fn open_as(&self, keyring: &str, seed: u64) -> Result<SqlStore, OpenError> {
        self.open_with(keyring, Duration::ZERO, &self.url, seed).await
    }

    /// Opens it with a clock that the test moves.
    pub(super) async fn open_timed(&self, clock: Arc<ManualClock>) -> Result<SqlStore, OpenError> {
        self.open_by("keyring", Duration::ZERO, &self.url, 1, clock).await
    }

    async fn open_with(
        &self,
        keyring: &str,
        wait: Duration,
        url: &str,
        seed: u64,
    ) -> Result<SqlStore, OpenError> {
        self.open_by(keyring, wait, url, seed, Arc::new(ManualClock::new(Timestamp(3000)))).await
    }

    async fn open_by(
        &self,
        keyring: &str,
        wait: Duration,
        url: &str,
        seed: u64,
        clock: Arc<ManualClock>,
    ) -> Result<SqlStore, OpenError> {
        let random = Arc::new(SeededRandom::new(seed));
        let path = self.path().join(keyring);
        let keyring = Keyring::open(&path).or_else(|_| Keyring::create(&path, &*random)).expect("a keyring");
        let rules = StartRules { wait, ..StartRules::default() };
        SqlStore::open_at_start(rules, url, Arc::new(keyring), clock, random).await
    }

    /// A connection of its own, to look behind the store's back.
    pub(super) async fn raw(&self) -> DatabaseConnection {
        Database::connect(&self.url).await.expect("connected")
    }
}

/// Each of these on both databases.
macro_rules! on_both {
    ($($test:ident)+) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(super::Home::file()).await;
                }
            )+
        }

        mod on_postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    if let Some(home) = super::Home::server().await {
                        super::$test(home).await;
                    }
                }
            )+
        }
    };
}

pub(super) use on_both;
