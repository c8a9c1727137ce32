//! The nouns that actors decide about: selectors, views, rounds, sinks, tasks, schedules, receipts,
//! permissions; and the words for them; pure.

pub mod codeq;
pub mod filter;
pub mod follow;
pub mod permission;
pub mod queue_name;
pub mod receipt;
pub mod round;
pub mod schedule;
pub mod secret;
pub mod selector;
pub mod settlement;
pub mod sink;
pub mod task;
pub mod view;
pub mod words;
