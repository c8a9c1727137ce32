//! Moments on the wire: ISO 8601 in UTC with milliseconds, as JavaScript writes them.

use tidings_actors::time::Timestamp;

/// `2026-01-01T00:00:00.000Z`; the first moment of 1970 for a number that is no moment.
#[must_use]
pub(crate) fn iso(moment: Timestamp) -> String {
    moment.iso()
}

/// A moment of RFC 3339 (`2026-01-01T00:00:00Z`), any offset.
#[must_use]
pub(crate) fn parsed(text: &str) -> Option<Timestamp> {
    Timestamp::parsed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_look_as_javascript_writes_them() {
        assert_eq!(iso(Timestamp(1_767_225_600_007)), "2026-01-01T00:00:00.007Z");
        assert_eq!(parsed("2026-01-01T01:00:00.007+01:00"), Some(Timestamp(1_767_225_600_007)));
        assert_eq!(parsed("yesterday"), None);
        assert_eq!(iso(Timestamp(i64::MAX)), "1970-01-01T00:00:00.000Z");
    }
}
