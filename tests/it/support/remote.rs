//! A Git host that blocking stories can use: the asynchronous [`GitHost`] on a runtime of its own.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tokio::runtime::Runtime;

use super::{
    git_host::{Fault, GitHost, Seen},
    project::Project,
    repository::{Repository, git_command},
};

/// The host and its runtime.
pub(crate) struct Host {
    host: GitHost,
    served: Mutex<HashMap<String, PathBuf>>,
    _runtime: Runtime,
}

impl Host {
    /// Listens on a port of its own.
    pub(crate) fn start() -> Self {
        Self::serve(GitHost::start())
    }

    /// Listens at an address of its own: what happens here happens to no other host.
    pub(crate) fn start_apart() -> Self {
        Self::serve(GitHost::start_apart())
    }

    fn serve(start: impl Future<Output = GitHost>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let host = runtime.block_on(start);
        Self { host, served: Mutex::default(), _runtime: runtime }
    }

    /// Serves what the project is now, as `name`.
    pub(crate) fn publish(&self, project: &Project, name: &str) {
        let mut served = self.served.lock().expect("no panic");
        let path =
            served.entry(name.to_owned()).or_insert_with(|| self.host.repository(name).path().to_owned());
        project.push_to(path);
    }

    /// Where what is served as `name` lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.served.lock().expect("no panic")[name].clone()
    }

    /// Drops everything of `name` that no ref leads to.
    pub(crate) fn forget_unreachable(&self, name: &str) {
        let status = git_command(&self.path(name)).args(["gc", "--quiet", "--prune=now"]).status();
        assert!(status.expect("git runs").success());
    }

    /// Requests that it has answered so far.
    pub(crate) fn requests(&self) -> usize {
        self.host.requests()
    }

    /// An empty repository that is served as `name`.
    pub(crate) fn repository(&self, name: &str) -> Repository {
        self.host.repository(name)
    }

    /// Pushes what `main` is now, and leaves every other branch alone.
    pub(crate) fn push_main(&self, project: &Project, name: &str) {
        let served = self.served.lock().expect("no panic");
        let target = served[name].to_str().expect("a plain path");
        project.git(["push", "--quiet", "--force", target, "refs/heads/main:refs/heads/main"]);
    }

    /// Its address of `name`.
    pub(crate) fn url(&self, name: &str) -> String {
        self.host.url(name).to_string()
    }

    /// Misbehaves from now on, or stops doing so.
    pub(crate) fn misbehave(&self, fault: Option<Fault>) {
        self.host.set_fault(fault);
    }

    /// Misbehaves at the next requests, also at those that only look.
    pub(crate) fn misbehave_for(&self, fault: Fault, requests: u64) {
        self.host.set_fault_for(fault, requests);
    }

    /// Speaks only version 0 of the protocol.
    pub(crate) fn speak_version_0(&self) {
        self.host.speak_version_0();
    }

    /// Serves a repository that lies elsewhere as `name`.
    pub(crate) fn link(&self, name: &str, repository: &Path) {
        self.host.link(name, repository);
    }

    /// From now on this token is needed.
    pub(crate) fn demand_token(&self, token: &str) {
        self.host.demand(&format!("x-access-token:{token}"));
    }

    /// This token is good as well.
    pub(crate) fn admit_token(&self, token: &str) {
        self.host.admit(&format!("x-access-token:{token}"));
    }

    /// Shows `other` instead of `name` to a client with this token.
    pub(crate) fn show(&self, token: &str, name: &str, other: &str) {
        self.host.show(&format!("x-access-token:{token}"), name, other);
    }

    /// Gives what is served as `name` another name, and says so to clients that ask for the old name.
    pub(crate) fn rename(&self, name: &str, new: &str) {
        let mut served = self.served.lock().expect("no panic");
        let old = served.remove(name).expect("it is served");
        let path = old.with_file_name(new.rsplit('/').next().expect("a name"));
        std::fs::rename(&old, &path).expect("it is renamed");
        served.insert(new.to_owned(), path);
        self.host.rename(name, &self.url(new));
    }

    /// What was asked since the last time it was asked.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        self.host.take_seen()
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.host.connections()
    }

    /// Adds this many branches to what is served as `name`, all at one commit, in packed-refs.
    pub(crate) fn add_branches(&self, name: &str, count: usize, commit: &str) {
        let served = self.served.lock().expect("no panic");
        let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for number in 0..count {
            text.push_str(&format!("{commit} refs/heads/many/{number:06}\n"));
        }
        std::fs::write(served[name].join("packed-refs"), text).expect("writable");
    }

    /// From now on this is needed: `user:password`, or a bearer token where there is no colon.
    pub(crate) fn demand(&self, credential: &str) {
        self.host.demand(credential);
    }

    /// How often it was asked for its refs since the last time it was asked.
    pub(crate) fn take_polls(&self) -> usize {
        self.host.take_seen().iter().filter(|seen| seen.body.contains("command=ls-refs")).count()
    }

    /// Bytes that it answered since the last time it was asked.
    pub(crate) fn take_answered(&self) -> u64 {
        self.host.take_seen().iter().map(|seen| seen.answered).sum()
    }
}
