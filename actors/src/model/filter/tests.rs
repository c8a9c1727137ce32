//! What filters mean: trees, refusals, and rows that they admit.

mod chance;

use expect_test::{Expect, expect};
use tidings_entity::kind::{HistoryMode, LetterStatus, Operation, ParkReason, SinkKind, WatchState};

use super::{
    BYTES_MAX, DEPTH_MAX, Expression, Field, FieldKind, FieldSet, Filter, Glob, GlobReach, Record, TERMS_MAX,
    Value,
    sets::{ALL, DELIVERIES, LETTERS, REPOSITORIES},
};
use crate::time::Timestamp;

/// The fixed present of these tests, 2026-01-31T12:00:00Z, in milliseconds.
const NOW: Timestamp = Timestamp(1_769_860_800_000);

fn filter(text: &str) -> Filter {
    Filter::parse(text, &LETTERS, NOW).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

/// The tree, so that its shape is seen.
fn drawn(expression: &Expression) -> String {
    let all = |name: &str, parts: &[Expression]| {
        let parts: String = parts.iter().map(|part| format!(" {}", drawn(part))).collect();
        format!("({name}{parts})")
    };
    match expression {
        Expression::All(parts) => all("all", parts),
        Expression::Any(parts) => all("any", parts),
        Expression::Not(inner) => format!("(not {})", drawn(inner)),
        Expression::Term(term) => term.to_string(),
    }
}

fn check(texts: &[&str], expected: &Expect) {
    let lines = texts.iter().map(|text| match Filter::parse(text, &LETTERS, NOW) {
        Ok(filter) => format!("{text:?} => {}\n", drawn(filter.expression())),
        Err(fault) => format!("{text:?} => {fault}\n"),
    });
    expected.assert_eq(&lines.collect::<String>());
}

#[test]
fn terms_side_by_side_bind_stronger_than_or_and_weaker_than_not() {
    check(
        &[
            "",
            "  \n\t ",
            "a",
            "a b c",
            "a AND b",
            "a OR b c OR d",
            "NOT a b",
            "NOT (a b)",
            "NOT NOT a",
            "(a OR b) c",
            "((a)) (b (c d))",
            "a(b)OR(c)",
            "or and not ORDER NOTE",
            "\"OR\" \"NOT\"",
        ],
        &expect![[r#"
            "" => (all)
            "  \n\t " => (all)
            "a" => a
            "a b c" => (all a b c)
            "a AND b" => (all a b)
            "a OR b c OR d" => (any a (all b c) d)
            "NOT a b" => (all (not a) b)
            "NOT (a b)" => (not (all a b))
            "NOT NOT a" => (not (not a))
            "(a OR b) c" => (all (any a b) c)
            "((a)) (b (c d))" => (all a (all b (all c d)))
            "a(b)OR(c)" => (any (all a b) c)
            "or and not ORDER NOTE" => (all or and not order note)
            "\"OR\" \"NOT\"" => (all or not)
        "#]],
    );
}

#[test]
fn values_are_read_by_the_kind_of_their_field() {
    check(
        &[
            "state:open app:Docs path:docs/** name:~Read \"a Phrase\" NOT (a OR b)",
            "state:OPEN status:500",
            "since:2026-01-31T13:00:00+01:00 until:2026-01-31T12:00:00.5Z",
            "since:-30s since:-15m since:-2h since:-7d since:-2w",
            "since:-99999999w",
            "app:\"an app\" name:\"\" answer:~\"a \\\"b\\\" \\\\ \\c\"",
            "path:\"a \\*(b)/**\" path:~\"docs/\" path:docs/",
            "repository:o/r app:app_01H",
            "a:b:c",
        ],
        &expect![[r#"
            "state:open app:Docs path:docs/** name:~Read \"a Phrase\" NOT (a OR b)" => (all state:open app:docs path:docs/** name:~read "a phrase" (not (any a b)))
            "state:OPEN status:500" => (all state:open status:500)
            "since:2026-01-31T13:00:00+01:00 until:2026-01-31T12:00:00.5Z" => (all since:2026-01-31T12:00:00.000Z until:2026-01-31T12:00:00.500Z)
            "since:-30s since:-15m since:-2h since:-7d since:-2w" => (all since:2026-01-31T11:59:30.000Z since:2026-01-31T11:45:00.000Z since:2026-01-31T10:00:00.000Z since:2026-01-24T12:00:00.000Z since:2026-01-17T12:00:00.000Z)
            "since:-99999999w" => since:1970-01-01T00:00:00.000Z
            "app:\"an app\" name:\"\" answer:~\"a \\\"b\\\" \\\\ \\c\"" => (all app:"an app" name:"" answer:~"a \"b\" \\ \\c")
            "path:\"a \\*(b)/**\" path:~\"docs/\" path:docs/" => (all path:"a \\*(b)/**" path:~docs/ path:docs/)
            "repository:o/r app:app_01H" => (all repository:o/r app:app_01h)
            "a:b:c" => column 1: dead letters have no field "a"; they have: app, repository, name, path, kind, reason, state, status, answer, since, until. In quotation marks it is a text to search for
        "#]],
    );
}

#[test]
fn a_fault_is_named_with_its_column_and_what_works() {
    check(
        &[
            "ünï stat:open",
            "foo:bar",
            ":x",
            "https://git.example/o/r",
            "state:",
            "state:opn",
            "state:~open",
            "status:five",
            "status:-1",
            "status:~5",
            "since:yesterday",
            "since:-2y",
            "since:-h",
            "since:--2h",
            "since:-99999999999999999999w",
            "since:~-2h",
            "app:",
            "name: docs",
            "path:!docs/**",
            "a (",
            "app:~",
            "name:~\"\"",
            "path:/docs/**",
            "path:docs/[",
            "path:",
            "a )",
            ")",
            "(a",
            "()",
            "(a OR)",
            "a OR",
            "OR a",
            "a OR OR b",
            "AND a",
            "a AND",
            "a AND OR b",
            "a AND AND b",
            "NOT",
            "NOT OR a",
            "(NOT)",
            "\"\"",
            "\"a",
            "a \"b\\\"",
            "a\"b\"",
            "name:a\"b\"",
            "\"a\"b",
            "\"a\"\"b\"",
            "a\u{0}b",
        ],
        &expect![[r#"
            "ünï stat:open" => column 5: dead letters have no field "stat" (did you mean state?); they have: app, repository, name, path, kind, reason, state, status, answer, since, until. In quotation marks it is a text to search for
            "foo:bar" => column 1: dead letters have no field "foo"; they have: app, repository, name, path, kind, reason, state, status, answer, since, until. In quotation marks it is a text to search for
            ":x" => column 1: dead letters have no field ""; they have: app, repository, name, path, kind, reason, state, status, answer, since, until. In quotation marks it is a text to search for
            "https://git.example/o/r" => column 1: dead letters have no field "https"; they have: app, repository, name, path, kind, reason, state, status, answer, since, until. In quotation marks it is a text to search for
            "state:" => column 7: state takes one of: open, redrive_requested, redriven, superseded, dismissed; not ""
            "state:opn" => column 7: state takes one of: open, redrive_requested, redriven, superseded, dismissed; not "opn"
            "state:~open" => column 8: state takes one of: open, redrive_requested, redriven, superseded, dismissed; not "~open"
            "status:five" => column 8: status takes a whole number, not "five"
            "status:-1" => column 8: status takes a whole number, not "-1"
            "status:~5" => column 9: status takes a whole number, not a part of one
            "since:yesterday" => column 7: since takes a moment of RFC 3339, such as 2026-01-31T12:00:00Z, or a time before now: -30s, -15m, -2h, -7d or -2w; not "yesterday"
            "since:-2y" => column 7: since takes a moment of RFC 3339, such as 2026-01-31T12:00:00Z, or a time before now: -30s, -15m, -2h, -7d or -2w; not "-2y"
            "since:-h" => column 7: since takes a moment of RFC 3339, such as 2026-01-31T12:00:00Z, or a time before now: -30s, -15m, -2h, -7d or -2w; not "-h"
            "since:--2h" => column 7: since takes a moment of RFC 3339, such as 2026-01-31T12:00:00Z, or a time before now: -30s, -15m, -2h, -7d or -2w; not "--2h"
            "since:-99999999999999999999w" => column 7: since takes a moment of RFC 3339, such as 2026-01-31T12:00:00Z, or a time before now: -30s, -15m, -2h, -7d or -2w; not "-99999999999999999999w"
            "since:~-2h" => column 8: since takes a moment of RFC 3339, such as 2026-01-31T12:00:00Z, or a time before now: -30s, -15m, -2h, -7d or -2w; not "~-2h"
            "app:" => column 5: behind `app:` stands an id or a name
            "name: docs" => column 6: a value is missing behind `name:`; it follows without a space
            "path:!docs/**" => column 6: a glob does not begin with `!`; write `NOT path:docs/**`
            "a (" => column 4: a term and a `)` are missing at the end
            "app:~" => column 6: behind `app:~` stands a part of the text
            "name:~\"\"" => column 7: behind `name:~` stands a part of the text
            "path:/docs/**" => column 6: the glob "/docs/**" matches no path: paths begin at the root of the repository; write "docs/**"
            "path:docs/[" => column 6: the glob "docs/[" is not valid: unclosed character class; missing ']'
            "path:" => column 6: a glob has 1 to 1024 bytes
            "a )" => column 3: no `(` opens this `)`
            ")" => column 1: no `(` opens this `)`
            "(a" => column 1: no `)` closes this `(`
            "()" => column 2: a term is missing before this `)`
            "(a OR)" => column 6: a term is missing before this `)`
            "a OR" => column 5: `OR` stands between two terms; in quotes it is a word to search for
            "OR a" => column 1: `OR` stands between two terms; in quotes it is a word to search for
            "a OR OR b" => column 6: `OR` stands between two terms; in quotes it is a word to search for
            "AND a" => column 1: `AND` stands between two terms; in quotes it is a word to search for
            "a AND" => column 3: `AND` stands between two terms; in quotes it is a word to search for
            "a AND OR b" => column 3: `AND` stands between two terms; in quotes it is a word to search for
            "a AND AND b" => column 7: `AND` stands between two terms; in quotes it is a word to search for
            "NOT" => column 1: `NOT` stands before a term; in quotes it is a word to search for
            "NOT OR a" => column 1: `NOT` stands before a term; in quotes it is a word to search for
            "(NOT)" => column 2: `NOT` stands before a term; in quotes it is a word to search for
            "\"\"" => column 1: there is nothing between these quotation marks
            "\"a" => column 1: no quotation mark closes this one; write `\"` for one inside
            "a \"b\\\"" => column 3: no quotation mark closes this one; write `\"` for one inside
            "a\"b\"" => column 2: a quotation mark stands inside a word; put the whole value between quotation marks
            "name:a\"b\"" => column 7: a quotation mark stands inside a word; put the whole value between quotation marks
            "\"a\"b" => column 4: a space is missing behind the quotation mark
            "\"a\"\"b\"" => column 4: a space is missing behind the quotation mark
            "a\0b" => column 2: '\0' cannot stand in a filter
        "#]],
    );
}

#[test]
fn a_long_text_many_terms_and_deep_ones_are_refused_at_the_first_that_is_too_much() {
    let refused = |text: String| Filter::parse(&text, &LETTERS, NOW).expect_err("refused").to_string();
    let long = "ü".repeat(BYTES_MAX / 2);
    assert!(Filter::parse(&long, &LETTERS, NOW).is_ok());
    assert_eq!(refused(format!("{long}a")), "column 513: the filter has 1025 bytes; it may have 1024");
    let many = vec!["a"; TERMS_MAX].join(" ");
    assert!(Filter::parse(&many, &LETTERS, NOW).is_ok());
    assert_eq!(refused(format!("{many} b")), "column 65: a filter has at most 32 terms");
    let deep = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&deep(DEPTH_MAX), &LETTERS, NOW).is_ok());
    let reason = "column 17: at most 16 parentheses and `NOT` may stand around a term";
    assert_eq!(refused(deep(DEPTH_MAX + 1)), reason);
    assert!(refused(format!("{}a", "NOT ".repeat(DEPTH_MAX + 1))).starts_with("column 65: at most 16"));
    let beside = vec!["(NOT a)"; TERMS_MAX].join(" ");
    assert!(Filter::parse(&beside, &LETTERS, NOW).is_ok(), "what is closed counts no more");
}

#[test]
fn what_a_filter_prints_is_longer_than_what_was_given_and_is_read_again() {
    let text = vec!["since:-2h"; TERMS_MAX].join(" ");
    let read = filter(&text);
    assert!(read.to_string().len() > text.len());
    let long = format!("{}\"{}\"", "NOT ".repeat(3), "\\\\".repeat(500));
    assert!(long.len() < BYTES_MAX + 4);
    for filter in [read, Filter::reread(&long, &LETTERS).expect("read")] {
        assert_eq!(Filter::reread(&filter.to_string(), &LETTERS), Ok(filter));
    }
}

/// A row of letters, of which some is not known.
struct Letter {
    answer: Option<&'static str>,
    status: Option<u16>,
    is_known: bool,
}

impl Record for Letter {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "app" | "repository" | "name" if !self.is_known => Value::Unknown,
            "app" => Value::Texts(vec!["app_01".into(), "Docs".into()]),
            "repository" => Value::Texts(vec!["repo_01".into(), "o/Reader".into(), "Reader".into()]),
            "name" => Value::text("o/Reader"),
            "path" => Value::Path(b"docs/\xffDeep/a.md"),
            "kind" => Value::text("update"),
            "reason" => Value::text("rejected"),
            "state" => Value::text("open"),
            "status" => Value::number(self.status),
            "answer" => Value::optional(self.answer),
            "since" | "until" => Value::Moment(Timestamp(NOW.0 - 3_600_000)),
            _ => panic!("{field} is no field of letters"),
        }
    }
}

const LETTER: Letter = Letter { answer: Some("No such 100% page_x"), status: Some(404), is_known: true };

#[test]
fn a_row_is_meant_when_the_tree_holds() {
    for (text, expected) in [
        ("", true),
        ("state:open", true),
        ("state:redriven", false),
        ("NOT state:redriven kind:update reason:rejected", true),
        ("state:redriven OR status:404", true),
        ("NOT (state:redriven OR status:404)", false),
        ("app:docs", true),
        ("app:APP_01", true),
        ("app:doc", false),
        ("app:~oc", true),
        ("repository:reader", true),
        ("repository:o/reader", true),
        ("repository:read", false),
        ("name:reader", false),
        ("name:~read", true),
        ("path:docs/**", true),
        ("path:docs/*", false),
        ("path:docs/*/*.md", true),
        ("path:docs/", true),
        ("path:docs", false),
        ("path:~DEEP/a", true),
        ("path:~deeper", false),
        ("answer:~100%", true),
        ("answer:~100_", false),
        ("answer:~e_x", true),
        ("answer:page_x", false),
        ("\"such 100\"", true),
        ("such DEEP o/read", true),
        ("nowhere", false),
        ("since:-2h", true),
        ("since:-1h until:-1h", false),
        ("since:-1h", true),
        ("until:-59m", true),
        ("until:-1h", false),
    ] {
        assert_eq!(filter(text).admits(&LETTER), expected, "{text}");
    }
}

#[test]
fn what_a_row_does_not_say_fails_the_test_and_not_its_opposite() {
    let silent = Letter { answer: None, status: None, ..LETTER };
    for (text, expected) in [
        ("status:404", false),
        ("NOT status:404", true),
        ("answer:~a", false),
        ("NOT answer:~a", true),
        ("docs", true),
        ("page", false),
    ] {
        assert_eq!(filter(text).admits(&silent), expected, "{text}");
    }
}

#[test]
fn what_is_known_decides_where_it_can() {
    let half = Letter { is_known: false, ..LETTER };
    for (text, expected) in [
        ("state:open", Some(true)),
        ("app:docs", None),
        ("NOT app:docs", None),
        ("app:docs state:redriven", Some(false)),
        ("app:docs state:open", None),
        ("app:docs OR state:open", Some(true)),
        ("app:docs OR state:redriven", None),
        ("page", Some(true)),
        ("reader", None),
    ] {
        assert_eq!(filter(text).decide(&half), expected, "{text}");
    }
    assert!(!filter("app:docs").admits(&half));
}

#[test]
fn every_row_that_is_meant_lies_within_the_bounds_of_the_filter() {
    let hours = |hours: i64| Some(Timestamp(NOW.0 - hours * 3_600_000));
    for (text, expected) in [
        ("", (None, None)),
        ("since:-2h", (hours(2), None)),
        ("since:-2h a since:-3h", (hours(2), None)),
        ("until:-2h until:-3h", (None, hours(3))),
        ("since:-5h until:-2h state:open", (hours(5), hours(2))),
        ("since:-5h OR since:-2h", (hours(5), None)),
        ("since:-5h OR a", (None, None)),
        ("until:-5h OR until:-2h", (None, hours(2))),
        ("until:-5h OR since:-2h", (None, None)),
        ("(since:-5h OR since:-4h) until:-1h", (hours(5), hours(1))),
        ("NOT since:-2h", (None, None)),
    ] {
        assert_eq!(filter(text).bounds(), expected, "{text}");
    }
}

#[test]
fn a_filter_knows_which_fields_it_names() {
    let filter = filter("a (b OR NOT state:open)");
    assert_eq!((filter.terms(), super::Filter::parse("", &LETTERS, NOW).expect("empty").terms()), (3, 0));
    assert!(filter.names("state") && !filter.names("app") && !filter.names("a"));
}

#[test]
fn a_glob_says_which_paths_it_may_match() {
    for (text, expected) in [
        ("docs/a.md", GlobReach::Path(b"docs/a.md".to_vec())),
        ("docs/", GlobReach::Below(b"docs/".to_vec())),
        ("docs/**", GlobReach::Below(b"docs/".to_vec())),
        ("**", GlobReach::Below(Vec::new())),
        ("docs/*", GlobReach::Among(b"docs/".to_vec())),
        ("docs/**/a", GlobReach::Among(b"docs/".to_vec())),
        ("*.md", GlobReach::Among(Vec::new())),
        ("a\\*b", GlobReach::Among(b"a".to_vec())),
        ("{a,b}/**", GlobReach::Among(Vec::new())),
    ] {
        assert_eq!(Glob::new(text).expect("a glob").reach(), expected, "{text}");
    }
}

fn words(set: &FieldSet, name: &str) -> Vec<&'static str> {
    match set.field(name).map(|field| field.kind) {
        Some(FieldKind::Word(words)) => words.to_vec(),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn the_words_of_a_field_are_those_of_the_rows() {
    fn all<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|one| word(*one)).collect()
    }
    for set in [&DELIVERIES, &LETTERS] {
        let mut kinds = words(set, "kind");
        kinds.sort_unstable();
        let mut expected = all(Operation::ALL, Operation::as_str);
        expected.sort_unstable();
        assert_eq!(kinds, expected);
    }
    assert_eq!(words(&LETTERS, "state"), all(LetterStatus::ALL, LetterStatus::as_str));
    assert_eq!(words(&LETTERS, "reason"), all(ParkReason::ALL, ParkReason::as_str));
    let states = &crate::ports::ChangeState::ALL;
    assert_eq!(words(&DELIVERIES, "state"), all(states, crate::ports::ChangeState::as_str));
    assert_eq!(words(&REPOSITORIES, "state"), all(WatchState::ALL, WatchState::as_str));
    assert_eq!(words(&REPOSITORIES, "mode"), all(HistoryMode::ALL, HistoryMode::as_str));
    assert_eq!(words(&REPOSITORIES, "sink"), all(SinkKind::ALL, SinkKind::as_str));
    let conditions = crate::ports::WatchCondition::ALL.map(|(word, _)| word);
    assert_eq!(words(&REPOSITORIES, "condition"), conditions);
}

#[test]
fn the_fields_of_a_list_have_names_of_their_own_and_those_that_are_searched_exist() {
    for set in ALL {
        let mut names: Vec<_> = set.fields.iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), set.fields.len(), "{}", set.list);
        let is_text =
            |field: &Field| !matches!(field.kind, FieldKind::Word(_) | FieldKind::Number | FieldKind::Since);
        for name in set.searched {
            assert!(set.field(name).is_some_and(is_text), "{name} of {}", set.list);
        }
    }
}
