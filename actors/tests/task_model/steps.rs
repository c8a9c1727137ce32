//! What each step does to the world.

use tidings_actors::model::settlement::Settlements;

use super::world::{
    CHANGES, End, Flag, Lane, OpenRound, Protocol, Rows, STREAK, Step, Task, TaskState, Token, Without, World,
};

impl Protocol {
    pub(crate) fn take(&self, world: &mut World, step: Step) {
        match step {
            Step::Push => world.head += 1,
            Step::Open(index) => {
                let rows = &world.rows;
                world.lanes[index] = Some(Lane {
                    epoch: rows.epoch,
                    target: world.head,
                    after: rows.last_round,
                    resync: rows.wants_resync,
                    round: rows.open.as_ref().map(|round| round.number),
                });
            }
            Step::Begin(index) => self.begin(world, index),
            Step::HandOver(index) => self.hand_over(world, index),
            Step::Finish(index) => self.finish(world, index),
            Step::Claim => self.claim(world),
            Step::Complete(round, place, id) => self.word(world, (round, place, id), End::Success),
            Step::Fail(round, place, id) => self.word(world, (round, place, id), End::Letter),
            Step::RunOut(round, place) => self.run_out(world, round, place),
            _ => {
                world.troubles += u8::from(step != Step::Resume);
                self.trouble(world, step);
            }
        }
    }

    fn trouble(&self, world: &mut World, step: Step) {
        match step {
            Step::Cancel(place) => {
                let Some(task) = world.rows.tasks.iter_mut().find(|task| task.place == place) else { return };
                let round = task.round;
                if task.state == TaskState::Claimed {
                    task.flag = task.flag.or(Some(Flag::Cancel));
                } else {
                    self.end(world, round, place, End::Letter);
                }
            }
            Step::Pause | Step::Resume => {
                world.rows.is_paused = step == Step::Pause;
                self.arrange(&mut world.rows);
            }
            Step::Resync => {
                self.close(world);
                let rows = &mut world.rows;
                rows.tasks.retain(|task| task.state == TaskState::Claimed);
                rows.tasks.iter_mut().for_each(|task| task.flag = Some(Flag::Resync));
                (rows.wants_resync, rows.is_paused, rows.is_blocked, rows.streak) = (true, false, false, 0);
            }
            Step::Unwatch => {
                self.close(world);
                world.rows.is_watched = false;
                if self.without != Without::Removal {
                    world.rows.tasks.clear();
                }
                world.valid.clear();
            }
            // The lanes of the old epoch live on, without knowing.
            Step::Takeover => world.rows.epoch += 1,
            Step::Backup => world.backup = Some(Box::new(world.rows.clone())),
            Step::Restore => self.restore(world),
            _ => {}
        }
    }

    /// The fence, and whether the lane planned from what the rows say still.
    fn begin(&self, world: &mut World, index: usize) {
        let Some(lane) = world.lanes[index].take() else { return };
        let rows = &world.rows;
        let is_new = lane.after == rows.last_round && lane.epoch == rows.epoch;
        let claimed = !rows.tasks.is_empty() && self.without != Without::Claims;
        let stands = rows.is_watched && !rows.is_paused && rows.open.is_none();
        if !(is_new || self.without == Without::Plan)
            || !stands
            || claimed
            || lane.resync != rows.wants_resync
        {
            return;
        }
        world.wasted |= lane.target != world.head && lane.after != rows.last_round;
        let number = world.next_round;
        world.next_round += 1;
        let settled = Settlements::default();
        let before = rows.last_round;
        let rows = &mut world.rows;
        rows.open = Some(OpenRound { number, target: lane.target, settled });
        (rows.last_round, rows.wants_resync) = (number, false);
        rows.ended.clear();
        rows.given.retain(|(round, _), _| *round >= before);
        world.tokens.retain(|token| token.round >= before);
        world.drawn.retain(|(round, _), _| *round >= before);
        world.lanes[index] = Some(Lane { round: Some(number), after: number, resync: false, ..lane });
    }

    fn hand_over(&self, world: &mut World, index: usize) {
        let Some(lane) = world.lanes[index].take() else { return };
        let (rows, Some(number)) = (&world.rows, lane.round) else { return };
        let is_owner = lane.epoch == rows.epoch || self.without == Without::Fence;
        let stale = OpenRound { number, target: lane.target, settled: Settlements::default() };
        let round = match rows.open.as_ref().filter(|round| round.number == number) {
            Some(round) => round,
            None if self.without == Without::Round && rows.open.is_some() => &stale,
            None => return,
        };
        if !is_owner || rows.is_paused || !rows.is_watched {
            return;
        }
        let places = self.more(rows, round);
        let deletes_ended = (0..self.deletes).all(|place| rows.ended.contains(&(number, place)));
        world.out_of_order |= places.end > self.deletes && !places.is_empty() && !deletes_ended;
        let rows = &mut world.rows;
        for place in places {
            let state = TaskState::Ready;
            rows.tasks.push(Task { round: number, place, state, attempts: 0, claim: None, flag: None });
        }
        rows.tasks.sort_by_key(|task| (task.round, task.place));
        self.arrange(rows);
        world.lanes[index] = Some(lane);
    }

    fn finish(&self, world: &mut World, index: usize) {
        let Some(lane) = world.lanes[index].take() else { return };
        let open = world.rows.open.as_ref().filter(|round| Some(round.number) == lane.round);
        let Some(round) = open.filter(|round| round.settled.position == CHANGES) else { return };
        if lane.epoch == world.rows.epoch {
            world.rows.held = Some(round.target);
            self.close(world);
        }
    }

    /// The open round ends; its ranges remain.
    fn close(&self, world: &mut World) {
        if let Some(round) = world.rows.open.take() {
            world.rows.before = Some((round.number, round.settled));
        }
    }

    fn claim(&self, world: &mut World) {
        let rows = &mut world.rows;
        let Some(index) = rows.tasks.iter().position(|task| task.state == TaskState::Ready) else { return };
        world.broke_block |= rows.is_blocked && index > 0;
        world.broke_pause |= rows.is_paused;
        let task = &mut rows.tasks[index];
        let at = (task.round, task.place);
        let id = world.drawn.entry(at).or_default();
        *id += 1;
        task.attempts += 1;
        (task.state, task.claim) = (TaskState::Claimed, Some(*id));
        world.valid.insert(at, *id);
        let given = rows.given.entry(at).or_default();
        *given += 1;
        world.miscounted |= *given > self.attempts;
        let (round, place) = at;
        world.tokens.insert(Token { round, place, id: *id, life: world.life, is_done: false });
    }

    /// A worker ends its task, or what it takes for its task.
    fn word(&self, world: &mut World, (round, place, id): (u8, u64, u8), end: End) {
        let Some(token) = world.token(round, place, id) else { return };
        let row = world.rows.tasks.iter().find(|task| (task.round, task.place) == (round, place));
        let is_held = row.is_some_and(|task| {
            task.state == TaskState::Claimed && (task.claim == Some(id) || self.without == Without::Bits)
        });
        if !is_held {
            let ranges = match (&world.rows.open, &world.rows.before) {
                (Some(open), _) if open.number == round => Some(&open.settled),
                (_, Some((number, settled))) if *number == round => Some(settled),
                _ => None,
            };
            let has_ended = ranges.is_some_and(|ranges| ranges.holds(place));
            let is_confirmed = row.is_none() && has_ended && self.without != Without::Confirmation;
            let is_known = world.rows.is_watched && token.life == world.life && ranges.is_some();
            world.forgotten |= token.is_done && is_known && !is_confirmed;
            world.confirmed |= is_confirmed && token.is_done;
            world.stale_refused |= !is_confirmed && !token.is_done;
            return;
        }
        world.stale_moved |= world.valid.get(&(round, place)) != Some(&id);
        if row.is_some_and(|task| task.flag == Some(Flag::Resync)) {
            self.remove(world, round, place);
            world.flag_ended = true;
            return;
        }
        self.end(world, round, place, end);
        if end == End::Success {
            world.tokens.remove(&token);
            world.tokens.insert(Token { is_done: true, ..token });
        }
    }

    fn run_out(&self, world: &mut World, round: u8, place: u64) {
        world.valid.remove(&(round, place));
        let Some(task) = world.rows.tasks.iter_mut().find(|task| (task.round, task.place) == (round, place))
        else {
            return;
        };
        task.claim = None;
        match task.flag {
            Some(Flag::Resync) => {
                self.remove(world, round, place);
                world.flag_ended = true;
            }
            Some(Flag::Cancel) => self.end(world, round, place, End::Letter),
            None if task.attempts >= self.attempts => {
                world.miscounted |= world.rows.given.get(&(round, place)) != Some(&self.attempts);
                self.end(world, round, place, End::Dead);
            }
            None => {
                task.state = TaskState::Ready;
                if self.without != Without::Return {
                    self.arrange(&mut world.rows);
                }
            }
        }
    }

    fn remove(&self, world: &mut World, round: u8, place: u64) {
        world.rows.tasks.retain(|task| (task.round, task.place) != (round, place));
        world.valid.remove(&(round, place));
        self.arrange(&mut world.rows);
    }

    /// The end of a task settles its change, in one transaction.
    fn end(&self, world: &mut World, round: u8, place: u64, end: End) {
        let rows = &mut world.rows;
        if let Some(open) = rows.open.as_mut().filter(|open| open.number == round) {
            let places = if self.per_round { 0..CHANGES } else { place..place + 1 };
            for place in places {
                world.ended_twice |= !rows.ended.insert((round, place));
            }
            match self.without {
                Without::Whole => world.ended_twice |= !open.settled.settle(place),
                _ if self.per_round => world.ended_twice |= !open.settled.settle_all(CHANGES),
                Without::Ranges => open.settled.position += 1,
                _ => world.ended_twice |= !open.settled.settle(place),
            }
        }
        match end {
            End::Success => {
                world.unblocked |= rows.is_blocked;
                (rows.is_blocked, rows.streak) = (false, 0);
            }
            End::Letter => {}
            End::Dead => {
                rows.streak += 1;
                rows.is_blocked |= rows.streak >= STREAK;
            }
        }
        self.remove(world, round, place);
    }

    /// Sets tasks aside that nobody may claim, and lets the others go on: a task is aside exactly while its
    /// watch is paused, or its cursor is blocked and it is not the oldest.
    fn arrange(&self, rows: &mut Rows) {
        let (is_paused, is_blocked) = (rows.is_paused, rows.is_blocked);
        for (index, task) in rows.tasks.iter_mut().enumerate() {
            if task.state == TaskState::Claimed {
                continue;
            }
            let is_first = index == 0 && self.without != Without::Oldest;
            let aside = is_paused || (is_blocked && !is_first);
            if aside && self.without == Without::Attempts {
                task.attempts = 0;
            }
            task.state = if aside { TaskState::Aside } else { TaskState::Ready };
        }
    }

    /// The rows of the backup, of a process that starts: rounds end, a resync is wanted, the watch is paused,
    /// and tokens are void.
    fn restore(&self, world: &mut World) {
        let Some(backup) = world.backup.take() else { return };
        let epoch = world.rows.epoch + 1;
        world.rows = Rows { epoch, is_paused: true, ..*backup };
        world.lanes = [None, None];
        world.valid.clear();
        world.life += 1;
        if self.without != Without::Voiding {
            self.close(world);
            world.rows.tasks.clear();
            world.rows.wants_resync = true;
        }
        self.arrange(&mut world.rows);
    }
}
