//! The world of the model: rows, lanes, the tokens of workers, and which steps are possible.

use std::collections::{BTreeMap, BTreeSet};

use tidings_actors::model::settlement::{RoundSize, Settlements};

/// Changes of a round; the first `deletes` of them are deletes.
pub(crate) const CHANGES: u64 = 3;
/// Unfinished tasks of a cursor.
pub(crate) const WINDOW: u64 = 2;
/// Dead tasks in a row that block a cursor.
pub(super) const STREAK: u8 = 2;

/// A rule that is taken away to see that the model needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// No rule is taken away.
    Nothing,
    /// The position counts ends, wherever they are.
    Ranges,
    /// The window counts only the tasks that nobody has claimed.
    Window,
    /// A round begins although another one began since it was planned.
    Plan,
    /// A token proves a claim by its task alone.
    Bits,
    /// A restore keeps the claims from before it.
    Voiding,
    /// A pause forgets the attempts so far.
    Attempts,
    /// Creates are handed over beside deletes.
    Deletes,
    /// A round begins while tasks of the round before are claimed.
    Claims,
    /// A hand-over does not test the epoch.
    Fence,
    /// A hand-over does not test that its round is open.
    Round,
    /// An unwatch removes the watch and leaves its tasks.
    Removal,
    /// A completion is not looked up in the settled ranges.
    Confirmation,
    /// A block sets aside the oldest task too.
    Oldest,
    /// A task that is given back is ready, also while its watch is paused.
    Return,
    /// The one task of a round settles one change.
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum TaskState {
    Ready,
    Aside,
    Claimed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Flag {
    Cancel,
    Resync,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    pub(crate) round: u8,
    pub(super) place: u64,
    pub(super) state: TaskState,
    pub(super) attempts: u8,
    pub(super) claim: Option<u8>,
    pub(super) flag: Option<Flag>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OpenRound {
    pub(crate) number: u8,
    pub(super) target: u8,
    pub(crate) settled: Settlements,
}

/// What the database holds of the cursor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    pub(crate) epoch: u8,
    pub(crate) held: Option<u8>,
    pub(super) last_round: u8,
    pub(crate) open: Option<OpenRound>,
    pub(crate) wants_resync: bool,
    pub(crate) is_paused: bool,
    pub(crate) is_watched: bool,
    pub(super) is_blocked: bool,
    pub(super) streak: u8,
    /// Sorted by round and place.
    pub(crate) tasks: Vec<Task>,
    /// The settled ranges of the round before.
    pub(super) before: Option<(u8, Settlements)>,
    /// For the properties: which changes have ended, and how many claims each of them took.
    pub(crate) ended: BTreeSet<(u8, u64)>,
    pub(super) given: BTreeMap<(u8, u64), u8>,
}

/// A lane in memory: what it read when it was opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    pub(super) epoch: u8,
    pub(super) target: u8,
    pub(super) after: u8,
    pub(super) resync: bool,
    pub(super) round: Option<u8>,
}

/// A token that a worker remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Token {
    pub(super) round: u8,
    pub(super) place: u64,
    pub(super) id: u8,
    pub(super) life: u8,
    /// Its completion was confirmed.
    pub(super) is_done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) head: u8,
    pub(crate) rows: Rows,
    pub(super) backup: Option<Box<Rows>>,
    pub(super) lanes: [Option<Lane>; 2],
    pub(super) tokens: BTreeSet<Token>,
    /// How many tokens were drawn for a change; restores do not turn that back.
    pub(super) drawn: BTreeMap<(u8, u64), u8>,
    /// The token that may move a task.
    pub(super) valid: BTreeMap<(u8, u64), u8>,
    pub(super) next_round: u8,
    pub(super) life: u8,
    pub(super) troubles: u8,
    pub(crate) wasted: bool,
    pub(crate) stale_moved: bool,
    pub(crate) stale_refused: bool,
    pub(crate) miscounted: bool,
    pub(crate) ended_twice: bool,
    pub(crate) out_of_order: bool,
    pub(crate) forgotten: bool,
    pub(crate) confirmed: bool,
    pub(crate) broke_block: bool,
    pub(crate) broke_pause: bool,
    pub(crate) unblocked: bool,
    pub(crate) flag_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Push,
    Open(usize),
    Begin(usize),
    HandOver(usize),
    Finish(usize),
    Claim,
    Complete(u8, u64, u8),
    Fail(u8, u64, u8),
    RunOut(u8, u64),
    Cancel(u64),
    Pause,
    Resume,
    Resync,
    Unwatch,
    Takeover,
    Backup,
    Restore,
}

/// How a task ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Success,
    Letter,
    Dead,
}

pub(crate) struct Protocol {
    /// How many pauses, resyncs, takeovers and restores happen at most.
    pub(crate) troubles: u8,
    /// The attempts that a task may use up.
    pub(crate) attempts: u8,
    /// How often the head of the branch moves.
    pub(crate) heads: u8,
    /// How many changes of a round are deletes.
    pub(crate) deletes: u64,
    /// Whether a lane is opened again while the last step of its former life is still on its way.
    pub(crate) reopens: bool,
    /// Whether each round becomes one task.
    pub(crate) per_round: bool,
    pub(crate) without: Without,
}

impl World {
    pub(crate) fn new() -> Self {
        let rows = Rows {
            epoch: 1,
            held: None,
            last_round: 0,
            open: None,
            wants_resync: false,
            is_paused: false,
            is_watched: true,
            is_blocked: false,
            streak: 0,
            tasks: Vec::new(),
            before: None,
            ended: BTreeSet::new(),
            given: BTreeMap::new(),
        };
        Self {
            head: 1,
            rows,
            backup: None,
            lanes: [None, None],
            tokens: BTreeSet::new(),
            drawn: BTreeMap::new(),
            valid: BTreeMap::new(),
            next_round: 1,
            life: 0,
            troubles: 0,
            wasted: false,
            stale_moved: false,
            stale_refused: false,
            miscounted: false,
            ended_twice: false,
            out_of_order: false,
            forgotten: false,
            confirmed: false,
            broke_block: false,
            broke_pause: false,
            unblocked: false,
            flag_ended: false,
        }
    }

    /// Whether nothing is to be done for the cursor.
    pub(crate) fn rests(&self) -> bool {
        let rows = &self.rows;
        let is_there = rows.held == Some(self.head) && rows.open.is_none() && !rows.wants_resync;
        is_there || !rows.is_watched || rows.is_paused
    }

    pub(super) fn token(&self, round: u8, place: u64, id: u8) -> Option<Token> {
        let is_it = |token: &&Token| (token.round, token.place, token.id) == (round, place, id);
        self.tokens.iter().find(is_it).copied()
    }
}

impl Protocol {
    /// The steps of lanes, workers and the clock, by which work goes on.
    pub(crate) fn progress(&self, world: &World, steps: &mut Vec<Step>) {
        let rows = &world.rows;
        let claimed = rows.tasks.iter().any(|task| task.state == TaskState::Claimed);
        let waits = match &rows.open {
            Some(round) => round.settled.position < CHANGES && self.more(rows, round).is_empty(),
            None => claimed && self.without != Without::Claims,
        };
        let is_open = world.lanes.iter().flatten().any(|lane| lane.epoch == rows.epoch) && !self.reopens;
        let free = world.lanes.iter().position(Option::is_none);
        steps.extend(free.filter(|_| !waits && !is_open && !world.rests()).map(Step::Open));
        for (index, lane) in world.lanes.iter().enumerate() {
            let Some(lane) = lane else { continue };
            let Some(number) = lane.round else {
                steps.push(Step::Begin(index));
                continue;
            };
            let open = rows.open.as_ref().filter(|round| round.number == number);
            match open {
                Some(round) if round.settled.position == CHANGES => steps.push(Step::Finish(index)),
                Some(round) if self.more(rows, round).is_empty() => {}
                _ => steps.push(Step::HandOver(index)),
            }
        }
        if rows.tasks.iter().any(|task| task.state == TaskState::Ready) {
            steps.push(Step::Claim);
        }
        for task in rows.tasks.iter().filter(|task| task.state == TaskState::Claimed) {
            steps.push(Step::RunOut(task.round, task.place));
        }
    }

    /// What workers say, people do, and Git hosts tell.
    pub(crate) fn troubles(&self, world: &World, steps: &mut Vec<Step>) {
        for token in &world.tokens {
            steps.push(Step::Complete(token.round, token.place, token.id));
            if !token.is_done && (token.place == CHANGES - 1 || self.per_round) {
                steps.push(Step::Fail(token.round, token.place, token.id));
            }
        }
        if world.head < self.heads {
            steps.push(Step::Push);
        }
        if world.rows.is_paused {
            steps.push(Step::Resume);
        }
        if world.troubles >= self.troubles || !world.rows.is_watched {
            return;
        }
        steps.extend(world.rows.tasks.first().map(|task| Step::Cancel(task.place)));
        steps.extend([Step::Pause, Step::Resync, Step::Unwatch, Step::Takeover]);
        steps.push(if world.backup.is_some() { Step::Restore } else { Step::Backup });
    }

    /// The changes that may be handed over now.
    pub(super) fn more(&self, rows: &Rows, round: &OpenRound) -> std::ops::Range<u64> {
        let of_round = rows.tasks.iter().filter(|task| task.round == round.number);
        let last = of_round.map(|task| task.place).max();
        let counted = |task: &&Task| self.without != Without::Window || task.state != TaskState::Claimed;
        let unfinished = rows.tasks.iter().filter(counted).count() as u64;
        let room = WINDOW.saturating_sub(unfinished);
        let deletes = if self.without == Without::Deletes { 0 } else { self.deletes };
        let size = RoundSize { deletes, total: CHANGES };
        let size = if self.per_round { RoundSize::ONE_TASK } else { size };
        round.settled.may_hand_over(size, round.settled.next(last), room)
    }
}
