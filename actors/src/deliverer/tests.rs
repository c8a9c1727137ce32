//! The deliverer in a whole tree over in-memory ports, on paused time.

mod batches;
mod blocked;
mod by_hand;
mod doubts;
mod endpoint;
mod histories;
mod limits;
mod many_cursors;
mod pulled;
mod replays;
mod replicas;
mod rounds;
mod rows;
mod sinks;
mod survival;
mod unhappy;
mod walks;
