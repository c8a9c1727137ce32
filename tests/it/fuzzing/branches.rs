//! A repository whose branches are known file by file: what is committed, turned back, forced, removed.

use std::collections::BTreeMap;

use tempfile::TempDir;
use tidings_entity::id::ObjectId;

use crate::support::{
    dice::Dice,
    project::{FileFacts, Tree, sha256},
    repository::{File, Repository},
};

/// The paths that change.
pub(super) const PATHS: [&str; 6] = ["a1", "a2", "d/x", "d/y", "e", "n"];
/// What a path may be: mode and content. Few, so that paths are often what they were before.
const ENTRIES: [Entry; 5] = [
    None,
    Some(("100644", "one")),
    Some(("100644", "two")),
    Some(("100755", "two")),
    Some(("120000", "one")),
];
/// Files of every branch that change seldom.
const STABLE: usize = 6;

type Entry = Option<(&'static str, &'static str)>;
type Files = BTreeMap<String, (&'static str, &'static str)>;

/// A branch of the repository under test.
#[derive(Default)]
struct Branch {
    /// Its commits with their files, oldest first.
    commits: Vec<(ObjectId, Files)>,
    /// What each path was before it was changed last.
    before: BTreeMap<&'static str, Entry>,
}

/// The repository under test with its branches.
pub(super) struct Branches {
    repository: Repository,
    branches: BTreeMap<String, Branch>,
    /// Every commit that ever was the head of `main`.
    pub(super) heads: Vec<ObjectId>,
    _folder: TempDir,
}

impl Branches {
    /// With `main` and `release/1`.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let repository = Repository::create(&folder.path().join("repository.git"));
        let mut branches = Self { repository, branches: BTreeMap::new(), heads: Vec::new(), _folder: folder };
        for name in ["main", "release/1"] {
            let mut files = stable();
            files.insert("a1".to_owned(), ("100644", "one"));
            branches.branches.insert(name.to_owned(), Branch::default());
            branches.record(name, files, true);
        }
        branches
    }

    /// The `file://` address of the repository.
    pub(super) fn url(&self) -> String {
        format!("file://{}", self.repository.path().display())
    }

    /// Whether a branch is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.branches.contains_key(name)
    }

    /// The head of a branch that is there.
    pub(super) fn head(&self, name: &str) -> String {
        self.branches[name].commits.last().expect("a commit").0.to_string()
    }

    /// The files of a branch that a filter admits; none where it is gone.
    pub(super) fn tree(&self, name: &str, admits: impl Fn(&str) -> bool) -> Tree {
        let files = self.branches.get(name).and_then(|branch| branch.commits.last()).map(|(_, files)| files);
        let admitted = files.into_iter().flatten().filter(|(path, _)| admits(path));
        let facts =
            |mode: &str, content: &str| FileFacts { mode: mode.to_owned(), sha: sha256(content.as_bytes()) };
        admitted.map(|(path, (mode, content))| (path.clone().into_bytes(), facts(mode, content))).collect()
    }

    /// Changes some paths of a branch; what was changed, for the log.
    pub(super) fn commit(&mut self, name: &str, dice: &mut Dice) -> String {
        let branch = self.branches.get_mut(name).expect("it is there");
        let mut files = branch.commits.last().expect("a commit").1.clone();
        for _ in 0..=dice.below(4) {
            let path = *dice.pick(&PATHS).expect("some");
            let entry = match branch.before.get(path) {
                // Turned back: what a letter says of the path shows now.
                Some(before) if dice.one_in(2) => *before,
                _ => *dice.pick(&ENTRIES).expect("some"),
            };
            let before = match entry {
                Some(entry) => files.insert(path.to_owned(), entry),
                None => files.remove(path),
            };
            branch.before.insert(path, before);
        }
        self.record(name, files, false)
    }

    /// Moves a branch to an earlier commit, or to a history of its own.
    pub(super) fn force(&mut self, name: &str, dice: &mut Dice) -> String {
        let commits = &mut self.branches.get_mut(name).expect("it is there").commits;
        let at = usize::try_from(dice.below(commits.len() as u64)).expect("few");
        let files = commits[at].1.clone();
        if dice.one_in(3) {
            commits.clear();
            return format!("unrelated: {}", self.record(name, files, true));
        }
        commits.truncate(at + 1);
        let commit = commits[at].0;
        self.point(name, commit);
        format!("back to {commit}")
    }

    /// Makes a branch from `main`, or removes it.
    pub(super) fn turn(&mut self, name: &str) -> String {
        if self.branches.remove(name).is_some() {
            self.repository.git(["update-ref", "-d", &format!("refs/heads/{name}")]);
            return "removed".to_owned();
        }
        let (commit, files) = self.branches["main"].commits.last().expect("a commit").clone();
        let branch = Branch { commits: vec![(commit, files)], ..Branch::default() };
        self.branches.insert(name.to_owned(), branch);
        self.point(name, commit);
        format!("made at {commit}")
    }

    /// Every branch loses all of its files.
    pub(super) fn clear(&mut self) {
        for name in self.branches.keys().cloned().collect::<Vec<_>>() {
            self.record(&name, Files::new(), false);
        }
    }

    fn point(&self, name: &str, commit: ObjectId) {
        self.repository.git(["update-ref", &format!("refs/heads/{name}"), &commit.to_string()]);
    }

    /// Commits these files onto a branch, or as the beginning of a history.
    fn record(&mut self, name: &str, files: Files, is_root: bool) -> String {
        let branch = self.branches.get_mut(name).expect("it is there");
        let nothing = Files::new();
        let before = branch.commits.last().map_or(&nothing, |(_, files)| files);
        let gone = before.keys().filter(|path| !files.contains_key(*path));
        let mut changes: Vec<File<'_>> = gone.map(|path| (path.as_str(), None)).collect();
        changes.extend(
            files.iter().map(|(path, (mode, content))| (path.as_str(), Some((*mode, content.as_bytes())))),
        );
        let parent = format!("refs/heads/{name}");
        let parents: &[&str] = if is_root { &[] } else { &[&parent] };
        let commit = self.repository.commit_on(name, parents, &changes);
        if name == "main" {
            self.heads.push(commit);
        }
        let shown: Vec<String> = files
            .iter()
            .filter(|(path, _)| !path.starts_with("stable"))
            .map(|(path, (mode, content))| format!("{path}={mode}:{content}"))
            .collect();
        branch.commits.push((commit, files));
        format!("{commit} {}", shown.join(" "))
    }
}

fn stable() -> Files {
    (0..STABLE).map(|number| (format!("stable/{number}"), ("100644", "stable"))).collect()
}
