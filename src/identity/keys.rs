//! The keys of an issuer: fetched through the guarded client, cached, and fetched again when they are old or
//! when a token names an unknown key.
//!
//! At most one fetch is under way, and after each there is a pause, whatever keys tokens name: invented key
//! ids cause one request in half a minute. The pause begins before the fetch, which runs in its own task: a
//! caller that goes away neither stops it nor causes another. After failures the pause grows, up to five
//! minutes; known keys stay meanwhile, for at most a day. Times are measured on tokio's clock, which is never
//! set back.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{Instrument, Span, info, warn};
use url::Url;

use super::pem::PublicKey;
use crate::egress::Egress;

/// The deadline of one fetch, from its beginning to the last byte.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Most keys of an issuer.
const KEYS_MAX: usize = 100;
/// The pause after a fetch that succeeded.
const PAUSE: Duration = Duration::from_secs(30);
/// The pause after a first failed fetch; it doubles with each further failure.
const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause after fetches that failed in a row.
const FAILED_PAUSE_MAX: Duration = Duration::from_mins(5);
/// How long keys are used that could not be fetched again.
const KEYS_USED_MAX: Duration = Duration::from_hours(24);

/// A key that can check signatures.
pub(super) struct IssuerKey {
    id: Option<String>,
    /// The algorithms that it is used with.
    algorithms: Vec<Algorithm>,
    /// The public key that signatures are checked with.
    pub(super) decoding: DecodingKey,
}

/// The keys of an issuer.
pub(super) struct Keys {
    /// The source of fetched keys; `None`: the settings hold the keys.
    fetched: Option<KeySource>,
    known: Mutex<Known>,
}

struct KeySource {
    url: Url,
    egress: Egress,
    fresh: Duration,
}

#[derive(Default)]
struct Known {
    keys: Arc<Vec<IssuerKey>>,
    fetched_at: Option<Instant>,
    /// No fetch before this moment.
    not_before: Option<Instant>,
    failures: u32,
    /// The last fetch; the channel closes when the fetch has ended, successful or not.
    fetching: Option<watch::Receiver<()>>,
}

#[derive(Deserialize)]
struct Answer {
    keys: Vec<Value>,
}

impl Keys {
    pub(super) fn new(url: Url, egress: Egress, fresh: Duration) -> Self {
        Self { fetched: Some(KeySource { url, egress, fresh }), known: Mutex::default() }
    }

    /// Keys that stay as they are.
    pub(super) fn fixed(keys: Vec<PublicKey>) -> Self {
        let key = |(algorithms, decoding): PublicKey| IssuerKey {
            id: None,
            algorithms: algorithms.to_vec(),
            decoding,
        };
        let keys = Arc::new(keys.into_iter().map(key).collect());
        Self { fetched: None, known: Mutex::new(Known { keys, ..Known::default() }) }
    }

    /// The key that a token names, as its place in a set of keys; `None`: there is no such key.
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
    ) -> Option<(Arc<Vec<IssuerKey>>, usize)> {
        let Some(source) = &self.fetched else { return self.look(None, algorithm, now) };
        let found = self.look(id, algorithm, now);
        let is_old = self.known.lock().fetched_at.is_none_or(|at| now.duration_since(at) >= source.fresh);
        if found.is_some() && !is_old {
            return found;
        }
        // A caller whose key is known does not wait for a fetch.
        if let Some(mut fetching) = self.fetching(source, now, found.is_some()) {
            let _closed = fetching.changed().await;
        }
        self.look(id, algorithm, now)
    }

    /// The fetch to wait for: the running one, unless the caller already has its key, or a new one, if the
    /// pause is over.
    fn fetching(
        self: &Arc<Self>,
        source: &KeySource,
        now: Instant,
        is_content: bool,
    ) -> Option<watch::Receiver<()>> {
        let mut known = self.known.lock();
        if let Some(running) = known.fetching.as_ref().filter(|running| running.has_changed().is_ok()) {
            return Some(running.clone()).filter(|_| !is_content);
        }
        if known.not_before.is_some_and(|moment| now < moment) {
            return None;
        }
        known.not_before = Some(now + PAUSE.min(source.fresh));
        let (running, fetching) = watch::channel(());
        known.fetching = Some(fetching.clone());
        let keys = self.clone();
        let work = async move {
            let began = Instant::now();
            let fetched = timeout(FETCH_DEADLINE, keys.fetch()).await;
            let fetched = fetched.unwrap_or_else(|_| Err("they did not come in time".to_owned()));
            // The pause begins with the end of the fetch: one that hung has used up the time of a short
            // pause.
            keys.note(fetched, now, now + began.elapsed());
            drop(running);
        };
        #[expect(clippy::disallowed_methods, reason = "one at a time, and it ends at its deadline")]
        tokio::spawn(work.instrument(Span::current()));
        Some(fetching)
    }

    fn look(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
    ) -> Option<(Arc<Vec<IssuerKey>>, usize)> {
        let known = self.known.lock();
        if self.fetched.is_some() {
            known.fetched_at.filter(|at| now.duration_since(*at) < KEYS_USED_MAX)?;
        }
        let suits = |key: &IssuerKey| {
            key.algorithms.contains(&algorithm) && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        let mut found = known.keys.iter().enumerate().filter(|(_, key)| suits(key));
        let (place, _) = found.next()?;
        // A token without a key id fits only an issuer with a single key of the kind.
        found.next().is_none().then(|| (known.keys.clone(), place))
    }

    /// Notes what came of a fetch that began at `began`. The keys are as old as its begin.
    fn note(&self, fetched: Result<Vec<IssuerKey>, String>, began: Instant, ended: Instant) {
        let mut known = self.known.lock();
        match fetched {
            Ok(keys) => {
                info!(count = keys.len(), "the keys of the issuer of tokens were fetched");
                (known.keys, known.fetched_at, known.failures) = (Arc::new(keys), Some(began), 0);
                known.not_before = Some(began + self.pause());
            }
            Err(reason) => {
                let pause = FAILED_PAUSE * 2_u32.pow(known.failures.min(16));
                known.failures = known.failures.saturating_add(1);
                known.not_before = Some(ended + pause.min(FAILED_PAUSE_MAX));
                warn!(
                    failures = known.failures,
                    "the keys of the issuer of tokens cannot be fetched: \
                     {reason}"
                );
            }
        }
    }

    /// The pause after a fetch that succeeded.
    fn pause(&self) -> Duration {
        self.fetched.as_ref().map_or(PAUSE, |source| PAUSE.min(source.fresh))
    }

    async fn fetch(&self) -> Result<Vec<IssuerKey>, String> {
        let Some(source) = &self.fetched else { return Err("the settings hold them".to_owned()) };
        let request = source.egress.request(Method::GET, &source.url).map_err(|error| error.to_string())?;
        let mut answer = request.send().await.map_err(|_| "the issuer does not answer".to_owned())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the issuer answered with status {}", answer.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|_| "the answer broke off".to_owned())? {
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too large".to_owned());
            }
            bytes.extend_from_slice(&part);
        }
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(|_| "the answer is no set of keys".to_owned())?;
        // Keys of unknown kinds are ignored.
        let keys: Vec<IssuerKey> = answer.keys.into_iter().take(KEYS_MAX).filter_map(key).collect();
        if keys.is_empty() { Err("the answer has no key that can be used".to_owned()) } else { Ok(keys) }
    }
}

/// A key that checks signatures, with all algorithms of its kind, or the single one that it states.
fn key(value: Value) -> Option<IssuerKey> {
    let stated = value["alg"].as_str().map(str::to_owned);
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let of_kind: &[(Algorithm, &str)] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {
            &[(Algorithm::RS256, "RS256"), (Algorithm::RS384, "RS384"), (Algorithm::RS512, "RS512")]
        }
        AlgorithmParameters::EllipticCurve(point) => match point.curve {
            EllipticCurve::P256 => &[(Algorithm::ES256, "ES256")],
            EllipticCurve::P384 => &[(Algorithm::ES384, "ES384")],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(point) if point.curve == EllipticCurve::Ed25519 => {
            &[(Algorithm::EdDSA, "EdDSA")]
        }
        _ => return None,
    };
    let is_stated = |name: &str| stated.as_ref().is_none_or(|stated| stated == name);
    let algorithms: Vec<Algorithm> =
        of_kind.iter().filter(|(_, name)| is_stated(name)).map(|(algorithm, _)| *algorithm).collect();
    let is_for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    if !is_for_signatures || algorithms.is_empty() {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some(IssuerKey { id: jwk.common.key_id, algorithms, decoding })
}
