//! Normalises addresses of repositories as people write and paste them: the `https`, `ssh`, scp-like and bare
//! forms and web links of one repository have the same normalised address, which is the key of the
//! repository. A web link of a branch also selects that branch.
//!
//! An address that could hold a secret is refused, and no error repeats the input.

pub(crate) mod forge;
pub mod spelling;
mod web;

use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use thiserror::Error;
use tidings_actors::ports::{GitError, Location};
use url::{Host, Url};

use crate::address::forge::Forge;

/// Longest admitted address in bytes.
pub const ADDRESS_BYTES_MAX: usize = 2_048;

/// Names under which hosts serve git over ssh if port 22 is closed, or the web; and the name of the host
/// itself.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("www.github.com", "github.com"),
    ("www.gitlab.com", "gitlab.com"),
    ("www.bitbucket.org", "bitbucket.org"),
    ("ssh.github.com", "github.com"),
    ("altssh.gitlab.com", "gitlab.com"),
    ("altssh.bitbucket.org", "bitbucket.org"),
];
/// Where Azure DevOps serves ssh; its paths begin with a version.
const AZURE_SSH: &str = "ssh.dev.azure.com";

/// A repository address in normalised form, with the parts that people and requests need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address that requests are sent to, or the path on this machine.
    pub location: Location,
    /// The key of the repository: equal for all ways of writing one address.
    pub normalised: String,
    /// The address as it was given; of a web link the part that names the repository.
    pub display: String,
    /// Everything before the name: `group/subgroup`.
    pub owner: String,
    /// The last component, without `.git`.
    pub name: String,
    /// The branch that a web link names.
    pub branch: Option<String>,
    /// The address with `.git`, if it was given so and only the host can tell whether both forms name the
    /// same repository ([`crate::address::spelling`]).
    pub with_suffix: Option<Url>,
}

/// Why a text is no address that may be used. Texts never repeat the address, which may hold a
/// secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidAddress {
    /// The text is empty or too long.
    #[error("an address has 1 to {ADDRESS_BYTES_MAX} bytes")]
    Length,
    /// Control characters, or a leading dash.
    #[error("the address holds characters that no address has")]
    Characters,
    /// A user name, password or token in it.
    #[error(
        "the address holds a user name, password or token; give it as `token` (--git-token-file on the \
         command line)"
    )]
    Credential,
    /// A scheme other than https.
    #[error(
        "only https addresses can be used (ssh addresses are rewritten to https); give the https address of \
         the repository, or watch a clone of it by its path"
    )]
    Scheme,
    /// The scheme `git://`, whose answers cannot be authenticated.
    #[error(
        "git:// is not served, because nobody could tell whether its answers are genuine; give the https \
         address of the repository, or watch a clone of it by its path"
    )]
    GitProtocol,
    /// Plain http where settings do not allow it.
    #[error("plain http is refused: egress.allow_http is not set (set it to true to allow plain http)")]
    PlainHttp,
    /// A path where settings do not allow it.
    #[error(
        "repositories on the server's own disk are refused: git.allow_local is not set (set it to true to \
         allow them)"
    )]
    Local,
    /// No host, or no path to a repository.
    #[error("the address names no repository; write https://host/owner/name")]
    NoRepository,
    /// A question mark or a hash.
    #[error("an address has neither query nor fragment")]
    Query,
    /// A page about something in a repository.
    #[error("this is a page of a repository; give the address of the repository itself, or of one branch")]
    WebPage,
    /// `@branch` at the end, as installers of packages write it.
    #[error("the address ends in a branch or tag; name it in `branch` instead")]
    Reference,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`InvalidAddress`] says why it cannot be used.
    pub fn parse(text: &str, allow_local: bool, allow_http: bool) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        if text.is_empty() || text.len() > ADDRESS_BYTES_MAX {
            return Err(InvalidAddress::Length);
        }
        if text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(InvalidAddress::Characters);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            // The parser of addresses forgives both: slashes too many, and backslashes for slashes.
            if !scheme.eq_ignore_ascii_case("file") && rest.starts_with(['/', '\\']) {
                return Err(InvalidAddress::NoRepository);
            }
            if rest.contains('\\') {
                return Err(InvalidAddress::Characters);
            }
            return Self::from_url(text, allow_local, allow_http);
        }
        if let Some(url) = from_scp(text)? {
            return Self::from_http(text, &url);
        }
        if let Some(url) = from_bare(text, allow_local)? {
            return Self::from_http(&format!("https://{text}"), &url);
        }
        if !allow_local {
            return Err(if looks_like_path(text) { InvalidAddress::Local } else { InvalidAddress::Scheme });
        }
        Self::from_path(text, Path::new(text))
    }

    /// The address of the repository with `.git`, when the one without is another repository.
    #[must_use]
    pub fn kept_apart(self) -> Self {
        match self.with_suffix {
            Some(url) => {
                Self { normalised: url.to_string(), location: Location::Http(url), with_suffix: None, ..self }
            }
            None => self,
        }
    }

    /// Advice for a host that does not answer at this form of the address.
    #[must_use]
    pub fn way_around(&self, error: &GitError) -> Option<String> {
        let is_ssh = matches!(self.location, Location::Http(_))
            && !self.display.contains("://")
            && self.display.split_once(':').is_some_and(|(host, path)| {
                // Behind a host alone a number is a port.
                !host.contains('/') && !path.starts_with(|first: char| first.is_ascii_digit())
            })
            || ["ssh", "ssh+git", "git+ssh"].iter().any(|scheme| {
                let given = self.display.split_once("://").map(|(given, _)| given);
                given.is_some_and(|given| given.eq_ignore_ascii_case(scheme))
            });
        let is_elsewhere = matches!(
            error,
            GitError::Unreachable(_)
                | GitError::Timeout(_)
                | GitError::NotFound
                | GitError::Unauthorized
                | GitError::Status(_)
                | GitError::Redirected
                | GitError::Protocol(_)
        );
        (is_ssh && is_elsewhere).then(|| {
            format!(
                "repositories are read over https and never over ssh, so {} was asked: give the https \
                 address if that is another one, or watch a clone by its path",
                self.normalised
            )
        })
    }

    fn from_url(text: &str, allow_local: bool, allow_http: bool) -> Result<Self, InvalidAddress> {
        let bare = match text.split_at_checked(4) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("git+") => rest,
            _ => text,
        };
        let mut url = Url::parse(bare).map_err(|_| InvalidAddress::NoRepository)?;
        match url.scheme() {
            "https" => {}
            "http" if allow_http => {}
            "http" => return Err(InvalidAddress::PlainHttp),
            "ssh" | "ssh+git" if url.query().is_some() || url.fragment().is_some() => {
                return Err(InvalidAddress::Query);
            }
            "ssh" | "ssh+git" => return Self::from_http(text, &from_ssh(&url)?),
            "file" if !allow_local => return Err(InvalidAddress::Local),
            "file" if url.query().is_some() || url.fragment().is_some() => return Err(InvalidAddress::Query),
            "file" => {
                let path = url.to_file_path().map_err(|()| InvalidAddress::NoRepository)?;
                return Self::from_path(text, &path);
            }
            "git" => return Err(InvalidAddress::GitProtocol),
            _ => return Err(InvalidAddress::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidAddress::Credential);
        }
        // The fragment may be a branch, a commit or a heading: the syntax does not tell which.
        if url.fragment().is_some() || url.query().is_some_and(|query| !is_of_a_page(query)) {
            return Err(InvalidAddress::Query);
        }
        let last = url.path().rsplit('/').find(|component| !component.is_empty());
        if bare.len() != text.len() && last.is_some_and(|last| last.contains('@')) {
            return Err(InvalidAddress::Reference);
        }
        let text = match text.split_once('?') {
            Some((before, _)) => before.to_owned(),
            None => text.to_owned(),
        };
        url.set_query(None);
        Self::from_http(&text, &url)
    }

    fn from_http(text: &str, url: &Url) -> Result<Self, InvalidAddress> {
        let host = match url.host() {
            Some(Host::Domain("")) | None => return Err(InvalidAddress::NoRepository),
            Some(Host::Domain(host)) => host.trim_end_matches('.').to_lowercase(),
            Some(host) => host.to_string(),
        };
        let renamed = OTHER_NAMES.iter().find(|(other, _)| *other == host && url.port().is_none());
        let host = renamed.map_or(host, |(_, host)| (*host).to_owned());
        let components: Vec<_> = url.path().split('/').filter(|component| !component.is_empty()).collect();
        let link = web::read(Forge::of(&host), &components)?;
        if link.repository.iter().any(|component| !is_sound(component)) {
            return Err(InvalidAddress::Characters);
        }
        let is_caseless = Forge::public(&host).is_some();
        let given = link.repository.join("/");
        let path = without_suffix(&given, is_caseless);
        let (owner, name) = path.rsplit_once('/').unwrap_or(("", path));
        // `..git` is a dot with a suffix, and a dot is no name.
        if matches!(name, "" | "." | "..") || host.is_empty() {
            return Err(InvalidAddress::NoRepository);
        }
        let key = if is_caseless { path.to_lowercase() } else { path.to_owned() };
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        // Without its suffix such a repository would look like a page of another one.
        let plain: Vec<_> = path.split('/').collect();
        let is_whole = web::read(Forge::of(&host), &plain).is_ok_and(|link| link.branch.is_none());
        let suffix = if is_whole { "" } else { ".git" };
        let normalised = format!("{}://{host}{port}/{key}{suffix}", url.scheme());
        let location = Url::parse(&normalised).map_err(|_| InvalidAddress::NoRepository)?;
        // A name without its dots may be an address in an unusual spelling, and the last component without
        // its suffix may be encoded dots (`.%2e.git`).
        if location.host_str() != Some(host.as_str()) || location.path() != format!("/{key}{suffix}") {
            return Err(InvalidAddress::NoRepository);
        }
        let is_asked = path.len() < given.len() && suffix.is_empty() && Forge::of(&host) == Forge::Other;
        let with_suffix = Some(format!("{normalised}.git")).filter(|_| is_asked);
        let with_suffix = with_suffix.and_then(|text| Url::parse(&text).ok());
        let display = match link.branch {
            Some(_) => format!("{}://{host}{port}/{path}", url.scheme()),
            None => text.to_owned(),
        };
        Ok(Self {
            location: Location::Http(location),
            normalised,
            display,
            owner: decoded(owner),
            name: decoded(name),
            branch: link.branch.map(|branch| decoded(&branch.join("/"))),
            with_suffix,
        })
    }

    fn from_path(text: &str, path: &Path) -> Result<Self, InvalidAddress> {
        let path = std::path::absolute(path).map_err(|_| InvalidAddress::NoRepository)?;
        let path = without_dots(&path);
        let url = Url::from_file_path(&path).map_err(|()| InvalidAddress::NoRepository)?;
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let (owner, name) = match file {
            // The repository of a work tree is called like the work tree.
            Some(file) if file == ".git" => (path.parent().and_then(Path::parent), last(path.parent())),
            file => (path.parent(), file),
        };
        let name = name.ok_or(InvalidAddress::NoRepository)?;
        Ok(Self {
            normalised: url.to_string(),
            display: text.to_owned(),
            owner: last(owner).unwrap_or_default(),
            name: name.strip_suffix(".git").unwrap_or(&name).to_owned(),
            location: Location::Local(path),
            branch: None,
            with_suffix: None,
        })
    }
}

fn last(path: Option<&Path>) -> Option<String> {
    path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
}

/// A path without `.` and `..`, resolved lexically.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            component => clean.push(component),
        }
    }
    clean
}

fn looks_like_path(text: &str) -> bool {
    text.starts_with(['/', '.', '~']) || !text.contains(':')
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The path without `.git`, even if repeated; if the host ignores case, in any case.
fn without_suffix(mut path: &str, is_caseless: bool) -> &str {
    while let Some((before, suffix)) = path.len().checked_sub(4).and_then(|at| path.split_at_checked(at)) {
        if suffix == ".git" || is_caseless && suffix.eq_ignore_ascii_case(".git") {
            path = before;
        } else {
            break;
        }
    }
    path
}

/// Whether a component is still a single component after decoding.
fn is_sound(component: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(component).collect();
    !decoded.iter().any(|byte| byte.is_ascii_control() || matches!(byte, b'/' | b'\\'))
}

/// Queries that choose how a page of a repository looks, and nothing else.
fn is_of_a_page(query: &str) -> bool {
    query.is_empty() || query.starts_with("tab=") && !query.contains('&') || query == "ref_type=heads"
}

/// `host/owner/name`, as people copy it from the address line of a browser.
fn from_bare(text: &str, allow_local: bool) -> Result<Option<Url>, InvalidAddress> {
    let Some((host, path)) = text.split_once('/') else { return Ok(None) };
    if host.contains('@') {
        return Err(InvalidAddress::Credential);
    }
    let lower = host.to_lowercase();
    let is_known = Forge::public(lower.strip_prefix("www.").unwrap_or(&lower)).is_some();
    // If local paths are allowed, a folder may have such a name too.
    if !is_known && (allow_local || !is_host_name(&lower)) {
        return Ok(None);
    }
    if path.contains(['?', '#']) {
        return Err(InvalidAddress::Query);
    }
    https(host, path).map(Some)
}

/// Whether a word could be a host name of the Internet.
fn is_host_name(word: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = word.rsplit('.').next().unwrap_or_default();
    word.contains('.')
        && word.split('.').all(label)
        && last.len() >= 2
        && last.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// `git@host:owner/name.git` as https; `None` if the text does not have this form.
fn from_scp(text: &str) -> Result<Option<Url>, InvalidAddress> {
    let Some((before, path)) = text.split_once(':') else { return Ok(None) };
    if before.contains('/') || before.starts_with('.') {
        return Ok(None);
    }
    if path.starts_with(':') {
        return Err(InvalidAddress::Scheme);
    }
    let (has_user, host) = match before.split_once('@') {
        Some(("git", host)) => (true, host),
        Some(_) => return Err(InvalidAddress::Credential),
        None => (false, before),
    };
    let first = path.split('/').next().unwrap_or_default();
    if !has_user && first.contains('@') {
        return Err(InvalidAddress::Credential);
    }
    if host.is_empty() || !host.contains('.') && host != "localhost" || host.starts_with('-') {
        return Err(InvalidAddress::Scheme);
    }
    if path.contains(['?', '#']) {
        return Err(InvalidAddress::Query);
    }
    // Without a user, a number after the colon is a port: `host:port/...`.
    if !has_user && !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) {
        let url = format!("https://{host}:{path}");
        return Url::parse(&url).map(Some).map_err(|_| InvalidAddress::NoRepository);
    }
    of_ssh(host, path).map(Some)
}

/// `ssh://git@host[:port]/owner/name` as https; the port belonged to ssh.
fn from_ssh(url: &Url) -> Result<Url, InvalidAddress> {
    if url.password().is_some() || !matches!(url.username(), "" | "git") {
        return Err(InvalidAddress::Credential);
    }
    of_ssh(url.host_str().unwrap_or_default(), url.path())
}

fn of_ssh(host: &str, path: &str) -> Result<Url, InvalidAddress> {
    if !host.eq_ignore_ascii_case(AZURE_SSH) {
        return https(host, path);
    }
    let components: Vec<_> = path.split('/').filter(|component| !component.is_empty()).collect();
    match components[..] {
        ["v3", organisation, project, name] => {
            https("dev.azure.com", &format!("{organisation}/{project}/_git/{name}"))
        }
        _ => Err(InvalidAddress::NoRepository),
    }
}

fn https(host: &str, path: &str) -> Result<Url, InvalidAddress> {
    if host.is_empty() || host.contains(['@', '/', '\\', '%']) || path.contains('\\') {
        return Err(InvalidAddress::NoRepository);
    }
    Url::parse(&format!("https://{host}/{}", path.trim_start_matches('/')))
        .map_err(|_| InvalidAddress::NoRepository)
}

#[cfg(test)]
mod tests;
