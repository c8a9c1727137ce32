//! `tidings key`: the keyring that protects secrets at rest.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::json;

use super::{Code, Context, Failure};
use crate::{
    machine::MachineRandom,
    secrets::{Keyring, SecretsError},
};

/// The file in the data directory.
const FILE_NAME: &str = "keyring";

#[derive(Subcommand, Debug)]
pub(super) enum KeyVerb {
    /// Make a keyring; refuses to touch one that is there
    Generate {
        /// Where; missing: in the data directory
        #[arg(long, value_name = "FILE")]
        path: Option<PathBuf>,
    },
    /// Show the ids of the keys
    Status {
        /// Where; missing: in the data directory
        #[arg(long, value_name = "FILE")]
        path: Option<PathBuf>,
    },
}

pub(super) fn run(verb: KeyVerb, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let in_data_dir = settings.data_dir.join(FILE_NAME);
    let (path, keyring) = match verb {
        KeyVerb::Generate { path } => {
            if path.is_none() {
                make_data_dir(&settings.data_dir)?;
            }
            let path = path.unwrap_or(in_data_dir);
            let keyring = Keyring::create(&path, &MachineRandom).map_err(|error| failed(&error))?;
            (path, keyring)
        }
        KeyVerb::Status { path } => {
            let path = path.unwrap_or(in_data_dir);
            let keyring = Keyring::open(&path).map_err(|error| failed(&error))?;
            (path, keyring)
        }
    };
    let status = keyring.status();
    let mut lines = vec![format!("keyring  {}", path.display())];
    lines.extend(status.keys.iter().map(|key| {
        let role = if *key == status.primary { "primary" } else { "old    " };
        format!("{role}  {key}")
    }));
    context.output.print(&json!({ "path": path, "primary": status.primary, "keys": status.keys }), &lines)
}

/// Makes the data directory, for its owner alone, where it is missing.
pub(super) fn make_data_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Failure::new(
            Code::CannotCreate,
            format!("the data directory {} cannot be made: {error}", path.display()),
        )
    })
}

fn failed(error: &SecretsError) -> Failure {
    let code = match error {
        SecretsError::File { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Code::CannotCreate
        }
        SecretsError::File { .. } | SecretsError::Permissions { .. } => Code::Permission,
        _ => Code::Data,
    };
    Failure::of_error(code, error)
}
