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

use crate::cli::{Code, Failure};
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
pub(crate) enum Purpose {
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
/// If the file is missing, empty, too large or readable by others, or holds no token where a token is needed.
pub(crate) fn read(path: &Path, purpose: Purpose) -> Result<Secret, Failure> {
    let secret = find(path, purpose)?.ok_or_else(|| {
        Failure::new(Code::NoInput, format!("the file {} for the {purpose} does not exist", path.display()))
    })?;
    match purpose {
        Purpose::ServerToken => token_of(secret.expose(), &format!("the file {}", path.display())),
        _ => Ok(secret),
    }
}

/// The token for the API of a server that a file, a variable or standard input (`source`) holds.
///
/// # Errors
/// If the text is no token: HTTP could not carry it, or the server could not read it.
pub(crate) fn token_of(text: &str, source: &str) -> Result<Secret, Failure> {
    let text = text.trim();
    match fault_of_token(text) {
        None => Ok(Secret::new(text.to_owned())),
        Some(fault) => Err(Failure::new(Code::Permission, format!("{source} holds no token, but {fault}"))),
    }
}

/// What a text is that cannot be a token, and the remedy; `None` for one that may be a token.
fn fault_of_token(text: &str) -> Option<&'static str> {
    if text.starts_with('{') {
        return Some("JSON; give the value of `token` in it");
    }
    if text.lines().count() > 1 {
        return Some("more than one line; give the token alone");
    }
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_plain)
        .then_some("characters that no token has; a token has ASCII letters, digits and signs, no space")
}

/// The secret in a file. If the file does not exist, it is created with a new secret, readable only by its
/// owner.
///
/// # Errors
/// As [`read`], and if the file cannot be written.
pub(crate) fn read_or_make(path: &Path, purpose: Purpose) -> Result<Secret, Failure> {
    if let Some(key) = find(path, purpose)? {
        return Ok(key);
    }
    let key = generate_signing_key(&MachineRandom);
    // The secret is on disk before a server has it: without the key no app can verify deliveries.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| {
        writeln!(file, "{}", key.expose())?;
        file.sync_all()
    });
    written.map_err(|error| {
        let mut text = format!("the {purpose} cannot be written to {}: {error}", path.display());
        if error.kind() == io::ErrorKind::NotFound {
            text.push_str("; create the folder first");
        }
        Failure::new(Code::CannotCreate, text)
    })?;
    // Standard output holds the answer of the server alone.
    drop(writeln!(io::stderr(), "a new {purpose} was written to {}", path.display()));
    Ok(key)
}

fn find(path: &Path, purpose: Purpose) -> Result<Option<Secret>, Failure> {
    private_file::read(path, FILE_BYTES_MAX).map_err(|error| {
        let shown = path.display();
        let (code, mend) = match &error {
            PrivateFileError::Folder => {
                (Code::NoInput, format!("; name the file in it that holds the {purpose}"))
            }
            PrivateFileError::Exposed(_) => (Code::Data, format!("; run chmod 600 {shown}")),
            PrivateFileError::Empty => (Code::Data, format!("; put the {purpose} into it")),
            PrivateFileError::TooLarge(_) => (Code::Data, format!("; it must hold the {purpose} alone")),
            PrivateFileError::Unreadable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                (Code::NoInput, "; it must belong to the user who runs this command".to_owned())
            }
            PrivateFileError::Unreadable(_) => (Code::NoInput, String::new()),
        };
        // A file that is read and holds no token is a token that was not given.
        let is_token = purpose == Purpose::ServerToken && code == Code::Data;
        let code = if is_token { Code::Permission } else { code };
        Failure::new(code, format!("the file {shown} for the {purpose} {error}{mend}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_a_missing_folder_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let made = read_or_make(&path, Purpose::HookSecret).expect("made");
        let again = read_or_make(&path, Purpose::HookSecret).expect("read");
        assert_eq!(made.expose(), again.expose());
        let failure = read_or_make(&path.with_file_name("no/x"), Purpose::HookSecret).expect_err("no folder");
        assert_eq!(failure.code, Code::CannotCreate);
        assert!(failure.message.starts_with("the secret of the hook cannot be written to"), "{failure}");
        assert!(failure.message.ends_with("create the folder first"), "{failure}");
    }
}
