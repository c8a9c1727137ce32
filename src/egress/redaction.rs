//! Removes credentials from texts of other systems, before they are shown or stored.

/// What replaces a credential.
pub const MARK: &str = "[redacted]";

/// Prefixes of tokens of known services; the token ends at the first character that tokens do not contain.
const TOKEN_PREFIXES: &[&str] = &[
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "whsec_",
    "tdg_",
    "docora_",
    "xoxb-",
    "xoxp-",
];

/// Words before a credential, compared without regard to case.
const INTRODUCTIONS: &[&str] = &["bearer ", "basic ", "token=", "password=", "secret=", "access_token="];

/// The text without user information in addresses, without known tokens, and without what follows
/// `Bearer`, `token=` and the like.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let at_word = clean.chars().next_back().is_none_or(|before| !before.is_ascii_alphanumeric());
        if let Some(after) = rest.strip_prefix("://") {
            let authority = after.find(|c: char| c.is_whitespace() || "/?#'\"<>".contains(c));
            let authority = &after[..authority.unwrap_or(after.len())];
            clean.push_str("://");
            rest = after;
            if let Some(at) = authority.rfind('@') {
                clean.push_str(MARK);
                rest = &after[at..];
            }
        } else if let Some(prefix) =
            TOKEN_PREFIXES.iter().find(|prefix| at_word && rest.starts_with(**prefix))
        {
            rest = skip(&rest[prefix.len()..]);
            clean.push_str(MARK);
        } else if let Some(word) = INTRODUCTIONS.iter().find(|word| at_word && begins(rest, word)) {
            clean.push_str(&rest[..word.len()]);
            let after = skip(&rest[word.len()..]);
            if after.len() < rest.len() - word.len() {
                clean.push_str(MARK);
            }
            rest = after;
        } else {
            clean.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    clean
}

fn begins(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// The text after the token that it begins with.
fn skip(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.~+/=%".contains(c)));
    &text[end.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn credentials_go_and_the_rest_stays() {
        for (text, clean) in [
            (
                "fatal: could not read Password for 'https://hunter2@github.com'",
                "fatal: could not read Password for 'https://[redacted]@github.com'",
            ),
            ("https://user:p@ss@host/x?y=user@z", "https://[redacted]@host/x?y=user@z"),
            ("bad ghp_0123456789abcdefABCDEF here", "bad [redacted] here"),
            ("github_pat_11AA_bb, glpat-xyz", "[redacted], [redacted]"),
            ("Authorization: bearer abc.def-123", "Authorization: bearer [redacted]"),
            ("GET /x?token=abc&y=1", "GET /x?token=[redacted]&y=1"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "[redacted]"),
            ("no secret: https://example.org/a@b näh", "no secret: https://example.org/a@b näh"),
            ("", ""),
        ] {
            assert_eq!(redact(text), clean);
        }
    }
}
