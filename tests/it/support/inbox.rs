//! A receiver of messages to a subscription: it keeps everything that arrives, in order, with what it answered.

use std::{
    io::{self, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tidings::sinks::signature::{SigningKey, check};

use super::{
    http::{Message, read_body, read_head},
    patience::{SOON, eventually_or},
};

/// In place of a status: nothing is answered, until the other side gives up.
pub(crate) const SILENT: u16 = 0;
/// In place of a status: the connection ends without an answer.
pub(crate) const CUT: u16 = 1;

/// One message that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// The path it came to.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    bytes: Vec<u8>,
    /// The body as JSON.
    pub(crate) body: Value,
    /// The status that the receiver answered; [`SILENT`] or [`CUT`]: it answered nothing.
    pub(crate) status: u16,
}

impl Letter {
    /// A header field of the message; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// The message without the envelope of a CloudEvent.
    pub(crate) fn data(&self) -> &Value {
        if self.body["specversion"].is_null() { &self.body } else { &self.body["data"] }
    }

    /// The body as it came.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The type that it names.
    pub(crate) fn kind(&self) -> &str {
        self.data()["event"]["type"].as_str().expect("a type")
    }

    /// The number of its entry; 0 where it is about none.
    pub(crate) fn number(&self) -> u64 {
        self.data()["entry"]["number"].as_u64().unwrap_or(0)
    }

    /// Whether one of these keys (as the API shows them) signed it.
    pub(crate) fn is_signed_with(&self, secrets: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let key = |secret: &&str| {
            use base64::{Engine, prelude::BASE64_STANDARD};
            let text = secret.strip_prefix("whsec_").expect("its form");
            let text = BASE64_STANDARD.decode(text).expect("base64");
            SigningKey::of_text(std::str::from_utf8(&text).expect("a text"))
        };
        let keys: Vec<SigningKey> = secrets.iter().map(key).collect();
        check(&keys, &headers, &self.bytes, None).is_good()
    }
}

type Script = Box<dyn FnMut(&Letter) -> u16 + Send>;

struct Shared {
    letters: Mutex<Vec<Letter>>,
    script: Mutex<Script>,
    stopped: AtomicBool,
}

/// A receiver of the messages of subscriptions, which keeps all of them.
pub(crate) struct Inbox {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Inbox {
    /// Listens on a port of its own and takes everything.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            letters: Mutex::default(),
            script: Mutex::new(Box::new(|_| 200)),
            stopped: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.expect("a connection"), of_thread.clone());
                thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, shared }
    }

    /// The address that a subscription names.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// From now on this says the status of each answer.
    pub(crate) fn script(&self, script: impl FnMut(&Letter) -> u16 + Send + 'static) {
        *locked(&self.shared.script) = Box::new(script);
    }

    /// All messages that arrived, in order.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        locked(&self.shared.letters).clone()
    }

    /// What it took, in order: the numbers of entries.
    pub(crate) fn taken(&self) -> Vec<u64> {
        let letters = self.letters();
        let taken = letters.iter().filter(|letter| (200..300).contains(&letter.status));
        taken.map(Letter::number).filter(|number| *number > 0).collect()
    }

    /// Waits until it took an entry of this number.
    pub(crate) fn wait_for(&self, number: u64) {
        let look = || self.taken().contains(&number).then_some(());
        eventually_or(&format!("entry {number}"), SOON, look, || format!("but {:?}", self.taken()));
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // So that the thread that accepts looks once more.
        drop(TcpStream::connect(self.address));
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((first_line, headers)) = read_head(&mut reader)? {
        let mut message = Message { first_line, headers, body: Vec::new() };
        message.body = read_body(&mut reader, &message, false)?;
        let Message { first_line, headers, body: bytes } = message;
        let mut letter = Letter {
            path: first_line.split(' ').nth(1).expect("a path").to_owned(),
            headers,
            body: serde_json::from_slice(&bytes).expect("JSON"),
            bytes,
            status: 0,
        };
        letter.status = (locked(&shared.script))(&letter);
        let status = letter.status;
        // Noted before the answer leaves: what comes next must not overtake the note.
        locked(&shared.letters).push(letter);
        match status {
            SILENT => continue,
            CUT => return Ok(()),
            _ => {}
        }
        stream.write_all(format!("HTTP/1.1 {status} OK\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
    Ok(())
}
