//! The HTTP client of the command line for a running server.
//!
//! This is not the guarded client of `egress`: the user named the address, usually of this machine. Redirects
//! and proxies of the environment are off, so that a token is sent only to that server.

mod names;
mod refusal;
mod server_url;
mod transfer;
mod unreachable;

pub(crate) use server_url::{has_host, server_url, without_user};
pub(crate) use transfer::Download;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::{Method, StatusCode, header};
use serde_json::Value;
use tidings_actors::model::secret::Secret;
use tidings_entity::id::AppId;
use tokio::sync::OnceCell;
use url::Url;

use crate::cli::{
    Code, Failure,
    profile::Profile,
    secret_file::{self, Purpose},
};
use crate::egress::is_loopback;
use refusal::Refusal;

/// The deadline of one call: registering a repository asks its Git host, which may take ten seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most bytes of an answer, unless a verb expects more.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The server to ask, and the token to use.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Address of the server [default: the address in the profile, or http://127.0.0.1:8080]
    #[arg(long, env = "TIDINGS_SERVER", value_name = "URL", value_parser = server_url)]
    pub(crate) server: Option<Url>,
    /// File that holds the token; without this option the variable TIDINGS_TOKEN, else the profile gives it
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Use the server and token file of this profile in ~/.config/tidings/profiles.toml
    #[arg(long, env = "TIDINGS_PROFILE", value_name = "NAME", conflicts_with = "server")]
    pub(crate) profile: Option<String>,
    /// App (id or name) to act for, with a token of the staff
    #[arg(long = "for", value_name = "APP")]
    pub(crate) for_app: Option<String>,
}

impl ServerArgs {
    /// The arguments for this server address, without any other flag.
    pub(crate) fn of(server: Url) -> Self {
        Self { server: Some(server), token_file: None, profile: None, for_app: None }
    }
}

/// The variable with the token, as messages name it.
pub(crate) const TOKEN_GIVER: &str = "the variable TIDINGS_TOKEN";
/// The address of the server if no address is given.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// How long a tail may last before it is opened again.
const TAIL_LASTS: Duration = Duration::from_secs(24 * 3600);
/// Most bytes of one event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// One event of a tail.
pub(crate) enum Event {
    /// The server accepted the request and listens for events.
    Heard,
    /// The place to continue from if the tail breaks off before the first event.
    Placed(String),
    /// An event with data.
    Told {
        /// The id of the event, where it has one.
        id: Option<String>,
        /// The type of the event.
        word: String,
        /// The data of the event, as JSON.
        data: Value,
    },
}

#[expect(clippy::disallowed_methods, reason = "the person at the keyboard chose the server; see above")]
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE)
}

/// A server that is talked to.
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<Secret>,
    /// The app that `--for` names.
    for_app: Option<String>,
    /// The id of that app, once it is known.
    for_id: OnceCell<AppId>,
    /// Where the settings of this machine would have the admin token.
    admin_token_file: Option<PathBuf>,
    answer_bytes_max: usize,
    /// The flag or variable that sets another address.
    otherwise: &'static str,
}

impl Client {
    /// A client with the token of `--token-file`, else of `TIDINGS_TOKEN` (`token_variable`), else of the
    /// profile. A server that is named by hand takes nothing from a profile.
    ///
    /// # Errors
    /// A token file that cannot be read, or a text that is no token.
    pub(crate) fn new(
        arguments: &ServerArgs,
        profile: Option<Profile>,
        token_variable: Option<String>,
    ) -> Result<Self, Failure> {
        let profile = profile.filter(|_| arguments.server.is_none());
        let of_profile = profile.as_ref().and_then(|profile| profile.token_file.as_ref());
        let token_variable = token_variable.filter(|token| !token.is_empty());
        let token = match (&arguments.token_file, token_variable, of_profile) {
            (None, Some(token), _) => Some(secret_file::token_of(&token, TOKEN_GIVER)?),
            (Some(path), _, _) | (None, None, Some(path)) => {
                Some(secret_file::read(path, Purpose::ServerToken)?)
            }
            (None, None, None) => None,
        };
        let named = arguments.server.clone().or(profile.map(|profile| profile.server));
        let server = match named {
            Some(server) => server,
            None => DEFAULT_SERVER
                .parse()
                .map_err(|_| Failure::new(Code::Software, "the default address is none"))?,
        };
        Ok(Self { for_app: arguments.for_app.clone(), ..Self::of(builder(), server, token)? })
    }

    /// A client for a server of this machine whose certificate is for another name than the address used; no
    /// secret is sent to it.
    ///
    /// # Errors
    /// Only if the HTTP client cannot be built, which is a defect.
    pub(crate) fn of_this_machine(server: Url) -> Result<Self, Failure> {
        let otherwise = "--server or the settings server.listen and server.ops_listen name another address";
        Ok(Self { otherwise, ..Self::of(builder().danger_accept_invalid_certs(true), server, None)? })
    }

    fn of(builder: reqwest::ClientBuilder, server: Url, token: Option<Secret>) -> Result<Self, Failure> {
        let http = builder.build().map_err(|error| Failure::of_error(Code::Software, &error))?;
        Ok(Self {
            http,
            server,
            token,
            for_app: None,
            for_id: OnceCell::new(),
            admin_token_file: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
            otherwise: "--server, TIDINGS_SERVER or a profile names another address",
        })
    }

    /// Sets the file in which a server on this machine keeps its admin token.
    pub(crate) fn with_admin_token_at(self, file: Option<PathBuf>) -> Self {
        Self { admin_token_file: file, ..self }
    }

    /// Sets the most bytes of an answer.
    pub(crate) fn expecting(self, answer_bytes_max: usize) -> Self {
        Self { answer_bytes_max, ..self }
    }

    /// The address of a path of the server.
    pub(crate) fn address_of(&self, path: &str) -> String {
        format!("{}{path}", self.server.as_str().trim_end_matches('/'))
    }

    /// Whether the server is reached at an address of this machine.
    pub(crate) fn is_of_this_machine(&self) -> bool {
        is_loopback(&self.server)
    }

    /// Calls a route. Returns the JSON of the answer, `null` for an empty answer.
    ///
    /// # Errors
    /// If the answer is a problem, or no answer comes.
    pub(crate) async fn call(
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
    pub(crate) async fn call_with_query(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path, query).await?;
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let (status, bytes) = self.answer(request).await?;
        let value = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            // Such as a payload of thousands of nested arrays: what was done is not to look undone.
            Err(error) if status.is_success() && !bytes.is_empty() => {
                let text = format!("the request was done, but its answer cannot be shown: {error}");
                return Err(Failure::new(Code::Data, text));
            }
            Err(_) => Value::Null,
        };
        if status.is_success() { Ok(value) } else { Err(self.refusal(status, &value)) }
    }

    /// Calls a route with a body that is sent unchanged. Returns the answer unchanged, with its status.
    ///
    /// # Errors
    /// If no answer comes.
    pub(crate) async fn call_raw(
        &self,
        method: Method,
        path: &[&str],
        body: String,
    ) -> Result<(StatusCode, Vec<u8>), Failure> {
        let request = self.request(method, path, &[]).await?;
        self.answer(request.header(header::CONTENT_TYPE, "application/json").body(body)).await
    }

    /// The failure for an answer with this status.
    pub(crate) fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        self.refusal(status, &serde_json::from_slice(body).unwrap_or(Value::Null))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, Vec<u8>), Failure> {
        let mut answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let mut bytes = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + part.len() > self.answer_bytes_max {
                return Err(Failure::new(Code::Unavailable, "the answer is too large"));
            }
            bytes.extend_from_slice(&part);
        }
        Ok((answer.status(), bytes))
    }

    async fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, Failure> {
        let for_app = match (&self.for_app, path) {
            (None, _) | (_, ["api", "admin", ..]) => None,
            (Some(named), ["api", "app", rest @ ..] | ["api", rest @ ..]) => {
                let app = self.for_id.get_or_try_init(|| self.app(named)).await?;
                Some([&["api", "admin", "apps", app.as_str()], rest].concat())
            }
            (Some(_), _) => None,
        };
        let path = for_app.as_deref().unwrap_or(path);
        let mut url = self.server.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::new(Code::Usage, "--server must be a web address"))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    /// Lines of an answer in several parts, and the cursor for the next part.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn lines(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<(Vec<u8>, Option<String>), Failure> {
        let answer = self.request(Method::GET, path, query).await?.send().await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let next = answer.headers().get("tidings-next-after").and_then(|next| next.to_str().ok());
        let next = next.map(str::to_owned);
        let bytes = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &serde_json::from_slice(&bytes).unwrap_or(Value::Null)));
        }
        Ok((bytes.to_vec(), next))
    }

    /// Reads server-sent events until they end.
    ///
    /// # Errors
    /// If the answer is a problem, the connection breaks, or `told` fails.
    pub(crate) async fn tail(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        mut told: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let request = self.request(Method::GET, path, query).await?.timeout(TAIL_LASTS);
        let mut answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
            return Err(self.refusal(status, &serde_json::from_slice(&body).unwrap_or(Value::Null)));
        }
        told(Event::Heard)?;
        let mut unread = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            unread.extend_from_slice(&part);
            while let Some(end) = unread.windows(2).position(|bytes| bytes == b"\n\n") {
                let block: Vec<u8> = unread.drain(..end + 2).collect();
                if let Some(event) = event(&String::from_utf8_lossy(&block)) {
                    told(event)?;
                }
            }
            if unread.len() > EVENT_BYTES_MAX {
                return Err(Failure::new(Code::Unavailable, "this server does not speak this API"));
            }
        }
        Ok(())
    }

    /// At most this many items of a list, and whether there are more.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn list_at_most(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        most: usize,
    ) -> Result<(Vec<Value>, bool), Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let limit = (most - items.len()).clamp(1, 100).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &limit));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let mut page = self.call_with_query(Method::GET, path, &query, None).await?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => return Err(Failure::new(Code::Unavailable, "this server does not speak this API")),
            }
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() || items.len() >= most {
                items.truncate(most);
                return Ok((items, cursor.is_some()));
            }
        }
    }

    /// Every item of a list, page after page.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        Ok(self.list_at_most(path, query, usize::MAX).await?.0)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        unreachable::failure(&self.server, self.otherwise, error)
    }

    fn refusal(&self, status: StatusCode, problem: &Value) -> Failure {
        Refusal {
            server: &self.server,
            status,
            problem,
            has_token: self.token.is_some(),
            for_app: self.for_app.as_deref(),
            admin_token_file: self.admin_token_file.as_deref(),
        }
        .failure()
    }
}

/// An event of a stream; `None` for a comment.
fn event(block: &str) -> Option<Event> {
    let (mut id, mut word, mut data) = (None, String::new(), String::new());
    for (name, value) in block.lines().filter_map(|line| line.split_once(": ")) {
        match name {
            "id" => id = Some(value.to_owned()),
            "event" => value.clone_into(&mut word),
            "data" => value.clone_into(&mut data),
            _ => {}
        }
    }
    match (serde_json::from_str(&data), id) {
        (Ok(data), id) => Some(Event::Told { id, word, data }),
        // An event with only an id: the position for a reader that has received nothing yet.
        (Err(_), Some(id)) if data.is_empty() => Some(Event::Placed(id)),
        (Err(_), _) => None,
    }
}
