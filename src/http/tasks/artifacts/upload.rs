//! Putting an artifact: everything that can be refused is refused before the first byte is read; then the
//! bytes go to the object store as they come; then the row is written, which makes the artifact visible.

use std::sync::Arc;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, StatusCode, header};
use sha2::{Digest, Sha256};
use tidings_actors::{
    model::task::ClaimProof,
    ports::{Artifact, ArtifactChange, ArtifactRoom, CONTENT_TYPE_MAX, ObjectError, UPLOAD_MAX},
};
use tidings_entity::id::{ArtifactId, Sha256Hash};

use super::{change, drop_object, refused, unavailable};
use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        incoming::closing,
        places::Places,
        request::{Request, json},
        route::{Access, Answer, Permission, Route, route_with},
    },
    front::Front,
    tasks::shown::ArtifactShown,
};

/// The digest of a body (RFC 9530).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// The media type of an artifact whose sender names none.
const ANY_BYTES: &str = "application/octet-stream";
/// Characters of a SHA-256 as base64.
const DIGEST_CHARACTERS: usize = 44;

/// The route of this file.
pub(super) fn route(places: &Arc<Places>) -> Route {
    route_with::<__path_put, _, _, _>(Access::App(Permission::TasksArtifacts), places, put).streaming()
}

/// Stores an artifact, or replaces the one of the same name. The answer comes when all of it is on disk.
#[utoipa::path(put, path = "/api/tasks/{id}/artifacts/{name}", tag = "tasks",
    params(
        ("id" = String, Path),
        ("name" = String, Path,
            description = "1 to 128 letters, digits and `._-+=@`; the first is a letter, a digit or `_`"),
        ("Content-Digest" = Option<String>, Header,
            description = "`sha-256=:...:` with the digest as base64 (RFC 9530), which is checked"),
        ("Tidings-Claim" = Option<String>, Header,
            description = "the token of the claim, while a worker has the task"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "the bytes; their media type is kept"),
    responses(
        (status = 200, body = ArtifactShown, description = "another artifact of this name was replaced"),
        (status = 201, body = ArtifactShown),
        (status = 409, description = "the claim is over, a worker has the task, or it has ended"),
        (status = 411, description = "there is no `Content-Length`"),
        (status = 413, description = "the artifact is too large"),
        (status = 429, description = "the task or the app has as much as it may have")
    ))]
async fn put(front: Arc<Front>, places: Arc<Places>, request: Request) -> Answer {
    upload(&front, &places, &request).await.map_err(closing)
}

async fn upload(front: &Front, places: &Places, request: &Request) -> Answer {
    let head = Head::of(&request.headers, front.settings.artifacts.bytes_max)?;
    let change = change(front, request).await?;
    let app_bytes_max = front.settings.artifacts.app_bytes_max;
    let room = ArtifactRoom { bytes: head.bytes, app_bytes_max };
    let may = front.artifacts.may_put_artifact(&change, room).await;
    let may = may.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    may.map_err(|refusal| refused(&refusal, app_bytes_max))?;
    let _one_of_the_app = places.transfer(change.app.as_str())?;
    let id = ArtifactId::new(front.random.ulid(front.clock.now()));
    let sha256 = store(front, request, &id, &head).await?;
    // An upload may take hours: the token may have ended meanwhile.
    let still = request.check_after_wait().await;
    if still.is_err() {
        drop_object(front, &id).await;
    }
    still?;
    let ArtifactChange { app, task, name, proof } = change;
    let Head { bytes, content_type, .. } = head;
    let created_at = front.clock.now();
    let artifact = Artifact { id, task, app, name, content_type, bytes, sha256, created_at };
    let is_new = put_row(front, &artifact, proof.as_ref()).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &ArtifactShown::of(&artifact)))
}

/// Writes the row of an artifact whose object is stored. Returns whether there was none of this name.
async fn put_row(front: &Front, artifact: &Artifact, proof: Option<&ClaimProof>) -> Result<bool, Problem> {
    let app_bytes_max = front.settings.artifacts.app_bytes_max;
    // An object whose row may or may not be written stays: as an orphan it is removed later.
    let put = front.artifacts.put_artifact(artifact, proof, app_bytes_max).await;
    match put.map_err(|error| Problem::of_store(error, Kind::NO_TASK))? {
        Ok(replaced) => {
            if let Some(old) = &replaced {
                drop_object(front, old).await;
            }
            Ok(replaced.is_none())
        }
        Err(refusal) => {
            drop_object(front, &artifact.id).await;
            Err(refused(&refusal, app_bytes_max))
        }
    }
}

/// Stores an artifact whose bytes came within the body of another request.
pub(in crate::http) async fn put_bytes(
    front: &Front,
    change: ArtifactChange,
    content_type: String,
    body: Vec<u8>,
) -> Result<(), Problem> {
    let settings = &front.settings.artifacts;
    let (bytes, app_bytes_max) = (body.len() as u64, settings.app_bytes_max);
    if bytes > settings.bytes_max {
        return Err(too_large(settings.bytes_max, bytes));
    }
    let may = front.artifacts.may_put_artifact(&change, ArtifactRoom { bytes, app_bytes_max }).await;
    let may = may.map_err(|error| Problem::of_store(error, Kind::NO_TASK))?;
    may.map_err(|refusal| refused(&refusal, app_bytes_max))?;
    let (id, sha256) = (ArtifactId::new(front.random.ulid(front.clock.now())), Sha256Hash::of(&body));
    let failed = |error: ObjectError| unavailable(&error);
    let mut writer = front.objects.begin(&id, bytes).await.map_err(failed)?;
    writer.write(body.into()).await.map_err(failed)?;
    writer.finish().await.map_err(failed)?;
    let ArtifactChange { app, task, name, proof } = change;
    let created_at = front.clock.now();
    let artifact = Artifact { id, task, app, name, content_type, bytes, sha256, created_at };
    put_row(front, &artifact, proof.as_ref()).await.map(drop)
}

/// Writes the body into an object and returns its digest. Nothing stays if the body is not what it should be.
async fn store(
    front: &Front,
    request: &Request,
    id: &ArtifactId,
    head: &Head,
) -> Result<Sha256Hash, Problem> {
    let failed = |error: ObjectError| unavailable(&error);
    let mut body = request.incoming.take(front.settings.server.body_timeout, UPLOAD_MAX)?;
    let mut writer = front.objects.begin(id, head.bytes).await.map_err(failed)?;
    let (mut digest, mut count) = (Sha256::new(), 0);
    while let Some(part) = body.next().await? {
        count += part.len() as u64;
        if count > head.bytes {
            break;
        }
        digest.update(&part);
        writer.write(part).await.map_err(failed)?;
    }
    if count != head.bytes {
        return Err(Problem::malformed(format!(
            "the body has another size than Content-Length, which is {} bytes",
            head.bytes
        )));
    }
    let sha256: [u8; 32] = digest.finalize().into();
    if head.digest.is_some_and(|wanted| wanted != sha256) {
        return Err(Problem::new(Kind::DIGEST_MISMATCH).with_detail(format!(
            "the {count} bytes that arrived have the SHA-256 {}, which is not that of Content-Digest: send \
             them again",
            BASE64.encode(&sha256)
        )));
    }
    writer.finish().await.map_err(failed)?;
    Ok(Sha256Hash::new(sha256))
}

/// What the head of a request says about its body.
struct Head {
    bytes: u64,
    content_type: String,
    digest: Option<[u8; 32]>,
}

impl Head {
    fn of(headers: &HeaderMap, bytes_max: u64) -> Result<Self, Problem> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes: u64 = length.ok_or_else(|| {
            Problem::new(Kind::LENGTH_REQUIRED).with_detail("an upload says its size in Content-Length")
        })?;
        if bytes > bytes_max {
            return Err(too_large(bytes_max, bytes));
        }
        let is_plain = headers.get(header::CONTENT_ENCODING).is_none_or(|value| value == "identity");
        if !is_plain {
            return Err(Problem::new(Kind::UNSUPPORTED_MEDIA_TYPE)
                .with_detail("a body is sent without a content encoding"));
        }
        Ok(Self { bytes, content_type: content_type(headers)?, digest: digest(headers)? })
    }
}

fn too_large(bytes_max: u64, bytes: u64) -> Problem {
    Problem::new(Kind::TOO_LARGE).with_detail(format!(
        "an artifact has at most {bytes_max} bytes (artifacts.bytes_max), and this one has {bytes}"
    ))
}

fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(sent) = headers.get(header::CONTENT_TYPE) else { return Ok(ANY_BYTES.to_owned()) };
    let text = sent.to_str().ok().filter(|text| text.len() <= CONTENT_TYPE_MAX && text.contains('/'));
    text.map(str::to_owned).ok_or_else(|| {
        Problem::malformed(format!(
            "Content-Type is a media type of at most {CONTENT_TYPE_MAX} characters, such as text/plain"
        ))
    })
}

/// The SHA-256 of `Content-Digest`; `None`: there is no such header.
fn digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Problem> {
    let mut sent = headers.get_all(CONTENT_DIGEST).iter().peekable();
    if sent.peek().is_none() {
        return Ok(None);
    }
    let mut found = None;
    for member in sent.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
        if let Some(digest) = member.trim().strip_prefix("sha-256=") {
            found = bytes_of(digest);
        }
    }
    found.map(Some).ok_or_else(|| {
        Problem::malformed("Content-Digest has the form sha-256=:...: with the digest as base64 (RFC 9530)")
    })
}

/// The bytes of a member `:...:` that has the length of a SHA-256.
fn bytes_of(member: &str) -> Option<[u8; 32]> {
    let text = member.split(';').next()?.trim().strip_prefix(':')?.strip_suffix(':')?;
    if text.len() != DIGEST_CHARACTERS {
        return None;
    }
    BASE64.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OF_HELLO: &str = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";

    fn read(name: HeaderName, value: &str) -> Result<Head, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        headers.insert(name, HeaderValue::from_str(value).expect("text"));
        Head::of(&headers, 10).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_digest_is_read_or_refused_and_never_ignored() {
        let hello: [u8; 32] = Sha256::digest("hello").into();
        for good in [OF_HELLO.to_owned(), format!("sha-512=:AA==:, {OF_HELLO}"), format!(" {OF_HELLO};a=1")] {
            assert_eq!(read(CONTENT_DIGEST, &good).ok().and_then(|head| head.digest), Some(hello), "{good}");
        }
        for bad in ["", "sha-512=:AA==:", "sha-256=:AA==:", "sha-256=LPJNul", "SHA-256=:AA==:", "md5=:x:"] {
            assert_eq!(read(CONTENT_DIGEST, bad).err(), Some(400), "{bad}");
        }
        assert!(read(header::ACCEPT, "*/*").is_ok_and(|head| head.digest.is_none()));
    }

    #[test]
    fn the_head_says_size_and_type() {
        assert_eq!(Head::of(&HeaderMap::new(), 10).err().map(|problem| problem.status().as_u16()), Some(411));
        assert_eq!(read(header::CONTENT_LENGTH, "x").err(), Some(411));
        assert_eq!(read(header::CONTENT_LENGTH, "11").err(), Some(413));
        assert_eq!(read(header::CONTENT_LENGTH, "10").map(|head| head.bytes), Ok(10));
        assert_eq!(read(header::CONTENT_ENCODING, "gzip").err(), Some(415));
        assert_eq!(
            read(header::CONTENT_TYPE, "text/plain").map(|head| head.content_type),
            Ok("text/plain".into())
        );
        assert_eq!(read(header::ACCEPT, "*/*").map(|head| head.content_type), Ok(ANY_BYTES.into()));
        for bad in ["text", &format!("a/{}", "b".repeat(CONTENT_TYPE_MAX))] {
            assert_eq!(read(header::CONTENT_TYPE, bad).err(), Some(400), "{bad}");
        }
    }
}
