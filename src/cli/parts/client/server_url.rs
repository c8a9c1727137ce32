//! The address of a server, as people write it.

use url::Url;

/// Reads the address of a server; the failure says what is missing and how the address is written.
pub(crate) fn server_url(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("{text} has no scheme; write http://{text}"));
    };
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(format!("{scheme} is no scheme of a server; write http://{rest} or https://{rest}"));
    }
    let url = Url::parse(text).map_err(|error| format!("{text} is no address of a server: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the address holds a user or a password; give a token with --token-file".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_told_with_the_scheme() {
        let refused = |text: &str| server_url(text).expect_err(text);
        assert_eq!(refused("127.0.0.1:8080"), "127.0.0.1:8080 has no scheme; write http://127.0.0.1:8080");
        assert_eq!(refused("localhost:8080"), "localhost:8080 has no scheme; write http://localhost:8080");
        assert_eq!(refused("ftp://a"), "ftp is no scheme of a server; write http://a or https://a");
        assert!(refused("http://").contains("is no address of a server"));
        assert!(!refused("https://me:hush@a").contains("hush"));
        assert_eq!(server_url("HTTP://a:1/b").expect("an address").as_str(), "http://a:1/b");
    }
}
