//! Writing an object: its bytes are streamed to the server as they come, with one `PUT`, or in parts if it is
//! large. The last bytes are held back until the end is sure.

use std::{io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Method, header};
use rusty_s3::{S3Action, actions::CreateMultipartUpload};
use tidings_actors::ports::{ObjectError, ObjectWriter, UPLOAD_MAX};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use url::Url;

use super::{
    Bucket, Inner,
    calls::{SIGNED_FOR, XML_MAX},
};

/// How long the server may take for the next bytes.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long the server may take to keep what it got.
const KEPT_MAX: Duration = Duration::from_secs(120);
/// Pieces of a request that wait to be sent.
const PIECES: usize = 2;

/// An object that is being written. Dropped before its end, its requests are broken off.
pub(super) struct Upload {
    bucket: Bucket,
    key: String,
    /// Bytes for which no request has begun.
    unbegun: u64,
    request: Option<Sending>,
    /// The last bytes, which are not sent yet.
    held: Bytes,
    /// The id of an upload in parts, and the tags of its parts.
    parts: Option<(String, Vec<String>)>,
}

/// A request that takes bytes.
struct Sending {
    pieces: mpsc::Sender<Bytes>,
    left: u64,
    /// The one task that sends, which ends with this value.
    answer: JoinSet<Result<String, ObjectError>>,
}

impl Upload {
    pub(super) async fn begin(bucket: Bucket, key: String, bytes: u64) -> Result<Self, ObjectError> {
        let mut upload = Self { bucket, key, unbegun: bytes, request: None, held: Bytes::new(), parts: None };
        if bytes > upload.bucket.0.part_bytes {
            upload.parts = Some((upload.begin_parts().await?, Vec::new()));
        }
        Ok(upload)
    }

    async fn begin_parts(&self) -> Result<String, ObjectError> {
        const NAME: &str = "CreateMultipartUpload";
        let Inner { bucket, credentials, .. } = &*self.bucket.0;
        let signed = || bucket.create_multipart_upload(Some(credentials), &self.key).sign(SIGNED_FOR);
        let answer = self.bucket.call(NAME, Method::POST, signed, None).await?;
        let text = self.bucket.text(NAME, answer, XML_MAX).await?;
        let begun = CreateMultipartUpload::parse_response(&text);
        Ok(begun.map_err(|_| self.bucket.unreadable(NAME))?.upload_id().to_owned())
    }

    /// Sends bytes, in as many requests as they need.
    async fn send(&mut self, mut bytes: Bytes) -> Result<(), ObjectError> {
        while !bytes.is_empty() {
            if self.request.is_none() {
                self.begin_request()?;
            }
            let Some(request) = &mut self.request else { break };
            let count = usize::try_from(request.left).unwrap_or(usize::MAX).min(bytes.len());
            let piece = bytes.split_to(count);
            match timeout(STALL_MAX, request.pieces.send(piece)).await {
                Ok(Ok(())) => request.left -= count as u64,
                // The task has ended, and says why.
                Ok(Err(_closed)) => {
                    self.end_request().await?;
                    return Err(self.bucket.failed("PutObject", "it answered before it had all bytes"));
                }
                Err(_late) => return Err(self.bucket.failed("PutObject", "it took no bytes for 60 s")),
            }
            if request.left == 0 {
                self.end_request().await?;
            }
        }
        Ok(())
    }

    fn begin_request(&mut self) -> Result<(), ObjectError> {
        let left = self.unbegun.min(self.bucket.0.part_bytes);
        if left == 0 {
            return Err(self.bucket.failed("PutObject", "more bytes came than were announced"));
        }
        self.unbegun -= left;
        let url = self.address();
        let (pieces, to_send) = mpsc::channel(PIECES);
        let mut answer = JoinSet::new();
        answer.spawn(put(self.bucket.clone(), url, left, to_send));
        self.request = Some(Sending { pieces, left, answer });
        Ok(())
    }

    /// The address that the next bytes go to.
    fn address(&self) -> Url {
        let Inner { bucket, credentials, .. } = &*self.bucket.0;
        // An upload lasts as long as its client needs, and the address must be valid when it begins.
        match &self.parts {
            None => bucket.put_object(Some(credentials), &self.key).sign(SIGNED_FOR),
            Some((id, tags)) => {
                let number = u16::try_from(tags.len() + 1).unwrap_or(u16::MAX);
                bucket.upload_part(Some(credentials), &self.key, number, id).sign(SIGNED_FOR)
            }
        }
    }

    /// Waits until the server has kept the bytes of the request.
    async fn end_request(&mut self) -> Result<(), ObjectError> {
        let Some(Sending { pieces, mut answer, .. }) = self.request.take() else { return Ok(()) };
        drop(pieces);
        let kept = timeout(KEPT_MAX, answer.join_next()).await;
        let kept = kept.map_err(|_| self.bucket.failed("PutObject", "it did not keep the bytes in 120 s"))?;
        let broken = || self.bucket.failed("PutObject", "the request was broken off");
        let tag = kept.and_then(Result::ok).unwrap_or_else(|| Err(broken()))?;
        if let Some((_, tags)) = &mut self.parts {
            tags.push(tag);
        }
        Ok(())
    }

    async fn complete(&self, id: &str, tags: &[String]) -> Result<(), ObjectError> {
        const NAME: &str = "CompleteMultipartUpload";
        let Inner { bucket, credentials, .. } = &*self.bucket.0;
        let tags = || tags.iter().map(String::as_str);
        let action = || bucket.complete_multipart_upload(Some(credentials), &self.key, id, tags());
        let body = action().body();
        let made =
            self.bucket.call(NAME, Method::POST, || action().sign(SIGNED_FOR), Some(body.into())).await;
        let answer = match made {
            // The first try may have succeeded without its answer.
            Err(ObjectError::Missing) => return self.bucket.head(&self.key).await,
            made => made?,
        };
        let text = self.bucket.text(NAME, answer, XML_MAX).await?;
        // A server may find out after it has answered 200: then its answer is an error, which has no tag.
        // Some servers leave out the namespace, without which a strict reader takes a success for an error.
        if text.contains("<ETag") {
            return Ok(());
        }
        Err(self.bucket.failed(NAME, "it did not put the parts together"))
    }
}

/// Sends one request with these bytes and returns the tag of the stored part.
async fn put(
    bucket: Bucket,
    url: Url,
    bytes: u64,
    pieces: mpsc::Receiver<Bytes>,
) -> Result<String, ObjectError> {
    const NAME: &str = "PutObject";
    let body = stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (Ok::<Bytes, io::Error>(piece), pieces))
    });
    let request = bucket.0.egress.request(Method::PUT, &url);
    let request = request.map_err(|error| bucket.failed(NAME, &error.to_string()))?;
    let request = request.header(header::CONTENT_LENGTH, bytes).body(Body::wrap_stream(body));
    let answer = request.timeout(UPLOAD_MAX).send().await.map_err(|error| bucket.unsent(NAME, &error))?;
    let answer = bucket.judged(NAME, answer).await.map_err(|(error, _)| match error {
        ObjectError::Missing => bucket.failed(NAME, "the upload in parts is not there any more"),
        error => error,
    })?;
    let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
    Ok(tag.unwrap_or_default().to_owned())
}

#[async_trait]
impl ObjectWriter for Upload {
    async fn write(&mut self, part: Bytes) -> Result<(), ObjectError> {
        if part.is_empty() {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.held, part);
        self.send(before).await
    }

    async fn finish(mut self: Box<Self>) -> Result<(), ObjectError> {
        let last = std::mem::take(&mut self.held);
        if last.is_empty() && self.unbegun == 0 && self.request.is_none() && self.parts.is_none() {
            return self.put_empty().await;
        }
        self.send(last).await?;
        if self.unbegun > 0 || self.request.is_some() {
            return Err(self.bucket.failed("PutObject", "fewer bytes came than were announced"));
        }
        match &self.parts {
            Some((id, tags)) => self.complete(id, tags).await,
            None => Ok(()),
        }
    }
}

impl Upload {
    async fn put_empty(&self) -> Result<(), ObjectError> {
        let Inner { bucket, credentials, .. } = &*self.bucket.0;
        let signed = || bucket.put_object(Some(credentials), &self.key).sign(SIGNED_FOR);
        self.bucket.call("PutObject", Method::PUT, signed, Some(Bytes::new())).await.map(drop)
    }
}
