//! Hooks as hosts send them: the samples in `samples` have the shape of the hosts' own
//! documentation, the first vector is GitHub's.

use data_encoding::HEXLOWER;
use expect_test::{Expect, expect};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use proptest::prelude::*;
use sha2::Sha256;
use tidings_actors::model::secret::Secret;
use tidings_entity::kind::{BodyFate, HookProvider, ReceiptReason};
use url::form_urlencoded;

use super::{
    envelope::Envelope,
    kept::{read_again, to_keep},
    payload::{ADDRESSES_MAX, InvalidPayload, read},
};
use crate::sinks::signature::{SigningKey, standard};
use HookProvider::{Gitea, Github, Gitlab};

const SECRET: &str = "It's a Secret to Everybody";
const NOW: i64 = 1_700_000_000;

macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!("samples/", $name, ".json"))
    };
}

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new((*text).to_owned())).collect()
}

fn mac(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(body);
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let json = ("content-type", "application/json");
    let has_type = fields.iter().any(|(name, _)| *name == "content-type");
    let all = fields.iter().chain((!has_type).then_some(&json));
    all.map(|(name, value)| {
        let name: HeaderName = name.parse().expect("a name");
        (name, value.parse().expect("a value"))
    })
    .collect()
}

fn prove(
    provider: HookProvider,
    fields: &[(&str, &str)],
    known: &[&str],
    body: &[u8],
) -> Result<(), ReceiptReason> {
    let envelope = Envelope::of(provider, &headers(fields)).expect("JSON or a form");
    assert!(envelope.has_proof() || envelope.prove(&secrets(known), body, NOW).is_err());
    envelope.prove(&secrets(known), body, NOW).map(drop)
}

#[test]
fn githubs_published_vector_holds_and_nothing_near_it_does() {
    let body = b"Hello, World!";
    let digits = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let check = |value: &str, known: &[&str], body: &[u8]| {
        prove(Github, &[("x-hub-signature-256", value)], known, body)
    };
    let good = format!("sha256={digits}");
    assert_eq!(check(&good, &[SECRET], body), Ok(()));
    assert_eq!(check(&good, &["the next secret", SECRET], body), Ok(()), "rotation");
    let wrong = Err(ReceiptReason::WrongSignature);
    assert_eq!(check(&good, &["another secret"], body), wrong);
    assert_eq!(check(&good, &[], body), wrong);
    assert_eq!(check(&good, &[SECRET], b"Hello, World"), wrong);
    assert_eq!(check(&good.replace("757", "756"), &[SECRET], body), wrong);
    let none = Err(ReceiptReason::NoSignature);
    for value in [digits, &format!("sha1={digits}"), "sha256=", &good[..good.len() - 2], &format!("{good}00")]
    {
        assert_eq!(check(value, &[SECRET], body), none, "{value}");
    }
    let twice = [("x-hub-signature-256", good.as_str()), ("x-hub-signature-256", good.as_str())];
    let mut both = headers(&[]);
    for (name, value) in twice {
        both.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
    }
    assert!(!Envelope::of(Github, &both).expect("JSON").has_proof(), "which of the two?");
    assert_eq!(prove(Github, &[("x-hub-signature", "sha1=00")], &[SECRET], body), none);
    assert_eq!(prove(Github, &[("x-gitlab-token", SECRET)], &[SECRET], body), none, "GitHub has no token");
}

#[test]
fn gitlab_proves_with_its_token_or_with_a_fresh_signature() {
    let body = sample!("gitlab-push");
    let token = |given: &str, known: &[&str]| prove(Gitlab, &[("x-gitlab-token", given)], known, body);
    assert_eq!(token(SECRET, &["the next secret", SECRET]), Ok(()));
    for wrong in ["It's a Secret to Everybod", "It's a Secret to Everybody!", "another"] {
        assert_eq!(token(wrong, &[SECRET]), Err(ReceiptReason::WrongSignature), "{wrong}");
    }
    assert_eq!(token("", &[SECRET]), Err(ReceiptReason::NoSignature));

    // A signing token is a Standard Webhooks secret: base64 of 32 bytes.
    let key = SigningKey::of_text("an example of a key of 32 bytes!");
    let secret = key.standard_secret();
    let signed = |at: i64, known: &[&str], body: &[u8]| {
        let signature = standard(std::slice::from_ref(&key), "msg_1", at, sample!("gitlab-push"));
        let at = at.to_string();
        let fields = [("webhook-id", "msg_1"), ("webhook-timestamp", &at), ("webhook-signature", &signature)];
        prove(Gitlab, &fields, known, body)
    };
    assert_eq!(signed(NOW - 299, &[SECRET, &secret], body), Ok(()));
    assert_eq!(signed(NOW - 301, &[&secret], body), Err(ReceiptReason::WrongTime));
    assert_eq!(signed(NOW + 301, &[&secret], body), Err(ReceiptReason::WrongTime));
    assert_eq!(signed(NOW, &[SECRET], body), Err(ReceiptReason::WrongSignature));
    assert_eq!(signed(NOW, &[&secret], b"{}"), Err(ReceiptReason::WrongSignature));
}

#[test]
fn gitea_and_forgejo_prove_with_bare_digits_or_like_github() {
    let body = sample!("gitea-push");
    let digits = mac(SECRET, body);
    let like_github = format!("sha256={digits}");
    for (name, value) in [
        ("x-gitea-signature", digits.as_str()),
        ("x-forgejo-signature", &digits),
        ("x-gogs-signature", &digits),
        ("x-hub-signature-256", &like_github),
    ] {
        assert_eq!(prove(Gitea, &[(name, value)], &["the next secret", SECRET], body), Ok(()), "{name}");
        assert_eq!(
            prove(Gitea, &[(name, value)], &["another secret"], body),
            Err(ReceiptReason::WrongSignature),
            "{name}"
        );
    }
    let one_is_wrong = [("x-gitea-signature", &mac("old", body)[..]), ("x-hub-signature-256", &like_github)];
    assert_eq!(prove(Gitea, &one_is_wrong, &[SECRET], body), Ok(()));
    assert_eq!(prove(Gitea, &[("x-gitea-signature", "")], &[SECRET], body), Err(ReceiptReason::NoSignature));
}

fn form(json: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(json).expect("text");
    form_urlencoded::Serializer::new(String::new()).append_pair("payload", text).finish().into_bytes()
}

#[test]
fn a_form_is_signed_as_it_is_sent_by_github_and_as_its_json_by_gitea() {
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    let body = form(sample!("github-push"));
    let sent = format!("sha256={}", mac(SECRET, &body));
    let inner = format!("sha256={}", mac(SECRET, sample!("github-push")));
    let check = |provider, value: &str| {
        prove(provider, &[form_type, ("x-hub-signature-256", value)], &[SECRET], &body)
    };
    assert_eq!(check(Github, &sent), Ok(()));
    assert_eq!(check(Github, &inner), Err(ReceiptReason::WrongSignature));
    assert_eq!(check(Gitea, &sent), Ok(()));
    assert_eq!(check(Gitea, &inner), Ok(()));
    let plain = read(Github, "push", false, sample!("github-push"));
    assert_eq!(read(Github, "push", true, &body), plain);
    for body in [&b"payload"[..], b"other=1", b"payload=1&payload=2", b""] {
        assert!(read(Github, "push", true, body).is_err(), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_delivery_is_named_by_its_host_or_by_nobody() {
    let of = |provider, fields: &[(&str, &str)]| {
        let envelope = Envelope::of(provider, &headers(fields)).expect("JSON");
        (envelope.delivery, envelope.event)
    };
    let named = |delivery: &str, event: &str| (Some(delivery.to_owned()), event.to_owned());
    let github = [("x-github-delivery", "1"), ("x-github-event", "push")];
    assert_eq!(of(Github, &github), named("1", "push"));
    assert_eq!(of(Gitea, &github), named("1", "push"));
    assert_eq!(of(Gitea, &[("x-gitea-delivery", "2"), ("x-forgejo-delivery", "2")]), named("2", ""));
    let gitlab = [("x-gitlab-event-uuid", "1"), ("idempotency-key", "2"), ("x-gitlab-event", "Push Hook")];
    assert_eq!(of(Gitlab, &gitlab), named("2", "Push Hook"));
    assert_eq!(of(Gitlab, &[("webhook-id", "3"), ("idempotency-key", "2")]), named("3", ""));
    assert_eq!(of(Github, &[("x-github-delivery", &"x".repeat(129))]), (None, String::new()));
    assert!(Envelope::of(Github, &HeaderMap::new()).is_none());
    for kind in ["text/plain", "application/json-not", ""] {
        assert!(Envelope::of(Github, &headers(&[("content-type", kind)])).is_none(), "{kind}");
    }
    let zipped = headers(&[("content-type", "application/json"), ("content-encoding", "gzip")]);
    assert!(Envelope::of(Github, &zipped).is_none());
    assert!(
        !Envelope::of(Github, &headers(&[("content-type", "Application/JSON; charset=utf-8")]))
            .expect("JSON")
            .form
    );
}

fn check(provider: HookProvider, event: &str, body: &[u8], expected: &Expect) {
    let text = match read(provider, event, false, body) {
        Ok(payload) => format!(
            "{} {}\n{}",
            payload.news,
            payload.ref_name.as_deref().unwrap_or("-"),
            payload.addresses.join("\n")
        ),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&text);
}

#[test]
fn each_sample_of_github_names_what_moved_and_where() {
    check(
        Github,
        "push",
        sample!("github-push"),
        &expect![[r#"
        push refs/heads/main
        https://github.com/octo-org/hello-world
        http://github.com/octo-org/hello-world"#]],
    );
    check(
        Github,
        "push",
        sample!("github-deletion"),
        &expect![[r#"
        deletion refs/tags/simple-tag
        https://github.com/octo-org/hello-world
        http://github.com/octo-org/hello-world"#]],
    );
    check(
        Github,
        "create",
        sample!("github-create"),
        &expect![[r#"
        push refs/heads/release/1
        https://github.com/octo-org/hello-world
        http://github.com/octo-org/hello-world"#]],
    );
    check(
        Github,
        "ping",
        sample!("github-ping"),
        &expect![[r#"
        ping -
        https://github.com/octo-org/hello-world
        http://github.com/octo-org/hello-world"#]],
    );
    check(
        Github,
        "issues",
        sample!("github-ping"),
        &expect![[r#"
        other -
        https://github.com/octo-org/hello-world
        http://github.com/octo-org/hello-world"#]],
    );
}

#[test]
fn each_sample_of_gitlab_and_gitea_names_what_moved_and_where() {
    check(
        Gitlab,
        "Push Hook",
        sample!("gitlab-push"),
        &expect![[r#"
        push refs/heads/main
        https://gitlab.example/group/sub/diaspora
        http://gitlab.example/group/sub/diaspora"#]],
    );
    check(
        Gitlab,
        "Push Hook",
        sample!("gitlab-deletion"),
        &expect![[r#"
        deletion refs/heads/old
        https://gitlab.example/mike/diaspora
        http://gitlab.example/mike/diaspora"#]],
    );
    check(
        Gitlab,
        "Tag Push Hook",
        sample!("gitlab-tag"),
        &expect![[r#"
        push refs/tags/v1.0.0
        https://gitlab.example/mike/diaspora
        http://gitlab.example/mike/diaspora"#]],
    );
    check(
        Gitlab,
        "Merge Request Hook",
        sample!("gitlab-merge-request"),
        &expect![[r#"
        other -
        https://gitlab.example/mike/diaspora
        http://gitlab.example/mike/diaspora"#]],
    );
    check(
        Gitea,
        "push",
        sample!("gitea-push"),
        &expect![[r#"
        push refs/heads/develop
        https://gitea.example:3000/gitea/webhooks
        http://gitea.example:3000/gitea/webhooks
        https://gitea.example/gitea/webhooks
        http://gitea.example/gitea/webhooks"#]],
    );
    check(
        Gitea,
        "delete",
        sample!("gitea-delete"),
        &expect![[r#"
        deletion refs/heads/old
        https://gitea.example:3000/gitea/webhooks
        http://gitea.example:3000/gitea/webhooks
        https://gitea.example/gitea/webhooks
        http://gitea.example/gitea/webhooks"#]],
    );
}

#[test]
fn a_repository_that_moved_is_looked_for_under_its_former_addresses_too() {
    check(
        Github,
        "repository",
        sample!("github-renamed"),
        &expect![[r#"
        repository -
        https://github.com/octo-org/hello-there
        http://github.com/octo-org/hello-there
        https://github.com/octo-org/hello-world
        http://github.com/octo-org/hello-world"#]],
    );
    check(
        Github,
        "repository",
        sample!("github-transferred"),
        &expect![[r#"
        repository -
        https://github.com/octo-org/hello-world
        http://github.com/octo-org/hello-world
        https://github.com/octocat/hello-world
        http://github.com/octocat/hello-world"#]],
    );
}

#[test]
fn what_no_host_sends_is_refused_and_what_a_host_may_add_is_not() {
    for (provider, event, body, error) in [
        (Github, "push", &b""[..], InvalidPayload::Json),
        (Github, "push", b"[1", InvalidPayload::Json),
        (Github, "push", b"{\"ref\":5}", InvalidPayload::Json),
        (Github, "push", b"{}", InvalidPayload::Ref),
        (Github, "push", b"{\"ref\":\"\"}", InvalidPayload::Ref),
        (Github, "push", b"{\"ref\":\"refs/heads/a\\nb\"}", InvalidPayload::Ref),
        (Github, "push", b"{\"ref\":\"a\",\"ref\":\"b\"}", InvalidPayload::Json),
        (Gitlab, "Push Hook", b"{\"object_kind\":\"push\"}", InvalidPayload::Ref),
        (Gitlab, "Push Hook", b"{\"object_kind\":\"push\",\"project\":7}", InvalidPayload::Json),
        (Gitlab, "Push Hook", b"\xff", InvalidPayload::Json),
    ] {
        assert_eq!(read(provider, event, false, body), Err(error), "{}", String::from_utf8_lossy(body));
    }
    let deep = [b"{\"x\":".repeat(100_000).as_slice(), b"1"].concat();
    assert!(read(Github, "push", false, &deep).is_err());
    for (provider, event, body) in [
        (Github, "watch", &b"not even JSON"[..]),
        (Gitlab, "Job Hook", b"{\"object_kind\":\"build\",\"ref\":5,\"project\":\"x\"}"),
        (Gitlab, "System Hook", b"{\"event_name\":\"user_create\"}"),
        (Github, "push", b"{\"ref\":\"refs/heads/a\",\"repository\":{\"id\":[{}]},\"new\":{\"a\":[1,2]}}"),
    ] {
        let payload = read(provider, event, false, body).expect("readable");
        assert!(payload.addresses.is_empty());
    }
}

#[test]
fn no_local_path_and_no_secret_in_an_address_is_taken_for_one() {
    for address in ["file:///srv/r", "/srv/r", "https://u:p@h.example/o/r", "git://h.example/o/r", "ext::x"] {
        let body = serde_json::json!({ "ref": "refs/heads/a", "repository": { "clone_url": address } });
        let payload = read(Github, "push", false, body.to_string().as_bytes()).expect("readable");
        assert_eq!(payload.addresses, Vec::<String>::new(), "{address}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in any::<Vec<u8>>(), which in 0_usize..3, form in any::<bool>(), event in "push|create|delete|repository|ping|.{0,8}") {
        let _judged = read(HookProvider::ALL[which], &event, form, &body);
    }

    #[test]
    fn any_sample_with_a_hole_in_it_is_read_or_refused(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..8), which in 0_usize..4) {
        let (provider, event, sample) = [
            (Github, "push", &sample!("github-push")[..]),
            (Github, "repository", sample!("github-transferred")),
            (Gitlab, "", sample!("gitlab-push")),
            (Gitea, "push", sample!("gitea-push")),
        ][which];
        let at = at.index(sample.len());
        let end = (at + bytes.len()).min(sample.len());
        let body = [&sample[..at], &bytes, &sample[end..]].concat();
        if let Ok(payload) = read(provider, event, false, &body) {
            prop_assert!(payload.addresses.len() <= ADDRESSES_MAX);
            prop_assert!(payload.ref_name.is_none_or(|name| name.len() <= 1_024));
        }
    }

    #[test]
    fn any_headers_are_read(name in "[a-z-]{1,20}", value in "[ -~]{0,40}", which in 0_usize..3) {
        let provider = HookProvider::ALL[which];
        if let Some(envelope) = Envelope::of(provider, &headers(&[(&name, &value)])) {
            prop_assert!(envelope.prove(&secrets(&[SECRET]), b"x", NOW).is_err());
        }
    }
}

#[test]
fn what_is_kept_of_a_request_proves_nothing_and_is_read_again_as_it_was() {
    let body = sample!("github-push");
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", std::str::from_utf8(body).expect("text"))
        .finish();
    let long = "x".repeat(257);
    let fields = [
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("user-agent", "GitHub-Hookshot/044aadd"),
        ("x-github-event", "push"),
        ("x-github-delivery", long.as_str()),
        ("x-hub-signature", "sha1=00"),
        ("x-hub-signature-256", "sha256=00"),
        ("x-gitlab-token", SECRET),
        ("webhook-signature", "v1,00"),
        ("x-gitea-signature", "00"),
        ("authorization", "Bearer 00"),
        ("cookie", "a=00"),
    ];
    let kept = to_keep(&headers(&fields), form.as_bytes(), 1 << 20);
    assert_eq!((kept.note.fate, kept.note.size_bytes), (BodyFate::Kept, form.len() as u64));
    let request = kept.request.expect("kept");
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-type", "user-agent", "x-github-event"]);
    let again = read_again(Github, "push", &request).expect("read");
    assert_eq!(Ok(again), read(Github, "push", false, body));

    let fate = |body: &[u8], ring: u64| {
        let kept = to_keep(&headers(&[]), body, ring);
        (kept.note.fate, kept.request.is_some())
    };
    assert_eq!(fate(&[b'x'; 65_536], 1 << 20), (BodyFate::Kept, true));
    assert_eq!(fate(&[b'x'; 65_537], 1 << 20), (BodyFate::TooLarge, false));
    assert_eq!(fate(b"\xff", 1 << 20), (BodyFate::NotText, false));
    assert_eq!(fate(b"{}", 0), (BodyFate::Off, false));
}
