//! The keys of an issuer: fetched through the guarded way out, kept, and asked for again when they
//! are old or when a token names one that is not there.
//!
//! Never more than one fetch is on its way, and after each there is a pause, whatever tokens name: who
//! invents key ids causes one request in half a minute. It is noted before the fetch, which runs in a
//! task of its own: a caller that goes away neither cuts it off nor causes another. A fetch that fails
//! waits longer each time, up to five minutes; the keys that are known stay meanwhile, for a day at most.
//! All of it is measured on tokio's clock, which nobody sets back.

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

use crate::egress::Egress;

/// One fetch, from its beginning to the last byte.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Most keys of an issuer.
const KEYS_MAX: usize = 100;
/// The pause after a fetch that succeeded.
const PAUSE: Duration = Duration::from_secs(30);
/// The pause after the first of several fetches that failed; it doubles.
const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause.
const FAILED_PAUSE_MAX: Duration = Duration::from_mins(5);
/// Keys that could not be asked for again are used so long.
const KEYS_USED_MAX: Duration = Duration::from_hours(24);

/// A key that can check signatures of one algorithm.
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    /// The key itself.
    pub(super) decoding: DecodingKey,
}

/// The keys of an issuer.
pub(super) struct Keys {
    url: Url,
    egress: Egress,
    fresh: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: Arc<Vec<Key>>,
    fetched_at: Option<Instant>,
    /// No fetch before this moment.
    not_before: Option<Instant>,
    failures: u32,
    /// The last fetch; closed when it has ended, however it did.
    fetching: Option<watch::Receiver<()>>,
}

#[derive(Deserialize)]
struct Answer {
    keys: Vec<Value>,
}

impl Keys {
    pub(super) fn new(url: Url, egress: Egress, fresh: Duration) -> Self {
        Self { url, egress, fresh, known: Mutex::default() }
    }

    /// The place of the key that a token names, in the keys it is in; `None`: there is none.
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
    ) -> Option<(Arc<Vec<Key>>, usize)> {
        let found = self.look(id, algorithm, now);
        let is_old = self.known.lock().fetched_at.is_none_or(|at| now.duration_since(at) >= self.fresh);
        if found.is_some() && !is_old {
            return found;
        }
        // Whoever has a key need not wait for newer ones that somebody else fetches.
        if let Some(mut fetching) = self.fetching(now, found.is_some()) {
            let _closed = fetching.changed().await;
        }
        self.look(id, algorithm, now)
    }

    /// The fetch to wait for: one that runs, unless the caller is content with the key that it has, or
    /// one that begins now, if it may.
    fn fetching(self: &Arc<Self>, now: Instant, is_content: bool) -> Option<watch::Receiver<()>> {
        let mut known = self.known.lock();
        if let Some(running) = known.fetching.as_ref().filter(|running| running.has_changed().is_ok()) {
            return Some(running.clone()).filter(|_| !is_content);
        }
        if known.not_before.is_some_and(|moment| now < moment) {
            return None;
        }
        known.not_before = Some(now + PAUSE.min(self.fresh));
        let (running, fetching) = watch::channel(());
        known.fetching = Some(fetching.clone());
        let keys = self.clone();
        let work = async move {
            let fetched = timeout(FETCH_DEADLINE, keys.fetch()).await;
            let fetched = fetched.unwrap_or_else(|_| Err("they did not come in time".to_owned()));
            keys.note(fetched, now);
            drop(running);
        };
        #[expect(clippy::disallowed_methods, reason = "one at a time, and it ends at its deadline")]
        tokio::spawn(work.instrument(Span::current()));
        Some(fetching)
    }

    fn look(&self, id: Option<&str>, algorithm: Algorithm, now: Instant) -> Option<(Arc<Vec<Key>>, usize)> {
        let known = self.known.lock();
        known.fetched_at.filter(|at| now.duration_since(*at) < KEYS_USED_MAX)?;
        let suits =
            |key: &Key| key.algorithm == algorithm && id.is_none_or(|id| key.id.as_deref() == Some(id));
        let mut found = known.keys.iter().enumerate().filter(|(_, key)| suits(key));
        let (place, _) = found.next()?;
        // A token that names no key is for an issuer with one key of a kind.
        found.next().is_none().then(|| (known.keys.clone(), place))
    }

    fn note(&self, fetched: Result<Vec<Key>, String>, now: Instant) {
        let mut known = self.known.lock();
        match fetched {
            Ok(keys) => {
                info!(count = keys.len(), "the keys of the issuer of tokens were fetched");
                (known.keys, known.fetched_at, known.failures) = (Arc::new(keys), Some(now), 0);
                known.not_before = Some(now + PAUSE.min(self.fresh));
            }
            Err(reason) => {
                let pause = FAILED_PAUSE * 2_u32.pow(known.failures.min(16));
                known.failures = known.failures.saturating_add(1);
                known.not_before = Some(now + pause.min(FAILED_PAUSE_MAX));
                warn!(failures = known.failures, "the keys of the issuer of tokens cannot be had: {reason}");
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let request = self.egress.request(Method::GET, &self.url).map_err(|error| error.to_string())?;
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
        // Keys of kinds that are not known here are none of our business.
        let keys: Vec<Key> = answer.keys.into_iter().take(KEYS_MAX).filter_map(key).collect();
        if keys.is_empty() { Err("the answer has no key that can be used".to_owned()) } else { Ok(keys) }
    }
}

/// A key that checks signatures, with the one algorithm that its kind has here.
fn key(value: Value) -> Option<Key> {
    let stated = value["alg"].as_str().map(str::to_owned);
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, "RS256"),
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, "ES256")
        }
        AlgorithmParameters::OctetKeyPair(point) if point.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, "EdDSA")
        }
        _ => return None,
    };
    let is_for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    if !is_for_signatures || stated.is_some_and(|stated| stated != name) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { id: jwk.common.key_id, algorithm, decoding })
}
