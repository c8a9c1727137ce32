//! Reading the fields of a JSON object one by one, so that every fault is found, each with the
//! pointer to its field. What is left over at the end is an unknown field.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{
    body::Body,
    problem::{FieldFault, Problem},
};

/// Characters of an unknown name that are shown.
const NAME_SHOWN: usize = 64;

/// From which likeness on (0 to 1) an unknown name counts as a misspelt one.
const ALIKE: f64 = 0.8;

/// The fields of a body that are still unread, and what is wrong with those that were.
pub(crate) struct Fields {
    unread: Map<String, Value>,
    known: BTreeSet<String>,
    faults: Vec<FieldFault>,
    ignore_unknown: bool,
    /// The names that the body is described with, where it is.
    described: Option<&'static [&'static str]>,
}

impl Fields {
    /// The fields of a body.
    ///
    /// # Errors
    /// 400 for a body that is no JSON object, or in which an object, at whatever depth, names a field
    /// twice.
    pub(crate) fn of(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Err(Problem::malformed("the body is empty; it must be a JSON object"));
        }
        match serde_json::from_slice::<Unique>(body).and_then(|_unique| serde_json::from_slice(body)) {
            Ok(unread) => {
                let (known, faults) = (BTreeSet::new(), Vec::new());
                Ok(Self { unread, known, faults, ignore_unknown: false, described: None })
            }
            Err(error) if error.is_data() => {
                Err(Problem::malformed("the body must be a JSON object that names no field twice"))
            }
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                Err(Problem::malformed(format!("the body is not valid JSON (line {line}, column {column})")))
            }
        }
    }

    /// The fields of an object within a body.
    pub(crate) fn of_object(unread: Map<String, Value>) -> Self {
        Self { unread, known: BTreeSet::new(), faults: Vec::new(), ignore_unknown: false, described: None }
    }

    /// Takes over what is wrong with an object within this body, under the names that its fields have here.
    pub(crate) fn adopt(&mut self, inner: Self, rename: impl Fn(&str) -> String) {
        let unknown = inner.unread.keys().map(|name| FieldFault::new(name, "there is no such field"));
        let unknown: Vec<FieldFault> = unknown.collect();
        for fault in inner.faults.into_iter().chain(unknown) {
            let name = rename(fault.pointer.trim_start_matches('/'));
            self.faults.push(FieldFault { pointer: format!("/{name}"), ..fault });
        }
    }

    /// The fields of a body that may be left out.
    ///
    /// # Errors
    /// Those of [`Fields::of`].
    pub(crate) fn of_optional(body: &[u8]) -> Result<Self, Problem> {
        Self::of(if body.is_empty() { b"{}" } else { body })
    }

    /// The fields of a body that is described by [`super::body::body`]. Where some of them are not Docora's,
    /// unknown ones are passed over as in [`Fields::ignore_unknown_unless`].
    ///
    /// # Errors
    /// Those of [`Fields::of`].
    pub(crate) fn of_body<B: Body>(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Self::of(body)?;
        fields.described = Some(B::FIELDS);
        if !B::OURS.is_empty() {
            fields.ignore_unknown_unless(B::OURS);
        }
        Ok(fields)
    }

    /// The same of a body that may be left out.
    ///
    /// # Errors
    /// Those of [`Fields::of`].
    pub(crate) fn of_optional_body<B: Body>(body: &[u8]) -> Result<Self, Problem> {
        Self::of_body::<B>(if body.is_empty() { b"{}" } else { body })
    }

    /// On a route that Docora has too: unknown fields are passed over as Docora does, unless the
    /// body uses a field of ours, which shows that its author knows this API. A name that is nearly the
    /// name of a field is refused all the same.
    pub(crate) fn ignore_unknown_unless(&mut self, ours: &[&str]) {
        self.ignore_unknown = !ours.iter().any(|name| self.unread.contains_key(*name));
    }

    /// Whether the field is there and was not read yet.
    #[must_use]
    pub(crate) fn has(&mut self, name: &str) -> bool {
        self.ask_for(name);
        self.unread.contains_key(name)
    }

    /// A name is known from here on.
    fn ask_for(&mut self, name: &str) {
        debug_assert!(
            self.described.is_none_or(|described| described.contains(&name)),
            "{name} is read and not described"
        );
        self.known.insert(name.to_owned());
    }

    /// Reads a field.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.ask_for(name);
        self.unread.remove(name)
    }

    /// Notes what is wrong with a field.
    pub(crate) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(FieldFault::new(name, detail));
    }

    /// Notes what is wrong with a field, and the text that Docora has for it.
    pub(crate) fn refuse_as(&mut self, name: &str, detail: impl Into<String>, docora: Option<&'static str>) {
        self.faults.push(FieldFault { docora, ..FieldFault::new(name, detail) });
    }

    /// One of two names for the same field: the one that is used, the first where none is.
    pub(crate) fn either<'a>(&mut self, first: &'a str, second: &'a str) -> &'a str {
        if self.has(first) && self.has(second) {
            self.unread.remove(second);
            self.refuse(second, format!("this is another name of {first}; give one of the two"));
        }
        if self.has(second) { second } else { first }
    }

    /// A text of so many characters, none of them a control character.
    pub(crate) fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        let text = match self.take(name)? {
            Value::String(text) => text,
            _ => {
                self.refuse(name, "must be a text");
                return None;
            }
        };
        if !length.contains(&text.chars().count()) {
            let (least, most) = (length.start(), length.end());
            self.refuse(name, format!("must have {least} to {most} characters"));
        } else if text.chars().any(char::is_control) {
            self.refuse(name, "must not hold control characters");
        } else {
            return Some(text);
        }
        None
    }

    /// A text that must be there; empty where it is not, and then noted.
    pub(crate) fn required_text(&mut self, name: &str, length: RangeInclusive<usize>) -> String {
        if !self.has(name) {
            self.refuse(name, "is required");
        }
        self.text(name, length).unwrap_or_default()
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        self.decoded(name, "must be a list of texts")
    }

    /// A list of objects; what is wrong with one is said by its decoder.
    pub(crate) fn list<T: DeserializeOwned>(&mut self, name: &str) -> Option<Vec<T>> {
        match serde_json::from_value(self.take(name)?) {
            Ok(list) => Some(list),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// Whether the field is there and null; then it counts as read.
    pub(crate) fn null(&mut self, name: &str) -> bool {
        let is_null = self.has(name) && self.unread[name].is_null();
        is_null && self.take(name).is_some()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.decoded(name, "must be true or false")
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&mut self, name: &str) -> Option<u64> {
        self.decoded(name, "must be a whole number that is not negative")
    }

    /// One of a closed set of words; `words` says which.
    pub(crate) fn word<T: DeserializeOwned>(&mut self, name: &str, words: &str) -> Option<T> {
        self.decoded(name, &format!("must be one of: {words}"))
    }

    /// Anything that can be decoded; what is wrong with it is said by its decoder.
    pub(crate) fn object<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.take(name)?;
        if !value.is_object() {
            self.refuse(name, "must be an object");
            return None;
        }
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 422 with every fault.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for name in self.described.unwrap_or_default() {
            debug_assert!(self.known.contains(*name), "{name} is described and not read");
        }
        for (name, _) in std::mem::take(&mut self.unread) {
            let meant = self.nearest(&name).map(str::to_owned);
            if meant.is_some() || !self.ignore_unknown {
                let pointer = name.replace('~', "~0").replace('/', "~1");
                let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                let pointer: String = pointer.chars().take(NAME_SHOWN).collect();
                self.refuse(&pointer, format!("there is no such field{hint}"));
            }
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }

    /// The known field whose name is most like this one, if one is like it.
    fn nearest(&self, name: &str) -> Option<&str> {
        // What is longer than every field is no misspelt one, and comparing costs length times length.
        let name: &str = Some(name).filter(|name| name.len() <= NAME_SHOWN)?;
        let likeness = |known: &str| strsim::normalized_damerau_levenshtein(known, name);
        let near = self.known.iter().map(String::as_str).filter(|known| likeness(known) >= ALIKE);
        near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
    }

    fn decoded<T: DeserializeOwned>(&mut self, name: &str, rule: &str) -> Option<T> {
        let decoded = serde_json::from_value(self.take(name)?).ok();
        if decoded.is_none() {
            self.refuse(name, rule);
        }
        decoded
    }
}

/// JSON in which no object names a field twice: readers differ in which of the two they take, so the
/// one that judged a body may have seen another value than the one that acts on it.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Judge)
    }
}

struct Judge;

impl<'de> Visitor<'de> for Judge {
    type Value = Unique;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        while items.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unique, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, Unique)) = entries.next_entry::<String, Unique>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a field is named twice"));
            }
        }
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::bodies::body::body;

    body! {
        /// A body of a route that Docora has too.
        struct Both {
            /// Docora's.
            first_name: Option<String>,
        }
        beyond docora {
            /// Ours.
            second_name: Option<u64>,
        }
    }

    fn both(text: &str, read: &[&str]) -> Result<(), Problem> {
        let mut fields = Fields::of_body::<Both>(text.as_bytes())?;
        read.iter().for_each(|name| drop(fields.take(name)));
        fields.finish()
    }

    #[test]
    fn unknown_fields_are_passed_over_until_the_body_uses_a_field_of_ours() {
        assert_eq!((Both::FIELDS, Both::OURS), (&["first_name", "second_name"][..], &["second_name"][..]));
        assert!(both(r#"{"first_name":"a","else":1}"#, Both::FIELDS).is_ok());
        assert!(both(r#"{"first_name":"a","second_name":1,"else":1}"#, Both::FIELDS).is_err());
        assert!(
            both(r#"{"first_name":"a","second_nam":1}"#, Both::FIELDS).is_err(),
            "it is nearly the name of a field"
        );
    }

    #[test]
    #[should_panic(expected = "second_name is described and not read")]
    fn what_is_described_must_be_read() {
        assert!(both("{}", &["first_name"]).is_ok());
    }

    #[test]
    #[should_panic(expected = "three is read and not described")]
    fn what_is_read_must_be_described() {
        assert!(both("{}", &["first_name", "second_name", "three"]).is_ok());
    }

    #[test]
    fn a_field_that_is_named_twice_is_refused_at_every_depth() {
        let once = r#"{"a":{"b":[{"c":1,"d":null},{"c":1.5,"d":true}]},"b":{"b":"b"},"e":-1,"":""}"#;
        assert!(Fields::of(once.as_bytes()).is_ok());
        for twice in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":[1,[{"b":{"c":1,"c":2}}]]}"#,
            r#"{"a":{"b":1,"\u0062":1}}"#,
        ] {
            assert!(Fields::of(twice.as_bytes()).is_err(), "{twice}");
        }
        for other in ["[]", "1", "null", "\"a\"", "{", "{}{}"] {
            assert!(Fields::of(other.as_bytes()).is_err(), "{other}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(Fields::of(deep.as_bytes()).is_err(), "the stack has an end");
    }
}
