//! Clients that are slow, silent or many cost bounded time, and never others.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, oneshot},
    time::timeout,
};
use warp::{Filter, reply::Response};

use super::super::edge::Edge;
use super::{Door, Limits, serve};
use crate::http::tests::{House, raw};
use crate::settings::ServerSettings;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

async fn hasty() -> House {
    House::with(|settings| {
        let server = &mut settings.server;
        // Longer than a busy machine takes between two steps of a client that is not slow.
        server.header_timeout = Duration::from_secs(1);
        server.body_timeout = Duration::from_secs(1);
        server.write_timeout = Duration::from_secs(1);
        server.drain_deadline = Duration::from_millis(300);
        server.connections_max = 8;
        server.connections_per_address_max = 4;
    })
    .await
}

/// The head of a request whose body is only sent when it is asked for.
fn expecting(token: &str, length: usize) -> String {
    format!(
        "POST /api/repositories HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Waits until the other side closes; what it said before.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    timeout(PATIENCE, async {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            said.extend_from_slice(&part[..count]);
        }
    })
    .await
    .expect("the server closes");
    said
}

async fn answered(stream: &mut TcpStream) -> bool {
    let mut part = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut part)).await.expect("in time");
    read.is_ok_and(|count| part[..count].starts_with(b"HTTP/1.1 200"))
}

#[tokio::test]
async fn silent_half_and_idle_connections_are_closed() {
    let house = hasty().await;
    for beginning in [b"".as_slice(), b"G", b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"PRI * HTTP/2.0\r\n\r\nS"]
    {
        let mut stream = house.connect().await;
        stream.write_all(beginning).await.expect("sent");
        closed(&mut stream).await;
    }
    let mut idle = house.connect().await;
    for _ in 0..2 {
        idle.write_all(REQUEST).await.expect("sent");
        assert!(answered(&mut idle).await, "a connection is used more than once");
    }
    closed(&mut idle).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_with_408() {
    let house = hasty().await;
    let token = house.app().await;
    let head = format!(
        "POST /api/repositories HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    let answer = raw(&mut house.connect().await, head.as_bytes()).await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.problem()["type"], "urn:tidings:problem:request-timeout");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let house = hasty().await;
    let mut stream = house.connect().await;
    // Requests without end, whose answers nobody reads, until the server gives up.
    let wrote = timeout(PATIENCE, async {
        let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(64);
        while stream.write_all(&request).await.is_ok() {}
    });
    assert!(wrote.await.is_ok(), "the server closes the connection");
    assert_eq!(house.call("GET", "/livez", None, None).await.status, 200);
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_gets_them_back() {
    let house = House::with(|settings| settings.server.connections_per_address_max = 4).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = house.connect().await;
        stream.write_all(REQUEST).await.expect("sent");
        assert!(answered(&mut stream).await);
        open.push(stream);
    }
    let mut beyond = house.connect().await;
    let _refused_or_sent = beyond.write_all(REQUEST).await;
    assert!(closed(&mut beyond).await.is_empty(), "one too many is closed without an answer");
    open.clear();
    let again = timeout(PATIENCE, async {
        loop {
            let mut stream = house.connect().await;
            if stream.write_all(REQUEST).await.is_ok() && answered(&mut stream).await {
                break;
            }
        }
    });
    assert!(again.await.is_ok(), "a closed place can be taken again");
}

#[tokio::test]
async fn where_there_is_no_room_the_one_that_has_waited_longest_goes() {
    let house = House::with(|settings| {
        settings.server.connections_max = 2;
        settings.server.header_timeout = Duration::from_hours(1);
    })
    .await;
    let mut used = house.connect().await;
    used.write_all(REQUEST).await.expect("sent");
    assert!(answered(&mut used).await);
    let mut silent = house.connect().await;
    silent.write_all(b"GET /livez").await.expect("sent");
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut newest = house.connect().await;
        newest.write_all(REQUEST).await.expect("sent");
        assert!(answered(&mut newest).await, "there is always room for one that asks");
        open.push(newest);
    }
    assert!(closed(&mut used).await.is_empty());
    assert!(closed(&mut silent).await.is_empty());
}

#[test]
fn where_there_is_no_room_an_address_with_more_than_an_equal_part_gets_no_more() {
    let settings =
        ServerSettings { connections_max: 6, connections_per_address_max: 5, ..ServerSettings::default() };
    let limits = Limits::new(&settings);
    let [greedy, modest, newcomer] = [1, 2, 3].map(|host| IpAddr::from([192, 0, 2, host]));
    let take = |address| {
        let share = limits.share(address).expect("it may have one more");
        (share, limits.free_slot().expect("there is room"))
    };
    let _held: Vec<_> = [greedy, greedy, greedy, greedy, modest].map(take).into();
    assert!(limits.share(greedy).is_some(), "there is room for more");
    let last = take(modest);
    assert!(limits.share(greedy).is_none(), "it has four of six, and there are two addresses");
    assert!(limits.share(modest).is_some() && limits.share(newcomer).is_some());
    drop(last);
    assert!(limits.share(greedy).is_some(), "there is room again");
}

#[tokio::test]
async fn a_request_that_names_no_host_or_two_is_refused_and_its_connection_closed() {
    let house = House::with(|_| {}).await;
    for (hosts, version, status) in [
        ("", "1.1", 400),
        ("host: a\r\nhost: a\r\n", "1.1", 400),
        ("host: a\r\nhost: b\r\n", "1.0", 400),
        ("", "1.0", 200),
        ("host: a\r\n", "1.1", 200),
    ] {
        let closing = if status == 200 { "connection: close\r\n" } else { "" };
        let request = format!("GET /livez HTTP/{version}\r\n{hosts}{closing}\r\n");
        let answer = house.send(request.as_bytes()).await;
        assert_eq!(answer.status, status, "{hosts:?} {version}: {answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_makes_room_like_silence() {
    let house = House::with(|settings| {
        settings.server.connections_max = 2;
        settings.server.body_timeout = Duration::from_hours(1);
    })
    .await;
    let token = house.app().await;
    let mut begun = Vec::new();
    for _ in 0..2 {
        let mut stream = house.connect().await;
        stream.write_all(expecting(&token, 2).as_bytes()).await.expect("sent");
        let mut part = [0; 64];
        let count = timeout(PATIENCE, stream.read(&mut part)).await.expect("in time").expect("read");
        assert!(part[..count].starts_with(b"HTTP/1.1 100"), "its body is being read");
        begun.push(stream);
    }
    let mut newest = house.connect().await;
    newest.write_all(REQUEST).await.expect("sent");
    assert!(answered(&mut newest).await, "there is room for one that asks");
    assert!(closed(&mut begun[0]).await.is_empty(), "it has waited longest");
}

/// More than any buffer between the two ends holds.
const LARGE: usize = 32 << 20;

#[tokio::test]
async fn what_is_being_answered_keeps_its_place_until_its_answer_is_written() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = tcp.local_addr().expect("bound");
    let settings = ServerSettings { connections_max: 1, ..ServerSettings::default() };
    let (is_asked, may_answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asked, waits) = (is_asked.clone(), may_answer.clone());
    let large = warp::path!("large").and(warp::body::bytes()).then(move |_body| {
        let (asked, waits) = (asked.clone(), waits.clone());
        async move {
            asked.notify_one();
            waits.notified().await;
            Response::new(vec![b'a'; LARGE].into())
        }
    });
    let small = warp::path!("livez").map(Response::default);
    let routes = large.or(small).unify().boxed();
    let (stop, stopped) = oneshot::channel::<()>();
    let edge = Arc::new(Edge::new(&settings));
    let door = Door { tcp, routes, certificate: None, edge };
    let serving = serve(door, &settings, async move { drop(stopped.await) });
    let asking = async move {
        let mut slow = TcpStream::connect(address).await.expect("connected");
        let request = b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
        slow.write_all(request).await.expect("sent");
        is_asked.notified().await;
        let mut second = TcpStream::connect(address).await.expect("put in line");
        second.write_all(REQUEST).await.expect("sent");
        may_answer.notify_one();
        let mut head = [0; 12];
        slow.read_exact(&mut head).await.expect("its request is there, so it keeps its place");
        assert_eq!(&head, b"HTTP/1.1 200");
        // It is read more slowly than it is written, while somebody presses.
        let (mut part, mut bytes) = (vec![0; 1 << 20], 0);
        while bytes < LARGE {
            bytes += match slow.read(&mut part).await.expect("nothing is cut") {
                0 => panic!("cut after {bytes} bytes"),
                count => count,
            };
            tokio::task::yield_now().await;
        }
        assert!(answered(&mut second).await, "its turn comes after the answer");
        drop((slow, second));
        stop.send(()).expect("it listens");
    };
    timeout(PATIENCE, async { tokio::join!(serving, asking) }).await.expect("in time");
}

/// It takes something long before each deadline, and would keep the only place to its end.
#[tokio::test]
async fn who_reads_a_large_answer_by_the_byte_loses_its_place() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = tcp.local_addr().expect("bound");
    let settings = ServerSettings {
        connections_max: 1,
        write_timeout: Duration::from_secs(2),
        write_bytes_per_second_min: 1 << 30,
        ..ServerSettings::default()
    };
    let large = warp::path!("large").map(|| Response::new(vec![b'a'; LARGE].into()));
    let small = warp::path!("livez").map(Response::default);
    let routes = large.or(small).unify().boxed();
    let (stop, stopped) = oneshot::channel::<()>();
    let edge = Arc::new(Edge::new(&settings));
    let door = Door { tcp, routes, certificate: None, edge };
    let serving = serve(door, &settings, async move { drop(stopped.await) });
    let asking = async move {
        let mut slow = TcpStream::connect(address).await.expect("connected");
        slow.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut part = vec![0; 64 << 10];
        slow.read_exact(&mut part[..12]).await.expect("it is being answered");
        let mut second = TcpStream::connect(address).await.expect("put in line");
        second.write_all(REQUEST).await.expect("sent");
        let mut bytes = 0;
        let reading = async {
            // At most 3 MB a second, to the end: what lies in buffers comes after it was cut off.
            while let Ok(count @ 1..) = slow.read(&mut part).await {
                bytes += count;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            is_answered = answered(&mut second) => assert!(is_answered),
            () = reading => {}
        }
        assert!(bytes < LARGE / 2, "it kept its place for {bytes} bytes");
        drop((slow, second));
        stop.send(()).expect("it listens");
    };
    timeout(PATIENCE, async { tokio::join!(serving, asking) }).await.expect("in time");
}

#[tokio::test]
async fn what_a_connection_does_not_read_takes_little_of_the_kernel() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = tcp.local_addr().expect("bound");
    let settings = ServerSettings { drain_deadline: Duration::ZERO, ..ServerSettings::default() };
    let large = warp::path!("large").map(|| Response::new(vec![b'a'; LARGE].into()));
    let edge = Arc::new(Edge::new(&settings));
    let door = Door { tcp, routes: large.boxed(), certificate: None, edge };
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(door, &settings, async move { drop(stopped.await) });
    let asking = async move {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("set");
        let mut lazy = socket.connect(address).await.expect("connected");
        lazy.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        lazy.read_exact(&mut head).await.expect("it is being answered");
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.send(()).expect("it listens");
        lazy
    };
    let ((), mut lazy) = timeout(PATIENCE, async { tokio::join!(serving, asking) }).await.expect("in time");
    let unread = closed(&mut lazy).await.len();
    assert!(unread < 512 << 10, "{unread} bytes lay there");
}

#[tokio::test]
async fn a_trusted_proxy_has_as_many_connections_as_it_needs() {
    let house = House::with(|settings| {
        settings.server.connections_per_address_max = 1;
        settings.server.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = house.connect().await;
        stream.write_all(REQUEST).await.expect("sent");
        assert!(answered(&mut stream).await);
        open.push(stream);
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_ask_again_and_others_are_served() {
    let house = House::with(|settings| {
        settings.server.address_rate = "7200/h".parse().expect("a rate");
        settings.server.token_rate = "1/h".parse().expect("a rate");
        settings.server.trusted_proxies = vec!["127.0.0.1".to_owned()];
    })
    .await;
    let of = |client: &str, token: Option<&str>| {
        let mut head =
            format!("GET /api/app HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: {client}\r\n");
        if let Some(token) = token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        format!("{head}\r\n")
    };
    let token = house.app().await;
    for (client, token, status) in [
        ("192.0.2.1", Some(&*token), 200),
        ("192.0.2.2", Some(&*token), 429),
        ("192.0.2.1", None, 401),
        ("192.0.2.1", None, 429),
        ("192.0.2.2", None, 401),
    ] {
        let answer = house.send(of(client, token).as_bytes()).await;
        assert_eq!(answer.status, status, "{client} {token:?}: {answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 429, "{answer:?}");
    }
}

#[tokio::test]
async fn pages_of_named_origins_may_read_answers_and_no_others() {
    let house = House::with(|settings| {
        settings.server.cors_origins = vec!["https://docs.example".to_owned()];
    })
    .await;
    let ask = |method: &str, origin: &str| {
        format!(
            "{method} /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\naccess-control-request-method: PATCH\r\n\r\n"
        )
    };
    let preflight = house.send(ask("OPTIONS", "https://docs.example").as_bytes()).await;
    assert_eq!(preflight.status, 204);
    assert!(
        preflight.header("access-control-allow-methods").is_some_and(|methods| methods.contains("PATCH"))
    );
    let answer = house.send(ask("GET", "https://docs.example").as_bytes()).await;
    for answer in [&preflight, &answer] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://docs.example"));
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    for origin in ["https://other.example", "https://docs.example.evil", "null", "http://docs.example"] {
        for (method, status) in [("OPTIONS", 405), ("GET", 200)] {
            let answer = house.send(ask(method, origin).as_bytes()).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        }
    }
}

#[tokio::test]
async fn a_stop_answers_what_was_begun_and_ends_at_the_deadline() {
    let mut house = House::with(|settings| {
        settings.server.body_timeout = PATIENCE;
        settings.server.drain_deadline = PATIENCE;
    })
    .await;
    let token = house.app().await;
    let mut begun = house.connect().await;
    begun.write_all(expecting(&token, 2).as_bytes()).await.expect("sent");
    let mut part = [0; 4096];
    let count = timeout(PATIENCE, begun.read(&mut part)).await.expect("in time").expect("read");
    assert!(part[..count].starts_with(b"HTTP/1.1 100"), "the request is being read now");
    house.close();
    begun.write_all(b"{}").await.expect("sent");
    let said = String::from_utf8(closed(&mut begun).await).expect("text");
    assert!(said.starts_with("HTTP/1.1 422"), "{said}");
    timeout(PATIENCE, &mut house.serving).await.expect("in time").expect("no panic");
    assert!(TcpStream::connect(house.address).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_up_a_stop() {
    let mut house = House::with(|settings| {
        settings.server.body_timeout = Duration::from_hours(1);
        settings.server.drain_deadline = Duration::from_millis(300);
    })
    .await;
    let token = house.app().await;
    let mut begun = house.connect().await;
    begun.write_all(expecting(&token, 2).as_bytes()).await.expect("sent");
    let mut part = [0; 64];
    timeout(PATIENCE, begun.read(&mut part)).await.expect("in time").expect("read");
    house.close();
    timeout(PATIENCE, &mut house.serving).await.expect("in time").expect("no panic");
}
