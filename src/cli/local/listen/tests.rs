//! The receiver over real connections: what it acknowledges, refuses and prints.

use std::{collections::VecDeque, sync::atomic::AtomicI64};

use clap::Parser;
use reqwest::Client;
use tidings_actors::time::Timestamp;
use tokio::sync::oneshot;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    listen: ListenArgs,
}

struct Fixed(AtomicI64);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<VecDeque<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(self.0.lock().drain(..).collect()).expect("text")
    }
}

struct World {
    base: String,
    lines: Lines,
    client: Client,
    _stop: oneshot::Sender<()>,
    _tasks: JoinSet<()>,
}

const NOW: i64 = 1_767_225_600;

async fn world(arguments: &[&str]) -> World {
    open(arguments).await.expect("bound")
}

/// The same once the folder of an earlier one is free, which ends when its last task does.
async fn restarted(arguments: &[&str]) -> World {
    let opened = async {
        loop {
            match open(arguments).await {
                Ok(world) => return world,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(Duration::from_secs(20), opened).await.expect("the folder becomes free")
}

async fn open(arguments: &[&str]) -> Result<World, ListenError> {
    let fixed = ["listen", "--listen", "127.0.0.1:0", "--secret", "a-client-auth-key"];
    let mut line = Line::parse_from(fixed.iter().chain(arguments.iter().filter(|word| **word != "--json")));
    line.listen.json = arguments.contains(&"--json");
    let lines = Lines::default();
    let clock = Arc::new(Fixed(AtomicI64::new(NOW * 1000)));
    let listener = Listener::bind(&line.listen, clock, Box::new(lines.clone())).await?;
    let base = format!("http://{}", listener.address());
    let (stop, stopped) = oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { listener.run(async { drop(stopped.await) }).await.expect("served") });
    let settings = crate::settings::EgressSettings::default();
    // Installs the TLS provider; the client of these tests itself is an ordinary one.
    crate::egress::Egress::new(&settings).expect("settings");
    Ok(World { base, lines, client: client(), _stop: stop, _tasks: tasks })
}

#[expect(clippy::disallowed_methods, reason = "a sender that is not ours")]
fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client")
}

impl World {
    async fn post(&self, path: &str, body: &str, secret: &str, at: i64) -> (u16, String) {
        let keys = [SigningKey::of_text(secret)];
        let request = self
            .client
            .post(format!("{}{path}", self.base))
            .header("webhook-id", "id")
            .header("webhook-timestamp", at)
            .header("webhook-signature", signature::standard(&keys, "id", at, body.as_bytes()))
            .header("x-docora-timestamp", at)
            .header("x-docora-signature", signature::docora(&keys[0], at, body.as_bytes()))
            .body(body.to_owned());
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }
}

const BODY: &str = r#"{"repository":{"repository_id":"repo_1","github_url":"https://example.org/o/r"},"file":{"path":"docs/a\u001b.md","size":5,"content":"hello","mode":"100644"},"event":{"id":"dlv_1","cursor":"cur_1","branch":"main","round":1,"position":0,"total":2}}"#;

#[tokio::test]
async fn signed_deliveries_are_printed_and_mirrored() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(&["--mirror", folder.path().to_str().expect("text")]).await;
    for line in [
        "create     docs/a\\u{1b}.md  5 B  main  1 of 2\n",
        "create     docs/a\\u{1b}.md  5 B  main  1 of 2  a repeat: no effect\n",
    ] {
        assert_eq!(world.post("/any/base/create", BODY, "a-client-auth-key", NOW).await.0, 200);
        assert_eq!(world.lines.take(), line);
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("docs/a\u{1b}.md")).expect("read"), "hello");
    let hostile = BODY.replace("docs/a\\u001b.md", "../x").replace("dlv_1", "dlv_2");
    let (status, text) = world.post("/create", &hostile, "a-client-auth-key", NOW).await;
    assert_eq!(status, 422, "{text}");
    assert!(world.lines.take().contains("refused: the path is refused"));
}

#[tokio::test]
async fn what_is_not_signed_well_gets_401_and_has_no_effect() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(&["--mirror", folder.path().to_str().expect("text")]).await;
    assert_eq!(world.post("/create", BODY, "another-key", NOW).await.0, 401);
    assert_eq!(world.post("/create", BODY, "a-client-auth-key", NOW - 301).await.0, 401);
    let bare =
        world.client.post(format!("{}/create", world.base)).body(BODY).send().await.expect("an answer");
    assert_eq!(bare.status(), 401);
    assert_eq!(world.post("/nowhere", BODY, "a-client-auth-key", NOW).await.0, 404);
    assert_eq!(world.post("/create", "[]", "a-client-auth-key", NOW).await.0, 400);
    let get = world.client.get(format!("{}/create", world.base)).send().await.expect("an answer");
    assert_eq!(get.status(), 405);
    assert!(!folder.path().join("docs").exists());
}

#[tokio::test]
async fn json_prints_each_body_as_one_line() {
    let world = world(&["--json"]).await;
    let spread = BODY.replace(",\"event\"", ",\n\"event\"");
    for body in [BODY, &spread] {
        assert_eq!(world.post("/update", body, "a-client-auth-key", NOW).await.0, 200);
    }
    assert_eq!(world.post("/update", BODY, "another-key", NOW).await.0, 401);
    assert_eq!(world.lines.take(), format!("{BODY}\n{}\n", spread.replace('\n', " ")));
}

#[tokio::test]
async fn a_second_watch_is_refused_unless_it_is_allowed() {
    let other = BODY.replace("repo_1", "repo_2").replace("cur_1", "cur_2").replace("hello", "other");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text").to_owned();
    let read = || std::fs::read_to_string(folder.path().join("docs/a\u{1b}.md")).expect("read");
    let strict = world(&["--mirror", &path]).await;
    assert_eq!(strict.post("/create", BODY, "a-client-auth-key", NOW).await.0, 200);
    for _ in 0..2 {
        let (status, text) = strict.post("/create", &other, "a-client-auth-key", NOW).await;
        assert_eq!(status, 404, "{text}");
        for part in ["the mirror of repo_1", "a change of repo_2", "--mirror-into-existing"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(read(), "hello");
    }
    let change = other.replace("\"id\":", "\"type\":\"file.created\",\"id\":");
    let batch = format!("{{\"batch\":{{\"id\":\"b\"}},\"changes\":[{change}]}}");
    let (_, text) = strict.post("/batch", &batch, "a-client-auth-key", NOW).await;
    assert!(text.contains("retry") && text.contains("the mirror of repo_1"), "{text}");
    assert_eq!(read(), "hello");
    drop(strict);
    let open = restarted(&["--mirror", &path, "--mirror-into-existing"]).await;
    assert_eq!(open.post("/create", &other, "a-client-auth-key", NOW).await.0, 200);
    assert_eq!(read(), "other");
    drop(open);
    let again = restarted(&["--mirror", &path]).await;
    let next = other.replace("\"round\":1", "\"round\":2").replace("dlv_1", "dlv_2");
    assert_eq!(again.post("/create", &next, "a-client-auth-key", NOW).await.0, 200, "it was allowed once");
    let third = BODY.replace("repo_1", "repo_3");
    assert_eq!(again.post("/create", &third, "a-client-auth-key", NOW).await.0, 404);
}

#[test]
fn a_port_alone_is_one_of_this_machine() {
    let parsed =
        |text: &str| Line::try_parse_from(["listen", "--listen", text]).map(|line| line.listen.listen);
    for text in ["9001", ":9001", "localhost:9001", "127.0.0.1:9001"] {
        assert_eq!(parsed(text).expect(text).to_string(), "127.0.0.1:9001");
    }
    assert_eq!(parsed("[::1]:9001").expect("an address").to_string(), "[::1]:9001");
    assert!(parsed("99999").is_err() && parsed("example.org:1").is_err());
}
