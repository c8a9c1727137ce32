//! Mails of entries: which template, bounded, and harmless whatever the entries hold.

use tidings_actors::{
    model::round::DeliveryId,
    ports::{EntryId, MailRange, Origin},
};
use tidings_entity::{
    id::{AppId, LedgerId, SubscriptionId},
    kind::OriginKind,
};
use ulid::Ulid;

use super::*;
use crate::mail::templates::{Rendered, Templates};

fn entry(number: i64, entry_type: EntryType, data: Value) -> LedgerEntry {
    LedgerEntry {
        id: EntryId { ledger: LedgerId::new(Ulid::from_parts(1, 1)), number },
        app: AppId::new(Ulid::from_parts(1, 2)),
        at: Timestamp(1_795_600_000_000),
        entry_type,
        watch: None,
        subject: "cur_7".into(),
        origin: Origin { kind: OriginKind::Outside, name: "git".into() },
        cause: None,
        data: data.to_string(),
    }
}

fn written(entries: Vec<LedgerEntry>, gap: Option<Gap>) -> (Template, Rendered) {
    let (first, last) = (1, entries.len() as i64);
    let digest = Digest { range: MailRange { first, last }, entries, gap, is_full: false };
    let message = SubscriptionMessage {
        id: DeliveryId::from_stored("mail_1".into()),
        app: AppId::new(Ulid::from_parts(1, 2)),
        subscription: SubscriptionId::new(Ulid::from_parts(1, 3)),
        name: "ops".into(),
        content: SubscriptionContent::Digest(digest),
        timestamp: Timestamp(0),
        is_codeq: false,
    };
    let (template, data) = of(&message);
    (template, Templates::new().render(template, &data).expect("a mail"))
}

#[test]
fn a_digest_says_which_command_a_dead_task_had_and_what_its_worker_said() {
    let dead = |number| {
        let data = json!({ "command": "index", "error": "exit code 3", "attempts": 5 });
        entry(number, EntryType::TaskDead, data)
    };
    let (template, mail) = written(vec![dead(1), dead(2)], None);
    assert_eq!(template, Template::Digest);
    assert!(mail.text.contains("command: index, error: exit code 3"), "{}", mail.text);
}

#[test]
fn each_type_has_its_template_and_says_where_it_happened() {
    let data = json!({ "repository": "acme/docs", "branch": "main", "reason": "status 503", "round": 12 });
    for (entry_type, template, subject) in [
        (EntryType::RoundEnded, Template::WorkflowCompleted, "[Tidings] acme/docs main: round 12 ended"),
        (EntryType::WatchBlocked, Template::WorkflowFailed, "[Tidings] acme/docs main is blocked"),
        (EntryType::LetterParked, Template::JobFailed, "[Tidings] acme/docs main: a change was given up"),
        (EntryType::SinkClosed, Template::Entry, "[Tidings] the endpoint of acme/docs main works again"),
    ] {
        let (chosen, mail) = written(vec![entry(7, entry_type, data.clone())], None);
        assert_eq!((chosen, mail.subject.as_str()), (template, subject));
        for (body, place) in [(&mail.text, "acme/docs main"), (&mail.html, "acme&#x2f;docs main")] {
            assert!(body.contains(place) && body.contains("2026-11-2"), "{body}");
        }
    }
}

#[test]
fn the_subject_says_what_happened_and_where() {
    let repository = json!({ "repository": "acme/docs", "branch": "main" });
    let with = |more: Value| {
        let mut data = repository.clone();
        for (name, value) in more.as_object().expect("fields") {
            data[name] = value.clone();
        }
        data
    };
    for (entry_type, data, subject) in [
        (
            EntryType::SourceFailing,
            json!({ "url": "https://git.example/a.git", "reason": "404" }),
            "https://git.example/a.git cannot be read",
        ),
        (
            EntryType::LetterParked,
            with(json!({ "count": 1, "path": "docs/a.md" })),
            "acme/docs main: the change of docs/a.md was given up",
        ),
        (
            EntryType::LetterParked,
            with(json!({ "count": 12, "path": "docs/a.md" })),
            "acme/docs main: 12 changes were given up",
        ),
        (EntryType::WatchPaused, json!({ "repository": "acme/docs" }), "acme/docs is paused"),
        (EntryType::SinkOpened, json!({}), "the endpoint of cur_7 fails"),
        (
            EntryType::StatusEnded,
            json!({ "host": "github.com", "commit": "0123456789abcdef" }),
            "github.com is told no more statuses of the commit 0123456",
        ),
        (
            EntryType::TaskDead,
            json!({ "command": "mail.send" }),
            "the task mail.send cur_7 has no attempts left",
        ),
        (
            EntryType::TaskEnded,
            json!({ "command": "mail.send", "state": "failed" }),
            "the task mail.send cur_7 is failed",
        ),
    ] {
        let (_, mail) = written(vec![entry(7, entry_type, data)], None);
        assert_eq!(mail.subject, format!("[Tidings] {subject}"));
        assert!(mail.text.starts_with(&format!("{subject}.\n")), "{}", mail.text);
    }
}

#[test]
fn a_digest_of_a_thousand_names_all_of_them_and_is_bounded() {
    let hostile = "\u{1f4a3}<&>\r\n".repeat(2_000);
    for reason in ["status 503", &hostile] {
        let data = json!({ "repository": "r".repeat(5_000), "branch": reason, "reason": reason });
        let all = (1..=1_000).map(|number| entry(number, EntryType::LetterParked, data.clone()));
        let (template, mail) = written(all.collect(), None);
        assert_eq!(template, Template::Digest);
        assert_eq!(mail.subject, "[Tidings] 1000 entries for ops: 1000 letter.parked");
        for number in [1, 2, 499, 500, 999, 1_000] {
            assert!(mail.text.contains(&format!("\n#{number}  2026")) || number == 1, "{number}");
            assert!(mail.html.contains(&format!("<td>#{number}</td>")), "{number}");
        }
        assert_eq!(mail.html.matches("<td>#").count(), 1_000);
        let (text, html) = (mail.text.len(), mail.html.len());
        assert!(text < 300_000 && html < 2_000_000, "{text} and {html} bytes");
        assert!(!mail.html.contains("<&>"), "what entries hold is escaped");
    }
}

#[test]
fn what_entries_hold_cannot_end_a_line_or_begin_a_tag() {
    let text = "a\r\nBcc: x@y.z\n---\n\"<script>alert(1)</script>' m\u{fc}nchen {{ 7 * 7 }}";
    let data = json!({ "repository": text, "reason": text, "path": text });
    for entries in [1, 2] {
        let all = (1..=entries).map(|number| entry(number, EntryType::WatchBlocked, data.clone()));
        let (_, mail) = written(all.collect(), None);
        for body in [&mail.subject, &mail.text, &mail.html] {
            assert!(!body.contains("\nBcc") && !body.contains("\r"), "{body}");
            assert!(!body.contains("= 49") && !body.contains(" 49"), "data is no template: {body}");
        }
        assert!(!mail.html.contains("<script"), "{}", mail.html);
        assert!(mail.text.contains("m\u{fc}nchen {{ 7 * 7 }}"), "{}", mail.text);
    }
}

#[test]
fn a_gap_is_told_also_without_entries() {
    let gap = Some(Gap { first: 3, last: 9 });
    let (_, mail) = written(Vec::new(), gap);
    assert!(mail.text.contains("The entries 3 to 9 were gone"), "{}", mail.text);
    let (template, mail) = written(vec![entry(10, EntryType::SinkOpened, json!({}))], gap);
    assert_eq!(template, Template::Digest);
    assert!(mail.text.contains("The entries 3 to 9") && mail.text.contains("#10"), "{}", mail.text);
    assert!(mail.html.contains("The entries 3 to 9"), "{}", mail.html);
}
