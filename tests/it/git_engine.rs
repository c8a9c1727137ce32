//! The Git engine against real Git hosts and real repositories.

mod caps;
mod credentials;
mod differences;
mod faults;
mod fetching;
mod healing;
mod keeping;
mod local;
mod partial;
mod polling;
mod sharing;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tempfile::TempDir;
use tidings::{
    egress::Egress,
    git::Git,
    machine::MachineRandom,
    settings::{EgressSettings, GitSettings},
};
use tidings_actors::{
    model::round::{Change, RoundSpec, TreeEnd},
    model::secret::Secret,
    model::view::{MAX_SIZE_DEFAULT, View},
    ports::{
        Clock, Extent, FetchOrder, FetchReport, GitError, GitSource, Keep, Location, RefListing, Remote, Seek,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{ObjectId, RepositoryId},
    kind::{ContentRule, RoundKind},
};
use ulid::Ulid;

use crate::support::git_host::GitHost;

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(784_111_777_000)
    }
}

/// A host, an engine and where it keeps its mirrors.
struct Desk {
    host: GitHost,
    git: Git,
    data: TempDir,
}

fn engine_settings() -> GitSettings {
    GitSettings {
        host_rate: "100000/s".parse().expect("a rate"),
        allow_local: true,
        // What is read is read from the mirror.
        content_cache_bytes: 0,
        ..GitSettings::default()
    }
}

impl Desk {
    async fn new() -> Self {
        Self::with(engine_settings()).await
    }

    async fn with(settings: GitSettings) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let git = engine(settings, &data);
        Self { host: GitHost::start().await, git, data }
    }

    fn remote(&self, name: &str) -> Remote {
        let repository = RepositoryId::new(Ulid::from_parts(1, 7));
        Remote {
            repository,
            location: Location::Http(self.host.url(name)),
            credential: None,
            apps: Vec::new(),
        }
    }

    fn with_credential(&self, name: &str, credential: &str) -> Remote {
        Remote { credential: Some(Secret::new(credential.to_owned())), ..self.remote(name) }
    }

    fn mirror(&self) -> PathBuf {
        self.data.path().join("mirrors").join(RepositoryId::new(Ulid::from_parts(1, 7)).as_str())
    }

    async fn list(&self, remote: &Remote, patterns: &[&str]) -> Result<RefListing, GitError> {
        self.git.list_refs(remote, &patterns.iter().map(|pattern| (*pattern).to_owned()).collect()).await
    }

    async fn fetch(
        &self,
        remote: &Remote,
        want: ObjectId,
        haves: &[ObjectId],
    ) -> Result<FetchReport, GitError> {
        self.fetch_so_much(remote, want, haves, Extent::Whole).await
    }

    async fn fetch_so_much(
        &self,
        remote: &Remote,
        want: ObjectId,
        haves: &[ObjectId],
        extent: Extent,
    ) -> Result<FetchReport, GitError> {
        let order = FetchOrder { wants: vec![want], haves: haves.to_vec(), depth: 1, extent };
        self.git.fetch(remote, &order).await
    }

    async fn changes(&self, remote: &Remote, spec: &RoundSpec) -> Result<Vec<Change>, GitError> {
        self.git.window(remote, spec, &Seek::Position(0), usize::MAX).await
    }
}

fn engine(settings: GitSettings, data: &TempDir) -> Git {
    engine_at(settings, data, Arc::new(StoppedClock))
}

fn engine_at(settings: GitSettings, data: &TempDir, clock: Arc<dyn Clock>) -> Git {
    let egress =
        EgressSettings { allow: vec!["127.0.0.0/8".into()], allow_http: true, ..EgressSettings::default() };
    let egress = Egress::connecting_within(&egress, settings.connect_timeout).expect("a client");
    Git::new(settings, data.path(), egress, clock, &MachineRandom).expect("an engine")
}

/// Everything of these commits.
fn keep(commits: &[ObjectId]) -> Keep {
    Keep { commits: commits.to_vec(), chains: false, blobs: true }
}

fn end(commit: ObjectId) -> TreeEnd {
    TreeEnd { commit, view: View::default() }
}

fn sync(held: Option<ObjectId>, target: ObjectId) -> RoundSpec {
    RoundSpec {
        kind: RoundKind::Sync,
        held: held.map(end),
        target: Some(end(target)),
        bases: vec![],
        letters: vec![],
    }
}

/// No story takes longer; one that hangs fails here.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("in time")
}
