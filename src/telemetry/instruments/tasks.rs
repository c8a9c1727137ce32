//! The instruments about tasks, callbacks and worker subscriptions.

use super::Instrument;

/// Number of tasks that were created, since the process started.
pub const TASKS_CREATED: Instrument =
    Instrument::counter("tidings.tasks.created", "", &["queue"], "Tasks that were created.");
/// Number of claims of tasks, since the process started.
pub const TASKS_CLAIMED: Instrument = Instrument::counter(
    "tidings.tasks.claimed",
    "",
    &["queue"],
    "Tasks that were handed out to workers, each time that they were.",
);
/// Number of tasks that ended, since the process started, by state.
pub const TASKS_ENDED: Instrument = Instrument::counter(
    "tidings.tasks.ended",
    "",
    &["state", "queue"],
    "Tasks that ended. state: succeeded, failed (a worker gave the task up), dead (no attempt is left), \
     cancelled.",
);
/// Number of claims that ran out, since the process started.
pub const CLAIMS_RUN_OUT: Instrument = Instrument::counter(
    "tidings.tasks.claims.run_out",
    "",
    &["queue"],
    "Claims that ran out: the worker neither ended the task nor extended its claim in time.",
);
/// Time from ready to claimed, in seconds.
pub const TASK_QUEUED: Instrument = Instrument::seconds(
    "tidings.task.queued",
    &["queue"],
    "How long tasks were ready before a worker was given them.",
);
/// Time from creation to end, in seconds, by state.
pub const TASK_DURATION: Instrument = Instrument::seconds(
    "tidings.task.duration",
    &["state", "queue"],
    "How long tasks took from their creation to their end. state: as of ended tasks.",
);
/// Messages to the callbacks of tasks.
pub const CALLBACKS: Instrument = Instrument::counter(
    "tidings.callbacks",
    "",
    &["outcome"],
    "Messages to the webhooks of tasks. outcome: taken, refused (for good), not_taken (sent again later) or \
     gone (410: nothing is sent there any more).",
);
/// Number of worker subscriptions.
pub const WORKER_SUBSCRIPTIONS: Instrument =
    Instrument::gauge("tidings.worker_subscriptions", "", &[], "Worker subscriptions that have not ended.");
/// Messages to worker subscriptions.
pub const WORK_TOLD: Instrument = Instrument::counter(
    "tidings.work_told",
    "",
    &["outcome"],
    "Messages to worker subscriptions. outcome: taken, not_taken, or left_out (the limit of messages at once \
     was reached).",
);
/// Number of tasks, by state.
pub const TASKS: Instrument = Instrument::gauge(
    "tidings.tasks",
    "",
    &["state", "queue"],
    "Tasks of all queues. state: waiting, ready, claimed, aside; ended ones until they are forgotten: \
     succeeded, failed, dead, cancelled. `tidings queue list --for APP` shows the queues of an app.",
);
/// Number of unfinished tasks that watches made, by state.
pub const WATCH_TASKS: Instrument = Instrument::gauge(
    "tidings.watch.tasks",
    "",
    &["state"],
    "Unfinished tasks that watches made of changes. state: waiting, ready, claimed, aside (set aside by a \
     pause or a block).",
);
/// Number of branches that hand no change over now, by reason.
pub const HAND_OVERS_WAITING: Instrument = Instrument::gauge(
    "tidings.watch.hand_overs.waiting",
    "",
    &["reason"],
    "Branches with an open round of which no further change becomes a task now. reason: deletes (creates \
     wait until every delete has ended), window (the branch has as many unfinished tasks as its window \
     allows), queue (many tasks of the queue are not claimed), app (the app has half of the open tasks, or \
     of their bytes, that it may have, those of producers included). `tidings repository show` names the \
     reason of each branch.",
);
/// Number of changes that became tasks, since the process started.
pub const HANDED_OVER: Instrument = Instrument::counter(
    "tidings.watch.tasks.handed_over",
    "",
    &[],
    "Changes of watches that became tasks. They are not among the tasks that were created.",
);
/// Number of tasks of watches that ended, since the process started, by outcome.
pub const WATCH_TASKS_ENDED: Instrument = Instrument::counter(
    "tidings.watch.tasks.ended",
    "",
    &["outcome"],
    "Tasks of watches that ended. outcome: succeeded; failed, dead and cancelled, whose changes are dead \
     letters; overtaken (the round had ended early, so the end settled nothing). Tasks that a resync or an \
     unwatch removed are not counted.",
);
