//! Replicas: several servers, each in a folder of its own, with one keyring, on one PostgreSQL database.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    thread,
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use super::{
    cable::Cable,
    cluster::{self, Database},
    patience::{SOON, eventually_or},
    server::Server,
};

/// How many shards there are.
const SHARDS: i64 = 256;

/// Replicas over one database.
pub(crate) struct Fleet {
    /// They, the first of which made the keyring.
    pub(crate) servers: Vec<Server>,
    /// What leads from each of them to the database.
    pub(crate) cables: Vec<Cable>,
    /// The PostgreSQL database that all replicas share.
    pub(crate) database: Database,
}

impl Fleet {
    /// This many replicas that run and share the work; `None` where this machine has no PostgreSQL.
    pub(crate) fn start(count: usize, lease: Duration) -> Option<Self> {
        Self::of_roles(&vec!["all"; count], lease)
    }

    /// The same, each with a clock that can be moved.
    pub(crate) fn with_clocks(count: usize, lease: Duration) -> Option<Self> {
        Self::dressed(count, lease, Server::with_clock_of_its_own)
    }

    /// This many of another binary.
    pub(crate) fn of_binary(binary: &Path, count: usize, lease: Duration) -> Option<Self> {
        Self::dressed(count, lease, |mut server| {
            server.becomes(Some(binary.to_owned()));
            server
        })
    }

    /// This many, each made ready so.
    pub(crate) fn dressed(count: usize, lease: Duration, dress: impl Fn(Server) -> Server) -> Option<Self> {
        Self::build(&vec!["all"; count], lease, dress)
    }

    /// One for each role.
    pub(crate) fn of_roles(roles: &[&str], lease: Duration) -> Option<Self> {
        Self::build(roles, lease, |server| server)
    }

    /// So many that hear no notification, as behind a pooler: what another replica did they find by
    /// looking at the rows.
    pub(crate) fn deaf(count: usize, lease: Duration, dress: impl Fn(Server) -> Server) -> Option<Self> {
        let database = cluster::database(None)?;
        let url = format!("{}&pgbouncer=true", database.url);
        let lease = format!("{}ms", lease.as_millis());
        let mut fleet = Self { servers: Vec::new(), cables: Vec::new(), database };
        for index in 0..count {
            let mut server = Server::prepare().with("database.url", &url).with("database.lease", &lease);
            server = dress(server);
            if index > 0 {
                fleet.lend_keyring(&server);
            }
            server.run();
            fleet.servers.push(server);
        }
        fleet.wait_until_shared(count);
        Some(fleet)
    }

    fn build(roles: &[&str], lease: Duration, dress: impl Fn(Server) -> Server) -> Option<Self> {
        let database = cluster::database(None)?;
        let lease = format!("{}ms", lease.as_millis());
        let mut fleet = Self { servers: Vec::new(), cables: Vec::new(), database };
        for (index, role) in roles.iter().enumerate() {
            let (cable, url) = fleet.cable()?;
            let mut server = Server::prepare().with("database.url", &url).with("database.lease", &lease);
            if *role != "all" {
                server = server.with("server.role", role);
            }
            server = dress(server);
            if index > 0 {
                fleet.lend_keyring(&server);
            }
            server.run();
            fleet.cables.push(cable);
            fleet.servers.push(server);
        }
        fleet.wait_until_shared(roles.iter().filter(|role| **role != "api").count());
        Some(fleet)
    }

    /// One more replica, which starts now and may not have its share yet.
    pub(crate) fn join(&mut self) {
        let (cable, url) = self.cable().expect("as before");
        let server = Server::prepare().with("database.url", &url);
        let mut server = server.with("database.lease", self.servers[0].setting("database.lease"));
        self.lend_keyring(&server);
        server.run();
        self.cables.push(cable);
        self.servers.push(server);
    }

    /// A cable to the database, and the address at its end.
    fn cable(&self) -> Option<(Cable, String)> {
        let mut url = Url::parse(&self.database.url).expect("an address");
        let folder =
            url.query_pairs().find(|(name, _)| name == "host").map(|(_, folder)| folder.into_owned());
        let Some(folder) = folder else {
            println!("skipped: the server of the tests has no socket in a folder");
            return None;
        };
        let cable = Cable::to(Path::new(&folder));
        url.set_query(None);
        url.set_host(Some("127.0.0.1")).expect("an address");
        url.set_port(Some(cable.address().port())).expect("a port");
        Some((cable, url.into()))
    }

    /// What the first replica sealed opens for this one as well.
    pub(crate) fn lend_keyring(&self, server: &Server) {
        lend_keyring(&self.servers[0], server);
    }

    /// Waits until this many replicas hold all shards between them, none more than its share.
    pub(crate) fn wait_until_shared(&self, count: usize) {
        let count = i64::try_from(count).expect("a few");
        let look = || {
            let held = self.holdings();
            let share = (SHARDS + count - 1) / count;
            let all = held.iter().map(|(_, shards)| shards).sum::<i64>() == SHARDS;
            let even = held.iter().all(|(_, shards)| *shards <= share);
            (all && even && held.len() == usize::try_from(count).expect("a few")).then_some(())
        };
        eventually_or("evenly shared work", SOON, look, || format!("but {:?}", self.holdings()));
    }

    /// Who holds how many shards by leases that have not expired.
    pub(crate) fn holdings(&self) -> Vec<(String, i64)> {
        pairs(
            &self.database.url,
            "select owner, count(*) from lease where owner is not null and shard <> 'all'
             and expires_at > extract(epoch from clock_timestamp()) * 1000 group by owner order by owner",
        )
    }

    /// The id of a running replica, as its data directory names it.
    pub(crate) fn id(&self, index: usize) -> String {
        let text = fs::read_to_string(self.servers[index].data().join("replica")).expect("its name");
        text.trim().to_owned()
    }

    /// Which replica works on the repository of a watch.
    pub(crate) fn owner_of(&self, watch: &str) -> Option<usize> {
        self.owner(&format!("(select repository_id as id from watch where id = '{watch}')"))
    }

    /// The replica that sends what subscriptions of an app read.
    pub(crate) fn owner_of_app(&self, app: &str) -> Option<usize> {
        self.owner(&format!("(select id from app where id = '{app}')"))
    }

    fn owner(&self, ids: &str) -> Option<usize> {
        let text = format!(
            "select l.owner, 1::bigint from {ids} i join lease l on l.shard = cast(
               ((strpos('{0}', substr(i.id, length(i.id) - 1, 1)) - 1) % 8) * 32
               + strpos('{0}', right(i.id, 1)) - 1 as text)
             where l.owner is not null",
            "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        );
        let found = pairs(&self.database.url, &text);
        let owner = &found.first()?.0;
        (0..self.servers.len()).find(|index| self.id(*index) == *owner)
    }
}

/// What one replica sealed opens for another as well.
pub(crate) fn lend_keyring(from: &Server, to: &Server) {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to.data()).expect("a folder");
    let path = to.data().join("keyring");
    fs::copy(from.data().join("keyring"), &path).expect("copied");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its own");
}

/// The rows of a question, each a text and a number.
pub(crate) fn pairs(url: &str, text: &str) -> Vec<(String, i64)> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection = PgConnection::connect(url).await.expect("connected");
            let found = sqlx::query_as(AssertSqlSafe(text.to_owned())).fetch_all(&mut connection).await;
            connection.close().await.expect("closed");
            found.expect("rows")
        })
    };
    thread::scope(|scope| scope.spawn(ask).join().expect("no panic"))
}
