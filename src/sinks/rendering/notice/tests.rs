//! Every notice, byte for byte, and what is kept out of its texts.

use std::sync::Arc;

use expect_test::expect;
use tidings_actors::{
    model::round::{RoundSpec, Summary},
    ports::GitError,
    time::Timestamp,
};
use tidings_entity::{
    id::{Sha256Hash, WatchId},
    kind::{PayloadFormat, RoundKind},
};
use ulid::Ulid;

use super::*;

fn repository() -> RepositoryFacts {
    RepositoryFacts {
        repository_id: WatchId::new(Ulid::from_parts(1, 3)),
        github_url: "https://github.com/o/r".into(),
        owner: "o".into(),
        name: "r".into(),
    }
}

fn text(letter: &Letter) -> &str {
    std::str::from_utf8(&letter.body).expect("JSON is UTF-8")
}

fn failed(error: GitError) -> Letter {
    render(
        &Notice::SyncFailed {
            id: DeliveryId::from_stored("dlv_n".into()),
            repository: repository(),
            error,
            consecutive_failures: 5,
            threshold: 5,
            cooldown_until: Timestamp(1_767_227_400_000),
            timestamp: Timestamp(1_767_225_600_000),
        },
        PayloadFormat::Docora,
    )
}

#[test]
fn sync_failed_has_these_bytes() {
    let letter = failed(GitError::Unauthorized);
    expect![[r#"{"event":"sync_failed","repository":{"repository_id":"repo_00000000010000000000000003","github_url":"https://github.com/o/r","owner":"o","name":"r"},"error":{"type":"git_failure","message":"the Git host refuses the credential"},"circuit_breaker":{"status":"open","consecutive_failures":5,"threshold":5,"cooldown_until":"2026-01-01T00:30:00.000Z"},"retry_count":4,"timestamp":"2026-01-01T00:00:00.000Z","error_type":"auth_failed","error_message":"the Git host refuses the credential"}"#]]
        .assert_eq(text(&letter));
    assert_eq!((letter.action, letter.timeout), (Action::SyncFailed, Some(Duration::from_secs(10))));
}

#[test]
fn a_notice_never_carries_a_credential() {
    let letter = failed(GitError::Unreachable("https://ghp_hush@github.com: token=hush ghp_hush".into()));
    assert!(!text(&letter).contains("hush"), "{}", text(&letter));
}

#[test]
fn notices_of_a_round_name_it() {
    let round = |complete| Round {
        cursor: CursorId::new(Ulid::from_parts(1, 1)),
        number: 7,
        spec: RoundSpec { kind: RoundKind::Resync, held: None, target: None, bases: vec![], letters: vec![] },
        summary: Summary { deletes: 1, creates: 2, updates: 0, digest: Sha256Hash::of(b"") },
        rules: 1,
        began_at: Timestamp(1_767_225_600_000),
        branch: "refs/heads/main".into(),
        url: "https://github.com/o/r".into(),
        format: PayloadFormat::Docora,
        history_rewritten: false,
        skipped_commits: false,
        complete,
        position: 0,
    };
    let notice = |action, complete| {
        let notice = Notice::OfRound { action, round: Arc::new(round(complete)), repository: repository() };
        render(&notice, PayloadFormat::Docora)
    };
    let resync = notice(Action::Resync, true);
    let id = DeliveryId::of_notice(&CursorId::new(Ulid::from_parts(1, 1)), 7, "resync");
    assert_eq!(resync.id, id);
    let expected = expect![[
        r#"{"event":{"id":"ID","type":"resync","cursor":"cur_00000000010000000000000001","branch":"main","round":7,"total":3,"complete":true},"repository":{"repository_id":"repo_00000000010000000000000003","github_url":"https://github.com/o/r","owner":"o","name":"r"},"timestamp":"2026-01-01T00:00:00.000Z"}"#
    ]];
    expected.assert_eq(&text(&resync).replace(id.as_str(), "ID"));
    let synced = notice(Action::Synced, false);
    assert!(!text(&synced).contains("complete") && synced.timeout.is_none());
    assert_ne!(synced.id, resync.id);
}

#[test]
fn sync_recovered_has_these_bytes() {
    let letter = render(
        &Notice::SyncRecovered {
            id: DeliveryId::from_stored("dlv_n".into()),
            repository: repository(),
            timestamp: Timestamp(0),
        },
        PayloadFormat::Docora,
    );
    expect![[r#"{"event":{"id":"dlv_n","type":"sync_recovered"},"repository":{"repository_id":"repo_00000000010000000000000003","github_url":"https://github.com/o/r","owner":"o","name":"r"},"timestamp":"1970-01-01T00:00:00.000Z"}"#]]
        .assert_eq(text(&letter));
}
