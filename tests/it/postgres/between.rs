//! What stands between us and the database server: a pooler that hands out a connection for one transaction,
//! and TLS.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::json;

use super::{run, said};
use crate::support::{
    api::App,
    cluster::{Cluster, as_servant},
    dice::Dice,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    subscriber::Subscriber,
    text_setting,
};

/// Names the binary of PgBouncer; `.ci/tools` sets it.
const PGBOUNCER: &str = "TIDINGS_PGBOUNCER";

/// A PgBouncer in front of a cluster, in the folder of that.
pub(crate) struct Pooler(Child);

impl Pooler {
    /// `None` where this machine has none.
    pub(crate) fn before(cluster: &Cluster) -> Option<Self> {
        let named = text_setting(PGBOUNCER).map(PathBuf::from);
        let found = named.or_else(|| Some(PathBuf::from("/usr/sbin/pgbouncer")).filter(|path| path.exists()));
        let Some(binary) = found else {
            println!("skipped: there is no PgBouncer here ({PGBOUNCER} may name it)");
            return None;
        };
        let folder = cluster.folder();
        // Each transaction meets another connection than the one before, as far as there are some.
        let settings = format!(
            "[databases]\n* = host={0} user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
             unix_socket_dir = {0}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n\
             server_round_robin = 1\nmax_prepared_statements = 0\n",
            folder.display()
        );
        // Older ones do not know the last word, and have no such statements either.
        let known = Command::new(&binary).arg("--version").output().expect("it runs");
        let version = String::from_utf8_lossy(&known.stdout).into_owned();
        let minor = version.split(['.', '\n']).nth(1).and_then(|minor| minor.parse::<u32>().ok());
        let lines = settings.lines().filter(|line| minor >= Some(21) || !line.starts_with("max_prepared"));
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("written");
        let mut command = as_servant(Command::new(binary));
        let log = fs::File::create(folder.join("pgbouncer.log")).expect("a log");
        command.arg("--quiet").arg(file).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn().expect("the pooler");
        eventually("socket of the pooler", SOON, || folder.join(".s.PGSQL.6432").exists().then_some(()));
        Some(Self(child))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_pooler_that_hands_out_connections_for_one_transaction_changes_nothing() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let Some(_pooler) = Pooler::before(&cluster) else { return };
    let url = format!(
        "postgres://postgres@localhost:6432/postgres?host={}&pgbouncer=true",
        cluster.folder().display()
    );
    let mut server = Server::prepare().with("database.url", &url);
    server.run();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let projects: Vec<Project> = (0..4).map(|_| Project::with(&[("a", "1"), ("b", "1")])).collect();
    let ids: Vec<String> = projects.iter().map(|project| app.watch(&server, project)).collect();
    let mut dice = Dice::thrown("pooler");
    for round in 0..5 {
        for project in &projects {
            for file in 0..30 {
                project.write(format!("f{file}"), format!("{round} {}", dice.number()).as_bytes());
            }
            project.commit("more");
        }
        std::thread::scope(|scope| {
            // Many who read at once: their statements have names, and meet each other's.
            for id in &ids {
                let (server, app) = (&server, &app);
                scope.spawn(move || {
                    for _ in 0..50 {
                        assert_eq!(app.repository(server, id)["repository_id"], id.as_str());
                        app.patch(server, id, &json!({ "mode": "net" }));
                    }
                });
            }
        });
    }
    for (project, id) in projects.iter().zip(&ids) {
        let head = project.head();
        app.wait_until_held(&server, id, &head);
        subscriber.wait_for_tree(id, &project.tree(&head));
    }
    subscriber.assert_straight();
    for word in ["prepared statement", "unnamed", "cannot be read"] {
        assert!(!server.log().contains(word), "the log has {word:?}");
    }
    assert!(server.terminate().0.success());
}

#[test]
fn the_certificate_of_a_server_is_checked_as_the_address_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("server.pem"), made.cert.pem()).expect("written");
    fs::write(folder.path().join("server.key"), made.signing_key.serialize_pem()).expect("written");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(folder.path().join("server.key"), private).expect("private");
    let roots = tempfile::tempdir().expect("a folder");
    let root = |name: &str, pem: String| {
        let path = roots.path().join(name);
        fs::write(&path, pem).expect("written");
        path.display().to_string()
    };
    let (right, wrong) = (root("right.pem", made.cert.pem()), root("wrong.pem", other.cert.pem()));
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let [cert, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name).display().to_string());
    let settings = [
        "listen_addresses=localhost".to_owned(),
        format!("port={port}"),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={cert}"),
        format!("ssl_key_file={key}"),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let Some(_cluster) = Cluster::start_in(folder, &settings) else { return };
    for (parameters, opens) in [
        (format!("localhost:{port}/postgres?sslmode=verify-full&sslrootcert={right}"), true),
        (format!("localhost:{port}/postgres?sslmode=verify-full&sslrootcert={wrong}"), false),
        (format!("127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={right}"), false),
        (format!("127.0.0.1:{port}/postgres?sslmode=verify-ca&sslrootcert={right}"), true),
        (format!("localhost:{port}/postgres?sslmode=verify-full"), false),
        (format!("localhost:{port}/postgres?sslmode=require"), true),
    ] {
        let server = Server::prepare().with("database.url", &format!("postgres://postgres@{parameters}"));
        let output = run(&server, &["migrate", "up"]);
        assert_eq!(output.status.success(), opens, "{parameters}: {}", said(&output));
    }
}
