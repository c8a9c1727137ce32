//! Checks the data directory and its files, and the disk.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt, path::Path};

use rustix::process::{Resource, getrlimit};
use tidings_actors::model::words::counted;

use super::Finding;
use crate::{
    app::{KEYRING, LOCK, Unfinished, mode_for_others, why_unusable},
    http::door::auth::admin_token,
    secrets::{Keyring, SecretsError},
    settings::Settings,
};

/// A server that may open fewer files may run out of them under load.
const FILES_MIN: u64 = 4_096;

/// The check of the data directory.
const DATA_DIR: &str = "data_dir";

/// The reason why no server can use a data directory: the path is a file, or the directory cannot be made.
pub(crate) fn unusable(path: &Path) -> Option<Finding> {
    let shown = path.display();
    let (found, remedy) = match fs::metadata(path) {
        Ok(facts) if facts.is_dir() => return None,
        Ok(_) => (
            format!("{shown} is a file, not a directory"),
            "move the file away, or set data_dir to a directory",
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => (
            format!("{shown} does not exist and cannot be made: {}", writable_above(path).err()?),
            "make it for the user that runs the server, or set data_dir to a place that it may write",
        ),
        Err(error) => (
            format!("{shown} cannot be looked at: {}", why_unusable(&error)),
            "let the user that runs the server enter the directories above it",
        ),
    };
    Some(Finding::fault(DATA_DIR, found, remedy))
}

/// Checks whether the data directory can be used. Returns whether a server has it open.
pub(super) fn directory(settings: &Settings, findings: &mut Vec<Finding>) -> bool {
    let path = &settings.data_dir;
    let shown = path.display();
    if let Some(fault) = unusable(path) {
        findings.push(fault);
        return false;
    }
    let Ok(facts) = fs::metadata(path) else {
        findings.push(Finding::ok(DATA_DIR, format!("{shown} does not exist yet: the first start makes it")));
        return false;
    };
    let before = findings.len();
    if let Some(mode) = mode_for_others(path) {
        findings.push(Finding::fault(
            DATA_DIR,
            format!("{shown} has mode {mode:o}: others can look into it"),
            format!("chmod 700 {shown}"),
        ));
    }
    let own = rustix::process::geteuid().as_raw();
    if facts.uid() != own {
        findings.push(Finding::fault(
            DATA_DIR,
            format!("{shown} belongs to the user {}, and this runs as {own}", facts.uid()),
            format!("run this as the user of the server; or give it the directory: chown -R {own} {shown}"),
        ));
    }
    if let Err(error) = tempfile::tempfile_in(path) {
        findings.push(Finding::fault(
            DATA_DIR,
            format!("nothing can be written into {shown}: {error}"),
            "mount it writable, and make room on its disk",
        ));
    }
    if let Some(unfinished) = Unfinished::of(settings) {
        findings.push(Finding::fault(DATA_DIR, unfinished.to_string(), unfinished.remedy()));
    }
    if findings.len() == before {
        findings
            .push(Finding::ok(DATA_DIR, format!("{shown} belongs to this user alone and can be written")));
    }
    owner(path, findings)
}

/// Reports which process has the directory open.
fn owner(path: &Path, findings: &mut Vec<Finding>) -> bool {
    let Ok(file) = fs::File::open(path.join(LOCK)) else { return false };
    let is_running = matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
    let said = fs::read_to_string(path.join(LOCK)).unwrap_or_default();
    findings.push(Finding::ok(
        "server",
        if is_running { format!("it runs: {}", said.trim()) } else { "it does not run".to_owned() },
    ));
    is_running
}

/// How many files a server may open that is started as this was.
pub(super) fn open_files(findings: &mut Vec<Finding>) {
    const CHECK: &str = "open_files";
    // The hard limit counts, because a start raises the soft limit to it.
    findings.push(match getrlimit(Resource::Nofile).maximum {
        Some(files) if files < FILES_MIN => Finding::warning(
            CHECK,
            format!(
                "a server that is started like this may open {files} files: it takes fewer clients at once"
            ),
            format!(
                "raise the limit to {FILES_MIN} or more: LimitNOFILE of the service, ulimit -n of a shell"
            ),
        ),
        Some(files) => {
            Finding::ok(CHECK, format!("a server that is started like this may open {files} files"))
        }
        None => Finding::ok(CHECK, "a server that is started like this may open any number of files"),
    });
}

/// Whether the nearest directory that is there may be written into.
fn writable_above(path: &Path) -> std::io::Result<()> {
    let here = Path::new(".");
    let above = path.ancestors().skip(1).find(|above| above.exists());
    tempfile::tempfile_in(above.filter(|above| !above.as_os_str().is_empty()).unwrap_or(here)).map(drop)
}

/// The keyring, where it can be used.
pub(super) fn keyring(settings: &Settings, findings: &mut Vec<Finding>) -> Option<Keyring> {
    const CHECK: &str = "keyring";
    let path = settings.data_dir.join(KEYRING);
    let restore =
        "put the right file back: `tidings key import BACKUP/keyring.sealed` takes it from a backup";
    match Keyring::open(&path) {
        Ok(keyring) => {
            let keys = counted(keyring.status().keys.len() as u64, "key");
            findings.push(Finding::ok(CHECK, format!("{} holds {keys}", path.display())));
            given(settings, &keyring, findings);
            Some(keyring)
        }
        Err(SecretsError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let file = crate::store::copy::file_of(&settings.database_url()).ok().flatten();
            let has_database = file.is_some_and(|file| file.exists());
            findings.push(if has_database {
                let found = format!("{} is missing, and the database needs it", path.display());
                Finding::fault(CHECK, found, restore)
            } else if let Some(given) = &settings.keyring_file {
                match Keyring::open_given(given) {
                    Ok(_) => Finding::ok(
                        CHECK,
                        format!("there is none yet: the first start takes a copy of {}", given.display()),
                    ),
                    Err(error) => Finding::fault(CHECK, error.to_string(), GIVEN),
                }
            } else {
                Finding::ok(CHECK, "there is none yet: the first start makes it")
            });
            None
        }
        Err(error @ SecretsError::Permissions { .. }) => {
            findings.push(Finding::fault(CHECK, error.to_string(), format!("chmod 600 {}", path.display())));
            None
        }
        Err(error) => {
            findings.push(Finding::fault(CHECK, error.to_string(), restore));
            None
        }
    }
}

/// Whether the keyring of the settings could replace this one if it is lost.
fn given(settings: &Settings, keyring: &Keyring, findings: &mut Vec<Finding>) {
    let Some(path) = &settings.keyring_file else { return };
    let primary = keyring.status().primary;
    match Keyring::open_given(path) {
        Ok(given) if given.has(&primary) => {}
        Ok(_) => findings.push(Finding::warning(
            "keyring",
            format!("{} lacks the key {primary}, which seals now", path.display()),
            "put a copy of the keyring of the data directory there: a data directory that is lost needs it",
        )),
        Err(error) => findings.push(Finding::warning("keyring", error.to_string(), GIVEN)),
    }
}

/// The remedy for a keyring that cannot be copied.
const GIVEN: &str = "let keyring_file name a keyring that this user may read, or leave it empty";

/// Checks that the admin token can be read, and that only its owner can read it.
pub(super) fn admin_token(settings: &Settings, findings: &mut Vec<Finding>) {
    const CHECK: &str = "admin_token";
    if settings.server.admin_token.is_some() {
        findings.push(Finding::ok(CHECK, "the settings give it"));
        return;
    }
    let path = settings.data_dir.join(admin_token::FILE_NAME);
    findings.push(match admin_token::read(&path) {
        Ok(Some(_)) => Finding::ok(CHECK, format!("it lies in {}", path.display())),
        Ok(None) => Finding::ok(CHECK, "there is none yet: the first start makes it"),
        Err(error) => Finding::fault(
            CHECK,
            error.to_string(),
            format!("chmod 600 {0}, or delete {0}: the next start makes another token", path.display()),
        ),
    });
}

/// Checks the free space of the disks.
pub(super) fn disk(settings: &Settings, findings: &mut Vec<Finding>) {
    const CHECK: &str = "disk";
    let mirrors = settings.git.mirrors_dir.as_ref();
    for (directory, has_mirrors) in [(Some(&settings.data_dir), mirrors.is_none()), (mirrors, true)] {
        let place = directory.and_then(|directory| directory.ancestors().find(|place| place.exists()));
        let Some((place, facts)) = place.and_then(|place| Some((place, rustix::fs::statvfs(place).ok()?)))
        else {
            continue;
        };
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        let (place, least) = (place.display(), settings.git.free_min_bytes);
        let found = format!("{free} bytes are free at {place}, and git.free_min_bytes asks for {least}");
        let remedy = "make room, or bound what mirrors take with git.mirrors_max_bytes";
        findings.push(if free < least && has_mirrors {
            Finding::fault(CHECK, format!("{found}: nothing is fetched"), remedy)
        } else if free / 2 < least {
            Finding::warning(CHECK, found, remedy)
        } else {
            Finding::ok(CHECK, found)
        });
    }
}
