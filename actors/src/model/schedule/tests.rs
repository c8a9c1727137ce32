//! Cron lines, the nights of summer time, what is done about ticks that are over, and clocks that move.

use std::time::Duration;

use proptest::prelude::*;
use tidings_entity::kind::{MissedTicks, TickOverlap};

use super::{
    Calendar, CalendarFault, CronFault, CronLine, EACH_MAX, Firing, OVERLAP_LOOK, begins_anew, fire,
};
use crate::time::Timestamp;

const MINUTE: i64 = 60_000;

fn at(text: &str) -> Timestamp {
    Timestamp::parsed(text).expect("a moment")
}

fn minute(number: i64) -> Timestamp {
    Timestamp(number * MINUTE)
}

fn calendar(cron: &str, zone: &str) -> Calendar {
    Calendar::of(cron, zone).expect("a calendar")
}

/// The next ticks of a line, without what all of them have: `03-28 01:30`.
fn ticks(cron: &str, zone: &str, from: &str, count: usize) -> String {
    let calendar = calendar(cron, zone);
    let ticks = std::iter::successors(calendar.after(at(from)), |tick| calendar.after(*tick));
    let short = |tick: Timestamp| tick.iso()[5..16].replace('T', " ");
    ticks.take(count).map(short).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_line_names_its_moments() {
    for (cron, expected) in [
        ("* * * * *", "01-15 10:31, 01-15 10:32"),
        ("5 * * * *", "01-15 11:05, 01-15 12:05"),
        ("*/20 8-9 * * *", "01-16 08:00, 01-16 08:20"),
        ("50/5 10 * * *", "01-15 10:50, 01-15 10:55"),
        ("0 0 1,31 * *", "01-31 00:00, 02-01 00:00"),
        ("0 12 * feb mon-Tue", "02-02 12:00, 02-03 12:00"),
        ("0 0 * * 7", "01-18 00:00, 01-25 00:00"),
        ("0 0 * * sun", "01-18 00:00, 01-25 00:00"),
        ("0 0 * * 5-7", "01-16 00:00, 01-17 00:00"),
        ("0 0 13 * fri", "01-16 00:00, 01-23 00:00"),
        ("0 0 */10 * fri", "05-01 00:00, 07-31 00:00"),
        ("0 0 29 2 *", "02-29 00:00, 02-29 00:00"),
        ("@hourly", "01-15 11:00, 01-15 12:00"),
        ("@DAILY", "01-16 00:00, 01-17 00:00"),
        ("@weekly", "01-18 00:00, 01-25 00:00"),
        ("@monthly", "02-01 00:00, 03-01 00:00"),
        ("@yearly", "01-01 00:00, 01-01 00:00"),
    ] {
        assert_eq!(ticks(cron, "UTC", "2026-01-15T10:30:00Z", 2), expected, "{cron}");
    }
}

#[test]
fn a_line_that_is_none_is_refused_with_its_part() {
    for cron in ["", "* * * *", "* * * * * *", "@sometimes", "@reboot"] {
        assert_eq!(cron.parse::<CronLine>(), Err(CronFault::Fields), "{cron:?}");
    }
    for (cron, wrong) in [
        ("60 * * * *", "60"),
        ("* 24 * * *", "24"),
        ("* * 0 * *", "0"),
        ("* * * 13 *", "13"),
        ("* * * * 8", "8"),
        ("5-1 * * * *", "5-1"),
        ("*/0 * * * *", "*/0"),
        ("+5 * * * *", "+5"),
        ("-5 * * * *", "-5"),
        ("1,,2 * * * *", ""),
        ("1- * * * *", "1-"),
        ("99999999999 * * * *", "99999999999"),
        ("* * * mon *", "mon"),
        ("\u{661} * * * *", "\u{661}"),
    ] {
        match cron.parse::<CronLine>() {
            Err(CronFault::Part { part, .. }) => assert_eq!(part, wrong, "{cron}"),
            other => panic!("{cron}: {other:?}"),
        }
    }
    for cron in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        assert_eq!(cron.parse::<CronLine>(), Err(CronFault::Never), "{cron}");
    }
    for zone in ["", "Rome", "europe/rome", "Etc/Unknown", "../etc/passwd", "UTC+1"] {
        let fault = Calendar::of("@daily", zone).map(drop);
        assert_eq!(fault, Err(CalendarFault::Zone(zone.to_owned())), "{zone}");
    }
}

#[test]
fn a_time_that_does_not_exist_fires_at_the_end_of_the_gap() {
    // Rome goes from 02:00 to 03:00 on the 29th of March, at 01:00 UTC.
    let rome = |cron: &str, from: &str, count: usize| ticks(cron, "Europe/Rome", from, count);
    let night = "2026-03-28T00:00:00Z";
    assert_eq!(rome("30 2 * * *", night, 3), "03-28 01:30, 03-29 01:00, 03-30 00:30");
    assert_eq!(rome("0 3 * * *", night, 3), "03-28 02:00, 03-29 01:00, 03-30 01:00");
    assert_eq!(rome("*/15 2 * * *", "2026-03-29T00:00:00Z", 2), "03-29 01:00, 03-30 00:00");
    let all = rome("*/30 * * * *", "2026-03-29T00:00:00Z", 4);
    assert_eq!(all, "03-29 00:30, 03-29 01:00, 03-29 01:30, 03-29 02:00");
    // Lord Howe goes from 02:00 to 02:30 on the 4th of October, at 15:30 UTC of the 3rd.
    let lord_howe = |cron: &str, from: &str, count: usize| ticks(cron, "Australia/Lord_Howe", from, count);
    let night = "2026-10-02T00:00:00Z";
    assert_eq!(lord_howe("15 2 * * *", night, 3), "10-02 15:45, 10-03 15:30, 10-04 15:15");
    assert_eq!(
        lord_howe("*/10 2 * * *", "2026-10-03T00:00:00Z", 4),
        "10-03 15:30, 10-03 15:40, 10-03 15:50, 10-04 15:00"
    );
}

#[test]
fn a_time_that_comes_twice_fires_at_the_first() {
    // Rome goes from 03:00 back to 02:00 on the 25th of October, at 01:00 UTC.
    let rome = |cron: &str, from: &str, count: usize| ticks(cron, "Europe/Rome", from, count);
    let night = "2026-10-24T00:00:00Z";
    assert_eq!(rome("30 2 * * *", night, 3), "10-24 00:30, 10-25 00:30, 10-26 01:30");
    let all = rome("*/30 * * * *", "2026-10-24T23:45:00Z", 4);
    assert_eq!(all, "10-25 00:00, 10-25 00:30, 10-25 02:00, 10-25 02:30");
    // In the second of the two hours nothing of the first is left.
    assert_eq!(rome("30 2 * * *", "2026-10-25T01:10:00Z", 1), "10-26 01:30");
    // Lord Howe goes from 02:00 back to 01:30 on the 5th of April, at 15:00 UTC of the 4th.
    let lord_howe = |cron: &str, from: &str, count: usize| ticks(cron, "Australia/Lord_Howe", from, count);
    assert_eq!(lord_howe("45 1 * * *", "2026-04-03T00:00:00Z", 3), "04-03 14:45, 04-04 14:45, 04-05 15:15");
    assert_eq!(lord_howe("45 1 * * *", "2026-04-04T15:05:00Z", 1), "04-05 15:15");
}

proptest! {
    #[test]
    fn ticks_that_are_over_are_those_that_were_ahead(
        cron in prop_oneof![
            Just("* * * * *"), Just("*/7 * * * *"), Just("30 2 * * *"), Just("15,45 1-3 * * sun"),
            Just("0 0 1 * *"),
        ],
        zone in prop_oneof![
            Just("UTC"), Just("Europe/Rome"), Just("Australia/Lord_Howe"), Just("America/Sao_Paulo"),
            Just("Asia/Beirut"), Just("Pacific/Apia"), Just("Antarctica/Troll"),
        ],
        from in 1_000_000_000_i64..1_900_000_000,
        hours in 0_i64..100,
    ) {
        let calendar = calendar(cron, zone);
        let (from, until) = (Timestamp(from * 1_000), Timestamp((from + hours * 3_600) * 1_000));
        let ahead = std::iter::successors(calendar.after(from), |tick| calendar.after(*tick));
        let ahead: Vec<Timestamp> = ahead.take_while(|tick| *tick <= until).collect();
        prop_assert!(ahead.windows(2).all(|pair| pair[0] < pair[1]));
        let mut over = calendar.between(from, until, usize::MAX);
        over.reverse();
        prop_assert_eq!(&over, &ahead);
        let newest = calendar.between(from, until, 3);
        prop_assert!(newest.iter().rev().eq(ahead.iter().skip(ahead.len().saturating_sub(3))));
    }
}

/// What a schedule of every ten minutes does whose last tick is at minute 0.
fn fires(missed: MissedTicks, overlap: TickOverlap, is_busy: bool, now: i64) -> Firing {
    fire(&calendar("*/10 * * * *", "UTC"), (missed, overlap), is_busy, minute(0), minute(now))
}

fn firing(ticks: &[i64], last: i64, missed: u64, skipped: u64, wake: i64) -> Firing {
    let ticks = ticks.iter().map(|number| minute(*number)).collect();
    Firing { ticks, last_tick: minute(last), missed, skipped, wake_at: Some(minute(wake)) }
}

#[test]
fn missed_ticks_are_made_up_by_one_task_or_by_one_each() {
    use MissedTicks::{Each, One};
    let allow = TickOverlap::Allow;
    assert_eq!(fires(One, allow, false, 9), firing(&[], 0, 0, 0, 10));
    assert_eq!(fires(One, allow, false, 10), firing(&[10], 10, 0, 0, 20));
    assert_eq!(fires(One, allow, true, 35), firing(&[30], 30, 2, 0, 40));
    assert_eq!(fires(Each, allow, true, 35), firing(&[10, 20, 30], 30, 0, 0, 40));
    let long = fires(Each, allow, false, 2_005);
    assert_eq!((long.ticks.len(), long.missed), (EACH_MAX, 100));
    assert_eq!((long.ticks[0], long.last_tick), (minute(1_010), minute(2_000)), "the newest are made up");
    let longest = fires(One, allow, false, 20_000_000);
    assert_eq!((longest.ticks, longest.missed), (vec![minute(20_000_000)], 999));
}

#[test]
fn of_many_ticks_the_first_fire_and_the_others_at_once_after_them() {
    let all = fires(MissedTicks::Each, TickOverlap::Allow, false, 35);
    assert_eq!(all.clone().first(3, minute(35)), all);
    assert_eq!(all.clone().first(2, minute(35)), firing(&[10, 20], 20, 0, 0, 35));
    assert_eq!(all.first(0, minute(35)), firing(&[10], 10, 0, 0, 35), "a schedule goes on");
    let none = fires(MissedTicks::Each, TickOverlap::Skip, true, 25);
    assert_eq!(none.clone().first(1, minute(25)), none);
}

#[test]
fn a_tick_is_skipped_or_waits_while_the_task_before_it_runs() {
    use MissedTicks::{Each, One};
    use TickOverlap::{Skip, Wait};
    let look = |now: i64| Some(minute(now).after(OVERLAP_LOOK));
    assert_eq!(fires(One, Skip, true, 25), firing(&[], 20, 0, 2, 30));
    assert_eq!(fires(One, Skip, false, 25), firing(&[20], 20, 1, 0, 30));
    assert_eq!(fires(Each, Skip, false, 25), firing(&[20], 20, 0, 1, 30));
    for missed in [One, Each] {
        assert_eq!(fires(missed, Wait, true, 25), Firing { wake_at: look(25), ..firing(&[], 0, 0, 0, 0) });
    }
    assert_eq!(fires(One, Wait, false, 25), firing(&[20], 20, 1, 0, 30));
    assert_eq!(fires(Each, Wait, false, 25), Firing { wake_at: look(25), ..firing(&[10], 10, 0, 0, 0) });
    assert_eq!(fires(Each, Wait, false, 15), firing(&[10], 10, 0, 0, 20));
}

#[test]
fn a_clock_that_moves_back_and_forth_fires_each_tick_once() {
    let calendar = calendar("*/10 * * * *", "UTC");
    let (mut last, mut fired) = (minute(0), Vec::new());
    for now in [5, 12, 3, 12, 25, 8, 25, 31, 61, 0, 29, 61, 60, 70] {
        let rules = (MissedTicks::Each, TickOverlap::Allow);
        let firing = fire(&calendar, rules, false, last, minute(now));
        assert!(firing.last_tick >= last, "the position never falls");
        assert!(firing.wake_at > Some(firing.last_tick), "it waits for a tick that is not decided");
        last = firing.last_tick;
        fired.extend(firing.ticks.iter().map(|tick| tick.0 / MINUTE));
    }
    assert_eq!(fired, [10, 20, 30, 40, 50, 60, 70]);
}

#[test]
fn who_goes_on_owes_nothing_of_before_and_forgets_a_clock_that_was_wrong() {
    let now = minute(10_000);
    for (last, expected) in [(5_000, 10_000), (10_005, 10_005), (2_000_000, 10_000)] {
        assert_eq!(begins_anew(minute(last), now), minute(expected), "{last}");
    }
    assert_eq!(begins_anew(now, Timestamp(now.0)), now);
    let soon = now.after(Duration::from_secs(3_600));
    assert_eq!(begins_anew(soon, now), soon);
}
