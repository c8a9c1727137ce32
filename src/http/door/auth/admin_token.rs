//! The token that opens `/api/admin`: set by the operator, or created at the first start and stored in a file
//! that only the server's own user can read.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq;
use thiserror::Error;
use tidings_actors::{model::secret::Secret, ports::Random};
use tidings_entity::id::Sha256Hash;

use crate::{
    secrets::{
        TOKEN_PREFIX, Token,
        private_file::{self, PrivateFileError},
    },
    settings::{Settings, fault_of_admin_token},
};

/// The file in the data directory.
pub const FILE_NAME: &str = "admin-token";
/// No token is longer, in bytes; a larger file is something else.
const FILE_BYTES_MAX: u64 = 4096;

/// Recognises the admin token; holds only its hash.
#[derive(Clone)]
pub struct AdminToken {
    hash: Sha256Hash,
}

impl AdminToken {
    /// Keeps the hash of a token, and not the token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self { hash: Sha256Hash::of(token.as_bytes()) }
    }

    /// The token of the settings, or the token of the data directory, which is created if it does not exist.
    ///
    /// # Errors
    /// The errors of [`ensure`].
    pub fn from_settings(settings: &Settings, random: &dyn Random) -> Result<Self, AdminTokenError> {
        match &settings.server.admin_token {
            Some(token) => Ok(Self::of(token.expose())),
            None => ensure(&settings.data_dir.join(FILE_NAME), random),
        }
    }

    /// Whether this is the SHA-256 of the token, in constant time.
    #[must_use]
    pub fn has_hash(&self, hash: &Sha256Hash) -> bool {
        hash.as_bytes().ct_eq(self.hash.as_bytes()).into()
    }

    /// Whether this is the token.
    #[cfg(test)]
    fn opens(&self, sent: &str) -> bool {
        self.has_hash(&Sha256Hash::of(sent.as_bytes()))
    }
}

/// Why there is no admin token.
#[derive(Debug, Error)]
pub enum AdminTokenError {
    /// The file cannot be written.
    #[error("the server's admin token {path} cannot be made")]
    File {
        /// The path of the token file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The file holds no token that may be used.
    #[error("the server's admin token {path} {source}{}", mend(.source, .path))]
    Unusable {
        /// The path of the token file.
        path: PathBuf,
        /// The fault of the file.
        source: PrivateFileError,
    },
    /// The file holds a token that the settings would refuse too, such as a short one.
    #[error("the server's admin token {path} {fault}{}", ANOTHER)]
    Weak {
        /// The path of the token file.
        path: PathBuf,
        /// The fault of the token, as the continuation of a sentence.
        fault: String,
    },
}

/// The remedy for a file that holds no token.
const ANOTHER: &str = "; delete it, and the next start makes a new one";

/// The remedy for a fault of the server's own token file.
fn mend(error: &PrivateFileError, path: &Path) -> String {
    match error {
        PrivateFileError::Exposed(_) => format!("; run chmod 600 {}", path.display()),
        PrivateFileError::Empty | PrivateFileError::TooLarge(_) | PrivateFileError::Folder => {
            ANOTHER.to_owned()
        }
        PrivateFileError::Unreadable(_) => String::new(),
    }
}

/// The token in the file at `path`, which is created (mode 0600, synced before it is used) if it does not
/// exist.
///
/// # Errors
/// If the file cannot be read or written, is readable by others, or holds no token or a short one.
pub fn ensure(path: &Path, random: &dyn Random) -> Result<AdminToken, AdminTokenError> {
    match read(path)? {
        Some(token) => Ok(AdminToken::of(token.expose())),
        None => make(path, random),
    }
}

/// The token in the file at `path`; `None` if the file does not exist.
///
/// # Errors
/// The errors of [`ensure`].
pub fn read(path: &Path) -> Result<Option<Secret>, AdminTokenError> {
    let path = path.to_owned();
    match private_file::read(&path, FILE_BYTES_MAX) {
        Ok(token) => match token.as_ref().and_then(fault_of_admin_token) {
            None => Ok(token),
            Some(fault) => Err(AdminTokenError::Weak { path, fault }),
        },
        Err(source) => Err(AdminTokenError::Unusable { path, source }),
    }
}

fn make(path: &Path, random: &dyn Random) -> Result<AdminToken, AdminTokenError> {
    let failed = |source| AdminTokenError::File { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // At the first start this may come before anything else that needs the data directory.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let token = Token::generate(TOKEN_PREFIX, random);
    // A temporary file has mode 0600; a crash leaves either no token or a whole one.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(file, "{}", token.text().expose()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => {
            fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
            Ok(AdminToken::of(token.text().expose()))
        }
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => ensure(path, random),
        Err(error) => Err(failed(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::machine::MachineRandom;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("not/there/yet").join(FILE_NAME);
        let made = ensure(&path, &MachineRandom).expect("made");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(made.opens(text.trim()) && !made.opens("other") && !made.opens(""));
        assert!(ensure(&path, &MachineRandom).expect("found").opens(text.trim()));
    }

    #[test]
    fn a_file_that_others_can_read_or_that_holds_nothing_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, "token").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        let said = |path: &Path| ensure(path, &MachineRandom).map(drop).expect_err("refused").to_string();
        let at = path.display();
        let exposed =
            format!("the server's admin token {at} can be read by others (mode 0640); run chmod 600 {at}");
        assert_eq!(said(&path), exposed);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        fs::write(&path, "\n").expect("written");
        assert!(
            said(&path).ends_with("is empty; delete it, and the next start makes a new one"),
            "{}",
            said(&path)
        );
        fs::write(&path, "x\n").expect("written");
        let weak = "has fewer than 32 characters; delete it, and the next start makes a new one";
        assert!(said(&path).ends_with(weak), "{}", said(&path));
        assert!(ensure(folder.path(), &MachineRandom).is_err());
    }
}
