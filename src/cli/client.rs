//! The command line's way to a running server.
//!
//! The client is not the guarded one of `egress`: the address is what the person at the keyboard
//! named, most often this machine. Redirects and proxies of the environment are off, so that a
//! token goes to that server and nowhere else.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::{Method, StatusCode, header};
use serde_json::Value;
use tidings_actors::secret::Secret;
use url::Url;

use super::{Code, Failure};
use crate::http::admin_token;

/// One call; registering a repository asks its Git host, for up to ten seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most bytes of an answer, unless a verb expects more.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Which server, and with which token.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// Address of the server
    #[arg(long, env = "TIDINGS_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(super) server: Url,
    /// File that holds the token; else the variable TIDINGS_TOKEN has it
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// A server that is talked to.
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<Secret>,
    answer_bytes_max: usize,
}

impl Client {
    /// A client with the token of the arguments or of `TIDINGS_TOKEN` (`token_variable`).
    ///
    /// # Errors
    /// A token file that cannot be read.
    #[expect(clippy::disallowed_methods, reason = "the person at the keyboard chose the server; see above")]
    pub(super) fn new(arguments: &ServerArgs, token_variable: Option<String>) -> Result<Self, Failure> {
        let token = match &arguments.token_file {
            None => token_variable.filter(|token| !token.is_empty()).map(Secret::new),
            Some(path) => Some(
                admin_token::read(path)
                    .map_err(|error| Failure::of_error(Code::Permission, &error))?
                    .ok_or_else(|| Failure::new(Code::Data, format!("{} does not exist", path.display())))?,
            ),
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .build()
            .map_err(|error| Failure::of_error(Code::Software, &error))?;
        let server = arguments.server.clone();
        Ok(Self { http, server, token, answer_bytes_max: ANSWER_BYTES_MAX })
    }

    /// The same, for answers of at most so many bytes.
    pub(super) fn expecting(self, answer_bytes_max: usize) -> Self {
        Self { answer_bytes_max, ..self }
    }

    /// Calls a route. The answer is its JSON, `null` where it has none.
    ///
    /// # Errors
    /// An answer that is a problem, or none at all.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.call_with_query(method, path, &[], body).await
    }

    /// Calls a route with a query.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(super) async fn call_with_query(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut url = self.server.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::new(Code::Usage, "--server must be a web address"))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let mut answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + part.len() > self.answer_bytes_max {
                return Err(Failure::new(Code::Unavailable, "the answer is too large"));
            }
            bytes.extend_from_slice(&part);
        }
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() { Ok(value) } else { Err(refusal(status, &value)) }
    }

    /// Every item of a list, page after page.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(super) async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", "100"));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let mut page = self.call_with_query(Method::GET, path, &query, None).await?;
            match page["items"].take() {
                Value::Array(more) => items.extend(more),
                _ => return Err(Failure::new(Code::Unavailable, "this server does not speak this API")),
            }
            match page["next_cursor"].take() {
                Value::String(next) => cursor = Some(next),
                _ => return Ok(items),
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() {
            "does not answer in time"
        } else if error.is_connect() {
            "cannot be reached"
        } else {
            "broke off"
        };
        Failure::new(Code::Unavailable, format!("the server {} {why}", self.server))
    }
}

/// What a problem means for a script and says to people.
fn refusal(status: StatusCode, problem: &Value) -> Failure {
    let code = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Code::Permission,
        status if status.is_client_error() => Code::Data,
        _ => Code::Unavailable,
    };
    let Some(title) = problem["title"].as_str() else {
        return Failure::new(code, format!("the server answered with status {status}"));
    };
    let mut message = title.to_owned();
    if let Some(detail) = problem["detail"].as_str() {
        message = format!("{message}: {detail}");
    }
    for fault in problem["errors"].as_array().into_iter().flatten() {
        let name = fault["pointer"].as_str().unwrap_or_default().trim_start_matches('/');
        message = format!("{message}; {name} {}", fault["detail"].as_str().unwrap_or_default());
    }
    if problem["outcome"].is_object() {
        let outcome = &problem["outcome"];
        let came = outcome["failure"].as_str().map_or_else(|| outcome["status"].to_string(), str::to_owned);
        message = format!("{message}; {came}: {}", outcome["detail"].as_str().unwrap_or_default());
    }
    Failure::new(code, message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
}
