//! Artifacts in a bucket, with the real server and an S3 server that checks each signature with another
//! implementation: bytes come back as they were, in parts and over broken connections, faults are said
//! clearly, nothing is left behind, and no database touches the objects of another one.

use std::{fs, io::Write, net::TcpStream};

use serde_json::{Value, json};

use crate::support::{
    api::App,
    bucket::{S3, SECRET},
    dice::Dice,
    http::{self, Reply},
    leaks::{everything_below, search},
    patience::{SOON, eventually},
    server::Server,
    subscriber::Subscriber,
};

/// An id of 1970.
const OLD: &str = "art_00000000010000000000000000";

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

fn create(server: &Server, app: &App) -> String {
    let made = app.ask(server, "POST", "/api/tasks", Some(&json!({ "command": "build", "payload": 1 })));
    assert_eq!(made.status, 201, "{}", made.json());
    made.json()["id"].as_str().expect("an id").to_owned()
}

fn send(server: &Server, app: &App, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let length = if method == "PUT" { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         {length}{headers}\r\n",
        app.token
    );
    http::raw(server.address(), &[head.as_bytes(), body].concat()).expect("an answer")
}

fn path(task: &str, name: &str) -> String {
    format!("/api/tasks/{task}/artifacts/{name}")
}

fn put(server: &Server, app: &App, task: &str, name: &str, body: &[u8]) -> Reply {
    send(server, app, "PUT", &path(task, name), "content-type: text/x-story\r\n", body)
}

fn get(server: &Server, app: &App, task: &str, name: &str) -> Reply {
    send(server, app, "GET", &path(task, name), "", b"")
}

fn noise(count: usize) -> Vec<u8> {
    Dice::of(11).bytes(count)
}

/// The objects below a prefix.
fn objects(s3: &S3, prefix: &str) -> Vec<String> {
    s3.keys().into_iter().filter(|key| key.starts_with(&format!("{prefix}objects/"))).collect()
}

fn code(reply: &Reply) -> (u16, Value) {
    (reply.status, reply.json()["type"].clone())
}

#[test]
fn artifacts_come_back_from_a_bucket_whole_in_ranges_and_in_parts() {
    let Some(s3) = S3::start() else { return };
    let mut server = s3.keeps_for(Server::prepare(), "tidings/");
    server.run();
    let app = app(&server);
    let task = create(&server, &app);
    // Empty, small, as large as a part, larger than one, and larger than two.
    let sizes = [0, 1, 70_000, 5 << 20, (5 << 20) + 1, 12 << 20];
    let bytes = noise(12 << 20);
    for size in sizes {
        let name = format!("n{size}");
        let stored = put(&server, &app, &task, &name, &bytes[..size]);
        assert_eq!(stored.status, 201, "{size}: {}", stored.json());
        let read = get(&server, &app, &task, &name);
        assert!(read.status == 200 && read.message.body == bytes[..size], "{size}: {}", read.status);
        assert_eq!(read.message.header("content-type"), Some("text/x-story"));
    }
    assert_eq!(objects(&s3, "tidings/").len(), sizes.len());
    assert!(s3.uploads().is_empty(), "parts were put together");
    let part = send(&server, &app, "GET", &path(&task, "n12582912"), "range: bytes=5242870-5242889\r\n", b"");
    assert!(part.status == 206 && part.message.body == bytes[5_242_870..5_242_890]);
    let part = send(&server, &app, "GET", &path(&task, "n70000"), "range: bytes=-5\r\n", b"");
    assert!(part.status == 206 && part.message.body == bytes[69_995..70_000]);
    // Replaced and removed: the object before goes.
    assert_eq!(put(&server, &app, &task, "n1", b"other").status, 200);
    assert_eq!(get(&server, &app, &task, "n1").message.body, b"other");
    assert_eq!(send(&server, &app, "DELETE", &path(&task, "n0"), "", b"").status, 204);
    eventually("objects without a row are gone", SOON, || {
        (objects(&s3, "tidings/").len() == sizes.len() - 1).then_some(())
    });
    // The body has another digest than Content-Digest says: no artifact is shown.
    let wrong = "content-digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\r\n";
    let refused = send(&server, &app, "PUT", &path(&task, "wrong"), wrong, b"some bytes");
    assert_eq!(refused.status, 400, "{}", refused.json());
    assert_eq!(get(&server, &app, &task, "wrong").status, 404);
    assert_eq!(objects(&s3, "tidings/").len(), sizes.len() - 1, "its last bytes were not sent");
    let faults: Vec<Value> =
        s3.requests().into_iter().filter(|request| !request["fault"].is_null()).collect();
    assert!(faults.is_empty(), "each signature is right: {faults:?}");
    // A restart changes nothing, and a missing object says so.
    server.kill();
    server.run();
    assert!(get(&server, &app, &task, "n70000").message.body == bytes[..70_000]);
}

#[test]
fn a_large_upload_to_a_bucket_is_never_whole_in_memory() {
    let Some(s3) = S3::start() else { return };
    let mut server = s3.keeps_for(Server::prepare(), "");
    server.run();
    let app = app(&server);
    let task = create(&server, &app);
    let bytes = noise(1 << 20).repeat(64);
    assert_eq!(put(&server, &app, &task, "small", &bytes[..6 << 20]).status, 201);
    assert_eq!(get(&server, &app, &task, "small").status, 200);
    let before = server.peak_resident();
    assert_eq!(put(&server, &app, &task, "large", &bytes).status, 201);
    assert!(get(&server, &app, &task, "large").message.body == bytes);
    let more = server.peak_resident().saturating_sub(before);
    assert!(more < 32 << 20, "{more} bytes more for 64 MiB");
}

#[test]
fn faults_of_the_bucket_are_repeated_or_said_and_nothing_else_stops() {
    let Some(mut s3) = S3::start() else { return };
    let mut server = s3.keeps_for(Server::prepare(), "p/");
    server.run();
    let app = app(&server);
    let task = create(&server, &app);
    let bytes = noise(3 << 20);
    assert_eq!(put(&server, &app, &task, "kept", &bytes).status, 201);
    // Reads and removals are repeated; a read goes on where the connection broke.
    s3.behave(&json!({ "fail": [["GET", 503], ["GET", 500]], "cut": 3 }));
    assert!(get(&server, &app, &task, "kept").message.body == bytes, "over two failures and three cuts");
    let ranges: Vec<Value> = s3.requests().iter().map(|request| request["range"].clone()).collect();
    assert!(ranges.contains(&json!("bytes=1572864-3145727")), "the rest alone was asked for: {ranges:?}");
    // An upload is not repeated by the server: its client is told to.
    s3.behave(&json!({ "fail": [["PUT", 503]] }));
    let refused = put(&server, &app, &task, "again", b"some bytes");
    assert_eq!(code(&refused), (503, json!("urn:tidings:problem:unavailable")));
    assert_eq!(refused.message.header("retry-after"), Some("5"));
    assert_eq!(put(&server, &app, &task, "again", b"some bytes").status, 201);
    // A key that may not: the log says what, and the answer does not.
    s3.behave(&json!({ "fail": [["PUT", 403]] }));
    let refused = put(&server, &app, &task, "no", b"some bytes");
    assert_eq!(refused.status, 503, "{}", refused.json());
    assert!(!refused.json().to_string().contains("AccessDenied"), "{}", refused.json());
    let line = "PutObject of the bucket stories at 127.0.0.1 failed: it says 403 AccessDenied";
    eventually(line, SOON, || server.log().contains(line).then_some(()));
    // The server is away: artifacts are not answered, everything else is.
    s3.kill();
    assert_eq!(get(&server, &app, &task, "kept").status, 503);
    assert_eq!(put(&server, &app, &task, "away", b"x").status, 503);
    assert_eq!(app.ask(&server, "GET", &format!("/api/tasks/{task}"), None).status, 200);
    server.kill();
    server.run();
    create(&server, &app);
    s3.run();
    let stored = eventually("the bucket answers again", SOON, || {
        let stored = put(&server, &app, &task, "back", b"back");
        (stored.status == 201).then_some(stored)
    });
    assert_eq!(stored.status, 201);
    assert_eq!(get(&server, &app, &task, "back").message.body, b"back");
    // What the bucket lost is missing, and not a failure.
    assert_eq!(code(&get(&server, &app, &task, "kept")), (410, json!("urn:tidings:problem:artifact-gone")));
}

#[test]
fn what_crashes_leave_in_a_bucket_is_swept_and_nothing_else() {
    let Some(s3) = S3::start() else { return };
    let mut server = s3.keeps_for(Server::prepare(), "a/").with("housekeeping.interval", "300ms");
    server.run();
    let app = app(&server);
    let task = create(&server, &app);
    assert_eq!(put(&server, &app, &task, "kept", b"kept").status, 201);
    let kept = objects(&s3, "a/");
    // The server dies in the middle of an upload in parts.
    let body = noise(11 << 20);
    let mut upload = TcpStream::connect(server.address()).expect("connected");
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        path(&task, "half"),
        app.token,
        body.len()
    );
    upload.write_all(head.as_bytes()).expect("sent");
    upload.write_all(&body[..7 << 20]).expect("sent");
    eventually("an upload in parts", SOON, || (!s3.uploads().is_empty()).then_some(()));
    server.kill();
    let fresh = s3.uploads();
    server.run();
    s3.plant(&format!("a/objects/{OLD}"), "orphan");
    s3.plant("a/objects/no-artifact", "of-somebody-else");
    s3.plant(&format!("b/objects/{OLD}"), "of-another-prefix");
    eventually("a swept orphan", SOON, || (!s3.keys().contains(&format!("a/objects/{OLD}"))).then_some(()));
    for key in ["a/objects/no-artifact".to_owned(), format!("b/objects/{OLD}"), kept[0].clone()] {
        assert!(s3.keys().contains(&key), "{key} stays");
    }
    assert_eq!(s3.uploads(), fresh, "an upload that may still run stays");
    assert_eq!(get(&server, &app, &task, "half").status, 404);
    assert_eq!(get(&server, &app, &task, "kept").message.body, b"kept");
}

#[test]
fn two_databases_with_one_place_for_artifacts_are_refused() {
    // Two databases name the same folder.
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("shared");
    let shared = dir.to_str().expect("a path").to_owned();
    let mut first = Server::prepare().with("artifacts.dir", &shared);
    first.run();
    let app = self::app(&first);
    let task = create(&first, &app);
    assert_eq!(put(&first, &app, &task, "mine", b"mine").status, 201);
    let mut second = Server::prepare().with("artifacts.dir", &shared);
    second.spawn();
    assert_eq!(second.ended().code(), Some(78), "{}", second.log());
    let log = second.log();
    for words in ["holds artifacts of another database", "Set artifacts.dir to another place", "/.database"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let doctor = second.command(&["doctor"]).output().expect("run");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(!doctor.status.success() && said.contains("belongs to another database"), "{said}");
    // The same database again, and another one after the mark is gone.
    first.kill();
    first.run();
    assert_eq!(get(&first, &app, &task, "mine").message.body, b"mine");
    first.kill();
    fs::remove_file(dir.join(".database")).expect("removed");
    second.run();
    second.kill();
    first.spawn();
    assert_eq!(first.ended().code(), Some(78), "the folder is the second one's now: {}", first.log());

    // A prefix of a bucket.
    let Some(s3) = S3::start() else { return };
    let mut first = s3.keeps_for(Server::prepare(), "x/");
    first.run();
    let mut second = s3.keeps_for(Server::prepare(), "x/");
    second.spawn();
    assert_eq!(second.ended().code(), Some(78), "{}", second.log());
    let log = second.log();
    assert!(
        log.contains("holds artifacts of another database") && log.contains("artifacts.s3_prefix"),
        "{log}"
    );
    let mut second = s3.keeps_for(second, "y/");
    second.run();
    assert_eq!(s3.keys(), ["x/database", "y/database"]);
}

#[test]
fn the_doctor_looks_at_the_bucket_and_no_secret_is_shown() {
    let Some(mut s3) = S3::start() else { return };
    let mut server = s3.keeps_for(Server::prepare(), "d/").with("telemetry.log_filter", "trace");
    server.run();
    let app = app(&server);
    let task = create(&server, &app);
    assert_eq!(put(&server, &app, &task, "out", b"bytes").status, 201);
    assert_eq!(get(&server, &app, &task, "out").message.body, b"bytes");
    let doctor = |server: &Server| {
        let output = server.command(&["doctor"]).output().expect("run");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, said) = doctor(&server);
    assert!(
        said.contains("the bucket stories at 127.0.0.1 (prefix \"d/\") can be read and belongs to"),
        "{said}"
    );
    s3.behave(&json!({ "fail": [["GET", 403]] }));
    let (is_well, said) = doctor(&server);
    assert!(
        !is_well && said.contains("ListObjectsV2 of the bucket stories at 127.0.0.1 failed: it says 403"),
        "{said}"
    );
    s3.kill();
    let (is_well, said) = doctor(&server);
    assert!(!is_well && said.contains("artifacts of tasks cannot be read or stored"), "{said}");
    let settings = server.ask_as_admin("GET", "/api/admin/settings").json().to_string();
    assert!(settings.contains("s3_secret_key") && !settings.contains(SECRET), "{settings}");
    let log = server.log();
    for secret in [SECRET, "X-Amz-Signature"] {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
    search("data directory", &everything_below(&server.data()), &[("secret key".to_owned(), SECRET.into())]);
}
