//! Lanes that batch, against scripts and against chance.

use super::*;
use crate::ports::{BatchSettings, ItemOutcome};

const SETTINGS: BatchSettings = BatchSettings { count: 16, bytes: 64 << 10, linger_ms: 50 };

/// A lane with its receiver and its rows.
struct Mail {
    list: Vec<Change>,
    lane: Lane,
    order: OrderMode,
    now: Instant,
    wall: i64,
    letters: u64,
    size: usize,
    settled: u64,
    acknowledged: bool,
    parked: Vec<u64>,
    standings: Vec<Standing>,
}

impl Mail {
    fn new(list: Vec<Change>, order: OrderMode, acknowledged: bool) -> Self {
        let lane = Self::lane(&list, 0, order, acknowledged);
        let (now, standings) = (Instant::now(), Vec::new());
        let (wall, letters, size, settled, parked) = (0, 0, 100, 0, Vec::new());
        Self { list, lane, order, now, wall, letters, size, settled, acknowledged, parked, standings }
    }

    fn lane(list: &[Change], position: u64, order: OrderMode, acknowledged: bool) -> Lane {
        Lane::new(LaneStart {
            round: round(list, position),
            order,
            max_in_flight: 4,
            batch: Some(SETTINGS),
            streak: Streak::default(),
            grace_until: None,
            acknowledged,
            blocked: false,
            head_attempts: HeadAttempts::default(),
            above: Vec::new(),
            skip: None,
        })
    }

    fn crash(&mut self) {
        self.lane = Self::lane(&self.list, self.settled, self.order, self.acknowledged);
    }

    /// Reads and renders all that the lane wants.
    fn feed(&mut self) {
        if let Some((position, _)) = self.lane.want_read() {
            let start = usize::try_from(position).expect("small");
            let window = self.list[start..].iter().take(CHANGES_PER_READ).cloned().collect();
            assert!(self.lane.on_read(window));
        }
        loop {
            let wanted = self.lane.want_prepare(self.now, AHEAD);
            if wanted.is_empty() {
                return;
            }
            let parcels = wanted.iter().map(|(_, change, _)| parcel(change, self.size));
            self.lane.on_prepared(parcels.collect());
        }
    }

    /// The positions of the next request, with its promises checked.
    fn launch(&mut self) -> Option<Vec<u64>> {
        self.feed();
        let position = self.lane.next_sendable(self.now)?;
        let launch = self.lane.launch(position, false);
        let positions: Vec<u64> = launch.parcels.iter().map(|(position, _)| *position).collect();
        assert_eq!(positions.first(), Some(&position));
        assert_eq!(launch.together, positions.len() > 1, "what is alone goes alone");
        assert!(positions.is_sorted() && positions.len() <= 16);
        for position in &positions {
            assert!(*position < self.settled + 16, "{position} while only {} is settled", self.settled);
        }
        if self.order == OrderMode::Phased {
            let operation = |position: &u64| self.list[usize::try_from(*position).expect("small")].operation;
            assert!(positions.iter().all(|one| operation(one) == operation(&position)), "one phase");
        }
        Some(positions)
    }

    /// Answers a request with a verdict on all of it and a word on each.
    fn answer(&mut self, positions: &[u64], verdict: Verdict, word: impl Fn(u64) -> ItemOutcome) {
        let failure = Failure {
            verdict,
            sent_at: self.now,
            answered_elsewhere: None,
            retry_after: None,
            status: Some(400),
            excerpt: String::new(),
        };
        let moment = Moment { instant: self.now, wall: Timestamp(self.wall) };
        let letters = &mut self.letters;
        let mut letter = || {
            *letters += 1;
            DeadLetterId::new(Ulid::from_parts(*letters, 0))
        };
        match (positions, verdict) {
            ([alone], Verdict::Acknowledged) => self.lane.on_acknowledged(*alone),
            ([alone], _) => {
                let letter = letter();
                self.lane.on_failed(*alone, failure, moment, &RULES, &NoDice, letter);
            }
            (_, Verdict::Acknowledged) => {
                let items: Vec<_> = positions.iter().map(|one| (*one, word(*one))).collect();
                self.lane.on_batch_answered(&items, &failure, moment, &RULES, &NoDice, &mut letter);
            }
            _ => {
                self.lane.on_batch_failed(positions, &failure, moment, &RULES, &NoDice);
            }
        }
    }

    fn take(&mut self, positions: &[u64]) {
        self.answer(positions, Verdict::Acknowledged, |_| ItemOutcome::Accepted);
    }

    fn settle(&mut self) {
        while self.lane.want_effect().is_some() {
            self.lane.on_effect_written();
        }
        if let Some(settlement) = self.lane.want_settle(Timestamp(self.wall), false) {
            self.settled = settlement.position;
            self.acknowledged = settlement.acknowledged;
            self.parked.extend(settlement.parked.iter().map(|park| park.position));
            self.standings.extend(Some(settlement.standing).filter(|it| *it != Standing::Unchanged));
            self.lane.on_settled();
        }
    }

    fn wait(&mut self) {
        self.now += Duration::from_secs(61);
        self.wall += 61_000;
    }
}

fn range(from: u64, to: u64) -> Option<Vec<u64>> {
    Some((from..to).collect())
}

#[test]
fn a_strict_lane_sends_one_batch_at_a_time_and_the_next_after_it_is_settled() {
    let mut mail = Mail::new(changes(3, 30, 7), OrderMode::Strict, true);
    assert_eq!(mail.launch(), range(0, 16), "in order, across the end of a phase");
    assert_eq!(mail.launch(), None, "one batch at a time");
    mail.take(&(0..16).collect::<Vec<_>>());
    assert_eq!(mail.launch(), None, "nothing beyond one batch from what is settled");
    mail.settle();
    assert_eq!(mail.launch(), range(16, 32));
    mail.take(&(16..32).collect::<Vec<_>>());
    mail.settle();
    assert_eq!(mail.launch(), range(32, 40), "the end of the round waits for nothing");
}

#[test]
fn two_changes_of_one_path_never_share_a_batch() {
    let mut list = changes(3, 4, 0);
    // A file that becomes a link is deleted, then created.
    list[4].path = list[1].path.clone();
    let mut mail = Mail::new(list, OrderMode::Strict, true);
    for (from, to) in [(0, 4), (4, 7)] {
        assert_eq!(mail.launch(), range(from, to));
        mail.take(&(from..to).collect::<Vec<_>>());
        mail.settle();
    }
}

#[test]
fn a_file_and_the_directory_in_its_place_never_share_a_batch() {
    for (deleted, created, shared) in [
        ("place", "place/new/file", false),
        ("place/old/file", "place", false),
        ("place", "place.txt", true),
        ("place.txt/file", "place", true),
        ("place/file", "place/other", true),
    ] {
        let mut list = changes(3, 4, 0);
        (list[1].path, list[4].path) = (deleted.into(), created.into());
        let mut mail = Mail::new(list, OrderMode::Strict, true);
        let expected = range(0, if shared { 7 } else { 4 });
        assert_eq!(mail.launch(), expected, "{deleted} is deleted and {created} created");
    }
}

#[test]
fn a_phased_lane_never_mixes_phases_in_a_batch() {
    let mut mail = Mail::new(changes(3, 4, 2), OrderMode::Phased, true);
    for (from, to) in [(0, 3), (3, 7), (7, 9)] {
        assert_eq!(mail.launch(), range(from, to));
        assert_eq!(mail.launch(), None, "the next phase waits");
        mail.take(&(from..to).collect::<Vec<_>>());
        mail.settle();
    }
    assert!(mail.lane.is_finished());
}

#[test]
fn a_receiver_that_took_nothing_yet_begins_with_one_change() {
    let mut mail = Mail::new(changes(0, 40, 0), OrderMode::Strict, false);
    for (from, to) in [(0, 1), (1, 3), (3, 7), (7, 15), (15, 31)] {
        assert_eq!(mail.launch(), range(from, to));
        mail.take(&(from..to).collect::<Vec<_>>());
        mail.settle();
    }
}

#[test]
fn a_batch_ends_at_its_bytes_and_what_is_larger_alone_goes_alone() {
    let mut mail = Mail::new(changes(0, 20, 0), OrderMode::Strict, true);
    mail.size = 20 << 10;
    assert_eq!(mail.launch(), range(0, 3));
    let mut mail = Mail::new(changes(0, 20, 0), OrderMode::Strict, true);
    mail.size = (64 << 10) + 1;
    assert_eq!(mail.launch(), range(0, 1));
}

#[test]
fn a_file_in_chunks_goes_alone_between_two_batches() {
    let mut mail = Mail::new(changes(0, 9, 0), OrderMode::Strict, true);
    let read = mail.list.clone();
    assert!(mail.lane.want_read().is_some() && mail.lane.on_read(read));
    let wanted = loop {
        let wanted = mail.lane.want_prepare(mail.now, AHEAD);
        if wanted.len() + mail.lane.ready() >= 9 || wanted.is_empty() {
            break wanted;
        }
        mail.lane.on_prepared(wanted.iter().map(|(at, change, _)| chunked_at(*at, change)).collect());
    };
    mail.lane.on_prepared(wanted.iter().map(|(at, change, _)| chunked_at(*at, change)).collect());
    for (from, to) in [(0, 4), (4, 5), (5, 9)] {
        assert_eq!(mail.launch(), range(from, to));
        mail.take(&(from..to).collect::<Vec<_>>());
        mail.settle();
    }
}

/// The fifth of them is a file in chunks.
fn chunked_at(position: u64, change: &Change) -> Parcel {
    let mut parcel = parcel(change, 10);
    if position == 4 {
        let piece = Bytes::from_static(b"x");
        parcel.body = ParcelBody::Chunked { before: piece.clone(), content: piece.clone(), after: piece };
    }
    parcel
}

#[test]
fn a_batch_that_may_grow_waits_only_so_long() {
    let mut mail = Mail::new(changes(0, 9, 0), OrderMode::Strict, true);
    let read = mail.list.clone();
    assert!(mail.lane.want_read().is_some() && mail.lane.on_read(read));
    let wanted = mail.lane.want_prepare(mail.now, AHEAD);
    mail.lane.on_prepared(wanted.iter().map(|(_, change, _)| parcel(change, 10)).collect());
    let more = mail.lane.want_prepare(mail.now, AHEAD);
    assert!(!more.is_empty(), "more is being rendered");
    assert_eq!(mail.lane.next_sendable(mail.now), None, "it waits for more");
    let due = mail.lane.next_due(mail.now).expect("a lane that waits is woken");
    assert_eq!(due, mail.now + Duration::from_millis(50));
    assert_eq!(mail.lane.next_sendable(due), Some(0), "and then no longer");
}

#[test]
fn what_is_to_be_retried_goes_again_together_before_anything_new() {
    let mut mail = Mail::new(changes(0, 40, 0), OrderMode::Strict, true);
    let batch = mail.launch().expect("ready");
    let again = |one: u64| [3, 7, 9].contains(&one);
    mail.answer(&batch, Verdict::Acknowledged, |one| {
        if again(one) { ItemOutcome::Retry(String::new()) } else { ItemOutcome::Accepted }
    });
    mail.settle();
    assert_eq!((mail.settled, mail.launch()), (3, None), "the next batch waits");
    mail.wait();
    assert_eq!(mail.launch(), Some(vec![3, 7, 9]));
    mail.take(&[3, 7, 9]);
    mail.settle();
    assert_eq!((mail.settled, mail.launch()), (16, range(16, 32)));
}

#[test]
fn what_is_refused_is_given_up_at_once_and_never_counts() {
    let mut mail = Mail::new(changes(0, 200, 0), OrderMode::Strict, true);
    while let Some(batch) = mail.launch() {
        mail.answer(&batch, Verdict::Acknowledged, |_| ItemOutcome::Refused(String::new()));
        mail.settle();
    }
    assert!(mail.standings.is_empty(), "{:?}", mail.standings);
    assert_eq!(mail.parked.len(), 200);
}

#[test]
fn what_is_given_up_by_one_answer_counts_once() {
    let mut mail = Mail::new(changes(0, 200, 0), OrderMode::Strict, true);
    for answers in 0..10 {
        assert!(mail.standings.is_empty(), "{answers} answers in a row block nothing");
        let parked = mail.parked.len();
        while mail.parked.len() == parked {
            let Some(batch) = mail.launch() else {
                mail.wait();
                continue;
            };
            mail.answer(&batch, Verdict::Acknowledged, |_| ItemOutcome::Retry(String::new()));
            mail.settle();
        }
    }
    assert!(matches!(mail.standings.as_slice(), [Standing::Blocked(_)]), "{:?}", mail.standings);
    assert!(mail.parked.len() > 10, "{} letters of ten answers", mail.parked.len());
    mail.wait();
    let head = mail.settled;
    assert_eq!(mail.launch(), range(head, head + 1), "under probe only the head goes");
}

#[test]
fn a_change_that_spoils_every_batch_is_found_and_only_it_is_given_up() {
    for poison in [0, 5, 15, 39] {
        let mut mail = Mail::new(changes(0, 40, 0), OrderMode::Strict, true);
        let mut requests = 0;
        while !mail.lane.is_finished() {
            let Some(batch) = mail.launch() else {
                mail.wait();
                continue;
            };
            requests += 1;
            let verdict = if batch.contains(&poison) { Verdict::Refused } else { Verdict::Acknowledged };
            mail.answer(&batch, verdict, |_| ItemOutcome::Accepted);
            mail.settle();
        }
        assert_eq!(mail.parked, [poison]);
        assert!(requests < 25, "{requests} requests for {poison}");
    }
}

#[test]
fn an_endpoint_failure_parks_nothing_and_the_next_request_is_small() {
    let mut mail = Mail::new(changes(0, 40, 0), OrderMode::Strict, true);
    for _ in 0..20 {
        let batch = mail.launch().expect("due");
        mail.answer(&batch, Verdict::Endpoint, |_| ItemOutcome::Accepted);
        assert_eq!(mail.launch(), None);
        mail.wait();
    }
    assert_eq!(mail.launch(), range(0, 1));
    mail.settle();
    assert!(mail.parked.is_empty() && mail.settled == 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_batches_settle_every_change_once_and_a_crash_repeats_one_batch(
        shape in (0_u64..30, 0_u64..60, 0_u64..30),
        phased in any::<bool>(),
        script in proptest::collection::vec((0_u8..100, any::<u64>()), 1..300),
    ) {
        let order = if phased { OrderMode::Phased } else { OrderMode::Strict };
        let list = changes(shape.0, shape.1, shape.2);
        let total = list.len() as u64;
        let mut mail = Mail::new(list, order, false);
        let mut taken: HashMap<u64, u32> = HashMap::new();
        let mut flying: Vec<Vec<u64>> = Vec::new();
        let mut crashes = 0;
        let mut script = script.into_iter().chain(std::iter::repeat((0, 0)));
        for _ in 0..20_000 {
            if mail.lane.is_finished() {
                break;
            }
            let (roll, pick) = script.next().expect("endless");
            while let Some(batch) = mail.launch() {
                prop_assert!(flying.iter().flatten().all(|one| !batch.contains(one)));
                flying.push(batch);
                prop_assert!(order == OrderMode::Phased || flying.len() == 1, "one at a time");
            }
            if roll >= 95 {
                crashes += 1;
                flying.clear();
                mail.crash();
                continue;
            }
            if flying.is_empty() {
                mail.settle();
                mail.wait();
                continue;
            }
            let at = usize::try_from(pick % flying.len() as u64).expect("small");
            let batch = flying.remove(at);
            let verdict = match roll {
                0..=79 => Verdict::Acknowledged,
                80..=86 => Verdict::Endpoint,
                87..=90 => Verdict::Refused,
                _ => Verdict::Failing,
            };
            let word = |one: u64| match (pick >> (one % 32)) & 7 {
                0 if roll > 20 => ItemOutcome::Retry(String::new()),
                1 if roll > 60 => ItemOutcome::Refused(String::new()),
                _ => ItemOutcome::Accepted,
            };
            if verdict == Verdict::Acknowledged {
                let accepted = |one: &&u64| batch.len() == 1 || word(**one) == ItemOutcome::Accepted;
                batch.iter().filter(accepted).for_each(|one| *taken.entry(*one).or_default() += 1);
            }
            mail.answer(&batch, verdict, word);
            if roll % 3 == 0 {
                mail.settle();
            }
        }
        prop_assert!(mail.lane.is_finished(), "it ends");
        for position in 0..total {
            let named = taken.contains_key(&position) || mail.parked.contains(&position);
            prop_assert!(named, "{} was passed without a word", position);
        }
        let repeats: u32 = taken.values().map(|times| times - 1).sum();
        prop_assert!(repeats <= crashes * SETTINGS.count, "{} repeats after {} crashes", repeats, crashes);
    }
}
