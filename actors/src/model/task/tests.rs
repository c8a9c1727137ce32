//! How a task moves: each verb from each state, the fence, the place in line, the rate.

use std::time::Duration;

use tidings_entity::{
    id::{CursorId, TaskId},
    kind::TaskState::{self, Cancelled, Claimed, Dead, Failed, Ready, Succeeded, Waiting},
};
use ulid::Ulid;

use super::{
    ABANDONS_FREE, CANCEL_GRACE, ClaimProof, ClaimRate, ClaimToken, KEY_KEPT, MoveRefusal, Moved, TaskMove,
    TaskPlace, TaskRules, TaskStanding, rank,
};
use crate::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);
const RULES: TaskRules = TaskRules {
    claim_max: Duration::from_secs(100),
    timeout: Duration::from_secs(300),
    retention: Duration::from_secs(7_000),
    dead_retention: Duration::from_secs(30_000),
};

fn fresh(max_attempts: i64) -> TaskStanding {
    TaskStanding {
        state: Ready,
        attempts: 0,
        abandons: 0,
        max_attempts,
        claim: None,
        worker: None,
        claimed_at: None,
        wake_at: None,
        is_flagged: false,
        is_keyed: false,
        ended_at: None,
        error: None,
    }
}

fn claimed(max_attempts: i64) -> TaskStanding {
    let mut task = fresh(max_attempts);
    task.claim("one".into(), "worker".into(), 60 * SECOND, &RULES, Timestamp(0));
    task
}

fn say(task: &mut TaskStanding, step: TaskMove, hash: &str, at: i64) -> Result<Moved, MoveRefusal> {
    let proof = ClaimProof::Hash(hash.into());
    let before = task.clone();
    let said = task.apply(&step, Some(&proof), &RULES, &|tries| 10 * SECOND * tries as u32, Timestamp(at));
    assert!(said == Ok(Moved::Now) || matches!(step, TaskMove::Cancel) || *task == before, "{step:?}");
    said
}

fn nack() -> TaskMove {
    TaskMove::Nack { delay: None, reason: Some("busy".into()) }
}

#[test]
fn n_attempts_are_n_claims() {
    for most in 1..6 {
        let mut task = fresh(most);
        for attempt in 1..=most {
            assert_eq!(task.state, Ready, "attempt {attempt} of {most}");
            task.claim(attempt.to_string(), "worker".into(), SECOND, &RULES, Timestamp(0));
            assert_eq!(task.attempts, attempt);
            let step = TaskMove::Nack { delay: Some(Duration::ZERO), reason: None };
            assert_eq!(say(&mut task, step, &attempt.to_string(), 1), Ok(Moved::Now));
        }
        assert_eq!(task.state, Dead);
    }
}

#[test]
fn the_policy_gives_the_wait_of_a_nack_and_the_worker_may_name_another() {
    let mut task = claimed(5);
    assert_eq!(say(&mut task, nack(), "one", 1_000), Ok(Moved::Now));
    assert_eq!((task.state, task.wake_at), (Waiting, Some(Timestamp(11_000))));
    assert_eq!(task.error.as_deref(), Some("busy"));
    assert_eq!(say(&mut task, TaskMove::Due, "", 10_999), Err(MoveRefusal::State(Waiting)));
    assert_eq!(say(&mut task, TaskMove::Due, "", 11_000), Ok(Moved::Now));
    assert_eq!((task.state, task.wake_at), (Ready, None));
}

#[test]
fn a_stale_claim_changes_nothing() {
    let words = [
        TaskMove::Heartbeat(SECOND),
        TaskMove::Complete,
        TaskMove::Fail("no".into()),
        nack(),
        TaskMove::Abandon(Duration::ZERO),
    ];
    for step in words {
        let mut task = claimed(5);
        assert_eq!(say(&mut task, TaskMove::Expire, "", 60_000), Ok(Moved::Now));
        assert_eq!(
            say(&mut task, step.clone(), "one", 60_001),
            Err(MoveRefusal::ClaimLost),
            "free: {step:?}"
        );
        task.claim("two".into(), "worker".into(), SECOND, &RULES, Timestamp(60_002));
        assert_eq!(say(&mut task, step.clone(), "one", 60_003), Err(MoveRefusal::ClaimLost), "{step:?}");
        assert_eq!(say(&mut task, step.clone(), "two", 60_004), Ok(Moved::Now), "{step:?}");
    }
}

#[test]
fn who_ended_a_task_may_say_so_twice_and_nothing_else() {
    for (step, other) in
        [(TaskMove::Complete, TaskMove::Fail("no".into())), (TaskMove::Fail("no".into()), TaskMove::Complete)]
    {
        let mut task = claimed(1);
        assert_eq!(say(&mut task, step.clone(), "one", 1), Ok(Moved::Now));
        assert_eq!(say(&mut task, step.clone(), "one", 2), Ok(Moved::Before));
        assert_eq!(say(&mut task, step.clone(), "two", 2), Err(MoveRefusal::ClaimLost));
        for late in [other, nack(), TaskMove::Heartbeat(SECOND)] {
            assert_eq!(say(&mut task, late, "one", 3), Err(MoveRefusal::ClaimLost));
        }
    }
}

#[test]
fn a_claim_is_extended_up_to_its_timeout() {
    let mut task = claimed(5);
    for (at, until) in [(50_000, 150_000), (149_999, 249_999), (249_000, 300_000), (299_999, 300_000)] {
        assert_eq!(say(&mut task, TaskMove::Heartbeat(1_000 * SECOND), "one", at), Ok(Moved::Now));
        assert_eq!(task.wake_at, Some(Timestamp(until)));
    }
    // The clock was not looked at yet, and the claim is over all the same.
    for step in [TaskMove::Heartbeat(SECOND), TaskMove::Complete, nack()] {
        assert_eq!(say(&mut task, step, "one", 300_000), Err(MoveRefusal::ClaimLost));
    }
    assert_eq!(task.state, Claimed);
}

#[test]
fn a_cancelled_claim_ends_with_its_worker_or_after_a_minute() {
    let flagged = || {
        let mut task = claimed(5);
        task.wake_at = Some(Timestamp(100_000));
        assert_eq!(say(&mut task, TaskMove::Cancel, "", 10_000), Ok(Moved::Flagged));
        assert_eq!(task.wake_at, Some(Timestamp(10_000).after(CANCEL_GRACE)));
        task
    };
    for (step, state) in [
        (TaskMove::Complete, Succeeded),
        (TaskMove::Fail("no".into()), Failed),
        (nack(), Cancelled),
        (TaskMove::Abandon(Duration::ZERO), Cancelled),
    ] {
        let mut task = flagged();
        assert_eq!(say(&mut task, step, "one", 20_000), Ok(Moved::Now));
        assert_eq!(task.state, state);
    }
    let mut task = flagged();
    assert_eq!(say(&mut task, TaskMove::Heartbeat(SECOND), "one", 20_000), Ok(Moved::Flagged));
    assert_eq!(say(&mut task, TaskMove::Expire, "", 69_999), Err(MoveRefusal::State(Claimed)));
    assert_eq!(say(&mut task, TaskMove::Expire, "", 70_000), Ok(Moved::Now));
    assert_eq!(task.state, Cancelled);
}

#[test]
fn the_hundred_and_first_abandon_counts() {
    let mut task = fresh(1);
    for count in 1..=ABANDONS_FREE {
        task.claim("one".into(), "worker".into(), SECOND, &RULES, Timestamp(0));
        assert_eq!(say(&mut task, TaskMove::Abandon(Duration::ZERO), "one", 1), Ok(Moved::Now));
        assert_eq!((task.state, task.attempts, task.abandons), (Ready, 0, count));
    }
    task.claim("one".into(), "worker".into(), SECOND, &RULES, Timestamp(0));
    assert_eq!(say(&mut task, TaskMove::Abandon(Duration::ZERO), "one", 1), Ok(Moved::Now));
    assert_eq!((task.state, task.attempts), (Dead, 1));
}

#[test]
fn a_redrive_begins_with_no_attempt_and_only_after_a_bad_end() {
    for (state, may) in [
        (Failed, true),
        (Dead, true),
        (Cancelled, true),
        (Succeeded, false),
        (Ready, false),
        (Claimed, false),
    ] {
        let mut task = TaskStanding { state, attempts: 3, ..claimed(3) };
        let said = say(&mut task, TaskMove::Redrive, "", 5);
        assert_eq!(said.is_ok(), may, "{state}");
        if may {
            assert_eq!((task.state, task.attempts, task.claim), (Ready, 0, None));
        }
    }
}

#[test]
fn what_ended_is_kept_by_its_state_and_a_key_for_a_day() {
    let ended = |state: TaskState, is_keyed: bool| {
        let mut task = TaskStanding { is_keyed, ..claimed(1) };
        task.end(state, &RULES, Timestamp(0));
        task.wake_at
    };
    assert_eq!(ended(Succeeded, false), Some(Timestamp(7_000_000)));
    assert_eq!(ended(Dead, false), Some(Timestamp(30_000_000)));
    assert_eq!(ended(Succeeded, true), Some(Timestamp(0).after(KEY_KEPT)));
}

#[test]
fn a_token_is_read_back_and_shows_its_bits_to_nobody() {
    let token = ClaimToken { task: TaskId::new(Ulid::from_parts(1, 2)), bits: [7; 16], place: None };
    assert_eq!(token.to_string().parse(), Ok(token.clone()));
    assert!(!format!("{token:?}").contains("0707"));
    assert_eq!(token.hash().len(), 32);
    for wrong in ["", "tsk_x.00", "tsk_00000000010000000000000002", "tsk_00000000010000000000000002.07"] {
        assert_eq!(wrong.parse::<ClaimToken>(), Err(()));
    }
}

#[test]
fn a_token_of_a_change_is_read_back_with_the_place_of_the_change() {
    let place = TaskPlace { cursor: CursorId::new(Ulid::from_parts(3, 4)), round: 5, position: 6 };
    let task = TaskId::new(Ulid::from_parts(1, 2));
    let token = ClaimToken { task, bits: [7; 16], place: Some(place.clone()) };
    assert_eq!(token.to_string().parse(), Ok(token.clone()));
    assert!(!format!("{token:?}").contains("0707"));
    assert_eq!(token.proof(), ClaimProof::OfWatch(token.hash(), place));
    let text = token.to_string();
    let (short, _) = text.rsplit_once('.').expect("parts");
    for wrong in [short.to_owned(), format!("{text}.7"), format!("{short}.x"), format!("{short}.-1")] {
        assert_eq!(wrong.parse::<ClaimToken>(), Err(()), "{wrong}");
    }
}

#[test]
fn the_higher_priority_goes_first_and_age_counts_among_equals() {
    let mut tasks = [(0, 1), (9, 3), (5, 2), (9, 2), (0, 0)];
    tasks.sort_by_key(|(priority, micros)| rank(*priority, *micros, None));
    assert_eq!(tasks, [(9, 2), (9, 3), (5, 2), (0, 0), (0, 1)]);
    let ageing = Some(Duration::from_micros(10));
    let mut tasks = [(0, 25), (3, 50), (1, 50), (0, 5)];
    tasks.sort_by_key(|(priority, micros)| rank(*priority, *micros, ageing));
    assert_eq!(tasks, [(0, 5), (3, 50), (0, 25), (1, 50)]);
}

#[test]
fn no_second_has_more_claims_than_the_rate() {
    for rate in [1, 2, 7, 19, 20, 50, 99, 1_000] {
        let (mut limit, mut claims) = (ClaimRate { rate, paid_until: 0 }, Vec::new());
        let mut now = 1_000_000;
        while now < 4_000_000 {
            let allowed = limit.allowed(now);
            claims.extend((0..allowed).map(|_| now));
            limit = limit.after(allowed, now);
            assert_eq!(limit.allowed(now), 0);
            let next = limit.next(now);
            assert!(limit.allowed(next) > 0 && limit.allowed(next - 1) == 0, "{rate}");
            now = next + i64::from(rate % 3) * 700;
        }
        for (index, first) in claims.iter().enumerate() {
            let within = claims[index..].iter().take_while(|at| **at < first + 1_000_000).count();
            assert!(within <= rate as usize, "{within} of {rate}");
        }
        assert!(claims.len() >= rate as usize * 2, "{} of {rate}", claims.len());
    }
    let ahead = ClaimRate { rate: 50, paid_until: 1_000_000_000 };
    assert!(ahead.allowed(0) > 0, "the clock was set back");
}
