//! The watching side on generated repositories: the difference of one commit on 57,000 files against
//! the same on 3,000 files in folders as wide, that of many changes against ten times fewer changes and against
//! ten times fewer unchanged files, and the first scan (content read and hashed, blob by blob) in
//! MB/s against `git cat-file --batch` with the same hash.
//!
//! The first scan is bound by inflating. On a core of a busy machine, CPU time alone, the zlib that
//! libgit2 reads with inflates such contents (2 KiB of hexadecimal digits, a stream each) at 150 MB/s
//! and zlib-rs at 190, beside 2,200 for SHA-1 and 2,100 for SHA-256: no more than 130 and 160 MB/s
//! with both hashes, before anything is looked up or copied. The wanted 180 MB/s needs a quiet core
//! and a faster inflate than libgit2 can be built with by a C compiler alone.

#[path = "reading.rs"]
mod reading;
#[path = "support.rs"]
mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use reading::read_and_hash;
use sha2::{Digest, Sha256};
use support::{figure, git, repository, settings, timed};
use tidings::app::Adapters;
use tidings_actors::{
    model::round::{RoundSpec, TreeEnd},
    model::view::View,
    ports::{GitSource, Location, Remote},
};
use tidings_entity::{
    id::{ObjectId, RepositoryId},
    kind::RoundKind,
};

const LARGE: usize = 50_000;
const SIZE: usize = 2_048;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = Adapters::open(settings(&folder.path().join("data"))).await.expect("the house opens");
    let source = adapters.git.as_ref();
    let large = folder.path().join("large.git");
    repository(&large, LARGE, SIZE, 0, true);
    linear(source, folder.path()).await;
    first_scan(source, &large).await;
}

fn remote(path: &Path) -> Remote {
    Remote {
        repository: RepositoryId::new(ulid::Ulid::from_parts(1, 1)),
        location: Location::Local(path.to_owned()),
        credential: None,
        apps: Vec::new(),
    }
}

fn end(path: &Path, revision: &str) -> Option<TreeEnd> {
    let commit: ObjectId = git(path, &["rev-parse", revision]).parse().expect("a commit");
    Some(TreeEnd { commit, view: View::default() })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// That of one commit which changes one file.
/// The best of several plans; the cache of small differences is told apart by a fresh view.
async fn difference_of(source: &dyn GitSource, path: &Path, changes: u64) -> Duration {
    let (first, second) = (end(path, "main~1"), end(path, "main"));
    let remote = remote(path);
    let mut best = Duration::MAX;
    for run in 0..20 {
        let exclude = vec![format!("never/{run}/")];
        let view = View::new(vec![], exclude, false, tidings_entity::kind::ContentRule::Inline, 1 << 20)
            .expect("a view");
        let with = |end: Option<TreeEnd>| end.map(|end| TreeEnd { view: view.clone(), ..end });
        let spec = RoundSpec {
            kind: RoundKind::Sync,
            held: with(first.clone()),
            target: with(second.clone()),
            bases: vec![],
            letters: vec![],
        };
        let (plan, took) = timed(source.plan(&remote, &spec, &[])).await;
        assert_eq!(plan.expect("planned").summary.total(), changes);
        best = best.min(took);
    }
    best
}

/// Files of a folder in [`linear`]; each changed one has a folder of its own.
const WIDTH: usize = 100;

/// The time of a difference follows its changes, not what stays.
async fn linear(source: &dyn GitSource, folder: &Path) {
    let measured = |name: &'static str, files: usize, changes: usize| {
        let path = folder.join(name);
        edited(&path, files, changes);
        async move { milliseconds(difference_of(source, &path, changes as u64).await) }
    };
    let one_on_many = measured("one-1.git", 57_000, 1).await;
    let one_on_few = measured("one-2.git", 3_000, 1).await;
    figure("difference of one commit on 57,000 files", "ms", one_on_many, one_on_few, "<= 2.00, <= 3 ms");
    let few_on_few = measured("linear-1.git", 5_000, 5).await;
    let few_on_many = measured("linear-2.git", 50_000, 5).await;
    figure("the same 5 changes on 10 times the files", "ms", few_on_many, few_on_few, "< 1.30");
    let many_on_many = measured("linear-3.git", 50_000, 50).await;
    figure("10 times the changes on the same files", "ms", many_on_many, few_on_many, "<= 11");
}

/// A repository of this many files, [`WIDTH`] in a folder and 50 folders above each other, and a
/// second commit that edits one file in each of the first folders.
fn edited(path: &Path, files: usize, changes: usize) {
    git(path.parent().expect("a parent"), &["init", "-q", "--bare", path.to_str().expect("utf-8")]);
    let name =
        |file: usize| format!("d{:02}/e{:02}/f{:02}", file / WIDTH / 50, file / WIDTH % 50, file % WIDTH);
    let who = "A <a@example.org> 1700000000 +0000";
    let mut stream = format!("commit refs/heads/main\nmark :1\ncommitter {who}\ndata 0\n\n");
    for file in 0..files {
        let content = file.to_string();
        stream += &format!("M 644 inline {}\ndata {}\n{content}\n", name(file), content.len());
    }
    stream += &format!("commit refs/heads/main\ncommitter {who}\ndata 0\n\nfrom :1\n");
    for change in 0..changes {
        stream += &format!("M 644 inline {}\ndata 6\nedited\n", name(change * WIDTH));
    }
    let mut child = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("git is installed");
    child.stdin.take().expect("piped").write_all(stream.as_bytes()).expect("piped");
    assert!(child.wait().expect("git ends").success());
    git(path, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    git(path, &["repack", "-adq"]);
}

async fn first_scan(source: &dyn GitSource, path: &Path) {
    let remote = remote(path);
    // Both read what the system has in memory.
    let (listed, _) = read_by_git(path);
    let (read, took_by_git) = read_by_git(path);
    assert_eq!(read, listed);
    let ((files, bytes), took) = timed(read_and_hash(source, &remote, end(path, "main"))).await;
    assert_eq!((files, bytes), read);
    figure(
        "first scan, content read and hashed",
        "MB/s",
        support::rate(bytes, took) / 1e6,
        support::rate(bytes, took_by_git) / 1e6,
        ">= 0.80 of git cat-file --batch with the same hash, or >= 180 MB/s",
    );
}

/// The same by `git cat-file --batch` on one pipe: files, bytes, and how long it takes.
fn read_by_git(path: &Path) -> ((u64, u64), Duration) {
    let ids = git(path, &["ls-tree", "-r", "--format=%(objectname)", "main"]) + "\n";
    let began = Instant::now();
    let mut child = Command::new("git")
        .args(["cat-file", "--batch", "--buffer"])
        .current_dir(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git is installed");
    let mut input = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || input.write_all(ids.as_bytes()).expect("piped"));
    let mut output = BufReader::with_capacity(1 << 20, child.stdout.take().expect("piped"));
    let (mut files, mut bytes, mut line, mut content) = (0, 0, String::new(), Vec::new());
    while output.read_line(&mut line).expect("read") > 0 {
        let size: usize =
            line.trim_end().rsplit(' ').next().and_then(|size| size.parse().ok()).expect("a size");
        // A line feed follows each content.
        content.resize(size + 1, 0);
        output.read_exact(&mut content).expect("read");
        std::hint::black_box(Sha256::digest(&content[..size]));
        files += 1;
        bytes += size as u64;
        line.clear();
    }
    writer.join().expect("written");
    assert!(child.wait().expect("git ends").success());
    ((files, bytes), began.elapsed())
}
