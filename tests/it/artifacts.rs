//! Artifacts of tasks, with the real server and a real folder: bytes come back as they were, what may not be
//! kept is refused before it is sent, kills leave nothing that anyone sees, and nobody reaches what is not
//! theirs.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    api::App,
    dice::Dice,
    http::{self, Reply},
    patience::{SOON, eventually, eventually_or},
    server::Server,
    subscriber::Subscriber,
};

/// The id of an upload that began in 1970.
const OLD: &str = "art_00000000010000000000000000";

fn app(server: &Server) -> App {
    App::onboard(server, &Subscriber::start())
}

fn create(server: &Server, app: &App, command: &str) -> String {
    let made = app.ask(server, "POST", "/api/tasks", Some(&json!({ "command": command, "payload": 1 })));
    assert_eq!(made.status, 201, "{}", made.json());
    made.json()["id"].as_str().expect("an id").to_owned()
}

fn claim(server: &Server, app: &App, command: &str) -> String {
    let wanted = json!({ "commands": [command], "claim_seconds": 600, "wait_seconds": 20 });
    let given = app.ask(server, "POST", "/api/tasks/claim", Some(&wanted)).json();
    given["tasks"][0]["token"].as_str().expect("a task").to_owned()
}

/// The head of a request; `length`: that of its body.
fn head(token: &str, method: &str, path: &str, headers: &[(&str, &str)], length: Option<usize>) -> String {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: stories\r\nconnection: close\r\nauthorization: Bearer {token}\r\n"
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length {
        head += &format!("content-length: {length}\r\n");
    }
    head + "\r\n"
}

fn send(
    server: &Server,
    token: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let length = (method == "PUT").then_some(body.len());
    let mut request = head(token, method, path, headers, length).into_bytes();
    request.extend_from_slice(body);
    http::raw(server.address(), &request).expect("an answer")
}

fn path(task: &str, name: &str) -> String {
    format!("/api/tasks/{task}/artifacts/{name}")
}

fn put(server: &Server, app: &App, task: &str, name: &str, body: &[u8]) -> Reply {
    send(server, &app.token, "PUT", &path(task, name), &[("content-type", "text/x-story")], body)
}

fn get(server: &Server, app: &App, task: &str, name: &str, headers: &[(&str, &str)]) -> Reply {
    send(server, &app.token, "GET", &path(task, name), headers, b"")
}

fn names(server: &Server, app: &App, task: &str) -> Vec<String> {
    let list = app.ask(server, "GET", &format!("/api/tasks/{task}/artifacts"), None);
    assert_eq!(list.status, 200, "{}", list.json());
    let shown = app.ask(server, "GET", &format!("/api/tasks/{task}"), None).json();
    assert_eq!(shown["artifacts"], list.json()["items"], "the task shows the same");
    let items = list.json()["items"].as_array().cloned().expect("a list");
    items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
}

/// The files below a folder, without the mark of its database.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).filter(|path| !path.ends_with(".database"));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn folder(server: &Server) -> PathBuf {
    server.data().join("artifacts")
}

/// Waits until the folder of the server has this many files, which is said by `what`.
fn wait_for_files(server: &Server, count: usize, what: &str) {
    let look = || (files(&folder(server)).len() == count).then_some(());
    eventually_or(what, SOON, look, || format!("but {:?}", files(&folder(server))));
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that no compression makes small.
fn noise(count: usize) -> Vec<u8> {
    Dice::of(7).bytes(count)
}

fn problem(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    let code = body["type"].as_str().unwrap_or_default().replace("urn:tidings:problem:", "");
    (reply.status, code)
}

fn detail(reply: &Reply) -> String {
    reply.json()["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_artifact_comes_back_byte_for_byte_whole_and_in_parts() {
    let mut server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, "build");
    let bytes = noise(3 << 20);
    let made = put(&server, &app, &task, "out.bin", &bytes);
    assert_eq!(made.status, 201, "{}", made.json());
    let shown = made.json();
    assert_eq!((&shown["name"], &shown["bytes"]), (&json!("out.bin"), &json!(3 << 20)));
    assert_eq!(
        (&shown["sha256"], &shown["content_type"]),
        (&json!(hexadecimal(&bytes)), &json!("text/x-story"))
    );
    assert_eq!(names(&server, &app, &task), ["out.bin"]);

    server.kill();
    server.run();
    let whole = get(&server, &app, &task, "out.bin", &[]);
    assert!(whole.status == 200 && whole.message.body == bytes, "{}", whole.status);
    let tag = format!("\"{}\"", hexadecimal(&bytes));
    let digest = format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(&bytes)));
    for (name, value) in [
        ("etag", tag.as_str()),
        ("repr-digest", digest.as_str()),
        ("content-type", "text/x-story"),
        ("content-disposition", "attachment; filename=\"out.bin\""),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-cache"),
    ] {
        assert_eq!(whole.message.header(name), Some(value), "{name}");
    }
    for (range, wanted) in [
        ("bytes=0-0", 0..1),
        ("bytes=65530-65550", 65_530..65_551),
        ("bytes=3145720-", 3_145_720..3_145_728),
        ("bytes=-5", 3_145_723..3_145_728),
        ("bytes=3000000-99999999", 3_000_000..3_145_728),
    ] {
        let part = get(&server, &app, &task, "out.bin", &[("range", range)]);
        assert!(part.status == 206 && part.message.body == bytes[wanted.clone()], "{range}: {}", part.status);
        let told = format!("bytes {}-{}/3145728", wanted.start, wanted.end - 1);
        assert_eq!(part.message.header("content-range"), Some(told.as_str()));
    }
    let beyond = get(&server, &app, &task, "out.bin", &[("range", "bytes=3145728-")]);
    assert_eq!(problem(&beyond), (416, "range-not-satisfiable".into()));
    assert_eq!(beyond.message.header("content-range"), Some("bytes */3145728"));
    let known = get(&server, &app, &task, "out.bin", &[("if-none-match", &tag)]);
    assert_eq!((known.status, known.message.body.len()), (304, 0));
    let head = only_head(&server, &app, &path(&task, "out.bin"));
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 3145728"), "{head}");

    let again = put(&server, &app, &task, "out.bin", b"");
    assert_eq!((again.status, &again.json()["bytes"]), (200, &json!(0)), "it is replaced");
    assert_eq!(get(&server, &app, &task, "out.bin", &[]).message.body, b"");
    let stale = get(&server, &app, &task, "out.bin", &[("if-none-match", &tag)]);
    assert_eq!(stale.status, 200);
    wait_for_files(&server, 1, "the object before is gone");
    let gone = app.ask(&server, "DELETE", &path(&task, "out.bin"), None);
    assert_eq!(gone.status, 204);
    assert_eq!(problem(&get(&server, &app, &task, "out.bin", &[])), (404, "artifact-not-found".into()));
    wait_for_files(&server, 0, "its object is gone too");
    assert!(names(&server, &app, &task).is_empty());
}

/// The whole answer to `HEAD`, which ends with the connection.
fn only_head(server: &Server, app: &App, path: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("connected");
    stream.write_all(head(&app.token, "HEAD", path, &[], None).as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.ends_with("\r\n\r\n"), "no body: {text:?}");
    text
}

/// The answer to a head and a part of its body. Nothing more is sent before it.
fn answer_to(server: &Server, request: &[u8]) -> Reply {
    http::raw(server.address(), request).expect("an answer")
}

#[test]
fn what_may_not_be_kept_is_refused_before_it_is_sent() {
    let mut server =
        Server::prepare().with("artifacts.bytes_max", "2000").with("artifacts.app_bytes_max", "3000");
    server.run();
    let app = app(&server);
    let task = create(&server, &app, "build");
    let told = |name: &str, headers: &[(&str, &str)], length: Option<usize>| {
        answer_to(&server, head(&app.token, "PUT", &path(&task, name), headers, length).as_bytes())
    };
    let refused = told("a", &[], Some(2_001));
    assert_eq!(problem(&refused), (413, "body-too-large".into()));
    assert!(detail(&refused).contains("at most 2000 bytes"), "{}", detail(&refused));
    assert_eq!(
        problem(&told("a", &[("transfer-encoding", "chunked")], None)),
        (411, "length-required".into())
    );
    for bad in [".hidden", "..", "a%2Fb", "%00", "a%20b", &"x".repeat(129)] {
        assert_eq!(problem(&told(bad, &[], Some(1_000))), (422, "invalid".into()), "{bad}");
    }
    assert_eq!(told("a", &[("content-encoding", "gzip")], Some(9)).status, 415);
    assert_eq!(told("a", &[("content-digest", "sha-512=:AA==:")], Some(9)).status, 400);
    assert_eq!(told("a", &[("tidings-claim", "nonsense")], Some(9)).status, 400);

    let bytes = noise(2_000);
    assert_eq!(put(&server, &app, &task, "a", &bytes).status, 201);
    let full = told("b", &[], Some(1_001));
    assert_eq!(problem(&full), (429, "too-many-requests".into()));
    assert!(detail(&full).contains("have 2000 bytes, and may have at most 3000"), "{}", detail(&full));
    assert_eq!(put(&server, &app, &task, "b", &bytes[..1_000]).status, 201);
    assert_eq!(put(&server, &app, &task, "a", &bytes[..2_000]).status, 200, "what it replaces makes room");

    let wrong = format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(b"other")));
    let right = format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(&bytes[..7])));
    let with = |digest: &str| {
        send(&server, &app.token, "PUT", &path(&task, "b"), &[("content-digest", digest)], &bytes[..7])
    };
    assert_eq!(problem(&with(&wrong)), (400, "digest-mismatch".into()));
    assert_eq!(get(&server, &app, &task, "b", &[]).message.body, &bytes[..1_000], "it stays as it was");
    assert_eq!(with(&right).status, 200);

    // A body that ends before its end leaves nothing.
    let mut stream = TcpStream::connect(server.address()).expect("connected");
    stream.write_all(head(&app.token, "PUT", &path(&task, "c"), &[], Some(100)).as_bytes()).expect("sent");
    stream.write_all(&bytes[..50]).expect("sent");
    eventually("unfinished object", SOON, || (files(&folder(&server)).len() == 3).then_some(()));
    stream.shutdown(Shutdown::Write).expect("shut");
    eventually("removed object", SOON, || (files(&folder(&server)).len() == 2).then_some(()));
    assert_eq!(names(&server, &app, &task), ["a", "b"]);

    let token = claim(&server, &app, "build");
    let done =
        app.ask(&server, "POST", &format!("/api/tasks/{task}/complete"), Some(&json!({ "token": token })));
    assert_eq!(done.status, 200);
    let late = told("d", &[], Some(9));
    assert_eq!(problem(&late), (409, "conflict".into()));
    assert!(detail(&late).contains("the task is succeeded"), "{}", detail(&late));
}

/// A request whose body is not sent as a whole yet.
struct Upload {
    stream: TcpStream,
}

impl Upload {
    fn begin(
        server: &Server,
        app: &App,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
        part: &[u8],
    ) -> Self {
        let mut stream = TcpStream::connect(server.address()).expect("connected");
        stream.set_read_timeout(Some(SOON)).expect("set");
        stream.write_all(head(&app.token, "PUT", path, headers, Some(length)).as_bytes()).expect("sent");
        stream.write_all(part).expect("sent");
        let unfinished = folder(server).join("unfinished");
        eventually("object that grows", SOON, || {
            let sizes = files(&unfinished).into_iter().filter_map(|file| fs::metadata(file).ok());
            sizes.map(|facts| facts.len()).any(|size| size > 0).then_some(())
        });
        Self { stream }
    }

    fn end(mut self, rest: &[u8]) -> u16 {
        self.stream.write_all(rest).expect("sent");
        let (line, _) = http::read_head(&mut BufReader::new(self.stream)).expect("read").expect("an answer");
        line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }
}

#[test]
fn a_kill_in_the_middle_of_an_upload_shows_nothing_and_what_it_left_is_swept() {
    let mut server = Server::prepare().with("housekeeping.interval", "1s");
    server.run();
    let app = app(&server);
    let task = create(&server, &app, "build");
    let bytes = noise(200_000);
    assert_eq!(put(&server, &app, &task, "kept", &bytes).status, 201);
    let upload = Upload::begin(&server, &app, &path(&task, "kept"), &[], bytes.len(), &bytes[..150_000]);
    server.kill();
    drop(upload);
    server.run();
    assert_eq!(names(&server, &app, &task), ["kept"]);
    assert!(get(&server, &app, &task, "kept", &[]).message.body == bytes, "the one before stays");

    // A day passes: what the kill left is named by the moment at which it began. An object whose row was
    // never written is the same as one that a crash left between object and row.
    let (root, unfinished) = (folder(&server), folder(&server).join("unfinished"));
    let left = files(&unfinished);
    assert_eq!(left.len(), 1, "{left:?}");
    let fresh = left[0].file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let shard = |id: &str| {
        let shard = root.join(&id[id.len() - 2..]);
        fs::create_dir_all(&shard).expect("a folder");
        shard.join(id)
    };
    fs::copy(&left[0], unfinished.join(OLD)).expect("copied");
    fs::copy(&left[0], shard(OLD)).expect("copied");
    fs::copy(&left[0], shard(&fresh)).expect("copied");
    eventually("swept orphans", SOON, || {
        (!unfinished.join(OLD).exists() && !shard(OLD).exists()).then_some(())
    });
    assert!(unfinished.join(&fresh).exists() && shard(&fresh).exists(), "they may still get a row");
    assert!(get(&server, &app, &task, "kept", &[]).message.body == bytes);
}

#[test]
fn a_worker_whose_claim_is_over_replaces_nothing() {
    let server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, "build");
    let to = path(&task, "out");
    let first = claim(&server, &app, "build");
    let with = |token: &str, body: &[u8]| {
        problem(&send(&server, &app.token, "PUT", &to, &[("tidings-claim", token)], body))
    };
    assert_eq!(problem(&put(&server, &app, &task, "out", b"x")), (409, "conflict".into()), "a worker has it");
    let upload = Upload::begin(&server, &app, &to, &[("tidings-claim", &first)], 10, b"first");
    let given_back =
        app.ask(&server, "POST", &format!("/api/tasks/{task}/abandon"), Some(&json!({ "token": first })));
    assert_eq!(given_back.status, 200, "{}", given_back.json());
    let second = claim(&server, &app, "build");
    assert_eq!(with(&second, b"second").0, 201);
    assert_eq!(upload.end(b"first"), 409, "the claim ended while the upload ran");
    assert_eq!(with(&first, b"first"), (409, "claim-lost".into()));
    let removed = send(&server, &app.token, "DELETE", &to, &[("tidings-claim", &first)], b"");
    assert_eq!(problem(&removed), (409, "claim-lost".into()));
    assert_eq!(get(&server, &app, &task, "out", &[]).message.body, b"second");
    eventually("no other object", SOON, || (files(&folder(&server)).len() == 1).then_some(()));
}

#[test]
fn artifacts_are_of_one_app_and_of_the_commands_of_a_token() {
    let server = Server::start();
    let (mine, other) = (app(&server), app(&server));
    let task = create(&server, &mine, "build");
    assert_eq!(put(&server, &mine, &task, "out", b"mine").status, 201);
    let narrowed = |permissions: Value, commands: Value| {
        let body = json!({ "name": "w", "permissions": permissions, "commands": commands });
        let made = mine.ask(&server, "POST", "/api/app/tokens", Some(&body)).json();
        made["token"].as_str().expect("a token").to_owned()
    };
    let all = json!(["tasks:read", "tasks:artifacts"]);
    let pictures = narrowed(all.clone(), json!(["pictures"]));
    for token in [&other.token, &pictures] {
        for (method, path) in [
            ("GET", path(&task, "out")),
            ("PUT", path(&task, "out")),
            ("DELETE", path(&task, "out")),
            ("GET", format!("/api/tasks/{task}/artifacts")),
        ] {
            let reply = send(&server, token, method, &path, &[], b"theirs");
            assert_eq!(problem(&reply), (404, "task-not-found".into()), "{method} {path}");
        }
    }
    let reader = narrowed(json!(["tasks:read"]), json!(["build"]));
    assert_eq!(send(&server, &reader, "GET", &path(&task, "out"), &[], b"").message.body, b"mine");
    let refused = send(&server, &reader, "PUT", &path(&task, "out"), &[], b"theirs");
    assert_eq!(problem(&refused), (403, "permission-required".into()));
    let builder = narrowed(all, json!(["build"]));
    assert_eq!(send(&server, &builder, "PUT", &path(&task, "more"), &[], b"more").status, 201);
    assert_eq!(names(&server, &mine, &task), ["more", "out"]);

    let theirs = create(&server, &other, "build");
    assert_eq!(put(&server, &other, &theirs, "out", b"theirs").status, 201);
    assert_eq!(mine.ask(&server, "DELETE", "/api/app", None).status, 204);
    wait_for_files(&server, 1, "what an erased app kept is gone");
    assert_eq!(get(&server, &other, &theirs, "out", &[]).message.body, b"theirs");
}

#[test]
fn an_artifact_whose_bytes_are_gone_says_so() {
    let server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, "build");
    assert_eq!(put(&server, &app, &task, "out", b"some bytes").status, 201);
    let object = files(&folder(&server)).remove(0);
    fs::write(&object, b"some").expect("written");
    assert_eq!(problem(&get(&server, &app, &task, "out", &[])), (410, "artifact-gone".into()), "too short");
    fs::remove_file(&object).expect("removed");
    let gone = get(&server, &app, &task, "out", &[]);
    assert_eq!(problem(&gone), (410, "artifact-gone".into()));
    assert!(detail(&gone).contains("after a restore"), "{}", detail(&gone));
    assert_eq!(put(&server, &app, &task, "out", b"again").status, 200);
    assert_eq!(get(&server, &app, &task, "out", &[]).message.body, b"again");
}

#[test]
fn the_command_line_and_the_program_of_a_worker_carry_files() {
    let server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, "other");
    let home = tempfile::tempdir().expect("a folder");
    let address = format!("http://{}", server.address());
    let run = |arguments: &[&str], input: Option<&[u8]>| {
        let mut command =
            server.command(&[&["task", "artifact"][..], arguments, &["--server", &address]].concat());
        command.env("TIDINGS_TOKEN", &app.token).current_dir(home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        child.stdin.take().expect("a pipe").write_all(input.unwrap_or_default()).expect("written");
        child.wait_with_output().expect("ended")
    };
    let bytes = noise(300_000);
    fs::write(home.path().join("out.bin"), &bytes).expect("written");
    let sent = run(&["put", &task, "out.bin", "--content-type", "image/x-story"], None);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert!(run(&["put", &task, "-", "--name", "typed"], Some(b"typed")).status.success());
    let listed = String::from_utf8(run(&["list", &task], None).stdout).expect("text");
    assert!(listed.contains("image/x-story") && listed.contains("typed"), "{listed}");
    assert!(run(&["get", &task, "out.bin", "-"], None).stdout == bytes);
    fs::remove_file(home.path().join("out.bin")).expect("removed");
    assert!(run(&["get", &task, "out.bin"], None).status.success());
    assert!(fs::read(home.path().join("out.bin")).expect("there") == bytes);
    assert!(run(&["remove", &task, "typed"], None).status.success());
    assert_eq!(names(&server, &app, &task), ["out.bin"]);

    wait_for_files(&server, 1, "the object of what was removed is gone");
    // What is damaged in the store is not taken.
    let object = files(&folder(&server)).remove(0);
    fs::write(&object, vec![0; bytes.len()]).expect("written");
    let damaged = run(&["get", &task, "out.bin"], None);
    assert_eq!(damaged.status.code(), Some(69), "{}", String::from_utf8_lossy(&damaged.stderr));
    assert!(fs::read(home.path().join("out.bin")).expect("there") == bytes, "the file stays as it was");

    let work = create(&server, &app, "build");
    let program = "printf one > \"$TIDINGS_TASK_ARTIFACTS/one.txt\"; mkdir \"$TIDINGS_TASK_ARTIFACTS/folder\"; \
                   printf two > \"$TIDINGS_TASK_ARTIFACTS/two.txt\"; echo 7";
    let arguments = ["worker", "start", "build", "--server", &address, "--exec", program];
    let mut worker = server.command(&arguments);
    worker.env("TIDINGS_TOKEN", &app.token).stdout(Stdio::null());
    let mut worker = worker.spawn().expect("started");
    let shown = eventually("task that ends", SOON, || {
        let shown = app.ask(&server, "GET", &format!("/api/tasks/{work}"), None).json();
        (shown["state"] == "succeeded").then_some(shown)
    });
    Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().expect("told");
    assert!(worker.wait().expect("ended").success());
    assert_eq!(shown["result"], 7);
    assert_eq!(names(&server, &app, &work), ["one.txt", "two.txt"], "they are there when the task has ended");
    assert_eq!(get(&server, &app, &work, "two.txt", &[]).message.body, b"two");
}

#[test]
fn a_large_artifact_is_never_whole_in_memory() {
    let server = Server::start();
    let app = app(&server);
    let task = create(&server, &app, "build");
    let bytes = noise(1 << 20).repeat(96);
    // What the first transfer allocates is not of interest.
    assert_eq!(put(&server, &app, &task, "small", &bytes[..2 << 20]).status, 201);
    assert_eq!(get(&server, &app, &task, "small", &[]).status, 200);
    let before = server.peak_resident();
    assert_eq!(put(&server, &app, &task, "large", &bytes).status, 201);
    assert!(get(&server, &app, &task, "large", &[]).message.body == bytes);
    let more = server.peak_resident().saturating_sub(before);
    assert!(more < 48 << 20, "{more} bytes more for 96 MiB");
}
