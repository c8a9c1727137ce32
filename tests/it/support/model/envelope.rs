//! What every request must carry: who signed it, when, and for whom.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Model;
use crate::support::http::Message;

/// Receivers refuse what is older than this, in seconds.
const AGE_MAX: u64 = 300;

impl Model {
    pub(super) fn check_envelope(&self, message: &Message) -> Result<(), String> {
        let header = |name: &str| message.header(name).ok_or_else(|| format!("no header {name}"));
        if !message.first_line.starts_with("POST ") {
            return Err(format!("not a POST: {}", message.first_line));
        }
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let sent: u64 = timestamp.parse().map_err(|_| format!("the timestamp {timestamp}"))?;
        let now = std::time::UNIX_EPOCH.elapsed().map_err(|error| error.to_string())?.as_secs();
        if now.abs_diff(sent) > AGE_MAX || header("x-docora-timestamp")? != timestamp {
            return Err(format!("the timestamps of {id}"));
        }
        if header("content-type")? != "application/json" {
            return Err(format!("the content type of {id}"));
        }
        if self.app.as_ref().is_some_and(|app| message.header("x-docora-app-id") != Some(app)) {
            return Err(format!("{id} is for another app"));
        }
        for key in std::iter::once(&self.key).chain(&self.second_key) {
            let standard = sign(key, &[id, ".", timestamp, "."], &message.body);
            let expected = format!("v1,{}", BASE64_STANDARD.encode(standard));
            if !header("webhook-signature")?.split(' ').any(|signature| signature == expected) {
                return Err(format!("the signature of {id}"));
            }
        }
        let docora = sign(&self.key, &[timestamp, "."], &message.body);
        let expected = format!("sha256={}", data_encoding::HEXLOWER.encode(&docora));
        if header("x-docora-signature")? != expected {
            return Err(format!("the Docora signature of {id}"));
        }
        Ok(())
    }
}

/// HMAC-SHA256 of the parts and the body, one after another.
pub(crate) fn sign(key: &[u8], before: &[&str], body: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key will do");
    for part in before {
        mac.update(part.as_bytes());
    }
    mac.update(body);
    mac.finalize().into_bytes().to_vec()
}
