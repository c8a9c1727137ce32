//! Decides what follows from an answer of a host: pure.

use std::time::Duration;

use crate::{
    ports::{StatusAnswer, StatusTask, StatusVerdict},
    time::Timestamp,
};

/// The wait after the first request without success; it doubles with each further one, up to [`MOST`].
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of that kind: a host that works again is told at most this late.
const MOST: Duration = Duration::from_secs(60);
/// The longest wait, even if the host asks for more.
const PATIENCE_MAX: Duration = Duration::from_hours(1);

/// The result to write; `chance` is from 0 to 999 and spreads the next requests over half of the wait.
pub(super) fn of(task: &StatusTask, answer: StatusAnswer, now: Timestamp, chance: u64) -> StatusVerdict {
    let again = |wait: Option<Duration>| now.after(wait_of(task.tries, wait, chance));
    match answer {
        StatusAnswer::Taken => StatusVerdict::Told(task.word, task.description.clone()),
        StatusAnswer::Refused { status, reason } => StatusVerdict::Ended { reason, status, shows: task.told },
        StatusAnswer::NotTaken { wait, .. } => {
            StatusVerdict::Again { at: again(wait), shows: task.told, is_doubtful: false }
        }
        StatusAnswer::Doubtful { wait, .. } => {
            StatusVerdict::Again { at: again(wait), shows: None, is_doubtful: true }
        }
    }
}

/// The word by which an answer is counted.
pub(super) fn outcome(answer: &StatusAnswer) -> &'static str {
    match answer {
        StatusAnswer::Taken => "taken",
        StatusAnswer::Refused { .. } => "refused",
        StatusAnswer::NotTaken { .. } => "not_taken",
        StatusAnswer::Doubtful { .. } => "doubtful",
    }
}

fn wait_of(tries: u32, asked: Option<Duration>, chance: u64) -> Duration {
    let own = FIRST.saturating_mul(1 << tries.min(16)).min(MOST);
    let spread = own.mul_f64(0.5 + chance.min(999) as f64 / 2_000.0);
    spread.max(asked.unwrap_or_default().min(PATIENCE_MAX))
}

#[cfg(test)]
mod tests {
    use tidings_entity::{
        id::{AppId, RepositoryId, WatchId},
        kind::{StatusHost, StatusWord},
    };
    use ulid::Ulid;

    use super::*;
    use crate::ports::StatusKey;

    fn task(told: Option<StatusWord>, tries: u32) -> StatusTask {
        let commit = "1".repeat(40).parse().expect("a commit");
        StatusTask {
            key: StatusKey { watch: WatchId::new(Ulid::nil()), commit },
            app: AppId::new(Ulid::nil()),
            repository: RepositoryId::new(Ulid::nil()),
            kind: StatusHost::Github,
            host: "git.example".into(),
            url: "https://git.example/one/two".parse().expect("an address"),
            credential: None,
            context: "tidings/docs/two".into(),
            word: StatusWord::Success,
            description: String::new(),
            told,
            tries,
        }
    }

    #[test]
    fn a_host_that_took_nothing_still_shows_what_it_showed_and_a_doubtful_one_nobody_knows_what() {
        let (now, reason) = (Timestamp(0), String::new());
        let pending = Some(StatusWord::Pending);
        let not_taken = StatusAnswer::NotTaken { reason: reason.clone(), wait: None };
        let doubtful = StatusAnswer::Doubtful { reason, wait: None };
        let again = |shows, is_doubtful| StatusVerdict::Again { at: Timestamp(500), shows, is_doubtful };
        assert_eq!(of(&task(pending, 0), not_taken, now, 0), again(pending, false));
        assert_eq!(of(&task(pending, 0), doubtful, now, 0), again(None, true));
        assert_eq!(
            of(&task(pending, 0), StatusAnswer::Taken, now, 0),
            StatusVerdict::Told(StatusWord::Success, String::new())
        );
    }

    #[test]
    fn the_wait_doubles_to_a_minute_and_is_never_shorter_than_the_host_asks() {
        let half = |tries, asked: Option<u64>| wait_of(tries, asked.map(Duration::from_secs), 0).as_millis();
        let waits: Vec<u128> = (0..8).map(|tries| half(tries, None)).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(half(u32::MAX, None), 30_000);
        assert_eq!(half(0, Some(7)), 7_000);
        assert_eq!(half(0, Some(1_000_000)), 3_600_000);
        assert!(wait_of(6, None, 999) < Duration::from_secs(60));
    }
}
