//! Hooks of Git hosts. A host is answered when the receipt of its hook is on disk, in a few milliseconds:
//! everything else that a hook leads to is one message to a repository watcher.
//!
//! A genuine hook that no watch needs is answered with success: GitLab disables a hook permanently after one
//! refusal.
//!
//! At the addresses of the server a secret of `hooks.secret` proves a hook, at the address of a hook of an
//! app (`own.rs` makes those) the secret of that hook. There an unknown address is answered like a wrong
//! proof and costs the same: the body is read in both cases, and equally many secrets are tried.

mod bounds;
pub mod own;
pub mod receipts;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tidings_actors::{
    model::secret::Secret,
    ports::{HOOK_SECRETS_MAX, Hook, HookOwner, Receipt, RequestToKeep},
    time::Timestamp,
};
use tidings_entity::{
    id::{HookId, ReceiptId, RepositoryId, Sha256Hash},
    kind::{HookNews, HookProvider, ReceiptReason, ReceiptVerdict},
};
use tracing::{info, warn};
use utoipa::ToSchema;
use warp::reply::Response;

pub use self::bounds::Bounds;
pub(super) use self::bounds::Room;
use self::bounds::{BodyMark, Prover};
use super::front::Front;
use crate::hook::{envelope::Envelope, kept, payload};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        request::{Caller, Request, json},
        route::{Access, Answer, Route, route_with},
    },
};
use crate::secrets::generate_signing_key;

/// Bodies that are larger are checked and read on a thread of their own (64 KiB, in bytes).
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The routes of this file.
pub fn routes(bounds: &Arc<Bounds>) -> Vec<Route> {
    vec![
        route_with::<__path_github, _, _, _>(Access::Hook(HookProvider::Github), bounds, github),
        route_with::<__path_gitlab, _, _, _>(Access::Hook(HookProvider::Gitlab), bounds, gitlab),
        route_with::<__path_gitea, _, _, _>(Access::Hook(HookProvider::Gitea), bounds, gitea),
        route_with::<__path_app_github, _, _, _>(Access::AppHook(HookProvider::Github), bounds, app_github),
        route_with::<__path_app_gitlab, _, _, _>(Access::AppHook(HookProvider::Gitlab), bounds, app_gitlab),
        route_with::<__path_app_gitea, _, _, _>(Access::AppHook(HookProvider::Gitea), bounds, app_gitea),
    ]
}

/// Result of a received hook.
#[derive(Serialize, ToSchema)]
struct HookAnswer {
    /// Id of the receipt. Missing: the hook was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_id: Option<String>,
    /// Verdict: `accepted`, `duplicate` or `ignored`.
    verdict: &'static str,
    /// Reason for the verdict, as a code.
    reason: &'static str,
}

/// Receives a webhook of GitHub, authenticated by `X-Hub-Signature-256`. The body is JSON, or a form with the
/// JSON in `payload`.
#[utoipa::path(post, path = "/hooks/github", tag = "hooks", request_body = Object, responses(
    (status = 200, body = HookAnswer, description = "The webhook repeats an earlier one (the same delivery \
        id, or the same body within 10 seconds), or names nothing that any app watches."),
    (status = 202, body = HookAnswer, description = "The repository is scanned soon.")
))]
async fn github(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive(&front, &bounds, request).await
}

/// Receives a webhook of GitLab, authenticated by `X-Gitlab-Token` or by the headers of Standard Webhooks.
#[utoipa::path(post, path = "/hooks/gitlab", tag = "hooks", request_body = Object, responses(
    (status = 200, body = HookAnswer, description = "The webhook repeats an earlier one (the same delivery \
        id, or the same body within 10 seconds), or names nothing that any app watches."),
    (status = 202, body = HookAnswer, description = "The repository is scanned soon.")
))]
async fn gitlab(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive(&front, &bounds, request).await
}

/// Receives a webhook of Gitea or Forgejo, authenticated by `X-Gitea-Signature`, `X-Forgejo-Signature` or
/// `X-Hub-Signature-256`. The body is JSON, or a form with the JSON in `payload`.
#[utoipa::path(post, path = "/hooks/gitea", tag = "hooks", request_body = Object, responses(
    (status = 200, body = HookAnswer, description = "The webhook repeats an earlier one (the same delivery \
        id, or the same body within 10 seconds), or names nothing that any app watches."),
    (status = 202, body = HookAnswer, description = "The repository is scanned soon.")
))]
async fn gitea(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive(&front, &bounds, request).await
}

/// Receives a webhook of GitHub for one app, authenticated as at `/hooks/github`, but with the secret of this
/// hook. Only watches of this app are scanned.
#[utoipa::path(post, path = "/hooks/github/{id}", tag = "hooks", params(("id" = String, Path)),
    request_body = Object, responses(
        (status = 200, body = HookAnswer, description = "The webhook repeats an earlier one, or names \
            nothing that the app watches."),
        (status = 202, body = HookAnswer, description = "The repository is scanned soon.")
    ))]
async fn app_github(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive_for_app(&front, &bounds, request).await
}

/// Receives a webhook of GitLab for one app, authenticated as at `/hooks/gitlab`, but with the secret of this
/// hook. Only watches of this app are scanned.
#[utoipa::path(post, path = "/hooks/gitlab/{id}", tag = "hooks", params(("id" = String, Path)),
    request_body = Object, responses(
        (status = 200, body = HookAnswer, description = "The webhook repeats an earlier one, or names \
            nothing that the app watches."),
        (status = 202, body = HookAnswer, description = "The repository is scanned soon.")
    ))]
async fn app_gitlab(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive_for_app(&front, &bounds, request).await
}

/// Receives a webhook of Gitea or Forgejo for one app, authenticated as at `/hooks/gitea`, but with the
/// secret of this hook. Only watches of this app are scanned.
#[utoipa::path(post, path = "/hooks/gitea/{id}", tag = "hooks", params(("id" = String, Path)),
    request_body = Object, responses(
        (status = 200, body = HookAnswer, description = "The webhook repeats an earlier one, or names \
            nothing that the app watches."),
        (status = 202, body = HookAnswer, description = "The repository is scanned soon.")
    ))]
async fn app_gitea(front: Arc<Front>, bounds: Arc<Bounds>, request: Request) -> Answer {
    receive_for_app(&front, &bounds, request).await
}

/// The sender of a hook by its headers; a request without a proof is refused before its body is read.
///
/// # Errors
/// 404 if no secret is set, 415 for another content type, 401 without a proof.
pub(super) async fn caller(
    front: &Front,
    bounds: &Bounds,
    provider: HookProvider,
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    if front.settings.hooks.secret.is_empty() {
        return Err(Problem::new(Kind::HOOKS_OFF));
    }
    let envelope = enveloped(provider, headers)?;
    if !envelope.has_proof() {
        let refusal = Refusal { reason: ReceiptReason::NoSignature, owner: None };
        return Err(refuse(front, bounds, envelope, refusal).await);
    }
    Ok(Caller::Hook(Box::new(envelope)))
}

/// The sender of a request to the address of an app's hook. A request without a proof is refused only after
/// its body was read, so that its owner gets a receipt.
///
/// # Errors
/// 415 for another content type.
pub(super) fn caller_of_app(provider: HookProvider, headers: &HeaderMap) -> Result<Caller, Problem> {
    enveloped(provider, headers).map(|envelope| Caller::Hook(Box::new(envelope)))
}

fn enveloped(provider: HookProvider, headers: &HeaderMap) -> Result<Envelope, Problem> {
    Envelope::of(provider, headers).ok_or_else(|| {
        Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE)
            .with_detail("a hook is sent as application/json or application/x-www-form-urlencoded")
    })
}

/// The secrets that may prove a body, and their owner.
struct Secrets {
    tried: Vec<Secret>,
    /// The number of secrets, from the first on, that are real; the others only cost the same time.
    good: usize,
    /// The hook and its app; `None`: the secrets are those of the server, or the hook does not exist.
    owner: Option<HookOwner>,
}

async fn receive(front: &Front, bounds: &Bounds, request: Request) -> Answer {
    let tried = front.settings.hooks.secret.clone();
    let secrets = Secrets { good: tried.len(), tried, owner: None };
    take_in(front, bounds, request, secrets).await
}

async fn receive_for_app(front: &Front, bounds: &Bounds, request: Request) -> Answer {
    let Caller::Hook(envelope) = &request.caller else { return Err(Problem::new(Kind::HOOK_REFUSED)) };
    let now = front.clock.now();
    // A malformed id is looked up as an id that no hook has, to take the same time.
    let nobodys = || HookId::new(front.random.ulid(now));
    let id = request.parameters.first().and_then(|text| text.parse().ok()).unwrap_or_else(nobodys);
    let found = front.hooks.hook_secrets(&id, envelope.provider, now).await;
    let found = found.map_err(|error| Problem::of_store(error, Kind::HOOK_REFUSED))?;
    let (owner, secrets) = found.map(|found| (found.owner, found.secrets)).unzip();
    let mut tried = secrets.unwrap_or_default();
    let good = tried.len();
    tried.resize_with(HOOK_SECRETS_MAX, || generate_signing_key(front.random.as_ref()));
    let secrets = Secrets { tried, good, owner };
    take_in(front, bounds, request, secrets).await
}

async fn take_in(front: &Front, bounds: &Bounds, request: Request, secrets: Secrets) -> Answer {
    let Request { caller: Caller::Hook(envelope), client, body, headers, .. } = request else {
        return Err(Problem::new(Kind::HOOK_REFUSED));
    };
    let owner = secrets.owner.clone();
    let (envelope, read) = read(front, *envelope, secrets, body.clone()).await?;
    let kept = || kept::to_keep(&headers, &body, front.settings.hooks.kept_bytes);
    let Genuine { payload, prover, mark } = match read {
        Ok(genuine) => genuine,
        Err(reason) => {
            let kept = (reason == ReceiptReason::Unreadable).then(kept);
            return Err(refuse_with(front, bounds, envelope, Refusal { reason, owner }, kept).await);
        }
    };
    bounds.admit(client, &prover)?;
    if let Some(repositories) = bounds.repeated(&mark) {
        // Two pushes may have the same body: a repeated body causes a poll, but no further receipt.
        for repository in repositories.iter() {
            wake(front, repository, owner.as_ref(), None).await;
        }
        let receipt = unread(front, envelope, owner, ReceiptVerdict::Duplicate, ReceiptReason::SeenBefore);
        note(front, bounds, &receipt, None).await;
        return Ok(answer(StatusCode::OK, None, &receipt));
    }
    let hook = Hook {
        owner,
        provider: envelope.provider,
        delivery: envelope.delivery,
        event: envelope.event,
        news: payload.news,
        ref_name: payload.ref_name,
        addresses: payload.addresses,
        received_at: front.clock.now(),
    };
    let receipt = front.store.receive(&hook, Some(&kept())).await;
    // The hook of an app may be gone since it was asked for its secrets.
    let receipt = receipt.map_err(|error| Problem::of_store(error, Kind::HOOK_REFUSED))?;
    let written = Some(receipt.id.to_string());
    Ok(match receipt.verdict {
        ReceiptVerdict::Accepted => {
            bounds.took(mark, &receipt.repositories);
            poke(front, &receipt).await;
            answer(StatusCode::ACCEPTED, written, &receipt)
        }
        ReceiptVerdict::Duplicate => {
            note(front, bounds, &receipt, None).await;
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
    // Only a new hook that reports a ref shows that such hooks arrive.
    let tells = matches!(hook.news, HookNews::Push | HookNews::Deletion) && receipt.replayed_at.is_none();
    for repository in &receipt.repositories {
        wake(front, repository, hook.owner.as_ref(), tells.then_some(hook.received_at)).await;
    }
}

/// Polls a repository soon: for all apps, or only for the app of this hook.
async fn wake(front: &Front, repository: &RepositoryId, owner: Option<&HookOwner>, told: Option<Timestamp>) {
    match owner {
        Some(owner) => front.handle.app_hooked(repository, &owner.app).await,
        None => front.handle.hooked(repository, told).await,
    }
}

/// A body that was proved and read.
struct Genuine {
    payload: payload::Payload,
    /// The owner of the secret that proved the body.
    prover: Prover,
    mark: BodyMark,
}

/// Checks and reads a body; a large body on a blocking thread.
async fn read(
    front: &Front,
    envelope: Envelope,
    secrets: Secrets,
    body: Bytes,
) -> Result<(Envelope, Result<Genuine, ReceiptReason>), Problem> {
    let now = front.clock.now().0.div_euclid(1_000);
    let is_large = body.len() > INLINE_BYTES_MAX;
    let work = move || {
        let read = envelope.prove(&secrets.tried, &body, now).and_then(|secret| {
            if secret >= secrets.good {
                return Err(ReceiptReason::WrongSignature);
            }
            let prover = secrets.owner.map_or(Prover::Server(secret), Prover::App);
            let payload = payload::read(envelope.provider, &envelope.event, envelope.form, &body)
                .map_err(|_| ReceiptReason::Unreadable)?;
            let mark = (envelope.provider, prover.clone(), Sha256Hash::of(&body));
            Ok(Genuine { payload, prover, mark })
        });
        (envelope, read)
    };
    if !is_large {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_panic| Problem::new(Kind::INTERNAL))
}

/// The reason why a hook is refused, and its owner if known.
struct Refusal {
    reason: ReceiptReason,
    owner: Option<HookOwner>,
}

async fn refuse(front: &Front, bounds: &Bounds, envelope: Envelope, refusal: Refusal) -> Problem {
    refuse_with(front, bounds, envelope, refusal, None).await
}

/// Records a refused hook, within limits, and returns the answer.
async fn refuse_with(
    front: &Front,
    bounds: &Bounds,
    envelope: Envelope,
    Refusal { reason, owner }: Refusal,
    kept: Option<RequestToKeep>,
) -> Problem {
    let receipt = unread(front, envelope, owner, ReceiptVerdict::Refused, reason);
    note(front, bounds, &receipt, kept.as_ref()).await;
    let refused = Problem::new(Kind::HOOK_REFUSED);
    match reason {
        ReceiptReason::NoSignature => {
            refused.with_detail("the hook carries no signature that can be checked")
        }
        ReceiptReason::WrongTime => {
            refused.with_detail("the signature is too old, or of a time in the future")
        }
        ReceiptReason::Unreadable => Problem::malformed("the hook is genuine, but its body cannot be read"),
        _ => refused.with_detail("the body matches no secret of this address"),
    }
}

/// The receipt of a hook whose body was not read.
fn unread(
    front: &Front,
    envelope: Envelope,
    owner: Option<HookOwner>,
    verdict: ReceiptVerdict,
    reason: ReceiptReason,
) -> Receipt {
    let now = front.clock.now();
    let hook = Hook {
        owner,
        provider: envelope.provider,
        delivery: envelope.delivery,
        event: envelope.event,
        news: HookNews::Other,
        ref_name: None,
        addresses: Vec::new(),
        received_at: now,
    };
    let id = ReceiptId::new(front.random.ulid(now));
    Receipt { id, hook, verdict, reason, repositories: Vec::new(), times: 1, replayed_at: None, body: None }
}

/// Writes that a hook was refused or repeated, unless too many were.
async fn note(front: &Front, bounds: &Bounds, receipt: &Receipt, kept: Option<&RequestToKeep>) {
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
    if let Err(error) = front.store.note_receipt(&Receipt { times, ..receipt.clone() }, kept).await {
        warn!(%error, "a refused or repeated hook was not noted");
    }
}
