//! Bodies of any size, to and from a server, a part at a time.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderName, Method, header};
use serde_json::Value;
use tokio::{fs::File, io::AsyncReadExt};

use super::{Client, Failure};

/// How long a body may take.
const TRANSFER_LASTS: Duration = Duration::from_secs(12 * 3600);
/// The bytes that are read from a file at a time.
const PIECE_BYTES: usize = 64 << 10;

/// An answer whose body is read a part at a time.
pub(crate) struct Download<'c> {
    client: &'c Client,
    answer: reqwest::Response,
}

impl Download<'_> {
    /// A header of the answer.
    pub(in crate::cli) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.answer.headers().get(name)?.to_str().ok()
    }

    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.answer.chunk().await.map_err(|error| self.client.unreachable(&error))
    }
}

impl Client {
    /// Sends the next `bytes` bytes of a file, with these headers. Returns the JSON of the answer.
    ///
    /// # Errors
    /// If the answer is a problem, or no answer comes.
    pub(in crate::cli) async fn upload(
        &self,
        path: &[&str],
        headers: &[(HeaderName, String)],
        file: File,
        bytes: u64,
    ) -> Result<Value, Failure> {
        let parts = stream::try_unfold((file, bytes), |(mut file, left)| async move {
            let mut part = BytesMut::zeroed(usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES));
            if left == 0 {
                return Ok::<_, io::Error>(None);
            }
            let count = file.read(&mut part).await?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            part.truncate(count);
            Ok(Some((part.freeze(), (file, left - count as u64))))
        });
        let mut request = self.request(Method::PUT, path, &[]).await?.timeout(TRANSFER_LASTS);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header(header::CONTENT_LENGTH, bytes).body(reqwest::Body::wrap_stream(parts));
        let (status, answer) = self.answer(request).await?;
        let value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        if status.is_success() { Ok(value) } else { Err(self.refusal(status, &value)) }
    }

    /// Removes what a path names, with these headers.
    ///
    /// # Errors
    /// If the answer is a problem, or no answer comes.
    pub(in crate::cli) async fn remove(
        &self,
        path: &[&str],
        headers: &[(HeaderName, String)],
    ) -> Result<(), Failure> {
        let mut request = self.request(Method::DELETE, path, &[]).await?;
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (status, answer) = self.answer(request).await?;
        if status.is_success() { Ok(()) } else { Err(self.refused(status, &answer)) }
    }

    /// Begins to read an answer of any size.
    ///
    /// # Errors
    /// If the answer is a problem, or no answer comes.
    pub(in crate::cli) async fn download(&self, path: &[&str]) -> Result<Download<'_>, Failure> {
        let request = self.request(Method::GET, path, &[]).await?.timeout(TRANSFER_LASTS);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Download { client: self, answer });
        }
        let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        Err(self.refusal(status, &serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}
