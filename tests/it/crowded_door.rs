//! One app, or a few addresses, take what they can get of a small front door. Another app, health checks and
//! what else ends are answered meanwhile.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
};

use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpSocket};

use crate::support::{
    api::App,
    http::ask,
    patience::{SOON, eventually},
    project::Project,
    puller::Puller,
    server::Server,
};

/// Connections of the door: of requests that wait, one app has two.
const CONNECTIONS: usize = 32;
/// Polls of different watches: more than there are connections.
const POLLS: usize = 40;
/// Sockets that never read, of two addresses: more than there are connections.
const DEAF: u8 = 40;

/// A server with a small door, where nobody is cut off because of time.
fn small_door() -> Server {
    let mut server = Server::prepare()
        .with("server.connections_max", &CONNECTIONS.to_string())
        .with("server.write_timeout", "1h");
    server.run();
    server
}

fn assert_answered(server: &Server, victim: &App) {
    for _ in 0..10 {
        assert_eq!(victim.ask(server, "GET", "/api/app", None).status, 200);
        assert_eq!(ask(server.address(), "GET", "/livez", None, None).expect("an answer").status, 200);
    }
}

/// A poll that was sent, what came back of it, and whether its connection is closed.
struct Poll(TcpStream, Vec<u8>, bool);

impl Poll {
    fn send(server: &Server, app: &App, watch: &str) -> Self {
        let mut stream = TcpStream::connect(server.address()).expect("connected");
        let head = format!(
            "GET /api/repositories/{watch}/pending?wait_seconds=60 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            app.token
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.set_nonblocking(true).expect("a socket");
        Self(stream, Vec::new(), false)
    }

    /// Answered, or turned away because its address has all connections already.
    fn is_over(&mut self) -> bool {
        let mut part = [0; 4_096];
        loop {
            match self.0.read(&mut part) {
                Ok(count @ 1..) => self.1.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.2 = true;
                    break;
                }
            }
        }
        self.2 || self.1.windows(4).any(|bytes| bytes == b"\r\n\r\n")
    }
}

#[test]
fn polls_of_many_watches_leave_connections_for_others() {
    let server = small_door();
    let (greedy, victim) = (Puller::onboard(&server).app, Puller::onboard(&server).app);
    let project = Project::with(&[("a", "1")]);
    let watches: Vec<String> = (0..POLLS)
        .map(|number| {
            let branch = format!("branch-{number}");
            project.git(["branch", &branch]);
            let wish = json!({ "url": project.url(), "branch": branch, "start": "now" });
            greedy.watch_with(&server, &wish)
        })
        .collect();
    let mut polls: Vec<Poll> = watches.iter().map(|id| Poll::send(&server, &greedy, id)).collect();
    let may_wait = CONNECTIONS / 16;
    eventually("answers to those that may not wait", SOON, || {
        let answered = polls.iter_mut().filter_map(|poll| poll.is_over().then_some(())).count();
        (answered == POLLS - may_wait).then_some(())
    });
    assert_answered(&server, &victim);
    assert_eq!(greedy.ask(&server, "GET", "/api/app", None).status, 200, "its other requests are answered");
    let waiting = polls.iter_mut().filter_map(|poll| (!poll.is_over()).then_some(())).count();
    assert_eq!(waiting, may_wait, "those that wait go on waiting");
    for Poll(_, said, _) in polls.iter().filter(|poll| !poll.1.is_empty()) {
        let head = String::from_utf8_lossy(said);
        // Many at once may be too many requests, too.
        let is_early = head.starts_with("HTTP/1.1 204") || head.starts_with("HTTP/1.1 429");
        assert!(is_early && head.contains("retry-after: "), "{head}");
    }
}

#[test]
fn clients_that_never_read_make_room_for_others() {
    let server = small_door();
    let victim = Puller::onboard(&server).app;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // More than any buffer holds.
    let pipelined = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50);
    let mut deaf = Vec::new();
    for number in 0..DEAF {
        let from = SocketAddr::from((Ipv4Addr::new(127, 7, 0, 1 + number / 20), 0));
        let sent = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(1_024)?;
            socket.bind(from)?;
            let mut stream = socket.connect(server.address()).await?;
            stream.write_all(&pipelined).await?;
            Ok::<_, io::Error>(stream)
        });
        // One too many is closed, which is right.
        deaf.extend(sent);
    }
    assert!(deaf.len() >= CONNECTIONS, "{} were taken in, or put in line", deaf.len());
    assert_answered(&server, &victim);
}

#[test]
fn costly_globs_are_refused_or_wait_for_their_turn() {
    let server = small_door();
    let (greedy, victim) = (Puller::onboard(&server).app, Puller::onboard(&server).app);
    let project = Project::with(&[("a", "1")]);
    let path = format!("/api/repositories/{}", greedy.watch(&server, &project));
    let globs = |count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!("{}{number}", "?".repeat(1_000))).collect();
        json!({ "include": all })
    };
    let refused = greedy.ask(&server, "PATCH", &path, Some(&globs(9)));
    assert_eq!(refused.status, 422, "{}", refused.json());
    assert_eq!(refused.json()["errors"][0]["pointer"], "/include");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let patched = greedy.ask(&server, "PATCH", &path, Some(&globs(8)));
                assert_eq!(patched.status, 200, "{}", patched.json());
            });
        }
        assert_answered(&server, &victim);
    });
    let shown = greedy.ask(&server, "GET", &path, None).json();
    assert_eq!(shown["include"].as_array().map(Vec::len), Some(8));
}
