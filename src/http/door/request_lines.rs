//! Limits the log lines of answers. Callers without a token can cause any number of answers, and the log must
//! not grow with them. So answers that anyone can cause have at most [`LINES_PER_SECOND`] lines per second
//! and status. The next line after that second reports how many lines were suppressed.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

/// The most lines of one status in a second.
pub(crate) const LINES_PER_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// The lines of the last second, by status. At most one entry for each status of this server.
#[derive(Default)]
pub(crate) struct RequestLines(Mutex<BTreeMap<u16, Written>>);

/// The lines of one status.
struct Written {
    /// When the present second of this status began.
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl RequestLines {
    /// Whether an answer that anyone can cause may have a line now. Logs how many others had none.
    pub(crate) fn may_write(&self, status: u16, now: Instant) -> bool {
        let (may_write, left_out) = self.take(status, now);
        for (status, count) in left_out {
            info!(
                parent: None,
                http.status = status,
                count,
                "{count} more requests were answered with {status} and have no line: at most \
                 {LINES_PER_SECOND} a second have one"
            );
        }
        may_write
    }

    /// Whether a log line may be written now, and how many lines of each status were suppressed in seconds
    /// that are over.
    fn take(&self, status: u16, now: Instant) -> (bool, Vec<(u16, u64)>) {
        let mut written = self.0.lock();
        let mut left_out = Vec::new();
        written.retain(|status, of_status| {
            let is_over = now.duration_since(of_status.since) >= SECOND;
            if is_over && of_status.left_out > 0 {
                left_out.push((*status, of_status.left_out));
            }
            !is_over
        });
        let of_status = written.entry(status).or_insert(Written { since: now, lines: 0, left_out: 0 });
        let may_write = of_status.lines < LINES_PER_SECOND;
        if may_write {
            of_status.lines += 1;
        } else {
            of_status.left_out += 1;
        }
        (may_write, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_status_has_ten_lines_a_second_and_leaves_those_of_others_alone() {
        let (lines, start) = (RequestLines::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let written =
            |status, millis, times: u32| (0..times).filter(|_| lines.take(status, at(millis)).0).count();
        assert_eq!(written(401, 0, 1_000), 10);
        assert_eq!(written(429, 500, 3), 3, "another status");
        assert_eq!(written(401, 999, 5), 0);
        let (may_write, left_out) = lines.take(429, at(1_000));
        assert!(may_write);
        assert_eq!(left_out, [(401, 995)], "the second of 401 is over");
        assert_eq!(written(401, 1_001, 11), 10, "another second");
        assert_eq!(lines.take(429, at(9_000)), (true, vec![(401, 1)]));
        assert_eq!(lines.take(429, at(20_000)), (true, vec![]), "said once");
        assert_eq!(lines.0.lock().len(), 1, "nothing is kept of what is over");
    }
}
