//! Hooks of Git hosts. A host is answered when the receipt of its hook is on disk, in a few
//! milliseconds: everything else that a hook leads to is one message to a repository watcher.
//!
//! A genuine hook that nobody needs is answered with success: GitLab turns a hook off for good after
//! one refusal.

mod bounds;
pub mod receipts;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tidings_actors::ports::{Hook, Receipt};
use tidings_entity::{
    id::{ReceiptId, Sha256Hash},
    kind::{HookNews, HookProvider, ReceiptReason, ReceiptVerdict},
};
use tracing::{info, warn};
use utoipa::ToSchema;
use warp::reply::Response;

use self::bounds::BodyMark;
pub use self::bounds::Bounds;
pub(super) use self::bounds::Room;
use super::front::Front;
use crate::hook::{envelope::Envelope, payload};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        request::{Caller, Request, json},
        route::{Access, Answer, Route, route_with},
    },
};

/// Bodies that are larger are checked and read on a thread of their own (64 KiB, in bytes).
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The routes of this file.
pub fn routes(bounds: &Arc<Bounds>) -> Vec<Route> {
    vec![
        route_with::<__path_github, _, _, _>(Access::Hook(HookProvider::Github), bounds, github),
        route_with::<__path_gitlab, _, _, _>(Access::Hook(HookProvider::Gitlab), bounds, gitlab),
        route_with::<__path_gitea, _, _, _>(Access::Hook(HookProvider::Gitea), bounds, gitea),
    ]
}

/// What became of a hook.
#[derive(Serialize, ToSchema)]
struct HookAnswer {
    /// Names the receipt; missing for a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_id: Option<String>,
    /// `accepted`, `duplicate` or `ignored`.
    verdict: &'static str,
    /// The reason for the verdict, as a code.
    reason: &'static str,
}

/// A hook of GitHub, proved by `X-Hub-Signature-256`: JSON, or a form with the JSON in `payload`.
#[utoipa::path(post, path = "/hooks/github", tag = "hooks", request_body = Object, responses(
    (status = 200, body = HookAnswer, description = "a repetition (of the delivery, or within ten seconds of \
        its body), or nothing that anybody watches"),
    (status = 202, body = HookAnswer, description = "the repository is polled soon")
))]
async fn github(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive(&front, &bounds, request).await
}

/// A hook of GitLab, proved by `X-Gitlab-Token` or by the headers of Standard Webhooks.
#[utoipa::path(post, path = "/hooks/gitlab", tag = "hooks", request_body = Object, responses(
    (status = 200, body = HookAnswer, description = "a repetition (of the delivery, or within ten seconds of \
        its body), or nothing that anybody watches"),
    (status = 202, body = HookAnswer, description = "the repository is polled soon")
))]
async fn gitlab(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive(&front, &bounds, request).await
}

/// A hook of Gitea or Forgejo, proved by `X-Gitea-Signature`, `X-Forgejo-Signature` or
/// `X-Hub-Signature-256`: JSON, or a form with the JSON in `payload`.
#[utoipa::path(post, path = "/hooks/gitea", tag = "hooks", request_body = Object, responses(
    (status = 200, body = HookAnswer, description = "a repetition (of the delivery, or within ten seconds of \
        its body), or nothing that anybody watches"),
    (status = 202, body = HookAnswer, description = "the repository is polled soon")
))]
async fn gitea(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive(&front, &bounds, request).await
}

/// The sender of a hook as its headers have it; whoever offers no proof is refused before the body.
///
/// # Errors
/// 404 where no secret is set, 415, 401.
pub(super) async fn caller(
    front: &Front,
    bounds: &Bounds,
    provider: HookProvider,
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    if front.settings.hooks.secret.is_empty() {
        return Err(Problem::new(Kind::HOOKS_OFF));
    }
    let Some(envelope) = Envelope::of(provider, headers) else {
        return Err(Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE)
            .with_detail("a hook is sent as application/json or application/x-www-form-urlencoded"));
    };
    if !envelope.has_proof() {
        return Err(refuse(front, bounds, envelope, ReceiptReason::NoSignature).await);
    }
    Ok(Caller::Hook(Box::new(envelope)))
}

async fn receive(front: &Front, bounds: &Bounds, request: Request) -> Answer {
    let Request { caller: Caller::Hook(envelope), client, body, .. } = request else {
        return Err(Problem::new(Kind::HOOK_REFUSED));
    };
    let (envelope, read) = read(front, *envelope, body).await?;
    let Genuine { payload, secret, mark } = match read {
        Ok(genuine) => genuine,
        Err(reason) => return Err(refuse(front, bounds, envelope, reason).await),
    };
    bounds.admit(client, secret)?;
    if let Some(repositories) = bounds.repeated(&mark) {
        // Two pushes may look the same: each is a reason to look, and none for another receipt.
        for repository in repositories.iter() {
            front.handle.hooked(repository, None).await;
        }
        let receipt = unread(front, envelope, ReceiptVerdict::Duplicate, ReceiptReason::SeenBefore);
        note(front, bounds, &receipt).await;
        return Ok(answer(StatusCode::OK, None, &receipt));
    }
    let hook = Hook {
        provider: envelope.provider,
        delivery: envelope.delivery,
        event: envelope.event,
        news: payload.news,
        ref_name: payload.ref_name,
        addresses: payload.addresses,
        received_at: front.clock.now(),
    };
    let receipt = front.store.receive(&hook).await;
    let receipt = receipt.map_err(|error| Problem::of_store(error, Kind::NO_RECEIPT))?;
    let written = Some(receipt.id.to_string());
    Ok(match receipt.verdict {
        ReceiptVerdict::Accepted => {
            bounds.took(mark, &receipt.repositories);
            poke(front, &receipt).await;
            answer(StatusCode::ACCEPTED, written, &receipt)
        }
        ReceiptVerdict::Duplicate => {
            note(front, bounds, &receipt).await;
            answer(StatusCode::OK, None, &receipt)
        }
        ReceiptVerdict::Ignored | ReceiptVerdict::Refused => {
            bounds.took(mark, &[]);
            answer(StatusCode::OK, written, &receipt)
        }
    })
}

fn answer(status: StatusCode, receipt_id: Option<String>, receipt: &Receipt) -> Response {
    let (verdict, reason) = (receipt.verdict.as_str(), receipt.reason.as_str());
    json(status, &HookAnswer { receipt_id, verdict, reason })
}

/// Tells the watchers of the repositories that an accepted hook names.
pub(super) async fn poke(front: &Front, receipt: &Receipt) {
    let hook = &receipt.hook;
    if hook.news == HookNews::Repository {
        info!(hook.addresses = ?hook.addresses, "a watched repository was renamed, handed over or changed as \
            a whole at its host; it is asked once more where it is watched, and followed where its host says \
            that it moved");
    }
    // Only a hook that is new and tells of a ref shows that such hooks arrive.
    let tells = matches!(hook.news, HookNews::Push | HookNews::Deletion) && receipt.replayed_at.is_none();
    for repository in &receipt.repositories {
        front.handle.hooked(repository, tells.then_some(hook.received_at)).await;
    }
}

/// A body that was proved and read.
struct Genuine {
    payload: payload::Payload,
    /// The number of the secret that proved it.
    secret: usize,
    mark: BodyMark,
}

/// Checks and reads a body, a large one on a thread of its own.
async fn read(
    front: &Front,
    envelope: Envelope,
    body: Bytes,
) -> Result<(Envelope, Result<Genuine, ReceiptReason>), Problem> {
    let secrets = front.settings.hooks.secret.clone();
    let now = front.clock.now().0.div_euclid(1_000);
    let is_large = body.len() > INLINE_BYTES_MAX;
    let work = move || {
        let read = envelope.prove(&secrets, &body, now).and_then(|secret| {
            let payload = payload::read(envelope.provider, &envelope.event, envelope.form, &body)
                .map_err(|_| ReceiptReason::Unreadable)?;
            Ok(Genuine { payload, secret, mark: (envelope.provider, secret, Sha256Hash::of(&body)) })
        });
        (envelope, read)
    };
    if !is_large {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_panic| Problem::new(Kind::INTERNAL))
}

/// Notes a refused hook, within bounds, and says what it is answered with.
async fn refuse(front: &Front, bounds: &Bounds, envelope: Envelope, reason: ReceiptReason) -> Problem {
    note(front, bounds, &unread(front, envelope, ReceiptVerdict::Refused, reason)).await;
    let refused = Problem::new(Kind::HOOK_REFUSED);
    match reason {
        ReceiptReason::NoSignature => {
            refused.with_detail("the hook carries no signature that can be checked")
        }
        ReceiptReason::WrongTime => refused.with_detail("the hook was signed too long ago, or in the future"),
        ReceiptReason::Unreadable => Problem::malformed("the hook is genuine, but its body cannot be read"),
        _ => refused.with_detail("no secret of hooks.secret proves this body"),
    }
}

/// The receipt of a hook whose news nobody looked at.
fn unread(front: &Front, envelope: Envelope, verdict: ReceiptVerdict, reason: ReceiptReason) -> Receipt {
    let now = front.clock.now();
    let hook = Hook {
        provider: envelope.provider,
        delivery: envelope.delivery,
        event: envelope.event,
        news: HookNews::Other,
        ref_name: None,
        addresses: Vec::new(),
        received_at: now,
    };
    let id = ReceiptId::new(front.random.ulid(now));
    Receipt { id, hook, verdict, reason, repositories: Vec::new(), times: 1, replayed_at: None }
}

/// Writes that a hook was refused or repeated, unless too many were.
async fn note(front: &Front, bounds: &Bounds, receipt: &Receipt) {
    let Some(times) = bounds.note() else { return };
    let hook = &receipt.hook;
    if receipt.verdict == ReceiptVerdict::Refused {
        let (provider, reason) = (&hook.provider, &receipt.reason);
        warn!(
            hook.provider = %provider,
            receipt.reason = %reason,
            count = times,
            "a hook of {provider} was refused: {reason}"
        );
    }
    if let Err(error) = front.store.note_receipt(&Receipt { times, ..receipt.clone() }).await {
        warn!(%error, "a refused or repeated hook was not noted");
    }
}
