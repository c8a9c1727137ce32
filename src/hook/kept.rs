//! The stored part of a genuine hook's request, and reading it again. Header fields are stored by a list of
//! names, so that no secret and no signature is stored: other fields are left out.

use http::HeaderMap;
use tidings_actors::ports::{BODY_KEPT_MAX, BodyNote, KeptRequest, RequestToKeep};
use tidings_entity::kind::{BodyFate, HookProvider};

use super::{
    envelope::form_of,
    payload::{self, InvalidPayload, Payload},
};

/// The header fields that are stored: facts about the event and the host.
const HEADERS: [&str; 22] = [
    "content-type",
    "user-agent",
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "x-github-hook-installation-target-id",
    "x-github-hook-installation-target-type",
    "x-gitlab-event",
    "x-gitlab-event-uuid",
    "x-gitlab-instance",
    "x-gitlab-webhook-uuid",
    "idempotency-key",
    "webhook-id",
    "webhook-timestamp",
    "x-gitea-event",
    "x-gitea-event-type",
    "x-gitea-delivery",
    "x-forgejo-event",
    "x-forgejo-event-type",
    "x-forgejo-delivery",
    "x-gogs-event",
    "x-gogs-delivery",
];
/// The longest header value that is stored, in bytes.
const VALUE_BYTES_MAX: usize = 256;

/// The parts of a request to store; `ring_bytes` is the setting `hooks.kept_bytes`.
#[must_use]
pub fn to_keep(headers: &HeaderMap, body: &[u8], ring_bytes: u64) -> RequestToKeep {
    let (fate, text) = match std::str::from_utf8(body) {
        _ if ring_bytes == 0 => (BodyFate::Off, None),
        _ if body.len() > BODY_KEPT_MAX => (BodyFate::TooLarge, None),
        Ok(text) => (BodyFate::Kept, Some(text)),
        Err(_) => (BodyFate::NotText, None),
    };
    let request = text.map(|text| KeptRequest { headers: kept(headers), body: text.to_owned() });
    RequestToKeep { note: BodyNote { fate, size_bytes: body.len() as u64 }, request, ring_bytes }
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let one = |name: &&str| {
        let value = headers.get(*name)?.to_str().ok()?;
        (value.len() <= VALUE_BYTES_MAX).then(|| ((*name).to_owned(), value.to_owned()))
    };
    HEADERS.iter().filter_map(one).collect()
}

/// Reads a stored request with this version; `event` is the event as named when the request came.
///
/// # Errors
/// [`InvalidPayload`]: the request can still not be read.
pub fn read_again(
    provider: HookProvider,
    event: &str,
    kept: &KeptRequest,
) -> Result<Payload, InvalidPayload> {
    let content_type = kept.headers.iter().find(|(name, _)| name == "content-type");
    let form = content_type.and_then(|(_, value)| form_of(value)).unwrap_or_default();
    payload::read(provider, event, form, kept.body.as_bytes())
}
