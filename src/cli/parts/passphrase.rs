//! The passphrase of an exported keyring: from a file, or from the environment.

use std::path::PathBuf;

use clap::Args;
use tidings_actors::model::secret::Secret;
use zeroize::Zeroizing;

use crate::cli::{
    Code, Context, Failure, PASSPHRASE_VARIABLE,
    secret_file::{self, Purpose},
};

/// The arguments that say where the passphrase is.
#[derive(Args, Clone, Debug)]
pub(crate) struct PassphraseArgs {
    /// File that holds the passphrase; without this option the variable TIDINGS_PASSPHRASE holds it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseArgs {
    /// The passphrase, without the end of its line.
    ///
    /// # Errors
    /// If the file cannot be read, is readable by others, or is empty.
    pub(crate) fn read(&self, context: &Context) -> Result<Option<Secret>, Failure> {
        let Some(path) = &self.passphrase_file else {
            let set = context.environment.get(PASSPHRASE_VARIABLE);
            return Ok(set.filter(|text| !text.is_empty()).map(Secret::new));
        };
        secret_file::read(path, Purpose::Passphrase)?;
        // Spaces at the ends are part of the passphrase, so the text is not trimmed.
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
            Failure::new(Code::NoInput, format!("{} cannot be read: {error}", path.display()))
        })?;
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(Failure::new(Code::Data, format!("{} holds no passphrase", path.display()))),
            text => Ok(Some(Secret::new(text.to_owned()))),
        }
    }

    /// Reads the passphrase, which must be given.
    ///
    /// # Errors
    /// As [`Self::read`], and a usage error where no passphrase is given.
    pub(crate) fn demand(&self, context: &Context) -> Result<Secret, Failure> {
        self.read(context)?.ok_or_else(|| {
            let text = "a passphrase is needed: --passphrase-file FILE, or the variable TIDINGS_PASSPHRASE";
            Failure::new(Code::Usage, text)
        })
    }
}
