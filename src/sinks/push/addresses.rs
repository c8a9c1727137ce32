//! A cache of parsed addresses: a lane needs the same three again and again, and parsing takes longer than a
//! lookup.

use std::collections::HashMap;

use parking_lot::RwLock;
use url::{ParseError, Url};

/// The most addresses that are remembered; beyond it all are forgotten.
const KEPT: usize = 4_096;

/// Addresses by their text.
#[derive(Default)]
pub(super) struct Addresses(RwLock<HashMap<String, Url>>);

impl Addresses {
    /// The parsed address of this text.
    ///
    /// # Errors
    /// If the text is no valid address.
    pub(super) fn of(&self, text: String) -> Result<Url, ParseError> {
        if let Some(known) = self.0.read().get(&text) {
            return Ok(known.clone());
        }
        let url = Url::parse(&text)?;
        let mut known = self.0.write();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(text, url.clone());
        Ok(url)
    }
}

/// The address of a request of this kind; trailing slashes of the base address are not doubled.
pub(super) fn below(base_url: &str, word: &str) -> String {
    format!("{}/{word}", base_url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_of_a_base_address_does_not_double() {
        for base in ["https://app.example", "https://app.example/", "https://app.example//"] {
            assert_eq!(below(base, "create"), "https://app.example/create");
        }
        assert_eq!(below("https://app.example/in/", "sync_failed"), "https://app.example/in/sync_failed");
    }

    #[test]
    fn addresses_are_what_their_text_says_however_many_there_are() {
        let addresses = Addresses::default();
        for number in 0..2 * KEPT {
            let text = format!("https://app.example/{number}/create");
            for _ in 0..2 {
                assert_eq!(addresses.of(text.clone()).expect("an address").as_str(), text);
            }
            assert!(addresses.0.read().len() <= KEPT);
        }
        assert!(addresses.of("no address".to_owned()).is_err());
    }
}
