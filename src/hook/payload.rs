//! The body of a hook. [`read`] is pure and total: for any bytes it returns a [`Payload`] or an error, in
//! time and memory linear in their number; commit lists and everything else that is not needed is skipped,
//! not kept.
//!
//! By the documentation and samples of the hosts: a push names its ref, and has an all-zero `after` if the
//! ref was deleted; GitHub and Gitea also send `create` and `delete` with the short name of the ref; a
//! repository has several addresses, any of which may be the registered one. After a rename the former
//! addresses are looked up as well.

use std::borrow::Cow;

use serde::Deserialize;
use thiserror::Error;
use tidings_entity::kind::{HookNews, HookProvider};
use url::{Url, form_urlencoded};

use crate::git::address::Address;

/// Most addresses of one hook.
pub const ADDRESSES_MAX: usize = 16;
/// The longest name of a ref, in bytes; Git itself is limited by the length of paths.
const REF_BYTES_MAX: usize = 1_024;

/// The facts of a hook that Tidings uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The event that the hook reports.
    pub news: HookNews,
    /// The full name of the ref that the hook reports.
    pub ref_name: Option<String>,
    /// The addresses of its repository, normalised as registered ones are, at most [`ADDRESSES_MAX`]. They
    /// are only looked up, never requested.
    pub addresses: Vec<String>,
}

/// A body that cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidPayload {
    /// A form without the one field `payload`.
    #[error("the form has no field payload")]
    Form,
    /// The body is no JSON object, or a field has another type than the host uses.
    #[error("the body is not what this host sends")]
    Json,
    /// A push that names no ref.
    #[error("the push names no ref")]
    Ref,
}

/// Reads the body of a hook; `event` is the host's name for it, `form` the encoding.
///
/// # Errors
/// [`InvalidPayload`] if the body cannot be read.
pub fn read(provider: HookProvider, event: &str, form: bool, body: &[u8]) -> Result<Payload, InvalidPayload> {
    let json = unwrapped(form, body)?;
    match provider {
        HookProvider::Github | HookProvider::Gitea => of_github(event, &json),
        HookProvider::Gitlab => of_gitlab(&json),
    }
}

/// The JSON of a body.
pub(super) fn unwrapped(form: bool, body: &[u8]) -> Result<Cow<'_, [u8]>, InvalidPayload> {
    if !form {
        return Ok(Cow::Borrowed(body));
    }
    let mut fields = form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
    match (fields.next(), fields.next()) {
        (Some((_, text)), None) => Ok(Cow::Owned(text.into_owned().into_bytes())),
        _ => Err(InvalidPayload::Form),
    }
}

/// A body of GitHub, Gitea or Forgejo.
#[derive(Deserialize)]
struct Github {
    #[serde(rename = "ref")]
    ref_name: Option<String>,
    ref_type: Option<String>,
    after: Option<String>,
    deleted: Option<bool>,
    repository: Option<GithubRepository>,
    changes: Option<Changes>,
}

#[derive(Deserialize)]
struct GithubRepository {
    clone_url: Option<String>,
    html_url: Option<String>,
    ssh_url: Option<String>,
}

/// The former names of a repository.
#[derive(Deserialize)]
struct Changes {
    repository: Option<Renamed>,
    owner: Option<HandedOver>,
}

#[derive(Deserialize)]
struct Renamed {
    name: Option<Former>,
}

#[derive(Deserialize)]
struct HandedOver {
    from: Option<FormerOwner>,
}

#[derive(Deserialize)]
struct FormerOwner {
    user: Option<Account>,
    organization: Option<Account>,
}

#[derive(Deserialize)]
struct Account {
    login: Option<String>,
}

#[derive(Deserialize)]
struct Former {
    from: Option<String>,
}

/// The body of an event of another kind: only its repository is read, if it names one.
#[derive(Deserialize)]
struct Bystander {
    repository: Option<GithubRepository>,
}

fn of_github(event: &str, json: &[u8]) -> Result<Payload, InvalidPayload> {
    if !matches!(event, "push" | "create" | "delete" | "repository") {
        let news = if event == "ping" { HookNews::Ping } else { HookNews::Other };
        let body = serde_json::from_slice::<Bystander>(json).ok();
        let repository = body.and_then(|body| body.repository);
        let addresses = normalised(repository.map_or(vec![], |repository| repository.addresses()));
        return Ok(Payload { news, ref_name: None, addresses });
    }
    let body: Github = serde_json::from_slice(json).map_err(|_| InvalidPayload::Json)?;
    let mut addresses = body.repository.map_or(vec![], |repository| repository.addresses());
    addresses.extend(body.changes.map_or(vec![], |changes| changes.former(&addresses)));
    let addresses = normalised(addresses);
    if event == "repository" {
        return Ok(Payload { news: HookNews::Repository, ref_name: None, addresses });
    }
    let gone = event == "delete" || body.deleted == Some(true) || is_zero(body.after.as_deref());
    let name = body.ref_name.filter(|name| !name.is_empty()).ok_or(InvalidPayload::Ref)?;
    let name = match (event, body.ref_type.as_deref()) {
        ("push", _) => name,
        (_, _) if name.starts_with("refs/") => name,
        (_, Some("tag")) => format!("refs/tags/{name}"),
        _ => format!("refs/heads/{name}"),
    };
    payload(gone, name, addresses)
}

impl GithubRepository {
    fn addresses(self) -> Vec<String> {
        [self.clone_url, self.html_url, self.ssh_url].into_iter().flatten().collect()
    }
}

impl Changes {
    /// These addresses under the former name or owner.
    fn former(self, addresses: &[String]) -> Vec<String> {
        let name = self.repository.and_then(|renamed| renamed.name?.from);
        let owner = self.owner.and_then(|owner| owner.from).and_then(|from| {
            let account = from.user.or(from.organization)?;
            account.login
        });
        let former = |address: &String| {
            let mut url = Url::parse(address).ok()?;
            let before = url.clone();
            let mut segments: Vec<&str> = before.path_segments()?.collect();
            let [.., last_owner, last_name] = segments.as_mut_slice() else { return None };
            if let Some(owner) = &owner {
                *last_owner = owner;
            }
            if let Some(name) = &name {
                *last_name = name;
            }
            url.set_path(&segments.join("/"));
            Some(url.to_string())
        };
        if name.is_none() && owner.is_none() {
            return Vec::new();
        }
        addresses.iter().filter_map(former).collect()
    }
}

/// The kind of a GitLab body; in a system hook `event_name` has it.
#[derive(Deserialize)]
struct GitlabKind {
    object_kind: Option<String>,
    event_name: Option<String>,
}

/// The body of a GitLab hook.
#[derive(Default, Deserialize)]
struct Gitlab {
    #[serde(rename = "ref")]
    ref_name: Option<String>,
    after: Option<String>,
    project: Option<GitlabProject>,
    repository: Option<GitlabRepository>,
}

#[derive(Deserialize)]
struct GitlabProject {
    git_http_url: Option<String>,
    git_ssh_url: Option<String>,
    web_url: Option<String>,
}

#[derive(Deserialize)]
struct GitlabRepository {
    git_http_url: Option<String>,
    git_ssh_url: Option<String>,
    homepage: Option<String>,
}

fn of_gitlab(json: &[u8]) -> Result<Payload, InvalidPayload> {
    let kind: GitlabKind = serde_json::from_slice(json).map_err(|_| InvalidPayload::Json)?;
    let kind = kind.object_kind.or(kind.event_name).unwrap_or_default();
    let news = match kind.as_str() {
        "push" | "tag_push" => HookNews::Push,
        "repository_update" => HookNews::Repository,
        _ => HookNews::Other,
    };
    let body: Gitlab = match serde_json::from_slice(json) {
        Ok(body) => body,
        // Fields of other events may have the same names with other types.
        Err(_) if news == HookNews::Other => Gitlab::default(),
        Err(_) => return Err(InvalidPayload::Json),
    };
    let project = body
        .project
        .map_or([None, None, None], |project| [project.git_http_url, project.web_url, project.git_ssh_url]);
    let repository = body.repository.map_or([None, None, None], |repository| {
        [repository.git_http_url, repository.homepage, repository.git_ssh_url]
    });
    let addresses = normalised(project.into_iter().chain(repository).flatten().collect());
    if news != HookNews::Push {
        return Ok(Payload { news, ref_name: None, addresses });
    }
    let name = body.ref_name.filter(|name| !name.is_empty()).ok_or(InvalidPayload::Ref)?;
    payload(is_zero(body.after.as_deref()), name, addresses)
}

fn payload(gone: bool, name: String, addresses: Vec<String>) -> Result<Payload, InvalidPayload> {
    if name.len() > REF_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(InvalidPayload::Ref);
    }
    let news = if gone { HookNews::Deletion } else { HookNews::Push };
    Ok(Payload { news, ref_name: Some(name), addresses })
}

/// Whether this is the object id of 40 zeros, which stands for no object.
fn is_zero(id: Option<&str>) -> bool {
    id.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte == b'0'))
}

/// Addresses, normalised like registered ones, with https and with http: a host behind a proxy may not know
/// its own scheme.
fn normalised(texts: Vec<String>) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for text in texts {
        let Ok(address) = Address::parse(&text, false, true) else { continue };
        // An address with `.git` may be watched under that name.
        let suffixed = address.with_suffix.as_ref().map(ToString::to_string);
        for text in [Some(address.normalised), suffixed].into_iter().flatten() {
            let Some((_, rest)) = text.split_once("://") else { continue };
            for scheme in ["https", "http"] {
                let address = format!("{scheme}://{rest}");
                if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
    }
    addresses
}
