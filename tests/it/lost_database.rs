//! The data directory of a server: a start without the database that it had is refused, and only the user of the
//! server can read the files in it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Stdio,
};

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    server::Server,
    subscriber::Subscriber,
};

/// A house whose database lies in its data directory.
fn house() -> Server {
    Server::prepare().without("database.url")
}

fn database(server: &Server) -> PathBuf {
    server.data().join("tidings.db")
}

/// Takes the database of a server away that does not run.
fn lose(server: &Server) {
    for entry in fs::read_dir(server.data()).expect("the data directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("tidings.db") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
}

fn put(server: &Server, bytes: &[u8]) {
    lose(server);
    fs::write(database(server), bytes).expect("written");
    fs::set_permissions(database(server), Permissions::from_mode(0o600)).expect("set");
}

fn assert_refused(server: &Server, found: &str) {
    let output = server.command(&["serve"]).output().expect("it ran");
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("--new-database") && said.contains("tidings restore"), "{said}");
    let doctor = server.command(&["doctor", "--json"]).output().expect("it ran");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(!doctor.status.success() && said.contains(found), "{said}");
}

#[test]
fn a_lost_database_refuses_the_start_until_it_is_back_or_a_new_one_is_wanted() {
    let subscriber = Subscriber::start();
    let mut server = house();
    server.run();
    let app = App::onboard(&server, &subscriber);
    let status = |server: &Server| app.ask(server, "GET", "/api/app", None).status;
    server.terminate();
    let kept = fs::read(database(&server)).expect("a database");

    lose(&server);
    assert_refused(&server, "it is gone");
    assert!(!database(&server).exists(), "a refused start makes none");
    put(&server, b"");
    assert_refused(&server, "it is empty");
    put(&server, &kept);
    server.run();
    assert_eq!(status(&server), 200, "it goes on");
    server.terminate();

    lose(&server);
    let address = server.data().with_file_name("address-of-the-new-one");
    let mut command = server.command(&["serve", "--new-database", "--address-file"]);
    let mut child =
        command.arg(&address).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("a new house", SOON, || address.exists().then_some(()));
    child.kill().expect("killed");
    child.wait().expect("ended");
    server.run();
    assert_eq!(status(&server), 401, "nobody is known in it");
}

#[test]
fn what_a_server_makes_is_for_its_user_alone_and_what_is_not_is_told() {
    let mut server = house();
    fs::create_dir(server.data()).expect("made");
    fs::set_permissions(server.data(), Permissions::from_mode(0o755)).expect("set");
    server.run();
    let names: Vec<String> = fs::read_dir(server.data())
        .expect("the data directory")
        .flatten()
        .map(|entry| {
            let mode = entry.metadata().expect("its facts").permissions().mode();
            let name = entry.file_name().to_string_lossy().into_owned();
            assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
            name
        })
        .collect();
    assert!(
        names.iter().any(|name| name == "lock") && names.iter().any(|name| name == "keyring"),
        "{names:?}"
    );
    assert!(server.log().contains("others on this machine may look into it"), "{}", server.log());
    server.terminate();

    fs::set_permissions(server.data(), Permissions::from_mode(0o700)).expect("set");
    let told = server.log().len();
    server.run();
    assert!(!server.log()[told..].contains("others on this machine"), "{}", server.log());
}

#[test]
fn files_that_a_migration_creates_and_an_older_lock_file_are_for_their_user_alone() {
    let server = house();
    fs::create_dir(server.data()).expect("made");
    fs::set_permissions(server.data(), Permissions::from_mode(0o700)).expect("set");
    for lock in ["lock", "tidings.db.lock"] {
        let lock = server.data().join(lock);
        fs::write(&lock, "").expect("written");
        fs::set_permissions(lock, Permissions::from_mode(0o644)).expect("set");
    }
    let output = server.command(&["migrate", "up"]).output().expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(database(&server).exists());
    for entry in fs::read_dir(server.data()).expect("the data directory").flatten() {
        let mode = entry.metadata().expect("its facts").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.file_name());
    }
}
