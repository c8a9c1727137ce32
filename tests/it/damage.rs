//! A disk that changes bytes, or loses all of a mirror, under a running server: it notices, heals by
//! itself, and no receiver ever hears anything wrong.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::support::{
    api::App,
    dice::Dice,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    repository::git_command,
    server::Server,
    subscriber::Subscriber,
};

/// Bytes flipped under the server, one after another.
const FLIPS: usize = 12;

fn project() -> Project {
    let project = Project::new();
    for file in 0..40 {
        project.write(format!("d{}/f{file}", file % 4), format!("{file}\n").repeat(200).as_bytes());
    }
    project.commit("first");
    project
}

fn packs(server: &Server) -> Vec<PathBuf> {
    let mirrors = fs::read_dir(server.data().join("mirrors")).expect("mirrors");
    let folders = mirrors.filter_map(Result::ok).map(|mirror| mirror.path().join("objects/pack"));
    let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok));
    let paths = files.map(|file| file.path());
    paths.filter(|path| path.extension().is_some_and(|found| found == "pack" || found == "idx")).collect()
}

/// Flips a byte in place; `false` where the file went meanwhile.
fn flip(file: &Path, dice: &mut Dice) -> bool {
    let mut change = || {
        let at = dice.below(file.metadata()?.len().max(1));
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        let file = fs::OpenOptions::new().read(true).write(true).open(file)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ (1 << dice.below(8))], at)
    };
    let changed: std::io::Result<()> = change();
    changed.is_ok()
}

/// Whether git itself finds every pack of the mirrors whole.
fn are_whole(server: &Server) -> bool {
    let indexes: Vec<_> = packs(server)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == "idx"))
        .collect();
    !indexes.is_empty()
        && git_command(Path::new("/"))
            .arg("verify-pack")
            .args(indexes)
            .output()
            .is_ok_and(|done| done.status.success())
}

#[test]
fn flipped_bytes_under_a_running_server_are_healed_and_nobody_hears_anything_wrong() {
    let mut dice = Dice::thrown("bytes flipped under a server");
    let (host, project, subscriber) = (Host::start(), project(), Subscriber::start());
    host.publish(&project, "r.git");
    let mut server = Server::prepare().with("git.scrub_every", "1s").with("housekeeping.interval", "200ms");
    server.run();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("r.git") }));
    app.wait_until_held(&server, &id, &project.head());
    let mut flips = 0;
    for number in 0..FLIPS {
        let files = packs(&server);
        let file = dice.pick(&files).expect("a pack").clone();
        flips += u32::from(flip(&file, &mut dice));
        project.write(format!("d{}/f{number}", number % 4), format!("new {number}\n").as_bytes());
        project.commit("another");
        host.publish(&project, "r.git");
        if number % 3 == 0 {
            app.tell(&server, &id, "resync");
        }
        app.wait_until_held(&server, &id, &project.head());
        subscriber.wait_for_tree(&id, &project.tree("HEAD"));
        eventually("whole mirror", SOON, || are_whole(&server).then_some(()));
    }
    // A resync creates again what is there, which is no fault.
    subscriber.assert_faultless();
    assert!(app.dead_letters(&server).is_empty());
    assert!(flips > 8, "{flips}");
}

#[test]
fn a_mirror_folder_deleted_under_a_running_server_costs_a_fetch_and_no_wrong_event() {
    let (host, project, subscriber) = (Host::start(), project(), Subscriber::start());
    host.publish(&project, "r.git");
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    // In the middle of the first round, and once more while nothing goes on.
    let gate = subscriber.hold_after(10);
    let id = app.watch_with(&server, &json!({ "url": host.url("r.git") }));
    eventually("attempt at the gate", SOON, || (gate.arrived() > 0).then_some(()));
    let mirrors = server.data().join("mirrors");
    for mirror in fs::read_dir(&mirrors).expect("mirrors") {
        server.lose(&mirror.expect("a mirror").path());
    }
    gate.open();
    app.wait_until_held(&server, &id, &project.head());
    subscriber.wait_for_tree(&id, &project.tree("HEAD"));
    server.lose(&mirrors);
    project.remove("d0/f0");
    project.write("d1/f1", b"new\n");
    project.commit("another");
    host.publish(&project, "r.git");
    app.wait_until_held(&server, &id, &project.head());
    subscriber.wait_for_tree(&id, &project.tree("HEAD"));
    subscriber.assert_straight();
    assert!(app.dead_letters(&server).is_empty());
    let deletes = subscriber.applied().iter().filter(|(kind, _)| kind.contains("delete")).count();
    assert_eq!(deletes, 1, "a delete was invented");
}
