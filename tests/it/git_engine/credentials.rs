//! Credentials on the wire: tokens of GitHub Apps are minted once for all and renewed, and what
//! lets us in goes to its host alone.

use std::{net::TcpListener, sync::Arc};

use tidings::git::credential::{AppKey, Credential};
use tidings_actors::{
    model::secret::Secret,
    ports::{GitError, Location, Remote},
};
use tokio::task::JoinSet;

use super::{Desk, in_time};
use crate::support::{
    git_host::Fault,
    github_api::{APP_ID, GithubApi, INSTALLATION, KEY},
};

const MAIN: &[&str] = &["refs/heads/main"];

fn remote(desk: &Desk, api: &GithubApi) -> Remote {
    let key = AppKey {
        app_id: APP_ID.to_owned(),
        installation_id: INSTALLATION,
        api_url: Some(api.url().parse().expect("an address")),
        private_key: Secret::new(KEY.to_owned()),
    };
    Remote { credential: Some(Credential::App(key).text()), ..desk.remote("r.git") }
}

async fn house() -> (Desk, GithubApi) {
    let desk = Desk::new().await;
    desk.host.repository("r.git").commit("main", &[("a", Some(("100644", b"1")))]);
    desk.host.demand(&format!("x-access-token:{}", GithubApi::token(1)));
    (desk, GithubApi::start())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_is_minted_for_all_polls_that_need_it() {
    let (desk, api) = house().await;
    let (desk, api) = (Arc::new(desk), api);
    let mut polls = JoinSet::new();
    for _ in 0..20 {
        let (desk, remote) = (Arc::clone(&desk), remote(&desk, &api));
        polls.spawn(async move { desk.list(&remote, MAIN).await.map(drop) });
    }
    for polled in in_time(polls.join_all()).await {
        polled.expect("every poll is let in");
    }
    let seen = api.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].body, br#"{"permissions":{"contents":"read"}}"#, "no more rights than needed");
    for seen in desk.host.take_seen() {
        assert!(!seen.path.contains("PLANTED") && !seen.body.contains("PLANTED"), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_when_it_expires_and_when_it_is_refused() {
    let (desk, api) = (Desk::new().await, GithubApi::start());
    desk.host.repository("r.git").commit("main", &[("a", Some(("100644", b"1")))]);
    let remote = remote(&desk, &api);
    api.let_tokens_expire("1980-01-01T00:00:00Z");
    desk.list(&remote, MAIN).await.expect("everybody is let in");
    let before = api.seen().len() as u64;
    assert_eq!(before, 2, "discovery and listing had one each, because none lives on");
    desk.host.demand(&format!("x-access-token:{}", GithubApi::token(before + 1)));
    api.let_tokens_expire("2999-01-01T00:00:00Z");
    desk.list(&remote, MAIN).await.expect("the old one has expired, so there is a new one");
    assert_eq!(api.seen().len() as u64, before + 1);

    desk.host.demand(&format!("x-access-token:{}", GithubApi::token(before + 2)));
    desk.list(&remote, MAIN).await.expect("the refused one is replaced");
    assert_eq!(api.seen().len() as u64, before + 2);

    desk.host.demand("x-access-token:another");
    let error = desk.list(&remote, MAIN).await.expect_err("a fresh one does not help");
    assert!(matches!(error, GitError::Unauthorized), "{error}");
    assert_eq!(api.seen().len() as u64, before + 3, "one more try, not a loop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_a_typed_failure_that_all_share() {
    for (status, lines, code) in [
        (401, "", "auth_failed"),
        (404, "", "auth_failed"),
        (422, "", "auth_failed"),
        (403, "retry-after: 60\r\n", "rate_limited"),
        (500, "", "host_error"),
        (302, "location: http://127.0.0.1:1/\r\n", "redirected"),
        (200, "", "protocol_error"),
    ] {
        let (desk, api) = house().await;
        let remote = remote(&desk, &api);
        api.refuse(Some((status, lines)));
        for _ in 0..5 {
            let error = desk.list(&remote, MAIN).await.expect_err("refused");
            assert_eq!(error.code(), code, "{status}: {error}");
        }
        assert_eq!(api.seen().len(), 1, "{status}: the API is not pressed");
        assert!(desk.host.take_seen().is_empty(), "{status}: nobody asks the host without a token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_app_signs_nothing_that_this_one_would() {
    let (desk, api) = house().await;
    let mut remote = remote(&desk, &api);
    let text = remote.credential.as_ref().expect("there").expose().replace(APP_ID, "1");
    remote.credential = Some(Secret::new(text));
    let error = desk.list(&remote, MAIN).await.expect_err("refused");
    assert!(matches!(&error, GitError::Credential(text) if text.contains("401")), "{error}");
    assert!(!format!("{error:?}").contains("eyJ"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_takes_no_credential_along() {
    let desk = Desk::new().await;
    desk.host.repository("r.git").commit("main", &[("a", Some(("100644", b"1")))]);
    desk.host.demand("x-access-token:sesame");
    let canary = TcpListener::bind("127.0.0.1:0").expect("a free port");
    canary.set_nonblocking(true).expect("a flag");
    let remote = desk.with_credential("r.git", "sesame");
    desk.list(&remote, MAIN).await.expect("let in");
    let address = canary.local_addr().expect("bound");
    desk.host.set_fault(Some(Fault::Moved(format!("http://{address}/r.git/git-upload-pack"))));
    let error = desk.list(&remote, MAIN).await.expect_err("moved");
    assert!(matches!(error, GitError::Redirected), "{error}");
    assert!(canary.accept().is_err(), "somebody followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_to_another_machine_never_sees_a_credential() {
    let desk = Desk::new().await;
    let anonymous = desk.remote("r.git");
    // 127.0.0.2 is this machine; 192.0.2.1 is nobody's, and would time out if it were asked.
    let elsewhere = Location::Http("http://192.0.2.1:8080/r.git".parse().expect("an address"));
    for secret in ["token", "user:password", "\nbearer\ntoken"] {
        let remote = Remote {
            location: elsewhere.clone(),
            credential: Some(Secret::new(secret.to_owned())),
            ..anonymous.clone()
        };
        let error = desk.list(&remote, MAIN).await.expect_err("refused");
        assert!(matches!(&error, GitError::Credential(text) if text.contains("https")), "{error}");
    }
}
