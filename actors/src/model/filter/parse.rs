//! The parser of filters: from text to tree.
//!
//! ```text
//! any   = all *( "OR" all )
//! all   = factor *( [ "AND" ] factor )
//! factor = "NOT" factor | "(" any ")" | term
//! term  = field ":" [ "~" ] value | value
//! value = one or more characters but spaces, quotation marks and parentheses | quoted
//! ```
//!
//! In quotes `\"` is a quotation mark and `\\` a backslash; another backslash stands for itself, as globs
//! want it.

use winnow::{
    Parser,
    combinator::{alt, eof, not, opt, peek, terminated},
    stream::Location,
    token::{any, literal, one_of, take_till, take_while},
};

use super::{
    DEPTH_MAX, Expression, FieldKind, FieldSet, TERMS_MAX, Term,
    error::{Input, Refusal},
    term::{Given, test},
};
use crate::time::Timestamp;

/// The text of the error for a `NOT` that stands alone.
const NOT: &str = "`NOT` stands before a term; in quotes it is a word to search for";
/// The text of the error for a quotation mark that is not closed.
const UNCLOSED: &str = "no quotation mark closes this one; write `\\\"` for one inside";

type Read<T> = Result<T, Refusal>;

/// Reads a whole text.
pub(super) fn expression(text: &str, set: &'static FieldSet, now: Timestamp) -> Read<Expression> {
    let is_odd = |c: char| c.is_control() && !c.is_whitespace();
    if let Some((at, found)) = text.char_indices().find(|(_, c)| is_odd(*c)) {
        return Err(Refusal::at(at, format!("{found:?} cannot stand in a filter")));
    }
    let mut input = Input::new(text);
    let mut reader = Reader { set, now, terms: 0, depth: 0 };
    spaces(&mut input)?;
    if input.is_empty() {
        return Ok(Expression::All(Vec::new()));
    }
    let found = reader.any(&mut input)?;
    if input.is_empty() { Ok(found) } else { Err(Refusal::at(here(&input), "no `(` opens this `)`")) }
}

struct Reader {
    set: &'static FieldSet,
    now: Timestamp,
    /// How many terms were read.
    terms: usize,
    /// How many parentheses and `NOT` are open.
    depth: usize,
}

impl Reader {
    fn any(&mut self, input: &mut Input<'_>) -> Read<Expression> {
        let mut parts = vec![self.all(input)?];
        while opt(keyword("OR")).parse_next(input)?.is_some() {
            parts.push(self.all(input)?);
        }
        Ok(alone(parts, Expression::Any))
    }

    fn all(&mut self, input: &mut Input<'_>) -> Read<Expression> {
        let mut parts = Vec::new();
        loop {
            spaces(input)?;
            let at = here(input);
            if opt(keyword("AND")).parse_next(input)?.is_some() {
                spaces(input)?;
                if parts.is_empty() || ends(input) {
                    return Err(between(at, "AND"));
                }
            } else if ends(input) {
                break;
            }
            parts.push(self.factor(input)?);
        }
        if !parts.is_empty() {
            return Ok(alone(parts, Expression::All));
        }
        let at = here(input);
        Err(match (input.chars().next(), self.depth) {
            (Some(')'), 0) => Refusal::at(at, "no `(` opens this `)`"),
            (Some(')'), _) => Refusal::at(at, "a term is missing before this `)`"),
            (None, depth) if depth > 0 => Refusal::at(at, "a term and a `)` are missing at the end"),
            _ => between(at, "OR"),
        })
    }

    fn factor(&mut self, input: &mut Input<'_>) -> Read<Expression> {
        let at = here(input);
        if opt(keyword("NOT")).parse_next(input)?.is_some() {
            self.deeper(at)?;
            spaces(input)?;
            if ends(input) {
                return Err(Refusal::at(at, NOT));
            }
            let inner = self.factor(input)?;
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner)));
        }
        if opt('(').parse_next(input)?.is_some() {
            self.deeper(at)?;
            let inner = self.any(input)?;
            if opt(')').parse_next(input)?.is_none() {
                return Err(Refusal::at(at, "no `)` closes this `(`"));
            }
            self.depth -= 1;
            return Ok(inner);
        }
        self.term(input).map(Expression::Term)
    }

    fn deeper(&mut self, at: usize) -> Read<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let reason = format!("at most {DEPTH_MAX} parentheses and `NOT` may stand around a term");
            return Err(Refusal::at(at, reason));
        }
        Ok(())
    }

    fn term(&mut self, input: &mut Input<'_>) -> Read<Term> {
        let at = here(input);
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(Refusal::at(at, format!("a filter has at most {TERMS_MAX} terms")));
        }
        if input.starts_with('"') {
            let phrase = quoted(input)?;
            if phrase.is_empty() {
                return Err(Refusal::at(at, "there is nothing between these quotation marks"));
            }
            return Ok(Term::Text(phrase.to_ascii_lowercase()));
        }
        if opt(keyword("AND")).parse_next(input)?.is_some() {
            return Err(between(at, "AND"));
        }
        let word = take_while(0.., |c| is_bare(c) && c != ':').parse_next(input)?;
        if opt(':').parse_next(input)?.is_none() {
            closed(input)?;
            return Ok(Term::Text(word.to_ascii_lowercase()));
        }
        let field = self.set.field(word).ok_or_else(|| Refusal::at(at, self.set.without(word)))?;
        let is_part = opt('~').parse_next(input)?.is_some();
        let at = here(input);
        let is_quoted = input.starts_with('"');
        let text = if is_quoted { quoted(input)? } else { bare(input)? };
        if text.is_empty() && !is_quoted && !is_part && matches!(field.kind, FieldKind::Text) {
            let reason = format!("a value is missing behind `{word}:`; it follows without a space");
            return Err(Refusal::at(at, reason));
        }
        let test = test(field, &Given { text, is_part, now: self.now });
        Ok(Term::Field { field, test: test.map_err(|reason| Refusal::at(at, reason))? })
    }
}

/// One expression for several parts: the only part, or `several` of them.
fn alone(mut parts: Vec<Expression>, several: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => several(parts.into_iter().chain(last).collect()),
    }
}

fn between(at: usize, word: &str) -> Refusal {
    Refusal::at(at, format!("`{word}` stands between two terms; in quotes it is a word to search for"))
}

/// The byte that is read next.
fn here(input: &Input<'_>) -> usize {
    input.current_token_start()
}

/// Whether a value without quotation marks may contain this character.
fn is_bare(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '"' | '(' | ')')
}

fn spaces(input: &mut Input<'_>) -> Read<()> {
    take_while(0.., char::is_whitespace).void().parse_next(input)
}

/// A keyword of the grammar, not a part of a longer word.
fn keyword<'t>(word: &'static str) -> impl Parser<Input<'t>, (), Refusal> {
    terminated(literal(word), not(one_of(is_bare))).void()
}

/// Whether the terms that stand side by side end here.
fn ends(input: &mut Input<'_>) -> bool {
    peek(alt((eof.void(), ')'.void(), keyword("OR")))).parse_next(input).is_ok()
}

fn bare(input: &mut Input<'_>) -> Read<String> {
    let text = take_while(0.., is_bare).parse_next(input)?;
    closed(input)?;
    Ok(text.to_owned())
}

/// Refuses a quotation mark behind a value without quotes.
fn closed(input: &Input<'_>) -> Read<()> {
    if input.starts_with('"') {
        let reason = "a quotation mark stands inside a word; put the whole value between quotation marks";
        return Err(Refusal::at(here(input), reason));
    }
    Ok(())
}

fn quoted(input: &mut Input<'_>) -> Read<String> {
    let at = here(input);
    '"'.parse_next(input)?;
    let mut text = String::new();
    loop {
        text.push_str(take_till(0.., ['"', '\\']).parse_next(input)?);
        match opt(any).parse_next(input)? {
            None => return Err(Refusal::at(at, UNCLOSED)),
            Some('"') => break,
            Some(backslash) => text.push(opt(one_of(['"', '\\'])).parse_next(input)?.unwrap_or(backslash)),
        }
    }
    if input.chars().next().is_some_and(|c| is_bare(c) || c == '"') {
        return Err(Refusal::at(here(input), "a space is missing behind the quotation mark"));
    }
    Ok(text)
}
