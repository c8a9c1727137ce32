//! Files with secrets for a verb. A file that others can read is refused; each refusal names the file, the
//! purpose of its secret, and the remedy.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use tidings_actors::model::secret::Secret;

use super::{Code, Failure};
use crate::{
    machine::MachineRandom,
    secrets::{
        generate_signing_key,
        private_file::{self, PrivateFileError},
    },
};

/// No secret is longer, in bytes: the private key of a certificate, with room to spare.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The purpose of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A token for the API of a server, of an app or of the staff.
    ServerToken,
    /// A token for a repository at its Git host.
    GitToken,
    /// The private key of a GitHub App.
    GithubAppKey,
    /// An app's deliveries are signed with it.
    SigningKey,
    /// The secret with which an app authenticates to its endpoint.
    EndpointSecret,
    /// The value of a header field for an endpoint.
    HeaderValue,
    /// The key of a client certificate.
    ClientKey,
    /// The passphrase of an exported keyring.
    Passphrase,
    /// Git hosts sign hooks with it.
    HookSecret,
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ServerToken => "app or admin token",
            Self::GitToken => "Git token",
            Self::GithubAppKey => "key of the GitHub App",
            Self::SigningKey => "signing key",
            Self::EndpointSecret => "auth secret of the endpoint",
            Self::HeaderValue => "value of a header field",
            Self::ClientKey => "key of the client certificate",
            Self::Passphrase => "passphrase",
            Self::HookSecret => "secret of the hook",
        })
    }
}

/// The secret in a file that only its owner can read.
///
/// # Errors
/// If the file is missing, empty, too large or readable by others.
pub(super) fn read(path: &Path, purpose: Purpose) -> Result<Secret, Failure> {
    find(path, purpose)?.ok_or_else(|| {
        Failure::new(Code::Data, format!("the file {} for the {purpose} does not exist", path.display()))
    })
}

/// The signing key in a file. If the file does not exist, it is created with a new key, readable only by its
/// owner.
///
/// # Errors
/// As [`read`], and if the file cannot be written.
pub(super) fn read_or_make_signing_key(path: &Path) -> Result<Secret, Failure> {
    if let Some(key) = find(path, Purpose::SigningKey)? {
        return Ok(key);
    }
    let key = generate_signing_key(&MachineRandom);
    // The key is on disk before a server signs with it: without the key no app can verify deliveries.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| {
        writeln!(file, "{}", key.expose())?;
        file.sync_all()
    });
    written.map_err(|error| {
        let text = format!("the signing key cannot be written to {}: {error}", path.display());
        Failure::new(Code::CannotCreate, text)
    })?;
    // Standard output holds the answer of the server alone.
    drop(writeln!(io::stderr(), "a signing key was made: {}", path.display()));
    Ok(key)
}

fn find(path: &Path, purpose: Purpose) -> Result<Option<Secret>, Failure> {
    private_file::read(path, FILE_BYTES_MAX).map_err(|error| {
        let shown = path.display();
        let (code, mend) = match &error {
            PrivateFileError::Folder => {
                (Code::Data, format!("; name the file in it that holds the {purpose}"))
            }
            PrivateFileError::Exposed(_) => (Code::Data, format!("; run chmod 600 {shown}")),
            PrivateFileError::Empty => (Code::Data, format!("; put the {purpose} into it")),
            PrivateFileError::TooLarge(_) => (Code::Data, format!("; it must hold the {purpose} alone")),
            PrivateFileError::Unreadable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                (Code::NoInput, "; it must belong to the user who runs this command".to_owned())
            }
            PrivateFileError::Unreadable(_) => (Code::NoInput, String::new()),
        };
        let code = if purpose == Purpose::ServerToken { Code::Permission } else { code };
        Failure::new(code, format!("the file {shown} for the {purpose} {error}{mend}"))
    })
}
