//! Limits of the process: as many open files as the system allows, and no dump of its memory, which holds
//! keys and tokens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::settings::ServerSettings;

/// Open files that are reserved for other things than connections of clients: databases, packs, attempts, Git
/// hosts. If fewer are allowed in all, half of them.
const FILES_BESIDE: u64 = 1_024;

/// Sets the limits of this process. If it may open few files, fewer connections are accepted than the
/// settings allow, so that clients cannot keep the server from its database, Git hosts and receivers.
pub(super) fn set(settings: &mut ServerSettings) {
    let files = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let files = if raised.is_ok() { files.maximum } else { files.current };
    let doors = 1 + u64::from(settings.ops_listen.is_some());
    let (wanted, may) = (Connections::of(settings), Connections::within(settings, files, doors));
    if may != wanted {
        let (files, Connections { ordinary, waiting }) = (files.unwrap_or_default(), may);
        warn!(
            "this process may have {files} open files, so it takes {ordinary} connections at once instead \
             of server.connections_max = {}, and {waiting} instead of server.waiting_connections_max = {}: \
             raise the limit (LimitNOFILE of the service, ulimit -n)",
            wanted.ordinary, wanted.waiting
        );
        (settings.connections_max, settings.waiting_connections_max) = (ordinary, waiting);
    }
    let dumps = getrlimit(Resource::Core);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: dumps.maximum }) {
        warn!("dumps of memory, which would hold keys, could not be turned off: {error}");
    }
}

/// The connections that each listener may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connections {
    ordinary: usize,
    /// Those whose request waits for work, on top.
    waiting: usize,
}

impl Connections {
    fn of(settings: &ServerSettings) -> Self {
        Self { ordinary: settings.connections_max, waiting: settings.waiting_connections_max }
    }

    /// What the settings say, or less where the process may open only this many files (`None`: any number).
    /// Where there are few, three quarters are for ordinary connections.
    fn within(settings: &ServerSettings, files: Option<u64>, doors: u64) -> Self {
        let Self { ordinary, waiting } = Self::of(settings);
        let Some(files) = files else { return Self { ordinary, waiting } };
        let each = usize::try_from((files - FILES_BESIDE.min(files / 2)) / doors).unwrap_or(usize::MAX);
        let waiting = waiting.min(each.saturating_sub(ordinary).max(each / 4));
        Self { ordinary: ordinary.min(each - waiting).max(1), waiting: waiting.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (settings, files, doors, expected) in [
            ((1_024, 4_096), None, 1, (1_024, 4_096)),
            ((1_024, 4_096), Some(1_048_576), 1, (1_024, 4_096)),
            ((1_024, 4_096), Some(4_096), 1, (1_024, 2_048)),
            ((1_024, 4_096), Some(2_048), 1, (768, 256)),
            ((1_024, 4_096), Some(1_024), 1, (384, 128)),
            ((1_024, 4_096), Some(1_024), 2, (192, 64)),
            ((1_024, 4_096), Some(64), 1, (24, 8)),
            ((1_024, 10), Some(2_048), 1, (1_014, 10)),
            ((65_536, 4_096), Some(4_096), 1, (2_304, 768)),
            ((1, 1), Some(0), 1, (1, 1)),
        ] {
            let settings = ServerSettings {
                connections_max: settings.0,
                waiting_connections_max: settings.1,
                ..ServerSettings::default()
            };
            let may = Connections::within(&settings, files, doors);
            assert_eq!((may.ordinary, may.waiting), expected, "{settings:?} {files:?} {doors}");
        }
    }
}
