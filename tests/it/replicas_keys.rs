//! Keys of the keyring change while several servers share one PostgreSQL database, each with a keyring of its
//! own: none of them stops, whatever befalls one, and every value opens everywhere.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    keys::{run, sealed},
    support::{
        api::App,
        fleet::Fleet,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
        server::Server,
        subscriber::Subscriber,
    },
};

/// How long a lease of these stories lives: a busy machine renews it in time, and a rotation waits longer for a
/// replica that is dead.
const LEASE: Duration = Duration::from_secs(8);
const TOKEN: &str = "a-token-of-the-host";

/// The keyring of a server: the key that seals, and all keys.
fn keyring(server: &Server) -> (String, Vec<String>) {
    let text = fs::read(server.data().join("keyring")).expect("a keyring");
    let file: Value = serde_json::from_slice(&text).expect("JSON");
    let id = |value: &Value| value.as_str().expect("an id").to_owned();
    let keys = file["keys"].as_array().expect("keys").iter().map(|key| id(&key["id"])).collect();
    (id(&file["primary"]), keys)
}

fn rotate(server: &Server) -> String {
    let (code, made, said) = run(server, &["key", "rotate"]);
    assert_eq!(code, Some(0), "{said}");
    made["id"].as_str().expect("an id").to_owned()
}

fn wait_until_sealing_with(fleet: &Fleet, key: &str) {
    eventually("key that seals everywhere", SOON, || {
        fleet.servers.iter().all(|server| keyring(server).0 == key).then_some(())
    });
}

/// A host that wants a token, and what is asked of a server about one of its repositories.
fn private(project: &Project, names: &[&str]) -> (Host, impl Fn(&Host, &str) -> Value) {
    let host = Host::start();
    host.demand_token(TOKEN);
    names.iter().for_each(|name| host.publish(project, name));
    (host, |host: &Host, name: &str| json!({ "url": host.url(name), "token": TOKEN }))
}

#[test]
fn keys_are_rotated_and_retired_while_every_replica_serves() {
    let project = Project::with(&[("file", "1")]);
    let (host, watched) = private(&project, &["o/one", "o/two", "o/three"]);
    let Some(fleet) = Fleet::start(2, LEASE) else { return };
    let [one, two] = &fleet.servers[..] else { panic!("two") };
    let subscribers = [Subscriber::start(), Subscriber::start(), Subscriber::start()];
    let first = App::onboard(one, &subscribers[0]);
    let id = first.watch_with(two, &watched(&host, "o/one"));
    first.wait_until_held(one, &id, &project.head());
    let old = keyring(one).0;
    let refused = run(two, &["key", "retire", &old]);
    assert_eq!(refused.0, Some(65), "{}", refused.2);

    let new = rotate(one);
    assert!(keyring(two).1.contains(&new), "it waited for the other one");
    wait_until_sealing_with(&fleet, &new);
    // Apps with secrets through either, and deliveries of each by the replica that works on them.
    let (second, third) = (App::onboard(two, &subscribers[1]), App::onboard(one, &subscribers[2]));
    let more =
        [second.watch_with(one, &watched(&host, "o/two")), third.watch_with(two, &watched(&host, "o/three"))];
    second.wait_until_held(two, &more[0], &project.head());
    third.wait_until_held(one, &more[1], &project.head());

    let (code, _, said) = run(two, &["key", "reencrypt", "--step", "2"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, _, said) = run(one, &["key", "retire", &old]);
    assert_eq!(code, Some(0), "{said}");
    eventually("keyrings without the old key", SOON, || {
        fleet.servers.iter().all(|server| keyring(server).1 == [new.clone()]).then_some(())
    });
    assert_eq!(sealed(two).len(), 1);
    project.write("file", b"2");
    let head = project.commit("under the new key alone");
    for ((app, id), (name, subscriber)) in [(&first, &id), (&second, &more[0]), (&third, &more[1])]
        .into_iter()
        .zip(["o/one", "o/two", "o/three"].into_iter().zip(&subscribers))
    {
        host.push_main(&project, name);
        app.wait_until_held(two, id, &head);
        subscriber.wait_for_tree(id, &project.tree(&head));
        subscriber.assert_straight();
    }
    for server in &fleet.servers {
        let checked = server.ask_as_admin("GET", "/api/admin/audit/verify").json();
        assert_eq!(checked["faults"], json!([]), "{checked}");
    }
}

#[test]
fn a_replica_that_was_down_during_a_rotation_takes_the_key_when_it_starts() {
    let project = Project::with(&[("file", "1")]);
    let (host, watched) = private(&project, &["o/one"]);
    let Some(mut fleet) = Fleet::start(2, LEASE) else { return };
    let old = keyring(&fleet.servers[1]);
    fleet.servers[1].kill();
    let new = rotate(&fleet.servers[0]);
    assert_eq!(keyring(&fleet.servers[1]), old);
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let id = app.watch_with(&fleet.servers[0], &watched(&host, "o/one"));
    app.wait_until_held(&fleet.servers[0], &id, &project.head());
    let (code, _, said) = run(&fleet.servers[0], &["key", "reencrypt"]);
    assert_eq!(code, Some(0), "{said}");

    fleet.servers[1].run();
    assert_eq!(keyring(&fleet.servers[1]).0, new);
    fleet.servers[0].kill();
    subscriber.model().note_kill();
    project.write("file", b"2");
    let head = project.commit("for the other one alone");
    host.push_main(&project, "o/one");
    app.wait_until_held(&fleet.servers[1], &id, &head);
    subscriber.wait_for_tree(&id, &project.tree(&head));
    subscriber.assert_faultless();
}

#[test]
fn a_replica_that_is_killed_in_the_middle_of_a_rotation_leaves_it_to_be_finished() {
    // So long that the frozen one is waited for.
    let Some(mut fleet) = Fleet::start(2, Duration::from_secs(60)) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let old = keyring(&fleet.servers[0]).0;
    fleet.servers[1].signal(Signal::STOP);
    let token = fs::read_to_string(fleet.servers[0].data().join("admin-token")).expect("an admin token");
    let mut command = fleet.servers[0].command(&["key", "rotate"]);
    command.env("TIDINGS_TOKEN", token.trim()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("TIDINGS_SERVER", format!("http://{}", fleet.servers[0].address()));
    let mut asking = command.spawn().expect("it runs");
    let offered = eventually("key that is offered", SOON, || keyring(&fleet.servers[0]).1.get(1).cloned());
    assert_eq!(keyring(&fleet.servers[0]).0, old, "nothing is sealed with it while one does not answer");
    fleet.servers[0].kill();
    assert!(!asking.wait().expect("it ended").success());
    fleet.servers[1].signal(Signal::CONT);
    fleet.servers[0].run();
    for server in &fleet.servers {
        assert_eq!(app.ask(server, "GET", "/api/app", None).status, 200);
    }
    assert_eq!(rotate(&fleet.servers[1]), offered);
    wait_until_sealing_with(&fleet, &offered);
    assert_eq!(keyring(&fleet.servers[1]).1, [old, offered]);
}

#[test]
fn a_keyring_that_the_settings_give_is_copied_once_and_checked_as_any() {
    let other = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let given = folder.path().join("keyring");
    // As a secret is mounted: others may read it.
    fs::copy(other.data().join("keyring"), &given).expect("copied");
    fs::set_permissions(&given, fs::Permissions::from_mode(0o444)).expect("its mode");
    let whole = fs::read(&given).expect("a keyring");
    let mut server = Server::prepare().with("keyring_file", given.to_str().expect("a path"));
    let found = |server: &Server| {
        let output = server.command(&["doctor", "--json"]).output().expect("it ran");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let of_keyring = |finding: &&Value| finding["check"] == "keyring" && finding["status"] != "ok";
        said["findings"].as_array().expect("findings").iter().filter(of_keyring).count()
    };
    fs::DirBuilder::new().mode(0o700).recursive(true).create(server.data()).expect("a folder");
    assert_eq!(found(&server), 0);
    server.run();
    let path = server.data().join("keyring");
    assert_eq!(fs::read(&path).expect("a keyring"), whole);
    assert_eq!(fs::metadata(&path).expect("its facts").permissions().mode() & 0o777, 0o600);
    rotate(&server);
    let own = fs::read(&path).expect("a keyring");
    assert_eq!(found(&server), 1, "what is given lacks the key that seals");

    // A data directory that has one takes no other.
    fs::remove_file(&given).expect("removed");
    fs::write(&given, "garbage").expect("written");
    assert_eq!(found(&server), 1);
    assert!(server.terminate().0.success());
    server.run();
    assert_eq!(fs::read(&path).expect("a keyring"), own);

    let mut fresh = Server::prepare().with("keyring_file", given.to_str().expect("a path"));
    fresh.spawn();
    assert_eq!(fresh.ended().code(), Some(78), "{}", fresh.log());
    assert!(!fresh.data().join("keyring").exists());
}
