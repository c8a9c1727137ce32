//! Checking signatures of tokens with ring, which TLS uses as well. Nothing here signs.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| match Check::of(*algorithm, key) {
        Ok(check) => Ok(Box::new(check)),
        Err(error) => Err(error),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes ring what signatures of tokens are checked with, in this process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only where it was done before.
        let _was_there = PROVIDER.install_default().is_err();
    });
}

/// A public key with the one algorithm that it is used with.
struct Check {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(&'static dyn VerificationAlgorithm, Vec<u8>),
}

impl Check {
    /// A key of another family than the algorithm's is refused: that is how a public key would
    /// become the secret of a keyed hash.
    fn of(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let key = match (algorithm, key.family(), key.kind()) {
            (Algorithm::RS256, AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                Key::Rsa { n: n.clone(), e: e.clone() }
            }
            (Algorithm::ES256, AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
                Key::Point(&ECDSA_P256_SHA256_FIXED, point.clone())
            }
            (Algorithm::EdDSA, AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => {
                Key::Point(&ED25519, point.clone())
            }
            _ => return Err(ErrorKind::InvalidAlgorithm.into()),
        };
        Ok(Self { algorithm, key })
    }
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], sent: &Vec<u8>) -> Result<(), signature::Error> {
        let outcome = match &self.key {
            Key::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, sent)
            }
            Key::Point(algorithm, point) => UnparsedPublicKey::new(*algorithm, point).verify(message, sent),
        };
        outcome.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
