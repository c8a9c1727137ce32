//! Why the token of an issuer opens nothing. The reason is for the log and the audit log of the operator, who
//! sets up the issuer. Callers are told no reason: a reason would help an attacker who forges tokens. No
//! reason repeats any part of a token.

use jsonwebtoken::errors::{Error, ErrorKind};

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is malformed, not genuine, or not valid at this time.
    Invalid(TokenFault),
    /// The token is genuine, and no value of its claims gives a role.
    NoRole,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)+) => {
        /// The fault of a token.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TokenFault { $($(#[$doc])* $name,)+ }

        impl TokenFault {
            /// The fault in one word, as the log and the audit log have it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }
        }
    };
}

faults! {
    /// The token is no JWT, or its claims are no object.
    Malformed = "malformed";
    /// No issuer of the settings, for callers of this route, has the name in `iss`.
    UnknownIssuer = "unknown-issuer";
    /// The header has a `typ` other than JWT, an extension, or says that the token is encrypted.
    Kind = "kind-not-accepted";
    /// The settings of the issuer do not allow the algorithm.
    Algorithm = "algorithm-not-allowed";
    /// The issuer has no key of this id and algorithm, or its keys cannot be fetched.
    NoKey = "no-key";
    /// The signature does not fit the key.
    Signature = "wrong-signature";
    /// `aud` lacks the audience of the settings.
    Audience = "wrong-audience";
    /// A claim that must be there is missing, or has another form.
    Claims = "claims-missing-or-malformed";
    /// The moment in `exp`, with the leeway, is over.
    Expired = "expired";
    /// The moment in `nbf`, with the leeway, is ahead.
    NotYetValid = "not-yet-valid";
    /// The claim of the app has no id of an app.
    NoApp = "no-app";
    /// The app that the claim names does not exist.
    AppUnknown = "app-unknown";
}

impl TokenFault {
    /// The fault that the library found.
    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::InvalidIssuer => Self::UnknownIssuer,
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Self::Algorithm,
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Self::Claims,
            _ => Self::Malformed,
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        Self::Invalid(fault)
    }
}
