//! Receivers that fail in every way. Entries are sent as the actor sends them, without rows and network.

use std::time::Duration;

use super::{
    super::course::{
        Consequence, Standing, consequence, is_endpoint_failure, next,
        tests::{Most, RULES, outcome, work},
    },
    *,
};
use crate::{
    ports::{Gap, Subscription, SubscriptionWork},
    time::Timestamp,
};

type Answer = Result<u16, SendFailure>;

/// More requests than any of the walks needs that come to an end.
const MANY: usize = 2_000;

/// The requests of a walk, with their answers, and the entries that were skipped.
#[derive(Default)]
struct Walk {
    requests: Vec<(i64, Answer)>,
    skipped: Vec<i64>,
}

impl Walk {
    /// Sends the entries `1..=last` until each is done with, or `most` requests were sent. The receiver is
    /// told the number of the entry and how many requests came before.
    fn of(last: i64, most: usize, mut receiver: impl FnMut(i64, usize) -> Answer) -> Self {
        Self::over_time(last, most, |number, before, _| receiver(number, before))
    }

    /// The same; the receiver is also told the seconds since the first request. A request that belongs to the
    /// try before it follows at once, after a broken connection 5 s later; every other one a minute later.
    fn over_time(last: i64, most: usize, mut receiver: impl FnMut(i64, usize, u64) -> Answer) -> Self {
        let mut now = 0;
        let all: Vec<i64> = (1..=last).collect();
        let (mut rows, mut walk) = (work(0, (1, last), &all), Self::default());
        let (mut suspicion, mut refusals) = (Suspicion::default(), 0);
        while walk.requests.len() < most {
            suspicion.read_at(rows.subscription.position);
            let is_under_way = suspicion.is_under_way();
            let mut ask = |number| {
                now += match walk.requests.last() {
                    None => 0,
                    Some((_, Err(SendFailure::Cut))) if is_under_way => 5,
                    Some(_) if is_under_way => 0,
                    Some(_) => 60,
                };
                let answer = receiver(number, walk.requests.len(), now);
                walk.requests.push((number, answer));
                outcome(answer)
            };
            match suspicion.instead(next(&rows, Timestamp(1_000)), &rows.entries) {
                Next::Rest => break,
                Next::Pass(to) => {
                    rows.subscription.position = to;
                    suspicion.moved_to(to);
                }
                Next::TryBehind(entry) => {
                    let outcome = ask(entry.id.number);
                    suspicion.behind_answered(entry.id.number, &outcome);
                }
                Next::Send(entry) => {
                    let outcome = ask(entry.id.number);
                    walk.take(&mut rows, &mut suspicion, &mut refusals, (entry.id.number, &outcome));
                }
                other => panic!("{other:?}"),
            }
        }
        walk
    }

    /// Applies the answer for the head.
    fn take(
        &mut self,
        rows: &mut SubscriptionWork,
        suspicion: &mut Suspicion,
        refusals: &mut u32,
        (number, outcome): (i64, &AttemptOutcome),
    ) {
        let row = &mut rows.subscription;
        let standing = Standing {
            tries: row.tries,
            refusals: *refusals,
            skips: row.skips,
            threshold: 5,
            is_last_chance: suspicion.is_last_chance(),
        };
        let skips = match consequence(outcome, standing, &RULES, &Most) {
            Consequence::Sent => 0,
            Consequence::Skip(_) => {
                self.skipped.push(number);
                row.skips + 1
            }
            Consequence::Retry(..) => {
                row.tries += 1;
                *refusals += u32::from(!is_endpoint_failure(outcome));
                return suspicion.head_failed(outcome, row.tries);
            }
            Consequence::Gone => panic!("no receiver is gone"),
        };
        (row.position, row.tries, row.skips, *refusals) = (number, 0, skips, 0);
        suspicion.moved_to(number);
    }

    fn taken(&self) -> Vec<i64> {
        let taken = self.requests.iter().filter(|(_, answer)| *answer == Ok(200));
        taken.map(|(number, _)| *number).collect()
    }

    fn count(&self, number: i64) -> usize {
        self.requests.iter().filter(|(sent, _)| *sent == number).count()
    }
}

#[test]
fn an_entry_that_always_fails_is_skipped_after_eleven_tries_and_all_others_come_once_in_order() {
    let answers = [500, 501, 502, 503, 504, 401, 403, 404, 405].map(Ok);
    for failure in answers.into_iter().chain([SendFailure::Timeout, SendFailure::Cut].map(Err)) {
        let walk = Walk::of(6, MANY, |number, _| if number == 3 { failure } else { Ok(200) });
        assert_eq!((walk.taken(), &walk.skipped[..]), (vec![1, 2, 4, 5, 6], &[3][..]), "{failure:?}");
        assert_eq!(walk.count(3), 11, "eight tries, and three more when entry 4 was taken: {failure:?}");
    }
}

#[test]
fn of_three_processes_that_answer_in_turn_one_that_is_well_gets_every_entry() {
    for processes in [2, 3] {
        for (well, end) in (0..processes).flat_map(|well| (0..60).map(move |end| (well, end))) {
            let walk = Walk::of(20, MANY, |_, before| {
                let is_well = before >= end && before % processes == well;
                Ok(if is_well { 200 } else { 500 })
            });
            assert_eq!(walk.skipped, Vec::<i64>::new(), "{well} of {processes} from request {end} on");
            let mut taken = walk.taken();
            taken.sort_unstable();
            assert_eq!(taken, (1..=20).collect::<Vec<i64>>(), "{well} of {processes} from {end} on");
        }
    }
}

#[test]
fn up_to_ten_such_entries_in_a_row_are_skipped_while_later_entries_are_taken() {
    for row in 1..=10 {
        let (poisoned, last) = (2..=row + 1, 2 * row + 2);
        let walk =
            Walk::of(last, MANY, |number, _| if poisoned.contains(&number) { Ok(500) } else { Ok(200) });
        let others: Vec<i64> = (1..=last).filter(|number| !poisoned.contains(number)).collect();
        assert_eq!(walk.taken(), others, "{row} in a row");
        assert_eq!(walk.skipped, poisoned.collect::<Vec<i64>>());
    }
    let walk = Walk::of(40, MANY, |number, _| if (2..=12).contains(&number) { Ok(500) } else { Ok(200) });
    assert_eq!((walk.taken(), walk.skipped), (vec![1], vec![]), "eleven look like an endpoint that is down");
}

#[test]
fn an_outage_loses_nothing_whenever_it_ends() {
    let kinds = [500, 502, 503, 429, 403, 302].map(Ok);
    let faults = [SendFailure::Connection, SendFailure::Cut, SendFailure::Timeout, SendFailure::Refused];
    for kind in kinds.into_iter().chain(faults.map(Err)) {
        for end in 0..80 {
            let walk = Walk::of(20, MANY, |_, before| if before < end { kind } else { Ok(200) });
            let (mut taken, all) = (walk.taken(), (1..=20).collect::<Vec<i64>>());
            assert_eq!(walk.skipped, Vec::<i64>::new(), "{kind:?} until {end}");
            let is_suspect = may_be_of_message(&outcome(kind));
            if is_suspect && taken[0] != 1 {
                // The endpoint recovered between the head and the entry behind: the head follows at once.
                assert_eq!(taken[1], 1, "{kind:?} until {end}");
                taken.sort_unstable();
            }
            assert_eq!(taken, all, "{kind:?} until {end}");
            let only_head = walk.requests[..end].iter().all(|(number, _)| *number == 1);
            assert!(is_suspect || only_head, "nothing goes ahead of its turn: {kind:?}");
        }
    }
}

#[test]
fn an_endpoint_that_fails_at_everything_gets_the_head_and_one_entry_behind_in_turn() {
    let walk = Walk::of(20, 100, |_, _| Ok(500));
    assert_eq!(walk.skipped, Vec::<i64>::new());
    let numbers: Vec<i64> = walk.requests.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers[..14], [1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 3, 1, 4, 1]);
    assert!(numbers.windows(2).skip(7).all(|two| (two[0] == 1) != (two[1] == 1)), "{numbers:?}");
    assert_eq!(numbers.iter().max(), Some(&11), "at most ten behind");
}

#[test]
fn an_entry_that_brings_the_receiver_down_is_skipped_if_the_receiver_is_back_before_the_next_probe() {
    for seconds in [2, 8, 40] {
        let mut down_until = 0;
        let walk = Walk::over_time(20, MANY, |number, _, now| match number {
            _ if now < down_until => Err(SendFailure::Connection),
            5 => {
                down_until = now + seconds;
                Err(SendFailure::Cut)
            }
            _ => Ok(200),
        });
        let others: Vec<i64> = (1..=20).filter(|number| *number != 5).collect();
        // Entries that showed that the receiver is well again came ahead of the entry directly behind the head.
        let mut taken = walk.taken();
        taken.sort_unstable();
        assert_eq!((taken, &walk.skipped[..]), (others, &[5][..]), "down for {seconds} s");
        assert!(walk.count(5) < 20, "{} tries, down for {seconds} s", walk.count(5));
    }
}

#[test]
fn an_outage_of_a_receiver_that_any_entry_brings_down_loses_nothing_whenever_it_ends() {
    for (seconds, end) in [2, 8, 40, 90].into_iter().flat_map(|down| (0..2_000).map(move |end| (down, end))) {
        let mut down_until = 0;
        let walk = Walk::over_time(20, MANY, |_, _, now| match now {
            _ if now >= end => Ok(200),
            _ if now < down_until => Err(SendFailure::Connection),
            _ => {
                down_until = now + seconds;
                Err(SendFailure::Cut)
            }
        });
        assert_eq!(walk.skipped, Vec::<i64>::new(), "down for {seconds} s each, until {end}");
        let mut taken = walk.taken();
        taken.sort_unstable();
        assert_eq!(taken, (1..=20).collect::<Vec<i64>>(), "down for {seconds} s each, until {end}");
    }
}

#[test]
fn after_a_cut_and_no_connection_only_one_probe_begins_with_an_entry_behind() {
    let rows = work(0, (1, 3), &[1, 2, 3]);
    let mut suspicion = Suspicion::default();
    let step = |suspicion: &mut Suspicion| suspicion.instead(next(&rows, Timestamp(1_000)), &rows.entries);
    let (cut, none) = (outcome(Err(SendFailure::Cut)), outcome(Err(SendFailure::Connection)));
    for tries in 1..=8 {
        assert!(matches!(step(&mut suspicion), Next::Send(_)));
        suspicion.head_failed(&cut, tries);
    }
    assert!(matches!(step(&mut suspicion), Next::TryBehind(entry) if entry.id.number == 2));
    suspicion.behind_answered(2, &none);
    for _ in 0..2 {
        // The step is asked for again and again until the probe may begin.
        assert!(matches!(step(&mut suspicion), Next::TryBehind(entry) if entry.id.number == 3));
        assert!(!suspicion.is_under_way(), "the entry waits for the next probe");
    }
    suspicion.behind_answered(3, &none);
    assert!(matches!(step(&mut suspicion), Next::Send(entry) if entry.id.number == 1));
    assert!(!suspicion.is_under_way() && !suspicion.is_last_chance());
}

#[test]
fn a_head_is_kept_if_no_connection_is_made_after_the_entry_behind_was_taken() {
    // After entry 2 was taken there is once no connection.
    let mut broken = false;
    let mut seen = 0;
    let walk = Walk::of(5, MANY, |number, _| {
        seen = seen.max(number);
        match number {
            1 if seen > 1 && !std::mem::replace(&mut broken, true) => Err(SendFailure::Connection),
            1 if broken => Ok(200),
            1 => Ok(500),
            _ => Ok(200),
        }
    });
    assert_eq!((walk.taken(), walk.skipped), (vec![2, 1, 3, 4, 5], vec![]));
}

#[test]
fn without_an_entry_behind_the_head_waits_and_is_skipped_when_a_later_entry_was_taken() {
    let walk = Walk::of(1, 100, |_, _| Ok(500));
    assert_eq!((walk.skipped, walk.requests.len()), (vec![], 100));
    let mut suspicion = Suspicion::default();
    let failed = outcome(Ok(500));
    let (alone, more) = (work(0, (1, 1), &[1]), work(0, (1, 2), &[1, 2]));
    let step = |suspicion: &mut Suspicion, rows: &SubscriptionWork| {
        suspicion.instead(next(rows, Timestamp(1_000)), &rows.entries)
    };
    for tries in 1..=8 {
        assert!(matches!(step(&mut suspicion, &alone), Next::Send(entry) if entry.id.number == 1));
        suspicion.head_failed(&failed, tries);
    }
    assert!(suspicion.is_under_way());
    assert!(matches!(step(&mut suspicion, &alone), Next::Send(entry) if entry.id.number == 1));
    assert!(!suspicion.is_under_way(), "the head waits for its next try");
    assert!(matches!(step(&mut suspicion, &more), Next::Send(entry) if entry.id.number == 1));
    suspicion.head_failed(&failed, 9);
    assert!(matches!(step(&mut suspicion, &more), Next::TryBehind(entry) if entry.id.number == 2));
    suspicion.behind_answered(2, &outcome(Ok(200)));
    for tries in 10..=11 {
        assert!(suspicion.is_under_way() && !suspicion.is_last_chance());
        assert!(matches!(step(&mut suspicion, &more), Next::Send(entry) if entry.id.number == 1));
        suspicion.head_failed(&failed, tries);
    }
    assert!(suspicion.is_under_way() && suspicion.is_last_chance());
    assert!(matches!(step(&mut suspicion, &more), Next::Send(entry) if entry.id.number == 1));
    suspicion.interrupted();
    assert!(!suspicion.is_last_chance(), "the entry behind was not taken directly before");
}

#[test]
fn a_message_about_a_gap_is_suspect_as_an_entry_is() {
    let rows = work(2, (7, 9), &[8, 9]);
    let mut suspicion = Suspicion::default();
    suspicion.read_at(2);
    let step = |suspicion: &mut Suspicion| suspicion.instead(next(&rows, Timestamp(1_000)), &rows.entries);
    let gap = Next::TellGap(Gap { first: 3, last: 6 });
    for tries in 1..=8 {
        assert_eq!(step(&mut suspicion), gap);
        suspicion.head_failed(&outcome(Ok(500)), tries);
    }
    assert!(matches!(step(&mut suspicion), Next::TryBehind(entry) if entry.id.number == 8));
    suspicion.behind_answered(8, &outcome(Ok(200)));
    for tries in 9..=10 {
        assert_eq!(step(&mut suspicion), gap);
        suspicion.head_failed(&outcome(Ok(500)), tries);
    }
    assert_eq!(step(&mut suspicion), gap);
    assert!(suspicion.is_last_chance());
}

#[test]
fn only_a_head_without_an_answer_in_time_leaves_the_entry_behind_less_time() {
    let mut suspicion = Suspicion::default();
    for (answer, is_silent) in
        [(Err(SendFailure::Timeout), true), (Err(SendFailure::Cut), false), (Ok(504), false)]
    {
        suspicion.head_failed(&outcome(answer), 8);
        assert_eq!(suspicion.is_silent(), is_silent, "{answer:?}");
    }
}

#[test]
fn another_message_at_the_head_is_not_suspect() {
    let mut suspicion = Suspicion::default();
    let at = |first: i64| work(0, (1, 3), &[first, 3]);
    let step = |suspicion: &mut Suspicion, rows: &SubscriptionWork| {
        suspicion.instead(next(rows, Timestamp(1_000)), &rows.entries)
    };
    for tries in 1..=8 {
        assert!(matches!(step(&mut suspicion, &at(1)), Next::Send(_)));
        suspicion.head_failed(&outcome(Ok(500)), tries);
    }
    assert!(matches!(step(&mut suspicion, &at(1)), Next::TryBehind(entry) if entry.id.number == 3));
    suspicion.behind_answered(3, &outcome(Ok(200)));
    // A person changed the filter: entry 1 is not selected any more.
    assert!(matches!(step(&mut suspicion, &at(2)), Next::Send(entry) if entry.id.number == 2));
    assert!(!suspicion.is_last_chance() && !suspicion.is_under_way());
}

#[test]
fn a_position_that_a_person_moved_forgets_what_was_taken_ahead() {
    let rows = work(0, (1, 3), &[1, 2, 3]);
    let mut suspicion = Suspicion::default();
    suspicion.behind_answered(2, &outcome(Ok(200)));
    suspicion.moved_to(1);
    let at = |position| SubscriptionWork {
        subscription: Subscription { position, ..rows.subscription.clone() },
        ..rows.clone()
    };
    suspicion.read_at(1);
    assert_eq!(suspicion.instead(next(&at(1), Timestamp(1_000)), &rows.entries), Next::Pass(2));
    suspicion.read_at(0);
    suspicion.moved_to(1);
    assert!(matches!(suspicion.instead(next(&at(1), Timestamp(1_000)), &rows.entries), Next::Send(_)));
}

#[test]
fn only_a_failure_after_the_message_was_sent_that_asks_for_no_wait_may_be_about_it() {
    let is_of_message = |answer| may_be_of_message(&outcome(answer));
    for status in [400, 401, 403, 404, 405, 409, 422, 423, 500, 501, 502, 503, 504, 599] {
        assert!(is_of_message(Ok(status)), "{status}");
        let asking = AttemptOutcome { retry_after: Some(Duration::ZERO), ..outcome(Ok(status)) };
        assert!(!may_be_of_message(&asking), "{status} with Retry-After");
    }
    for status in [100, 200, 204, 301, 302, 304, 408, 410, 425, 429] {
        assert!(!is_of_message(Ok(status)), "{status}");
    }
    for (fault, may_be) in [
        (SendFailure::Timeout, true),
        (SendFailure::Cut, true),
        (SendFailure::Connection, false),
        (SendFailure::Refused, false),
        (SendFailure::InvalidUrl, false),
    ] {
        assert_eq!(is_of_message(Err(fault)), may_be, "{fault:?}");
    }
}
