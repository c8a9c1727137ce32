//! What git says is in the repository: commits, trees and contents as its own commands print them.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    rc::Rc,
};

use tidings_entity::id::ObjectId;

use super::objects::{DIRECTORY, Entry, Files};
use crate::support::{project::sha256, repository::git_command};

/// What git says of a commit.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) tree: ObjectId,
    pub(super) parents: Vec<ObjectId>,
    pub(super) subject: String,
}

/// Names and entries of a tree, directories among them.
type Listed = Rc<Vec<(Vec<u8>, Entry)>>;

/// What git says of a content.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) sha: String,
    pub(super) size: u64,
}

/// Reads a repository and remembers what it read: objects do not change.
pub(super) struct Truth {
    path: PathBuf,
    reader: Option<Reader>,
    commits: HashMap<ObjectId, Commit>,
    trees: HashMap<ObjectId, Listed>,
    files: HashMap<ObjectId, Rc<Files>>,
    blobs: HashMap<ObjectId, Blob>,
}

/// A `git cat-file --batch`.
struct Reader {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Reader {
    fn of(path: &Path) -> Self {
        let mut command = git_command(path);
        let command = command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("git starts");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { child, to, from: BufReader::new(from) }
    }

    fn object(&mut self, id: ObjectId) -> Vec<u8> {
        writeln!(self.to, "{id}").and_then(|()| self.to.flush()).expect("git listens");
        let mut head = String::new();
        self.from.read_line(&mut head).expect("git answers");
        let size = head.trim_end().rsplit(' ').next().and_then(|size| size.parse().ok());
        let size: usize = size.unwrap_or_else(|| panic!("{id} is not in the repository: {head}"));
        let mut content = vec![0; size + 1];
        self.from.read_exact(&mut content).expect("the content");
        content.truncate(size);
        content
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It waits for its input, which nobody writes any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Truth {
    /// That of the repository at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reader: None,
            commits: HashMap::new(),
            trees: HashMap::new(),
            files: HashMap::new(),
            blobs: HashMap::new(),
        }
    }

    /// The repository is about to be packed: what was opened of it is closed.
    pub(super) fn close(&mut self) {
        self.reader = None;
    }

    fn object(&mut self, id: ObjectId) -> Vec<u8> {
        self.reader.get_or_insert_with(|| Reader::of(&self.path)).object(id)
    }

    /// Reads a commit, from memory if it was read before.
    pub(super) fn commit(&mut self, id: ObjectId) -> Commit {
        if let Some(known) = self.commits.get(&id) {
            return known.clone();
        }
        let text = String::from_utf8(self.object(id)).expect("the commits of this story are text");
        let (head, message) = text.split_once("\n\n").expect("a head and a message");
        let named =
            |name: &'static str| head.lines().filter_map(move |line| line.strip_prefix(name)?.parse().ok());
        let commit = Commit {
            tree: named("tree ").next().expect("a tree"),
            parents: named("parent ").collect(),
            subject: message.lines().next().unwrap_or_default().to_owned(),
        };
        self.commits.insert(id, commit.clone());
        commit
    }

    /// The files of a commit, with the modes that are written in its trees; none of no commit.
    pub(super) fn files(&mut self, commit: Option<ObjectId>) -> Rc<Files> {
        let Some(commit) = commit else { return Rc::default() };
        let tree = self.commit(commit).tree;
        if let Some(known) = self.files.get(&tree) {
            return Rc::clone(known);
        }
        let mut files = Files::new();
        let mut open = vec![(Vec::new(), tree)];
        while let Some((above, tree)) = open.pop() {
            for (name, (mode, id)) in self.tree(tree).iter() {
                let path = [above.as_slice(), name].concat();
                if *mode == DIRECTORY {
                    open.push(([path.as_slice(), b"/"].concat(), *id));
                } else {
                    files.insert(path, (*mode, *id));
                }
            }
        }
        let files = Rc::new(files);
        self.files.insert(tree, Rc::clone(&files));
        files
    }

    fn tree(&mut self, id: ObjectId) -> Listed {
        if let Some(known) = self.trees.get(&id) {
            return Rc::clone(known);
        }
        let (raw, mut entries) = (self.object(id), Vec::new());
        let mut rest = raw.as_slice();
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').expect("a mode");
            let end = rest.iter().position(|byte| *byte == 0).expect("a name");
            let mode = std::str::from_utf8(&rest[..space]).expect("digits");
            let mode = u32::from_str_radix(mode, 8).expect("a mode");
            let (object, after) = rest[end + 1..].split_at(20);
            let object = ObjectId::new(object.try_into().expect("20 bytes"));
            entries.push((rest[space + 1..end].to_vec(), (mode, object)));
            rest = after;
        }
        let entries = Rc::new(entries);
        self.trees.insert(id, Rc::clone(&entries));
        entries
    }

    /// What is in a blob.
    pub(super) fn blob(&mut self, id: ObjectId) -> Blob {
        if let Some(known) = self.blobs.get(&id) {
            return known.clone();
        }
        let content = self.object(id);
        let blob = Blob { sha: sha256(&content), size: content.len() as u64 };
        self.blobs.insert(id, blob.clone());
        blob
    }

    /// The commits after `held` up to `head`, oldest first, each the first parent of the next; `None`: `held`
    /// is not among the first parents of `head`.
    pub(super) fn way(&mut self, held: ObjectId, head: ObjectId) -> Option<Vec<ObjectId>> {
        let (mut way, mut current) = (Vec::new(), head);
        while current != held {
            way.push(current);
            current = *self.commit(current).parents.first()?;
        }
        way.reverse();
        Some(way)
    }

    /// The differences of pairs of commits as `git diff-tree -r --raw` prints them, which shows modes as they
    /// would be written today: by path, the old and the new entry.
    pub(super) fn raw_differences(
        &mut self,
        pairs: &[(Option<ObjectId>, Option<ObjectId>)],
    ) -> Vec<Differences> {
        const NOTHING: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let mut orders = String::new();
        for (old, new) in pairs {
            let mut tree = |commit: &Option<ObjectId>| match commit {
                Some(commit) => self.commit(*commit).tree.to_string(),
                None => NOTHING.to_owned(),
            };
            orders.push_str(&format!("{} {}\n", tree(old), tree(new)));
        }
        let mut command = git_command(&self.path);
        command.args(["diff-tree", "--stdin", "-r", "--raw", "-z", "--no-renames", "--full-index"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("git diff-tree starts");
        let mut to = child.stdin.take().expect("piped");
        let writer = std::thread::spawn(move || to.write_all(orders.as_bytes()));
        let output = child.wait_with_output().expect("git ends");
        writer.join().expect("no panic").expect("git reads");
        assert!(output.status.success(), "git diff-tree: {}", output.status);
        let found = parse(&output.stdout);
        assert_eq!(found.len(), pairs.len(), "git diff-tree answers every pair");
        found
    }
}

/// The old and the new entry of each path that differs.
pub(super) type Differences = BTreeMap<Vec<u8>, (Option<Entry>, Option<Entry>)>;

/// Takes the output of `git diff-tree --stdin -z` apart: a line a pair, then its records.
fn parse(mut rest: &[u8]) -> Vec<Differences> {
    let mut found: Vec<Differences> = Vec::new();
    let take = |rest: &mut &[u8], end: u8| {
        let at = rest.iter().position(|byte| *byte == end).expect("the end of a field");
        let field = rest[..at].to_vec();
        *rest = &rest[at + 1..];
        field
    };
    while let Some(first) = rest.first() {
        if *first != b':' {
            take(&mut rest, b'\n');
            found.push(Differences::new());
            continue;
        }
        let head = String::from_utf8(take(&mut rest, 0)).expect("text");
        let path = take(&mut rest, 0);
        let words: Vec<&str> = head[1..].split(' ').collect();
        let entry = |mode: &str, id: &str| {
            let mode = u32::from_str_radix(mode, 8).expect("a mode");
            (mode != 0).then(|| (mode, id.parse().expect("an id")))
        };
        let both = (entry(words[0], words[2]), entry(words[1], words[3]));
        found.last_mut().expect("a pair").insert(path, both);
    }
    found
}
