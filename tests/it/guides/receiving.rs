//! The receivers of docs/receiving.md: each gets real deliveries of files that are hard to keep, and
//! requests that nobody should send.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings::sinks::signature::{SigningKey, standard};
use tidings_actors::ports::Clock;

use super::{Group, PAGE, blocks, free_port, is_there, page, receiver::Receiver};
use crate::support::{
    api::App,
    http,
    patience::{SOON, eventually},
    peer::{Peer, Seen, Word},
    project::{Project, sha256},
    sender::WallClock,
    server::Server,
    subscriber::{KEY, Subscriber},
};

/// Content of larger files is left out, in bytes.
const MAX_SIZE: usize = 3_500_000;

/// A file as it lies on the disk: how it may be used, and the hash of its content.
type Facts = (&'static str, String);

/// A receiver that keeps the folder `copy` in its home.
struct Running {
    home: TempDir,
    address: SocketAddr,
    /// Ends with the story.
    _process: Option<Group>,
    peer: Option<Peer>,
}

impl Running {
    /// Starts the program of a block of the guide; `None` where the machine lacks the language.
    fn start(language: &str, file: &str, command: &[&str]) -> Option<Self> {
        if !is_there(command[0]) {
            println!("skipped: there is no {} on this machine", command[0]);
            return None;
        }
        let home = TempDir::new().expect("a folder");
        let block = blocks(&page("receiving.md")).into_iter().find(|(words, _)| words == language);
        fs::write(home.path().join(file), block.expect("a receiver").1).expect("written");
        let port = free_port();
        let mut receiver = Command::new(command[0]);
        receiver.args(&command[1..]).arg(file).current_dir(home.path());
        receiver.env("HOME", home.path()).env("PORT", port.to_string()).env("SECRET", KEY);
        let process = Group::start(&mut receiver, &home.path().join("log"));
        let address = (Ipv4Addr::LOCALHOST, port).into();
        eventually("receiver", PAGE, || TcpStream::connect(address).ok());
        Some(Self { home, address, _process: Some(process), peer: None })
    }

    /// Serves the receiver for Rust, which a story compares with the guide.
    fn of_rust() -> Self {
        let home = TempDir::new().expect("a folder");
        let receiver = Mutex::new(Receiver::new(KEY, home.path().join("copy")));
        let peer = Peer::plain(move |seen: &Seen| {
            let headers = seen.message.headers.iter().filter_map(|(name, value)| {
                Some((name.parse::<::http::HeaderName>().ok()?, value.parse().ok()?))
            });
            let mut receiver = receiver.lock().expect("it does not panic");
            let (status, text) = receiver.receive(&seen.path, &headers.collect(), &seen.message.body);
            Word::Say(status, text)
        });
        let address = peer.url().trim_start_matches("http://").parse().expect("an address");
        Self { home, address, _process: None, peer: Some(peer) }
    }

    fn copy(&self) -> PathBuf {
        self.home.path().join("copy")
    }

    /// Waits until the folder is the work tree without these paths.
    fn wait_for(&self, project: &Project, without: &[&str]) {
        let mut expected = BTreeMap::new();
        walk(&project.path(), &project.path(), &mut expected);
        expected.retain(|path, _| {
            !path.starts_with(".git") && !without.iter().any(|left| path == Path::new(left))
        });
        for facts in expected.values_mut().filter(|(kind, _)| *kind == "link") {
            facts.0 = "644";
        }
        let is_equal = || {
            let mut found = BTreeMap::new();
            walk(&self.copy(), &self.copy(), &mut found);
            if found == expected { Ok(()) } else { Err(found) }
        };
        let until = std::time::Instant::now() + SOON;
        while let Err(found) = is_equal() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            assert!(std::time::Instant::now() < until, "{found:#?}\nis not\n{expected:#?}\n{log}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// The status of a request, which is signed where there is a key.
    fn post(&self, path: &str, key: Option<&str>, body: &Value) -> u16 {
        let (body, seconds) = (body.to_string(), WallClock.now().0 / 1000);
        let keys: Vec<SigningKey> = key.into_iter().map(SigningKey::of_text).collect();
        let signature = standard(&keys, "msg_1", seconds, body.as_bytes());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nwebhook-id: msg_1\r\nwebhook-timestamp: {seconds}\r\n\
             webhook-signature: {signature}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        http::raw(self.address, request.as_bytes()).expect("an answer").status
    }
}

/// All files below a folder, by path.
fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Facts>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let Ok(facts) = fs::symlink_metadata(&path) else { continue };
        if facts.is_dir() {
            walk(root, &path, found);
            continue;
        }
        let (kind, content) = if facts.is_symlink() {
            ("link", fs::read_link(&path).map(|target| target.as_os_str().as_bytes().to_vec()))
        } else {
            (if facts.permissions().mode() & 0o100 == 0 { "644" } else { "755" }, fs::read(&path))
        };
        let inside = path.strip_prefix(root).expect("inside").to_owned();
        found.insert(inside, (kind, sha256(&content.unwrap_or_default())));
    }
}

/// Bytes that are no text.
fn binary(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 31 + index / 251 + seed) % 256).expect("a byte")).collect()
}

/// Sends a receiver everything that is hard to keep, one by one and in batches, and what is not genuine.
fn receive(running: &Running) {
    let server = Server::start();
    let unused = Subscriber::start();
    let base_url = json!({ "base_url": format!("http://{}", running.address) });
    let app = App::onboard_with(&server, &unused, &base_url);
    let project = Project::with(&[("README.md", "naïve\n"), ("docs/deep/page", "1"), ("gone", "1")]);
    for (path, content) in
        [("small.bin", binary(600, 0)), ("mib1.bin", binary(1_048_577, 1)), ("big.bin", binary(3_000_000, 2))]
    {
        project.write(path, &content);
    }
    project.write("huge.bin", &binary(MAX_SIZE + 1, 3));
    project.write("empty", b"");
    project.write("turns", b"a file");
    project.write("run.sh", b"#!/bin/sh\n");
    project.set_executable("run.sh", true);
    project.write_raw(b"caf\xe9/na\xefve.txt", b"latin-1");
    link(&project, "/etc/passwd", "link");
    link(&project, "..", "up");
    let head = project.commit("every kind");
    let wish = json!({ "url": project.url(), "symlinks": "send", "max_size": MAX_SIZE });
    let id = app.watch_with(&server, &wish);
    app.wait_until_held(&server, &id, &head);
    running.wait_for(&project, &["huge.bin"]);
    let noted = fs::read_to_string(running.home.path().join("left-out.txt")).expect("a list");
    let url = noted.split(' ').next().expect("an address");
    assert!(noted.contains("huge.bin") && url.starts_with("/api/repositories/"), "{noted}");
    assert_eq!(app.ask(&server, "GET", url, None).status, 200, "{url}");

    let batch = json!({ "delivery": { "batch": { "count": 50, "linger_ms": 0 } } });
    assert_eq!(app.ask(&server, "PATCH", "/api/app", Some(&batch)).status, 200);
    project.remove("gone");
    project.remove("docs");
    project.write("docs", b"a file where a folder was");
    project.remove("empty");
    project.write("empty/not", b"a folder where a file was");
    project.remove("turns");
    link(&project, "README.md", "turns");
    project.remove("link");
    project.write("link", b"a file where a link was");
    project.write_raw(b"caf\xe9/na\xefve.txt", b"still latin-1");
    project.write("small.bin", &binary(MAX_SIZE + 9, 4));
    project.write("big.bin", &binary(2_900_000, 5));
    project.set_executable("run.sh", false);
    let head = project.commit("updates, deletes and changes of type");
    app.wait_until_held(&server, &id, &head);
    running.wait_for(&project, &["huge.bin", "small.bin"]);
    assert_eq!(app.dead_letters(&server), Vec::<Value>::new());

    refuses_what_nobody_should_send(running);
    running.wait_for(&project, &["huge.bin", "small.bin"]);

    // Somebody put a link there that leads out of the folder.
    let outside = running.home.path().join("outside");
    fs::create_dir(&outside).expect("made");
    symlink(&outside, running.copy().join("trap")).expect("a link");
    project.write("trap/file", b"1");
    let head = project.commit("through a link");
    app.wait_until_held(&server, &id, &head);
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "it wrote through a link");
    assert_eq!(app.dead_letters(&server).len(), 1, "it says so");
}

fn link(project: &Project, target: &str, path: &str) {
    symlink(target, project.path().join(OsStr::new(path))).expect("a link");
}

/// None of these has an effect, and none ends the receiver.
fn refuses_what_nobody_should_send(running: &Running) {
    let change = |file: &Value| {
        let event =
            json!({ "id": "dlv_1", "type": "file.created", "cursor": "cur_1", "round": 7, "position": 0 });
        json!({ "file": file, "event": event })
    };
    let forged = change(&json!({ "path": "forged", "sha": sha256(b"1"), "content": "1" }));
    assert_eq!(running.post("/create", Some("another key of the same length!!"), &forged), 401);
    assert_eq!(running.post("/create", None, &forged), 401);
    assert_eq!(running.post("/test", Some(KEY), &json!({})), 204);
    for path in ["/nothing", "/", "/createx", "/hook/create"] {
        assert_eq!(running.post(path, Some(KEY), &forged), 404, "{path}");
    }
    for path in ["../outside", "/outside", "a//b", "a/./b", ".", "", "a\u{0}b"] {
        let file = json!({ "path": path, "sha": sha256(b"1"), "content": "1" });
        assert_eq!(running.post("/create", Some(KEY), &change(&file)), 422, "{path:?}");
    }
    for body in [
        json!({}),
        json!([]),
        json!(null),
        json!({ "file": {} }),
        json!({ "file": null, "event": null }),
        change(&json!({})),
        change(&json!({ "path": "x", "content": "1" })),
        change(&json!({ "path": "x", "content": "1", "sha": sha256(b"2") })),
        change(&json!({ "path": "x", "content": "?", "content_encoding": "base64", "sha": "" })),
    ] {
        let status = running.post("/create", Some(KEY), &body);
        assert!([400, 422].contains(&status), "{status} to {body}");
    }
    let chunk = |id: &str, index: u64, content: &str| {
        let sha = sha256(b"\xff1\xff2");
        running.post(
            "/create",
            Some(KEY),
            &change(&json!({
                "path": "joined", "sha": sha, "content": content, "content_encoding": "base64",
                "chunk": { "id": id, "index": index, "total": 2 },
            })),
        )
    };
    let joined = running.copy().join("joined");
    assert_eq!(chunk("a", 1, "/zI="), 409, "its first chunk is missing");
    assert_eq!(chunk("a", 0, "AAAA"), 204);
    assert_eq!(chunk("b", 1, "/zI="), 409, "of another attempt");
    assert_eq!(chunk("c", 0, "/zE="), 204);
    assert!(!joined.exists(), "it is not whole yet");
    assert_eq!(chunk("c", 1, "/zI="), 204);
    assert_eq!(fs::read(&joined).expect("a file"), b"\xff1\xff2");
    let late = json!({
        "file": { "path": "joined" },
        "event": { "id": "dlv_0", "type": "file.deleted", "cursor": "cur_1", "round": 6, "position": 3 },
    });
    assert_eq!(running.post("/delete", Some(KEY), &late), 204);
    assert!(joined.exists(), "what comes late has no effect");
    makes_room(running);
    let mut last = late;
    last["event"]["round"] = 8.into();
    assert_eq!(running.post("/delete", Some(KEY), &last), 204);
    assert!(!joined.exists());
}

/// A complete resync names no deletes: an older file may be in the way of a new one.
fn makes_room(running: &Running) {
    let create = |path: &str, round: u64| {
        let file = json!({ "path": path, "sha": sha256(b"1"), "content": "1" });
        let event = json!({ "id": "dlv_1", "type": "file.created", "cursor": "cur_2", "round": round, "position": 0 });
        running.post("/create", Some(KEY), &json!({ "file": file, "event": event }))
    };
    let way = running.copy().join("way");
    for (round, path, is_file) in [(1, "way", true), (2, "way/in/here", false), (3, "way", true)] {
        assert_eq!(create(path, round), 204, "{path} of round {round}");
        assert_eq!(way.is_file(), is_file, "{path} of round {round}");
    }
    fs::remove_file(way).expect("nothing else is there");
}

#[test]
fn the_receiver_in_python_receives() {
    let running = Running::start("python", "receiver.py", &["python3"]);
    running.iter().for_each(receive);
}

#[test]
fn the_receiver_in_javascript_receives() {
    let running = Running::start("javascript", "receiver.js", &["node"]);
    running.iter().for_each(receive);
}

#[test]
fn the_receiver_in_go_receives() {
    let running = Running::start("go", "receiver.go", &["go", "run"]);
    running.iter().for_each(receive);
}

#[test]
fn the_receiver_in_rust_receives() {
    let (_, block) =
        blocks(&page("receiving.md")).into_iter().find(|(words, _)| words == "rust").expect("a block");
    let source = include_str!("receiver.rs").replace("pub(super) ", "pub ");
    assert!(source.ends_with(&block), "docs/receiving.md shows another receiver than is tested:\n{block}");
    let running = Running::of_rust();
    receive(&running);
    let seen = running.peer.as_ref().expect("it is served here").seen();
    assert!(seen.iter().any(|seen| seen.path == "/batch"), "batches were sent");
}

/// The receiver that knows `/resync` and `/synced` drops what a complete resync did not name.
#[test]
fn the_receiver_in_python_drops_what_a_complete_resync_does_not_name() {
    let Some(running) = Running::start("python", "receiver.py", &["python3"]) else { return };
    let server = Server::start();
    let unused = Subscriber::start();
    let wish = json!({
        "base_url": format!("http://{}", running.address), "delivery": { "resync": true, "synced": true },
    });
    let app = App::onboard_with(&server, &unused, &wish);
    let project = Project::with(&[("kept", "1"), ("docs/page", "1")]);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    running.wait_for(&project, &[]);
    fs::create_dir(running.copy().join("old")).expect("made");
    for path in ["stale", "old/page", "docs/old"] {
        fs::write(running.copy().join(path), "what nobody names").expect("written");
    }
    let resync = json!({ "complete": true });
    let reply = app.ask(&server, "POST", &format!("/api/repositories/{id}/resync"), Some(&resync));
    assert_eq!(reply.status, 202, "{}", reply.json());
    running.wait_for(&project, &[]);
}
