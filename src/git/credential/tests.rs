//! Who is shown what, and what never is.

use base64::{Engine, engine::general_purpose::STANDARD};
use tidings_actors::model::secret::Secret;
use url::Url;

use super::{AppKey, Credential, InvalidCredential, TokenType, authorization, scrub};

/// The key of RFC 7515, appendix A.2: known to everybody.
const KEY: &str = include_str!("../../../tests/keys/rfc7515-a2.pkcs1.pem");

fn url(text: &str) -> Url {
    text.parse().expect("an address")
}

fn token(kind: TokenType, secret: &str) -> Credential {
    Credential::Token { kind, secret: Secret::new(secret.to_owned()) }
}

fn app(api_url: Option<&str>) -> AppKey {
    AppKey {
        app_id: "12345".to_owned(),
        installation_id: 67,
        api_url: api_url.map(url),
        private_key: Secret::new(KEY.to_owned()),
    }
}

#[test]
fn every_host_is_shown_a_token_as_it_wants_it() {
    for (kind, secret, git, shown) in [
        (TokenType::Auto, "tok", "https://github.com/o/r", "Basic x-access-token:tok"),
        (TokenType::Auto, "tok", "https://octo.ghe.com/o/r", "Basic x-access-token:tok"),
        (TokenType::Auto, "tok", "https://gitlab.com/o/r", "Basic oauth2:tok"),
        (TokenType::Auto, "tok", "https://gitlab.example.org:8443/o/r", "Basic oauth2:tok"),
        (TokenType::Auto, "tok", "https://bitbucket.org/o/r", "Basic x-token-auth:tok"),
        (TokenType::Auto, "tok", "https://codeberg.org/o/r", "Basic x-access-token:tok"),
        (TokenType::Auto, "tok", "https://git.example.org/o/r", "Basic x-access-token:tok"),
        (TokenType::Auto, "me:pa:ss", "https://gitlab.com/o/r", "Basic me:pa:ss"),
        (TokenType::Github, "tok", "https://git.example.org/o/r", "Basic x-access-token:tok"),
        (TokenType::Gitlab, "tok", "https://git.example.org/o/r", "Basic oauth2:tok"),
        (TokenType::Gitea, "tok", "https://gitlab.com/o/r", "Basic x-access-token:tok"),
        (TokenType::Bitbucket, "tok", "https://git.example.org/o/r", "Basic x-token-auth:tok"),
        (TokenType::Basic, "deploy:tok", "https://gitlab.com/o/r", "Basic deploy:tok"),
        (TokenType::Basic, "tok:", "https://codeberg.org/o/r", "Basic tok:"),
        (TokenType::Bearer, "a:b", "https://github.com/o/r", "Bearer a:b"),
    ] {
        let credential = token(kind, secret);
        let Ok(Credential::Token { kind, secret }) = Credential::of(&credential.text()) else {
            panic!("a token stays one")
        };
        let value = authorization(kind, &secret, &url(git)).expect("usable");
        assert!(value.is_sensitive());
        let text = value.to_str().expect("text");
        let text = match text.strip_prefix("Basic ") {
            Some(pair) => {
                let pair = STANDARD.decode(pair).expect("base64");
                format!("Basic {}", String::from_utf8(pair).expect("text"))
            }
            None => text.to_owned(),
        };
        assert_eq!(text, shown, "{kind:?} at {git}");
    }
}

#[test]
fn a_credential_survives_its_text_form_and_says_nothing_of_itself() {
    let original = app(Some("https://github.example.com/api/v3"));
    let text = Credential::App(original.clone()).text();
    let Ok(Credential::App(read)) = Credential::of(&text) else { panic!("an app stays one") };
    assert_eq!(
        (read.app_id, read.installation_id, read.api_url),
        (original.app_id, original.installation_id, original.api_url)
    );
    assert_eq!(read.private_key.expose(), KEY);
    assert_eq!(
        token(TokenType::Auto, "plain").text().expose(),
        "plain",
        "what is stored already stays valid"
    );
    assert!(!format!("{:?}{:?}", app(None), token(TokenType::Bearer, "hidden")).contains("hidden"));
    assert!(!format!("{:?}", app(None)).contains("BEGIN"));
    for broken in [
        "\n",
        "\nauto\nx",
        "\nmagic\nx",
        "\ngithub_app\n1\n2",
        "\ngithub_app\n1\nx\n\nkey",
        "\ngithub_app\n1\n2\n::\nkey",
    ] {
        let read = Credential::of(&Secret::new(broken.to_owned()));
        assert_eq!(read.map(drop), Err(InvalidCredential::Text), "{broken:?}");
    }
}

#[test]
fn a_key_signs_only_for_the_host_that_its_tokens_are_shown_to() {
    for (api, git, expected) in [
        (None, "https://github.com/o/r", Some("https://api.github.com/")),
        (None, "https://octo.ghe.com/o/r", Some("https://api.octo.ghe.com/")),
        (None, "https://git.corp.example:8443/o/r", Some("https://git.corp.example:8443/api/v3")),
        (Some("https://api.github.com"), "https://github.com/o/r", Some("https://api.github.com/")),
        (Some("https://git.corp/api/v3"), "https://git.corp/o/r", Some("https://git.corp/api/v3")),
        (Some("https://api.github.com"), "https://evil.example/o/r", None),
        (Some("https://evil.example"), "https://github.com/o/r", None),
        (Some("https://api.github.com.evil.example"), "https://github.com/o/r", None),
        (Some("https://x@api.github.com"), "https://github.com/o/r", None),
        (Some("https://api.github.com/?x"), "https://github.com/o/r", None),
    ] {
        let found = app(api).api(&url(git));
        assert_eq!(found.ok().as_ref().map(Url::as_str), expected, "{api:?} for {git}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_at_once() {
    let https = |url: &Url| url.scheme() == "https";
    let git = url("https://github.com/o/r");
    let key = |text: &str| Credential::App(AppKey { private_key: Secret::new(text.to_owned()), ..app(None) });
    let elliptic = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    for (credential, git, expected) in [
        (token(TokenType::Auto, "tok"), &git, Ok(())),
        (Credential::App(app(None)), &git, Ok(())),
        (key(include_str!("../../../tests/keys/rfc7515-a2.pkcs8.pem")), &git, Ok(())),
        (token(TokenType::Auto, "tok"), &url("http://github.com/o/r"), Err(InvalidCredential::Insecure)),
        (Credential::App(app(None)), &url("http://github.com/o/r"), Err(InvalidCredential::Insecure)),
        (Credential::App(app(Some("http://github.com"))), &git, Err(InvalidCredential::Insecure)),
        (token(TokenType::Basic, "tok"), &git, Err(InvalidCredential::Pair)),
        (token(TokenType::Bearer, "a\u{7}b"), &git, Err(InvalidCredential::Characters)),
        (key("no key"), &git, Err(InvalidCredential::Key)),
        (key(&elliptic), &git, Err(InvalidCredential::Key)),
        (Credential::App(app(Some("https://evil.example"))), &git, Err(InvalidCredential::OtherHost)),
    ] {
        assert_eq!(credential.check(git, https), expected, "{credential:?} at {git}");
    }
}

#[test]
fn the_words_of_a_host_lose_the_credential_that_they_repeat() {
    let git = url("https://gitlab.com/o/r");
    let secret = |text: &str| Secret::new(text.to_owned());
    for (credential, said, kept) in [
        ("planted-token", "no planted-token here", "no [redacted] here"),
        ("planted-token", "you sent b2F1dGgyOnBsYW50ZWQtdG9rZW4=", "you sent [redacted]"),
        ("me:planted-password", "bad planted-password for me", "bad [redacted] for me"),
        ("\nbearer\nplanted-token", "Bearer planted-token", "Bearer [redacted]"),
        ("planted-token", "cut off within planted-", "cut off within [redacted]"),
        ("planted-token", "plain words", "plain words"),
        ("x", "a box of https://user:pw@h/", "a bo[redacted] of https://[redacted]@h/"),
    ] {
        assert_eq!(scrub(said, Some(&secret(credential)), &git), kept);
    }
    assert_eq!(scrub("token ghs_0123 was revoked", None, &git), "token [redacted] was revoked");
}
