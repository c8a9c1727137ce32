//! What the system lets this process do: as many open files as it may have, and no dump of its memory, which
//! holds keys and tokens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::settings::ServerSettings;

/// Open files beside the connections of clients: databases, packs, attempts, Git hosts. Where there are
/// few, half of all.
const FILES_BESIDE: u64 = 1_024;

/// Sets the limits of this process. Where it may open few files, fewer clients are let in than the settings
/// say: those who hold connections open must not keep the server from its database, Git hosts and receivers.
pub(super) fn set(settings: &mut ServerSettings) {
    let files = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let files = if raised.is_ok() { files.maximum } else { files.current };
    let doors = 1 + u64::from(settings.ops_listen.is_some());
    let (wanted, may) = (settings.connections_max, connections(settings.connections_max, files, doors));
    if may < wanted {
        let files = files.unwrap_or_default();
        warn!(
            "this process may have {files} open files, so it takes {may} connections at once instead of \
             server.connections_max = {wanted}: raise the limit (LimitNOFILE of the service, ulimit -n)"
        );
        settings.connections_max = may;
    }
    let dumps = getrlimit(Resource::Core);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: dumps.maximum }) {
        warn!("dumps of memory, which would hold keys, could not be turned off: {error}");
    }
}

/// How many of the `wanted` connections each door may take where the process may open so many files (`None`:
/// any number).
fn connections(wanted: usize, files: Option<u64>, doors: u64) -> usize {
    let Some(files) = files else { return wanted };
    let each = (files - FILES_BESIDE.min(files / 2)) / doors;
    wanted.min(usize::try_from(each).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (wanted, files, doors, expected) in [
            (1_024, None, 1, 1_024),
            (1_024, Some(1_048_576), 1, 1_024),
            (1_024, Some(2_048), 1, 1_024),
            (1_024, Some(1_500), 1, 750),
            (1_024, Some(1_024), 1, 512),
            (1_024, Some(1_024), 2, 256),
            (1_024, Some(64), 1, 32),
            (65_536, Some(4_096), 1, 3_072),
            (1, Some(0), 1, 1),
        ] {
            assert_eq!(connections(wanted, files, doors), expected, "{wanted} {files:?} {doors}");
        }
    }
}
