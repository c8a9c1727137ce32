//! Verdicts on the published vectors, and what cannot be checked.

use clap::Parser;
use expect_test::{Expect, expect};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    verify: VerifyArgs,
}

const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SIGNATURE: &str = "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const ID: &str = "Webhook-Id: msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT: &str = "webhook-timestamp: 1614265330";

fn check(arguments: &[&str], body: &[u8], seconds: i64, good: bool, expected: &Expect) {
    let plain = arguments.iter().filter(|word| **word != "--json");
    let mut line = Line::parse_from(["verify", "--secret", SECRET].iter().chain(plain));
    line.verify.json = arguments.contains(&"--json");
    let mut output = Vec::new();
    let verdict = verify(&line.verify, Timestamp(seconds * 1000), &mut &*body, &mut output).expect("checked");
    expected.assert_eq(&String::from_utf8(output).expect("text"));
    assert_eq!(verdict, good);
}

#[test]
fn a_verdict_names_the_scheme_or_the_reason() {
    let all = ["-H", ID, "-H", AT, "-H", SIGNATURE];
    check(
        &all,
        BODY,
        1_614_265_331,
        true,
        &expect![[r#"
        Standard Webhooks: valid
        Docora: not signed under this scheme
        authentic
    "#]],
    );
    check(
        &all,
        b"{}",
        1_614_265_331,
        false,
        &expect![[r#"
        Standard Webhooks: not valid: the signature does not match: another secret, or the body was changed on its way
        Docora: not signed under this scheme
        not authentic
    "#]],
    );
    check(
        &all,
        BODY,
        1_614_266_330,
        false,
        &expect![[r#"
        Standard Webhooks: not valid: the timestamp is 1000 s old; at most 300 s are admitted
        Docora: not signed under this scheme
        not authentic
    "#]],
    );
    check(
        &[&all[..], &["--ignore-age", "--json"]].concat(),
        BODY,
        0,
        true,
        &expect![[r#"
        {"docora":{"present":false},"standard_webhooks":{"present":true,"valid":true},"valid":true}
    "#]],
    );
    check(
        &all[2..],
        BODY,
        1_614_265_331,
        false,
        &expect![[r#"
        Standard Webhooks: not valid: the header webhook-id is missing, repeated or not text
        Docora: not signed under this scheme
        not authentic
    "#]],
    );
    check(
        &[],
        BODY,
        0,
        false,
        &expect![[r#"
        Standard Webhooks: not signed under this scheme
        Docora: not signed under this scheme
        not authentic
        no header was given: give those that were received with --header or --headers-file
    "#]],
    );
}

#[test]
fn secrets_and_headers_come_from_files_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let secrets = write("secrets", &format!("the-old-one\n{SECRET}\n"));
    let headers = write("headers", &format!("{ID}\r\n{AT}\n\n{SIGNATURE}\n"));
    let body = write("body", std::str::from_utf8(BODY).expect("text"));
    let line = Line::parse_from([
        "verify",
        "--secret-file",
        &secrets,
        "--headers-file",
        &headers,
        "--ignore-age",
        &body,
    ]);
    let verdict = verify(&line.verify, Timestamp(0), &mut io::empty(), &mut Vec::new());
    assert!(verdict.expect("checked"));
}

#[test]
fn what_cannot_be_checked_is_an_error_and_no_verdict() {
    let run = |arguments: &[&str]| {
        let line = Line::parse_from(["verify"].iter().chain(arguments));
        verify(&line.verify, Timestamp(0), &mut io::empty(), &mut Vec::new())
            .expect_err("an error")
            .to_string()
    };
    assert!(run(&["--secret", ""]).contains("no secret"));
    assert!(run(&["--secret", "s", "-H", "nonsense"]).contains("nonsense"));
    assert!(run(&["--secret-file", "/nowhere/secret"]).contains("/nowhere/secret"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let empty = path("empty", "\n");
    assert_eq!(
        run(&["--secret-file", &empty]),
        format!("the file {empty} is empty; write the secret into it")
    );
    let body = path("body", "a: b\n\n{\"planted\": 1}");
    let said = run(&["--secret", "s", "--headers-file", &body]);
    assert_eq!(said, format!("line 3 of {body} is not a header; write `Name: value`"));
}
