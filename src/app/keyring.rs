//! The keyring at a start. A new or given keyring is written to its file only after the store opened the
//! database with it, so that a refused start leaves no wrong keyring behind.

use tidings_actors::ports::Random;
use tracing::info;

use super::{KEYRING, StartError};
use crate::{secrets::Keyring, settings::Settings};

/// The keyring of the data directory; if there is none, the keyring of the settings, or a new one.
pub(super) fn open(settings: &Settings, random: &dyn Random) -> Result<Keyring, StartError> {
    let path = settings.data_dir.join(KEYRING);
    if path.exists() {
        return Ok(Keyring::open(&path)?);
    }
    let keyring = match &settings.keyring_file {
        Some(given) => Keyring::open_given(given).map_err(StartError::GivenKeyring)?,
        None => Keyring::generate(random),
    };
    Ok(keyring.destined_for(&path))
}

/// Logs where the keyring of the data directory came from, at the start that stored it.
pub(super) fn tell(settings: &Settings) {
    let path = settings.data_dir.join(KEYRING);
    let path = path.display();
    match &settings.keyring_file {
        Some(given) => info!("the keyring {} was copied to {path}", given.display()),
        None => {
            info!(
                "a keyring was made at {path}: keep a copy of it, without which all sealed secrets are \
                 lost"
            );
        }
    }
}
