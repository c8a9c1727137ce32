//! What the system lets this process do: as many open files as it may have, and no dump of its memory, which
//! holds keys and tokens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Open files beside the connections of clients: databases, packs, attempts, Git hosts.
const FILES_BESIDE: u64 = 1_024;

/// Sets the limits of this process.
pub(super) fn set(connections_max: usize) {
    let files = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let files = if raised.is_ok() { files.maximum } else { files.current };
    let needed = connections_max as u64 + FILES_BESIDE;
    if files.is_some_and(|files| files < needed) {
        let files = files.unwrap_or_default();
        warn!(
            "this process may have {files} open files; with server.connections_max = {connections_max} it may need \
             {needed}: raise the limit (LimitNOFILE of the service, ulimit -n), or lower the setting"
        );
    }
    let dumps = getrlimit(Resource::Core);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: dumps.maximum }) {
        warn!("dumps of memory, which would hold keys, could not be turned off: {error}");
    }
}
