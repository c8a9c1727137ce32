//! Where a subscription that is sent by mail may stand, and a walk over many entries.

use std::time::Duration;

use tidings_entity::id::LedgerId;
use ulid::Ulid;

use super::{super::course::tests, *};
use crate::model::sink::SinkAddress;

const NOW: Timestamp = Timestamp(1_000_000);

fn ledger() -> LedgerId {
    LedgerId::new(Ulid::from_parts(1, 1))
}

/// A ledger of `first` to `last` whose entries of these numbers are wanted, read from `position` on.
fn work((first, last): (i64, i64), wanted: impl IntoIterator<Item = i64>, position: i64) -> SubscriptionWork {
    let wanted = wanted.into_iter().filter(|number| *number > position && *number >= first);
    let wanted: Vec<i64> = wanted.take(most()).collect();
    let mut work = tests::work(position, (first, last), &wanted);
    work.subscription.sink.address = SinkAddress::of_mail(&["ops@example.org".to_owned()]);
    if wanted.len() == most() {
        work.to = wanted[most() - 1];
    }
    work
}

fn shown(next: &Next) -> String {
    match next {
        Next::Rest => "rest".into(),
        Next::Quiet => "quiet".into(),
        Next::Pass(to) => format!("pass {to}"),
        Next::Freeze(range) => format!("freeze {}-{}", range.first, range.last),
        Next::Mail(digest) => {
            let numbers: Vec<i64> = digest.entries.iter().map(|entry| entry.id.number).collect();
            let gap = digest.gap.map_or(String::new(), |gap| format!(" gap {}-{}", gap.first, gap.last));
            format!("mail {}-{} {numbers:?}{gap}", digest.range.first, digest.range.last)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn a_mail_whose_answer_got_lost_stays_the_same_mail_also_after_a_later_refusal() {
    let range = MailRange { first: 1, last: 3 };
    let mut untaken = Untaken::default();
    assert!(!untaken.fails(range, false), "another process may have sent the mail");
    untaken.chosen(range);
    assert!(untaken.fails(range, false), "the server has no such mail");
    untaken.chosen(range);
    assert!(untaken.is(range), "the server has no such mail yet");
    assert!(!untaken.fails(range, true));
    assert!(!untaken.is(range));
    assert!(!untaken.fails(range, false), "a later refusal says nothing of the first try");
    untaken.chosen(MailRange { last: 4, ..range });
    assert!(!untaken.fails(range, false), "another mail");
}

#[test]
fn a_mail_that_the_server_may_have_goes_again_no_earlier_than_another_one_would() {
    let minutes = Duration::from_mins;
    let retry = |wait| Consequence::Retry(wait, Some("no answer".to_owned()));
    for (wait, is_in_doubt, expected) in [(1, true, 10), (20, true, 20), (1, false, 1)] {
        let spaced = spaced(retry(minutes(wait)), is_in_doubt, minutes(10));
        assert_eq!(spaced, retry(minutes(expected)), "{wait} {is_in_doubt}");
    }
    assert_eq!(spaced(Consequence::Sent, true, minutes(10)), Consequence::Sent);
}

#[test]
fn what_is_told_is_frozen_first_and_a_frozen_range_never_grows() {
    let frozen = |first, last| Some(MailRange { first, last });
    let later = Some(Timestamp(NOW.0 + 1));
    for (ends, wanted, position, mail, quiet, expected) in [
        ((1, 9), vec![3, 4, 9], 0, None, None, "freeze 3-9"),
        ((1, 9), vec![3, 4, 9], 0, None, later, "quiet"),
        ((1, 9), vec![3, 4, 9], 0, None, Some(NOW), "freeze 3-9"),
        ((1, 9), vec![3, 4, 9], 0, frozen(3, 4), None, "mail 3-4 [3, 4]"),
        // A mail that is on its way is sent again whatever the wait: it is the same mail.
        ((1, 9), vec![3, 4, 9], 0, frozen(3, 4), later, "mail 3-4 [3, 4]"),
        ((1, 9), vec![3, 4, 9], 4, frozen(3, 4), later, "quiet"),
        ((1, 9), vec![3, 4, 9], 4, frozen(3, 4), None, "freeze 9-9"),
        ((1, 9), vec![3, 4], 4, None, None, "pass 9"),
        ((1, 9), vec![], 9, None, None, "rest"),
        ((1, 9), vec![9], 0, frozen(3, 4), None, "pass 4"),
        ((6, 9), vec![7], 2, None, None, "freeze 3-7"),
        ((6, 9), vec![7], 2, None, later, "quiet"),
        ((6, 9), vec![7], 2, frozen(3, 7), None, "mail 3-7 [7] gap 3-5"),
        ((6, 9), vec![7], 2, frozen(3, 4), None, "mail 3-4 [] gap 3-4"),
        ((10, 9), vec![], 2, None, None, "freeze 3-9"),
    ] {
        let mut work = work(ends, wanted.clone(), position);
        (work.subscription.mail, work.subscription.quiet_until) = (mail, quiet);
        let next = shown(&next(&work, NOW));
        assert_eq!(next, expected, "{ends:?} {wanted:?} from {position}, {mail:?}, {quiet:?}");
    }
    let mut silent = work((1, 1), [], 0);
    silent.ends = None;
    assert_eq!(shown(&next(&silent, NOW)), "rest", "nothing was ever written there");
}

#[test]
fn a_frozen_range_is_the_same_mail_however_much_was_written_since() {
    let mut before = work((1, 4), 1..=4, 0);
    before.subscription.mail = Some(MailRange { first: 1, last: 4 });
    let mut after = work((1, 900), 1..=900, 0);
    after.subscription.mail = before.subscription.mail;
    let (Next::Mail(one), Next::Mail(other)) = (next(&before, NOW), next(&after, NOW)) else {
        panic!("both are sent");
    };
    assert_eq!(one, other);
    let id = |digest: &Digest| digest.id(&before.subscription.id, &ledger());
    assert_eq!(id(&one), id(&other));
    let narrower = Digest { entries: one.entries[1..].to_vec(), ..(*one).clone() };
    assert_ne!(id(&one), id(&narrower), "another filter makes another mail of the same range");
}

/// Walks over a ledger of this many entries that are all there at once; the sizes of the mails.
fn walk(count: i64) -> Vec<usize> {
    let interval = Duration::from_secs(600);
    let (mut position, mut mail, mut quiet, mut now) = (0, None, None, NOW);
    let (mut sizes, mut told) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let mut work = work((1, count), 1..=count, position);
        (work.subscription.mail, work.subscription.quiet_until) = (mail, quiet);
        match next(&work, now) {
            Next::Freeze(range) => mail = Some(range),
            Next::Mail(digest) => {
                sizes.push(digest.entries.len());
                told.extend(digest.entries.iter().map(|entry| entry.id.number));
                (position, mail, quiet) = (digest.range.last, None, Some(now.after(interval)));
            }
            Next::Quiet => now = quiet.expect("a wait"),
            Next::Pass(to) => position = to,
            Next::Rest => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, (1..=count).collect::<Vec<_>>(), "each entry is told once, in order");
    sizes
}

/// Walks over a ledger of this many entries whose mail server refuses each mail that names one of these
/// entries: the entries that were told, those that were passed over, and the number of mails that were taken.
fn walk_refusing(count: i64, poisoned: &[i64]) -> (Vec<i64>, Vec<i64>, usize) {
    let (mut told, mut passed_over, mut mails) = (Vec::new(), Vec::new(), 0);
    let (mut halves, mut untaken) = (Halves::default(), Untaken::default());
    let (mut position, mut mail) = (0, None);
    for _ in 0..1_000 {
        let mut work = work((1, count), 1..=count, position);
        work.subscription.mail = mail;
        let digest = match next(&work, NOW) {
            Next::Freeze(range) => {
                let range = halves.of(range, &work);
                untaken.chosen(range);
                mail = Some(range);
                continue;
            }
            Next::Mail(digest) => digest,
            Next::Rest => return (told, passed_over, mails),
            other => panic!("{other:?}"),
        };
        let numbers: Vec<i64> = digest.entries.iter().map(|entry| entry.id.number).collect();
        let is_refused = numbers.iter().any(|number| poisoned.contains(number));
        let consequence = if is_refused { Consequence::Skip("no".to_owned()) } else { Consequence::Sent };
        match halves.after(consequence, numbers.len(), true) {
            Consequence::Sent => {
                mails += 1;
                told.extend(numbers);
            }
            Consequence::Skip(_) => passed_over.extend(numbers),
            Consequence::Retry(..) => {
                assert!(untaken.fails(digest.range, false), "its entries are chosen again");
                mail = None;
                continue;
            }
            Consequence::Gone => panic!("no mail server is gone"),
        }
        (position, mail) = (digest.range.last, None);
    }
    panic!("it never ends");
}

#[test]
fn one_entry_that_the_mail_server_refuses_costs_no_other() {
    for (count, poisoned) in [
        (1, &[1][..]),
        (2, &[1]),
        (500, &[1]),
        (500, &[300]),
        (500, &[500]),
        (500, &[17, 18, 400]),
        (2_500, &[1_001]),
    ] {
        let (told, passed_over, mails) = walk_refusing(count, poisoned);
        let others: Vec<i64> = (1..=count).filter(|number| !poisoned.contains(number)).collect();
        assert_eq!((told, &passed_over[..]), (others, poisoned), "{poisoned:?} of {count}");
        assert!(mails <= 3 + 10 * poisoned.len(), "{mails} mails for {poisoned:?} of {count}");
    }
    assert_eq!(walk_refusing(500, &[]).2, 1);
}

#[test]
fn a_mail_with_refused_recipients_or_of_one_entry_is_not_divided() {
    let mut halves = Halves::default();
    let refused = || Consequence::Skip("no".to_owned());
    assert_eq!(halves.after(refused(), 500, false), refused());
    assert_eq!(halves.after(refused(), 1, true), refused());
    assert_eq!(halves.after(refused(), 500, true), Consequence::Retry(QUICK_WAIT, None));
}

#[test]
fn every_entry_is_told_once_and_no_mail_is_larger_than_it_may_be() {
    for (count, expected) in
        [(1, vec![1]), (500, vec![500]), (1_000, vec![1_000]), (2_500, vec![1_000, 1_000, 500])]
    {
        assert_eq!(walk(count), expected);
    }
}
