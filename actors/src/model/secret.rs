//! A text that must never be shown: no `Debug`, no `Display`, no serde, no `==`; wiped when dropped. Code
//! that needs the bytes calls [`Secret::expose`], which is easy to search for.

use std::fmt;

use zeroize::Zeroize;

/// A secret text: a Git credential, a signing key.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret text, for the one line of code that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
