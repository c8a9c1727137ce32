//! The deliverer in a whole tree over in-memory ports, on paused time.

mod blocked;
mod endpoint;
mod rounds;
mod rows;
mod survival;
