//! The command line's way to a running server.
//!
//! The client is not the guarded one of `egress`: the address is what the person at the keyboard
//! named, most often this machine. Redirects and proxies of the environment are off, so that a
//! token goes to that server and nowhere else.

mod names;
mod refusal;
mod server_url;
mod unreachable;

pub(super) use server_url::server_url;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::{Method, StatusCode, header};
use serde_json::Value;
use tidings_actors::secret::Secret;
use tidings_entity::id::AppId;
use tokio::sync::OnceCell;
use url::Url;

use super::{
    Code, Failure,
    profile::Profile,
    secret_file::{self, Purpose},
};
use crate::egress::is_loopback;
use refusal::Refusal;

/// One call; registering a repository asks its Git host, for up to ten seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most bytes of an answer, unless a verb expects more.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Which server, and with which token.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// Address of the server [default: that of the profile, or http://127.0.0.1:8080]
    #[arg(long, env = "TIDINGS_SERVER", value_name = "URL", value_parser = server_url)]
    pub(super) server: Option<Url>,
    /// File that holds the token; else the variable TIDINGS_TOKEN has it
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Server and token file of this name in ~/.config/tidings/profiles.toml
    #[arg(long, env = "TIDINGS_PROFILE", value_name = "NAME", conflicts_with = "server")]
    pub(super) profile: Option<String>,
    /// As the staff: do it for this app (id or name), with a token of the staff
    #[arg(long = "for", value_name = "APP")]
    pub(super) for_app: Option<String>,
}

impl ServerArgs {
    /// As somebody gives them who names a server and nothing else.
    pub(super) fn of(server: Url) -> Self {
        Self { server: Some(server), token_file: None, profile: None, for_app: None }
    }
}

/// Where a server is that nobody named.
pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// How long a tail may last before it is taken up anew.
const TAIL_LASTS: Duration = Duration::from_secs(24 * 3600);
/// Most bytes of one event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What a tail says.
pub(super) enum Event {
    /// The server listens.
    Heard,
    /// Where to go on if the tail breaks off before anything happens.
    Placed(String),
    /// Something happened.
    Told {
        /// Its id, where it has one.
        id: Option<String>,
        /// What kind of event.
        word: String,
        /// The rest.
        data: Value,
    },
}

#[expect(clippy::disallowed_methods, reason = "the person at the keyboard chose the server; see above")]
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE)
}

/// A server that is talked to.
pub(super) struct Client {
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
    /// What names another address.
    otherwise: &'static str,
}

impl Client {
    /// A client with the token of the arguments, of the profile or of `TIDINGS_TOKEN`
    /// (`token_variable`). A server that is named by hand takes nothing from a profile.
    ///
    /// # Errors
    /// A token file that cannot be read.
    pub(super) fn new(
        arguments: &ServerArgs,
        profile: Option<Profile>,
        token_variable: Option<String>,
    ) -> Result<Self, Failure> {
        let profile = profile.filter(|_| arguments.server.is_none());
        let of_profile = profile.as_ref().and_then(|profile| profile.token_file.as_ref());
        let token = match arguments.token_file.as_ref().or(of_profile) {
            None => token_variable.filter(|token| !token.is_empty()).map(Secret::new),
            Some(path) => Some(secret_file::read(path, Purpose::ServerToken)?),
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

    /// A client for a server of this machine whose certificate is for another name than the one it is
    /// reached by; nothing secret is sent to it.
    ///
    /// # Errors
    /// None that is not a defect.
    pub(super) fn of_this_machine(server: Url) -> Result<Self, Failure> {
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

    /// The same, knowing where a server of this machine keeps its admin token.
    pub(super) fn with_admin_token_at(self, file: Option<PathBuf>) -> Self {
        Self { admin_token_file: file, ..self }
    }

    /// The same, for answers of at most so many bytes.
    pub(super) fn expecting(self, answer_bytes_max: usize) -> Self {
        Self { answer_bytes_max, ..self }
    }

    /// Whether the server is reached at an address of this machine.
    pub(super) fn is_of_this_machine(&self) -> bool {
        is_loopback(&self.server)
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
        let mut request = self.request(method, path, query).await?;
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
        if status.is_success() { Ok(value) } else { Err(self.refusal(status, &value)) }
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

    /// Lines of an answer that comes in parts, and what names the next part.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(super) async fn lines(
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

    /// Hears server-sent events until they end.
    ///
    /// # Errors
    /// An answer that is a problem, a connection that broke, or what `told` fails with.
    pub(super) async fn tail(
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

    /// At most so many items of a list, and whether there are more.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(super) async fn list_at_most(
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
    pub(super) async fn list(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        Ok(self.list_at_most(path, query, usize::MAX).await?.0)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        unreachable::failure(&self.server, self.otherwise, error)
    }

    fn refusal(&self, status: StatusCode, problem: &Value) -> Failure {
        Refusal {
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
        // Only an id: where a reader goes on that has heard nothing yet.
        (Err(_), Some(id)) if data.is_empty() => Some(Event::Placed(id)),
        (Err(_), _) => None,
    }
}
