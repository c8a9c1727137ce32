//! The exit code and the message for an error answer of the server.

use std::path::Path;

use http::StatusCode;
use serde_json::Value;
use url::Url;

use crate::cli::{Code, Failure};
use crate::http::{
    apps::watch_sink::WITHOUT_PLACE,
    bodies::problem::{Kind, TYPE_PREFIX, sentence},
    door::auth::{TOKEN_OF_APP, TOKEN_OF_STAFF},
};

/// How a token is given.
const GIVEN: &str = "with --token-file FILE or the variable TIDINGS_TOKEN";

/// For each kind of resource that a request named and that does not exist: the command that lists them.
const LISTED: [(Kind, &str); 15] = [
    (Kind::NOT_REGISTERED, "tidings repository list"),
    (Kind::NO_APP, "tidings app list"),
    (Kind::NO_DEAD_LETTER, "tidings dead-letter list"),
    (Kind::NO_REDRIVE, "tidings dead-letter redrives"),
    (Kind::NO_DELIVERY, "tidings delivery list"),
    (Kind::NO_TOKEN, "tidings token list"),
    (Kind::NO_RECEIPT, "tidings receipt list"),
    (Kind::NO_HOOK, "tidings hook list"),
    (Kind::NO_SUBSCRIPTION, "tidings subscription list"),
    (Kind::NO_ENTRY, "tidings ledger list"),
    (Kind::NO_TASK, "tidings task list"),
    (Kind::NO_QUEUE, "tidings queue list"),
    (Kind::NO_SCHEDULE, "tidings schedule list"),
    (Kind::NO_KEY, "tidings key list"),
    (Kind::NO_BREAKER, "tidings admin breaker list"),
];

/// A request that the server answered with an error.
pub(super) struct Refusal<'a> {
    /// The address that the client has of the server.
    pub(super) server: &'a Url,
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// The body of the answer; null if it is no JSON.
    pub(super) problem: &'a Value,
    /// Whether a token was sent.
    pub(super) has_token: bool,
    /// The app that `--for` names.
    pub(super) for_app: Option<&'a str>,
    /// Where the settings of this machine would have the admin token.
    pub(super) admin_token_file: Option<&'a Path>,
}

impl Refusal<'_> {
    /// The failure of the verb.
    pub(super) fn failure(&self) -> Failure {
        let code = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Code::Permission,
            status if status.is_client_error() => Code::Data,
            _ => Code::Unavailable,
        };
        let message = match self.problem["title"].as_str() {
            None => {
                format!("the server answered {} and no reason: is this a server of Tidings?", self.status)
            }
            Some(title) => self.of_token().unwrap_or_else(|| self.text(title)),
        };
        // Control characters are removed, because the text of the server is not trusted on a terminal.
        Failure::new(code, message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
    }

    fn is(&self, kind: Kind) -> bool {
        self.problem["type"].as_str().and_then(|kind| kind.strip_prefix(TYPE_PREFIX)) == Some(kind.code)
    }

    /// Whether the server explains its answer with this detail.
    fn explains(&self, detail: &str) -> bool {
        self.problem["detail"] == detail
    }

    /// The token that the request needs, and where to find it.
    fn of_token(&self) -> Option<String> {
        if self.is(Kind::ADMIN_REQUIRED) {
            let sent = match self.has_token {
                true if self.explains(TOKEN_OF_APP) => {
                    "the command needs a token of the staff, and the given token is the token of an app"
                }
                true => {
                    "the command needs a token of the staff, and the server does not know the given token: \
                     it is mistyped, revoked or expired"
                }
                false => "the command needs a token of the staff, and none was given",
            };
            let file = self.admin_token_file.filter(|file| file.exists());
            let place = file.map_or_else(String::new, |file| format!(", here {}", file.display()));
            return Some(format!(
                "{sent}: the file admin-token in the data directory of the server (data_dir{place}) holds \
                 one; give the token {GIVEN}"
            ));
        }
        if self.is(Kind::MISSING_AUTHORIZATION) {
            return Some(format!(
                "the command needs the token of an app, and none was given: `tidings app create` printed the \
                 token; give it {GIVEN}, or give a token of the staff and name the app with --for APP"
            ));
        }
        self.is(Kind::INVALID_TOKEN).then(|| {
            let text = if self.explains(TOKEN_OF_STAFF) {
                "the command needs the token of an app, and the given token is a token of the staff: name \
                 the app with --for APP"
            } else {
                "the server does not know the given token: it is mistyped, revoked or expired"
            };
            text.to_owned()
        })
    }

    /// The refusal of a path that the server does not have: the given address has a path of its own, or the
    /// server is older.
    fn no_route(&self) -> String {
        let server = self.server;
        if server.path() == "/" {
            return format!("the server {server} has no such route: it may be older than this command");
        }
        let mut root = server.clone();
        root.set_path("");
        format!("{server} is not the root of a Tidings server; write {root}")
    }

    fn text(&self, title: &str) -> String {
        if self.is(Kind::NO_ROUTE) {
            return self.no_route();
        }
        if let Some(named) = self.for_app.filter(|_| self.is(Kind::NO_APP)) {
            return super::names::no_app(named);
        }
        let problem = self.problem;
        let faults: Vec<String> = problem["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|fault| {
                let text = |name: &str| fault[name].as_str().unwrap_or_default();
                sentence(text("pointer"), text("detail"))
            })
            .collect();
        let mut message = if faults.is_empty() { title.to_owned() } else { faults.join("; ") };
        if let Some(detail) = problem["detail"].as_str() {
            message = format!("{message}: {detail}");
        }
        if problem["outcome"].is_object() {
            let outcome = &problem["outcome"];
            let came =
                outcome["failure"].as_str().map_or_else(|| outcome["status"].to_string(), str::to_owned);
            message = format!("{message}; {came}: {}", outcome["detail"].as_str().unwrap_or_default());
        }
        // The server speaks of the parameters of its API.
        const FLAGS: [(&str, &str); 5] = [
            (
                "set base_url, or name an address to try",
                "set one with `tidings app update --base-url URL`, or name an address to try with --base-url",
            ),
            (WITHOUT_PLACE, "needs --sink-url, --sink-pull or --sink-tasks"),
            ("with `branch`", "with --branch"),
            ("with `cursor`", "with --cursor"),
            ("with `token` or `github_app`", "with --git-token-file or --github-app-id"),
        ];
        for (parameter, flag) in FLAGS {
            message = message.replace(parameter, flag);
        }
        match LISTED.into_iter().find(|(kind, _)| self.is(*kind)) {
            Some((_, verb)) => format!("{message}; `{verb}` lists what is there"),
            None => message,
        }
    }
}
