//! The product on PostgreSQL: what serves on a file serves here, and the commands say what differs. Other
//! stories run here too where `TIDINGS_STORY_DATABASE` says `postgres`; `.ci/postgres` does that.

pub(crate) mod between;
mod trouble;

use std::process::Output;

use serde_json::json;

use crate::{
    deliveries::refuse,
    support::{
        api::App,
        cluster::{self, Database},
        fleet::pairs,
        patience::{SOON, eventually},
        project::Project,
        server::{Server, bare_command},
        subscriber::Subscriber,
    },
};

/// A server on a database of its own; none where this machine has no PostgreSQL.
fn prepared() -> Option<(Server, Database)> {
    let database = cluster::database(None)?;
    Some((Server::prepare().with("database.url", &database.url), database))
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    server.command(arguments).output().expect("it ran")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn what_a_server_writes_down_is_of_the_clock_of_its_database() {
    let Some((mut server, database)) = prepared() else { return };
    // What is found first under the name is a clock that is a day ahead.
    for text in [
        "create function public.clock_timestamp() returns timestamptz language sql volatile
         as $$ select pg_catalog.clock_timestamp() + interval '1 day' $$",
        "do $$ begin execute format('alter database %I set search_path = public, pg_catalog', current_database());
         end $$",
    ] {
        cluster::run_sql(&database.url, text).expect("done");
    }
    server.run();
    App::onboard(&server, &Subscriber::start());
    let of_tomorrow = "select 'app', count(*) from app where created_at > $now
                       union all select 'replica', count(*) from replica where started_at > $now"
        .replace("$now", "extract(epoch from pg_catalog.clock_timestamp() + interval '23 hours') * 1000");
    let found = pairs(&database.url, &of_tomorrow);
    assert_eq!(found, [("app".to_owned(), 1), ("replica".to_owned(), 1)]);
}

#[test]
fn an_app_follows_a_repository_over_kills_and_gets_again_what_it_refused() {
    let Some((mut server, _database)) = prepared() else { return };
    server.run();
    let subscriber = Subscriber::start();
    subscriber.script(refuse(&["bad"], 422));
    let app = App::onboard(&server, &subscriber);
    let project = Project::with(&[("a", "1"), ("b", "1"), ("bad", "1")]);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let letters = app.dead_letters(&server);
    assert_eq!(letters.len(), 1, "{letters:?}");

    for commit in ["second", "third"] {
        project.write("b", commit.as_bytes());
        let newest = project.commit(commit);
        app.tell(&server, &id, "scan");
        server.kill();
        subscriber.model().note_kill();
        server.run();
        app.wait_until_held(&server, &id, &newest);
    }
    subscriber.accept_all();
    let path = format!("/api/dead-letters/{}/redrive", letters[0]["dead_letter_id"].as_str().expect("an id"));
    assert_eq!(app.ask(&server, "POST", &path, Some(&json!({}))).status, 202);
    eventually("redriven letter", SOON, || app.dead_letters(&server).is_empty().then_some(()));
    subscriber.wait_for_tree(&id, &project.tree(&project.head()));
    subscriber.assert_straight();

    for path in
        ["overview", "storage", "lag", "apps", "watches", "sources", "breakers", "audit", "audit/verify"]
    {
        let reply = server.ask_as_admin("GET", &format!("/api/admin/{path}"));
        assert_eq!(reply.status, 200, "{path}: {}", reply.json());
    }
    assert!(server.terminate().0.success());
}

#[test]
fn the_commands_know_it() {
    let Some((server, database)) = prepared() else { return };
    for (arguments, told) in [
        (&["migrate", "status"][..], "missing"),
        (&["migrate", "up"], "create_tables"),
        (&["migrate", "status"], "taken"),
        (&["check-config"], "database.url = postgres://"),
    ] {
        let output = run(&server, arguments);
        assert!(output.status.success() && said(&output).contains(told), "{arguments:?}: {}", said(&output));
    }
    let output = run(&server, &["key", "generate"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = run(&server, &["doctor"]);
    assert!(said(&output).contains("fsync is off"), "{}", said(&output));
    let copy = server.data().with_file_name("copy");
    let output = run(&server, &["backup", copy.to_str().expect("a text"), "--plain-keyring"]);
    assert!(!output.status.success() && said(&output).contains("pg_dump"), "{}", said(&output));
    assert!(!copy.exists());
    let all = ["migrate", "down", "--steps", "100", "--yes"];
    let output = run(&server, &all);
    assert!(!output.status.success() && said(&output).contains("--everything-of"), "{}", said(&output));
    let name = database.url.split('?').next().and_then(|rest| rest.rsplit('/').next()).expect("a name");
    let output = run(&server, &[&all[..], &["--everything-of", name]].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&run(&server, &["migrate", "status"])).contains("missing"));
}

#[test]
fn a_schema_is_not_taken_back_below_a_server_of_another_machine() {
    let Some((mut server, database)) = prepared() else { return };
    server.run();
    let elsewhere = Server::prepare().with("database.url", &database.url);
    // Servers of the version before may serve beside the newest schema, so this is no conflict.
    let output = run(&elsewhere, &["migrate", "up"]);
    assert!(output.status.success() && said(&output).contains("nothing to do"), "{}", said(&output));
    let output = run(&elsewhere, &["migrate", "down", "--yes"]);
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(said(&output).contains("its entry expires in"), "{}", said(&output));
    assert!(!said(&run(&elsewhere, &["migrate", "status"])).contains("missing"), "nothing was taken back");
}

#[test]
fn a_single_command_watches_on_it() {
    let Some(database) = cluster::database(None) else { return };
    let project = Project::with(&[("a", "1")]);
    let folder = tempfile::tempdir().expect("a folder");
    let watch = || {
        let mut command = bare_command(folder.path());
        command.args(["watch", "--once", "--data-dir", "data"]).arg(project.path());
        let output = command.env("TIDINGS__DATABASE__URL", &database.url).output().expect("it ran");
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(watch().contains('a'));
    project.write("b", b"2");
    project.commit("second");
    let second = watch();
    assert!(second.contains('b') && second.lines().count() == 1, "it goes on where it was: {second}");
}

#[test]
fn a_start_waits_for_a_server_that_comes_up_later() {
    let Some(mut cluster) = cluster::Cluster::start(&[]) else { return };
    let url = cluster.url("postgres");
    cluster.stop();
    let mut server = Server::prepare().with("database.url", &url);
    server.spawn();
    eventually("word that it waits", SOON, || server.log().contains("cannot be reached").then_some(()));
    cluster.run();
    eventually("address", SOON, || server.announced());
    server.kill();
    cluster.stop();

    let impatient = Server::prepare().with("database.url", &url).with("database.start_wait", "100ms");
    let output = run(&impatient, &["serve"]);
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(said(&output).contains("cannot be reached"), "{}", said(&output));
}
