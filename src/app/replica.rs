//! This process as a replica among those that share its database, and the leases of its predecessor.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tidings_actors::ports::{Clock, Leases, Random, Replica, StoreError};
use tidings_entity::{id::ReplicaId, kind::ReplicaRole};
use tokio::time::Instant;
use tracing::{info, warn};
use url::Url;

use crate::store::{OpenError, leases::SqlLeases};

/// The file in the data directory that names the replica that uses the directory, or used it last.
const FILE: &str = "replica";
/// No name of a replica is longer, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Describes this process for the other replicas: its id, name, version, role and address.
pub(super) fn describe(
    role: ReplicaRole,
    reached_at: Option<Url>,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Replica {
    let now = clock.now();
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    Replica {
        id: ReplicaId::new(random.ulid(now)),
        name: format!("{host} {}", std::process::id()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role,
        works: role.works(),
        address: reached_at.map(Into::into),
        started_at: now,
    }
}

/// Sets the clock of this process by the database's clock before the first moment is written.
pub(super) async fn follow(leases: &SqlLeases, clock: &dyn Clock) {
    let asked = Instant::now();
    match leases.now().await {
        Ok(told) => {
            let half = asked.elapsed() / 2;
            clock.follow(told, asked + half, half);
        }
        Err(reason) => warn!("the clock of the database could not be read yet: {reason}"),
    }
}

/// Releases the leases of the process that used this data directory before: only one process uses the
/// directory, so that process is dead. Without the file its leases expire by themselves.
pub(super) async fn succeed(data_dir: &Path, leases: &dyn Leases, id: &ReplicaId) {
    let path = data_dir.join(FILE);
    if let Some(before) = predecessor(&path) {
        match leases.leave(&before).await {
            Ok(()) => info!("the leases of {before}, which had this data directory before, were released"),
            Err(reason) => {
                warn!("the leases of {before}, which had this data directory before, will expire: {reason}");
                // The file stays until a later start releases the leases.
                return;
            }
        }
    }
    if let Err(error) = write(&path, id) {
        warn!("{} was not written, so the next start here waits for leases: {error}", path.display());
    }
}

/// Registers this replica, then takes the keys that were handed on until now: a replica that hands on a key
/// later waits for this one. Must run before anything is read or written.
pub(super) async fn enter(leases: &dyn Leases, replica: &Replica, life: Duration) -> Result<(), OpenError> {
    let entered = async {
        leases.renew(replica, life).await?;
        leases.take_keys().await
    };
    entered.await.map_err(|error| match error {
        StoreError::Unavailable(reason) => OpenError::Unreachable(reason),
        other => OpenError::Database(other.to_string()),
    })
}

fn predecessor(path: &PathBuf) -> Option<ReplicaId> {
    let text = fs::read(path).ok().filter(|text| text.len() <= NAME_BYTES_MAX)?;
    String::from_utf8(text).ok()?.trim().parse().ok()
}

fn write(path: &Path, id: &ReplicaId) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    writeln!(options.write(true).create(true).truncate(true).mode(0o600).open(path)?, "{id}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidings_actors::testing::LeaseTable;
    use ulid::Ulid;

    use super::*;
    use crate::machine::{MachineClock, MachineRandom};

    #[tokio::test(start_paused = true)]
    async fn who_begins_says_that_it_lives_before_it_takes_the_keys_that_were_handed_on() {
        let table = Arc::<LeaseTable>::default();
        let replica = describe(ReplicaRole::All, None, &MachineClock, &MachineRandom);
        let (leases, other) = (table.seen_by(&replica.id), ReplicaId::new(Ulid::from_parts(1, 1)));
        table.take_keys_slowly(Duration::from_secs(5));
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let seen = table.seen_by(&other).replicas().await.expect("seen");
            (table.keys_taken(&replica.id), seen.len())
        };
        let life = Duration::from_secs(60);
        let (entered, meanwhile) = tokio::join!(enter(&leases, &replica, life), meanwhile);
        entered.expect("entered");
        assert_eq!(meanwhile, (1, 1));
    }

    #[test]
    fn a_file_that_names_no_replica_names_no_predecessor() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        assert_eq!(predecessor(&path), None);
        for text in ["", "rpl_", "rpl_01ARZ3NDEKTSV4RRFFQ69G5FA", &"x".repeat(1_000)] {
            fs::write(&path, text).expect("written");
            assert_eq!(predecessor(&path), None, "{text}");
        }
        let id: ReplicaId = "rpl_01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id");
        write(&path, &id).expect("written");
        assert_eq!(predecessor(&path), Some(id));
    }
}
