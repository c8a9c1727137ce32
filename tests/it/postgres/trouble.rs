//! The database server in trouble while commits arrive and apps ask: it is restarted, its connections are cut
//! or all taken, it takes no writes, its disk is full. Meanwhile requests are answered as ever or with 503;
//! when it is well again, all is well again by itself within seconds. Nothing is lost, and the order holds.

use std::{
    fs,
    io::Write,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::{
    isolation::usual,
    support::{
        api::App,
        churn::{BETWEEN_COMMITS, Churn},
        cluster::{Cluster, run_sql},
        dice::Dice,
        http, length,
        patience::{SOON, SetAtEnd, eventually},
        project::Project,
        server::Server,
        setting,
        subscriber::Subscriber,
    },
};

/// Restarts of the server, unless `TIDINGS_STORY_RESTARTS` says otherwise.
const RESTARTS: u64 = 10;
/// All is well again this long after the server is.
const HEALED: Duration = Duration::from_secs(5);
/// The same on a busy machine, which is slow now and then.
const HEALED_BUSY: Duration = Duration::from_secs(20);
/// How long trouble lasts that has no end of its own, in seconds, unless `TIDINGS_STORY_TROUBLE_SECONDS` says
/// otherwise.
const WHILE: u64 = 4;

fn trouble() -> Duration {
    Duration::from_secs(setting("TIDINGS_STORY_TROUBLE_SECONDS").unwrap_or(WHILE))
}

/// A house on a server of its own, at work.
struct House {
    cluster: Cluster,
    server: Server,
    subscriber: Subscriber,
    app: App,
    project: Project,
    churn: Churn,
    id: String,
}

impl House {
    fn on(cluster: Cluster) -> Self {
        let mut server = Server::prepare().with("database.url", &cluster.url("postgres"));
        server.run();
        let subscriber = Subscriber::start();
        let app = App::onboard(&server, &subscriber);
        let project = Project::new();
        let churn = Churn::begin(&project, 30);
        let id = app.watch(&server, &project);
        app.wait_until_held(&server, &id, &project.head());
        Self { cluster, server, subscriber, app, project, churn, id }
    }

    /// Makes trouble while somebody commits and somebody asks; then everything must have arrived.
    fn bear(mut self, trouble: impl FnOnce(&mut Cluster, &Asking<'_>)) {
        let over = AtomicBool::new(false);
        let asking =
            Asking { server: &self.server, subscriber: &self.subscriber, app: &self.app, id: &self.id };
        thread::scope(|scope| {
            let (over, project, mut churn) = (&over, &self.project, self.churn);
            scope.spawn(move || {
                let mut dice = Dice::thrown("trouble");
                while !over.load(Ordering::SeqCst) {
                    churn.commit(project, &mut dice);
                    thread::sleep(dice.up_to(BETWEEN_COMMITS));
                }
            });
            let _end = SetAtEnd(over);
            let asking = &asking;
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    // What was acknowledged and not written down comes again, with the same id.
                    asking.subscriber.model().note_kill();
                    thread::sleep(Duration::from_millis(10));
                }
            });
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    asking.read();
                    asking.write();
                    thread::sleep(Duration::from_millis(20));
                }
            });
            trouble(&mut self.cluster, asking);
        });
        let head = self.project.head();
        self.app.wait_until_held(&self.server, &self.id, &head);
        self.subscriber.wait_for_tree(&self.id, &self.project.tree(&head));
        self.subscriber.assert_straight();
        assert!(self.app.dead_letters(&self.server).is_empty());
        let model = self.subscriber.model();
        println!("{} changes in {} rounds", model.applied.len(), model.finished.len());
        assert!(self.server.terminate().0.success());
    }
}

/// Somebody who asks the API.
struct Asking<'a> {
    server: &'a Server,
    subscriber: &'a Subscriber,
    app: &'a App,
    id: &'a str,
}

impl Asking<'_> {
    /// Whether a read was answered; otherwise with 503.
    fn read(&self) -> bool {
        self.ask("GET", None)
    }

    /// The same for a write.
    fn write(&self) -> bool {
        self.ask("PATCH", Some(&json!({ "mode": "net" })))
    }

    fn ask(&self, method: &str, body: Option<&serde_json::Value>) -> bool {
        let path = format!("/api/repositories/{}", self.id);
        let reply = http::ask(self.server.address(), method, &path, Some(&self.app.token), body);
        let reply = reply.expect("an answer");
        assert!([200, 503].contains(&reply.status), "{method}: {} {}", reply.status, reply.json());
        reply.status == 200
    }

    /// Waits until both are answered again, and does not wait long; how long that took.
    fn assert_healed(&self) -> Duration {
        let began = Instant::now();
        eventually("answers", SOON, || (self.read() && self.write()).then_some(()));
        let took = began.elapsed();
        println!("healed within {took:?}");
        assert!(took < HEALED_BUSY, "it took {took:?}");
        took
    }
}

#[test]
fn a_server_that_is_restarted_again_and_again_is_met_again_within_seconds() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    House::on(cluster).bear(|cluster, asking| {
        let restart = |_| {
            cluster.stop();
            eventually("503", SOON, || (!asking.read() && !asking.write()).then_some(()));
            cluster.run();
            let took = asking.assert_healed();
            thread::sleep(Duration::from_millis(300));
            took
        };
        let took: Vec<Duration> =
            (0..length("TIDINGS_STORY_RESTARTS", RESTARTS, RESTARTS / 2)).map(restart).collect();
        assert!(usual(&took) < HEALED, "it took {took:?}");
    });
}

#[test]
fn connections_that_are_cut_all_the_time_are_made_anew() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    House::on(cluster).bear(|cluster, asking| {
        let until = Instant::now() + trouble();
        while Instant::now() < until {
            cut(&cluster.url("postgres"));
            thread::sleep(Duration::from_millis(200));
        }
        asking.assert_healed();
    });
}

/// Ends all connections but its own.
fn cut(url: &str) {
    run_sql(url, CUT).expect("cut");
}

const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid()";

#[test]
fn a_server_without_a_free_connection_is_waited_for() {
    let settings = ["max_connections=12", "superuser_reserved_connections=1"];
    let Some(cluster) = Cluster::start(&settings) else { return };
    House::on(cluster).bear(|cluster, asking| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let url = cluster.url("postgres");
            let mut held = vec![PgConnection::connect(&url).await.expect("connected")];
            // A replica that is cut off finds its place taken.
            let until = Instant::now() + trouble();
            while Instant::now() < until {
                let others = format!("{CUT} and application_name = 'tidings'");
                held[0].execute(AssertSqlSafe(others)).await.expect("cut");
                while let Ok(one) = PgConnection::connect(&url).await {
                    held.push(one);
                }
            }
            assert!(held.len() > 9, "only {} are held", held.len());
            for one in held {
                one.close().await.expect("closed");
            }
        });
        asking.assert_healed();
    });
}

#[test]
fn a_server_that_takes_no_writes_for_a_while_is_read_meanwhile() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    House::on(cluster).bear(|cluster, asking| {
        let only_read = |value: &str| {
            let url = cluster.url("postgres");
            let setting = format!("alter system set default_transaction_read_only = {value}");
            for statement in [setting.as_str(), "select pg_reload_conf()"] {
                run_sql(&url, statement).expect("set");
            }
        };
        only_read("on");
        eventually("a refused write", SOON, || (!asking.write()).then_some(()));
        let until = Instant::now() + trouble();
        while Instant::now() < until {
            assert!(asking.read(), "reads go on");
            thread::sleep(Duration::from_millis(50));
        }
        only_read("off");
        asking.assert_healed();
    });
}

/// What a cut network looks like: the connections stay, and nothing comes.
#[test]
fn a_server_that_falls_silent_is_given_up_and_met_again() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    House::on(cluster).bear(|cluster, asking| {
        cluster.freeze(true);
        let began = Instant::now();
        eventually("503", SOON, || (!asking.write()).then_some(()));
        assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
        cluster.freeze(false);
        asking.assert_healed();
    });
}

#[test]
fn a_server_whose_disk_is_full_is_met_again_when_it_has_room() {
    let Some(disk) = Disk::mount() else { return };
    let settings = ["min_wal_size=32MB", "max_wal_size=32MB", "wal_init_zero=on"];
    let folder = tempfile::tempdir_in(disk.0.path()).expect("a folder");
    let Some(cluster) = Cluster::start_in(folder, &settings) else { return };
    House::on(cluster).bear(|cluster, asking| {
        let ballast = cluster.folder().join("ballast");
        let mut file = fs::File::create(&ballast).expect("a file");
        let block = vec![1_u8; 64 << 10];
        while file.write_all(&block).is_ok() {}
        let url = cluster.url("postgres");
        // What the server has set aside is soon used up, and what is written fills the rest.
        let fill = "create table if not exists filler (text text);
                    insert into filler select repeat('x', 1000) from generate_series(1, 50)";
        while run_sql(&url, fill).is_ok() {}
        eventually("full disk", SOON, || asking.server.log().contains("No space left").then_some(()));
        let until = Instant::now() + trouble();
        while Instant::now() < until {
            asking.write();
            drop(run_sql(&url, fill));
            thread::sleep(Duration::from_millis(50));
        }
        fs::remove_file(&ballast).expect("room");
        cluster.revive();
        drop(run_sql(&url, "drop table if exists filler"));
        asking.assert_healed();
    });
}

/// A small disk, where this machine lets us have one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: this user mounts no disk");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        drop(gone);
    }
}
