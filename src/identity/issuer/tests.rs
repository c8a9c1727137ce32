//! A real issuer on a real socket, and forgeries of every kind.

mod forgeries;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::settings::EgressSettings;

/// A key for this test alone.
const RSA_KEY: &str = include_str!("test-rsa-key.txt");
const ISSUER: &str = "https://issuer.example/realm";
const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// The status of an issuer that says nothing.
const SILENT: u16 = 204;
const NOW_SECONDS: i64 = 1_800_000_000;

/// An issuer that serves whatever keys it is given, and counts how often it is asked.
pub(crate) struct Served {
    issuer: Issuer,
    pub(crate) settings: IdentitySettings,
    pub(crate) egress: EgressSettings,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicU32>,
    began: Instant,
    signers: Signers,
}

struct Signers {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Signers {
    fn new() -> Self {
        let random = SystemRandom::new();
        let der = BASE64.decode(RSA_KEY.trim().as_bytes()).expect("base64");
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        Self {
            rsa: RsaKeyPair::from_der(&der).expect("a key"),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random)
                .expect("a key"),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("a key"),
        }
    }

    fn keys(&self) -> Value {
        let public: ring::signature::RsaPublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": base64(public.n), "e": base64(public.e) },
            { "kty": "EC", "kid": "ec", "crv": "P-256", "x": base64(&point[1..33]), "y": base64(&point[33..]) },
            { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": base64(self.ed.public_key()) },
            { "kty": "RSA", "kid": "sealing", "use": "enc", "n": "AQAB", "e": "AQAB" },
            { "kty": "of tomorrow", "kid": "x" },
        ] })
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                signature
            }
            "ES256" => self.ec.sign(&random, message).expect("signed").as_ref().to_vec(),
            _ => self.ed.sign(message).as_ref().to_vec(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let signature = self.sign(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", base64(signature))
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": ["somebody", "tidings"], "sub": "user-1", "exp": NOW_SECONDS + 300,
        "nbf": NOW_SECONDS - 10, "realm": { "roles": ["other", "tidings-operator", "tidings-viewer"] },
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

pub(crate) async fn serve() -> Served {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let signers = Signers::new();
    let answer = Arc::new(Mutex::new((200, signers.keys().to_string())));
    let asked = Arc::new(AtomicU32::new(0));
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = tcp.local_addr().expect("bound");
    let (answers, count) = (answer.clone(), asked.clone());
    #[expect(clippy::disallowed_methods, reason = "the test's own issuer; it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            let (answers, count) = (answers.clone(), count.clone());
            let service = service_fn(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                let (status, body) = answers.lock().clone();
                let mut response = http::Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                async move {
                    if status == SILENT {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let allow = vec!["127.0.0.1/32".to_owned()];
    let egress = EgressSettings { allow_http: true, allow, ..EgressSettings::default() };
    let settings = IdentitySettings {
        issuer: Some(ISSUER.to_owned()),
        audience: Some("tidings".to_owned()),
        jwks_url: Some(format!("http://{address}/keys").parse().expect("an address")),
        role_claim: "realm.roles".to_owned(),
        ..IdentitySettings::default()
    };
    let issuer = Issuer::of("staff", &settings.all()["staff"], &Egress::new(&egress).expect("valid"));
    let issuer = issuer.expect("an issuer");
    Served { issuer, settings, egress, answer, asked, began: Instant::now(), signers }
}

impl Served {
    /// A genuine token that is live now and says these roles.
    pub(crate) fn token(&self, now: Timestamp, roles: &[&str]) -> String {
        let mut claims = with("realm", json!({ "roles": roles }));
        claims["exp"] = json!(now.0 / 1_000 + 600);
        claims["nbf"] = json!(now.0 / 1_000);
        self.signers.token(&json!({ "alg": "ES256", "kid": "ec", "typ": "JWT" }), &claims)
    }

    async fn role(&self, token: &str, now: Timestamp) -> Result<Role, Refusal> {
        let moment = self.began + Duration::from_millis(u64::try_from(now.0 - NOW.0).unwrap_or(0));
        let subject = self.issuer.subject_at(token, now, moment).await?;
        let Grant::Staff(roles) = subject.grant else { panic!("the issuer is for the staff") };
        let [role] = roles.as_slice() else { panic!("one role of {roles:?}") };
        Ok(role.parse().expect("a built-in one"))
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn tokens_of_each_algorithm_are_known_and_the_highest_role_counts() {
    let served = serve().await;
    for (algorithm, kid) in [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        let token = served.signers.token(&json!({ "alg": algorithm, "kid": kid, "typ": "JWT" }), &claims());
        assert_eq!(served.role(&token, NOW).await, Ok(Role::Operator), "{algorithm}");
        let nameless = served.signers.token(&json!({ "alg": algorithm }), &claims());
        assert_eq!(served.role(&nameless, NOW).await, Ok(Role::Operator), "one key of that kind");
    }
    assert_eq!(served.asked(), 1, "the keys are kept");
    let header = json!({ "alg": "EdDSA", "kid": "ed", "typ": "at+jwt" });
    for (roles, role) in [
        (json!(["tidings-viewer", "tidings-admin"]), Ok(Role::Admin)),
        (json!("tidings-viewer"), Ok(Role::Viewer)),
        (json!("former tidings-viewer"), Err(Refusal::NoRole)),
        (json!(["tidings-viewers"]), Err(Refusal::NoRole)),
        (json!({ "tidings-admin": true }), Err(Refusal::NoRole)),
        (Value::Null, Err(Refusal::NoRole)),
    ] {
        let token = served.signers.token(&header, &with("realm", json!({ "roles": roles })));
        assert_eq!(served.role(&token, NOW).await, role, "{roles}");
    }
    let subject =
        async |token: String| served.issuer.subject_at(&token, NOW, served.began).await.expect("known");
    let one = subject(served.signers.token(&header, &claims())).await;
    let other = served.signers.token(&header, &with("sub", json!("user-2")));
    let other = subject(other).await;
    assert!(one.id.starts_with("jwt:") && one.id.len() == 36 && !one.id.contains("user"));
    assert!(one.id != other.id && one.keys != other.keys);
}

#[tokio::test]
async fn unknown_keys_cause_no_storm_and_a_new_key_is_found() {
    let served = serve().await;
    let storm = async |now| {
        let tokens: Vec<String> = (0..200)
            .map(|number| {
                let header = json!({ "alg": "EdDSA", "kid": format!("made up {number}") });
                served.signers.token(&header, &claims())
            })
            .collect();
        let refused = join_all(tokens.iter().map(|token| served.role(token, now))).await;
        assert!(refused.iter().all(|outcome| *outcome == Err(TokenFault::NoKey.into())));
    };
    storm(NOW).await;
    assert_eq!(served.asked(), 1);
    storm(Timestamp(NOW.0 + 29_000)).await;
    assert_eq!(served.asked(), 1);
    // The issuer has a new key: it is found as soon as keys may be asked for again.
    let next = Signers::new();
    *served.answer.lock() = (200, next.keys().to_string().replace("\"ed\"", "\"ed2\""));
    let token = next.token(&json!({ "alg": "EdDSA", "kid": "ed2" }), &claims());
    assert_eq!(served.role(&token, Timestamp(NOW.0 + 29_000)).await, Err(TokenFault::NoKey.into()));
    assert_eq!(served.role(&token, Timestamp(NOW.0 + 30_000)).await, Ok(Role::Operator));
    let old = served.signers.token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims());
    assert_eq!(
        served.role(&old, Timestamp(NOW.0 + 30_000)).await,
        Err(TokenFault::NoKey.into()),
        "its key is gone"
    );
    assert_eq!(served.asked(), 2);
}

#[tokio::test]
async fn an_issuer_in_trouble_is_asked_more_and_more_rarely_and_keys_stay_for_a_day() {
    let served = serve().await;
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let hours = |count: i64| Timestamp(NOW.0 + count * 3_600_000);
    let until = |count: i64| with("exp", json!(NOW_SECONDS + count * 3_600));
    let token = served.signers.token(&header, &until(48));
    assert_eq!(served.role(&token, NOW).await, Ok(Role::Operator));
    for (status, body) in
        [(500, String::new()), (200, "x".repeat(300 << 10)), (200, "{\"keys\":[]}".to_owned())]
    {
        *served.answer.lock() = (status, body);
        assert_eq!(served.role(&token, hours(1)).await, Ok(Role::Operator), "what is known stays");
    }
    assert_eq!(served.asked(), 2, "it is left alone for a while");
    let mut asked = 0;
    for second in 0..600 {
        let before = served.asked();
        let _still = served.role(&token, Timestamp(hours(2).0 + second * 1_000)).await;
        asked += served.asked() - before;
    }
    assert!((5..=9).contains(&asked), "{asked} times in ten minutes");
    assert_eq!(
        served.role(&token, hours(25)).await,
        Err(TokenFault::NoKey.into()),
        "a day without its issuer"
    );
}

#[tokio::test]
async fn callers_that_go_away_cause_one_fetch_and_those_that_stay_wait_for_it() {
    let served = serve().await;
    let token = served.signers.token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims());
    served.answer.lock().0 = SILENT;
    for _ in 0..5 {
        timeout(Duration::from_millis(200), served.role(&token, NOW)).await.expect_err("nobody answers");
    }
    assert_eq!(served.role(&token, NOW).await, Err(TokenFault::NoKey.into()), "it did not come in time");
    assert_eq!(served.asked(), 1);
    // The pause begins when the issuer was given up, five seconds later: until then nobody waits or asks.
    let soon = timeout(Duration::from_secs(4), served.role(&token, Timestamp(NOW.0 + 6_000))).await;
    assert_eq!(soon.expect("at once"), Err(TokenFault::NoKey.into()));
    assert_eq!(served.asked(), 1, "an issuer that hangs is left alone for a while");
    served.answer.lock().0 = 200;
    assert_eq!(served.role(&token, Timestamp(NOW.0 + 20_000)).await, Ok(Role::Operator), "after its pause");
}

#[tokio::test]
async fn a_clock_that_is_set_back_stops_no_fetch() {
    let served = serve().await;
    let token = served.signers.token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims());
    assert_eq!(served.role(&token, NOW).await, Ok(Role::Operator));
    let (long_ago, later) = (Timestamp(NOW.0 - 31_536_000_000), served.began + Duration::from_hours(25));
    let _not_begun = served.issuer.subject_at(&token, long_ago, later).await;
    assert_eq!(served.asked(), 2);
}

/// A key of each kind as PEM, with the algorithms that it checks.
#[test]
fn public_keys_are_read_as_pem_and_nothing_else_is() {
    let public = include_str!("../../../tests/keys/rfc7515-a2.public.pem");
    let keys = pem::keys(&format!("# a comment\n{public}\n{public}")).expect("two keys");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0].0, [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]);
    let block = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
    };
    let spki = |oids: &[u8], key: &[u8]| {
        let length = |bytes: usize| match u8::try_from(bytes).expect("short") {
            short @ ..=127 => vec![short],
            long => vec![0x81, long],
        };
        let bits = [&[0x03][..], &length(key.len() + 1), &[0], key].concat();
        let inner = [&[0x30, u8::try_from(oids.len()).expect("short")][..], oids, &bits].concat();
        [&[0x30][..], &length(inner.len()), &inner].concat()
    };
    let ec: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let p256 = [ec, &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]].concat();
    let p384 = [ec, &[0x06, 5, 0x2b, 0x81, 4, 0, 34]].concat();
    for (oids, length, algorithm) in [
        (p256.as_slice(), 65, Algorithm::ES256),
        (p384.as_slice(), 97, Algorithm::ES384),
        (&[0x06, 3, 0x2b, 0x65, 0x70], 32, Algorithm::EdDSA),
    ] {
        let keys = pem::keys(&block("PUBLIC KEY", &spki(oids, &vec![4; length]))).expect("a key");
        assert_eq!(keys[0].0, [algorithm]);
    }
    for (text, says) in [
        ("", "holds no PEM"),
        ("AAAA", "holds no PEM"),
        (&block("PRIVATE KEY", b"x"), "a private key"),
        (&block("RSA PRIVATE KEY", b"x"), "a private key"),
        (&block("CERTIFICATE", b"x"), "something other than"),
        (&block("PUBLIC KEY", b"x"), "not RSA, P-256, P-384 or Ed25519"),
        (&block("PUBLIC KEY", &spki(&p256, &[4; 97])), "not RSA, P-256, P-384 or Ed25519"),
        (&block("RSA PUBLIC KEY", b"x"), "something other than"),
        (&format!("{public}-----BEGIN PUBLIC KEY-----\nnothing ends it"), "holds"),
    ] {
        let refused = pem::keys(text).map(|keys| keys.len()).expect_err("refused");
        assert!(refused.contains(says), "{text} {refused}");
    }
}

#[tokio::test]
async fn an_issuer_with_keys_in_the_settings_is_asked_for_nothing() {
    signature::install();
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING, &random);
    let pkcs8 = pkcs8.expect("a key");
    let key =
        EcdsaKeyPair::from_pkcs8(&ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8.as_ref(), &random)
            .expect("a key");
    let head: &[u8] = &[
        0x30, 0x76, 0x30, 0x10, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 4, 0, 34,
        0x03, 0x62, 0,
    ];
    let der = [head, key.public_key().as_ref()].concat();
    let public = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der));
    let roles =
        [("support".to_owned(), vec!["help".to_owned()]), ("viewer".to_owned(), vec!["read".to_owned()])];
    let settings = IssuerSettings {
        opens: Some(Opens::Staff),
        issuer: Some(ISSUER.to_owned()),
        audience: Some("tidings".to_owned()),
        keys: Some(public + include_str!("../../../tests/keys/rfc7515-a2.public.pem")),
        role_claim: "https://example.org/roles".to_owned(),
        roles: roles.into(),
        ..IssuerSettings::default()
    };
    let egress = Egress::new(&EgressSettings::default()).expect("valid");
    let issuer = Issuer::of("pem", &settings, &egress).expect("an issuer");
    let mut claims = claims();
    claims["https://example.org/roles"] = json!(["help", "read"]);
    let message = format!(
        "{}.{}",
        base64(json!({ "alg": "ES384", "kid": "any" }).to_string()),
        base64(claims.to_string())
    );
    let token = |message: &str| {
        let signature = key.sign(&random, message.as_bytes()).expect("signed");
        format!("{message}.{}", base64(signature))
    };
    let subject = issuer.subject_at(&token(&message), NOW, Instant::now()).await.expect("known");
    let Grant::Staff(roles) = subject.grant else { panic!("of the staff") };
    assert_eq!(roles, ["viewer", "support"]);
    let rs256 = format!("{}.{}", base64(json!({ "alg": "RS256" }).to_string()), base64(claims.to_string()));
    for forged in [token(&rs256), token(&message) + "A", format!("{message}.")] {
        let refused = issuer.subject_at(&forged, NOW, Instant::now()).await.map(drop);
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{forged}");
    }
}
