//! What workers see of a server, against what is promised: a change ends once, and is handed out no more after
//! that; a claim that is over changes nothing; a claim that is not over does; the request that ended a task can
//! be sent again; attempts are claims; creates come after deletes, and rounds one after another.
//!
//! Requests run at the same time, so an answer is held against an earlier one only where that had arrived before
//! the request was sent: moments are numbers that rise with each answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Claimed, Place, Word};

/// The clocks of replicas differ by less.
pub(super) const CLOCKS_APART: Duration = Duration::from_millis(700);

/// An answer to a request about a task.
pub(super) struct Answer {
    pub(super) word: Word,
    pub(super) status: u16,
    pub(super) body: Value,
    /// When the request was sent.
    pub(super) asked: Instant,
    pub(super) moment: u64,
    /// How often it was sent before without an answer.
    pub(super) unheard: u32,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    GivenUp,
}

/// The last claim of a task that was seen.
#[derive(Debug)]
struct Seen {
    token: String,
    attempt: u64,
    moment: u64,
    /// Whether the claim was abandoned, and whether that is certain.
    is_abandoned: bool,
    is_unsure: bool,
    lost_claims: u64,
}

/// Counts of what was seen, so that a story knows that it showed something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sights {
    /// Changes that were completed.
    pub(crate) done: u64,
    /// Requests of a worker whose claim was over, refused.
    pub(crate) refused: u64,
    /// Completions of a change that had ended, answered with 200.
    pub(crate) confirmed: u64,
    /// Changes that workers gave up, and that died.
    pub(crate) given_up: u64,
    pub(crate) dead: u64,
    /// Requests with bits that are not those of a claim.
    pub(crate) forged: u64,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    moment: u64,
    lost_claims: u64,
    ended: BTreeMap<Place, (End, u64)>,
    done: BTreeSet<Place>,
    seen: BTreeMap<(String, i64), Seen>,
    /// Rounds of which a create or an update was handed out.
    created: BTreeMap<(String, i64), u64>,
    /// The newest round of a cursor of which a task was handed out.
    newest: BTreeMap<String, (i64, u64)>,
    sights: Sights,
    faults: Vec<String>,
    /// Whether claims may be voided before their time: by a resync, unwatch or erase.
    pub(crate) may_void: bool,
}

impl Evidence {
    /// The number of the last answer.
    pub(super) fn moment(&self) -> u64 {
        self.moment
    }

    pub(crate) fn sights(&self) -> Sights {
        self.sights
    }

    /// The changes whose completion was answered with 200.
    pub(crate) fn done(&self) -> usize {
        self.done.len()
    }

    pub(crate) fn assert_faultless(&self) {
        let some = &self.faults[..self.faults.len().min(20)];
        assert!(self.faults.is_empty(), "{} faults: {some:#?}", self.faults.len());
    }

    fn fault(&mut self, claimed: &Claimed, what: &str) {
        let path = String::from_utf8_lossy(&claimed.path()).into_owned();
        self.faults.push(format!("{} ({path:?}, {:?}): {what}", claimed.id(), claimed.place()));
    }

    /// Tasks may have been claimed for a worker that never heard of them.
    pub(super) fn note_lost_claim(&mut self) {
        self.lost_claims += 1;
    }

    /// A task was handed out by a request that was sent at `asked`.
    pub(super) fn note_claim(&mut self, claimed: &Claimed, asked: u64) {
        self.moment += 1;
        let place = claimed.place();
        let round = (place.0.clone(), place.1);
        if let Some((end, at)) = self.ended.get(&place)
            && *at <= asked
        {
            let what = format!("is handed out after it ended as {end:?}");
            self.fault(claimed, &what);
        }
        self.check_attempt(claimed, round.1, asked);
        if !claimed.is_delete() {
            self.created.entry(round).or_insert(self.moment);
        } else if self.created.get(&round).is_some_and(|at| *at <= asked) {
            self.fault(claimed, "is a delete that comes after a create of its round");
        }
        let newest = self.newest.entry(place.0).or_insert((place.1, self.moment));
        if place.1 > newest.0 {
            *newest = (place.1, self.moment);
        } else if place.1 < newest.0 && newest.1 <= asked {
            self.fault(claimed, "is of an earlier round than a task that was handed out before");
        }
    }

    fn check_attempt(&mut self, claimed: &Claimed, round: i64, asked: u64) {
        let key = (claimed.id().to_owned(), round);
        let (attempt, most) = (claimed.number("attempt"), claimed.number("max_attempts"));
        let (mut least, mut unsure, mut lost) = (1, 0, self.lost_claims);
        if let Some(seen) = self.seen.get(&key) {
            least = seen.attempt + 1 - u64::from(seen.is_abandoned || seen.is_unsure);
            if seen.moment > asked && attempt < least {
                // Two answers crossed each other, and this is that of the earlier claim.
                return;
            }
            unsure = u64::from(seen.is_unsure);
            lost -= seen.lost_claims;
        }
        if attempt < least || attempt > least + unsure + lost || attempt > most {
            let what =
                format!("is attempt {attempt} of {most}, and at least {least} was to come ({lost} lost)");
            self.fault(claimed, &what);
        }
        let seen = Seen {
            token: claimed.token().to_owned(),
            attempt,
            moment: self.moment,
            is_abandoned: false,
            is_unsure: false,
            lost_claims: self.lost_claims,
        };
        self.seen.insert(key, seen);
    }

    /// A request about a task is about to be sent. Returns the number of the last answer.
    pub(super) fn note_word(&mut self, claimed: &Claimed, word: Word) -> u64 {
        if word == Word::Abandon
            && let Some(seen) = self.last_claim(claimed)
        {
            // Another worker may have the task before the answer is here.
            seen.is_unsure = true;
        }
        self.moment
    }

    /// What was seen of this claim, if it is the last one of its task.
    fn last_claim(&mut self, claimed: &Claimed) -> Option<&mut Seen> {
        let seen = self.seen.get_mut(&(claimed.id().to_owned(), claimed.place().1));
        seen.filter(|seen| seen.token == claimed.token())
    }

    /// A request about a task was answered.
    pub(super) fn note_answer(&mut self, claimed: &mut Claimed, answer: &Answer) {
        self.moment += 1;
        let now = Instant::now();
        let surely_lasts = now < claimed.surely_until && !self.may_void;
        let is_surely_over =
            answer.asked > claimed.perhaps_until + CLOCKS_APART || self.is_followed(claimed, answer.moment);
        let changes = answer.status == 200 && answer.body["repeated"] != true;
        if changes && is_surely_over && answer.body["cancelled"] != true {
            self.fault(claimed, &format!("a claim that was over did {:?}", answer.word));
        }
        if answer.status != 200 {
            assert!(matches!(answer.status, 401 | 403 | 404 | 409), "{}: {}", answer.status, answer.body);
            self.sights.refused += 1;
        }
        match answer.word {
            Word::Heartbeat if changes => claimed.extend(answer.asked),
            Word::Heartbeat => self.check_refusal(claimed, answer, surely_lasts),
            Word::Complete | Word::Fail => self.note_end(claimed, answer, surely_lasts),
            Word::Nack | Word::Abandon => self.note_back(claimed, answer, surely_lasts),
            Word::Forgery => {
                self.sights.forged += 1;
                if changes {
                    self.fault(claimed, "was ended with bits that are not those of its claim");
                }
            }
        }
    }

    /// A claim that lasts is not refused, unless the request was done already and the answer was lost.
    fn check_refusal(&mut self, claimed: &Claimed, answer: &Answer, surely_lasts: bool) {
        if answer.status != 200 && surely_lasts && answer.unheard == 0 {
            let what = format!("{:?} was refused with {} while the claim lasts", answer.word, answer.status);
            self.fault(claimed, &what);
        }
    }

    fn note_end(&mut self, claimed: &mut Claimed, answer: &Answer, surely_lasts: bool) {
        let place = claimed.place();
        let end = if answer.word == Word::Complete { End::Done } else { End::GivenUp };
        let before = self.ended.get(&place).copied().filter(|(_, at)| *at <= answer.moment);
        match (answer.status, answer.body["repeated"] == true) {
            (200, false) => {
                if self.ended.insert(place.clone(), (end, self.moment)).is_some() {
                    self.fault(claimed, "ended twice");
                }
                let count = if end == End::Done { &mut self.sights.done } else { &mut self.sights.given_up };
                *count += 1;
            }
            (200, true) => {
                self.sights.confirmed += 1;
                if before.is_some_and(|(before, _)| before != end) {
                    self.fault(claimed, &format!("{end:?} was confirmed, and it is {before:?}"));
                }
                if surely_lasts && answer.unheard == 0 && !claimed.is_ended {
                    self.fault(claimed, "an end was confirmed that nobody had reported");
                }
            }
            // Whether or not a kill cut answers off: the request may be sent again.
            _ if surely_lasts || (claimed.is_ended && !self.may_void) => {
                let what = format!("{end:?} was refused with {}: {}", answer.status, answer.body);
                self.fault(claimed, &what);
            }
            _ => {}
        }
        if answer.status == 200 {
            claimed.is_ended = true;
            if end == End::Done {
                self.done.insert(place);
            }
        }
    }

    fn note_back(&mut self, claimed: &Claimed, answer: &Answer, surely_lasts: bool) {
        self.check_refusal(claimed, answer, surely_lasts);
        let place = claimed.place();
        let is_abandoned = answer.word == Word::Abandon;
        if answer.status == 200 {
            let expected = claimed.number("attempt") - u64::from(is_abandoned);
            let is_dead = answer.body["state"] == "dead";
            if answer.body["attempts"] != expected || is_dead != (expected == claimed.number("max_attempts"))
            {
                self.fault(claimed, &format!("after {expected} attempts it is {}", answer.body));
            }
            if is_dead {
                self.sights.dead += 1;
                self.ended.insert(place.clone(), (End::GivenUp, self.moment));
            }
        }
        if is_abandoned && let Some(seen) = self.last_claim(claimed) {
            seen.is_abandoned |= answer.status == 200;
            seen.is_unsure = answer.status != 200 && answer.unheard > 0;
        }
    }

    /// Whether a later claim of the task was handed out before a request was sent.
    fn is_followed(&self, claimed: &Claimed, moment: u64) -> bool {
        let seen = self.seen.get(&(claimed.id().to_owned(), claimed.place().1));
        seen.is_some_and(|seen| seen.token != claimed.token() && seen.moment <= moment)
    }
}
