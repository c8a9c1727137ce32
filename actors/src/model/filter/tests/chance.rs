//! Filters made up at random: what is printed is read again, and no text does harm.

use proptest::prelude::*;

use super::{
    super::{Expression, Field, FieldKind, Filter, Glob, TERMS_MAX, Term, Test, sets::LETTERS},
    LETTER, NOW,
};
use crate::time::Timestamp;

fn text() -> impl Strategy<Value = String> {
    let odd =
        prop::sample::select(vec!["or", "not", "~a", "a b", "\"", "\\", "(", ":", "%_", "\\\"", "é", "-2h"]);
    prop_oneof![odd.prop_map(str::to_owned), "[a-z]{1,4}", "[ -~]{1,6}"]
        .prop_map(|text| text.to_ascii_lowercase())
}

fn glob() -> impl Strategy<Value = Glob> {
    let globs = vec!["docs/**", "docs/a b", "*.md", "a\\*b", "{a,b}/**", "[a-z]", "(x)", "docs/"];
    prop::sample::select(globs).prop_map(|text| Glob::new(text).expect("a glob"))
}

/// A term over one field.
fn test(field: &'static Field) -> BoxedStrategy<Test> {
    match field.kind {
        FieldKind::Word(words) => prop::sample::select(words).prop_map(|word| Test::Is(word.into())).boxed(),
        FieldKind::Name | FieldKind::Text | FieldKind::EntryType => {
            prop_oneof![text().prop_map(Test::Is), text().prop_map(Test::Contains)].boxed()
        }
        FieldKind::Path => {
            prop_oneof![glob().prop_map(Test::Matches), text().prop_map(Test::Contains)].boxed()
        }
        FieldKind::Number => (0_i64..=i64::MAX).prop_map(Test::Equals).boxed(),
        FieldKind::Since => moment().prop_map(Test::From).boxed(),
        FieldKind::Until => moment().prop_map(Test::Before).boxed(),
    }
}

fn moment() -> impl Strategy<Value = Timestamp> {
    (0..4 * NOW.0).prop_map(Timestamp)
}

fn term() -> impl Strategy<Value = Expression> {
    let of_field = prop::sample::select(LETTERS.fields.iter().collect::<Vec<_>>())
        .prop_flat_map(|field| test(field).prop_map(move |test| Term::Field { field, test }));
    prop_oneof![3 => of_field, 1 => text().prop_map(Term::Text)].prop_map(Expression::Term)
}

fn expression() -> impl Strategy<Value = Expression> {
    let whole = term().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::Any),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    });
    whole.prop_filter("too many terms", |expression| expression.terms() <= TERMS_MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_filter_is_read_as_it_was_printed(expression in expression()) {
        let printed = expression.to_string();
        let read = Filter::reread(&printed, &LETTERS);
        let read = read.unwrap_or_else(|fault| panic!("{printed}: {fault}"));
        prop_assert_eq!(read.expression(), &expression, "{}", printed);
    }

    #[test]
    fn pieces_of_filters_in_any_order_are_read_or_refused(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "OR", "AND", "NOT", "(", ")", "\"", "\\", " ", " ", "state:", "open", ":", "~", "path:", "docs/**",
            "since:", "-2h", "[", "{", "ü", "\u{0}", "name:~", "2026-01-01T00:00:00Z",
        ]), 0..48)
    ) {
        let text = pieces.concat();
        match Filter::parse(&text, &LETTERS, NOW) {
            Err(fault) => prop_assert!((1..=text.chars().count() + 1).contains(&fault.column), "{}", fault),
            Ok(filter) => {
                prop_assert!(filter.decide(&LETTER).is_some());
                prop_assert_eq!(Filter::reread(&filter.to_string(), &LETTERS), Ok(filter));
            }
        }
    }
}
