//! The receiver of docs/receiving.md for Rust, word for word; a story compares the two.

/// Whether a request is genuine; `key` is the app's `client_auth_key`.
pub(super) fn is_genuine(key: &str, headers: &http::HeaderMap, body: &[u8]) -> bool {
    let verifier = standardwebhooks::Webhook::from_bytes(key.as_bytes().to_vec());
    verifier.is_ok_and(|verifier| verifier.verify(body, headers).is_ok())
}
