//! Selectors: the refs that a watch follows, and the refs that a Git host is therefore asked for. Pure.
//!
//! - A name without `refs/` means a branch: `main` is `refs/heads/main`.
//! - Branches and patterns of branches and tags are kept by their short names, everything else by the full
//!   name, so that each set of refs is written in one way only: `refs/heads/main` and `main` are the same
//!   watch.
//! - A text that can never be the name of a ref is refused, by the rules of git-check-ref-format(1).

use globset::{GlobBuilder, GlobMatcher};
use tidings_entity::kind::SelectorKind;

use crate::ports::Selector;

/// Prefix of the full names of branches.
pub const BRANCHES: &str = "refs/heads/";
/// Prefix of the full names of tags.
pub const TAGS: &str = "refs/tags/";
/// Prefix of the full names of all refs.
const REFS: &str = "refs/";
/// The characters that make a name a pattern; the name of a ref cannot contain them.
const PATTERN: [char; 3] = ['*', '?', '['];
/// Prefixes under which Git hosts number refs and hardly ever remove one: GitHub's and Gitea's pull requests,
/// GitLab's merge requests.
const NUMBERED: [&str; 2] = ["refs/pull/", "refs/merge-requests/"];

impl Selector {
    /// The selector of the default branch, which HEAD names.
    #[must_use]
    pub fn default_branch() -> Self {
        Self { kind: SelectorKind::DefaultBranch, value: String::new() }
    }

    /// The selector of a name or pattern: of a branch, or of any refs where it begins with `refs/`.
    ///
    /// # Errors
    /// Why no ref can have that name, for people.
    pub fn named(text: &str) -> Result<Self, String> {
        let is_pattern = text.contains(PATTERN);
        let (kind, value) = match (text.strip_prefix(BRANCHES), text.strip_prefix(TAGS)) {
            (Some(short), _) if is_pattern => (SelectorKind::BranchPattern, short),
            (Some(short), _) => (SelectorKind::Branch, short),
            (_, Some(short)) if is_pattern => (SelectorKind::TagPattern, short),
            _ if text.starts_with(REFS) && is_pattern => (SelectorKind::RefPattern, text),
            _ if text.starts_with(REFS) => (SelectorKind::Ref, text),
            _ if is_pattern => (SelectorKind::BranchPattern, text),
            _ => (SelectorKind::Branch, text),
        };
        Self::checked(kind, value)
    }

    /// The selector of a pattern of tags, by short or full names.
    ///
    /// # Errors
    /// Why no tag can have such a name, for people.
    pub fn of_tags(text: &str) -> Result<Self, String> {
        Self::checked(SelectorKind::TagPattern, text.strip_prefix(TAGS).unwrap_or(text))
    }

    fn checked(kind: SelectorKind, value: &str) -> Result<Self, String> {
        let selector = Self { kind, value: value.to_owned() };
        if selector.is_pattern() && glob(value).is_err() {
            return Err("is not a pattern: a bracket or brace is not closed".to_owned());
        }
        let name = if selector.is_pattern() { example(value) } else { value.to_owned() };
        let is_branch = matches!(kind, SelectorKind::Branch | SelectorKind::BranchPattern);
        match name_fault(&name, is_branch) {
            Some(fault) => Err(format!("is not the name of a ref: {fault}")),
            None => Ok(selector),
        }
    }

    /// Whether it may follow several refs.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.space().is_some()
    }

    /// Whether this is a pattern over refs that a Git host numbers. If there are more refs than it may
    /// follow, the highest numbers are kept, whichever were followed before.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.kind == SelectorKind::RefPattern && NUMBERED.iter().any(|space| self.value.starts_with(space))
    }

    /// Whether this follows refs that are neither branches nor tags: hooks do not report those.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        matches!(self.kind, SelectorKind::Ref | SelectorKind::RefPattern)
            && ![BRANCHES, TAGS].iter().any(|space| self.value.starts_with(space))
    }

    /// The prefix of the full names of the refs that a pattern matches; `None` for a single ref.
    fn space(&self) -> Option<&'static str> {
        match self.kind {
            SelectorKind::BranchPattern => Some(BRANCHES),
            SelectorKind::TagPattern => Some(TAGS),
            SelectorKind::RefPattern => Some(""),
            SelectorKind::DefaultBranch | SelectorKind::Branch | SelectorKind::Ref => None,
        }
    }

    /// The ref to ask a host for: a full ref name, or a prefix that ends in `/`. `None` for the default
    /// branch: HEAD is always asked for.
    #[must_use]
    pub fn ref_pattern(&self) -> Option<String> {
        let Some(space) = self.space() else {
            return self.single_ref(None).filter(|name| !name.is_empty());
        };
        let literal = &self.value[..self.value.find(['*', '?', '[', '{', '\\']).unwrap_or(self.value.len())];
        if literal.len() == self.value.len() {
            return Some(format!("{space}{literal}"));
        }
        Some(format!("{space}{}", literal.rfind('/').map_or("", |slash| &literal[..=slash])))
    }

    /// The full name of the single ref that a selector follows; `head` is the ref that HEAD names. Empty
    /// while that is not known. `None` for a pattern.
    #[must_use]
    pub fn single_ref(&self, head: Option<&str>) -> Option<String> {
        match self.kind {
            SelectorKind::DefaultBranch => Some(head.unwrap_or_default().to_owned()),
            SelectorKind::Branch => Some(format!("{BRANCHES}{}", self.value)),
            SelectorKind::Ref => Some(self.value.clone()),
            SelectorKind::BranchPattern | SelectorKind::TagPattern | SelectorKind::RefPattern => None,
        }
    }

    /// A matcher for the refs that a pattern follows; `None` for a single ref, and for a glob that does not
    /// parse.
    #[must_use]
    pub fn matcher(&self) -> Option<RefMatcher> {
        let space = self.space()?;
        Some(RefMatcher { space, glob: glob(&self.value).ok()? })
    }
}

fn glob(text: &str) -> Result<GlobMatcher, globset::Error> {
    Ok(GlobBuilder::new(text).literal_separator(true).build()?.compile_matcher())
}

/// A compiled pattern selector.
#[derive(Clone, Debug)]
pub struct RefMatcher {
    space: &'static str,
    glob: GlobMatcher,
}

impl RefMatcher {
    /// Whether the pattern follows this full ref name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        name.strip_prefix(self.space).is_some_and(|short| self.glob.is_match(short))
    }
}

/// A name with the literal text of a glob that parses: an `x` stands for each wildcard, class, alternation
/// and escape.
fn example(pattern: &str) -> String {
    let mut name = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        let mut skip_to = |end: char| {
            let mut depth = 1;
            while depth > 0 {
                match characters.next() {
                    Some(inner) if inner == end => depth -= 1,
                    Some('{') if end == '}' => depth += 1,
                    Some(_) => {}
                    None => return,
                }
            }
        };
        match character {
            '[' => skip_to(']'),
            '{' => skip_to('}'),
            '\\' => drop(characters.next()),
            '*' | '?' => {}
            literal => {
                name.push(literal);
                continue;
            }
        }
        name.push('x');
    }
    name
}

/// Whether a ref can have this full name, by all rules of git-check-ref-format(1).
#[must_use]
pub fn is_ref_name(name: &str) -> bool {
    name.starts_with(REFS) && name_fault(name, false).is_none()
}

/// Which rule of git-check-ref-format(1) a name breaks: the full name of a ref, or a short name of a branch
/// or tag.
fn name_fault(name: &str, is_branch: bool) -> Option<String> {
    let forbidden = |c: &char| c.is_control() || " ~^:?*[\\".contains(*c);
    if name.is_empty() {
        return Some("it is empty".to_owned());
    }
    if let Some(found) = name.chars().find(forbidden) {
        return Some(format!("it must not contain {found:?}"));
    }
    for text in ["..", "@{", "//"] {
        if name.contains(text) {
            return Some(format!("it must not contain `{text}`"));
        }
    }
    let fault = match () {
        () if is_branch && name.starts_with('-') => "a branch must not begin with `-`",
        () if name.starts_with('/') || name.ends_with('/') => "it must not begin or end with `/`",
        () if name.ends_with('.') => "it must not end with `.`",
        () if name == "@" => "it must not be `@`",
        () if name.split('/').any(|part| part.starts_with('.')) => "no part of it may begin with `.`",
        () if name.split('/').any(|part| part.ends_with(".lock")) => "no part of it may end with `.lock`",
        () => return None,
    };
    Some(fault.to_owned())
}

#[cfg(test)]
mod tests;
