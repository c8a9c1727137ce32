//! The watching side on a generated repository of 50,000 files: the difference of one commit
//! against the same on 3,000 files, and the first scan (content read and hashed, blob by blob) in
//! MB/s against hashing alone.

#[path = "support.rs"]
mod support;

use std::{path::Path, time::Duration};

use sha2::{Digest, Sha256};
use support::{figure, git, repository, settings, timed};
use tidings::app::Adapters;
use tidings_actors::{
    ports::{Content, GitSource, Location, Remote, Seek},
    round::{RoundSpec, TreeEnd},
    view::View,
};
use tidings_entity::{
    id::{ObjectId, RepositoryId},
    kind::RoundKind,
};

const LARGE: usize = 50_000;
const SMALL: usize = 3_000;
const SIZE: usize = 2_048;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = Adapters::open(settings(&folder.path().join("data"))).await.expect("the house opens");
    let source = adapters.git.as_ref();
    let (large, small) = (folder.path().join("large.git"), folder.path().join("small.git"));
    repository(&large, LARGE, SIZE, 0, true);
    repository(&small, SMALL, SIZE, 0, true);
    let on_large = difference(source, &large).await;
    let on_small = difference(source, &small).await;
    figure(
        "difference of one commit on 50,000 files",
        "ms",
        milliseconds(on_large),
        milliseconds(on_small),
        "<= 2.00, <= 3 ms",
    );
    first_scan(source, &large).await;
}

fn remote(path: &Path) -> Remote {
    Remote {
        repository: RepositoryId::new(ulid::Ulid::from_parts(1, 1)),
        location: Location::Local(path.to_owned()),
        credential: None,
    }
}

fn end(path: &Path, revision: &str) -> Option<TreeEnd> {
    let commit: ObjectId = git(path, &["rev-parse", revision]).parse().expect("a commit");
    Some(TreeEnd { commit, view: View::default() })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The best of several plans; the cache of small differences is told apart by a fresh view.
async fn difference(source: &dyn GitSource, path: &Path) -> Duration {
    let remote = remote(path);
    let mut best = Duration::MAX;
    for run in 0..20 {
        let exclude = vec![format!("never/{run}/")];
        let view = View::new(vec![], exclude, false, tidings_entity::kind::ContentRule::Inline, 1 << 20)
            .expect("a view");
        let with = |end: Option<TreeEnd>| end.map(|end| TreeEnd { view: view.clone(), ..end });
        let spec = RoundSpec {
            kind: RoundKind::Sync,
            held: with(end(path, "main~1")),
            target: with(end(path, "main")),
            bases: vec![],
            letters: vec![],
        };
        let (plan, took) = timed(source.plan(&remote, &spec, &[])).await;
        assert_eq!(plan.expect("planned").summary.total(), 1);
        best = best.min(took);
    }
    best
}

async fn first_scan(source: &dyn GitSource, path: &Path) {
    let remote = remote(path);
    let spec = RoundSpec {
        kind: RoundKind::Sync,
        held: None,
        target: end(path, "main"),
        bases: vec![],
        letters: vec![],
    };
    let (bytes, took) = timed(async {
        let (mut seek, mut bytes) = (Seek::Position(0), 0_u64);
        loop {
            let window = source.window(&remote, &spec, &seek, 256).await.expect("read");
            for change in &window {
                let blob = change.new.expect("a create").blob;
                let Content::Whole(content) = source.content(&remote, blob, 1 << 26).await.expect("read")
                else {
                    panic!("too large")
                };
                bytes += content.len() as u64;
                std::hint::black_box(Sha256::digest(&content));
            }
            match window.last() {
                Some(last) if window.len() == 256 => seek = Seek::After(last.clone()),
                _ => return bytes,
            }
        }
    })
    .await;
    let megabytes = support::rate(bytes, took) / 1e6;
    let (_, hashing) = timed(async {
        let block = vec![b'x'; SIZE];
        for _ in 0..LARGE {
            std::hint::black_box(Sha256::digest(&block));
        }
    })
    .await;
    let bare = support::rate((LARGE * SIZE) as u64, hashing) / 1e6;
    figure(
        "first scan, content read and hashed",
        "MB/s",
        megabytes,
        bare,
        ">= 180 MB/s; the baseline only hashes",
    );
}
