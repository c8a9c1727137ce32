//! The kinds of failures of scans, few enough for a label. The row of a source holds the text of the last
//! error; the kind follows from the text alone.

use crate::ports::GitError;

/// The kind of failure of a source's last scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScanTrouble {
    /// The Git host refuses the credential, or it cannot be used.
    Credential,
    /// The Git host shows no such repository to this credential.
    NotFound,
    /// The Git host does not answer, answers too late, or asks to wait.
    Unreachable,
    /// Any other failure: an answer that cannot be used, or a failure on this side.
    Other,
}

impl ScanTrouble {
    /// Every kind of failure.
    pub const ALL: [Self; 4] = [Self::Credential, Self::NotFound, Self::Unreachable, Self::Other];

    /// The label of the kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::Other => "other",
        }
    }

    /// Derives the kind of trouble from the error text in the row of a source.
    #[must_use]
    pub fn of(last_error: &str) -> Self {
        let begins_as = |error: GitError| last_error.starts_with(error.to_string().as_str());
        if begins_as(GitError::Unauthorized) || begins_as(GitError::Credential(String::new())) {
            Self::Credential
        } else if begins_as(GitError::NotFound) {
            Self::NotFound
        } else if begins_as(GitError::Unreachable(String::new()))
            || begins_as(GitError::Timeout(String::new()))
            || begins_as(GitError::RateLimited { retry_after: None })
        {
            Self::Unreachable
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_trouble_follows_from_the_text_of_the_error() {
        let text = || "reset by peer".to_owned();
        for (error, expected) in [
            (GitError::Unauthorized, ScanTrouble::Credential),
            (GitError::Credential(text()), ScanTrouble::Credential),
            (GitError::NotFound, ScanTrouble::NotFound),
            (GitError::Unreachable(text()), ScanTrouble::Unreachable),
            (GitError::Timeout(text()), ScanTrouble::Unreachable),
            (GitError::RateLimited { retry_after: None }, ScanTrouble::Unreachable),
            (GitError::Status(500), ScanTrouble::Other),
            (GitError::Redirected, ScanTrouble::Other),
            (GitError::NoRefs, ScanTrouble::Other),
            (GitError::Refused("no".into()), ScanTrouble::Other),
            (GitError::Protocol(text()), ScanTrouble::Other),
            (GitError::Storage(text()), ScanTrouble::Other),
        ] {
            assert_eq!(ScanTrouble::of(&error.to_string()), expected, "{error}");
        }
        assert_eq!(ScanTrouble::of("the scan crashed"), ScanTrouble::Other);
    }
}
