//! Clients of the API that mean no good: however they behave, others are answered and memory stays
//! flat. And the ways in: TLS with certificates that are renewed, and a listener for operators.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Method};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpSocket};

use crate::support::{
    http::{ask, raw},
    patience::{SOON, eventually},
    server::Server,
};

/// Sockets that say nothing, or not enough.
const SILENT: u64 = 10_000;
/// Descriptors of all other stories of this process, where it may have as many and half of them.
const OF_OTHERS: u64 = 6_000;
/// Stories with so many sockets take turns: the descriptors of this process may not be enough for two of them.
static TURN: Mutex<()> = Mutex::new(());
/// What the head of a request leads to: a body that does not come.
const HALF_A_BODY: &[u8] = b"POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
/// Each address has this many of them: fewer than one may have.
const SILENT_PER_ADDRESS: u64 = 200;
/// What hostile clients may cost in memory.
const GROWTH_MAX: u64 = 64 << 20;
/// Requests of the honest client beside them.
const HONEST: usize = 200;

/// What a client of the API tries, over and over; each gets a fresh connection.
const MISDEEDS: [fn(&mut TcpStream) -> std::io::Result<()>; 9] = [
    // Headers, a byte at a time.
    |stream| drip(stream, b"GET /livez HTTP/1.1\r\nhost: x\r\nx: "),
    // A body, a byte at a time.
    |stream| {
        drip(stream, b"POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n{")
    },
    // A GiB, announced.
    |stream| {
        flood(stream, b"POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n", &[b'a'; 65_536])
    },
    // A body without end, in chunks.
    |stream| {
        flood(stream, b"POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\naaaaa\r\n")
    },
    // Headers without end.
    |stream| flood(stream, b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"x-header: value\r\n"),
    // One line without end.
    |stream| flood(stream, b"GET /", &[b'a'; 4_096]),
    // Streams of HTTP/2 that are reset at once.
    |stream| {
        flood(
            stream,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\x01\0\0\0\x08",
        )
    },
    // Bodies of two lengths.
    |stream| {
        flood(stream, b"", b"POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello")
    },
    // Answers that nobody reads.
    |stream| flood(stream, b"", b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"),
];

fn drip(stream: &mut TcpStream, head: &[u8]) -> std::io::Result<()> {
    stream.write_all(head)?;
    for _ in 0..20 {
        stream.write_all(b"a")?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn flood(stream: &mut TcpStream, head: &[u8], part: &[u8]) -> std::io::Result<()> {
    stream.write_all(head)?;
    // 64 MiB at most, if nobody stops it.
    for _ in 0..(64 << 20) / part.len() {
        stream.write_all(part)?;
    }
    Ok(())
}

#[test]
fn hostile_clients_hold_up_nobody_and_cost_little_memory() {
    let server = Server::start();
    let address = server.address();
    let before = server.resident();
    let (stop, misdeeds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for misdeed in MISDEEDS {
            let (stop, misdeeds) = (&stop, &misdeeds);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(mut stream) = TcpStream::connect(address) {
                        stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
                        // Whatever the server does to it is right, as long as others are answered.
                        drop(misdeed(&mut stream));
                        misdeeds.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        eventually("hostile clients at work", SOON, || {
            (misdeeds.load(Ordering::Relaxed) >= MISDEEDS.len() as u64).then_some(())
        });
        for _ in 0..HONEST {
            let answer = ask(address, "GET", "/readyz", None, None);
            assert_eq!(answer.expect("an answer").status, 200);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let grown = server.peak_resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "hostile clients cost {grown} bytes");
}

#[test]
fn what_cannot_be_read_without_doubt_is_refused_and_its_connection_closed() {
    let server = Server::start();
    let too_many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
    for (request, status) in [
        (
            "POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            400,
        ),
        ("POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (
            "POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            400,
        ),
        ("GET /livez HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (&*too_many, 431),
    ] {
        let mut stream = TcpStream::connect(server.address()).expect("connected");
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        // A second request behind it must not be answered: it could be part of the first.
        stream
            .write_all(format!("{request}GET /version HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .expect("sent");
        let mut said = Vec::new();
        // A reset is an end as well.
        drop(stream.read_to_end(&mut said));
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {said}");
        assert!(!said.contains("gitSha"), "{request:?}: {said}");
    }
    let smuggled = "POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let answer = raw(server.address(), smuggled.as_bytes()).expect("an answer");
    assert!([400, 422].contains(&answer.status), "the chunks are the body, or it is refused: {answer:?}");
    let huge = "POST /api/apps/onboard HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n";
    assert_eq!(raw(server.address(), huge.as_bytes()).expect("an answer before the body").status, 413);
}

#[test]
fn ten_thousand_silent_sockets_of_many_addresses_keep_nobody_out() {
    nobody_is_kept_out(&[]);
}

#[test]
fn ten_thousand_slow_bodies_of_many_addresses_keep_nobody_out() {
    nobody_is_kept_out(HALF_A_BODY);
}

/// Opens many connections, says so much on each, and asks for something beside them.
fn nobody_is_kept_out(beginning: &[u8]) {
    // Its sockets are closed before the next story has its turn.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let most = descriptors();
    let count = SILENT.min(most - OF_OTHERS.min(most / 2));
    let mut server = Server::prepare().with("server.header_timeout", "1h").with("server.body_timeout", "1h");
    server.run();
    let (address, before) = (server.address(), server.resident());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut silent = Vec::new();
    for number in 0..count {
        let host = u8::try_from(number / SILENT_PER_ADDRESS).expect("few addresses");
        let from = SocketAddr::from((Ipv4Addr::new(127, 7, host, 1), 0));
        let connected = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(from)?;
            let mut stream = socket.connect(address).await?;
            stream.write_all(beginning).await?;
            Ok::<_, std::io::Error>(stream)
        });
        let kept = silent.len();
        let taken = connected.unwrap_or_else(|error| panic!("socket {kept} of {count} from {from}: {error}"));
        silent.push(taken);
        if number % 100 == 0 {
            assert_eq!(ask(address, "GET", "/livez", None, None).expect("an answer").status, 200);
        }
    }
    for _ in 0..HONEST {
        assert_eq!(ask(address, "GET", "/readyz", None, None).expect("an answer").status, 200);
    }
    let grown = server.peak_resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{count} sockets cost {grown} bytes");
}

/// How many sockets this process may have; as many as the system gives.
pub(crate) fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    let enough = SILENT + OF_OTHERS;
    let wanted = Rlimit { current: Some(most.min(enough).max(limit.current.unwrap_or(0))), ..limit };
    setrlimit(Resource::Nofile, wanted).expect("not above what the system gives");
    wanted.current.unwrap_or(0)
}

/// A certificate for `localhost`, signed by itself, as files.
fn certify(folder: &Path) -> Certificate {
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = parameters.self_signed(&key).expect("signed");
    fs::write(folder.join("key.pem"), key.serialize_pem()).expect("written");
    fs::write(folder.join("chain.pem"), certificate.pem()).expect("written");
    Certificate::from_pem(certificate.pem().as_bytes()).expect("a certificate")
}

/// Whether somebody who trusts only this certificate is answered.
#[expect(clippy::disallowed_methods, reason = "this is a client of ours")]
fn is_answered(certificate: &Certificate, address: SocketAddr) -> bool {
    // The first of them installs it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate.clone()]);
        let client = client.resolve("localhost", address).timeout(SOON).build().expect("a client");
        let url = format!("https://localhost:{}/livez", address.port());
        let Ok(answer) = client.request(Method::GET, url).send().await else { return false };
        assert!(answer.headers().contains_key("strict-transport-security"));
        answer.status() == 200
    })
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart() {
    let folder = TempDir::new().expect("a folder");
    let first = certify(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut server = Server::prepare()
        .with("server.tls_cert_file", &path("chain.pem"))
        .with("server.tls_key_file", &path("key.pem"));
    server.spawn();
    let address = eventually("address of the server", SOON, || server.announced());
    eventually("answer over TLS", SOON, || is_answered(&first, address).then_some(()));
    assert!(
        raw(address, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").is_err(),
        "plain http is not spoken there"
    );
    let mut check = server.command(&["healthcheck"]);
    let status = check.env("TIDINGS__SERVER__LISTEN", address.to_string()).status().expect("run");
    assert!(status.success(), "the local check needs no name");

    fs::write(folder.path().join("key.pem"), "half").expect("written");
    server.signal(Signal::HUP);
    eventually("a word about it", SOON, || server.log().contains("the old one is shown").then_some(()));
    assert!(is_answered(&first, address));

    let second = certify(folder.path());
    server.signal(Signal::HUP);
    eventually("the new certificate", SOON, || is_answered(&second, address).then_some(()));
    assert!(!is_answered(&first, address));
}

#[test]
fn a_start_with_a_certificate_that_cannot_be_shown_is_refused() {
    let folder = TempDir::new().expect("a folder");
    certify(folder.path());
    fs::write(folder.path().join("key.pem"), KeyPair::generate().expect("a key").serialize_pem())
        .expect("written");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let server = Server::prepare()
        .with("server.tls_cert_file", &path("chain.pem"))
        .with("server.tls_key_file", &path("key.pem"));
    let output = server.command(&["serve"]).output().expect("run");
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("does not belong to the certificate"), "{said}");
}

#[test]
fn operators_have_a_listener_of_their_own() {
    let mut server = Server::prepare().with("server.ops_listen", "127.0.0.1:0");
    server.spawn();
    let api = eventually("address of the server", SOON, || server.announced());
    let ops = eventually("address for operators", SOON, || server.ops_announced());
    eventually("health", SOON, || {
        ask(ops, "GET", "/readyz", None, None).ok().filter(|answer| answer.status == 200)
    });
    for path in ["/health", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(ops, "GET", path, None, None).expect("an answer").status, 200, "{path}");
        assert_eq!(ask(api, "GET", path, None, None).expect("an answer").status, 401, "{path}");
    }
    for path in ["/openapi.json", "/docs/index.html"] {
        assert_eq!(ask(api, "GET", path, None, None).expect("an answer").status, 200, "{path}");
        assert_eq!(ask(ops, "GET", path, None, None).expect("an answer").status, 401, "{path}");
    }
    let mut check = server.command(&["healthcheck"]);
    let status = check.env("TIDINGS__SERVER__OPS_LISTEN", ops.to_string()).status().expect("run");
    assert!(status.success(), "it asks where health is served");
}

#[test]
fn a_server_opens_as_many_files_as_it_may_and_dumps_no_memory() {
    let server = Server::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process())).expect("limits");
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().map(ToOwned::to_owned).collect()
    };
    let files = of("Max open files");
    assert_eq!(files[0], files[1], "soft and hard");
    assert_eq!(of("Max core file size")[0], "0");
}
