//! The credential of a Git host in a body: a token with its type, or a GitHub App. No fault repeats an input.

use serde_json::{Map, Value};
use tidings_actors::{model::secret::Secret, ports::Location};
use url::Url;

use crate::http::bodies::{
    body::{Body, body},
    fields::{Fields, shown_name},
};
use crate::{
    git::credential::{AppKey, Credential, TOKEN_TYPES, TokenType},
    http::front::Front,
};

/// Most characters of a token.
const TOKEN_CHARACTERS_MAX: usize = 1024;
/// Most characters of a private key.
const KEY_CHARACTERS_MAX: usize = 16_384;
/// Most characters of the id of a GitHub App, and of the address of its API.
const NAME_CHARACTERS_MAX: usize = 256;

body! {
    /// A GitHub App that is installed for the repository.
    pub(in crate::http::repositories) struct GithubApp {
        /// Id of the GitHub App, or its client id. A number is accepted, too.
        app_id: String,
        /// Id of the installation. A text is accepted, too.
        installation_id: u64,
        /// Private RSA key of the GitHub App, in PEM.
        private_key: String,
        /// Address of the API. Missing: GitHub's usual address for the host.
        api_url: Option<String>,
    }
}

/// The field that holds the credential.
pub(in crate::http::repositories) fn field(fields: &mut Fields) -> &'static str {
    ["github_app", "token"].into_iter().find(|name| fields.has(name)).unwrap_or("github_token")
}

/// The credential in the body, if any, in its stored form; checked for the repository at `location`.
pub(in crate::http::repositories) fn read(
    front: &Front,
    fields: &mut Fields,
    location: Option<&Location>,
) -> Option<Secret> {
    let token_field = fields.either("github_token", "token");
    let (has_token, has_app) = (fields.has(token_field), fields.has("github_app"));
    let token = read_token(fields, token_field);
    let kind: Option<TokenType> = fields.word("token_type", TOKEN_TYPES);
    if kind.is_some() && !has_token {
        fields.refuse("token_type", "must not be given without a token");
    }
    let app = fields.object("github_app").and_then(|app| read_app(fields, app));
    if has_token && has_app {
        fields.refuse("github_app", "is an alternative to a token; give one of the two");
        return None;
    }
    let (field, credential) = match (token, app) {
        (Some(secret), _) => (token_field, Credential::Token { kind: kind.unwrap_or_default(), secret }),
        (None, Some(app)) => ("github_app", Credential::App(app)),
        (None, None) => return None,
    };
    if let Some(Location::Http(git)) = location
        && let Err(fault) = credential.check(git, |url| front.egress.may_carry_secrets(url))
    {
        fields.refuse(field, fault.to_string());
        return None;
    }
    Some(credential.text())
}

fn read_token(fields: &mut Fields, field: &str) -> Option<Secret> {
    let token = fields.text(field, 1..=TOKEN_CHARACTERS_MAX)?;
    if token.contains(char::is_whitespace) {
        fields.refuse(field, "must not hold blanks");
        return None;
    }
    Some(Secret::new(token))
}

fn read_app(fields: &mut Fields, mut app: Map<String, Value>) -> Option<AppKey> {
    let app_id = name(app.remove("app_id"));
    let app_id =
        app_id.filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
    let installation_id = name(app.remove("installation_id")).and_then(|id| id.parse::<u64>().ok());
    let private_key = match app.remove("private_key") {
        Some(Value::String(key)) if key.len() <= KEY_CHARACTERS_MAX => Some(Secret::new(key)),
        _ => None,
    };
    let api_url = match app.remove("api_url") {
        None | Some(Value::Null) => Some(None),
        given => name(given).and_then(|url| url.parse::<Url>().ok()).map(Some),
    };
    let judged = [
        ("app_id", app_id.is_some(), "must be the id of a GitHub App"),
        ("installation_id", installation_id.is_some(), "must be the number of an installation"),
        ("private_key", private_key.is_some(), "must be an RSA key in PEM"),
        ("api_url", api_url.is_some(), "must be an address"),
    ];
    debug_assert!(judged.iter().map(|(name, ..)| name).eq(GithubApp::FIELDS), "what is described is read");
    for (name, is_there, rule) in judged {
        if !is_there {
            fields.refuse(&format!("github_app/{name}"), rule);
        }
    }
    for name in app.keys() {
        fields.refuse(&format!("github_app/{}", shown_name(name)), "there is no such field");
    }
    if !app.is_empty() {
        return None;
    }
    Some(AppKey {
        app_id: app_id?,
        installation_id: installation_id?,
        api_url: api_url?,
        private_key: private_key?,
    })
}

/// A short text, or a number as text.
fn name(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) if (1..=NAME_CHARACTERS_MAX).contains(&text.len()) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
