//! Web links: what people copy from the address line of a browser. A page of one branch means the
//! repository with that branch; a page of anything else is refused, because guessing would watch
//! something that nobody asked for.

use super::InvalidAddress;
use crate::address::forge::Forge;

/// What the components of a path name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link<'a> {
    /// The repository: its owner and name.
    pub(super) repository: &'a [&'a str],
    /// The branch, its components still encoded.
    pub(super) branch: Option<&'a [&'a str]>,
}

/// Takes the components of a path apart.
///
/// # Errors
/// [`InvalidAddress::WebPage`], and [`InvalidAddress::NoRepository`] where the host's family says
/// that so few components name none.
pub(super) fn read<'a>(forge: Forge, components: &'a [&'a str]) -> Result<Link<'a>, InvalidAddress> {
    let link = taken_apart(forge, components)?;
    if forge != Forge::Other && link.repository.len() < 2 {
        return Err(InvalidAddress::NoRepository);
    }
    Ok(link)
}

fn taken_apart<'a>(forge: Forge, components: &'a [&'a str]) -> Result<Link<'a>, InvalidAddress> {
    let whole = Link { repository: components, branch: None };
    // Nobody's pages end like that, and every host takes it for a repository.
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

/// The page that begins at a component with these words, which the branch follows.
fn page<'a>(components: &'a [&'a str], at: usize, words: &[&'a str]) -> Result<Link<'a>, InvalidAddress> {
    let (repository, rest) = components.split_at(at);
    match rest.strip_prefix(words) {
        Some(branch) if !branch.is_empty() && !is_commit(branch) => {
            Ok(Link { repository, branch: Some(branch) })
        }
        _ => Err(InvalidAddress::WebPage),
    }
}

/// The page of one commit, which never changes.
fn is_commit(branch: &[&str]) -> bool {
    branch[0].len() == 40 && branch[0].bytes().all(|byte| byte.is_ascii_hexdigit())
}
