//! Signing keys of apps. The key is the UTF-8 bytes of a text (the app's `client_auth_key`), so
//! that clients which sign with the text and those which take a Standard Webhooks secret agree.

use std::ops::RangeInclusive;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use tidings_actors::{model::secret::Secret, ports::Random};

use super::token::base62;

/// How many characters an app's own key has.
pub const KEY_CHARACTERS: RangeInclusive<usize> = 16..=500;

/// A new key for an app that gave none: 32 random bytes, written as 43 letters and digits.
#[must_use]
pub fn generate_signing_key(random: &dyn Random) -> Secret {
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    Secret::new(base62(&bytes, 43))
}

/// The key as a Standard Webhooks secret: `whsec_` and the base64 of its bytes.
#[must_use]
pub fn shown_signing_secret(key: &Secret) -> Secret {
    Secret::new(format!("whsec_{}", BASE64.encode(key.expose())))
}
