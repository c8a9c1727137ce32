//! The published vectors of both schemes, bit for bit, and what must not verify.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const FIRST: (&str, &str, i64, &str, &str) = (
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "msg_p5jXN8AQM9LWM0D4loKWxJek",
    1_614_265_330,
    r#"{"test": 2432232314}"#,
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
);
const SECOND: (&str, &str, i64, &str, &str) = (
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
    1_649_367_553,
    r#"{"email":"test@example.com","username":"test_user"}"#,
    "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
);

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: http::HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn standard_verdict(
    vector: (&str, &str, i64, &str, &str),
    signature: &str,
    skew: i64,
) -> Result<(), SignatureFault> {
    let (secret, id, at, body, _) = vector;
    let at_text = at.to_string();
    let headers =
        headers(&[("webhook-id", id), ("webhook-timestamp", &at_text), ("webhook-signature", signature)]);
    let keys = SigningKey::readings(secret);
    check(&keys, &headers, body.as_bytes(), Some(at + skew)).standard.expect("the scheme is there")
}

#[test]
fn the_docora_vector_is_bit_exact() {
    let body = concat!(
        r#"{"repository":{"repository_id":"repo_aaaaaaaaaaaaaaaaaaaaaaaa","github_url":"https://github.com/o/r","#,
        r#""owner":"o","name":"r"},"file":{"path":"README.md","#,
        r#""sha":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5,"content":"hello"},"#,
        r#""commit_sha":"cccccccccccccccccccccccccccccccccccccccc","timestamp":"2026-01-01T00:00:00.000Z"}"#
    );
    assert_eq!(body.len(), 348);
    let key = SigningKey::of_text("1234567890123456");
    assert_eq!(
        docora(&key, 1_795_214_604, body.as_bytes()),
        "sha256=856bc6a1805f8f6940a4d763d9dc90bd2193368f6c9e37b694cb0ddfea9e6d2d"
    );
}

#[test]
fn the_standard_webhooks_vectors_are_bit_exact() {
    for (secret, id, at, body, signature) in [FIRST, SECOND] {
        let keys = SigningKey::readings(secret);
        assert_eq!(standard(&keys[..1], id, at, body.as_bytes()), signature);
    }
}

#[test]
fn what_must_fail_fails() {
    for (vector, signature) in [
        (FIRST, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA="),
        (FIRST, "v1,"),
        (FIRST, "v1"),
        (FIRST, "v1,g0hM9SsE"),
        (FIRST, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE"),
        (FIRST, "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (FIRST, "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (FIRST, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (SECOND, "v1,R3PTzyfHASBKHH98a7yexTwaJ4yNIcGhFQc1yuN+BPU="),
        (SECOND, FIRST.4),
    ] {
        assert!(standard_verdict(vector, signature, 0).is_err(), "{signature}");
    }
    assert_eq!(standard_verdict(FIRST, FIRST.4, 301), Err(SignatureFault::TooOld(301)));
    assert_eq!(standard_verdict(FIRST, FIRST.4, -301), Err(SignatureFault::TooNew(301)));
    assert!(SigningKey::readings("").is_empty(), "an empty secret is no key");
    assert!(check(&[], &headers(&[("webhook-id", "x")]), b"", Some(0)).standard.expect("there").is_err());
    let unsigned = check(&SigningKey::readings("k"), &HeaderMap::new(), b"", None);
    assert!(!unsigned.is_good(), "a request without signatures is not good");
}

#[test]
fn a_missing_repeated_or_garbled_header_fails() {
    let (secret, id, at, body, signature) = FIRST;
    let at_text = at.to_string();
    let all = [("webhook-id", id), ("webhook-timestamp", at_text.as_str()), ("webhook-signature", signature)];
    let keys = SigningKey::readings(secret);
    let result = |pairs: &[(&str, &str)]| {
        check(&keys, &headers(pairs), body.as_bytes(), Some(at)).standard.expect("the scheme is there")
    };
    assert_eq!(result(&all), Ok(()));
    for missing in 0..3 {
        let mut rest = all.to_vec();
        let (name, _) = rest.remove(missing);
        assert_eq!(result(&rest), Err(SignatureFault::Header(STANDARD_HEADERS[missing])), "{name}");
        let mut twice = all.to_vec();
        twice.push(all[missing]);
        assert_eq!(result(&twice), Err(SignatureFault::Header(STANDARD_HEADERS[missing])), "{name} twice");
    }
    for garbled in ["hello", "1e9", "", " 1", "1614265330.0", "99999999999999999999"] {
        let pairs = [all[0], ("webhook-timestamp", garbled), all[2]];
        assert!(result(&pairs).is_err(), "{garbled:?}");
    }
}

#[test]
fn what_must_pass_passes() {
    let noise = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
    for list in [
        format!("{noise} v2,{} {} {noise}", &FIRST.4[3..], FIRST.4),
        format!(
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== {}",
            FIRST.4
        ),
        format!("what-ever {}", FIRST.4),
    ] {
        assert_eq!(standard_verdict(FIRST, &list, 0), Ok(()), "{list}");
    }
    assert_eq!(standard_verdict(FIRST, FIRST.4, 300), Ok(()));
    assert_eq!(standard_verdict(FIRST, FIRST.4, -300), Ok(()));
}

#[test]
fn during_a_rotation_either_key_verifies() {
    let keys = || [SigningKey::of_text("the new key"), SigningKey::of_text("the old key")];
    let signature = standard(&keys(), "id", 1_000, b"{}");
    assert_eq!(signature.split(' ').count(), 2);
    let headers =
        headers(&[("webhook-id", "id"), ("webhook-timestamp", "1000"), ("webhook-signature", &signature)]);
    for key in keys() {
        assert!(check(&[key], &headers, b"{}", Some(1_000)).is_good());
    }
    assert!(!check(&[SigningKey::of_text("another")], &headers, b"{}", Some(1_000)).is_good());
}

#[test]
fn one_bad_scheme_spoils_a_good_one() {
    let key = SigningKey::of_text("key");
    let good = standard(std::slice::from_ref(&key), "id", 1_000, b"{}");
    let mut all =
        headers(&[("webhook-id", "id"), ("webhook-timestamp", "1000"), ("webhook-signature", &good)]);
    all.insert("x-docora-timestamp", HeaderValue::from_static("1000"));
    let forged = docora(&SigningKey::of_text("other"), 1_000, b"{}");
    all.insert("x-docora-signature", HeaderValue::from_str(&forged).expect("a value"));
    let verdict = check(std::slice::from_ref(&key), &all, b"{}", Some(1_000));
    assert_eq!((verdict.standard.clone(), verdict.is_good()), (Some(Ok(())), false));
    all.insert("x-docora-signature", HeaderValue::from_str(&docora(&key, 1_000, b"{}")).expect("a value"));
    assert!(check(&[key], &all, b"{}", Some(1_000)).is_good());
}

#[test]
fn stale_or_bare_headers_are_known_before_the_body() {
    let fresh = headers(&[("x-docora-timestamp", "1000"), ("x-docora-signature", "sha256=00")]);
    assert_eq!(check_freshness(&fresh, 1_300), Ok(()));
    assert!(check_freshness(&fresh, 1_301).is_err());
    assert!(check_freshness(&HeaderMap::new(), 1_000).is_err());
}

#[test]
fn a_secret_reads_back_as_the_key_it_was_made_of() {
    let key = SigningKey::of_text("1234567890123456");
    let readings = SigningKey::readings(&key.standard_secret());
    assert_eq!(standard(&readings[..1], "a", 1, b"x"), standard(&[key], "a", 1, b"x"));
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_one_flipped_bit_does_not(
        secret in "[ -~]{1,64}", id in "[a-z0-9_]{1,40}", at in 0_i64..4_000_000_000, body: Vec<u8>, flip: usize,
    ) {
        let keys = [SigningKey::of_text(&secret)];
        let at_text = at.to_string();
        let all = headers(&[
            ("webhook-id", &id), ("webhook-timestamp", &at_text),
            ("webhook-signature", &standard(&keys, &id, at, &body)),
            ("x-docora-timestamp", &at_text), ("x-docora-signature", &docora(&keys[0], at, &body)),
        ]);
        prop_assert!(check(&SigningKey::readings(&secret), &all, &body, Some(at)).is_good());
        let mut changed = body.clone();
        if changed.is_empty() { changed.push(0) } else { let at = flip % changed.len(); changed[at] ^= 1 }
        let verdict = check(&keys, &all, &changed, Some(at));
        prop_assert_eq!(verdict.standard, Some(Err(SignatureFault::Mismatch)));
        prop_assert_eq!(verdict.docora, Some(Err(SignatureFault::Mismatch)));
    }
}
