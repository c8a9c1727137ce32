//! A view: the part of a tree that an app sees, and how much of each file is sent. Views are immutable and
//! named by the SHA-256 of their canonical text, so equal views are one row.
//!
//! Globs match the whole path, byte for byte: `*` and `?` stay inside one directory, `**` crosses
//! directories, `[a-z]` and `{a,b}` work, a pattern that ends in `/` means everything below it. A path is
//! admitted when an include matches (or there is none) and no exclude does.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidings_entity::{
    id::{Sha256Hash, ViewId},
    kind::ContentRule,
};

/// Longest admitted glob, in bytes.
pub const GLOB_BYTES_MAX: usize = 1024;
/// Most globs a view may have, includes and excludes together.
pub const GLOBS_MAX: usize = 256;
/// Bytes of all globs of a new view together: enough for some hundred ordinary ones. Views that were stored
/// before this limit existed may have more.
pub const VIEW_BYTES_MAX: usize = 8_192;
/// Content above this many bytes is omitted unless the view says otherwise (64 MiB).
pub const MAX_SIZE_DEFAULT: u64 = 64 << 20;
/// No view may ask for more than this many bytes of one file (256 MiB).
pub const MAX_SIZE_CEILING: u64 = 256 << 20;

/// A view that cannot be.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum InvalidView {
    /// A glob that does not parse.
    #[error("the glob {glob:?} is not valid: {reason}")]
    Glob {
        /// The pattern as given.
        glob: String,
        /// The error of the glob parser.
        reason: String,
    },
    /// A glob that matches no path of any repository.
    #[error("the glob {glob:?} matches no path: {mend}")]
    NeverMatches {
        /// The pattern as given.
        glob: String,
        /// The spelling that works.
        mend: String,
    },
    /// A glob that is empty or too long.
    #[error("a glob has 1 to {GLOB_BYTES_MAX} bytes")]
    GlobLength,
    /// More globs than [`GLOBS_MAX`].
    #[error("a view has at most {GLOBS_MAX} globs")]
    TooManyGlobs,
    /// Globs that are too long together.
    #[error("the globs of a view have at most {VIEW_BYTES_MAX} bytes together")]
    ViewLength,
    /// A maximum size outside its bounds.
    #[error("the maximum size of a file lies between 0 and {MAX_SIZE_CEILING} bytes")]
    MaxSize,
}

/// The paths that an app sees, and how much of each file. The globs are sorted and free of repeats;
/// [`View::new`] ensures that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    include: Vec<String>,
    exclude: Vec<String>,
    symlinks: bool,
    content: ContentRule,
    max_size: u64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            symlinks: false,
            content: ContentRule::Inline,
            max_size: MAX_SIZE_DEFAULT,
        }
    }
}

impl View {
    /// Checks and orders the parts of a view.
    ///
    /// # Errors
    /// [`InvalidView`] names the first part that is wrong.
    pub fn new(
        mut include: Vec<String>,
        mut exclude: Vec<String>,
        symlinks: bool,
        content: ContentRule,
        max_size: u64,
    ) -> Result<Self, InvalidView> {
        if include.len() + exclude.len() > GLOBS_MAX {
            return Err(InvalidView::TooManyGlobs);
        }
        if max_size > MAX_SIZE_CEILING {
            return Err(InvalidView::MaxSize);
        }
        for globs in [&mut include, &mut exclude] {
            globs.sort_unstable();
            globs.dedup();
        }
        let view = Self { include, exclude, symlinks, content, max_size };
        view.filter()?;
        Ok(view)
    }

    /// Checks the length of new globs, before they are compiled, because compiling takes microseconds a byte.
    ///
    /// # Errors
    /// [`InvalidView::GlobLength`] and [`InvalidView::ViewLength`].
    pub fn check_length<'g>(globs: impl IntoIterator<Item = &'g String>) -> Result<(), InvalidView> {
        let mut bytes = 0;
        for glob in globs {
            if glob.is_empty() || glob.len() > GLOB_BYTES_MAX {
                return Err(InvalidView::GlobLength);
            }
            bytes += glob.len();
        }
        if bytes > VIEW_BYTES_MAX { Err(InvalidView::ViewLength) } else { Ok(()) }
    }

    /// Checks that a glob is spelt so that it can match: paths begin at the root of the repository, without a
    /// slash. An exclude that matches nothing would let files through that it should exclude.
    ///
    /// # Errors
    /// [`InvalidView::NeverMatches`], with the spelling that works.
    pub fn check_spelling(glob: &str) -> Result<(), InvalidView> {
        let plain = glob.trim_start_matches("./").trim_start_matches('/');
        let mend = if let Some(rest) = glob.strip_prefix('!') {
            format!("put {rest:?} among the excludes")
        } else if glob != glob.trim() {
            format!("write {:?}; a space at the end of a name is `[ ]`", glob.trim())
        } else if plain != glob && !plain.is_empty() {
            let said = format!("paths begin at the root of the repository; write {plain:?}");
            // The name alone matches a file; who means a folder would lose what lies in it.
            match plain.ends_with('/') || plain.contains(['*', '?', '[', '{']) {
                true => said,
                false => format!("{said}, or {:?} for a folder and all below it", format!("{plain}/")),
            }
        } else if glob.contains("//") {
            let mut single = glob.to_owned();
            while single.contains("//") {
                single = single.replace("//", "/");
            }
            format!("write {single:?}")
        } else if let Some(part) =
            glob.split(['/', '{', ',', '}']).find(|part| part.len() > 2 && part.contains("**"))
        {
            let mend = match (part.strip_prefix("**"), part.strip_suffix("**")) {
                (Some(rest), None) => format!("`**/*{rest}`"),
                (None, Some(rest)) => format!("`{rest}/**` or `{rest}*`"),
                _ => "`**` or `*`".to_owned(),
            };
            format!(
                "`**` stands for whole directories and is alone between slashes; write {mend} for `{part}`"
            )
        } else if glob.contains("[[:") {
            "classes of letters have no names here; write the letters, as in `[a-z]`".to_owned()
        } else if ["{,", ",,", ",}", "{}"].iter().any(|empty| glob.contains(empty)) {
            "an alternative between braces is empty; write two globs".to_owned()
        } else if glob.split('/').any(|component| matches!(component, "." | "..")) || plain.is_empty() {
            "paths have no `.` and `..`, and begin at the root of the repository".to_owned()
        } else {
            return Ok(());
        };
        Err(InvalidView::NeverMatches { glob: glob.to_owned(), mend })
    }

    /// The canonical text, whose SHA-256 names this view: its fields as JSON, in their order here.
    #[must_use]
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("a view is plain data")
    }

    /// The id of this view.
    #[must_use]
    pub fn id(&self) -> ViewId {
        Sha256Hash::of(self.canonical().as_bytes())
    }

    /// The part of a file that a body carries.
    #[must_use]
    pub fn content(&self) -> ContentRule {
        self.content
    }

    /// Above this many bytes the content of a file is omitted.
    #[must_use]
    pub fn max_size(&self) -> u64 {
        self.max_size
    }

    /// The globs of which one must match.
    #[must_use]
    pub fn include(&self) -> &[String] {
        &self.include
    }

    /// The globs of which none may match.
    #[must_use]
    pub fn exclude(&self) -> &[String] {
        &self.exclude
    }

    /// Whether symbolic links are sent (their target text, mode 120000).
    #[must_use]
    pub fn symlinks(&self) -> bool {
        self.symlinks
    }

    /// Whether it shows only some paths, or no content: then most contents of a repository need not
    /// be fetched.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.content == ContentRule::None || !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// Compiles the globs.
    ///
    /// # Errors
    /// [`InvalidView`] for a glob that does not parse; cannot happen to a view made by
    /// [`View::new`].
    pub fn filter(&self) -> Result<ViewFilter, InvalidView> {
        Ok(ViewFilter {
            include: if self.include.is_empty() { None } else { Some(compile(&self.include)?) },
            prefixes: self.include.iter().map(|glob| literal_prefix(glob)).collect(),
            exclude: compile(&self.exclude)?,
            pruned: self.exclude.iter().filter_map(|glob| whole_directory(glob)).collect(),
            symlinks: self.symlinks,
        })
    }
}

/// A compiled view: answers whether a path belongs to the view and whether a directory can hold such a path.
#[derive(Clone, Debug)]
pub struct ViewFilter {
    include: Option<GlobSet>,
    prefixes: Vec<Vec<u8>>,
    exclude: GlobSet,
    pruned: Vec<Vec<u8>>,
    symlinks: bool,
}

impl ViewFilter {
    /// Whether the file at `path` with Git mode `mode` belongs to the view. Submodules never do.
    #[must_use]
    pub fn admits(&self, path: &[u8], mode: u32) -> bool {
        let kind = match mode & 0o170_000 {
            0o100_000 => true,
            0o120_000 => self.symlinks,
            _ => false,
        };
        let path = Path::new(OsStr::from_bytes(path));
        kind && self.include.as_ref().is_none_or(|globs| globs.is_match(path)) && !self.exclude.is_match(path)
    }

    /// Whether some path below `directory` (no trailing slash; empty for the root) may belong to
    /// the view. Never false for a directory that holds an admitted path.
    #[must_use]
    pub fn may_descend(&self, directory: &[u8]) -> bool {
        if directory.is_empty() {
            return true;
        }
        let mut below = directory.to_vec();
        below.push(b'/');
        let included = self.include.is_none()
            || self.prefixes.iter().any(|prefix| prefix.starts_with(&below) || below.starts_with(prefix));
        included && !self.pruned.iter().any(|pruned| below.starts_with(pruned))
    }
}

fn compile(globs: &[String]) -> Result<GlobSet, InvalidView> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        if glob.is_empty() || glob.len() > GLOB_BYTES_MAX {
            return Err(InvalidView::GlobLength);
        }
        let pattern = if glob.ends_with('/') { format!("{glob}**") } else { glob.clone() };
        let compiled =
            GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build().map_err(
                |error| InvalidView::Glob { glob: glob.clone(), reason: error.kind().to_string() },
            )?;
        set.add(compiled);
    }
    set.build().map_err(|error| InvalidView::Glob {
        glob: error.glob().unwrap_or_default().to_owned(),
        reason: error.kind().to_string(),
    })
}

/// The part of a glob before its first special character.
pub(crate) fn literal_prefix(glob: &str) -> Vec<u8> {
    let end = glob.find(['*', '?', '[', '{', '\\']).unwrap_or(glob.len());
    glob.as_bytes()[..end].to_vec()
}

/// The directory, with its slash, that an exclude glob covers completely: `docs/` and `docs/**`.
fn whole_directory(glob: &str) -> Option<Vec<u8>> {
    let directory = glob.strip_suffix("**").unwrap_or(glob);
    let whole = directory.ends_with('/') && !directory.contains(['*', '?', '[', '{', '\\']);
    whole.then(|| directory.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u32 = 0o100_644;

    fn view(include: &[&str], exclude: &[&str]) -> View {
        let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        View::new(own(include), own(exclude), false, ContentRule::Inline, MAX_SIZE_DEFAULT).expect("valid")
    }

    #[test]
    fn globs_match_whole_paths_and_stars_stay_in_their_directory() {
        let filter = view(&["docs/**", "*.md"], &["docs/private/"]).filter().expect("valid");
        for (path, admitted) in [
            ("docs/a.txt", true),
            ("docs/deep/er/a.txt", true),
            ("README.md", true),
            ("src/README.md", false),
            ("docs/private/key", false),
            ("docs/privately", true),
            ("docsx/a", false),
        ] {
            assert_eq!(filter.admits(path.as_bytes(), FILE), admitted, "{path}");
        }
    }

    #[test]
    fn a_directory_that_may_hold_an_admitted_path_is_entered() {
        let filter = view(&["docs/api/**", "**/x.md"], &["docs/api/old/**"]).filter().expect("valid");
        for (directory, entered) in
            [("docs", true), ("docs/api", true), ("docs/api/old", false), ("src", true)]
        {
            assert_eq!(filter.may_descend(directory.as_bytes()), entered, "{directory}");
        }
        let narrow = view(&["docs/api/**"], &[]).filter().expect("valid");
        assert!(!narrow.may_descend(b"src"));
        assert!(!narrow.may_descend(b"docs/apis"));
    }

    #[test]
    fn kinds_of_entries_that_are_no_files_are_not_seen() {
        let filter = View::default().filter().expect("valid");
        assert!(filter.admits(b"a", 0o100_755) && filter.admits(b"a", 0o100_664));
        assert!(!filter.admits(b"a", 0o120_000) && !filter.admits(b"a", 0o160_000));
        assert!(filter.admits(b"\xff\xfe", FILE), "paths are bytes");
    }

    #[test]
    fn order_and_repeats_of_globs_do_not_change_the_view() {
        assert_eq!(view(&["b", "a", "b"], &[]).id(), view(&["a", "b"], &[]).id());
        assert_ne!(view(&["a"], &[]).id(), view(&[], &["a"]).id());
    }

    #[test]
    fn a_view_is_narrow_when_it_leaves_out_paths_or_all_content() {
        let no_content = View::new(vec![], vec![], false, ContentRule::None, MAX_SIZE_DEFAULT);
        let small = View::new(vec![], vec![], true, ContentRule::Inline, 1).expect("valid");
        assert!(view(&["docs/**"], &[]).is_narrow() && view(&[], &["*.png"]).is_narrow());
        assert!(no_content.expect("valid").is_narrow());
        assert!(!View::default().is_narrow() && !small.is_narrow());
    }

    #[test]
    fn a_glob_that_can_match_nothing_is_refused_with_the_spelling_that_works() {
        for (glob, mend) in [
            ("/secret/**", "\"secret/**\""),
            ("./docs/**", "\"docs/**\""),
            ("/docs", "write \"docs\", or \"docs/\" for a folder"),
            ("!x", "excludes"),
            ("docs//a", "\"docs/a\""),
            (" docs/**", "\"docs/**\""),
            ("a/../b", "`..`"),
            ("/", "root"),
            ("secret**", "`secret/**`"),
            ("**.md", "`**/*.md`"),
            ("[[:alpha:]].txt", "`[a-z]`"),
            ("{,docs/}*.md", "two globs"),
        ] {
            let fault = View::check_spelling(glob).expect_err(glob).to_string();
            assert!(fault.contains(mend), "{fault}");
            let view = view(&[glob], &[]).filter().expect("it parses");
            for path in ["secret/a", "docs/a", "x", "b", "a"] {
                assert!(!view.admits(path.as_bytes(), FILE), "{glob} matches {path}");
            }
        }
        for glob in ["**", "*.md", "docs/", "docs/**", "a b", "[!a]*", ".github/**", "..a", "a/.b/..c"] {
            View::check_spelling(glob).expect(glob);
        }
        View::check_spelling("{**/a,docs/**}").expect("`**` is alone");
        View::check_spelling("docs/***").expect_err("three stars are no `**`");
    }

    #[test]
    fn new_globs_have_a_length_and_stored_ones_that_are_longer_are_still_taken() {
        let globs =
            |count, bytes| -> Vec<String> { (0..count).map(|number| format!("{number:0bytes$}")).collect() };
        for (globs, expected) in [
            (globs(8, GLOB_BYTES_MAX), Ok(())),
            (globs(9, GLOB_BYTES_MAX), Err(InvalidView::ViewLength)),
            (globs(1, GLOB_BYTES_MAX + 1), Err(InvalidView::GlobLength)),
            (vec![String::new()], Err(InvalidView::GlobLength)),
            (Vec::new(), Ok(())),
        ] {
            assert_eq!(View::check_length(&globs), expected);
        }
        let stored = globs(16, GLOB_BYTES_MAX);
        let view =
            View::new(stored.clone(), vec![], true, ContentRule::Inline, 1).expect("it was taken once");
        assert!(view.filter().expect("valid").admits(stored[3].as_bytes(), FILE));
    }

    #[test]
    fn a_bad_glob_is_named() {
        let error = View::new(vec!["a[".into()], vec![], false, ContentRule::Inline, 0).expect_err("bad");
        assert!(error.to_string().contains("a["), "{error}");
    }
}
