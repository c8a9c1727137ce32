//! Tokens: `<prefix>_<8-char public id>_<43 base62 of 256 random bits>_<6-char checksum>`. The checksum
//! (CRC32 of all characters before it) detects typing errors, and lets secret scanners recognise tokens,
//! without a look-up; the public id finds the row; the row holds the SHA-256 of the whole token. A slow hash
//! is needed only for guessable secrets; these have 256 random bits.

use subtle::ConstantTimeEq;
use thiserror::Error;
use tidings_actors::{model::secret::Secret, ports::Random};
use tidings_entity::id::Sha256Hash;

/// The prefix of every token of this server.
pub const TOKEN_PREFIX: &str = "tdg";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PUBLIC_ID_CHARS: usize = 8;
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;

/// A text that is no token of the kind asked for. Says nothing about the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a valid token")]
pub struct InvalidToken;

/// A token with a valid form and checksum. Only the store knows whether the token exists.
#[derive(Clone, Debug)]
pub struct Token {
    text: Secret,
    public_id: String,
}

impl Token {
    /// Makes a token with 256 random bits.
    #[must_use]
    pub fn generate(prefix: &str, random: &dyn Random) -> Self {
        let mut name = [0; 8];
        let mut secret = [0; 32];
        random.fill(&mut name);
        random.fill(&mut secret);
        let name = base62(&name, 11);
        let public_id = name[name.len() - PUBLIC_ID_CHARS..].to_owned();
        let body = format!("{prefix}_{public_id}_{}", base62(&secret, SECRET_CHARS));
        let checksum = checksum(&body);
        Self { text: Secret::new(format!("{body}_{checksum}")), public_id }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`InvalidToken`]: another prefix, another form, or a wrong checksum.
    pub fn parse(prefix: &str, text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or(InvalidToken)?;
        let parts: Vec<&str> = rest.split('_').collect();
        let [public_id, secret, sum] = parts[..] else { return Err(InvalidToken) };
        let lengths = [(public_id, PUBLIC_ID_CHARS), (secret, SECRET_CHARS), (sum, CHECKSUM_CHARS)];
        let well_formed = lengths.iter().all(|(part, length)| {
            part.len() == *length && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let (body, _) = text.rsplit_once('_').ok_or(InvalidToken)?;
        if !well_formed || checksum(body) != sum {
            return Err(InvalidToken);
        }
        Ok(Self { text: Secret::new(text.to_owned()), public_id: public_id.to_owned() })
    }

    /// The part that finds the row. Not secret.
    #[must_use]
    pub fn public_id(&self) -> &str {
        &self.public_id
    }

    /// The whole text, shown once.
    #[must_use]
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// SHA-256 of the whole token: the form that is stored.
    #[must_use]
    pub fn hash(&self) -> Sha256Hash {
        Sha256Hash::of(self.text.expose().as_bytes())
    }

    /// Whether this is the token of which `stored` is the hash, in constant time.
    #[must_use]
    pub fn matches(&self, stored: &Sha256Hash) -> bool {
        self.hash().as_bytes().ct_eq(stored.as_bytes()).into()
    }
}

fn checksum(body: &str) -> String {
    base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_CHARS)
}

/// The number that `bytes` are (big-endian), in base 62, with leading zeros up to `width`.
pub(super) fn base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte =
                u8::try_from(value / 62).expect("the remainder is below 62, so the quotient is below 256");
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    zeroize::Zeroize::zeroize(&mut number);
    String::from_utf8(digits).expect("the alphabet is ASCII")
}
