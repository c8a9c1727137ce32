//! A mail as bytes: headers and two bodies, text and HTML, all of it ASCII. No outside text can begin a
//! header: the subject has no control character, and the addresses were parsed before.

use std::time::{Duration, SystemTime};

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use tidings_actors::time::Timestamp;

use super::{MailServer, templates::Rendered};

/// Most characters of a subject.
const SUBJECT_CHARACTERS_MAX: usize = 150;

/// Writes a mail. Its `Message-ID` is derived only from `id`, so a repeated mail has the same one.
pub(super) fn compose(
    server: &MailServer,
    to: &[Address],
    id: &str,
    rendered: Rendered,
    now: Timestamp,
) -> Result<Vec<u8>, lettre::error::Error> {
    let Rendered { subject, text, html } = rendered;
    let date = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    let mut builder = Message::builder()
        .from(server.from.clone())
        .date(date)
        .message_id(Some(format!("<{id}@{}>", server.hello)))
        .subject(one_line(&subject, SUBJECT_CHARACTERS_MAX))
        // Automatic responders (RFC 3834) must not answer this mail.
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    if let Some(reply_to) = &server.reply_to {
        builder = builder.reply_to(reply_to.clone());
    }
    for address in to {
        builder = builder.to(Mailbox::new(None, address.clone()));
    }
    let message = builder.multipart(MultiPart::alternative_plain_html(text, html))?;
    Ok(message.formatted())
}

/// A text as one line: control characters and invisible ones are escaped, and a long text is cut.
pub(super) fn one_line(text: &str, characters_max: usize) -> String {
    let mut line = String::new();
    for (count, character) in text.trim().chars().enumerate() {
        if count == characters_max {
            line.push('\u{2026}');
            break;
        }
        crate::answer::push_escaped(&mut line, character);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{MailTls, address::AllowList};

    fn server() -> MailServer {
        MailServer {
            host: "mail.example".to_owned(),
            port: 465,
            tls: MailTls::Implicit,
            login: None,
            from: "Tidings \"the server\" <tidings@example.org>".parse().expect("a sender"),
            reply_to: Some("ops@example.org".parse().expect("an address")),
            allow: AllowList::default(),
            hello: "example.org".to_owned(),
        }
    }

    fn written(subject: &str, text: &str) -> String {
        let rendered = Rendered { subject: subject.to_owned(), text: text.to_owned(), html: text.to_owned() };
        let to = [Address::new("ops", "example.org").expect("an address")];
        let mail = compose(&server(), &to, "mail_1_2", rendered, Timestamp(1_000)).expect("a mail");
        String::from_utf8(mail).expect("ASCII")
    }

    /// The names of the headers before the first empty line.
    fn headers(mail: &str) -> Vec<&str> {
        let head = mail.split("\r\n\r\n").next().unwrap_or_default();
        let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
        lines.map(|line| line.split(':').next().unwrap_or_default()).collect()
    }

    #[test]
    fn no_subject_adds_a_header_or_ends_them() {
        let usual = headers(&written("plain", "text")).join(" ");
        for subject in [
            "a\r\nBcc: x@example.net",
            "a\nBcc: x@example.net\n\nbody",
            "a\r\n\r\nbody",
            "a\rb\u{b}c\u{85}d\u{2028}e\u{0}f",
            "=?utf-8?q?a=0D=0ABcc:_x?=",
            "\"quoted\" <x@example.net>",
            "m\u{fc}nchen \u{1f600} \u{202e}evil",
            &"long ".repeat(500),
            &"\u{fc}".repeat(5_000),
        ] {
            let mail = written(subject, "text");
            assert!(mail.is_ascii(), "{subject:?}");
            assert_eq!(headers(&mail).join(" "), usual, "{subject:?}: {mail}");
            assert!(mail.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
        }
        assert_eq!(one_line(" a\r\nb ", 10), "a\\r\\nb");
        assert_eq!(one_line("abcdef", 3), "abc\u{2026}");
    }

    #[test]
    fn the_same_mail_has_the_same_id_and_asks_for_no_answer() {
        let (one, other) = (written("one", "text"), written("other", "text"));
        for mail in [one, other] {
            assert!(mail.contains("\r\nMessage-ID: <mail_1_2@example.org>\r\n"), "{mail}");
            assert!(mail.contains("Auto-Submitted: auto-generated\r\n"), "{mail}");
            assert!(mail.contains("Reply-To: ops@example.org\r\n"), "{mail}");
        }
        let dots = written("dots", "before\r\n.\r\nafter");
        assert!(dots.contains("\r\n.\r\n"), "lettre doubles the dot when it sends: {dots}");
    }
}
