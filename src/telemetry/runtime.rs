//! The HTTP client of the exporter. The exporter's threads are not those of the runtime, so each request is
//! passed to the runtime.
//!
//! The client is not the guarded one: a collector is usually on a private address that the operator names in
//! the settings, and no app can choose it. Redirects and proxies of the environment are off all the same.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

/// The deadline for connect, headers and body of one export together.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of a collector's answer that are looked at.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends requests on the runtime on which it was made.
#[derive(Clone, Debug)]
pub(super) struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

impl OnRuntime {
    #[expect(clippy::disallowed_methods, reason = "the collector is chosen by the operator alone; see above")]
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .build()?;
        Ok(Self { client, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { exchange(&client, request).await }).await?
    }
}

async fn exchange(client: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string();
    let mut answer = client.request(parts.method, url).headers(parts.headers).body(body).send().await?;
    let mut bytes = Vec::new();
    let status = answer.status();
    let headers = answer.headers().clone();
    while let Some(part) = answer.chunk().await? {
        if bytes.len() + part.len() > ANSWER_BYTES_MAX {
            break;
        }
        bytes.extend_from_slice(&part);
    }
    let mut response = Response::new(Bytes::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
