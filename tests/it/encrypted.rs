//! Requests over TLS: whom they trust, and what a peer that is not trusted learns.

use std::{io::Write, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::Method;
use rustls::pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tidings::{egress::Egress, settings::EgressSettings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// An authority of its own and a server that it vouches for.
struct Encrypted {
    port: u16,
    authority: NamedTempFile,
    _tasks: JoinSet<()>,
}

/// Serves 204 under a certificate for `name`, valid until the given year.
async fn serve(name: &str, until: i32) -> Encrypted {
    let mut root = CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer =
        CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    leaf.not_after = rcgen::date_time_ymd(until, 1, 1);
    let leaf = leaf.signed_by(&key, &issuer).expect("signed");
    let mut authority = NamedTempFile::new().expect("a file");
    authority.write_all(issuer.pem().as_bytes()).expect("written");

    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us goes away in the middle of the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            drop(stream.read(&mut [0; 4096]).await);
            drop(stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await);
            drop(stream.shutdown().await);
        }
    });
    Encrypted { port, authority, _tasks: tasks }
}

async fn get(server: &Encrypted, host: &str, trusting: bool) -> Result<u16, String> {
    let settings = EgressSettings {
        allow: vec!["localhost".into(), "127.0.0.0/8".into()],
        ca_file: trusting.then(|| server.authority.path().to_owned()),
        ..EgressSettings::default()
    };
    let egress = Egress::new(&settings).expect("settings");
    let url = Url::parse(&format!("https://{host}:{}/", server.port)).expect("a URL");
    let answer = egress.request(Method::GET, &url).expect("a request").send().await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn only_certificates_of_a_known_authority_for_this_host_and_time_are_trusted() {
    let good = serve("localhost", 2999).await;
    assert_eq!(get(&good, "localhost", true).await, Ok(204));
    let unknown = get(&good, "localhost", false).await.expect_err("an unknown authority");
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let elsewhere = get(&good, "127.0.0.1", true).await.expect_err("another name");
    assert!(elsewhere.contains("NotValidForName"), "{elsewhere}");
    let expired = serve("localhost", 2001).await;
    let expired = get(&expired, "localhost", true).await.expect_err("expired");
    assert!(expired.contains("Expired"), "{expired}");
}
