//! What a lane renders ahead and sends in a row: bounds of bytes, of the window and of phases.

use super::*;

/// Plays a round in which every delivery has this many bytes; the most that was held at a time.
fn held_most(count: u64, size: usize) -> u64 {
    let list = changes(0, count, 0);
    let mut world = World::new(list.clone(), OrderMode::Strict);
    assert!(world.lane.want_read().is_some() && world.lane.on_read(list));
    let mut most = 0;
    while !world.lane.is_finished() {
        loop {
            let wanted = world.lane.want_prepare(world.now, AHEAD);
            if wanted.is_empty() {
                break;
            }
            // As a transport does: the first, and what fits beside it.
            let fits = usize::try_from(AHEAD_BYTES).expect("small") / size;
            let rendered = wanted.iter().take(fits.max(1)).map(|(_, change, _)| parcel(change, size));
            world.lane.on_prepared(rendered.collect());
        }
        let position = world.lane.next_sendable(world.now).expect("the head is ready");
        let launched = world.lane.launch(position, false).parcels;
        most = most.max(world.lane.held());
        launched.iter().for_each(|(position, _)| world.lane.on_acknowledged(*position));
        world.settle();
    }
    most
}

#[test]
fn what_a_lane_holds_is_bounded_by_bytes_and_large_deliveries_go_one_by_one() {
    assert_eq!(held_most(40, 2 << 20), 2 << 20);
    let medium = held_most(200, 100 << 10);
    assert!(medium > 3 * (100 << 10) && medium <= 2 * AHEAD_BYTES, "{medium}");
    let small = held_most(500, 1 << 10);
    assert!(small >= PIPELINE as u64 * (1 << 10), "small ones are rendered ahead: {small}");
}

#[test]
fn a_stretch_stays_in_the_window_and_what_it_did_not_send_goes_out_later() {
    let mut world = World::new(changes(2, 100, 0), OrderMode::Strict);
    let mut longest = 0;
    for round in 0..102 {
        let position = world.launch().expect("ready");
        assert_eq!(position, round, "in order");
        longest = longest.max(world.pipeline.len());
        assert!(world.lane.round.position + world.settled + WINDOW > position + world.pipeline.len() as u64);
        world.answer(position, Verdict::Acknowledged);
        if round % 7 == 0 {
            world.halt();
        }
        if round % 40 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert!(world.lane.is_finished());
    assert!(longest >= PIPELINE / 2, "pipelines grow with acknowledgements: {longest}");
}

#[test]
fn a_receiver_that_never_answers_holds_one_rendered_delivery() {
    let mut world = World::new(changes(0, 100, 0), OrderMode::Strict);
    assert_eq!(world.launch(), Some(0));
    world.feed();
    assert!(world.lane.slots.iter().filter(|slot| matches!(slot.state, SlotState::Ready(_))).count() <= 1);
    world.answer(0, Verdict::Endpoint);
    world.feed();
    assert_eq!(world.lane.held(), 0, "while the head waits nothing is held");
    assert_eq!(world.launch(), None);
    world.wait(61);
    assert_eq!(world.launch(), Some(0));
}

#[test]
fn a_probe_goes_alone_and_is_rendered_before_its_wait_is_over() {
    let mut world = World::new(changes(0, 10, 0), OrderMode::Strict);
    assert_eq!(world.launch(), Some(0));
    world.answer(0, Verdict::Endpoint);
    assert!(world.lane.is_probeable(world.now) && world.lane.probe_head().is_none());
    world.lane.hurry_head();
    world.feed();
    assert_eq!(world.lane.probe_head(), Some(0));
    assert_eq!(world.lane.launch(0, true).parcels.len(), 1);
    world.lane.on_acknowledged(0);
    world.lane.retry_later(1, world.now + Duration::from_secs(2));
    assert!(!world.lane.is_probeable(world.now), "what cannot be rendered is no probe");
    world.wait(2);
    assert!(world.lane.is_probeable(world.now));
}

#[test]
fn what_is_recalled_behind_a_head_that_waits_holds_nothing() {
    let mut world = World::new(changes(0, 100, 0), OrderMode::Strict);
    for position in 0..20 {
        assert_eq!(world.launch(), Some(position));
        world.answer(position, Verdict::Acknowledged);
    }
    let head = world.launch().expect("ready");
    assert!(!world.pipeline.is_empty());
    world.answer(head, Verdict::Failing);
    assert!(!world.lane.slots.iter().any(|slot| matches!(slot.state, SlotState::Ready(_))));
}

#[test]
fn a_wait_that_is_over_hides_no_other() {
    let mut world = World::new(changes(0, 3, 0), OrderMode::Strict);
    assert_eq!(world.launch(), Some(0));
    world.lane.retry_later(2, world.now + Duration::from_millis(10));
    world.answer(0, Verdict::Endpoint);
    world.now += Duration::from_millis(20);
    let due = world.lane.next_due(world.now).expect("the head waits");
    assert!(due > world.now && world.lane.waits_at_head(world.now));
    assert_eq!(world.lane.next_due(due), None);
}

#[test]
fn nothing_of_a_later_phase_is_rendered_before_its_time() {
    let mut world = World::new(changes(2, 6, 0), OrderMode::Phased);
    assert_eq!((world.launch(), world.launch(), world.launch()), (Some(0), Some(1), None));
    world.answer(0, Verdict::Acknowledged);
    world.answer(1, Verdict::Endpoint);
    world.feed();
    assert_eq!(world.lane.ready(), 0, "the last delete waits for another try");
}

#[test]
fn a_probe_stays_in_the_window_too() {
    let mut world = World::new(changes(0, 200, 0), OrderMode::Strict);
    while let Some(position) = world.launch() {
        world.answer(position, Verdict::Acknowledged);
    }
    world.feed();
    assert!(!world.lane.is_probeable(world.now) && world.lane.probe_head().is_none());
    world.settle();
    world.feed();
    assert!(world.lane.is_probeable(world.now));
}

#[test]
fn a_lane_whose_head_is_being_rendered_leaves_the_probe_to_others() {
    let mut world = World::new(changes(0, 10, 0), OrderMode::Strict);
    assert!(world.lane.want_read().is_some() && world.lane.on_read(world.list.clone()));
    assert!(world.lane.is_probeable(world.now));
    assert_eq!(world.lane.want_prepare(world.now, 1).len(), 1);
    assert!(!world.lane.is_probeable(world.now));
}
