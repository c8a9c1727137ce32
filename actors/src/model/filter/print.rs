//! From tree to text: reading it gives the same tree.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{Expression, Filter, Term, Test};

impl Display for Filter {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.expression.fmt(formatter)
    }
}

impl Display for Expression {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let between = match self {
            Self::All(_) => " ",
            _ => " OR ",
        };
        match self {
            Self::All(parts) | Self::Any(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        formatter.write_str(between)?;
                    }
                    // Terms side by side bind stronger than `OR`.
                    let is_bound = matches!((self, part), (Self::Any(_), Self::All(_)));
                    within(formatter, part, is_bound)?;
                }
                Ok(())
            }
            Self::Not(inner) => {
                formatter.write_str("NOT ")?;
                within(formatter, inner, false)
            }
            Self::Term(term) => term.fmt(formatter),
        }
    }
}

/// A part of something; several terms are in parentheses unless they are bound.
fn within(formatter: &mut Formatter<'_>, part: &Expression, is_bound: bool) -> fmt::Result {
    if is_bound || matches!(part, Expression::Not(_) | Expression::Term(_)) {
        write!(formatter, "{part}")
    } else {
        write!(formatter, "({part})")
    }
}

impl Display for Term {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => written(formatter, text),
            Self::Field { field, test } => {
                write!(formatter, "{}:", field.name)?;
                match test {
                    Test::Is(text) => written(formatter, text),
                    Test::Contains(part) => {
                        formatter.write_char('~')?;
                        written(formatter, part)
                    }
                    Test::Matches(glob) => written(formatter, glob.text()),
                    Test::Equals(number) => number.fmt(formatter),
                    Test::From(at) | Test::Before(at) => formatter.write_str(&at.iso()),
                }
            }
        }
    }
}

/// A value, in quotes where it could be taken for something else.
fn written(formatter: &mut Formatter<'_>, text: &str) -> fmt::Result {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./*".contains(&byte);
    let is_keyword = matches!(text, "AND" | "OR" | "NOT");
    if !text.is_empty() && text.bytes().all(is_plain) && !is_keyword {
        return formatter.write_str(text);
    }
    formatter.write_char('"')?;
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            formatter.write_char('\\')?;
        }
        formatter.write_char(character)?;
    }
    formatter.write_char('"')
}
