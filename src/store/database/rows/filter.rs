//! A filter as a condition of SQL. The text of the condition has no input of the caller: every value is bound
//! to a parameter.
//!
//! The evaluation in memory ([`tidings_actors::model::filter`]) defines a filter's meaning. A condition never
//! loses a matching row. It is exact except for globs, which databases do not support: for those it tests the
//! common prefix of the paths, and the caller evaluates the filter again over the returned rows. Below a
//! `NOT` such a glob must admit every row, or rows would be lost.
//!
//! Only ASCII is compared without regard to case: SQLite's `lower` converts only ASCII, and so does
//! PostgreSQL's in the collation `C`. A text is searched with `instr` and `strpos`, which have no wildcards.

use std::borrow::Cow;

use sea_orm::{DbBackend, Value};
use tidings_actors::model::filter::{Expression, Filter, GlobReach, Term, Test};

/// Terms of a filter that are evaluated without that fewer rows are looked at.
const TERMS: u64 = 4;

/// How many rows one statement reads, if it reads `most` without a filter: fewer with many terms, so that
/// it takes no longer. With 32 terms over the longest paths 2,500 rows would take a second.
pub(crate) fn bounded(most: u64, filter: Option<&Filter>) -> u64 {
    let terms = filter.map_or(0, |filter| filter.terms() as u64);
    most / terms.div_ceil(TERMS).max(1)
}

/// A field of a list in SQL. Each part is an expression without input of the caller.
#[derive(Clone, Debug)]
pub(crate) enum Column {
    /// Texts; one of them must meet a test.
    Texts(Vec<Cow<'static, str>>),
    /// A text that is never missing and has no upper-case letter: an index finds it.
    Word(&'static str),
    /// The raw bytes of a path.
    Path(&'static str),
    /// A number or a moment.
    Number(&'static str),
    /// Words, each with the condition under which it holds.
    Words(Vec<(&'static str, Cow<'static, str>)>),
}

impl Column {
    /// The texts of these expressions.
    pub(crate) fn texts(texts: &[&'static str]) -> Self {
        Self::Texts(texts.iter().map(|text| Cow::Borrowed(*text)).collect())
    }
}

/// The columns of a list, by the names of its fields.
pub(crate) type Columns = fn(&str) -> Option<Column>;

/// A condition that holds for every matching row. Its values are appended to the existing ones.
pub(crate) fn condition(
    backend: DbBackend,
    filter: &Filter,
    columns: Columns,
    values: &mut Vec<Value>,
) -> String {
    let mut writer = Writer { backend, columns, searched: filter.set().searched, values };
    writer.expression(filter.expression(), true)
}

struct Writer<'v> {
    backend: DbBackend,
    columns: Columns,
    searched: &'static [&'static str],
    values: &'v mut Vec<Value>,
}

impl Writer<'_> {
    /// `is_asked`: no row that meets the expression may be lost; otherwise no row that does not meet it.
    fn expression(&mut self, expression: &Expression, is_asked: bool) -> String {
        match expression {
            Expression::All(parts) if parts.is_empty() => "1 = 1".to_owned(),
            Expression::All(parts) => self.joined(parts, " and ", is_asked),
            Expression::Any(parts) => self.joined(parts, " or ", is_asked),
            Expression::Not(inner) => format!("not {}", self.expression(inner, !is_asked)),
            Expression::Term(Term::Field { field, test }) => self.test(field.name, test, is_asked),
            Expression::Term(Term::Text(text)) => {
                let test = Test::Contains(text.clone());
                let tests = self.searched.iter().map(|field| self.test(field, &test, is_asked));
                let tests: Vec<String> = tests.collect();
                format!("({})", tests.join(" or "))
            }
        }
    }

    fn joined(&mut self, parts: &[Expression], between: &str, is_asked: bool) -> String {
        let parts: Vec<String> = parts.iter().map(|part| self.expression(part, is_asked)).collect();
        format!("({})", parts.join(between))
    }

    /// A missing value fails the test: the condition is false for it, and not null.
    fn test(&mut self, field: &str, test: &Test, is_asked: bool) -> String {
        let Some(column) = (self.columns)(field) else {
            debug_assert!(false, "{field} has no column");
            return "1 = 0".to_owned();
        };
        let column = match (column, test) {
            (Column::Word(word), Test::Is(text)) => {
                // Bare, so that the database can use an index.
                let place = self.place(text.as_str().into());
                return format!("{word} = {place}");
            }
            (Column::Word(word), _) => Column::texts(&[word]),
            (column, _) => column,
        };
        let condition = match (column, test) {
            (Column::Texts(texts), Test::Is(text)) => {
                let place = self.place(text.as_str().into());
                self.one_of(&texts, |text| format!("{text} = {place}"))
            }
            (Column::Texts(texts), Test::Contains(part)) => {
                let (place, finds) = (self.place(part.as_str().into()), self.finds());
                self.one_of(&texts, |text| format!("{finds}({text}, {place}) > 0"))
            }
            (Column::Path(path), Test::Contains(part)) => self.path_contains(path, part),
            (Column::Path(path), Test::Matches(glob)) => self.path_matches(path, &glob.reach(), is_asked),
            (Column::Number(number), Test::Equals(other)) => self.compared(number, "=", *other),
            (Column::Number(number), Test::From(at)) => self.compared(number, ">=", at.0),
            (Column::Number(number), Test::Before(at)) => self.compared(number, "<", at.0),
            (Column::Words(words), Test::Is(word)) => {
                let held = words.into_iter().find(|(name, _)| name == word);
                held.map_or(Cow::Borrowed("1 = 0"), |(_, condition)| condition).into_owned()
            }
            _ => "1 = 0".to_owned(),
        };
        format!("coalesce(({condition}), false)")
    }

    /// A condition for one of these texts, in lower case.
    fn one_of(&self, texts: &[Cow<'static, str>], condition: impl Fn(String) -> String) -> String {
        let conditions: Vec<String> = texts.iter().map(|text| condition(self.lower(text))).collect();
        conditions.join(" or ")
    }

    fn lower(&self, text: &str) -> String {
        match self.backend {
            DbBackend::Postgres => format!("lower(({text}) collate \"C\")"),
            _ => format!("lower({text})"),
        }
    }

    fn finds(&self) -> &'static str {
        match self.backend {
            DbBackend::Postgres => "strpos",
            _ => "instr",
        }
    }

    fn compared(&mut self, number: &str, comparison: &str, with: i64) -> String {
        let place = self.place(with.into());
        format!("{number} {comparison} {place}")
    }

    /// Byte by byte: a path need not be UTF-8.
    fn path_contains(&mut self, path: &str, part: &str) -> String {
        let place = self.place(part.as_bytes().to_vec().into());
        match self.backend {
            // A letter for each byte.
            DbBackend::Postgres => {
                let path = self.lower(&format!("convert_from({path}, 'LATIN1')"));
                format!("strpos({path}, convert_from({place}, 'LATIN1')) > 0")
            }
            _ => format!("instr(cast(lower(cast({path} as text)) as blob), {place}) > 0"),
        }
    }

    fn path_matches(&mut self, path: &str, reach: &GlobReach, is_asked: bool) -> String {
        match reach {
            GlobReach::Path(exact) => {
                let place = self.place(exact.clone().into());
                format!("{path} = {place}")
            }
            GlobReach::Below(prefix) => self.begins(path, prefix),
            GlobReach::Among(prefix) if is_asked => self.begins(path, prefix),
            GlobReach::Among(_) => "1 = 0".to_owned(),
        }
    }

    fn begins(&mut self, path: &str, prefix: &[u8]) -> String {
        let mut behind = prefix.to_vec();
        // No byte of a text is 255.
        match behind.last_mut() {
            None => return "1 = 1".to_owned(),
            Some(last) => *last += 1,
        }
        let (first, behind) = (self.place(prefix.to_vec().into()), self.place(behind.into()));
        format!("{path} >= {first} and {path} < {behind}")
    }

    /// Binds a value and returns its placeholder, `$n`.
    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}
