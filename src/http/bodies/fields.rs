//! Reads the fields of a JSON object one by one, so that every fault is found, each with the pointer to its
//! field. Fields that are left at the end are unknown.
//!
//! `null` is the same as a missing field, as the document of the API says of optional fields. So a required
//! field must have another value. Where `null` has a meaning of its own, its reader asks [`Fields::null`]
//! first.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{
    body::Body,
    decoding::in_words,
    problem::{FieldFault, Problem},
};

/// Characters of an unknown name that are shown.
const NAME_SHOWN: usize = 64;

/// The likeness (0 to 1) from which on an unknown name counts as misspelt.
const ALIKE: f64 = 0.8;

/// The unread fields of a body, and the faults of those that were read.
pub(crate) struct Fields {
    unread: Map<String, Value>,
    known: BTreeSet<String>,
    faults: Vec<FieldFault>,
    ignore_unknown: bool,
    /// The names in the description of the body, if there is one.
    described: Option<&'static [&'static str]>,
}

impl Fields {
    /// The fields of a body.
    ///
    /// # Errors
    /// 400 for a body that is no JSON object, or in which an object at any depth names a field twice.
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

    /// Takes over the faults of an object within this body, under the names that its fields have here. Docora
    /// has no such object, so it has no text for these faults: the text names the field.
    pub(crate) fn adopt(&mut self, inner: Self, rename: impl Fn(&str) -> String) {
        let unknown = inner.unread.keys().map(|name| FieldFault::new(name, "there is no such field"));
        let unknown: Vec<FieldFault> = unknown.collect();
        for fault in inner.faults.into_iter().chain(unknown) {
            let name = rename(fault.pointer.trim_start_matches('/'));
            self.faults.push(FieldFault { pointer: format!("/{name}"), docora: None, ..fault });
        }
    }

    /// The fields of a body that may be missing.
    ///
    /// # Errors
    /// The errors of [`Fields::of`].
    pub(crate) fn of_optional(body: &[u8]) -> Result<Self, Problem> {
        Self::of(if body.is_empty() { b"{}" } else { body })
    }

    /// The fields of a body that [`super::body::body`] describes. If Docora lacks some of them, unknown
    /// fields are ignored as in [`Fields::ignore_unknown_unless`].
    ///
    /// # Errors
    /// The errors of [`Fields::of`].
    pub(crate) fn of_body<B: Body>(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Self::of(body)?;
        fields.described = Some(B::FIELDS);
        if !B::OURS.is_empty() {
            fields.ignore_unknown_unless(B::OURS);
        }
        Ok(fields)
    }

    /// Like [`Fields::of_body`], for a body that may be missing.
    ///
    /// # Errors
    /// The errors of [`Fields::of`].
    pub(crate) fn of_optional_body<B: Body>(body: &[u8]) -> Result<Self, Problem> {
        Self::of_body::<B>(if body.is_empty() { b"{}" } else { body })
    }

    /// For a route that exists in Docora too: unknown fields are ignored as Docora does, unless the body uses
    /// a field that Docora lacks, which shows that its author knows this API. A misspelt field name is
    /// refused all the same.
    pub(crate) fn ignore_unknown_unless(&mut self, ours: &[&str]) {
        self.ignore_unknown = !ours.iter().any(|name| self.unread.contains_key(*name));
    }

    /// Whether the field is there with a value, and was not read yet.
    #[must_use]
    pub(crate) fn has(&mut self, name: &str) -> bool {
        self.ask_for(name);
        self.unread.get(name).is_some_and(|value| !value.is_null())
    }

    /// Marks a field whose value is read unchanged elsewhere.
    pub(crate) fn is_kept_raw(&mut self, name: &str) {
        self.ask_for(name);
    }

    /// A name is known from here on.
    fn ask_for(&mut self, name: &str) {
        debug_assert!(
            self.described.is_none_or(|described| described.contains(&name)),
            "{name} is read and not described"
        );
        self.known.insert(name.to_owned());
    }

    /// Removes the field of this name from the body; `None`: the body has no value for it.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.ask_for(name);
        self.unread.remove(name).filter(|value| !value.is_null())
    }

    /// Refuses the fields that are in the body and that no request can change, each with the reason.
    pub(crate) fn refuse_fixed(&mut self, fixed: &[(&str, &str)]) {
        for (name, reason) in fixed {
            if self.unread.remove(*name).is_some() {
                self.refuse(name, format!("cannot be changed: {reason}"));
            }
        }
    }

    /// Records a fault of a field.
    pub(crate) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(FieldFault::new(name, detail));
    }

    /// Records a fault of a field, and the text that Docora has for it.
    pub(crate) fn refuse_as(&mut self, name: &str, detail: impl Into<String>, docora: Option<&'static str>) {
        self.faults.push(FieldFault { docora, ..FieldFault::new(name, detail) });
    }

    /// The name in use of two names for the same field; the first if neither is in use.
    pub(crate) fn either<'a>(&mut self, first: &'a str, second: &'a str) -> &'a str {
        if self.has(first) && self.has(second) {
            self.unread.remove(second);
            self.refuse(second, format!("this is another name of {first}; give one of the two"));
        }
        if self.has(second) { second } else { first }
    }

    /// Reads a text with a length in this range, in characters, and without control characters.
    pub(crate) fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        self.text_without(name, length, char::is_control, "must not hold control characters")
    }

    /// Reads a text with a length in this range, in characters. It may hold line breaks and tabs, but no
    /// NUL, which PostgreSQL does not store.
    pub(crate) fn free_text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        self.text_without(name, length, |c| c == '\0', "must not hold the character NUL")
    }

    fn text_without(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        is_refused: fn(char) -> bool,
        refusal: &str,
    ) -> Option<String> {
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
        } else if text.chars().any(is_refused) {
            self.refuse(name, refusal);
        } else {
            return Some(text);
        }
        None
    }

    /// Reads a text that is required; if it is missing, a fault is recorded and the result is empty.
    pub(crate) fn required_text(&mut self, name: &str, length: RangeInclusive<usize>) -> String {
        if !self.has(name) {
            self.refuse(name, "is required");
        }
        self.text(name, length).unwrap_or_default()
    }

    /// Reads a list of texts.
    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        self.decoded(name, "must be a list of texts")
    }

    /// Reads a list of objects; their decoder reports faults.
    pub(crate) fn list<T: DeserializeOwned>(&mut self, name: &str) -> Option<Vec<T>> {
        match serde_json::from_value(self.take(name)?) {
            Ok(list) => Some(list),
            Err(error) => {
                self.refuse(name, in_words(&error));
                None
            }
        }
    }

    /// Whether the field is there and null; then it counts as read.
    pub(crate) fn null(&mut self, name: &str) -> bool {
        self.ask_for(name);
        let is_null = self.unread.get(name).is_some_and(Value::is_null);
        if is_null {
            self.unread.remove(name);
        }
        is_null
    }

    /// Reads a field that must be `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.decoded(name, "must be true or false")
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&mut self, name: &str) -> Option<u64> {
        self.decoded(name, "must be a whole number of 0 or more")
    }

    /// A whole number within these bounds.
    pub(crate) fn number_within(&mut self, name: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let rule = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
        let number: u64 = self.decoded(name, &rule)?;
        if !bounds.contains(&number) {
            self.refuse(name, rule);
            return None;
        }
        Some(number)
    }

    /// Reads one of a fixed set of words; `words` lists them.
    pub(crate) fn word<T: DeserializeOwned>(&mut self, name: &str, words: &str) -> Option<T> {
        self.decoded(name, &format!("must be one of: {words}"))
    }

    /// Reads any value that can be decoded; its decoder reports faults.
    pub(crate) fn object<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.take(name)?;
        if !value.is_object() {
            self.refuse(name, "must be an object");
            return None;
        }
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, in_words(&error));
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
        for (name, value) in std::mem::take(&mut self.unread) {
            if self.known.contains(&name) {
                // It was only asked for. What its reader said of it is enough.
                if !value.is_null() && !self.is_refused(&name) {
                    self.refuse(&name, "has no effect together with the other fields: leave this field out");
                }
                continue;
            }
            let meant = self.nearest(&name).map(str::to_owned);
            if meant.is_some() || !self.ignore_unknown {
                let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                self.refuse(&shown_name(&name), format!("there is no such field{hint}"));
            }
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }

    /// Whether a fault was recorded so far. Unknown fields are found only by [`Fields::finish`].
    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Whether a fault of the field was recorded.
    fn is_refused(&self, name: &str) -> bool {
        self.faults.iter().any(|fault| fault.pointer.strip_prefix('/') == Some(name))
    }

    /// The known field whose name is most similar to this one, if any is similar.
    fn nearest(&self, name: &str) -> Option<&str> {
        // A name longer than every field is no misspelling, and comparing costs length times length.
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

/// A name from the caller as a part of a pointer (RFC 6901), cut to the length that is shown.
pub(crate) fn shown_name(name: &str) -> String {
    let pointer = name.replace('~', "~0").replace('/', "~1");
    pointer.chars().take(NAME_SHOWN).collect()
}

/// JSON in which no object names a field twice: readers differ in which value they use, so a check could see
/// another value than the code that acts on it.
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
            /// A field that Docora's route has too.
            first_name: Option<String>,
        }
        beyond docora {
            /// A field that only Tidings has.
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
    fn null_is_the_same_as_a_missing_field_unless_its_reader_asks_for_it() {
        let body = r#"{"a":null,"b":null,"c":null,"d":null,"e":null,"f":null,"g":null,"h":null}"#;
        let mut fields = Fields::of(body.as_bytes()).unwrap_or_else(|_| panic!("an object"));
        assert_eq!((fields.text("a", 1..=9), fields.number("b"), fields.boolean("c")), (None, None, None));
        assert_eq!((fields.texts("d"), fields.list::<u8>("e")), (None, None));
        assert_eq!(fields.object::<Map<String, Value>>("f"), None);
        assert!(!fields.has("g") && fields.null("h") && !fields.null("h"));
        assert!(fields.finish().is_ok(), "none is refused, also the one that was only asked for");
        let mut fields = Fields::of(br#"{"a":null,"b":1}"#).unwrap_or_else(|_| panic!("an object"));
        assert_eq!(
            (fields.required_text("a", 1..=9), fields.number_within("b", 2..=9)),
            (String::new(), None)
        );
        let problem = fields.finish().expect_err("a required field, and a bound");
        let said = format!("{problem:?}");
        assert!(said.contains("is required") && said.contains("from 2 to 9"), "{said}");
        let unknown = Fields::of(br#"{"nobody":null}"#).unwrap_or_else(|_| panic!("an object"));
        assert!(unknown.finish().is_err(), "an unknown field stays unknown");
    }

    #[test]
    fn a_known_field_is_never_taken_for_an_unknown_one() {
        let mut fields = Fields::of(br#"{"command":"a","name":"b"}"#).unwrap_or_else(|_| panic!("an object"));
        assert!(fields.has("command") && fields.has("name"));
        fields.refuse("command", "is for others");
        let said = format!("{:?}", fields.finish().expect_err("two faults"));
        assert!(said.contains("is for others") && said.contains("has no effect together"), "{said}");
        assert!(!said.contains("no such field"), "{said}");
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
