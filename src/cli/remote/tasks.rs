//! Commands about tasks: producers and workers, queues, and schedules.

pub(crate) mod queue;
pub(crate) mod schedule;
pub(crate) mod task;
pub(crate) mod worker;
