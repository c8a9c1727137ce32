//! Tells the APIs of GitHub, GitLab and Gitea (also Forgejo) the status of a commit: one request, whose
//! answer is read by its status code alone. The credential is sent only to the host of the repository, or to
//! its `api.` subdomain; redirects are not followed; the text of the answer is not shown.

use std::{slice::from_ref, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};
use tidings_actors::{
    model::secret::Secret,
    ports::{GitError, StatusAnswer, StatusBoard, StatusColor, StatusTask},
};
use tidings_egress::Egress;
use tidings_entity::kind::StatusHost;
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

use super::client::Client;
use crate::{
    Git,
    address::forge::Forge,
    credential::{Credential, InvalidCredential, TokenType, github_app::Grant},
    failure,
};

/// Longest answer, from the first byte of the request on.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait if the host asks for one without a time.
const WAIT_UNNAMED: Duration = Duration::from_mins(1);
/// Bytes of a refusal that are looked at.
const REFUSAL_BYTES_MAX: usize = 4 << 10;
/// The most characters of the description of a status: GitHub accepts 140.
const LINE_MAX: usize = 140;
/// The characters that are not encoded in a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The kind of API for the statuses of a repository, by its credential or the name of its host; `None`:
/// neither tells.
#[must_use]
pub fn status_host(url: &Url, credential: Option<&Credential>) -> Option<StatusHost> {
    match credential {
        Some(Credential::App(_) | Credential::Token { kind: TokenType::Github, .. }) => {
            Some(StatusHost::Github)
        }
        Some(Credential::Token { kind: TokenType::Gitlab, .. }) => Some(StatusHost::Gitlab),
        Some(Credential::Token { kind: TokenType::Gitea, .. }) => Some(StatusHost::Gitea),
        _ => match Forge::of(url.host_str().unwrap_or_default()) {
            Forge::GitHub => Some(StatusHost::Github),
            Forge::GitLab => Some(StatusHost::Gitlab),
            Forge::Gitea => Some(StatusHost::Gitea),
            Forge::Bitbucket | Forge::Other => None,
        },
    }
}

#[async_trait]
impl StatusBoard for Git {
    async fn tell(&self, task: &StatusTask) -> StatusAnswer {
        self.host.client.tell(task).await
    }
}

/// The reason why nothing was sent, or no answer came.
enum Unanswered {
    /// Nothing can be sent, however often it is tried.
    Never(String),
    /// Nothing was sent; a later try may succeed, after the wait if there is one.
    Later(String, Option<Duration>),
    /// The request was sent, and the answer is unknown.
    Doubtful(String),
}

/// A refusal of our own.
fn never(error: impl ToString) -> Unanswered {
    Unanswered::Never(error.to_string())
}

impl Client {
    async fn tell(&self, task: &StatusTask) -> StatusAnswer {
        match self.told(task).await {
            Ok(answer) => answer,
            Err(Unanswered::Never(reason)) => StatusAnswer::Refused { status: None, reason },
            Err(Unanswered::Later(reason, wait)) => StatusAnswer::NotTaken { reason, wait },
            Err(Unanswered::Doubtful(reason)) => StatusAnswer::Doubtful { reason, wait: None },
        }
    }

    async fn told(&self, task: &StatusTask) -> Result<StatusAnswer, Unanswered> {
        let secret = task.credential.as_ref();
        let secret = secret.ok_or_else(|| never("the watch has no credential"))?;
        let credential = Credential::of(secret).map_err(never)?;
        let url = endpoint(task, &credential)?;
        if !self.egress.may_carry_secrets(&url) {
            return Err(never(InvalidCredential::Insecure));
        }
        let key = match &credential {
            Credential::Token { kind, secret } => {
                let shown = authorization(task.kind, *kind, secret)?;
                return self.send(task, &url, shown).await;
            }
            Credential::App(key) => key,
        };
        // An installation token that was revoked, or whose rights changed, is created again once.
        for is_last in [false, true] {
            let token = self.apps.token(key, &task.url, Grant::Statuses).await.map_err(unminted)?;
            let shown = authorization(task.kind, TokenType::Bearer, &token)?;
            let answer = self.send(task, &url, shown).await?;
            if is_last || !matches!(answer, StatusAnswer::Refused { status: Some(401), .. }) {
                return Ok(answer);
            }
            self.apps.refused(key, &task.url, &token, Grant::Statuses).await;
        }
        Err(never(InvalidCredential::Key))
    }

    async fn send(
        &self,
        task: &StatusTask,
        url: &Url,
        shown: HeaderValue,
    ) -> Result<StatusAnswer, Unanswered> {
        let credential = task.credential.as_ref();
        let _permit =
            self.hosts.request(url, credential, from_ref(&task.app), false).await.map_err(unsent)?;
        let request =
            self.egress.request(Method::POST, url).map_err(|error| unsent(failure::of_egress(&error)))?;
        let request = request
            .header(AUTHORIZATION, shown)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header("User-Agent", concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .body(body(task).to_string());
        let limit = ANSWER_TIMEOUT.min(self.settings.connect_timeout + self.settings.read_timeout);
        let answered = timeout(limit, async {
            let response = request.send().await.map_err(|error| unsent_or_doubtful(&self.egress, error))?;
            // The wait applies to statuses only: scans of the same host go on.
            let asked = failure::wait_asked(&response, self.clock.now());
            let asked = asked.map(|asked| asked.unwrap_or(WAIT_UNNAMED));
            Ok(read(task, response, asked).await)
        });
        answered.await.unwrap_or_else(|_| Err(Unanswered::Doubtful("the host did not answer in time".into())))
    }
}

/// Reads the meaning of an answer.
async fn read(task: &StatusTask, response: reqwest::Response, wait: Option<Duration>) -> StatusAnswer {
    let status = response.status();
    let code = status.as_u16();
    if status.is_success() {
        return StatusAnswer::Taken;
    }
    let reason = format!("status {code}");
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN if wait.is_some() => {
            StatusAnswer::NotTaken { reason, wait }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY => {
            StatusAnswer::Doubtful { reason, wait }
        }
        StatusCode::BAD_REQUEST if task.kind == StatusHost::Gitlab && shows_it(response).await => {
            StatusAnswer::Taken
        }
        status if status.is_server_error() => StatusAnswer::Doubtful { reason, wait },
        _ => StatusAnswer::Refused { status: Some(code), reason: refusal(task.kind, code) },
    }
}

/// GitLab refuses a state that the commit has already: an earlier request whose answer was lost was accepted.
async fn shows_it(mut response: reqwest::Response) -> bool {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > REFUSAL_BYTES_MAX {
            return false;
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&body).contains("Cannot transition status")
}

/// The meaning of a refusal, and the remedy.
fn refusal(kind: StatusHost, code: u16) -> String {
    let right = match kind {
        StatusHost::Github => "`repo:status` or `Commit statuses: write`",
        StatusHost::Gitlab => "`api`, with the role Developer",
        StatusHost::Gitea => "`write:repository`",
    };
    match code {
        401 => "the host does not know the credential (401): replace it".to_owned(),
        403 => format!("the credential may not write commit statuses (403): it needs {right}"),
        404 => format!(
            "the host shows this credential no such repository or commit (404): it needs {right}, and \
             `status` must name the kind of the host"
        ),
        422 => "the host takes no such status of this commit (422)".to_owned(),
        300..=399 => format!("the API is elsewhere ({code}), and redirects are not followed"),
        code => format!("the host refuses the status ({code})"),
    }
}

/// The address for the status of a commit.
fn endpoint(task: &StatusTask, credential: &Credential) -> Result<Url, Unanswered> {
    let mut url = match (task.kind, credential) {
        (StatusHost::Github, Credential::App(key)) => key.api(&task.url).map_err(never)?,
        (StatusHost::Github, _) => crate::credential::github_api(&task.url).map_err(never)?,
        _ => task.url.clone(),
    };
    let path = task.url.path().trim_matches('/');
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let mut parts: Vec<String> = path.strip_suffix(".git").unwrap_or(path).split('/').map(decoded).collect();
    if parts.len() < 2 {
        return Err(never("the address of the repository names no owner"));
    }
    let commit = task.key.commit;
    let encoded = |part: &str| utf8_percent_encode(part, PART).to_string();
    let path = match task.kind {
        StatusHost::Gitlab => {
            format!("/api/v4/projects/{}/statuses/{commit}", encoded(&parts.join("/")))
        }
        StatusHost::Github | StatusHost::Gitea => {
            let name = parts.pop().unwrap_or_default();
            let owner = parts.pop().unwrap_or_default();
            let below = match task.kind {
                StatusHost::Github => url.path().trim_end_matches('/').to_owned(),
                _ => parts.iter().map(|part| format!("/{}", encoded(part))).collect::<String>() + "/api/v1",
            };
            format!("{below}/repos/{}/{}/statuses/{commit}", encoded(&owner), encoded(&name))
        }
    };
    url.set_path(&path);
    url.set_query(None);
    Ok(url)
}

/// The request body for this kind of API.
fn body(task: &StatusTask) -> Value {
    let color = StatusColor::of(task.word);
    let state = match (task.kind, color) {
        (_, StatusColor::Pending) => "pending",
        (_, StatusColor::Success) => "success",
        (StatusHost::Gitlab, StatusColor::Failure) => "failed",
        (StatusHost::Gitlab, StatusColor::Error) => "canceled",
        (_, StatusColor::Failure) => "failure",
        (_, StatusColor::Error) => "error",
    };
    let line: String = task.description.chars().take(LINE_MAX).collect();
    json!({ "state": state, "context": task.context, "description": line })
}

/// How a token is shown to the API of this kind: not as Git shows it.
fn authorization(kind: StatusHost, shown: TokenType, secret: &Secret) -> Result<HeaderValue, Unanswered> {
    let exposed = secret.expose();
    let pair = match shown {
        TokenType::Auto | TokenType::Basic => exposed.split_once(':'),
        _ => None,
    };
    let text = Zeroizing::new(match (kind, pair) {
        // GitLab's API takes no basic authentication: the password is the token.
        (StatusHost::Gitlab, Some((_, password))) => format!("Bearer {password}"),
        (_, Some(_)) => format!("Basic {}", STANDARD.encode(exposed)),
        (StatusHost::Gitea, None) if shown != TokenType::Bearer => format!("token {exposed}"),
        (_, None) => format!("Bearer {exposed}"),
    });
    let mut value = HeaderValue::from_str(&text).map_err(|_| never(InvalidCredential::Characters))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Nothing was sent to the host.
fn unsent(error: GitError) -> Unanswered {
    match error {
        GitError::RateLimited { retry_after } => {
            Unanswered::Later("the host asks to wait".into(), retry_after)
        }
        GitError::Refused(_) | GitError::Credential(_) => never(error),
        error => Unanswered::Later(error.to_string(), None),
    }
}

/// No token of a GitHub App was issued.
fn unminted(error: GitError) -> Unanswered {
    match error {
        GitError::Credential(reason) => never(format!(
            "{reason}: the App needs the permission `Commit statuses: write`, and its installation must have \
             accepted that"
        )),
        error => unsent(error),
    }
}

/// If no connection was made, no request was sent; otherwise the outcome is unknown.
fn unsent_or_doubtful(egress: &Egress, error: reqwest::Error) -> Unanswered {
    let is_unmade = error.is_connect();
    match failure::of_request(egress, error) {
        error @ GitError::Refused(_) => never(error),
        error if is_unmade => Unanswered::Later(error.to_string(), None),
        error => Unanswered::Doubtful(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
