//! The credential of an app for a Git host, and how it is sent: as basic or bearer authentication, as stated
//! or by the host's product, or as a GitHub App for which short-lived tokens are created.
//!
//! Ports and rows hold a credential as one secret text, sealed as a whole. A bare token or `user:password` is
//! stored as given. Other kinds begin with a line break, which no token contains, and have one field per
//! line.

pub(crate) mod github_app;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::header::HeaderValue;
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::Signer,
};
use serde::Deserialize;
use thiserror::Error;
use tidings_actors::{model::secret::Secret, ports::GitError};
use url::Url;
use zeroize::Zeroizing;

use crate::address::forge::Forge;
use tidings_egress::redaction::redact;

/// A credential for a Git host, parsed from its text.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A token, or `user:password`.
    Token {
        /// How the token is sent to the host.
        kind: TokenType,
        /// The token, or `user:password`.
        secret: Secret,
    },
    /// A GitHub App, whose short-lived tokens are created when they are needed.
    App(AppKey),
}

/// How a token is sent to a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenType {
    /// `user:password` as it is; a bare token as the host's family wants it.
    #[default]
    Auto,
    /// HTTP basic authentication with the user `x-access-token`.
    Github,
    /// Basic, as `oauth2`: for personal, project, group and OAuth tokens.
    Gitlab,
    /// Basic; Gitea and Forgejo take the token as password under any name.
    Gitea,
    /// Basic, as `x-token-auth`: repository, project and workspace tokens.
    Bitbucket,
    /// Basic: `user:password`, also with an empty user or password.
    Basic,
    /// The header field `Authorization: Bearer`.
    Bearer,
}

/// The words of [`TokenType`] on the wire, and in the text form.
pub const TOKEN_TYPES: &str = "auto, github, gitlab, gitea, bitbucket, basic, bearer";
const APP: &str = "github_app";

/// A GitHub App and one of its installations.
#[derive(Clone, Debug)]
pub struct AppKey {
    /// The id of the GitHub App, or its client id.
    pub app_id: String,
    /// The id of the app's installation.
    pub installation_id: u64,
    /// The address of GitHub's API; `None`: the address that belongs to the Git host.
    pub api_url: Option<Url>,
    /// The app's RSA key as PEM, PKCS #1 or PKCS #8.
    pub private_key: Secret,
}

/// Why a credential cannot be used. Texts hold no part of it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidCredential {
    /// The stored text is not in our format.
    #[error("it cannot be read")]
    Text,
    /// The token has characters that are not allowed in a header field.
    #[error("it holds characters that no credential has")]
    Characters,
    /// Basic authentication without a colon.
    #[error("basic authentication needs `user:password`")]
    Pair,
    /// The key of an app is no RSA key.
    #[error("the private key is no RSA key in PEM")]
    Key,
    /// The token would be sent unencrypted.
    #[error("credentials are sent over https only")]
    Insecure,
    /// The API is not that of the Git host.
    #[error("the API of a GitHub App must be on the Git host itself, or on `api.` before it")]
    OtherHost,
}

impl Credential {
    /// Reads the text form.
    ///
    /// # Errors
    /// [`InvalidCredential::Text`].
    pub fn of(text: &Secret) -> Result<Self, InvalidCredential> {
        let exposed = text.expose();
        let Some(lines) = exposed.strip_prefix('\n') else {
            return Ok(Self::Token { kind: TokenType::Auto, secret: text.clone() });
        };
        let (word, rest) = lines.split_once('\n').ok_or(InvalidCredential::Text)?;
        if word != APP {
            // A kind that needs no word is stored without one, so that a credential has only one text.
            let kind = word_of(word).filter(|kind| *kind != TokenType::Auto);
            let kind = kind.ok_or(InvalidCredential::Text)?;
            return Ok(Self::Token { kind, secret: Secret::new(rest.to_owned()) });
        }
        let mut lines = rest.splitn(4, '\n');
        let mut line = || lines.next().ok_or(InvalidCredential::Text);
        let (app_id, installation, api) = (line()?, line()?, line()?);
        Ok(Self::App(AppKey {
            app_id: app_id.to_owned(),
            installation_id: installation.parse().map_err(|_| InvalidCredential::Text)?,
            api_url: match api {
                "" => None,
                api => Some(api.parse().map_err(|_| InvalidCredential::Text)?),
            },
            private_key: Secret::new(line()?.to_owned()),
        }))
    }

    /// The text form; equal for equal credentials.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(match self {
            Self::Token { kind: TokenType::Auto, secret } => secret.expose().to_owned(),
            Self::Token { kind, secret } => format!("\n{}\n{}", kind.word(), secret.expose()),
            Self::App(key) => format!(
                "\n{APP}\n{}\n{}\n{}\n{}",
                key.app_id,
                key.installation_id,
                key.api_url.as_ref().map_or("", Url::as_str),
                key.private_key.expose(),
            ),
        })
    }

    /// Whether it can be used at a repository; `may_carry_secrets` judges an address.
    ///
    /// # Errors
    /// [`InvalidCredential`] says why not.
    pub fn check(
        &self,
        git: &Url,
        may_carry_secrets: impl Fn(&Url) -> bool,
    ) -> Result<(), InvalidCredential> {
        if !may_carry_secrets(git) {
            return Err(InvalidCredential::Insecure);
        }
        match self {
            Self::Token { kind, secret } => authorization(*kind, secret, git).map(drop),
            Self::App(key) => {
                key.signer()?;
                if may_carry_secrets(&key.api(git)?) { Ok(()) } else { Err(InvalidCredential::Insecure) }
            }
        }
    }
}

impl TokenType {
    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
        }
    }

    /// The user name that is sent with a bare token.
    fn user(self, git: &Url) -> &'static str {
        match self {
            Self::Gitlab => "oauth2",
            Self::Bitbucket => "x-token-auth",
            Self::Auto => match Forge::of(git.host_str().unwrap_or_default()) {
                Forge::GitLab => "oauth2",
                Forge::Bitbucket => "x-token-auth",
                Forge::GitHub | Forge::Gitea | Forge::Other => "x-access-token",
            },
            Self::Github | Self::Gitea | Self::Basic | Self::Bearer => "x-access-token",
        }
    }
}

fn word_of(word: &str) -> Option<TokenType> {
    use serde::de::{IntoDeserializer, value::Error};
    TokenType::deserialize(IntoDeserializer::<Error>::into_deserializer(word)).ok()
}

/// The header that shows a token to the host of `git`, marked as a secret.
///
/// # Errors
/// [`InvalidCredential::Pair`] and [`InvalidCredential::Characters`].
pub(super) fn authorization(
    kind: TokenType,
    secret: &Secret,
    git: &Url,
) -> Result<HeaderValue, InvalidCredential> {
    let exposed = secret.expose();
    let is_pair = match kind {
        TokenType::Basic if !exposed.contains(':') => return Err(InvalidCredential::Pair),
        TokenType::Auto | TokenType::Basic => exposed.contains(':'),
        _ => false,
    };
    let header = Zeroizing::new(match kind {
        TokenType::Bearer => format!("Bearer {exposed}"),
        _ if is_pair => format!("Basic {}", STANDARD.encode(exposed)),
        _ => {
            let pair = Zeroizing::new(format!("{}:{exposed}", kind.user(git)));
            format!("Basic {}", STANDARD.encode(pair.as_bytes()))
        }
    });
    let mut value = HeaderValue::from_str(&header).map_err(|_| InvalidCredential::Characters)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The shortest piece of a secret that is looked for where a text was cut off.
const PIECE_BYTES_MIN: usize = 6;
/// The text that replaces a secret.
const MARK: &str = "[redacted]";

/// The error without the credential, which a host may have repeated in its words.
pub(super) fn scrubbed(error: GitError, credential: Option<&Secret>, git: &Url) -> GitError {
    let scrub = |text: String| scrub(&text, credential, git);
    match error {
        GitError::Unreachable(text) => GitError::Unreachable(scrub(text)),
        GitError::Timeout(text) => GitError::Timeout(scrub(text)),
        GitError::Moved(text) => GitError::Moved(scrub(text)),
        GitError::Credential(text) => GitError::Credential(scrub(text)),
        GitError::Protocol(text) => GitError::Protocol(scrub(text)),
        GitError::Broken(text) => GitError::Broken(scrub(text)),
        GitError::TooLarge(text) => GitError::TooLarge(scrub(text)),
        GitError::MalformedTree(text) => GitError::MalformedTree(scrub(text)),
        GitError::Corrupt(text) => GitError::Corrupt(scrub(text)),
        GitError::Storage(text) => GitError::Storage(scrub(text)),
        other => other,
    }
}

fn scrub(text: &str, credential: Option<&Secret>, git: &Url) -> String {
    // Known secrets are replaced first: a replacement by pattern could cut off a part of them.
    let mut text = text.to_owned();
    if let Some(Ok(Credential::Token { kind, secret })) = credential.map(Credential::of) {
        let header = authorization(kind, &secret, git).ok();
        let header = header.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let shown = header.split_once(' ').map_or("", |(_, shown)| shown);
        let password = secret.expose().split_once(':').map_or("", |(_, password)| password);
        for needle in [secret.expose(), shown, password] {
            text = without(text, needle);
        }
    }
    redact(&text)
}

/// The text without a secret, and without the beginning of the secret at the end of the text.
fn without(text: String, needle: &str) -> String {
    if needle.is_empty() {
        return text;
    }
    let mut clean = text.replace(needle, MARK);
    let pieces = (PIECE_BYTES_MIN..needle.len()).rev().filter_map(|length| needle.get(..length));
    if let Some(piece) = pieces.into_iter().find(|piece| clean.ends_with(piece)) {
        clean.truncate(clean.len() - piece.len());
        clean.push_str(MARK);
    }
    clean
}

/// Where the API of a GitHub host is, as GitHub documents it: `api.github.com`, `api.<name>.ghe.com`,
/// `<host>/api/v3`.
///
/// # Errors
/// [`InvalidCredential::OtherHost`]: the address has no host.
pub(super) fn github_api(git: &Url) -> Result<Url, InvalidCredential> {
    let host = git.host_str().ok_or(InvalidCredential::OtherHost)?;
    let port = git.port().map_or_else(String::new, |port| format!(":{port}"));
    let text = match Forge::of(host) {
        Forge::GitHub => format!("https://api.{host}"),
        _ => format!("{}://{host}{port}/api/v3", git.scheme()),
    };
    text.parse().map_err(|_| InvalidCredential::OtherHost)
}

impl AppKey {
    /// The address of the API of the Git host: the explicit address if it belongs to that host, else what
    /// GitHub documents (`api.github.com`, `api.<name>.ghe.com`, `<host>/api/v3`).
    ///
    /// # Errors
    /// [`InvalidCredential::OtherHost`]: a token is created only for the host that it is sent to.
    pub(super) fn api(&self, git: &Url) -> Result<Url, InvalidCredential> {
        let host = git.host_str().ok_or(InvalidCredential::OtherHost)?;
        if let Some(api) = &self.api_url {
            let of_git = api.host_str().is_some_and(|api| api.strip_prefix("api.").unwrap_or(api) == host);
            let is_plain = api.username().is_empty() && api.password().is_none() && api.query().is_none();
            return if of_git && is_plain { Ok(api.clone()) } else { Err(InvalidCredential::OtherHost) };
        }
        github_api(git)
    }

    /// The signer for the app: RS256.
    ///
    /// # Errors
    /// [`InvalidCredential::Key`] if the key cannot be read.
    pub(super) fn signer(&self) -> Result<Box<dyn Signer>, InvalidCredential> {
        let key = PrivateKeyDer::from_pem_slice(self.private_key.expose().as_bytes());
        let key = key.ok().and_then(|key| any_supported_type(&key).ok());
        key.and_then(|key| key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]))
            .ok_or(InvalidCredential::Key)
    }
}

#[cfg(test)]
mod tests;
