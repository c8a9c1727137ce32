//! Sources whose scans an operator stopped by opening their breaker by hand.

use tidings_actors::{circuit_breaker::OPENED_BY_HAND, ports::BreakerRow, time::Timestamp};
use tidings_entity::{id::SourceId, kind::BreakerKind};

use crate::http::bodies::{
    moment,
    problem::{Kind, Problem},
};

/// The moment until which an operator stops scans of a source; `None`: no operator does.
pub(crate) fn kept_until(breakers: &[BreakerRow], source: &SourceId) -> Option<Timestamp> {
    let row = breakers.iter().find(|row| row.kind == BreakerKind::Source && row.id == source.as_str())?;
    row.probe_at.filter(|_| row.last_error == OPENED_BY_HAND)
}

/// The refusal of a scan of such a source.
pub(crate) fn kept_from_being_asked(until: Timestamp) -> Problem {
    let until = moment::iso(until);
    let said = format!(
        "an operator opened the breaker of this repository by hand until {until}; `tidings admin breaker \
         reset` closes the breaker"
    );
    Problem::new(Kind::CONFLICT).with_detail(said)
}
