//! The guarded client: schemes, ports, literals and the answers of a resolver.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::*;

/// Hosts in every spelling that names an address which is not public.
const REFUSED: &[&str] = &[
    // Loopback.
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7F.1",
    "0177.0.0.1",
    "0177.0.0x1",
    "127.0.0.1.",
    "0x7f.0.0.0x1",
    "127.0.00.1",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "127。0。0。1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[::ffff:0:127.0.0.1]",
    // Unspecified.
    "0.0.0.0",
    "0",
    "0x0",
    "00",
    "0.0.0.1",
    "0.1.2.3",
    "[::]",
    "[0::0]",
    "[::ffff:0.0.0.0]",
    "[::ffff:0:0]",
    // Private.
    "10.0.0.1",
    "10.1",
    "10.255.255.255",
    "167772161",
    "0xa000001",
    "012.0.0.1",
    "0x0a.0x00.0x00.0x01",
    "172.16.0.1",
    "172.31.255.255",
    "2886729729",
    "0xac100001",
    "0254.020.0.1",
    "192.168.0.1",
    "192.168.1",
    "3232235521",
    "0xc0a80001",
    "0300.0250.0.1",
    "[::ffff:10.0.0.1]",
    "[::ffff:a00:1]",
    "[::ffff:192.168.0.1]",
    "[::ffff:172.16.0.1]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b::c0a8:1]",
    "[2002:a00:1::]",
    "[2002:c0a8:1::1]",
    "[2001:0:5ef5:79fb:0:0:f5ff:fffe]",
    // Shared, protocol, documentation, relay, benchmark, multicast, reserved, broadcast.
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.1",
    "192.0.0.171",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "0xffffffff",
    "037777777777",
    // Link-local and metadata.
    "169.254.169.254",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fe80::1]",
    "[febf::1]",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "192.0.0.192",
    // IPv6: unique local, site local, multicast, discard, documentation, benchmark, segments, unassigned.
    "[fc00::1]",
    "[fd12:3456:789a::1]",
    "[fdff:ffff::]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[4000::1]",
    "[1::1]",
    "[64:ff9b::8.8.8.8]",
    "[2002:808:808::]",
    "[::8.8.8.8]",
];

fn settings(allow: &[&str]) -> EgressSettings {
    EgressSettings {
        allow: allow.iter().map(|entry| (*entry).to_owned()).collect(),
        allow_http: true,
        ..EgressSettings::default()
    }
}

/// A lookup that answers the same for every name and counts how often it was asked.
fn answering(addresses: &[&str]) -> (Lookup, Arc<AtomicUsize>) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    });
    (lookup, asked)
}

/// A server that counts connections and answers 204.
async fn canary() -> (u16, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let visits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&visits);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            // Asks are short and come in one piece. The answer may find the peer gone; that is the
            // peer's business.
            drop(stream.read(&mut [0; 4096]).await);
            drop(stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await);
        }
    });
    (port, visits, tasks)
}

#[test]
fn every_spelling_of_an_address_inside_is_refused() {
    let egress = Egress::new(&settings(&[])).expect("settings");
    assert!(REFUSED.len() >= 100, "{}", REFUSED.len());
    for host in REFUSED {
        for scheme in ["http", "https"] {
            let url = Url::parse(&format!("{scheme}://{host}/hook"))
                .unwrap_or_else(|error| panic!("{host}: {error}"));
            let refused = egress.request(Method::POST, &url);
            assert!(matches!(refused, Err(EgressError::Refused(_))), "{host} {:?}", url.host());
        }
    }
}

#[test]
fn public_literals_pass() {
    let egress = Egress::new(&settings(&[])).expect("settings");
    for host in ["8.8.8.8", "134744072", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "example.org"] {
        let url = Url::parse(&format!("https://{host}/")).expect("a URL");
        assert!(egress.request(Method::GET, &url).is_ok(), "{host}");
    }
}

#[test]
fn scheme_userinfo_and_port_are_checked() {
    let egress = Egress::new(&EgressSettings::default()).expect("settings");
    let check = |text: &str| egress.request(Method::GET, &Url::parse(text).expect("a URL")).map(drop);
    assert!(matches!(check("http://example.org/"), Err(EgressError::PlainHttp)));
    for bad in [
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://user@example.org/",
        "https://:pass@example.org/",
    ] {
        assert!(matches!(check(bad), Err(EgressError::InvalidUrl(_))), "{bad}");
    }
    for port in [0, 1, 22, 25, 79, 81, 442, 444, 1023] {
        assert!(
            matches!(check(&format!("https://example.org:{port}/")), Err(EgressError::Refused(_))),
            "{port}"
        );
    }
    for port in [80, 443, 1024, 8443, 65535] {
        assert!(check(&format!("https://example.org:{port}/")).is_ok(), "{port}");
    }
}

#[tokio::test]
async fn a_name_with_one_address_inside_is_refused_as_a_whole() {
    let (port, visits, _tasks) = canary().await;
    for answer in
        [&["127.0.0.1"][..], &["8.8.8.8", "127.0.0.1"], &["127.0.0.1", "8.8.8.8"], &["::ffff:127.0.0.1"]]
    {
        let egress = Egress::with_lookup(&settings(&[]), answering(answer).0).expect("settings");
        let url = Url::parse(&format!("http://rebound.example:{port}/")).expect("a URL");
        let error =
            egress.request(Method::GET, &url).expect("judged later").send().await.expect_err("refused");
        assert!(Egress::is_refused(&error), "{answer:?} {error:?}");
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_judged_address_is_the_one_dialled() {
    let (port, visits, _tasks) = canary().await;
    let (lookup, asked) = answering(&["127.0.0.1"]);
    let egress = Egress::with_lookup(&settings(&["127.0.0.0/8"]), lookup).expect("settings");
    let url = Url::parse(&format!("http://no-such-name.example:{port}/")).expect("a URL");
    let answer = egress.request(Method::GET, &url).expect("a request").send().await.expect("an answer");
    assert_eq!(answer.status(), 204);
    assert_eq!((visits.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn an_allowed_port_opens_a_name_on_that_port_only() {
    let (open, _, _first) = canary().await;
    let (shut, visits, _second) = canary().await;
    let allow = format!("127.0.0.1:{open}");
    let egress = Egress::with_lookup(&settings(&[&allow]), answering(&["127.0.0.1"]).0).expect("settings");
    for host in ["name.example", "127.0.0.1"] {
        let url = Url::parse(&format!("http://{host}:{open}/")).expect("a URL");
        assert!(egress.request(Method::GET, &url).expect("a request").send().await.is_ok(), "{host}");
    }
    let url = Url::parse(&format!("http://name.example:{shut}/")).expect("a URL");
    let error = egress.request(Method::GET, &url).expect("judged later").send().await.expect_err("refused");
    assert!(Egress::is_refused(&error));
    let url = Url::parse(&format!("http://127.0.0.1:{shut}/")).expect("a URL");
    assert!(matches!(egress.request(Method::GET, &url), Err(EgressError::Refused(_))));
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn this_server_itself_is_never_reached_and_its_neighbours_on_the_machine_are() {
    let (own, visits, _first) = canary().await;
    let (other, reached, _second) = canary().await;
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let mut settings = settings(&["127.0.0.0/8", "0.0.0.0", "by.name"]);
        settings.own = vec![format!("{listen}:{own}").parse().expect("an address")];
        let egress = Egress::with_lookup(&settings, answering(&["127.0.0.1"]).0).expect("settings");
        for host in ["127.0.0.1", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]"] {
            let url = Url::parse(&format!("http://{host}:{own}/")).expect("a URL");
            let refused = egress.request(Method::POST, &url).map(drop);
            assert!(matches!(refused, Err(EgressError::Refused(Refused::Own(_)))), "{host}: {refused:?}");
        }
        for host in ["name.example", "by.name"] {
            let url = Url::parse(&format!("http://{host}:{own}/")).expect("a URL");
            let error = egress.request(Method::POST, &url).expect("judged later").send().await;
            let error = error.expect_err("refused");
            assert!(matches!(Egress::refusal(&error), Some(Refused::Own(_))), "{host}: {error:?}");
        }
        for host in ["127.0.0.1", "name.example"] {
            let url = Url::parse(&format!("http://{host}:{other}/")).expect("a URL");
            assert!(egress.request(Method::POST, &url).expect("a request").send().await.is_ok(), "{host}");
        }
    }
    assert_eq!((visits.load(Ordering::SeqCst), reached.load(Ordering::SeqCst)), (0, 4));
}

#[tokio::test]
async fn an_allowed_host_may_be_anywhere() {
    let (port, visits, _tasks) = canary().await;
    let egress = Egress::new(&settings(&["localhost"])).expect("settings");
    let url = Url::parse(&format!("http://LOCALHOST:{port}/")).expect("a URL");
    // `localhost` may name ::1 first; the client tries the next address by itself.
    assert!(egress.request(Method::GET, &url).expect("a request").send().await.is_ok());
    let url = Url::parse(&format!("http://127.0.0.1:{port}/")).expect("a URL");
    assert!(
        matches!(egress.request(Method::GET, &url), Err(EgressError::Refused(_))),
        "a name opens no literal"
    );
    assert_eq!(visits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_proxy_is_used_only_when_settings_name_it() {
    let (proxy, visits, _tasks) = canary().await;
    let mut explicit = settings(&[]);
    explicit.proxy = Some(Url::parse(&format!("http://proxy.example:{proxy}/")).expect("a URL"));
    let egress = Egress::with_lookup(&explicit, answering(&["127.0.0.1"]).0).expect("settings");
    let url = Url::parse("http://receiver.example/hook").expect("a URL");
    assert_eq!(
        egress.request(Method::POST, &url).expect("a request").send().await.expect("an answer").status(),
        204
    );
    assert_eq!(visits.load(Ordering::SeqCst), 1);
    let inside = Url::parse("http://10.0.0.1/hook").expect("a URL");
    assert!(matches!(egress.request(Method::POST, &inside), Err(EgressError::Refused(_))));
}

#[test]
fn a_bad_ca_file_is_a_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, "not a certificate").expect("written");
    let with = EgressSettings { ca_file: Some(path), ..EgressSettings::default() };
    let error = Egress::new(&with).map(drop).expect_err("no certificate");
    assert!(matches!(&error, EgressError::Tls(text) if text.contains("holds no certificate")), "{error}");
}

#[tokio::test]
async fn a_client_of_one_app_keeps_to_the_same_rules() {
    let (port, visits, _tasks) = canary().await;
    let mut root = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let ca = Some(root.self_signed(&key).expect("an authority").pem());
    let setup = tidings_actors::ports::EndpointTls { client: None, ca };
    let own = |egress: Egress| egress.with_tls(AppTls::read(&setup).expect("read")).expect("built");
    let url = |host: &str| Url::parse(&format!("http://{host}:{port}/")).expect("a URL");

    let shut = own(Egress::with_lookup(&settings(&[]), answering(&["127.0.0.1"]).0).expect("settings"));
    assert!(matches!(shut.request(Method::GET, &url("127.0.0.1")), Err(EgressError::Refused(_))));
    let error = shut.request(Method::GET, &url("name.example")).expect("judged later").send().await;
    assert!(Egress::is_refused(&error.expect_err("refused")));
    assert_eq!(visits.load(Ordering::SeqCst), 0);

    let (lookup, asked) = answering(&["127.0.0.1"]);
    let allow = format!("127.0.0.1:{port}");
    let open = own(Egress::with_lookup(&settings(&[&allow]), lookup).expect("settings"));
    let answer = open.request(Method::GET, &url("name.example")).expect("a request").send().await;
    assert_eq!(answer.expect("an answer").status(), 204);
    assert_eq!((visits.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (1, 1), "as it was judged");
    let plain = Egress::with_lookup(&EgressSettings::default(), answering(&["8.8.8.8"]).0).expect("settings");
    assert!(matches!(own(plain).request(Method::GET, &url("name.example")), Err(EgressError::PlainHttp)));
}

#[tokio::test]
async fn loopback_is_open_to_those_who_ask_for_it_and_to_no_other_name() {
    let (port, visits, _tasks) = canary().await;
    let own = EgressSettings { reaches_loopback: true, ..EgressSettings::default() };
    let egress = Egress::with_lookup(&own, answering(&["127.0.0.1"]).0).expect("settings");
    let url = |host: &str| Url::parse(&format!("http://{host}:{port}/")).expect("a URL");
    for host in ["127.0.0.1", "localhost"] {
        let answer = egress.request(Method::POST, &url(host)).expect("a request").send().await;
        assert_eq!(answer.expect("an answer").status(), 204, "{host}");
    }
    assert!(matches!(egress.request(Method::POST, &url("other.example")), Err(EgressError::PlainHttp)));
    assert!(matches!(egress.request(Method::POST, &url("10.0.0.1")), Err(EgressError::PlainHttp)));
    let rebound = Url::parse(&format!("https://other.example:{port}/")).expect("a URL");
    let error = egress.request(Method::POST, &rebound).expect("judged later").send().await;
    assert!(Egress::is_refused(&error.expect_err("refused")), "another name leads to this machine");
    assert_eq!(visits.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_proxy_is_not_asked_for_this_machine() {
    let (proxy, proxied, _first) = canary().await;
    let (port, visits, _second) = canary().await;
    let own = EgressSettings {
        reaches_loopback: true,
        proxy: Some(Url::parse(&format!("http://127.0.0.1:{proxy}/")).expect("a URL")),
        ..EgressSettings::default()
    };
    let egress = Egress::new(&own).expect("settings");
    for host in ["127.0.0.1", "localhost"] {
        let url = Url::parse(&format!("http://{host}:{port}/")).expect("a URL");
        assert!(egress.request(Method::POST, &url).expect("a request").send().await.is_ok(), "{host}");
    }
    assert_eq!((proxied.load(Ordering::SeqCst), visits.load(Ordering::SeqCst)), (0, 2));
}

#[tokio::test]
async fn a_refused_connection_is_told_with_the_address_where_nothing_listens() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = socket.local_addr().expect("bound").port();
    drop(socket);
    let url = Url::parse(&format!("http://127.0.0.1:{port}/hook?token=planted")).expect("a URL");
    let own = EgressSettings { reaches_loopback: true, ..EgressSettings::default() };
    let mut proxied = settings(&[]);
    proxied.proxy = Some(Url::parse(&format!("http://proxy.example:{port}/")).expect("a URL"));
    let outside = Url::parse("http://receiver.example/hook").expect("a URL");
    for (settings, url, place) in [
        (own, url, format!("127.0.0.1:{port}")),
        (proxied, outside, format!("egress.proxy, proxy.example:{port}")),
    ] {
        let egress = Egress::with_lookup(&settings, answering(&["127.0.0.1"]).0).expect("settings");
        let sent = egress.request(Method::POST, &url).expect("a request").send().await;
        let told = egress.connection_refused(&sent.expect_err("nobody listens"));
        assert_eq!(told, Some(format!("nothing listens at {place} (connection refused)")));
    }
}
