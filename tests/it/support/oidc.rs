//! An identity provider on a real socket: OpenID Connect with the code flow and PKCE, and everything that one may
//! do wrong.

use std::{
    collections::HashMap,
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::http::{Message, read_body, read_head};

/// What the provider knows Tidings by.
pub(crate) const CLIENT_ID: &str = "tidings-dashboard";
/// The secret of that client.
pub(crate) const CLIENT_SECRET: &str = "client-secret-PLANTED";
/// Where it sends browsers back to; a story follows by hand.
pub(crate) const REDIRECT_URL: &str = "https://tidings.example/api/session/callback";

/// What the provider does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// It answers no question.
    Down,
    /// It refuses each code.
    RefusesCodes,
    /// Its identity token repeats another nonce.
    OtherNonce,
    /// Its identity token is for another client.
    OtherAudience,
    /// Its identity token was made for another client of several.
    OtherParty,
    /// Another key signed its identity token.
    OtherKey,
    /// Its identity token has ended.
    Over,
    /// It answers with no identity token.
    NoToken,
    /// Its description is that of another issuer.
    OtherIssuer,
}

struct State {
    misdeed: Option<Misdeed>,
    roles: Value,
    codes: HashMap<String, Authorization>,
    issued: u32,
}

#[derive(Clone)]
struct Authorization {
    nonce: String,
    challenge: String,
}

struct Signer {
    key: EcdsaKeyPair,
    other: EcdsaKeyPair,
}

/// The provider; its threads end with the process.
pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    signer: Arc<Signer>,
}

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key")
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

#[expect(clippy::disallowed_methods, reason = "the provider is another machine with a clock of its own")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn signed(key: &EcdsaKeyPair, claims: &Value) -> String {
    let header = json!({ "alg": "ES256", "kid": "one", "typ": "JWT" });
    let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
    format!("{message}.{}", base64(signature))
}

impl Provider {
    /// Listens on a port of its own. The person who signs in has these roles.
    pub(crate) fn start(roles: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = State { misdeed: None, roles, codes: HashMap::new(), issued: 0 };
        let state = Arc::new(Mutex::new(state));
        let signer = Arc::new(Signer { key: key(), other: key() });
        let shared = (Arc::clone(&state), Arc::clone(&signer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, signer) = shared.clone();
                thread::spawn(move || converse(stream, address, &state, &signer));
            }
        });
        Self { address, state, signer }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// The issuer, as its tokens name it.
    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this, or nothing wrong.
    pub(crate) fn does(&self, misdeed: Option<Misdeed>) {
        self.state().misdeed = misdeed;
    }

    /// From now on the person who signs in has these roles.
    pub(crate) fn gives(&self, roles: Value) {
        self.state().roles = roles;
    }

    /// A token (JWT) with these claims beside its issuer and end.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut all = json!({ "iss": self.issuer(), "exp": now() + 600 });
        for (name, value) in claims.as_object().expect("claims") {
            all[name] = value.clone();
        }
        signed(&self.signer.key, &all)
    }

    /// A person agrees at the page that a browser was sent to: where the provider sends the browser back to.
    pub(crate) fn agrees(&self, page: &str) -> Url {
        let page = Url::parse(page).expect("an address");
        let asked: HashMap<String, String> = page.query_pairs().into_owned().collect();
        assert_eq!(page.origin().ascii_serialization(), self.issuer());
        assert_eq!((asked["response_type"].as_str(), asked["client_id"].as_str()), ("code", CLIENT_ID));
        assert_eq!(
            (asked["redirect_uri"].as_str(), asked["code_challenge_method"].as_str()),
            (REDIRECT_URL, "S256")
        );
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"), "{asked:?}");
        let mut state = self.state();
        state.issued += 1;
        let code = format!("code-{}", state.issued);
        let agreed =
            Authorization { nonce: asked["nonce"].clone(), challenge: asked["code_challenge"].clone() };
        state.codes.insert(code.clone(), agreed);
        let mut back = Url::parse(REDIRECT_URL).expect("an address");
        back.query_pairs_mut().append_pair("code", &code).append_pair("state", &asked["state"]);
        back
    }
}

fn converse(stream: TcpStream, address: SocketAddr, state: &Mutex<State>, signer: &Signer) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut stream = stream;
    while let Ok(Some((first_line, headers))) = read_head(&mut reader) {
        let mut message = Message { first_line, headers, body: Vec::new() };
        let Ok(body) = read_body(&mut reader, &message, false) else { return };
        message.body = body;
        let Some((status, body)) = answer(&mut state.lock().expect("no panic"), address, signer, &message)
        else {
            return;
        };
        let body = body.to_string();
        let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(
    state: &mut State,
    address: SocketAddr,
    signer: &Signer,
    message: &Message,
) -> Option<(u16, Value)> {
    let issuer = format!("http://{address}");
    if state.misdeed == Some(Misdeed::Down) {
        return None;
    }
    let line = message.first_line.trim_end_matches(" HTTP/1.1");
    Some(match line {
        "GET /.well-known/openid-configuration" => {
            let told = match state.misdeed {
                Some(Misdeed::OtherIssuer) => "http://127.0.0.1:9/other".to_owned(),
                _ => issuer.clone(),
            };
            let (authorize, token) = (format!("{issuer}/authorize"), format!("{issuer}/token"));
            (200, json!({ "issuer": told, "authorization_endpoint": authorize, "token_endpoint": token }))
        }
        "GET /keys" => {
            let point = signer.key.public_key().as_ref();
            let (x, y) = (base64(&point[1..33]), base64(&point[33..]));
            (200, json!({ "keys": [{ "kty": "EC", "kid": "one", "crv": "P-256", "x": x, "y": y }] }))
        }
        "POST /token" => exchanged(state, &issuer, signer, message),
        _ => (404, json!({})),
    })
}

fn exchanged(state: &mut State, issuer: &str, signer: &Signer, message: &Message) -> (u16, Value) {
    let form: HashMap<String, String> = form_urlencoded::parse(&message.body).into_owned().collect();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let client = format!("Basic {}", BASE64.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}").as_bytes()));
    // A code is good once.
    let agreed = state.codes.remove(field("code"));
    let proof = base64(digest(&SHA256, field("code_verifier").as_bytes()));
    let is_right = message.header("authorization") == Some(client.as_str())
        && field("grant_type") == "authorization_code"
        && field("redirect_uri") == REDIRECT_URL
        && agreed.as_ref().is_some_and(|agreed| agreed.challenge == proof);
    let misdeed = state.misdeed;
    let Some(agreed) = agreed.filter(|_| is_right && misdeed != Some(Misdeed::RefusesCodes)) else {
        return (400, json!({ "error": "invalid_grant" }));
    };
    let mut claims = json!({
        "iss": issuer, "aud": CLIENT_ID, "sub": "person-1", "exp": now() + 300, "nonce": agreed.nonce,
        "groups": state.roles,
    });
    match misdeed {
        Some(Misdeed::OtherNonce) => claims["nonce"] = "another".into(),
        Some(Misdeed::OtherAudience) => claims["aud"] = "another".into(),
        Some(Misdeed::OtherParty) => {
            claims["aud"] = json!([CLIENT_ID, "another"]);
            claims["azp"] = "another".into();
        }
        Some(Misdeed::Over) => claims["exp"] = (now() - 3_600).into(),
        _ => {}
    }
    let key = if misdeed == Some(Misdeed::OtherKey) { &signer.other } else { &signer.key };
    match misdeed {
        Some(Misdeed::NoToken) => (200, json!({ "access_token": "x", "token_type": "Bearer" })),
        _ => (200, json!({ "access_token": "x", "token_type": "Bearer", "id_token": signed(key, &claims) })),
    }
}
