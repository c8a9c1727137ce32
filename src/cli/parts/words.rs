//! Arguments that are ids or one of a fixed set of words. A refusal says what the argument is and which
//! command lists the existing ones, in the terms of the API.

use std::{str::FromStr, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tidings_actors::{ports::Clock, time::Timestamp};
use tidings_entity::id::{InvalidId, ObjectId};

use crate::machine::MachineClock;

/// Reads an id; `verb` lists the ids that there are.
pub(crate) fn id<T: FromStr<Err = InvalidId>>(
    verb: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| text.parse().map_err(|error| format!("{error}; `{verb}` lists the existing ones"))
}

/// The longest time for which the key or secret before a new one is accepted.
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Reads how long the key or secret before a new one is accepted.
pub(crate) fn overlap(text: &str) -> Result<Duration, String> {
    let overlap = humantime::parse_duration(text);
    let overlap = overlap.map_err(|_| "write a duration with its unit, such as 0s, 12h or 1d".to_owned())?;
    if overlap > OVERLAP_MAX { Err("it is at most 30 days (30d)".to_owned()) } else { Ok(overlap) }
}

/// Reads the id of a commit.
pub(crate) fn commit(text: &str) -> Result<ObjectId, String> {
    text.parse().map_err(|_| "a commit is named by all of its 40 hexadecimal digits".to_owned())
}

/// Reads a moment of the past: RFC 3339, or how long ago it is, as in the filter: `2h` or `-2h`.
pub(crate) fn past(text: &str) -> Result<String, String> {
    let Ok(ago) = humantime::parse_duration(text.trim_start_matches('-')) else { return Ok(text.to_owned()) };
    let milliseconds = u64::try_from(ago.as_millis()).ok();
    let moment = milliseconds
        .and_then(|ago| MachineClock.now().0.checked_sub_unsigned(ago))
        .filter(|moment| *moment > 0);
    moment.map(|moment| Timestamp(moment).iso()).ok_or_else(|| format!("{text} ago is before 1970"))
}

/// Reads how many rows are shown at most.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse::<usize>().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| "write a whole number, 1 or more".to_owned())
}

/// Reads a number of bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number of bytes: 10485760 are 10 MiB".to_owned())
}

/// Reads how many requests may go in a second.
pub(crate) fn rate(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write a whole number of requests a second, such as 50".to_owned())
}

/// Parses one of these words.
pub(crate) fn word<T>(all: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.into_iter().collect::<Vec<_>>()).try_map(|word| word.parse::<T>())
}

#[cfg(test)]
mod tests {
    use super::past;

    #[test]
    fn a_moment_of_the_past_may_be_said_as_a_time_ago() {
        let moment = |text: &str| humantime::parse_rfc3339(&past(text).expect("a moment")).expect("RFC 3339");
        let ago = |text: &str| moment(text).elapsed().expect("it is past").as_secs();
        for text in ["2h", "-2h"] {
            assert!((7_200..7_210).contains(&ago(text)), "{text}");
        }
        assert_eq!(past("2026-11-25T08:00:00Z").as_deref(), Ok("2026-11-25T08:00:00Z"));
        past("9999999999 years").expect_err("before all clocks");
    }
}
