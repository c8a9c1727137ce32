//! Web links, copied from the address line of a browser. A page of one branch means the repository with that
//! branch; any other page is refused, because guessing would watch something unintended.

use super::InvalidAddress;
use crate::address::forge::Forge;

/// The parts of a web link's path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link<'a> {
    /// The repository: its owner and name.
    pub(super) repository: &'a [&'a str],
    /// The branch, its components still encoded.
    pub(super) branch: Option<&'a [&'a str]>,
}

/// Parses the components of a path.
///
/// # Errors
/// [`InvalidAddress::WebPage`], and [`InvalidAddress::NoRepository`] if the host's product needs more
/// components for a repository.
pub(super) fn read<'a>(forge: Forge, components: &'a [&'a str]) -> Result<Link<'a>, InvalidAddress> {
    let link = taken_apart(forge, components)?;
    if forge != Forge::Other && link.repository.len() < 2 {
        return Err(InvalidAddress::NoRepository);
    }
    Ok(link)
}

fn taken_apart<'a>(forge: Forge, components: &'a [&'a str]) -> Result<Link<'a>, InvalidAddress> {
    let whole = Link { repository: components, branch: None };
    // No page of a host ends in `.git`, and every host serves it as a repository.
    if components.last().is_some_and(|last| last.len() > 4 && last.ends_with(".git")) {
        return Ok(whole);
    }
    // GitLab keeps this name from groups and projects, on every host.
    if let Some(at) = components.iter().position(|component| *component == "-").filter(|at| *at > 0) {
        return page(components, at, &["-", "tree"]);
    }
    let third = components.get(2).copied();
    match (forge, third) {
        (Forge::GitLab, _) => match components.iter().skip(2).position(|component| *component == "tree") {
            Some(after) => page(components, after + 2, &["tree"]),
            None => Ok(whole),
        },
        (_, None) => Ok(whole),
        (Forge::GitHub | Forge::Other, Some("tree")) => page(components, 2, &["tree"]),
        (Forge::Bitbucket, Some("src")) => page(components, 2, &["src"]),
        (Forge::Gitea | Forge::Other, Some("src")) if forge == Forge::Gitea || is_branch(components) => {
            page(components, 2, &["src", "branch"])
        }
        (Forge::Other, Some(_)) => Ok(whole),
        (Forge::GitHub | Forge::Bitbucket | Forge::Gitea, Some(_)) => Err(InvalidAddress::WebPage),
    }
}

fn is_branch(components: &[&str]) -> bool {
    components.get(3) == Some(&"branch")
}

/// Finds a page that begins at a component with these words, followed by the branch.
fn page<'a>(components: &'a [&'a str], at: usize, words: &[&'a str]) -> Result<Link<'a>, InvalidAddress> {
    let (repository, rest) = components.split_at(at);
    match rest.strip_prefix(words) {
        Some(branch) if !branch.is_empty() && !is_commit(branch) => {
            Ok(Link { repository, branch: Some(branch) })
        }
        _ => Err(InvalidAddress::WebPage),
    }
}

/// Whether the page shows one commit, which never changes.
fn is_commit(branch: &[&str]) -> bool {
    branch[0].len() == 40 && branch[0].bytes().all(|byte| byte.is_ascii_hexdigit())
}
