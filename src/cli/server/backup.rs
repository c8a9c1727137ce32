//! `tidings backup` and `tidings restore`: on the data directory of the settings, a backup also while
//! a server works in it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use tidings_actors::model::words::counted;

use crate::cli::{
    Code, Context, Failure, folder, output::aligned, passphrase::PassphraseArgs, progress::Progress,
};
use crate::{
    backup::{self, BackupError, KeyringForm, KeyringFrom},
    machine::{MachineClock, MachineRandom},
    secrets::SecretsError,
};

/// Takes a backup of the data directory.
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// The folder to create for the backup; it must not exist yet
    to: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Copy the keyring as it is: anyone who has the backup can read every secret
    #[arg(long, conflicts_with_all = ["passphrase_file", "without_keyring"])]
    plain_keyring: bool,
    /// Leave the keyring out of the backup; keep it elsewhere
    #[arg(long, conflicts_with = "passphrase_file")]
    without_keyring: bool,
}

/// Restores a backup into an empty data directory.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The folder that `tidings backup` created
    from: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// The keyring (plain or exported), for a backup without a keyring
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
}

pub(crate) async fn take(arguments: BackupArgs, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let form = match (arguments.plain_keyring, arguments.without_keyring) {
        (true, _) => KeyringForm::Plain,
        (_, true) => KeyringForm::LeftOut,
        _ => KeyringForm::Sealed(arguments.passphrase.read(context)?.ok_or_else(|| {
            let text = "the keyring goes into a backup under a passphrase: --passphrase-file FILE or the \
                        variable TIDINGS_PASSPHRASE; or say --without-keyring, or --plain-keyring";
            Failure::new(Code::Usage, text)
        })?),
    };
    let progress = Progress::steps();
    let tell = |step| progress.tell(step);
    let taken = backup::take(&settings, &arguments.to, &form, &MachineClock, &MachineRandom, &tell).await;
    drop(progress);
    let manifest = taken.map_err(|error| failed(&error))?;
    let keyring = match form {
        KeyringForm::Sealed(_) => "under the passphrase: without it the backup is of no use",
        KeyringForm::Plain => "unencrypted: a person who reads the backup has every secret in it",
        KeyringForm::LeftOut => "left out: keep it elsewhere",
    };
    let holds = [(manifest.apps, "app"), (manifest.watches, "watch"), (manifest.cursors, "branch")];
    let holds = holds.map(|(number, noun)| counted(number, noun)).join(", ");
    let database = format!("{} bytes, sha256 {}", manifest.database.bytes, manifest.database.sha256);
    let lines = said([
        ("backup", arguments.to.display().to_string()),
        ("taken at", backup::shown(manifest.taken_at)),
        ("database", database),
        ("keyring", keyring.to_owned()),
        ("holds", holds),
    ]);
    context.output.print(&json!({ "path": arguments.to, "manifest": manifest }), &lines)
}

pub(crate) async fn restore(arguments: RestoreArgs, context: &Context) -> Result<(), Failure> {
    let settings = context.settings()?;
    let keyring = KeyringFrom { passphrase: arguments.passphrase.read(context)?, file: arguments.keyring };
    let progress = Progress::steps();
    let tell = |step| progress.tell(step);
    let restored =
        backup::restore(&settings, &arguments.from, &keyring, &MachineClock, &MachineRandom, &tell).await;
    drop(progress);
    let restored = restored.map_err(|error| without_password(failed(&error), &arguments.from))?;
    let resyncs = match restored.resyncs {
        1 => "1 branch will be sent whole in its next round".to_owned(),
        count => format!("{count} branches will be sent whole in their next round"),
    };
    let mut lines = said([
        ("database", restored.database.display().to_string()),
        ("keyring", restored.keyring.display().to_string()),
        ("taken at", backup::shown(restored.manifest.taken_at)),
        ("resyncs", resyncs),
    ]);
    lines.push(
        "Changes since the backup are lost: registrations, tokens, keys of apps and \
         erased apps. See docs/operating.md."
            .to_owned(),
    );
    let value = serde_json::to_value(&restored).map_err(|error| Failure::of_error(Code::Software, &error))?;
    context.output.print(&value, &lines)
}

fn said<const N: usize>(facts: [(&str, String); N]) -> Vec<String> {
    aligned(facts.map(|(name, fact)| vec![name.to_owned(), fact]))
}

/// The failure without the user and the password of an address that was given in place of a folder.
fn without_password(failure: Failure, from: &Path) -> Failure {
    let text = from.display().to_string();
    Failure { message: failure.message.replace(&text, &folder::shown(&text)), ..failure }
}

fn failed(error: &BackupError) -> Failure {
    let code = match error {
        BackupError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Code::NoInput,
        BackupError::File { .. }
        | BackupError::Exists(_)
        | BackupError::OtherBackup(_)
        | BackupError::Used { .. } => Code::CannotCreate,
        BackupError::NoDataDirectory(_) | BackupError::Secrets(SecretsError::File { .. }) => Code::NoInput,
        BackupError::Keyring(_) | BackupError::OnServer => Code::Usage,
        BackupError::Busy(_)
        | BackupError::Clock(_)
        | BackupError::KeyringMoved
        | BackupError::Database(_) => Code::Unavailable,
        BackupError::Damaged(_)
        | BackupError::MissingKey(_)
        | BackupError::Export(_)
        | BackupError::Secrets(_) => Code::Data,
        BackupError::Start(error) => return Failure::of_start(error),
    };
    Failure::of_error(code, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_an_address_in_place_of_a_folder_is_not_repeated() {
        let from = Path::new("postgres://me:hush@h/tidings");
        let failure = Failure::new(Code::Data, format!("{} is no backup", from.display()));
        assert_eq!(without_password(failure, from).message, "[redacted]@h/tidings is no backup");
    }
}
