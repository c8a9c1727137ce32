//! Arguments that are ids or one word of a closed set. A refusal says what such an argument is and what
//! lists those that there are, in the words of the API.

use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tidings_entity::id::{InvalidId, ObjectId};

/// Reads an id; `verb` lists the ids that there are.
pub(super) fn id<T: FromStr<Err = InvalidId>>(
    verb: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| text.parse().map_err(|error| format!("{error}; `{verb}` lists those that there are"))
}

/// Reads the id of a commit.
pub(super) fn commit(text: &str) -> Result<ObjectId, String> {
    text.parse().map_err(|_| "a commit is named by all of its 40 hexadecimal digits".to_owned())
}

/// Reads a number of bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number of bytes: 10485760 are 10 MiB".to_owned())
}

/// Reads how many requests may go in a second.
pub(super) fn rate(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write a whole number of requests a second, such as 50".to_owned())
}

/// Reads one of these words.
pub(super) fn word<T>(all: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.into_iter().collect::<Vec<_>>()).try_map(|word| word.parse::<T>())
}
