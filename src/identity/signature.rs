//! Checking signatures of tokens with ring, which TLS uses as well. Nothing here signs.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| match Check::of(*algorithm, key) {
        Ok(check) => Ok(Box::new(check)),
        Err(error) => Err(error),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes ring the provider for checking JWT signatures in this process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The call fails only if a provider was installed before.
        let _was_there = PROVIDER.install_default().is_err();
    });
}

/// A public key with the one algorithm that it is used with.
struct Check {
    algorithm: Algorithm,
    key: VerifyingKey,
}

enum VerifyingKey {
    Rsa {
        hash: &'static RsaParameters,
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point of a curve, or an RSA key as DER.
    Bytes(&'static dyn VerificationAlgorithm, Vec<u8>),
}

impl Check {
    /// A key of another kind than the algorithm's is refused: otherwise a public key could be used as the
    /// secret of an HMAC.
    fn of(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let rsa = match algorithm {
            Algorithm::RS256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            _ => None,
        };
        let curve: Option<(AlgorithmFamily, &'static dyn VerificationAlgorithm)> = match algorithm {
            Algorithm::ES256 => Some((AlgorithmFamily::Ec, &ECDSA_P256_SHA256_FIXED)),
            Algorithm::ES384 => Some((AlgorithmFamily::Ec, &ECDSA_P384_SHA384_FIXED)),
            Algorithm::EdDSA => Some((AlgorithmFamily::Ed, &ED25519)),
            _ => None,
        };
        let key = match (rsa, curve, key.kind()) {
            (Some(hash), _, DecodingKeyKind::RsaModulusExponent { n, e })
                if key.family() == AlgorithmFamily::Rsa =>
            {
                VerifyingKey::Rsa { hash, n: n.clone(), e: e.clone() }
            }
            (Some(hash), _, DecodingKeyKind::SecretOrDer(der)) if key.family() == AlgorithmFamily::Rsa => {
                VerifyingKey::Bytes(hash, der.clone())
            }
            (_, Some((family, curve)), DecodingKeyKind::SecretOrDer(point)) if key.family() == family => {
                VerifyingKey::Bytes(curve, point.clone())
            }
            _ => return Err(ErrorKind::InvalidAlgorithm.into()),
        };
        Ok(Self { algorithm, key })
    }
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], sent: &Vec<u8>) -> Result<(), signature::Error> {
        let outcome = match &self.key {
            VerifyingKey::Rsa { hash, n, e } => RsaPublicKeyComponents { n, e }.verify(hash, message, sent),
            VerifyingKey::Bytes(algorithm, point) => {
                UnparsedPublicKey::new(*algorithm, point).verify(message, sent)
            }
        };
        outcome.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
