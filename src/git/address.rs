//! Addresses of repositories as people write them, made one: what `https`, `ssh` and scp-like
//! forms of one repository have in common is its normalised address, which names the repository.

use std::path::{Component, Path, PathBuf};

use thiserror::Error;
use tidings_actors::ports::Location;
use url::{Host, Url};

/// Longest admitted address in bytes.
pub const ADDRESS_BYTES_MAX: usize = 2_048;

/// Hosts that do not tell upper from lower case in paths.
const CASELESS_HOSTS: [&str; 4] = ["github.com", "gitlab.com", "bitbucket.org", "codeberg.org"];

/// A repository's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where to ask.
    pub location: Location,
    /// The key: equal for all ways of writing one address.
    pub normalised: String,
    /// As it was given.
    pub display: String,
    /// Everything before the name: `group/subgroup`.
    pub owner: String,
    /// The last component, without `.git`.
    pub name: String,
}

/// Why a text is no address that may be used. Texts never repeat the address, which may hold a
/// secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidAddress {
    /// Nothing, or too much.
    #[error("an address has 1 to {ADDRESS_BYTES_MAX} bytes")]
    Length,
    /// Control characters, or a leading dash.
    #[error("the address holds characters that no address has")]
    Characters,
    /// A user name, password or token in it.
    #[error("the address holds a user name, password or token; put it into `token`")]
    Credential,
    /// Another way of transport.
    #[error("only https addresses can be used (ssh addresses are rewritten to https)")]
    Scheme,
    /// Plain http where settings do not allow it.
    #[error("plain http is not allowed here")]
    PlainHttp,
    /// A path where settings do not allow it.
    #[error("local repositories are not allowed here")]
    Local,
    /// No host, or no path to a repository.
    #[error("the address names no repository")]
    NoRepository,
    /// A question mark or a hash.
    #[error("an address has neither query nor fragment")]
    Query,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`InvalidAddress`] says why it cannot be used.
    pub fn parse(text: &str, allow_local: bool, allow_http: bool) -> Result<Self, InvalidAddress> {
        let text = text.trim_matches(' ');
        if text.is_empty() || text.len() > ADDRESS_BYTES_MAX {
            return Err(InvalidAddress::Length);
        }
        if text.starts_with('-') || text.chars().any(|character| character.is_control()) {
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
        if !allow_local {
            return Err(if looks_like_path(text) { InvalidAddress::Local } else { InvalidAddress::Scheme });
        }
        Self::from_path(text, Path::new(text))
    }

    fn from_url(text: &str, allow_local: bool, allow_http: bool) -> Result<Self, InvalidAddress> {
        let url = Url::parse(text).map_err(|_| InvalidAddress::NoRepository)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidAddress::Query);
        }
        match url.scheme() {
            "https" => {}
            "http" if allow_http => {}
            "http" => return Err(InvalidAddress::PlainHttp),
            "ssh" | "git+ssh" | "ssh+git" => return Self::from_http(text, &from_ssh(&url)?),
            "file" if !allow_local => return Err(InvalidAddress::Local),
            "file" => {
                let path = url.to_file_path().map_err(|()| InvalidAddress::NoRepository)?;
                return Self::from_path(text, &path);
            }
            _ => return Err(InvalidAddress::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidAddress::Credential);
        }
        Self::from_http(text, &url)
    }

    fn from_http(text: &str, url: &Url) -> Result<Self, InvalidAddress> {
        let host = match url.host() {
            Some(Host::Domain("")) | None => return Err(InvalidAddress::NoRepository),
            Some(Host::Domain(host)) => host.trim_end_matches('.').to_lowercase(),
            Some(host) => host.to_string(),
        };
        let components: Vec<_> = url.path().split('/').filter(|component| !component.is_empty()).collect();
        let path = components.join("/");
        let path = path.strip_suffix(".git").unwrap_or(&path);
        let (owner, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || host.is_empty() {
            return Err(InvalidAddress::NoRepository);
        }
        let key = if CASELESS_HOSTS.contains(&host.as_str()) { path.to_lowercase() } else { path.to_owned() };
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let normalised = format!("{}://{host}{port}/{key}", url.scheme());
        let location = Url::parse(&normalised).map_err(|_| InvalidAddress::NoRepository)?;
        Ok(Self {
            location: Location::Http(location),
            normalised,
            display: text.to_owned(),
            owner: decoded(owner),
            name: decoded(name),
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
        })
    }
}

fn last(path: Option<&Path>) -> Option<String> {
    path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
}

/// A path without `.` and `..`, resolved by their letters.
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
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// `git@host:owner/name.git` as https; `None` where the text has not this shape.
fn from_scp(text: &str) -> Result<Option<Url>, InvalidAddress> {
    let Some((before, path)) = text.split_once(':') else { return Ok(None) };
    if before.contains('/') || before.starts_with('.') {
        return Ok(None);
    }
    if path.starts_with(':') {
        return Err(InvalidAddress::Scheme);
    }
    let host = match before.split_once('@') {
        Some(("git", host)) => host,
        Some(_) => return Err(InvalidAddress::Credential),
        None => before,
    };
    if host.is_empty() || !host.contains('.') && host != "localhost" || host.starts_with('-') {
        return Err(InvalidAddress::Scheme);
    }
    if path.contains(['?', '#']) {
        return Err(InvalidAddress::Query);
    }
    https(host, path).map(Some)
}

/// `ssh://git@host[:port]/owner/name` as https; the port belonged to ssh.
fn from_ssh(url: &Url) -> Result<Url, InvalidAddress> {
    if url.password().is_some() || !matches!(url.username(), "" | "git") {
        return Err(InvalidAddress::Credential);
    }
    https(url.host_str().unwrap_or_default(), url.path())
}

fn https(host: &str, path: &str) -> Result<Url, InvalidAddress> {
    if host.is_empty() || host.contains(['@', '/', '\\', '%']) {
        return Err(InvalidAddress::NoRepository);
    }
    Url::parse(&format!("https://{host}/{}", path.trim_start_matches('/')))
        .map_err(|_| InvalidAddress::NoRepository)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, InvalidAddress> {
        Address::parse(text, false, false)
    }

    #[test]
    fn all_ways_of_writing_one_repository_have_one_key() {
        for (key, owner, name, ways) in [
            (
                "https://github.com/rust-lang/rust",
                "rust-lang",
                "rust",
                &[
                    "https://github.com/rust-lang/rust",
                    "https://github.com/rust-lang/rust.git",
                    "https://GitHub.com:443/rust-lang/rust/",
                    "https://github.com./rust-lang//rust.git/",
                    "git@github.com:rust-lang/rust.git",
                    "github.com:rust-lang/rust",
                    "ssh://git@github.com/rust-lang/rust.git",
                    "ssh://git@github.com:22/rust-lang/rust",
                    "git+ssh://git@github.com/rust-lang/rust",
                    " https://github.com/rust-lang/rust ",
                ][..],
            ),
            (
                "https://git.example.org:8443/Group/Sub/My.Repo",
                "Group/Sub",
                "My.Repo",
                &["https://Git.Example.org:8443/Group/Sub/My.Repo.git"][..],
            ),
            ("https://[::1]/r", "", "r", &["https://[::1]/r"][..]),
            ("https://h.example/a%20b/c", "a b", "c", &["https://h.example/a b/c"][..]),
        ] {
            for way in ways {
                let address = parse(way).expect(way);
                assert_eq!(
                    (address.normalised.as_str(), address.owner.as_str(), address.name.as_str()),
                    (key, owner, name),
                    "{way}"
                );
                assert_eq!(address.display, way.trim());
                let again = parse(&address.normalised).expect("its own key");
                assert_eq!(
                    (again.normalised, again.location),
                    (address.normalised, address.location),
                    "{way}"
                );
            }
        }
    }

    #[test]
    fn case_is_folded_only_where_the_host_does_not_know_it() {
        let key = |text| parse(text).expect("valid").normalised;
        assert_eq!(key("https://github.com/A/B"), key("https://github.com/a/b"));
        assert_eq!(parse("https://github.com/A/B").expect("valid").owner, "A");
        assert_ne!(key("https://git.example/A/B"), key("https://git.example/a/b"));
    }

    #[test]
    fn what_could_do_harm_or_tell_a_secret_is_refused() {
        for (text, error) in [
            ("", InvalidAddress::Length),
            (&format!("https://h.example/{}", "a".repeat(ADDRESS_BYTES_MAX)), InvalidAddress::Length),
            ("--upload-pack=x", InvalidAddress::Characters),
            ("https://h.example/a\nb", InvalidAddress::Characters),
            ("https://h.example/a\0b", InvalidAddress::Characters),
            ("https://user:token@h.example/o/r", InvalidAddress::Credential),
            ("https://token@h.example/o/r", InvalidAddress::Credential),
            ("ssh://git:pw@h.example/o/r", InvalidAddress::Credential),
            ("root@h.example:o/r", InvalidAddress::Credential),
            ("ext::sh -c id", InvalidAddress::Scheme),
            ("git://h.example/o/r", InvalidAddress::Scheme),
            ("ftp://h.example/o/r", InvalidAddress::Scheme),
            ("ext::https://h.example/r", InvalidAddress::Scheme),
            ("http://h.example/o/r", InvalidAddress::PlainHttp),
            ("file:///srv/r", InvalidAddress::Local),
            ("/srv/r", InvalidAddress::Local),
            ("../r", InvalidAddress::Local),
            ("https:///o/r", InvalidAddress::NoRepository),
            ("https://h.example\\@evil.example/r", InvalidAddress::Characters),
            ("https://h.example", InvalidAddress::NoRepository),
            ("https://h.example/.git", InvalidAddress::NoRepository),
            ("https://h.example/o/r?x=1", InvalidAddress::Query),
            ("https://h.example/o/r#x", InvalidAddress::Query),
            ("git@h.example:o/r?x", InvalidAddress::Query),
        ] {
            assert_eq!(parse(text).map(|address| address.normalised), Err(error), "{text}");
        }
    }

    #[test]
    fn paths_are_made_absolute_where_they_are_allowed() {
        let local = |text| Address::parse(text, true, true).expect("valid");
        let address = local("/srv/git/group/r.git");
        assert_eq!((address.owner.as_str(), address.name.as_str()), ("group", "r"));
        assert_eq!(address.location, Location::Local(PathBuf::from("/srv/git/group/r.git")));
        assert_eq!(local("file:///srv/git/group/./x/../r.git").normalised, address.normalised);
        assert_eq!(local(&address.normalised).location, address.location);
        assert_eq!(local("/srv/work/.git").name, "work");
        assert!(matches!(local("some/folder").location, Location::Local(path) if path.is_absolute()));
        assert_eq!(local("http://127.0.0.1:8000/r").normalised, "http://127.0.0.1:8000/r");
    }
}
