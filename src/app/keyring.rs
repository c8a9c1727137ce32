//! The keyring of a start. One that is made or given becomes a file only once the database is known to open
//! with it: the store sees to that, so that a start which is refused leaves no wrong keyring behind.

use tidings_actors::ports::Random;
use tracing::info;

use super::KEYRING;
use crate::{
    secrets::{Keyring, SecretsError},
    settings::Settings,
};

/// The keyring of the data directory; where there is none, the one that the settings give, or a new one.
pub(super) fn open(settings: &Settings, random: &dyn Random) -> Result<Keyring, SecretsError> {
    let path = settings.data_dir.join(KEYRING);
    if path.exists() {
        return Keyring::open(&path);
    }
    let keyring = match &settings.keyring_file {
        Some(given) => Keyring::open_given(given)?,
        None => Keyring::generate(random),
    };
    Ok(keyring.destined_for(&path))
}

/// Says where the keyring of the data directory comes from, at the start that put it there.
pub(super) fn tell(settings: &Settings) {
    let path = settings.data_dir.join(KEYRING);
    let path = path.display();
    match &settings.keyring_file {
        Some(given) => info!("the keyring {} was copied to {path}", given.display()),
        None => {
            info!("a keyring was made at {path}: keep a copy of it, what it seals is lost without it");
        }
    }
}
