//! Objects whose values are kept as sent, byte for byte: only the worker of a task interprets its payload.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::problem::Problem;

/// The fields of an object, each value as it was sent.
pub(crate) struct RawFields<'b>(Vec<(String, &'b RawValue)>);

impl<'b> RawFields<'b> {
    /// The fields of a body.
    ///
    /// # Errors
    /// 400 for a body that is no JSON object.
    pub(crate) fn of(body: &'b [u8]) -> Result<Self, Problem> {
        serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let text = format!("the body must be a JSON object (line {line}, column {column})");
            Problem::malformed(text)
        })
    }

    /// Removes a field and returns its value; `None`: the body lacks it.
    ///
    /// # Errors
    /// 400 if the field occurs twice.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<&'b RawValue>, Problem> {
        let mut found = self.0.extract_if(.., |(other, _)| other == name);
        let (first, second) = (found.next(), found.next());
        drop(found);
        match second {
            Some(_) => Err(Problem::malformed(format!("the body names {name} twice"))),
            None => Ok(first.map(|(_, value)| value)),
        }
    }

    /// The remaining fields, as JSON.
    pub(crate) fn rest(&self) -> Vec<u8> {
        let field = |(name, value): &(String, &RawValue)| {
            let name = serde_json::Value::from(name.as_str());
            format!("{name}:{}", value.get())
        };
        let fields: Vec<String> = self.0.iter().map(field).collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for RawFields<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = RawFields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = entries.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(RawFields(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// The items of a list, each as it was sent.
///
/// # Errors
/// 422 if the value is no list, or has no items or more than `most`.
pub(crate) fn items<'b>(
    name: &str,
    list: Option<&'b RawValue>,
    most: usize,
) -> Result<Vec<&'b RawValue>, Problem> {
    let refused = || Problem::invalid_field(name, format!("must be a list of 1 to {most} objects"));
    let items: Vec<&RawValue> =
        serde_json::from_str(list.ok_or_else(refused)?.get()).map_err(|_| refused())?;
    if items.is_empty() || items.len() > most { Err(refused()) } else { Ok(items) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_as_it_was_sent_and_the_rest_can_be_read() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for value in ["{ \"b\" : 1.50,\"a\":1e3 }", "\"\\u0000\\ud800\"", "null", deep.as_str()] {
            let body = format!("{{\"command\": \"x\", \"payload\" : {value} ,\"priority\":1}}");
            let mut fields = RawFields::of(body.as_bytes()).unwrap_or_else(|_| panic!("read"));
            let taken = fields.take("payload").ok().flatten().expect("there");
            assert_eq!(taken.get(), value);
            assert_eq!(fields.rest(), br#"{"command":"x","priority":1}"#);
        }
    }

    #[test]
    fn what_is_no_object_and_what_is_named_twice_is_refused() {
        for body in ["", "[]", "1", "{", "{\"payload\":}", "{\"a\":1}{}"] {
            assert!(RawFields::of(body.as_bytes()).is_err(), "{body}");
        }
        let mut twice = RawFields::of(b"{\"payload\":1,\"payload\":2}").unwrap_or_else(|_| panic!("read"));
        assert!(twice.take("payload").is_err());
    }
}
