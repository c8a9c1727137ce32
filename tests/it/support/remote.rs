//! A Git host that blocking stories can use: the asynchronous [`GitHost`] on a runtime of its own.

use std::{collections::HashMap, path::PathBuf, sync::Mutex};

use tokio::runtime::Runtime;

use super::{
    git_host::{Fault, GitHost},
    project::Project,
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
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let host = runtime.block_on(GitHost::start());
        Self { host, served: Mutex::default(), _runtime: runtime }
    }

    /// Serves what the project is now, as `name`.
    pub(crate) fn publish(&self, project: &Project, name: &str) {
        let mut served = self.served.lock().expect("no panic");
        let path =
            served.entry(name.to_owned()).or_insert_with(|| self.host.repository(name).path().to_owned());
        project.push_to(path);
    }

    /// Its address of `name`.
    pub(crate) fn url(&self, name: &str) -> String {
        self.host.url(name).to_string()
    }

    /// Misbehaves from now on, or stops doing so.
    pub(crate) fn misbehave(&self, fault: Option<Fault>) {
        self.host.set_fault(fault);
    }

    /// From now on this token is needed.
    pub(crate) fn demand_token(&self, token: &str) {
        self.host.demand(&format!("x-access-token:{token}"));
    }

    /// Bytes that it answered since the last time it was asked.
    pub(crate) fn take_answered(&self) -> u64 {
        self.host.take_seen().iter().map(|seen| seen.answered).sum()
    }
}
