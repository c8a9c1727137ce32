//! A history that follows from a seed: a bare repository whose branches are edited, merged, turned back, forced,
//! deleted and made again, one change a step.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    rc::Rc,
};

use tidings_entity::id::ObjectId;

use super::{
    edits,
    objects::{Files, Objects},
};
use crate::support::{dice::Dice, repository::Repository};

/// Branches that a pattern follows, whether they are there or not.
pub(super) const RELEASES: [&str; 3] = ["release/1", "release/2", "release/3"];
/// Files of the first commit.
const FIRST: u64 = 30;
/// Most commits that one push brings.
const PUSHED: u64 = 5;

/// A commit that was made.
struct Made {
    files: Rc<Files>,
    parents: Vec<ObjectId>,
}

/// The repository and all that ever was in it.
pub(super) struct History {
    pub(super) repository: Repository,
    dice: Dice,
    objects: Objects,
    heads: BTreeMap<&'static str, ObjectId>,
    made: HashMap<ObjectId, Made>,
    /// Every commit in its order: a branch may be turned back to any.
    all: Vec<ObjectId>,
}

impl History {
    /// With `main` and `release/1`.
    pub(super) fn begin(path: &Path, seed: u64) -> Self {
        let repository = Repository::create(path);
        repository.config("gc.auto", "0");
        repository.config("core.logAllRefUpdates", "false");
        let objects = Objects::of(path);
        let (dice, heads) = (Dice::of(seed), BTreeMap::new());
        let mut history = Self { repository, dice, objects, heads, made: HashMap::new(), all: Vec::new() };
        for name in ["main", "release/1"] {
            let mut files = Files::new();
            for _ in 0..FIRST {
                edits::create(&mut files, &mut history.objects, &mut history.dice);
            }
            let first = history.commit(files, Vec::new());
            history.point(name, Some(first));
        }
        history
    }

    /// What a branch names.
    pub(super) fn head(&self, branch: &str) -> Option<ObjectId> {
        self.heads.get(branch).copied()
    }

    /// Makes one change and pushes it; returns what it was.
    pub(super) fn step(&mut self) -> String {
        let branch = if self.dice.below(10) < 6 { "main" } else { *self.dice.pick(&RELEASES).expect("some") };
        let Some(head) = self.head(branch) else {
            let from = if self.dice.one_in(2) { self.heads["main"] } else { self.any() };
            let head = if self.dice.one_in(4) { self.orphan() } else { from };
            self.point(branch, Some(head));
            return format!("{branch} is made at {head}");
        };
        let (what, new) = match self.dice.below(30) {
            0..=10 => ("edits", self.edited(head)),
            11 => ("empty commits", self.empty(head)),
            12..=14 => ("a merge", self.merge(head)),
            15..=16 => ("a foxtrot", self.foxtrot(head)),
            17 => ("an orphan", self.orphan()),
            18..=20 => ("a force push to another commit", self.any()),
            21 => ("back by a commit", self.parent(head)),
            22..=23 => ("an amend", self.amend(head)),
            24 => ("an empty tree", self.commit(Files::new(), vec![head])),
            25..=26 => ("a revert", self.revert(head)),
            27 => ("a storm", self.storm(head)),
            _ if branch == "main" => ("edits", self.edited(head)),
            _ => {
                self.point(branch, None);
                return format!("{branch} is deleted");
            }
        };
        self.point(branch, Some(new));
        format!("{branch}: {what}: {head} to {new}")
    }

    /// `main` is deleted. No step may be made before it is back.
    pub(super) fn lose_main(&mut self) {
        self.point("main", None);
    }

    /// `main` is there again, at any commit.
    pub(super) fn bring_main_back(&mut self) {
        let commit = self.any();
        self.point("main", Some(commit));
    }

    fn any(&mut self) -> ObjectId {
        *self.dice.pick(&self.all).expect("some")
    }

    fn parent(&mut self, head: ObjectId) -> ObjectId {
        self.made[&head].parents.first().copied().unwrap_or(head)
    }

    fn files(&self, commit: ObjectId) -> Files {
        Files::clone(&self.made[&commit].files)
    }

    fn commit(&mut self, files: Files, parents: Vec<ObjectId>) -> ObjectId {
        let tree = self.objects.tree(&files);
        let commit = self.objects.commit(tree, &parents, self.all.len() as u64);
        self.made.insert(commit, Made { files: Rc::new(files), parents });
        self.all.push(commit);
        commit
    }

    /// One to some commits of some edits each.
    fn edited(&mut self, head: ObjectId) -> ObjectId {
        let mut last = head;
        for _ in 0..=self.dice.below(PUSHED) {
            let mut files = self.files(last);
            for _ in 0..=self.dice.below(6) {
                edits::edit(&mut files, &mut self.objects, &mut self.dice);
            }
            last = self.commit(files, vec![last]);
        }
        last
    }

    fn empty(&mut self, head: ObjectId) -> ObjectId {
        let mut last = head;
        for _ in 0..=self.dice.below(2) {
            last = self.commit(self.files(last), vec![last]);
        }
        // What changes nothing may stand before what changes something.
        if self.dice.one_in(2) { self.edited(last) } else { last }
    }

    /// A history that began anywhere.
    fn side(&mut self) -> ObjectId {
        let from = self.any();
        if self.dice.one_in(6) { self.orphan() } else { self.edited(from) }
    }

    /// Two to five parents; the later parent wins where paths collide.
    fn merge(&mut self, head: ObjectId) -> ObjectId {
        let (mut parents, mut files) = (vec![head], self.files(head));
        for _ in 0..=self.dice.below(4) {
            let side = self.side();
            parents.push(side);
            for (path, entry) in self.files(side) {
                if self.dice.one_in(3) {
                    edits::put(&mut files, path, entry);
                }
            }
        }
        self.commit(files, parents)
    }

    /// A merge the wrong way round: what was the head is the second parent.
    fn foxtrot(&mut self, head: ObjectId) -> ObjectId {
        let side = self.side();
        let mut files = self.files(head);
        edits::edit(&mut files, &mut self.objects, &mut self.dice);
        self.commit(files, vec![side, head])
    }

    fn orphan(&mut self) -> ObjectId {
        let from = self.any();
        let mut files = if self.dice.one_in(2) { self.files(from) } else { Files::new() };
        for _ in 0..=self.dice.below(10) {
            edits::edit(&mut files, &mut self.objects, &mut self.dice);
        }
        self.commit(files, Vec::new())
    }

    fn amend(&mut self, head: ObjectId) -> ObjectId {
        let mut files = self.files(head);
        edits::edit(&mut files, &mut self.objects, &mut self.dice);
        let parents = self.made[&head].parents.clone();
        self.commit(files, parents)
    }

    /// The files of an earlier commit, again.
    fn revert(&mut self, head: ObjectId) -> ObjectId {
        let before = if self.dice.one_in(2) { self.parent(head) } else { self.any() };
        self.commit(self.files(before), vec![head])
    }

    /// More changes than may be under way at once.
    fn storm(&mut self, head: ObjectId) -> ObjectId {
        let mut files = self.files(head);
        for _ in 0..80 {
            edits::edit(&mut files, &mut self.objects, &mut self.dice);
        }
        self.commit(files, vec![head])
    }

    /// Lets a branch name a commit, or go.
    fn point(&mut self, branch: &'static str, commit: Option<ObjectId>) {
        let name = format!("refs/heads/{branch}");
        let order = match commit {
            Some(commit) => format!("update {name} {commit}\n"),
            None => format!("delete {name}\n"),
        };
        self.repository.git_with(["update-ref", "--stdin"], order.as_bytes());
        match commit {
            Some(commit) => self.heads.insert(branch, commit),
            None => self.heads.remove(branch),
        };
    }
}
