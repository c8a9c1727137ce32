//! What hosts are told of a commit, and what their answers mean.

use tidings_actors::ports::StatusKey;
use tidings_entity::{
    id::{AppId, RepositoryId, WatchId},
    kind::StatusWord,
};
use ulid::Ulid;

use super::*;

fn task(kind: StatusHost, url: &str, word: StatusWord) -> StatusTask {
    StatusTask {
        key: StatusKey {
            watch: WatchId::new(Ulid::nil()),
            commit: "a".repeat(40).parse().expect("a commit"),
        },
        app: AppId::new(Ulid::nil()),
        repository: RepositoryId::new(Ulid::nil()),
        kind,
        host: "git.example".into(),
        url: url.parse().expect("an address"),
        credential: None,
        context: "tidings/docs/two".into(),
        word,
        description: "docs: 12 of 12 delivered".into(),
        told: None,
        tries: 0,
    }
}

fn token() -> Credential {
    Credential::Token { kind: TokenType::Auto, secret: Secret::new("t".to_owned()) }
}

#[test]
fn each_kind_has_its_place_below_the_address_of_the_repository() {
    let commit = "a".repeat(40);
    for (kind, url, expected) in [
        (StatusHost::Github, "https://github.com/one/two", "https://api.github.com/repos/one/two"),
        (StatusHost::Github, "https://octo.ghe.com/one/two.git", "https://api.octo.ghe.com/repos/one/two"),
        (
            StatusHost::Github,
            "https://git.example:8443/one/two",
            "https://git.example:8443/api/v3/repos/one/two",
        ),
        (StatusHost::Gitlab, "https://gitlab.com/a/b/c.git", "https://gitlab.com/api/v4/projects/a%2Fb%2Fc"),
        (StatusHost::Gitea, "https://codeberg.org/one/two", "https://codeberg.org/api/v1/repos/one/two"),
        (
            StatusHost::Gitea,
            "https://x.example/git/one/t%20o",
            "https://x.example/git/api/v1/repos/one/t%20o",
        ),
    ] {
        let found = endpoint(&task(kind, url, StatusWord::Pending), &token());
        let found = found.unwrap_or_else(|_| panic!("{url} has a place"));
        assert_eq!(found.as_str(), format!("{expected}/statuses/{commit}"));
    }
    let bare = task(StatusHost::Gitea, "https://x.example/two", StatusWord::Pending);
    assert!(matches!(endpoint(&bare, &token()), Err(Unanswered::Never(_))));
}

#[test]
fn each_kind_is_told_in_its_own_words() {
    let words = |kind| -> Vec<String> {
        let told = |word: &StatusWord| body(&task(kind, "https://x.example/one/two", *word));
        let state = |word| told(word)["state"].clone();
        StatusWord::ALL.iter().map(state).map(|state| state.as_str().unwrap_or_default().to_owned()).collect()
    };
    let github = ["pending", "success", "failure", "failure", "error", "error", "error"];
    assert_eq!(words(StatusHost::Github), github);
    assert_eq!(words(StatusHost::Gitea), github);
    let gitlab = ["pending", "success", "failed", "failed", "canceled", "canceled", "canceled"];
    assert_eq!(words(StatusHost::Gitlab), gitlab);
}

#[test]
fn a_credential_is_shown_as_the_api_wants_it() {
    let shown = |kind, how, text: &str| {
        let value = authorization(kind, how, &Secret::new(text.to_owned())).ok().expect("a header");
        assert!(value.is_sensitive());
        value.to_str().expect("text").to_owned()
    };
    use StatusHost::{Gitea, Github, Gitlab};
    assert_eq!(shown(Github, TokenType::Auto, "t"), "Bearer t");
    assert_eq!(shown(Github, TokenType::Auto, "u:p"), "Basic dTpw");
    assert_eq!(shown(Gitlab, TokenType::Gitlab, "t"), "Bearer t");
    assert_eq!(shown(Gitlab, TokenType::Basic, "oauth2:t"), "Bearer t");
    assert_eq!(shown(Gitea, TokenType::Auto, "t"), "token t");
    assert_eq!(shown(Gitea, TokenType::Bearer, "t"), "Bearer t");
    assert_eq!(shown(Gitea, TokenType::Auto, "u:p"), "Basic dTpw");
}

#[test]
fn credential_and_name_tell_the_kind() {
    let kind = |url: &str, how| {
        let credential = Credential::Token { kind: how, secret: Secret::new("t".to_owned()) };
        status_host(&url.parse().expect("an address"), Some(&credential))
    };
    assert_eq!(kind("https://github.com/one/two", TokenType::Auto), Some(StatusHost::Github));
    assert_eq!(kind("https://gitlab.example.com/one/two", TokenType::Auto), Some(StatusHost::Gitlab));
    assert_eq!(kind("https://git.example.com/one/two", TokenType::Gitea), Some(StatusHost::Gitea));
    assert_eq!(kind("https://git.example.com/one/two", TokenType::Auto), None);
    assert_eq!(kind("https://bitbucket.org/one/two", TokenType::Auto), None);
}
