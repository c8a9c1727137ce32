//! The API of a Git host as far as it issues tokens for the installations of a GitHub App. It
//! checks the claim it is shown with the public key of the app.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::http::{Message, read_body, read_head};

/// The private key of the app: that of RFC 7515, appendix A.2.
pub(crate) const KEY: &str = include_str!("../../keys/rfc7515-a2.pkcs1.pem");
const PUBLIC_KEY: &[u8] = include_bytes!("../../keys/rfc7515-a2.public.der");
/// The id of the GitHub App.
pub(crate) const APP_ID: &str = "4711";
/// The id of the installation of the GitHub App.
pub(crate) const INSTALLATION: u64 = 815;

struct State {
    minted: u64,
    refusal: Option<(u16, String)>,
    expires_at: String,
    seen: Vec<Message>,
}

/// The API; its thread ends with the process.
pub(crate) struct GithubApi {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl GithubApi {
    /// Listens on a port of its own.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = State {
            minted: 0,
            refusal: None,
            expires_at: "2999-01-01T00:00:00Z".to_owned(),
            seen: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || converse(stream, &shared));
            }
        });
        Self { address, state }
    }

    /// Where it is, with a path of its own.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v3/", self.address)
    }

    /// The app as the field of a registration.
    pub(crate) fn app(&self) -> Value {
        json!({ "app_id": APP_ID, "installation_id": INSTALLATION, "private_key": KEY, "api_url": self.url() })
    }

    /// The token that it issued last, or will issue as the number `n`.
    pub(crate) fn token(n: u64) -> String {
        format!("ghs_minted{n}PLANTED")
    }

    /// From now on it refuses with this status and these header lines, or no longer.
    pub(crate) fn refuse(&self, refusal: Option<(u16, &str)>) {
        self.state().refusal = refusal.map(|(status, lines)| (status, lines.to_owned()));
    }

    /// From now on tokens expire at this moment.
    pub(crate) fn let_tokens_expire(&self, at: &str) {
        self.state().expires_at = at.to_owned();
    }

    /// What it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.state().seen.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }
}

fn converse(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut stream = stream;
    while let Ok(Some((first_line, headers))) = read_head(&mut reader) {
        let mut message = Message { first_line, headers, body: Vec::new() };
        let Ok(body) = read_body(&mut reader, &message, false) else { return };
        message.body = body;
        let (status, lines, body) = answer(&mut state.lock().expect("no panic"), message);
        let text = format!("HTTP/1.1 {status} x\r\n{lines}content-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(state: &mut State, message: Message) -> (u16, String, String) {
    let claim =
        message.header("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    let line = message.first_line.clone();
    state.seen.push(message);
    if let Some((status, lines)) = &state.refusal {
        return (*status, lines.clone(), json!({ "message": "no" }).to_string());
    }
    if line != format!("POST /api/v3/app/installations/{INSTALLATION}/access_tokens HTTP/1.1") {
        return (404, String::new(), String::new());
    }
    match claim.as_deref().map(verify) {
        Some(Ok(())) => {
            state.minted += 1;
            let body = json!({ "token": GithubApi::token(state.minted), "expires_at": state.expires_at });
            (201, String::new(), body.to_string())
        }
        other => (401, String::new(), format!("{other:?}")),
    }
}

/// Whether a claim was signed by the app and says what GitHub asks for.
fn verify(claim: &str) -> Result<(), &'static str> {
    let (text, signature) = claim.rsplit_once('.').ok_or("no signature")?;
    let (header, payload) = text.split_once('.').ok_or("no payload")?;
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| "not base64url");
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, PUBLIC_KEY)
        .verify(text.as_bytes(), &decode(signature)?)
        .map_err(|_| "another key signed")?;
    let value = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).map_err(|_| "not json");
    let (header, payload) = (value(header)?, value(payload)?);
    let number = |name: &str| payload[name].as_i64().ok_or("a number is missing");
    let life = number("exp")? - number("iat")?;
    if header["alg"] != "RS256" || payload["iss"] != APP_ID || !(1..=600).contains(&life) {
        return Err("another claim");
    }
    Ok(())
}
