//! What a lane does about failures: parks, streaks, blocks and their ends, against scripts.

use super::*;

#[test]
fn a_poisoned_change_does_not_block_the_next() {
    let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    world.finish_one(Verdict::Refused);
    assert_eq!(world.finish_one(Verdict::Acknowledged), 1);
    assert_eq!(world.parked, [0]);
    assert!(world.lane.is_finished());
}

#[test]
fn ten_parks_in_a_row_block_the_cursor_until_its_head_is_taken() {
    let mut world = World::new(changes(0, 12, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    for _ in 0..10 {
        world.finish_one(Verdict::Failing);
    }
    assert!(matches!(world.standings.as_slice(), [Standing::Blocked(_)]), "{:?}", world.standings);
    for _ in 0..50 {
        world.wait(61);
        let head = world.launch().expect("the head is tried under probe");
        assert_eq!(head, 10);
        assert!(
            world.answer(head, Verdict::Doubtful).expect("failed").retry_in <= Some(PROBE_WAIT_LAST),
            "nothing more is parked"
        );
        world.settle();
    }
    world.wait(61);
    let head = world.launch().expect("due");
    world.answer(head, Verdict::Acknowledged);
    world.settle();
    assert_eq!(world.standings[1..], [Standing::Unblocked]);
    let streak = SelfRedrive { from: (5, 0), before: (5, 10), counted: true };
    assert_eq!(world.redriven, [streak], "the streak is sent again");
    assert_eq!(world.launch(), Some(11), "the round goes on");
}

#[test]
fn an_acknowledgement_and_a_refusal_end_the_streak() {
    for ending in [Verdict::Acknowledged, Verdict::Refused, Verdict::Contested] {
        the_streak_ends_with(ending);
    }
}

fn the_streak_ends_with(ending: Verdict) {
    let mut world = World::new(changes(0, 30, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    for _ in 0..3 {
        for _ in 0..9 {
            world.finish_one(Verdict::Doubtful);
        }
        world.finish_one(ending);
    }
    assert!(world.standings.is_empty() && world.lane.is_finished());
}

#[test]
fn a_refused_change_is_parked_at_once_and_a_contested_one_at_the_third_try() {
    let mut world = World::new(changes(0, 2_000, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    for position in 0..1_500 {
        assert_eq!(world.launch(), Some(position));
        let failed = world.answer(position, Verdict::Refused).expect("failed");
        assert_eq!((failed.number, failed.retry_in), (1, None));
        world.settle();
    }
    assert!(world.standings.is_empty(), "a receiver that refused may refuse for ever: {:?}", world.standings);
    let tries = std::iter::from_fn(|| {
        world.wait(3);
        let position = world.launch()?;
        world.answer(position, Verdict::Contested)?.retry_in
    });
    assert_eq!(tries.count(), 2, "the third parks");
}

#[test]
fn what_ends_a_block_by_a_streak_sends_the_streak_again() {
    for ending in [Verdict::Acknowledged, Verdict::Refused, Verdict::Contested] {
        let mut world = World::new(changes(0, 12, 0), OrderMode::Strict);
        world.acknowledged = true;
        world.crash();
        for _ in 0..10 {
            world.finish_one(Verdict::Doubtful);
        }
        // What the rows say is enough: a restart in between changes nothing.
        world.crash();
        assert!(world.lane.is_blocked());
        assert_eq!(world.finish_one(ending), 10);
        assert_eq!(world.standings[1..], [Standing::Unblocked], "{ending:?}");
        assert_eq!(world.redriven, [SelfRedrive { from: (5, 0), before: (5, 10), counted: true }]);
        assert_eq!(world.streak, Streak::default());
        assert!(!world.lane.is_blocked());
    }
}

#[test]
fn a_receiver_that_only_refuses_is_probed_after_a_thousand_until_it_takes_something() {
    let mut world = World::new(changes(0, 1_100, 0), OrderMode::Strict);
    for position in 0..u64::from(REFUSALS_MAX) {
        assert_eq!(world.finish_one(Verdict::Refused), position);
    }
    assert!(
        matches!(world.standings.as_slice(), [Standing::Blocked(why)] if why.starts_with("refuses_everything")),
        "{:?}",
        world.standings
    );
    world.crash();
    for _ in 0..20 {
        world.wait(300);
        let head = world.launch().expect("the head is tried under probe");
        assert_eq!(head, u64::from(REFUSALS_MAX));
        let failed = world.answer(head, Verdict::Refused).expect("failed");
        assert!(failed.retry_in.is_some_and(|wait| wait <= PROBE_WAIT_LAST), "nothing more is parked");
    }
    world.wait(300);
    assert_eq!(world.finish_one(Verdict::Acknowledged), u64::from(REFUSALS_MAX));
    assert_eq!(world.standings[1..], [Standing::Unblocked]);
    let all = SelfRedrive { from: (0, 0), before: (5, u64::from(REFUSALS_MAX)), counted: false };
    assert_eq!(world.redriven, [all], "what it refused meanwhile is sent again");
}

#[test]
fn the_streak_of_a_round_that_ended_blocks_the_next_one_from_its_first_change() {
    let list = changes(0, 3, 0);
    let streak = Streak { count: STREAK_MAX, from: Some((4, 0)), refused: 0 };
    let mut world = World::new(list.clone(), OrderMode::Phased);
    world.lane = Lane::new(LaneStart {
        round: round(&list, 0),
        order: OrderMode::Phased,
        max_in_flight: 3,
        batch: None,
        streak,
        grace_until: None,
        acknowledged: true,
        blocked: false,
        head_attempts: HeadAttempts::default(),
        above: Vec::new(),
        skip: None,
    });
    assert_eq!((world.launch(), world.launch()), (Some(0), None), "only the head goes");
    world.settle();
    assert!(matches!(world.effects.as_slice(), [CursorEffect::Block(_)]), "and that is said");
}

#[test]
fn a_clock_that_is_set_back_puts_a_block_off_by_one_window_at_most() {
    let mut world = World::new(changes(0, 1, 0), OrderMode::Strict);
    let head = world.launch().expect("due");
    world.answer(head, Verdict::Endpoint);
    world.wait(61);
    world.wall -= 86_400_000;
    let set_back_at = world.wall;
    while !world.lane.is_blocked() {
        assert!(world.wall - set_back_at < 3_700_000, "not blocked after more than a window");
        let head = world.launch().expect("due");
        world.answer(head, Verdict::Endpoint);
        world.wait(61);
    }
}

#[test]
fn an_answer_ends_a_block_of_the_window() {
    for verdict in [Verdict::Refused, Verdict::Contested, Verdict::Doubtful, Verdict::Failing] {
        let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
        while !world.lane.is_blocked() {
            let head = world.launch().expect("due");
            world.answer(head, Verdict::Endpoint);
            world.wait(61);
        }
        let head = world.launch().expect("due");
        world.answer(head, verdict);
        assert!(!world.lane.is_blocked(), "{verdict:?}");
        world.settle();
        assert!(matches!(world.effects.as_slice(), [CursorEffect::Block(_), CursorEffect::Unblock]));
    }
}

#[test]
fn a_new_watch_waits_two_minutes_on_what_a_client_that_is_not_ready_answers() {
    let waits = |status: u16, verdict| {
        let list = changes(0, 2, 0);
        let mut world = World::new(list.clone(), OrderMode::Strict);
        world.lane = Lane::new(LaneStart {
            round: round(&list, 0),
            order: OrderMode::Strict,
            max_in_flight: 1,
            batch: None,
            streak: Streak::default(),
            grace_until: Some(Timestamp(120_000)),
            acknowledged: false,
            blocked: false,
            head_attempts: HeadAttempts::default(),
            above: Vec::new(),
            skip: None,
        });
        world.status = status;
        loop {
            let head = world.launch().expect("due");
            let Some(wait) = world.answer(head, verdict).expect("failed").retry_in else {
                return world.wall;
            };
            assert!(wait <= Duration::from_secs(10));
            world.wait(wait.as_secs().max(1) + 1);
        }
    };
    for (status, verdict) in [
        (400, Verdict::Refused),
        (401, Verdict::Doubtful),
        (403, Verdict::Doubtful),
        (404, Verdict::Doubtful),
        (409, Verdict::Contested),
    ] {
        assert!((120_000..130_000).contains(&waits(status, verdict)), "{status}: {}", waits(status, verdict));
    }
    for (status, verdict) in [(422, Verdict::Refused), (413, Verdict::Refused), (405, Verdict::Doubtful)] {
        assert!(waits(status, verdict) < 10_000, "{status}: {}", waits(status, verdict));
    }
}

#[test]
fn the_grace_of_a_new_watch_ends_with_its_first_acknowledgement() {
    let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
    world.lane.grace_until = Some(Timestamp(120_000));
    world.status = 404;
    assert_eq!(world.finish_one(Verdict::Acknowledged), 0);
    let head = world.launch().expect("ready");
    world.answer(head, Verdict::Doubtful);
    world.wait(3);
    let parked = std::iter::from_fn(|| {
        let head = world.launch()?;
        let wait = world.answer(head, Verdict::Doubtful)?.retry_in;
        world.wait(3);
        wait
    });
    assert_eq!(parked.count(), 1, "the third try parks");
}

#[test]
fn an_endpoint_that_answers_others_makes_the_failure_the_changes_own() {
    let mut world = World::new(changes(0, 1, 0), OrderMode::Strict);
    let mut parked = false;
    for _ in 0..9 {
        let position = world.launch().expect("due");
        let elsewhere = Some(world.now + Duration::from_millis(1));
        let failed = world.answer_with(position, Verdict::Endpoint, elsewhere).expect("failed");
        parked = failed.retry_in.is_none();
        world.wait(61);
    }
    assert!(parked, "eight tries after the first are the item's own");

    let mut alone = World::new(changes(0, 1, 0), OrderMode::Strict);
    for _ in 0..30 {
        let position = alone.launch().expect("due");
        let failed = alone.answer_with(position, Verdict::Endpoint, None).expect("failed");
        assert!(failed.retry_in.is_some() && !failed.item, "an endpoint failure alone never parks");
        alone.wait(61);
    }
}

#[test]
fn an_unobtainable_content_is_parked_and_does_not_count() {
    let list = changes(0, 11, 0);
    let mut world = World::new(list.clone(), OrderMode::Strict);
    assert!(world.lane.want_read().is_some());
    assert!(world.lane.on_read(list.clone()));
    loop {
        let wanted = world.lane.want_prepare(world.now, AHEAD);
        let Some((position, change, _)) = wanted.into_iter().next() else { break };
        let letter = DeadLetterId::new(Ulid::from_parts(position, 0));
        world.lane.on_prepared(Vec::new());
        world.lane.on_blob_unobtainable(position, change.new.expect("a create").blob, letter);
    }
    world.settle();
    assert_eq!((world.settled, world.parked.len()), (11, 11));
    assert!(world.standings.is_empty() && world.streak == Streak::default());
}

#[test]
fn a_head_that_is_skipped_by_hand_is_parked_once_and_does_not_count() {
    let list = changes(0, 3, 0);
    let mut world = World::new(list.clone(), OrderMode::Strict);
    let letter = DeadLetterId::new(Ulid::from_parts(7, 7));
    world.lane = Lane::new(LaneStart {
        round: round(&list, 1),
        order: OrderMode::Strict,
        max_in_flight: 1,
        batch: None,
        streak: Streak { count: 3, from: Some((4, 2)), refused: 0 },
        grace_until: None,
        acknowledged: true,
        blocked: false,
        head_attempts: HeadAttempts::default(),
        above: Vec::new(),
        skip: Some(letter.clone()),
    });
    world.feed();
    let settlement = world.lane.want_settle(Timestamp(0), false).expect("it is given up");
    assert_eq!((settlement.position, settlement.streak.count), (2, 3));
    let park = &settlement.parked[0];
    assert_eq!((&park.id, park.position, park.reason), (&letter, 1, ParkReason::Skipped));
    world.lane.on_settled();
    assert_eq!(world.launch(), Some(2), "the next one goes on");
}

#[test]
fn a_block_of_the_window_is_written_before_the_settlement_that_ends_it() {
    let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
    while !world.lane.is_blocked() {
        let head = world.launch().expect("due");
        world.answer(head, Verdict::Endpoint);
        world.wait(61);
    }
    let head = world.launch().expect("due");
    world.answer(head, Verdict::Acknowledged);
    assert!(world.lane.want_settle(Timestamp(0), false).is_none(), "the block is not written yet");
    assert!(matches!(world.lane.want_effect(), Some(CursorEffect::Block(_))));
    world.lane.on_effect_written();
    world.settle();
    assert_eq!(world.standings, [Standing::Unblocked]);
}
